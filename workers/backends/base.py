"""What a backend is. The protocol stands where the engine needs it; here is what the backends share."""

from __future__ import annotations

import re

from apps.jobs.engine.machines import Backend, BackendError, Sight, Unsettled

MACHINE = re.compile(r"sr-[0-9a-f]{12}-[1-9][0-9]{0,3}")


def unreadable(detail: str) -> Unsettled:
    """An answer that is not what the cloud says by its own description: it tells nothing, so nothing is concluded."""
    return Unsettled("cloud_unreadable", detail)


def checked_name(machine: str) -> str:
    """The machine's name, if it is one of ours: it becomes a path and a resource name. Raises BackendError."""
    if not MACHINE.fullmatch(machine):
        raise BackendError("launch_failed", f"{machine!r} is not a machine's name.")
    return machine


__all__ = ["MACHINE", "Backend", "BackendError", "Sight", "Unsettled", "checked_name", "unreadable"]
