"""Attempts that are lost in every phase, runs that are stopped, and workers that die between two steps."""

from __future__ import annotations

import contextlib
import threading
import uuid
from datetime import timedelta
from functools import partial

import pytest
from django.db import connections
from django.test import Client

from apps.attestation.models import Evidence, KeyRelease
from apps.core.clock import now
from apps.core.lifecycle import history
from apps.core.models import Outbox
from apps.jobs import codes, engine
from apps.jobs.engine import creation, steps, tokens
from apps.jobs.engine import runner as engine_runner
from apps.jobs.engine.machines import BackendError, Sight
from apps.jobs.gate import Condition
from apps.jobs.models import OutputRelease, Run
from tests.unit.jobs.engine.fake_runner import FakeRunner
from tests.unit.jobs.engine.world import make_world, sealed_version

pytestmark = pytest.mark.django_db

FILES = {"table.csv": b"a,b\n1,2\n"}
CLOSED = Condition("access_not_active", "There is no access in force.", "Ask.", "custodian")


def research(world) -> Run:
    return engine.create_run(
        by=world.user, kind="research", project=world.project, program=world.program, inputs=[(world.version, None)],
        submission=uuid.uuid4().hex,
    )  # fmt: skip


def looked_at(run: Run) -> Run:
    assert engine.advance(run.pk)
    run.refresh_from_db()
    return run


def rested(run: Run) -> Run:
    """The pause before the next attempt is over."""
    Run.objects.filter(pk=run.pk).update(queued_at=now() - timedelta(seconds=1))
    return looked_at(run)


def test_waits_until_the_gate_opens(world, backend, gate):
    gate.append(CLOSED)
    run = looked_at(research(world))
    assert (run.state, run.code, run.attempt) == ("waiting", "waits_for_conditions", 0)
    before = run.manifest_sha256
    gate.clear()
    run = looked_at(run)
    assert run.state == "launching"
    assert history(run).filter(to_state="queued").count() == 1
    assert run.manifest_sha256 == before  # no approvals changed in between


def test_manifest_covers_the_approvals_that_came_while_it_waited(world, backend, gate):
    from apps.jobs.models import ProgramApproval

    gate.append(CLOSED)
    run = looked_at(research(world))
    before = run.manifest
    ProgramApproval.objects.create(
        program=world.program,
        dataset=world.dataset,
        program_sha256=world.program.sha256,
        decision="approved",
        by="user:x",
    )
    gate.clear()
    run = looked_at(run)
    assert run.manifest["approvals"] != before["approvals"]
    assert run.manifest_sha256 == engine.manifests.manifest_digest(run.manifest)


@pytest.mark.parametrize("moment", ["launching", "claimed", "attesting", "keys", "fetching"])
def test_lost_before_the_program_started_is_tried_again_and_finishes_once(world, backend, runner_for, moment):
    run = looked_at(research(world))
    first = runner_for(run)
    if moment != "launching":
        first.claim()
    if moment in ("attesting", "keys", "fetching"):
        first.phase("attesting")
    if moment in ("keys", "fetching"):
        assert first.ask_keys().status == 200
    if moment == "fetching":
        first.phase("fetching")
    backend.machines[run.machine] = Sight.GONE
    run = looked_at(run)
    assert (run.state, run.attempt, run.machine[-2:]) == ("launching", 2, "-2")
    assert "-1" in backend.destroyed[0]
    if first.session:
        assert first.phase("running").status == 401  # the old attempt is nobody now
        assert first.call("POST", "/abandon", {"code": "runner_error"}).status == 401
    assert FakeRunner(first.client, first.token).claim().status == 403
    second = runner_for(run)
    second.until_running()
    assert second.deliver(FILES).body == {"state": "succeeded"}
    run.refresh_from_db()
    assert Evidence.objects.filter(run=run.pk, purpose="result", accepted=True).count() == 1
    assert Evidence.objects.get(run=run.pk, purpose="result", accepted=True).attempt == 2


@pytest.mark.parametrize("phase", ["running", "checking", "sealing", "uploading"])
def test_lost_after_the_program_started_fails_and_is_not_repeated(world, backend, runner_for, phase):
    run = looked_at(research(world))
    runner = runner_for(run)
    runner.until_running()
    runner.phase(phase)
    backend.machines[run.machine] = Sight.GONE
    run = looked_at(run)
    assert (run.state, run.code, run.attempt, run.machine_gone) == ("failed", "runner_lost", 1, True)
    answer = runner.call("GET", f"/inputs/{world.dataset.pk}")
    assert answer.status == 409
    assert backend.launched == [run.machine]


