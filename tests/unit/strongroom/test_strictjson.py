"""What the strict JSON reader refuses."""

from __future__ import annotations

from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from strongroom import strictjson
from strongroom.errors import FormatError


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}', b'{"x":{"a":1,"\\u0061":2}}', b"NaN", b"[Infinity]", b"-Infinity", b"1e999",
        b"9007199254740992", b"-9007199254740992", b"1" * 5000, b"0." + b"1" * 5000, b'"\\ud800"', b'{"\\udc00":1}',
        b"\xef\xbb\xbf{}", b"\xff", b"{}{}", b"{} x", b"", b" ", b"{'a':1}", b'{"a":1,}', b"[1,]", b'"\x01"',
        b"[" * 33 + b"]" * 33, b"[" * 100_000, b'{"a":' * 5000, b"01", b"+1", b".5", b"nul", "{}".encode("utf-16"),
    ],
)  # fmt: skip
def test_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        strictjson.loads(data)


def test_size_cap_and_message() -> None:
    with pytest.raises(FormatError, match="The policy is 12 bytes long; at most 5"):
        strictjson.loads(b'"0123456789"', max_bytes=5, what="The policy")


def test_depth_limit_is_exact() -> None:
    assert strictjson.loads(b"[" * 32 + b"]" * 32)


@pytest.mark.parametrize(
    "data", [b'{"b":1,"a":2}', b'{"a": 1}', b'{"a":1}\n', b'"\\u0061"', b"1.0", b"-0", b"1E2"]
)
def test_not_canonical(data: bytes) -> None:
    strictjson.loads(data)
    with pytest.raises(FormatError, match="canonical"):
        strictjson.loads_canonical(data)


@pytest.mark.parametrize("value", [float("nan"), 2**53, "\ud800", {1: 2}, object(), b"x", {"\udfff": 1}])
def test_what_cannot_be_written(value: Any) -> None:
    with pytest.raises(FormatError):
        strictjson.canonical(value)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-1e15, 1e15)
    | st.floats(min_value=1e21, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=10,
)


@given(json_values)
def test_canonical_bytes_read_back_and_are_stable(value: Any) -> None:
    data = strictjson.canonical(value)
    assert strictjson.canonical(strictjson.loads(data)) == data


@given(st.binary(max_size=300))
def test_never_another_exception(data: bytes) -> None:
    try:
        strictjson.loads(data)
    except FormatError:
        pass


@given(json_values)
def test_the_quick_way_writes_what_the_reference_writes(value: Any) -> None:
    assert strictjson.canonical(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value",
    [
        {"\ue000": 1, "\U0001f600": 2},  # sorts one way by code point, the other way by UTF-16 unit
        {"a": "".join(map(chr, range(0x80))) + "\u2028\x7f\U0001f600", "B": [True, None, -1, {"": {}}]},
        {"half": 0.5, "big": 1e30, "minus": -0.0},
        [2**53 - 1, -(2**53) + 1],
    ],
)
def test_the_quick_way_at_the_odd_spots(value: Any) -> None:
    assert strictjson.canonical(value) == rfc8785.dumps(value)
