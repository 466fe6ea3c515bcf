"""Signed tokens (JWS compact form, RFC 7515) and key sets (JWK, RFC 7517), read strictly.

One algorithm, RS256, whatever a token's header says: both issuers that we verify sign with nothing else, and a
verifier that lets the token choose can be made to take a public key for an HMAC secret (RFC 8725 section 2.1).
A key is never taken from a token: callers pass keys that the verifier holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256

from strongroom import shapes, strictjson
from strongroom.errors import FormatError

ALGORITHM = "RS256"
MAX_TOKEN_BYTES = 64 << 10
MAX_KEY_SET_BYTES = 256 << 10
MAX_KEYS = 50
MIN_KEY_BITS, MAX_KEY_BITS = 2048, 8192

# Members by which a token would bring its own key, or change how it is to be read (RFC 7515 sections 4.1.3, 4.1.5
# and 4.1.11; RFC 7797). Neither issuer uses them, and to skip one could mean to verify something else.
_REFUSED_HEADERS = ("b64", "crit", "jwk", "x5u")


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was read, not yet verified. `signed`: the bytes under the signature."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signed: bytes
    signature: bytes

    @property
    def algorithm(self) -> Any:
        """What the header names: to be compared, never to be followed."""
        return self.header.get("alg")

    @property
    def kid(self) -> str | None:
        """The name of the signing key, an opaque text; None where the header has none."""
        value = self.header.get("kid")
        return value if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class Key:
    """An RSA public key of a key set, under the name that its issuer gave it ("" without one)."""

    kid: str
    public: RSAPublicKey


def read(data: bytes) -> Token:
    """Read a token: three parts of unpadded base64url, two JSON objects, nothing around them. Raises FormatError."""
    if len(data) > MAX_TOKEN_BYTES:
        raise FormatError(f"The token is {len(data)} bytes long; at most {MAX_TOKEN_BYTES} are read.")
    if data != data.strip():
        raise FormatError("The token has blanks or line breaks around it: store the token alone.")
    parts = data.split(b".")
    if len(parts) != 3:
        raise FormatError(
            f"A signed token has three parts with dots between them; this one has {len(parts)}."
        )
    header, claims, signature = (_decode(part) for part in parts)
    token = Token(
        _object(header, "The token's header"),
        _object(claims, "The token's payload"),
        data[: len(parts[0]) + 1 + len(parts[1])],
        signature,
    )
    _check_header(token.header)
    return token


def _decode(part: bytes) -> bytes:
    try:
        raw = shapes.b64url_decode(part)
    except ValueError:
        raw = b""
    if not raw:
        raise FormatError(
            "The token's parts must be base64url without padding, in its one form, and none may be empty."
        )
    return raw


def _object(data: bytes, what: str) -> dict[str, Any]:
    value = strictjson.loads(data, max_bytes=MAX_TOKEN_BYTES, what=what)
    if not isinstance(value, dict):
        raise FormatError(f"{what} must be a JSON object.")
    return value


def _check_header(header: dict[str, Any]) -> None:
    refused = [name for name in _REFUSED_HEADERS if name in header]
    if refused:
        raise FormatError(
            f"The token's header has {', '.join(refused)}, which this verifier does not accept."
        )
    if "kid" in header:
        shapes.text(256)(header["kid"], "The token's kid")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.upper() != "JWT":
        raise FormatError("The token's header names another type than JWT.")


def verify(token: Token, keys: Iterable[RSAPublicKey]) -> bool:
    """Whether the token names RS256 and one of `keys` signed it so."""
    return token.algorithm == ALGORITHM and any(_signed_by(token, key) for key in keys)


def _signed_by(token: Token, key: RSAPublicKey) -> bool:
    try:
        key.verify(token.signature, token.signed, PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=64)
def key_set(data: bytes) -> tuple[Key, ...]:
    """The RSA signing keys of a JWK set, as its issuer published it. Raises FormatError.

    Keys of other kinds, uses or algorithms are left out, for an issuer may publish them for other readers; and so are
    RSA keys of less than 2048 bits or with an exponent below 65537. A key may be written as numbers or, as Azure
    Attestation also does, as a certificate alone; where both are there, they must agree. The dates of such a certificate
    are not judged: whoever holds the set decides how long to hold it.
    """
    document = shapes.mapping(
        strictjson.loads(data, max_bytes=MAX_KEY_SET_BYTES, what="The key set"), "The key set"
    )
    entries = shapes.list_of(shapes.mapping, MAX_KEYS)(document.get("keys"), "The key set's keys")
    found = [_key(entry, f"The key set's key {number}") for number, entry in enumerate(entries, 1)]
    return tuple(key for key in found if key is not None)


def _key(entry: dict[str, Any], where: str) -> Key | None:
    if entry.get("kty") != "RSA" or entry.get("use", "sig") != "sig":
        return None
    if entry.get("alg", ALGORITHM) != ALGORITHM:
        return None
    kid = shapes.text(256)(entry["kid"], f"{where}: kid") if "kid" in entry else ""
    numbers = _numbers(entry, where) if "n" in entry or "e" in entry else None
    certified = _certified(entry["x5c"], where) if "x5c" in entry else None
    if numbers is None and certified is None:
        raise FormatError(f"{where} has neither numbers nor a certificate.")
    if numbers is not None and certified is not None and numbers != certified:
        raise FormatError(f"{where} and its certificate are two different keys.")
    public = numbers or certified
    assert public is not None
    if not MIN_KEY_BITS <= public.n.bit_length() <= MAX_KEY_BITS:
        return None
    if public.e % 2 == 0 or not 65537 <= public.e < 1 << 32:
        return None
    try:
        return Key(kid, public.public_key())
    except ValueError:
        raise FormatError(f"{where} is not an RSA key.") from None


def _numbers(entry: dict[str, Any], where: str) -> RSAPublicNumbers:
    n, e = (_integer(entry.get(name), f"{where}: {name}") for name in ("n", "e"))
    return RSAPublicNumbers(e, n)


def _integer(value: Any, where: str) -> int:
    if not isinstance(value, str) or not 0 < len(value) <= 2 * MAX_KEY_BITS // 8:
        raise FormatError(f"{where} must be a number in base64url.")
    try:
        return int.from_bytes(_decode(value.encode("ascii", "replace")), "big")
    except FormatError:
        raise FormatError(f"{where} must be a number in base64url.") from None


def _certified(value: Any, where: str) -> RSAPublicNumbers:
    if not isinstance(value, list) or not value:
        raise FormatError(f"{where}: x5c must be a list of certificates.")
    public = certificate(shapes.b64_decode(value[0], f"{where}: x5c"), where).public_key()
    if not isinstance(public, RSAPublicKey):
        raise FormatError(f"{where} has a certificate of another kind of key.")
    return public.public_numbers()


@lru_cache(maxsize=64)  # an issuer's certificates come again with each of its tokens
def certificate(der: bytes, where: str) -> x509.Certificate:
    """A certificate of DER bytes, its lazy parts read once so that none can fail later. Raises FormatError."""
    try:
        found = x509.load_der_x509_certificate(der)
        _ = (found.subject, found.issuer, found.extensions, found.public_key(), found.not_valid_after_utc)
        _ = (found.signature_algorithm_oid, found.not_valid_before_utc)
    except Exception:  # whatever a parser of another's bytes raises, the answer is no
        raise FormatError(f"{where} is not a certificate that can be read.") from None
    return found