def test_result_of_an_attempt_declared_lost_is_not_taken(world, backend, runner_for):
    run = looked_at(research(world))
    runner = runner_for(run)
    runner.until_running()
    sealed, parcel = runner.seal_outputs(FILES)
    runner.upload(sealed)
    body = runner.result_body(FILES, parcel)
    backend.machines[run.machine] = Sight.GONE
    looked_at(run)
    answer = runner.call("POST", "/result", body)
    assert (answer.status, answer.body["code"]) == (409, "run_ended")
    assert Run.objects.get(pk=run.pk).statement_sha256 == ""


def test_three_lost_attempts_are_enough(world, backend, runner_for):
    run = looked_at(research(world))
    for attempt in (1, 2, 3):
        assert run.attempt == attempt
        runner_for(run).claim()
        backend.machines[run.machine] = Sight.GONE
        run = looked_at(run)
        if attempt < 3 and run.state == "queued":
            assert run.code == "waits_to_retry"
            run = rested(run)
    assert (run.state, run.code) == ("failed", "attempts_exhausted")
    assert not backend.machines


def test_machine_that_never_calls_home(world, backend):
    run = looked_at(research(world))
    Run.objects.filter(pk=run.pk).update(heartbeat_at=now() - timedelta(seconds=90))
    run = looked_at(run)
    assert (run.state, run.attempt) == ("launching", 2)


def test_silent_machine_is_removed(world, backend, runner_for):
    run = looked_at(research(world))
    runner_for(run).until_running()
    Run.objects.filter(pk=run.pk).update(heartbeat_at=now() - timedelta(seconds=121))
    run = looked_at(run)
    assert (run.state, run.code) == ("failed", "runner_lost") and not backend.machines


def test_a_run_that_takes_too_long(world, backend, runner_for):
    run = looked_at(research(world))
    runner_for(run).until_running()
    Run.objects.filter(pk=run.pk).update(started_at=now() - timedelta(days=1))
    run = looked_at(run)
    assert (run.state, run.code) == ("failed", "overdue") and not backend.machines


def test_launch_that_fails_is_tried_again_later(world, backend):
    backend.fail_launch = BackendError("launch_failed", "no")
    run = looked_at(research(world))
    assert (run.state, run.code, run.attempt) == ("queued", "waits_to_retry", 2)
    run = rested(run)
    assert (run.state, run.code) == ("failed", "launch_failed")


def test_launch_that_can_never_work_is_not_tried_again(world, backend):
    backend.fail_launch = BackendError("no_memory_storage", "no")
    run = looked_at(research(world))
    assert (run.state, run.code, run.attempt) == ("failed", "no_memory_storage", 1)


@pytest.mark.parametrize("started", [False, True])
def test_runner_that_gives_up(world, backend, runner_for, started):
    run = looked_at(research(world))
    runner = runner_for(run, twice=True)
    runner.claim()
    if started:
        runner.ask_keys()
        runner.phase("running")
    answer = runner.call(
        "POST", "/abandon", {"code": "runner_error", "exception_type": "OSError", "line": None}
    )
    run.refresh_from_db()
    if started:
        assert answer.body == {"state": "failed"}
        assert (run.code, run.exception_type) == ("runner_error", "OSError")
    else:
        assert run.state == "queued"
        assert looked_at(run).attempt == 2


@pytest.mark.parametrize(
    "said", ["input_changed", "archive_too_large", "sandbox_old", "drop table", "x" * 60]
)
def test_only_known_codes_are_kept(world, backend, runner_for, said):
    run = looked_at(research(world))
    runner = runner_for(run)
    runner.claim()
    runner.ask_keys()
    runner.phase("running")
    runner.call("POST", "/abandon", {"code": said, "exception_type": "Real Name, 1 High Street", "line": 3})
    run.refresh_from_db()
    assert run.code in codes.CODES and run.exception_type == ""


# ---- stopping ----


