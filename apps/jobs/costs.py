"""What a machine costs. Pure: sizes, seconds and moments in, pence out; an unknown price stays unknown."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from apps.jobs.sizes import Size
from apps.jobs.states import RunState

HOUR = 3600


def estimate(size: Size, seconds: int) -> int | None:
    """Pence for so many seconds of `size`, begun pennies counted whole; None where the operator gave no price."""
    if seconds < 0:
        raise ValueError("seconds cannot be below 0")
    return None if size.pence_per_hour is None else -(-size.pence_per_hour * seconds // HOUR)


def machine_seconds(changes: Sequence[tuple[str, datetime]], gone: datetime) -> int:
    """Whole seconds for which a run had a machine, over all its attempts, begun seconds counted whole.

    changes: (state, since when), oldest first. An attempt counts from being asked for to being lost; the last one to
    `gone`, when nothing of it was left any more. Time in the queue has no machine.
    """
    seconds, asked = 0.0, None
    for state, moment in changes:
        if state == RunState.LAUNCHING:
            asked = moment
        elif state == RunState.QUEUED and asked is not None:
            seconds += max((moment - asked).total_seconds(), 0.0)
            asked = None
    if asked is not None:
        seconds += max((gone - asked).total_seconds(), 0.0)
    return int(-(-seconds // 1))
