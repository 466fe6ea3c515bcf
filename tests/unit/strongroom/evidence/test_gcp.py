"""Confidential Space tokens of an authority of our own: what is accepted, and each single thing that is not."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom import evidence, strictjson
from strongroom.evidence import Appraisal, Policy, Tier, Trust
from tests.unit.strongroom.evidence import authority_tokens as authority
from tests.unit.strongroom.evidence.authority_tokens import (
    GONE,
    Google,
    certify,
    chain_of,
    google_claims,
    key,
)

TYPE = "gcp-confidential-space"
NOW = datetime(2026, 2, 1, 12, 0, tzinfo=UTC)
CLAIMS = google_claims(NOW)
TDX = authority.google_tdx_claims(NOW)
FULL = Policy(
    (TYPE,),
    (authority.IMAGE,),
    600,
    tees=("sev", "tdx"),
    tdx_tcb=("UpToDate",),
    swversion=260100,
    support=("STABLE",),
    audiences=(authority.AUDIENCE,),
    projects=("660892227407",),
    zones=("europe-west4-a",),
    service_accounts=("runner@research.iam.gserviceaccount.com",),
    env_override=("RUN_ID",),
)


@cache
def google() -> Google:
    return Google()


@cache
def trust() -> Trust:
    return Trust(anchors=google().anchors)


def judge(token: bytes, policy: Policy = FULL, **changes: Any) -> Appraisal:
    collateral = changes.pop("collateral", None)
    collected = changes.pop("collected", NOW)
    parts = changes.pop("parts", None)
    envelope = authority.wrap(TYPE, token, collected, parts=parts, collateral=collateral)
    values = {
        "now": NOW + timedelta(seconds=5),
        "expected_nonce": authority.NONCE,
        "trust": trust(),
        **changes,
    }
    return evidence.verify(envelope, policy, **values)


def outcomes(appraisal: Appraisal) -> dict[str, str]:
    found = {check.id: check.outcome.value for check in appraisal.checks}
    assert len(found) == len(appraisal.checks)
    return found


def failing(appraisal: Appraisal) -> set[str]:
    assert not appraisal.ok and appraisal.tier is Tier.CONTRAINDICATED
    strictjson.canonical(appraisal.to_json())
    return {name for name, outcome in outcomes(appraisal).items() if outcome == "fail"}


@pytest.mark.parametrize("form", ["pki", "oidc"])
@pytest.mark.parametrize("claims", [CLAIMS, TDX], ids=["sev", "tdx"])
def test_a_production_token_is_affirmed(form: str, claims: dict[str, Any]) -> None:
    appraisal = judge(getattr(google(), form)(claims))
    assert appraisal.ok and appraisal.tier is Tier.AFFIRMING
    assert set(outcomes(appraisal).values()) == ({"pass", "not_available"} if form == "pki" else {"pass"})
    said = appraisal.claims
    assert said["image"] == authority.IMAGE and said["debug"] is False and said["nonce"] == authority.NONCE
    assert said["tee"] == ("tdx" if claims is TDX else "sev") and said["instance"] == "587736333007598652"
    assert said["place"]["zone"] == "europe-west4-a" and said["tcb"]["image_version"] == 260300
    assert said["collected"] == "2026-02-01T12:00:00Z" and said["args"] == ["/opt/runner/bin/runner"]
    assert ("status" in said["tcb"]) == (claims is TDX)


def test_the_attester_is_the_root_or_the_key() -> None:
    root = google().root.fingerprint(hashes.SHA256()).hex()
    assert judge(google().pki(CLAIMS)).claims["attester"] == root
    assert judge(google().oidc(CLAIMS)).claims["attester"] == "d6d5" * 10
    assert "attester" not in judge(google().oidc(CLAIMS, kid="f" * 40)).claims


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("eat_nonce", [authority.NONCE]),
        ("eat_nonce", ["other-nonce", authority.NONCE]),
        ("submods/container/env_override", {"RUN_ID": "5"}),
        ("submods/container/env_override", {}),
        ("submods/container/cmd_override", []),
        ("submods/container/image_signatures", [{"key_id": "ab", "signature": "x"}]),
        ("submods/container/args", GONE),
        ("submods/confidential_space/support_attributes", ["STABLE"]),
        ("submods/nvidia_gpu", {"cc_mode": "ON"}),
        ("submods/something_new", {"a": [1, None, 2.5]}),
        ("something_new", {"deep": {"er": True}}),
        ("swversion", ["20260300"]),
        ("hwmodel", "GCP_AMD_SEV"),
        ("exp", int(NOW.timestamp()) + 6),
        ("sub", GONE),
    ],
)
def test_still_accepted(path: str, value: Any) -> None:
    assert judge(google().oidc(authority.changed(CLAIMS, path, value))).tier is Tier.AFFIRMING


AT = int(NOW.timestamp())
SPACE, CONTAINER, GCE = "submods/confidential_space/", "submods/container/", "submods/gce/"
REFUSED: list[tuple[str, str, Any]] = [
    ("issuer", "iss", authority.GOOGLE + "/"),
    ("issuer", "iss", "http://confidentialcomputing.googleapis.com"),
    ("issuer", "iss", "https://portal.trustauthority.intel.com"),
    ("issuer", "iss", [authority.GOOGLE]),
    ("issuer", "iss", GONE),
    ("audience", "aud", "https://sts.googleapis.com"),
    ("audience", "aud", [authority.AUDIENCE]),
    ("audience", "aud", "https://other.example"),
    ("audience", "aud", authority.AUDIENCE + "/"),
    ("audience", "aud", GONE),
    ("validity", "exp", AT + 5),
    ("validity", "exp", AT - 10),
    ("validity", "exp", str(AT + 3600)),
    ("validity", "exp", float(AT) + 3600.5),
    ("validity", "exp", True),
    ("validity", "exp", 1 << 52),
    ("validity", "exp", GONE),
    ("validity", "nbf", AT + 120),
    ("validity", "nbf", GONE),
    ("validity", "iat", GONE),
    ("validity", "iat", -1),
    ("age", "iat", AT + 120),
    ("age", "iat", AT - 700),
    ("nonce", "eat_nonce", GONE),
    ("nonce", "eat_nonce", ""),
    ("nonce", "eat_nonce", []),
    ("nonce", "eat_nonce", [[authority.NONCE]]),
    ("nonce", "eat_nonce", {"0": authority.NONCE}),
    ("nonce", "eat_nonce", 5),
    ("nonce", "eat_nonce", authority.NONCE[:-1]),
    ("nonce", "eat_nonce", authority.NONCE + "A"),
    ("nonce", "eat_nonce", f"x{authority.NONCE}x"),
    ("nonce", "eat_nonce", "B" * 43),
    ("nonce", "eat_nonce", [authority.NONCE, "short"]),
    ("nonce", "eat_nonce", [authority.NONCE, "x" * 89]),
    ("nonce", "eat_nonce", [authority.NONCE] * 7),
    ("debug", "dbgstat", "enabled"),
    ("debug", "dbgstat", "enable"),
    ("debug", "dbgstat", "disabled"),
    ("debug", "dbgstat", "Disabled-since-boot"),
    ("debug", "dbgstat", ["disabled-since-boot"]),
    ("debug", "dbgstat", GONE),
    ("secure-boot", "secboot", False),
    ("secure-boot", "secboot", "true"),
    ("secure-boot", "secboot", 1),
    ("secure-boot", "secboot", GONE),
    ("platform", "oemid", 11130),
    ("platform", "oemid", "11129"),
    ("platform", "oemid", GONE),
    ("platform", "swname", "GCE"),
    ("platform", "swname", GONE),
    ("tee", "hwmodel", "GCP_SHIELDED_VM"),
    ("tee", "hwmodel", "INTEL_TDX"),
    ("tee", "hwmodel", "GCP_AMD_SEV_ES"),  # known, but not in this policy
    ("tee", "hwmodel", "GCP_INTEL_TDX"),  # without attester_tcb
    ("tee", "hwmodel", ["GCP_AMD_SEV"]),
    ("tee", "hwmodel", GONE),
    ("support", SPACE + "support_attributes", GONE),
    ("support", SPACE + "support_attributes", []),
    ("support", SPACE + "support_attributes", ["EXPERIMENTAL"]),
    ("support", SPACE + "support_attributes", ["USABLE"]),
    ("support", SPACE + "support_attributes", "STABLE"),
    ("monitoring", SPACE + "monitoring_enabled", {"memory": True}),
    ("monitoring", SPACE + "monitoring_enabled", {"memory": 0}),
    ("monitoring", SPACE + "monitoring_enabled", {}),
    ("monitoring", SPACE + "monitoring_enabled", [{"memory": False}]),
    ("support", "submods/confidential_space", [1]),
    ("tcb", "swversion", ["251200"]),
    ("tcb", "swversion", ["260300", "250100"]),
    ("tcb", "swversion", "260300"),
    ("tcb", "swversion", ["2603"]),
    ("tcb", "swversion", ["26030٠"]),
    ("tcb", "swversion", GONE),
    ("image", CONTAINER + "image_digest", "sha256:" + "cd" * 32),
    ("image", CONTAINER + "image_digest", authority.IMAGE.upper()),
    ("image", CONTAINER + "image_digest", "sha256:" + "AB" * 32),
    ("image", CONTAINER + "image_digest", "sha512:" + "ab" * 64),
    ("image", CONTAINER + "image_digest", "ab" * 32),
    ("image", CONTAINER + "image_digest", authority.IMAGE + "\n"),
    ("image", CONTAINER + "image_digest", [authority.IMAGE]),
    ("image", CONTAINER + "image_digest", GONE),
    ("image", "submods/container", GONE),
    ("image", "submods", 7),
    ("restart-policy", CONTAINER + "restart_policy", "Always"),
    ("restart-policy", CONTAINER + "restart_policy", "OnFailure"),
    ("restart-policy", CONTAINER + "restart_policy", GONE),
    ("overrides", CONTAINER + "env_override", {"RUN_ID": "1", "LD_PRELOAD": "/x"}),
    ("overrides", CONTAINER + "env_override", {"run_id": "1"}),
    ("overrides", CONTAINER + "env_override", ["RUN_ID"]),
    ("overrides", CONTAINER + "cmd_override", ["/bin/sh"]),
    ("overrides", CONTAINER + "cmd_override", "sh"),
    ("overrides", "submods/container", []),
    ("place", GCE + "project_number", "1"),
    ("place", GCE + "zone", "us-central1-a"),
    ("place", "submods/gce", GONE),
    ("service-account", "google_service_accounts", ["other@research.iam.gserviceaccount.com"]),
    (
        "service-account",
        "google_service_accounts",
        ["runner@research.iam.gserviceaccount.com", "other@research.iam.gserviceaccount.com"],
    ),
    ("service-account", "google_service_accounts", []),
    ("service-account", "google_service_accounts", GONE),
    ("gpu", "submods/nvidia_gpu", {"cc_mode": "DEVTOOLS"}),
    ("gpu", "submods/nvidia_gpu", {"cc_mode": "OFF"}),
    ("gpu", "submods/nvidia_gpu", None),
]


@pytest.mark.parametrize(("check", "path", "value"), REFUSED)
def test_one_claim_that_is_wrong(check: str, path: str, value: Any) -> None:
    assert check in failing(judge(google().oidc(authority.changed(CLAIMS, path, value))))


def test_a_token_for_aws() -> None:
    claims = {**CLAIMS, "https://aws.amazon.com/tags": {"principal_tags": {}}}
    assert failing(judge(google().oidc(claims))) == {"token-kind"}


def test_a_wrong_claim_fails_its_own_check_only() -> None:
    """Otherwise a refusal could be for the wrong reason."""
    alone = ("dbgstat", "secboot", "eat_nonce", "aud", "swversion", "iss", "oemid", "google_service_accounts")
    for check, path, value in REFUSED:
        if path in alone or path.startswith((CONTAINER, SPACE, GCE)):
            assert failing(judge(google().oidc(authority.changed(CLAIMS, path, value)))) == {check}, (
                path,
                value,
            )


def test_a_token_from_before_memory_monitoring() -> None:
    """Not refused, for it says nothing wrong; and not affirmed."""
    appraisal = judge(google().oidc(authority.changed(CLAIMS, SPACE + "monitoring_enabled")))
    assert appraisal.tier is Tier.WARNING and outcomes(appraisal)["monitoring"] == "not_available"


def test_a_machine_with_sev_snp() -> None:
    """What it rests on may be said; AMD's versions are not in the token, so a policy that asks for them is not met."""
    snp = {**CLAIMS, "hwmodel": "GCP_AMD_SEV_SNP"}
    policy = replace(FULL, tees=("sev-snp",))
    for claims in (snp, {**snp, "attester_tcb": ["AMD"], "sev_snp": [{"a": 1}], "new": {"x": None}}):
        appraisal = judge(google().oidc(claims), policy)
        assert appraisal.tier is Tier.AFFIRMING and appraisal.claims["tee"] == "sev-snp"
        assert judge(google().oidc(claims), replace(policy, products=("Milan",))).tier is Tier.WARNING
        assert failing(judge(google().oidc(claims), FULL)) == {"tee"}
    for tcb in (["INTEL"], "AMD", [], None):
        assert failing(judge(google().oidc({**snp, "attester_tcb": tcb}), policy)) == {"tee"}


