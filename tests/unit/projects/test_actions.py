"""Starting, writing, submitting, people, standing: who may, when, and what is written."""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid

import pytest
import rfc8785
from django.utils import timezone

from apps.accounts.models import Organisation
from apps.audit.models import Entry
from apps.core.actors import System
from apps.core.errors import Conflict, Denied, Invalid, NotFound
from apps.core.models import Outbox, StateChange
from apps.projects import actions, permissions, queries
from apps.projects.models import ApplicationVersion, EthicsReview, Membership, Project
from tests.unit.projects.conftest import World, complete_answers

# Starting


def test_start(world: World) -> None:
    project = actions.start_project(by=world.ada, title=" Cost sharing ", organisation=world.university)
    assert project.ref == f"SR-{timezone.localdate().year}-0001"
    assert (project.state, project.title, project.answers) == (
        "draft",
        "Cost sharing",
        {"title": "Cost sharing"},
    )
    assert permissions.is_lead(world.ada, project) and permissions.belongs(world.ada, project)
    assert Entry.objects.filter(event="project.draft").count() == 1
    second = actions.start_project(by=world.ada, title="Other", organisation=world.university)
    assert second.ref.endswith("-0002")


def test_reference_numbers_go_on_past_four_digits(world: World) -> None:
    first = actions.start_project(by=world.ada, title="A", organisation=world.university)
    for number, expected in ((9999, "10000"), (None, "10001")):
        if number:
            Project.objects.filter(pk=first.pk).update(ref=f"SR-{timezone.localdate().year}-{number}")
        made = actions.start_project(by=world.ada, title="B", organisation=world.university)
        assert made.ref.rsplit("-", 1)[1] == expected


def test_start_needs_the_role_in_that_organisation(world: World) -> None:
    elsewhere = Organisation.objects.create(slug="other", name="Other", kind="university")
    for user, organisation in ((world.chair, world.university), (world.ada, elsewhere)):
        with pytest.raises(Denied):
            actions.start_project(by=user, title="T", organisation=organisation)
    assert Project.objects.count() == 0


@pytest.mark.parametrize("title", ["", "  ", "x" * 201, "a\x00b", "two\nlines"])
def test_start_needs_a_title(world: World, title: str) -> None:
    with pytest.raises(Invalid) as caught:
        actions.start_project(by=world.ada, title=title, organisation=world.university)
    assert list(caught.value.fields) == ["title"]


def test_a_form_sent_twice_starts_one_project(world: World) -> None:
    token = uuid.uuid4()
    one, two = (
        actions.start_project(by=world.ada, title="T", organisation=world.university, submission=token)
        for _ in range(2)
    )
    other = actions.start_project(by=world.ben, title="T", organisation=world.university, submission=token)
    assert one.pk == two.pk and other.pk != one.pk
    assert Project.objects.count() == 2


# Writing


def test_only_the_lead_writes(world: World) -> None:
    project = world.draft()
    actions.invite(by=world.ada, project=project, email="BEN@example.org")
    actions.accept_invitation(by=world.ben, project=project)
    for user in (world.ben, world.stranger, world.chair):
        with pytest.raises(Denied):
            actions.save_answers(by=user, project=project, answers={"aims": "Mine"})


def test_answers_are_saved_and_the_title_follows(world: World) -> None:
    project = world.draft()
    changed = actions.save_answers(
        by=world.ada, project=project, answers={"title": "New", "funder": "", "linkage": "no"}
    )
    project.refresh_from_db()
    assert changed == ["title"] and project.title == "New" == project.answers["title"]
    with pytest.raises(Invalid):
        actions.save_answers(by=world.ada, project=project, answers={"title": "  "})


def test_a_submitted_application_cannot_be_changed(world: World) -> None:
    project = world.submitted().version.project
    with pytest.raises(Conflict):
        actions.save_answers(by=world.ada, project=project, answers={"aims": "Else"})


# Submitting


def test_submit_freezes_and_hashes(world: World) -> None:
    project = world.draft()
    version = actions.submit_application(by=world.ada, project=project, board=world.board, declared=True)
    project.refresh_from_db()
    assert (project.state, project.board, version.number) == ("submitted", world.board, 1)
    assert version.sha256 == hashlib.sha256(rfc8785.dumps(version.answers)).hexdigest()
    assert version.answers["people"] == ["Ada, University, Principal investigator"]
    assert (version.review.state, version.review.board) == ("received", world.board)
    assert project.ends_on is not None and project.ends_on.isoformat() == project.answers["ends_on"]
    assert Entry.objects.filter(event="ethics_review.received").count() == 1


def test_submit_needs_every_answer(world: World) -> None:
    project = world.draft()
    actions.save_answers(by=world.ada, project=project, answers={"aims": "", "linkage": "yes"})
    with pytest.raises(Invalid) as caught:
        actions.submit_application(by=world.ada, project=project, board=world.board, declared=True)
    assert list(caught.value.fields) == ["aims", "linkage_detail"]
    assert ApplicationVersion.objects.count() == 0


