"""SHA-256 beside the caller, and the buffers that a stream goes through.

hashlib lets other threads run while it works on a large block, so two digests and a cipher can share the cores.
Buffers are reused: giving a fresh megabyte to every segment costs more time in page faults than encrypting it.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _hashlib import HASH


class Buffers:
    """At most `limit` reusable buffers of `size` bytes. `take` waits until one is free; only one thread may take."""

    def __init__(self, size: int, limit: int = 4) -> None:
        self._size = size
        self._left = limit
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()

    def take(self) -> memoryview:
        if self._left and self._free.empty():
            self._left -= 1
            return memoryview(bytearray(self._size))
        return self._free.get()

    def give(self, buffer: memoryview) -> None:
        self._free.put(buffer)


class BackgroundDigest:
    """A running SHA-256 that works in its own thread once there is more than one block.

    `finish()` gives (hex digest, number of bytes); `close()` gives up. Either ends the thread.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._size = 0
        self._updates = 0
        self._queue: _Queue | None = None
        self._thread: threading.Thread | None = None

    def update(
        self, block: bytes | memoryview, buffer: memoryview | None = None, owner: Buffers | None = None
    ) -> None:
        """Hash `block`, perhaps later: the caller must not change it. `buffer` goes back to `owner` when it is done."""
        self._size += len(block)
        self._updates += 1
        if self._updates <= 2:  # a header and one segment: a small file needs no thread
            self._hash.update(block)
            if buffer is not None and owner is not None:
                owner.give(buffer)
            return
        if self._queue is None:
            self._queue = queue.SimpleQueue()
            # The thread holds no reference to self: an abandoned stream can be collected, which ends the thread.
            self._thread = threading.Thread(
                target=_drain, args=(self._queue, self._hash), name="strongroom-digest", daemon=True
            )
            self._thread.start()
        self._queue.put((block, buffer, owner))

    def finish(self) -> tuple[str, int]:
        self.close()
        return self._hash.hexdigest(), self._size

    def close(self) -> None:
        if self._thread is not None and self._queue is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
            self._queue = None


_Queue = queue.SimpleQueue["tuple[bytes | memoryview, memoryview | None, Buffers | None] | None"]


def _drain(blocks: _Queue, running: HASH) -> None:
    while (item := blocks.get()) is not None:
        block, buffer, owner = item
        running.update(block)
        if buffer is not None and owner is not None:
            owner.give(buffer)
