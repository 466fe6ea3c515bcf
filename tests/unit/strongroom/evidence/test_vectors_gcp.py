"""Real Confidential Space tokens, and tokens of that shape under test keys: each as ../shared/vectors/expected.json says."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from strongroom import evidence
from strongroom.evidence import Anchor, Appraisal, Policy, Tier, Trust, envelope, jose

VECTORS = Path(__file__).resolve().parents[5] / "shared" / "vectors"
pytestmark = pytest.mark.skipif(
    not (VECTORS / "expected.json").is_file(),
    reason="the folder ../shared/vectors with real evidence is not there",
)

TYPE = "gcp-confidential-space"
ISSUER = "https://confidentialcomputing.googleapis.com"
# What a token's signature, chain and times say, apart from what its claims say.
CRYPTO = {
    "format",
    "algorithm",
    "issuer",
    "trust-anchor",
    "chain",
    "signature",
    "validity",
    "age",
    "collected",
}
DEBUG = {"debug", "support"}


def read(name: str) -> bytes:
    return (VECTORS / name).read_bytes()


def expected(name: str) -> dict[str, Any]:
    (found,) = [entry for entry in json.loads(read("expected.json"))["gcp"] if entry["f"] == name]
    return dict(found)


def keys(data: bytes) -> Trust:
    digest = hashlib.sha256(data).hexdigest()
    return Trust(anchors=(Anchor("google-cs-jwks", "of the day", digest, issuer=ISSUER, data=data),))


def judge(
    token: bytes, trust: Trust, at: int, nonce: str | None = None, policy: Policy | None = None
) -> Appraisal:
    now = datetime.fromtimestamp(at, UTC)
    made = envelope.build(TYPE, {"token": token.strip()}, collected=now)
    return evidence.verify(made, policy or Policy.any(), now=now, expected_nonce=nonce, trust=trust)


def failing(appraisal: Appraisal) -> set[str]:
    return {check.id for check in appraisal.checks if check.outcome == "fail"}


def passing(appraisal: Appraisal) -> set[str]:
    return {check.id for check in appraisal.checks if check.outcome == "pass"}


def test_a_real_pki_token_verifies_under_the_shipped_root_and_its_debug_image_is_refused() -> None:
    entry = expected("project-oak-gcp/valid.jwt")
    appraisal = judge(
        read(entry["f"]),
        Trust.of(),
        entry["as_of"],
        entry["nonce"],
        replace(Policy.any(), audiences=(entry["aud"],)),
    )
    assert CRYPTO | {"nonce", "audience", "platform", "secure-boot", "tee"} <= passing(appraisal)
    assert failing(appraisal) == DEBUG and appraisal.tier is Tier.CONTRAINDICATED
    assert appraisal.claims["place"]["project_id"] == "oak-ci" and appraisal.claims["debug"] is True


def test_the_shipped_root_is_the_one_in_the_folder() -> None:
    (held,) = Trust.of().find("google-cs-root")
    for name in ("confidential_space_root.pem", "root.crt"):
        der = x509.load_pem_x509_certificate(read(f"project-oak-gcp/{name}")).public_bytes(Encoding.DER)
        assert der == held.data
    sha1 = hashlib.sha1(held.data).hexdigest()  # the one that Google publishes
    assert sha1 == "b95120742c24e3aa34042e1c3ba3aad28b212321"


def test_a_real_pki_token_with_a_changed_signature() -> None:
    entry = expected("project-oak-gcp/invalid_signature.jwt")
    appraisal = judge(read(entry["f"]), Trust.of(), entry["as_of"])
    assert failing(appraisal) == {"signature", *DEBUG} and "chain" in passing(appraisal)


@pytest.mark.parametrize(
    ("days", "fails"),
    [(-1, {"validity", "age"}), (1, {"validity"}), (60, {"validity"}), (900, {"validity", "age"})],
)
def test_a_real_pki_token_at_another_time(days: int, fails: set[str]) -> None:
    entry = expected("project-oak-gcp/valid.jwt")
    found = failing(judge(read(entry["f"]), Trust.of(), entry["as_of"] + days * 86400))
    assert found - {"collected"} == fails | DEBUG


def synddb() -> tuple[dict[str, Any], Trust]:
    document = json.loads(read("synddb-gcp/samples_20251202_20_50_37.json"))
    return document, keys(json.dumps(document["jwks"]).encode())


@pytest.mark.parametrize(("number", "nonce"), [(0, None), (1, "sp1-test-nonce-1764708636")])
def test_real_oidc_tokens_verify_under_the_keys_of_their_day(number: int, nonce: str | None) -> None:
    entry = expected("synddb-gcp/samples_20251202_20_50_37.json")
    document, trust = synddb()
    token = document["samples"][number]["raw_token"].encode()
    assert jose.read(token).claims == document["samples"][number]["claims"]
    appraisal = judge(token, trust, entry["as_of"], nonce)
    assert CRYPTO - {"chain"} <= passing(appraisal) and failing(appraisal) == {*DEBUG, "overrides"}
    assert appraisal.claims["attester"] == "d6d5071ab75246a42acfa46d29316311cdab51f7"
    assert appraisal.claims["env_override"] == ["ATTESTATION_AUDIENCE", "OUTPUT_BUCKET"]
    tolerant = replace(Policy.any(), env_override=("ATTESTATION_AUDIENCE", "OUTPUT_BUCKET"))
    assert failing(judge(token, trust, entry["as_of"], nonce, tolerant)) == DEBUG
    assert "nonce" in failing(judge(token, trust, entry["as_of"], "another-nonce-of-some-length"))


def test_real_oidc_tokens_without_the_keys_of_their_day() -> None:
    entry = expected("synddb-gcp/samples_20251202_20_50_37.json")
    document, _ = synddb()
    for sample in document["samples"]:
        assert "trust-anchor" in failing(judge(sample["raw_token"].encode(), Trust.of(), entry["as_of"]))
    first = {"keys": [k for k in document["jwks"]["keys"] if not k["kid"].startswith("d6d5")]}
    appraisal = judge(
        document["samples"][0]["raw_token"].encode(), keys(json.dumps(first).encode()), entry["as_of"]
    )
    assert "trust-anchor" in failing(appraisal) and "signature" not in passing(appraisal)


SUI = "sui-gcp-selfsigned/"
SUI_IMAGE = "sha256:ac91dd368193efa938776f35ff715e29f907c2b6671bae6589d44f60c8d82a54"
CONTROL = Policy(
    (TYPE,),
    (SUI_IMAGE,),
    600,
    tees=("sev",),
    swversion=250301,
    support=("STABLE",),
    audiences=("https://my-verifier.example",),
    projects=("k8s-clusters-397521",),
    zones=("us-central1-b",),
    service_accounts=("confspace-runner@k8s-clusters-397521.iam.gserviceaccount.com",),
)


def test_the_positive_control_passes_a_full_policy() -> None:
    """Under a test key, with a production token's claims. It was issued in 2023 and ends in 2096."""
    entry = expected(SUI + "real_gcp_payload_token.jwt")
    token, key_a = read(entry["f"]), keys(read(SUI + "jwks_test_key_a.json"))
    nonce = "407e7702-cec8-446c-8d46-46698723543c"
    fresh = judge(token, key_a, 1700000060, nonce, CONTROL)
    assert fresh.tier is Tier.AFFIRMING and {c.outcome for c in fresh.checks} == {"pass"}
    assert fresh.claims["image"] == SUI_IMAGE and fresh.claims["debug"] is False
    late = judge(token, key_a, entry["as_of"], nonce, CONTROL)
    assert failing(late) == {"age"}  # three years old: every other check still passes
    assert failing(judge(token, keys(read(SUI + "jwks_wrong_key_b.json")), 1700000060, nonce, CONTROL)) == {
        "signature"
    }
    assert failing(
        judge(token, key_a, 1700000060, nonce, replace(CONTROL, images=("sha256:" + "00" * 32,)))
    ) == {"image"}
    assert "trust-anchor" in failing(judge(token, Trust.of(), 1700000060, nonce, CONTROL))


