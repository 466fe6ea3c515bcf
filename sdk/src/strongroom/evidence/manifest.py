"""Whether a machine was bound to one manifest before it was asked for anything: Azure's confidential machines only.

The runner extends the manifest's hash into PCR 15, which no software can reset, before the first evidence. So a machine
that had another run before shows another value, and one disk image with one set of reference values serves every run.
"""

from __future__ import annotations

import hashlib

from strongroom.evidence.model import Appraisal, Check, Outcome

PCR = 15


def expected(manifest: str) -> str:
    """PCR 15 after one extension of zeros by the manifest's hash (TCG TPM 2.0 Library, part 1, section 11.6.3); hex."""
    return hashlib.sha256(bytes(32) + bytes.fromhex(manifest)).hexdigest()


def check(appraisal: Appraisal, manifest: str) -> list[Check]:
    """The check `manifest-pcr`, for evidence that has PCRs; none for other types. `manifest`: hex SHA-256."""
    if appraisal.type != "azure-cvm":
        return []
    code = appraisal.claims.get("code", {})
    if code.get("pcrs", {}).get(str(PCR)) == expected(manifest):
        sentence = f"The machine was bound to this run's manifest before its first evidence (PCR {PCR})."
        return [Check("manifest-pcr", Outcome.PASS, sentence)]
    sentence = (
        f"The machine's PCR {PCR} is not that of one extension by this run's manifest: it was started for another run, had "
        "one before, or its image uses that PCR."
    )
    return [Check("manifest-pcr", Outcome.FAIL, sentence)]
