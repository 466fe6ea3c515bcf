"""What both kinds of sandbox share when they start a program: bounds, environment, the handle to a started one."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .model import Limits, RunSpec, SandboxRefused, View

SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/libx32")
# Nothing about this host: where libraries, fonts and the time zone are.
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/alternatives", "/etc/localtime", "/etc/fonts")
_NEVER_BOUND = ("/", "/proc", "/sys", "/dev", "/run", "/var", "/etc", "/home", "/root", "/tmp")  # noqa: S108

NICE = 5  # the supervisor must get its turn under a fork bomb
TASK_HEADROOM = 16  # above the watchdog's bound, so that a bomb is seen and ended, not only slowed down
OPEN_FILES = 1024
CPU_GRACE = 2  # seconds from SIGXCPU to SIGKILL


@dataclass(slots=True)
class Started:
    """A program under way. `root`: everything below this process is the program's. `kill` ends all of it, which is
    over when every handle of `gone` is readable; after that `status` tells (return code, signal), one of them None."""

    popen: subprocess.Popen[bytes]
    log: int
    root: int
    kill: Callable[[], None]
    status: Callable[[], tuple[int | None, int | None]]
    cleanup: Callable[[], None]
    gone: list[int] = field(default_factory=list)
    memory_folders: list[Path] = field(default_factory=list)


def bounds(limits: Limits, *, tasks_of_user: int) -> dict[str, tuple[int, int]]:
    """Resource limits (soft, hard) by name; `tasks_of_user` are those that share the program's process limit.

    RLIMIT_DATA counts what is reserved, not what is used, and thread stacks and allocators reserve much: it is only
    there to stop an absurd reservation at once. The watchdog bounds what is used.
    """
    data = 2 * limits.memory_bytes + 2**30
    tasks = limits.processes + tasks_of_user + TASK_HEADROOM
    wanted = {
        "RLIMIT_CPU": (limits.cpu_seconds, limits.cpu_seconds + CPU_GRACE),
        "RLIMIT_FSIZE": (limits.file_bytes, limits.file_bytes),
        "RLIMIT_DATA": (data, data),
        "RLIMIT_NPROC": (tasks, tasks),
        "RLIMIT_NOFILE": (OPEN_FILES, OPEN_FILES),
        "RLIMIT_CORE": (0, 0),
        "RLIMIT_MSGQUEUE": (0, 0),
    }
    found = {}
    for name, (soft, hard) in wanted.items():
        ceiling = resource.getrlimit(getattr(resource, name))[1]
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        found[name] = (soft, hard)
    return found


def environment(spec: RunSpec, view: View) -> dict[str, str]:
    """The program's whole environment: what the caller gave and the names of its folders, nothing of ours."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "USER": "researcher",
        "LOGNAME": "researcher",
        **spec.env,
        "HOME": view.work,
        "TMPDIR": view.tmp,
        "STRONGROOM_INPUTS": view.inputs,
        "STRONGROOM_OUTPUTS": view.outputs,
    }


def check(spec: RunSpec) -> None:
    """Refuse a spec that would open more than a program may see. Raises SandboxRefused."""
    for folder in spec.read_only:
        if str(folder) in _NEVER_BOUND or not folder.is_absolute() or not folder.exists():
            raise SandboxRefused(
                "read_only",
                f"The folder {folder} cannot be shown to a program.",
                "Name an existing folder of its own by its absolute path.",
            )
    for folder in (spec.workdir, spec.inputs, spec.outputs):
        if folder.is_symlink() or not folder.is_dir() or not folder.is_absolute():
            raise SandboxRefused(
                "folder",
                f"The run's folder {folder} is not there.",
                "Make it before the run starts; it may not be a link.",
            )
    if not spec.argv or not spec.argv[0].startswith("/"):
        raise SandboxRefused(
            "program", "The program is not named by an absolute path.", "Name it by its absolute path."
        )


def base_python() -> tuple[str, Path]:
    """The interpreter behind our virtual environment, and the folder of its library."""
    return os.path.realpath(sys.executable), Path(sys.base_prefix).resolve()


def end(popen: subprocess.Popen[bytes], sig: int = signal.SIGKILL) -> None:
    """Signal a child that we have not waited for yet, so its number is still its own."""
    if popen.returncode is None:
        os.kill(popen.pid, sig)  # send_signal() would reap it, and its use of the CPU would be lost
