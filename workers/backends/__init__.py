"""Where a run's machine comes from. Each backend answers launch, observe, destroy and sweep (base.py)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from django.conf import settings

from workers.backends.base import Backend
from workers.backends.local import LocalBackend

KINDS: dict[str, Callable[[], Backend]] = {"local": LocalBackend.from_settings}


def install(register: Callable[[str, Backend], None]) -> None:
    """Make every backend of the settings known. Raises LookupError for one that does not exist."""
    for name in settings.RUN_BACKENDS:
        if name not in KINDS:
            raise LookupError(f"RUN_BACKENDS names {name!r}; this version has: {', '.join(sorted(KINDS))}")
        register(name, KINDS[name]())


def prepare(backends: Iterable[Backend]) -> None:
    """Let each backend that has something to do once for each worker do it, beside the worker's own start."""
    for backend in backends:
        if isinstance(backend, LocalBackend):
            threading.Thread(target=backend.prepare, name="prepare", daemon=True).start()
