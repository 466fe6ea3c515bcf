"""Verification of evidence about where a run ran. No network here, and the time is an argument.

`verify(envelope, policy, now=..., expected_nonce=..., trust=...)` gives an Appraisal: a list of checks, each pass,
fail or not available, with a sentence; and a tier. It never raises for anything that the evidence holds.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from datetime import datetime
from functools import cache

from strongroom.errors import FormatError
from strongroom.evidence import envelope as _envelope
from strongroom.evidence.envelope import TYPES, Envelope
from strongroom.evidence.model import Appraisal, Check, Checks, Outcome, Tier, combined
from strongroom.evidence.policy import Policy
from strongroom.evidence.trust import Anchor, Trust

__all__ = [
    "SUPPORTED",
    "TYPES",
    "Anchor",
    "Appraisal",
    "Check",
    "Checks",
    "Outcome",
    "Policy",
    "Tier",
    "Trust",
    "combined",
    "digest",
    "verify",
]

_Verifier = Callable[..., Appraisal]
# Loaded when evidence of the type is met: a command line that only looks at software evidence starts quickly.
_MODULES = {
    "software": "software",
    "gcp-confidential-space": "gcp",
    "azure-maa": "maa",
    "snp": "snp",
    "tdx": "tdx",
    "azure-aci": "azure_aci",
    "azure-cvm": "azure_cvm",
}
SUPPORTED = tuple(_MODULES)


@cache
def _verifier(type_: str) -> _Verifier:
    module = importlib.import_module(f"strongroom.evidence.{_MODULES[type_]}")
    found: _Verifier = module.verify
    return found


def digest(envelope: bytes) -> str:
    """The hash that stands for a piece of evidence: hex SHA-256 of the envelope's bytes."""
    return hashlib.sha256(envelope).hexdigest()


def verify(
    envelope: bytes, policy: Policy, *, now: datetime, expected_nonce: str | bytes | None, trust: Trust
) -> Appraisal:
    """Appraise evidence.

    `envelope`: the exact bytes. `now`: the aware time to judge freshness at; for old evidence, the time at which it
    was received, from a source that is itself verified. `expected_nonce`: n1 or n2 of the context that the evidence
    must be bound to, or, as bytes, the literal content of the field that binds (foreign evidence); None leaves the
    binding unchecked, and the appraisal says so. `trust`: keys of the verifier.
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
    appraisal = _verifier(parsed.type)(parsed, policy, now=now, expected_nonce=expected_nonce, trust=trust)
    accepted = Check("type", Outcome.PASS, f"The policy accepts evidence of type {parsed.type}.")
    return Appraisal(appraisal.type, appraisal.tier, (accepted, *appraisal.checks), appraisal.claims)


def _refuse_type(parsed: Envelope, policy: Policy) -> Appraisal | None:
    if parsed.type not in _MODULES:
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
