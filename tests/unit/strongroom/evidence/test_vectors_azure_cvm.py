"""Real evidence of Azure confidential VMs: each as ../shared/vectors/expected.json says.

Trustee's evidence is JSON of its own form; it is converted here to the parts of our envelope, byte for byte.
"""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom import evidence
from strongroom.evidence import Appraisal, Policy, Tier, Trust, azure_cvm, envelope, hcl, tdreport, tpm

VECTORS = Path(__file__).resolve().parents[5] / "shared" / "vectors"
pytestmark = pytest.mark.skipif(
    not (VECTORS / "expected.json").is_file(),
    reason="the folder ../shared/vectors with real evidence is not there",
)

TYPE = "azure-cvm"
NOW = datetime(2025, 11, 1, tzinfo=UTC)
CHALLENGE = b"challenge"
SNP, TDX = "coco-trustee/az-snp-vtpm/", "coco-trustee/az-tdx-vtpm/"
Parts = tuple[dict[str, bytes], dict[str, bytes]]


def read(name: str) -> bytes:
    return (VECTORS / name).read_bytes()


def expected(name: str) -> dict[str, Any]:
    entries = json.loads(read("expected.json"))["azure_cvm"]
    (found,) = [entry for entry in entries if entry["f"].startswith(name)]
    return dict(found)


def _bytes(value: Any) -> bytes:
    """Trustee writes bytes as a list of numbers (v0), hex (quotes) or base64url (reports, certificates)."""
    if isinstance(value, list):
        return bytes(value)
    try:
        return bytes.fromhex(value)
    except ValueError:
        return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))


def _pcrs(values: list[Any]) -> bytes:
    return json.dumps({"sha256": {str(n): _bytes(value).hex() for n, value in enumerate(values)}}).encode()


def converted(name: str) -> Parts:
    """The parts and collateral of one of Trustee's evidence files."""
    document = json.loads(read(name))
    quote = document.get("tpm_quote") or document["quote"]
    parts = {
        "hcl-report": _bytes(document.get("hcl_report") or document["report"]),
        "quote": _bytes(quote["message"]),
        "signature": _bytes(quote["signature"]),
        "pcrs": _pcrs(quote["pcrs"]),
    }
    if "td_quote" in document:
        return {**parts, "td-quote": _bytes(document["td_quote"])}, {}
    vcek = document["vcek"]
    return parts, {"vek": vcek.encode() if vcek.startswith("-----") else _bytes(vcek)}


def loose(folder: str) -> Parts:
    """The same from the separate files of a folder."""
    quote = json.loads(read(f"{folder}tpm-quote-v1.json"))
    parts = {
        "hcl-report": read(f"{folder}hcl-report.bin"),
        "quote": _bytes(quote["message"]),
        "signature": _bytes(quote["signature"]),
        "pcrs": _pcrs(quote["pcrs"]),
    }
    if folder == TDX:
        return {**parts, "td-quote": read(f"{folder}td-quote.bin")}, {}
    return parts, {"vek": read(f"{folder}vcek.pem")}


def bincode(data: bytes) -> tuple[bytes, bytes, list[bytes]]:
    """Signature, message and PCRs of a quote that a Rust tool stored with sizes of 8 bytes."""
    at, found = 0, []
    for _ in range(2):
        (size,) = struct.unpack_from("<Q", data, at)
        found.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    (count,) = struct.unpack_from("<Q", data, at)
    return found[0], found[1], [data[at + 8 + 32 * n : at + 40 + 32 * n] for n in range(count)]


def seal(case: Parts, now: datetime = NOW) -> bytes:
    return envelope.build(TYPE, case[0], collected=now, collateral=case[1])


def judge(case: Parts, *, nonce: str | bytes | None, policy: Policy | None = None) -> Appraisal:
    return evidence.verify(
        seal(case), policy or Policy.any(), now=NOW, expected_nonce=nonce, trust=Trust.of()
    )


def failed(appraisal: Appraisal) -> set[str]:
    return {check.id for check in appraisal.checks if check.outcome == "fail"}


def outcome(appraisal: Appraisal, id_: str) -> str:
    return next(check.outcome.value for check in appraisal.checks if check.id == id_)


def _v2_nonce() -> bytes:
    return bytes.fromhex(expected(f"{SNP}evidence-v2")["nonce_hex"])


