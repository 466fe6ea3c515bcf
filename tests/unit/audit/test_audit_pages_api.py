"""The log's pages and its API: who sees what, filters, pages, tiles and proofs that verify at the other end."""

from __future__ import annotations

import datetime as dt
import json

import pytest
import time_machine
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apps.accounts import actions
from apps.audit import queries
from apps.audit.actions import record
from apps.audit.models import Entry
from apps.audit.sequencer import seal_log
from apps.core.actors import System
from strongroom import translog

pytestmark = pytest.mark.django_db


def fill(count: int, **values: object) -> list[Entry]:
    given = {"event": "thing.done", "by": System("test"), "object_type": "thing", "object_id": "1", **values}
    return [record(**given) for _ in range(count)]


@pytest.fixture
def auditor(person):
    return person("auditor", name="Ann Auditor")


def bearer(user) -> dict[str, str]:
    _, secret = actions.create_token(by=user, name="t", scopes=["read"], days=1)
    return {"Authorization": f"Bearer {secret}"}


@pytest.mark.parametrize(
    "role", ["researcher", "custodian", "ethics_chair", "output_checker", "operator", ""]
)
def test_only_auditors_read_the_log(person, operator, as_user, role):
    other = operator if role == "operator" else person(*[role] if role else [])
    foreign, own = fill(1)[0], fill(1, by=other)[0]
    seal_log()
    browser = as_user(other)
    for address in ("/audit", "/api/v1/audit/entries"):
        assert browser.get(address).status_code == 403
        assert as_user().get(address).status_code in (302, 401)
    # what somebody did themselves they can see, with its proof; the rest looks as if it were not there
    assert (
        browser.get(f"/audit/{own.pk}").status_code
        == browser.get(f"/api/v1/audit/proof/{own.pk}").status_code
        == 200
    )
    for pk in (foreign.pk, "00000000-0000-0000-0000-000000000000"):
        assert (
            browser.get(f"/audit/{pk}").status_code
            == browser.get(f"/api/v1/audit/proof/{pk}").status_code
            == 404
        )


def test_the_list(auditor, person, as_user):
    ada = person("researcher", name="<b>Ada</b>")
    fill(3, by=ada, event="run.queued", object_type="run", object_id="R1", scope="project:7")
    browser = as_user(auditor)
    body = browser.get("/audit").content.decode()
    assert "&lt;b&gt;Ada&lt;/b&gt;" in body and "<b>Ada" not in body
    assert "Not yet" in body

    def count(**asked: str) -> int:
        return (
            browser.get("/api/v1/audit/entries", {**asked, "page_size": "1000"}).json()["results"].__len__()
        )

    assert (
        count(event="run.queued")
        == count(event="run.")
        == count(object="R1")
        == count(object="run")
        == count(scope="project:7")
        == 3
    )
    assert count(actor=ada.actor_code) == count(actor="<b>ada") == count(actor=ada.email) == 3
    assert (
        count(actor="nobody at all")
        == count(event="run")
        == count(scope="project:8")
        == count(event="ru%")
        == 0
    )
    today = dt.datetime.now(dt.UTC).date()
    assert (
        count(
            **{
                "event": "run.",
                "from": str(today - dt.timedelta(days=1)),
                "to": str(today + dt.timedelta(days=1)),
            }
        )
        == 3
    )
    assert count(event="run.", to=str(today - dt.timedelta(days=2))) == 0
    answer = browser.get("/api/v1/audit/entries", {"from": "yesterday"})
    assert answer.status_code == 422 and "from" in answer.json()["fields"]
    body = browser.get(
        "/audit", {"from": "<script>", "event": '"><script>', "page": "-1", "actor": "\0"}
    ).content.decode()
    assert "is not a day" in body and "<script>&" not in body and '"><script>' not in body


def test_days_are_local_days(auditor, as_user):
    with time_machine.travel("2026-06-30T23:30:00Z"):  # half past midnight on 1 July in London
        fill(1, event="late.done")
    browser = as_user(auditor)
    for day, found in (("2026-06-30", 0), ("2026-07-01", 1)):
        assert (
            len(
                browser.get("/api/v1/audit/entries", {"event": "late.", "from": day, "to": day}).json()[
                    "results"
                ]
            )
            == found
        )


def test_the_list_asks_the_same_number_of_questions(auditor, person, as_user):
    browser = as_user(auditor)
    browser.get("/audit")
    counts = []
    for more in (2, 40):
        for _ in range(more):
            fill(1, by=person())
        with CaptureQueriesContext(connection) as asked:
            assert browser.get("/audit").status_code == 200
        counts.append(len(asked))
    assert counts[0] == counts[1] <= 8, counts


