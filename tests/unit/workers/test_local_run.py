"""The engine, the local backend and the real supervisor in its sandbox, over real HTTP."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from django.conf import settings as conf

from apps.core import outbox as core
from apps.core.clock import now
from apps.core.objects import store
from apps.jobs import engine
from apps.jobs.engine import machines
from apps.jobs.models import Run
from apps.jobs.states import RUN
from tests.unit.jobs.engine.world import make_world
from workers import outbox, sweep
from workers.backends.base import Sight
from workers.backends.local import LocalBackend

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path(conf.PROGRAMS_PYTHON).exists(), reason="no Python for programs here: run `make`"
    ),
]


@pytest.fixture
def portal(transactional_db, live_server, settings, monkeypatch):
    monkeypatch.setattr(core, "kick", lambda: None)
    monkeypatch.setattr("apps.jobs.gate.unmet_for_run", lambda run, moment: [])
    settings.PORTAL_URL = live_server.url
    backend = LocalBackend.from_settings()
    machines.register("local", backend)
    yield backend
    for machine in backend._machines():
        backend._destroy(machine)
    machines._backends.pop("local")


def work(run: Run, until, seconds: float = 60.0) -> Run:
    """Drain and sweep, as worker and beat do, until the run is where the test wants it."""
    deadline = time.monotonic() + seconds
    while True:
        outbox.drain(now() + sweep_slice())
        sweep.sweep_runs()
        run.refresh_from_db()
        if until(run):
            return run
        assert time.monotonic() < deadline, (run.state, run.code, run.phase)
        time.sleep(0.1)


def sweep_slice():
    from datetime import timedelta

    return timedelta(seconds=5)


def ended(run: Run) -> bool:
    return run.state in RUN.final and run.machine_gone and (run.outputs_opened or not run.statement_sha256)


def test_research_run(portal):
    world = make_world()
    run = engine.create_run(
        by=world.user,
        kind="research",
        project=world.project,
        program=world.program,
        inputs=[(world.version, None)],
    )
    run = work(run, ended)
    assert (run.state, run.code) == ("succeeded", "succeeded"), run.exception_type
    assert not portal._machines()
    assert run.output_release.state == "in_review"


def test_rehearsal(portal):
    world = make_world()
    run = engine.create_run(
        by=world.user, kind="rehearsal", project=world.project, program=world.program,
        inputs=[(world.version, world.release)],
    )  # fmt: skip
    run = work(run, ended)
    with store().open(run.log_object) as reader:
        log = reader.read()
    assert (run.state, run.code) == ("succeeded", "succeeded"), log
    assert b"hello" in log


def test_supervisor_killed_before_the_program_runs_again_once(portal, monkeypatch):
    from workers.backends import processes

    world = make_world()
    run = engine.create_run(
        by=world.user,
        kind="research",
        project=world.project,
        program=world.program,
        inputs=[(world.version, None)],
    )
    engine.advance(run.pk)
    run.refresh_from_db()
    (pid,) = portal._pids(run.machine)
    processes.kill_tree(pid)
    assert portal.observe(run) is Sight.GONE
    run = work(run, ended)
    assert (run.state, run.attempt) == ("succeeded", 2)
