"""Reading JSON from strangers, and writing it so that everybody hashes the same bytes.

Two parsers that disagree about one document are a way to be fooled (RFC 8259 section 4 leaves duplicate names
open; RFC 8785 section 3.1 demands I-JSON). So a document is refused when it has a duplicate name, a number that
is not exact in a double, a lone surrogate, a byte-order mark, too much depth or too many bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable
from typing import Any, NoReturn

import rfc8785

from strongroom.errors import FormatError

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
_PLAIN = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
_OTHER_FORMS = (b"\\", b" ", b"\t", b"\n", b"\r")  # an escape, or a blank that may stand outside of strings
MAX_INTEGER = 2**53 - 1  # RFC 8785 section 3.2.2.3: larger ones are not exact in an IEEE 754 double


def loads(data: bytes, *, max_bytes: int = MAX_BYTES, what: str = "The document") -> Any:
    """Parse UTF-8 JSON strictly. `what` names the document in error messages. Raises FormatError."""
    return _parse(data, max_bytes, what, _QUICK)[0]


def canonical(value: Any) -> bytes:
    """The bytes of `value` by RFC 8785 (JCS). Raises FormatError for what JSON cannot hold exactly."""
    try:
        return _encode(value, plain=_walk(value))
    except FormatError as error:
        raise FormatError(f"The value cannot be written as canonical JSON: {error}") from None
    except (rfc8785.CanonicalizationError, UnicodeError, RecursionError) as error:
        raise FormatError(f"The value cannot be written as canonical JSON: {error}") from None


def loads_canonical(data: bytes, *, max_bytes: int = MAX_BYTES, what: str = "The document") -> Any:
    """Like `loads`, and refuse any bytes but the canonical ones: then one document has one hash."""
    value, plain, quick = _parse(data, max_bytes, what, _QUICK_IN_ORDER)
    # With its names in order, and without escapes, blanks and fractions, a document can be written in one way only.
    only_form = quick and not any(mark in data for mark in _OTHER_FORMS)
    if not only_form and _encode(value, plain=plain) != data:
        raise FormatError(f"{what} is not in canonical form (RFC 8785), so its hash would not be unique.")
    return value


def digest(value: Any) -> str:
    """Hex SHA-256 of the canonical bytes of `value`."""
    return hashlib.sha256(canonical(value)).hexdigest()


def _parse(data: bytes, max_bytes: int, what: str, quick: json.JSONDecoder) -> tuple[Any, bool, bool]:
    """The value; whether it is plain as `_walk` means it; and whether `quick` read it, a decoder of plain values."""
    if len(data) > max_bytes:
        raise FormatError(f"{what} is {len(data)} bytes long; at most {max_bytes} are read.")
    try:
        text = data.decode("utf-8")
        # Looking at every value costs more than an RSA signature. Not needed where the text can have nothing to find.
        if text.isascii() and not _has_unicode_escape(text) and not _may_be_deep(text):
            with contextlib.suppress(_NotQuick):
                return quick.decode(text), True, True
        value = _FULL.decode(text)
        return value, _walk(value), False
    except FormatError as error:
        raise FormatError(f"{what} is not acceptable JSON: {error}") from None
    except UnicodeError:
        raise FormatError(f"{what} is not UTF-8 text.") from None
    except (ValueError, RecursionError):
        raise FormatError(f"{what} is not valid JSON.") from None


def _has_unicode_escape(text: str) -> bool:
    return "\\" in text and "\\u" in text  # one character is found ten times as fast as two


def _may_be_deep(text: str) -> bool:
    """Whether there are enough brackets to nest deeper than MAX_DEPTH. Few lie far apart, where to find beats to count."""
    found = 0
    for bracket in "[{":
        at = text.find(bracket)
        while at >= 0:
            found += 1
            if found > MAX_DEPTH:
                return True
            at = text.find(bracket, at + 1)
    return False


def _encode(value: Any, *, plain: bool) -> bytes:
    if plain:
        # Without floats and with plain names, the standard encoder, which is written in C, gives the same bytes.
        return _PLAIN.encode(value).encode("utf-8")
    return rfc8785.dumps(value)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise FormatError("a name appears twice in one object")
    return result


def _pairs_in_order(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = _pairs(pairs)
    if list(result) != sorted(result):
        raise _NotQuick
    return result


def _refuse_constant(text: str) -> NoReturn:
    raise FormatError(f"{text} is not a JSON number")


def _integer(text: str) -> int:
    if len(text) > 17 or not -MAX_INTEGER <= (value := int(text)) <= MAX_INTEGER:
        raise FormatError("a whole number is outside the range that every reader holds exactly")
    return value


def _integer_in_one_form(text: str) -> int:
    if text == "-0":
        raise _NotQuick
    return _integer(text)


def _float(text: str) -> float:
    value = float(text) if len(text) <= 64 else math.inf
    if not math.isfinite(value):
        raise FormatError("a number is too large or too long")
    return value


class _NotQuick(Exception):
    """The document has something that a quick decoder leaves to the full one."""


def _no_float(text: str) -> NoReturn:
    raise _NotQuick


def _walk(value: Any, depth: int = 0) -> bool:
    """Refuse deep nesting, lone surrogates (no UTF-8 form) and doubles that canonical JSON writes as wide integers.

    Returns whether the value is plain: made of exactly str, int, bool, None, list and dict, in the range of integers,
    with ASCII names (which sort alike by code point and, as RFC 8785 section 3.2.3 wants, by UTF-16 unit).
    """
    kind = type(value)
    if kind is str:
        value.encode("utf-8")
        return True
    if kind is int:
        return bool(-MAX_INTEGER <= value <= MAX_INTEGER)
    if kind is bool or value is None:
        return True
    if isinstance(value, str):
        value.encode("utf-8")
        return False
    plain = kind is list or kind is dict
    if isinstance(value, float):
        if MAX_INTEGER < abs(value) < 1e21:  # from 1e21 on RFC 8785 writes an exponent
            raise FormatError("a whole number is outside the range that every reader holds exactly")
    elif isinstance(value, list | tuple | dict):
        if depth == MAX_DEPTH:
            raise FormatError(f"it nests deeper than {MAX_DEPTH} levels")
        if isinstance(value, dict):
            for name in value:
                plain &= _walk(name, depth + 1) and type(name) is str and name.isascii()
            value = value.values()
        for item in value:
            plain &= _walk(item, depth + 1)
    return plain


def _decoder(
    pairs: Callable[[list[tuple[str, Any]]], Any],
    parse_int: Callable[[str], int],
    parse_float: Callable[[str], float],
) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=pairs,
        parse_constant=_refuse_constant,
        parse_int=parse_int,
        parse_float=parse_float,
    )


_FULL = _decoder(_pairs, _integer, _float)
_QUICK = _decoder(_pairs, _integer, _no_float)
_QUICK_IN_ORDER = _decoder(_pairs_in_order, _integer_in_one_form, _no_float)
