"""Two people at once, on two connections of a real PostgreSQL: one wins, the other is told, nothing is done twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from apps.accounts.models import User
from apps.core.errors import Conflict, DomainError
from apps.core.models import StateChange
from apps.projects import actions
from apps.projects.models import EthicsOpinion, EthicsReview, Membership, Project
from tests.unit.projects.conftest import World, make_world

pytestmark = pytest.mark.django_db(transaction=True)


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Run the calls at the same moment, each on its own connection; results or errors, in order."""
    barrier = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)

    def run(index: int, call: Callable[[], Any]) -> None:
        try:
            barrier.wait(10)
            results[index] = call()
        except DomainError as error:
            results[index] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(i, c)) for i, c in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def fresh(user: User) -> User:
    return User.objects.get(pk=user.pk)


@pytest.fixture
def world(transactional_db: None) -> World:
    return make_world()


def test_two_chairs_decide_at_once(world: World) -> None:
    review = world.with_quorum()
    actions.give_opinion(by=world.chair2, review=review, opinion="object", comment="No.")
    one, two = (EthicsReview.objects.get(pk=review.pk) for _ in range(2))
    chair, chair2 = fresh(world.chair), fresh(world.chair2)
    results = at_once(
        lambda: world.decide(one, by=chair),
        lambda: world.decide(two, by=chair2, outcome="unfavourable", valid_until=None, reason="Too broad."),
    )
    lost = [r for r in results if isinstance(r, Conflict)]
    won = [r for r in results if isinstance(r, EthicsReview)]
    assert len(lost) == len(won) == 1
    review.refresh_from_db()
    assert review.state == won[0].state and review.decided_by_id == won[0].decided_by_id
    assert StateChange.objects.filter(object_id=review.pk, from_state="under_review").count() == 1
    assert Project.objects.get().state == ("approved" if review.state == "favourable" else "declined")


def test_decided_and_withdrawn_at_once(world: World) -> None:
    review = world.with_quorum()
    chair, ada = fresh(world.chair), fresh(world.ada)
    project = Project.objects.get()
    results = at_once(
        lambda: world.decide(EthicsReview.objects.get(pk=review.pk), by=chair),
        lambda: actions.withdraw_project(by=ada, project=project, reason="No funding."),
    )
    assert sum(isinstance(r, Conflict) for r in results) == 1
    states = (EthicsReview.objects.get().state, Project.objects.get().state)
    assert states in {("favourable", "approved"), ("withdrawn", "withdrawn")}


def test_references_are_never_given_twice(world: World) -> None:
    users = [fresh(world.ada), fresh(world.ben), fresh(world.ada), fresh(world.stranger)]
    made = at_once(
        *[lambda u=u: actions.start_project(by=u, title="T", organisation=world.university) for u in users]  # type: ignore[misc]
    )
    assert sorted(p.ref[-4:] for p in made) == ["0001", "0002", "0003", "0004"]


def test_a_form_sent_twice_at_once(world: World) -> None:
    import uuid

    token = uuid.uuid4()
    ada, ada2 = fresh(world.ada), fresh(world.ada)
    send = {"title": "T", "organisation": world.university, "submission": token}
    one, two = at_once(
        lambda: actions.start_project(by=ada, **send),
        lambda: actions.start_project(by=ada2, **send),  # type: ignore[arg-type]
    )
    assert one.pk == two.pk and Project.objects.count() == 1


def test_one_opinion_and_one_invitation_however_often_sent(world: World) -> None:
    project = world.draft()
    ada, ada2 = fresh(world.ada), fresh(world.ada)
    one, two = at_once(
        lambda: actions.invite(by=ada, project=project, email="ben@example.org"),
        lambda: actions.invite(by=ada2, project=project, email="ben@example.org"),
    )
    assert one.pk == two.pk and Membership.objects.filter(project=project).count() == 2
    review = world.under_review(project)
    member, member2 = fresh(world.member), fresh(world.member)
    results = at_once(
        lambda: actions.give_opinion(by=member, review=review, opinion="support", comment="Yes."),
        lambda: actions.give_opinion(by=member2, review=review, opinion="object", comment="No."),
    )
    assert sum(isinstance(r, Conflict) for r in results) == 1 and EthicsOpinion.objects.count() == 1
