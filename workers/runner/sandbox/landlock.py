"""The second kind, where namespaces are refused: Landlock for files and signals, seccomp for everything else.

Weaker than the first and said so: the program sees the host's paths, has no network of its own (so no sockets at all:
a notebook kernel cannot start), and may learn that a file exists, though not read it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path

from . import confine, filters, identity
from .model import Limits, RunSpec, SandboxRefused, View
from .start import NICE, SYSTEM_FILES, SYSTEM_FOLDERS, Started, base_python, bounds, check, end, environment

_READ_FILES = (
    *("/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/sys/devices/system/cpu"),
)


def view(spec: RunSpec) -> View:
    """The program sees the host's own paths; /tmp is a folder in its work folder."""
    return View(str(spec.workdir), str(spec.inputs), str(spec.outputs), str(spec.workdir / ".tmp"))


def why_not() -> SandboxRefused | None:
    """None if this kernel's Landlock is new enough."""
    version = confine.abi()
    if version >= confine.MINIMUM_ABI:
        return None
    have = f"has version {version}" if version else "has none, or it is switched off"
    return SandboxRefused(
        "no_landlock",
        f"Landlock version {confine.MINIMUM_ABI} is needed and this kernel {have}.",
        "Use Linux 6.2 or newer with landlock in its lsm= list.",
    )


def start(spec: RunSpec, limits: Limits) -> Started:
    """Start a program. Raises SandboxRefused if it could not be confined; then nothing of it has run."""
    check(spec)
    if refusal := why_not():
        raise refusal
    root = identity.is_root()
    uid = identity.run_uid() if root else None
    (spec.workdir / ".tmp").mkdir(exist_ok=True, mode=0o700)
    if uid is not None:
        _make_reachable(spec, uid)
    scoped = confine.abi() >= confine.SIGNALS_ABI
    shown = view(spec)
    config = {
        "supervisor": os.getpid(),
        "argv": list(spec.argv),
        "env": environment(spec, shown),
        "cwd": shown.work,
        "uid": uid,
        "own_user": identity.is_own(uid),
        "nice": NICE,
        "limits": bounds(limits, tasks_of_user=0 if root else identity.own_tasks()),
        "rules": _rules(spec),
        "filter": base64.b64encode(
            filters.build(
                on=filters.machine(),
                private_network=False,
                shared_user=not root,
                scoped_signals=scoped or root,
            )
        ).decode(),
    }
    kept = contextlib.ExitStack()
    try:
        return _spawn(config, kept)
    except BaseException:
        kept.close()
        raise


def _spawn(config: dict[str, object], kept: contextlib.ExitStack) -> Started:
    python, script = base_python()[0], str(Path(confine.__file__))
    with contextlib.ExitStack() as ours:
        config_fd = os.memfd_create("config")
        ours.callback(os.close, config_fd)
        os.write(config_fd, json.dumps(config).encode())
        os.lseek(config_fd, 0, os.SEEK_SET)
        log, log_in = os.pipe()
        kept.callback(os.close, log)
        ours.callback(os.close, log_in)
        status_out, status_in = os.pipe()
        kept.callback(os.close, status_out)
        ours.callback(os.close, status_in)
        if config["uid"] is not None:
            os.fchown(log_in, int(str(config["uid"])), -1)
        popen = subprocess.Popen(
            [python, "-I", "-S", script, str(config_fd), str(status_in)],
            stdin=subprocess.DEVNULL,
            stdout=log_in,
            stderr=log_in,
            env={},
            pass_fds=(config_fd, status_in),
            cwd="/",
            umask=0o077,
        )

    def status() -> tuple[int | None, int | None]:
        os.set_blocking(status_out, False)
        answer: dict[str, object] = {}
        with contextlib.suppress(BlockingIOError):
            for line in os.read(status_out, 65536).splitlines():
                answer.update(json.loads(line))
        if "refused" in answer:
            raise SandboxRefused(
                "landlock_failed", f"The program could not be confined ({answer['refused']}).", ""
            )
        if not answer.get("clean"):
            raise SandboxRefused(
                "left_over",
                "Processes of the program may still be running.",
                "Restart this machine before the next run.",
            )
        code = int(str(answer.get("code", -signal.SIGKILL)))
        return (None, -code) if code < 0 else (code, None)

    def kill() -> None:
        end(popen, signal.SIGTERM)  # the monitor ends the whole tree, then itself

    return Started(popen, log, popen.pid, kill, status, kept.close)


def _rules(spec: RunSpec) -> list[tuple[str, int]]:
    readable = [*SYSTEM_FOLDERS, *SYSTEM_FILES, *map(str, spec.read_only)]
    rules = [(path, confine.READ) for path in readable]
    rules += [(path, confine.READ_FILE | confine.READ_DIR) for path in (*_READ_FILES, str(spec.inputs))]
    rules += [(str(path), confine.WRITE) for path in (spec.workdir, spec.outputs)]
    return [*rules, ("/dev/null", confine.READ_FILE | confine.WRITE_FILE)]


def _make_reachable(spec: RunSpec, uid: int) -> None:
    """Give the run's folders away; refuse where its user could not get to them, since nothing can be mounted here."""
    for folder in (spec.workdir, spec.inputs, spec.outputs):
        identity.give(folder, uid)
    for path in (spec.workdir, spec.inputs, spec.outputs, *spec.read_only, Path(spec.argv[0])):
        closed = identity.reachable(path, uid)
        if closed is not None:
            raise SandboxRefused(
                "unreachable",
                f"A program may not run as root, and another user cannot enter {closed}.",
                f"Allow it (chmod o+x {closed}), install somewhere else, or start the portal as an ordinary user.",
            )
