"""Azure Attestation tokens of a provider of our own: what is accepted, and each single thing that is not."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import evidence, strictjson
from strongroom.evidence import Appraisal, Policy, Tier, Trust
from strongroom.evidence.maa_code import ALLOW_ALL
from tests.unit.strongroom.evidence import authority_tokens as authority
from tests.unit.strongroom.evidence.authority_tokens import GONE, MAA, NONCE, RUNTIME_DATA, Maa, key

TYPE = "azure-maa"
NOW = datetime(2026, 2, 1, 12, 0, tzinfo=UTC)
VM = authority.maa_vm_claims(NOW)
FLAT = authority.maa_flat_vm_claims(NOW)
TDX = authority.maa_tdx_claims(NOW)
GROUP = authority.maa_containers_claims(NOW)
KINDS = {"vm": VM, "flat": FLAT, "tdx": TDX, "group": GROUP}
FULL = Policy(
    (TYPE,),
    (authority.IMAGE,),
    600,
    code=({"type": TYPE, "image": authority.IMAGE, "host_data": authority.HOST_DATA},),
    tees=("sev-snp", "tdx"),
    products=("Milan",),
    tcb={"Milan": {"bootloader": 4, "snp": 24, "microcode": 200}},
    tdx_tcb=("UpToDate",),
    uvm_svn=100,
    maa={MAA: [authority.MAA_POLICY]},
)


@cache
def trust() -> Trust:
    return Trust(anchors=Maa().anchors)


def judge(token: bytes, policy: Policy = FULL, **changes: Any) -> Appraisal:
    collateral, collected = changes.pop("collateral", None), changes.pop("collected", NOW)
    parts = changes.pop("parts", None)
    envelope = authority.wrap(TYPE, token, collected, parts=parts, collateral=collateral)
    values = {"now": NOW + timedelta(seconds=5), "expected_nonce": NONCE, "trust": trust(), **changes}
    return evidence.verify(envelope, policy, **values)


def appraise(claims: dict[str, Any], policy: Policy = FULL, **changes: Any) -> Appraisal:
    if claims.get("x-ms-compliance-status") == "azure-compliant-uvm":
        changes.setdefault("parts", {"runtime-data": RUNTIME_DATA})
    return judge(Maa().token(claims), policy, **changes)


def outcomes(appraisal: Appraisal) -> dict[str, str]:
    found = {check.id: check.outcome.value for check in appraisal.checks}
    assert len(found) == len(appraisal.checks)
    return found


def failing(appraisal: Appraisal) -> set[str]:
    assert not appraisal.ok and appraisal.tier is Tier.CONTRAINDICATED
    strictjson.canonical(appraisal.to_json())
    return {name for name, outcome in outcomes(appraisal).items() if outcome == "fail"}


def open_(appraisal: Appraisal) -> set[str]:
    assert appraisal.ok
    return {name for name, outcome in outcomes(appraisal).items() if outcome == "not_available"}


def test_a_container_group_is_affirmed() -> None:
    appraisal = appraise(GROUP)
    assert appraisal.tier is Tier.AFFIRMING and not open_(appraisal)
    said = appraisal.claims
    assert said["image"] == authority.IMAGE and said["tee"] == "sev-snp" and said["product"] == "Milan"
    assert said["code"]["host_data"] == authority.HOST_DATA and said["debug"] is False
    assert said["tcb"] == {"bootloader": 4, "tee": 0, "snp": 24, "microcode": 219}
    assert said["attester"] == f"{MAA} {Maa().kid}" and said["instance"] == "44" * 32


@pytest.mark.parametrize("kind", ["vm", "flat", "tdx"])
def test_a_virtual_machine_never_is(kind: str) -> None:
    """Nothing in its token shows which software ran."""
    appraisal = appraise(KINDS[kind])
    assert appraisal.tier is Tier.WARNING and open_(appraisal) == {"code"}
    assert "does not show which software ran" in next(c.detail for c in appraisal.checks if c.id == "code")
    assert "image" not in appraisal.claims and appraisal.claims["instance"].startswith("ABD9EA99")
    assert appraisal.claims["nonce"] == authority.padded()


SNP, TEE, FLAG = "x-ms-sevsnpvm-", "x-ms-isolation-tee/", "x-ms-azurevm-"
RUNTIME = TEE + "x-ms-runtime/"
# Wrong for every kind with SEV-SNP; the machine's claims stand in x-ms-isolation-tee or at the top.
HARDWARE: list[tuple[str, str, Any]] = [
    ("debug", SNP + "is-debuggable", True),
    ("debug", SNP + "is-debuggable", "false"),
    ("debug", SNP + "is-debuggable", 0),
    ("debug", SNP + "is-debuggable", GONE),
    ("migration", SNP + "migration-allowed", True),
    ("migration", SNP + "migration-allowed", None),
    ("migration", SNP + "migration-allowed", GONE),
    ("vmpl", SNP + "vmpl", 1),
    ("vmpl", SNP + "vmpl", False),
    ("vmpl", SNP + "vmpl", "0"),
    ("vmpl", SNP + "vmpl", GONE),
    ("tcb", SNP + "snpfw-svn", 23),
    ("tcb", SNP + "bootloader-svn", 3),
    ("tcb", SNP + "microcode-svn", 199),
    ("tcb", SNP + "microcode-svn", 300),
    ("tcb", SNP + "microcode-svn", "219"),
    ("tcb", SNP + "tee-svn", GONE),
    ("product", SNP + "chip-family", "Genoa"),
    ("compliance", "x-ms-compliance-status", "azure-signed-katacc-uvm"),
    ("compliance", "x-ms-compliance-status", GONE),
    ("tee", "x-ms-attestation-type", "sgx"),
    ("tee", "x-ms-attestation-type", "SevSnpVm"),
    ("tee", "x-ms-attestation-type", ["sevsnpvm"]),
    ("tee", "x-ms-attestation-type", GONE),
]


@pytest.mark.parametrize("kind", ["vm", "flat", "group"])
@pytest.mark.parametrize(("check", "path", "value"), HARDWARE)
def test_one_hardware_claim_that_is_wrong(kind: str, check: str, path: str, value: Any) -> None:
    where = TEE + path if kind == "vm" else path
    assert check in failing(appraise(authority.changed(KINDS[kind], where, value)))


AT = int(NOW.timestamp())
REFUSED: list[tuple[str, str, Any]] = [
    ("issuer", "iss", MAA + "/"),
    ("issuer", "iss", MAA + ".evil.example"),
    ("issuer", "iss", "https://other.weu.attest.azure.net"),
    ("issuer", "iss", "http://sharedtest.weu.attest.azure.net"),
    ("issuer", "iss", [MAA]),
    ("issuer", "iss", GONE),
    ("policy-identity", "x-ms-policy-hash", authority.MAA_POLICY[:-1] + "A"),
    ("policy-identity", "x-ms-policy-hash", ""),
    ("policy-identity", "x-ms-policy-hash", GONE),
    ("validity", "exp", AT + 5),
    ("validity", "exp", GONE),
    ("validity", "nbf", AT + 120),
    ("validity", "nbf", GONE),
    ("age", "iat", AT - 700),
    ("age", "iat", AT + 120),
    ("debug", FLAG + "bootdebug-enabled", True),
    ("debug", FLAG + "kerneldebug-enabled", True),
    ("debug", FLAG + "hypervisordebug-enabled", 0),
    ("debug", FLAG + "debuggersdisabled", False),
    ("debug", FLAG + "debuggersdisabled", GONE),
    ("secure-boot", "secureboot", False),
    ("secure-boot", "secureboot", "true"),
    ("secure-boot", "secureboot", GONE),
    ("secure-boot", FLAG + "dbvalidated", False),
    ("secure-boot", FLAG + "dbxvalidated", False),
    ("secure-boot", FLAG + "signingdisabled", GONE),
    ("secure-boot", FLAG + "testsigning-enabled", True),
    ("secure-boot", FLAG + "flightsigning-enabled", True),
    ("secure-boot", RUNTIME + "vm-configuration/secure-boot", False),
    ("secure-boot", RUNTIME + "vm-configuration/tpm-enabled", False),
    ("secure-boot", RUNTIME + "vm-configuration", GONE),
    ("instance", FLAG + "vmid", "00000000-D837-4F68-AD3E-C87C88006AFA"),
    ("instance", FLAG + "vmid", GONE),
    ("nonce", RUNTIME + "user-data", "00" * 64),
    ("nonce", RUNTIME + "user-data", "ff" * 64),
    ("nonce", RUNTIME + "user-data", authority.padded()[:64]),
    ("nonce", RUNTIME + "user-data", authority.padded()[:-2] + "01"),
    ("nonce", RUNTIME + "user-data", "00" + authority.padded()[:-2]),
    ("nonce", RUNTIME + "user-data", [authority.padded()]),
    ("nonce", RUNTIME + "user-data", GONE),
    ("compliance", TEE + "x-ms-compliance-status", "azure-compliant-uvm"),
    ("compliance", TEE + "x-ms-compliance-status", "Azure-compliant-cvm"),
    ("tee", "x-ms-isolation-tee", GONE),
    ("tee", "x-ms-isolation-tee", [1]),
    ("tee", "x-ms-attestation-type", "tpm"),
    ("tee", "x-ms-attestation-type", 7),
]


@pytest.mark.parametrize(("check", "path", "value"), REFUSED)
def test_one_claim_of_a_virtual_machine_that_is_wrong(check: str, path: str, value: Any) -> None:
    assert check in failing(appraise(authority.changed(VM, path, value)))


def test_a_wrong_claim_fails_its_own_check_only() -> None:
    """Otherwise a refusal could be for the wrong reason."""
    for check, path, value in REFUSED:
        if check in ("debug", "policy-identity", "nonce", "instance") or path.startswith(FLAG):
            assert failing(appraise(authority.changed(VM, path, value))) == {check}, (path, value)


@pytest.mark.parametrize(
    ("check", "path", "value"),
    [
        ("debug", "tdx_td_attributes_debug", True),
        ("debug", "tdx_td_attributes_debug", GONE),
        ("debug", "tdx_td_attributes", "0100000000000000"),
        ("debug", "tdx_td_attributes", "00"),
        ("debug", "dbgstat", "enabled"),
        ("tcb", "attester_tcb_status", "OutOfDate"),
        ("tcb", "attester_tcb_status", GONE),
        ("tcb", "attester_advisory_ids", ["INTEL-SA-00837"]),
        ("tcb", "attester_advisory_ids", "INTEL-SA-00837"),
        ("compliance", "x-ms-compliance-status", "azure-compliant-uvm"),
        ("compliance", "x-ms-compliance-status", GONE),
        ("secure-boot", "x-ms-runtime/vm-configuration/secure-boot", False),
        ("nonce", "x-ms-runtime/user-data", GONE),
    ],
)
def test_tdx(check: str, path: str, value: Any) -> None:
    assert check in failing(
        appraise(
            {**TDX, path: value}
            if value is not GONE and "/" not in path
            else authority.changed(TDX, path, value)
        )
    )


def test_tdx_inside_a_guests_token() -> None:
    inner = {name: value for name, value in TDX.items() if name.startswith(("tdx_", "attester_", "dbgstat"))}
    kind = {"x-ms-attestation-type": "tdxvm", "x-ms-compliance-status": "azure-compliant-cvm"}
    claims = {**VM, "x-ms-isolation-tee": {**kind, "x-ms-runtime": TDX["x-ms-runtime"], **inner}}
    appraisal = appraise(claims)
    assert (
        appraisal.tier is Tier.WARNING and open_(appraisal) == {"code"} and appraisal.claims["tee"] == "tdx"
    )
    assert failing(appraise(authority.changed(claims, TEE + "tdx_td_attributes_debug", True))) == {"debug"}


# --- containers ---


@pytest.mark.parametrize("value", [ALLOW_ALL, "00" * 32, "ee" * 32, "CD" * 32, "cd" * 16, None, 5, GONE])
def test_another_policy_for_the_containers(value: Any) -> None:
    assert failing(appraise(authority.changed(GROUP, SNP + "hostdata", value))) == {"code"}


def test_allow_all_is_refused_even_if_a_policy_names_it() -> None:
    policy = replace(FULL, code=({"type": TYPE, "image": authority.IMAGE, "host_data": ALLOW_ALL},))
    assert failing(appraise(authority.changed(GROUP, SNP + "hostdata", ALLOW_ALL), policy)) == {"code"}


def test_the_reference_of_an_image_that_is_not_accepted() -> None:
    assert failing(
        appraise(
            GROUP,
            replace(
                FULL,
                code=(
                    {"type": TYPE, "image": "sha256:" + "11" * 32, "host_data": "99" * 32},
                    {"type": TYPE, "image": authority.IMAGE, "host_data": "98" * 32},
                ),
            ),
        )
    ) == {"code"}
    other = replace(FULL, images=("sha256:" + "11" * 32,))
    assert open_(appraise(GROUP, other)) == {"code"}  # no reference is left to compare with
    assert appraise(GROUP, other).tier is Tier.WARNING


UVM_SVN = authority.UVM_ENDORSEMENT + "/" + SNP + "guestsvn"


@pytest.mark.parametrize("value", ["100", 100, "103", 65536])
def test_the_utility_vms_version(value: Any) -> None:
    appraisal = appraise(authority.changed(GROUP, UVM_SVN, value))
    assert appraisal.tier is Tier.AFFIRMING and appraisal.claims["uvm"] == {"svn": int(value)}


@pytest.mark.parametrize("value", ["99", 99, "22", -1])
def test_a_utility_vm_that_is_too_old(value: Any) -> None:
    assert failing(appraise(authority.changed(GROUP, UVM_SVN, value))) == {"uvm-endorsement"}


@pytest.mark.parametrize("value", [True, 100.5, "", "100.0", "+100", "١٠٠", "1" * 10, None, ["100"], GONE])
def test_a_token_that_does_not_name_the_utility_vms_version(value: Any) -> None:
    """GUEST_SVN of the report is another number (2 in Microsoft's own sample beside "100"), and stands in for nothing."""
    for claims in (
        authority.changed(GROUP, UVM_SVN, value),
        authority.changed(GROUP, authority.UVM_ENDORSEMENT, value),
    ):
        claims = authority.changed(claims, SNP + "guestsvn", 200)
        appraisal = appraise(claims)
        assert open_(appraisal) == {"uvm-endorsement"} and appraisal.tier is Tier.WARNING
        assert "uvm" not in appraisal.claims
        assert appraise(claims, replace(FULL, uvm_svn=None)).tier is Tier.AFFIRMING


def test_report_data_that_are_the_nonce_itself() -> None:
    claims = authority.changed(GROUP, SNP + "reportdata", authority.padded())
    assert appraise(claims, parts={}).tier is Tier.AFFIRMING
    assert failing(appraise(claims, parts={}, expected_nonce="B" * 42 + "A")) == {"nonce"}


def test_runtime_data_are_needed_to_see_what_report_data_mean() -> None:
    assert failing(appraise(GROUP, parts={})) == {"nonce"}  # x-ms-runtime alone is the service's word
    other = json.dumps({"nonce": NONCE, "more": 1}).encode()
    assert failing(appraise(GROUP, parts={"runtime-data": other})) == {"user-data"}
    for data in (b'{"nonce": 5}', b"[]", b"7", json.dumps({"nonce": "B" * 43}).encode()):
        claims = authority.changed(GROUP, SNP + "reportdata", hashlib.sha256(data).hexdigest() + "00" * 32)
        assert failing(appraise(claims, parts={"runtime-data": data})) == {"nonce"}
    padded_otherwise = hashlib.sha256(RUNTIME_DATA).hexdigest() + "00" * 31 + "01"
    assert failing(appraise(authority.changed(GROUP, SNP + "reportdata", padded_otherwise))) == {"user-data"}


def test_the_nonce_that_the_service_echoes_is_no_binding() -> None:
    """The request's `nonce` and client-payload come back in a token about an old report just as well."""
    echoed = {**authority.changed(VM, RUNTIME + "user-data", "00" * 64), "nonce": NONCE}
    assert failing(appraise(echoed)) == {"nonce"}


@pytest.mark.parametrize(
    "expected", [b"", b"\0" * 32, b"\0" * 64, b"x" * 65, "", "A" * 43, "é" * 43, "nonce", b"\xff"]
)
def test_a_nonce_that_nothing_can_be_bound_to(expected: str | bytes) -> None:
    zero = authority.changed(VM, RUNTIME + "user-data", "00" * 64)
    assert failing(appraise(zero, expected_nonce=expected)) == {"nonce"}


def test_a_literal_field() -> None:
    literal = bytes(range(1, 65))
    claims = authority.changed(VM, RUNTIME + "user-data", literal.hex())
    assert open_(appraise(claims, expected_nonce=literal)) == {"code"}
    assert failing(appraise(claims, expected_nonce=literal[:-1] + b"\0")) == {"nonce"}


def test_without_a_context() -> None:
    appraisal = appraise(GROUP, expected_nonce=None)
    assert appraisal.tier is Tier.WARNING and open_(appraisal) == {"nonce"}


# --- versions where the token does not name its processor ---


@pytest.mark.parametrize(
    ("minima", "outcome"),
    [
        ({"Milan": {"snp": 24}}, "pass"),
        ({"Milan": {"snp": 25}}, "fail"),
        ({"Milan": {"snp": 24}, "Genoa": {"snp": 20}}, "pass"),
        ({"Milan": {"snp": 25}, "Genoa": {"snp": 20}}, "not_available"),
        ({"Milan": {"snp": 25}, "Genoa": {"snp": 26}}, "fail"),
        ({"Turin": {"fmc": 1}}, "fail"),
        ({}, "not_available"),
    ],
)
def test_an_unnamed_processor(minima: dict[str, dict[str, int]], outcome: str) -> None:
    claims = authority.changed(GROUP, SNP + "chip-family")
    appraisal = appraise(claims, replace(FULL, tcb=minima, products=()))
    assert outcomes(appraisal)["tcb"] == outcome
    assert (appraisal.tier is Tier.AFFIRMING) == (outcome == "pass" or not minima)


def test_a_product_that_is_asked_for_and_not_shown() -> None:
    appraisal = appraise(authority.changed(GROUP, SNP + "chip-family"))
    assert appraisal.tier is Tier.WARNING and open_(appraisal) == {"product"}
    assert open_(appraise(GROUP, replace(FULL, tcb={"Genoa": {"snp": 1}}))) == {"tcb"}


@pytest.mark.parametrize("member", [{"projects": ("x",)}, {"zones": ("y",)}])
def test_a_place_that_is_asked_for_and_not_shown(member: dict[str, Any]) -> None:
    appraisal = appraise(GROUP, replace(FULL, **member))
    assert appraisal.tier is Tier.WARNING and open_(appraisal) == {"place"}


@pytest.mark.parametrize(
    ("member", "left", "tier"),
    [
        ("maa", {"issuer", "policy-identity"}, Tier.WARNING),
        ("code", {"code"}, Tier.WARNING),
        ("tcb", {"tcb"}, Tier.AFFIRMING),  # as for raw SEV-SNP evidence
        ("tees", set(), Tier.AFFIRMING),
        ("products", set(), Tier.AFFIRMING),
    ],
)
def test_what_a_policy_does_not_ask_is_not_called_passed(member: str, left: set[str], tier: Tier) -> None:
    appraisal = appraise(GROUP, replace(FULL, **{member: {} if member in ("maa", "tcb") else ()}))
    assert open_(appraisal) == left and appraisal.tier is tier


@pytest.mark.parametrize(
    ("flag", "check"),
    [
        ("bootdebug-enabled", "debug"),
        ("kerneldebug-enabled", "debug"),
        ("hypervisordebug-enabled", "debug"),
        ("testsigning-enabled", "secure-boot"),
        ("flightsigning-enabled", "secure-boot"),
    ],
)
def test_a_guest_with_a_system_that_the_service_does_not_know(flag: str, check: str) -> None:
    """Real tokens leave these out. That is not a bad word about the machine, and not a good one either."""
    claims = authority.changed(with_pcrs(), FLAG + flag)
    appraisal = appraise(claims, pinning({"pcrs": HEX}))
    assert open_(appraisal) == {check} and appraisal.tier is Tier.WARNING
    assert failing(appraise(authority.changed(claims, TEE + SNP + "is-debuggable", True))) >= {"debug"}
    assert check in failing(appraise({**claims, FLAG + flag: None}))


# --- PCR values of newer tokens ---

VALUES = {number: hashlib.sha256(bytes((number,))).digest() for number in range(8)}
HEX = {str(number): value.hex() for number, value in VALUES.items()}
OTHER = "00" * 32
MEASURED = "6a" * 48  # of authority_tokens


def with_pcrs(values: Any = None, claims: dict[str, Any] = VM) -> dict[str, Any]:
    said = {f"pcr{n}": base64.b64encode(value).decode() for n, value in VALUES.items()}
    return {**claims, "x-ms-azurevm-attested-pcr-values": said if values is None else values}


def pinning(*entries: dict[str, Any], type_: str = TYPE) -> Policy:
    return replace(FULL, code=tuple({"type": type_, "image": authority.IMAGE, **entry} for entry in entries))


@pytest.mark.parametrize(
    ("type_", "entry"),
    [
        (TYPE, {"pcrs": {"4": HEX["4"], "7": HEX["7"]}}),
        ("azure-cvm", {"pcrs": HEX}),
        ("azure-cvm", {"pcrs": {"4": HEX["4"]}, "measurement": MEASURED}),
        ("azure-cvm", {"pcrs": {"4": HEX["4"]}, "measurement": MEASURED, "mrtd": "0c" * 48}),
    ],
)
def test_pcr_values_show_the_image_of_a_machine(type_: str, entry: dict[str, Any]) -> None:
    appraisal = appraise(with_pcrs(), pinning(entry, type_=type_))
    assert appraisal.tier is Tier.AFFIRMING and appraisal.claims["image"] == authority.IMAGE
    assert appraisal.claims["code"]["pcrs"] == HEX


@pytest.mark.parametrize(
    ("entries", "outcome"),
    [
        ([{"pcrs": {"4": OTHER}}], "fail"),
        ([{"pcrs": {"4": HEX["4"], "7": OTHER}}], "fail"),
        ([{"pcrs": {"4": OTHER, "11": OTHER}}], "fail"),
        ([{"pcrs": {"4": HEX["4"], "11": OTHER}}], "not_available"),
        ([{"pcrs": {"11": OTHER}}, {"pcrs": {"4": OTHER}}], "not_available"),
        ([{"pcrs": {"4": HEX["4"]}, "measurement": "6b" * 48}], "fail"),
        ([{"pcrs": {"4": HEX["4"]}, "mrtd": MEASURED}], "fail"),
    ],
)
def test_pcr_values_that_do_not(entries: list[dict[str, Any]], outcome: str) -> None:
    appraisal = appraise(with_pcrs(), pinning(*entries, type_="azure-cvm"))
    assert outcomes(appraisal)["code"] == outcome and "image" not in appraisal.claims
    assert appraisal.tier is (Tier.CONTRAINDICATED if outcome == "fail" else Tier.WARNING)


def test_pcr_values_without_reference_values() -> None:
    for policy in (FULL, replace(FULL, code=())):
        assert open_(appraise(with_pcrs(), policy)) == {"code"}
    foreign = replace(pinning({"pcrs": HEX}), images=("sha256:" + "99" * 32,))
    assert open_(appraise(with_pcrs(), foreign)) == {"code"}


@pytest.mark.parametrize(
    "values",
    [{}, [], "x", {"pcr0": HEX["0"]}, {"pcr0": 1}, {"pcr24": "A" * 43 + "="}, {"0": "A" * 43 + "="},
     {"pcr0": "A" * 43 + "=", "pcr1": "AA=="}],
)  # fmt: skip
def test_pcr_values_of_another_form_are_not_read(values: Any) -> None:
    appraisal = appraise(with_pcrs(values), pinning({"pcrs": {"0": "00" * 32}}))
    assert open_(appraisal) == {"code"} and "pcrs" not in appraisal.claims["code"]


def test_pcr_values_count_for_guests_only() -> None:
    """Elsewhere nobody says that they are of the machine that the claims are about."""
    for kind in ("flat", "tdx"):
        assert open_(appraise(with_pcrs(claims=KINDS[kind]), pinning({"pcrs": HEX}))) == {"code"}
    assert failing(appraise(with_pcrs(claims=GROUP), pinning({"host_data": "ee" * 32}))) == {"code"}
    assert open_(appraise(with_pcrs(claims=GROUP), pinning({"pcrs": HEX}))) == {"code"}


# --- TDX ---


@pytest.mark.parametrize(
    ("path", "value", "check"),
    [
        ("tdx_td_attributes", "0100000000000000", "debug"),
        ("tdx_td_attributes", "2000000000000000", "debug"),
        ("tdx_td_attributes", "0000002000000000", "migration"),
        ("attester_tcb_status", "OutOfDate", "tcb"),
        ("attester_tcb_status", "Revoked", "tcb"),
        ("attester_advisory_ids", ["INTEL-SA-1"], "tcb"),
    ],
)
def test_a_domain_that_is_refused(path: str, value: Any, check: str) -> None:
    for policy in (
        FULL,
        replace(FULL, tdx_tcb=()),
    ):  # up to date is what counts where a policy names no status
        assert failing(appraise({**TDX, path: value}, policy)) == {check}


def test_a_domain_with_every_attribute_that_it_may_have() -> None:
    for bit in (16, 27, 28, 30, 31, 62, 63):
        value = (1 << bit).to_bytes(8, "little").hex()
        assert open_(appraise({**TDX, "tdx_td_attributes": value})) == {"code"}


def test_a_domain_whose_status_is_not_said() -> None:
    claims = authority.changed(TDX, "attester_tcb_status")
    assert failing(appraise(claims)) == {"tcb"}
    assert open_(appraise(claims, replace(FULL, tdx_tcb=()))) == {"tcb", "code"}


def test_a_domain_of_its_own_firmware() -> None:
    """Without Microsoft's, nothing in the token says how it was configured, and its report data are its own."""
    runtime = {"x-ms-runtime": {"nonce": NONCE}}
    report_data = hashlib.sha256(RUNTIME_DATA).hexdigest() + "00" * 32
    claims = {**TDX, **runtime, "tdx_report_data": report_data}
    assert open_(appraise(claims, parts={"runtime-data": RUNTIME_DATA})) == {"secure-boot", "code"}
    assert failing(appraise(claims)) == {"nonce"}
    assert failing(appraise({**TDX, **runtime}, parts={"runtime-data": RUNTIME_DATA})) == {"user-data"}
    machine = {"vm-configuration": {"secure-boot": False, "tpm-enabled": True}}
    assert "secure-boot" in failing(appraise({**TDX, "x-ms-runtime": machine}))


def test_tees() -> None:
    assert failing(appraise(GROUP, replace(FULL, tees=("tdx",)))) == {"tee"}
    assert failing(appraise(TDX, replace(FULL, tees=("sev-snp",)))) == {"tee"}


# --- keys and header ---


@pytest.mark.parametrize(
    ("check", "header"),
    [
        ("issuer", {"jku": "https://attacker.example/certs"}),
        ("issuer", {"jku": MAA + ".evil/certs"}),
        ("issuer", {"jku": MAA + "/certs/"}),
        ("issuer", {"jku": MAA + "/certs?x=1"}),
        ("issuer", {"jku": None}),
        ("trust-anchor", {"kid": "unknown"}),
        ("trust-anchor", {"kid": GONE}),
        ("signature", {"kid": "other"}),
        ("algorithm", {"alg": "none"}),
        ("algorithm", {"alg": "HS256"}),
        ("algorithm", {"alg": "PS256"}),
        ("format", {"jwk": authority.jwk(key("attacker"), "x")}),
    ],
)
def test_headers(check: str, header: dict[str, Any]) -> None:
    assert failing(judge(Maa().token(GROUP, **header), parts={"runtime-data": RUNTIME_DATA})) == {check}


def test_without_an_address_of_keys() -> None:
    token = Maa().token(GROUP, jku=GONE)
    assert judge(token, parts={"runtime-data": RUNTIME_DATA}).tier is Tier.AFFIRMING


def test_a_provider_of_somebody_else() -> None:
    """Its tokens are genuine, by Microsoft's software, and say whatever its owner's policy lets them say."""
    foreign = Maa("https://mine.weu.attest.azure.net", "foreign")
    claims = {**GROUP, "iss": foreign.issuer}
    both = Trust(anchors=(*Maa().anchors, *foreign.anchors))
    parts = {"runtime-data": RUNTIME_DATA}
    assert failing(judge(foreign.token(claims), parts=parts)) == {"issuer", "trust-anchor", "policy-identity"}
    assert failing(judge(foreign.token(claims), parts=parts, trust=both)) == {"issuer", "policy-identity"}
    posing = foreign.token(GROUP, jku=f"{MAA}/certs")
    assert failing(judge(posing, parts=parts, trust=both)) == {"trust-anchor"}
    named = foreign.token(GROUP, jku=f"{MAA}/certs", kid=Maa().kid)
    assert failing(judge(named, parts=parts, trust=both)) == {"signature"}


def test_a_policy_hash_is_accepted_for_its_own_provider_only() -> None:
    hashes = {MAA: ["A" * 43], "https://mine.weu.attest.azure.net": [authority.MAA_POLICY]}
    assert failing(appraise(GROUP, replace(FULL, maa=hashes))) == {"policy-identity"}


def test_a_key_set_in_the_evidence_is_a_record_only() -> None:
    assert appraise(GROUP, collateral={"jwks": Maa().jwks}).tier is Tier.AFFIRMING
    alone = appraise(GROUP, collateral={"jwks": Maa().jwks}, trust=Trust())
    assert failing(alone) == {"trust-anchor", "collateral"}


@pytest.mark.parametrize(
    ("seconds", "fails"),
    [(600, set()), (-61, {"validity", "age", "collected"}), (601, {"age"}), (28800, {"age", "validity"})],
)
def test_when_it_is_judged(seconds: int, fails: set[str]) -> None:
    appraisal = appraise(GROUP, now=NOW + timedelta(seconds=seconds))
    assert (failing(appraisal) if fails else set()) == fails


@pytest.mark.parametrize(
    "changes",
    [{"parts": {"chain": b"x"}}, {"collateral": {"crl": b"x"}}, {"parts": {"runtime-data": b"x" * 70000}}],
)
def test_parts_that_do_not_belong(changes: dict[str, Any]) -> None:
    assert failing(appraise(VM, **changes)) == {"format"}


def test_extra_claims_are_left_alone() -> None:
    more = {
        "x-ms-azurevm-attested-pcr-values": {"pcr0": "AA=="},
        "x-ms-new": [1, {"a": None}],
        SNP + "chipid": "ab",
    }
    assert appraise({**GROUP, **more}).tier is Tier.AFFIRMING


# --- anything ---


@pytest.mark.parametrize("claims", [VM, GROUP], ids=["vm", "group"])
def test_flipped_bits(claims: dict[str, Any]) -> None:
    token = Maa().token(claims)
    parts = {"runtime-data": RUNTIME_DATA} if claims is GROUP else None
    for position in range(0, len(token) * 8, 7):
        changed = bytearray(token)
        changed[position // 8] ^= 1 << position % 8
        assert not judge(bytes(changed), parts=parts).ok
    for position in range(len(RUNTIME_DATA) * 8 if parts else 0):
        data = bytearray(RUNTIME_DATA)
        data[position // 8] ^= 1 << position % 8
        assert not judge(token, parts={"runtime-data": bytes(data)}).ok


json_values: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
    | st.sampled_from(["sevsnpvm", "tdxvm", "azurevm", "azure-compliant-cvm", ALLOW_ALL, NONCE]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def paths(value: dict[str, Any], way: str = "") -> list[str]:
    nested: Callable[[str], list[str]] = lambda name: paths(value[name], f"{way}{name}/")  # noqa: E731
    return [
        p for name in value for p in [way + name, *(nested(name) if isinstance(value[name], dict) else [])]
    ]


# What no rule looks at, or only at a bound that another value can meet as well.
FREE = (
    "jti",
    "x-ms-ver",
    "x-ms-runtime",
    SNP,
    "exp",
    "iat",
    "nbf",
    TEE + SNP,
    RUNTIME + "keys",
    RUNTIME + "vm-conf",
    FLAG + "attested-pcrs",
    "tdx_",
)
HELD = ("is-debuggable", "migration-allowed", "vmpl", "hostdata", "reportdata")


@given(st.sampled_from(sorted(KINDS)), st.data())
def test_any_claim_replaced_by_anything(kind: str, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(paths(KINDS[kind])))
    value = data.draw(json_values | st.just(GONE))
    try:
        changed = authority.changed(KINDS[kind], path, value)
        appraisal = appraise(changed)
    except UnicodeEncodeError:  # a lone surrogate in a name: no JSON bytes
        return
    strictjson.canonical(appraisal.to_json())
    assert appraisal.tier is not Tier.AFFIRMING or kind == "group"
    if appraisal.ok and changed != KINDS[kind]:
        left_out = value is GONE and (path == "dbgstat" or path.endswith("-enabled"))
        assert path.startswith(FREE) or left_out
        assert kind != "group" or not path.endswith(HELD)


@given(json_values, json_values)
def test_any_json_as_header_and_claims(header: Any, claims: Any) -> None:
    assert not judge(
        authority.compact(json.dumps(header).encode(), json.dumps(claims).encode(), key("maa"))
    ).ok


@given(st.binary(max_size=200))
def test_any_bytes(token: bytes) -> None:
    assert not judge(token).ok
