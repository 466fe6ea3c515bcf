"""Stage-1 releases: ordered, made, decided, withdrawn, downloaded on the record."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from apps.accounts.roles import Role
from apps.audit.models import Entry
from apps.core.clock import now
from apps.core.errors import Conflict, Denied, Invalid
from apps.core.models import Outbox
from apps.datasets import access_permissions, access_queries, actions, permissions
from apps.datasets.models import Download, Stage1Release
from apps.jobs import engine
from apps.jobs.models import Run
from apps.projects import actions as projects
from tests import factories
from tests.factories import World, again, drive

_world, w = factories.fixtures(World)
METHOD = "gaussian_copula"


@pytest.fixture(autouse=True)
def object_store() -> None:
    """The world's own store stays in use."""


def order(w: World, **more: Any) -> Stage1Release:
    given = {
        "by": w.custodian,
        "version": w.dataset.versions.get(number=1),
        "method": METHOD,
        "parameters": {},
        **more,
    }
    return actions.order_release(**given)


def made(w: World) -> Stage1Release:
    return factories.made_release(w.dataset.versions.get(), w.custodian)


def test_order(w: World) -> None:
    release = order(w, parameters={"rows": 50})
    assert (release.state, release.parameters, release.ordered_by) == ("ordered", {"rows": 50}, w.custodian)
    assert Outbox.objects.filter(topic="make_release", key=str(release.pk)).exists()
    with pytest.raises(Conflict) as refusal:
        order(w, by=w.custodian2)
    assert refusal.value.code == "already_ordered"


@pytest.mark.parametrize("rows", [0, 9, -1, 100_001, 10.5, "50", True])
def test_rows(w: World, rows: object) -> None:
    with pytest.raises(Invalid) as refusal:
        order(w, parameters={"rows": rows})
    assert "rows" in refusal.value.fields and not Stage1Release.objects.exists()


def test_unknown_method(w: World) -> None:
    with pytest.raises(Invalid) as refusal:
        order(w, method="magic")
    assert "method" in refusal.value.fields


def test_only_from_an_accepted_version(w: World) -> None:
    version = factories.uploaded_version(w.dataset, w.custodian)
    with pytest.raises(Conflict) as refusal:
        order(w, version=version)
    assert refusal.value.code == "version_not_accepted"


@pytest.mark.parametrize("who", ["lead", "member", "theirs"])
def test_who_orders_and_decides(w: World, who: str) -> None:
    by = getattr(w, who)
    with pytest.raises(Denied):
        order(w, by=by)
    release = made(w)
    for act in (
        lambda: actions.decide_release(by=by, release=release, approve=True),
        lambda: actions.decide_release(by=by, release=release, approve=False, reason="No."),
        lambda: actions.withdraw_release(by=by, release=release, reason="No."),
    ):
        with pytest.raises(Denied):
            act()
    assert not access_permissions.can_view_release(by, release)


def test_made_and_released(w: World) -> None:
    release = made(w)
    assert (
        release.state == "to_review"
        and release.sha256
        and release.size == len(factories.STAND_IN)
        and release.rows == 2
    )
    assert [x.url for x in access_queries.access_waiting(w.custodian2)] == [f"/stand-in/{release.pk}"]
    assert access_queries.current_release(w.dataset) is None
    actions.decide_release(by=w.custodian2, release=release, approve=True)
    release = again(release)
    assert (release.state, release.decided_by) == ("released", w.custodian2)
    assert access_queries.current_release(w.dataset) == release
    with pytest.raises(Conflict):
        actions.decide_release(by=w.custodian, release=release, approve=False, reason="No.")


def test_a_no_needs_a_reason(w: World) -> None:
    release = made(w)
    with pytest.raises(Invalid):
        actions.decide_release(by=w.custodian, release=release, approve=False, reason=" ")
    actions.decide_release(by=w.custodian, release=release, approve=False, reason="Too alike.")
    assert again(release).state == "refused" and access_queries.current_release(w.dataset) is None
    assert order(w).state == "ordered", "another can be ordered"


def test_withdraw(w: World) -> None:
    release = factories.released_stand_in(w.dataset, w.custodian)
    with pytest.raises(Invalid):
        actions.withdraw_release(by=w.custodian, release=release, reason="")
    actions.withdraw_release(by=w.custodian, release=release, reason="A flaw.")
    assert again(release).state == "withdrawn" and access_queries.current_release(w.dataset) is None


def test_the_newest_release_counts(w: World) -> None:
    first = factories.released_stand_in(w.dataset, w.custodian)
    second = factories.released_stand_in(w.dataset, w.custodian)
    assert access_queries.current_release(w.dataset) == second != first