def test_cancel_reaches_the_runner_and_the_machine_goes(world, backend, runner_for):
    run = looked_at(research(world))
    runner = runner_for(run)
    runner.until_running()
    Run.objects.filter(pk=run.pk).update(cancel_reason="Wrong program: Mrs Smith")
    answer = runner.phase("running", 3, 10)
    assert answer.body == {"continue": False, "reason": codes.describe("cancelled").sentence}
    sealed, parcel = runner.seal_outputs(FILES)
    assert runner.call("PUT", "/outputs?offset=0", raw=sealed).status == 409
    assert runner.call("POST", "/result", runner.result_body(FILES, parcel)).status == 409
    run = looked_at(run)
    assert (run.state, run.code, run.machine_gone) == ("cancelled", "cancelled", True)
    assert history(run).last().reason == "Wrong program: Mrs Smith"
    assert not backend.machines and runner.phase("running").body["continue"] is False


@pytest.mark.parametrize("state", ["waiting", "queued", "launching"])
def test_cancel_before_it_runs(world, backend, gate, settings, state):
    if state == "waiting":
        gate.append(CLOSED)
    settings.MAX_LIVE_MACHINES = 0 if state == "queued" else 4
    run = looked_at(research(world))
    assert run.state == state
    Run.objects.filter(pk=run.pk).update(cancel_reason="no")
    run = looked_at(run)
    assert (run.state, run.machine_gone) == ("cancelled", True) and not backend.machines


@pytest.mark.parametrize("before", ["claim", "keys"])
def test_cancelled_between_launch_and_evidence(world, backend, runner_for, before):
    """Nobody has looked at the run since: the machine still gets nothing."""
    run = looked_at(research(world))
    runner = runner_for(run)
    if before == "keys":
        runner.claim()
    Run.objects.filter(pk=run.pk).update(cancel_reason="A mistake.")
    if before == "claim":
        runner.claim()
    answer = runner.ask_keys()
    assert (answer.status, answer.body["code"]) == (409, "run_ended")
    assert not KeyRelease.objects.filter(run=run.pk).exists()
    assert runner.phase("attesting").body["continue"] is False
    run = looked_at(run)
    assert (run.state, run.code, run.machine_gone) == (
        "cancelled",
        "cancelled",
        True,
    ) and not backend.machines


@pytest.mark.parametrize("what", ["cancelled", "gate", "superseded"])
def test_what_ends_a_run_while_its_evidence_is_judged_keeps_the_keys_in(
    world, backend, runner_for, gate, monkeypatch, what
):
    run = looked_at(research(world))
    runner = runner_for(run)
    runner.claim()
    release = engine_runner.attestation.release_keys

    def meanwhile(**arguments):
        released = release(**arguments)
        match what:
            case "cancelled":
                Run.objects.filter(pk=run.pk).update(cancel_reason="A mistake.")
            case "gate":
                gate.append(CLOSED)
            case "superseded":
                Run.objects.filter(pk=run.pk).update(attempt=2, session_digest="0" * 64)
        return released

    monkeypatch.setattr(engine_runner.attestation, "release_keys", meanwhile)
    answer = runner.ask_keys()
    expected = {"cancelled": "run_ended", "gate": "gate_closed", "superseded": "superseded"}[what]
    assert answer.status in (403, 409) and answer.body["code"] == expected and "keys" not in answer.body


def test_gate_that_closes_on_a_live_run_stops_it(world, backend, runner_for, gate):
    run = looked_at(research(world))
    runner = runner_for(run)
    runner.until_running()
    gate.append(CLOSED)
    run = looked_at(run)
    assert (run.state, run.code) == ("cancelled", "gate_closed")
    assert history(run).last().reason == CLOSED.detail
    assert runner.phase("running").body["continue"] is False
    assert not backend.machines


def test_too_many_runs_is_no_reason_to_stop_one(world, backend, runner_for, gate):
    run = looked_at(research(world))
    gate.append(Condition("too_many_runs", "Too many.", "Wait.", "researcher"))
    assert looked_at(run).state == "launching"


def test_rehearsal_ends_when_its_stand_in_data_is_withdrawn(world, backend, runner_for):
    run = engine.create_run(
        by=world.user, kind="rehearsal", project=world.project, program=world.program,
        inputs=[(world.version, world.release)],
    )  # fmt: skip
    looked_at(run)
    type(world.release).objects.filter(pk=world.release.pk).update(state="withdrawn")
    assert looked_at(run).code == "gate_closed"


