"""Where a run's machine comes from: the protocol, and the backends that the worker process has brought along.

Apps never import workers. A worker registers its backends here when it starts (workers/tasks.py); a web process has
none and asks for none, because only `advance` touches machines and only workers call it.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from enum import StrEnum
from typing import Protocol

from apps.jobs.models import Run


class Sight(StrEnum):
    """What a look at the world shows.

    ABSENT: nothing by that name. STARTING: asked for, not yet on. RUNNING: on. GONE: it was there and has ended, or is
    ending. EVICTED: its cloud took it back.
    """

    ABSENT = "absent"
    STARTING = "starting"
    RUNNING = "running"
    GONE = "gone"
    EVICTED = "evicted"


class BackendError(Exception):
    """The backend could not do it. `code` is a fine code of codes.py; the detail is for the operator's log only."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Unsettled(BackendError):
    """Whether it was done is not known, or it is under way: nothing is concluded, and the next look decides."""


class Backend(Protocol):
    """Each call reads the world, not a memory of it, and may be repeated. Machines have deterministic names.

    A backend whose machines take longer to call home than FIRST_CALL says so in an attribute `first_call`.
    """

    def launch(self, run: Run, token: str) -> None:
        """Ask for the machine `run.machine` with the one-time token, unless it is there already.

        Raises BackendError (it cannot be had), Unsettled (look again).
        """

    def observe(self, run: Run) -> Sight:
        """Look for the machine `run.machine`. Raises BackendError (it cannot be had any more), Unsettled."""

    def destroy(self, run: Run) -> None:
        """Remove the machine and everything it held; absent is fine. Returns once nothing of it is left.

        Raises Unsettled (asked for, not done yet), BackendError (refused).
        """

    def sweep(self, live_names: Collection[str]) -> list[str]:
        """Destroy machines of this installation whose name is not in `live_names`; returns their names."""


# How long after its launch a machine may take to call home.
FIRST_CALL = timedelta(seconds=60)

_backends: dict[str, Backend] = {}


def first_call(machines: Backend) -> timedelta:
    """How long this backend's machines may take from launch to their first call."""
    return getattr(machines, "first_call", FIRST_CALL)


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
