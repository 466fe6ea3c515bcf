"""Zip files from people we do not know: looked at before anything is written, and unpacked only into a new folder.

Format: PKWARE APPNOTE 6.3. Only what a program or its data needs is taken: stored or deflated plain files and folders
with names that mean the same on every system.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO

from strongroom.errors import StrongroomError

MIB = 2**20
MAX_NAME = 200  # characters of a whole member name
MAX_DEPTH = 12
_PIECE = 1 << 16
_RATIO_FROM = MIB  # a small member may shrink as much as it likes
_END = b"PK\x05\x06"  # end of central directory record, APPNOTE 4.3.16
_END_SIZE = 22
_MAX_COMMENT = 0xFFFF
_ENTRY_BYTES = 46 + 2 * 1024  # a fair size of one directory entry, its name and extra fields included
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # APPNOTE 4.4.4: bits 0, 6, 13
_UTF8 = 0x800  # bit 11


@dataclass(frozen=True, slots=True)
class ZipMember:
    """One member: its name with "/" between the parts (no "/" at the end), bytes unpacked and packed."""

    name: str
    size: int
    packed: int
    is_folder: bool


class ArchiveRefused(StrongroomError):
    """A zip file that is not taken. `sentence` names the member (made printable), says why and what to do."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


def inspect_zip(
    source: Path | str | IO[bytes], *, max_files: int = 200, max_bytes: int = 50 * MIB, max_ratio: int = 100
) -> list[ZipMember]:
    """Every member of a zip file, in its order, after reading all of them to the end.

    `max_files` bounds members, folders included; `max_bytes` all of them unpacked; `max_ratio` how many times larger
    than packed a member of more than 1 MiB may be. Raises ArchiveRefused; nothing is skipped in silence.
    """
    with _opened(source, max_files) as archive:
        members = _check(archive, max_files, max_bytes, max_ratio)
        for info, member in members:
            for _ in _content(archive, info, member):
                pass
        return [member for _, member in members]


def extract_zip(
    source: Path | str | IO[bytes],
    destination: Path,
    *,
    max_files: int = 200,
    max_bytes: int = 50 * MIB,
    max_ratio: int = 100,
) -> list[ZipMember]:
    """Unpack a zip file into `destination`, which must not exist yet; afterwards it is there whole or not at all.

    Files get mode 0600 and folders 0700, whatever the archive says. Bounds and ArchiveRefused as for `inspect_zip`;
    FileExistsError if the folder is there.
    """
    with _opened(source, max_files) as archive:
        members = _check(archive, max_files, max_bytes, max_ratio)
        destination.mkdir(mode=0o700)
        try:
            for info, member in members:
                path = destination / member.name
                (path if member.is_folder else path.parent).mkdir(mode=0o700, parents=True, exist_ok=True)
                if member.is_folder:
                    continue
                handle = os.open(
                    path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
                )
                with os.fdopen(handle, "wb") as file:
                    for piece in _content(archive, info, member):
                        file.write(piece)
        except BaseException:
            shutil.rmtree(destination, ignore_errors=True)
            raise
        return [member for _, member in members]


@contextmanager
def _opened(source: Path | str | IO[bytes], max_files: int) -> Iterator[zipfile.ZipFile]:
    if isinstance(source, Path | str):
        with open(source, "rb") as file, _opened(file, max_files) as archive:
            yield archive
        return
    _check_directory_size(source, max_files)
    try:
        archive = zipfile.ZipFile(source)
    except UnicodeDecodeError:
        raise ArchiveRefused(
            "name_encoding", "A name in the zip file is not UTF-8. Rename it and zip again."
        ) from None
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        ValueError,
        EOFError,
        struct.error,
        OverflowError,
    ) as error:
        raise _damaged() from error
    with archive:
        yield archive


