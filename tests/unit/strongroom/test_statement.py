"""DSSE envelopes and statements."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import statement, strictjson
from strongroom.errors import FormatError, StatementError
from strongroom.shapes import b64_encode
from strongroom.signing import SigningKey

KEY, OTHER = SigningKey(b"\x01" * 32), SigningKey(b"\x02" * 32)
DOCUMENT = {"_type": "x", "n": 1}


def test_pae_of_the_specification() -> None:
    """The worked example of DSSE's protocol.md."""
    assert statement.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_sign_and_open() -> None:
    envelope = statement.sign(DOCUMENT, [KEY])
    assert statement.open_envelope(envelope, KEY.public) == DOCUMENT
    assert strictjson.canonical(strictjson.loads(envelope)) == envelope
    with pytest.raises(StatementError, match="not signed by the expected key"):
        statement.open_envelope(envelope, OTHER.public)
    with pytest.raises(StatementError, match="not 'text/plain'"):
        statement.open_envelope(envelope, KEY.public, payload_type="text/plain")


def test_several_signatures() -> None:
    both = statement.sign(DOCUMENT, [KEY, OTHER])
    added = statement.add_signature(statement.sign(DOCUMENT, [KEY]), OTHER)
    assert both == added
    for key in (KEY, OTHER):
        assert statement.open_envelope(both, key.public) == DOCUMENT
    with pytest.raises(StatementError, match="one only of each key"):
        statement.add_signature(both, KEY)
    with pytest.raises(StatementError):
        statement.sign(DOCUMENT, [])


def test_a_signature_under_another_keys_id() -> None:
    parsed = statement.parse_envelope(statement.sign(DOCUMENT, [OTHER]))
    key_id = statement.parse_envelope(statement.sign(DOCUMENT, [KEY])).signatures[0][0]
    forged = statement.Envelope(parsed.payload, parsed.payload_type, ((key_id, parsed.signatures[0][1]),))
    with pytest.raises(StatementError, match="does not match"):
        statement.open_envelope(forged.to_bytes(), KEY.public)


def test_every_flipped_bit() -> None:
    envelope = statement.sign(DOCUMENT, [KEY])
    for position in range(len(envelope)):
        for bit in range(8):
            changed = bytearray(envelope)
            changed[position] ^= 1 << bit
            with pytest.raises(StatementError):
                statement.open_envelope(bytes(changed), KEY.public)


@pytest.mark.parametrize("payload", [b'{"a":1, "b":2}', b'{"a":1,"a":2}', b"[]", b"", b"\xff", b"1"])
def test_signed_payloads_that_are_not_canonical_objects(payload: bytes) -> None:
    signature = KEY.sign(statement.pae(statement.PAYLOAD_TYPE, payload))
    envelope = {
        "payload": b64_encode(payload),
        "payloadType": statement.PAYLOAD_TYPE,
        "signatures": [
            {
                "keyid": statement.parse_envelope(statement.sign({}, [KEY])).signatures[0][0],
                "sig": b64_encode(signature),
            }
        ],
    }
    with pytest.raises(StatementError):
        statement.open_envelope(strictjson.canonical(envelope), KEY.public)


@given(st.binary(max_size=300))
def test_garbage(data: bytes) -> None:
    with pytest.raises(StatementError):
        statement.open_envelope(data, KEY.public)


json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(json_values)
def test_statements_of_another_shape(value: Any) -> None:
    for kind in (statement.RUN_PREDICATE, statement.VERDICT_PREDICATE):
        with pytest.raises(FormatError):
            statement.parse_statement(value, kind)


def test_a_real_statement_is_refused_with_any_member_gone(factory: Any) -> None:
    files = factory.make_files(factory.Keys())
    for name, kind in (
        ("statement.dsse.json", statement.RUN_PREDICATE), ("verdict.json", statement.VERDICT_PREDICATE),
    ):  # fmt: skip
        document = strictjson.loads(statement.parse_envelope(files[name]).payload)
        assert statement.parse_statement(document, kind) == document
        for member in document:
            with pytest.raises(FormatError):
                statement.parse_statement({k: v for k, v in document.items() if k != member}, kind)
        for member in document["predicate"]:
            predicate = {k: v for k, v in document["predicate"].items() if k != member}
            with pytest.raises(FormatError):
                statement.parse_statement({**document, "predicate": predicate}, kind)