def test_a_run_that_fails(w: World) -> None:
    release = order(w)
    run = engine.create_release_run(release)
    assert run is not None and again(release).state == "making"
    run = drive(run, {}, exit_class="failed")
    assert (run.state, again(release).state) == ("failed", "failed")
    assert order(w).state == "ordered"


@pytest.mark.parametrize(
    "files",
    [
        {"report.json": b"{}"},
        {"stand-in.csv": b"a\n1\n"},
        {"stand-in.csv": b"a\n1\n", "report.json": b"[]"},
        {"stand-in.csv": b"a\n1\n", "report.json": b'{"rows": -1}'},
    ],
)
def test_a_run_that_puts_out_something_else(w: World, files: dict[str, bytes]) -> None:
    release = order(w)
    run = engine.create_release_run(release)
    assert run is not None
    run = drive(run, files)
    assert (run.code, again(release).state) == ("outputs_broken", "failed")


def test_people_do_not_say_what_a_run_made(w: World) -> None:
    release = order(w)
    for act in (
        lambda: actions.release_making(by=w.custodian, release=release),
        lambda: actions.release_made(
            by=w.custodian, release=release, object_name="o", sha256="0" * 64, size=1, rows=1, report={}
        ),
        lambda: actions.release_failed(by=w.custodian, release=release, reason="No."),
    ):
        with pytest.raises(Denied) as refusal:
            act()
        assert refusal.value.code == "portal_only"
    assert again(release).state == "ordered"


def test_who_downloads(w: World) -> None:
    release = made(w)
    stranger = factories.person("Sam", w.university, Role.RESEARCHER)
    may = permissions.can_download_release
    assert may(w.custodian, release) and not may(w.member, release)
    release = actions.decide_release(by=w.custodian, release=release, approve=True)
    assert not may(w.member, release), "no access yet"
    request = factories.access_in_force(w.project, w.dataset, w.lead, w.custodian, w.ours, w.theirs)
    for user, allowed in (
        (w.member, True),
        (w.lead, True),
        (w.custodian, True),
        (stranger, False),
        (w.ours, False),
        (w.theirs, False),
        (w.checkers[0], False),
        (factories.operator(), False),
    ):
        assert may(user, release) is allowed, user
    request.agreements.update(ends_on=now().date() - dt.timedelta(days=1))
    assert not may(w.member, release)
    request.agreements.update(ends_on=now().date())
    assert may(w.member, release)
    projects.leave_project(by=w.member, project=w.project)
    assert not may(w.member, release)
    actions.suspend_access(by=w.custodian, access_request=request, reason="A question.")
    assert not may(w.lead, release)


def test_the_one_who_is_withdrawn_is_not_downloaded(w: World) -> None:
    release = factories.released_stand_in(w.dataset, w.custodian)
    factories.access_in_force(w.project, w.dataset, w.lead, w.custodian, w.ours, w.theirs)
    actions.withdraw_release(by=w.custodian, release=release, reason="A flaw.")
    assert not permissions.can_download_release(w.member, again(release))


@pytest.mark.parametrize("stop", [actions.suspend_dataset, actions.withdraw_dataset])
def test_of_a_dataset_that_is_not_open_only_its_custodians_download(w: World, stop: Any) -> None:
    release = factories.released_stand_in(w.dataset, w.custodian)
    factories.access_in_force(w.project, w.dataset, w.lead, w.custodian, w.ours, w.theirs)
    assert permissions.can_download_release(w.member, again(release))
    stop(by=w.custodian, dataset=w.dataset, reason="A question.")
    assert not permissions.can_download_release(w.member, again(release))
    assert permissions.can_download_release(w.custodian, again(release))


def test_downloads_are_recorded(w: World) -> None:
    pk = uuid.uuid4()
    actions.record_download(
        by=w.member, project=w.project, what="stage1_release", object_id=pk, sha256="0" * 64
    )
    download, entry = Download.objects.get(), Entry.objects.get(event="stage1_release.downloaded")
    assert (download.user, download.project, download.object_id) == (w.member, w.project, pk)
    assert (entry.actor, entry.scope, entry.data) == (
        w.member.actor_code,
        f"project:{w.project.pk}",
        {"sha256": "0" * 64},
    )


def test_constraint(w: World) -> None:
    release = order(w)
    for state in ("to_review", "released", "withdrawn"):
        with pytest.raises(IntegrityError, match="release_has_bytes"), transaction.atomic():
            Stage1Release.objects.filter(pk=release.pk).update(state=state)
    assert not Run.objects.filter(release=release).exists()
