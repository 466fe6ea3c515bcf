"""Checks that every kind of raw hardware evidence has in common: what it is bound to, how old it is, what it is."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from strongroom import shapes
from strongroom.evidence.envelope import Envelope
from strongroom.evidence.model import Checks
from strongroom.evidence.policy import Policy

CLOCK_SKEW = timedelta(seconds=60)
REPORT_DATA_SIZE = 64

NOT_COMPARED = "No context was given, so what the evidence is bound to was not compared."
OTHER_CONTEXT = "The evidence is bound to another context: it was made for another run, purpose or set of files, or for none."


def expected_bytes(expected: str | bytes) -> bytes:
    """The bytes that stand for a context in hardware fields: the 32 of n1 or n2, or literal bytes as they are.

    Empty where `expected` is text of another form: nothing is bound to that, and no field matches it.
    """
    if isinstance(expected, bytes):
        return expected
    try:
        raw = base64.b64decode(expected + "=" * (-len(expected) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return b""
    return raw if len(raw) == 32 and shapes.b64url_encode(raw) == expected else b""


def holds(field: bytes, expected: str | bytes, size: int = REPORT_DATA_SIZE) -> bool:
    """Whether a field of `size` bytes holds the expected bytes and then zeros. A field of zeros holds nothing."""
    wanted = expected_bytes(expected)
    return any(wanted) and len(wanted) <= size and field == wanted.ljust(size, b"\x00")


def check_nonce(checks: Checks, field: bytes, expected: str | bytes | None, name: str) -> None:
    """Check `nonce`: the field that the hardware signed holds the expected bytes. `name`: the field, for people."""
    if expected is None:
        checks.not_available("nonce", NOT_COMPARED)
        return
    checks.require(
        "nonce",
        holds(field, expected),
        f"The evidence is bound to this context: {name} holds its hash.",
        f"{OTHER_CONTEXT} ({name} is {'all zero' if not any(field) else 'another value'}.)",
    )


def check_age(checks: Checks, envelope: Envelope, policy: Policy, now: datetime) -> None:
    """Check `age`, by the envelope's own, unsigned time: what makes old evidence useless is the nonce."""
    age = now - envelope.collected
    checks.require(
        "age",
        -CLOCK_SKEW <= age <= timedelta(seconds=policy.max_age_seconds),
        "The evidence was fresh when it was verified, by the time that its envelope names.",
        f"The evidence is {age.total_seconds():.0f} seconds old at {shapes.format_time(now)}; the policy accepts "
        f"up to {policy.max_age_seconds}, and none from the future.",
    )


def check_tee(checks: Checks, tee: str, policy: Policy) -> None:
    """Check `tee`: the kind of environment is one that the policy accepts, or the policy asks for none."""
    checks.require(
        "tee",
        not policy.tees or tee in policy.tees,
        f"The evidence comes from an environment of the kind {tee}.",
        f"The policy does not accept environments of the kind {tee}. It accepts: {', '.join(policy.tees)}.",
    )


def check_place(checks: Checks, policy: Policy) -> None:
    """Check `place` for evidence that names no zone and no project: never a pass where the policy asks for one."""
    asked = " and ".join(name for name in ("zones", "projects") if getattr(policy, name))
    detail = "Evidence of this type does not say in which zone or for which project the machine runs."
    if asked:
        detail += f" The policy asks for {asked}, so it cannot be met by this type."
    checks.not_available("place", detail)


def required(policy: Policy, ids: frozenset[str]) -> frozenset[str]:
    """`ids`, and `place` where the policy asks for one."""
    return ids | {"place"} if policy.zones or policy.projects else ids


def check_code(
    checks: Checks, entries: list[Mapping[str, Any]], policy: Policy, shown: str, matches: Any
) -> str | None:
    """Checks `code` and `image`: the reference values of an accepted image match. Returns that image.

    `entries`: the policy's reference values for this type; `matches`: a function of one entry; `shown`: what was
    measured, for people.
    """
    if not entries:
        why = "for an accepted image " if policy.images else ""
        detail = f"The policy gives no reference values {why}for this type, so which program runs was not compared."
        checks.not_available("code", detail)
        checks.not_available("image", "No runner image is known for these measurements.")
        return None
    for entry in entries:
        if matches(entry):
            image = str(entry["image"])
            checks.passed("code", f"The measurements are the reference values of an accepted image: {shown}.")
            checks.passed("image", f"By those reference values the machine runs the runner image {image}.")
            return image
    checks.failed("code", f"The measurements match no reference values of the policy: {shown}.")
    checks.not_available("image", "No runner image is known for these measurements.")
    return None
