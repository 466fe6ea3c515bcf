"""The initrd: busybox, dmsetup, the modules that a disk needs, and the script `init`. Nothing that could be a way in."""

from __future__ import annotations

import lzma
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from infra.runner.disk import cpio

HERE = Path(__file__).parent
TOOLS = ("cat", "dd", "grep", "insmod", "mkdir", "mount", "poweroff", "sed", "sleep", "switch_root")
# Azure's disks (SCSI or NVMe, which is built in), and virtio, so that the image can be tried on a machine of one's own.
MODULES = (
    "dm-verity",
    "squashfs",
    "hv_vmbus",
    "hv_storvsc",
    "pci-hyperv",
    "sd_mod",
    "virtio_blk",
    "virtio_scsi",
)


def dependencies(text: str) -> dict[str, tuple[str, list[str]]]:
    """modules.dep: by a module's name, its file and the files that it needs, which stand in the order of unloading."""
    found = {}
    for line in text.splitlines():
        file, _, needed = line.partition(":")
        found[_name(file)] = (file, needed.split())
    return found


def in_order(wanted: Iterable[str], known: dict[str, tuple[str, list[str]]]) -> list[str]:
    """The files of the modules and of all that they need, each after what it needs. Raises KeyError: no such module."""
    order: list[str] = []
    for name in wanted:
        file, needed = known[name.replace("-", "_")]
        order += [f for f in (*reversed(needed), file) if f not in order]
    return order


def _name(file: str) -> str:
    return Path(file).name.partition(".ko")[0].replace("-", "_")


def build(parts: Path, *, modules: Path, libraries: Sequence[tuple[str, Path]], time: int) -> bytes:
    """The archive. parts: extracted packages. modules: the kernel's folder. libraries: (place, file) that dmsetup loads."""
    entries = {f"bin/{tool}": cpio.link("busybox") for tool in ("sh", *TOOLS)}
    entries["bin/busybox"] = cpio.file((parts / "bin/busybox").read_bytes(), executable=True)
    entries["bin/dmsetup"] = cpio.file((parts / "sbin/dmsetup").read_bytes(), executable=True)
    for place, library in libraries:
        entries[place] = cpio.file(library.read_bytes(), executable=True)
    entries["init"] = cpio.file((HERE / "init").read_bytes(), executable=True)
    entries["dev/console"] = cpio.Entry(stat.S_IFCHR | 0o600, device=(5, 1))
    entries["proc/.keep"] = entries["sys/.keep"] = cpio.file(b"")
    order = in_order(MODULES, dependencies((modules / "modules.dep").read_text()))
    for file in order:
        entries[f"modules/{Path(file).name.removesuffix('.xz')}"] = cpio.file(_plain(modules / file))
    names = [Path(file).name.removesuffix(".xz") for file in order]
    entries["modules/order"] = cpio.file("".join(f"{name}\n" for name in names).encode())
    return cpio.archive(entries, time=time)


def _plain(file: Path) -> bytes:
    content = file.read_bytes()
    return lzma.decompress(content) if file.suffix == ".xz" else content
