"""Names of files that travel: the one rule for outputs of a run and for members of a package."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from strongroom.errors import FormatError

MAX_PATH_BYTES = 1024
MAX_PART_BYTES = 255

_DRIVE = re.compile(r"[A-Za-z]:")


def safe_path(value: Any, where: str = "A file name") -> str:
    """Return `value` if it is a relative path with `/` that means the same on every machine.

    Refused with FormatError: empty, absolute, `.` or `..`, backslash, a drive letter, control and formatting
    characters (which can disguise a name), lone surrogates, text that is not Unicode NFC, parts over 255 bytes,
    paths over 1024 bytes.
    """
    if not isinstance(value, str) or not value:
        raise FormatError(f"{where} must be a non-empty text.")
    shown = ascii(value[:80])
    try:
        size = len(value.encode("utf-8"))
    except UnicodeError:
        raise FormatError(f"{where} {shown} is not valid Unicode.") from None
    if size > MAX_PATH_BYTES:
        raise FormatError(f"{where} {shown} is longer than {MAX_PATH_BYTES} bytes.")
    if any(unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") for char in value):
        raise FormatError(f"{where} {shown} holds control characters.")
    if unicodedata.normalize("NFC", value) != value:
        raise FormatError(f"{where} {shown} is not in the normal form NFC: two names could look alike.")
    if "\\" in value or _DRIVE.match(value):
        raise FormatError(f"{where} {shown} would mean something else on Windows: use / and no drive letter.")
    for part in value.split("/"):
        if part in ("", ".", ".."):
            raise FormatError(f"{where} {shown} must be relative and must not hold empty, . or .. parts.")
        if len(part.encode("utf-8")) > MAX_PART_BYTES:
            raise FormatError(f"{where} {shown} has a part longer than {MAX_PART_BYTES} bytes.")
    return value


def distinct_files(names: Iterable[str], where: str = "The list of files") -> list[str]:
    """The names as a list, if none is there twice and none is both a file and a folder. Raises FormatError."""
    listed = list(names)
    files = set(listed)
    if len(files) != len(listed):
        raise FormatError(f"{where} names a file twice.")
    for name in listed:
        parts = name.split("/")
        if any("/".join(parts[:count]) in files for count in range(1, len(parts))):
            raise FormatError(f"{where} uses one name both for a file and for a folder.")
    return listed