CASES: dict[str, Parts] = {}
if (VECTORS / "expected.json").is_file():
    CASES = {
        "snp v0": converted(f"{SNP}evidence-v0.json"),
        "snp v1": converted(f"{SNP}evidence-v1.json"),
        "snp files": loose(SNP),
        "tdx v0": converted(f"{TDX}evidence-v0.json"),
        "tdx v1": converted(f"{TDX}evidence-v1.json"),
        "tdx files": loose(TDX),
    }


@pytest.mark.parametrize("name", ["snp v0", "snp v1", "snp files", "tdx v0", "tdx v1", "tdx files"])
def test_evidence_that_must_pass(name: str) -> None:
    """All of it holds. It warns: the paravisor was not asked for this challenge, and nothing is pinned."""
    found = judge(CASES[name], nonce=CHALLENGE)
    assert found.ok and found.tier is Tier.WARNING, failed(found)
    for id_ in ("nonce", "ak-binding", "ak-signature", "pcr-selection", "pcr-digest", "secure-boot", "signature",
                "chain", "trust-anchor", "debug", "report-type"):  # fmt: skip
        assert outcome(found, id_) == "pass", id_
    assert outcome(found, "user-data") == "not_available"
    if name.startswith("snp"):
        assert (
            outcome(found, "chip-id") == outcome(found, "tcb-certificate") == outcome(found, "vmpl") == "pass"
        )
        assert outcome(found, "paravisor") == "pass" and found.claims["product"] == "Milan"
    else:
        assert (
            outcome(found, "td-report")
            == outcome(found, "att-key")
            == outcome(found, "qe-identity")
            == "pass"
        )
        assert outcome(found, "paravisor") == outcome(found, "tcb") == "not_available"


def test_evidence_whose_user_data_is_the_nonce_is_affirming_with_pinned_pcrs() -> None:
    case, nonce = converted(f"{SNP}evidence-v2.json"), _v2_nonce()
    found = judge(case, nonce=nonce)
    assert found.ok and outcome(found, "nonce") == outcome(found, "user-data") == "pass"
    pcrs = found.claims["code"]["pcrs"]
    assert pcrs["0"] == expected(f"{SNP}evidence-v2")["pcr0"]
    image = "sha256:" + "ab" * 32
    code = {"type": TYPE, "image": image, "pcrs": {number: pcrs[number] for number in ("4", "7", "11")}}
    policy = Policy((TYPE,), (image,), 600, code=(code,))
    full = judge(case, nonce=nonce, policy=policy)
    assert full.tier is Tier.AFFIRMING and full.claims["image"] == image
    other = replace(policy, code=({**code, "pcrs": {**code["pcrs"], "11": "01" * 32}},))
    assert failed(judge(case, nonce=nonce, policy=other)) == {"code"}


@pytest.mark.parametrize("name", ["snp v0", "snp v1", "tdx v0", "tdx v1"])
def test_another_nonce(name: str) -> None:
    for nonce in (b"challengf", b"challenge\x00", b"chall", b"", "x" * 43):
        assert failed(judge(CASES[name], nonce=nonce)) == {"nonce"}


def test_user_data_of_another_context() -> None:
    assert failed(judge(converted(f"{SNP}evidence-v2.json"), nonce=_v2_nonce()[:32])) == {
        "nonce",
        "user-data",
    }


def test_the_vcek_of_another_chip() -> None:
    """azure-cvm-tooling: the chain and the hash of the claims are fine; the report is not by that chip's key."""
    report = read("azure-cvm-tooling/hcl-report-snp.bin")
    parsed = hcl.parse(report)
    signature, message, pcrs = bincode(read("azure-cvm-tooling/quote.bin"))
    parts = {"hcl-report": report, "quote": message, "signature": signature,
             "pcrs": _pcrs([value.hex() for value in pcrs])}  # fmt: skip
    found = judge((parts, {"vek": read("azure-cvm-tooling/certs.pem")}), nonce=CHALLENGE)
    assert outcome(found, "chain") == outcome(found, "ak-binding") == "pass"
    assert {"signature", "chip-id"} <= failed(found)
    assert parsed.user_data == b"" and parsed.kind == "snp"


def test_the_tdx_report_beside_it_is_read() -> None:
    parsed = hcl.parse(read("azure-cvm-tooling/hcl-report-tdx.bin"))
    assert parsed.kind == "tdx" and parsed.version == 2 and parsed.vm["secure-boot"] is False
    assert tdreport.parse(parsed.hardware).report_data == parsed.report_data()


