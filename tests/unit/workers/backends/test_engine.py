"""The engine over each cloud's fake: the whole life of a run, and every way in which its machine can fail it."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import transaction
from django.test import Client

from apps.core import outbox
from apps.core.clock import now
from apps.core.lifecycle import history
from apps.jobs import codes, engine
from apps.jobs.engine import machines
from apps.jobs.engine.machines import Sight, Unsettled
from apps.jobs.models import Run
from tests.fakes import worlds
from tests.fakes.server import BODIES
from tests.unit.jobs.engine.fake_runner import FakeRunner
from tests.unit.jobs.engine.world import World as Portal
from tests.unit.jobs.engine.world import make_world
from workers import sweep
from workers.backends import cloud as cloud_module

pytestmark = pytest.mark.django_db


@pytest.fixture
def portal(db, monkeypatch, settings) -> Portal:
    monkeypatch.setattr(outbox, "kick", lambda: None)
    monkeypatch.setattr("apps.jobs.gate.unmet_for_run", lambda run, moment: [])
    return make_world()


@pytest.fixture
def cloud(world, monkeypatch) -> Iterator:
    monkeypatch.setattr(machines, "_backends", {world.name: world.backend})
    return world


def research(portal: Portal, backend: str) -> Run:
    return engine.create_run(
        by=portal.user, kind="research", project=portal.project, program=portal.program, backend=backend,
        inputs=[(portal.version, None)], submission=uuid.uuid4().hex,
    )  # fmt: skip


def looked_at(run: Run) -> Run:
    assert engine.advance(run.pk)
    run.refresh_from_db()
    return run


def rested(run: Run) -> Run:
    Run.objects.filter(pk=run.pk).update(queued_at=now() - timedelta(seconds=1))
    return looked_at(run)


def ticked_off(cloud, run: Run) -> Run:
    for _ in range(6):
        cloud.fake.pass_time(cloud.settle_seconds)
        if looked_at(run).machine_gone:
            return run
    raise AssertionError(f"{run.state} {run.code}: {cloud.left()}")


def runner_of(cloud, run: Run) -> FakeRunner:
    return FakeRunner(Client(), cloud.token_of(run.machine))


def test_a_run_from_queue_to_nothing_left(portal, cloud):
    run = looked_at(research(portal, cloud.name))
    assert (run.state, run.code) == ("launching", "launching")
    cloud.fake.pass_time(cloud.settle_seconds)
    assert looked_at(run).state == "launching"
    runner = runner_of(cloud, run)
    runner.until_running()
    assert looked_at(run).state == "running"
    assert runner.deliver({"table.csv": b"a,b\n1,2\n"}).body == {"state": "succeeded"}
    run = looked_at(run)
    assert (run.state, run.machine_gone) == ("succeeded", False)
    assert ticked_off(cloud, run).state == "succeeded" and cloud.left() == set()


def test_the_answer_to_the_launch_is_lost(portal, cloud):
    cloud.fake.fault("drop_after", methods=("POST", "PUT"))
    run = looked_at(research(portal, cloud.name))
    assert (run.state, run.code, run.attempt) == ("launching", "cloud_unreachable", 1)
    run = looked_at(run)
    cloud.fake.pass_time(cloud.settle_seconds)
    run = looked_at(run)
    assert (run.state, run.code, run.attempt) == ("launching", "launching", 1)
    assert cloud.machines() == [run.machine]


def test_quota_is_waited_for_and_uses_up_no_attempt(portal, cloud):
    run = research(portal, cloud.name)
    for attempt in range(1, 6):
        cloud.fake.fault(**{"methods": ("POST", "PUT"), **cloud.quota})
        run = looked_at(run) if attempt == 1 else rested(run)
        assert (run.state, run.code, run.attempt) == ("queued", "waits_for_quota", attempt)
        cloud.fake.pass_time(cloud.settle_seconds)
        run = looked_at(run)
        assert run.queued_at > now() + timedelta(minutes=8) and run.machine == ""
    run = rested(run)
    assert (run.state, run.attempt) == ("launching", 6)
    assert cloud.left() and all(run.machine in name for _, name in cloud.left())


def test_capacity_that_is_missing(portal, cloud):
    cloud.fake.fault(**{"methods": ("POST", "PUT"), **cloud.capacity})
    run = looked_at(research(portal, cloud.name))
    cloud.fake.pass_time(cloud.settle_seconds)
    run = looked_at(run)
    assert run.state == "queued" and run.code in ("waits_for_cloud", "machine_ending")
    assert history(run).last().reason == codes.describe("capacity_missing").sentence


def test_no_second_attempt_before_the_first_machine_is_gone(portal, cloud):
    run = looked_at(research(portal, cloud.name))
    cloud.fake.pass_time(cloud.settle_seconds)
    Run.objects.filter(pk=run.pk).update(heartbeat_at=now() - timedelta(minutes=16))
    run = looked_at(run)
    assert (run.state, run.code, run.attempt) == ("queued", "machine_ending", 1)
    first = run.machine
    for _ in range(6):
        cloud.fake.pass_time(cloud.settle_seconds)
        if rested(run).attempt == 2:
            break
        assert not [m for m in cloud.machines() if m != first]
    assert run.attempt == 2 and run.state == "launching"
    assert history(run).filter(to_state="queued").last().reason == codes.describe("never_called").sentence


def test_a_boot_that_never_calls_home_ends_after_three(portal, cloud):
    run = looked_at(research(portal, cloud.name))
    for _ in range(40):
        cloud.fake.pass_time(cloud.settle_seconds)
        Run.objects.filter(pk=run.pk, state="launching").update(heartbeat_at=now() - timedelta(minutes=16))
        Run.objects.filter(pk=run.pk).update(queued_at=now() - timedelta(seconds=1))
        run = looked_at(run)
        if run.machine_gone:
            break
    assert (run.state, run.code, run.attempt) == ("failed", "never_called", 3)
    assert cloud.left() == set()


@pytest.mark.parametrize("started", [False, True])
def test_evicted(portal, cloud, monkeypatch, started):
    run = looked_at(research(portal, cloud.name))
    cloud.fake.pass_time(cloud.settle_seconds)
    runner = runner_of(cloud, run)
    runner.claim()
    if started:
        runner.ask_keys()
        runner.phase("running")
    with monkeypatch.context() as patch:
        patch.setattr(cloud.backend, "_look", lambda machine: Sight.EVICTED)
        run = looked_at(run)
    if started:
        assert (run.state, run.code) == ("failed", "machine_evicted")
        assert ticked_off(cloud, run) and cloud.left() == set()
    else:
        assert (run.state, run.attempt) == ("queued", 1)
        assert runner.phase("attesting").status == 401


def test_cancelled_while_it_is_being_made(portal, cloud):
    run = looked_at(research(portal, cloud.name))
    Run.objects.filter(pk=run.pk).update(cancel_reason="no")
    run = looked_at(run)
    assert run.state == "cancelled"
    assert ticked_off(cloud, run).code == "cancelled" and cloud.left() == set()


def test_a_delete_that_is_refused_keeps_no_word_waiting(portal, cloud):
    """The run's end is on record at once; its tick waits until the machine is gone."""
    run = looked_at(research(portal, cloud.name))
    cloud.fake.pass_time(cloud.settle_seconds)
    Run.objects.filter(pk=run.pk).update(cancel_reason="no")
    for _ in range(3):
        cloud.fake.fault("answer", status=403, code="forbidden", message="locked", methods=("DELETE",))
    run = looked_at(run)
    assert (run.state, run.machine_gone) == ("cancelled", False)
    cloud.fake.faults.clear()
    assert ticked_off(cloud, run) and cloud.left() == set()


