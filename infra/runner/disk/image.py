"""From a root folder to a disk: squashfs, its hash tree, the kernel image that names the root hash, the GPT disk, the VHD."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.runner.disk import gpt, pe, vhd
from infra.runner.disk.tools import Tools

BLOCK = 4096
# Any fixed value: the salt makes trees of different images differ, which nothing here rests on.
SALT = hashlib.sha256(b"strongroom runner disk").hexdigest()
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:strongroom:runner:disk")
STUB = "usr/lib/systemd/boot/efi/linuxx64.efi.stub"
ESP_MIB = 128
# No console: what the kernel says would be the host's to read. No credentials, units or settings from the host's tables.
KERNEL = (
    "ro", "quiet", "loglevel=0", "panic=0", "oops=panic", "lockdown=confidentiality", "module.sig_enforce=1", "nohibernate",
    "noresume", "systemd.import_credentials=no", "systemd.gpt_auto=no", "systemd.show_status=no", "systemd.log_target=journal",
    "systemd.getty_auto=no", "systemd.swap=no", "fsck.mode=skip",
)  # fmt: skip
CONSOLE = ("console=ttyS0", "loglevel=6", "systemd.show_status=yes", "systemd.journald.forward_to_console=1")


@dataclass(frozen=True, slots=True)
class Verity:
    """hash: of the tree's root, hex. blocks: of 4096 bytes, data only."""

    hash: str
    blocks: int

    def word(self) -> str:
        return f"strongroom.verity={self.hash}:{SALT}:{self.blocks}"


def command_line(verity: Verity, *, console: bool = False) -> str:
    """console: for a look at a trial on one's own machine; such an image is another image, and says so by its PCRs."""
    words = [*KERNEL, *(CONSOLE if console else ()), verity.word()]
    return " ".join(words)


def squash(tools: Tools, root: Path, into: Path) -> None:
    """Times are the commit's: mksquashfs takes SOURCE_DATE_EPOCH, which `tools` sets, for all of them."""
    into.unlink(missing_ok=True)
    tools.run(
        "usr/bin/mksquashfs", root, into, "-comp", "zstd", "-Xcompression-level", "6", "-b", "131072", "-no-progress", "-quiet",
        "-noappend", "-no-exports", "-no-xattrs",
    )  # fmt: skip
    with into.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.truncate(size + -size % BLOCK)


def hash_tree(tools: Tools, data: Path, into: Path) -> Verity:
    into.unlink(missing_ok=True)
    into.touch()
    named = into.with_suffix(".hash")
    tools.run(
        "sbin/veritysetup", "format", "--no-superblock", "--hash=sha256", f"--salt={SALT}", f"--data-block-size={BLOCK}",
        f"--hash-block-size={BLOCK}", f"--root-hash-file={named}", data, into,
    )  # fmt: skip
    return Verity(named.read_text().strip(), data.stat().st_size // BLOCK)


def kernel_image(stub: bytes, *, kernel: bytes, initrd: bytes, line: str, release: str) -> bytes:
    """A unified kernel image: what is started, and what is measured, in one file."""
    sections = (
        (".osrel", release.encode()),
        (".cmdline", line.encode()),
        (".linux", kernel),
        (".initrd", initrd),
    )
    return pe.add_sections(stub, sections)


def esp(tools: Tools, kernel: Path, into: Path, *, time: int) -> None:
    """The partition that firmware reads: one file, at the place that is looked at without any setting."""
    with into.open("wb") as file:
        file.truncate(ESP_MIB * vhd.MIB)
    os.utime(kernel, (time, time))
    tools.run("sbin/mkfs.vfat", "-F", "32", "-n", "STRONGROOM", "--invariant", into)
    tools.run("usr/bin/mmd", "-i", into, "::/EFI", "::/EFI/BOOT")
    tools.run("usr/bin/mcopy", "-m", "-i", into, kernel, "::/EFI/BOOT/BOOTX64.EFI")


def partition_ids(verity: Verity) -> tuple[uuid.UUID, uuid.UUID]:
    """Of root and hashes: the two halves of the root hash, as the Discoverable Partitions Specification has it."""
    raw = bytes.fromhex(verity.hash)
    return uuid.UUID(bytes=raw[:16]), uuid.UUID(bytes=raw[16:])


def disk(files: Sequence[Path], verity: Verity, into: Path) -> None:
    """files: ESP, root, hashes. Raw, a whole number of MiB."""
    root_id, hash_id = partition_ids(verity)
    kinds = (
        ("strongroom-esp", gpt.ESP, uuid.uuid5(NAMESPACE, verity.hash + "esp")),
        ("strongroom-root", gpt.ROOT, root_id),
        ("strongroom-verity", gpt.ROOT_VERITY, hash_id),
    )
    wanted = [(*kind, file.stat().st_size) for kind, file in zip(kinds, files, strict=True)]
    partitions, size = gpt.lay_out(wanted)
    first, last = gpt.tables(partitions, identity=uuid.uuid5(NAMESPACE, verity.hash), size=size)
    with into.open("wb") as out:
        out.write(first)
        for partition, file in zip(partitions, files, strict=True):
            out.seek(partition.start)
            with file.open("rb") as source:
                while piece := source.read(vhd.MIB):
                    out.write(piece)
        out.truncate(size)
        out.seek(size - len(last))
        out.write(last)


def as_vhd(raw: Path, into: Path, verity: Verity, *, time: int) -> None:
    """The same bytes with the footer that Azure wants."""
    size = raw.stat().st_size
    end = vhd.footer(size, identity=uuid.uuid5(NAMESPACE, verity.hash + "vhd"), made=time)
    with raw.open("rb") as source, into.open("wb") as out:
        while piece := source.read(vhd.MIB):
            out.write(piece)
        out.write(end)


def digest(file: Path) -> str:
    with file.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
