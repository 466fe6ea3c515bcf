"""The runner protocol over real HTTP, attacked by somebody who holds the session of a live run."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from django.utils.crypto import salted_hmac

from tests.integration.runs.build import SECRET
from tests.integration.runs.portal import LIMITS, MB, Portal, until
from tests.integration.runs.test_chaos import held, once, started


class Machine:
    """What the machine of a run could say, and much that it never would."""

    def __init__(self, portal: Portal, run: str) -> None:
        secret = (portal.var / "secret-key").read_text().strip()

        def token(purpose: str, more: str) -> str:
            mac = salted_hmac(
                f"strongroom.{purpose}",
                f"{run}:{portal.run(run)['attempt']}:{more}",
                secret=secret,
                algorithm="sha256",
            )
            return f"{UUID(run).hex}.{mac.hexdigest()}"

        self.launch = token("launch", "")
        self.session = token("session", self.launch)
        self.http = httpx.Client(
            base_url=f"{portal.url}/api/runner/v1",
            timeout=60,
            trust_env=False,
            headers={"Authorization": f"Bearer {self.session}"},
        )

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        answer = self.http.request(method, path, **more)
        assert answer.status_code < 500, (method, path, answer.text[:500])
        assert SECRET not in answer.text
        return answer

    def refused(self, method: str, path: str, *statuses: int, **more: Any) -> dict[str, Any]:
        answer = self.ask(method, path, **more)
        assert answer.status_code in (statuses or (401, 403, 404, 405, 409, 413, 422)), (
            method,
            path,
            answer.status_code,
            answer.text[:300],
        )
        return dict(answer.json()) if answer.headers["content-type"].startswith("application/json") else {}


@pytest.fixture
def live(portal: Portal) -> Iterator[tuple[Portal, str, Machine]]:
    """A run whose machine has its keys and its inputs and waits for the word to start the program."""
    run = started(portal)
    portal.hold(f"before-phase-running.{UUID(run).hex}")
    held(portal, run, "before-phase-running")
    yield portal, run, Machine(portal, run)
    portal.let_go()


def test_doors_of_a_live_run(live: tuple[Portal, str, Machine]) -> None:
    portal, run, machine = live
    dataset = portal.world["dataset_id"]

    # Tokens: a launch token works once; nobody else's token opens anything.
    assert machine.refused("POST", "/claim", 403, json={"token": machine.launch})["code"] == "token_refused"
    for token in (
        "x",
        machine.launch,
        machine.session[:-1] + "0",
        f"{uuid.uuid4().hex}.{machine.session.partition('.')[2]}",
        portal.world["people"]["member"]["token"],
        "\xe9" * 40,
    ):
        machine.refused(
            "GET", "/program", 401, headers={"Authorization": b"Bearer " + token.encode("latin-1")}
        )
    machine.refused("GET", "/program", 401, headers={"Authorization": "Bearer"})
    machine.refused("GET", "/program", 401, headers={"Authorization": f"Basic {machine.session}"})
    machine.refused("GET", f"/program?session={machine.session}", 401, headers={"Authorization": ""})
    assert (
        httpx.get(
            f"{portal.url}/api/v1/runs",
            headers={"Authorization": f"Bearer {machine.session}"},
            trust_env=False,
        ).status_code
        == 401
    )

    # Only this run's inputs, whatever is written in the address.
    assert machine.ask("GET", f"/inputs/{dataset}").status_code == 200
    for path in (
        str(uuid.uuid4()),
        portal.world["draft_id"],
        "..%2fprogram",
        "%2e%2e/program",
        f"{dataset}%00",
        f"{dataset}/../x",
        f"{dataset}.sealed",
        "1",
        dataset.replace("-", ""),
    ):
        machine.refused("GET", f"/inputs/{path}", 404)

    # Ranges: one, whole and inside; anything else is refused and never a traceback.
    size = int(machine.ask("GET", f"/inputs/{dataset}").headers["content-length"])
    part = machine.ask("GET", f"/inputs/{dataset}", headers={"Range": f"bytes={size - 3}-"})
    assert (part.status_code, len(part.content), part.headers["content-range"]) == (
        206,
        3,
        f"bytes {size - 3}-{size - 1}/{size}",
    )
    assert (
        len(machine.ask("GET", f"/inputs/{dataset}", headers={"Range": f"bytes=0-{10**17}"}).content) == size
    )
    for value in (
        "bytes=-5",
        "bytes=5-2",
        f"bytes={size}-",
        "bytes=0-1,3-4",
        "bytes=99999999999999999999999-",
        "items=0-1",
        "bytes=a-b",
        "bytes=0x0-1",
        "bytes=\u0663-4".encode().decode("latin-1"),
    ):
        assert (
            machine.ask("GET", f"/inputs/{dataset}", headers={"Range": value.encode("latin-1")}).status_code
            == 416
        ), value

    # Bodies: too large, not JSON, not the shape, nested without end, members twice.
    good = {"phase": "fetching", "done": 0, "total": 0, "detail_code": ""}
    for body in (
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b"[" * 8000,
        b'{"phase":"fetching","phase":"claimed","done":0,"total":0}',
        b'{"phase":"fetching","done":NaN,"total":0}',
        b"{" + b" " * MB,
        json.dumps({**good, "more": 1}).encode(),
        json.dumps({**good, "done": -1}).encode(),
        json.dumps({**good, "done": 10**30}).encode(),
        json.dumps({**good, "phase": "fetching\x00"}).encode(),
        json.dumps({**good, "done": True}).encode(),
    ):
        machine.refused("POST", "/phase", 413, 422, 400, content=body)
    for path, limit in (("/claim", 8 << 10), ("/keys", 8 * MB), ("/result", 16 * MB), ("/abandon", 8 << 10)):
        machine.refused("POST", path, 413, 422, content=b"x" * (limit + 1))
        machine.refused("POST", path, 422, content=b"[" * 8000)
    for method, path in (
        ("GET", "/claim"),
        ("DELETE", "/outputs"),
        ("POST", "/program"),
        ("PATCH", "/outputs"),
        ("PUT", "/result"),
    ):
        machine.refused(method, path, 405)

    # Outputs: at the right place, not more than allowed.
    for offset in ("5", "-1", "1e3", "", "\u0663", "99999999999999999999", "0x0", " 0"):
        machine.refused("PUT", "/outputs", 409, 422, params={"offset": offset}, content=b"abc")
    assert machine.ask("GET", "/outputs").json() == {"offset": 0}
    machine.refused(
        "PUT", "/outputs", 422, 413, params={"offset": 0}, content=bytes(LIMITS["disk_bytes"] + 8 * MB)
    )

    # It may not change what it was: the row is as before, and the run ends with the refusal of what arrived.
    assert portal.run(run)["state"] == "running"
    portal.let_go()
    row = portal.ended(run)
    assert row["code"] in ("outputs_broken", "runner_error"), row
    assert portal.sql("SELECT count(*) FROM jobs_output WHERE run_id = %s", run) == [(0,)]
    states = portal.sql("SELECT state FROM jobs_outputrelease WHERE run_id = %s", run)
    assert states in ([], [("rejected",)])
    assert "[0, 0]" not in str(states) and SECRET not in portal.texts()


def test_doors_of_a_run_that_has_ended(live: tuple[Portal, str, Machine]) -> None:
    portal, run, machine = live
    other = started(portal)
    portal.let_go()
    release = once(portal, run)
    before = portal.run(run)
    sealed = portal.var / "objects" / "runs" / run / "outputs.sealed"
    content = sealed.read_bytes()
    machine.refused("POST", "/claim", 403, json={"token": machine.launch})
    for path in (f"/inputs/{portal.world['dataset_id']}", "/program"):
        machine.refused("GET", path, 409)
    machine.refused("PUT", "/outputs", 409, params={"offset": len(content)}, content=b"more")
    machine.refused("PUT", "/outputs", 409, params={"offset": 0}, content=b"other")
    machine.refused("POST", "/keys", 409, json={"context": {}, "evidence": {}})
    told = machine.ask("POST", "/phase", json={"phase": "running", "done": 0, "total": 0}).json()
    assert told["continue"] is False
    result = {
        "context": {},
        "evidence": {},
        "statement": {},
        "sealed": {},
        "exit": {"class": "failed", "exception_type": None, "line": None},
    }
    machine.refused("POST", "/result", 409, json=result)
    assert machine.ask("POST", "/abandon", json={"code": "runner_error"}).json() == {"state": "succeeded"}
    assert sealed.read_bytes() == content
    after = portal.run(run)
    assert {k: v for k, v in after.items() if k != "heartbeat_at"} == {
        k: v for k, v in before.items() if k != "heartbeat_at"
    }
    assert portal.sql("SELECT state FROM jobs_outputrelease WHERE id = %s", release) == [("in_review",)]
    once(portal, other)  # the neighbour has noticed nothing


def test_session_of_another_run(portal: Portal) -> None:
    """Two live runs: what one machine says never moves the other, and evidence for one is none for the other."""
    runs = [started(portal), started(portal)]
    for run in runs:
        portal.hold(f"before-phase-running.{UUID(run).hex}")
    for run in runs:
        held(portal, run, "before-phase-running")
    one, two = (Machine(portal, run) for run in runs)
    assert one.session != two.session
    mixed = f"{UUID(runs[1]).hex}.{one.session.partition('.')[2]}"
    one.refused("GET", "/program", 401, headers={"Authorization": f"Bearer {mixed}"})
    assert one.ask("PUT", "/outputs", params={"offset": 0}, content=b"").status_code == 200
    query = "SELECT context, envelope FROM attestation_evidence WHERE run = %s AND accepted"
    ((context, envelope),) = portal.sql(query, runs[1])
    body = {"context": context, "evidence": json.loads(bytes(envelope))}
    assert one.refused("POST", "/keys", 403, 422, json=body)["code"] in (
        "evidence_refused",
        "context_malformed",
    )
    until(lambda: portal.run(runs[0])["state"] == "failed", "end of the liar")
    assert portal.run(runs[0])["code"] == "evidence_refused"
    assert portal.run(runs[1])["state"] == "running"
    portal.let_go()
    portal.ended(runs[0])
    once(portal, runs[1])