def test_where_a_policy_names_no_status_up_to_date_is_what_counts() -> None:
    policy = replace(FULL, tdx_tcb=())
    assert judge(google().oidc(TDX), policy).tier is Tier.AFFIRMING
    assert failing(
        judge(google().oidc(authority.changed(TDX, "tdx/gcp_attester_tcb_status", "OutOfDate")), policy)
    ) == {"tcb"}
    assert judge(google().oidc(authority.changed(TDX, "tdx")), policy).tier is Tier.AFFIRMING


@pytest.mark.parametrize(
    ("check", "path", "value"),
    [
        ("tee", "attester_tcb", ["AMD"]),
        ("tee", "attester_tcb", "INTEL"),
        ("tee", "attester_tcb", ["INTEL", "INTEL"]),
        ("tee", "attester_tcb", GONE),
        ("tcb", "tdx/gcp_attester_tcb_status", "OutOfDate"),
        ("tcb", "tdx/gcp_attester_tcb_status", GONE),
        ("tcb", "tdx", GONE),
        ("tcb", "tdx", []),
        ("tcb", "tdx", [{"gcp_attester_tcb_status": "UpToDate"}, {"gcp_attester_tcb_status": "OutOfDate"}]),
    ],
)
def test_tdx(check: str, path: str, value: Any) -> None:
    assert check in failing(judge(google().oidc(authority.changed(TDX, path, value))))


