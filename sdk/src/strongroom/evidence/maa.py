"""Azure Attestation: a token in which Microsoft says what it verified about an SNP report, a TD quote or a vTPM.

Anybody may open an attestation provider of their own with a policy that accepts everything, and its tokens are signed
by Microsoft as well. So the issuer and the hash of its policy are pinned by the release policy, and the keys by the
trust store, per issuer; the address in the header (`jku`) is compared and never followed.
What the claims must say is in maa_claims.py. Source: "Azure Attestation claim sets" and "EAT profile for TDX" of
Microsoft's documentation; docs/reference/evidence/azure-maa.md.
"""

from __future__ import annotations

import re
from datetime import datetime

from strongroom import shapes
from strongroom.errors import FormatError
from strongroom.evidence import maa_claims, tokens
from strongroom.evidence.envelope import Envelope
from strongroom.evidence.jose import Token
from strongroom.evidence.model import Appraisal, Checks, Tier, hardware_tier
from strongroom.evidence.policy import Policy
from strongroom.evidence.tokens import text
from strongroom.evidence.trust import Trust

TYPE = "azure-maa"

_ISSUER = re.compile(r"https://[a-z0-9][a-z0-9.-]{0,252}")
_MAX_RUNTIME_DATA = 64 << 10


def verify(
    envelope: Envelope, policy: Policy, *, now: datetime, expected_nonce: str | bytes | None, trust: Trust
) -> Appraisal:
    """Appraise a parsed envelope of this type. Never raises for anything in the envelope."""
    checks = Checks()
    try:
        token = tokens.read(envelope, optional=("runtime-data",))
        runtime_data = envelope.parts.get("runtime-data")
        if runtime_data is not None and len(runtime_data) > _MAX_RUNTIME_DATA:
            raise FormatError(f"The runtime data are longer than {_MAX_RUNTIME_DATA} bytes.")
    except FormatError as error:
        checks.failed("format", str(error))
        return Appraisal(TYPE, Tier.CONTRAINDICATED, tuple(checks.items))
    checks.passed("format", "The evidence is one signed token, with no part that does not belong to it.")
    tokens.check_algorithm(checks, token)
    issuer = _check_issuer(checks, token, policy)
    keys = tokens.check_key(checks, envelope, token, trust, purpose="maa-jwks", issuer=issuer, need_kid=True)
    tokens.check_signature(checks, token, keys)
    issued = tokens.check_times(checks, token, envelope, policy, now)
    _check_policy(checks, token, policy, issuer)
    claims, required = maa_claims.judge(checks, token.claims, policy, expected_nonce, runtime_data)
    if issued is not None:
        claims["collected"] = shapes.format_time(issued)
    if keys:
        claims["attester"] = f"{issuer} {token.kid}"
    tier = hardware_tier(checks.items, required=required)
    return Appraisal(TYPE, tier, tuple(checks.items), claims)


def _check_issuer(checks: Checks, token: Token, policy: Policy) -> str:
    """The issuer, whose keys are then looked up in the trust store; "" where the token has none of the right form."""
    issuer = text(token.claims, "iss")
    if issuer is None or not _ISSUER.fullmatch(issuer):
        checks.failed(
            "issuer", "The token names no attestation provider as its issuer (https://, a name, no path)."
        )
        return ""
    if "jku" in token.header and token.header["jku"] != f"{issuer}/certs":
        checks.failed(
            "issuer",
            "The token's header says that its keys lie elsewhere than at its issuer (jku is not iss/certs).",
        )
    elif not policy.maa:
        checks.not_available(
            "issuer", f"The policy names no attestation provider, so {issuer} was not compared."
        )
    else:
        checks.require(
            "issuer",
            issuer in policy.maa,
            f"The policy accepts the attestation provider {issuer}.",
            f"The policy does not accept the attestation provider {issuer}: anybody may open one, with rules of their own.",
        )
    return issuer


def _check_policy(checks: Checks, token: Token, policy: Policy, issuer: str) -> None:
    found = text(token.claims, "x-ms-policy-hash")
    if found is None:
        checks.failed(
            "policy-identity", "The token does not say by which policy of its provider it was issued."
        )
    elif not policy.maa:
        checks.not_available("policy-identity", "The policy names no hash of a provider's policy to compare.")
    else:
        checks.require(
            "policy-identity",
            found in policy.maa.get(issuer, ()),
            "The provider applied a policy that this policy accepts.",
            f"The provider applied a policy with the hash {found}, which this policy does not accept for it.",
        )
