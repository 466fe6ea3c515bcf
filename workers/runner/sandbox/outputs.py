"""What a program left in its outputs folder: named, measured, hashed, or refused.

Every name is opened relative to a handle of its folder and without following links, and what was opened is what is
looked at: nothing can be swapped in between.
"""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from dataclasses import dataclass
from pathlib import Path

MAX_NAME = 200  # characters of the whole relative path
_MAX_DEPTH = 16
_PIECE = 1 << 20
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One output: path relative to the folder with "/" between its parts, bytes, lower-case hex SHA-256."""

    path: str
    size: int
    sha256: str


class OutputRefused(Exception):
    """An output that may not leave. `sentence` names it (made printable) and says what to do."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


def collect_outputs(folder: Path, *, max_files: int = 200, max_bytes: int = 100 * 2**20) -> list[OutputFile]:
    """Every file in `folder`, sorted by path.

    `max_bytes` bounds all files together. Raises OutputRefused for anything that is not a plain file with one name,
    for unsafe names, and past the bounds; nothing is skipped in silence. Empty folders are left out.
    """
    found: list[OutputFile] = []
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise OutputRefused(
            "unreadable", "The outputs folder could not be opened. Run the program again."
        ) from error
    _Collector(found, max_files, max_bytes).folder(handle, "", 0)
    return sorted(found, key=lambda file: file.path.encode())


class _Collector:
    def __init__(self, found: list[OutputFile], max_files: int, max_bytes: int) -> None:
        self._found, self._max_files, self._max_bytes = found, max_files, max_bytes
        self._left = max_bytes
        self._folders = 0

    def folder(self, handle: int, prefix: str, depth: int) -> None:
        """Take in one folder; closes its handle."""
        try:
            self._folders += 1
            if depth > _MAX_DEPTH or self._folders > self._max_files:
                raise OutputRefused(
                    "too_many",
                    f"The outputs have too many folders. Write at most {_MAX_DEPTH} levels and fewer folders.",
                )
            with os.scandir(handle) as entries:
                for entry in entries:
                    self._entry(handle, entry.name, prefix, depth)
        finally:
            os.close(handle)

    def _entry(self, handle: int, name: str, prefix: str, depth: int) -> None:
        path = prefix + name
        shown = printable(path)
        _check_name(name, path, shown)
        status = os.stat(name, dir_fd=handle, follow_symlinks=False)
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind:
            raise OutputRefused("not_a_file", f"The output “{shown}” is {kind}. Write plain files only.")
        is_folder = stat.S_ISDIR(status.st_mode)
        flags = (
            os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_DIRECTORY if is_folder else 0)
        )
        try:
            inner = os.open(name, flags, dir_fd=handle)
        except OSError as error:
            raise OutputRefused(
                "unreadable",
                f"The output “{shown}” cannot be read. Do not change the permissions of outputs.",
            ) from error
        if is_folder:
            self.folder(inner, path + "/", depth + 1)
        else:
            self._file(inner, path, shown)

    def _file(self, handle: int, path: str, shown: str) -> None:
        with os.fdopen(handle, "rb", buffering=0) as file:
            status = os.fstat(handle)  # what is open now, not what had the name before
            if not stat.S_ISREG(status.st_mode):
                raise OutputRefused(
                    "not_a_file", f"The output “{shown}” is not a plain file. Write plain files only."
                )
            if status.st_nlink != 1:
                raise OutputRefused(
                    "hard_link", f"The output “{shown}” has a second name (a hard link). Copy it instead."
                )
            if len(self._found) >= self._max_files:
                raise OutputRefused(
                    "too_many", f"There are more than {self._max_files} outputs. Write fewer files."
                )
            digest, size = hashlib.sha256(), 0
            while piece := file.read(_PIECE):
                size += len(piece)
                if size > self._left:
                    raise OutputRefused(
                        "too_large",
                        f"The outputs are larger than {self._max_bytes} bytes together. Write less.",
                    )
                digest.update(piece)
        self._left -= size
        self._found.append(OutputFile(path, size, digest.hexdigest()))


def printable(name: str) -> str:
    """A name as it can be shown: what cannot be printed is written as an escape, and it is cut to a fair length."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return safe if len(safe) <= 80 else safe[:77] + "..."


def _check_name(name: str, path: str, shown: str) -> None:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise OutputRefused("unsafe_name", f"The output name “{shown}” is not UTF-8. Rename it.") from None
    if any(unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Co", "Cn") for c in name):
        raise OutputRefused(
            "unsafe_name", f"The output name “{shown}” has invisible or control characters. Rename it."
        )
    if unicodedata.normalize("NFC", name) != name:
        raise OutputRefused(
            "unsafe_name", f"The output name “{shown}” is not in Unicode form NFC. Rename it."
        )
    if "\\" in name or name != name.strip() or name in (".", ".."):
        raise OutputRefused(
            "unsafe_name", f"The output name “{shown}” is not safe on every system. Rename it."
        )
    if len(path) > MAX_NAME:
        raise OutputRefused(
            "unsafe_name", f"The output name “{shown}” is longer than {MAX_NAME} characters. Rename it."
        )


def wipe(folder: Path) -> None:
    """Remove a run's folder whatever the program made of it: closed folders, any depth, any number of files.

    Follows no link. A folder that is missing is fine. Raises OSError if something cannot be removed.
    """
    try:
        parent = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        while _wipe_once(parent, folder.name):
            pass
    finally:
        os.close(parent)


def _wipe_once(parent: int, name: str) -> bool:
    """Remove what lies flat in a folder, and the folder if that was all; True if there is more to do. However deep it
    is, we hold two handles: a grandchild that is a folder is moved up one step, so depth turns into a queue."""
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=parent)
        return False
    os.chmod(name, 0o700, dir_fd=parent)
    handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        names = os.listdir(handle)
        for inner in names:
            if stat.S_ISDIR(os.stat(inner, dir_fd=handle, follow_symlinks=False).st_mode):
                _flatten(handle, inner)
            else:
                os.unlink(inner, dir_fd=handle)
    finally:
        os.close(handle)
    if not names:
        os.rmdir(name, dir_fd=parent)
    return bool(names)


def _flatten(handle: int, name: str) -> None:
    """Empty the folder `name` of files, move its folders up beside it and remove it."""
    os.chmod(name, 0o700, dir_fd=handle)
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
    try:
        for child in os.listdir(inner):
            if stat.S_ISDIR(os.stat(child, dir_fd=inner, follow_symlinks=False).st_mode):
                os.chmod(child, 0o700, dir_fd=inner)  # a folder that moves has its ".." rewritten
                os.rename(child, f".wipe-{os.urandom(8).hex()}", src_dir_fd=inner, dst_dir_fd=handle)
            else:
                os.unlink(child, dir_fd=inner)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=handle)