def test_the_reference_page_calls_tdx_an_array() -> None:
    assert judge(google().oidc(authority.changed(TDX, "tdx", [TDX["tdx"]]))).tier is Tier.AFFIRMING


def test_support_by_policy() -> None:
    usable = authority.changed(CLAIMS, SPACE + "support_attributes", ["USABLE"])
    assert judge(google().oidc(usable), replace(FULL, support=("STABLE", "USABLE"))).tier is Tier.AFFIRMING
    assert failing(judge(google().oidc(usable), replace(FULL, support=()))) == {"support"}


def test_a_project_by_its_name_or_its_number() -> None:
    token = google().oidc(CLAIMS)
    assert judge(token, replace(FULL, projects=("research",))).tier is Tier.AFFIRMING
    assert failing(judge(token, replace(FULL, projects=("research-2",)))) == {"place"}


@pytest.mark.parametrize(
    ("member", "left", "tier"),
    [
        ("images", "image", Tier.WARNING),
        ("audiences", "audience", Tier.WARNING),
        ("swversion", "tcb", Tier.AFFIRMING),
        ("projects", None, Tier.AFFIRMING),
        ("service_accounts", "service-account", Tier.AFFIRMING),
        ("tees", None, Tier.AFFIRMING),
    ],
)
def test_what_a_policy_does_not_ask_is_not_called_passed(member: str, left: str | None, tier: Tier) -> None:
    policy = replace(FULL, **{member: None if member == "swversion" else ()})
    appraisal = judge(google().oidc(CLAIMS), policy)
    assert appraisal.ok and appraisal.tier is tier
    open_ = {name for name, outcome in outcomes(appraisal).items() if outcome == "not_available"}
    assert open_ == ({left} if left else set())


