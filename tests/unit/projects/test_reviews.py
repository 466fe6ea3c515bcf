"""The ethics board: who takes part, blind opinions, quorum, decision."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.utils import timezone

from apps.accounts.models import Organisation, RoleHolding
from apps.accounts.roles import Role
from apps.audit.models import Entry
from apps.core.errors import Conflict, Denied, Invalid, NotFound
from apps.projects import actions, permissions, queries
from apps.projects.models import EthicsOpinion, Project
from tests.unit.projects.conftest import World, person


def test_accept_is_the_chairs(world: World) -> None:
    review = world.submitted()
    for user in (world.member, world.ada, world.stranger):
        with pytest.raises(Denied):
            actions.accept_for_review(by=user, review=review)
    actions.accept_for_review(by=world.chair, review=review)
    assert Project.objects.get().state == "in_ethics_review"
    with pytest.raises(Conflict):
        actions.accept_for_review(by=world.chair2, review=review)


def test_a_chair_of_another_board_has_no_say(world: World) -> None:
    other = Organisation.objects.create(slug="board2", name="Other Board", kind="ethics_board")
    foreign = person("foreign", other, Role.ETHICS_CHAIR)
    review = world.with_quorum()
    with pytest.raises(NotFound):
        queries.review_for(foreign, review.pk)
    for call in (
        lambda: actions.give_opinion(by=foreign, review=review, opinion="support", comment="x"),
        lambda: actions.return_application(by=foreign, review=review, reason="x"),
        lambda: world.decide(review, by=foreign),
    ):
        with pytest.raises(Denied):
            call()


@pytest.mark.parametrize("how", ["invited", "left"])
def test_whoever_ever_belonged_takes_no_part(world: World, how: str) -> None:
    """A chair who was in the project can neither review nor decide nor see what the board says."""
    project = world.draft()
    actions.invite(by=world.ada, project=project, email=world.chair2.email)
    if how == "left":
        actions.accept_invitation(by=world.chair2, project=project)
        actions.leave_project(by=world.chair2, project=project)
    review = world.with_quorum(project)
    for call in (
        lambda: actions.give_opinion(by=world.chair2, review=review, opinion="support", comment="x"),
        lambda: actions.declare_interest(by=world.chair2, review=review, comment="x"),
        lambda: actions.return_application(by=world.chair2, review=review, reason="x"),
        lambda: world.decide(review, by=world.chair2),
        lambda: queries.review_for(world.chair2, review.pk),
    ):
        with pytest.raises(Denied) as caught:
            call()
        assert caught.value.code == "belongs_to_project"
    assert not permissions.sees_opinions(world.chair2, review)
    assert list(queries.reviews_for(world.chair2)) == []
    world.decide(review)
    project.refresh_from_db()
    with pytest.raises(Denied):
        actions.suspend_project(by=world.chair2, project=project, reason="x")


def test_whoever_declined_takes_part_as_before(world: World) -> None:
    """Else an applicant could choose the board by inviting the others, before the board is known."""
    project = world.draft()
    actions.invite(by=world.ada, project=project, email=world.chair2.email)
    actions.decline_invitation(by=world.chair2, project=project)
    review = world.with_quorum(project)
    assert review in queries.reviews_for(world.chair2) and permissions.can_view(
        world.chair2, review.version.project
    )
    actions.give_opinion(by=world.chair2, review=review, opinion="support", comment="x")
    assert world.chair2.pk in {o.member_id for o in queries.quorum_of(review).counted}


def test_a_chair_does_not_review_their_own_project(world: World) -> None:
    RoleHolding.objects.create(
        user=world.ada, role=Role.ETHICS_CHAIR, organisation=world.board, granted_by="system:test"
    )
    review = world.submitted()
    with pytest.raises(Denied):
        actions.accept_for_review(by=world.ada, review=review)
    with pytest.raises(Denied):
        queries.review_for(world.ada, review.pk)


def test_opinions_are_blind(world: World) -> None:
    review = world.under_review()
    actions.give_opinion(by=world.member, review=review, opinion="object", comment="Too broad.")
    seen = queries.opinions_for(world.chair, review)
    assert (seen.own, seen.others, seen.hidden) == (None, [], 1)
    actions.give_opinion(by=world.chair, review=review, opinion="support", comment="Fine.")
    seen = queries.opinions_for(world.chair, review)
    assert [o.comment for o in seen.others] == ["Too broad."] and seen.hidden == 0
    # Who has an interest never sees what the others say, not even after the decision.
    actions.declare_interest(by=world.member2, review=review, comment="My student.")
    assert queries.opinions_for(world.member2, review).hidden == 2
    world.decide(review)
    review.refresh_from_db()
    assert queries.opinions_for(world.member2, review).hidden == 2
    assert queries.opinions_for(world.chair2, review).hidden == 0


def test_the_log_does_not_tell_an_opinion(world: World) -> None:
    review = world.under_review()
    actions.give_opinion(by=world.member, review=review, opinion="object", comment="Too broad.")
    entry = Entry.objects.get(event="ethics_review.opinion_given")
    assert "object" not in str(entry.data) and "Too broad" not in str(entry.data)


def test_one_opinion_each(world: World) -> None:
    review = world.submitted()
    with pytest.raises(Conflict, match="Received"):
        actions.give_opinion(by=world.member, review=review, opinion="support", comment="x")
    actions.accept_for_review(by=world.chair, review=review)
    given: dict[str, Any] = {"by": world.member, "review": review, "opinion": "support", "comment": "Good."}
    first = actions.give_opinion(**given)
    assert actions.give_opinion(**given).pk == first.pk
    with pytest.raises(Conflict):
        actions.give_opinion(**{**given, "opinion": "object"})
    with pytest.raises(Conflict):
        actions.declare_interest(by=world.member, review=review, comment="Oh.")
    for wrong in ({"opinion": "interest"}, {"opinion": "maybe"}, {"comment": " "}):
        with pytest.raises(Invalid):
            actions.give_opinion(**{**given, "by": world.member2, **wrong})
    assert EthicsOpinion.objects.count() == 1


def test_no_decision_without_a_quorum(world: World) -> None:
    review = world.under_review()
    with pytest.raises(Denied) as caught:
        world.decide(review)
    assert caught.value.code == "own_opinion_missing"
    actions.give_opinion(by=world.chair, review=review, opinion="support", comment="Fine.")
    actions.declare_interest(by=world.member2, review=review, comment="My student.")
    with pytest.raises(Denied) as caught:
        world.decide(review)
    assert caught.value.code == "no_quorum"
    actions.give_opinion(by=world.member, review=review, opinion="object", comment="Hm.")
    with pytest.raises(Denied):
        world.decide(review, by=world.member)
    with pytest.raises(Denied) as caught:
        world.decide(review, by=world.chair2)
    assert caught.value.code == "own_opinion_missing"
    assert world.decide(review).state == "favourable"


def test_an_opinion_of_one_who_left_the_board_does_not_count(world: World) -> None:
    review = world.with_quorum()
    RoleHolding.objects.filter(user=world.member).update(revoked_at=timezone.now())
    with pytest.raises(Denied) as caught:
        world.decide(review)
    assert caught.value.code == "no_quorum"


def test_a_chair_with_an_interest_does_not_chair(world: World) -> None:
    review = world.submitted()
    actions.declare_interest(by=world.chair, review=review, comment="My student.")
    with pytest.raises(Denied) as caught:
        actions.accept_for_review(by=world.chair, review=review)
    assert caught.value.code == "declared_interest"
    actions.accept_for_review(by=world.chair2, review=review)


def test_favourable(world: World) -> None:
    project = world.approved()
    review = project.versions.get().review
    assert (project.state, project.ethics_valid_until) == ("approved", review.valid_until)
    assert review.decided_by == world.chair
    assert queries.letter_for(world.ada, review.pk) == review
    assert queries.decision_reason(review) == "Public benefit."
    with pytest.raises(NotFound):
        queries.letter_for(world.stranger, review.pk)


def test_conditions(world: World) -> None:
    review = world.with_quorum()
    for wrong in (
        {"outcome": "favourable", "conditions": "Ask first."},
        {"outcome": "favourable_with_conditions"},
        {"outcome": "unfavourable"},
        {"outcome": "returned"},
        {"valid_until": None},
        {"valid_until": timezone.localdate()},
        {"valid_until": timezone.localdate() + dt.timedelta(days=5 * 366)},
        {"reason": " "},
    ):
        with pytest.raises(Invalid):
            world.decide(review, **wrong)
    world.decide(review, outcome="favourable_with_conditions", conditions="Ask first.")
    project = Project.objects.get()
    assert (project.state, project.conditions) == ("approved", "Ask first.")


def test_unfavourable(world: World) -> None:
    review = world.decide(world.with_quorum(), outcome="unfavourable", valid_until=None, reason="Too broad.")
    assert review.state == "unfavourable" and Project.objects.get().state == "declined"
    with pytest.raises(Conflict):
        world.decide(review)


def test_return_during_review(world: World) -> None:
    review = world.with_quorum()
    with pytest.raises(Denied):
        actions.return_application(by=world.member, review=review, reason="x")
    with pytest.raises(Invalid):
        actions.return_application(by=world.chair, review=review, reason=" ")
    actions.return_application(by=world.chair, review=review, reason="Which columns?")
    review.refresh_from_db()
    assert review.state == "returned" and Project.objects.get().state == "returned"
    assert queries.letter_for(world.ada, review.pk) == review
    with pytest.raises(Conflict):
        actions.give_opinion(by=world.member2, review=review, opinion="support", comment="Late.")
