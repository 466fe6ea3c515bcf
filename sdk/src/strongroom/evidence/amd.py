"""AMD's chain from a product's root key to the key that signs reports.

    ARK-<product>  ->  SEV-<product>       (ASK)   ->  SEV-VCEK: the key of one chip at one TCB version
    ARK-<product>  ->  SEV-VLEK-<product>  (ASVK)  ->  SEV-VLEK: the key that AMD lent to one cloud, for a year

Every signature is RSASSA-PSS with SHA-384. Only the ARKs of the trust store count as roots; intermediates may come with
the evidence, for they are worth what the ARK's signature on them is worth. AMD, 57230 (VCEK) and 57230-A (VLEK).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from strongroom import shapes
from strongroom.errors import FormatError
from strongroom.evidence import der
from strongroom.evidence.der import Certificate, RevocationList
from strongroom.evidence.model import Checks
from strongroom.evidence.policy import PRODUCTS
from strongroom.evidence.trust import Trust

KINDS = {"SEV-VCEK": "VCEK", "SEV-VLEK": "VLEK"}
# The intermediate's common name before the product, and where the trust store keeps it.
_ISSUER = {"VCEK": ("SEV-", "amd-ask"), "VLEK": ("SEV-VLEK-", "amd-asvk")}
_PRODUCT_NAMES = {
    **{name: name for name in PRODUCTS},
    "Bergamo": "Genoa",
    "Siena": "Genoa",
}  # one key hierarchy

_ARC = "1.3.6.1.4.1.3704.1."
_PRODUCT_NAME, _HWID, _CSP = _ARC + "2", _ARC + "4", _ARC + "5"
_TCB = {"bootloader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8"}
_FMC = "3.9"
_PSS = der.Pss(der.SHA384, der.SHA384, 48)
_KNOWN_CRITICAL = frozenset((der.BASIC_CONSTRAINTS, der.KEY_USAGE))


@dataclass(frozen=True, slots=True)
class Endorsement:
    """What an endorsement certificate says of its key.

    `tcb`: the version that the key is derived from. `hwid`: the chip, None for a VLEK. `csp`: the cloud that a VLEK
    was lent to. `key`: None where it is not an ECDSA key on P-384. `anchor`: fingerprint of the pinned ARK, empty
    where the certificate does not lead to one.
    """

    kind: str
    product: str
    product_name: str
    tcb: dict[str, int]
    hwid: bytes | None
    csp: str
    key: ec.EllipticCurvePublicKey | None
    anchor: str


def endorse(
    checks: Checks, *, vek: bytes, chain: bytes | None, crl: bytes | None, now: datetime, trust: Trust
) -> Endorsement | None:
    """Check the chain of an endorsement certificate; checks `trust-anchor`, `chain`, `validity`, `revocation`.

    `vek`: DER or PEM; a PEM file may hold the chain as well. `chain`: DER or PEM in any order. Returns what the
    certificate says, also where its chain failed (the checks say so); None where it could not be read.
    """
    try:
        leaf, others = _certificates(vek, chain)
        kind, product = _kind(leaf)
        said = _said(leaf, kind, product)
    except FormatError as error:
        checks.failed("chain", f"The endorsement certificate cannot be used: {error}")
        return None
    path = _path(checks, leaf, kind, product, others, trust)
    if path is not None:
        _check_validity(checks, (leaf, *path), now)
    _check_revocation(checks, crl, leaf, path, now)
    return replace(said, anchor=path[-1].sha256 if path else "")


def signed_by(certificate: Certificate | RevocationList, issuer: Certificate) -> bool:
    """Whether `issuer` is named as the issuer and its key made the signature."""
    try:
        key = _rsa(issuer.spki)
        if key is None or certificate.issuer != issuer.subject or der.pss(certificate.algorithm) != _PSS:
            return False
        scheme = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=_PSS.salt)
        key.verify(certificate.signature, certificate.tbs, scheme, hashes.SHA384())
    except (InvalidSignature, FormatError):
        return False
    return True


@lru_cache(maxsize=32)
def _rsa(spki: bytes) -> rsa.RSAPublicKey | None:
    key = _load(spki)
    return key if isinstance(key, rsa.RSAPublicKey) else None


def _p384(spki: bytes) -> ec.EllipticCurvePublicKey | None:
    key = _load(spki)
    return key if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1) else None


def _load(spki: bytes) -> object:
    try:
        return load_der_public_key(spki)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


def _certificates(vek: bytes, chain: bytes | None) -> tuple[Certificate, list[Certificate]]:
    """The one endorsement certificate of the evidence, and every other certificate that came with it.

    A chain may hold the endorsement certificate as well; a copy of it says nothing more.
    """
    brought = [der.certificate(raw) for raw in _values(vek)]
    leaves = [found for found in brought if found.subject_cn in KINDS]
    if len(leaves) != 1:
        raise FormatError(f"it must be one VCEK or VLEK, and {len(leaves)} were found.")
    others = brought + [der.certificate(raw) for raw in (() if chain is None else _values(chain))]
    return leaves[0], [found for found in others if found.raw != leaves[0].raw]


def _values(data: bytes) -> list[bytes]:
    """The certificates of a file: in PEM, or in DER one after the other, as firmware keeps them."""
    found = der.unwrap(data, "CERTIFICATE")
    if data[:1] != b"\x30":
        return found
    found, offset = [], 0
    while offset < len(data):
        element, offset = der.read(data, offset)
        found.append(element.raw)
        if len(found) > der.MAX_CERTIFICATES:
            raise FormatError(f"more than {der.MAX_CERTIFICATES} certificates came in one file.")
    return found


def _kind(leaf: Certificate) -> tuple[str, str]:
    """VCEK or VLEK, and the product by the issuer's name."""
    kind = KINDS[leaf.subject_cn]
    prefix = _ISSUER[kind][0]
    product = leaf.issuer_cn.removeprefix(prefix)
    if not leaf.issuer_cn.startswith(prefix) or product not in PRODUCTS:
        raise FormatError(f"a {kind} is issued by {prefix}<product>, and this one by {leaf.issuer_cn!r}.")
    if leaf.critical:
        raise FormatError(f"it has critical extensions that are not known: {sorted(leaf.critical)}.")
    return kind, product


