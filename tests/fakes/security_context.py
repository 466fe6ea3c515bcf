"""The folder that Azure lays into a confidential container: policy, endorsement, certificates of the host's processor."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from tests.unit.strongroom.evidence import authority_amd as amd


def thim() -> dict[str, str]:
    """What Azure gives as certificates of a host, of a made-up AMD."""
    return {
        "vcekCert": amd.pem(amd.Vek().der()).decode(),
        "tcbm": "DB18000000000004",
        "certificateChain": amd.chain().decode(),
        "cacheControl": "86400",
    }


def security_context(base: Path, cce_policy: bytes = amd.CCE_POLICY) -> Path:
    folder = base / "security-context-1"
    folder.mkdir(parents=True)
    for name, content in {
        "security-policy-base64": cce_policy,
        "host-amd-cert-base64": json.dumps(thim()).encode(),
        "reference-info-base64": amd.Endorsement().cose(),
    }.items():
        (folder / name).write_bytes(base64.b64encode(content) + b"\n")
    return folder
