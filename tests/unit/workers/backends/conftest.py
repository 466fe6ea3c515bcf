"""A run to launch, and one fake of each cloud with a backend pointed at it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from apps.jobs.models import Run
from tests.fakes import worlds
from tests.fakes.worlds import World


def a_run(attempt: int = 1, pk: uuid.UUID | None = None, **fields: object) -> Run:
    """Never saved: a backend reads the row's machine and limits only."""
    run = Run(pk=pk or uuid.uuid4(), kind="research", attempt=attempt)
    run.machine = f"sr-{run.pk.hex[:12]}-{attempt}"
    run.manifest = {"limits": {"memory_bytes": 4 * 1024**3, "disk_bytes": 2 * 1024**3}}
    for name, value in fields.items():
        setattr(run, name, value)
    return run


@pytest.fixture
def run() -> Run:
    return a_run()


@pytest.fixture(params=sorted(worlds.WORLDS))
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Each cloud in turn. At the end, no request may have been one that the real cloud refuses."""
    with worlds.WORLDS[request.param]() as made:
        yield made
        assert made.fake.mistakes == []
