"""Which image an Azure Attestation token shows: of a container group by its policy, of a machine by PCR values.

Newer tokens about a guest hold `x-ms-azurevm-attested-pcr-values`, {"pcr0": base64, ...} with the SHA-256 PCRs 0 to 7 that
the service found in the vTPM's quote (Microsoft, "Secure Key Release Policy with Azure Key Vault and Azure Confidential
Computing", examples of Trusted Launch VMs). They are judged like the PCRs of evidence of type azure-cvm, whose reference
values fit where they name no other PCR.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from strongroom import shapes
from strongroom.errors import FormatError
from strongroom.evidence.model import Checks
from strongroom.evidence.policy import Policy
from strongroom.evidence.tokens import member

# SHA-256 of the CCE policy that lets any container run, as Microsoft's own samples publish it.
ALLOW_ALL = "73973b78d70cc68353426de188db5dfc57e5b766e399935fb73a61127ea26d20"
NO_CODE = (
    "The token does not show which software ran: a confidential VM's report covers Microsoft's firmware only, and the "
    "token has no PCR values. Use evidence of type azure-cvm, which has them."
)

_HEX32 = re.compile(r"[0-9a-f]{64}")
_PCR = re.compile(r"pcr([0-9]|1[0-9]|2[0-3])")


def check_containers(checks: Checks, host_data: Any, policy: Policy) -> str | None:
    """Check `code` of a container group. Returns the digest of its image, where a reference value shows it."""
    entries = [entry for entry in policy.code_for("azure-maa") if "host_data" in entry]
    if not isinstance(host_data, str) or not _HEX32.fullmatch(host_data) or not int(host_data, 16):
        checks.failed(
            "code", "The container group was started without a policy that says what may run in it."
        )
    elif host_data == ALLOW_ALL:
        checks.failed("code", "The container group was started with the policy that lets any container run.")
    elif not entries:
        checks.not_available(
            "code", "The policy names no code of type azure-maa with host_data to compare with."
        )
    else:
        images = [str(entry["image"]) for entry in entries if entry["host_data"] == host_data]
        checks.require(
            "code",
            bool(images),
            "The container group was started with the reference policy of an accepted runner image.",
            f"The container group was started with a policy that no accepted runner image has (host data {host_data}).",
        )
        return images[0] if images else None
    return None


def pcr_values(claims: Mapping[str, Any]) -> dict[str, str]:
    """The PCRs of a guest's token, {"0": hex}; empty where it has none, or not all in the one known form."""
    value = member(claims, "x-ms-azurevm-attested-pcr-values")
    found = {}
    for name, text in (value if isinstance(value, dict) else {}).items():
        match = _PCR.fullmatch(name)
        try:
            raw = shapes.b64_decode(text, name, size=32)
        except FormatError:
            return {}
        if match is None:
            return {}
        found[match[1]] = raw.hex()
    return found


def check_machine(
    checks: Checks, pcrs: Mapping[str, str], measured: Mapping[str, str], policy: Policy
) -> str | None:
    """Check `code` of a machine. Returns the digest of its image, where reference values show it.

    `measured`: its firmware's `measurement` or `mrtd`, which a reference may pin too. A reference that names a PCR which
    the token does not have is not met and not missed.
    """
    entries = [e for e in (*policy.code_for("azure-maa"), *policy.code_for("azure-cvm")) if "pcrs" in e]
    if not pcrs:
        checks.not_available("code", NO_CODE)
        return None
    if not entries:
        checks.not_available("code", "The policy names no code with PCR values to compare with.")
        return None
    open_ = [entry for entry in entries if not _differs(entry, pcrs, measured)]
    met = [entry for entry in open_ if set(entry["pcrs"]) <= set(pcrs)]
    if met:
        checks.passed("code", "The PCR values in the token are the reference values of an accepted image.")
        return str(met[0]["image"])
    if open_:
        checks.not_available(
            "code",
            "The reference values name PCRs that the token does not have, so whether they are met is open. Use evidence of "
            "type azure-cvm, which quotes them.",
        )
    else:
        checks.failed("code", "The PCR values in the token match no reference values of the policy.")
    return None


def _differs(entry: Mapping[str, Any], pcrs: Mapping[str, str], measured: Mapping[str, str]) -> bool:
    """Whether something that both name is another; and a pinned firmware that the token does not name."""
    pinned = {name: entry[name] for name in ("measurement", "mrtd") if name in entry}
    wrong_firmware = bool(pinned) and all(measured.get(name) != value for name, value in pinned.items())
    return wrong_firmware or any(pcrs.get(n, value) != value for n, value in entry["pcrs"].items())
