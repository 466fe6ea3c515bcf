"""Pages and API of access requests, agreements and stage-1 releases: every state renders, lists stay cheap."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import uuid
from typing import Any

import pytest

from apps.accounts.models import User
from apps.accounts.roles import Role
from apps.core.clock import now
from apps.datasets import actions
from apps.datasets.models import AccessRequest, Agreement, Download, Signature, Stage1Release
from apps.datasets.states import ACCESS, AGREEMENT, STAGE1_RELEASE
from apps.projects.models import Project
from tests import factories
from tests.factories import PASSWORD, World, again, browser, page, same_cost

_world, w = factories.fixtures(World.with_access)
BOTH = {"user_organisation": "ours", "custodian": "theirs"}


@pytest.fixture(autouse=True)
def object_store() -> None:
    """The world's own store stays in use."""


def post(user: User, path: str, **data: Any) -> Any:
    return browser(user).post(path, data)


def call(user: User, path: str, **body: Any) -> Any:
    return browser(user).post(f"/api/v1{path}", json.dumps(body), content_type="application/json")


def auditor(w: World) -> User:
    return factories.person("Audrey", w.university, Role.AUDITOR, ready=False)


@pytest.mark.parametrize("state", ACCESS.states)
def test_a_request_in_every_state(w: World, state: str) -> None:
    request = w.project.access_requests.get()
    AccessRequest.objects.filter(pk=request.pk).update(state=state)
    for user in (w.lead, w.member, w.custodian, w.ours, w.theirs, auditor(w)):
        text = page(user, f"/access/{request.pk}")
        assert ACCESS.labels[state] in text and w.dataset.title in text
        assert ("Download the stand-in data" in text) is (state == "active" and user in (w.lead, w.member))
    text = page(w.custodian, f"/access/{request.pk}")
    assert ("Decide on this request" in text) is (state == "submitted")
    for verb, states in {
        "suspend": {"active"},
        "resume": {"suspended"},
        "revoke": {"approved", "agreement_pending", "active", "suspended"},
    }.items():
        assert (f"/access/{request.pk}/{verb}" in text) is (state in states), verb
    assert (f"/access/{request.pk}/withdraw" in page(w.lead, f"/access/{request.pk}")) is (
        state in {"submitted", "agreement_pending"}
    )
    assert "Safe project" in text and "Safe project" not in page(w.ours, f"/access/{request.pk}")


@pytest.mark.parametrize("state", AGREEMENT.states)
def test_an_agreement_in_every_state(w: World, state: str) -> None:
    agreement = Agreement.objects.get()
    Agreement.objects.update(state=state)
    Signature.objects.filter(side="custodian").delete()
    path = f"/agreements/{agreement.pk}"
    for user in (w.lead, w.custodian, w.ours, w.theirs, auditor(w)):
        text = page(user, path)
        assert (
            AGREEMENT.labels[state] in text and agreement.sha256 in text and "DATA ACCESS AGREEMENT" in text
        )
        assert w.ours.name in text
        assert ("Read and sign" in text) is (user == w.theirs and state in ("issued", "part_signed"))
        assert ("End the agreement" in text) is (user == w.custodian and state == "in_force")
    assert AGREEMENT.labels[state] in page(w.member, "/agreements")
    page(w.theirs, f"{path}/sign", 200 if state in ("issued", "part_signed") else 403)
    page(w.ours, f"{path}/sign", 403)