def _said(leaf: Certificate, kind: str, product: str) -> Endorsement:
    """What the certificate says, not yet anchored. Raises FormatError where a part is missing or not of its form."""
    parts = {**({"fmc": _FMC} if product == "Turin" else {}), **_TCB}
    tcb = {name: _number(leaf, _ARC + arc) for name, arc in parts.items()}
    name = _text(leaf, _PRODUCT_NAME)
    if _PRODUCT_NAMES.get(name.split("-")[0]) != product:
        raise FormatError(f"it is for the product {name!r}, and its issuer signs for {product}.")
    hwid = _octets(_extension(leaf, _HWID), 8 if product == "Turin" else 64) if kind == "VCEK" else None
    if kind == "VLEK" and _HWID in leaf.extensions:
        raise FormatError("it is a VLEK and names one chip.")
    csp = _text(leaf, _CSP) if kind == "VLEK" else ""
    return Endorsement(kind, product, name, tcb, hwid, csp, _p384(leaf.spki), anchor="")


def _extension(leaf: Certificate, name: str) -> bytes:
    if name not in leaf.extensions:
        raise FormatError(f"it lacks the extension {name}.")
    return leaf.extensions[name]


def _number(leaf: Certificate, name: str) -> int:
    value = der.integer(der.whole(_extension(leaf, name), der.INTEGER))
    if not 0 <= value <= 255:
        raise FormatError(f"its extension {name} is not a byte.")
    return value


def _text(leaf: Certificate, name: str) -> str:
    element, _ = der.read(_extension(leaf, name))
    if element.tag not in (der.IA5_STRING, der.UTF8_STRING, der.PRINTABLE_STRING):
        raise FormatError(f"its extension {name} is not text.")
    try:
        return shapes.text(200)(element.content.decode("ascii"), f"extension {name}")  # type: ignore[no-any-return]
    except UnicodeError:
        raise FormatError(f"its extension {name} is not text.") from None


def _octets(value: bytes, size: int) -> bytes:
    """The hardware id: raw, or wrapped once more as an octet string. AMD has issued both."""
    raw = value if len(value) == size else der.whole(value, der.OCTET_STRING).content
    if len(raw) != size:
        raise FormatError(f"its hardware id has {len(raw)} bytes where {size} are due.")
    return raw


def _anchors(trust: Trust, purpose: str, product: str) -> list[Certificate]:
    return [der.certificate(anchor.data) for anchor in trust.find(purpose, product=product)]


