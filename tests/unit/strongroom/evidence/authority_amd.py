"""An AMD, and a Microsoft that endorses utility VMs, of one's own: chains, reports and endorsements of the same shape.

Nothing that they sign is accepted by a verifier that holds the shipped anchors. Every value that a test may want to
get wrong is a field or an argument, set before anything is signed. Keys are made on first use and kept.

    Vek(...).der()                       a VCEK or VLEK with AMD's extensions and serial number 0
    Report(...).sign(vek)                1184 bytes, signed by the key of that certificate
    evidence(report, vek, ...)           an envelope of type snp
    Endorsement(...).cose()              a COSE_Sign1 over a launch measurement
    aci_evidence(report, ...)            an envelope of type azure-aci
    anchors()                            what a verifier must hold to accept all this
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier

from strongroom.evidence import Anchor, envelope

NOW = datetime(2026, 2, 1, 12, 0, tzinfo=UTC)
NOT_BEFORE, NOT_AFTER = datetime(2025, 1, 1, tzinfo=UTC), datetime(2032, 1, 1, tzinfo=UTC)
PRODUCTS = ("Milan", "Genoa", "Turin")
ARC = "1.3.6.1.4.1.3704.1."
POLICY = 1 << 17 | 1 << 16 | 0x1F
CPUID = {"Milan": (0x19, 0x01, 1), "Genoa": (0x19, 0x11, 1), "Turin": (0x1A, 0x02, 1)}
TCB = {"bootloader": 4, "tee": 0, "snp": 24, "microcode": 219}
TCB_TURIN = {"fmc": 1, **TCB}
HWID = bytes(range(1, 65))
SERIALS = {"ark": 1, "ask": 2, "asvk": 3}
IMAGE = "sha256:" + "ab" * 32
NONCE_BYTES = hashlib.sha256(b"context").digest()
NONCE = base64.urlsafe_b64encode(NONCE_BYTES).rstrip(b"=").decode()


# --- DER ------------------------------------------------------------------------------------------------------------
def tlv(tag: int, *contents: bytes) -> bytes:
    body = b"".join(contents)
    size = len(body)
    head = bytes((size,)) if size < 128 else (size.bit_length() + 7 >> 3 | 0x80).to_bytes(1) + _bytes(size)
    return bytes((tag,)) + head + body


def _bytes(value: int) -> bytes:
    return value.to_bytes(value.bit_length() + 7 >> 3)


def integer(value: int) -> bytes:
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, signed=True))


def oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    body = b""
    for number in (first * 40 + second, *rest):
        part = bytes((number & 0x7F,))
        while number := number >> 7:
            part = bytes((number & 0x7F | 0x80,)) + part
        body += part
    return tlv(0x06, body)


def time(moment: datetime) -> bytes:
    if moment.year < 2050:
        return tlv(0x17, moment.strftime("%y%m%d%H%M%SZ").encode())
    return tlv(0x18, moment.strftime("%Y%m%d%H%M%SZ").encode())


def name(cn: str) -> bytes:
    attributes = (
        ("2.5.4.11", "Engineering"),
        ("2.5.4.6", "US"),
        ("2.5.4.10", "Test Micro Devices"),
        ("2.5.4.3", cn),
    )
    return tlv(
        0x30, *(tlv(0x31, tlv(0x30, oid(kind), tlv(0x0C, text.encode()))) for kind, text in attributes)
    )


def pss_algorithm(salt: int = 48, trailer: bool = True) -> bytes:
    sha384 = tlv(0x30, oid("2.16.840.1.101.3.4.2.2"), tlv(0x05))
    parts = [
        tlv(0xA0, sha384),
        tlv(0xA1, tlv(0x30, oid("1.2.840.113549.1.1.8"), sha384)),
        tlv(0xA2, integer(salt)),
    ]
    return tlv(
        0x30, oid("1.2.840.113549.1.1.10"), tlv(0x30, *parts, *([tlv(0xA3, integer(1))] if trailer else []))
    )


def extension(dotted: str, value: bytes, critical: bool = False) -> bytes:
    return tlv(0x30, oid(dotted), *([tlv(0x01, b"\xff")] if critical else []), tlv(0x04, value))


CA_EXTENSIONS = (
    extension("2.5.29.19", tlv(0x30, tlv(0x01, b"\xff"), integer(0)), critical=True),
    extension("2.5.29.15", tlv(0x03, b"\x02\x04"), critical=True),
)


# --- AMD ------------------------------------------------------------------------------------------------------------
rsa_bits = 2048  # AMD's and Microsoft's are of 4096 bits, which take seconds to make: for the bench only


@cache
def rsa_key(label: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, rsa_bits)


@cache
def ec_key(label: str = "vek", curve: str = "secp384r1") -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key({"secp384r1": ec.SECP384R1, "secp256r1": ec.SECP256R1}[curve]())


def spki(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def sign_pss(key: rsa.RSAPrivateKey, data: bytes) -> bytes:
    return key.sign(data, padding.PSS(padding.MGF1(hashes.SHA384()), 48), hashes.SHA384())


def certify(
    cn: str,
    public: bytes,
    issuer_cn: str,
    issuer: rsa.RSAPrivateKey,
    *,
    serial: int,
    extensions: tuple[bytes, ...],
    not_before: datetime = NOT_BEFORE,
    not_after: datetime = NOT_AFTER,
    algorithm: bytes | None = None,
) -> bytes:
    algorithm = algorithm or pss_algorithm()
    tbs = tlv(
        0x30, tlv(0xA0, integer(2)), integer(serial), algorithm, name(issuer_cn),
        tlv(0x30, time(not_before), time(not_after)), name(cn), public, tlv(0xA3, tlv(0x30, *extensions)),
    )  # fmt: skip
    return tlv(0x30, tbs, algorithm, tlv(0x03, b"\x00", sign_pss(issuer, tbs)))


def ark(product: str = "Milan", label: str = "ark") -> bytes:
    """The root; another `label` makes a stranger's root with the same name."""
    return _ark(product, label)


