"""Azure confidential VMs of an authority of our own, on AMD and on Intel: what is accepted, and what is not."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom import evidence
from strongroom.evidence import Appraisal, Policy, Tier, Trust, envelope, tdreport, tdx_quote, tpm
from tests.unit.strongroom.evidence import authority_amd as amd
from tests.unit.strongroom.evidence import authority_cvm as cvm
from tests.unit.strongroom.evidence import authority_intel as intel
from tests.unit.strongroom.evidence.authority_cvm import NONCE, NOW, PCRS, Machine

TYPE = "azure-cvm"
IMAGE = "sha256:" + "ab" * 32
TRUST = Trust.of(anchors=cvm.anchors())
N1 = base64.urlsafe_b64encode(NONCE).rstrip(b"=").decode()
PINNED = {str(number): PCRS[number].hex() for number in (4, 7, 11, 15)}
CODE = {"type": TYPE, "image": IMAGE, "pcrs": PINNED}
SNP, TDX = Machine(), Machine(tdx=True)
FULL = Policy((TYPE,), (IMAGE,), 600, code=(CODE,))
# A policy that pins the paravisor as well: the only way on TDX, where nothing names who made it.
PARAVISOR = Policy((TYPE,), (IMAGE,), 600, code=({**CODE, "mrtd": TDX.domain.mrtd.hex()},))


@cache
def collateral() -> bytes:
    return intel.collateral(intel.Authority())


def judge(
    machine: Machine | bytes,
    *,
    policy: Policy = FULL,
    nonce: str | bytes | None = N1,
    now: datetime = NOW,
    trust: Trust = TRUST,
) -> Appraisal:
    data = machine if isinstance(machine, bytes) else machine.seal()
    return evidence.verify(data, policy, now=now, expected_nonce=nonce, trust=trust)


def outcomes(appraisal: Appraisal) -> dict[str, str]:
    return {check.id: check.outcome.value for check in appraisal.checks}


def failed(appraisal: Appraisal) -> set[str]:
    return {check.id for check in appraisal.checks if check.outcome == "fail"}


@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
@pytest.mark.parametrize("tpmt", [False, True], ids=["raw signature", "TPMT_SIGNATURE"])
def test_snp_machine_is_affirming_when_all_is_well(product: str, tpmt: bool) -> None:
    found = judge(SNP.but(vek=amd.Vek(product), tpmt=tpmt))
    assert found.tier is Tier.AFFIRMING, [c for c in found.checks if c.outcome != "pass"]
    assert found.claims["image"] == IMAGE and found.claims["tee"] == "sev-snp"
    assert found.claims["instance"] == cvm.INSTANCE.lower() and found.claims["nonce"] == NONCE.hex()
    assert found.claims["code"]["pcrs"]["7"] == PCRS[7].hex() and found.claims["vm"]["secure_boot"] is True


@pytest.mark.parametrize("version", [4, 5])
def test_tdx_machine_is_affirming_when_all_is_well(version: int) -> None:
    machine = TDX.but(domain=TDX.domain.but(version=version))
    found = judge(machine.seal(**{"tdx-collateral": collateral()}), policy=PARAVISOR)
    assert found.tier is Tier.AFFIRMING, [c for c in found.checks if c.outcome != "pass"]
    assert found.claims["tee"] == "tdx" and found.claims["image"] == IMAGE
    assert found.claims["instance"] == cvm.INSTANCE.lower()


@pytest.mark.parametrize("hash_type", [1, 2, 3])
def test_every_hash_that_the_report_may_name(hash_type: int) -> None:
    assert judge(SNP.but(hash_type=hash_type)).tier is Tier.AFFIRMING


def test_a_newer_paravisors_report() -> None:
    """It says before its claims what the host's agent may answer. No signature covers that, and nothing rests on it."""
    good, collateral_ = SNP.but(hcl={"request_version": 2}).parts()
    report = good["hcl-report"]
    for bits in range(0, 32, 5):
        at = 32 + 1184 + 20 + bits // 8
        changed = report[:at] + bytes((report[at] ^ 1 << bits % 8,)) + report[at + 1 :]
        parts = {**good, "hcl-report": changed}
        found = judge(envelope.build(TYPE, parts, collected=NOW, collateral=collateral_))
        assert found.tier is Tier.AFFIRMING, [c for c in found.checks if c.outcome != "pass"]


