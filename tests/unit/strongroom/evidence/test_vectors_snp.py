"""Real SEV-SNP reports under AMD's real keys: each as ../shared/vectors/expected.json says."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from strongroom import evidence
from strongroom.evidence import Appraisal, Outcome, Policy, Tier, Trust, envelope

VECTORS = Path(__file__).resolve().parents[5] / "shared" / "vectors"
pytestmark = pytest.mark.skipif(
    not (VECTORS / "expected.json").is_file(),
    reason="the folder ../shared/vectors with real evidence is not there",
)

LATER, WITHIN_VLEK = datetime(2026, 11, 20, tzinfo=UTC), datetime(2025, 6, 1, tzinfo=UTC)
DEBUG = "google-go-sev-guest/verify-testdata/attestation.bin"
COCO, LENT = "coco-trustee/snp/test-report.bin", "coco-trustee/snp/test-vlek-report.bin"
AZURE = "azure-cvm-tooling/hcl-report-snp.bin"
# What each must fail, by expected.json. A report inside an HCL report starts after 32 bytes.
CASES: list[tuple[str, str, datetime, set[str]]] = [
    (DEBUG, "google-go-sev-guest/verify-testdata/vcek.testcer", LATER, {"debug"}),
    (COCO, "coco-trustee/snp/test-vcek.der", LATER, set()),
    (LENT, "coco-trustee/snp/test-vlek.der", WITHIN_VLEK, {"vmpl"}),
    (LENT, "coco-trustee/snp/test-vlek.der", LATER, {"vmpl", "validity"}),
    (COCO, "coco-trustee/snp/test-vcek-invalid-legacy.der", LATER, {"chain", "signature", "chip-id", "tcb-certificate"}),
    (COCO, "coco-trustee/snp/test-vcek-invalid-new.der", LATER, {"chain", "signature", "chip-id", "tcb-certificate"}),
    (AZURE, "azure-cvm-tooling/certs.pem", LATER, {"signature", "chip-id"}),
]  # fmt: skip


def read(name: str) -> bytes:
    data = (VECTORS / name).read_bytes()
    return data[32 : 32 + 1184] if name == AZURE else data


def judge(
    report: bytes, vek: bytes, now: datetime, policy: Policy | None = None, **collateral: bytes
) -> Appraisal:
    data = envelope.build("snp", {"report": report}, collateral={"vek": vek, **collateral}, collected=now)
    return evidence.verify(data, policy or Policy.any(), now=now, expected_nonce=None, trust=Trust.of())


def failed(appraisal: Appraisal) -> set[str]:
    return {check.id for check in appraisal.checks if check.outcome is Outcome.FAIL}


@pytest.mark.parametrize(("report", "vek", "now", "checks"), CASES)
def test_as_expected(report: str, vek: str, now: datetime, checks: set[str]) -> None:
    appraisal = judge(read(report), read(vek), now)
    assert failed(appraisal) == checks
    assert appraisal.tier is (Tier.CONTRAINDICATED if checks else Tier.WARNING)
    assert appraisal.claims["product"] == "Milan"


def test_every_vector_is_in_the_table() -> None:
    listed = {(case["f"], case["vek"]) for case in json.loads(read("expected.json"))["snp"]}
    assert listed == {(report, vek) for report, vek, _, _ in CASES}


def test_versions_and_claims() -> None:
    assert judge(read(COCO), read(CASES[1][1]), LATER).claims["report_version"] == 2
    lent = judge(read(LENT), read(CASES[2][1]), WITHIN_VLEK).claims
    assert (lent["report_version"], lent["signer"], lent["chip"]) == (3, "VLEK", "00" * 64)
    assert lent["csp"] == "CN=cc-us-east-2.amazonaws.com" and lent["platform"]["alias_check"] is True
    assert judge(read(DEBUG), read(CASES[0][1]), LATER).claims["debug"] is True


def test_affirming_where_the_policy_pins_it() -> None:
    report, image = read(COCO), "sha256:" + "ab" * 32
    document = {
        "v": 1, "types": ["snp"], "images": [image], "max_age_seconds": 60, "tees": ["sev-snp"], "products": ["Milan"],
        "tcb": {"Milan": {"bootloader": 3, "tee": 0, "snp": 8, "microcode": 115}},
        "code": [{"type": "snp", "image": image, "measurement": report[0x90:0xC0].hex()}],
    }  # fmt: skip
    data = envelope.build("snp", {"report": report}, collateral={"vek": read(CASES[1][1])}, collected=LATER)
    appraisal = evidence.verify(
        data, Policy.parse(document), now=LATER, expected_nonce=report[0x50:0x90], trust=Trust.of()
    )
    assert appraisal.tier is Tier.AFFIRMING and appraisal.claims["image"] == image


def chains() -> list[str]:
    return [
        "coco-trustee/snp-trust/milan_ask_ark_asvk.pem",
        "google-go-sev-guest/trust/ask_ark_milan.pem",
        "google-go-sev-guest/verify-testdata/milan.testcer",
    ]


@pytest.mark.parametrize("chain", chains())
def test_chains_that_came_with_it(chain: str) -> None:
    assert judge(read(COCO), read(CASES[1][1]), LATER, chain=read(chain)).ok


@pytest.mark.parametrize(
    ("chain", "checks"),
    [
        ("coco-trustee/snp-trust/genoa_ask_ark_asvk.pem", {"trust-anchor", "chain"}),
        ("coco-trustee/snp-trust/turin_ask_ark_asvk.pem", {"trust-anchor", "chain"}),
    ],
)
def test_chains_of_another_product(chain: str, checks: set[str]) -> None:
    assert failed(judge(read(COCO), read(CASES[1][1]), LATER, chain=read(chain))) == checks


def test_the_chain_of_the_other_kind_is_no_use_without_the_trust_stores_own() -> None:
    """VCEK with the VLEKs' chain, and the other way round, where the store holds the root alone."""
    roots = Trust(anchors=tuple(a for a in Trust.of().anchors if a.purpose == "amd-ark"))
    kinds = {
        (COCO, CASES[1][1]): "google-go-sev-guest/trust/ask_ark_milan_vlek.pem",
        (LENT, CASES[2][1]): "google-go-sev-guest/trust/ask_ark_milan.pem",
    }
    for (report, vek), chain in kinds.items():
        collateral = {"vek": read(vek), "chain": read(chain)}
        data = envelope.build("snp", {"report": read(report)}, collateral=collateral, collected=WITHIN_VLEK)
        appraisal = evidence.verify(data, Policy.any(), now=WITHIN_VLEK, expected_nonce=None, trust=roots)
        assert "chain" in failed(appraisal)


@pytest.mark.parametrize("place", [*range(0, 0x2A0, 7), 384, 0x2A0, 0x2C0, 0x2E8, 0x310])
def test_a_changed_byte_of_a_real_report(place: int) -> None:
    report = bytearray(read(COCO))
    report[place] ^= 0x01
    assert not judge(bytes(report), read(CASES[1][1]), LATER).ok


def test_the_shipped_anchors_are_those_of_the_vectors() -> None:
    from strongroom.evidence import der

    found = {a.sha256 for a in Trust.of().anchors if a.purpose.startswith("amd-")}
    held = set()
    for product in ("milan", "genoa", "turin"):
        for raw in der.unwrap(read(f"coco-trustee/snp-trust/{product}_ask_ark_asvk.pem"), "CERTIFICATE"):
            held.add(der.certificate(raw).sha256)
    assert found == held and len(found) == 9
