"""Verification of evidence about where a run ran. No network here, and the time is an argument.

`verify(envelope, policy, now=..., expected_nonce=..., trust=...)` gives an Appraisal: a list of checks, each pass,
fail or not available, with a sentence; and a tier. It never raises for anything that the evidence holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime

from strongroom.errors import FormatError
from strongroom.evidence import envelope as _envelope
from strongroom.evidence import software
from strongroom.evidence.envelope import TYPES, Envelope
from strongroom.evidence.model import Appraisal, Check, Checks, Outcome, Tier
from strongroom.evidence.policy import Policy, Trust

__all__ = [
    "SUPPORTED",
    "TYPES",
    "Appraisal",
    "Check",
    "Checks",
    "Outcome",
    "Policy",
    "Tier",
    "Trust",
    "digest",
    "verify",
]

_Verifier = Callable[..., Appraisal]
_VERIFIERS: dict[str, _Verifier] = {software.TYPE: software.verify}
SUPPORTED = tuple(_VERIFIERS)


def digest(envelope: bytes) -> str:
    """The hash that stands for a piece of evidence: hex SHA-256 of the envelope's bytes."""
    return hashlib.sha256(envelope).hexdigest()


def verify(
    envelope: bytes, policy: Policy, *, now: datetime, expected_nonce: str | None, trust: Trust
) -> Appraisal:
    """Appraise evidence.

    `envelope`: the exact bytes. `now`: the aware time to judge freshness at; for old evidence, the time at which it
    was received, from a source that is itself verified. `expected_nonce`: n1 or n2 of the context that the evidence
    must be bound to; None leaves the binding unchecked, and the appraisal says so. `trust`: keys of the verifier.
    Raises FormatError only for a `now` without a time zone.
    """
    if now.tzinfo is None:
        raise FormatError("The time to verify at must have a zone: pass an aware datetime.")
    try:
        parsed = _envelope.parse(envelope)
    except FormatError as error:
        return _refused("unknown", "format", str(error))
    refusal = _refuse_type(parsed, policy)
    if refusal is not None:
        return refusal
    appraisal = _VERIFIERS[parsed.type](parsed, policy, now=now, expected_nonce=expected_nonce, trust=trust)
    accepted = Check("type", Outcome.PASS, f"The policy accepts evidence of type {parsed.type}.")
    return Appraisal(appraisal.type, appraisal.tier, (accepted, *appraisal.checks), appraisal.claims)


def _refuse_type(parsed: Envelope, policy: Policy) -> Appraisal | None:
    if parsed.type not in _VERIFIERS:
        return _refused(
            parsed.type,
            "type",
            f"Evidence of type {parsed.type} is not supported by this version, so nothing in it was verified. "
            "Update strongroom and verify again.",
        )
    if parsed.type not in policy.types:
        return _refused(
            parsed.type,
            "type",
            f"The policy does not accept evidence of type {parsed.type}. It accepts: {', '.join(policy.types)}.",
        )
    return None


def _refused(type_: str, id_: str, detail: str) -> Appraisal:
    return Appraisal(type_, Tier.CONTRAINDICATED, (Check(id_, Outcome.FAIL, detail),))
