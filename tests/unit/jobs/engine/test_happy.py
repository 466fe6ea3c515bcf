"""The whole way of a run, each kind, through the HTTP protocol."""

from __future__ import annotations

import json
import uuid

import pytest

from apps.attestation.models import Challenge, Evidence, KeyRelease
from apps.audit.models import Entry
from apps.core.models import Outbox
from apps.core.objects import store
from apps.jobs import engine
from apps.jobs.models import Output, OutputRelease, Run
from tests.unit.jobs.engine.world import CSV, STAND_IN

pytestmark = pytest.mark.django_db


def research(world):
    return engine.create_run(
        by=world.user, kind="research", project=world.project, program=world.program, inputs=[(world.version, None)],
        submission=uuid.uuid4().hex,
    )  # fmt: skip


@pytest.mark.parametrize("twice", [False, True])
def test_research_from_click_to_review(world, backend, runner_for, twice):
    run = research(world)
    assert engine.advance(run.pk)
    run.refresh_from_db()
    assert (run.state, run.code, run.attempt) == ("launching", "launching", 1)
    assert run.machine == f"sr-{run.pk.hex[:12]}-1"
    runner = runner_for(run, twice=twice)
    runner.until_running()
    assert runner.plain == {str(world.dataset.pk): CSV}
    run.refresh_from_db()
    assert run.program_started and run.phase == "running"
    answer = runner.deliver({"table.csv": b"a,b\n1,2\n", "report/text.md": b"# Hello\n"})
    assert (answer.status, answer.body) == (200, {"state": "succeeded"})
    run.refresh_from_db()
    assert run.state == "succeeded" and run.statement_sha256 and run.log_entry
    assert Entry.objects.get(pk=run.log_entry).data == {"statement": run.statement_sha256}
    assert Evidence.objects.filter(run=run.pk, accepted=True).count() == 2
    assert not Evidence.objects.filter(run=run.pk, accepted=False).exists()
    assert KeyRelease.objects.filter(run=run.pk, released=True).count() == 1
    assert not Challenge.objects.filter(run=run.pk, spent_at__isnull=True).exists()
    assert set(Outbox.objects.values_list("topic", flat=True)) >= {"advance_run", "open_outputs"}

    for _ in range(2):
        engine.open_outputs(run.pk)
    assert {o.path for o in Output.objects.filter(run=run)} == {"table.csv", "report/text.md"}
    output = Output.objects.get(run=run, path="table.csv")
    with store().open(output.object_name) as reader:
        assert reader.read() == b"a,b\n1,2\n"
    assert OutputRelease.objects.get(run=run).state == "in_review"

    engine.advance(run.pk)
    run.refresh_from_db()
    assert run.machine_gone and not backend.machines


def test_rehearsal_keeps_its_log_and_needs_no_keys(world, backend, runner_for):
    run = engine.create_run(
        by=world.user, kind="rehearsal", project=world.project, program=world.program,
        inputs=[(world.version, world.release)],
    )  # fmt: skip
    again = engine.create_run(
        by=world.user, kind="rehearsal", project=world.project, program=world.program,
        inputs=[(world.version, world.release)],
    )  # fmt: skip
    assert again.pk == run.pk
    engine.advance(run.pk)
    runner = runner_for(run)
    runner.until_running()
    assert runner.plain == {str(world.dataset.pk): STAND_IN}
    assert runner.call("GET", "/program").body == b"print('hello')\n"
    assert runner.ask_keys().status == 409
    answer = runner.deliver({"left.txt": b"x"}, exit_class="failed", log=b"Traceback: all of it\n")
    assert answer.body == {"state": "failed"}
    run.refresh_from_db()
    assert (run.exit_class, run.exception_type, run.exception_line) == ("failed", "ValueError", 3)
    assert run.code == "program_failed" and run.exception_file == "main.py"
    with store().open(run.log_object) as reader:
        assert reader.read() == b"Traceback: all of it\n"
    engine.open_outputs(run.pk)
    assert Output.objects.filter(run=run).count() == 1