@pytest.mark.parametrize("chosen", [(0, 1, 2, 3, 4, 5, 6, 7), (4, 7, 11, 15), tuple(range(24))])
def test_any_selection_that_holds_the_pinned_pcrs(chosen: tuple[int, ...]) -> None:
    policy = replace(FULL, code=({**CODE, "pcrs": {"4": PCRS[4].hex(), "7": PCRS[7].hex()}},))
    machine = SNP.but(pcrs={number: PCRS[number] for number in chosen})
    assert judge(machine, policy=policy).tier is Tier.AFFIRMING


def test_pinned_pcrs_outside_the_selection_are_not_shown() -> None:
    machine = SNP.but(pcrs={number: PCRS[number] for number in (4, 7, 11)})
    assert failed(judge(machine)) == {"code"}


class TestWarnings:
    """What is not known alone keeps evidence from being affirming; none of it is a fail."""

    def warned(self, id_: str, machine: Machine, **arguments: Any) -> None:
        found = judge(machine, **arguments)
        assert found.ok and found.tier is Tier.WARNING and outcomes(found)[id_] == "not_available"

    def test_no_context(self) -> None:
        self.warned("nonce", SNP, nonce=None)

    def test_paravisor_was_not_asked_for_this_context(self) -> None:
        self.warned("user-data", SNP.but(user_data=bytes(64)))

    def test_no_reference_values(self) -> None:
        self.warned("code", SNP, policy=Policy.any())

    @pytest.mark.parametrize("id_key", [bytes(48), b"\x77" * 48])
    def test_paravisor_of_unknown_make(self, id_key: bytes) -> None:
        self.warned("paravisor", SNP.but(id_key=id_key))

    def test_tdx_paravisor_that_is_not_pinned(self) -> None:
        found = judge(TDX.seal(**{"tdx-collateral": collateral()}))
        assert found.tier is Tier.WARNING and outcomes(found)["paravisor"] == "not_available"

    def test_tdx_without_collateral(self) -> None:
        self.warned("tcb", TDX, policy=PARAVISOR)

    def test_a_place_that_the_policy_asks_for(self) -> None:
        self.warned("place", SNP, policy=replace(FULL, zones=("westeurope",)))


def test_a_pinned_measurement_stands_for_the_paravisor() -> None:
    measured = b"\x4d" * 48
    policy = replace(FULL, code=({**CODE, "measurement": measured.hex()},))
    assert judge(SNP.but(id_key=bytes(48)), policy=policy).tier is Tier.AFFIRMING
    other = replace(FULL, code=({**CODE, "measurement": "00" * 48},))
    assert failed(judge(SNP.but(id_key=bytes(48)), policy=other)) == {"code"}


