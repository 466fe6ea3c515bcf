"""A real Azure Attestation token, as ../shared/vectors/expected.json says.

Its key was recovered from two tokens that share it, and its hash is the token's kid. So these tests show that the
rules fit what the service really issues; that Microsoft holds the key they do not show. A deployment pins the keys
that its own provider publishes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom import evidence
from strongroom.evidence import Anchor, Appraisal, Policy, Tier, Trust, envelope, jose

VECTORS = Path(__file__).resolve().parents[5] / "shared" / "vectors"
pytestmark = pytest.mark.skipif(
    not (VECTORS / "expected.json").is_file(),
    reason="the folder ../shared/vectors with real evidence is not there",
)

TYPE = "azure-maa"
ISSUER = "https://sharedeus2.eus2.attest.azure.net"
HASH = "QsNi9UE365SgcskuV_a4p-uFQyGlNcIlQkrsi0UIy7o"
AT = 1765830000
VM = "ABD9EA99-D837-4F68-AD3E-C87C88006AFA"
POLICY = replace(
    Policy.any(),
    maa={ISSUER: [HASH]},
    tees=("sev-snp",),
    tcb={"Milan": {"bootloader": 4, "tee": 0, "snp": 24, "microcode": 219}},
)


def read(name: str) -> bytes:
    return (VECTORS / name).read_bytes()


def recovered() -> Trust:
    data = read("midnight-maa/jwks_sharedeus2_recovered.json")
    anchor = Anchor("maa-jwks", "recovered key", hashlib.sha256(data).hexdigest(), issuer=ISSUER, data=data)
    return Trust(anchors=(anchor,))


def judge(
    token: bytes, policy: Policy = POLICY, nonce: str | bytes | None = None, at: int = AT, **changes: Any
) -> Appraisal:
    now = datetime.fromtimestamp(at, UTC)
    made = envelope.build(TYPE, {"token": token}, collected=now, collateral=changes.pop("collateral", None))
    return evidence.verify(
        made, policy, now=now, expected_nonce=nonce, trust=changes.pop("trust", recovered())
    )


def sets(appraisal: Appraisal) -> tuple[set[str], set[str]]:
    found = {
        outcome: {c.id for c in appraisal.checks if c.outcome == outcome}
        for outcome in ("fail", "not_available")
    }
    return found["fail"], found["not_available"]


def token() -> bytes:
    return read("midnight-maa/attestation.txt").strip()


def test_the_recovered_key_has_the_name_that_the_token_gives() -> None:
    (key,) = jose.key_set(read("midnight-maa/jwks_sharedeus2_recovered.json"))
    pem = key.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    names = {base64.b64encode(hashlib.sha256(text + b"\0").digest()).decode() for text in (pem, pem.strip())}
    assert key.kid == jose.read(token()).kid and key.kid in names


def test_a_real_token_verifies_and_shows_no_code_and_no_fresh_context() -> None:
    appraisal = judge(token())
    assert sets(appraisal) == (set(), {"nonce", "code"}) and appraisal.tier is Tier.WARNING
    said = appraisal.claims
    assert said["tee"] == "sev-snp" and said["instance"] == VM and said["debug"] is False
    assert said["tcb"] == {"bootloader": 4, "tee": 0, "snp": 24, "microcode": 219}
    assert said["code"]["measurement"].startswith("6a063be9dd79f637") and "image" not in said


@pytest.mark.parametrize("nonce", [b"midnight-srs", "A" * 43, b"\0" * 64])
def test_the_static_nonce_in_its_client_payload_is_no_binding(nonce: str | bytes) -> None:
    assert sets(judge(token(), nonce=nonce)) == ({"nonce"}, {"code"})


@pytest.mark.parametrize(
    ("changes", "fails"),
    [
        ({"maa": {ISSUER: ["wm9mHlvTU82e8UqoOy1Yj1FBRSNkfe99-69IYDq9eWs"]}}, {"policy-identity"}),
        ({"maa": {"https://other.eus2.attest.azure.net": [HASH]}}, {"issuer", "policy-identity"}),
        ({"tcb": {"Milan": {"microcode": 220}}}, {"tcb"}),
        ({"tees": ("tdx",)}, {"tee"}),
        ({"max_age_seconds": 600}, {"age"}),
    ],
)
def test_policies_that_it_does_not_meet(changes: dict[str, Any], fails: set[str]) -> None:
    assert sets(judge(token(), replace(POLICY, **changes)))[0] == fails


def test_without_the_key_and_with_it_in_the_evidence_only() -> None:
    assert sets(judge(token(), trust=Trust.of()))[0] == {"trust-anchor"}
    brought = {"jwks": read("midnight-maa/jwks_sharedeus2_recovered.json")}
    assert sets(judge(token(), trust=Trust.of(), collateral=brought))[0] == {"trust-anchor", "collateral"}
    assert sets(judge(token(), collateral=brought))[0] == set()


@pytest.mark.parametrize("seconds", [-86400, 28800])
def test_at_another_time(seconds: int) -> None:
    assert "validity" in sets(judge(token(), at=AT + seconds))[0]


def test_flipped_bits() -> None:
    good = token()
    for position in range(0, len(good) * 8, 61):
        changed = bytearray(good)
        changed[position // 8] ^= 1 << position % 8
        assert not judge(bytes(changed)).ok


def test_an_old_signing_certificate_has_too_short_a_key() -> None:
    """Microsoft signed with 1024 bits in 2021. Such a key is left out, so nothing verifies by it."""
    pem = read("azure-maa-samples/maa.prod.uks.signing.cert.pem").split(b"-----")[2]
    entry = {"kty": "RSA", "kid": "a", "x5c": [base64.b64encode(base64.b64decode(pem)).decode()]}
    assert jose.key_set(json.dumps({"keys": [entry]}).encode()) == ()


def test_claims_of_a_windows_machine_of_2022_signed_by_an_authority_of_ours() -> None:
    """Decoded claims without a token: the rules fit them, but for what that time did not have (user-data)."""
    from tests.unit.strongroom.evidence import authority_tokens as authority

    claims = json.loads(read("azure-guest-attestation/sampleAttestationToken.json"))
    provider = authority.Maa(claims["iss"], "windows")
    policy = replace(Policy.any(), maa={claims["iss"]: [claims["x-ms-policy-hash"]]})
    trust = Trust(anchors=provider.anchors)
    made = judge(provider.token(claims), policy, at=claims["iat"] + 9, trust=trust)
    assert sets(made) == (set(), {"nonce", "code", "tcb"})
    bound = judge(provider.token(claims), policy, authority.NONCE, at=claims["iat"] + 9, trust=trust)
    assert sets(bound)[0] == {"nonce"}
