"""A TDREPORT, and whether a quote was made from it.

Layout: Intel TDX module ABI, TDREPORT_STRUCT: REPORTMACSTRUCT (256 bytes), TEE_TCB_INFO (239), reserved (17), TDINFO
(512). Its MAC is for the processor that made it and nobody else, so alone it shows nothing: each field is compared with
the quote, which is signed, and the two inner structures with their hashes. The MAC's 32 bytes are compared with nothing;
nor are fields that the form of the quote does not have, and no claim is read from either.

Version 0 and 1 (a domain without and with service domains) leave the last 64 bytes of TDINFO zero. Version 3 has an
extension there (Intel, sgx_report2.h, tee_info_v1_5_ex_t): TD_ID, the number of a partition, and which of them are valid.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from strongroom.errors import FormatError
from strongroom.evidence.tdx_quote import Quote

SIZE = 1024
MAC_AT, MAC_SIZE = 224, 32

_MAC_STRUCT = struct.Struct("<4s12s16s48s48s64s32s32s")
_TCB_AT, _TCB_SIZE = 256, 239
_TCB = struct.Struct("<8s16s48s48s8s16s95s")
_INFO_AT = 512
_INFO = struct.Struct("<8s8s48s48s48s48s48s48s48s48s48s64s")
_EXTENDED = 3  # the version with an extension: TD_ID (32), zero (24), VMID (1), zero (3), VALID (4)


@dataclass(frozen=True, slots=True)
class TdReport:
    """The parts of a TDREPORT. `tcb` and `info` are TEE_TCB_INFO and TDINFO as their fields."""

    raw: bytes
    kind: bytes
    cpu_svn: bytes
    tcb_hash: bytes
    info_hash: bytes
    report_data: bytes
    reserved: bytes
    tcb: tuple[bytes, ...]
    info: tuple[bytes, ...]


def looks_like(data: bytes) -> bool:
    """Whether the report says of itself that it is one of a trust domain (type 0x81)."""
    return data[:2] == b"\x81\x00"


def parse(data: bytes) -> TdReport:
    """Read a TDREPORT. Raises FormatError."""
    if len(data) != SIZE or not looks_like(data):
        raise FormatError(
            f"The report is no TDREPORT: it has {len(data)} bytes and begins with {data[:4].hex()}."
        )
    kind, zero, cpu_svn, tcb_hash, info_hash, report_data, more, _ = _MAC_STRUCT.unpack_from(data)
    tcb, info = _TCB.unpack_from(data, _TCB_AT), _INFO.unpack_from(data, _INFO_AT)
    extension = info[-1][32:56] + info[-1][57:60] if kind[2] == _EXTENDED else info[-1]
    reserved = zero + more + data[_TCB_AT + _TCB_SIZE : _INFO_AT] + tcb[-1] + extension
    return TdReport(data, kind, cpu_svn, tcb_hash, info_hash, report_data, reserved, tcb, info)


def fault(report: TdReport, quote: Quote) -> str | None:
    """Why the quote was not made from this report; None where every field agrees."""
    body = quote.body
    _, svn, seam, signer, seam_attributes, svn_2, _ = report.tcb
    attributes, xfam, mrtd, config, owner, owner_config, *rest = report.info
    checks = {
        "REPORT_DATA": report.report_data == body.report_data,
        "CPUSVN": report.cpu_svn == quote.qe_report.cpu_svn,
        "the hash of TEE_TCB_INFO": report.tcb_hash == _sha384(report, _TCB_AT, _TCB_SIZE),
        "the hash of TDINFO": report.info_hash == _sha384(report, _INFO_AT, _INFO.size),
        "TEE_TCB_SVN": svn == body.tcb_svn and (not body.tcb_svn_2 or svn_2 == body.tcb_svn_2),
        "MRSEAM": (seam, signer, seam_attributes) == (body.mrseam, body.mrsignerseam, body.seam_attributes),
        "TD_ATTRIBUTES": attributes == body.attributes,
        "XFAM": xfam == body.xfam,
        "MRTD": mrtd == body.mrtd,
        "MRCONFIGID": config == body.mrconfigid,
        "MROWNER": (owner, owner_config) == (body.mrowner, body.mrownerconfig),
        "the RTMRs": tuple(rest[:4]) == body.rtmrs,
        "MRSERVICETD": not body.mrservicetd or rest[4] == body.mrservicetd,
        "TD_ID": not body.td_id or (rest[5][:32], rest[5][56:57]) == (body.td_id, body.vmid),
        "its reserved bytes": not report.reserved.strip(b"\x00") and report.kind[3] == 0,
        "its version": report.kind[2] in (_EXTENDED, int(any(rest[4]))),
    }
    wrong = [name for name, agrees in checks.items() if not agrees]
    return f"it differs in {', '.join(wrong)}" if wrong else None


def _sha384(report: TdReport, at: int, size: int) -> bytes:
    return hashlib.sha384(report.raw[at : at + size]).digest()