def test_rehearsals_have_a_backend_of_their_own(world, gate, settings):
    """They open nothing, so an installation on a cloud need not pay for a machine for each."""
    settings.DEFAULT_BACKEND, settings.REHEARSAL_BACKEND = "gcp", "local"
    made = {}
    for kind, stand_in in (("rehearsal", world.release), ("research", None)):
        made[kind] = engine.create_run(
            by=world.user, kind=kind, project=world.project, program=world.program,
            inputs=[(world.version, stand_in)],
        )  # fmt: skip
    assert {kind: run.backend for kind, run in made.items()} == {"rehearsal": "local", "research": "gcp"}


def test_profile_run_accepts_the_version(world, backend, runner_for):
    from tests.unit.jobs.engine.world import sealed_version

    version = sealed_version(world.dataset, world.user, state="profiling")
    run = engine.create_profile_run(version)
    assert engine.create_profile_run(version).pk == run.pk
    engine.advance(run.pk)
    runner = runner_for(run)
    runner.until_running()
    report = {"v": 1, "ok": True, "rows": 3, "problems": []}
    profile = {"v": 1, "rows": 0, "columns": [{"name": "visits", "type": "integer", "missing": 0}]}
    runner.deliver({"report.json": json.dumps(report).encode(), "profile.json": json.dumps(profile).encode()})
    for _ in range(2):
        engine.open_outputs(run.pk)
    version.refresh_from_db()
    assert (version.state, version.rows) == ("accepted", 3)


def test_failed_profile_run_lets_the_version_be_tried_again(world, backend, runner_for):
    from tests.unit.jobs.engine.world import sealed_version

    version = sealed_version(world.dataset, world.user, state="profiling")
    run = engine.create_profile_run(version)
    engine.advance(run.pk)
    runner = runner_for(run)
    runner.until_running()
    assert runner.deliver({}, exit_class="out_of_memory").body == {"state": "failed"}
    engine.advance(run.pk)
    version.refresh_from_db()
    assert version.state == "uploaded"


def test_release_run_makes_stand_in_data(world, backend, runner_for):
    from apps.datasets.models import Stage1Release

    release = Stage1Release.objects.create(
        version=world.version,
        state="ordered",
        method="gaussian_copula",
        parameters={"rows": 2},
        ordered_by=world.user,
    )
    run = engine.create_release_run(release)
    assert engine.create_release_run(release).pk == run.pk
    release.refresh_from_db()
    assert release.state == "making"
    assert run.manifest["program"]["parameters"] == {"rows": 2, "method": "gaussian_copula"}
    engine.advance(run.pk)
    runner = runner_for(run)
    runner.until_running()
    runner.deliver({"stand-in.csv": STAND_IN, "report.json": b'{"rows": 2}'})
    for _ in range(2):
        engine.open_outputs(run.pk)
    release.refresh_from_db()
    assert (release.state, release.rows, release.size) == ("to_review", 2, len(STAND_IN))
    with store().open(release.object_name) as reader:
        assert reader.read() == STAND_IN


def test_failed_research_leaves_no_outputs(world, backend, runner_for):
    run = research(world)
    engine.advance(run.pk)
    runner = runner_for(run)
    runner.until_running()
    assert runner.deliver({"leak.txt": b"x"}, exit_class="failed").status == 422
    sealed, parcel = runner.seal_outputs({})
    store().delete(f"runs/{run.pk}/outputs.sealed")
    runner.upload(sealed)
    body = runner.result_body({}, parcel, exit_class="failed")
    assert runner.call("POST", "/result", body).body == {"state": "failed"}
    engine.open_outputs(run.pk)
    assert not OutputRelease.objects.filter(run=run).exists()
    assert Run.objects.get(pk=run.pk).code == "program_failed"
