"""What a statement says of its environment: for each type of evidence, what it shows and what it does not.

Every sentence holds only once the evidence beside the statement has been verified. The runner says it of itself, and
the report on a verified package says it again.
"""

from __future__ import annotations

from strongroom.evidence.software import NO_PROTECTION

PROTECTION = {
    "software": NO_PROTECTION,
    "gcp-confidential-space": (
        "The evidence shows which container image ran on a confidential machine of Google Cloud, and that its memory was "
        "encrypted against the host. It rests on Google, whose service signs it; with AMD SEV also for the measurement. It "
        "does not show that the analysis is right or safe to publish, nor protect against physical attacks on the "
        "processor."
    ),
    "azure-cvm": (
        "The evidence shows a confidential machine of Azure by the processor maker's signature, and by its virtual TPM "
        "which disk image was booted. It rests on the processor maker and on Microsoft's firmware inside the machine, which "
        "holds that TPM. It does not show that the analysis is right or safe to publish, nor protect against physical "
        "attacks on the processor."
    ),
    "azure-aci": (
        "The evidence shows by AMD's signature which containers were allowed to run in a utility machine that Microsoft "
        "has endorsed, with its memory encrypted against the host. It rests on AMD and on that machine's software. It does "
        "not show that the analysis is right or safe to publish, nor protect against physical attacks on the processor."
    ),
}