def _check_directory_size(file: IO[bytes], max_files: int) -> None:
    """Refuse a directory of a million entries before anything reads it into memory."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END_SIZE - _MAX_COMMENT))
    tail = file.read(_END_SIZE + _MAX_COMMENT)
    file.seek(0)
    place = len(tail) - _END_SIZE
    if place < 0 or not tail[place:].startswith(_END) or tail[-2:] != b"\0\0":
        place = tail.rfind(_END)
    if place < 0 or len(tail) - place < _END_SIZE:
        raise ArchiveRefused(
            "not_a_zip", "The file is not a zip file, or its end is missing. Zip it again and send it whole."
        )
    _, _, _, count, length = struct.unpack_from("<HHHHI", tail, place + 4)
    # 0xFFFF and 0xFFFFFFFF point to a zip64 directory, which only larger archives need.
    if count > max_files or length > max_files * _ENTRY_BYTES:
        raise ArchiveRefused(
            "too_many", f"The zip file has more than {max_files} members. Leave out what is not needed."
        )


def _check(
    archive: zipfile.ZipFile, max_files: int, max_bytes: int, max_ratio: int
) -> list[tuple[zipfile.ZipInfo, ZipMember]]:
    infos = archive.infolist()
    if len(infos) > max_files:
        raise ArchiveRefused(
            "too_many", f"The zip file has more than {max_files} members. Leave out what is not needed."
        )
    members: list[tuple[zipfile.ZipInfo, ZipMember]] = []
    seen: dict[str, bool] = {}  # folded name -> is it a folder
    total = 0
    for info in infos:
        name = _checked_name(info)
        shown = printable(name)
        _check_kind(info, shown)
        total += info.file_size
        if total > max_bytes:
            raise _too_large(shown, max_bytes)
        if info.file_size > _RATIO_FROM and info.file_size > max_ratio * max(1, info.compress_size):
            raise ArchiveRefused(
                "bomb",
                f"The member “{shown}” would grow more than {max_ratio} times. Zip it without tricks, or leave it out.",
            )
        is_folder = info.is_dir()
        _check_unique(name, is_folder, seen, shown)
        members.append((info, ZipMember(name, info.file_size, info.compress_size, is_folder)))
    _check_overlap(infos)
    return members


def _checked_name(info: zipfile.ZipInfo) -> str:
    raw = info.orig_filename  # what zipfile makes of it may differ: it cuts at NUL and translates separators
    shown = printable(raw)

    def refuse(code: str, why: str) -> ArchiveRefused:
        return ArchiveRefused(code, f"The member “{shown}” {why}. Rename it and zip again.")

    if not info.flag_bits & _UTF8 and not raw.isascii():
        raise refuse("name_encoding", "has a name that is not marked as UTF-8")
    if any(unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn") for c in raw):
        raise refuse("unsafe_name", "has invisible or control characters in its name")
    if "\\" in raw:
        raise refuse("unsafe_name", "has a backslash in its name")
    if raw.startswith("/") or re.match(r"[A-Za-z]:", raw):
        raise refuse("absolute_name", "has an absolute name")
    name = raw.removesuffix("/")
    parts = name.split("/")
    if ".." in parts:
        raise refuse("parent_name", "leads out of its folder (../)")
    if any(part in ("", ".") or part != part.strip() or part.endswith(".") or ":" in part for part in parts):
        raise refuse("unsafe_name", "has a name that is not the same on every system")
    if unicodedata.normalize("NFC", name) != name:
        raise refuse("unsafe_name", "has a name that is not in Unicode form NFC")
    if len(name) > MAX_NAME:
        raise refuse("unsafe_name", f"has a name of more than {MAX_NAME} characters")
    if len(parts) > MAX_DEPTH:
        raise refuse("too_deep", f"lies more than {MAX_DEPTH} folders deep")
    return name


def _check_kind(info: zipfile.ZipInfo, shown: str) -> None:
    if info.flag_bits & _ENCRYPTED:
        raise ArchiveRefused("encrypted", f"The member “{shown}” is encrypted. Zip it without a password.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveRefused(
            "method", f"The member “{shown}” is packed in an unusual way. Zip it again with deflate."
        )
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "a link" if kind == stat.S_IFLNK else "a device or a pipe"
        raise ArchiveRefused(
            "not_a_file", f"The member “{shown}” is {what}. Put in the file itself, or leave it out."
        )
    if (
        (kind == stat.S_IFDIR) > info.is_dir()
        or (kind == stat.S_IFREG and info.is_dir())
        or (info.is_dir() and info.file_size)
    ):
        raise ArchiveRefused("not_a_file", f"The member “{shown}” is both a file and a folder. Zip it again.")


def _check_unique(name: str, is_folder: bool, seen: dict[str, bool], shown: str) -> None:
    parts = unicodedata.normalize("NFC", name.casefold()).split("/")
    for length in range(1, len(parts)):
        above = "/".join(parts[:length])
        if seen.setdefault(above, True) is False:
            raise ArchiveRefused(
                "duplicate", f"The member “{shown}” lies in something that is a file. Zip it again."
            )
    folded = "/".join(parts)
    # A folder may be named after its contents, since some tools write it last; nothing else may come twice.
    if folded in seen and not (is_folder and seen[folded]):
        raise ArchiveRefused(
            "duplicate",
            f"The name “{shown}” is there twice (capital letters do not count). Rename one of the two.",
        )
    seen[folded] = is_folder


def _check_overlap(infos: list[zipfile.ZipInfo]) -> None:
    """Members that share their packed bytes make small archives that unpack to enormous ones."""
    spans = sorted((info.header_offset, info.header_offset + 30 + info.compress_size) for info in infos)
    for (_, end), (start, _) in pairwise(spans):
        if start < end:
            raise ArchiveRefused("bomb", "Members of the zip file lie on top of each other. Zip it again.")


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo, member: ZipMember) -> Iterator[bytes]:
    """A member's bytes, counted as they come: more than it declares, which was held to the bounds, is a bomb."""
    shown, size = printable(member.name), 0
    try:
        with archive.open(info) as file:
            while piece := file.read(_PIECE):
                size += len(piece)
                if size > member.size:
                    break
                yield piece
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        RuntimeError,
        OSError,
        struct.error,
        ValueError,
    ) as error:
        raise ArchiveRefused(
            "damaged", f"The member “{shown}” is damaged. Zip it again and send it whole."
        ) from error
    if size != member.size:
        raise ArchiveRefused(
            "bomb", f"The member “{shown}” has another size than the zip file says. Zip it again."
        )


def _too_large(shown: str, bound: int) -> ArchiveRefused:
    return ArchiveRefused(
        "too_large", f"With “{shown}” the zip file would unpack to more than {bound} bytes. Send less."
    )


def _damaged() -> ArchiveRefused:
    return ArchiveRefused(
        "not_a_zip", "The file is not a zip file, or it is damaged. Zip it again and send it whole."
    )


def printable(name: str) -> str:
    """A member name as it can be shown: what cannot be printed as an escape, cut to a fair length."""
    safe = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in name
    )
    return safe if len(safe) <= 80 else safe[:77] + "..."
