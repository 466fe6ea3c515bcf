"""The one form of zip file that a package may have, so that every byte of it is determined by its content.

Stored members only, in the order of their names, no gaps, no comments, no extra fields, one fixed date, mode 0600.
The reader does not interpret what it finds: it rebuilds each header from name, size and CRC-32 and compares the
bytes. So a changed byte anywhere is an error, and a zip bomb, a link, a duplicate or a hidden member cannot exist.
Source: PKWARE APPNOTE 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16; UTF-8 names by flag bit 11 (appendix D).
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from strongroom.errors import FormatError, PackageError
from strongroom.paths import distinct_files, safe_path

MAX_MEMBERS = 2000
MAX_FILE_SIZE = 0xFFFFFFFF - 1  # no zip64: a package is at most 4 GiB
BLOCK = 1 << 20

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_UTF8 = 0x0800
_DATE = 0x0021  # 1 January 1980, the earliest that the format has
_MODE = 0o100600 << 16
_MAX_CENTRAL = 4 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """One file in the zip. `data_at` is where its bytes begin."""

    name: str
    size: int
    crc: int
    offset: int = 0

    @property
    def data_at(self) -> int:
        return self.offset + _LOCAL.size + len(self.name.encode())

    def local_header(self) -> bytes:
        name = self.name.encode()
        fixed = (b"PK\x03\x04", 10, _UTF8, 0, 0, _DATE, self.crc, self.size, self.size, len(name), 0)
        return _LOCAL.pack(*fixed) + name

    def central_header(self) -> bytes:
        name = self.name.encode()
        made_by = 3 << 8 | 20  # Unix, so that the mode is read
        head = (b"PK\x01\x02", made_by, 10, _UTF8, 0, 0, _DATE, self.crc, self.size, self.size, len(name))
        return _CENTRAL.pack(*head, 0, 0, 0, 0, _MODE, self.offset) + name


def end_record(count: int, central_size: int, central_at: int) -> bytes:
    return _END.pack(b"PK\x05\x06", 0, 0, count, count, central_size, central_at, 0)


def place(members: list[Member]) -> list[Member]:
    """The members in their order with their offsets. Raises PackageError for what the form cannot hold."""
    try:
        distinct_files((safe_path(member.name) for member in members), "The package")
    except FormatError as error:
        raise PackageError(str(error)) from None
    placed, at = [], 0
    for member in sorted(members, key=lambda item: item.name):
        placed.append(Member(member.name, member.size, member.crc, at))
        at = placed[-1].data_at + member.size
    # First without the list of files: a header cannot even be written for an offset beyond 4 GiB.
    fits = len(placed) <= MAX_MEMBERS and at <= MAX_FILE_SIZE
    if fits:
        fits = at + sum(len(member.central_header()) for member in placed) + _END.size <= MAX_FILE_SIZE
    if not fits:
        raise PackageError(f"A package holds at most {MAX_MEMBERS} files and 4 GiB.")
    return placed


class Reader:
    """Reads a package file in exactly this form. Opening checks all headers; reading checks each CRC-32.

    Raises PackageError for any deviation, and OSError if the file cannot be read. Use as a context manager.
    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb")
        try:
            self.members = self._open()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of a member in blocks of up to 1 MiB."""
        member = self.members[name]
        left, crc = member.size, 0
        self._file.seek(member.data_at)
        while left:
            block = self._file.read(min(left, BLOCK))
            if not block:
                raise PackageError("The package file became shorter while it was read.")
            left -= len(block)
            crc = zlib.crc32(block, crc)
            yield block
        if crc != member.crc:
            raise PackageError(f"The check sum of {name!a} does not match: the file was changed.")

    def read(self, name: str, max_bytes: int) -> bytes:
        """The whole of a small member. Raises PackageError if it is larger than `max_bytes`."""
        if self.members[name].size > max_bytes:
            raise PackageError(
                f"{name} is {self.members[name].size} bytes long; at most {max_bytes} are read."
            )
        return b"".join(self.chunks(name))

    def _open(self) -> dict[str, Member]:
        total = self._file.seek(0, os.SEEK_END)
        if not _END.size <= total <= MAX_FILE_SIZE:
            raise PackageError("The file is not a package: it is too short or larger than 4 GiB.")
        end = self._at(total - _END.size, _END.size)
        _, _, _, count, _, central_size, central_at, _ = _END.unpack(end)
        if (
            end != end_record(count, central_size, central_at)
            or central_at + central_size + _END.size != total
        ):
            raise PackageError(
                "The file does not end as a package must: it was cut, extended or packed again."
            )
        if count > MAX_MEMBERS or central_size > _MAX_CENTRAL:
            raise PackageError(f"The package lists more than {MAX_MEMBERS} files.")
        members = self._central(self._at(central_at, central_size), count)
        at = 0
        for member in members:
            header = member.local_header()
            if member.offset != at or self._at(at, len(header)) != header:
                raise PackageError(f"The header of {member.name!a} in the package file was changed.")
            at = member.data_at + member.size
        if at != central_at:
            raise PackageError("The package file holds bytes that belong to no file in it.")
        return {member.name: member for member in members}

    def _central(self, data: bytes, count: int) -> list[Member]:
        members, at = [], 0
        for _ in range(count):
            if len(data) - at < _CENTRAL.size:
                raise PackageError("The list of files in the package file is cut short.")
            fields = _CENTRAL.unpack_from(data, at)
            crc, size, name_size, offset = fields[7], fields[8], fields[10], fields[16]
            raw = data[at + _CENTRAL.size : at + _CENTRAL.size + name_size]
            try:
                member = Member(safe_path(raw.decode("utf-8")), size, crc, offset)
            except (FormatError, UnicodeError):
                raise PackageError("The package holds a file whose name is not safe.") from None
            header = member.central_header()
            if data[at : at + len(header)] != header:
                raise PackageError(
                    f"The entry of {member.name!a} in the package's list of files was changed, "
                    "or the package was packed again by another program."
                )
            members.append(member)
            at += len(header)
        if at != len(data):
            raise PackageError("The list of files in the package file holds more than its files.")
        names = [member.name for member in members]
        if names != sorted(set(names)):
            raise PackageError("The files in the package are not in order, or one is there twice.")
        return members

    def _at(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size)
