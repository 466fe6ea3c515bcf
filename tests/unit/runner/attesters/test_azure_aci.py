"""The attester of confidential containers, with a guest device of our own."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from strongroom import evidence
from strongroom.evidence import Policy, Tier, Trust, envelope
from tests.fakes.security_context import security_context
from tests.unit.runner.attesters.conftest import NONCE
from tests.unit.strongroom.evidence import authority_amd as amd
from workers.runner.attester import NoEvidence
from workers.runner.attesters import azure_aci
from workers.runner.attesters.azure_aci import SnpAttester, guest_report, read_response


def report_for(report_data: bytes) -> bytes:
    host_data = hashlib.sha256(amd.CCE_POLICY).digest()
    return amd.Report(host_data=host_data, report_data=report_data).sign()


def test_evidence_that_verifies(tmp_path):
    attester = SnpAttester(security_context(tmp_path), report=report_for)
    raw = attester.evidence(NONCE)
    found = envelope.parse(raw)
    assert set(found.parts) == {"report", "cce-policy", "uvm-endorsement"}
    assert set(found.collateral) == {"vek", "chain"}
    policy = Policy.parse(amd.policy("azure-aci"))
    appraisal = evidence.verify(
        raw, policy, now=datetime.now(UTC), expected_nonce=NONCE, trust=Trust(anchors=amd.anchors())
    )
    assert appraisal.tier is Tier.AFFIRMING, [c for c in appraisal.checks if c.outcome != "pass"]
    other = evidence.verify(
        raw, policy, now=datetime.now(UTC), expected_nonce="A" * 43, trust=Trust(anchors=amd.anchors())
    )
    assert other.tier is Tier.CONTRAINDICATED


def test_the_nonce_stands_in_the_first_half_of_the_report_data(tmp_path):
    asked: list[bytes] = []

    def report(report_data: bytes) -> bytes:
        asked.append(report_data)
        return report_for(report_data)

    SnpAttester(security_context(tmp_path), report=report).evidence(NONCE)
    assert asked == [base64.urlsafe_b64decode(NONCE + "=") + bytes(32)]


BAD: dict[str, Callable[[bytes], bytes]] = {
    "bound to nothing": lambda _: report_for(bytes(64)),
    "short": lambda data: report_for(data)[:-1],
    "long": lambda data: report_for(data) + b"\0",
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("report", BAD.values(), ids=BAD)
def test_a_report_that_is_none(tmp_path, report):
    with pytest.raises(NoEvidence, match="no report"):
        SnpAttester(security_context(tmp_path), report=report).evidence(NONCE)


@pytest.mark.parametrize("name", [azure_aci.POLICY, azure_aci.CERTIFICATES, azure_aci.ENDORSEMENT])
@pytest.mark.parametrize("content", [None, b"", b"not base64!", b"x" * ((1 << 20) + 1)])
def test_a_security_context_that_is_not_whole(tmp_path, name, content):
    folder = security_context(tmp_path)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(NoEvidence):
        SnpAttester(folder, report=report_for)


@pytest.mark.parametrize("document", [{}, {"vcekCert": "x", "certificateChain": "y"}, [], {"vcekCert": 1}])
def test_certificates_that_are_none(tmp_path, document):
    folder = security_context(tmp_path)
    (folder / azure_aci.CERTIFICATES).write_bytes(base64.b64encode(json.dumps(document).encode()))
    with pytest.raises(NoEvidence):
        SnpAttester(folder, report=report_for)


@pytest.mark.parametrize("environ", [{}, {"UVM_SECURITY_CONTEXT_DIR": ""}])
def test_no_container_group(environ):
    with pytest.raises(NoEvidence, match="no confidential container group"):
        SnpAttester.from_environment(environ)


def test_the_folder_that_the_platform_names(tmp_path):
    folder = security_context(tmp_path)
    assert SnpAttester.from_environment({"UVM_SECURITY_CONTEXT_DIR": str(folder)})
    with pytest.raises(NoEvidence):
        SnpAttester.from_environment({"UVM_SECURITY_CONTEXT_DIR": str(tmp_path / "elsewhere")})


def test_the_call_to_the_device(tmp_path, monkeypatch):
    """Number, structure and addresses are what linux/sev-guest.h says; the device is a file here."""
    import ctypes

    report = report_for(b"\x07" * 64)
    seen = {}

    def ioctl(descriptor, number, request, mutate):
        data = ctypes.string_at(ctypes.addressof(request), 32)
        version, asked, answer = (
            data[0],
            int.from_bytes(data[8:16], "little"),
            int.from_bytes(data[16:24], "little"),
        )
        seen.update(
            number=number, version=version, size=ctypes.sizeof(request), asked=ctypes.string_at(asked, 96)
        )
        body = bytes(4) + (1184).to_bytes(4, "little") + bytes(24) + report
        ctypes.memmove(answer, body, len(body))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    device = tmp_path / "sev-guest"
    device.write_bytes(b"")
    assert guest_report(b"\x07" * 64, device) == report
    assert seen == {"number": 0xC0205300, "version": 1, "size": 32, "asked": b"\x07" * 64 + bytes(32)}


def test_no_device(tmp_path):
    with pytest.raises(NoEvidence, match="No such file"):
        guest_report(bytes(64), tmp_path / "sev-guest")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NoEvidence, match="Inappropriate ioctl"):
        guest_report(bytes(64), tmp_path / "file")


@pytest.mark.parametrize(("status", "size"), [(0x16, 1184), (0, 0), (0, 1185), (0, 4000)])
def test_answers_of_the_security_processor(status, size):
    answer = status.to_bytes(4, "little") + size.to_bytes(4, "little") + bytes(3992)
    with pytest.raises(NoEvidence):
        read_response(answer)
