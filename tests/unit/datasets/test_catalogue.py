"""Registering, describing, publishing, stopping; who may; and the catalogue's search."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from redis.exceptions import RedisError

from apps.accounts import actions as accounts
from apps.accounts.models import RoleHolding, User
from apps.accounts.roles import Role
from apps.audit.models import Entry
from apps.core.errors import Conflict, Denied, Invalid, NotFound
from apps.core.models import Outbox, StateChange
from apps.datasets import actions, permissions, queries
from apps.datasets.models import Dataset
from apps.datasets.search import Search
from apps.datasets.states import DatasetState
from tests.factories import operator

from .conftest import DICTIONARY, World, accepted, person

ANYBODY = object()


def register(world: World, **over: Any) -> Dataset:
    values: dict[str, Any] = {
        "by": world.ada,
        "custodian": world.rand,
        "slug": "second",
        "title": "Second",
        "summary": "Two.",
        "personal_data": True,
    }
    return actions.register_dataset(**{**values, **over})


def search(**asked: Any) -> list[str]:
    return [d.slug for d in queries.catalogue(Search(**asked)).page]


def test_registering_writes_everything_at_once(world: World) -> None:
    dataset = register(world)
    assert dataset.state == "draft" and permissions.acts_for(world.ada, dataset)
    assert StateChange.objects.filter(object_id=dataset.pk).count() == 1
    assert Entry.objects.get(object_id=str(dataset.pk)).event == "dataset.draft"


@pytest.mark.parametrize(
    ("over", "field"),
    [
        ({"slug": "rand-hie"}, "slug"),
        ({"slug": "Rand"}, "slug"),
        ({"slug": "a--b"}, "slug"),
        ({"slug": "../x"}, "slug"),
        ({"slug": "register"}, "slug"),
        ({"title": " "}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"summary": "\x00"}, "summary"),
        ({"source_url": "javascript:alert(1)"}, "source_url"),
        ({"keywords": ["x" * 61]}, "keywords"),
        ({"keywords": [str(n) for n in range(21)]}, "keywords"),
        ({"keywords": "abc"}, "keywords"),
        ({"coverage_from": dt.date(2020, 1, 2), "coverage_to": dt.date(2020, 1, 1)}, "coverage_to"),
        ({"personal_data": None}, "personal_data"),
        ({"program_approval": "never"}, "program_approval"),
        (
            {
                "dictionary": {"fields": []},
            },
            "dictionary",
        ),
    ],
)
def test_bad_registration_names_the_field(world: World, over: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as error:
        register(world, **over)
    assert set(error.value.fields) == {field}
    assert Dataset.objects.count() == 1


def test_a_form_sent_twice_registers_once(world: World) -> None:
    token = uuid.uuid4()
    assert register(world, submission=token) == register(world, submission=token)
    with pytest.raises(Invalid):  # the same token of somebody else is another token
        register(world, by=world.bea, submission=token)


def test_only_custodians_of_a_custodian_register(world: World) -> None:
    for by in (world.eve, world.cyd):
        with pytest.raises(Denied):
            register(world, by=by)


@pytest.mark.parametrize("who", ["bea", "cyd", "eve"])
def test_nobody_else_acts(world: World, who: str) -> None:
    by = getattr(world, who)
    for call in (
        lambda: actions.update_dataset(by=by, dataset=world.dataset, title="Mine"),
        lambda: actions.publish_dataset(by=by, dataset=world.dataset),
        lambda: actions.withdraw_dataset(by=by, dataset=world.dataset, reason="x"),
        lambda: actions.suspend_dataset(by=by, dataset=world.dataset, reason="x"),
        lambda: actions.resume_dataset(by=by, dataset=world.dataset, reason="x"),
        lambda: actions.add_manager(by=by, dataset=world.dataset, user=by),
        lambda: actions.remove_manager(by=by, dataset=world.dataset, user=world.ada),
        lambda: actions.start_upload(by=by, dataset=world.dataset, media_type="text/csv", announced_size=100),
    ):
        with pytest.raises(Denied):
            call()
    assert Entry.objects.filter(event__startswith="dataset.").count() == 1


def test_losing_the_role_ends_the_grant(world: World) -> None:
    RoleHolding.objects.filter(user=world.ada).update(revoked_at=dt.datetime.now(dt.UTC))
    del world.ada._live_holdings  # type: ignore[attr-defined]
    assert not permissions.acts_for(world.ada, world.dataset)


def test_life_of_a_dataset(world: World) -> None:
    d = world.dataset
    empty = register(world)
    with pytest.raises(Invalid, match="no data dictionary"):
        actions.publish_dataset(by=world.ada, dataset=empty)
    actions.publish_dataset(by=world.ada, dataset=d)
    with pytest.raises(Conflict):
        actions.publish_dataset(by=world.ada, dataset=d)
    with pytest.raises(Invalid):
        actions.suspend_dataset(by=world.ada, dataset=d, reason=" ")
    actions.suspend_dataset(by=world.ada, dataset=d, reason="A question came up.")
    assert Outbox.objects.filter(topic="recheck_runs", key=str(d.pk)).exists()
    with pytest.raises(Conflict):
        actions.publish_dataset(by=world.ada, dataset=d)
    actions.resume_dataset(by=world.ada, dataset=d, reason="Answered.")
    actions.withdraw_dataset(by=world.ada, dataset=d, reason="Consent ended.")
    with pytest.raises(Conflict):
        actions.update_dataset(by=world.ada, dataset=d, title="New")
    with pytest.raises(Conflict):
        actions.start_upload(by=world.ada, dataset=d, media_type="text/csv", announced_size=100)


def test_update_records_what_changed_and_rechecks(world: World) -> None:
    actions.update_dataset(by=world.ada, dataset=world.dataset, title="New title")
    assert not Outbox.objects.filter(topic="recheck_runs").exists()
    assert Entry.objects.get(event="dataset.changed").data == {"changed": ["title"]}
    actions.update_dataset(by=world.ada, dataset=world.dataset, title="New title")
    assert Entry.objects.filter(event="dataset.changed").count() == 1
    actions.update_dataset(by=world.ada, dataset=world.dataset, personal_data=True)
    assert Outbox.objects.filter(topic="recheck_runs").exists()
    with pytest.raises(Invalid):
        actions.update_dataset(by=world.ada, dataset=world.dataset, slug="other")
    with pytest.raises(Invalid):
        actions.update_dataset(by=world.ada, dataset=world.dataset, dictionary={})


def test_personal_data_cannot_be_talked_away_after_an_upload(world: World) -> None:
    actions.update_dataset(by=world.ada, dataset=world.dataset, personal_data=True)
    actions.start_upload(by=world.ada, dataset=world.dataset, media_type="text/csv", announced_size=100)
    with pytest.raises(Invalid) as error:
        actions.update_dataset(by=world.ada, dataset=world.dataset, personal_data=False)
    assert "personal_data" in error.value.fields


def test_managers(world: World) -> None:
    with pytest.raises(Conflict, match="last person"):
        actions.remove_manager(by=world.ada, dataset=world.dataset, user=world.ada)
    with pytest.raises(Invalid):
        actions.add_manager(by=world.ada, dataset=world.dataset, user=world.cyd)
    actions.add_manager(by=world.ada, dataset=world.dataset, user=world.bea)
    actions.add_manager(by=world.ada, dataset=world.dataset, user=world.bea)
    assert permissions.acts_for(world.bea, world.dataset)
    actions.remove_manager(by=world.bea, dataset=world.dataset, user=world.ada)
    assert not permissions.acts_for(world.ada, world.dataset)
    assert [e.event for e in Entry.objects.filter(event__startswith="dataset.manager").order_by("at")] == [
        "dataset.manager_added",
        "dataset.manager_removed",
    ]


def test_the_last_managers_role_is_not_taken_back(world: World) -> None:
    """Or nobody could suspend the dataset any more. The account can be closed all the same: an incident does not wait."""
    by, holding = operator(), world.ada.holdings.get(role=Role.CUSTODIAN)
    with pytest.raises(Conflict, match="last person") as refusal:
        accounts.revoke_role(by=by, holding=holding, reason="Left.")
    assert refusal.value.code == "last_manager" and "add another custodian" in refusal.value.remedy
    holding.refresh_from_db()
    assert holding.revoked_at is None
    actions.add_manager(by=world.ada, dataset=world.dataset, user=world.bea)
    accounts.deactivate_person(by=by, user=world.bea, reason="An incident.")
    with pytest.raises(Conflict, match="last person"):
        accounts.revoke_role(by=by, holding=holding, reason="Left.")
    accounts.reactivate_person(by=by, user=world.bea, reason="All is well.")
    accounts.revoke_role(by=by, holding=holding, reason="Left.")
    assert permissions.acts_for(User.objects.get(pk=world.bea.pk), world.dataset)
    with pytest.raises(Conflict, match="last person"):
        accounts.revoke_role(by=by, holding=world.bea.holdings.get(role=Role.CUSTODIAN), reason="Left.")


def test_a_withdrawn_dataset_holds_nobody(world: World) -> None:
    Dataset.objects.filter(pk=world.dataset.pk).update(state=DatasetState.WITHDRAWN)
    holding = world.ada.holdings.get(role=Role.CUSTODIAN)
    accounts.revoke_role(by=operator(), holding=holding, reason="Left.")


def test_who_sees_what(world: World) -> None:
    for user, seen in (
        (world.ada, True),
        (world.bea, True),
        (world.cyd, False),
        (world.eve, False),
        (ANYBODY, False),
    ):
        assert permissions.can_view(user, world.dataset) is seen
    with pytest.raises(NotFound):
        queries.dataset_for(world.eve, "rand-hie")
    actions.publish_dataset(by=world.ada, dataset=world.dataset)
    assert permissions.can_view(ANYBODY, world.dataset) and queries.dataset_for(world.eve, "rand-hie")
    actions.withdraw_dataset(by=world.ada, dataset=world.dataset, reason="x")
    assert not permissions.can_view(world.eve, world.dataset)


def test_search_and_facets(world: World) -> None:
    assert search() == []  # a draft is nobody's business
    actions.publish_dataset(by=world.ada, dataset=world.dataset)
    second = register(
        world,
        title="Diabetes study",
        summary="Progress of a disease; insurance is not in it.",
        slug="diabetes-442",
        keywords=["diabetes", "visits"],
        dictionary=DICTIONARY,
        coverage_from=dt.date(1999, 5, 1),
        coverage_to=dt.date(2004, 1, 1),
    )
    actions.publish_dataset(by=world.ada, dataset=second)
    assert search() == ["diabetes-442", "rand-hie"]  # by title
    assert search(text="insurance") == ["rand-hie", "diabetes-442"]  # in a title before in a summary
    assert search(text="insured") == ["rand-hie", "diabetes-442"]
    assert search(text='"health insurance"') == ["rand-hie"]
    assert search(text="insurance -diabetes") == ["rand-hie"]
    assert search(text="rand-hie") == ["rand-hie"]
    for odd in ("' OR 1=1 --", "%", '"', "(((", "a & b | !", "\\", "é" * 200):
        search(text=odd)
    assert search(chosen={"keyword": ["visits"]}) == ["diabetes-442", "rand-hie"]
    assert search(chosen={"keyword": ["diabetes"]}) == ["diabetes-442"]
    assert search(chosen={"personal": ["no"]}) == ["rand-hie"]
    assert search(chosen={"personal": ["no"], "keyword": ["diabetes"]}) == []
    assert search(chosen={"place": ["United States"]}) == ["rand-hie"]
    assert search(chosen={"standin": ["yes"]}) == []
    assert search(chosen={"custodian": ["rand"]}) == ["diabetes-442", "rand-hie"]
    assert (
        search(year=2000) == ["diabetes-442"]
        and search(year=1998) == []
        and search(year=2004) == ["diabetes-442"]
    )
    assert search(sort="newest") == ["diabetes-442", "rand-hie"]
    found = queries.catalogue(Search(chosen={"keyword": ["diabetes"]})).found
    # A facet leaves its own choice aside, and is narrowed by the others.
    assert {v: n for v, _, n in found.facets["keyword"]} == {
        "visits": 2,
        "diabetes": 1,
        "health insurance": 1,
    }
    assert found.facets["custodian"] == [("rand", "RAND archive", 1)] and found.facets["personal"] == [
        ("yes", "yes", 1)
    ]


def test_search_is_three_queries_at_any_size_and_pages_clamp(world: World) -> None:
    actions.publish_dataset(by=world.ada, dataset=world.dataset)
    counts = []
    for batch in range(2):
        with CaptureQueriesContext(connection) as caught:
            listed = queries.catalogue(Search(text="visits"))
            [(d.custodian.name, d.rows, d.has_stand_in) for d in listed.page]
        counts.append(len(caught))
        Dataset.objects.bulk_create(
            [
                Dataset(
                    slug=f"s{batch}-{n}",
                    title=f"Visits {n}",
                    summary="s",
                    custodian=world.rand,
                    state="published",
                    personal_data=False,
                    created_by=world.ada,
                    keywords=["k"],
                )
                for n in range(30)
            ]
        )
    assert counts == [3, 3]
    last = queries.catalogue(Search(), page="9999999").page
    assert (last.number, len(last), last.paginator.num_pages) == (4, 1, 4)
    assert (
        queries.catalogue(Search(), page="minus").page.number
        == 1
        == queries.catalogue(Search(), page="9" * 5000).page.number
    )


def test_public_pages_need_no_login_and_escape(world: World, client: Client) -> None:
    actions.update_dataset(by=world.ada, dataset=world.dataset, title="<script>alert(1)</script>")
    actions.publish_dataset(by=world.ada, dataset=world.dataset)
    accepted(world)
    for address in (
        reverse("datasets:catalogue") + "?q=visits&keyword=nothing&year=abc&page=zz",
        reverse("datasets:detail", args=["rand-hie"]),
    ):
        response = client.get(address)
        assert response.status_code == 200
        assert (
            "<script>alert(1)" not in response.content.decode() and "<b>poor" not in response.content.decode()
        )
    text = client.get(reverse("datasets:detail", args=["rand-hie"])).content.decode()
    assert "fewer than 10" in text and "About 500 rows" in text and "&lt;b&gt;poor" in text
    assert (
        world.dataset.versions.get().ciphertext_sha256 in text
        and world.dataset.versions.get().plaintext_sha256 not in text
    )
    assert client.get(reverse("datasets:mine")).status_code == 302
    assert client.get(reverse("datasets:manage", args=["rand-hie"])).status_code == 302


def test_detail_page_has_a_constant_number_of_queries(world: World, client: Client) -> None:
    actions.publish_dataset(by=world.ada, dataset=world.dataset)
    counts = []
    for _ in range(2):
        accepted(world)
        with CaptureQueriesContext(connection) as caught:
            client.get(reverse("datasets:detail", args=["rand-hie"]))
        counts.append(len(caught))
    assert counts[0] == counts[1] <= 6


def test_custodian_pages(world: World, client: Client) -> None:
    client.force_login(world.ada)
    assert client.get(reverse("datasets:mine")).status_code == 200
    page = client.get(reverse("datasets:register"))
    token = page.content.decode().split('name="submission" value="')[1][:36]
    form = {
        "custodian": str(world.rand.pk),
        "title": "Third",
        "slug": "third",
        "summary": "Three.",
        "keywords": "a, b",
        "personal_data": "no",
        "program_approval": "reviewer",
        "coverage_from_day": "1",
        "coverage_from_month": "2",
        "coverage_from_year": "1990",
        "submission": token,
    }
    bad = client.post(reverse("datasets:register"), {**form, "slug": "rand-hie"})
    assert bad.status_code == 200 and b"already has this short name" in bad.content
    for _ in range(2):
        assert client.post(reverse("datasets:register"), form).headers["Location"] == reverse(
            "datasets:manage", args=["third"]
        )
    third = Dataset.objects.get(slug="third")
    assert third.keywords == ["a", "b"] and third.coverage_from == dt.date(1990, 2, 1)
    address = reverse("datasets:dictionary", args=["third"])
    refused = client.post(address, {"text": '{"fields": [{"name": "<i>a", "type": "int"}]}'})
    assert "Did you mean “integer”?" in refused.content.decode() and b"<i>a" not in refused.content
    assert client.post(address, {"text": "name,type\na,integer\n"}).status_code == 302
    assert client.post(address, {"text": ""}).status_code == 200
    assert client.get(address).status_code == 200
    for verb in ("publish", "suspend", "resume", "withdraw"):
        there = reverse("datasets:change_state", args=["third", verb])
        assert client.get(there).status_code == 200
        assert client.post(there, {"reason": "Because."}).status_code == 302
        assert client.get(reverse("datasets:manage", args=["third"])).status_code == 200
    assert Dataset.objects.get(slug="third").state == "withdrawn"
    edit = reverse("datasets:edit", args=["rand-hie"])
    assert client.get(edit).status_code == 200
    assert client.post(edit, {**form, "title": "Changed"}).status_code == 302
    assert (
        client.post(
            reverse("datasets:add_manager", args=["rand-hie"]), {"email": "nobody@example.org"}
        ).status_code
        == 200
    )
    assert (
        client.post(
            reverse("datasets:add_manager", args=["rand-hie"]), {"email": "BEA@example.org"}
        ).status_code
        == 302
    )
    remove = reverse("datasets:remove_manager", args=["rand-hie", world.bea.pk])
    assert client.get(remove).status_code == 200 and client.post(remove).status_code == 302
    assert not permissions.granted(world.bea, world.dataset)


def test_my_datasets_has_a_constant_number_of_queries(world: World, client: Client) -> None:
    client.force_login(world.ada)
    client.get(reverse("datasets:mine"))  # the first page of a session also writes the session
    counts = []
    for n in range(2):
        with CaptureQueriesContext(connection) as caught:
            client.get(reverse("datasets:mine"))
        counts.append(len(caught))
        register(world, slug=f"more-{n}")
        person(f"x{n}", world.rand)
    assert counts[0] == counts[1]


def test_waiting_names_what_stands_still(world: World) -> None:
    assert [(w.heading, w.note) for w in queries.custody_waiting(world.ada)] == [
        ("Datasets to finish", "Publish it when it is ready")
    ]
    actions.publish_dataset(by=world.ada, dataset=world.dataset)
    actions.start_upload(by=world.ada, dataset=world.dataset, media_type="text/csv", announced_size=100)
    assert [w.heading for w in queries.custody_waiting(world.ada)] == ["Uploads"]
    assert queries.custody_waiting(world.bea) == [] == queries.custody_waiting(world.eve)


def test_counts_of_the_whole_catalogue_are_remembered(world: World, settings: Any) -> None:
    """For some seconds, by everybody; what is searched or narrowed is counted each time, and the list itself is never old."""
    settings.CATALOGUE_COUNTS_SECONDS = 30
    cache.delete("datasets.catalogue.counts")
    try:
        Dataset.objects.filter(pk=world.dataset.pk).update(state=DatasetState.PUBLISHED)
        assert queries.catalogue(Search()).found.total == 1
        other = register(world)
        Dataset.objects.filter(pk=other.pk).update(state=DatasetState.PUBLISHED)
        again = queries.catalogue(Search())
        assert again.found.total == 1 and len(list(again.page)) == 2
        assert queries.catalogue(Search(text="Second")).found.total == 1
        assert queries.catalogue(Search(chosen={"personal": ["yes", "no"]})).found.total == 2
        settings.CATALOGUE_COUNTS_SECONDS = 0
        assert queries.catalogue(Search()).found.total == 2
    finally:
        cache.delete("datasets.catalogue.counts")


def test_without_the_cache_everybody_counts(
    world: World, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CATALOGUE_COUNTS_SECONDS = 30

    def away(*args: object) -> None:
        raise RedisError("away")

    monkeypatch.setattr(cache, "get", away)
    monkeypatch.setattr(cache, "set", away)
    Dataset.objects.filter(pk=world.dataset.pk).update(state=DatasetState.PUBLISHED)
    assert queries.catalogue(Search()).found.total == 1