def test_without_a_context_nothing_is_affirmed() -> None:
    appraisal = judge(google().oidc(CLAIMS), expected_nonce=None)
    assert appraisal.ok and appraisal.tier is Tier.WARNING and outcomes(appraisal)["nonce"] == "not_available"


def test_a_nonce_given_as_bytes() -> None:
    assert judge(google().oidc(CLAIMS), expected_nonce=authority.NONCE.encode()).tier is Tier.AFFIRMING
    assert failing(judge(google().oidc(CLAIMS), expected_nonce=b"\xff" * 32)) == {"nonce"}
    empty = authority.changed(CLAIMS, "eat_nonce", "")
    assert "nonce" in failing(judge(google().oidc(empty), expected_nonce=b""))


@pytest.mark.parametrize("member", [{"tcb": {"Milan": {"snp": 1}}}, {"products": ("Genoa",)}])
def test_amd_conditions_are_not_shown_by_such_a_token(member: dict[str, Any]) -> None:
    policy = replace(FULL, **member)
    assert judge(google().oidc(CLAIMS), policy).tier is Tier.WARNING
    assert judge(google().oidc(TDX), policy).tier is Tier.AFFIRMING


# --- keys and certificates ---


@pytest.mark.parametrize(
    ("kid", "check"), [("f" * 40, "trust-anchor"), ("0" * 40, "signature"), (None, "trust-anchor")]
)
def test_oidc_key_by_name(kid: str | None, check: str) -> None:
    token = (
        google().oidc(CLAIMS, kid=kid)
        if kid
        else authority.compact({"alg": "RS256"}, CLAIMS, key("google-oidc"))
    )
    assert failing(judge(token)) == {check}


