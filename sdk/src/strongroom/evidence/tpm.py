"""A TPM 2.0 quote as bytes: the attestation structure, its signature, and the PCR values that go with it.

Layout: TPM 2.0 Library, part 2 (10.12.8 TPMS_ATTEST, 10.6.9 TPML_PCR_SELECTION, 11.3.4 TPMT_SIGNATURE); numbers are
big-endian. Only what a verifier may accept is read: quotes, the SHA-256 bank, RSASSA with SHA-256.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from strongroom import shapes, strictjson
from strongroom.errors import FormatError

MAX_ATTEST_BYTES = 4096
MAX_PCRS_BYTES = 16 << 10
PCR_COUNT = 24

GENERATED = 0xFF544347  # TPM_GENERATED_VALUE: the TPM itself made what follows
ATTEST_QUOTE = 0x8018  # TPM_ST_ATTEST_QUOTE
ALG_SHA256, ALG_RSASSA = 0x000B, 0x0014
_MAX_BANKS = 16
_CLOCK = struct.Struct(">QIIB")  # TPMS_CLOCK_INFO

_PCR_NAMES = frozenset(map(str, range(PCR_COUNT)))
_DIGEST_SIZE = 32


@dataclass(frozen=True, slots=True)
class Selection:
    """One bank of PCRs that a quote covers: the hash algorithm's number and the PCRs, ascending."""

    algorithm: int
    pcrs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Attest:
    """A quote. `raw` are the signed bytes; `extra_data` is what the asker gave; `digest` is over the selected PCRs."""

    raw: bytes
    qualified_signer: bytes
    extra_data: bytes
    clock: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware: int
    selections: tuple[Selection, ...]
    digest: bytes


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int, name: str) -> bytes:
        end = self.at + size
        if end > len(self.data):
            raise FormatError(f"The TPM quote ends inside its {name}.")
        found, self.at = self.data[self.at : end], end
        return found

    def fields(self, layout: struct.Struct, name: str) -> tuple[Any, ...]:
        return layout.unpack(self.take(layout.size, name))

    def number(self, size: int, name: str) -> int:
        return int.from_bytes(self.take(size, name), "big")

    def sized(self, name: str) -> bytes:
        return self.take(self.number(2, name), name)

    def end(self) -> None:
        if self.at != len(self.data):
            raise FormatError(f"The TPM quote has {len(self.data) - self.at} bytes more than its fields.")


def parse_attest(data: bytes) -> Attest:
    """Read a TPMS_ATTEST of a quote, to its last byte. Raises FormatError."""
    if len(data) > MAX_ATTEST_BYTES:
        raise FormatError(f"The TPM quote is {len(data)} bytes long; at most {MAX_ATTEST_BYTES} are read.")
    reader = _Reader(data)
    if reader.number(4, "magic number") != GENERATED:
        raise FormatError("The TPM quote was not made by a TPM: its magic number is another.")
    if (type_ := reader.number(2, "type")) != ATTEST_QUOTE:
        raise FormatError(f"The TPM attestation has type {type_:#06x}, so it is no quote (0x8018).")
    signer, extra = reader.sized("signer"), reader.sized("extra data")
    clock, reset, restart, safe = reader.fields(_CLOCK, "clock")
    if safe > 1:
        raise FormatError("The TPM quote's clock is neither safe nor unsafe.")
    firmware = reader.number(8, "firmware version")
    selections = _selections(reader)
    digest = reader.sized("PCR digest")
    reader.end()
    return Attest(data, signer, extra, clock, reset, restart, bool(safe), firmware, selections, digest)


def _selections(reader: _Reader) -> tuple[Selection, ...]:
    count = reader.number(4, "PCR selection")
    if count > _MAX_BANKS:
        raise FormatError(f"The TPM quote selects {count} banks of PCRs; at most {_MAX_BANKS} are read.")
    found = []
    for _ in range(count):
        algorithm = reader.number(2, "PCR selection")
        bits = int.from_bytes(reader.take(reader.number(1, "PCR selection"), "PCR selection"), "little")
        found.append(Selection(algorithm, _numbers(bits)))
    return tuple(found)


