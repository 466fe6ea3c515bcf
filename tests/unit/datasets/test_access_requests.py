"""Access to a dataset: asked for, decided, stopped, resumed, ended; who may, and in which state."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from apps.accounts.roles import Role
from apps.audit.models import Entry
from apps.core.clock import now
from apps.core.errors import Conflict, Denied, Invalid
from apps.core.lifecycle import history
from apps.core.models import Outbox
from apps.datasets import access_permissions, access_queries, actions
from apps.datasets.models import AccessRequest
from apps.projects import actions as projects
from apps.projects.models import Project
from tests import factories
from tests.factories import World, again, browser

_world, w = factories.fixtures(World)
DAY = dt.timedelta(days=1)


@pytest.fixture(autouse=True)
def object_store() -> None:
    """The world's own store stays in use."""


def today() -> dt.date:
    return now().date()


def ask(w: World, **more: Any) -> AccessRequest:
    given = {
        "by": w.lead,
        "project": w.project,
        "dataset": w.dataset,
        "purpose": "Visits.",
        "ends_on": today() + 100 * DAY,
        **more,
    }
    return actions.request_access(**given)


def decide(w: World, request: AccessRequest, **more: Any) -> AccessRequest:
    return actions.decide_access(
        **{"by": w.custodian, "access_request": request, "approve": True, "reason": "Fits.", **more}
    )


def active(w: World) -> AccessRequest:
    return factories.access_in_force(w.project, w.dataset, w.lead, w.custodian, w.ours, w.theirs)


def rechecked(w: World) -> bool:
    return Outbox.objects.filter(topic="recheck_runs", key=str(w.project.pk)).exists()


# Asking


def test_ask(w: World) -> None:
    request = ask(w, purpose="  Visits.  ")
    assert (request.state, request.purpose, request.requested_by) == ("submitted", "Visits.", w.lead)
    assert Entry.objects.get(event="access_request.submitted").data == {
        "to": "submitted",
        "project": str(w.project.pk),
        "dataset": str(w.dataset.pk),
    }
    assert [x.url for x in access_queries.access_waiting(w.custodian)] == [f"/access/{request.pk}"]
    assert [x.heading for x in access_queries.access_waiting(w.member)] == ["Your access requests"]


@pytest.mark.parametrize("who", ["member", "custodian", "ours"])
def test_only_the_lead_asks(w: World, who: str) -> None:
    with pytest.raises(Denied) as refusal:
        ask(w, by=getattr(w, who))
    assert refusal.value.code == "not_the_lead"


@pytest.mark.parametrize(
    "state",
    [
        "draft",
        "submitted",
        "returned",
        "in_ethics_review",
        "suspended",
        "declined",
        "withdrawn",
        "expired",
        "closed",
    ],
)
def test_only_an_approved_project_asks(w: World, state: str) -> None:
    Project.objects.filter(pk=w.project.pk).update(state=state)
    with pytest.raises(Conflict) as refusal:
        ask(w, project=again(w.project))
    assert refusal.value.code == "project_not_approved"


@pytest.mark.parametrize("stop", [actions.suspend_dataset, actions.withdraw_dataset])
def test_only_published_datasets(w: World, stop: Any) -> None:
    stop(by=w.custodian, dataset=w.dataset, reason="A question.")
    with pytest.raises(Conflict) as refusal:
        ask(w)
    assert refusal.value.code == "dataset_not_published"


def test_fields(w: World) -> None:
    with pytest.raises(Invalid) as refusal:
        ask(w, purpose=" ", ends_on=today())
    assert set(refusal.value.fields) == {"purpose", "ends_on"}
    with pytest.raises(Invalid) as refusal:
        ask(w, ends_on=w.project.ends_on + DAY)
    assert "project" in refusal.value.fields["ends_on"][0]
    assert ask(w, ends_on=w.project.ends_on).state == "submitted"


def test_one_live_request(w: World) -> None:
    first = ask(w)
    with pytest.raises(Conflict) as refusal:
        ask(w)
    assert refusal.value.code == "already_requested"
    decide(w, first, approve=False, reason="Too broad.")
    assert ask(w).pk != first.pk


# Deciding


def test_approve(w: World) -> None:
    request = decide(w, ask(w), conditions=" Cite us. ")
    assert (request.state, request.conditions, request.decided_by) == (
        "agreement_pending",
        "Cite us.",
        w.custodian,
    )
    agreement = request.agreements.get()
    assert agreement.state == "issued" and "Cite us." in agreement.body and w.project.ref in agreement.body
    assert [c.to_state for c in history(request)] == ["submitted", "approved", "agreement_pending"]


def test_decline(w: World) -> None:
    with pytest.raises(Invalid):
        decide(w, ask(w), approve=False, reason=" ")
    request = decide(w, AccessRequest.objects.get(), approve=False, reason="Too broad.")
    assert (request.state, request.agreements.count()) == ("declined", 0)
    with pytest.raises(Conflict):
        decide(w, again(request))