def test_a_token_without_a_key_name_needs_a_set_of_one() -> None:
    token = authority.compact({"alg": "RS256", "typ": "JWT"}, CLAIMS, key("google-oidc"))
    one = authority.key_set(authority.jwk(key("google-oidc"), "any"))
    other = authority.key_set(authority.jwk(key("google-oidc-old"), "any"))
    for keys, fails in ((one, set()), (other, {"signature"})):
        anchors = (authority.set_anchor("google-cs-jwks", authority.GOOGLE, keys),)
        appraisal = judge(token, trust=Trust(anchors=anchors))
        assert (failing(appraisal) if fails else set()) == fails and appraisal.ok == (not fails)


@pytest.mark.parametrize(
    "anchors",
    [
        (),
        (authority.set_anchor("google-cs-jwks", "", b"{}"),),
        (authority.set_anchor("google-cs-jwks", authority.GOOGLE, b"not a key set"),),
    ],
)
def test_no_key_in_the_trust_store(anchors: tuple[Any, ...]) -> None:
    assert failing(judge(google().oidc(CLAIMS), trust=Trust(anchors=anchors))) == {"trust-anchor"}


@pytest.mark.parametrize(
    ("purpose", "issuer"), [("maa-jwks", authority.GOOGLE), ("google-cs-jwks", authority.MAA)]
)
def test_keys_held_for_something_else(purpose: str, issuer: str) -> None:
    anchors = (authority.set_anchor(purpose, issuer, google().jwks),)
    assert failing(judge(google().oidc(CLAIMS), trust=Trust(anchors=anchors))) == {"trust-anchor"}


def test_a_key_set_in_the_evidence_is_a_record_only() -> None:
    token, brought = google().oidc(CLAIMS), {"jwks": google().jwks}
    assert judge(token, collateral=brought).tier is Tier.AFFIRMING
    alone = judge(token, collateral=brought, trust=Trust(anchors=google().anchors[:1]))
    assert failing(alone) == {"trust-anchor", "collateral"}
    assert any("nothing in it shows that it is the issuer's" in check.detail for check in alone.checks)
    more = authority.key_set(*json.loads(google().jwks)["keys"], authority.jwk(key("attacker"), "a"))
    for data in (more, authority.key_set(), b"?"):
        assert failing(judge(token, collateral={"jwks": data})) == {"collateral"}
    assert failing(judge(google().pki(CLAIMS), collateral=brought)) == {"collateral"}