@cache  # a cache tells a default from the same value given: hence two functions for each
def _ark(product: str, label: str) -> bytes:
    key = rsa_key(f"{label}-{product}")
    cn = f"ARK-{product}"
    return certify(cn, spki(key), cn, key, serial=SERIALS["ark"], extensions=CA_EXTENSIONS)


def intermediate(
    product: str = "Milan",
    kind: str = "VCEK",
    root: str = "ark",
    not_after: datetime = NOT_AFTER,
    ca: bool = True,
) -> bytes:
    """ASK (for VCEKs) or ASVK (for VLEKs), signed by the root key `root`."""
    return _intermediate(product, kind, root, not_after, ca)


@cache
def _intermediate(product: str, kind: str, root: str, not_after: datetime, ca: bool) -> bytes:
    label = "ask" if kind == "VCEK" else "asvk"
    return certify(
        issuer_name(kind, product), spki(rsa_key(f"{label}-{product}")), f"ARK-{product}",
        rsa_key(f"{root}-{product}"), serial=SERIALS[label], extensions=CA_EXTENSIONS if ca else (),
        not_after=not_after,
    )  # fmt: skip


def issuer_name(kind: str, product: str) -> str:
    return f"SEV-{product}" if kind == "VCEK" else f"SEV-VLEK-{product}"


def pem(*certificates: bytes, label: str = "CERTIFICATE") -> bytes:
    return b"".join(
        f"-----BEGIN {label}-----\n".encode() + base64.encodebytes(raw) + f"-----END {label}-----\n".encode()
        for raw in certificates
    )


def chain(product: str = "Milan", kind: str = "VCEK") -> bytes:
    return pem(intermediate(product, kind), ark(product))


