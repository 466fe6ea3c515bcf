"""Writing a package. The same files always give the same bytes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from strongroom import paths, shapes, strictjson
from strongroom.errors import FormatError, PackageError
from strongroom.package.zipform import BLOCK, MAX_MEMBERS, Member, end_record, place

INDEX = "package.json"
MAX_INDEX_BYTES = 4 << 20

Files = Mapping[str, bytes | Path]


def package_index(files: Files) -> bytes:
    """The bytes of package.json for `files`: {"v": 1, "files": [{"path", "sha256", "size"}]}, in path order.

    Raises PackageError for an unsafe name, FormatError or OSError for a file that cannot be listed or read.
    """
    return _index([(name, _measure(name, source)) for name, source in files.items()])


def parse_index(data: bytes) -> dict[str, tuple[str, int]]:
    """{path: (sha256, size)} from package.json. Raises FormatError."""
    shape = {"path": paths.safe_path, "sha256": shapes.sha256, "size": shapes.whole()}
    one: shapes.Checker = lambda item, at: shapes.fields(item, at, shape)  # noqa: E731  a table entry
    document = shapes.fields(
        strictjson.loads_canonical(data, max_bytes=MAX_INDEX_BYTES, what=INDEX),
        INDEX,
        {"v": shapes.exactly(1), "files": shapes.list_of(one, MAX_MEMBERS)},
    )
    names = paths.distinct_files((item["path"] for item in document["files"]), INDEX)
    if names != sorted(names):
        raise FormatError(f"{INDEX} must be sorted by path.")
    return {item["path"]: (item["sha256"], item["size"]) for item in document["files"]}


def build_package(files: Files, out: Path) -> str:
    """Write the package of `files` (path -> bytes, or a file to read) to `out`; returns the file's hex SHA-256.

    package.json is added and must not be among them. Constant memory; `out` appears only when it is complete.
    Raises PackageError for unsafe names, too much content, or a file that changed while it was packed.
    """
    if INDEX in files:
        raise PackageError(f"{INDEX} is written by build_package: leave it out.")
    measured = [(name, _measure(name, source)) for name, source in files.items()]
    index = _index(measured)
    sources: dict[str, bytes | Path] = {**files, INDEX: index}
    measured.append((INDEX, _measure(INDEX, index)))
    members = place([Member(name, size, crc) for name, (_, size, crc) in measured])
    digest = hashlib.sha256()
    handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    try:
        with os.fdopen(handle, "wb") as target:
            for block in _zip(members, sources):
                digest.update(block)
                target.write(block)
            target.flush()
            os.fsync(target.fileno())
        os.replace(temporary, out)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return digest.hexdigest()


def _index(measured: list[tuple[str, tuple[str, int, int]]]) -> bytes:
    entries: list[dict[str, Any]] = [
        {"path": name, "sha256": sha256, "size": size} for name, (sha256, size, _) in measured
    ]
    try:
        data = strictjson.canonical({"v": 1, "files": sorted(entries, key=lambda item: str(item["path"]))})
        parse_index(data)
    except FormatError as error:
        raise PackageError(f"These files cannot make a package: {error}") from None
    return data


def _zip(members: list[Member], sources: Files) -> Iterator[bytes]:
    at = 0
    for member in members:
        yield member.local_header()
        crc = size = 0
        for block in _blocks(sources[member.name]):
            crc, size = zlib.crc32(block, crc), size + len(block)
            yield block
        if (crc, size) != (member.crc, member.size):
            raise PackageError(f"{member.name!a} changed while the package was written. Try again.")
        at = member.data_at + member.size
    central = b"".join(member.central_header() for member in members)
    yield central + end_record(len(members), len(central), at)


def _measure(name: str, source: bytes | Path) -> tuple[str, int, int]:
    """(sha256, size, crc32)"""
    if isinstance(source, Path) and (source.is_symlink() or not source.is_file()):
        raise PackageError(f"{name!a} is not a regular file, so it cannot go into a package.")
    digest, size, crc = hashlib.sha256(), 0, 0
    for block in _blocks(source):
        digest.update(block)
        size, crc = size + len(block), zlib.crc32(block, crc)
    return digest.hexdigest(), size, crc


def _blocks(source: bytes | Path) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    reader: BinaryIO
    with source.open("rb") as reader:
        while block := reader.read(BLOCK):
            yield block
