"""An Azure confidential VM of one's own: a vTPM with its attestation key, and the paravisor's report around hardware.

`Machine` holds every value that a test may want to get wrong; what depends on it is made after the change.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from strongroom.evidence import Anchor, azure_cvm, envelope, tpm
from tests.unit.strongroom.evidence import authority_amd as amd
from tests.unit.strongroom.evidence import authority_intel as intel

NOW = intel.NOW
NONCE = bytes(range(1, 33))
INSTANCE = "0B5C2A62-57B5-4D4D-9D1B-2D6C5A3E7F10"
MICROSOFT_ID_KEY = bytes.fromhex(sorted(azure_cvm.MICROSOFT_ID_KEYS)[0])


def ak(name: str = "ak") -> rsa.RSAPrivateKey:
    """The attestation key of this name: the same one for the whole process."""
    return _key(name)


@lru_cache(maxsize=8)
def _key(name: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _b64url(number: int) -> str:
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def jwk(kid: str, ops: list[str], name: str = "ak") -> dict[str, Any]:
    public = ak(name).public_key().public_numbers()
    return {"kid": kid, "key_ops": ops, "kty": "RSA", "e": _b64url(public.e), "n": _b64url(public.n)}


def runtime_claims(
    *, name: str = "ak", user_data: bytes = bytes(64), vm: Mapping[str, Any] | None = None
) -> bytes:
    """The paravisor's JSON, with an attestation and an endorsement key."""
    configuration = {
        "root-cert-thumbprint": "",
        "console-enabled": True,
        "secure-boot": True,
        "tpm-enabled": True,
        "tpm-persisted": False,
        "vmUniqueId": INSTANCE,
        **(vm or {}),
    }
    claims = {
        "keys": [jwk("HCLAkPub", ["sign"], name), jwk("HCLEkPub", ["encrypt"], "ek")],
        "vm-configuration": configuration,
        "user-data": user_data.hex().upper(),
    }
    return json.dumps(claims, separators=(",", ":")).encode()


def hcl_report(
    body: bytes,
    claims: bytes,
    *,
    magic: bytes = b"HCLA",
    version: int = 2,
    report_type: int = 2,
    report_size: int | None = None,
    request_type: int = 2,
    status: int = 0,
    reserved: bytes = bytes(12),
    request_version: int = 1,
    hash_type: int = 1,
    claims_size: int | None = None,
    data_size: int | None = None,
    padding: bytes = b"",
    total: int | None = 2600,
) -> bytes:
    """An HCL report. `report_size`: the header's; by default of the whole. `total`: the size that zeros fill up to."""
    capabilities = b"\x07\0\0\0" if request_version == 2 else b""
    size = 20 + len(capabilities) + len(claims)
    whole = 32 + 1184 + size
    said = whole if report_size is None else report_size
    data = magic + struct.pack("<IIII", version, said, request_type, status) + reserved
    data += body[: 1024 if report_type == 4 and not any(body[1024:]) else 1184].ljust(1184, b"\x00")
    data += struct.pack(
        "<IIIII",
        size if data_size is None else data_size,
        request_version,
        report_type,
        hash_type,
        len(claims) if claims_size is None else claims_size,
    )
    data += capabilities + claims + padding
    return data if total is None else data.ljust(total, b"\x00")


def selection(numbers: tuple[int, ...], algorithm: int, size: int = 3) -> bytes:
    """One bank of a TPML_PCR_SELECTION."""
    bits = sum(1 << number for number in numbers)
    return struct.pack(">HB", algorithm, size) + bits.to_bytes(size, "little")


def attest(
    pcrs: Mapping[int, bytes],
    extra: bytes,
    *,
    magic: int = tpm.GENERATED,
    type_: int = tpm.ATTEST_QUOTE,
    safe: int = 1,
    selected: bytes | None = None,
    banks: int | None = None,
    digest: bytes | None = None,
    tail: bytes = b"",
) -> bytes:
    """A TPMS_ATTEST. `selected`: the banks as bytes; `digest`: over the PCRs unless given."""
    if selected is None:
        selected = selection(tuple(pcrs), tpm.ALG_SHA256)
    count = len(_banks(selected)) if banks is None else banks
    signer = struct.pack(">HH", 34, tpm.ALG_SHA256) + hashlib.sha256(b"name").digest()
    digest = tpm.pcr_digest(pcrs) if digest is None else digest
    return b"".join(
        (struct.pack(">IH", magic, type_), signer, struct.pack(">H", len(extra)), extra,
         struct.pack(">QIIB", 861327613, 3, 0, safe), struct.pack(">Q", 0x2020031200120003),
         struct.pack(">I", count), selected, struct.pack(">H", len(digest)), digest, tail)
    )  # fmt: skip


