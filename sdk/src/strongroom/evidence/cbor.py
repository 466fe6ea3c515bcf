"""A small strict CBOR reader (RFC 8949) for signed messages from strangers.

Read are whole numbers, byte and text strings, arrays, maps with names that are numbers or text, tags, true, false and
null. Refused are what leaves two readers room to disagree: names that appear twice, lengths that are not in their
shortest form or not given beforehand, bytes left over; and floating point, which nothing here needs.
Everything raises FormatError, and nothing else, for any input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from strongroom.errors import FormatError

MAX_DEPTH = 12
_SIMPLE = {20: False, 21: True, 22: None}


@dataclass(frozen=True, slots=True)
class Tag:
    """A value with a tag number before it."""

    number: int
    value: Any


def loads(data: bytes) -> Any:
    """The one value that `data` is."""
    reader = _Reader(data)
    value = reader.value(0)
    if reader.offset != len(data):
        raise FormatError("Bytes are left over after a CBOR value.")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.offset = data, 0

    def take(self, size: int) -> bytes:
        part = self.data[self.offset : self.offset + size]
        if len(part) != size:
            raise FormatError("A CBOR value is longer than the data that hold it.")
        self.offset += size
        return part

    def head(self) -> tuple[int, int]:
        """Major type and argument (RFC 8949 section 3), in shortest form."""
        first = self.take(1)[0]
        major, low = first >> 5, first & 0x1F
        if low < 24:
            return major, low
        if low > 27:
            raise FormatError("A CBOR value has an indefinite or reserved length.")
        size = 1 << (low - 24)
        argument = int.from_bytes(self.take(size))
        if argument < 24 or (size > 1 and argument < 1 << 4 * size):
            raise FormatError("A CBOR number or length is not in its shortest form.")
        return major, argument

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise FormatError(f"CBOR nests deeper than {MAX_DEPTH} levels.")
        major, argument = self.head()
        match major:
            case 0:
                return argument
            case 1:
                return -1 - argument
            case 2:
                return self.take(argument)
            case 3:
                return self.text(argument)
            case 4:
                self.bound(argument)
                return [self.value(depth + 1) for _ in range(argument)]
            case 5:
                self.bound(2 * argument)
                return self.map(argument, depth + 1)
            case 6:
                return Tag(argument, self.value(depth + 1))
            case _ if argument in _SIMPLE:
                return _SIMPLE[argument]
        raise FormatError("A CBOR value is of a kind that is not read.")

    def bound(self, count: int) -> None:
        """Every value takes a byte at least: a larger count is a lie, and must not cost memory."""
        if count > len(self.data) - self.offset:
            raise FormatError("A CBOR array or map is longer than the data that hold it.")

    def text(self, size: int) -> str:
        try:
            return self.take(size).decode("utf-8")
        except UnicodeError:
            raise FormatError("A CBOR text is not UTF-8.") from None

    def map(self, count: int, depth: int) -> dict[int | str, Any]:
        found: dict[int | str, Any] = {}
        for _ in range(count):
            name = self.value(depth)
            if not isinstance(name, int | str) or isinstance(name, bool):
                raise FormatError("A CBOR map has a name that is neither a number nor text.")
            if name in found:
                raise FormatError("A CBOR map has the same name twice.")
            found[name] = self.value(depth)
        return found


def header(major: int, argument: int) -> bytes:
    """The shortest head of a value: what a signature's own structure is written with."""
    if argument < 24:
        return bytes((major << 5 | argument,))
    size = next(size for size in (1, 2, 4, 8) if argument < 1 << 8 * size)
    return bytes((major << 5 | 24 + (1, 2, 4, 8).index(size),)) + argument.to_bytes(size)
