"""Confidential containers on Azure Container Instances: an SNP report whose HOST_DATA is the container policy's hash.

The report comes from the guest device, bound to our nonce through REPORT_DATA. Beside it go what the group was started
with: the policy whose SHA-256 is HOST_DATA, Microsoft's signed endorsement of the utility machine, and AMD's certificates.

Sources: linux include/uapi/linux/sev-guest.h (the call); AMD 56860, table "MSG_REPORT_RSP" (status, size, report);
microsoft/confidential-sidecar-containers pkg/common/info.go (folder and file names, their encodings).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from strongroom.evidence import envelope
from workers.runner.attester import NoEvidence
from workers.runner.attesters import reading

DEVICE = Path("/dev/sev-guest")
CONTEXT_VARIABLE = "UVM_SECURITY_CONTEXT_DIR"
POLICY, CERTIFICATES, ENDORSEMENT = "security-policy-base64", "host-amd-cert-base64", "reference-info-base64"
REPORT_BYTES = 1184
_RESPONSE_BYTES, _REPORT_AT = 4000, 32
# _IOWR('S', 0, struct snp_guest_request_ioctl), which has 32 bytes.
_GET_REPORT = 3 << 30 | 32 << 16 | ord("S") << 8


class _ReportRequest(ctypes.Structure):
    _fields_ = [("user_data", ctypes.c_uint8 * 64), ("vmpl", ctypes.c_uint32), ("rsvd", ctypes.c_uint8 * 28)]


class _Request(ctypes.Structure):
    _fields_ = [
        ("msg_version", ctypes.c_uint8),
        ("req_data", ctypes.c_uint64),
        ("resp_data", ctypes.c_uint64),
        ("exitinfo2", ctypes.c_uint64),
    ]


class SnpAttester:
    """Evidence of type azure-aci. `report`: gives the report for 64 bytes of REPORT_DATA."""

    type = "azure-aci"

    def __init__(self, context: Path, *, report: Callable[[bytes], bytes] | None = None) -> None:
        self._report = guest_report if report is None else report
        policy = reading.base64_of(reading.small_file(context / POLICY), POLICY)
        endorsement = reading.base64_of(reading.small_file(context / ENDORSEMENT), ENDORSEMENT)
        self._parts = {"cce-policy": policy, "uvm-endorsement": endorsement}
        certificates = reading.base64_of(reading.small_file(context / CERTIFICATES), CERTIFICATES)
        self._collateral = reading.amd_certificates(reading.json_of(certificates, CERTIFICATES), CERTIFICATES)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> SnpAttester:
        """With the folder that the platform names in UVM_SECURITY_CONTEXT_DIR. Raises NoEvidence."""
        named = environ.get(CONTEXT_VARIABLE, "")
        if not named:
            raise NoEvidence(f"{CONTEXT_VARIABLE} is not set: this is no confidential container group.")
        return cls(Path(named))

    def evidence(self, nonce: str) -> bytes:
        wanted = reading.report_data(nonce)
        report = self._report(wanted)
        if len(report) != REPORT_BYTES or report[0x50:0x90] != wanted:
            raise NoEvidence("The guest device gave no report that is bound to this context.")
        return envelope.build(
            self.type,
            {"report": report, **self._parts},
            collected=datetime.now(UTC).replace(microsecond=0),
            collateral=self._collateral,
        )


def guest_report(report_data: bytes, device: Path = DEVICE) -> bytes:
    """An attestation report from the SEV guest device, for privilege level 0. Raises NoEvidence."""
    asked = _ReportRequest(user_data=(ctypes.c_uint8 * 64).from_buffer_copy(report_data))
    answer = (ctypes.c_uint8 * _RESPONSE_BYTES)()
    request = _Request(
        msg_version=1, req_data=ctypes.addressof(asked), resp_data=ctypes.addressof(answer), exitinfo2=0
    )
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, _GET_REPORT, request, True)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise NoEvidence(f"{device} gave no report ({error.strerror}).") from None
    return read_response(bytes(answer))


def read_response(answer: bytes) -> bytes:
    """The report in a MSG_REPORT_RSP: status and size, 24 reserved bytes, the report. Raises NoEvidence."""
    status, size = int.from_bytes(answer[:4], "little"), int.from_bytes(answer[4:8], "little")
    if status != 0 or size != REPORT_BYTES:
        raise NoEvidence(f"The security processor gave no report (status {status}, {size} bytes).")
    return answer[_REPORT_AT : _REPORT_AT + size]
