"""Just enough of PE: the sections of a UEFI program, adding some, and the hash by which firmware measures it.

Sources: Microsoft, "PE Format"; "Windows Authenticode Portable Executable Signature Format" (calculating the hash); UEFI
specification, "UEFI Image Signing".
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

_HEADER, _NAME = 40, 8
_DATA, _READ = 0x00000040, 0x40000000
_PE32_PLUS = 0x20B
# A page: wherever firmware puts the program, its parts begin where a kernel expects them.
_ALIGNED = 4096


@dataclass(frozen=True, slots=True)
class Section:
    name: str
    address: int  # from the image's base
    size: int  # in memory, bytes
    offset: int  # in the file
    stored: int  # in the file, rounded up

    def content(self, image: bytes) -> bytes:
        return image[self.offset : self.offset + min(self.size, self.stored)]


@dataclass(frozen=True, slots=True)
class Pe:
    """Where things are in a PE32+ file. Offsets from its start."""

    image: bytes
    optional: int
    table: int
    sections: tuple[Section, ...]

    @classmethod
    def parse(cls, image: bytes) -> Pe:
        """Raises ValueError for anything but a PE32+ program."""
        if image[:2] != b"MZ":
            raise ValueError("This is no PE file.")
        try:
            (head,) = struct.unpack_from("<I", image, 0x3C)
            if image[head : head + 4] != b"PE\0\0":
                raise ValueError("This is no PE file.")
            count, size = (
                struct.unpack_from("<H", image, head + 6)[0],
                struct.unpack_from("<H", image, head + 20)[0],
            )
            optional = head + 24
            if struct.unpack_from("<H", image, optional)[0] != _PE32_PLUS:
                raise ValueError("This is no 64-bit PE file.")
            table = optional + size
            return cls(
                image, optional, table, tuple(_section(image, table + i * _HEADER) for i in range(count))
            )
        except struct.error as error:
            raise ValueError("This PE file is cut short.") from error

    def number(self, offset: int) -> int:
        """A 32-bit field of the optional header."""
        return int(struct.unpack_from("<I", self.image, self.optional + offset)[0])

    def section(self, name: str) -> bytes | None:
        for found in self.sections:
            if found.name == name:
                return found.content(self.image)
        return None

    @property
    def certificates(self) -> tuple[int, int]:
        """(offset, size) of the table of signatures; (0, 0) where nothing is signed."""
        return self.number(144), self.number(148)

    @property
    def signed(self) -> bool:
        """Whether it carries a signature. By whom, and whether it holds, is for firmware to say."""
        return self.certificates != (0, 0)

    @property
    def end(self) -> int:
        """Where the last section ends in the file; symbols and signatures come after it."""
        return max((s.offset + s.stored for s in self.sections if s.stored), default=self.number(60))


def _section(image: bytes, at: int) -> Section:
    size, address, stored, offset = struct.unpack_from("<IIII", image, at + _NAME)
    return Section(
        image[at : at + _NAME].rstrip(b"\0").decode("ascii", "replace"), address, size, offset, stored
    )


def authenticode(image: bytes) -> bytes:
    """The Authenticode SHA-256 of a PE file: what PCR 4 is extended with, and what a signature signs.

    Left out: the checksum, the entry that points to the signatures, and the signatures.
    """
    pe = Pe.parse(image)
    headers = pe.number(60)
    digest = hashlib.sha256(image[: pe.optional + 64])
    digest.update(image[pe.optional + 68 : pe.optional + 144])
    digest.update(image[pe.optional + 152 : headers])
    hashed = headers
    for section in sorted((s for s in pe.sections if s.stored), key=lambda s: s.offset):
        digest.update(image[section.offset : section.offset + section.stored])
        hashed += section.stored
    at, size = pe.certificates
    rest = len(image) - size if at else len(image)
    if rest > hashed:
        # What is signed is a whole number of quadwords: sbsign pads before it hashes, and so does firmware.
        tail = image[hashed:rest]
        digest.update(tail)
    return digest.digest()


def add_sections(image: bytes, added: Sequence[tuple[str, bytes]]) -> bytes:
    """The program with read-only data sections after its own, each on a page of its own.

    What follows the program's last section, its symbols, is left out. Raises ValueError: signed already, cut short, no room
    in the headers, or a name that is too long.
    """
    pe = Pe.parse(image)
    if pe.signed:
        raise ValueError("The program is signed already; its signature would not cover what is added.")
    section_step, file_step, headers = pe.number(32), pe.number(36), pe.number(60)
    end_of_table = pe.table + _HEADER * len(pe.sections)
    if end_of_table + _HEADER * len(added) > headers:
        raise ValueError("The program's headers have no room for more sections.")
    if len(image) < pe.end:
        raise ValueError("This PE file is cut short.")
    # Symbols would be a gap between sections, which not every tool hashes alike.
    body = bytearray(image[: pe.end])
    struct.pack_into("<II", body, pe.optional - 12, 0, 0)
    body += bytes(-len(body) % file_step)
    address = max(s.address + s.size for s in pe.sections)
    for number, (name, content) in enumerate(added):
        raw = name.encode()
        if len(raw) > _NAME:
            raise ValueError(f"{name} is too long for a section's name.")
        address += -address % max(_ALIGNED, section_step)
        stored = len(content) + -len(content) % file_step
        struct.pack_into(
            "<8sIIIIIIHHI", body, end_of_table + number * _HEADER,
            raw, len(content), address, stored, len(body), 0, 0, 0, 0, _DATA | _READ,
        )  # fmt: skip
        body += content.ljust(stored, b"\0")
        address += len(content)
    struct.pack_into("<H", body, pe.optional - 18, len(pe.sections) + len(added))
    struct.pack_into("<I", body, pe.optional + 56, address + -address % section_step)
    body[pe.optional + 64 : pe.optional + 68] = bytes(4)
    return bytes(body)
