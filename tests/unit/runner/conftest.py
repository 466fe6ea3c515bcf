"""For every test of the runner."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """The runner's start closes its umask for good; this process goes on to other tests."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)
