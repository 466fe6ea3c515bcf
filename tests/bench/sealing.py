"""(b) Sealing and unsealing against raw AES-256-GCM, and the memory that they take.

Speed, in this process, from one buffer of the file's size into a fresh one of the same size (memory that was never
touched: the kernel's page faults are in every figure). `raw` is AESGCM of the package cryptography over blocks of 1 MiB
and nothing else. Sealing and unsealing do that and hash plaintext and ciphertext with SHA-256 beside it. They take turns,
and each one's best round counts: what a round loses on a shared machine, it loses to others. `raw, one warm block` is
the cipher alone, a block of 1 MiB over and over in the processor's cache: what no program that moves data can reach.

Memory, in a child process for each size: a file on disk is sealed into another and unsealed again; what is reported is
the child's peak resident size (VmHWM of proc(5)), the interpreter and its libraries included.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom import seal
from tests.bench.table import Row, judged

AIM_SHARE, AIM_BYTES = 0.5, 150 * 10**6
BLOCK = 1 << 20
AAD = seal.aad_outputs("7c9e6679-7425-40de-944b-e07fc1f90ae7")


class _Memory:
    """A reader over a buffer, which copies once, as reading a cached file does."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = memoryview(data), 0

    def readinto(self, buffer: memoryview) -> int:
        part = self._data[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def read(self, size: int, /) -> bytes:
        part = bytes(self._data[self._at : self._at + size])
        self._at += len(part)
        return part


class _Fresh:
    """A sink into memory of the size given that nobody has touched yet."""

    def __init__(self, size: int) -> None:
        self.data = mmap.mmap(-1, size)
        self._view, self._at = memoryview(self.data), 0

    def write(self, data: bytes | memoryview, /) -> int:
        self._view[self._at : self._at + len(data)] = data
        self._at += len(data)
        return len(data)

    def block(self, size: int) -> memoryview:
        """The next `size` bytes, to be written by somebody else."""
        self._at += size
        return self._view[self._at - size : self._at]

    def close(self) -> None:
        self._view.release()
        self.data.close()


def measure(*, small: bool, say: Callable[[str], None]) -> list[Row]:
    """Rows of part (b)."""
    rows = _speed((8 if small else 64) << 20, rounds=2 if small else 30)
    for megabytes in (10, 20) if small else (100, 2000):
        say(f"    memory for {megabytes} MB")
        rows += _memory(megabytes)
    return rows


def _speed(size: int, *, rounds: int) -> list[Row]:
    plain = os.urandom(BLOCK) * (size // BLOCK)
    key = seal.generate_data_key()
    whole = _Fresh(seal.ciphertext_size(size))
    seal.seal_stream(_Memory(plain), whole, key, AAD)
    sealed = bytes(whole.data)
    whole.close()
    cipher, view = AESGCM(key), memoryview(plain)
    warm = bytearray(BLOCK + seal.TAG_SIZE)

    def raw(sink: _Fresh) -> None:
        for at in range(0, size, BLOCK):
            cipher.encrypt_into(
                at.to_bytes(12, "big"), view[at : at + BLOCK], None, sink.block(BLOCK + seal.TAG_SIZE)
            )

    def warm_block(sink: _Fresh) -> None:
        for at in range(0, size, BLOCK):
            cipher.encrypt_into(at.to_bytes(12, "big"), view[:BLOCK], None, warm)

    def sealing(sink: _Fresh) -> None:
        seal.seal_stream(_Memory(plain), sink, key, AAD)

    def unsealing(sink: _Fresh) -> None:
        seal.unseal_stream(_Memory(sealed), sink, key, AAD)

    best: dict[str, float] = {}
    for _ in range(rounds):
        for act in (raw, sealing, unsealing, warm_block):
            sink = _Fresh(len(sealed) + BLOCK)
            began = time.perf_counter()
            act(sink)
            best[act.__name__] = min(best.get(act.__name__, 1e9), time.perf_counter() - began)
            sink.close()
    speed = {name: size / 1e6 / seconds for name, seconds in best.items()}
    rows = [
        Row("b", f"raw AES-256-GCM, {size >> 20} MiB into fresh memory", f"{speed['raw']:,.0f} MB/s"),
        Row("b", "raw, one warm block", f"{speed['warm_block']:,.0f} MB/s"),
    ]
    for name in ("sealing", "unsealing"):
        share = speed[name] / speed["raw"]
        rows.append(
            judged(
                "b",
                name,
                f"{speed[name]:,.0f} MB/s, {share:.2f} of raw",
                f">= {AIM_SHARE} of raw",
                met=share >= AIM_SHARE,
            )
        )
    return rows


CHILD = """
import sys
from pathlib import Path
from strongroom import seal
what, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
aad, key = seal.aad_outputs("7c9e6679-7425-40de-944b-e07fc1f90ae7"), bytes(32)
if what != "nothing":
    with source.open("rb", buffering=0) as src, target.open("wb", buffering=0) as dst:
        (seal.seal_stream if what == "seal" else seal.unseal_stream)(src, dst, key, aad)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def _child(what: str, source: Path, target: Path) -> int:
    """Peak resident bytes of a process that seals or unseals a file."""
    command = [sys.executable, "-c", CHILD, what, str(source), str(target)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout) * 1024


def _memory(megabytes: int) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="strongroom-bench-") as name:
        plain, sealed, opened = (Path(name) / n for n in ("plain", "sealed", "opened"))
        block = os.urandom(10**6)
        with plain.open("wb") as f:
            for _ in range(megabytes):
                f.write(block)
        idle = _child("nothing", plain, sealed)
        peaks = [("sealing", _child("seal", plain, sealed))]
        plain.unlink()
        peaks.append(("unsealing", _child("unseal", sealed, opened)))
        if opened.stat().st_size != megabytes * 10**6:
            raise RuntimeError("what was unsealed is not what was sealed")
    return [
        judged("b", f"peak memory {what} {megabytes:,} MB", f"{peak / 1e6:.0f} MB ({idle / 1e6:.0f} before it starts)", f"< {AIM_BYTES / 1e6:.0f} MB", met=peak < AIM_BYTES)
        for what, peak in peaks
    ]  # fmt: skip
