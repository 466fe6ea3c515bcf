"""The object store: bytes under deterministic names. Files by default; S3 by setting. Callers see one interface."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Protocol

from django.conf import settings

CHUNK = 1 << 20
_NAME = re.compile(r"[a-z0-9][a-z0-9._/-]{0,200}")


class ObjectStore(Protocol):
    """Names are lower-case paths chosen by us, never by a user. Every call may be repeated."""

    def append(self, name: str, offset: int, chunks: Iterator[bytes], *, limit: int) -> int:
        """Write `chunks` at `offset`, which must equal the present size (else ValueError). Returns the new size.

        Of two calls at one offset at once, one writes and the other finds the offset taken, as if it had come later.
        """

    def put(self, name: str, chunks: Iterator[bytes]) -> tuple[str, int]:
        """Store atomically, replacing what was there. Returns (sha256 hex, size in bytes)."""

    def open(self, name: str) -> BinaryIO:
        """A seekable reader. Raises FileNotFoundError."""

    def size(self, name: str) -> int:
        """Size in bytes, 0 if absent."""

    def delete(self, name: str) -> None:
        """Remove; absent is fine."""


class FileStore:
    """Objects as files below one folder of mode 0700."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name) or ".." in name:
            raise ValueError(f"not an object name: {name!r}")
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    def append(self, name: str, offset: int, chunks: Iterator[bytes], *, limit: int) -> int:
        fd = os.open(self._path(name), os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(fd, "r+b", buffering=0) as f:
            size = _write_at(f, offset, b"")
            for chunk in chunks:
                if size + len(chunk) > limit:
                    raise OverflowError("object larger than announced")
                size = _write_at(f, size, chunk)
            return size

    def put(self, name: str, chunks: Iterator[bytes]) -> tuple[str, int]:
        path = self._path(name)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
        digest, size = hashlib.sha256(), 0
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(fd, "wb") as f:
                for chunk in chunks:
                    f.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return digest.hexdigest(), size

    def open(self, name: str) -> BinaryIO:
        return self._path(name).open("rb")

    def size(self, name: str) -> int:
        try:
            return self._path(name).stat().st_size
        except FileNotFoundError:
            return 0

    def delete(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)


def _write_at(f: FileIO, offset: int, piece: bytes) -> int:
    """Write `piece` at the end of the file, which must be at `offset` (else ValueError). Returns where the end is then.

    Look and write are one step under the file's lock, which is never held while a caller waits for the network.
    """
    fcntl.flock(f, fcntl.LOCK_EX)
    try:
        size = f.seek(0, os.SEEK_END)
        if size != offset:
            raise ValueError(f"offset {offset} given, {size} bytes are there")
        left = memoryview(piece)
        while left:
            left = left[f.write(left) :]
        return size + len(piece)
    finally:
        fcntl.flock(f, fcntl.LOCK_UN)


def store() -> ObjectStore:
    """The configured object store."""
    config = settings.OBJECT_STORE
    if config["backend"] == "files":
        return FileStore(Path(config["root"]))
    raise ValueError(f"unknown object store backend {config['backend']!r}")


def chunks_of(reader: BinaryIO, size: int = CHUNK) -> Iterator[bytes]:
    """Read `reader` to its end in pieces of `size` bytes."""
    while chunk := reader.read(size):
        yield chunk


def put_bytes(name: str, data: bytes) -> tuple[str, int]:
    """Store a small object held in memory."""
    return store().put(name, iter([data]))


def sha256_of(name: str) -> tuple[str, int]:
    """Digest and size of a stored object, read in pieces."""
    digest, size = hashlib.sha256(), 0
    with store().open(name) as reader:
        for chunk in chunks_of(reader):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size