def test_without_secure_boot() -> None:
    """That report in place of the other: not the quote's, and without secure boot."""
    parts, more = CASES["tdx files"]
    changed = {**parts, "hcl-report": read("azure-cvm-tooling/hcl-report-tdx.bin")}
    assert failed(judge((changed, more), nonce=CHALLENGE)) == {"td-report", "ak-signature", "secure-boot"}


def test_a_quote_of_nine_pcrs() -> None:
    """tpm-quote.msg selects PCRs 0 to 7 and 14 only."""
    attest = tpm.parse_attest(read(f"{SNP}tpm-quote.msg"))
    chosen = attest.selections[0].pcrs
    assert chosen == (0, 1, 2, 3, 4, 5, 6, 7, 14)
    assert tpm.selection_fault(attest, dict.fromkeys(chosen, bytes(32))) is None
    assert tpm.selection_fault(attest, dict.fromkeys(range(24), bytes(32))) is not None


def test_parts_of_two_machines() -> None:
    one, two = CASES["snp v1"], CASES["snp files"]
    for name in one[0]:
        assert not judge(({**one[0], name: two[0][name]}, one[1]), nonce=CHALLENGE).ok
    assert not judge((one[0], two[1]), nonce=CHALLENGE).ok


def test_a_changed_byte_of_the_claims() -> None:
    """Trustee's own negative: a byte of the runtime data at 0x06e0."""
    parts, more = CASES["snp files"]
    data = bytearray(parts["hcl-report"])
    data[0x06E0] ^= 0x01
    found = judge(({**parts, "hcl-report": bytes(data)}, more), nonce=CHALLENGE)
    assert {"ak-binding"} <= failed(found) or failed(found) == {"format"}


def test_debug_and_privilege_level_are_looked_at_in_the_report() -> None:
    """A signed report with them set is not at hand; setting them breaks the signature and is named as well."""
    parts, more = CASES["snp files"]
    for at, id_ in ((32 + 0x0A, "debug"), (32 + 0x30, "vmpl")):
        data = bytearray(parts["hcl-report"])
        data[at] ^= 0x08
        assert {id_, "signature"} <= failed(
            judge(({**parts, "hcl-report": bytes(data)}, more), nonce=CHALLENGE)
        )


def test_report_type_4_with_an_snp_body() -> None:
    parts, more = CASES["snp files"]
    data = bytearray(parts["hcl-report"])
    struct.pack_into("<I", data, 32 + 1184 + 8, 4)
    assert failed(judge(({**parts, "hcl-report": bytes(data)}, more), nonce=CHALLENGE)) == {"report-type"}


@pytest.mark.parametrize("bank", ["sha1", "sha384"])
def test_another_bank(bank: str) -> None:
    parts, more = CASES["snp v1"]
    document = json.loads(parts["pcrs"])
    assert failed(
        judge(({**parts, "pcrs": json.dumps({bank: document["sha256"]}).encode()}, more), nonce=CHALLENGE)
    ) == {"format"}


def test_microsofts_id_keys_are_those_of_the_evidence() -> None:
    assert all(len(key) == 96 for key in azure_cvm.MICROSOFT_ID_KEYS)
    for name in ("snp v0", "snp v1", "snp files"):
        report = hcl.parse(CASES[name][0]["hcl-report"]).hardware
        assert report[0xE0:0x110].hex() in azure_cvm.MICROSOFT_ID_KEYS


@given(which=st.sampled_from(["snp v1", "snp files", "tdx v1"]), at=st.integers(0, 10**6), bit=st.integers(0, 7),
       name=st.sampled_from(["hcl-report", "quote", "signature", "pcrs", "td-quote"]))  # fmt: skip
@settings(max_examples=300)
def test_any_flipped_bit_is_never_accepted(which: str, name: str, at: int, bit: int) -> None:
    parts, more = CASES[which]
    name = name if name in parts else "hcl-report"
    data = bytearray(parts[name])
    if name == "td-quote":
        data = data[:4936]  # zeros follow the quote
    at %= len(data)
    if which.startswith("tdx") and name == "hcl-report":
        if at - 32 in range(tdreport.MAC_AT, tdreport.MAC_AT + tdreport.MAC_SIZE):
            return  # the TDREPORT's MAC is for the processor that made it; nobody else can check it
    data[at] ^= 1 << bit
    assert not judge(({**parts, name: bytes(data)}, more), nonce=CHALLENGE).ok
