"""What a stranger's bytes look like to a person: certificates, tokens, JSON, text, or the first bytes. Nothing is verified.

Control characters never reach the terminal: evidence comes from others, and a terminal obeys what it is sent.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from strongroom import shapes, strictjson
from strongroom.errors import FormatError
from strongroom.evidence import der

MAX_TEXT = 2000
MAX_LINES = 400


def describe(data: bytes) -> dict[str, Any]:
    """Size, SHA-256, and the content as far as its form is known."""
    said: dict[str, Any] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    for name, read in _READERS.items():
        try:
            return {**said, name: read(data)}
        except (FormatError, UnicodeError, ValueError):
            continue
    return {**said, "begins": data[:32].hex()}


def _certificates(data: bytes) -> list[dict[str, str]]:
    return [
        {
            "subject": found.subject_cn,
            "issuer": found.issuer_cn,
            "valid": f"{shapes.format_time(found.not_before)} to {shapes.format_time(found.not_after)}",
            "sha256": found.sha256,
        }
        for found in map(der.certificate, der.unwrap(data, "CERTIFICATE"))
    ]


def _token(data: bytes) -> dict[str, Any]:
    header, payload, _ = data.decode("ascii").strip().split(".")
    return {"header": _segment(header), "payload": _segment(payload)}


def _segment(text: str) -> Any:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise FormatError("not base64url") from None
    return strictjson.loads(raw)


def _json(data: bytes) -> Any:
    found = strictjson.loads(data)
    if not isinstance(found, dict | list):
        raise FormatError("not a document")
    return found


def _text(data: bytes) -> str:
    text = data.decode("utf-8")
    if not text or any(char < " " and char not in "\n\r\t" for char in text):
        raise FormatError("not text")
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} ..."


_READERS = {"certificates": _certificates, "token": _token, "json": _json, "text": _text}


def plain(text: str) -> str:
    """The text with control characters, and those that turn the direction of writing, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def lines(value: Any) -> Iterator[str]:
    """A nested value as `name.name: value` lines, cut after a few hundred."""
    for number, line in enumerate(_flat(value, "")):
        if number == MAX_LINES:
            yield "..."
            return
        yield plain(line)


def _flat(value: Any, name: str) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping | list | tuple) for item in value):
        for index, item in enumerate(value):
            yield from _flat(item, f"{name}[{index}]")
    elif isinstance(value, str) and "\n" in value:
        yield f"{name}:"
        yield from (f"    {part}" for part in value.splitlines())
    elif isinstance(value, list | tuple):
        yield f"{name}: {', '.join(map(str, value)) or 'none'}"
    else:
        yield f"{name}: {value if not isinstance(value, bool) else str(value).lower()}"
