"""Start an image on a machine of one's own: qemu, OVMF and a software TPM. No part of the build, and no proof for anybody else.

What the TPM was told is read from its own log, so that nothing inside the image has to help.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FIRMWARE, VARIABLES = Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
TOOLS = ("qemu-system-x86_64", "swtpm")
MISSING = "no qemu, OVMF and swtpm here: apt-get install qemu-system-x86 ovmf swtpm"
# Without cx16: qemu 7.2 emulates that instruction wrongly, and Linux 6.12 uses it.
CPU = "Haswell,-cx16"
_STARTUP, _EXTEND, _SHA256 = 0x144, 0x182, 0x000B
_SIZES = {0x0004: 20, 0x000B: 32, 0x000C: 48, 0x000D: 64}


def available() -> bool:
    return FIRMWARE.exists() and all(shutil.which(tool) for tool in TOOLS)


@dataclass(frozen=True, slots=True)
class Seen:
    """ended: whether the machine switched itself off in time. console: what it said on its serial port."""

    pcrs: dict[int, bytes]
    console: str
    ended: bool


def start(
    disk: Path,
    folder: Path,
    *,
    seconds: float,
    arguments: Sequence[str] = (),
    firmware: Path = FIRMWARE,
    variables: Path = VARIABLES,
) -> Seen:
    """Boots the raw disk, whose bytes stay as they are, with an empty TPM. folder: empty; state and logs stay in it."""
    (folder / "tpm").mkdir(parents=True)
    shutil.copy(variables, folder / "variables.fd")
    log, console, control = folder / "tpm.log", folder / "console.log", folder / "control"
    tpm = subprocess.Popen(
        ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder / 'tpm'}", "--ctrl", f"type=unixio,path={control}",
         "--log", f"level=20,file={log}", "--terminate", "--pid", f"file={folder / 'pid'}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not control.exists():
            if tpm.poll() is not None:
                raise RuntimeError("The software TPM did not start.")
        ended = True
        try:
            subprocess.run(
                command(disk, folder, firmware, arguments), check=True, timeout=seconds, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            ended = False
    finally:
        tpm.kill()
        tpm.wait(10)
    said = console.read_text(errors="replace") if console.exists() else ""
    return Seen(replay(log.read_text(errors="replace")), said, ended)


def command(disk: Path, folder: Path, firmware: Path, arguments: Sequence[str]) -> list[str]:
    """qemu's. folder: has variables.fd, and the TPM's control socket; console.log comes into it. No network by itself."""
    network = () if "-netdev" in arguments else ("-nic", "none")
    return [
        "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", CPU, "-m", "4096", "-smp", "2", "-display", "none", "-no-reboot",
        "-serial", f"file:{folder / 'console.log'}", "-monitor", "none",
        "-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={firmware}",
        "-drive", f"if=pflash,format=raw,unit=1,file={folder / 'variables.fd'}",
        "-drive", f"file={disk},format=raw,if=none,id=disk,snapshot=on", "-device", "virtio-blk-pci,drive=disk,bootindex=0",
        "-chardev", f"socket,id=tpm,path={folder / 'control'}", "-tpmdev", "emulator,id=tpm,chardev=tpm",
        "-device", "tpm-crb,tpmdev=tpm", *network, *arguments,
    ]  # fmt: skip


def replay(log: str) -> dict[int, bytes]:
    """The PCRs, SHA-256, that follow from what swtpm's log says it was told since it was last switched on."""
    pcrs = dict.fromkeys(range(24), bytes(32))
    for message in _messages(log):
        code = int.from_bytes(message[6:10], "big")
        if code == _STARTUP:
            pcrs = dict.fromkeys(range(24), bytes(32))
        elif code == _EXTEND:
            number = int.from_bytes(message[10:14], "big")
            pcrs[number] = hashlib.sha256(pcrs[number] + _sha256(message)).digest()
    return pcrs


def _messages(log: str) -> Iterator[bytes]:
    """What the TPM read, each message."""
    for found in re.finditer(r"SWTPM_IO_Read: length \d+\n((?:\s*(?:[0-9A-F]{2} ?)+\n)+)", log):
        yield bytes.fromhex("".join(found[1].split()))


def _sha256(message: bytes) -> bytes:
    """The SHA-256 digest that TPM2_PCR_Extend carries. TPM 2.0 Part 3, "TPM2_PCR_Extend"; Part 2, TPML_DIGEST_VALUES."""
    at = 18 + int.from_bytes(message[14:18], "big")
    count, at = int.from_bytes(message[at : at + 4], "big"), at + 4
    for _ in range(count):
        kind = int.from_bytes(message[at : at + 2], "big")
        if kind == _SHA256:
            return message[at + 2 : at + 34]
        at += 2 + _SIZES[kind]
    raise ValueError("An extend without a SHA-256 digest.")
