"""The pages and the API from outside, over real HTTP: what is written in, what is asked for, and what comes back."""

from __future__ import annotations

import html
import io
import json
import re
import stat
import sys
import uuid
import zipfile
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest

from infra.demo.web import PageError, Person
from tests.integration.runs.portal import Portal
from tests.integration.runs.test_programs import nb

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def client(portal: Portal, **more: Any) -> httpx.Client:
    return httpx.Client(base_url=portal.url, trust_env=False, timeout=60, **more)


def check_headers(answer: httpx.Response) -> None:
    for name, value in HEADERS.items():
        if answer.request.url.path.startswith("/.well-known/") and name == "cross-origin-resource-policy":
            continue  # the public keys are for everybody
        assert answer.headers.get(name) == value, (answer.request.url, name, answer.headers.get(name))
    policy = answer.headers.get("content-security-policy", "")
    assert policy and "unsafe" not in policy and "default-src 'none'" in policy, (answer.request.url, policy)
    assert "permissions-policy" in answer.headers
    if not answer.request.url.path.startswith(("/static/", "/.well-known/")):
        assert "no-store" in answer.headers["cache-control"], answer.request.url


class Danger(HTMLParser):
    """Finds what the browser would execute: scripts without an address, handlers, inline styles, script addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if tag == "script" and not given.get("src", "").startswith("/static/"):
            self.found.append(f"script {given}")
        if tag in ("style", "iframe", "object", "embed", "base") or (
            tag == "img" and given.get("src") == "x"
        ):
            self.found.append(f"{tag} {given}")
        for name, value in given.items():
            if (
                name.startswith("on")
                or name == "style"
                or value.strip().lower().startswith(("javascript:", "data:text"))
            ):
                self.found.append(f"{tag} {name}={value}")
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])


def crawl(person: Person, start: str, limit: int) -> int:
    """Follow every link from `start`; each page is there, executes nothing and has every header. Returns how many."""
    todo, seen = [start], {start}
    files = 0
    while todo and len(seen) - len(todo) < limit:
        address = todo.pop(0)
        answer = person._http.get(address)
        assert answer.status_code == 200, (person.email, address, answer.status_code)
        check_headers(answer)
        if not answer.headers["content-type"].startswith("text/html"):
            files += 1
            assert "attachment" in answer.headers.get("content-disposition", "attachment"), address
            continue
        page = Danger()
        page.feed(answer.text)
        assert not page.found, (person.email, address, page.found)
        for href in page.links:
            path = urljoin(str(answer.url), html.unescape(href)).partition("#")[0]
            parts = urlsplit(path)
            shape = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", parts.path) + (parts.query and "?")
            if (
                path.startswith(person.portal)
                and path not in seen
                and not parts.path.startswith(("/static/", "/api/"))
            ):
                if (
                    sum(
                        re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", urlsplit(p).path)
                        + (urlsplit(p).query and "?")
                        == shape
                        for p in seen
                    )
                    < 6
                ):
                    seen.add(path)
                    todo.append(path)
    return len(seen) - len(todo)


def test_no_text_is_executed_anywhere(portal: Portal) -> None:
    portal.kill_workers()
    world = json.loads(
        portal._once([sys.executable, "-m", "tests.integration.runs.build", "--evil"]).splitlines()[-1]
    )
    for name, email in world["people"].items():
        person = Person(portal.url, email, world["password"]).sign_in()
        assert crawl(person, f"{portal.url}/home", 70) > 8, name
        if name == "checker":
            assert crawl(person, f"{portal.url}/checks/{world['check']}", 15) > 3
    for start in ("/", "/datasets/evil"):
        assert crawl(Person(portal.url, "visitor", ""), portal.url + start, 40) > 3


def test_headers_of_every_kind_of_answer(portal: Portal) -> None:
    with client(portal) as visitor:
        for path in (
            "/",
            "/login",
            "/datasets",
            "/nothing/here",
            "/home",
            "/health/ready",
            "/api/v1/runs",
            "/api/v1/schema",
            "/api/runner/v1/claim",
            "/api/v1/nothing",
            "/runs/",
            "/datasets/%00",
        ):
            answer = visitor.get(path)
            assert answer.status_code < 500
            check_headers(answer)
        assert visitor.get("/static/../../etc/passwd").status_code == 404
        assert visitor.get("/static/%2e%2e/%2e%2e/secret-key").status_code == 404
        assert visitor.request("TRACE", "/").status_code in (400, 404, 405, 501)
        assert visitor.get("/api/v1/runs").headers["content-type"].startswith("application/json")


def test_host_header(portal: Portal) -> None:
    with client(portal) as visitor:
        for headers in (
            {"Host": "evil.example"},
            {"Host": "127.0.0.1.evil.example"},
            {"Host": "127.0.0.1:1@evil"},
        ):
            assert visitor.get("/", headers=headers).status_code == 400
        for headers in (
            {"X-Forwarded-Host": "evil.example"},
            {"X-Forwarded-Proto": "https"},
            {"X-Original-URL": "/people"},
            {"X-Rewrite-URL": "/people"},
        ):
            answer = visitor.get("/home", headers=headers)
            assert answer.status_code == 302 and answer.headers["location"] == "/login?next=/home"
        assert "evil" not in visitor.get("/", headers={"X-Forwarded-Host": "evil.example"}).text


def test_cookies_and_sessions(portal: Portal) -> None:
    with client(portal) as person:
        token = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', person.get("/login").text)[0]
        person.cookies.set("sessionid", "f" * 32)
        form = {
            "csrfmiddlewaretoken": token,
            "email": portal.world["people"]["outsider"]["email"],
            "password": portal.world["password"],
        }
        answer = person.post("/login", data=form, headers={"Referer": portal.url})
        assert answer.status_code == 302
        cookies = answer.headers.get_list("set-cookie")
        (session,) = (c for c in cookies if c.startswith("sessionid="))
        assert "HttpOnly" in session and "SameSite=Lax" in session and "f" * 32 not in session
        assert all("SameSite" in c for c in cookies)
        key = session.partition("=")[2].partition(";")[0]
        person.cookies.clear()
        person.cookies.update(
            {"sessionid": key, "csrftoken": re.findall(r"csrftoken=(\w+)", " ".join(cookies))[0]}
        )
        page = person.get("/account")
        assert page.status_code == 200
        token = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)[0]
        assert person.get("/logout").status_code == 405
        assert (
            person.post(
                "/logout", data={"csrfmiddlewaretoken": token}, headers={"Referer": portal.url}
            ).status_code
            == 302
        )
        with client(portal, cookies={"sessionid": key}) as thief:
            assert thief.get("/account").status_code == 302


@pytest.mark.parametrize(
    "wanted",
    [
        "//evil.example",
        "https://evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "///evil.example",
        "https:evil.example",
        "\thttps://evil.example",
        "http://127.0.0.1@evil.example",
    ],
)
def test_open_redirect(portal: Portal, wanted: str) -> None:
    answer = portal.at("outsider")._http.get("/login", params={"next": wanted}, follow_redirects=False)
    assert answer.status_code == 302 and answer.headers["location"] == "/home"


def test_nothing_is_written_without_the_form(portal: Portal) -> None:
    """No token, another's token, another's page: 403, on pages and on the API by session. A bearer token needs none."""
    world, person = portal.world, portal.at("member")
    person.open("/account")
    session = person._http.cookies["sessionid"]
    posts = [
        "/projects/new", f"/projects/{world['project']}/programs/new", f"/projects/{world['project']}/close", "/account/tokens", "/account/password",
        "/logout", f"/datasets/{world['dataset']}/request-access", f"/api/v1/projects/{world['project']}/close", "/api/v1/tokens", "/api/v1/projects",
    ]  # fmt: skip
    with client(portal, cookies={"sessionid": session}) as forger:
        for path in posts:
            for headers in ({}, {"Origin": "https://evil.example"}, {"X-CSRFToken": "a" * 64}):
                body: dict[str, Any] = (
                    {"json": {"reason": "x"}} if path.startswith("/api/") else {"data": {"reason": "x"}}
                )
                answer = forger.post(path, headers=headers, **body)
                assert answer.status_code == 403, (path, headers, answer.status_code)
    # A right token sent from a page of somebody else.
    token = person._http.cookies["csrftoken"]
    answer = person._http.post(
        "/projects/new",
        data={"csrfmiddlewaretoken": token, "title": "x"},
        headers={"Origin": "https://evil.example"},
    )
    assert answer.status_code == 403
    with client(portal) as reader:
        answer = reader.post("/api/v1/tokens", headers={"Authorization": "Bearer srt_" + "A" * 43}, json={})
        assert answer.status_code == 401


def test_ids_of_others(portal: Portal) -> None:
    """Somebody signed in, in no relation to anything: every object is as if it were not there."""
    world = portal.world
    program = portal.submit(b"print(1)\n")
    run = program["rehearsal"]
    portal.ended(run)
    pages = [
        f"/runs/{run}", f"/runs/{run}/log", f"/runs/{run}/evidence", f"/runs/{run}/progress", f"/runs/{run}/package", f"/runs/{run}/cancel",
        f"/programs/{program['id']}", f"/programs/{program['id']}/source", f"/programs/{program['id']}/decide/{world['dataset_id']}",
        f"/projects/{world['project']}/programs/", f"/projects/{world['project']}/application", f"/access/{world['access']}",
        f"/agreements/{world['agreement']}", f"/agreements/{world['agreement']}/text", f"/agreements/{world['agreement']}/sign",
        f"/stand-in/{world['release']}", f"/stand-in/{world['release']}/data", f"/stand-in/{world['release']}/decide",
        f"/my-datasets/versions/{world['version']}", f"/my-datasets/{world['dataset']}", f"/my-datasets/{world['draft']}/dictionary",
        f"/people/{world['people']['member']['id']}", "/audit?scope=project:" + world["project"],
    ]  # fmt: skip
    for who in ("outsider", "stranger"):
        for path in pages:
            answer = portal.at(who)._http.get(path)
            assert answer.status_code in (403, 404) or (
                path.startswith("/audit") and program["id"] not in answer.text
            ), (who, path, answer.status_code)
    calls = [
        ("GET", f"/runs/{run}"), ("GET", f"/runs/{run}/log"), ("POST", f"/runs/{run}/cancel"), ("GET", f"/programs/{program['id']}"),
        ("GET", f"/programs/{program['id']}/source"), ("POST", f"/programs/{program['id']}/decisions"), ("POST", f"/programs/{program['id']}/runs"),
        ("GET", f"/projects/{world['project']}/programs"), ("GET", f"/access/{world['access']}"), ("POST", f"/access/{world['access']}/decision"),
        ("POST", f"/access/{world['access']}/revoke"), ("GET", f"/agreements/{world['agreement']}"), ("POST", f"/agreements/{world['agreement']}/signatures"),
        ("GET", f"/releases/{world['release']}"), ("GET", f"/releases/{world['release']}/data"), ("POST", f"/releases/{world['release']}/decision"),
        ("GET", f"/versions/{world['version']}"), ("HEAD", f"/versions/{world['version']}/content"), ("PATCH", f"/versions/{world['version']}/content"),
        ("DELETE", f"/versions/{world['version']}/content"), ("POST", f"/versions/{world['version']}/give-up"), ("POST", f"/datasets/{world['dataset']}/withdraw"),
        ("PUT", f"/datasets/{world['dataset']}/dictionary"), ("POST", f"/datasets/{world['draft']}/publish"), ("POST", f"/projects/{world['project']}/close"),
        ("POST", f"/people/{world['people']['member']['id']}/deactivate"), ("POST", f"/people/{world['people']['member']['id']}/roles"), ("GET", "/people"),
    ]  # fmt: skip
    body = {
        "reason": "x",
        "approve": True,
        "dataset": world["dataset"],
        "role": "operator",
        "organisation": "x",
        "side": "custodian",
        "sha256": "0" * 64,
        "password": world["password"],
    }
    for who in ("outsider", "stranger"):
        for method, path in calls:
            answer = portal.api(who).http.request(method, path, json=body)
            assert answer.status_code in (403, 404, 405), (
                who,
                method,
                path,
                answer.status_code,
                answer.text[:200],
            )
    assert portal.sql("SELECT state FROM datasets_accessrequest WHERE id = %s", world["access"]) == [
        ("active",)
    ]


def test_strange_requests(portal: Portal) -> None:
    """Never a fault of ours, whatever is asked."""
    long, person = "x" * 100_000, portal.at("member")
    project = portal.world["project"]
    gets = [
        "/datasets?q=%00", "/datasets?q=%ff%fe", f"/datasets?q={long[:4000]}", "/datasets?page=99999999999999999999", "/datasets?page=-1", "/datasets?q=%27%3B--",
        "/datasets?q=((((", "/datasets?q=%F0%9F%98%80", "/datasets?type=%00&sort=%00", "/runs/?state=%00", "/runs/?kind=x&page=%d9%a3", "/audit?from=x&until=99999-01-01", "/projects?q=%00",
        "/runs/not-a-uuid", "/runs/00000000-0000-0000-0000-000000000000", "/datasets/%2e%2e%2f", "/datasets/a%00b", "/people?q=%00", "/login?next=%00", "/static/%00", "/%00", "/%ff",
    ]  # fmt: skip
    for who in ("member", "auditor", "operator"):
        for path in gets:
            answer = portal.at(who)._http.get(path)
            assert answer.status_code < 500, (who, path)
    for path in gets:
        assert httpx.get(portal.url + path, trust_env=False).status_code < 500, path
    token = person._http.cookies["csrftoken"]
    for data in (
        {"title": long},
        {"title": "a\0b"},
        {"title": "\ud800".encode("utf-8", "surrogatepass")},
        {"title": "x", "organisation": "\0"},
        {"submission": "x" * 500, "title": "y"},
        {"title": "\u202e"},
    ):
        answer = person._http.post("/projects/new", data={"csrfmiddlewaretoken": token, **data})
        assert answer.status_code < 500, data
    for body in (
        {"title": long},
        {"title": "a\0b"},
        {"title": None},
        {"title": ["x"]},
        {"title": {"a": 1}},
        [],
        "x",
        None,
        1,
        {"title": "x", "organisation": "\0"},
    ):
        answer = portal.api("member").http.post("/projects", json=body)
        assert answer.status_code in (400, 403, 422), (
            body if body != {"title": long} else "long",
            answer.status_code,
            answer.text[:200],
        )
    for raw in (b"{", b"\xff", b"[" * 100_000, b'{"title": "\\ud800"}', b'{"title": 1e999}', b"9" * 10_000):
        answer = portal.api("member").http.post(
            "/projects", content=raw, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code in (400, 413, 415, 422), (raw[:20], answer.status_code)
    for answers in (
        {"lay_summary": long * 5},
        {"lay_summary": "a\0b"},
        {"starts_on": "9999-99-99"},
        {"starts_on": "99999-01-01"},
        {"public_benefit": "x" * 9},
        {"public_benefit": [None]},
        {"\0": 1},
        {"aims": 5},
    ):
        answer = portal.api("member").http.patch(f"/projects/{project}/answers", json={"answers": answers})
        assert answer.status_code < 500, (str(answers)[:60], answer.text[:300])
    for path in (
        "/datasets/%00",
        "/organisations/%00",
        "/datasets/%00/versions",
        "/audit/tile/0/%00",
        "/audit/entries?actor=%00&event=%00",
        "/runs?project=%00",
    ):
        assert portal.api("operator").http.get(path).status_code < 500, path
    for path in (f"/datasets/{portal.world['draft']}/managers", f"/programs/{uuid.uuid4()}/decisions"):
        assert (
            portal.api("custodian")
            .http.post(path, json={"email": "\0", "dataset": "\0", "approve": True})
            .status_code
            < 500
        )
    for form in (
        {"email": long, "password": long},
        {"email": "a\0@b", "password": "x"},
        {"email": "a@b.c", "password": "x\0"},
    ):
        assert httpx.post(
            f"{portal.url}/api/v1/login/token",
            json={**form, "name": "n", "scopes": ["read"], "days": 1},
            trust_env=False,
        ).status_code in (400, 401, 403, 422, 429)
    assert person._http.get("/account", headers={"Cookie": "sessionid=" + "\x7f" * 50}).status_code < 500
    assert person._http.get("/", headers={"Accept-Language": "x" * 6000}).status_code < 500


def archive(members: dict[str, bytes], *, links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in members.items():
            packed.writestr(name, data)
        for name, target in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            packed.writestr(info, target)
    return out.getvalue()


def twice() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed, pytest.warns(UserWarning):
        for _ in range(2):
            packed.writestr("main.py", b"pass")
    return out.getvalue()


def encrypted() -> bytes:
    data = bytearray(archive({"main.py": b"pass"}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    return bytes(data)


MAIN = {"main.py": b"print(1)"}
UPLOADS = {
    "up": ("a.zip", archive({**MAIN, "../evil.py": b"x"})),
    "deep up": ("a.zip", archive({**MAIN, "a/../../evil.py": b"x"})),
    "absolute": ("a.zip", archive({**MAIN, "/etc/passwd": b"x"})),
    "drive": ("a.zip", archive({**MAIN, "C:\\evil.py": b"x"})),
    "backslash": ("a.zip", archive({**MAIN, "a\\..\\evil.py": b"x"})),
    "symbolic link": ("a.zip", archive(MAIN, links={"link": "/etc/passwd"})),
    "bomb": ("a.zip", archive({**MAIN, "zeros": bytes(300 << 20)})),
    "many": ("a.zip", archive({**MAIN, **{f"{n}.txt": b"" for n in range(20_000)}})),
    "twice": ("a.zip", twice()),
    "two that differ in case alone": ("a.zip", archive({**MAIN, "MAIN.PY": b"x"})),
    "file and folder": ("a.zip", archive({**MAIN, "a": b"x", "a/b": b"x"})),
    "control characters": ("a.zip", archive({**MAIN, "a\nb.py": b"x"})),
    "encrypted": ("a.zip", encrypted()),
    "cut off": ("a.zip", archive(MAIN)[:-10]),
    "no zip": ("a.zip", b"PK\x03\x04 nonsense"),
    "no entry": ("a.zip", archive({"other.py": b"x"})),
    "empty zip": ("a.zip", archive({})),
    "empty": ("a.py", b""),
    "NUL": ("a.py", b"print(1)\0"),
    "not UTF-8": ("a.py", b"# caf\xe9\n"),
    "not Python": ("a.py", b"def ("),
    "nested": ("a.py", b"(" * 5000),
    "an image": ("a.png", b"\x89PNG\r\n\x1a\n"),
    "a program of another kind": ("a.exe", b"MZ"),
    "no ending": ("a", b"print(1)"),
    "no notebook": ("a.ipynb", b"{}"),
    "notebook of nothing": ("a.ipynb", b"["),
    "notebook nested": ("a.ipynb", b"[" * 100_000),
    "notebook with strange cells": ("a.ipynb", json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [1, None, {"cell_type": 3}]}).encode()),
    "too large": ("a.zip", bytes(21 << 20)),
}  # fmt: skip


@pytest.mark.parametrize("name", UPLOADS)
def test_upload_of_a_wrong_program(portal: Portal, name: str) -> None:
    """Refused on the page and by the API with the same sentence; nothing is kept."""
    filename, content = UPLOADS[name]
    before = portal.sql("SELECT count(*) FROM jobs_program")
    person, path = portal.at("member"), f"/projects/{portal.world['project']}/programs"
    person.open(f"{path}/new")
    with pytest.raises(PageError) as refusal:
        person.send(name="x", datasets=portal.world["dataset_id"], files={"file": (filename, content)})
    assert "says: " in str(refusal.value), refusal.value
    sentence = str(refusal.value).partition("says: ")[2]
    data = {"datasets": portal.world["dataset"], "submission": uuid.uuid4().hex}
    answer = portal.api("member").http.post(path, data=data, files={"file": (filename, content)})
    assert answer.status_code == 422, answer.text[:300]
    told = answer.json()
    assert (
        told["detail"] in sentence
        or any(words in sentence for found in told.get("fields", {}).values() for words in found)
        or name == "empty"
    )
    assert "Traceback" not in answer.text and len(sentence) > 20
    assert portal.sql("SELECT count(*) FROM jobs_program") == before


def test_name_of_a_program_is_never_a_path(portal: Portal) -> None:
    for filename in (
        "../../evil.py",
        "/etc/cron.d/evil.py",
        "..\\evil.py",
        "a\u202ebc.py",
        "x" * 300 + ".py",
        "con.py",
        "<script>.py",
        "-rf.py",
        "a b;c.ipynb",
    ):
        content = nb("1") if filename.endswith("ipynb") else b"print(1)\n"
        data = {"datasets": portal.world["dataset"], "submission": uuid.uuid4().hex}
        answer = portal.api("member").http.post(
            f"/projects/{portal.world['project']}/programs", data=data, files={"file": (filename, content)}
        )
        assert answer.status_code in (201, 422), answer.text
        if answer.status_code == 201:
            assert "/" not in answer.json()["entry"] and "\\" not in answer.json()["entry"]
            assert portal.ended(answer.json()["rehearsal"])["state"] == "succeeded", filename


def test_scopes_and_dead_tokens(portal: Portal) -> None:
    person = portal.at("outsider")
    made = person._http.post(
        "/account/tokens",
        data={
            "csrfmiddlewaretoken": person._http.cookies["csrftoken"],
            "name": f"r{uuid.uuid4().hex[:6]}",
            "scopes": "read",
            "days": "30",
        },
    )
    (secret,) = re.findall(r"srt_[A-Za-z0-9_-]{43}", made.text)
    with client(portal, headers={"Authorization": f"Bearer {secret}"}) as reader:
        assert reader.get("/api/v1/runs").status_code == 200
        assert reader.post("/api/v1/projects", json={"title": "x"}).status_code == 403
        assert reader.get("/home").status_code == 302  # a token is no session
        pk = next(
            t["id"]
            for t in reader.get("/api/v1/tokens").json()
            if "revoked_at" in t and t["revoked_at"] is None and t["name"].startswith("r")
        )
        assert portal.api("member").http.post(f"/tokens/{pk}/revoke", json={}).status_code in (403, 404)
        person._http.post(
            f"/account/tokens/{pk}/revoke", data={"csrfmiddlewaretoken": person._http.cookies["csrftoken"]}
        )
        assert reader.get("/api/v1/runs").status_code == 401
    assert secret not in portal.texts()
