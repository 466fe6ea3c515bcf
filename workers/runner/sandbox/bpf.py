"""A very small assembler of classic BPF, as seccomp takes it (Linux: seccomp(2), linux/filter.h).

Only what a filter of system calls needs: load a word of `struct seccomp_data`, compare, return.
"""

from __future__ import annotations

import struct

LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JUMP_GREATER = 0x25  # BPF_JMP | BPF_JGT | BPF_K
JUMP_NOT_LESS = 0x35  # BPF_JMP | BPF_JGE | BPF_K
JUMP_ANY_BIT = 0x45  # BPF_JMP | BPF_JSET | BPF_K
AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
RETURN = 0x06  # BPF_RET | BPF_K

KILL = 0x80000000  # SECCOMP_RET_KILL_PROCESS
ALLOW = 0x7FFF0000  # SECCOMP_RET_ALLOW
ERRNO = 0x00050000  # SECCOMP_RET_ERRNO, with the number in the low 16 bits

NUMBER, ARCH, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS


def low(argument: int) -> int:
    """Offset of the low 32 bits of an argument (little endian: both machines we know are)."""
    return ARGUMENTS + 8 * argument


def high(argument: int) -> int:
    """Offset of the high 32 bits of an argument."""
    return low(argument) + 4


class Assembler:
    """Instructions with named targets; `build` turns names into distances and gives the bytes."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, str | None, str | None]] = []
        self._labels: dict[str, int] = {}
        self._names = 0

    def fresh(self) -> str:
        """A label name that nothing else uses."""
        self._names += 1
        return f"_{self._names}"

    def label(self, name: str) -> None:
        """The next instruction is `name`."""
        self._labels[name] = len(self._rows)

    def load(self, offset: int) -> None:
        """Load the 32-bit word at `offset` of struct seccomp_data."""
        self._rows.append((LOAD, offset, None, None))

    def mask(self, bits: int) -> None:
        """Keep only `bits` of the loaded word."""
        self._rows.append((AND, bits, None, None))

    def jump(self, code: int, value: int, *, yes: str | None = None, no: str | None = None) -> None:
        """Compare the loaded word with `value`; None means go on with the next instruction."""
        self._rows.append((code, value, yes, no))

    def ret(self, action: int) -> None:
        """End with `action`."""
        self._rows.append((RETURN, action, None, None))

    def build(self) -> bytes:
        """The program as an array of struct sock_filter. Raises ValueError if a jump is too far (8 bits)."""
        if len(self._rows) > MAX_INSTRUCTIONS:
            raise ValueError("The filter has more instructions than the kernel takes.")
        out = bytearray()
        for place, (code, value, yes, no) in enumerate(self._rows):
            out += struct.pack("=HBBI", code, self._distance(place, yes), self._distance(place, no), value)
        return bytes(out)

    def _distance(self, place: int, label: str | None) -> int:
        if label is None:
            return 0
        distance = self._labels[label] - place - 1
        if not 0 <= distance <= 255:
            raise ValueError(f"Jump to {label} is out of reach.")
        return distance
