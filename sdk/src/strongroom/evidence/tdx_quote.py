"""TDX quotes of version 4 and 5 as bytes, and nothing else: no key and no signature is looked at here.

Layout: Intel TDX DCAP Quoting Library API, appendix A (quote format), the TDX module's ABI (TDREPORT), and for the extended
body Intel's header sgx_quote_5.h (sgx_report2_body_v1_5_ex_t). All numbers are little-endian. Version 4 holds a TDX 1.0
body after its header; version 5 names the type and size of its body.

The signature ends where its own length says. What follows is no part of the quote, and no signature covers it: it is
kept apart in `Quote.tail`, for the verifier to judge (buffers of fixed size leave zeros there).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from strongroom.errors import FormatError

MAX_BYTES = 32 << 10
TEE_SGX, TEE_TDX = 0x00, 0x81
ECDSA_P256 = 2
QE_VENDOR_INTEL = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
HEADER_SIZE = 48
BODY_10_SIZE, BODY_15_SIZE, BODY_15_EX_SIZE = 584, 648, 885
QE_REPORT_SIZE = 384

# Type of a body in a quote of version 5 -> (name, size). Type 1 is an SGX enclave report; later ones are unknown here.
_BODY_TYPES = {2: ("1.0", BODY_10_SIZE), 3: ("1.5", BODY_15_SIZE), 4: ("1.5 extended", BODY_15_EX_SIZE)}
_CERT_QE_REPORT, _CERT_PCK_CHAIN = 6, 5
_MAX_AUTH, _MAX_CHAIN = 1024, 16 << 10

_HEADER = struct.Struct("<HHIHH16s20s")
_BODY = struct.Struct("<16s48s48s8s8s8s48s48s48s48s48s48s48s48s64s")
_BODY_15 = struct.Struct("<16s48s")
# After those: a partition's number, the id of this start of the domain, its devices, and what the domain and its service
# domain were when it was made. Those two are used; the rest is the history of a domain that was moved.
_BODY_15_EX = struct.Struct("<c32s48s48s8s16s16s12s48s8s")
_QE_REPORT = struct.Struct("<16s4s28s16s32s32s32s96sHH60s64s")


@dataclass(frozen=True, slots=True)
class Header:
    """The quote's header. `qe_vendor` is a UUID, `user_data` a platform id that the quoting enclave chose."""

    version: int
    attestation_key_type: int
    tee_type: int
    qe_svn: int
    pce_svn: int
    qe_vendor: bytes
    user_data: bytes


@dataclass(frozen=True, slots=True)
class Body:
    """What the TDX module says about one trust domain. `tcb_svn_2` and `mrservicetd` are empty in a 1.0 body.

    `td_id`: the id of one start of the domain, and `vmid`: the partition in it that asked; only an extended body has them,
    and an id of zeros is none.
    """

    kind: str  # "1.0", "1.5" or "1.5 extended"
    tcb_svn: bytes
    mrseam: bytes
    mrsignerseam: bytes
    seam_attributes: bytes
    attributes: bytes
    xfam: bytes
    mrtd: bytes
    mrconfigid: bytes
    mrowner: bytes
    mrownerconfig: bytes
    rtmrs: tuple[bytes, bytes, bytes, bytes]
    report_data: bytes
    tcb_svn_2: bytes = b""
    mrservicetd: bytes = b""
    td_id: bytes = b""
    vmid: bytes = b""


@dataclass(frozen=True, slots=True)
class QeReport:
    """The quoting enclave's own SGX report; `raw` are the 384 bytes that the platform's key signs."""

    raw: bytes
    cpu_svn: bytes
    miscselect: bytes
    attributes: bytes
    mrenclave: bytes
    mrsigner: bytes
    isv_prod_id: int
    isv_svn: int
    report_data: bytes


@dataclass(frozen=True, slots=True)
class Quote:
    """A parsed quote. `signed`: the bytes under `signature`. Signatures and keys are raw: r||s and x||y."""

    header: Header
    body: Body
    signed: bytes
    signature: bytes
    attestation_key: bytes
    qe_report: QeReport
    qe_signature: bytes
    qe_auth: bytes
    pck_chain: bytes
    tail: bytes


