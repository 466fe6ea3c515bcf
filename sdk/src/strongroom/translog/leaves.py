"""What a leaf of this log is: a salted commitment to an entry, so that the log tells nothing by itself.

    leaf data  = JCS({"v": 1, "commitment": hex HMAC-SHA256(key = salt, JCS(entry))})
    entry file = JCS({"entry": entry, "salt": 64 hex digits})      for those who may see the entry

A log cannot forget; a commitment whose salt is destroyed says nothing about its entry. The salt is 32 random bytes,
of exactly that length, as HMAC treats keys of other lengths that pad or hash to the same block alike.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from typing import Any

from strongroom import shapes, strictjson
from strongroom.errors import FormatError, LogError

SALT_SIZE = 32
MAX_ENTRY_FILE_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An opened entry: what happened, and the salt that ties it to its leaf."""

    entry: dict[str, Any]
    salt: bytes

    @property
    def leaf_data(self) -> bytes:
        return leaf_data(self.entry, self.salt)


def generate_salt() -> bytes:
    return os.urandom(SALT_SIZE)


def commitment(entry: dict[str, Any], salt: bytes) -> str:
    """Hex HMAC-SHA256 of the canonical entry under the 32-byte salt. Raises LogError."""
    if len(salt) != SALT_SIZE:
        raise LogError(f"The salt of a log entry has {SALT_SIZE} bytes; this one has {len(salt)}.")
    try:
        message = strictjson.canonical(shapes.mapping(entry, "The log entry"))
    except FormatError as error:
        raise LogError(str(error)) from None
    return hmac.new(salt, message, hashlib.sha256).hexdigest()


def leaf_data(entry: dict[str, Any], salt: bytes) -> bytes:
    """The bytes that the log stores and hashes for this entry."""
    return strictjson.canonical({"v": 1, "commitment": commitment(entry, salt)})


def entry_file(entry: dict[str, Any], salt: bytes) -> bytes:
    """The bytes of log/entry.json in a package. Raises LogError."""
    commitment(entry, salt)
    data = strictjson.canonical({"entry": entry, "salt": salt.hex()})
    parse_entry_file(data)
    return data


def parse_entry_file(data: bytes) -> LogEntry:
    """Read log/entry.json strictly. Raises LogError."""
    try:
        document = shapes.fields(
            strictjson.loads_canonical(data, max_bytes=MAX_ENTRY_FILE_BYTES, what="The log entry"),
            "The log entry",
            {"entry": shapes.mapping, "salt": shapes.hex32},
        )
    except FormatError as error:
        raise LogError(str(error)) from None
    return LogEntry(document["entry"], bytes.fromhex(document["salt"]))
