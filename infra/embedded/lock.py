"""One stack per var/ folder: a lock that the kernel gives back when its holder ends, however it ends."""

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.embedded.layout import Failure, read_json
from infra.embedded.process import start_time


@dataclass(frozen=True)
class Holder:
    """The process that has the lock; pid and start time together name it."""

    pid: int
    started: int

    def alive(self) -> bool:
        return start_time(self.pid) == self.started


def holder(path: Path) -> Holder | None:
    """Who runs a stack on this folder now; None if nobody does."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        value = read_json(path)
        return Holder(int(value.get("pid", 0)), int(value.get("started", 0)))
    finally:
        os.close(fd)
    return None


class Lock:
    """Context manager. Entering raises Failure when a stack is running on the same folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def __enter__(self) -> Self:
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            other = holder(self.path)
            raise Failure(
                f"A stack is already running on this folder{f' (process {other.pid})' if other else ''}. "
                "`python -m infra.embedded status` shows it, `python -m infra.embedded down` stops it."
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps({"pid": os.getpid(), "started": start_time(os.getpid())}).encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