def test_a_delete_that_is_refused_is_said_while_the_next_attempt_waits(portal, cloud):
    run = looked_at(research(portal, cloud.name))
    cloud.fake.pass_time(cloud.settle_seconds)
    Run.objects.filter(pk=run.pk).update(heartbeat_at=now() - timedelta(minutes=16))
    for _ in range(2):
        cloud.fake.fault("answer", status=403, code="forbidden", message="locked", methods=("DELETE",))
    run = looked_at(run)
    assert (run.state, run.code, run.attempt) == ("queued", "destroy_failed", 1)
    assert codes.describe(run.code).remedy
    cloud.fake.faults.clear()
    for _ in range(6):
        cloud.fake.pass_time(cloud.settle_seconds)
        run = rested(run)
    assert (run.state, run.attempt) == ("launching", 2)


def test_a_cloud_that_is_down_loses_no_run(portal, cloud, monkeypatch):
    def down(*args: object, **options: object) -> None:
        raise Unsettled("cloud_unreachable", "down")

    run = looked_at(research(portal, cloud.name))
    cloud.fake.pass_time(cloud.settle_seconds)
    runner = runner_of(cloud, run)
    with monkeypatch.context() as patch:
        patch.setattr(cloud.backend, "observe", down)
        run = looked_at(run)
        assert (run.state, run.code) == ("launching", "cloud_unreachable")
        runner.until_running()
        run = looked_at(run)
        assert (run.state, run.code) == ("running", "running")
        Run.objects.filter(pk=run.pk).update(heartbeat_at=now() - timedelta(seconds=121))
        run = looked_at(run)
        assert (run.state, run.code) == ("failed", "runner_lost")
    assert ticked_off(cloud, run) and cloud.left() == set()


