"""A program's output, kept to a bounded size: its beginning and its end."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

CAP = 1024 * 1024


class CappedLog:
    """Takes any number of bytes, keeps the first and the last half of `cap`."""

    def __init__(self, cap: int = CAP) -> None:
        self._half = cap // 2
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self.left_out = 0

    def write(self, data: bytes) -> None:
        """Keep what has room; from the middle, forget."""
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if not data:
            return
        self._tail.append(data)
        self._tail_size += len(data)
        while self._tail_size - len(self._tail[0]) >= self._half:
            dropped = len(self._tail.popleft())
            self._tail_size -= dropped
            self.left_out += dropped

    def save(self, path: Path) -> None:
        """Write what was kept to a new file that only we can read."""
        tail = b"".join(self._tail)
        surplus = max(0, len(tail) - self._half)
        left_out = self.left_out + surplus
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(self._head)
            if left_out:
                file.write(b"\n[%d bytes of output left out here]\n" % left_out)
            file.write(tail[surplus:])