def test_the_text_is_what_the_hash_covers(w: World) -> None:
    agreement = Agreement.objects.get()
    response = browser(w.ours).get(f"/agreements/{agreement.pk}/text")
    assert hashlib.sha256(response.content).hexdigest() == agreement.sha256
    assert response["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize("state", STAGE1_RELEASE.states)
def test_a_release_in_every_state(w: World, state: str) -> None:
    release = Stage1Release.objects.get()
    bare = (
        {"sha256": "", "object_name": "", "size": None, "rows": None, "report": None}
        if state in ("ordered", "making", "failed")
        else {}
    )
    Stage1Release.objects.update(state=state, **bare)
    text = page(w.custodian, f"/stand-in/{release.pk}")
    assert STAGE1_RELEASE.labels[state] in text
    assert ("Quality report" in text) is (not bare)
    assert (f"/stand-in/{release.pk}/decide" in text) is (state == "to_review")
    assert (f"/stand-in/{release.pk}/withdraw" in text) is (state == "released")
    page(w.member, f"/stand-in/{release.pk}", 404)
    assert browser(w.member).get(f"/stand-in/{release.pk}/data").status_code == (
        200 if state == "released" else 404
    )
    assert browser(w.custodian).get(f"/stand-in/{release.pk}/data").status_code == (404 if bare else 200)


def test_a_report_without_pairs(w: World) -> None:
    report = {**factories.RELEASE_REPORT, "pairs": None, "pairs_if_independent": None, "verbatim_rows": 0}
    Stage1Release.objects.update(report=report)
    assert "Fewer than two numeric columns" in page(
        w.custodian, f"/stand-in/{Stage1Release.objects.get().pk}"
    )


REPORT = factories.RELEASE_REPORT


@pytest.mark.parametrize(
    ("report", "seen", "missing"),
    [
        ({}, ["Not available"], True),
        ([], ["Not available"], True),
        ("late", ["Not available"], True),
        ({"rows": 2}, ["Rows", "Not available"], True),
        ({**REPORT, "rows": "many"}, ["Not available"], True),
        ({**REPORT, "shapes": 1e300, "pairs": -1}, ["Not available"], True),
        ({**REPORT, "pairs_if_independent": None}, ["would score not available"], False),
        ({**REPORT, "verbatim_rows": True}, ["Not available"], True),
        ({**REPORT, "columns": {}}, ["0.90 (1 is alike"], True),
        ({**REPORT, "columns": [3, {}, {"name": "a"}, {"name": "b", "similarity": 0.5}]}, ["for: a.", "0.50"], True),
        ({**REPORT, "constant": {"a": 1}, "seconds": None}, ["Not available"], True),
        (REPORT, ["0.90 (1 is alike", "equal a real row"], False),
    ],
)  # fmt: skip
def test_a_report_of_any_shape(w: World, report: Any, seen: list[str], missing: bool) -> None:
    """What a run wrote down is shown as far as it can be read; the rest is said not to be available."""
    Stage1Release.objects.update(report=report)
    text = page(w.custodian, f"/stand-in/{Stage1Release.objects.get().pk}")
    assert all(part in text for part in ["Quality report", *seen])
    assert ("report is not complete" in text) is missing


def test_the_download_is_recorded(w: World) -> None:
    release = Stage1Release.objects.get()
    response = browser(w.member).get(f"/stand-in/{release.pk}/data")
    assert b"".join(response.streaming_content) == factories.STAND_IN
    assert response["Content-Type"] == "application/octet-stream" and response["Content-Length"] == str(
        release.size
    )
    download = Download.objects.get()
    assert (download.user, download.project, download.sha256) == (w.member, w.project, release.sha256)
    browser(w.custodian).get(f"/stand-in/{release.pk}/data")
    assert Download.objects.get(user=w.custodian).project is None
    browser(w.ours).get(f"/stand-in/{release.pk}/data")
    assert Download.objects.count() == 2, "a refused download is none"


# The road by pages


def test_ask_decide_and_sign_by_pages(w: World) -> None:
    dataset = factories.published_dataset(w.custodian, title="Incomes")
    path, until = f"/datasets/{dataset.slug}/request-access", now().date() + dt.timedelta(days=100)
    assert w.project.ref in page(w.lead, path)
    assert "You lead no approved project" in page(w.member, path)
    date = {"ends_on_day": str(until.day), "ends_on_month": str(until.month), "ends_on_year": str(until.year)}
    past = {**date, "ends_on_year": "2020"}
    assert (
        "must be in the future"
        in post(w.lead, path, project=str(w.project.pk), purpose="Visits.", **past).content.decode()
    )
    assert post(w.member, path, project=str(w.project.pk), purpose="Visits.", **date).status_code == 200
    made = post(w.lead, path, project=str(w.project.pk), purpose="Visits.", **date)
    assert made.status_code == 302, made.content.decode()[-3000:]
    request = AccessRequest.objects.get(dataset=dataset)
    assert "You lead no approved project" in page(w.lead, path), "one request is enough"
    decide = f"/access/{request.pk}/decide"
    assert post(w.custodian, decide, decision="approve", reason="").status_code == 200
    assert (
        post(w.custodian, decide, decision="approve", reason="Fits.", conditions="Cite us.").status_code
        == 302
    )
    assert post(w.custodian, decide, decision="decline", reason="No.").status_code == 409
    agreement = request.agreements.get()
    for side, who in BOTH.items():
        signer, sign = getattr(w, who), f"/agreements/{agreement.pk}/sign"
        assert agreement.sha256 in page(signer, sign)
        wrong = post(signer, sign, side=side, confirm="on", password="wrong horse")
        assert wrong.status_code == 200 and "password is not right" in wrong.content.decode()
        assert post(signer, sign, side=side, password=PASSWORD).status_code == 200, "not confirmed"
        other = next(s for s in BOTH if s != side)
        assert post(signer, sign, side=other, confirm="on", password=PASSWORD).status_code == 200, (
            "not their side"
        )
        assert post(signer, sign, side=side, confirm="on", password=PASSWORD).status_code == 302
        assert post(signer, sign, side=side, confirm="on", password=PASSWORD).status_code == 403
    assert again(request).state == "active"
    for verb, state in (("suspend", "suspended"), ("resume", "active")):
        assert post(w.custodian, f"/access/{request.pk}/{verb}", reason="").status_code == 200
        assert post(w.custodian, f"/access/{request.pk}/{verb}", reason="Because.").status_code == 302
        assert again(request).state == state
    assert post(w.custodian, f"/access/{request.pk}/resume", reason="Because.").status_code == 409
    assert post(w.custodian, f"/access/{request.pk}/explode", reason="Because.").status_code == 404
    assert post(w.custodian, f"/agreements/{agreement.pk}/terminate", reason="A breach.").status_code == 302
    assert (again(request).state, again(agreement).state) == ("revoked", "terminated")


def test_order_and_decide_by_pages(w: World) -> None:
    dataset = factories.published_dataset(w.custodian, title="Incomes")
    version = dataset.versions.get()
    order = f"/my-datasets/versions/{version.pk}/order"
    assert "Order stand-in data" in page(w.custodian, order)
    assert post(w.custodian, order, method="magic").status_code == 200
    assert post(w.custodian, order, method="gaussian_copula", rows="5").status_code == 200
    assert post(w.custodian, order, method="gaussian_copula", rows="50").status_code == 302
    assert post(w.custodian, order, method="gaussian_copula").status_code == 409
    Stage1Release.objects.filter(version=version).update(state="failed")
    release = factories.made_release(version, w.custodian)
    decide = f"/stand-in/{release.pk}/decide"
    assert post(w.custodian, decide, decision="refuse", reason="").status_code == 200
    assert post(w.custodian, decide, decision="approve").status_code == 302
    assert post(w.custodian, decide, decision="approve").status_code == 409
    assert post(w.custodian, f"/stand-in/{release.pk}/withdraw", reason="A flaw.").status_code == 302
    assert again(release).state == "withdrawn"


def test_nothing_there(w: World) -> None:
    for path in (
        "/access/{}",
        "/access/{}/decide",
        "/access/{}/suspend",
        "/agreements/{}",
        "/agreements/{}/sign",
        "/agreements/{}/text",
        "/stand-in/{}",
        "/stand-in/{}/data",
        "/stand-in/{}/decide",
        "/my-datasets/versions/{}/order",
    ):
        page(w.custodian, path.format(uuid.uuid4()), 404)
    page(w.lead, "/datasets/no-such-set/request-access", 404)


# The road by the API


def test_the_road_by_the_api(w: World) -> None:
    dataset = factories.published_dataset(w.custodian, title="Incomes")
    ask = {
        "project": str(w.project.pk),
        "purpose": "Visits.",
        "ends_on": str(now().date() + dt.timedelta(days=100)),
    }
    assert (
        call(w.lead, f"/datasets/{dataset.slug}/access", **{**ask, "ends_on": "2020-01-01"}).status_code
        == 422
    )
    assert call(w.lead, f"/datasets/{dataset.slug}/access", **{**ask, "ends_on": "soon"}).status_code == 422
    assert (
        call(w.lead, f"/datasets/{dataset.slug}/access", **{**ask, "project": str(uuid.uuid4())}).status_code
        == 404
    )
    made = call(w.lead, f"/datasets/{dataset.slug}/access", **ask)
    assert made.status_code == 201 and made.json()["state"] == "submitted"
    assert call(w.lead, f"/datasets/{dataset.pk}/access", **ask).status_code == 409
    pk = made.json()["id"]
    assert call(w.custodian, f"/access/{pk}/decision", approve=True).status_code == 422
    assert (
        call(w.custodian, f"/access/{pk}/decision", approve=True, reason="Fits.").json()["state"]
        == "agreement_pending"
    )
    (agreement,) = browser(w.ours).get(f"/api/v1/access/{pk}").json()["agreements"]
    told = browser(w.ours).get(f"/api/v1/agreements/{agreement}").json()
    assert hashlib.sha256(told["body"].encode()).hexdigest() == told["sha256"] and told["signatures"] == []
    for side, who in BOTH.items():
        sign = {"side": side, "sha256": told["sha256"], "password": PASSWORD}
        path, signer = f"/agreements/{agreement}/signatures", getattr(w, who)
        assert call(signer, path, **{**sign, "sha256": "0" * 64}).status_code == 422
        assert call(signer, path, **{**sign, "password": "wrong horse"}).status_code == 422
        done = call(signer, path, **sign)
        assert done.status_code == 200, done.json()
        assert call(signer, path, **sign).status_code == 409
    assert done.json()["state"] == "in_force" and len(done.json()["signatures"]) == 2
    order = call(
        w.custodian, f"/versions/{dataset.versions.get().pk}/releases", method="gaussian_copula", rows=20
    )
    assert order.status_code == 201 and order.json()["state"] == "ordered"
    assert (
        call(
            w.custodian, f"/versions/{dataset.versions.get().pk}/releases", method="gaussian_copula", rows=2
        ).status_code
        == 422
    )
    Stage1Release.objects.filter(pk=order.json()["id"]).update(state="failed")
    release = factories.made_release(dataset.versions.get(), w.custodian)
    assert browser(w.member).get(f"/api/v1/datasets/{dataset.slug}/stand-in").status_code == 404
    detail = browser(w.custodian).get(f"/api/v1/releases/{release.pk}").json()
    assert detail["report"]["rows"] == 2 and len(detail["runs"]) == 1
    assert call(w.custodian, f"/releases/{release.pk}/decision", approve=False).status_code == 422
    assert call(w.custodian, f"/releases/{release.pk}/decision", approve=True).json()["state"] == "released"
    stand_in = browser(w.member).get(f"/api/v1/datasets/{dataset.slug}/stand-in").json()
    assert stand_in["sha256"] == release.sha256 and stand_in["dictionary"] and "report" not in stand_in
    data = browser(w.member).get(f"/api/v1/releases/{release.pk}/data")
    assert hashlib.sha256(b"".join(data.streaming_content)).hexdigest() == release.sha256
    assert (
        call(w.custodian, f"/releases/{release.pk}/withdraw", reason="A flaw.").json()["state"] == "withdrawn"
    )
    assert call(w.custodian, f"/access/{pk}/suspend", reason="A question.").json()["state"] == "suspended"
    assert call(w.custodian, f"/access/{pk}/explode", reason="A question.").status_code == 404
    assert (
        call(w.custodian, f"/agreements/{agreement}/terminate", reason="A breach.").json()["state"]
        == "terminated"
    )


# Lists


def more_requests(w: World, count: int) -> None:
    """Requests with an agreement and a signature each, of as many projects."""
    today = now().date()
    for _ in range(count):
        project: Project = again(w.project)
        project.pk, project.ref = uuid.uuid4(), f"X{uuid.uuid4().hex[:12]}"
        project.save(force_insert=True)
        request = AccessRequest.objects.create(
            project=project, dataset=w.dataset, purpose="P", ends_on=today, requested_by=w.lead
        )
        agreement = Agreement.objects.create(
            access_request=request, template="t", body="b", sha256="0" * 64, starts_on=today, ends_on=today
        )
        Signature.objects.create(
            agreement=agreement,
            side="custodian",
            signer=w.ours,
            document_sha256="0" * 64,
            statement="S",
            reauthenticated_at=now(),
            method="password",
        )


@pytest.mark.parametrize("path", ["/agreements", "/api/v1/agreements", "/api/v1/access", "/home"])
def test_lists_cost_the_same(w: World, path: str) -> None:
    for user in (w.custodian, w.ours):
        same_cost(user, path, lambda n: more_requests(w, n))


def test_releases_cost_the_same(w: World) -> None:
    release = Stage1Release.objects.get()

    def more(count: int) -> None:
        for _ in range(count):
            copy = again(release)
            copy.pk = uuid.uuid4()
            copy.save(force_insert=True)

    same_cost(w.custodian, f"/api/v1/versions/{release.version_id}/releases", more)
    same_cost(w.custodian, f"/my-datasets/{w.dataset.slug}", more, limit=60)


@pytest.mark.parametrize("stop", [actions.suspend_dataset, actions.withdraw_dataset])
def test_stand_in_data_of_a_closed_dataset(w: World, stop: Any) -> None:
    """Access is stopped with the dataset: nobody but its custodians loads its stand-in data."""
    stop(by=w.custodian, dataset=w.dataset, reason="A flaw.")
    assert browser(w.custodian).get(f"/stand-in/{Stage1Release.objects.get().pk}/data").status_code == 200
    assert browser(w.member).get(f"/api/v1/datasets/{w.dataset.slug}/stand-in").status_code == 404
    page(w.member, f"/stand-in/{Stage1Release.objects.get().pk}/data", 404)
