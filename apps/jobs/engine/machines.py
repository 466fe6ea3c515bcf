"""Where a run's machine comes from: the protocol, and the backends that the worker process has brought along.

Apps never import workers. A worker registers its backends here when it starts (workers/tasks.py); a web process has
none and asks for none, because only `advance` touches machines and only workers call it.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Protocol

from apps.jobs.models import Run


class Sight(StrEnum):
    """What a look at the world shows. ABSENT: nothing by that name. GONE: it was there and its process has ended."""

    ABSENT = "absent"
    RUNNING = "running"
    GONE = "gone"


class BackendError(Exception):
    """The backend could not do it now. `code` is a fine code of codes.py."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Backend(Protocol):
    """Each call reads the world, not a memory of it, and may be repeated. Machines have deterministic names."""

    def launch(self, run: Run, token: str) -> None:
        """Start the machine `run.machine` with the one-time token, unless it is there already. Raises BackendError."""

    def observe(self, run: Run) -> Sight:
        """Look for the machine `run.machine`."""

    def destroy(self, run: Run) -> None:
        """Remove the machine and everything it held; absent is fine. Raises BackendError."""

    def sweep(self, live_names: Collection[str]) -> list[str]:
        """Destroy machines of this installation whose name is not in `live_names`; returns their names."""


_backends: dict[str, Backend] = {}


def register(name: str, backend: Backend) -> None:
    """Make a backend known to this process."""
    _backends[name] = backend


def backend(name: str) -> Backend:
    """The backend called `name`. Raises BackendError if this process has none of that name."""
    try:
        return _backends[name]
    except KeyError:
        raise BackendError("launch_failed", f"This worker has no backend {name!r}.") from None


def backends() -> dict[str, Backend]:
    return dict(_backends)
