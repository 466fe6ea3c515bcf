"""The attester of Azure confidential VMs, with the real tpm2-tools against a software TPM (swtpm) and a made-up AMD."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from strongroom import evidence
from strongroom.evidence import Policy, Tier, Trust, envelope
from tests.fakes import vtpm
from tests.fakes.launcher import Metadata
from tests.fakes.security_context import thim
from tests.fakes.vtpm import Machine
from tests.unit.runner.attesters.conftest import IMAGE, NONCE
from tests.unit.strongroom.evidence import authority_cvm as cvm
from workers.runner.attester import NoEvidence
from workers.runner.attesters import azure_cvm
from workers.runner.attesters.azure_cvm import VtpmAttester
from workers.runner.attesters.tpm import Tpm

MANIFEST = hashlib.sha256(b"a manifest").hexdigest()
BOUND = base64.urlsafe_b64decode(NONCE + "=")

needs_tpm = pytest.mark.skipif(not vtpm.available(), reason=vtpm.MISSING)


def attester(machine: Machine, **more: Any) -> VtpmAttester:
    arguments = {"manifest": MANIFEST, "tpm": machine.tpm, "sleep": machine.wait, **more}
    return VtpmAttester(**arguments)


@pytest.fixture
def machine(short) -> Iterator[Machine]:
    made = Machine(short)
    yield made
    made.close()


@pytest.fixture
def imds() -> Iterator[Metadata]:
    page = json.dumps(thim())
    with Metadata({azure_cvm.THIM: page}, ("Metadata", "true")) as running:
        yield running


@needs_tpm
@pytest.mark.parametrize("request_version", [1, 2])
def test_evidence_that_verifies(machine, imds, request_version):
    """Through the real tools: extended, written, quoted, and every check of the verifier passes."""
    machine.lazy = 1
    machine.changes = {"request_version": request_version}
    machine.tpm.extend(4, b"\x04" * 32)
    raw = attester(machine, metadata=imds.url).evidence(NONCE)
    assert machine.waited == [3.0, 3.0]
    found = envelope.parse(raw)
    assert set(found.parts) == {"hcl-report", "quote", "signature", "pcrs"}
    pcrs = json.loads(found.parts["pcrs"])["sha256"]
    assert sorted(map(int, pcrs)) == list(range(16))
    assert pcrs["15"] == hashlib.sha256(bytes(32) + bytes.fromhex(MANIFEST)).hexdigest()
    document = {
        "v": 1, "types": ["azure-cvm"], "images": [IMAGE], "max_age_seconds": 600,
        "code": [{"type": "azure-cvm", "image": IMAGE, "pcrs": {"4": pcrs["4"]}}],
    }  # fmt: skip

    def judge(nonce: str, **changes: Any) -> evidence.Appraisal:
        policy = Policy.parse({**document, **changes})
        trust = Trust(anchors=tuple(cvm.anchors()))
        return evidence.verify(raw, policy, now=datetime.now(UTC), expected_nonce=nonce, trust=trust)

    appraisal = judge(NONCE)
    assert appraisal.tier is Tier.AFFIRMING, [c for c in appraisal.checks if c.outcome != "pass"]
    assert appraisal.claims["image"] == IMAGE
    assert judge("A" * 43).tier is Tier.CONTRAINDICATED
    other = [{"type": "azure-cvm", "image": IMAGE, "pcrs": {"4": "00" * 32}}]
    assert judge(NONCE, code=other).tier is Tier.CONTRAINDICATED


@needs_tpm
def test_one_machine_attests_for_one_manifest(machine, imds):
    asked = attester(machine, metadata=imds.url)
    first, second = asked.evidence(NONCE), asked.evidence("A" * 43)
    values = [json.loads(envelope.parse(raw).parts["pcrs"])["sha256"]["15"] for raw in (first, second)]
    assert values[0] == values[1]
    with pytest.raises(NoEvidence, match="was extended before"):
        attester(machine, metadata=imds.url)


@needs_tpm
def test_a_paravisor_that_never_answers(machine):
    machine.lazy = 99
    with pytest.raises(NoEvidence, match="made no report"):
        attester(machine).evidence(NONCE)
    assert len(machine.waited) == azure_cvm.LOOKS


@needs_tpm
@pytest.mark.parametrize(
    ("changes", "word"), [({"magic": b"XXXX"}, "no hardware report"), ({"report_type": 3}, "unknown kind")]
)
def test_a_report_that_is_none(machine, changes, word):
    machine.changes = changes
    with pytest.raises(NoEvidence, match=word):
        attester(machine).evidence(NONCE)


@needs_tpm
def test_td_quotes_come_from_the_host(machine, monkeypatch):
    """On TDX the host's service turns the report into a quote; AMD's certificates are not asked for."""
    machine.changes = {"report_type": 4}
    asked: list[Any] = []

    def quote(body: bytes) -> str:
        asked.append(json.loads(body))
        return json.dumps({"quote": base64.urlsafe_b64encode(b"a quote").rstrip(b"=").decode()})

    with Metadata({azure_cvm.TD_QUOTE: quote}, ("Metadata", "true")) as imds:
        raw = attester(machine, metadata=imds.url).evidence(NONCE)
        assert imds.asked == [azure_cvm.TD_QUOTE]
    found = envelope.parse(raw)
    assert found.parts["td-quote"] == b"a quote" and not found.collateral
    sent = asked[0]["report"]
    assert (
        base64.urlsafe_b64decode(sent + "=" * (-len(sent) % 4)) == found.parts["hcl-report"][32 : 32 + 1024]
    )


@pytest.mark.parametrize("pcrs", [(), (0, 4), (15, 4), (15, 15), (15, 24)])
def test_selections_that_are_wrong(pcrs):
    with pytest.raises(NoEvidence):
        VtpmAttester(manifest=MANIFEST, pcrs=pcrs, tpm=Tpm("device:/nowhere"))


def test_no_tpm():
    """Whether the tools are there or not: no evidence, and no other kind instead."""
    with pytest.raises(NoEvidence, match="tpm2_pcrread failed"):
        VtpmAttester(manifest=MANIFEST, tpm=Tpm("device:/nowhere"))
