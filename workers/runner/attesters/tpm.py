"""The few TPM commands that the runner needs, through the tpm2-tools of the image, each with a fixed list of arguments.

Nothing that comes from outside the machine becomes an argument: numbers are ours, data travel in files of a folder in
memory. Source: the manual pages of tpm2-tools 5 (tpm2_nvread, tpm2_nvwrite, tpm2_quote, tpm2_pcrread, tpm2_pcrextend).
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workers.runner.attester import NoEvidence
from workers.runner.attesters import reading

DEVICE = "device:/dev/tpmrm0"
SECONDS = 20.0
DIGEST = 32  # bytes of a SHA-256 PCR
_PATHS = "/usr/bin:/usr/local/bin:/bin"


@dataclass(frozen=True, slots=True)
class Quote:
    """message: TPMS_ATTEST. signature: TPMT_SIGNATURE. pcrs: number to value, the sha256 bank."""

    message: bytes
    signature: bytes
    pcrs: dict[int, bytes]


@dataclass(frozen=True, slots=True)
class Tpm:
    """`tcti`: how the tools reach the TPM. The default is the kernel's resource manager."""

    tcti: str = DEVICE

    def read(self, index: int) -> bytes:
        """The whole content of an NV index, by the owner. Raises NoEvidence."""
        with _folder() as folder:
            self._run("tpm2_nvread", "-C", "o", f"0x{index:08x}", "-o", str(folder / "out"))
            return reading.small_file(folder / "out")

    def write(self, index: int, data: bytes) -> None:
        """Write an NV index, which is made by the owner where there is none. Raises NoEvidence."""
        name = f"0x{index:08x}"
        with _folder() as folder:
            (folder / "in").write_bytes(data)
            if self._try("tpm2_nvreadpublic", name) is not None:
                self._run("tpm2_nvdefine", "-C", "o", name, "-s", str(len(data)))
            self._run("tpm2_nvwrite", "-C", "o", name, "-i", str(folder / "in"))

    def extend(self, pcr: int, digest: bytes) -> None:
        """Extend a PCR of the sha256 bank with a digest of 32 bytes. Raises NoEvidence."""
        if len(digest) != DIGEST:
            raise NoEvidence(f"A PCR is extended with {DIGEST} bytes.")
        self._run("tpm2_pcrextend", f"{pcr}:sha256={digest.hex()}")

    def pcrs(self, numbers: tuple[int, ...]) -> dict[int, bytes]:
        """The present values of the sha256 bank, in ascending order. Raises NoEvidence."""
        with _folder() as folder:
            self._run("tpm2_pcrread", _selection(numbers), "-o", str(folder / "out"))
            return _values(numbers, reading.small_file(folder / "out"))

    def quote(self, handle: int, numbers: tuple[int, ...], qualifying: bytes) -> Quote:
        """A quote over PCRs of the sha256 bank by the key at a persistent handle. Raises NoEvidence."""
        with _folder() as folder:
            self._run(
                "tpm2_quote", "-c", f"0x{handle:08x}", "-l", _selection(numbers), "-q", qualifying.hex(),
                "-g", "sha256", "-m", str(folder / "message"), "-s", str(folder / "signature"), "-f", "tss",
                "-o", str(folder / "pcrs"), "-F", "values",
            )  # fmt: skip
            files = {name: reading.small_file(folder / name) for name in ("message", "signature", "pcrs")}
        return Quote(files["message"], files["signature"], _values(numbers, files["pcrs"]))

    def _run(self, *command: str) -> None:
        failure = self._try(*command)
        if failure is not None:
            raise NoEvidence(f"{command[0]} failed: {failure}.")

    def _try(self, *command: str) -> str | None:
        """None if the command succeeded, else why not."""
        env = {"PATH": _PATHS, "LANG": "C.UTF-8", "TPM2TOOLS_TCTI": self.tcti}
        try:
            done = subprocess.run(
                command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return f"no answer within {SECONDS:.0f} seconds"
        except OSError as error:
            return str(error.strerror)
        return None if done.returncode == 0 else f"exit code {done.returncode}"


def _selection(numbers: tuple[int, ...]) -> str:
    if not numbers or list(numbers) != sorted(set(numbers)) or not all(0 <= n <= 23 for n in numbers):
        raise NoEvidence("PCRs are numbers from 0 to 23, ascending, each once.")
    return "sha256:" + ",".join(map(str, numbers))


def _values(numbers: tuple[int, ...], data: bytes) -> dict[int, bytes]:
    if len(data) != DIGEST * len(numbers):
        raise NoEvidence("The TPM does not hold every PCR asked for in its sha256 bank.")
    return {n: data[i * DIGEST : (i + 1) * DIGEST] for i, n in enumerate(numbers)}


@contextmanager
def _folder() -> Iterator[Path]:
    base = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108  a folder of our own is made in it
    with tempfile.TemporaryDirectory(prefix="strongroom-tpm-", dir=base) as name:
        yield Path(name)
