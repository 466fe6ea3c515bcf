"""Tokens and key sets: what is read, and what is refused."""

from __future__ import annotations

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import FormatError
from strongroom.evidence import jose
from tests.unit.strongroom.evidence import authority_tokens as authority

KEY, OTHER = authority.key("jose"), authority.key("jose-other")
PUBLIC = KEY.public_key()
HEADER = {"alg": "RS256", "kid": "a", "typ": "JWT"}
GOOD = authority.compact(HEADER, {"iss": "x", "iat": 1}, KEY)


def b64(value: Any) -> bytes:
    return authority.b64url(value if isinstance(value, bytes) else json.dumps(value).encode()).encode()


def test_reads_and_verifies() -> None:
    token = jose.read(GOOD)
    assert token.claims == {"iss": "x", "iat": 1} and token.kid == "a"
    assert jose.verify(token, [PUBLIC]) and jose.verify(token, [OTHER.public_key(), PUBLIC])
    assert not jose.verify(token, [OTHER.public_key()]) and not jose.verify(token, [])


HEAD, BODY, SIGNATURE = GOOD.split(b".")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"..",
        HEAD + b"." + BODY,
        GOOD + b".",
        GOOD + b"." + BODY + b".x",  # five parts: an encrypted token
        HEAD + b"." + BODY + b".",  # what alg none looks like
        GOOD + b"=",
        GOOD + b"\n",
        b" " + GOOD,
        GOOD.replace(b".", b"\n.", 1),
        HEAD + b"." + BODY + b"+" + b"." + SIGNATURE,
        HEAD + b"." + BODY + b".A" + b"/" * 341,
        b"\xff" + GOOD,
        b64(b"not json") + b"." + BODY + b"." + SIGNATURE,
        b64([]) + b"." + BODY + b"." + SIGNATURE,
        HEAD + b"." + b64(b'{"iss":"x","iss":"y"}') + b"." + SIGNATURE,
        HEAD + b"." + b64(b'{"a":{"b":1,"b":1}}') + b"." + SIGNATURE,
        HEAD + b"." + b64(b'{"a":NaN}') + b"." + SIGNATURE,
        HEAD + b"." + b64(b'\xef\xbb\xbf{"a":1}') + b"." + SIGNATURE,
        HEAD + b"." + b64(b'{"a":"\\ud800"}') + b"." + SIGNATURE,
        HEAD + b"." + b64(b'{"a":' + b"[" * 60 + b"]" * 60 + b"}") + b"." + SIGNATURE,
        HEAD + b"." + b64(b'{"a":"' + b"x" * (1 << 20) + b'"}') + b"." + SIGNATURE,
    ],
)
def test_refuses_what_is_not_one_token(data: bytes) -> None:
    with pytest.raises(FormatError):
        jose.read(data)


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": False},
        {"jwk": {}},
        {"x5u": "https://attacker.example/key"},
        {"kid": 5},
        {"kid": ""},
        {"kid": "a\nb"},
        {"kid": "a" * 257},
        {"typ": "JWE"},
        {"typ": 1},
    ],
)
def test_refuses_headers(header: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        jose.read(authority.compact({**HEADER, **header}, {}, KEY))


def test_a_base64_text_has_one_form() -> None:
    """342 characters hold 2052 bits, and a signature 2048: the last four must be zero, or one token had sixteen forms."""
    last = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    accepted = []
    for char in last:
        try:
            accepted += [jose.read(GOOD[:-1] + bytes([char]))]
        except FormatError:
            pass
    assert len(accepted) == 4
    assert [jose.verify(token, [PUBLIC]) for token in accepted].count(True) == 1


def forged(alg: Any) -> list[bytes]:
    """Tokens that name `alg`, signed in the ways that such a header has fooled verifiers."""
    signed = b64({**HEADER, "alg": alg}) + b"." + BODY
    spki = PUBLIC.public_bytes(Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    made = [
        hmac.digest(spki, signed, "sha256"),
        hmac.digest(spki.strip(), signed, "sha256"),
        KEY.sign(signed, padding.PKCS1v15(), hashes.SHA512()),
        KEY.sign(signed, padding.PKCS1v15(), hashes.SHA256()),
        KEY.sign(signed, pss, hashes.SHA256()),
        b"\0",
    ]
    return [signed + b"." + b64(signature) for signature in made]


@pytest.mark.parametrize(
    "alg", ["none", "None", "HS256", "RS512", "PS256", "ES256", "rs256", "RS256 ", "", None, 5, ["RS256"]]
)
def test_one_algorithm(alg: Any) -> None:
    for data in forged(alg):
        assert not jose.verify(jose.read(data), [PUBLIC])


def test_the_right_algorithm_by_name_with_another_signature() -> None:
    assert [jose.verify(jose.read(data), [PUBLIC]) for data in forged("RS256")] == [False] * 3 + [True] + [
        False
    ] * 2


def certified(signer: Any = KEY, public: Any = None) -> str:
    now = datetime(2020, 1, 1, tzinfo=UTC)
    made = authority.certify(
        "x", public or signer.public_key(), "x", signer, ca=None, start=now, end=now + timedelta(days=1)
    )
    return base64.b64encode(made.public_bytes(Encoding.DER)).decode()


NUMBERS = authority.jwk(KEY, "a")


def without(*names: str, **more: Any) -> dict[str, Any]:
    return {**{n: v for n, v in NUMBERS.items() if n not in names}, **more}


@pytest.mark.parametrize(
    "entry",
    [
        NUMBERS,
        without("alg"),
        without("use"),
        without("n", "e", x5c=[certified()]),
        without(x5c=[certified()]),
    ],
)
def test_key_sets(entry: dict[str, Any]) -> None:
    (found,) = jose.key_set(authority.key_set(entry))
    assert found.kid == "a" and found.public.public_numbers() == PUBLIC.public_numbers()
    assert jose.verify(jose.read(GOOD), [found.public])


@pytest.mark.parametrize(
    "entry",
    [
        without(kty="EC"),
        without(use="enc"),
        without(alg="PS384"),
        without(alg=None),
        authority.jwk(authority.key("jose-weak", 1024), "a"),
        without(e=b64(b"\x03").decode()),
        without(e=b64(b"\x01\x00\x02").decode()),
    ],
)
def test_keys_that_are_left_out(entry: dict[str, Any]) -> None:
    assert jose.key_set(authority.key_set(entry)) == ()


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": [5]}',
        b'{"keys": [], "keys": []}',
        authority.key_set(without("n")),
        authority.key_set(without("n", "e")),
        authority.key_set(without(n=5)),
        authority.key_set(without(n="%" * 340)),
        authority.key_set(without(n=NUMBERS["n"] + "=")),
        authority.key_set(without(n="A" * 9999)),
        authority.key_set(without(kid=5)),
        authority.key_set(without(x5c=[certified(OTHER)])),
        authority.key_set(without(x5c=[])),
        authority.key_set(without(x5c="x")),
        authority.key_set(without("n", "e", x5c=["AAAA"])),
        authority.key_set(without("n", "e", x5c=[certified(ec.generate_private_key(ec.SECP256R1()))])),
        authority.key_set(*[NUMBERS] * 51),
        b" " * (257 << 10),
    ],
)
def test_key_sets_that_cannot_be_read(data: bytes) -> None:
    with pytest.raises(FormatError):
        jose.key_set(data)


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    for read in (jose.read, jose.key_set, lambda raw: jose.certificate(raw, "x")):
        try:
            read(data)
        except FormatError:
            pass


@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=6), st.integers(0, 6))
def test_bytes_put_in_and_taken_out(position: int, insert: bytes, gone: int) -> None:
    changed = GOOD[:position] + insert + GOOD[position + gone :]
    try:
        accepted = jose.verify(jose.read(changed), [PUBLIC])
    except FormatError:
        accepted = False
    assert accepted == (changed == GOOD)
