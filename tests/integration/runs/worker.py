"""A Celery worker of the real code that can be made to wait at a point, so that a test can kill it exactly there.

Leases are shorter than in life, so that what a killed worker held is taken up in seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any

from tests.integration.runs.pauses import wait_here


def around(owner: Any, name: str, *, before: str = "", after: str = "") -> None:
    """Replace `owner.name` by itself with a point before and after it."""
    original: Callable[..., Any] = getattr(owner, name)

    @wraps(original)
    def paused(*args: Any, **kwargs: Any) -> Any:
        if before:
            wait_here(before)
        result = original(*args, **kwargs)
        if after:
            wait_here(after)
        return result

    setattr(owner, name, paused)


def main() -> None:
    import django

    django.setup()
    from apps.jobs.engine import consequences, outputs, packages, steps
    from workers import outbox
    from workers.backends.local import LocalBackend

    outbox.LEASE = timedelta(seconds=4)
    steps.LEASE = timedelta(seconds=4)
    around(steps, "_start_machine", before="before-launch")
    around(LocalBackend, "launch", after="after-launch")
    around(LocalBackend, "_start", after="after-start")
    around(outputs, "_store_outputs", before="before-opening", after="after-opening")
    outputs._CONSEQUENCES = {
        kind: _with_points(act, "consequence") for kind, act in outputs._CONSEQUENCES.items()
    }
    around(consequences, "settle", before="before-settling", after="after-settling")
    around(packages.package, "build_package", before="before-packing", after="after-packing")
    around(packages, "transition", before="before-releasing", after="after-releasing")

    from celery.__main__ import main as celery

    sys.exit(celery())


def _with_points(act: Callable[[Any], None], point: str) -> Callable[[Any], None]:
    def paused(run: Any) -> None:
        wait_here(f"before-{point}")
        act(run)
        wait_here(f"after-{point}")

    return paused


if __name__ == "__main__":
    main()