def test_the_shipped_trust_store_knows_google_and_not_us() -> None:
    shipped = Trust.of()
    assert shipped.fingerprints("google-cs-root") == {
        "148b293821bb0c6a317f413c8ba475814091cb22d49b9e3c94198db8e8f86c39"
    }
    assert failing(judge(google().pki(CLAIMS), trust=shipped)) == {"trust-anchor"}
    assert failing(judge(google().oidc(CLAIMS), trust=shipped)) == {"trust-anchor"}


def ders() -> list[str]:
    return chain_of(google().leaf, google().intermediate, google().root)


@pytest.mark.parametrize("change", [
    lambda c: [], lambda c: c[:1], lambda c: c[:2], lambda c: [*c, c[2]], lambda c: c[::-1], lambda c: "x",
    lambda c: [c[0], c[1], 5], lambda c: [c[0], c[1], c[2] + "="], lambda c: [c[0], c[1], c[2].replace("/", "_")],
    lambda c: [c[0], c[1], "AAAA"], lambda c: ["", "", ""], lambda c: [c[0], c[2], c[2]], lambda c: [c[1], c[1], c[2]],
    lambda c: {"0": c[0]}, lambda c: [None] * 3, lambda c: [c[0], c[1], base64.b64encode(b"0" * 9000).decode()],
    lambda c: [c[0], [c[1]], c[2]], lambda c: [{}, c[1], c[2]],
])  # fmt: skip
def test_other_than_three_certificates_in_order(change: Any) -> None:
    assert "chain" in failing(judge(google().pki(CLAIMS, x5c=change(ders()))))


def test_a_certificate_that_is_too_long_is_not_looked_into() -> None:
    long = base64.b64encode(b"0" * 8193).decode()
    appraisal = judge(google().pki(CLAIMS, x5c=[*ders()[:2], long]))
    (chain,) = [check for check in appraisal.checks if check.id == "chain"]
    assert chain.detail == "A certificate of the token is longer than 8192 bytes."


def test_a_root_of_ones_own_with_the_same_name() -> None:
    impostor = Google(label="impostor")
    assert failing(judge(impostor.pki(CLAIMS))) == {"trust-anchor"}
    swapped = chain_of(impostor.leaf, impostor.intermediate, google().root)
    assert failing(judge(impostor.pki(CLAIMS, x5c=swapped))) == {"chain"}
    assert failing(judge(impostor.pki(CLAIMS, x5c=ders()))) == {"signature"}


START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)


def certificate(role: str, **changes: Any) -> x509.Certificate:
    """A leaf or intermediate of the right authority, with one thing different."""
    names = {"leaf": authority.LEAF, "intermediate": authority.INTERMEDIATE}
    above = {"leaf": authority.INTERMEDIATE, "intermediate": authority.ROOT}
    signer = {"leaf": "google-intermediate", "intermediate": "google-root"}
    values: dict[str, Any] = {
        "subject": names[role], "public": key(f"google-{role}").public_key(), "issuer": above[role],
        "signer": key(signer[role]), "ca": role != "leaf", "start": START, "end": END, **changes,
    }  # fmt: skip
    first = [values.pop(name) for name in ("subject", "public", "issuer", "signer")]
    return certify(*first, **values)


DAY = timedelta(days=1)
CRITICAL = [
    (x509.NameConstraints(permitted_subtrees=[x509.DNSName("x.example")], excluded_subtrees=None), True)
]
CHAINS: list[tuple[str, str, dict[str, Any]]] = [
    ("", "leaf", {}),
    ("", "leaf", {"ca": None, "usage": False}),
    ("", "intermediate", {}),
    ("", "leaf", {"end": datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)}),  # RFC 5280: no end
    ("validity", "leaf", {"end": NOW - DAY}),
    ("validity", "leaf", {"start": NOW + DAY}),
    ("validity", "intermediate", {"end": NOW - DAY}),
    ("chain", "leaf", {"signer": key("attacker")}),
    ("chain", "leaf", {"signer": key("google-root")}),
    ("chain", "leaf", {"issuer": authority.ROOT}),
    ("chain", "leaf", {"ca": True}),
    ("chain", "leaf", {"algorithm": hashes.SHA512()}),
    ("chain", "leaf", {"public": key("weak", 1024).public_key()}),
    ("chain", "leaf", {"public": ec.generate_private_key(ec.SECP256R1()).public_key()}),
    ("chain", "leaf", {"extra": CRITICAL}),
    ("chain", "intermediate", {"ca": False}),
    ("chain", "intermediate", {"ca": None}),
    ("chain", "intermediate", {"usage": False}),
    ("chain", "intermediate", {"signer": key("attacker")}),
    ("chain", "intermediate", {"extra": CRITICAL}),
]


