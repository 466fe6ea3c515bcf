"""Contexts and their nonces."""

from __future__ import annotations

import base64
import copy
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import contexts, seal
from strongroom.errors import FormatError

RUN = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
DATASET = "0f8fad5b-d9cb-469f-a165-70867728950e"
HASH = "ab" * 32


def c1(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "run": RUN,
        "portal": "portal.example",
        "challenge": "c" * 43,
        "manifest": HASH,
        "image": "sha256:" + HASH,
        "inputs": [{"dataset": DATASET, "version": 1, "ciphertext": HASH}],
        "approvals": HASH,
        "sign_pub": b"\x01" * 32,
        "hpke_pub": seal.PrivateKey("x25519", b"\x02" * 32).public,
    }
    return contexts.key_release_context(**{**values, **changes})


def c2(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "run": RUN,
        "portal": "portal.example",
        "challenge2": "d" * 43,
        "e1": HASH,
        "manifest": HASH,
        "inputs": [{"dataset": DATASET, "plaintext": HASH}],
        "outputs": [{"path": "b.csv", "sha256": HASH, "size": 2}, {"path": "a/x", "sha256": HASH, "size": 0}],
        "statement": HASH,
        "exit": {"class": "succeeded", "exception_type": None, "line": None},
        "started": "2026-03-01T12:00:00Z",
        "ended": "2026-03-01T12:00:01.5Z",
        "sign_pub": b"\x01" * 32,
    }
    return contexts.result_context(**{**values, **changes})


def test_nonce_by_hand() -> None:
    """A value worked out without this package, so that another implementation can be compared with it."""
    text = (
        '{"approvals":"HASH","challenge":"CCC","hpke_pub":{"id":"ID","public":"PUB","suite":"x25519"},'
        '"image":"sha256:HASH","inputs":[{"ciphertext":"HASH","dataset":"DATASET","version":1}],"manifest":"HASH",'
        '"portal":"portal.example","purpose":"key-release","run":"RUN","sign_pub":"SIGN","v":1}'
    )
    public = seal.PrivateKey("x25519", b"\x02" * 32).public
    for name, value in {
        "HASH": HASH, "CCC": "c" * 43, "DATASET": DATASET, "RUN": RUN, "ID": public.id,
        "PUB": base64.b64encode(public.raw).decode(), "SIGN": base64.b64encode(b"\x01" * 32).decode(),
    }.items():  # fmt: skip
        text = text.replace(name, value)
    expected = hashlib.sha256(b"strongroom/1/key-release\x00" + text.encode()).digest()
    assert contexts.n1(c1()) == base64.urlsafe_b64encode(expected).decode().rstrip("=")
    assert len(contexts.n1(c1())) == len(contexts.n2(c2())) == 43


def test_purposes_never_mix() -> None:
    with pytest.raises(FormatError):
        contexts.n2(c1())
    with pytest.raises(FormatError):
        contexts.n1(c2())


def test_outputs_are_sorted() -> None:
    assert [item["path"] for item in c2()["outputs"]] == ["a/x", "b.csv"]
    document = c2()
    document["outputs"].reverse()
    with pytest.raises(FormatError, match="sorted"):
        contexts.parse_result(document)


@pytest.mark.parametrize("make", [c1, c2])
def test_each_member_counts(make: Any) -> None:
    nonce, parse = (
        (contexts.n1, contexts.parse_key_release) if make is c1 else (contexts.n2, contexts.parse_result)
    )
    original = make()
    value: Any
    for name in original:
        for value in (None, 1.5, [], {}, "", "x" * 5000, "\x00"):
            changed = {**copy.deepcopy(original), name: value}
            if make is c2 and (name, value) in [("e1", None), ("inputs", []), ("outputs", [])]:
                assert nonce(changed) != nonce(original)
                continue
            if make is c1 and (name, value) == ("inputs", []):
                assert nonce(changed) != nonce(original)
                continue
            with pytest.raises(FormatError):
                parse(changed)
        with pytest.raises(FormatError):
            parse({key: item for key, item in original.items() if key != name})
    with pytest.raises(FormatError):
        parse({**original, "more": 1})


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": [{"dataset": DATASET, "version": 1, "ciphertext": HASH}] * 2},
        {"inputs": [{"dataset": DATASET, "version": True, "ciphertext": HASH}]},
        {"inputs": [{"dataset": DATASET, "version": 1, "ciphertext": HASH.upper()}]},
        {"image": HASH}, {"image": "sha256:" + HASH.upper()}, {"challenge": "c" * 42}, {"challenge": "c" * 42 + "="},
        {"run": RUN.upper()}, {"sign_pub": b"x" * 31}, {"portal": "a\nb"},
    ],
)  # fmt: skip
def test_bad_c1(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        c1(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"outputs": [{"path": "../a", "sha256": HASH, "size": 1}]},
        {"outputs": [{"path": "a", "sha256": HASH, "size": -1}]},
        {"outputs": [{"path": "a", "sha256": HASH, "size": 1}] * 2},
        {"outputs": [{"path": "a", "sha256": HASH, "size": 1}, {"path": "a/b", "sha256": HASH, "size": 1}]},
        {"exit": {"class": "exploded", "exception_type": None, "line": None}},
        {"exit": {"class": "failed", "exception_type": "ValueError", "line": 3, "message": "secret"}},
        {"ended": "2026-03-01T11:59:59Z"}, {"ended": "2026-03-01 12:00:00Z"}, {"ended": "2026-02-30T12:00:00Z"},
        {"ended": "2026-03-01T12:00:00+00:00"}, {"started": "2026-03-01T12:00:60Z"},
    ],
)  # fmt: skip
def test_bad_c2(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        c2(**changes)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(json_values)
def test_anything_else_is_a_format_error(value: Any) -> None:
    for parse in (contexts.parse_key_release, contexts.parse_result):
        with pytest.raises(FormatError):
            parse(value)
