"""Wrapped keys and seal headers."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import seal, strictjson
from strongroom.errors import FormatError, SealError

DATASET = "0f8fad5b-d9cb-469f-a165-70867728950e"
RUN = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
N1 = "A" * 43
KEYS = {suite: seal.generate_key_pair(suite) for suite in seal.SUITES}


@pytest.mark.parametrize("suite", seal.SUITES)
def test_wrap_and_unwrap(suite: str) -> None:
    private, data_key, info = KEYS[suite], seal.generate_data_key(), seal.info_data_key(DATASET, 1)
    wrapped = seal.wrap_key(data_key, private.public, info)
    assert seal.unwrap_key(wrapped, private, info) == data_key
    for other in (
        seal.info_data_key(DATASET, 2),
        seal.info_run_key(RUN, DATASET, 1, N1),
        seal.info_egress_key(RUN),
    ):
        with pytest.raises(SealError):
            seal.unwrap_key(wrapped, private, other)
    with pytest.raises(SealError):
        seal.unwrap_key(wrapped, seal.generate_key_pair(suite), info)
    for position in range(0, len(wrapped), 1 + len(wrapped) // 60):
        broken = bytearray(wrapped)
        broken[position] ^= 4
        with pytest.raises(SealError):
            seal.unwrap_key(bytes(broken), private, info)
    for broken_length in (wrapped[:-1], wrapped + b"\0", b""):
        with pytest.raises(SealError, match="bytes"):
            seal.unwrap_key(broken_length, private, info)


def test_suites_do_not_mix() -> None:
    wrapped = seal.wrap_key(b"k" * 32, KEYS["x25519"].public, b"i")
    with pytest.raises(SealError):
        seal.unwrap_key(wrapped, KEYS["mlkem768x25519"], b"i")
    with pytest.raises(SealError, match="not known"):
        seal.generate_key_pair("rsa")
    with pytest.raises(SealError, match="32 bytes"):
        seal.wrap_key(b"k" * 16, KEYS["x25519"].public, b"i")


def test_a_public_key_without_a_secret_is_refused() -> None:
    with pytest.raises(SealError):
        seal.wrap_key(b"k" * 32, seal.PublicKey("x25519", bytes(32)), b"i")
    with pytest.raises(SealError):
        seal.PublicKey("mlkem768x25519", b"\xff" * 1216)


@pytest.mark.parametrize("suite", seal.SUITES)
def test_key_objects(suite: str) -> None:
    private = KEYS[suite]
    document = private.public.to_json()
    assert set(document) == {"suite", "public", "id"} and len(document["id"]) == 16
    assert seal.PublicKey.from_json(document) == private.public
    assert seal.PrivateKey.from_json(private.to_json()) == private
    assert private.raw.hex() not in repr(private) and "raw" not in repr(private)
    other = seal.generate_key_pair(suite)
    for change in ({"id": other.public.id}, {"public": document["public"][:-4]}, {"suite": "x"}, {"more": 1}):
        with pytest.raises(FormatError):
            seal.PublicKey.from_json({**document, **change})
    with pytest.raises(FormatError):
        seal.PrivateKey.from_json({**private.to_json(), "private": other.to_json()["private"]})
    junk: Any
    for junk in (None, [], "x", {}, {"private": None}):
        with pytest.raises(FormatError):
            seal.PublicKey.from_json(junk)
        with pytest.raises(FormatError):
            seal.PrivateKey.from_json(junk)


def test_what_things_are_bound_to() -> None:
    assert seal.aad_dataset(DATASET, 3) == (
        b'strongroom/1/dataset\x00{"dataset":"0f8fad5b-d9cb-469f-a165-70867728950e","version":3}'
    )
    assert seal.aad_outputs(RUN) == b'strongroom/1/outputs\x00{"run":"7c9e6679-7425-40de-944b-e07fc1f90ae7"}'
    assert seal.info_egress_key(RUN).startswith(b"strongroom/1/egress-key\x00")
    everything = {
        seal.aad_dataset(DATASET, 1), seal.aad_outputs(RUN), seal.info_data_key(DATASET, 1),
        seal.info_run_key(RUN, DATASET, 1, N1), seal.info_egress_key(RUN),
    }  # fmt: skip
    assert len(everything) == 5
    for bad in ((DATASET.upper(), 1), (DATASET, 0), (DATASET, True), ("x", 1)):
        with pytest.raises(FormatError):
            seal.aad_dataset(*bad)


def header() -> seal.SealHeader:
    private = KEYS["x25519"]
    data_key = seal.generate_data_key()
    result = seal.seal_stream(io.BytesIO(b"a,b\n1,2\n"), io.BytesIO(), data_key, seal.aad_dataset(DATASET, 1))
    return seal.seal_header(
        dataset=DATASET,
        version=1,
        suite="x25519",
        recipient=private.public.id,
        wrapped_key=seal.wrap_key(data_key, private.public, seal.info_data_key(DATASET, 1)),
        result=result,
        media_type="text/csv",
    )


def test_seal_header_round_trip() -> None:
    made = header()
    assert seal.parse_seal_header(strictjson.canonical(made.to_json())) == made


def test_seal_header_refuses_every_missing_or_extra_member() -> None:
    document = header().to_json()

    def paths(value: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
        found = []
        for name, item in value.items():
            found.append((*at, name))
            if isinstance(item, dict):
                found += paths(item, (*at, name))
        return found

    for path in paths(document):
        for action in ("remove", "extra", "null"):
            changed = copy.deepcopy(document)
            parent = changed
            for name in path[:-1]:
                parent = parent[name]
            if action == "remove":
                del parent[path[-1]]
            elif action == "null":
                parent[path[-1]] = None
            else:
                parent["surprise"] = 1
            with pytest.raises(FormatError):
                seal.parse_seal_header(changed)


def test_seal_header_sizes_must_agree() -> None:
    document = header().to_json()
    document["plaintext"]["size"] += 1
    with pytest.raises(FormatError, match="contradicts itself"):
        seal.parse_seal_header(document)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(json_values | st.binary())
def test_seal_header_only_ever_raises_format_error(value: Any) -> None:
    with pytest.raises(FormatError):
        seal.parse_seal_header(value)