WITHOUT_7 = {number: value for number, value in PCRS.items() if number != 7}
MACHINES: dict[str, tuple[Machine, set[str]]] = {
    "extra data of another context": (SNP.but(extra=bytes(32)), {"nonce"}),
    "extra data empty": (SNP.but(extra=b""), {"nonce"}),
    "extra data longer": (SNP.but(extra=NONCE + b"\x00"), {"nonce"}),
    "user-data of another context": (SNP.but(user_data=b"\x01" * 32), {"user-data"}),
    "user-data with something after it": (SNP.but(user_data=NONCE + b"\x01"), {"user-data"}),
    "a quote by another key": (SNP.but(signing_key="stranger"), {"ak-signature"}),
    "claims that name another key": (SNP.but(key_name="stranger", signing_key="ak"), {"ak-signature"}),
    "claims that the hardware did not hash": (SNP.but(report_data=b"\x05" * 64), {"ak-binding"}),
    "hash with something after it": (
        SNP.but(report_data=hashlib.sha256(SNP.claims()).digest() + b"\x01" * 32),
        {"ak-binding"},
    ),
    "another hash than named": (SNP.but(hcl={"hash_type": 2}), {"ak-binding"}),
    "PCR changed": (SNP.but(said_pcrs={**PCRS, 7: bytes(32)}), {"pcr-digest", "code"}),
    "PCRs swapped": (SNP.but(said_pcrs={**PCRS, 0: PCRS[1], 1: PCRS[0]}), {"pcr-digest"}),
    "a PCR left out": (SNP.but(said_pcrs=WITHOUT_7), {"pcr-selection", "pcr-digest", "code"}),
    "a PCR added": (
        SNP.but(pcrs=WITHOUT_7, said_pcrs=PCRS),
        {"pcr-selection", "pcr-digest"},
    ),
    "short selection, digest of all": (
        SNP.but(attest={"selected": cvm.selection((4, 7), tpm.ALG_SHA256)}),
        {"pcr-selection"},
    ),
    "sha1 bank": (SNP.but(attest={"selected": cvm.selection(tuple(PCRS), 0x0004)}), {"pcr-selection"}),
    "two banks": (
        SNP.but(
            attest={"selected": cvm.selection(tuple(PCRS), tpm.ALG_SHA256) + cvm.selection((0,), 0x0004)}
        ),
        {"pcr-selection"},
    ),
    "digest of something else": (SNP.but(attest={"digest": bytes(32)}), {"pcr-digest"}),
    "other software": (SNP.but(pcrs={**PCRS, 11: bytes(32)}), {"code"}),
    "no secure boot": (SNP.but(vm={"secure-boot": False}), {"secure-boot"}),
    "no vTPM": (SNP.but(vm={"tpm-enabled": False}), {"secure-boot"}),
    "debug": (SNP.but(snp={"policy": amd.POLICY | 1 << 19}), {"debug"}),
    "migration": (SNP.but(snp={"policy": amd.POLICY | 1 << 18}), {"migration"}),
    "privilege level 1": (SNP.but(snp={"vmpl": 1}), {"vmpl"}),
    "another chip": (SNP.but(snp={"chip_id": b"\x01" * 64}), {"chip-id"}),
    "TCB above the certificate": (
        SNP.but(snp={"reported": {**amd.TCB, "snp": amd.TCB["snp"] + 1}, "current": {**amd.TCB, "snp": 99}}),
        {"tcb-certificate"},
    ),
    "TDX: debug": (TDX.but(domain=TDX.domain.but(attributes=1)), {"debug"}),
    "TDX: another paravisor than pinned": (TDX.but(domain=TDX.domain.but(mrtd=b"\x66" * 48)), {"code"}),
    "TDX: claims that the hardware did not hash": (TDX.but(report_data=b"\x05" * 64), {"ak-binding"}),
    "TDX: attestation key not bound": (
        TDX.but(domain=TDX.domain.but(qe_report_data=b"\x01" * 64)),
        {"att-key"},
    ),
    "TDX: a quote by another key": (TDX.but(signing_key="stranger"), {"ak-signature"}),
    "TDX: another authority": (
        TDX.but(domain=TDX.domain.but(authority=intel.Authority("forger"))),
        {"trust-anchor"},
    ),
}


@pytest.mark.parametrize("name", MACHINES)
def test_single_change_is_refused(name: str) -> None:
    machine, expected = MACHINES[name]
    found = judge(machine, policy=PARAVISOR if machine.tdx else FULL)
    assert found.tier is Tier.CONTRAINDICATED and failed(found) == expected


