"""The API of jobs, as the command line uses it."""

from __future__ import annotations

import json
from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from apps.accounts import actions as accounts
from apps.accounts.models import User
from apps.accounts.roles import Role
from apps.datasets.models import Download
from apps.jobs import actions, engine
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


def bearing(user: User, *scopes: str) -> Client:
    _, secret = accounts.create_token(by=user, name="-".join(scopes), scopes=scopes, days=1)
    return Client(headers={"Authorization": f"Bearer {secret}"})


def post(client: Client, address: str) -> int:
    answer = client.post(f"/api/v1/{address}", {"reason": "A breach."}, content_type="application/json")
    return answer.status_code


def test_a_token_for_custody_stops_everything(w: World) -> None:
    """Runs, access, agreements, approvals, releases: whoever keeps the data needs no second scope to end its use."""
    own, other = bearing(w.custodian, "custody"), bearing(w.custodian, "read", "admin")
    run = factories.research_run(w.program(), w.member)
    approval = w.approved_program(name="Approved").approvals.get()
    release = factories.outputs_in_review(w.approved_program(name="Checked"), w.member)
    for checker in w.checkers[:2]:
        actions.check_outputs(by=checker, output_release=again(release), decision="approve")
    engine.build_package(release.pk)
    access = w.project.access_requests.get(dataset=w.dataset)
    for address in (
        f"runs/{run.pk}/cancel",
        f"checks/{release.pk}/revoke",
        f"approvals/{approval.pk}/revoke",
        f"access/{access.pk}/suspend",
        f"agreements/{access.agreements.get().pk}/terminate",
    ):
        assert post(other, address) == 403 and post(own, address) in (200, 204), address
    assert again(run).cancel_reason and again(release).state == again(access).state == "revoked"


def test_a_token_for_custody_opens_nothing(w: World) -> None:
    own, access = bearing(w.custodian, "custody"), w.project.access_requests.get(dataset=w.dataset)
    assert post(own, f"access/{access.pk}/suspend") == 200
    assert post(own, f"access/{access.pk}/resume") == 403
    assert post(bearing(w.custodian, "review"), f"access/{access.pk}/resume") == 200
    assert post(own, f"access/{access.pk}/revoke") == 200


def test_a_token_stops_no_run_of_others(w: World) -> None:
    run = factories.research_run(w.program(), w.member)
    stranger = factories.person("Cy Custodian", w.archive, Role.CUSTODIAN)
    assert post(bearing(stranger, "custody", "research"), f"runs/{run.pk}/cancel") == 404
    assert post(bearing(w.member, "research"), f"runs/{run.pk}/cancel") == 200
