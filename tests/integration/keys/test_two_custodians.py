"""Two custodians' data in one run: the real supervisor in its sandbox, the portal, and a custodian's broker, over HTTP."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as conf

from apps.attestation.models import Evidence, KeyRelease
from apps.core import outbox as core
from apps.core.clock import now
from apps.core.objects import put_bytes
from apps.jobs.engine import machines
from apps.jobs.models import Program, Run
from apps.jobs.states import RUN
from tests.integration.keys.conftest import Two, make_two
from tests.integration.keys.service import ID
from workers import outbox, sweep
from workers.backends.local import LocalBackend

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path(conf.PROGRAMS_PYTHON).exists(), reason="no Python for programs here: run `make`"
    ),
]

PROGRAM = """
import strongroom
total = 0
for name in %r:
    total += int(strongroom.load(name)["coins"].sum())
(strongroom.outputs() / "total.txt").write_text(str(total))
"""


@pytest.fixture
def stage(
    transactional_db: None, live_server: Any, settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Two]:
    monkeypatch.setattr(core, "kick", lambda: None)
    monkeypatch.setattr("apps.jobs.gate.unmet_for_run", lambda run, moment: [])
    settings.PORTAL_URL = live_server.url
    # of its own: a sweep destroys every machine in the folder that its own database does not want
    settings.RUN_DIRECTORY = str(tmp_path / "runs")
    backend = LocalBackend.from_settings()
    machines.register("local", backend)
    made = make_two(tmp_path, settings)
    source = (PROGRAM % [made.world.dataset.slug, made.theirs.slug]).encode()
    sha256 = hashlib.sha256(source).hexdigest()
    put_bytes(f"programs/{sha256}", source)
    Program.objects.filter(pk=made.world.program.pk).update(
        sha256=sha256, size=len(source), object_name=f"programs/{sha256}"
    )
    made.world.program.refresh_from_db()
    yield made
    made.broker.end()
    for machine in backend._machines():
        backend._destroy(machine)
    machines._backends.pop("local")


def work(run: Run, seconds: float = 60.0) -> Run:
    """Drain and sweep, as worker and beat do, until the run has ended and is settled."""
    deadline = time.monotonic() + seconds
    while True:
        outbox.drain(now() + timedelta(seconds=5))
        sweep.sweep_runs()
        run.refresh_from_db()
        if run.state in RUN.final and run.machine_gone and (run.outputs_opened or not run.statement_sha256):
            return run
        assert time.monotonic() < deadline, (run.state, run.code, run.phase)
        time.sleep(0.1)


def test_both_are_asked_and_each_can_say_no(stage: Two) -> None:
    run = work(stage.run())
    assert (run.state, run.code) == ("succeeded", "succeeded"), (
        run.code,
        run.exception_type,
        run.exception_line,
    )
    assert run.outputs.get().path == "total.txt"
    assert {e.broker for e in Evidence.objects.filter(run=run.pk, purpose="key-release", accepted=True)} == {
        "",
        ID,
    }
    assert KeyRelease.objects.filter(run=run.pk, released=True).count() == 2
    assert [e["entry"]["event"] for e in stage.broker.log()] == ["released"]

    stage.broker.cli("stop", "--reason", "The archive has withdrawn its consent.")
    refused = work(stage.run())
    assert (refused.state, refused.code) == ("failed", "broker_refused")
    from apps.core.lifecycle import history

    last = list(history(refused))[-1]
    assert "The archive has withdrawn its consent." in last.reason and ID in last.reason
    assert not refused.program_started


def test_a_broker_that_is_away_is_waited_for(stage: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.broker.end()
    run = stage.run()
    deadline = time.monotonic() + 60
    while run.phase != "attesting":
        outbox.drain(now() + timedelta(seconds=5))
        sweep.sweep_runs()
        run.refresh_from_db()
        assert time.monotonic() < deadline and run.state not in RUN.final, (run.state, run.code)
        time.sleep(0.1)
    time.sleep(1.5)  # it has asked by now, and more than once
    run.refresh_from_db()
    assert run.state == "running" and not run.program_started
    stage.broker.start()
    run = work(run)
    assert (run.state, run.attempt) == ("succeeded", 1), run.code