def _path(
    checks: Checks,
    leaf: Certificate,
    kind: str,
    product: str,
    others: list[Certificate],
    trust: Trust,
) -> tuple[Certificate, Certificate] | None:
    """The intermediate and the pinned root that the certificate leads to; checks `trust-anchor` and `chain`."""
    try:
        roots, stored = (_anchors(trust, purpose, product) for purpose in ("amd-ark", _ISSUER[kind][1]))
        fault = "" if roots else f"The trust store has no AMD root key for {product}."
    except FormatError as error:
        fault = f"The trust store's certificates for {product} cannot be read: {error}"
    if fault:
        checks.failed("trust-anchor", fault)
        checks.not_available("chain", "Without a root the chain was not followed.")
        return None
    pinned = {root.sha256: root for root in roots}
    signers: list[tuple[Certificate, Certificate]] = []
    strangers = []
    for found in others:
        if found.sha256 in pinned:
            continue
        by = _signer(found, roots)
        if by is None:
            strangers.append(found.subject_cn or "a certificate without a name")
        else:
            signers.append((found, by))
    if strangers:
        checks.failed(
            "trust-anchor",
            f"The evidence brings certificates that do not lead to the pinned AMD root key for {product}: "
            f"{', '.join(strangers)}.",
        )
        checks.failed("chain", "The chain that came with the evidence is not AMD's for this product.")
        return None
    names = ", ".join(sorted(pinned))
    checks.passed("trust-anchor", f"The root is the pinned AMD root key for {product}: {names}.")
    held = [(found, by) for found in stored if (by := _signer(found, roots))]
    wanted = _ISSUER[kind][0] + product
    for intermediate, root in _distinct((*held, *signers)):
        if intermediate.subject_cn == wanted and signed_by(leaf, intermediate):
            checks.passed("chain", f"The {kind} is signed by {wanted}, and that by the pinned root.")
            return intermediate, root
    checks.failed(
        "chain",
        f"The {kind} is not signed by {wanted}, the key that AMD's root names for it, as far as that is at hand.",
    )
    return None


def _distinct(
    found: Iterable[tuple[Certificate, Certificate]],
) -> list[tuple[Certificate, Certificate]]:
    return list({one.raw: (one, root) for one, root in found}.values())


def _signer(found: Certificate, roots: list[Certificate]) -> Certificate | None:
    """The root that signed an intermediate; None where none did, or where it may not sign certificates."""
    try:
        if not found.is_ca or found.critical - _KNOWN_CRITICAL:
            return None
    except FormatError:
        return None
    return next((root for root in roots if signed_by(found, root)), None)


def _check_validity(checks: Checks, path: tuple[Certificate, ...], now: datetime) -> None:
    wrong = [
        f"{found.subject_cn} is valid from {shapes.format_time(found.not_before)} to {shapes.format_time(found.not_after)}"
        for found in path
        if not found.not_before <= now <= found.not_after
    ]
    checks.require(
        "validity",
        not wrong,
        f"Every certificate of the chain is valid at {shapes.format_time(now)}.",
        f"At {shapes.format_time(now)} a certificate is not valid: {'; '.join(wrong)}.",
    )


def _check_revocation(
    checks: Checks,
    crl: bytes | None,
    leaf: Certificate,
    path: tuple[Certificate, Certificate] | None,
    now: datetime,
) -> None:
    if crl is None:
        checks.not_available("revocation", "No revocation list came with the evidence.")
        return
    if path is None:
        checks.not_available("revocation", "Without a chain the revocation list was not looked at.")
        return
    intermediate, root = path
    try:
        (raw,) = der.unwrap(crl, "X509 CRL")
        found = der.revocation_list(raw)
    except (FormatError, ValueError) as error:
        checks.failed("revocation", f"The revocation list cannot be read: {error}")
        return
    if found.critical or not signed_by(found, root):
        checks.failed("revocation", "The revocation list is not one of the pinned AMD root key.")
        return
    if now < found.this_update or (found.next_update is not None and now > found.next_update):
        until = "no end" if found.next_update is None else shapes.format_time(found.next_update)
        checks.failed(
            "revocation",
            f"The revocation list is for {shapes.format_time(found.this_update)} to {until}, which does not include "
            f"{shapes.format_time(now)}.",
        )
        return
    checks.require(
        "revocation",
        intermediate.serial not in found.revoked,
        f"AMD's revocation list of {shapes.format_time(found.this_update)} does not name {intermediate.subject_cn}.",
        f"AMD has revoked {intermediate.subject_cn} (serial number {intermediate.serial}).",
    )
