"""TPM quotes, their signatures and PCR values: what is read, and what is refused."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import FormatError
from strongroom.evidence import tpm
from tests.unit.strongroom.evidence.authority_cvm import attest, pcrs_json, selection, tpmt_signature

PCRS = {number: hashlib.sha256(bytes([number])).digest() for number in range(24)}
CHOSEN = {number: PCRS[number] for number in (0, 4, 7, 8, 23)}


def quote(**changes: Any) -> tpm.Attest:
    return tpm.parse_attest(attest(CHOSEN, b"nonce", **changes))


def test_reads_a_quote() -> None:
    found = quote()
    assert found.extra_data == b"nonce" and found.safe and found.reset_count == 3
    assert found.selections == (tpm.Selection(tpm.ALG_SHA256, (0, 4, 7, 8, 23)),)
    assert found.digest == tpm.pcr_digest(CHOSEN) == hashlib.sha256(b"".join(CHOSEN.values())).digest()
    assert tpm.selection_fault(found, CHOSEN) is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"magic": 0xFF544348}, "magic"),
        ({"magic": 0}, "magic"),
        ({"type_": 0x8017}, "no quote"),  # certify
        ({"type_": 0x8019}, "no quote"),  # time
        ({"safe": 2}, "safe"),
        ({"tail": b"\x00"}, "more than its fields"),
        ({"banks": 17}, "17 banks"),
    ],
)
def test_refuses_what_is_no_quote(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(FormatError, match=sentence):
        quote(**changes)


def test_refuses_a_quote_cut_off_anywhere() -> None:
    data = attest(CHOSEN, b"nonce")
    for size in range(len(data)):
        with pytest.raises(FormatError):
            tpm.parse_attest(data[:size])
    with pytest.raises(FormatError):
        tpm.parse_attest(data + bytes(5000))


@pytest.mark.parametrize(
    ("selected", "sentence"),
    [
        (selection((0, 4, 7, 8), tpm.ALG_SHA256), "0, 4, 7, 8;"),
        (selection((0, 4, 7, 8, 9, 23), tpm.ALG_SHA256), "gives values of"),
        (selection((), tpm.ALG_SHA256), "no PCR"),
        (selection((0, 4, 7, 8, 23), 0x0004), "0x0004, not SHA-256"),
        (selection((0, 4, 7, 8, 23), 0x000C), "0x000c"),
        (selection((0, 4, 7, 8, 23), tpm.ALG_SHA256) + selection((0,), 0x0004), "2 banks"),
        (selection((0, 4, 7, 8, 23, 31), tpm.ALG_SHA256, size=4), "31"),
        (b"", "0 banks"),
    ],
    ids=["short", "extra", "empty", "sha1", "sha384", "two banks", "a PCR that no TPM has", "none"],
)
def test_the_selection_must_be_exactly_the_given_pcrs(selected: bytes, sentence: str) -> None:
    fault = tpm.selection_fault(quote(selected=selected), CHOSEN)
    assert fault is not None and sentence in fault


def test_a_longer_bitmap_of_the_same_pcrs_is_the_same_selection() -> None:
    found = quote(selected=selection(tuple(CHOSEN), tpm.ALG_SHA256, size=4))
    assert tpm.selection_fault(found, CHOSEN) is None


def test_the_order_of_values_matters() -> None:
    swapped = {**CHOSEN, 0: CHOSEN[4], 4: CHOSEN[0]}
    assert tpm.pcr_digest(swapped) != tpm.pcr_digest(CHOSEN)
    assert tpm.pcr_digest(dict(reversed(CHOSEN.items()))) == tpm.pcr_digest(CHOSEN)


def test_reads_signatures() -> None:
    raw = bytes(range(256))
    assert tpm.parse_signature(raw) == raw == tpm.parse_signature(tpmt_signature(raw))
    assert tpm.parse_signature(tpmt_signature(bytes(384))) == bytes(384)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        bytes(255),
        tpmt_signature(bytes(256), scheme=0x0016),  # RSAPSS
        tpmt_signature(bytes(256), scheme=0x0018),  # ECDSA
        tpmt_signature(bytes(256), hash_=0x0004),
        tpmt_signature(bytes(256)) + b"\x00",
        tpmt_signature(bytes(256))[:-1],
    ],
)
def test_refuses_other_signatures(data: bytes) -> None:
    with pytest.raises(FormatError):
        tpm.parse_signature(data)


def test_reads_pcr_values_in_any_order_of_names() -> None:
    assert tpm.parse_pcrs(pcrs_json(PCRS)) == PCRS
    assert list(tpm.parse_pcrs(pcrs_json(dict(reversed(PCRS.items()))))) == list(range(24))


VALUE = "ab" * 32


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"sha256": {}},
        {"sha1": {"0": "ab" * 20}},
        {"sha256": {"0": VALUE}, "sha1": {"0": "ab" * 20}},
        {"sha256": {"24": VALUE}},
        {"sha256": {"00": VALUE}},
        {"sha256": {"-1": VALUE}},
        {"sha256": {" 1": VALUE}},
        {"sha256": {"0": VALUE.upper()}},
        {"sha256": {"0": VALUE[:-2]}},
        {"sha256": {"0": None}},
        {"sha256": [VALUE]},
        [VALUE],
    ],
)
def test_refuses_other_pcr_documents(document: Any) -> None:
    with pytest.raises(FormatError):
        tpm.parse_pcrs(json.dumps(document).encode())


def test_refuses_a_pcr_named_twice() -> None:
    with pytest.raises(FormatError, match="twice"):
        tpm.parse_pcrs(f'{{"sha256": {{"0": "{VALUE}", "0": "{VALUE}"}}}}'.encode())


@given(data=st.binary(max_size=300))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    for parse in (tpm.parse_attest, tpm.parse_signature, tpm.parse_pcrs):
        try:
            parse(data)
        except FormatError:
            continue


@given(data=st.binary(max_size=200))
def test_random_bytes_after_a_genuine_head_raise_nothing_else(data: bytes) -> None:
    try:
        tpm.parse_attest(struct.pack(">IH", tpm.GENERATED, tpm.ATTEST_QUOTE) + data)
    except FormatError:
        pass
