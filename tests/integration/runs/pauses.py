"""A point at which a process of a test's portal waits: a file. While it exists, whoever gets there says so and waits."""

from __future__ import annotations

import os
import time
from pathlib import Path


def wait_here(point: str) -> None:
    """Wait while the file `point` exists in STRONGROOM_TEST_PAUSES; `<point>.here` says that somebody does."""
    folder = Path(os.environ["STRONGROOM_TEST_PAUSES"])
    while (folder / point).exists():
        (folder / f"{point}.here").touch()
        time.sleep(0.02)