def _banks(selected: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(selected):
        found.append(selected[at : at + 3 + selected[at + 2]])
        at += len(found[-1])
    return found


def tpmt_signature(raw: bytes, *, scheme: int = tpm.ALG_RSASSA, hash_: int = tpm.ALG_SHA256) -> bytes:
    return struct.pack(">HHH", scheme, hash_, len(raw)) + raw


def pcrs_json(pcrs: Mapping[int, bytes]) -> bytes:
    return json.dumps({"sha256": {str(number): value.hex() for number, value in pcrs.items()}}).encode()


PCRS = {number: hashlib.sha256(b"pcr" + bytes([number])).digest() for number in range(24)}


@dataclass(frozen=True)
class Machine:
    """A VM that is asked for evidence. `tdx`: on Intel, by a Domain; else on AMD."""

    tdx: bool = False
    nonce: bytes = NONCE
    extra: bytes | None = None
    user_data: bytes | None = None
    pcrs: Mapping[int, bytes] = field(default_factory=lambda: dict(PCRS))
    said_pcrs: Mapping[int, bytes] | None = None
    key_name: str = "ak"
    signing_key: str | None = None
    vm: Mapping[str, Any] = field(default_factory=dict)
    attest: Mapping[str, Any] = field(default_factory=dict)
    hcl: Mapping[str, Any] = field(default_factory=dict)
    hash_type: int = 1
    report_data: bytes | None = None
    tpmt: bool = False
    domain: intel.Domain = field(default_factory=lambda: intel.Domain(attributes=0))
    snp: Mapping[str, Any] = field(default_factory=dict)  # fields of amd.Report
    vek: amd.Vek = field(default_factory=amd.Vek)
    id_key: bytes = MICROSOFT_ID_KEY

    def but(self, **changes: Any) -> Machine:
        return replace(self, **changes)

    def claims(self) -> bytes:
        bound = self.nonce if self.user_data is None else self.user_data
        return runtime_claims(name=self.key_name, user_data=bound.ljust(64, b"\x00"), vm=self.vm)

    def bound_report_data(self) -> bytes:
        if self.report_data is not None:
            return self.report_data
        name = {1: "sha256", 2: "sha384", 3: "sha512"}[self.hash_type]
        return hashlib.new(name, self.claims()).digest().ljust(64, b"\x00")

    def td(self) -> intel.Domain:
        return self.domain.but(report_data=self.bound_report_data())

    def parts(self) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """Parts and collateral of the evidence."""
        quote = attest(self.pcrs, self.nonce if self.extra is None else self.extra, **self.attest)
        signer = ak(self.signing_key or self.key_name)
        signature = signer.sign(quote, padding.PKCS1v15(), hashes.SHA256())
        parts = {
            "quote": quote,
            "signature": tpmt_signature(signature) if self.tpmt else signature,
            "pcrs": pcrs_json(self.pcrs if self.said_pcrs is None else self.said_pcrs),
        }
        more: dict[str, bytes] = {}
        if self.tdx:
            body, kind = self.td().td_report(), 4
            parts["td-quote"] = self.td().quote()
        else:
            body, more, kind = *self._snp(), 2
        changes = {"report_type": kind, "hash_type": self.hash_type, **self.hcl}
        parts["hcl-report"] = hcl_report(body, self.claims(), **changes)
        return parts, more

    def _snp(self) -> tuple[bytes, dict[str, bytes]]:
        raw = {0xE0: self.id_key, **self.snp.get("raw", {})}
        values = {
            "product": self.vek.product,
            "report_data": self.bound_report_data(),
            **self.snp,
            "raw": raw,
        }
        collateral = {"vek": self.vek.der(), "chain": amd.chain(self.vek.product, self.vek.kind)}
        return amd.Report(**values).sign(self.vek), collateral

    def seal(self, *, now: datetime = NOW, **more: bytes) -> bytes:
        parts, collateral = self.parts()
        return envelope.build("azure-cvm", parts, collected=now, collateral={**collateral, **more})


def anchors() -> list[Anchor]:
    """What a verifier must hold to accept machines of either kind."""
    return [*amd.anchors(), intel.Authority().anchor()]
