"""The footer that makes a raw disk a fixed VHD, as Azure takes it.

Source: Microsoft, "Virtual Hard Disk Image Format Specification" (version 1.0, October 2006), "Hard Disk Footer Format" and
appendix "CHS Calculation". Azure wants the virtual size to be a whole number of MiB
(learn.microsoft.com/azure/virtual-machines/linux/create-upload-generic).
"""

from __future__ import annotations

import struct
import uuid

FOOTER_BYTES, SECTOR, MIB = 512, 512, 1 << 20
_COOKIE, _FIXED, _NO_OFFSET = b"conectix", 2, 0xFFFFFFFFFFFFFFFF
_RESERVED_FEATURE, _VERSION = 2, 0x00010000  # bit 1 is always set
_EPOCH_2000 = 946684800  # VHD counts seconds from the year 2000, UTC
_LAYOUT = ">8sIIQI4sI4sQQHBBII16sB"


def geometry(size: int) -> tuple[int, int, int]:
    """(cylinders, heads, sectors) of a disk of `size` bytes, by the specification's own arithmetic."""
    total = min(size // SECTOR, 65535 * 16 * 255)
    if total >= 65535 * 16 * 63:
        return total // 255 // 16, 16, 255
    sectors, by_heads = 17, total // 17
    heads = max((by_heads + 1023) // 1024, 4)
    if by_heads >= heads * 1024 or heads > 16:
        sectors, heads, by_heads = 31, 16, total // 31
    if by_heads >= heads * 1024:
        sectors, heads, by_heads = 63, 16, total // 63
    return by_heads // heads, heads, sectors


def checksum(footer: bytes) -> int:
    """One's complement of the sum of all bytes, the checksum's own (64 to 67) left out."""
    return ~(sum(footer) - sum(footer[64:68])) & 0xFFFFFFFF


def footer(size: int, *, identity: uuid.UUID, made: int) -> bytes:
    """512 bytes to put after a raw disk of `size` bytes. made: Unix time, seconds.

    Raises ValueError: Azure refuses sizes that are no whole number of MiB.
    """
    if size <= 0 or size % MIB:
        raise ValueError("Azure takes disks whose size is a whole number of MiB; this one is not.")
    fields = struct.pack(
        _LAYOUT, _COOKIE, _RESERVED_FEATURE, _VERSION, _NO_OFFSET, max(made - _EPOCH_2000, 0), b"srdk", _VERSION, b"Wi2k",
        size, size, *geometry(size), _FIXED, 0, identity.bytes, 0,
    ).ljust(FOOTER_BYTES, b"\0")  # fmt: skip
    return fields[:64] + struct.pack(">I", checksum(fields)) + fields[68:]
