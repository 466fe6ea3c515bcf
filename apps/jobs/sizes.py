"""Sizes of machines: what an operator offers, and which one a run gets.

A table per backend in the setting RUN_SIZES: {"gcp": {"small": {"machine": "n2d-standard-4", "vcpus": 4, ...}}}.
Prices are the operator's own figures, in pence an hour; a price that nobody gave is None, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

GIB = 1024**3


@dataclass(frozen=True)
class Size:
    """`machine`: the provider's name for it, "" where there is none. `options`: what only that backend understands."""

    name: str
    machine: str
    vcpus: int
    memory_gib: int
    gpus: int = 0
    pence_per_hour: int | None = None
    price_source: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, name: str, entry: Mapping[str, Any]) -> Size:
        """One entry of the table. Raises ValueError for anything that is not as it must be."""
        known = {"machine", "vcpus", "memory_gib", "gpus", "pence_per_hour", "price_source", "options"}
        if unknown := set(entry) - known:
            raise ValueError(f"size {name!r} has unknown members: {', '.join(sorted(unknown))}")
        size = cls(
            name=name,
            machine=entry.get("machine", ""),
            vcpus=entry.get("vcpus", 0),
            memory_gib=entry.get("memory_gib", 0),
            gpus=entry.get("gpus", 0),
            pence_per_hour=entry.get("pence_per_hour"),
            price_source=entry.get("price_source", ""),
            options=entry.get("options", {}),
        )
        whole = (size.vcpus, size.memory_gib, size.gpus)
        if any(type(n) is not int or n < 0 for n in whole) or not size.vcpus or not size.memory_gib:
            raise ValueError(f"size {name!r}: vcpus and memory_gib are whole numbers above 0, gpus from 0")
        price = size.pence_per_hour
        if price is not None and (type(price) is not int or price < 0):
            raise ValueError(f"size {name!r}: pence_per_hour is a whole number from 0, or null")
        if price is not None and not size.price_source:
            raise ValueError(f"size {name!r}: say in price_source where the price is from, and of which day")
        return size


def sizes_of(backend: str) -> dict[str, Size]:
    """What `backend` offers, by name; empty for a backend without a table of sizes."""
    table = settings.RUN_SIZES.get(backend, {})
    return {name: Size.parse(name, entry) for name, entry in table.items()}


def default_size(sizes: Mapping[str, Size], limits: Mapping[str, int]) -> Size | None:
    """The smallest that holds what a run may use: the program's memory, and as much again as it may write.

    Opened inputs and outputs lie in memory-backed storage, so both count. None if no size is large enough.
    """
    need = limits.get("memory_bytes", 0) + limits.get("disk_bytes", 0)
    fitting = [size for size in sizes.values() if size.memory_gib * GIB >= need]
    return min(fitting, key=lambda size: (size.gpus, size.memory_gib, size.vcpus, size.name), default=None)
