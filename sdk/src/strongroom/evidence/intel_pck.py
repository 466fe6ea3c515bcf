"""The certificates that vouch for an Intel platform: the PCK chain inside a quote, and what its leaf says.

Source: Intel SGX PCK Certificate and CRL Profile Specification, sections 1.2 to 1.3.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from strongroom.errors import FormatError
from strongroom.evidence.trust import Trust

LEAF_NAME = "Intel SGX PCK Certificate"
CA_NAMES = ("Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA")
ROOT_PURPOSE = "intel-root"

_SGX = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
_SGX_DER = bytes.fromhex("2a864886f84d010d01")  # the same, encoded: the members' names begin with it
_TCB, _CONFIGURATION = b"\x02", b"\x07"
ECDSA_SHA256 = ec.ECDSA(hashes.SHA256())
_PEM = re.compile(
    rb"-----BEGIN CERTIFICATE-----(\r?\n)((?:[A-Za-z0-9+/=]{1,76}\1){1,200})-----END CERTIFICATE-----(?:[\r\n]+|(?=\x00*\Z))"
)


@dataclass(frozen=True, slots=True)
class Platform:
    """What the leaf says about the platform: its ids, and the TCB level that the certificate was issued for."""

    fmspc: bytes
    ppid: bytes
    pce_id: bytes
    pce_svn: int
    components: bytes  # 16 SVNs
    flags: dict[str, bool]  # dynamic_platform, cached_keys, smt_enabled, where the leaf says so


@dataclass(frozen=True, slots=True)
class Chain:
    """Leaf, CA and root, as the quote holds them, with what their bytes alone decide.

    `shape_fault`: why they cannot hang together whatever their signatures say. `links`: (key, signature, message) of
    each signature between them; `dates`: name, first and last moment of each.
    """

    leaf: x509.Certificate
    ca: x509.Certificate
    root: x509.Certificate
    root_der: bytes
    root_sha256: str
    leaf_key: ec.EllipticCurvePublicKey
    platform: Platform
    shape_fault: str | None
    dates: tuple[tuple[str, datetime, datetime], ...]
    links: tuple[tuple[ec.EllipticCurvePublicKey, bytes, bytes], ...]


def split_pem(data: bytes) -> list[bytes]:
    """The DER of each certificate in `data`: PEM blocks, line ends between them and NUL bytes after the last.

    Anything else between or after them is refused, and so are base64 that is not canonical and lines of several lengths:
    but for how many line ends follow a block, each certificate has one form.
    """
    found, at = [], 0
    while match := _PEM.match(data, at):
        end, body = match[1], match[2]
        text, width = body.translate(None, b"\r\n"), body.index(end)
        try:
            der = base64.b64decode(text, validate=True)
        except binascii.Error:
            raise FormatError("A certificate in the PCK chain is not base64.") from None
        if base64.b64encode(der) != text:
            raise FormatError("A certificate in the PCK chain is not canonical base64.")
        if b"".join(text[start : start + width] + end for start in range(0, len(text), width)) != body:
            raise FormatError("A certificate in the PCK chain has lines of several lengths.")
        found.append(der)
        at = match.end()
    if data[at:].strip(b"\x00"):
        raise FormatError("The PCK chain holds more than certificates in PEM.")
    return found


@lru_cache(maxsize=256)
def read(pem: bytes) -> Chain:
    """Read leaf, CA and root from PEM. Nothing is verified. Raises FormatError.

    A platform's chain is the same in all its quotes, so what was read is kept; signatures and dates are not in it.
    """
    blocks = split_pem(pem)
    if len(blocks) != 3:
        raise FormatError(f"The PCK chain has {len(blocks)} certificates; it must have leaf, CA and root.")
    try:
        leaf, ca, root = (x509.load_der_x509_certificate(der) for der in blocks)
        key, extension = leaf.public_key(), leaf.extensions.get_extension_for_oid(_SGX).value
        fault = _shape_fault(leaf, ca, root)
        links = tuple(found for found in (_link(ca, root), _link(leaf, ca)) if found is not None)
        dates = tuple(
            (name, found.not_valid_before_utc, found.not_valid_after_utc)
            for name, found in (("leaf", leaf), ("CA", ca), ("root", root))
        )
        root_sha256 = root.fingerprint(hashes.SHA256()).hex()
    except Exception as error:  # the library has many kinds for one thing: bytes that are no certificate
        raise FormatError(f"The PCK chain cannot be read: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise FormatError("The PCK leaf's key is not a P-256 key.")
    if not isinstance(extension, x509.UnrecognizedExtension):
        raise FormatError("The PCK leaf's SGX extension cannot be read.")
    if len(links) != 2:
        fault = fault or "a certificate is not one that the certificate above it could have signed"
    platform = _platform(extension.value)
    return Chain(leaf, ca, root, blocks[2], root_sha256, key, platform, fault, dates, links)


def anchor(chain: Chain, trust: Trust) -> bytes | None:
    """DER of the pinned root that the chain ends in, byte for byte; None where it ends in another."""
    for found in trust.find(ROOT_PURPOSE):
        if found.sha256 == chain.root_sha256 and found.data == chain.root_der:
            return chain.root_der
    return None


def chain_fault(chain: Chain) -> str | None:
    """Why leaf, CA and root do not hang together; None where each is signed by the next and is what it should be."""
    if chain.shape_fault is not None:
        return chain.shape_fault
    for key, signature, message in chain.links:
        if not _verified(key, signature, message):
            return "a certificate is not signed by the one above it"
    return None


def _shape_fault(leaf: x509.Certificate, ca: x509.Certificate, root: x509.Certificate) -> str | None:
    if common_name(ca) not in CA_NAMES:
        return "the certificate above the leaf is not one of Intel's PCK CAs"
    if common_name(leaf) != LEAF_NAME:
        return "the leaf is not a PCK certificate"
    if not _is_ca(ca) or not _is_ca(root):
        return "a certificate above the leaf may not sign certificates"
    if leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        return "the leaf may sign certificates, so it is no platform's key"
    return None


def validity_fault(chain: Chain, now: datetime) -> str | None:
    """Which certificate is not valid at `now`, and since or until when; None where all three are."""
    for name, begin, end in chain.dates:
        if not begin <= now <= end:
            return f"the {name} is valid from {begin:%Y-%m-%d} to {end:%Y-%m-%d}"
    return None


def der_signature(raw: bytes) -> bytes:
    """The DER form of a signature of r and s, 32 bytes each."""
    return encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big"))


def verify_raw(key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes) -> bool:
    """Whether `signature`, r and s of 32 bytes each, is by the P-256 `key` over `message`. Never raises."""
    try:
        key.verify(der_signature(signature), message, ECDSA_SHA256)
    except (InvalidSignature, ValueError):
        return False
    return len(signature) == 64


def issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer` signed `certificate`: names, algorithm, signature. Raises what the library raises."""
    link = _link(certificate, issuer)
    return link is not None and _verified(*link)


