"""An Azure confidential VM: a quote of the vTPM, whose key the machine's hardware report vouches for.

The hardware report alone covers Microsoft's firmware, not our image. What ran is in the PCRs that the vTPM quotes; the key
that signs the quote is named in claims whose hash is in the hardware report. So the evidence is all of them: the report
with its claims (made anew with our nonce as user data), the quote with our nonce as qualifying data, and the PCR values.
Before anything else the manifest's hash is extended into PCR 15, which software cannot reset: a machine that attested for
one manifest can never attest for another.

Sources: MicrosoftDocs/azure-docs articles/confidential-computing/guest-attestation-confidential-virtual-machines-design.md
(indices, handle, layout); kinvolk/azure-cvm-tooling az-cvm-vtpm (the wait, TD quotes); TCG PC Client Platform TPM Profile
(which PCRs can be reset: 16 and 23).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

from strongroom import shapes
from strongroom.evidence import envelope
from workers.runner.attester import NoEvidence
from workers.runner.attesters import metadata as services
from workers.runner.attesters import reading
from workers.runner.attesters.tpm import Tpm

REPORT_INDEX, USER_DATA_INDEX, AK_HANDLE = 0x01400001, 0x01400002, 0x81000003
MANIFEST_PCR = 15
PCRS = tuple(range(16))
THIM = "/metadata/THIM/amd/certification"
TD_QUOTE = "/acc/tdquote"
# The paravisor makes a new report a moment after its user data were written.
WAIT, LOOKS = 3.0, 5
_HEADER, _SLOT, _TD_REPORT = 32, 1184, 1024
_SNP, _TDX = 2, 4


class VtpmAttester:
    """Evidence of type azure-cvm. `manifest`: hex SHA-256 that is extended into PCR 15, once, before any quote."""

    type = "azure-cvm"

    def __init__(
        self,
        *,
        manifest: str,
        pcrs: tuple[int, ...] = PCRS,
        metadata: str = services.AZURE,
        tpm: Tpm | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if MANIFEST_PCR not in pcrs:
            raise NoEvidence(f"PCR {MANIFEST_PCR} holds the manifest's hash and must be among those quoted.")
        self._tpm, self._pcrs, self._metadata, self._sleep = tpm or Tpm(), pcrs, metadata, sleep
        if any(self._tpm.pcrs((MANIFEST_PCR,))[MANIFEST_PCR]):
            raise NoEvidence(
                f"PCR {MANIFEST_PCR} was extended before: this machine has had a run, or its image uses that PCR."
            )
        self._tpm.extend(MANIFEST_PCR, bytes.fromhex(manifest))

    def evidence(self, nonce: str) -> bytes:
        bound = reading.nonce_bytes(nonce)
        report = self._fresh_report(bound.ljust(64, b"\x00"))
        quote = self._tpm.quote(AK_HANDLE, self._pcrs, bound)
        parts = {
            "hcl-report": report,
            "quote": quote.message,
            "signature": quote.signature,
            "pcrs": json.dumps(
                {"sha256": {str(n): value.hex() for n, value in quote.pcrs.items()}}, separators=(",", ":")
            ).encode(),
        }
        collateral: dict[str, bytes] = {}
        if _kind(report) == _TDX:
            parts["td-quote"] = self._td_quote(report)
        else:
            collateral = self._amd_certificates()
        return envelope.build(
            self.type, parts, collected=datetime.now(UTC).replace(microsecond=0), collateral=collateral
        )

    def _fresh_report(self, user_data: bytes) -> bytes:
        """The report with these user data in its claims; the old one is read until the new one is there."""
        self._tpm.write(USER_DATA_INDEX, user_data)
        for _ in range(LOOKS):
            self._sleep(WAIT)
            report = self._tpm.read(REPORT_INDEX)
            if _user_data(report) == user_data:
                return report
        raise NoEvidence("The machine made no report with this context as its user data.")

    def _amd_certificates(self) -> dict[str, bytes]:
        found = services.fetch(self._metadata, THIM, headers={"Metadata": "true"})
        return reading.amd_certificates(reading.json_of(found, "THIM's answer"), "THIM's answer")

    def _td_quote(self, report: bytes) -> bytes:
        """A quote over the TD report in the hardware report's place, from the host's quoting enclave."""
        td_report = report[_HEADER : _HEADER + _TD_REPORT]
        asked = {"report": shapes.b64url_encode(td_report)}
        found = services.fetch(self._metadata, TD_QUOTE, headers={"Metadata": "true"}, body=asked)
        return reading.base64url_of(reading.json_of(found, "The quote service").get("quote"), "The TD quote")


def _claims_at(report: bytes) -> int:
    return _HEADER + _SLOT


def _kind(report: bytes) -> int:
    """2 for SNP, 4 for TDX. Raises NoEvidence."""
    at = _claims_at(report)
    if len(report) < at + 20 or report[:4] != b"HCLA":
        raise NoEvidence("The vTPM holds no hardware report: this is no confidential VM.")
    kind = int.from_bytes(report[at + 8 : at + 12], "little")
    if kind not in (_SNP, _TDX):
        raise NoEvidence(f"The hardware report is of an unknown kind ({kind}).")
    return kind


def _user_data(report: bytes) -> bytes:
    """The user data in the claims. Raises NoEvidence."""
    _kind(report)
    at = _claims_at(report)
    version, size = (int.from_bytes(report[n : n + 4], "little") for n in (at + 4, at + 16))
    # Version 2 has four more bytes before the claims (microsoft/openvmm, IgvmAttestRequestDataExt).
    start = at + (24 if version == 2 else 20)
    claims = reading.json_of(report[start : start + size], "The report's claims")
    try:
        return bytes.fromhex(str(claims.get("user-data", "")))
    except ValueError:
        return b""
