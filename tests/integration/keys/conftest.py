"""A portal's engine and a custodian's key broker beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from apps.attestation import policies
from apps.core.keys import key_store
from apps.datasets.models import Dataset, DatasetVersion
from apps.jobs import engine
from apps.jobs.models import Run
from strongroom import seal
from tests.integration.keys.runner import KeysRunner
from tests.integration.keys.service import BrokerProcess, hand_over, sealed_version
from tests.unit.jobs.engine.conftest import FakeBackend, backend, gate, no_broker, world  # noqa: F401
from tests.unit.jobs.engine.world import World, dataset_of, make_world

OTHER = b"visits,coins\n7,70\n8,80\n9,90\n"


@dataclass
class Two:
    """A world of two datasets: one whose key the portal's broker holds, one whose key a custodian's holds."""

    world: World
    broker: BrokerProcess
    theirs: Dataset
    version: DatasetVersion

    def policy(self) -> dict[str, Any]:
        return policies.in_force(self.theirs).to_json()

    def run(self, *, only_theirs: bool = False) -> Run:
        inputs: list[Any] = [] if only_theirs else [(self.world.version, None)]
        return engine.create_run(
            by=self.world.user, kind="research", project=self.world.project, program=self.world.program,
            inputs=[*inputs, (self.version, None)],
        )  # fmt: skip


def make_two(folder: Path, settings: Any) -> Two:
    world = make_world()  # noqa: F811
    broker = BrokerProcess(folder / "broker")
    theirs = dataset_of(world.user)
    broker.holds(theirs)
    broker.start()
    hand_over(theirs, broker)
    settings.KEY_BROKERS = {broker.id: broker.url}
    version = sealed_version(theirs, seal.PublicKey.from_json(broker.keys()[0]), world.user, OTHER)
    # the portal's own: sealed to its hybrid key
    world.version = sealed_version(
        world.dataset, key_store().public_keys()[0], world.user, b"visits,coins\n1,0\n2,25\n3,95\n"
    )
    world.program.versions.set([world.version, version])
    return Two(world, broker, theirs, version)


@pytest.fixture
def two(db: None, gate: list[Any], tmp_path: Path, settings: Any) -> Iterator[Two]:  # noqa: F811
    made = make_two(tmp_path, settings)
    yield made
    made.broker.end()


@pytest.fixture
def runner_for(client: Any, backend: FakeBackend) -> Any:  # noqa: F811
    def make(run: Run, **options: Any) -> KeysRunner:
        engine.advance(run.pk)
        run.refresh_from_db()
        return KeysRunner(client, backend.tokens[run.machine], **options)

    return make
