"""What a portal says to a custodian's key broker, signed: one form for its authorisations and its questions.

    document  = JCS({"v": 1, "purpose", "portal", "broker", ..., "issued", "expires"})
    signature = Ed25519 over "strongroom/1/" purpose 0x00 document, by the portal's verdict key

A document lives for minutes; the broker holds the portal's key from another source. The label keeps a signature from
standing for any other of the same key.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from strongroom import contexts, shapes, signing, strictjson
from strongroom.broker.errors import Refusal
from strongroom.signing import SigningKey

LIFETIME = timedelta(minutes=15)
CLOCK_SKEW = timedelta(seconds=60)
MAX_BYTES = 4 << 20


def sign(
    key: SigningKey,
    purpose: str,
    more: Mapping[str, shapes.Checker],
    said: Mapping[str, Any],
    *,
    portal: str,
    broker: str,
    now: datetime,
) -> dict[str, str]:
    """{"document", "signature"}, both base64. `more`: the shapes of the members in `said`. Raises FormatError."""
    document = shapes.fields(
        {
            "v": 1,
            "purpose": purpose,
            "portal": portal,
            "broker": broker,
            **said,
            "issued": shapes.format_time(now),
            "expires": shapes.format_time(now + LIFETIME),
        },
        _where(purpose),
        _shape(purpose, more),
    )
    raw = strictjson.canonical(document)
    signature = key.sign(_label(purpose) + raw)
    return {"document": shapes.b64_encode(raw), "signature": shapes.b64_encode(signature)}


def verify(
    value: Any,
    purpose: str,
    more: Mapping[str, shapes.Checker],
    *,
    portal: str,
    key: bytes,
    broker: str,
    now: datetime,
) -> dict[str, Any]:
    """The document: signed by `key`, for this broker, of this portal, and in time.

    Raises FormatError, Refusal (authorisation_refused).
    """
    where = _where(purpose)
    envelope = shapes.fields(value, where, {"document": shapes.b64(), "signature": shapes.b64(64)})
    raw = shapes.b64_decode(envelope["document"], where)
    if not signing.verify(key, shapes.b64_decode(envelope["signature"], "signature"), _label(purpose) + raw):
        raise refused("It is not signed by the portal key that this broker trusts.")
    document = shapes.fields(
        strictjson.loads_canonical(raw, max_bytes=MAX_BYTES, what=where), where, _shape(purpose, more)
    )
    if (document["portal"], document["broker"]) != (portal, broker):
        raise refused("It is for another broker, or of another portal.")
    issued, expires = (shapes.parse_time(document[m], m) for m in ("issued", "expires"))
    if not (issued - CLOCK_SKEW <= now < expires <= issued + LIFETIME):
        raise refused("It has expired, or is from the future.")
    return document


def refused(why: str) -> Refusal:
    """The one refusal of a portal's word; `why` is a sentence."""
    return Refusal(403, "authorisation_refused", f"The portal's authorisation cannot be accepted. {why}")


def _label(purpose: str) -> bytes:
    return f"strongroom/1/{purpose}\x00".encode()


def _where(purpose: str) -> str:
    return "The authorisation" if purpose == "key-authorisation" else "The question"


def _shape(purpose: str, more: Mapping[str, shapes.Checker]) -> dict[str, shapes.Checker]:
    return {
        "v": shapes.exactly(1),
        "purpose": shapes.exactly(purpose),
        "portal": contexts.portal_id,
        "broker": contexts.broker_id,
        **more,
        "issued": shapes.time_text,
        "expires": shapes.time_text,
    }
