"""The PCR values that a machine of this image has, computed from the kernel image alone.

PCR 4: what firmware starts. PCR 11: what systemd-stub finds in the kernel image, section by section. PCR 9: what the kernel
was in fact given, command line and initrd. PCR 12, 13: what the stub was given beside the image; here that must be nothing.

Sources: TCG PC Client Platform Firmware Profile, "Boot Manager" (order of PCR 4); systemd 252, systemd-stub(7) and
systemd-measure(1); Linux drivers/firmware/efi/libstub/efi-stub-helper.c (PCR 9). What was compared with a TPM:
docs/how-to/runner-image.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from infra.runner.disk.pe import Pe, authenticode

ZERO = bytes(32)
# What systemd-stub 252 measures of a kernel image, in its order: the section's name with its final zero, then its content.
MEASURED = (".linux", ".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".pcrpkey")
_STARTING = b"Calling EFI Application from Boot Option"
_SEPARATOR = bytes(4)


def extend(pcr: bytes, digest: bytes) -> bytes:
    return hashlib.sha256(pcr + digest).digest()


def _of(digests: Iterable[bytes]) -> bytes:
    pcr = ZERO
    for digest in digests:
        pcr = extend(pcr, digest)
    return pcr


def boot_programs(image: bytes, *, secure_boot: bool) -> bytes:
    """PCR 4 after a start without detours: the firmware's word that it starts an option, the separator, the kernel image.

    Without Secure Boot the kernel inside it comes after that, since the stub has firmware load it as a program of its own.
    With Secure Boot the stub puts a check of its own before firmware's, because the image's signature covers the kernel
    already; so firmware does not measure the kernel again.
    """
    kernel = Pe.parse(image).section(".linux")
    if kernel is None:
        raise ValueError("The image has no kernel: there is no section .linux.")
    events = [hashlib.sha256(part).digest() for part in (_STARTING, _SEPARATOR)]
    programs = [image] if secure_boot else [image, kernel]
    return _of([*events, *map(authenticode, programs)])


def kernel_image(image: bytes) -> bytes:
    """PCR 11 after the stub, with no phase of the boot measured afterwards (systemd-pcrphase is masked in this image)."""
    pe = Pe.parse(image)
    digests: list[bytes] = []
    for name in MEASURED:
        content = pe.section(name)
        if content is not None:
            digests += [hashlib.sha256(part).digest() for part in (name.encode() + b"\0", content)]
    return _of(digests)


def given_to_the_kernel(image: bytes) -> bytes:
    """PCR 9: the command line that the kernel was started with, in UTF-16, then its initrd."""
    pe = Pe.parse(image)
    line, initrd = pe.section(".cmdline"), pe.section(".initrd")
    if line is None or initrd is None:
        raise ValueError("The image has no command line or no initrd.")
    told = line.rstrip(b"\0").decode("ascii").encode("utf-16-le") + b"\0\0"
    return _of(hashlib.sha256(part).digest() for part in (told, initrd))


def golden(image: bytes) -> dict[str, str]:
    """What a policy's entry `code` pins, but for PCR 7, which firmware's keys decide. Hex by number.

    PCR 4 of a signed image is that of a machine with Secure Boot on, of an unsigned one that of a machine with it off. 12 and
    13 are pinned to zero on purpose: anything else says that the stub was given a command line, credentials or extensions
    from outside.
    """
    return {
        "4": boot_programs(image, secure_boot=Pe.parse(image).signed).hex(),
        "9": given_to_the_kernel(image).hex(),
        "11": kernel_image(image).hex(),
        "12": ZERO.hex(),
        "13": ZERO.hex(),
    }