def test_a_token_with_several_short_nonces_and_little_else() -> None:
    entry = expected(SUI + "valid_token.jwt")
    token = read(entry["f"])
    appraisal = judge(token, keys(read(SUI + "jwks_test_key_a.json")), entry["as_of"], "nonce1")
    assert {"signature", "trust-anchor", "issuer", "age"} <= passing(appraisal)
    assert {"nonce", "image", "support", "platform", "validity"} <= failing(appraisal)
    assert appraisal.claims["nonce"] == ["nonce1", "nonce2"]
    wrong = judge(token, keys(read(SUI + "jwks_wrong_key_b.json")), entry["as_of"])
    assert "signature" in failing(wrong)


@pytest.mark.parametrize("name", ["project-oak-gcp/valid.jwt", SUI + "real_gcp_payload_token.jwt"])
def test_flipped_bits_of_a_real_token(name: str) -> None:
    entry = expected(name)
    trust = Trust.of() if name.startswith("project") else keys(read(SUI + "jwks_test_key_a.json"))
    token = read(name).strip()
    assert "signature" in passing(judge(token, trust, entry["as_of"]))
    for position in range(0, len(token) * 8, 61):
        changed = bytearray(token)
        changed[position // 8] ^= 1 << position % 8
        assert "signature" not in passing(judge(bytes(changed), trust, entry["as_of"]))


@pytest.mark.parametrize(
    "name", ["claims", "debug_claims", "expired_claims", "long_lived_claims", "policy_claims"]
)
def test_claims_of_that_shape_signed_by_an_authority_of_ours(name: str) -> None:
    """Not tokens but their payloads: what the rules say about them, once somebody trusted has signed them."""
    from tests.unit.strongroom.evidence import authority_tokens as authority

    claims = json.loads(read(f"project-oak-gcp/{name}.json"))
    google = authority.Google(start=datetime(2025, 6, 1, tzinfo=UTC))
    policy = replace(
        Policy.any(), audiences=(claims["aud"],), images=(claims["submods"]["container"]["image_digest"],)
    )
    nonce = claims["eat_nonce"]
    at = claims["iat"] + 60
    fresh = judge(google.pki(claims), Trust(anchors=google.anchors), at, nonce, policy)
    assert failing(fresh) == ({"debug"} if name == "debug_claims" else set())
    assert (fresh.tier is Tier.AFFIRMING) == (name != "debug_claims")
    late = judge(google.pki(claims), Trust(anchors=google.anchors), at + 7200, nonce, policy)
    assert ("validity" in failing(late)) == (name != "long_lived_claims")
    strict = replace(policy, max_age_seconds=int(timedelta(minutes=10).total_seconds()))
    assert "age" in failing(
        judge(google.pki(claims), Trust(anchors=google.anchors), at + 7200, nonce, strict)
    )