def _link(
    certificate: x509.Certificate, issuer: x509.Certificate
) -> tuple[ec.EllipticCurvePublicKey, bytes, bytes] | None:
    """(key, signature, message) by which `issuer` would have signed `certificate`; None where it cannot have."""
    key, signature = issuer.public_key(), certificate.signature
    if certificate.issuer != issuer.subject or not isinstance(key, ec.EllipticCurvePublicKey):
        return None
    # The algorithm named outside the signed part, and the count of unused bits before the signature, are covered by
    # nothing: only the values that this profile has are accepted.
    if certificate.signature_algorithm_oid != x509.SignatureAlgorithmOID.ECDSA_WITH_SHA256:
        return None
    if not certificate.public_bytes(Encoding.DER).endswith(b"\x00" + signature):
        return None
    return key, signature, certificate.tbs_certificate_bytes


def _verified(key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message, ECDSA_SHA256)
    except InvalidSignature:
        return False
    return True


def _is_ca(certificate: x509.Certificate) -> bool:
    extensions = certificate.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    return constraints.ca and usage.key_cert_sign


def common_name(certificate: x509.Certificate) -> str:
    """The subject's one common name, or nothing. Raises what the library raises."""
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def _platform(data: bytes) -> Platform:
    """Read the SGX extension: a sequence of (name, value), the TCB and the configuration nested once more."""
    members = _members(data)
    tcb = _members(members.get(_TCB, (b"", 0))[0], wrapped=False, prefix=_SGX_DER + _TCB)
    flags = {}
    if _CONFIGURATION in members:
        inner = _members(members[_CONFIGURATION][0], wrapped=False, prefix=_SGX_DER + _CONFIGURATION)
        names = {b"\x01": "dynamic_platform", b"\x02": "cached_keys", b"\x03": "smt_enabled"}
        flags = {
            names[k]: value == b"\xff" for k, (value, tag) in inner.items() if k in names and tag == 0x01
        }
    try:
        components = bytes(_small(tcb[bytes([number])]) for number in range(1, 17))
        pce_svn = _small(tcb[b"\x11"], 0xFFFF)
        ppid, pce_id, fmspc = (members[name][0] for name in (b"\x01", b"\x03", b"\x04"))
    except KeyError:
        raise FormatError(
            "The PCK leaf's SGX extension lacks a member that every PCK certificate has."
        ) from None
    if (len(ppid), len(pce_id), len(fmspc)) != (16, 2, 6):
        raise FormatError("The PCK leaf's SGX extension has ids of a wrong size.")
    return Platform(fmspc, ppid, pce_id, pce_svn, components, flags)