@pytest.mark.parametrize(
    ("who", "code"),
    [
        ("lead", "role_missing"),
        ("member", "role_missing"),
        ("ours", "role_missing"),
        ("theirs", "role_missing"),
    ],
)
def test_who_decides(w: World, who: str, code: str) -> None:
    request, by = ask(w), getattr(w, who)
    for act in (lambda: decide(w, request, by=by), lambda: decide(w, request, by=by, approve=False)):
        with pytest.raises(Denied) as refusal:
            act()
        assert refusal.value.code == code
    assert not access_permissions.can_decide_access(by, request)


def test_custodian_without_the_grant(w: World) -> None:
    request, colleague = ask(w), factories.person("Cy Custodian", w.archive, Role.CUSTODIAN)
    with pytest.raises(Denied) as refusal:
        decide(w, request, by=colleague)
    assert refusal.value.code == "not_a_manager"


@pytest.mark.parametrize("leaves", [False, True])
def test_custodian_with_a_part_in_the_project(w: World, leaves: bool) -> None:
    request = ask(w)
    projects.invite(by=w.lead, project=w.project, email=w.custodian2.email)
    if leaves:
        projects.accept_invitation(by=w.custodian2, project=w.project)
        projects.leave_project(by=w.custodian2, project=w.project)
    with pytest.raises(Denied) as refusal:
        decide(w, request, by=w.custodian2)
    assert refusal.value.code == "belongs_to_project"


def test_custodian_who_declines_an_invitation_decides(w: World) -> None:
    request = ask(w)
    projects.invite(by=w.lead, project=w.project, email=w.custodian2.email)
    projects.decline_invitation(by=w.custodian2, project=w.project)
    assert decide(w, request, by=w.custodian2).state == "agreement_pending"


def test_lead_who_is_a_custodian_too(w: World) -> None:
    """Somebody who leads a project and acts for the dataset asks, but never decides."""
    from apps.accounts import actions as accounts

    accounts.grant_role(
        by=factories.operator(), user=w.custodian2, role=Role.RESEARCHER, organisation=w.archive
    )
    both = again(w.custodian2)
    project = factories.approved_project(both, w.board)
    request = ask(w, by=both, project=project)
    with pytest.raises(Denied) as refusal:
        decide(w, request, by=both)
    assert refusal.value.code == "belongs_to_project"
    assert decide(w, request).state == "agreement_pending"


def test_project_suspended_before_the_decision(w: World) -> None:
    request = ask(w)
    projects.suspend_project(by=w.board.chair, project=w.project, reason="An incident.")
    with pytest.raises(Conflict) as refusal:
        decide(w, request)
    assert refusal.value.code == "project_not_approved" and again(request).state == "submitted"
    assert decide(w, request, approve=False).state == "declined"


# Stopping


def test_suspend_and_resume(w: World) -> None:
    request = active(w)
    assert access_queries.active_access(w.project, w.dataset) == request
    Outbox.objects.all().delete()
    with pytest.raises(Invalid):
        actions.suspend_access(by=w.custodian, access_request=request, reason="")
    actions.suspend_access(by=w.custodian, access_request=request, reason="A question.")
    assert again(request).state == "suspended" and rechecked(w)
    assert access_queries.active_access(w.project, w.dataset) is None
    Outbox.objects.all().delete()
    with pytest.raises(Invalid):
        actions.resume_access(by=w.custodian, access_request=request, reason="")
    actions.resume_access(by=w.custodian2, access_request=request, reason="Answered.")
    assert again(request).state == "active" and rechecked(w)
    with pytest.raises(Conflict):
        actions.resume_access(by=w.custodian, access_request=again(request), reason="Again.")


def test_resuming_opens_no_access_that_nobody_signed_for(w: World) -> None:
    request = decide(w, ask(w))
    with pytest.raises(Conflict) as refusal:
        actions.resume_access(by=w.custodian, access_request=request, reason="Quickly.")
    assert refusal.value.code == "not_suspended" and again(request).state == "agreement_pending"


@pytest.mark.parametrize("first", ["agreement_pending", "active", "suspended"])
def test_revoke(w: World, first: str) -> None:
    request = decide(w, ask(w)) if first == "agreement_pending" else active(w)
    if first == "suspended":
        actions.suspend_access(by=w.custodian, access_request=request, reason="A question.")
    actions.revoke_access(by=w.custodian, access_request=again(request), reason="A breach.")
    agreement = request.agreements.get()
    assert (again(request).state, agreement.state) == (
        "revoked",
        "void" if first == "agreement_pending" else "terminated",
    )
    assert rechecked(w) and access_queries.active_access(w.project, w.dataset) is None
    with pytest.raises(Conflict):
        actions.suspend_access(by=w.custodian, access_request=again(request), reason="Late.")


@pytest.mark.parametrize("act", [actions.suspend_access, actions.resume_access, actions.revoke_access])
def test_only_custodians_stop(w: World, act: Any) -> None:
    request = active(w)
    if act is actions.resume_access:
        actions.suspend_access(by=w.custodian, access_request=request, reason="A question.")
    for by in (w.lead, w.member, w.ours, w.theirs, w.board.chair, factories.operator()):
        with pytest.raises(Denied):
            act(by=by, access_request=again(request), reason="Because.")