class _Reader:
    """Reads bytes in order; says what is missing when they end early."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data, self.at, self.what = data, 0, what

    def take(self, size: int, name: str) -> bytes:
        end = self.at + size
        if end > len(self.data):
            raise FormatError(f"{self.what} ends inside its {name}: it was cut off or is no quote.")
        found, self.at = self.data[self.at : end], end
        return found

    def number(self, size: int, name: str) -> int:
        return int.from_bytes(self.take(size, name), "little")

    def end(self) -> None:
        if self.at != len(self.data):
            raise FormatError(f"{self.what} has {len(self.data) - self.at} bytes more than its fields.")


def header(data: bytes) -> Header:
    """The header of a quote of any version and kind: enough to say what it is. Raises FormatError."""
    if len(data) > MAX_BYTES:
        raise FormatError(f"The quote is {len(data)} bytes long; at most {MAX_BYTES} are read.")
    return Header(*_HEADER.unpack(_Reader(data, "The quote").take(HEADER_SIZE, "header")))


def parse(data: bytes) -> Quote:
    """Read a TDX quote strictly. Raises FormatError, also for SGX quotes and for versions other than 4 and 5."""
    head = header(data)
    if head.version not in (4, 5):
        raise FormatError(
            f"The quote has version {head.version}; TDX quotes have version 4 or 5 (3 is an SGX quote)."
        )
    if head.tee_type != TEE_TDX:
        raise FormatError(f"The quote is of TEE type {head.tee_type:#x}, which is not TDX (0x81).")
    if head.attestation_key_type != ECDSA_P256:
        raise FormatError(
            f"The quote's attestation key has type {head.attestation_key_type}; only ECDSA P-256 (2) is read."
        )
    reader = _Reader(data, "The quote")
    reader.take(HEADER_SIZE, "header")
    body = _body(reader, head.version)
    signed = data[: reader.at]
    block = reader.take(reader.number(4, "signature length"), "signature data")
    signature, key, qe_report, qe_signature, auth, chain = _signature_data(block)
    return Quote(
        head, body, signed, signature, key, qe_report, qe_signature, auth, chain, tail=data[reader.at :]
    )


def _body(reader: _Reader, version: int) -> Body:
    kind, size = "1.0", BODY_10_SIZE
    if version == 5:
        type_, said = reader.number(2, "body type"), reader.number(4, "body size")
        if type_ not in _BODY_TYPES:
            raise FormatError(
                f"The quote's body has type {type_}; only TDX 1.0 (2), TDX 1.5 (3) and its extension (4) are read."
            )
        kind, size = _BODY_TYPES[type_]
        if said != size:
            raise FormatError(f"The quote's TDX {kind} body says it has {said} bytes; it must have {size}.")
    return body(reader.take(size, "body"), kind)


def body(data: bytes, kind: str) -> Body:
    """A body of `kind` "1.0" (584 bytes), "1.5" (648 bytes) or "1.5 extended" (885 bytes)."""
    svn, seam, signer, seam_flags, flags, xfam, mrtd, config, owner, owner_config, *rest = _BODY.unpack_from(
        data
    )
    rtmr0, rtmr1, rtmr2, rtmr3, report_data = rest
    more = _BODY_15.unpack_from(data, BODY_10_SIZE) if kind != "1.0" else (b"", b"")
    vmid, td_id = _BODY_15_EX.unpack_from(data, BODY_15_SIZE)[:2] if kind == "1.5 extended" else (b"", b"")
    return Body(
        kind=kind,
        tcb_svn=svn,
        mrseam=seam,
        mrsignerseam=signer,
        seam_attributes=seam_flags,
        attributes=flags,
        xfam=xfam,
        mrtd=mrtd,
        mrconfigid=config,
        mrowner=owner,
        mrownerconfig=owner_config,
        rtmrs=(rtmr0, rtmr1, rtmr2, rtmr3),
        report_data=report_data,
        tcb_svn_2=more[0],
        mrservicetd=more[1],
        td_id=td_id,
        vmid=vmid,
    )


def _signature_data(block: bytes) -> tuple[bytes, bytes, QeReport, bytes, bytes, bytes]:
    """The signature block: exactly its fields, with certification data of type 6 around type 5."""
    reader = _Reader(block, "The quote's signature data")
    signature, key = reader.take(64, "signature"), reader.take(64, "attestation key")
    inner = _Reader(_certification(reader, _CERT_QE_REPORT), "The quote's certification data")
    reader.end()
    report, qe_signature = inner.take(QE_REPORT_SIZE, "QE report"), inner.take(64, "QE report signature")
    auth_size = inner.number(2, "QE authentication data size")
    if auth_size > _MAX_AUTH:
        raise FormatError(f"The QE authentication data have {auth_size} bytes; at most {_MAX_AUTH} are read.")
    auth = inner.take(auth_size, "QE authentication data")
    chain = _certification(inner, _CERT_PCK_CHAIN)
    inner.end()
    if len(chain) > _MAX_CHAIN:
        raise FormatError(f"The PCK chain has {len(chain)} bytes; at most {_MAX_CHAIN} are read.")
    return signature, key, _qe_report(report), qe_signature, auth, chain


def _certification(reader: _Reader, wanted: int) -> bytes:
    type_ = reader.number(2, "certification data type")
    size = reader.number(4, "certification data size")
    if type_ != wanted:
        raise FormatError(f"The quote's certification data have type {type_} where {wanted} belongs.")
    return reader.take(size, "certification data")


def _qe_report(raw: bytes) -> QeReport:
    cpu_svn, misc, _, attributes, enclave, _, signer, _, product, svn, _, data = _QE_REPORT.unpack(raw)
    return QeReport(raw, cpu_svn, misc, attributes, enclave, signer, product, svn, data)
