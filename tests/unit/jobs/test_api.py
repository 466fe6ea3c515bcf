"""The API of jobs, as the command line uses it."""

from __future__ import annotations

import json
from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from apps.accounts import actions as accounts
from apps.datasets.models import Download
from apps.jobs import engine
from apps.jobs.models import Run
from tests import factories
from tests.factories import World, again, browser


def test_the_api_submits_and_tells(w: World) -> None:
    _, secret = accounts.create_token(by=w.member, name="cli", scopes=["read", "research"], days=1)
    client = Client(headers={"Authorization": f"Bearer {secret}"})
    base = f"/api/v1/projects/{w.project.pk}/programs"

    def send(content: bytes, name: str = "p.py", **more: str) -> Any:
        return client.post(
            base,
            {
                "file": SimpleUploadedFile(name, content),
                "datasets": w.dataset.slug,
                "submission": "1",
                **more,
            },
        )

    bad = send(b"\x00")
    assert bad.status_code == 422 and bad.json()["fields"]["file"]
    assert client.post(base, {"datasets": w.dataset.slug}).status_code == 422
    assert send(b"x = 1\n", datasets="no-such-set").status_code == 404
    assert send(b"x = 1\n", datasets="").status_code == 422
    made = send(b"x = 1\n")
    assert made.status_code == 201 and send(b"x = 1\n").json()["id"] == made.json()["id"]
    body = made.json()
    assert body["datasets"] == [w.dataset.slug] and body["kind"] == "py" and body["approvals"] == []
    told = client.get(f"/api/v1/runs/{body['rehearsal']}").json()
    assert told["state"] == "waiting" and told["standing"]["sentence"] and told["unmet"] == []
    assert (
        client.post(f"/api/v1/programs/{body['id']}/runs", {}, content_type="application/json").status_code
        == 409
    )
    factories.drive(Run.objects.get(pk=body["rehearsal"]), {"a.csv": b"a\n"}, log=b"hello\n")
    log = client.get(f"/api/v1/runs/{body['rehearsal']}/log")
    assert b"".join(log.streaming_content) == b"hello\n"
    (output,) = client.get(f"/api/v1/runs/{body['rehearsal']}").json()["outputs"]
    got = client.get(f"/api/v1/runs/{body['rehearsal']}/outputs/{output['id']}")
    assert b"".join(got.streaming_content) == b"a\n"
    run = client.post(
        f"/api/v1/programs/{body['id']}/runs", {"submission": "1"}, content_type="application/json"
    )
    assert run.status_code == 201 and [c["code"] for c in run.json()["unmet"]] == ["program_not_approved"]
    stop = client.post(
        f"/api/v1/runs/{run.json()['id']}/cancel", {"reason": "No."}, content_type="application/json"
    )
    assert stop.status_code == 200
    assert (
        client.post(
            f"/api/v1/runs/{run.json()['id']}/cancel", {"reason": ""}, content_type="application/json"
        ).status_code
        == 422
    )
    assert client.get("/api/v1/runs?kind=research").json()["count"] == 1


def test_the_api_decides_and_checks(w: World) -> None:
    program = w.program()
    custodian = browser(w.custodian)
    (waiting,) = custodian.get("/api/v1/programs/to-decide").json()
    assert waiting["id"] == str(program.pk)

    def decide(**body: Any) -> Any:
        return custodian.post(
            f"/api/v1/programs/{program.pk}/decisions",
            json.dumps({"dataset": w.dataset.slug, **body}),
            content_type="application/json",
        )

    assert decide(approve=False).status_code == 422
    assert decide(approve=True, dataset="no-such").status_code == 404
    assert decide(approve=True).status_code == 201 and decide(approve=True).status_code == 409
    release = factories.outputs_in_review(program, w.member)
    checker = browser(w.checkers[0])
    (listed,) = checker.get("/api/v1/checks").json()
    assert {f["path"] for f in listed["files"]} == {"table.csv", "note.txt"}

    def check(client: Client, **body: Any) -> Any:
        return client.post(f"/api/v1/checks/{release.pk}", json.dumps(body), content_type="application/json")

    assert check(checker, decision="reject").status_code == 422
    assert check(checker, decision="approve").json()["state"] == "approved_once"
    assert check(checker, decision="approve").status_code == 409
    assert check(browser(w.checkers[1]), decision="approve").json()["state"] == "approved"
    engine.build_package(release.pk)
    package = browser(w.member).get(f"/api/v1/runs/{release.run_id}/package")
    assert (
        package.status_code == 200 and len(b"".join(package.streaming_content)) == again(release).package_size
    )
    assert Download.objects.filter(what="output_package").count() == 1