FORMATS: dict[str, Machine] = {
    "magic": SNP.but(attest={"magic": 0}),
    "not a quote": SNP.but(attest={"type_": 0x8017}),
    "bytes after the quote": SNP.but(attest={"tail": b"\x00"}),
    "HCL version 3": SNP.but(hcl={"version": 3}),
    "HCL padding": SNP.but(hcl={"padding": b"\x01"}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_other_formats_are_refused(name: str) -> None:
    found = judge(FORMATS[name])
    assert failed(found) == {"format"} and found.claims == {}


@pytest.mark.parametrize("machine", [SNP, TDX], ids=["snp", "tdx"])
def test_a_report_type_that_does_not_fit_its_body(machine: Machine) -> None:
    found = judge(machine.but(hcl={"report_type": 2 if machine.tdx else 4}))
    assert failed(found) in ({"report-type"}, {"format"}) and found.claims == {}


def test_report_type_4_with_an_snp_body() -> None:
    parts, more = SNP.parts()
    data = bytearray(parts["hcl-report"])
    struct.pack_into("<I", data, 32 + 1184 + 8, 4)
    found = judge(_seal({**parts, "hcl-report": bytes(data)}, more))
    assert failed(found) == {"report-type"}


def _seal(parts: dict[str, bytes], more: dict[str, bytes]) -> bytes:
    return envelope.build(TYPE, parts, collected=NOW, collateral=more)


def test_parts_and_collateral_are_exactly_those_of_the_hardware() -> None:
    parts, more = SNP.parts()
    td_parts, _ = TDX.parts()
    cases = [
        ({}, {}),
        (parts, {}),
        (parts, {**more, "tdx-collateral": b"{}"}),
        ({**parts, "td-quote": td_parts["td-quote"]}, more),
        ({**parts, "another": b""}, more),
        ({k: v for k, v in parts.items() if k != "pcrs"}, more),
        ({k: v for k, v in td_parts.items() if k != "td-quote"}, {}),
        (td_parts, more),
    ]
    for case in cases:
        assert failed(judge(_seal(*case))) == {"format"}


def test_parts_of_two_machines_do_not_fit_together() -> None:
    """Each part of another machine, everything else as it was: the same authority, another VM and another key."""
    other = SNP.but(key_name="other", vm={"vmUniqueId": "another"}, pcrs={**PCRS, 0: bytes(32)})
    parts, more = SNP.parts()
    for name, value in other.parts()[0].items():
        assert not judge(_seal({**parts, name: value}, more)).ok, name
    td_parts, td_other = TDX.parts()[0], TDX.but(key_name="other").parts()[0]
    for name in ("td-quote", "hcl-report"):
        assert not judge(_seal({**td_parts, name: td_other[name]}, {})).ok, name


def test_the_td_quote_must_come_from_the_td_report() -> None:
    """Any field of the TDREPORT changed, the binding kept: it is no longer what the quote was made from."""
    parts, _ = TDX.parts()
    report = parts["hcl-report"]
    mac = range(32 + tdreport.MAC_AT, 32 + tdreport.MAC_AT + tdreport.MAC_SIZE)
    for at in range(32, 32 + 1184):
        data = bytearray(report)
        data[at] ^= 1 << at % 8
        found = judge(_seal({**parts, "hcl-report": bytes(data)}, {}), policy=PARAVISOR)
        assert found.ok is (at in mac), at


@pytest.mark.parametrize("version", [4, 5])
def test_a_td_report_that_names_service_domains(version: int) -> None:
    """Then it is of version 1 itself; a quote of version 5 names them as well."""
    served = TDX.but(domain=TDX.domain.but(version=version, mrservicetd=b"\x01" * 48))
    found = judge(served, policy=PARAVISOR)
    assert found.ok and outcomes(found)["td-report"] == "pass"


EXTENDED = TDX.domain.but(version=5, body_type=4, report_version=3, vmid=b"\x02")


@pytest.mark.parametrize("form", [(4, 2), (5, 2), (5, 3), (5, 4)], ids=str)
def test_an_extended_td_report(form: tuple[int, int]) -> None:
    """Version 3 names the domain's start and partition; a quote may, too, and then they must agree."""
    version, body_type = form
    machine = TDX.but(domain=EXTENDED.but(version=version, body_type=body_type))
    found = judge(machine.seal(**{"tdx-collateral": collateral()}), policy=PARAVISOR)
    assert found.tier is Tier.AFFIRMING, [c for c in found.checks if c.outcome != "pass"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"td_id": b"\x1e" * 32}, "TD_ID"),
        ({"vmid": b"\x03"}, "TD_ID"),
        ({"report_version": 0}, "TD_ID"),
        ({"report_version": 2}, "its version"),
        ({"report_version": 4}, "its version"),
    ],
)
def test_an_extended_td_report_of_another_start(changes: dict[str, Any], field: str) -> None:
    """Well formed and with the right hashes, but not what the quote was made from."""
    quote = tdx_quote.parse(EXTENDED.quote())
    fault = tdreport.fault(tdreport.parse(EXTENDED.but(**changes).td_report()), quote)
    assert fault is not None and field in fault
    assert tdreport.fault(tdreport.parse(EXTENDED.td_report()), quote) is None


@pytest.mark.parametrize("at", [*range(32, 56), *range(57, 60)])
def test_reserved_bytes_of_an_extended_td_report(at: int) -> None:
    raw = bytearray(EXTENDED.td_report())
    raw[tdreport.SIZE - 64 + at] = 1
    fault = tdreport.fault(tdreport.parse(bytes(raw)), tdx_quote.parse(EXTENDED.quote()))
    assert fault is not None and "its reserved bytes" in fault


