"""Base64 texts have one form each: what is refused is exactly what decoding and encoding again does not give back."""

from __future__ import annotations

import base64
import binascii
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import shapes
from strongroom.errors import FormatError

# Bits of every kind at the end of a group, both alphabets, padding, and what belongs to neither.
SHORT = ["".join(text) for size in range(6) for text in itertools.product("AQgw_/=\n", repeat=size)]
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_="


def standard(text: str) -> bytes | None:
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeError, binascii.Error):
        return None
    return raw if base64.b64encode(raw).decode() == text else None


def unpadded(text: bytes) -> bytes | None:
    try:
        raw = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        return None
    return raw if base64.urlsafe_b64encode(raw).rstrip(b"=") == text else None


def read(text: str) -> bytes | None:
    try:
        return shapes.b64_decode(text, "It")
    except FormatError:
        return None


def read_url(text: bytes) -> bytes | None:
    try:
        return shapes.b64url_decode(text)
    except ValueError:
        return None


def near(encoded: str, data: st.DataObject) -> str:
    """A text that is, or nearly is, an encoding."""
    spot = data.draw(st.integers(0, len(encoded)) | st.just(len(encoded)))
    end = spot + data.draw(st.integers(0, 2))
    return encoded[:spot] + data.draw(st.text(ALPHABET + " \n\0é", max_size=3)) + encoded[end:]


def test_short_texts() -> None:
    assert [read(text) for text in SHORT] == [standard(text) for text in SHORT]
    assert [read_url(text.encode()) for text in SHORT] == [unpadded(text.encode()) for text in SHORT]


@given(st.binary(max_size=200), st.data())
def test_edited_texts(raw: bytes, data: st.DataObject) -> None:
    text = near(shapes.b64_encode(raw), data)
    assert read(text) == standard(text)
    url = near(shapes.b64url_encode(raw), data).encode()
    assert read_url(url) == unpadded(url)


@given(st.text(ALPHABET, max_size=40))
def test_texts_of_the_alphabets(text: str) -> None:
    assert read(text) == standard(text) and read_url(text.encode()) == unpadded(text.encode())


@given(st.binary(max_size=200))
def test_reads_what_was_written(raw: bytes) -> None:
    assert read(shapes.b64_encode(raw)) == raw
    assert read_url(shapes.b64url_encode(raw).encode()) == raw


@pytest.mark.parametrize("value", [None, 5, b"QUJD", ["QUJD"], "QUJ\ud800", "QUJé", "QUJD\n"])
def test_what_is_no_base64_text(value: object) -> None:
    with pytest.raises(FormatError):
        shapes.b64_decode(value, "It")


@pytest.mark.parametrize(
    "text", ["A" * 42 + "B", "A" * 42, "A" * 43 + "=", "A" * 42 + "é", "A" * 42 + "+", None]
)
def test_base64url_of_a_size(text: object) -> None:
    """43 characters hold 258 bits, and 32 bytes 256: the last two must be zero."""
    check = shapes.b64url(32)
    assert check("A" * 42 + "E", "It") == "A" * 42 + "E"
    with pytest.raises(FormatError, match="It must be unpadded base64url of 32 bytes"):
        check(text, "It")


def test_picks_members() -> None:
    shape = {"a": shapes.whole(), "b": shapes.boolean}
    assert shapes.pick({"a": 1, "c": object(), "b": True}, "It", shape) == {"a": 1, "b": True}
    for value, fault in (
        ({"c": 1}, "It lacks a, b"),
        ({"a": "1", "b": True}, "It.a must"),
        ([], "It must be an object"),
    ):
        with pytest.raises(FormatError, match=fault):
            shapes.pick(value, "It", shape)
