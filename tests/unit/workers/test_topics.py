"""What the outbox asks for, done by hand: uploads, releases, rechecks, and the sweeps."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connections

from apps.core import outbox as core
from apps.core.clock import now
from apps.datasets.models import Stage1Release
from apps.jobs import engine
from apps.jobs.engine import machines
from apps.jobs.engine.machines import Sight
from apps.jobs.models import Run
from tests.unit.jobs.engine.conftest import FakeBackend
from tests.unit.jobs.engine.world import dataset_of, make_world, sealed_version
from workers import sweep, topics
from workers.topics import TOPICS, Later

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(core, "kick", lambda: None)
    conditions: list = []
    monkeypatch.setattr("apps.jobs.gate.unmet_for_run", lambda run, moment: list(conditions))
    return conditions


@pytest.fixture
def backend():
    before = machines.backends().get("local")
    fake = FakeBackend()
    machines.register("local", fake)
    yield fake
    machines._backends.pop("local")
    if before is not None:
        machines.register("local", before)


@pytest.fixture
def world(db):
    return make_world()


def research(world) -> Run:
    return engine.create_run(
        by=world.user,
        kind="research",
        project=world.project,
        program=world.program,
        inputs=[(world.version, None)],
    )


def test_every_topic_of_the_contract_has_a_handler():
    assert set(TOPICS) == {
        "check_upload", "make_release", "advance_run", "open_outputs", "build_package", "recheck_runs", "seal_log",
    }  # fmt: skip


def test_an_upload_is_checked_and_profiled_once(world):
    version = sealed_version(world.dataset, world.user, state="uploaded")
    for _ in range(3):
        topics.check_upload(str(version.pk))
    version.refresh_from_db()
    assert version.state == "profiling"
    assert Run.objects.filter(kind="profile", version=version).count() == 1


def test_a_damaged_upload_starts_no_run(world):
    version = sealed_version(world.dataset, world.user, state="uploaded")
    from apps.core.objects import put_bytes

    put_bytes(version.object_name, b"damaged")
    topics.check_upload(str(version.pk))
    version.refresh_from_db()
    assert version.state == "refused" and not Run.objects.exists()


def test_personal_data_is_never_profiled_under_software_evidence(world):
    version = sealed_version(dataset_of(world.user, personal_data=True), world.user, state="uploaded")
    topics.check_upload(str(version.pk))
    version.refresh_from_db()
    assert version.state == "uploaded" and not Run.objects.exists()


def test_a_release_is_made_once(world):
    release = Stage1Release.objects.create(
        version=world.version, state="ordered", method="gaussian_copula", ordered_by=world.user
    )
    for _ in range(3):
        topics.make_release(str(release.pk))
    assert Run.objects.filter(release=release).count() == 1


def test_a_release_of_personal_data_fails_with_the_reason(world):
    version = sealed_version(dataset_of(world.user, personal_data=True), world.user)
    release = Stage1Release.objects.create(
        version=version, state="ordered", method="gaussian_copula", ordered_by=world.user
    )
    topics.make_release(str(release.pk))
    release.refresh_from_db()
    assert release.state == "failed" and not Run.objects.exists()


@pytest.mark.parametrize("subject", ["dataset", "project"])
def test_recheck_stops_runs_whose_gate_closed(world, backend, quiet, subject):
    from apps.jobs.gate import Condition

    run, other = research(world), research(make_world())
    for one in (run, other):
        engine.advance(one.pk)
    quiet.append(Condition("access_not_active", "There is no access in force.", "Ask.", "custodian"))
    topics.recheck_runs(str(getattr(world, subject).pk))
    run.refresh_from_db()
    other.refresh_from_db()
    assert (run.state, run.code, other.state) == ("cancelled", "gate_closed", "launching")


def test_a_run_in_other_hands_is_looked_at_shortly(world, backend):
    run = research(world)
    Run.objects.filter(pk=run.pk).update(lease_until=now() + timedelta(seconds=30))
    with pytest.raises(Later):
        topics.advance_run(str(run.pk))
    with pytest.raises(Later):
        topics.recheck_runs(str(world.dataset.pk))


def test_the_sweep_needs_no_message(world, backend):
    run = research(world)
    sweep.sweep_runs()
    run.refresh_from_db()
    assert run.state == "launching"
    backend.machines["sr-000000000000-1"] = Sight.RUNNING
    sweep.sweep_runs()
    assert list(backend.machines) == [run.machine]


def test_one_broken_run_does_not_stop_the_sweep(world, backend, monkeypatch):
    first, second = research(world), research(world)
    real = engine.advance
    broken = lambda pk: 1 / 0 if pk == first.pk else real(pk)  # noqa: E731
    monkeypatch.setattr(sweep.engine, "advance", broken)
    sweep.sweep_runs()
    second.refresh_from_db()
    assert second.state == "launching"


@pytest.mark.django_db(transaction=True)
def test_two_sweeps_at_once(backend):
    with sweep.alone("runs") as mine:
        assert mine
        theirs: list = []

        def other():
            with sweep.alone("runs") as got:
                theirs.append(got)
            connections.close_all()

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert theirs == [False]
    with sweep.alone("runs") as again:
        assert again


def test_access_and_agreements_expire(world):
    from apps.datasets.models import AccessRequest, Agreement

    yesterday = (now() - timedelta(days=1)).date()
    access = AccessRequest.objects.create(
        project=world.project, dataset=world.dataset, state="active", purpose="p", ends_on=yesterday,
        requested_by=world.user,
    )  # fmt: skip
    agreement = Agreement.objects.create(
        access_request=access, state="in_force", template="t", body="b", sha256="0" * 64, starts_on=yesterday,
        ends_on=yesterday,
    )  # fmt: skip
    for _ in range(2):
        sweep.sweep_expiries()
    access.refresh_from_db()
    agreement.refresh_from_db()
    assert (access.state, agreement.state) == ("expired", "expired")


def test_tasks_are_registered_under_the_names_that_beat_uses(settings):
    import workers.tasks
    from portal.celery import app

    for entry in settings.CELERY_BEAT_SCHEDULE.values():
        assert entry["task"] in app.tasks
    assert workers.tasks
