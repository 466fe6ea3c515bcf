"""The attestation report of Azure's paravisor (HCL): a hardware report, and claims whose hash that report holds.

Layout: Microsoft, "Confidential VM guest attestation design detail"; microsoft/openvmm, openhcl_attestation_protocol
(igvm_attest/get.rs). Numbers are little-endian.

    0     header, 32 bytes: HCLA, version 1 or 2, size, request type 2 (attestation key), status, reserved
    32    report slot, 1184 bytes: an SNP report, or a TDREPORT of 1024 bytes and zeros
    1216  request data: size, version 1 or 2, report type, hash type, claims size; in version 2 four bytes that say what
          the host's agent may answer; then the runtime claims, JSON; then zeros

Only the hardware report and the claims are covered by a signature. Everything else here has one right value, or is
compared with what is signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from strongroom import shapes, strictjson
from strongroom.errors import FormatError

MAX_BYTES = 64 << 10
HEADER_SIZE, SLOT_SIZE = 32, 1184
SNP_SIZE, TDREPORT_SIZE = 1184, 1024
SNP, TDX = "snp", "tdx"
AK_NAME = "HCLAkPub"
USER_DATA_SIZE = 64

_AK_CERT_REQUEST = 2
_REPORT_TYPES = {2: (SNP, SNP_SIZE), 4: (TDX, TDREPORT_SIZE)}
_HASHES = {1: "sha256", 2: "sha384", 3: "sha512"}
_HEADER = struct.Struct("<4sIIII12s")
_REQUEST = struct.Struct("<IIIII")
_CAPABILITIES = {1: 0, 2: 4}  # their size by the version of the request data; nothing is read from them
_MAX_CLAIMS = 16 << 10
_B64URL = re.compile(r"[A-Za-z0-9_-]{1,1024}")


@dataclass(frozen=True, slots=True)
class Key:
    """The vTPM's attestation key as the claims name it (a JWK): modulus and exponent."""

    n: int
    e: int

    def public(self) -> rsa.RSAPublicKey:
        """Raises ValueError for numbers that are no RSA key."""
        return _public(self.n, self.e)


@lru_cache(maxsize=256)  # a machine's key comes with all its evidence; what it verified is not kept
def _public(n: int, e: int) -> rsa.RSAPublicKey:
    return rsa.RSAPublicNumbers(e, n).public_key()


@dataclass(frozen=True, slots=True)
class Report:
    """A parsed report. `user_data` is empty where the claims hold none (older paravisors)."""

    version: int
    kind: str  # "snp" or "tdx", by the report type
    hardware: bytes
    hash_name: str
    var_data: bytes
    ak: Key
    vm: dict[str, Any]
    user_data: bytes

    def report_data(self) -> bytes:
        """What REPORT_DATA of the hardware report must hold: the claims' hash and zeros."""
        return hashlib.new(self.hash_name, self.var_data).digest().ljust(64, b"\x00")


def parse(data: bytes) -> Report:
    """Read a report strictly, to its last byte. Raises FormatError."""
    if not HEADER_SIZE + SLOT_SIZE + _REQUEST.size <= len(data) <= MAX_BYTES:
        raise FormatError(f"The HCL report has {len(data)} bytes: it was cut off or is none.")
    version, said = _header(data)
    slot = data[HEADER_SIZE : HEADER_SIZE + SLOT_SIZE]
    start = HEADER_SIZE + SLOT_SIZE
    size, request_version, type_, hash_, claims_size = _REQUEST.unpack_from(data, start)
    if type_ not in _REPORT_TYPES:
        raise FormatError(
            f"The HCL report holds a hardware report of type {type_}; 2 (SNP) and 4 (TDX) are read."
        )
    if hash_ not in _HASHES:
        raise FormatError(f"The HCL report names the hash type {hash_}, which is not known.")
    kind, hardware_size = _REPORT_TYPES[type_]
    if request_version not in _CAPABILITIES:
        raise FormatError(f"The HCL report's request data have version {request_version}; 1 and 2 are read.")
    head = _REQUEST.size + _CAPABILITIES[request_version]
    if size != head + claims_size or not 0 < claims_size <= _MAX_CLAIMS:
        raise FormatError("The HCL report's sizes of its claims contradict each other.")
    end = start + size
    if end > len(data) or data[end:].strip(b"\x00") or slot[hardware_size:].strip(b"\x00"):
        raise FormatError("The HCL report is cut off, or holds bytes that belong to none of its fields.")
    if said not in (end, hardware_size):
        raise FormatError(f"The HCL report's header names a size of {said} bytes, which is not its size.")
    var_data = data[start + head : end]
    ak, vm, user_data = _claims(var_data)
    return Report(version, kind, slot[:hardware_size], _HASHES[hash_], var_data, ak, vm, user_data)