def test_cursor_pages_walk_everything_once(auditor, as_user):
    fill(25)
    seal_log()
    fill(3)
    browser, seen, address = as_user(auditor), [], "/api/v1/audit/entries?order=index&page_size=7"
    while address:
        page = browser.get(address).json()
        seen += [row["index"] for row in page["results"]]
        address = page["next"]
    assert seen == list(range(Entry.objects.filter(index__isnull=False).count()))
    newest = browser.get("/api/v1/audit/entries?page_size=5").json()
    assert newest["results"][0]["index"] is None
    assert browser.get("/api/v1/audit/entries?cursor=rubbish").status_code == 404


def test_a_stranger_can_verify_the_tree(auditor, as_user):
    """What `strongroom audit verify` does: entries from the auditor's pages, tiles and checkpoint from the public ones."""
    fill(300)
    seal_log()
    anybody, browser = as_user(), as_user(auditor)
    keys = anybody.get("/.well-known/strongroom.json").json()
    log = translog.Verifier.parse(keys["keys"]["log"])
    head = translog.open_checkpoint(anybody.get("/api/v1/audit/checkpoint").content, log)
    rows = browser.get("/api/v1/audit/entries?order=index&page_size=1000").json()["results"]
    leaves = [translog.leaf_hash(translog.leaf_data(r["entry"], bytes.fromhex(r["salt"]))) for r in rows]
    assert [leaf.hex() for leaf in leaves] == [r["leaf_hash"] for r in rows]
    assert translog.root_from_leaves(leaves[: head.size]) == head.root

    def read(level: int, index: int, width: int) -> bytes:
        answer = anybody.get(f"/api/v1/audit/{translog.tile_path(level, index, width)}")
        assert answer["Content-Type"] == "application/octet-stream"
        return answer.content

    assert translog.tree_root(head.size, translog.tile_hash_reader(head.size, read)) == head.root
    proof = browser.get(f"/api/v1/audit/proof/{rows[7]['entry']['id']}").json()
    leaf = translog.leaf_data(proof["entry"], bytes.fromhex(proof["salt"]))
    assert translog.verify_proof(proof["proof"].encode(), leaf, log) == head


@pytest.mark.parametrize(
    "path",
    [
        "0/999",
        "0/000.p/0",
        "0/000.p/256",
        "0/000.p/255",
        "64/000",
        "0/x",
        "0/-1",
        "0/" + "9" * 30,
        "0/x000/../000",
        "9/000",
    ],
)
def test_tiles_that_do_not_exist(path):
    fill(3)
    seal_log()
    assert Client().get(f"/api/v1/audit/tile/{path}").status_code == 404
    assert len(Client().get("/api/v1/audit/tile/0/0").content) >= 96


def test_no_checkpoint_yet(db):
    assert Client().get("/api/v1/audit/checkpoint").status_code == 404


def test_the_entry_page(auditor, as_user):
    (entry,) = fill(1, data={"note": "</script><b>"})
    browser = as_user(auditor)
    body = browser.get(f"/audit/{entry.pk}").content.decode()
    assert "not sealed yet" in body and "<b>" not in body.split("<main")[1].split("</main")[0]
    assert browser.get(f"/api/v1/audit/proof/{entry.pk}").status_code == 409
    seal_log()
    body = browser.get(f"/audit/{entry.pk}").content.decode()
    entry.refresh_from_db()
    proof = queries.proof_of(entry)
    assert proof.proof.decode().splitlines()[0] in body and bytes(entry.leaf_hash).hex() in body


def test_a_token_needs_the_scope_to_read(auditor):
    _, secret = actions.create_token(by=auditor, name="x", scopes=["custody"], days=1)
    answer = Client().get("/api/v1/audit/entries", headers={"Authorization": f"Bearer {secret}"})
    assert answer.status_code == 403 and "scope" in answer.json()["detail"]
    assert Client().get("/api/v1/audit/entries", headers=bearer(auditor)).status_code == 200


def test_well_known_has_no_secrets():
    answer = Client().get("/.well-known/strongroom.json")
    assert set(answer.json()) == {"v", "api", "keys", "broker"}
    assert "public" in answer["Cache-Control"]
    assert json.loads(answer.content)["broker"].keys() == {"suite", "public", "id"}