def _small(value: tuple[bytes, int], most: int = 0xFF) -> int:
    raw, tag = value
    number = int.from_bytes(raw, "big")
    if tag != 0x02 or not raw or number > most or raw[0] & 0x80:
        raise FormatError("The PCK leaf's SGX extension has a version number out of range.")
    return number


def _members(
    data: bytes, *, wrapped: bool = True, prefix: bytes = _SGX_DER
) -> dict[bytes, tuple[bytes, int]]:
    """{last part of the name: (value, tag)} of a DER sequence of pairs; names are unique."""
    if wrapped:
        outer = list(_elements(data))
        if len(outer) != 1 or outer[0][0] != 0x30:
            raise FormatError("The PCK leaf's SGX extension is not one sequence.")
        data = outer[0][1]
    result: dict[bytes, tuple[bytes, int]] = {}
    for tag, pair in _elements(data):
        two = list(_elements(pair)) if tag == 0x30 else []
        if len(two) != 2 or two[0][0] != 0x06 or not two[0][1].startswith(prefix):
            raise FormatError("The PCK leaf's SGX extension has a member that is not a name and a value.")
        name = two[0][1][len(prefix) :]
        if name in result:
            raise FormatError("The PCK leaf's SGX extension names a member twice.")
        result[name] = (two[1][1], two[1][0])
    return result


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, content) of each DER element in `data`, with definite, minimal lengths of up to two bytes."""
    at = 0
    while at < len(data):
        if at + 2 > len(data):
            raise FormatError("The PCK leaf's SGX extension ends inside an element.")
        tag, size, at = data[at], data[at + 1], at + 2
        if size >= 0x80:
            more = size & 0x7F
            size = int.from_bytes(data[at : at + more], "big")
            at += more
            if more not in (1, 2) or size < (0x80, 0x100)[more - 1]:
                raise FormatError("The PCK leaf's SGX extension is not DER.")
        if at + size > len(data):
            raise FormatError("The PCK leaf's SGX extension ends inside an element.")
        yield tag, data[at : at + size]
        at += size
