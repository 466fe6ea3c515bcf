"""Attempts to get out, made from inside a sandbox: a program that tries, and writes down what came of it.

Run as a script by the base Python:  probe.py escape|memory|processes CONFIG. Standard library only, nothing of ours.
Each attempt returns None if it got out, else the reason it did not. `selftest.py` makes the attempts with a host side
(a listener, a file, a process) outside too, to be sure that they would work.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_UNSHARE = {"x86_64": 272, "aarch64": 97}
_PTRACE = {"x86_64": 101, "aarch64": 117}
_IO_URING_SETUP = 425
# How machines attest themselves. Whoever reaches one of these can have evidence with any nonce.
ATTESTATION = (
    "/run/container_launcher/teeserver.sock",
    "/run/container_launcher/attestation_verifier_claims_token",
    "/dev/tpm0",
    "/dev/tpmrm0",
    "/dev/sev",
    "/dev/sev-guest",
    "/dev/tdx_guest",
    "/sys/kernel/config/tsm/report",
    "/run/strongroom/token",
)
METADATA = ("169.254.169.254", 80)


def tcp(config: dict[str, Any]) -> None:
    """Connect to a listener on the host's loopback address."""
    with socket.create_connection(("127.0.0.1", config["tcp"]), timeout=0.3):
        return


def udp(config: dict[str, Any]) -> None:
    """Send a datagram to the host and get an answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(0.3)
        sender.connect(("127.0.0.1", config["udp"]))
        sender.send(b"probe")
        sender.recv(16)


def unix_name(config: dict[str, Any]) -> None:
    """Connect to an abstract socket of the host."""
    with socket.socket(socket.AF_UNIX) as sender:
        sender.connect("\0" + config["abstract"])


def unix_path(config: dict[str, Any]) -> None:
    """Connect to a socket in a folder of the host."""
    with socket.socket(socket.AF_UNIX) as sender:
        sender.connect(config["folder"] + "/socket")


def file_outside(config: dict[str, Any]) -> None:
    """Read a file of the host that everybody may read."""
    Path(config["folder"], "canary").read_bytes()


def write_outside(config: dict[str, Any]) -> None:
    """Write to a folder of the host that everybody may write to."""
    Path(config["folder"], "written-" + config["token"]).write_bytes(b"")


def other_process(config: dict[str, Any]) -> str | None:
    """Find another process's environment in /proc."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if config["token"].encode() in path.read_bytes():
                return None
        except OSError:
            continue
    return "no such process is to be seen"


def signal_other(config: dict[str, Any]) -> None:
    """Ask whether a process of the host could be signalled."""
    os.kill(config["pid"], 0)


def password_file(config: dict[str, Any]) -> None:
    """Read the host's password file."""
    Path("/etc/shadow").read_bytes()


def system_folders(config: dict[str, Any]) -> str | None:
    """Write to the system's folders and to the inputs."""
    for folder in (
        "/",
        "/usr",
        "/usr/lib",
        "/etc",
        "/dev",
        "/bin",
        "/var/tmp",  # noqa: S108 inside the sandbox
        "/run",
        os.environ["STRONGROOM_INPUTS"],
    ):
        try:
            Path(folder, "written-" + config["token"]).write_bytes(b"")
            return None
        except OSError as error:
            reason = str(error.strerror)
    return reason


def kernel_calls(config: dict[str, Any]) -> str | None:
    """Make a namespace, trace a process, set up an io_uring."""
    machine = os.uname().machine
    for arguments in (
        (_UNSHARE[machine], 0x10000000),
        (_PTRACE[machine], 0, 0, 0, 0),
        (_IO_URING_SETUP, 1, 0),
    ):
        if _libc.syscall(*map(ctypes.c_long, arguments)) == 0 or ctypes.get_errno() not in (
            1,
            38,
        ):  # EPERM, ENOSYS
            return None
    return "refused by the filter"


def privileges(config: dict[str, Any]) -> str | None:
    """Hold a capability, be root on the host, gain by a setuid program, run without a filter."""
    header = struct.pack("=Ii", 0x20080522, 0)
    data = ctypes.create_string_buffer(24)
    if _libc.capget(header, data) or any(struct.unpack("=6I", data.raw)):
        return None
    no_new, filtered = _libc.prctl(39, 0, 0, 0, 0), _libc.prctl(21, 0, 0, 0, 0)
    return "none" if (no_new, filtered) == (1, 2) and os.getuid() and os.geteuid() else None


def attestation(config: dict[str, Any]) -> str | None:
    """Reach what attests the machine: the launcher's socket, a TPM, a guest device, the launch token."""
    reason = "nothing of the kind is to be seen"
    for path in ATTESTATION:
        try:
            if path.endswith(".sock"):
                with socket.socket(socket.AF_UNIX) as sender:
                    sender.connect(path)
            elif os.path.isdir(path):
                os.listdir(path)
            else:
                os.close(os.open(path, os.O_RDONLY))
            return None
        except OSError as error:
            if error.errno != errno.ENOENT:
                reason = error.strerror or str(error)
    return reason


def metadata(config: dict[str, Any]) -> str | None:
    """Connect to the cloud's metadata service."""
    with socket.socket(socket.AF_INET) as sender:
        sender.settimeout(0.3)
        try:
            sender.connect(METADATA)
        except TimeoutError:
            return None  # nothing refused it: the question left
        except OSError as error:
            return error.strerror or str(error)
    return None


def file_size(config: dict[str, Any]) -> None:
    """Write a single byte far beyond the bound of one file."""
    path = Path(os.environ["STRONGROOM_OUTPUTS"], "large")
    try:
        with path.open("wb", buffering=0) as handle:
            handle.seek(config["file_bytes"] + 2**20)
            handle.write(b"x")
    finally:
        path.unlink()


WITH_HOST = (tcp, udp, unix_name, unix_path, file_outside, write_outside, other_process, signal_other)
INSIDE_ONLY = (password_file, system_folders, kernel_calls, privileges, attestation, metadata, file_size)


def attempt(function: Any, config: dict[str, Any]) -> str | None:
    """None if it got out, else why it did not."""
    try:
        return function(config)
    except OSError as error:
        return error.strerror or str(error)


def main() -> None:
    what, config = sys.argv[1], json.loads(sys.argv[2])
    if what == "escape":
        answers = {function.__name__: attempt(function, config) for function in WITH_HOST + INSIDE_ONLY}
        Path(os.environ["STRONGROOM_OUTPUTS"], "answers.json").write_text(json.dumps(answers))
    elif what == "memory":
        kept = []
        while True:
            kept.append(b"x" * (8 * 2**20))
            time.sleep(0.002)
    else:
        with contextlib.suppress(BlockingIOError):  # at the kernel's own bound, wait to be seen
            while os.fork():
                pass
        time.sleep(60)


if __name__ == "__main__":
    main()
