"""What the verifiers of signed tokens share: the form of their envelopes, trusted keys, and times."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from strongroom.errors import FormatError
from strongroom.evidence import jose
from strongroom.evidence.envelope import Envelope
from strongroom.evidence.jose import Key, Token
from strongroom.evidence.model import Checks
from strongroom.evidence.policy import Policy
from strongroom.evidence.trust import Trust
from strongroom.shapes import format_time

# How far the issuer's clock may be ahead of ours. The end of a token's time has no such grace.
CLOCK_SKEW = timedelta(seconds=60)
NEVER_COMPARED = "No context was given, so what the evidence is bound to was not compared."

_LATEST = 1 << 36  # year 4147: beyond it, a time is a mistake, and some systems cannot hold it


@dataclass(frozen=True, slots=True)
class Window:
    """From when until when something is valid."""

    name: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that a token's signature may be by, and a sentence about where they come from."""

    found: Sequence[RSAPublicKey]
    detail: str


def read(envelope: Envelope, *, optional: Collection[str] = ()) -> Token:
    """The envelope's one token. `optional`: parts that may come with it. Raises FormatError."""
    if not {"token"} <= set(envelope.parts) <= {"token", *optional} or not set(envelope.collateral) <= {
        "jwks"
    }:
        more = f", may have the part {', '.join(optional)}" if optional else ""
        raise FormatError(
            f"Evidence of type {envelope.type} has the part token{more} and may have the collateral jwks, nothing else."
        )
    return jose.read(envelope.parts["token"])


def check_algorithm(checks: Checks, token: Token) -> bool:
    return checks.require(
        "algorithm",
        token.algorithm == jose.ALGORITHM,
        f"The token is signed with {jose.ALGORITHM}, the one algorithm that its issuer uses.",
        f"The token's header does not name {jose.ALGORITHM}: unsigned tokens and other algorithms are refused.",
    )


def trusted_keys(trust: Trust, purpose: str, issuer: str) -> list[Key]:
    """The keys that the verifier holds for one issuer. Raises FormatError for an anchor that is not a key set."""
    return [key for anchor in trust.find(purpose, issuer=issuer) for key in jose.key_set(anchor.data)]


def choose(keys: Sequence[Key], kid: str | None) -> list[RSAPublicKey]:
    """The keys named `kid`. A token that names none may only be by a key that is the only one."""
    if kid is not None:
        return [key.public for key in keys if key.kid == kid]
    distinct = {key.public.public_numbers(): key.public for key in keys}
    return list(distinct.values()) if len(distinct) == 1 else []


def check_key(
    checks: Checks,
    envelope: Envelope,
    token: Token,
    trust: Trust,
    *,
    purpose: str,
    issuer: str,
    need_kid: bool,
) -> Sequence[RSAPublicKey]:
    """Find the key of an issuer in the trust store; judge a key set that came with the evidence by it alone."""
    brought = "jwks" in envelope.collateral
    try:
        held = trusted_keys(trust, purpose, issuer)
    except FormatError as error:
        checks.failed("trust-anchor", f"The trust store's key set for {issuer} cannot be read: {error}")
        return ()
    if need_kid and token.kid is None:
        checks.failed("trust-anchor", "The token's header does not name its key (kid).")
        return ()
    found = choose(held, token.kid)
    name = "without a name" if token.kid is None else f"named {token.kid}"
    if found:
        checks.passed("trust-anchor", f"The trust store holds the key {name} of {issuer}.")
    else:
        checks.failed("trust-anchor", _no_key(len(held), name, issuer, brought=brought))
    if brought:
        _check_brought(checks, envelope.collateral["jwks"], held, issuer)
    return found


def _no_key(held: int, name: str, issuer: str, *, brought: bool) -> str:
    if name == "without a name" and held:
        return (
            f"The token does not name its key (kid), and the trust store holds {held} keys of {issuer}, so which one it "
            "should be is not known."
        )
    have = f"{held} keys of {issuer}, none {name}" if held else f"no key of {issuer}"
    if brought:
        return (
            f"The trust store holds {have}. A key set came with the evidence, but nothing in it shows that it is the "
            "issuer's: it counts only once you have compared it with what the issuer publishes and added it to the "
            "trust store."
        )
    return f"The trust store holds {have}. Add the key set that the issuer published on the day of the token."