def refused(cloud, status: int = 401, methods: tuple[str, ...] = ("GET", "POST", "PUT")) -> None:
    for _ in range(6):
        cloud.fake.fault("answer", status=status, code="Unauthorized", methods=methods)


def test_credentials_that_ran_out_for_a_night_end_no_run(portal, cloud):
    run = research(portal, cloud.name)
    for attempt in range(1, 12):
        refused(cloud)
        run = looked_at(run) if attempt == 1 else rested(run)
        assert (run.state, run.code, run.attempt) == ("queued", "waits_for_access", attempt)
        cloud.fake.faults.clear()
        looked_at(run)  # what was there of the attempt goes
    assert run.queued_at > now() + timedelta(minutes=8) and codes.describe(run.code).remedy
    run = rested(run)
    assert (run.state, run.code, run.attempt) == ("launching", "launching", 12)


@pytest.mark.parametrize("status", [401, 403])
def test_credentials_that_run_out_under_way(portal, cloud, status):
    """A refused look says nothing of the machine: it works on, and hands in its result."""
    run = looked_at(research(portal, cloud.name))
    cloud.fake.pass_time(cloud.settle_seconds)
    refused(cloud, status)
    run = looked_at(run)
    assert (run.state, run.code, run.attempt) == ("launching", "look_refused", 1)
    assert codes.describe(run.code).remedy
    cloud.fake.faults.clear()
    assert looked_at(run).code == "launching"
    runner = runner_of(cloud, run)
    runner.until_running()
    refused(cloud, status)
    run = looked_at(run)
    assert (run.state, run.code) == ("running", "running")
    cloud.fake.faults.clear()
    assert runner.deliver({"table.csv": b"a,b\n1,2\n"}).body == {"state": "succeeded"}
    assert ticked_off(cloud, run).state == "succeeded" and cloud.left() == set()


def test_answers_that_cannot_be_read_end_no_run(portal, cloud):
    run = looked_at(research(portal, cloud.name))
    cloud.fake.pass_time(cloud.settle_seconds)
    for body in sorted(BODIES):
        cloud.fake.fault("body", code=body, methods=("GET",))
        run = looked_at(run)
        expected = "cloud_unreachable" if body == "short" else "cloud_unreadable"
        assert (run.state, run.code, run.attempt) == ("launching", expected, 1)
    runner = runner_of(cloud, run)
    runner.until_running()
    for body in sorted(BODIES):
        cloud.fake.fault("body", code=body, methods=("GET",))
        run = looked_at(run)
        assert (run.state, run.code, run.attempt) == ("running", "running", 1)
    runner.deliver({"table.csv": b"a,b\n1,2\n"})
    for body in sorted(BODIES):
        cloud.fake.fault("body", code=body, methods=("GET",))
        assert not looked_at(run).machine_gone
    assert ticked_off(cloud, run).state == "succeeded" and cloud.left() == set()


def test_a_pause_is_said_and_kept(portal, cloud):
    run = looked_at(research(portal, cloud.name))
    cloud.fake.fault("answer", status=429, code="TooManyRequests", headers={"Retry-After": "600"})
    assert looked_at(run).code == "cloud_throttled"
    asked = len(cloud.fake.requests)
    cloud.fake.pass_time(590)
    assert looked_at(run).code == "cloud_throttled" and len(cloud.fake.requests) == asked
    cloud.fake.pass_time(11)
    assert looked_at(run).code == "launching" and len(cloud.fake.requests) > asked