@pytest.mark.parametrize("act", [actions.suspend_access, actions.revoke_access])
def test_a_part_in_the_project_is_no_bar_to_stopping(w: World, act: Any) -> None:
    """Whoever acts for the dataset can always end its use; to allow it again takes somebody without part in it."""
    request = active(w)
    projects.invite(by=w.lead, project=w.project, email=w.custodian2.email)
    projects.accept_invitation(by=w.custodian2, project=w.project)
    projects.leave_project(by=w.custodian2, project=w.project)
    page = browser(w.custodian2).get(f"/access/{request.pk}").text
    assert f"/access/{request.pk}/suspend" in page and f"/access/{request.pk}/revoke" in page
    act(by=w.custodian2, access_request=request, reason="A breach.")
    assert again(request).state in ("suspended", "revoked") and rechecked(w)
    if act is actions.suspend_access:
        assert f"/access/{request.pk}/resume" not in browser(w.custodian2).get(f"/access/{request.pk}").text
        assert browser(w.custodian2).get(f"/access/{request.pk}/resume").status_code == 403
        with pytest.raises(Denied) as refusal:
            actions.resume_access(by=w.custodian2, access_request=again(request), reason="It was nothing.")
        assert refusal.value.code == "belongs_to_project"
    else:
        assert request.agreements.get().state == "terminated"


@pytest.mark.parametrize("decided", [False, True])
def test_withdraw(w: World, decided: bool) -> None:
    request = decide(w, ask(w)) if decided else ask(w)
    for by in (w.member, w.custodian):
        with pytest.raises(Denied):
            actions.withdraw_request(by=by, access_request=request, reason="Done.")
    with pytest.raises(Invalid):
        actions.withdraw_request(by=w.lead, access_request=request, reason="")
    actions.withdraw_request(by=w.lead, access_request=request, reason="Not needed.")
    assert again(request).state == "withdrawn"
    assert [a.state for a in request.agreements.all()] == (["void"] if decided else [])


def test_active_access_is_not_withdrawn(w: World) -> None:
    with pytest.raises(Conflict):
        actions.withdraw_request(by=w.lead, access_request=active(w), reason="Not needed.")


def test_expiry(w: World) -> None:
    request = active(w)
    Outbox.objects.all().delete()
    actions.expire_access(by=factories.PORTAL, access_request=request)
    assert again(request).state == "expired" and rechecked(w)
    with pytest.raises(Conflict):
        actions.expire_access(by=factories.PORTAL, access_request=again(request))


@pytest.mark.parametrize(
    ("changes", "open_"),
    [
        ({"ends_on": 0}, True),
        ({"ends_on": -1}, False),
        ({"agreement_ends": 0}, True),
        ({"agreement_ends": -1}, False),
        ({"agreement_starts": 1}, False),
        ({"agreement_starts": 0}, True),
    ],
)
def test_dates_of_access_in_force(w: World, changes: dict[str, int], open_: bool) -> None:
    request = active(w)
    for name, days in changes.items():
        day = today() + days * DAY
        match name:
            case "ends_on":
                AccessRequest.objects.update(ends_on=day)
            case "agreement_ends":
                request.agreements.update(ends_on=day)
            case _:
                request.agreements.update(starts_on=day)
    assert (access_queries.active_access(w.project, w.dataset) is not None) is open_


# Seeing


def test_who_sees_a_request(w: World) -> None:
    request = ask(w)
    stranger, foreign = (
        factories.person("Sam", w.university, Role.RESEARCHER),
        factories.organisation("custodian"),
    )
    auditor = factories.person("Audrey", w.university, Role.AUDITOR, ready=False)
    others = [
        factories.person("Fred", foreign, Role.CUSTODIAN),
        factories.person("Fay", foreign, Role.SIGNATORY),
        stranger,
        w.checkers[0],
        factories.operator(),
        w.board.chair,
    ]
    for user in (w.lead, w.member, w.custodian, w.ours, w.theirs, auditor):
        assert list(access_permissions.visible_requests(user)) == [request], user
    for user in others:
        assert not access_permissions.visible_requests(user).exists(), user
    guest = factories.person("Gus Guest", w.university)
    projects.invite(by=w.lead, project=w.project, email=guest.email)
    assert not access_permissions.visible_requests(guest).exists(), "an invitation is not a membership"


# The database


def test_constraints(w: World) -> None:
    request = decide(w, ask(w))
    for changes, name in (
        ({"decided_at": None}, "access_decision_paired"),
        ({"decided_by": w.lead}, "access_not_decided_by_requester"),
    ):
        with pytest.raises(IntegrityError, match=name), transaction.atomic():
            AccessRequest.objects.update(**changes)
    with pytest.raises(IntegrityError, match="one_live_access_request"), transaction.atomic():
        AccessRequest.objects.create(
            project=w.project, dataset=w.dataset, purpose="P", ends_on=request.ends_on, requested_by=w.lead
        )