def _check_brought(checks: Checks, data: bytes, held: Sequence[Key], issuer: str) -> None:
    """Nothing rests on a key set in the evidence; it must only not say anything else than the trust store does."""
    try:
        brought = jose.key_set(data)
    except FormatError as error:
        checks.failed("collateral", f"The key set that came with the evidence cannot be read: {error}")
        return
    known = {(key.kid, key.public.public_numbers()) for key in held}
    checks.require(
        "collateral",
        bool(brought) and all((key.kid, key.public.public_numbers()) in known for key in brought),
        "The trust store holds every key of the key set that came with the evidence.",
        f"The key set that came with the evidence has keys that the trust store does not hold for {issuer}, and nothing "
        "shows that they are the issuer's. Leave it out, or compare it with what the issuer publishes and add it.",
    )


def check_signature(checks: Checks, token: Token, keys: Sequence[RSAPublicKey]) -> None:
    if token.algorithm != jose.ALGORITHM or not keys:
        why = "no trusted key was found for it" if not keys else "the token names another algorithm"
        checks.not_available("signature", f"The signature was not verified, because {why}.")
        return
    checks.require(
        "signature",
        jose.verify(token, keys),
        "The token is signed by the trusted key.",
        "The signature does not match the token: one of them was changed, or another key made it.",
    )


def check_times(
    checks: Checks,
    token: Token,
    envelope: Envelope,
    policy: Policy,
    now: datetime,
    windows: Sequence[Window] = (),
) -> datetime | None:
    """Judge the token's own times, those of its certificates, its age, and the envelope's time. Gives `iat`.

    A token lives from nbf to exp; how old it may be is the policy's word, counted from iat, which is signed. So a
    token with a far exp gains nothing by it.
    """
    issued, start, end = (_moment(token.claims.get(name)) for name in ("iat", "nbf", "exp"))
    _check_validity(checks, issued, start, end, windows, now)
    if issued is None:
        return None
    age = now - issued
    checks.require(
        "age",
        -CLOCK_SKEW <= age <= timedelta(seconds=policy.max_age_seconds),
        "The token was fresh when it was verified.",
        f"The token was issued {age.total_seconds():.0f} seconds before {format_time(now)}; the policy accepts up to "
        f"{policy.max_age_seconds}, and none from the future.",
    )
    checks.require(
        "collected",
        end is not None
        and envelope.collected - issued >= -CLOCK_SKEW
        and envelope.collected < end
        and envelope.collected - now <= CLOCK_SKEW,
        "The time of collection in the envelope lies within the token's own.",
        "The time of collection in the envelope does not lie within the token's own, or lies in the future.",
    )
    return issued


def _check_validity(
    checks: Checks,
    issued: datetime | None,
    start: datetime | None,
    end: datetime | None,
    windows: Sequence[Window],
    now: datetime,
) -> None:
    if issued is None or start is None or end is None:
        checks.failed(
            "validity", "The token does not say when it was issued and from when to when it is valid."
        )
        return
    windows = (Window("token", start - CLOCK_SKEW, end), *windows)
    wrong = [w.name for w in windows if not w.start <= now < w.end]
    at = format_time(now)
    checks.require(
        "validity",
        not wrong and issued < end,
        f"The {'token is' if len(windows) == 1 else 'token and its certificates are'} valid at {at}.",
        f"At {at} the {' and the '.join(wrong) or 'token'} is not valid: it is for another time.",
    )


def _moment(value: Any) -> datetime | None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < _LATEST:
        return None
    return datetime.fromtimestamp(value, UTC)


def member(value: Any, *path: str) -> Any:
    """What stands at a path of names in nested objects; None where there is nothing, or no object on the way."""
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def text(value: Any, *path: str, most: int = 512) -> str | None:
    """Like `member`, for a text that is not empty; None for anything else."""
    found = member(value, *path)
    return found if isinstance(found, str) and 0 < len(found) <= most else None


def texts(value: Any, *path: str, most: int = 512) -> list[str] | None:
    """Like `member`, for a list of texts; None for anything else."""
    found = member(value, *path)
    if not isinstance(found, list) or len(found) > most or not all(isinstance(item, str) for item in found):
        return None
    return found
