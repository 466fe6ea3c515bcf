"""What the strict JSON reader refuses."""

from __future__ import annotations

import json
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
    "data",
    [
        b'{"b":1,"a":2}', b'{"a": 1}', b'{"a":1}\n', b'"\\u0061"', b"1.0", b"-0", b"1E2", b'"\\/"', b"[1,\t2]", b"\r[]",
        # RFC 8785 section 3.2.3 sorts by UTF-16 unit, so the second name comes first.
        '{"\ue000":1,"\U0001f600":2}'.encode(),
    ],
)  # fmt: skip
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


def near_canonical(value: Any, data: st.DataObject) -> bytes:
    """A document that is, or nearly is, in canonical form."""
    text = json.dumps(
        value,
        ensure_ascii=data.draw(st.booleans()),
        sort_keys=data.draw(st.booleans()),
        separators=data.draw(st.sampled_from([(",", ":"), (", ", ": ")])),
    )
    spot = data.draw(st.integers(0, len(text)))
    extra = st.sampled_from(
        ["", " ", "\t", "\n", "\r", "\\u0041", "\\n", "\\/", "-0", "1", ".0", "\x7f", "é", "\x0c"]
    )
    return (text[:spot] + data.draw(extra) + text[spot + data.draw(st.integers(0, 1)) :]).encode()


@given(json_values, st.data())
def test_canonical_is_what_the_reference_writes_and_nothing_else(value: Any, data: st.DataObject) -> None:
    made = near_canonical(value, data)
    try:
        read = strictjson.loads(made)
    except FormatError:
        read = None
        wanted = False
    else:
        wanted = rfc8785.dumps(read) == made
    try:
        assert strictjson.loads_canonical(made) == read and wanted
    except FormatError:
        assert not wanted


NAMES = st.sampled_from(["a", "B", "b", "aa", "a b", "", "~", "A-0"])


@given(
    st.lists(
        st.tuples(NAMES, st.sampled_from(["0", "-0", "1", "-1", '"-0"', "{}", "[]", "true"])), max_size=5
    )
)
def test_names_in_order_and_numbers_in_one_form(pairs: list[tuple[str, str]]) -> None:
    made = ("{" + ",".join(f'"{name}":{value}' for name, value in pairs) + "}").encode()
    names = [name for name, _ in pairs]
    good = names == sorted(set(names)) and all(value != "-0" for _, value in pairs)
    try:
        strictjson.loads_canonical(made)
    except FormatError:
        assert not good
    else:
        assert good


@pytest.mark.parametrize("count", [31, 32, 33, 34, 40])
@pytest.mark.parametrize("more", ["", "{}", "[]", '"[{["', '"\\n"', '"é"', "0.5"])
def test_depth_limit_is_exact_whatever_else_the_document_holds(count: int, more: str) -> None:
    made = ("[" * count + more + "]" * count).encode()
    if count + (more in ("{}", "[]")) <= strictjson.MAX_DEPTH:
        strictjson.loads(made)
        return
    with pytest.raises(FormatError):
        strictjson.loads(made)
