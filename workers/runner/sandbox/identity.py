"""Whom a program runs as, and what that user can reach.

An ordinary user's programs run as that user, inside namespaces or Landlock. Root's programs never run as root: each
run gets a high user id of its own, so that it owns nothing on the host, shares no process limit with anybody and
cannot signal another run.
"""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path

from .model import SandboxRefused

_FIRST_UID = 1_900_000_000  # above systemd's container range, and with all of ours below 2^31
_CONTAINER_FIRST_UID, _CONTAINER_UIDS = (
    60_600,
    4_900,
)  # where only 65,536 ids are mapped; Debian leaves these free

_RUNS_AT_ONCE = 16  # in one supervisor
_serial = itertools.count()


def is_root() -> bool:
    """True if a program started plainly would be root."""
    return os.geteuid() == 0


def run_uid() -> int:
    """An unprivileged user id for one run of ours, alike for user and group; no other run that is under way has it.

    Raises SandboxRefused if this user namespace has none to give.
    """
    own = os.getpid() % 2**22 * _RUNS_AT_ONCE + next(_serial) % _RUNS_AT_ONCE
    for first, count in ((_FIRST_UID, 2**22 * _RUNS_AT_ONCE), (_CONTAINER_FIRST_UID, _CONTAINER_UIDS)):
        uid = first + own % count
        if _mapped(uid, "uid_map") and _mapped(uid, "gid_map"):
            return uid
    raise SandboxRefused(
        "no_uid",
        "This container has no unprivileged user id to run a program as.",
        "Start the portal as an ordinary user, or map 65,536 user ids into the container.",
    )


def is_own(uid: int | None) -> bool:
    """True if only one run can have this user id, so that everything of this user's is that run's."""
    return uid is not None and uid >= _FIRST_UID


def _mapped(uid: int, table: str) -> bool:
    rows = [line.split() for line in Path(f"/proc/self/{table}").read_text().splitlines()]
    return any(int(first) <= uid < int(first) + int(count) for first, _, count in rows)


def give(folder: Path, uid: int) -> None:
    """Give a folder and everything in it to `uid`, following no link. A hard link to a file of another folder is
    refused (SandboxRefused): giving that away would give away the other name too."""
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for _, folders, files, handle in os.fwalk(".", dir_fd=root, follow_symlinks=False):
            os.fchown(handle, uid, uid)
            for name in folders + files:
                status = os.stat(name, dir_fd=handle, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
                    raise SandboxRefused(
                        "hard_link",
                        f"The file {name} of a run has a second name.",
                        "Copy it instead of linking it.",
                    )
                os.chown(name, uid, uid, dir_fd=handle, follow_symlinks=False)
    finally:
        os.close(root)


def reachable(path: Path, uid: int) -> Path | None:
    """The first folder on the way to `path` that others than its owner may not enter, None if the way is open."""
    path = path.resolve()
    for folder in [*reversed(path.parents), path]:
        status = folder.stat()
        if status.st_uid == uid:
            continue
        if not status.st_mode & (stat.S_IXOTH if folder.is_dir() else stat.S_IROTH):
            return folder
    return None


def tasks_that_count() -> int:
    """How many tasks of ours already count against RLIMIT_NPROC in a new user namespace: none since Linux 5.14, which
    counts in each namespace by itself; before that all of this user's."""
    major, minor = (int(part.partition("-")[0]) for part in os.uname().release.split(".")[:2])
    return 0 if (major, minor) >= (5, 14) else own_tasks()


def own_tasks() -> int:
    """Processes and threads that this user has now."""
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == os.geteuid():
                    count += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                continue
    return count