def crl(
    product: str = "Milan",
    *,
    revoked: tuple[int, ...] = (),
    root: str = "ark",
    this_update: datetime = NOT_BEFORE,
    next_update: datetime | None = NOT_AFTER,
) -> bytes:
    entries = [tlv(0x30, integer(serial), time(this_update)) for serial in revoked]
    tbs = tlv(
        0x30, integer(1), pss_algorithm(), name(f"ARK-{product}"), time(this_update),
        *([time(next_update)] if next_update else []), *([tlv(0x30, *entries)] if entries else []),
        tlv(0xA0, tlv(0x30, extension("2.5.29.20", integer(7)))),
    )  # fmt: skip
    return tlv(0x30, tbs, pss_algorithm(), tlv(0x03, b"\x00", sign_pss(rsa_key(f"{root}-{product}"), tbs)))


@dataclass(frozen=True)
class Vek:
    """An endorsement certificate. `signer`: label of the key that signs it; default: the right intermediate."""

    product: str = "Milan"
    kind: str = "VCEK"
    cn: str = ""
    issuer_cn: str = ""
    signer: str = ""
    product_name: str = ""
    tcb: Mapping[str, int] = field(default_factory=dict)
    hwid: bytes = HWID
    nested_hwid: bool = False
    csp: str = "CN=cc-test.cloud.example"
    key: str = "vek"
    curve: str = "secp384r1"
    serial: int = 0
    not_before: datetime = NOT_BEFORE
    not_after: datetime = NOT_AFTER
    without: tuple[str, ...] = ()  # arcs of extensions to leave out
    more: tuple[bytes, ...] = ()  # whole extensions to add
    algorithm: bytes | None = None

    @property
    def private(self) -> ec.EllipticCurvePrivateKey:
        return ec_key(self.key, self.curve)

    def der(self) -> bytes:
        """The certificate: the same bytes each time, although its signature is randomised."""
        known = repr(self)
        if known not in _made:
            _made[known] = self._certify()
        return _made[known]

    def _certify(self) -> bytes:
        label = self.signer or f"{'ask' if self.kind == 'VCEK' else 'asvk'}-{self.product}"
        return certify(
            self.cn or f"SEV-{self.kind}",
            spki(self.private),
            self.issuer_cn or issuer_name(self.kind, self.product),
            rsa_key(label),
            serial=self.serial,
            extensions=(*self._extensions(), *self.more),
            not_before=self.not_before,
            not_after=self.not_after,
            algorithm=self.algorithm,
        )

    def _extensions(self) -> list[bytes]:
        name_ = self.product_name or (f"{self.product}-B0" if self.kind == "VCEK" else self.product)
        tcb = self.tcb or (TCB_TURIN if self.product == "Turin" else TCB)
        arcs = {"bootloader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8", "fmc": "3.9"}
        values = {"1": integer(1), "2": tlv(0x16, name_.encode())}
        values |= {arcs[part]: integer(number) for part, number in tcb.items()}
        values |= {f"3.{n}": integer(0) for n in (4, 5, 6, 7)}
        if self.kind == "VCEK":
            hwid = self.hwid[:8] if self.product == "Turin" else self.hwid
            values["4"] = tlv(0x04, hwid) if self.nested_hwid else hwid
        else:
            values["5"] = tlv(0x16, self.csp.encode())
        return [extension(ARC + arc, value) for arc, value in values.items() if arc not in self.without]


_made: dict[str, bytes] = {}


def tcb_bytes(parts: Mapping[str, int], product: str) -> bytes:
    if product == "Turin":
        return bytes(
            (parts["fmc"], parts["bootloader"], parts["tee"], parts["snp"], 0, 0, 0, parts["microcode"])
        )
    return bytes((parts["bootloader"], parts["tee"], 0, 0, 0, 0, parts["snp"], parts["microcode"]))