@lru_cache(maxsize=64)
def _numbers(bits: int) -> tuple[int, ...]:
    return tuple(n for n in range(bits.bit_length()) if bits >> n & 1)


def parse_signature(data: bytes) -> bytes:
    """The RSA signature's bytes, from themselves (256, 384 or 512 bytes) or from a TPMT_SIGNATURE around them.

    Raises FormatError for another algorithm than RSASSA with SHA-256.
    """
    if len(data) in (256, 384, 512):
        return data
    reader = _Reader(data)
    scheme, hash_ = reader.number(2, "signature"), reader.number(2, "signature")
    if (scheme, hash_) != (ALG_RSASSA, ALG_SHA256):
        raise FormatError(
            f"The TPM signature has the scheme {scheme:#06x} with hash {hash_:#06x}; only RSASSA with SHA-256 is read."
        )
    signature = reader.sized("signature")
    reader.end()
    return signature


def parse_pcrs(data: bytes) -> dict[int, bytes]:
    """PCR values from JSON {"sha256": {"0": 64 hex digits, ...}}. Raises FormatError, for any other bank too."""
    document = shapes.fields(
        strictjson.loads(data, max_bytes=MAX_PCRS_BYTES, what="The PCR values"),
        "The PCR values",
        {"sha256": _bank},
    )
    bank: Mapping[int, bytes] = document["sha256"]
    return dict(sorted(bank.items()))


def _bank(value: Any, where: str) -> dict[int, bytes]:
    bank = shapes.mapping(value, where)
    if not bank or not _PCR_NAMES.issuperset(bank):
        raise FormatError(f"{where} must name PCRs from 0 to {PCR_COUNT - 1}, at least one.")
    try:
        texts = "".join(bank.values())
        raw = bytes.fromhex(texts)
    except (TypeError, ValueError):
        texts, raw = "", b"no hex"
    one_form = raw.hex() == texts  # so in lower case, without blanks
    if not one_form or {*map(len, bank.values())} != {2 * _DIGEST_SIZE}:
        raise FormatError(f"{where} must give each PCR as {_DIGEST_SIZE} bytes in lower-case hex.")
    starts = range(0, len(raw), _DIGEST_SIZE)
    return {int(name): raw[at : at + _DIGEST_SIZE] for name, at in zip(bank, starts, strict=True)}


def selection_fault(attest: Attest, pcrs: Mapping[int, bytes]) -> str | None:
    """Why the quote does not cover exactly the given SHA-256 PCRs; None where it does."""
    if len(attest.selections) != 1:
        return f"the quote covers {len(attest.selections)} banks of PCRs, not exactly the SHA-256 bank"
    selection = attest.selections[0]
    if selection.algorithm != ALG_SHA256:
        return f"the quote covers the bank {selection.algorithm:#06x}, not SHA-256 (0x000b)"
    if not selection.pcrs:
        return "the quote covers no PCR at all"
    if selection.pcrs != tuple(sorted(pcrs)):
        quoted, given = (", ".join(map(str, found)) for found in (selection.pcrs, sorted(pcrs)))
        return f"the quote covers the PCRs {quoted}; the evidence gives values of {given}"
    return None


def pcr_digest(pcrs: Mapping[int, bytes]) -> bytes:
    """SHA-256 over the values in ascending order: what a quote of exactly these PCRs holds."""
    return hashlib.sha256(b"".join(map(pcrs.__getitem__, sorted(pcrs)))).digest()


def verify(key: rsa.RSAPublicKey, signature: bytes, attest: Attest) -> bool:
    """Whether `signature` is RSASSA-PKCS1-v1_5 with SHA-256 by `key` over the quote. Never raises."""
    try:
        key.verify(signature, attest.raw, padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, ValueError):
        return False
    return True