def _header(data: bytes) -> tuple[int, int]:
    magic, version, size, request, status, reserved = _HEADER.unpack_from(data)
    if magic != b"HCLA" or version not in (1, 2):
        raise FormatError("The HCL report does not begin with HCLA and version 1 or 2.")
    if request != _AK_CERT_REQUEST or status or any(reserved):
        raise FormatError(
            "The HCL report's header has a request type, status or reserved bytes that it must not have."
        )
    return version, size


def _claims(var_data: bytes) -> tuple[Key, dict[str, Any], bytes]:
    """The members that matter here. The JSON is the paravisor's, under the hardware's signature: it may hold more."""
    what = "The HCL report's claims"
    document = shapes.mapping(strictjson.loads(var_data, max_bytes=_MAX_CLAIMS, what=what), what)
    picked = shapes.pick(document, what, _CLAIMS)
    found = [key for key in picked["keys"] if key.get("kid") == AK_NAME]
    if len(found) != 1:
        raise FormatError(f"{what} hold {len(found)} keys named {AK_NAME}; they must hold exactly one.")
    return (
        _key(found[0], f"{what}.keys"),
        picked["vm-configuration"],
        _user_data(document.get("user-data", "")),
    )


def _vm(value: Any, where: str) -> dict[str, Any]:
    """The VM's configuration: `secure-boot` and `vmUniqueId` there and of their type. Others, if they are simple, as they are."""
    document = shapes.mapping(value, where)
    shapes.pick(document, where, _VM)
    return {name: item for name, item in document.items() if isinstance(item, _SIMPLE)}


_SIMPLE = (bool, int, str)
_VM = {"secure-boot": shapes.boolean, "vmUniqueId": shapes.text(64)}
_CLAIMS = {"keys": shapes.list_of(shapes.mapping, 20), "vm-configuration": _vm}


def _key(jwk: dict[str, Any], where: str) -> Key:
    if jwk.get("kty") != "RSA":
        raise FormatError(f"{where}: the attestation key must be an RSA key.")
    n, e = (_number(jwk.get(name), f"{where}.{name}") for name in ("n", "e"))
    if not 2048 <= n.bit_length() <= 4096 or e != 65537:
        raise FormatError(
            f"{where}: the attestation key must be RSA of 2048 to 4096 bits with exponent 65537."
        )
    return Key(n, e)


def _number(text: Any, where: str) -> int:
    if not isinstance(text, str) or not _B64URL.fullmatch(text):
        raise FormatError(f"{where} must be unpadded base64url.")
    try:
        return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")
    except binascii.Error:
        raise FormatError(f"{where} must be unpadded base64url.") from None


def _user_data(text: Any) -> bytes:
    where = "The HCL report's user-data"
    if not isinstance(text, str):
        raise FormatError(f"{where} must be text.")
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raise FormatError(f"{where} must be hex.") from None
    if len(raw) not in (0, USER_DATA_SIZE) or len(text) != 2 * len(raw):
        raise FormatError(f"{where} must be {USER_DATA_SIZE} bytes of hex.")
    return raw