@dataclass(frozen=True)
class Report:
    """A report of a good guest. `raw` overwrites bytes at offsets before signing."""

    product: str = "Milan"
    version: int = 3
    guest_svn: int = 0
    policy: int = POLICY
    vmpl: int = 0
    sig_algo: int = 1
    platform: int = 0x25
    signer: int = 0
    report_data: bytes = NONCE_BYTES
    measurement: bytes = b"\x4d" * 48
    host_data: bytes = b"\x48" * 32
    report_id: bytes = b"\x49" * 32
    cpuid: tuple[int, int, int] | None = None
    chip_id: bytes = HWID
    reported: Mapping[str, int] | None = None
    current: Mapping[str, int] | None = None
    committed: Mapping[str, int] | None = None
    raw: Mapping[int, bytes] = field(default_factory=dict)

    def body(self) -> bytes:
        good = TCB_TURIN if self.product == "Turin" else TCB
        reported, current, committed = (
            tcb_bytes(parts or good, self.product) for parts in (self.reported, self.current, self.committed)
        )
        data = bytearray(1184)
        cpuid = self.cpuid or CPUID[self.product]
        chip = self.chip_id[:8] if self.product == "Turin" and self.chip_id is HWID else self.chip_id
        for offset, value in {
            0x00: struct.pack("<IIQ", self.version, self.guest_svn, self.policy),
            0x30: struct.pack("<II", self.vmpl, self.sig_algo),
            0x38: current,
            0x40: struct.pack("<QI", self.platform, self.signer),
            0x50: self.report_data.ljust(64, b"\0"),
            0x90: self.measurement,
            0xC0: self.host_data,
            0x140: self.report_id,
            0x160: b"\xff" * 32,
            0x180: reported,
            0x188: bytes(cpuid) if self.version >= 3 else b"",
            0x1A0: chip.ljust(64, b"\0"),
            0x1E0: committed,
            0x1E8: bytes((1, 55, 1, 0, 1, 55, 1, 0)),
            0x1F0: reported,
            0x1F8: bytes((1,)).ljust(16, b"\0") if self.version >= 5 else b"",
            **self.raw,
        }.items():
            data[offset : offset + len(value)] = value
        return bytes(data)

    def sign(self, vek: Vek | None = None) -> bytes:
        key = (vek or Vek(self.product)).private
        data = bytearray(self.body())
        r, s = decode_dss_signature(key.sign(bytes(data[:0x2A0]), ec.ECDSA(hashes.SHA384())))
        data[0x2A0:0x2E8], data[0x2E8:0x330] = r.to_bytes(72, "little"), s.to_bytes(72, "little")
        return bytes(data)


def vlek_report(product: str = "Milan", **changes: Any) -> Report:
    return replace(Report(product, signer=1 << 2, chip_id=bytes(64)), **changes)


def evidence(
    report: bytes,
    vek: bytes,
    *,
    chain: bytes | None = None,
    crl: bytes | None = None,
    collected: datetime = NOW,
) -> bytes:
    """An envelope of type snp."""
    return envelope.build(
        "snp", {"report": report}, collateral=_collateral(vek, chain, crl), collected=collected
    )


def _collateral(vek: bytes, chain: bytes | None, crl: bytes | None) -> dict[str, bytes]:
    given = {"vek": vek, "chain": chain, "crl": crl}
    return {label: value for label, value in given.items() if value is not None}


# --- CBOR and COSE --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Tagged:
    number: int
    value: Any


def cbor(value: Any) -> bytes:
    """Encode what an endorsement is made of."""
    match value:
        case bool() | None:
            return {False: b"\xf4", True: b"\xf5", None: b"\xf6"}[value]
        case int():
            return cbor_head(0, value) if value >= 0 else cbor_head(1, -1 - value)
        case bytes():
            return cbor_head(2, len(value)) + value
        case str():
            return cbor_head(3, len(value.encode())) + value.encode()
        case list():
            return cbor_head(4, len(value)) + b"".join(map(cbor, value))
        case dict():
            return cbor_head(5, len(value)) + b"".join(cbor(k) + cbor(v) for k, v in value.items())
        case Tagged(number, inner):
            return cbor_head(6, number) + cbor(inner)
    raise TypeError(type(value))