def test_shipped_anchors_accept_nothing_of_these_authorities() -> None:
    assert "trust-anchor" in failed(judge(SNP, trust=Trust.of()))
    assert "trust-anchor" in failed(judge(TDX, trust=Trust.of(), policy=PARAVISOR))


def test_policy_conditions() -> None:
    assert failed(judge(SNP, now=NOW + timedelta(seconds=700))) == {"age"}
    assert failed(judge(SNP, policy=replace(FULL, tees=("tdx",)))) == {"tee"}
    assert failed(judge(SNP, policy=replace(FULL, products=("Genoa",)))) == {"product-accepted"}
    high = {"Milan": {"snp": 200}}
    assert failed(judge(SNP, policy=replace(FULL, tcb=high))) == {"tcb"}
    assert failed(judge(SNP, policy=replace(FULL, images=("sha256:" + "cd" * 32,)))) == {"code"}


@pytest.mark.parametrize("nonce", ["", N1[:-1], b"", bytes(32), NONCE + b"\x00", "x" * 200])
def test_a_wrong_expectation_is_a_fail_and_no_exception(nonce: str | bytes) -> None:
    assert "nonce" in failed(judge(SNP, nonce=nonce))


@pytest.mark.parametrize("length", [1, 9, 48, 64])
def test_literal_bytes_of_another_length(length: int) -> None:
    literal = bytes(range(1, length + 1))
    assert judge(SNP.but(nonce=literal), nonce=literal).tier is Tier.AFFIRMING


SEALED = {machine.tdx: machine.parts() for machine in (SNP, TDX)}


@given(tdx=st.booleans(), name=st.sampled_from(["hcl-report", "quote", "signature", "pcrs", "td-quote"]),
       at=st.integers(0, 10**6), bit=st.integers(0, 7))  # fmt: skip
@settings(max_examples=400)
def test_any_flipped_bit_of_any_part_is_refused(tdx: bool, name: str, at: int, bit: int) -> None:
    parts, more = SEALED[tdx]
    name = name if name in parts else "hcl-report"
    data = bytearray(parts[name])
    at %= len(data)
    if (
        tdx
        and name == "hcl-report"
        and at - 32 in range(tdreport.MAC_AT, tdreport.MAC_AT + tdreport.MAC_SIZE)
    ):
        return  # the TDREPORT's MAC is for the processor that made it; nobody else can check it
    data[at] ^= 1 << bit
    found = judge(_seal({**parts, name: bytes(data)}, more), policy=PARAVISOR if tdx else FULL)
    assert not found.ok


@given(
    tdx=st.booleans(),
    values=st.dictionaries(
        st.sampled_from(["hcl-report", "quote", "signature", "pcrs", "td-quote"]),
        st.binary(max_size=3000),
        min_size=1,
    ),
)
@settings(max_examples=200)
def test_random_parts_are_refused_without_an_exception(tdx: bool, values: dict[str, bytes]) -> None:
    parts, more = SEALED[tdx]
    assert not judge(_seal({**parts, **values}, more)).ok


@given(tdx=st.booleans(), name=st.sampled_from(["hcl-report", "quote", "td-quote"]), at=st.integers(0, 5000),
       cut=st.integers(0, 300), put=st.binary(max_size=40))  # fmt: skip
@settings(max_examples=200)
def test_edited_parts_never_pass_and_never_raise(tdx: bool, name: str, at: int, cut: int, put: bytes) -> None:
    parts, more = SEALED[tdx]
    name = name if name in parts else "quote"
    edited = parts[name][:at] + put + parts[name][at + cut :]
    found = judge(_seal({**parts, name: edited}, more), policy=PARAVISOR if tdx else FULL)
    if edited == parts[name]:
        assert found.ok
    elif found.ok:
        assert name != "quote" and _read(edited[: len(parts[name])]) == _read(parts[name])


def _read(part: bytes) -> bytes:
    """A part without what changes nothing that is read: zeros at its end, and line ends after a certificate in PEM.

    What follows a quote is cut off by the caller: nothing signs it, and it is not read.
    """
    return re.sub(rb"(?<=-----END CERTIFICATE-----)[\r\n]+", b"", part.rstrip(b"\x00"))
