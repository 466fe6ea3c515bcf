"""The initrd's archive (cpio, "newc"), the same for the same files. Source: Linux, Documentation/driver-api/early-userspace."""

from __future__ import annotations

import gzip
import stat
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """mode: with the kind of file. content: a file's bytes, a link's target."""

    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def file(content: bytes, *, executable: bool = False) -> Entry:
    return Entry(stat.S_IFREG | (0o755 if executable else 0o644), content)


def link(target: str) -> Entry:
    return Entry(stat.S_IFLNK | 0o777, target.encode())


def archive(entries: Mapping[str, Entry], *, time: int) -> bytes:
    """A gzipped archive with the folders that the names need. All belong to root; `time` is every file's, in seconds."""
    whole = dict(entries)
    for name in entries:
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            whole.setdefault("/".join(parts[:depth]), Entry(stat.S_IFDIR | 0o755))
    body = b"".join(_record(n, name, whole[name], time) for n, name in enumerate(sorted(whole), 1))
    body += _record(0, "TRAILER!!!", Entry(0), 0)
    return gzip.compress(body + bytes(-len(body) % 512), compresslevel=9, mtime=0)


def _record(number: int, name: str, entry: Entry, time: int) -> bytes:
    raw = name.encode() + b"\0"
    fields = (
        number,
        entry.mode,
        0,
        0,
        2 if stat.S_ISDIR(entry.mode) else 1,
        time,
        len(entry.content),
        0,
        0,
        *entry.device,
    )
    head = b"070701" + b"".join(b"%08X" % field for field in (*fields, len(raw), 0)) + raw
    return head + bytes(-len(head) % 4) + entry.content + bytes(-len(entry.content) % 4)
