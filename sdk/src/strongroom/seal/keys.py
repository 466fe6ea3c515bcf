"""Wrapping a data key to a recipient: HPKE, single shot, base mode (RFC 9180 section 6.1).

Both suites use HKDF-SHA256 and AES-256-GCM. `x25519` is DHKEM(X25519, HKDF-SHA256), which browsers can do too;
`mlkem768x25519` is the hybrid of ML-KEM-768 (FIPS 203) and X25519 of draft-ietf-hpke-pq, which stays closed to
somebody who records today and owns a quantum computer later. The wrapped key is `enc || ciphertext`.

The meaning of a wrapped key (whose, for what) is not in it: it is the HPKE `info`, which both sides must build
from what they know. See `strongroom.seal.header`.

Raw key bytes: x25519 public 32, private 32. mlkem768x25519 public = ML-KEM encapsulation key (1184) || X25519 (32),
private = ML-KEM seed (64) || X25519 (32).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from strongroom import shapes
from strongroom.errors import FormatError, SealError
from strongroom.seal.stream import DATA_KEY_SIZE

X25519 = "x25519"
MLKEM768X25519 = "mlkem768x25519"

_MLKEM_PUBLIC = 1184
_MLKEM_SEED = 64
_PUBLIC_SIZES = {X25519: 32, MLKEM768X25519: _MLKEM_PUBLIC + 32}
_PRIVATE_SIZES = {X25519: 32, MLKEM768X25519: _MLKEM_SEED + 32}
_ENC_SIZES = {X25519: 32, MLKEM768X25519: 1088 + 32}
_TAG_SIZE = 16

_SUITES = {
    X25519: hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM),
    MLKEM768X25519: hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM),
}
SUITES = tuple(_SUITES)


def key_id(public: bytes) -> str:
    """The first 16 hex digits of SHA-256 of the raw public key: a name, not a proof of identity."""
    return hashlib.sha256(public).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A recipient. `raw` as described at the top of the module."""

    suite: str
    raw: bytes

    def __post_init__(self) -> None:
        _check(self.suite, self.raw, _PUBLIC_SIZES, "public")
        _public(self)  # an encapsulation key that is not one is found here, not when somebody wraps to it

    @property
    def id(self) -> str:
        return key_id(self.raw)

    def to_json(self) -> dict[str, str]:
        return {"suite": self.suite, "public": shapes.b64_encode(self.raw), "id": self.id}

    @classmethod
    def from_json(cls, value: Any, where: str = "The public key") -> PublicKey:
        """Read a key object, refusing unknown members and an id that is not the key's. Raises FormatError."""
        document = shapes.fields(
            value, where, {"suite": shapes.one_of(*SUITES), "public": shapes.b64(), "id": shapes.text(16)}
        )
        raw = shapes.b64_decode(document["public"], f"{where}.public")
        try:
            key = cls(document["suite"], raw)
        except SealError as error:
            raise FormatError(f"{where} cannot be used: {error}") from None
        if document["id"] != key.id:
            raise FormatError(f"{where} carries the id of another key.")
        return key


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """The secret half. Never printed: `repr` leaves the bytes out."""

    suite: str
    raw: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check(self.suite, self.raw, _PRIVATE_SIZES, "private")

    @property
    def public(self) -> PublicKey:
        x25519 = X25519PrivateKey.from_private_bytes(self.raw[-32:]).public_key().public_bytes_raw()
        if self.suite == X25519:
            return PublicKey(X25519, x25519)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(self.raw[:_MLKEM_SEED]).public_key().public_bytes_raw()
        return PublicKey(MLKEM768X25519, mlkem + x25519)

    def to_json(self) -> dict[str, str]:
        """For a key file of mode 0600: the public key object with a `private` member."""
        return {**self.public.to_json(), "private": shapes.b64_encode(self.raw)}

    @classmethod
    def from_json(cls, value: Any, where: str = "The private key") -> PrivateKey:
        document = dict(shapes.mapping(value, where))
        raw = shapes.b64_decode(document.pop("private", None), f"{where}.private")
        public = PublicKey.from_json(document, where)
        try:
            key = cls(public.suite, raw)
        except SealError as error:
            raise FormatError(f"{where} cannot be used: {error}") from None
        if key.public != public:
            raise FormatError(f"{where} does not belong to the public key beside it.")
        return key


def generate_key_pair(suite: str = MLKEM768X25519) -> PrivateKey:
    """A fresh private key of `suite`; its `.public` is for others. Raises SealError for an unknown suite."""
    x25519 = X25519PrivateKey.generate().private_bytes_raw()
    if suite == MLKEM768X25519:
        return PrivateKey(suite, MLKEM768PrivateKey.generate().private_bytes_raw() + x25519)
    return PrivateKey(suite, x25519)


def wrap_key(data_key: bytes, recipient: PublicKey, info: bytes) -> bytes:
    """Encrypt a 32-byte data key to `recipient`, bound to `info`. Returns enc || ciphertext.

    Raises SealError for another key length, or a public key that gives no shared secret (RFC 9180 section 7.1.4).
    """
    if len(data_key) != DATA_KEY_SIZE:
        raise SealError(f"A data key has {DATA_KEY_SIZE} bytes; this one has {len(data_key)}.")
    try:
        return _SUITES[recipient.suite].encrypt(data_key, _public(recipient), info)
    except (ValueError, InvalidTag):
        raise SealError(
            "The data key cannot be wrapped: the recipient's public key is not a usable one."
        ) from None


def unwrap_key(wrapped: bytes, private: PrivateKey, info: bytes) -> bytes:
    """The 32-byte data key. Raises SealError for another recipient, other info, or changed bytes."""
    expected = _ENC_SIZES[private.suite] + DATA_KEY_SIZE + _TAG_SIZE
    if len(wrapped) != expected:
        raise SealError(
            f"A wrapped key of suite {private.suite} has {expected} bytes; this one has {len(wrapped)}."
        )
    try:
        return _SUITES[private.suite].decrypt(wrapped, _private(private), info)
    except (ValueError, InvalidTag):
        raise SealError(
            "The wrapped key cannot be opened: it is for another recipient, for another purpose or dataset version, "
            "or was changed."
        ) from None


def _check(suite: str, raw: bytes, sizes: dict[str, int], half: str) -> None:
    if suite not in sizes:
        raise SealError(f"The key suite {suite!r} is not known. Known suites: {', '.join(SUITES)}.")
    if len(raw) != sizes[suite]:
        raise SealError(f"A {half} key of suite {suite} has {sizes[suite]} bytes; this one has {len(raw)}.")


def _public(key: PublicKey) -> X25519PublicKey | hpke.MLKEM768X25519PublicKey:
    try:
        x25519 = X25519PublicKey.from_public_bytes(key.raw[-32:])
        if key.suite == X25519:
            return x25519
        return hpke.MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(key.raw[:_MLKEM_PUBLIC]), x25519
        )
    except ValueError:
        raise SealError("The public key is not a valid one.") from None


def _private(key: PrivateKey) -> X25519PrivateKey | hpke.MLKEM768X25519PrivateKey:
    x25519 = X25519PrivateKey.from_private_bytes(key.raw[-32:])
    if key.suite == X25519:
        return x25519
    return hpke.MLKEM768X25519PrivateKey(MLKEM768PrivateKey.from_seed_bytes(key.raw[:_MLKEM_SEED]), x25519)
