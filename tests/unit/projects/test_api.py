"""The API: the same road as the pages, the same refusals, JSON answers by question code."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from apps.accounts.models import User
from apps.projects.models import EthicsReview
from tests.unit.projects.conftest import World, complete_answers

pytestmark = pytest.mark.django_db
V1 = "/api/v1"


def api(user: User) -> APIClient:
    client = APIClient()
    client.force_authenticate(user)
    return client


def post(client: APIClient, path: str, body: dict[str, Any] | None = None, status: int = 200) -> Any:
    response = client.post(f"{V1}{path}", body or {}, format="json")
    assert response.status_code == status, (path, response.status_code, response.content)
    return response.json() if response.content else None


def get(client: APIClient, path: str, status: int = 200) -> Any:
    response = client.get(f"{V1}{path}")
    assert response.status_code == status, (path, response.status_code, response.content)
    return response.json()


def test_the_form(world: World) -> None:
    form = get(api(world.ada), "/application-form")
    codes = {q["code"] for s in form["sections"] for q in s["questions"]}
    assert set(complete_answers()) <= codes
    assert form["boards"] == [{"slug": "board", "name": "Ethics Board"}] and form["declaration"].startswith(
        "I confirm"
    )


def test_the_whole_road(world: World) -> None:
    ada, ben, chair, member = (api(u) for u in (world.ada, world.ben, world.chair, world.member))
    project = post(ada, "/projects", {"title": "Cost sharing", "organisation": "university"}, 201)
    at = f"/projects/{project['id']}"
    saved = ada.patch(f"{V1}{at}/answers", {"answers": complete_answers()}, format="json").json()
    assert saved["missing"] == [] and "aims" in saved["changed"]
    assert get(ada, f"{at}/answers")["answers"]["public_benefit"] == ["services"]
    post(ada, f"{at}/members", {"email": "ben@example.org"}, 201)
    assert [m["name"] for m in get(ada, f"{at}/members")] == ["Ada", "Ben"]
    post(ben, f"{at}/invitation", {"decision": "accept"})
    version = post(ada, f"{at}/submit", {"board": "board", "declaration": True}, 201)
    assert version["number"] == 1 and version["answers"]["people"][1].startswith("Ben")

    review = get(chair, "/reviews")["results"][0]
    assert (review["id"], review["age_days"]) == (version["review"], 0)
    on = f"/reviews/{review['id']}"
    post(chair, f"{on}/accept")
    post(member, f"{on}/opinions", {"opinion": "object", "comment": "Too broad."}, 201)
    assert get(chair, f"{on}/opinions") == {"own": None, "others": [], "hidden": 1}
    assert get(chair, on)["opinions"]["others"] == []
    decision = {"outcome": "favourable", "reason": "Useful.", "valid_until": complete_answers()["ends_on"]}
    assert post(chair, f"{on}/decide", decision, 403)["code"] == "own_opinion_missing"
    post(chair, f"{on}/opinions", {"opinion": "support", "comment": "Fine."}, 201)
    assert get(chair, on)["opinions"]["others"][0]["comment"] == "Too broad."
    assert post(chair, f"{on}/decide", decision)["state"] == "favourable"
    assert post(chair, f"{on}/decide", decision, 409)["code"] == "wrong_state"
    assert get(ada, f"{on}/letter")["reason"] == "Useful."
    assert get(ada, at)["state"] == "approved"
    assert [e["state"] for e in get(ada, f"{at}/history") if e["state"]] == [
        "draft",
        "submitted",
        "in_ethics_review",
        "approved",
    ]
    assert [v["number"] for v in get(ada, f"{at}/versions")] == [1]
    assert get(ada, f"{at}/versions/1")["sha256"] == version["sha256"]
    post(chair, f"{at}/suspend", {"reason": "A complaint."})
    post(chair, f"{at}/reinstate", {"reason": "Unfounded."})
    post(ben, f"{at}/leave", status=204)
    assert post(ada, f"{at}/close", {"reason": "Done."})["state"] == "closed"


def test_who_is_only_invited_gets_the_same_shape_with_nothing_of_the_application(world: World) -> None:
    review = world.with_quorum()
    project = world.decide(
        review, outcome="favourable_with_conditions", conditions="Report yearly."
    ).version.project
    at = f"/projects/{project.pk}"
    ada, ben = api(world.ada), api(world.ben)
    for address in (world.ben.email, world.stranger.email):
        post(ada, f"{at}/members", {"email": address}, 201)
    whole, seen = get(ada, at), get(ben, at)
    assert set(seen) == set(whole)
    assert {k: v for k, v in seen.items() if v != whole[k]} == {
        "starts_on": None,
        "ends_on": None,
        "ethics_valid_until": None,
        "conditions": "",
        "people": [m for m in whole["people"] if m["name"] in ("Ada", "Ben")],
    }
    for path in ("/members", "/versions", "/versions/1", "/history", "/answers"):
        assert get(ben, f"{at}{path}", 403)["code"] == "invitation_not_accepted"
    get(ben, f"/reviews/{review.pk}/letter", 404)
    assert [p["id"] for p in get(ben, "/projects")["results"]] == [str(project.pk)]
    post(ben, f"{at}/invitation", {"decision": "accept"})
    assert get(ben, at)["conditions"] == "Report yearly."


def test_return_remove_withdraw(world: World) -> None:
    ada, chair = api(world.ada), api(world.chair)
    review = world.submitted()
    at = f"/projects/{review.version.project_id}"
    post(chair, f"/reviews/{review.pk}/return", {"reason": "Name the columns."})
    answers = {"answers": {"data_needed": "Three columns."}}
    assert ada.patch(f"{V1}{at}/answers", answers, format="json").json()["changed"] == ["data_needed"]
    post(ada, f"{at}/submit", {"board": "board", "declaration": True}, 201)
    second = EthicsReview.objects.get(state="received")
    assert [c["after"] for c in get(chair, f"/reviews/{second.pk}")["changes"]] == ["Three columns."]
    row = post(ada, f"{at}/members", {"email": "ben@example.org"}, 201)
    assert len(post(ada, f"{at}/members/{row['id']}/remove", {"reason": "A mistake."})["people"]) == 1
    assert post(ada, f"{at}/withdraw", {"reason": "No funding."})["state"] == "withdrawn"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("patch", "/answers", {"answers": {"nonsense": "x"}}, 422),
        ("patch", "/answers", {"answers": {"aims": "a\x00b"}}, 422),
        ("patch", "/answers", {"answers": ["aims"]}, 422),
        ("patch", "/answers", {}, 422),
        ("post", "/submit", {"board": "no-such-board", "declaration": True}, 422),
        ("post", "/submit", {"board": "board", "declaration": False}, 422),
        ("post", "/members", {"email": "not an address"}, 422),
        ("post", "/members", {"email": "nobody@example.org"}, 422),
        ("post", "/invitation", {"decision": "accept"}, 409),
        ("post", "/invitation", {"decision": "perhaps"}, 422),
        ("post", "/withdraw", {}, 422),
        ("post", "/withdraw", {"reason": "a\x00"}, 422),
        ("post", "/close", {"reason": "Too early."}, 409),
        ("post", "/suspend", {"reason": "Not mine."}, 403),
        ("post", "/leave", {}, 409),
        ("get", "/versions/7", None, 404),
    ],
)
def test_refusals_are_sentences(world: World, method: str, path: str, body: Any, status: int) -> None:
    project = world.draft()
    response = getattr(api(world.ada), method)(f"{V1}/projects/{project.pk}{path}", body, format="json")
    assert response.status_code == status, response.content
    assert response.json()["code"] and response.json()["detail"]


def test_strangers_and_the_anonymous_get_nothing(world: World) -> None:
    review = world.with_quorum()
    project = review.version.project_id
    for client, status in ((api(world.stranger), 404), (APIClient(), 401)):
        for path in (
            f"/projects/{project}",
            f"/projects/{project}/answers",
            f"/projects/{project}/history",
            f"/reviews/{review.pk}",
        ):
            get(client, path, status)
    assert (
        get(api(world.stranger), "/reviews")["results"]
        == []
        == get(api(world.stranger), "/projects")["results"]
    )
    # The board reads what was submitted, never the draft that the applicants write on.
    get(api(world.chair), f"/projects/{project}/answers", 403)


def test_lists_ask_the_same_number_of_queries_at_any_length(world: World) -> None:
    def count(user: User, path: str) -> int:
        client = api(User.objects.get(pk=user.pk))
        with CaptureQueriesContext(connection) as queries:
            get(client, path)
        return len(queries)

    world.submitted()
    few = (count(world.ada, "/projects"), count(world.chair, "/reviews"))
    for _ in range(6):
        world.under_review()
    assert (count(world.ada, "/projects"), count(world.chair, "/reviews")) == few
