"""The engine on real PostgreSQL, with a backend that keeps its machines in a dictionary."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import pytest

from apps.core import outbox
from apps.jobs.engine import machines
from apps.jobs.engine.machines import Sight
from apps.jobs.models import Run
from tests.unit.jobs.engine.fake_runner import FakeRunner
from tests.unit.jobs.engine.world import World, make_world


class FakeBackend:
    """Machines by name. Tests start, lose and count them."""

    def __init__(self) -> None:
        self.machines: dict[str, Sight] = {}
        self.tokens: dict[str, str] = {}
        self.launched: list[str] = []
        self.destroyed: list[str] = []
        self.fail_launch: Exception | None = None

    def launch(self, run: Run, token: str) -> None:
        if self.fail_launch is not None:
            raise self.fail_launch
        if run.machine in self.machines:
            return
        self.launched.append(run.machine)
        self.machines[run.machine] = Sight.RUNNING
        self.tokens[run.machine] = token

    def observe(self, run: Run) -> Sight:
        return self.machines.get(run.machine, Sight.ABSENT)

    def destroy(self, run: Run) -> None:
        if self.machines.pop(run.machine, None) is not None:
            self.destroyed.append(run.machine)

    def sweep(self, live_names: Collection[str]) -> list[str]:
        gone = [name for name in self.machines if name not in live_names]
        for name in gone:
            del self.machines[name]
        return gone


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    before = machines.backends().get("local")
    fake = FakeBackend()
    machines.register("local", fake)
    yield fake
    machines._backends.pop("local", None)
    if before is not None:
        machines.register("local", before)


@pytest.fixture(autouse=True)
def no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outbox rows are what is tested; kicks are not sent."""
    monkeypatch.setattr(outbox, "kick", lambda: None)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The gate's unmet conditions, empty (open) until a test puts one in. The gate itself has its own tests."""
    conditions: list[Any] = []
    monkeypatch.setattr("apps.jobs.gate.unmet_for_run", lambda run, moment: list(conditions))
    return conditions


@pytest.fixture
def world(db: None, gate: list[Any]) -> World:
    return make_world()


@pytest.fixture
def runner_for(client: Any, backend: FakeBackend) -> Any:
    def make(run: Run, **options: Any) -> FakeRunner:
        run.refresh_from_db()
        return FakeRunner(client, backend.tokens[run.machine], **options)

    return make
