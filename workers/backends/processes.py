"""Reading and ending processes of this host through /proc (proc(5)). Linux only, as is the sandbox."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

PROC = Path("/proc")


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None if it is not there or has ended (a zombie).

    With the pid it names one process for good: a pid is used again, a pid with a start time is not.
    """
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    fields = text.rpartition(")")[2].split()  # the name in brackets may hold anything
    return None if fields[0] in ("Z", "X") else int(fields[19])


def find_by_argument(argument: str) -> list[int]:
    """Pids of this user's processes that have `argument` as one whole word of their command line."""
    wanted, found = argument.encode(), []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (
                    wanted in (entry / "cmdline").read_bytes().split(b"\0")
                    and start_time(int(entry.name)) is not None
                ):
                    found.append(int(entry.name))
    return found


def descendants(pid: int) -> list[int]:
    """The process and everything below it."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        todo.extend(children.get(one, []))
    return found


def members_of_session(session: int, *, not_before: int) -> list[int]:
    """Live processes of a session, started no earlier than `not_before` (ticks), whose leader may be dead."""
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if (
                    int(fields[3]) == session
                    and fields[0] not in ("Z", "X")
                    and int(fields[19]) >= not_before
                ):
                    found.append(int(entry.name))
    return found


def kill_tree(pid: int, *, patience: float = 5.0) -> bool:
    """End the process, its group and all below it. True once none of them is left."""
    deadline = time.monotonic() + patience
    while True:
        live = [(p, s) for p in descendants(pid) if (s := start_time(p)) is not None]
        if not live:
            reap(pid)
            return True
        # Stopped first, so that none of them can start another one while it is being read.
        for sign in (signal.SIGSTOP, signal.SIGKILL):
            for one, started in live:
                if start_time(one) == started:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(one, sign)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(pid) == pid:
                os.killpg(pid, signal.SIGKILL)
        reap(pid)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)


def reap(pid: int) -> None:
    """Take the exit status if the process is our child; a child of somebody else is theirs to take."""
    with contextlib.suppress(ChildProcessError, OSError):
        os.waitpid(pid, os.WNOHANG)
