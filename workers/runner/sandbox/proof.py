"""The self-test's result, written down, so that it is made once for a machine and not once for each run.

What was proved is believed only where nothing has changed that it rests on: the same boot of the same kernel, the same
user, capabilities and namespaces, the same bwrap, interpreter and sandbox code, and not longer than a day ago. Anything
else, and any doubt about the file itself, means testing again. The programs that run here cannot reach the file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

from . import probe
from .bubblewrap import find
from .model import Kind, Probe, Sandbox, SandboxRefused
from .selftest import choose

MAX_AGE_SECONDS = 24 * 3600
MAX_BYTES = 64 << 10
# Every attempt that a proof must speak of.
NAMES = frozenset(f.__name__ for f in (*probe.WITH_HOST, *probe.INSIDE_ONLY)) | {"memory", "processes"}
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_SETTINGS = (
    "kernel/apparmor_restrict_unprivileged_userns", "kernel/unprivileged_userns_clone", "user/max_user_namespaces",
)  # fmt: skip


def proved(path: Path) -> Sandbox:
    """The sandbox of this machine, from the proof at `path` if it still holds, else tested now and written there.

    Raises SandboxRefused; then no proof is left.
    """
    return remembered(path) or prove(path)


def prove(path: Path) -> Sandbox:
    """Test now, and write the result to `path` (mode 0600, in one step). Raises SandboxRefused, leaving no proof."""
    ground = grounds()
    try:
        found = choose()
    except SandboxRefused:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # a proof that cannot be kept is still a proof
        _write(path, {"v": 1, **dataclasses.asdict(found), "tested_at": int(time.time()), "grounds": ground})
    return found


def remembered(path: Path) -> Sandbox | None:
    """The sandbox that the proof at `path` speaks of, or None if there is no proof or it does not hold now."""
    try:
        document = json.loads(_read(path))
        if document["v"] != 1 or document["grounds"] != grounds():
            return None
        if not 0 <= time.time() - document["tested_at"] < MAX_AGE_SECONDS:
            return None
        probes = tuple(
            Probe(str(p["name"]), p["closed"] is True, str(p["detail"])) for p in document["probes"]
        )
        if not all(p.closed for p in probes) or {p.name for p in probes} != NAMES:
            return None
        kind = Kind(document["kind"])
        return Sandbox(kind, kind is Kind.BUBBLEWRAP, str(document["detail"]), probes)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def grounds() -> dict[str, Any]:
    """What a proof rests on, as JSON values: where any of it differs, nothing is proved."""
    status = Path("/proc/self/status").read_text().splitlines()
    kept = ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")
    bwrap = find()
    return {
        "boot": _BOOT.read_text().strip(),
        "kernel": " ".join((os.uname().release, os.uname().version)),
        "user": [os.geteuid(), os.getegid()],
        "process": [line for line in status if line.partition(":")[0] in kept],
        "namespaces": {n: os.readlink(f"/proc/self/ns/{n}") for n in ("user", "mnt", "pid", "net")},
        "settings": {name: _setting(name) for name in _SETTINGS},
        "python": [os.path.realpath(sys.executable), sys.version],
        "bwrap": _fingerprint(bwrap) if bwrap else None,
        "code": _code(),
    }


def _setting(name: str) -> str | None:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return None


def _fingerprint(path: Path) -> list[Any]:
    status = path.stat()
    return [str(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _code() -> str:
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _read(path: Path) -> bytes:
    """The file's bytes. Raises OSError unless file and folder are ours, and nobody else may write to them."""
    _require_ours(os.stat(path.parent))
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as f:
        status = os.fstat(descriptor)
        _require_ours(status)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
            raise OSError("not a proof")
        return f.read(MAX_BYTES)


def _require_ours(status: os.stat_result) -> None:
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError("somebody else could have written it")


def _write(path: Path, document: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w") as f:
            json.dump(document, f)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
