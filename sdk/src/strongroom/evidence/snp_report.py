"""The attestation report of AMD SEV-SNP: 1184 bytes, versions 2 to 5, as data. Nothing is judged here.

Layout: AMD, SEV Secure Nested Paging Firmware ABI Specification (56860), table ATTESTATION_REPORT. Numbers are little
endian. The processor's family and model are there from version 3 on; version 5 adds mitigation vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from strongroom.errors import FormatError

SIZE = 1184
SIGNED_SIZE = 0x2A0
VERSIONS = (2, 3, 4, 5)
ECDSA_P384_SHA384 = 1

# Bits of the guest policy.
POLICY_SMT, POLICY_RESERVED_ONE, POLICY_MIGRATE, POLICY_DEBUG, POLICY_SINGLE_SOCKET = 16, 17, 18, 19, 20
POLICY_KNOWN_BITS = 26
# Bits of PLATFORM_INFO with the name they have in the claims. Others are shown as a number, not refused.
PLATFORM_BITS = {
    0: "smt",
    1: "tsme",
    2: "ecc",
    3: "rapl_disabled",
    4: "ciphertext_hiding",
    5: "alias_check",  # memory aliasing was looked for since the last reset (AMD-SB-3015, BadRAM)
    7: "tio",
}
SIGNERS = {0: "VCEK", 1: "VLEK", 7: "none"}

# Which byte of a TCB version is which component.
_TCB = {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7}
_TCB_TURIN = {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7}


@dataclass(frozen=True, slots=True)
class Report:
    """A report. TCB versions are its 8 raw bytes: their layout depends on the product, see `tcb_parts`.

    `cpuid`: family, model and stepping, None before version 3. `r` and `s`: the signature's two numbers.
    `signed`: the bytes that the signature covers.
    """

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    sig_algo: int
    current_tcb: bytes
    platform_info: int
    signer_info: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    cpuid: tuple[int, int, int] | None
    chip_id: bytes
    committed_tcb: bytes
    current_version: tuple[int, int, int]
    committed_version: tuple[int, int, int]
    launch_tcb: bytes
    signed: bytes
    r: int
    s: int

    def policy_bit(self, number: int) -> bool:
        return bool(self.policy >> number & 1)

    @property
    def debug(self) -> bool:
        """Whether the host may read the guest's memory."""
        return self.policy_bit(POLICY_DEBUG)

    @property
    def signer(self) -> str:
        """The kind of key that signed: VCEK, VLEK, none, or a number that this version does not know."""
        value = self.signer_info >> 2 & 7
        return SIGNERS.get(value, str(value))

    @property
    def product(self) -> str | None:
        """Milan, Genoa or Turin by the processor's family and model; empty if of none, None before version 3."""
        return None if self.cpuid is None else product_of(self.cpuid[0], self.cpuid[1])


def parse(data: bytes) -> Report:
    """Read a report. Raises FormatError for a wrong size, or for anything in the unused bytes of the signature."""
    if len(data) != SIZE:
        raise FormatError(f"An SEV-SNP report has {SIZE} bytes; this one has {len(data)}.")
    # The signature does not cover these, so they must not be able to say anything.
    if any(data[0x2D0:0x2E8]) or any(data[0x318:SIZE]):
        raise FormatError("The report has data in the unused bytes after its signature.")

    def number(offset: int, size: int) -> int:
        return int.from_bytes(data[offset : offset + size], "little")

    version = number(0x00, 4)
    return Report(
        version=version,
        guest_svn=number(0x04, 4),
        policy=number(0x08, 8),
        family_id=data[0x10:0x20],
        image_id=data[0x20:0x30],
        vmpl=number(0x30, 4),
        sig_algo=number(0x34, 4),
        current_tcb=data[0x38:0x40],
        platform_info=number(0x40, 8),
        signer_info=number(0x48, 4),
        report_data=data[0x50:0x90],
        measurement=data[0x90:0xC0],
        host_data=data[0xC0:0xE0],
        id_key_digest=data[0xE0:0x110],
        author_key_digest=data[0x110:0x140],
        report_id=data[0x140:0x160],
        report_id_ma=data[0x160:0x180],
        reported_tcb=data[0x180:0x188],
        cpuid=(data[0x188], data[0x189], data[0x18A]) if version >= 3 else None,
        chip_id=data[0x1A0:0x1E0],
        committed_tcb=data[0x1E0:0x1E8],
        current_version=(data[0x1EA], data[0x1E9], data[0x1E8]),
        committed_version=(data[0x1EE], data[0x1ED], data[0x1EC]),
        launch_tcb=data[0x1F0:0x1F8],
        signed=data[:SIGNED_SIZE],
        r=number(0x2A0, 72),
        s=number(0x2E8, 72),
    )


def product_of(family: int, model: int) -> str:
    """The product line of a processor by CPUID family and model (both with their extended parts); empty if unknown."""
    if family == 0x19:
        if model <= 0x0F:
            return "Milan"
        if 0x10 <= model <= 0x1F or 0xA0 <= model <= 0xAF:  # Genoa; Bergamo and Siena share its keys
            return "Genoa"
    if family == 0x1A and model <= 0x11:
        return "Turin"
    return ""


def tcb_parts(raw: bytes, product: str) -> dict[str, int]:
    """The components of a TCB version by the product's layout (Turin has its own)."""
    layout = _TCB_TURIN if product == "Turin" else _TCB
    return {name: raw[place] for name, place in layout.items()}


def below(one: Mapping[str, int], other: Mapping[str, int]) -> list[str]:
    """The components in which `one` is lower than `other`; only those that both have."""
    return [name for name in one if name in other and one[name] < other[name]]


def platform(report: Report) -> dict[str, bool]:
    """The platform's properties by name."""
    return {name: bool(report.platform_info >> bit & 1) for bit, name in PLATFORM_BITS.items()}