def test_submit_needs_declaration_board_and_a_future_end(world: World) -> None:
    project = world.draft()
    with pytest.raises(Invalid, match="declaration"):
        actions.submit_application(by=world.ada, project=project, board=world.board, declared=False)
    with pytest.raises(Invalid, match="ethics board"):
        actions.submit_application(by=world.ada, project=project, board=world.university, declared=True)
    today = timezone.localdate().isoformat()
    actions.save_answers(by=world.ada, project=project, answers={"starts_on": today, "ends_on": today})
    with pytest.raises(Invalid, match="future"):
        actions.submit_application(by=world.ada, project=project, board=world.board, declared=True)
    project.refresh_from_db()
    assert project.state == "draft" and EthicsReview.objects.count() == 0


def test_submit_twice(world: World) -> None:
    project, token = world.draft(), uuid.uuid4()
    sent = {"by": world.ada, "project": project, "board": world.board, "declared": True}
    one = actions.submit_application(**sent, submission=token)
    assert actions.submit_application(**sent, submission=token).pk == one.pk
    with pytest.raises(Conflict):
        actions.submit_application(**sent, submission=uuid.uuid4())
    assert ApplicationVersion.objects.count() == 1


def test_returned_then_version_two_to_the_same_board(world: World) -> None:
    review = world.submitted()
    actions.return_application(by=world.chair, review=review, reason="Which columns?")
    project = Project.objects.get()
    assert project.state == "returned"
    actions.save_answers(by=world.ada, project=project, answers={"data_needed": "Three columns."})
    other = Organisation.objects.create(slug="board2", name="Other Board", kind="ethics_board")
    with pytest.raises(Invalid, match="Ethics Board"):
        actions.submit_application(by=world.ada, project=project, board=other, declared=True)
    version = actions.submit_application(by=world.ada, project=project, board=world.board, declared=True)
    assert version.number == 2
    before = queries.previous_version(version)
    assert before is not None and before.answers["data_needed"] != "Three columns."
    assert EthicsReview.objects.filter(state="received").count() == 1


# People


def test_invite_accept_leave(world: World) -> None:
    project = world.draft()
    invited = actions.invite(by=world.ada, project=project, email=world.ben.email)
    assert actions.invite(by=world.ada, project=project, email=world.ben.email).pk == invited.pk
    assert not permissions.is_member(world.ben, project) and not permissions.can_view(world.ben, project)
    assert list(permissions.invited_to(world.ben)) == [project]
    actions.accept_invitation(by=world.ben, project=project)
    assert permissions.can_view(world.ben, project) and not permissions.invited_to(world.ben).exists()
    assert permissions.is_member(world.ben, project) and not permissions.is_lead(world.ben, project)
    with pytest.raises(Invalid, match="already"):
        actions.invite(by=world.ada, project=project, email=world.ben.email)
    with pytest.raises(Conflict):
        actions.accept_invitation(by=world.ben, project=project)
    actions.leave_project(by=world.ben, project=project)
    assert not permissions.can_view(world.ben, project) and permissions.belongs(world.ben, project)
    assert Outbox.objects.filter(topic="recheck_runs", key=str(project.pk)).exists()
    again = actions.invite(by=world.ada, project=project, email=world.ben.email)
    assert again.pk != invited.pk


def test_decline_remove(world: World) -> None:
    project = world.draft()
    invited = actions.invite(by=world.ada, project=project, email=world.ben.email)
    actions.decline_invitation(by=world.ben, project=project)
    with pytest.raises(Denied):
        actions.accept_invitation(by=world.ben, project=project)
    with pytest.raises(Conflict):
        actions.remove_member(by=world.ada, membership=invited, reason="Gone")
    second = actions.invite(by=world.ada, project=project, email=world.stranger.email)
    with pytest.raises(Denied):
        actions.remove_member(by=world.ben, membership=second, reason="x")
    with pytest.raises(Invalid):
        actions.remove_member(by=world.ada, membership=second, reason=" ")
    actions.remove_member(by=world.ada, membership=second, reason="A mistake")
    assert Membership.objects.filter(project=project, left_at__isnull=True).count() == 1


def test_nobody_unknown_inactive_or_of_the_board_is_invited(world: World) -> None:
    project = world.submitted().version.project
    world.ben.is_active = False
    world.ben.save()
    for email in ("nobody@example.org", world.ben.email, world.member.email):
        with pytest.raises(Invalid) as caught:
            actions.invite(by=world.ada, project=project, email=email)
        assert "email" in caught.value.fields
    assert Membership.objects.filter(project=project).count() == 1


def test_the_lead_stays(world: World) -> None:
    project = world.draft()
    with pytest.raises(Conflict):
        actions.leave_project(by=world.ada, project=project)
    with pytest.raises(Conflict):
        actions.remove_member(by=world.ada, membership=project.memberships.get(), reason="x")


