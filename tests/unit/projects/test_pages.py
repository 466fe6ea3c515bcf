"""The pages: the whole road by forms, what each person is refused, and a fixed number of queries for lists."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apps.accounts.models import User
from apps.projects import actions, application
from apps.projects.models import EthicsReview, Membership, Project
from tests.unit.projects.conftest import World, complete_answers

pytestmark = pytest.mark.django_db


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def text_of(response: Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode()))


def typed(answers: dict[str, Any]) -> dict[str, Any]:
    """Answers as a browser posts them: a date as three fields."""
    out: dict[str, Any] = {}
    for code, value in answers.items():
        if application.QUESTIONS[code].kind is application.Kind.DATE:
            out.update(zip((f"{code}_year", f"{code}_month", f"{code}_day"), value.split("-"), strict=True))
        else:
            out[code] = value
    return out


def test_the_whole_road_by_forms(world: World) -> None:
    ada, chair, member = signed_in(world.ada), signed_in(world.chair), signed_in(world.member)
    token = str(uuid.uuid4())
    started = {"title": "Cost sharing", "organisation": str(world.university.pk), "submission": token}
    first, second = (ada.post(reverse("projects:new"), started) for _ in range(2))
    assert first.status_code == 302 and first.url == second.url
    project = Project.objects.get()

    page = ada.get(first.url)
    assert "Not started" in text_of(page) and "Cannot start yet" in text_of(page)
    answers = complete_answers(people_interests="yes", people_interests_detail="A grant.")
    for section in application.SECTIONS:
        address = reverse("projects:section", args=[project.pk, section.code])
        assert ada.get(address).status_code == 200
        given = {q.code: answers[q.code] for q in section.questions if q.code in answers}
        assert ada.post(address, typed(given)).status_code == 302
    project.refresh_from_db()
    assert project.answers == answers

    check = reverse("projects:check", args=[project.pk])
    assert "A grant." in text_of(ada.get(check))
    refused = ada.post(check, {"board": str(world.board.pk)})
    assert refused.status_code == 200 and "There is a problem" in text_of(refused)
    sent = {"board": str(world.board.pk), "declaration": "on", "submission": str(uuid.uuid4())}
    first, second = (ada.post(check, sent) for _ in range(2))
    assert first.status_code == 302 and first.url == second.url
    assert project.ref in text_of(ada.get(first.url))
    assert "A grant." in text_of(ada.get(reverse("projects:version", args=[project.pk, 1])))

    review = EthicsReview.objects.get()
    at = {name: reverse(f"projects:{name}", args=[review.pk]) for name in (
        "review", "review-accept", "review-return", "review-opinion", "review-decide", "review-interest", "letter")}  # fmt: skip
    assert "Since today" in text_of(chair.get(reverse("projects:reviews")))
    assert review.version.sha256 in text_of(chair.get(at["review"]))
    chair.post(at["review-accept"])
    assert (
        member.post(at["review-opinion"], {"opinion": "object", "comment": "Too broad."}).status_code == 302
    )
    assert "Too broad." not in text_of(chair.get(at["review"]))
    assert "Too broad." not in text_of(ada.get(reverse("projects:detail", args=[project.pk])))
    chair.post(at["review-opinion"], {"opinion": "support", "comment": "Fine."})
    assert "Too broad." in text_of(chair.get(at["review"]))

    chair.post(at["review-return"], {"reason": "Name the columns."})
    assert "Name the columns." in text_of(ada.get(at["letter"]))
    data = reverse("projects:section", args=[project.pk, "data"])
    ada.post(
        data, typed({**{c: answers[c] for c in ("lawful_basis", "linkage")}, "data_needed": "Three columns."})
    )
    assert "What you changed" in text_of(ada.get(check))
    assert ada.post(check, {**sent, "submission": str(uuid.uuid4())}).url.endswith("/versions/2/submitted")

    second_review = EthicsReview.objects.get(state="received")
    for name in at:
        at[name] = reverse(f"projects:{name}", args=[second_review.pk])
    shown = text_of(chair.get(at["review"]))
    assert "Changed since version 1" in shown and "Three columns." in shown
    chair.post(at["review-accept"])
    for client in (chair, member):
        client.post(at["review-opinion"], {"opinion": "support", "comment": "Good."})
    assert chair.get(at["review-decide"]).status_code == 200
    decision = {"outcome": "favourable_with_conditions", "reason": "Useful."}
    day = typed({"starts_on": answers["ends_on"]})
    decision.update({k.replace("starts_on", "valid_until"): v for k, v in day.items()})
    refused = chair.post(at["review-decide"], decision)
    assert refused.status_code == 200 and "Say what the conditions are" in text_of(refused)
    assert chair.post(at["review-decide"], {**decision, "conditions": "Report yearly."}).status_code == 302
    letter = text_of(ada.get(at["letter"]))
    assert "Report yearly." in letter and "Useful." in letter
    assert "Report yearly." in text_of(ada.get(reverse("projects:detail", args=[project.pk])))

    where = reverse("projects:suspend", args=[project.pk])
    assert chair.get(where).status_code == 200
    assert chair.post(where, {"reason": "A complaint."}).status_code == 302
    assert (
        chair.post(reverse("projects:reinstate", args=[project.pk]), {"reason": "Unfounded."}).status_code
        == 302
    )
    assert ada.post(reverse("projects:close", args=[project.pk]), {"reason": "Done."}).status_code == 302
    project.refresh_from_db()
    assert project.state == "closed"


def test_people_by_forms(world: World) -> None:
    project = world.draft()
    ada, ben = signed_in(world.ada), signed_in(world.ben)
    invite = reverse("projects:invite", args=[project.pk])
    refused = ada.post(invite, {"email": "nobody@example.org"})
    assert refused.status_code == 200 and "has an account on this portal" in text_of(refused)
    assert ada.post(invite, {"email": "ben@example.org"}).status_code == 302
    detail = reverse("projects:detail", args=[project.pk])
    assert "invites you to join" in text_of(ben.get(detail)) and "Ben invited" not in text_of(ben.get(detail))
    assert "invited" in text_of(ben.get(reverse("projects:list"))).lower()
    ben.post(reverse("projects:invitation", args=[project.pk]), {"decision": "accept"})
    assert "Ten years of health economics." in text_of(
        ben.get(reverse("projects:application", args=[project.pk]))
    )
    leave = reverse("projects:leave", args=[project.pk])
    assert ben.get(leave).status_code == 200 and ben.post(leave).status_code == 302
    ada.post(invite, {"email": "ben@example.org"})
    row = Membership.objects.get(project=project, user=world.ben, left_at__isnull=True)
    remove = reverse("projects:remove", args=[project.pk, row.pk])
    assert (
        ada.get(remove).status_code == 200 and ada.post(remove, {"reason": "A mistake."}).status_code == 302
    )
    assert (
        ada.post(reverse("projects:withdraw", args=[project.pk]), {"reason": "No funding."}).status_code
        == 302
    )


def test_an_invitation_shows_what_one_needs_to_answer_it_and_no_more(world: World) -> None:
    review = world.with_quorum()
    project = world.decide(
        review, outcome="favourable_with_conditions", conditions="Report yearly."
    ).version.project
    actions.invite(by=world.ada, project=project, email=world.ben.email)
    actions.invite(by=world.ada, project=project, email=world.stranger.email)
    ben = signed_in(world.ben)
    shown = text_of(ben.get(reverse("projects:detail", args=[project.pk])))
    for needed in ("Cost sharing and visits", "Ada invites you", "Ada", "University", "What accepting means"):
        assert needed in shown, needed
    hidden = ("Report yearly.", "A count model", "Version 1", "Stranger", "History", "Conditions")
    for kept in hidden:
        assert kept not in shown, kept
    for address in (
        reverse("projects:version", args=[project.pk, 1]),
        reverse("projects:application", args=[project.pk]),
    ):
        answer = ben.get(address)
        assert answer.status_code == 403 and "Accept the invitation" in text_of(answer), address
        assert "A count model" not in text_of(answer)
    assert ben.get(reverse("projects:letter", args=[review.pk])).status_code == 404
    ben.post(reverse("projects:invitation", args=[project.pk]), {"decision": "accept"})
    assert "Report yearly." in text_of(ben.get(reverse("projects:detail", args=[project.pk])))
    assert "A count model" in text_of(ben.get(reverse("projects:version", args=[project.pk, 1])))


def test_an_invitation_to_a_project_that_has_ended_can_only_be_declined(world: World) -> None:
    project = world.draft()
    actions.invite(by=world.ada, project=project, email=world.ben.email)
    actions.withdraw_project(by=world.ada, project=project, reason="No funding.")
    ben, detail = signed_in(world.ben), reverse("projects:detail", args=[project.pk])
    html = ben.get(detail).content.decode()
    assert "nobody can join it any more" in html and 'value="accept"' not in html
    ben.post(reverse("projects:invitation", args=[project.pk]), {"decision": "decline"})
    assert ben.get(detail).status_code == 404


def test_an_interest_left_empty_is_asked_for_in_a_sentence(world: World) -> None:
    review = world.with_quorum()
    shown = signed_in(world.chair).post(
        reverse("projects:review-interest", args=[review.pk]), {"comment": ""}
    )
    assert "There is a problem Enter what your interest is" in text_of(shown)


def test_what_is_typed_is_never_markup(world: World) -> None:
    project = world.draft(title="<script>x</script>", aims="<b>bold</b>")
    client = signed_in(world.ada)
    for name in ("detail", "application", "check"):
        body = client.get(reverse(f"projects:{name}", args=[project.pk])).content.decode()
        assert "<script>x" not in body and "<b>bold" not in body, name


def _pages(project: Project, review: EthicsReview) -> list[str]:
    names = ("detail", "withdraw", "close", "suspend", "reinstate", "application", "check", "invite", "leave")
    return [
        *[reverse(f"projects:{n}", args=[project.pk]) for n in names],
        reverse("projects:section", args=[project.pk, "people"]),
        reverse("projects:version", args=[project.pk, 1]),
        reverse("projects:submitted", args=[project.pk, 1]),
        *[reverse(f"projects:{n}", args=[review.pk]) for n in (
            "review", "review-return", "review-opinion", "review-interest", "review-decide", "letter")],
    ]  # fmt: skip


def test_a_stranger_gets_nothing(world: World) -> None:
    review = world.with_quorum()
    client = signed_in(world.stranger)
    for address in _pages(review.version.project, review):
        assert client.get(address).status_code == 404, address
        assert client.post(address, {"reason": "x"}).status_code in (404, 405), address
    assert client.get(reverse("projects:reviews")).status_code == 403
    assert Client().get(reverse("projects:list")).status_code == 302


def test_a_board_member_of_the_project_gets_no_review(world: World) -> None:
    project = world.draft()
    actions.invite(by=world.ada, project=project, email=world.chair2.email)
    actions.accept_invitation(by=world.chair2, project=project)
    review = world.with_quorum(project)
    client = signed_in(world.chair2)
    for name in ("review", "review-return", "review-opinion", "review-interest", "review-decide"):
        response = client.get(reverse(f"projects:{name}", args=[review.pk]))
        assert response.status_code == 403 and "Modest." not in text_of(response)
    assert "Cost sharing" not in text_of(client.get(reverse("projects:reviews")))


@pytest.mark.parametrize("who", ["ada", "chair"])
def test_lists_ask_the_same_number_of_queries_at_any_length(world: World, who: str) -> None:
    client = signed_in(getattr(world, who))
    name = "projects:list" if who == "ada" else "projects:reviews"

    def count() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert client.get(reverse(name)).status_code == 200
        return len(queries)

    world.submitted()
    count()  # the first page of a session writes when it was seen
    few = count()
    for _ in range(6):
        project = world.draft()
        actions.invite(by=world.ada, project=project, email=world.ben.email)
        world.under_review(project)
    assert count() == few < 15