@pytest.mark.parametrize(("check", "role", "changes"), CHAINS)
def test_certificates(check: str, role: str, changes: dict[str, Any]) -> None:
    made = certificate(role, **changes)
    chain = [google().leaf, google().intermediate, google().root]
    chain[0 if role == "leaf" else 1] = made
    appraisal = judge(google().pki(CLAIMS, x5c=chain_of(*chain)))
    if check:
        assert check in failing(appraisal)
    else:
        assert appraisal.tier is Tier.AFFIRMING


def test_a_leaf_that_names_two_algorithms() -> None:
    """RFC 5280 section 4.1.1.2: the one inside what is signed is the one outside. The signature itself is right."""
    rsa_sha256, rsa_sha512 = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d01010d")
    leaf = google().leaf
    inside = leaf.tbs_certificate_bytes.replace(rsa_sha256, rsa_sha512, 1)
    signature = key("google-intermediate").sign(inside, PKCS1v15(), hashes.SHA256())
    forged = leaf.public_bytes(Encoding.DER)
    for old, new in ((leaf.tbs_certificate_bytes, inside), (leaf.signature, signature)):
        assert old in forged
        forged = forged.replace(old, new)
    x5c = [base64.b64encode(forged).decode(), *ders()[1:]]
    assert failing(judge(google().pki(CLAIMS, x5c=x5c))) == {"chain"}


def test_a_leaf_that_signs_leaves() -> None:
    """A holder of a leaf may not become an authority: its certificate has no right to sign others."""
    forged = certificate(
        "leaf", signer=key("google-leaf"), issuer=authority.LEAF, public=key("attacker").public_key()
    )
    x5c = chain_of(forged, google().leaf, google().root)
    token = authority.compact({"alg": "RS256", "x5c": x5c}, CLAIMS, key("attacker"))
    assert failing(judge(token)) == {"chain"}


# --- time ---


@pytest.mark.parametrize(
    ("seconds", "fails"),
    [
        (0, set()),
        (600, set()),
        (-60, set()),
        (-61, {"validity", "age", "collected"}),
        (601, {"age"}),
        (3600, {"age", "validity"}),
        (10 * 365 * 86400, {"age", "validity"}),
    ],
)
def test_when_it_is_judged(seconds: int, fails: set[str]) -> None:
    appraisal = judge(google().pki(CLAIMS), now=NOW + timedelta(seconds=seconds))
    assert (failing(appraisal) if fails else set()) == fails


def test_an_old_token_is_judged_at_the_time_it_came() -> None:
    """The certificates end after 60 days; evidence of the past is verified as of its own time, years later too."""
    assert judge(google().pki(CLAIMS), now=NOW + timedelta(seconds=9)).tier is Tier.AFFIRMING


@pytest.mark.parametrize("seconds", [-61, 3600, 70])
def test_a_time_of_collection_outside_the_tokens(seconds: int) -> None:
    assert failing(judge(google().oidc(CLAIMS), collected=NOW + timedelta(seconds=seconds))) == {"collected"}


def test_a_far_end_does_not_make_a_token_fresh() -> None:
    token = google().oidc({**CLAIMS, "exp": 4000000000})
    assert judge(token).tier is Tier.AFFIRMING
    assert failing(judge(token, now=NOW + timedelta(days=1))) == {"age"}


