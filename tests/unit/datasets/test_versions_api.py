"""The API of catalogue and uploads, with tokens and with a page's session."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.accounts.authentication import digest_of
from apps.accounts.models import ApiToken, User
from apps.core.clock import now
from apps.datasets import actions, permissions
from apps.datasets.api.versions import OFFSET_TYPE, pieces
from apps.datasets.models import Dataset, DatasetVersion
from strongroom import seal as sealing

from .conftest import CSV, DICTIONARY, PORTAL, PROFILE, REPORT, World, accepted, sealed, uploaded

SIZE = sealing.ciphertext_size(len(CSV))


def token(user: User, *scopes: str) -> dict[str, str]:
    secret = f"srt_{uuid.uuid4().hex}"
    ApiToken.objects.create(
        user=user,
        name="t",
        digest=digest_of(secret),
        hint="x",
        scopes=list(scopes),
        expires_at=now() + dt.timedelta(days=1),
    )
    return {"Authorization": f"Bearer {secret}"}


def url(name: str, *args: object) -> str:
    return reverse(f"api:{name}", args=args)


def call(
    client: Client,
    method: str,
    address: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    kind: str = "application/json",
) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
    return client.generic(method, address, data, content_type=kind, headers=headers)


def patch(client: Client, version: str, offset: int, data: bytes, headers: dict[str, str]) -> Any:
    return call(
        client,
        "PATCH",
        url("version-content", version),
        data,
        {**headers, "Upload-Offset": str(offset)},
        OFFSET_TYPE,
    )


def test_the_whole_road_by_token(world: World, client: Client) -> None:
    me = token(world.ada, "custody", "read")
    made = call(
        client,
        "POST",
        url("datasets"),
        {"slug": "fresh", "title": "New", "summary": "A new one.", "personal_data": False},
        me,
    )
    assert made.status_code == 201 and made.json()["custodian"]["slug"] == "rand"
    told = call(client, "PUT", url("dataset-dictionary", "fresh"), DICTIONARY, me)
    assert told.status_code == 200 and "income" in told.json()["gaps"][0]
    assert (
        call(
            client, "PUT", url("dataset-dictionary", "fresh"), b"name,type\na,integer\n", me, "text/csv"
        ).status_code
        == 200
    )
    bad = call(
        client, "PUT", url("dataset-dictionary", "fresh"), b'{"fields": [{"name": "a", "type": "int"}]}', me
    )
    assert bad.status_code == 422 and "Did you mean" in bad.json()["fields"]["dictionary"][0]
    assert call(client, "PUT", url("dataset-dictionary", "fresh"), DICTIONARY, me).status_code == 200
    assert call(client, "POST", url("dataset-publish", "fresh"), headers=me).json()["state"] == "published"
    assert call(client, "PATCH", url("dataset", "fresh"), {"title": "Newer"}, me).json()["title"] == "Newer"
    assert call(client, "PATCH", url("dataset", "fresh"), {"slug": "x"}, me).status_code == 422

    version = call(
        client,
        "POST",
        url("dataset-versions", made.json()["id"]),
        {"media_type": "text/csv", "announced_size": SIZE},
        me,
    ).json()
    data, header = sealed(DatasetVersion.objects.get(pk=version["id"]))
    assert header["ciphertext"]["size"] == SIZE
    assert patch(client, version["id"], 0, data[:700], me).headers["Upload-Offset"] == "700"
    stands = client.head(url("version-content", version["id"]), headers=me)
    assert (stands.status_code, stands.headers["Upload-Offset"], stands.headers["Upload-Length"]) == (
        204,
        "700",
        str(SIZE),
    )
    wrong = patch(client, version["id"], 0, data, me)
    assert (wrong.status_code, wrong.json()["offset"], wrong.headers["Upload-Offset"]) == (409, 700, "700")
    assert patch(client, version["id"], 700, data[700:], me).status_code == 204
    assert patch(client, version["id"], SIZE, b"x", me).status_code == 422
    assert (
        call(client, "POST", url("version-finish", version["id"]), {**header, "version": 9}, me).status_code
        == 422
    )
    done = call(client, "POST", url("version-finish", version["id"]), header, me)
    assert done.status_code == 200 and done.json()["state"] == "uploaded"
    assert call(client, "POST", url("version-finish", version["id"]), header, me).status_code == 200
    assert patch(client, version["id"], SIZE, b"x", me).status_code == 409
    assert call(client, "DELETE", url("version-content", version["id"]), headers=me).status_code == 409
    row = DatasetVersion.objects.get(pk=version["id"])
    actions.verify_upload(by=PORTAL, version=row)
    actions.record_profile(by=PORTAL, version=row, ok=True, rows=496, profile=PROFILE, report=REPORT)
    public = client.get(url("dataset", "fresh")).json()
    assert (
        public["profile"]["rows"] == 500
        and public["versions"][0]["ciphertext_sha256"] == row.ciphertext_sha256
    )
    assert "report" not in json.dumps(public) and "plaintext" not in json.dumps(public)
    found = client.get(url("datasets"), {"q": "newer", "personal": "no"}).json()
    assert [r["slug"] for r in found["results"]] == ["fresh"] and found["results"][0]["rows"] == 500
    assert found["facets"]["custodian"] == [{"value": "rand", "label": "RAND archive", "count": 1}]
    for verb in ("suspend", "resume", "withdraw"):
        assert call(client, "POST", url(f"dataset-{verb}", "fresh"), {}, me).status_code == 422
        assert (
            call(client, "POST", url(f"dataset-{verb}", "fresh"), {"reason": "Because."}, me).status_code
            == 200
        )
    assert Dataset.objects.get(slug="fresh").state == "withdrawn"


def test_size_in_the_first_bytes(world: World, client: Client) -> None:
    me = token(world.ada, "custody")
    version = call(client, "POST", url("dataset-versions", "rand-hie"), {"media_type": "text/csv"}, me).json()
    assert version["announced_size"] is None
    assert (
        client.head(url("version-content", version["id"]), headers=me).headers["Upload-Defer-Length"] == "1"
    )
    sent = call(
        client,
        "PATCH",
        url("version-content", version["id"]),
        b"x" * 10,
        {**me, "Upload-Offset": "0", "Upload-Length": "99"},
        OFFSET_TYPE,
    )
    assert sent.status_code == 204
    assert client.head(url("version-content", version["id"]), headers=me).headers["Upload-Length"] == "99"
    assert call(client, "DELETE", url("version-content", version["id"]), headers=me).status_code == 204
    stands = client.head(url("version-content", version["id"]), headers=me).headers
    assert (stands["Upload-Offset"], stands["Upload-Defer-Length"]) == ("0", "1")
    again = call(
        client,
        "PATCH",
        url("version-content", version["id"]),
        b"y" * 5,
        {**me, "Upload-Offset": "0", "Upload-Length": "70"},
        OFFSET_TYPE,
    )
    assert again.headers["Upload-Offset"] == "5"
    given_up = call(client, "POST", url("version-give-up", version["id"]), {"reason": "Wrong file."}, me)
    assert given_up.json()["state"] == "refused" and given_up.json()["reason"] == "Wrong file."


@pytest.mark.parametrize(
    ("headers", "kind", "status"),
    [
        ({}, OFFSET_TYPE, 422),
        ({"Upload-Offset": "-1"}, OFFSET_TYPE, 422),
        ({"Upload-Offset": "½"}, OFFSET_TYPE, 422),
        ({"Upload-Offset": "0"}, "text/plain", 415),
        ({"Upload-Offset": "0", "Upload-Length": "x"}, OFFSET_TYPE, 422),
        ({"Upload-Offset": "9" * 17}, OFFSET_TYPE, 422),
    ],
)
def test_odd_headers(world: World, client: Client, headers: dict[str, str], kind: str, status: int) -> None:
    version = actions.start_upload(
        by=world.ada, dataset=world.dataset, media_type="text/csv", announced_size=SIZE
    )
    answer = call(
        client,
        "PATCH",
        url("version-content", version.pk),
        b"x",
        {**token(world.ada, "custody"), **headers},
        kind,
    )
    assert answer.status_code == status and answer.json()["detail"] and answer.json()["remedy"]


def test_a_body_that_breaks_off_keeps_what_came(world: World) -> None:
    from django.http.request import UnreadablePostError

    class Broken:
        parts = [b"abc", b"de"]

        def read(self, size: int) -> bytes:
            if not self.parts:
                raise UnreadablePostError("gone")
            return self.parts.pop(0)

    version = actions.start_upload(
        by=world.ada, dataset=world.dataset, media_type="text/csv", announced_size=SIZE
    )
    assert actions.receive_chunk(by=world.ada, version=version, offset=0, chunks=pieces(Broken())) == 5  # type: ignore[arg-type]


def test_a_session_needs_the_csrf_header(world: World) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(world.ada)
    version = actions.start_upload(
        by=world.ada, dataset=world.dataset, media_type="text/csv", announced_size=None
    )
    page = client.get(reverse("datasets:upload", args=[version.pk]))
    text = page.content.decode()
    assert (
        f'data-upload-url="{url("version-content", version.pk)}"' in text
        and f'data-dataset="{world.dataset.pk}"' in text
    )
    assert actions.broker_key().id in text
    secret = text.split('data-csrf="')[1].split('"')[0]
    data, header = sealed(version)
    assert patch(client, str(version.pk), 0, data, {}).status_code == 403
    assert patch(client, str(version.pk), 0, data, {"X-CSRFToken": secret}).status_code == 204
    assert call(client, "POST", url("version-finish", version.pk), header, {}).status_code == 403
    assert (
        call(client, "POST", url("version-finish", version.pk), header, {"X-CSRFToken": secret}).status_code
        == 200
    )
    assert client.get(reverse("datasets:upload", args=[version.pk])).status_code == 302


def test_tokens_need_the_scope_and_strangers_nothing(world: World, client: Client) -> None:
    version = actions.start_upload(
        by=world.ada, dataset=world.dataset, media_type="text/csv", announced_size=SIZE
    )
    calls = [
        ("POST", url("datasets")),
        ("PATCH", url("dataset", "rand-hie")),
        ("PUT", url("dataset-dictionary", "rand-hie")),
        ("POST", url("dataset-publish", "rand-hie")),
        ("POST", url("dataset-suspend", "rand-hie")),
        ("POST", url("dataset-resume", "rand-hie")),
        ("POST", url("dataset-withdraw", "rand-hie")),
        ("GET", url("dataset-managers", "rand-hie")),
        ("POST", url("dataset-managers", "rand-hie")),
        ("DELETE", url("dataset-manager", "rand-hie", world.ada.pk)),
        ("GET", url("my-datasets")),
        ("GET", url("dataset-versions", "rand-hie")),
        ("POST", url("dataset-versions", "rand-hie")),
        ("GET", url("version", version.pk)),
        ("HEAD", url("version-content", version.pk)),
        ("PATCH", url("version-content", version.pk)),
        ("DELETE", url("version-content", version.pk)),
        ("POST", url("version-finish", version.pk)),
        ("POST", url("version-give-up", version.pk)),
        ("POST", url("version-check-again", version.pk)),
    ]
    read_only = token(world.ada, "read", "research", "review")
    for published in (False, True):
        if published:
            actions.publish_dataset(by=world.ada, dataset=world.dataset)
        # A draft is not there for people elsewhere; a published one is, and refuses.
        elsewhere = 403 if published else 404
        for method, address in calls:
            assert call(client, method, address, {}).status_code == 401, (method, address)
            assert call(client, method, address, {}, read_only).status_code == 403, (method, address)
            if address not in (url("datasets"), url("my-datasets")):
                body = {
                    "reason": "x",
                    "media_type": "text/csv",
                    "announced_size": 100,
                    "email": "ada@example.org",
                }
                for who, status in ((world.bea, 403), (world.cyd, elsewhere), (world.eve, elsewhere)):
                    assert (
                        call(client, method, address, body, token(who, "custody", "read")).status_code
                        == status
                    ), (method, address, who)
    world.dataset.refresh_from_db()
    assert world.dataset.state == "published" and permissions.granted(world.ada, world.dataset)


def test_managers_by_api(world: World, client: Client) -> None:
    me = token(world.ada, "custody")
    assert (
        call(
            client, "POST", url("dataset-managers", "rand-hie"), {"email": "nobody@example.org"}, me
        ).status_code
        == 422
    )
    assert (
        len(
            call(client, "POST", url("dataset-managers", "rand-hie"), {"email": "bea@example.org"}, me).json()
        )
        == 2
    )
    assert (
        call(client, "DELETE", url("dataset-manager", "rand-hie", world.bea.pk), headers=me).status_code
        == 204
    )
    assert (
        call(client, "DELETE", url("dataset-manager", "rand-hie", world.ada.pk), headers=me).status_code
        == 409
    )
    assert [d["slug"] for d in call(client, "GET", url("my-datasets"), headers=me).json()] == ["rand-hie"]


def test_public_answers(world: World, client: Client) -> None:
    assert client.get(url("dataset", "rand-hie")).status_code == 404
    assert client.get(url("dataset", uuid.uuid4())).status_code == 404
    assert client.get(url("broker-key")).json() == actions.broker_key().to_json()
    assert (
        client.get(url("datasets"), {"page": "7", "page_size": "x", "year": "\x00", "q": "\x00"}).json()[
            "count"
        ]
        == 0
    )


def test_version_pages_of_every_state(world: World, client: Client) -> None:
    client.force_login(world.ada)
    started = client.post(reverse("datasets:start_upload", args=["rand-hie"]))
    first = world.dataset.versions.get()
    assert started.headers["Location"] == reverse("datasets:upload", args=[first.pk])
    assert (
        client.post(reverse("datasets:start_upload", args=["rand-hie"])).headers["Location"]
        == started.headers["Location"]
    )
    assert client.get(reverse("datasets:version", args=[first.pk])).status_code == 200
    give_up = reverse("datasets:give_up", args=[first.pk])
    assert client.get(give_up).status_code == 200 and client.post(give_up, {"reason": ""}).status_code == 200
    assert client.post(give_up, {"reason": "Wrong file."}).status_code == 302
    assert b"Wrong file." in client.get(reverse("datasets:version", args=[first.pk])).content
    second = uploaded(world)
    page = reverse("datasets:version", args=[second.pk])
    assert client.get(page).status_code == 200
    actions.verify_upload(by=PORTAL, version=second)
    assert client.get(page).status_code == 200
    actions.profile_failed(by=PORTAL, version=second, reason="The machine went away.")
    assert b"Check again" in client.get(page).content
    assert client.post(reverse("datasets:check_again", args=[second.pk])).status_code == 302
    actions.verify_upload(by=PORTAL, version=second)
    problem = {
        "code": "type",
        "column": "<u>mdvis",
        "rows": [3, 8],
        "count": 2,
        "sentence": "2 values are not whole numbers.",
    }
    actions.record_profile(
        by=PORTAL,
        version=second,
        ok=False,
        rows=496,
        profile=None,
        report={**REPORT, "ok": False, "problems": [problem]},
    )
    text = client.get(page).content.decode()
    assert "3, 8" in text and "2 values are not whole numbers." in text and "<u>mdvis" not in text
    third = accepted(world)
    assert b"No problems were found." in client.get(reverse("datasets:version", args=[third.pk])).content
    assert client.get(reverse("datasets:manage", args=["rand-hie"])).status_code == 200
