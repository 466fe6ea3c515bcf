"""A GPT written byte by byte, so that the same image gives the same disk. Source: UEFI specification, "GUID Partition Table"."""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

SECTOR, ENTRIES, ENTRY = 512, 128, 128
MIB = 1 << 20
_TABLE_SECTORS = ENTRIES * ENTRY // SECTOR
FIRST = MIB // SECTOR
ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
# Root and its hashes on x86-64: systemd, "Discoverable Partitions Specification".
ROOT = uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")
ROOT_VERITY = uuid.UUID("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5")


@dataclass(frozen=True, slots=True)
class Partition:
    """size: bytes, whole sectors. start: bytes from the disk's beginning."""

    name: str
    kind: uuid.UUID
    identity: uuid.UUID
    start: int
    size: int


def lay_out(wanted: Sequence[tuple[str, uuid.UUID, uuid.UUID, int]]) -> tuple[list[Partition], int]:
    """Partitions of (name, kind, identity, bytes), one after the other on whole MiB, and the disk's size in bytes."""
    at, placed = MIB, []
    for name, kind, identity, size in wanted:
        placed.append(Partition(name, kind, identity, at, size + -size % SECTOR))
        at += size + -size % MIB
    return placed, at + MIB


def tables(partitions: Sequence[Partition], *, identity: uuid.UUID, size: int) -> tuple[bytes, bytes]:
    """(what the disk begins with, what it ends with): protective MBR and first table, second table."""
    sectors = size // SECTOR
    entries = b"".join(_entry(p) for p in partitions).ljust(ENTRIES * ENTRY, b"\0")
    first = _header(1, sectors - 1, 2, entries, identity, sectors)
    second = _header(sectors - 1, 1, sectors - 1 - _TABLE_SECTORS, entries, identity, sectors)
    return _protective(sectors) + first + entries, entries + second


def _entry(p: Partition) -> bytes:
    first, last = p.start // SECTOR, (p.start + p.size) // SECTOR - 1
    name = p.name.encode("utf-16-le").ljust(72, b"\0")
    return struct.pack("<16s16sQQQ72s", p.kind.bytes_le, p.identity.bytes_le, first, last, 0, name)


def _header(here: int, other: int, table: int, entries: bytes, identity: uuid.UUID, sectors: int) -> bytes:
    last = sectors - 2 - _TABLE_SECTORS
    first = 2 + _TABLE_SECTORS

    def pack(crc: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x00010000, 92, crc, 0, here, other, first, last, identity.bytes_le, table,
            ENTRIES, ENTRY, zlib.crc32(entries),
        )  # fmt: skip

    return pack(zlib.crc32(pack(0))).ljust(SECTOR, b"\0")


def _protective(sectors: int) -> bytes:
    covered = min(sectors - 1, 0xFFFFFFFF)
    record = struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, covered)
    return bytes(446) + record + bytes(48) + b"\x55\xaa"