def test_nobody_joins_an_ended_project(world: World) -> None:
    project = world.draft()
    actions.invite(by=world.ada, project=project, email=world.ben.email)
    actions.withdraw_project(by=world.ada, project=project, reason="No funding.")
    with pytest.raises(Conflict):
        actions.accept_invitation(by=world.ben, project=project)
    with pytest.raises(Conflict):
        actions.invite(by=world.ada, project=project, email=world.stranger.email)


# Standing


def test_withdraw_ends_the_review(world: World) -> None:
    review = world.under_review()
    with pytest.raises(Denied):
        actions.withdraw_project(by=world.chair, project=review.version.project, reason="x")
    actions.withdraw_project(by=world.ada, project=review.version.project, reason="No funding.")
    review.refresh_from_db()
    assert review.state == "withdrawn" and Project.objects.get().state == "withdrawn"


@pytest.mark.parametrize("active", [False, True])
def test_suspend_and_reinstate_give_back_what_was(world: World, active: bool) -> None:
    project = world.approved()
    if active:
        actions.activate(by=System("agreements"), project=project)
        actions.activate(by=System("agreements"), project=project)
    with pytest.raises(Denied):
        actions.suspend_project(by=world.ada, project=project, reason="x")
    with pytest.raises(Denied):
        actions.suspend_project(by=world.member, project=project, reason="x")
    Outbox.objects.all().delete()
    actions.suspend_project(by=world.chair, project=project, reason="A complaint.")
    assert Outbox.objects.filter(topic="recheck_runs", key=str(project.pk)).count() == 1
    with pytest.raises(Conflict):
        actions.activate(by=System("agreements"), project=project)
    restored = actions.reinstate_project(by=world.chair2, project=project, reason="Unfounded.")
    assert restored.state == ("active" if active else "approved")
    with pytest.raises(Conflict):
        actions.reinstate_project(by=world.chair, project=project, reason="Again.")


def test_close(world: World) -> None:
    project = world.approved()
    with pytest.raises(Denied):
        actions.close_project(by=world.ben, project=project, reason="x")
    actions.close_project(by=world.ada, project=project, reason="Done.")
    assert Project.objects.get().state == "closed"
    with pytest.raises(Conflict):
        actions.close_project(by=world.ada, project=project, reason="Done.")


def test_expiry(world: World) -> None:
    project = world.approved()
    assert actions.expire_projects(by=System("sweeper")) == 0
    Project.objects.filter(pk=project.pk).update(
        ethics_valid_until=timezone.localdate() - dt.timedelta(days=1)
    )
    assert actions.expire_projects(by=System("sweeper")) == 1
    project.refresh_from_db()
    assert project.state == "expired"
    assert StateChange.objects.get(object_id=project.pk, to_state="expired").by == "system:sweeper"


# Seeing


def test_who_sees_a_project(world: World) -> None:
    project = world.draft()
    for user in (world.stranger, world.chair, world.member, world.ben):
        assert not permissions.can_view(user, project)
        with pytest.raises(NotFound):
            queries.project_for(user, project.pk)
    actions.submit_application(by=world.ada, project=project, board=world.board, declared=True)
    project.refresh_from_db()
    assert queries.project_for(world.member, project.pk) == project
    assert permissions.can_view(world.member, project) and not permissions.can_view(world.stranger, project)
    with pytest.raises(NotFound):
        queries.project_for(world.ada, "not-a-uuid")


def test_timeline_and_names(world: World) -> None:
    project = world.draft()
    actions.invite(by=world.ada, project=project, email=world.ben.email)
    actions.accept_invitation(by=world.ben, project=project)
    world.submitted(project)
    assert [(e["text"], e["by"]) for e in queries.timeline(project)] == [
        ("Project started", "Ada"),
        ("Ben invited", "Ada"),
        ("Ben joined", "Ben"),
        ("Submitted", "Ada"),
    ]


def test_what_waits(world: World) -> None:
    project = world.draft()
    actions.invite(by=world.ada, project=project, email=world.ben.email)
    assert [w.heading for w in queries.waiting_for(world.ada)] == ["Your projects"]
    assert [w.heading for w in queries.waiting_for(world.ben)] == ["Invitations"]
    review = world.submitted(project)
    assert [w.note.split(".")[0] for w in queries.waiting_for(world.chair)] == [
        "Accept it for review, or return it"
    ]
    assert queries.waiting_for(world.member) == [] == queries.waiting_for(world.ada)
    actions.accept_for_review(by=world.chair, review=review)
    actions.give_opinion(by=world.chair, review=review, opinion="support", comment="Yes.")
    assert queries.waiting_for(world.chair) == []
    assert [w.note.split(".")[0] for w in queries.waiting_for(world.member)] == ["Give your opinion"]
    actions.give_opinion(by=world.member, review=review, opinion="object", comment="No.")
    assert [w.note.split(".")[0] for w in queries.waiting_for(world.chair)] == ["Ready for a decision"]
    assert queries.waiting_for(world.member) == []


def test_complete_answers_are_complete(world: World) -> None:
    assert queries.application_sections(complete_answers())[0][0] == "Safe people"