# --- form ---


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "RS512"},
        {"alg": "PS256"},
        {"alg": None},
        {"alg": ["RS256"]},
    ],
)
def test_another_algorithm(header: dict[str, Any]) -> None:
    appraisal = judge(google().oidc(CLAIMS, **header))
    assert failing(appraisal) == {"algorithm"} and outcomes(appraisal)["signature"] == "not_available"
    assert "another algorithm" in next(c.detail for c in appraisal.checks if c.id == "signature")


@pytest.mark.parametrize("changes", [{"parts": {"runtime-data": b"x"}}, {"collateral": {"vek": b"x"}}])
def test_parts_that_do_not_belong(changes: dict[str, Any]) -> None:
    assert failing(judge(google().oidc(CLAIMS), **changes)) == {"format"}


def test_duplicate_names_and_size() -> None:
    twice = json.dumps(CLAIMS)[:-1] + ', "dbgstat": "disabled-since-boot"}'
    assert failing(judge(google().oidc(twice.encode()))) == {"format"}
    assert failing(judge(google().oidc({**CLAIMS, "x": "x" * (1 << 20)}))) == {"format"}


@pytest.mark.parametrize(("form", "step"), [("oidc", 7), ("pki", 61)])
def test_flipped_bits(form: str, step: int) -> None:
    """Neither step has a factor in common with eight; with seven, every byte is hit."""
    token = getattr(google(), form)(CLAIMS)
    for position in range(0, len(token) * 8, step):
        changed = bytearray(token)
        changed[position // 8] ^= 1 << position % 8
        assert not judge(bytes(changed)).ok


json_values: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
    | st.sampled_from(["enabled", "STABLE", "Never", authority.IMAGE, authority.NONCE]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def paths(value: Any, way: str = "") -> list[str]:
    found = []
    for name, item in value.items():
        found.append(way + name)
        found += paths(item, f"{way}{name}/") if isinstance(item, dict) else []
    return found


# What a full policy does not look at (who started the machine under which name, the image's own settings), and times, which
# are bounds that other values meet as well.
FREE = (
    "nbf", "iat", "exp", "sub", "eat_profile", "submods/container/image_reference", "submods/container/image_id", "submods/container/args",
    "submods/container/env", "submods/gce/instance_name", "submods/gce/instance_id", "submods/gce/project_id",
    "tdx/gcp_attester_tcb_date",
)  # fmt: skip


@given(st.sampled_from([CLAIMS, TDX]), st.data())
def test_any_claim_replaced_by_anything(claims: dict[str, Any], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(paths(claims)))
    value = data.draw(json_values | st.just(GONE))
    try:
        changed = authority.changed(claims, path, value)
        appraisal = judge(google().oidc(changed))
    except UnicodeEncodeError:  # a lone surrogate in a name: no JSON bytes
        return
    strictjson.canonical(appraisal.to_json())
    if appraisal.ok and changed != claims:
        listed = value if isinstance(value, list) else [value]
        assert path.startswith(FREE) or authority.NONCE in listed or "STABLE" in listed


@given(json_values, json_values)
@settings(max_examples=50)
def test_any_json_as_header_and_claims(header: Any, claims: Any) -> None:
    signer = key("google-oidc")
    assert not judge(authority.compact(json.dumps(header).encode(), json.dumps(claims).encode(), signer)).ok


@given(json_values)
@settings(max_examples=50)
def test_any_json_as_certificates(x5c: Any) -> None:
    assert not judge(google().pki(CLAIMS, x5c=x5c)).ok


@given(st.integers(0, 2), st.data())
@settings(max_examples=60)
def test_certificates_with_bytes_replaced(number: int, data: st.DataObject) -> None:
    """Signed again each time, so that the parser meets them: no exception, and no other certificate is accepted."""
    good = [c.public_bytes(Encoding.DER) for c in (google().leaf, google().intermediate, google().root)]
    der = bytearray(good[number])
    for _ in range(data.draw(st.integers(1, 3))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    x5c = [base64.b64encode(bytes(der) if n == number else c).decode() for n, c in enumerate(good)]
    assert judge(google().pki(CLAIMS, x5c=x5c)).ok == (bytes(der) == good[number])


@given(st.binary(max_size=200))
def test_any_bytes(token: bytes) -> None:
    assert not judge(token).ok
