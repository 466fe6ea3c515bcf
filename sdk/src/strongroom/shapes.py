"""Small checks for the values that every format here is made of. Each raises FormatError with the place.

A checker is a function of (value, where) that returns the value, so that shapes read as tables:

    fields(document, "seal header", {"v": exactly(1), "dataset": uuid_text, "version": whole(1)})
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pybase64

from strongroom.errors import FormatError

Checker = Callable[[Any, str], Any]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_IMAGE = re.compile(r"sha256:[0-9a-f]{64}")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43,128}")  # 32 random bytes at least, in base64url or hex
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def fields(
    value: Any,
    where: str,
    required: Mapping[str, Checker],
    optional: Mapping[str, Checker] | None = None,
) -> dict[str, Any]:
    """An object with exactly the `required` members, and of the `optional` ones any; nothing else."""
    if not isinstance(value, dict):
        raise FormatError(f"{where} must be an object.")
    optional = optional or {}
    missing = [name for name in required if name not in value]
    unknown = [name for name in value if name not in required and name not in optional]
    if missing:
        raise FormatError(f"{where} lacks {', '.join(sorted(missing))}.")
    if unknown:
        raise FormatError(f"{where} has members that this version does not know: {sorted(unknown)!r}.")
    checkers = {**required, **optional}
    return {name: checkers[name](item, f"{where}.{name}") for name, item in value.items()}


def pick(value: Any, where: str, required: Mapping[str, Checker]) -> dict[str, Any]:
    """The `required` members of an object that may have others: for a document whose owner checks the rest."""
    document = mapping(value, where)
    if missing := [name for name in required if name not in document]:
        raise FormatError(f"{where} lacks {', '.join(sorted(missing))}.")
    return {
        name: required[name](item, f"{where}.{name}") for name, item in document.items() if name in required
    }


def exactly(wanted: object) -> Checker:
    """The value itself; `True` does not pass for 1."""

    def check(value: Any, where: str) -> Any:
        if type(value) is not type(wanted) or value != wanted:
            raise FormatError(f"{where} must be {wanted!r}.")
        return value

    return check


def one_of(*choices: str) -> Checker:
    def check(value: Any, where: str) -> str:
        if not isinstance(value, str) or value not in choices:
            raise FormatError(f"{where} must be one of {', '.join(choices)}.")
        return value

    return check


def text(maximum: int = 256, minimum: int = 1) -> Checker:
    """A string of `minimum` to `maximum` characters without control characters."""

    def check(value: Any, where: str) -> str:
        if not isinstance(value, str) or not minimum <= len(value) <= maximum:
            raise FormatError(f"{where} must be text of {minimum} to {maximum} characters.")
        if _CONTROL.search(value):
            raise FormatError(f"{where} must not hold control characters.")
        return value

    return check


def whole(minimum: int = 0, maximum: int = 2**53 - 1) -> Checker:
    def check(value: Any, where: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise FormatError(f"{where} must be a whole number from {minimum} to {maximum}.")
        return value

    return check


def boolean(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise FormatError(f"{where} must be true or false.")
    return value


def nullable(checker: Checker) -> Checker:
    return lambda value, where: None if value is None else checker(value, where)


def list_of(checker: Checker, maximum: int = 1000) -> Checker:
    def check(value: Any, where: str) -> list[Any]:
        if not isinstance(value, list) or len(value) > maximum:
            raise FormatError(f"{where} must be a list of at most {maximum} entries.")
        return [checker(item, f"{where}[{number}]") for number, item in enumerate(value)]

    return check


def anything(value: Any, where: str) -> Any:
    """No check: for members that another layer reads."""
    return value


def mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FormatError(f"{where} must be an object.")
    return value


def _pattern(pattern: re.Pattern[str], what: str) -> Checker:
    def check(value: Any, where: str) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise FormatError(f"{where} must be {what}.")
        return value

    return check


token = _pattern(_TOKEN, "43 to 128 letters, digits, hyphens or underscores")
sha256 = _pattern(_SHA256, "a SHA-256 digest in lower-case hex")
hex32 = _pattern(_SHA256, "32 bytes in lower-case hex")
image_digest = _pattern(_IMAGE, "an image digest, sha256: and 64 lower-case hex digits")
uuid_text = _pattern(_UUID, "a UUID in lower-case hex")


def b64_decode(value: Any, where: str, *, size: int | None = None) -> bytes:
    """Bytes of standard base64 with padding, in its one canonical form (RFC 4648 section 3.5)."""
    if not isinstance(value, str):
        raise FormatError(f"{where} must be base64 text.")
    try:
        text = value.encode("ascii")
        raw = pybase64.b64decode(text, validate=True)
    except ValueError:
        raise FormatError(f"{where} must be base64 with padding.") from None
    if not _is_only_form(text, raw):
        raise FormatError(f"{where} must be base64 in canonical form.")
    if size is not None and len(raw) != size:
        raise FormatError(f"{where} must hold {size} bytes, not {len(raw)}.")
    return raw


def _is_only_form(text: bytes, raw: bytes) -> bool:
    """Whether `text`, padded base64 that was decoded to `raw`, is what encoding `raw` gives.

    Three bytes have one form, in four characters. One or two have bits to spare, which must be zero, and padding.
    """
    tail = len(raw) % 3
    return len(text) == (len(raw) + 2) // 3 * 4 and (
        not tail or b64_encode(raw[-tail:]).encode() == text[-4:]
    )


def b64(size: int | None = None) -> Checker:
    """Base64 text of `size` bytes; returns the text, as documents keep it."""

    def check(value: Any, where: str) -> str:
        b64_decode(value, where, size=size)
        return str(value)

    return check


def b64_encode(raw: bytes) -> str:
    return pybase64.b64encode_as_string(raw)


def b64url_encode(raw: bytes) -> str:
    """Base64url without padding (RFC 7515 appendix C)."""
    return pybase64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def b64url_decode(text: bytes) -> bytes:
    """Bytes of base64url without padding, in its one canonical form (RFC 7515 section 2). Raises ValueError."""
    if any(foreign in text for foreign in (b"+", b"/", b"=")):
        raise ValueError("This is not base64url without padding.")
    padded = text.replace(b"-", b"+").replace(b"_", b"/") + b"=" * (-len(text) % 4)
    raw = pybase64.b64decode(padded, validate=True)
    if not _is_only_form(padded, raw):
        raise ValueError("This is not base64url in canonical form.")
    return raw


def b64url(size: int) -> Checker:
    """Unpadded base64url text of exactly `size` bytes; returns the text."""

    def check(value: Any, where: str) -> str:
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                if len(b64url_decode(value.encode("ascii"))) == size:
                    return value
        raise FormatError(f"{where} must be unpadded base64url of {size} bytes.")

    return check


def parse_time(value: Any, where: str) -> datetime:
    """A UTC time of RFC 3339 with a capital T and Z, to the microsecond at most."""
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise FormatError(f"{where} must be a UTC time such as 2026-01-31T09:30:00Z.")
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        raise FormatError(f"{where} is not a time that exists.") from None


def time_text(value: Any, where: str) -> str:
    parse_time(value, where)
    return str(value)


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with Z. Raises FormatError for a time without a zone."""
    if moment.tzinfo is None:
        raise FormatError("A time without a zone cannot be written: pass an aware datetime.")
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
