"""Where opened data may lie: in memory, which no disk ever sees."""

from __future__ import annotations

import os
from pathlib import Path

IN_MEMORY = ("tmpfs", "ramfs")


class PlaceRefused(Exception):
    """The work folder could reach a disk. `code` is a fine code of the portal."""

    code = "no_memory_storage"


def require_memory(
    folder: Path, *, mounts: Path = Path("/proc/mounts"), swaps: Path = Path("/proc/swaps")
) -> None:
    """Refuse a work folder that is not empty, not on a memory-backed file system, or that swapping may write to a disk.

    Raises PlaceRefused.
    """
    if not folder.is_dir() or any(folder.iterdir()):
        raise PlaceRefused(f"{folder} must be an empty folder.")
    kind = _file_system(folder, mounts.read_text())
    if kind not in IN_MEMORY:
        raise PlaceRefused(f"{folder} is on {kind or 'an unknown file system'}: mount a tmpfs there.")
    try:
        areas = swaps.read_text().splitlines()[1:]
    except OSError:
        areas = []  # a kernel without swapping has no such file
    if areas:
        raise PlaceRefused("This machine swaps memory to a disk: switch swapping off (swapoff -a).")


def _file_system(folder: Path, mounts: str) -> str:
    """The kind of file system that `folder` is on: that of the mount point nearest above it, the last one mounted."""
    place, best, kind = os.path.realpath(folder), "", ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        # proc(5): blanks and backslashes in names are octal escapes.
        point = fields[1].encode().decode("unicode_escape")
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind
