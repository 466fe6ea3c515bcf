"""One real portal for all the tests of this folder that a test process runs: starting one takes ten seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from tests.integration.runs.portal import Portal

needs_programs = pytest.mark.skipif(
    not Path(settings.PROGRAMS_PYTHON).exists(), reason="no Python for programs here: run `make`"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(needs_programs)


@pytest.fixture(scope="session")
def _portal() -> Iterator[Portal]:
    with Portal() as portal:
        yield portal


@pytest.fixture
def portal(_portal: Portal) -> Iterator[Portal]:
    """The portal, whole again after each test."""
    yield _portal
    _portal.let_go()
    if not _portal.workers:
        _portal.start_worker()
