"""An Intel of one's own: root, PCK chain, quoting enclave, TDX quotes and collateral of the same shape.

Nothing that it signs is accepted by a verifier that holds the shipped anchors. Every value that a test may want to
get wrong is a field of `Domain` or an argument, set before anything is signed.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from strongroom.evidence import Anchor, envelope, tdx

NOW = datetime(2026, 2, 1, 12, 0, tzinfo=UTC)
FMSPC, PPID, PCE_SVN = bytes.fromhex("90c06f000000"), bytes(range(16)), 13
COMPONENTS = bytes((4, 4, 2, 2, 4, 1, 0, 5)) + bytes(8)
TCB_SVN = bytes((7, 1, 3)) + bytes(13)
SEPT_VE_DISABLE = 1 << 28
QE_SVN = 7
_SHA256 = ec.ECDSA(hashes.SHA256())


@lru_cache(maxsize=64)
def key(name: str) -> ec.EllipticCurvePrivateKey:
    """The P-256 key of this name: the same one for the whole process."""
    return ec.generate_private_key(ec.SECP256R1())


def raw_public(private: ec.EllipticCurvePrivateKey) -> bytes:
    return private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def sign(private: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """r and s of 32 bytes each."""
    r, s = decode_dss_signature(private.sign(message, _SHA256))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 0x80 else bytes([0x82]) + size.to_bytes(2, "big")
    return bytes([tag]) + (bytes([0x81, size]) if 0x80 <= size < 0x100 else length) + content


_ARC = bytes.fromhex("2a864886f84d010d01")


def _member(tail: bytes, value: bytes) -> bytes:
    return der(0x30, der(0x06, _ARC + tail) + value)


def sgx_extension(
    *, fmspc: bytes = FMSPC, ppid: bytes = PPID, components: bytes = COMPONENTS, pce_svn: int = PCE_SVN
) -> bytes:
    """The SGX extension of a PCK leaf."""
    tcb = b"".join(_member(bytes((2, n + 1)), der(2, bytes([c]))) for n, c in enumerate(components))
    tcb += _member(b"\x02\x11", der(2, bytes([pce_svn]))) + _member(b"\x02\x12", der(4, components))
    config = b"".join(_member(bytes((7, n)), der(1, b"\xff")) for n in (1, 2, 3))
    return der(
        0x30,
        _member(b"\x01", der(4, ppid))
        + _member(b"\x02", der(0x30, tcb))
        + _member(b"\x03", der(4, bytes(2)))
        + _member(b"\x04", der(4, fmspc))
        + _member(b"\x05", der(0x0A, b"\x01"))
        + _member(b"\x06", der(4, bytes(16)))
        + _member(b"\x07", der(0x30, config)),
    )


def name(common: str) -> x509.Name:
    parts = ((NameOID.COMMON_NAME, common), (NameOID.ORGANIZATION_NAME, "Intel Corporation"))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def certify(
    subject: str,
    public: ec.EllipticCurvePrivateKey,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
    begin: datetime = NOW - timedelta(days=30),
    end: datetime = NOW + timedelta(days=300),
    extension: bytes | None = None,
    hash_: Any = None,
) -> x509.Certificate:
    usage = x509.KeyUsage(not ca, not ca, False, False, False, ca, ca, False, False)
    aki = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(public.public_key())
        .serial_number(int.from_bytes(hashlib.sha256(subject.encode()).digest()[:16], "big"))
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public.public_key()), critical=False)
        .add_extension(aki, critical=False)
    )
    if extension is not None:
        oid = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, extension), critical=False)
    return builder.sign(signer, hash_ or hashes.SHA256())


ROOT, PLATFORM_CA, LEAF = "Intel SGX Root CA", "Intel SGX PCK Platform CA", "Intel SGX PCK Certificate"


@dataclass(frozen=True)
class Authority:
    """Root, CA and leaf. `prefix` names the keys, so that two authorities share none."""

    prefix: str = "intel"
    leaf_name: str = LEAF
    ca_name: str = PLATFORM_CA
    extension: bytes = field(default_factory=sgx_extension)
    leaf_ca: bool = False
    leaf_end: datetime = NOW + timedelta(days=300)
    ca_is_ca: bool = True

    def key(self, which: str) -> ec.EllipticCurvePrivateKey:
        return key(f"{self.prefix}-{which}")

    @property
    def root(self) -> x509.Certificate:
        return _root(self.prefix)

    @property
    def ca(self) -> x509.Certificate:
        return certify(self.ca_name, self.key("ca"), ROOT, self.key("root"), ca=self.ca_is_ca)

    @property
    def leaf(self) -> x509.Certificate:
        return certify(
            self.leaf_name,
            self.key("leaf"),
            self.ca_name,
            self.key("ca"),
            ca=self.leaf_ca,
            end=self.leaf_end,
            extension=self.extension,
        )

    def chain(self) -> bytes:
        """Leaf, CA and root in PEM with the NUL byte that quotes have after it."""
        return b"".join(c.public_bytes(Encoding.PEM) for c in (self.leaf, self.ca, self.root)) + b"\x00"

    def anchor(self) -> Anchor:
        data = self.root.public_bytes(Encoding.DER)
        return Anchor("intel-root", "Intel of the tests", hashlib.sha256(data).hexdigest(), data=data)


@lru_cache(maxsize=8)
def _root(prefix: str) -> x509.Certificate:
    private = key(f"{prefix}-root")
    return certify(ROOT, private, ROOT, private, ca=True, end=NOW + timedelta(days=9000))


@dataclass(frozen=True)
class Domain:
    """A trust domain, its quoting enclave and the way its quote is written."""

    authority: Authority = field(default_factory=Authority)
    version: int = 4
    body_type: int = 3  # in version 5: 2 is TDX 1.0, 3 is TDX 1.5, 4 is its extended form
    tee_type: int = 0x81
    key_type: int = 2
    vendor: bytes = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
    tcb_svn: bytes = TCB_SVN
    mrseam: bytes = b"\x5b" * 48
    mrsignerseam: bytes = bytes(48)
    seam_attributes: bytes = bytes(8)
    attributes: int = SEPT_VE_DISABLE
    xfam: bytes = bytes.fromhex("e702060000000000")
    mrtd: bytes = b"\x11" * 48
    mrconfigid: bytes = bytes(48)
    mrowner: bytes = bytes(48)
    mrownerconfig: bytes = bytes(48)
    rtmrs: tuple[bytes, ...] = tuple(bytes([0x20 + n]) * 48 for n in range(4))
    report_data: bytes = bytes(range(1, 33)) + bytes(32)
    tcb_svn_2: bytes = TCB_SVN
    mrservicetd: bytes = bytes(48)
    td_id: bytes = b"\x1d" * 32
    vmid: bytes = b"\x00"
    history: bytes = bytes(204)  # devices, and what the domain and its service domain were when it was made
    cpu_svn: bytes = bytes(range(16))
    qe_mrsigner: bytes = tdx.QE_MRSIGNER
    qe_product: int = 2
    qe_attributes: bytes = bytes.fromhex("1500000000000000e700000000000000")
    qe_auth: bytes = bytes(range(32))
    qe_report_data: bytes | None = None
    pem: bytes | None = None
    outer_type: int = 6
    inner_type: int = 5
    tail: bytes = b""
    report_version: int | None = None  # of the TDREPORT; None is the one that fits its service domains

    def but(self, **changes: Any) -> Domain:
        return replace(self, **changes)

    def body(self) -> bytes:
        data = b"".join(
            (self.tcb_svn, self.mrseam, self.mrsignerseam, self.seam_attributes, struct.pack("<Q", self.attributes),
             self.xfam, self.mrtd, self.mrconfigid, self.mrowner, self.mrownerconfig, *self.rtmrs, self.report_data)
        )  # fmt: skip
        if self.version == 5 and self.body_type >= 3:
            data += self.tcb_svn_2 + self.mrservicetd
        if self.version == 5 and self.body_type >= 4:
            data += self.vmid + self.td_id + self.history
        return data

    def signed(self) -> bytes:
        head = struct.pack("<HHIHH", self.version, self.key_type, self.tee_type, 0, 0)
        head += self.vendor + bytes(20)
        body = self.body()
        if self.version == 5:
            head += struct.pack("<HI", self.body_type, len(body))
        return head + body

    def qe_report(self) -> bytes:
        bound = hashlib.sha256(raw_public(self.authority.key("att")) + self.qe_auth).digest() + bytes(32)
        return b"".join(
            (self.cpu_svn, bytes(4), bytes(28), self.qe_attributes, b"\xe5" * 32, bytes(32), self.qe_mrsigner,
             bytes(96), struct.pack("<HH", self.qe_product, QE_SVN), bytes(60), self.qe_report_data or bound)
        )  # fmt: skip

    def quote(self) -> bytes:
        """The quote, signed; `tail` follows it."""
        signed, report = self.signed(), self.qe_report()
        pem = self.authority.chain() if self.pem is None else self.pem
        inner = report + sign(self.authority.key("leaf"), report)
        inner += struct.pack("<H", len(self.qe_auth)) + self.qe_auth
        inner += struct.pack("<HI", self.inner_type, len(pem)) + pem
        block = sign(self.authority.key("att"), signed) + raw_public(self.authority.key("att"))
        block += struct.pack("<HI", self.outer_type, len(inner)) + inner
        return signed + struct.pack("<I", len(block)) + block + self.tail

    def td_report(self) -> bytes:
        """The TDREPORT that the quote was made from."""
        tcb = bytes.fromhex("ff01030000000000") + self.tcb_svn + self.mrseam + self.mrsignerseam
        tcb += self.seam_attributes + self.tcb_svn_2 + bytes(95)
        info = struct.pack("<Q", self.attributes) + self.xfam + self.mrtd + self.mrconfigid + self.mrowner
        info += self.mrownerconfig + b"".join(self.rtmrs) + self.mrservicetd
        version = int(any(self.mrservicetd)) if self.report_version is None else self.report_version
        info += self.td_id + bytes(24) + self.vmid + bytes(3) + b"\x01\0\0\0" if version == 3 else bytes(64)
        mac = bytes((0x81, 0, version, 0)) + bytes(12) + self.cpu_svn
        mac += hashlib.sha384(tcb).digest() + hashlib.sha384(info).digest() + self.report_data + bytes(32)
        return mac + b"\xaa" * 32 + tcb + bytes(17) + info


def seal(quote: bytes, *, now: datetime = NOW, collateral: bytes | None = None) -> bytes:
    """An envelope around a quote."""
    more = {} if collateral is None else {"tdx-collateral": collateral}
    return envelope.build("tdx", {"quote": quote}, collected=now, collateral=more)


def collateral(
    authority: Authority,
    *,
    status: str = "UpToDate",
    advisories: tuple[str, ...] = (),
    fmspc: bytes = FMSPC,
    issued: datetime = NOW - timedelta(days=2),
    until: datetime = NOW + timedelta(days=28),
    crl_until: datetime | None = None,
    revoked: tuple[x509.Certificate, ...] = (),
    minimum: int = 1,
    module_status: str = "UpToDate",
    module_advisories: tuple[str, ...] = (),
    enclave_status: str = "UpToDate",
    enclave_advisories: tuple[str, ...] = (),
    isv_minimum: int = 1,
    module_due: int = 0,
    module_id: str = "TDX_01",
    signer_name: str = "Intel SGX TCB Signing",
) -> bytes:
    """Collateral in the form of dcap-qvl, with one TCB level that this authority's platforms reach."""
    dates = {"issueDate": _time(issued), "nextUpdate": _time(until), "tcbEvaluationDataNumber": 18}
    level: dict[str, Any] = {"tcbDate": _time(issued), "tcbStatus": status}
    if advisories:
        level["advisoryIDs"] = list(advisories)
    svns = [{"svn": minimum if n == 0 else 0} for n in range(16)]
    tdx_svns = [{"svn": 0} for _ in range(16)]
    module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}

    def levels(status: str, ids: tuple[str, ...]) -> list[dict[str, Any]]:
        level = {"tcb": {"isvsvn": isv_minimum}, "tcbDate": _time(issued), "tcbStatus": status}
        return [{**level, "advisoryIDs": list(ids)} if ids else level]

    fine, enclave = levels(module_status, module_advisories), levels(enclave_status, enclave_advisories)
    if module_due:  # a level above that, which a module of this version reaches and an older one does not
        fine.insert(0, {"tcb": {"isvsvn": module_due}, "tcbDate": _time(issued), "tcbStatus": "UpToDate"})
    info = {
        "id": "TDX", "version": 3, **dates, "fmspc": fmspc.hex().upper(), "pceId": "0000", "tcbType": 0,
        "tdxModule": module, "tdxModuleIdentities": [{"id": module_id, **module, "tcbLevels": fine}],
        "tcbLevels": [
            {"tcb": {"sgxtcbcomponents": svns, "pcesvn": 1, "tdxtcbcomponents": tdx_svns}, **level},
        ],
    }  # fmt: skip
    identity = {
        "id": "TD_QE", "version": 2, **dates, "miscselect": "00000000", "miscselectMask": "FFFFFFFF",
        "attributes": "11" + "00" * 15, "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": tdx.QE_MRSIGNER.hex().upper(), "isvprodid": 2, "tcbLevels": enclave,
    }  # fmt: skip
    signer = certify(signer_name, authority.key("tcb"), ROOT, authority.key("root"), ca=False)
    chain = _pem(signer, authority.root)
    end = crl_until or until
    texts = {
        n: json.dumps(v, separators=(",", ":")) for n, v in (("tcb_info", info), ("qe_identity", identity))
    }
    return json.dumps(
        {
            "pck_crl_issuer_chain": _pem(authority.ca, authority.root),
            "root_ca_crl": _crl(ROOT, authority.key("root"), issued, end, ()),
            "pck_crl": _crl(authority.ca_name, authority.key("ca"), issued, end, revoked),
            "tcb_info_issuer_chain": chain,
            "tcb_info": texts["tcb_info"],
            "tcb_info_signature": sign(authority.key("tcb"), texts["tcb_info"].encode()).hex(),
            "qe_identity_issuer_chain": chain,
            "qe_identity": texts["qe_identity"],
            "qe_identity_signature": sign(authority.key("tcb"), texts["qe_identity"].encode()).hex(),
        }
    ).encode()


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _pem(*certificates: x509.Certificate) -> str:
    return "".join(c.public_bytes(Encoding.PEM).decode() for c in certificates)


def _crl(
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    issued: datetime,
    until: datetime,
    revoked: tuple[x509.Certificate, ...],
) -> str:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name(issuer))
        .last_update(issued)
        .next_update(until)
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    for certificate in revoked:
        entry = (
            x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(issued)
        )
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.DER).hex()
