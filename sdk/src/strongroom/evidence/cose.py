"""COSE_Sign1 messages (RFC 9052 section 4.2) under PS384, with the signer's certificates in the message.

Which keys count is for the caller to say: `chain` only shows that each certificate is signed by the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from strongroom.errors import FormatError
from strongroom.evidence import cbor, jose

SIGN1_TAG = 18
PS384 = -38
SHA256 = -16
MAX_BYTES = 256 << 10
MAX_CERTIFICATES = 8
# Header parameters (IANA, COSE Header Parameters).
ALG, CRIT, CONTENT_TYPE, CWT_CLAIMS, X5CHAIN, X5T = 1, 2, 3, 15, 33, 34


@dataclass(frozen=True, slots=True)
class Sign1:
    """A message. `protected`: the encoded header that is signed; `header`: the same, read. `unsigned`: the names of the others."""

    protected: bytes
    header: dict[int | str, Any]
    payload: bytes
    signature: bytes
    unsigned: frozenset[int | str]


def parse(data: bytes) -> Sign1:
    """Read a message, tagged or not, with its payload inside. Raises FormatError."""
    if len(data) > MAX_BYTES:
        raise FormatError(f"A COSE message of more than {MAX_BYTES} bytes is not read.")
    value = cbor.loads(data)
    if isinstance(value, cbor.Tag) and value.number == SIGN1_TAG:
        value = value.value
    if not isinstance(value, list) or len(value) != 4:
        raise FormatError("The message is not a COSE_Sign1: an array of four.")
    protected, unprotected, payload, signature = value
    if not isinstance(unprotected, dict) or not all(
        isinstance(part, bytes) for part in (protected, payload, signature)
    ):
        raise FormatError("The message is not a COSE_Sign1: bytes, a map, bytes and bytes.")
    header = cbor.loads(protected)
    if not isinstance(header, dict):
        raise FormatError("The protected header of the message is not a map.")
    if CRIT in header:
        raise FormatError("The message has critical headers, which are not known.")
    return Sign1(protected, header, payload, signature, frozenset(unprotected))


def chain(message: Sign1) -> list[x509.Certificate]:
    """The certificates of the protected header, signer first, each signed by the next. Raises FormatError."""
    raw = message.header.get(X5CHAIN)
    if not isinstance(raw, list) or not 2 <= len(raw) <= MAX_CERTIFICATES:
        raise FormatError(f"The message must bring 2 to {MAX_CERTIFICATES} certificates.")
    if not all(isinstance(item, bytes) for item in raw):
        raise FormatError("The certificates of the message are not bytes.")
    found = [jose.certificate(item, "The endorsement") for item in raw]
    for below, (certificate, issuer) in enumerate(pairwise(found)):  # below: authorities under this issuer
        if not _issued(certificate, issuer, below):
            raise FormatError("The certificates of the message are not a chain, signer first.")
    thumbprint = message.header.get(X5T)
    if thumbprint is not None and thumbprint != [SHA256, found[0].fingerprint(hashes.SHA256())]:
        raise FormatError("The message names another signer than its first certificate.")
    return found


def _issued(certificate: x509.Certificate, issuer: x509.Certificate, below: int) -> bool:
    """Whether `issuer` signed the certificate and may do so with `below` authorities between it and the signer."""
    try:
        certificate.verify_directly_issued_by(issuer)
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound):
        return False
    deep = constraints.path_length is not None and constraints.path_length < below
    return constraints.ca and usage.key_cert_sign and not deep


def purposes(certificate: x509.Certificate) -> frozenset[str]:
    """The extended key usages of a certificate, as dotted OIDs; none where there are none."""
    try:
        value = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(usage.dotted_string for usage in value)


def signed(message: Sign1, certificate: x509.Certificate) -> bool:
    """Whether the message names PS384 and the certificate's RSA key made its signature."""
    if message.header.get(ALG) != PS384:
        return False
    body = b"".join(
        (
            cbor.header(4, 4),
            _string(3, b"Signature1"),
            _string(2, message.protected),
            _string(2, b""),
            _string(2, message.payload),
        )
    )
    try:
        key = certificate.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            return False
        scheme = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
        key.verify(message.signature, body, scheme, hashes.SHA384())
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        return False
    return True


def _string(major: int, value: bytes) -> bytes:
    return cbor.header(major, len(value)) + value
