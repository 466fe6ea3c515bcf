"""A real confidential container of Azure: as ../shared/vectors/expected.json says."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from strongroom import evidence
from strongroom.evidence import Appraisal, Outcome, Policy, Tier, Trust, envelope

FOLDER = Path(__file__).resolve().parents[5] / "shared" / "vectors" / "microsoft-confidential-sidecar"
pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the folder ../shared/vectors with real evidence is not there"
)

NOW = datetime(2026, 11, 20, tzinfo=UTC)
RUNTIME_DATA = base64.b64decode("ewogICAiYWtleSIgOiAiYXZhbHVlIgp9Cg==")
IMAGE = "sha256:" + "ab" * 32


def parts() -> dict[str, bytes]:
    return {
        "report": (FOLDER / "snp_report.bin").read_bytes(),
        "cce-policy": base64.b64decode((FOLDER / "uvm_security_policy.base64").read_bytes()),
        "uvm-endorsement": (FOLDER / "body.uvm_reference_info.bin").read_bytes(),
        "runtime-data": RUNTIME_DATA,
    }


def policy(**changes: Any) -> Policy:
    digest = hashlib.sha256(parts()["cce-policy"]).hexdigest()
    document = {
        "v": 1, "types": ["azure-aci"], "images": [IMAGE], "max_age_seconds": 600, "uvm_svn": 22,
        "code": [{"type": "azure-aci", "image": IMAGE, "cce_policy": digest}],
    }  # fmt: skip
    return Policy.parse({**document, **changes})


def judge(now: datetime = NOW, policy_: Policy | None = None, **changes: Any) -> Appraisal:
    collateral = {"vek": (FOLDER / "uvm_host_amd_certificate.pem").read_bytes()}
    found = {name: value for name, value in {**parts(), **changes}.items() if value is not None}
    data = envelope.build("azure-aci", found, collateral=collateral, collected=now)
    nonce = hashlib.sha256(RUNTIME_DATA).digest()
    return evidence.verify(data, policy_ or policy(), now=now, expected_nonce=nonce, trust=Trust.of())


def failed(appraisal: Appraisal) -> set[str]:
    return {check.id for check in appraisal.checks if check.outcome is Outcome.FAIL}


def test_all_of_it_passes() -> None:
    appraisal = judge()
    assert appraisal.tier is Tier.AFFIRMING and appraisal.claims["image"] == IMAGE
    assert appraisal.claims["uvm"]["svn"] == 22 and appraisal.claims["report_version"] == 2
    assert judge(policy_=Policy.any()).tier is Tier.WARNING
    assert judge(**{"runtime-data": None}).tier is Tier.AFFIRMING


def test_also_while_the_signer_of_the_endorsement_was_valid() -> None:
    assert judge(datetime(2023, 8, 1, tzinfo=UTC)).tier is Tier.AFFIRMING


def test_before_it_was_signed_it_was_not() -> None:
    assert "uvm-endorsement" in failed(judge(datetime(2023, 2, 1, tzinfo=UTC)))


def test_a_minimum_above_its_version() -> None:
    assert failed(judge(policy_=policy(uvm_svn=23))) == {"uvm-svn"}


def test_the_endorsement_of_another_utility_vm() -> None:
    text = (FOLDER / "security-context-test" / "reference-info-base64").read_bytes()
    other = base64.b64decode(text)
    assert failed(judge(**{"uvm-endorsement": other})) == {"uvm-measurement"}


def test_another_policy() -> None:
    text = (FOLDER / "security-context-test" / "security-policy-base64").read_bytes()
    assert failed(judge(**{"cce-policy": base64.b64decode(text)})) == {"cce-policy"}
    assert failed(judge(**{"cce-policy": parts()["cce-policy"] + b"\n"})) == {"cce-policy"}


def test_other_runtime_data() -> None:
    assert failed(judge(**{"runtime-data": RUNTIME_DATA.strip()})) == {"runtime-data"}


@pytest.mark.parametrize("share", range(60))
def test_a_changed_byte_of_the_signed_parts(share: int) -> None:
    good = parts()["uvm-endorsement"]
    # protected header, payload and signature stand at the ends; the time stamp between them is not signed
    payload = good.index(b"x-ms-sevsnpvm-guestsvn") - 5
    places = [
        *range(5, 4900, 170),
        *range(payload, payload + 160, 12),
        *range(len(good) - 380, len(good), 25),
    ]
    changed = bytearray(good)
    changed[places[share % len(places)]] ^= 0x01
    assert "uvm-endorsement" in failed(judge(**{"uvm-endorsement": bytes(changed)}))