def test_a_free_machine_is_given_to_the_next_in_line(world, backend, runner_for, settings):
    settings.MAX_LIVE_MACHINES = 1
    first, second = looked_at(research(world)), looked_at(research(world))
    assert (second.state, second.code) == ("queued", "waits_for_capacity")
    Outbox.objects.all().delete()
    runner = runner_for(first)
    runner.until_running()
    runner.deliver(FILES)
    looked_at(first)
    assert Outbox.objects.filter(topic="advance_run", key=str(second.pk)).exists()
    assert looked_at(second).state == "launching"


# ---- workers that die, and workers that meet ----


class Killed(BaseException):
    """SIGKILL: nothing after it runs, no handler catches it."""


def test_worker_killed_between_the_row_and_the_machine(world, backend, monkeypatch):
    run = research(world)
    with monkeypatch.context() as patch:
        patch.setattr(steps, "_start_machine", lambda run: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            engine.advance(run.pk)
    run = looked_at(run)
    assert (run.state, run.attempt) == ("launching", 1)
    assert backend.launched == [run.machine]
    assert tokens.matches(backend.tokens[run.machine], run.launch_digest)


def test_worker_killed_after_the_machine_was_started(world, backend, monkeypatch):
    run = research(world)
    launch = backend.launch

    def launch_and_die(run, token):
        launch(run, token)
        raise Killed

    monkeypatch.setattr(backend, "launch", launch_and_die)
    with pytest.raises(Killed):
        engine.advance(run.pk)
    monkeypatch.setattr(backend, "launch", launch)
    run = looked_at(run)
    assert (run.state, run.attempt, backend.launched) == ("launching", 1, [run.machine])


def test_a_dead_workers_lease_runs_out(world, backend):
    run = research(world)
    Run.objects.filter(pk=run.pk).update(lease_until=now() + timedelta(seconds=30))
    assert engine.advance(run.pk) is False
    Run.objects.filter(pk=run.pk).update(lease_until=now() - timedelta(seconds=1))
    assert looked_at(run).state == "launching"
    assert run.lease_until is None


@pytest.mark.parametrize("dies_in", ["destroy", "settle"])
def test_worker_killed_while_clearing_up(world, backend, runner_for, monkeypatch, dies_in):
    run = looked_at(research(world))
    runner = runner_for(run)
    runner.until_running()
    runner.deliver(FILES)
    die = lambda *a, **k: (_ for _ in ()).throw(Killed())  # noqa: E731
    target = (backend, "destroy") if dies_in == "destroy" else (steps.consequences, "settle")
    with monkeypatch.context() as patch:
        patch.setattr(*target, die)
        with pytest.raises(Killed):
            engine.advance(run.pk)
    run = looked_at(run)
    assert run.machine_gone and not backend.machines


def test_worker_killed_while_opening_outputs(world, backend, runner_for, monkeypatch):
    from apps.jobs.engine import outputs

    run = looked_at(research(world))
    runner = runner_for(run)
    runner.until_running()
    runner.deliver(FILES)
    with monkeypatch.context() as patch:
        patch.setattr(outputs, "media_type", lambda path: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            engine.open_outputs(run.pk)
    assert not run.outputs.exists()
    engine.open_outputs(run.pk)
    assert run.outputs.count() == 1 and OutputRelease.objects.get(run=run).state == "in_review"


def test_unknown_run_is_no_error(db):
    assert engine.advance(uuid.uuid4()) is True


# ---- real races: two connections ----


def in_threads(*calls):
    """Run the calls at once, each with a connection of its own; returns their results or errors."""
    results: list = [None] * len(calls)
    barrier = threading.Barrier(len(calls))

    def one(number, call):
        try:
            barrier.wait(timeout=10)
            results[number] = call()
        except Exception as error:
            results[number] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=one, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return results


@pytest.mark.django_db(transaction=True)
def test_two_workers_advance_the_same_run(gate, backend):
    world = make_world()
    for _ in range(5):
        run = research(world)
        results = in_threads(*[partial(engine.advance, run.pk)] * 4)
        assert True in results and all(r in (True, False) for r in results)
        run.refresh_from_db()
        assert (run.state, run.attempt, run.lease_until) == ("launching", 1, None)
        assert backend.launched.count(run.machine) == 1
        assert history(run).filter(to_state="launching").count() == 1
        Run.objects.filter(pk=run.pk).update(cancel_reason="done")
        engine.advance(run.pk)


@pytest.mark.django_db(transaction=True)
def test_two_runs_do_not_share_the_last_machine(gate, backend, settings, monkeypatch):
    """Both have counted before either has claimed: there is room for one, so one waits."""
    settings.MAX_LIVE_MACHINES = 1
    world = make_world()
    runs = [research(world) for _ in range(2)]
    counted, make = threading.Barrier(2), tokens.launch_token

    def slowly(run):
        if run.state == "queued":
            with contextlib.suppress(threading.BrokenBarrierError):
                counted.wait(2)  # the other one is here too, or is kept out
        return make(run)

    monkeypatch.setattr(steps.tokens, "launch_token", slowly)
    assert in_threads(*(partial(engine.advance, run.pk) for run in runs)) == [True, True]
    assert sorted(Run.objects.get(pk=run.pk).code for run in runs) == ["launching", "waits_for_capacity"]
    assert len(backend.machines) == 1


@pytest.mark.django_db(transaction=True)
def test_the_same_result_on_two_connections(gate, backend):
    world = make_world()
    run = looked_at(research(world))
    runner = FakeRunner(Client(), backend.tokens[run.machine])
    runner.until_running()
    sealed, parcel = runner.seal_outputs(FILES)
    runner.upload(sealed)
    body = runner.result_body(FILES, parcel)
    twin = FakeRunner(Client(), "", session=runner.session)
    answers = in_threads(
        lambda: runner.call("POST", "/result", body), lambda: twin.call("POST", "/result", body)
    )
    assert [(a.status, a.body) for a in answers] == [(200, {"state": "succeeded"})] * 2
    assert Evidence.objects.filter(run=run.pk, purpose="result").count() == 1
    assert history(run).filter(to_state="succeeded").count() == 1


@pytest.mark.django_db(transaction=True)
def test_the_same_key_request_on_two_connections(gate, backend):
    from strongroom import contexts

    world = make_world()
    run = looked_at(research(world))
    runner = FakeRunner(Client(), backend.tokens[run.machine])
    runner.claim()
    context = runner.c1()
    body = {"context": context, "evidence": runner.evidence(contexts.n1(context))}
    twin = FakeRunner(Client(), "", session=runner.session)
    answers = in_threads(lambda: runner.call("POST", "/keys", body), lambda: twin.call("POST", "/keys", body))
    assert [a.status for a in answers] == [200, 200], answers
    assert Evidence.objects.filter(run=run.pk).count() == 1


@pytest.mark.django_db(transaction=True)
def test_result_and_loss_at_the_same_moment(gate, backend):
    """Whoever is first wins, and the other is told; the run ends once."""
    world = make_world()
    for _ in range(4):
        run = looked_at(research(world))
        runner = FakeRunner(Client(), backend.tokens[run.machine])
        runner.until_running()
        sealed, parcel = runner.seal_outputs(FILES)
        runner.upload(sealed)
        body = runner.result_body(FILES, parcel)
        backend.machines[run.machine] = Sight.GONE
        answer, _ = in_threads(partial(runner.call, "POST", "/result", body), partial(engine.advance, run.pk))
        run = looked_at(run)
        assert (run.state, answer.status) in (("succeeded", 200), ("failed", 409))
        assert bool(run.statement_sha256) == (run.state == "succeeded")
        assert history(run).filter(to_state__in=["succeeded", "failed"]).count() == 1


@pytest.mark.django_db(transaction=True)
def test_one_rehearsal_and_one_profile_run(gate, backend):
    world = make_world()
    version = sealed_version(world.dataset, world.user, state="profiling")
    runs = in_threads(*[lambda: engine.create_profile_run(version)] * 4)
    assert len({r.pk for r in runs}) == 1
    rehearse = lambda: engine.create_run(  # noqa: E731
        by=creation.ENGINE, kind="rehearsal", project=world.project, program=world.program,
        inputs=[(world.version, world.release)],
    )  # fmt: skip
    runs = in_threads(*[rehearse] * 4)
    assert len({r.pk for r in runs}) == 1


def test_no_backend_in_this_process(world):
    """A worker without the run's backend leaves it as it is, for one that has it."""
    run = engine.create_run(
        by=world.user, kind="rehearsal", project=world.project, program=world.program,
        inputs=[(world.version, world.release)], backend="elsewhere",
    )  # fmt: skip
    with pytest.raises(BackendError):
        engine.advance(run.pk)
    run.refresh_from_db()
    assert (run.state, run.attempt, run.lease_until) == ("queued", 0, None)