def cbor_head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes((major << 5 | number,))
    for size, code in ((1, 24), (2, 25), (4, 26), (8, 27)):
        if number < 1 << 8 * size:
            return bytes((major << 5 | code,)) + number.to_bytes(size)
    raise ValueError(number)


UVM_PURPOSE = "1.3.6.1.4.1.311.76.59.1.2"
UVM_SIGNED, UVM_LEAF_UNTIL = datetime(2025, 6, 1, tzinfo=UTC), datetime(2025, 12, 31, tzinfo=UTC)


def uvm_chain(
    root: str = "uvm-root",
    purposes: tuple[str, ...] = ("1.3.6.1.4.1.311.76.59.1.1", UVM_PURPOSE),
    ca: bool = True,
    leaf_after: datetime = UVM_LEAF_UNTIL,
) -> tuple[bytes, ...]:
    """Signer, authority, root; the signer's certificate ends before `NOW`, as real ones do."""
    return _uvm_chain(root, purposes, ca, leaf_after)


@cache
def _uvm_chain(root: str, purposes: tuple[str, ...], ca: bool, leaf_after: datetime) -> tuple[bytes, ...]:
    names = {
        label: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Test UVM {label}")]) for label in "LCR"
    }
    keys = {"L": rsa_key("uvm-leaf"), "C": rsa_key(f"ca-of-{root}"), "R": rsa_key(root)}

    def make(label: str, issuer: str, is_ca: bool, after: datetime) -> x509.CertificateBuilder:
        usage = x509.KeyUsage(not is_ca, False, False, False, False, is_ca, is_ca, False, False)
        return (
            x509.CertificateBuilder()
            .subject_name(names[label])
            .issuer_name(names[issuer])
            .public_key(keys[label].public_key())
            .serial_number(len(label) + ord(label))
            .not_valid_before(NOT_BEFORE)
            .not_valid_after(after)
            .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
            .add_extension(usage, critical=True)
        )

    leaf = make("L", "C", False, leaf_after)
    if purposes:
        leaf = leaf.add_extension(
            x509.ExtendedKeyUsage([ObjectIdentifier(p) for p in purposes]), critical=False
        )
    made = (
        leaf.sign(keys["C"], hashes.SHA384()),
        make("C", "R", ca, NOT_AFTER).sign(keys["R"], hashes.SHA384()),
        make("R", "R", True, NOT_AFTER).sign(keys["R"], hashes.SHA384()),
    )
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in made)


def did(root: bytes | None = None, purpose: str = UVM_PURPOSE) -> str:
    digest = hashlib.sha256(uvm_chain()[-1] if root is None else root).digest()
    return f"did:x509:0:sha256:{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}::eku:{purpose}"


