"""The vTPM of an Azure confidential VM: swtpm, with a key at Azure's handle, and a paravisor that answers in NV indices.

The hardware report in it is signed by a made-up AMD.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tests.unit.strongroom.evidence import authority_amd as amd
from tests.unit.strongroom.evidence import authority_cvm as cvm
from workers.runner.attesters import azure_cvm
from workers.runner.attesters.tpm import Tpm

TOOLS = ("swtpm", "tpm2_quote", "tpm2_nvdefine", "tpm2_createprimary")
MISSING = "no swtpm and tpm2-tools here: apt-get install swtpm tpm2-tools"


def available() -> bool:
    return all(shutil.which(tool) for tool in TOOLS)


class Machine:
    """A software TPM with a signing key at Azure's handle, and a paravisor that answers in NV indices as Azure's does."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tpm = folder, Tpm(f"swtpm:path={folder}/s")
        self.lazy = 0  # how many waits the paravisor lets pass
        self.waited: list[float] = []
        self.changes: dict[str, Any] = {}
        self._child = subprocess.Popen(
            [
                "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}", "--server", f"type=unixio,path={folder}/s",
                "--ctrl", f"type=unixio,path={folder}/s.ctrl", "--flags", "not-need-init,startup-clear",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 10
        while not (folder / "s.ctrl").exists():
            assert time.monotonic() < deadline and self._child.poll() is None
            time.sleep(0.02)
        self._make_key()
        self.report(bytes(64))

    def close(self) -> None:
        self._child.kill()
        self._child.wait(10)

    def run(self, *command: str) -> None:
        env = {"PATH": os.environ["PATH"], "TPM2TOOLS_TCTI": self.tpm.tcti}
        subprocess.run(
            command, env=env, cwd=self.folder, check=True, capture_output=True, stdin=subprocess.DEVNULL
        )

    def _make_key(self) -> None:
        attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign"
        self.run(
            "tpm2_createprimary", "-C", "e", "-g", "sha256", "-G", "rsa2048:rsassa-sha256:null", "-c", "p", "-a", attributes
        )  # fmt: skip
        self.run("tpm2_evictcontrol", "-C", "o", "-c", "p", "0x81000003")
        self.run("tpm2_flushcontext", "-t")
        self.run("tpm2_readpublic", "-c", "0x81000003", "-f", "pem", "-o", "ak.pem")

    def _claims(self, user_data: bytes) -> bytes:
        claims = json.loads(cvm.runtime_claims(user_data=user_data))
        key = load_pem_public_key((self.folder / "ak.pem").read_bytes())
        assert isinstance(key, RSAPublicKey)
        number = key.public_numbers().n.to_bytes(256, "big")
        claims["keys"] = claims["keys"][:1]  # a software TPM's index holds 2048 bytes
        claims["keys"][0]["n"] = base64.urlsafe_b64encode(number).rstrip(b"=").decode()
        return json.dumps(claims, separators=(",", ":")).encode()

    def make(self, user_data: bytes) -> bytes:
        """The paravisor's report with these user data."""
        claims = self._claims(user_data)
        body = amd.Report(
            report_data=hashlib.sha256(claims).digest(), raw={0xE0: cvm.MICROSOFT_ID_KEY}
        ).sign()
        return cvm.hcl_report(body, claims, **{"total": 2048, **self.changes})

    def report(self, user_data: bytes) -> None:
        self.tpm.write(azure_cvm.REPORT_INDEX, self.make(user_data))

    def wait(self, seconds: float) -> None:
        """What the attester calls to wait: meanwhile the paravisor makes its report."""
        self.waited.append(seconds)
        if len(self.waited) > self.lazy:
            self.report(self.tpm.read(azure_cvm.USER_DATA_INDEX))