def test_a_pause_is_no_failure_of_the_sweep(portal, cloud, caplog):
    caplog.set_level(logging.INFO)
    cloud.fake.fault("answer", status=429, code="TooManyRequests", headers={"Retry-After": "600"})
    sweep.sweep_runs()
    found = [record for record in caplog.records if f"backend {cloud.name}" in record.getMessage()]
    assert [(record.levelname, record.exc_info) for record in found] == [("INFO", None)]
    assert "not known this time" in found[0].getMessage()


def test_another_attempt_has_another_name(portal, cloud):
    run = research(portal, cloud.name)
    theirs = _stray()
    theirs.machine = f"sr-{run.pk.hex[:12]}-1"
    cloud.new_backend("fedcba987654").launch(theirs, "theirs")
    for _ in range(4):
        run = rested(run)
    assert (run.state, run.attempt) == ("launching", 2)
    assert history(run).filter(to_state="queued").last().reason == codes.describe("name_taken").sentence
    assert sorted(cloud.machines()) == sorted([theirs.machine, run.machine])


def test_the_sweeper_keeps_what_a_row_wants(portal, cloud):
    run = looked_at(research(portal, cloud.name))
    cloud.fake.pass_time(1500)
    cloud.backend.launch(_stray(), "t")
    cloud.fake.pass_time(700)
    for _ in range(6):
        sweep.sweep_runs()
        cloud.fake.pass_time(cloud.settle_seconds)
    assert cloud.machines() == [run.machine]


def _stray() -> Run:
    from tests.unit.workers.backends.conftest import a_run

    return a_run()


@pytest.mark.django_db(transaction=True)
def test_no_cloud_is_asked_inside_a_transaction(monkeypatch):
    """A cloud that takes its time must hold no row of ours."""
    monkeypatch.setattr(outbox, "kick", lambda: None)
    monkeypatch.setattr("apps.jobs.gate.unmet_for_run", lambda run, moment: [])
    inside: list[bool] = []
    with worlds.GcpWorld() as cloud:
        monkeypatch.setattr(machines, "_backends", {cloud.name: cloud.backend})
        for name in ("_create", "_look", "_remove", "_ours"):
            ask = getattr(cloud.backend, name)
            monkeypatch.setattr(
                cloud.backend,
                name,
                lambda *a, ask=ask: (inside.append(transaction.get_connection().in_atomic_block), ask(*a))[1],
            )
        run = looked_at(research(make_world(), cloud.name))
        cloud.fake.pass_time(60)
        looked_at(run)
        Run.objects.filter(pk=run.pk).update(heartbeat_at=now() - timedelta(minutes=16))
        run = looked_at(run)
        assert run.state == "queued"
        Run.objects.filter(pk=run.pk).update(cancel_reason="no")
        ticked_off(cloud, run)
        sweep.sweep_runs()
    assert len(inside) >= 6 and not any(inside)


def raised_by_backends() -> set[str]:
    """Every code that stands in the backends' source as the first argument of an error."""
    folder = Path(cloud_module.__file__).parent
    source = "".join(path.read_text() for path in folder.glob("*.py"))
    return set(re.findall(r'(?:BackendError|Unsettled)\(\s*"([a-z_]+)"', source))


def test_every_code_a_backend_may_raise_has_a_sentence_and_a_rule():
    """Tried again by a rule of its own, asked again at every look, or the end: each of them is one of the three."""
    again = {
        "quota_exceeded", "capacity_missing", "cloud_denied", "launch_failed", "name_taken",
        "machine_evicted", "never_called", "runner_error",
    }  # fmt: skip
    ends = {"cloud_rejected", "size_unknown", "evidence_refused", "no_memory_storage"}
    looks = codes.UNSETTLED | {"machine_ending", "destroy_failed"}
    found = raised_by_backends()
    assert {"cloud_unreadable", "cloud_throttled", "quota_exceeded"} <= found <= again | ends | looks
    assert all(codes.CODES[code].retry is not None and codes.CODES[code].remedy for code in again)
    assert all(codes.CODES[code].retry is None and codes.CODES[code].remedy for code in ends)
    assert all(codes.CODES[code].retry is None and codes.CODES[code].sentence for code in looks)
    assert set(codes.CODES) >= codes.WAITS
    rules = [codes.SOON, codes.CAPACITY, codes.QUOTA, codes.ACCESS]
    assert len(set(rules)) == 4  # losses are counted by rule