@dataclass(frozen=True)
class Endorsement:
    """An endorsement of a utility VM. `layout`: `text`, `cwt` (JSON payload) or `hash` (CWT, bare measurement)."""

    measurement: bytes = b"\x4d" * 48
    svn: Any = "103"
    feed: str = "ContainerPlat-AMD-UVM"
    issuer: str = ""
    layout: str = "text"
    alg: int = -38
    chain: tuple[bytes, ...] = ()
    signed_at: datetime | None = UVM_SIGNED
    header: Mapping[Any, Any] = field(default_factory=dict)  # replaces entries; a value of `...` removes one
    payload: bytes | None = None
    tag: bool = True
    signer: str = "uvm-leaf"

    def protected(self) -> bytes:
        issuer = self.issuer or did()
        found: dict[Any, Any] = {1: self.alg, 33: list(self.chain or uvm_chain())}
        if self.layout == "text":
            found |= {3: "application/json", "iss": issuer, "feed": self.feed}
        else:
            svn = int(self.svn) if str(self.svn).isdigit() else self.svn
            found |= {15: {1: issuer, 2: self.feed, **self.signing_time(), "svn": svn}}
            found |= (
                {3: "application/json"}
                if self.layout == "cwt"
                else {258: -43, 259: "application/octet-stream"}
            )
        if self.layout == "text":
            found |= self.signing_time()
        found |= self.header
        return cbor({key: value for key, value in found.items() if value is not ...})

    def signing_time(self) -> dict[Any, Any]:
        """A header of its own, or the CWT claim `iat`."""
        if self.signed_at is None:
            return {}
        seconds = int(self.signed_at.timestamp())
        return {"signingtime": Tagged(1, seconds)} if self.layout == "text" else {6: seconds}

    def content(self) -> bytes:
        if self.payload is not None:
            return self.payload
        if self.layout == "hash":
            return self.measurement
        said = {"x-ms-sevsnpvm-guestsvn": self.svn, "x-ms-sevsnpvm-launchmeasurement": self.measurement.hex()}
        return json.dumps(said, indent=2).encode()

    def cose(self) -> bytes:
        protected, payload = self.protected(), self.content()
        body = cbor(["Signature1", protected, b"", payload])
        message = [protected, {"timestamp": b"not looked at"}, payload, sign_pss(rsa_key(self.signer), body)]
        return cbor(Tagged(18, message) if self.tag else message)


CCE_POLICY = b'package policy\n\napi_svn := "0.10.0"\n'
ACI_REPORT = Report(host_data=hashlib.sha256(CCE_POLICY).digest())


def aci_evidence(
    report: bytes | None = None,
    *,
    vek: bytes | None = None,
    endorsement: bytes | None = None,
    cce_policy: bytes = CCE_POLICY,
    runtime_data: bytes | None = None,
    chain: bytes | None = None,
    crl: bytes | None = None,
    collected: datetime = NOW,
) -> bytes:
    """An envelope of type azure-aci; everything that is not given is good."""
    parts = {
        "report": ACI_REPORT.sign() if report is None else report,
        "cce-policy": cce_policy,
        "uvm-endorsement": Endorsement().cose() if endorsement is None else endorsement,
    }
    if runtime_data is not None:
        parts["runtime-data"] = runtime_data
    given = _collateral(Vek().der() if vek is None else vek, _chain() if chain is None else chain, crl)
    return envelope.build("azure-aci", parts, collateral=given, collected=collected)


_chain = chain


def anchors(products: tuple[str, ...] = PRODUCTS, intermediates: bool = False) -> tuple[Anchor, ...]:
    """Roots of these products and of the endorsements; with `intermediates`, ASK and ASVK too."""
    found = [_anchor("amd-ark", ark(product), product) for product in products]
    for kind, purpose in (("VCEK", "amd-ask"), ("VLEK", "amd-asvk")) if intermediates else ():
        found += [_anchor(purpose, intermediate(product, kind), product) for product in products]
    found.append(Anchor("uvm-root", "Test UVM root", hashlib.sha256(uvm_chain()[-1]).hexdigest()))
    return tuple(found)


def _anchor(purpose: str, raw: bytes, product: str) -> Anchor:
    return Anchor(purpose, f"Test {purpose} {product}", hashlib.sha256(raw).hexdigest(), product, data=raw)


def policy(type_: str, **changes: Any) -> dict[str, Any]:
    """A policy document that pins this authority's good evidence of a type."""
    code = (
        {"measurement": "4d" * 48}
        if type_ == "snp"
        else {"cce_policy": hashlib.sha256(CCE_POLICY).hexdigest()}
    )
    document = {
        "v": 1, "types": [type_], "images": [IMAGE], "max_age_seconds": 600,
        "code": [{"type": type_, "image": IMAGE, **code}],
    }  # fmt: skip
    return {**document, **changes}


DAY = timedelta(days=1)
