"""Pages of programs, runs and checks: each state renders, lists cost a constant number of queries, files are only shown."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from apps.accounts.models import User
from apps.accounts.roles import Role
from apps.datasets.models import Download
from apps.jobs import engine, queries
from apps.jobs.models import Program, Run
from apps.jobs.states import RUN
from tests import factories
from tests.factories import World, again, browser, page
from tests.unit.jobs.test_programs import NOTEBOOK, archive


def post(user: User, path: str, **data: Any) -> Any:
    return browser(user).post(path, data)


# Each page in each state


def test_program_and_rehearsal(w: World) -> None:
    program = factories.submitted_program(w.project, w.member, [w.dataset], note="Counts visits.")
    run = factories.rehearsal_of(program)
    assert "Custodians’ decisions" in page(w.member, f"/programs/{program.pk}")
    assert "This opens once the rehearsal has succeeded" in page(w.member, f"/programs/{program.pk}")
    factories.drive(run, {"summary.csv": b"n\n3\n"}, log=b"the log <b>\n")
    text = page(w.member, f"/programs/{program.pk}")
    assert "Run on the real data" in text and "has not approved this program yet" in text
    text = page(w.member, f"/runs/{run.pk}")
    assert "the log &lt;b&gt;" in text and "summary.csv" in text
    text = page(w.custodian, f"/programs/{program.pk}")
    assert "Decide" in text and "Run on the real data" not in text
    assert "summary.csv" in page(w.custodian, f"/runs/{run.pk}"), (
        "who decides on the program sees its rehearsal"
    )
    assert page(w.custodian, f"/runs/{run.pk}/progress")
    assert "Programs" in page(w.member, f"/projects/{w.project.pk}/programs/")
    assert "visits" in page(w.member, f"/projects/{w.project.pk}/programs/")


@pytest.mark.parametrize(
    ("content", "filename"),
    [
        (NOTEBOOK, "a.ipynb"),
        (archive({"main.py": b"x = 1\n", "data/a b.txt": b"x"}), "a.zip"),
        (b"x = 1", "a.py"),
    ],
)
def test_kinds_of_program(w: World, content: bytes, filename: str) -> None:
    program = factories.rehearsed_program(
        w.project, w.member, [w.dataset], content=content, filename=filename
    )
    text = page(w.custodian, f"/programs/{program.pk}")
    assert program.sha256 in text and ("Files in the archive" in text) is filename.endswith(".zip")
    assert program.sha256 in page(w.custodian, f"/programs/{program.pk}/decide/{w.dataset.pk}")
    response = browser(w.member).get(f"/programs/{program.pk}/source")
    assert b"".join(response.streaming_content) == content
    assert response["Content-Type"] == "application/octet-stream" and response[
        "Content-Disposition"
    ].startswith("attachment")


@pytest.mark.parametrize("state", RUN.states)
@pytest.mark.parametrize("kind", ["profile", "synthesise", "rehearsal", "research"])
def test_a_run_in_every_state(w: World, kind: str, state: str) -> None:
    program = w.program()
    run = (
        factories.research_run(program, w.member)
        if kind == "research"
        else Run.objects.filter(kind=kind).latest("created_at")
    )
    fields: dict[str, Any] = {
        "state": state,
        "statement_sha256": "0" * 64,
        "exit_class": "failed",
        "exception_type": "KeyError",
        "exception_line": 7,
    }
    Run.objects.filter(pk=run.pk).update(**fields, phase="running", phase_done=3, phase_total=9)
    for user in (w.custodian, *([w.member] if kind in ("rehearsal", "research") else [])):
        text = page(user, f"/runs/{run.pk}")
        assert RUN.labels[state] in text and "KeyError" in text
        assert ("Stop this run" in text) is (state not in RUN.final)
        page(user, f"/runs/{run.pk}/evidence")
        answer = browser(user).get(f"/runs/{run.pk}/progress")
        assert answer.status_code == 200
        settled = queries.standing(again(run)).settled
        assert answer.headers.get("HX-Trigger-After-Settle", "") == ("run-settled" if settled else "")
    auditor = factories.person("Audrey", w.university, Role.AUDITOR, ready=False)
    text = page(auditor, f"/runs/{run.pk}")
    assert f"/programs/{program.pk}" not in text, "no link to a page that the auditor may not open"
    assert "Log of the rehearsal" not in text


def test_waiting_run_says_what_is_missing(w: World) -> None:
    run = factories.research_run(w.program(), w.member)
    text = page(w.member, f"/runs/{run.pk}")
    assert "What is still missing" in text and "has not approved this program yet" in text


def test_submit_by_the_page(w: World) -> None:
    path, token = f"/projects/{w.project.pk}/programs/new", uuid.uuid4().hex
    assert w.dataset.title in page(w.member, path)

    def send(content: bytes, name: str = "p.py", **more: Any) -> Any:
        return post(
            w.member,
            path,
            name="P",
            file=SimpleUploadedFile(name, content),
            datasets=[str(w.dataset.pk)],
            submission=token,
            **more,
        )

    refusal = send(b"def x(:\n")
    assert (
        refusal.status_code == 200
        and "Python cannot read the program (line 1)" in refusal.content.decode()
        and not Program.objects.exists()
    )
    first, second = send(b"x = 1\n"), send(b"x = 1\n")
    assert first.status_code == second.status_code == 302 and first["Location"] == second["Location"]
    assert Program.objects.count() == 1
    assert post(w.member, path, name="P").status_code == 200
    foreign = factories.draft_dataset(w.custodian)
    other = post(
        w.member,
        path,
        name="P",
        file=SimpleUploadedFile("p.py", b"x = 1\n"),
        datasets=[str(foreign.pk)],
        submission="2",
    )
    assert other.status_code == 200 and Program.objects.count() == 1


def test_run_by_the_page(w: World) -> None:
    program = w.approved_program()
    first, second = (post(w.member, f"/programs/{program.pk}/run", submission="1") for _ in range(2))
    assert first["Location"] == second["Location"] and Run.objects.filter(kind="research").count() == 1
    run = Run.objects.get(kind="research")
    assert (
        post(w.member, f"/runs/{run.pk}/cancel", reason="").status_code == 200
        and again(run).cancel_reason == ""
    )
    assert (
        post(w.member, f"/runs/{run.pk}/cancel", reason="A mistake.").status_code == 302
        and again(run).cancel_reason == "A mistake."
    )
    assert post(w.member, f"/runs/{run.pk}/cancel", reason="Again.").status_code == 409


def test_decide_by_the_page(w: World) -> None:
    program = w.program()
    path = f"/programs/{program.pk}/decide/{w.dataset.pk}"
    assert "Say why" in post(w.custodian, path, decision="refuse", reason="").content.decode()
    assert post(w.custodian, path, decision="approve").status_code == 302
    assert post(w.custodian2, path, decision="approve").status_code == 409
    approval = program.approvals.get()
    assert "Take back" in page(w.custodian, f"/programs/{program.pk}")
    assert post(w.custodian, f"/approvals/{approval.pk}/revoke", reason="A leak.").status_code == 302
    assert again(approval).decision == "revoked"
    assert "A leak." in page(w.member, f"/programs/{program.pk}")
    for gone in (
        f"/programs/{program.pk}/decide/{uuid.uuid4()}",
        f"/approvals/{uuid.uuid4()}/revoke",
        f"/programs/{uuid.uuid4()}",
    ):
        page(w.custodian, gone, 404)


def test_check_by_the_page(w: World) -> None:
    release, (one, two, three) = w.outputs(), w.checkers
    assert "visits" in page(one, "/checks/")
    path = f"/checks/{release.pk}"
    assert "What to look for" in page(one, path) and "table.csv" in page(one, path)
    assert "Say what must change" in post(one, path, decision="reject", comment=" ").content.decode()
    assert post(one, path, decision="approve").status_code == 302
    assert "You decided: approve for release" in page(one, path) and "second, different checker" in page(
        one, path
    )
    assert post(one, path, decision="approve").status_code == 200 and again(release).state == "approved_once"
    assert post(two, path, decision="approve", comment="Fine.").status_code == 302
    assert "not waiting for a checker" in page(three, path)
    assert "visits" not in page(three, "/checks/")
    engine.build_package(release.pk)
    text = page(w.member, f"/runs/{release.run_id}")
    assert "Download the package" in text and "Fine." in text
    assert "Download the package" not in page(w.custodian, f"/runs/{release.run_id}")
    response = browser(w.member).get(f"/runs/{release.run_id}/package")
    assert (
        len(b"".join(response.streaming_content))
        == again(release).package_size
        == int(response["Content-Length"])
    )
    assert Download.objects.get(what="output_package").user == w.member
    assert post(w.custodian, f"/checks/{release.pk}/revoke", reason="A small cell.").status_code == 302
    page(w.member, f"/runs/{release.run_id}/package", 404)
    assert "Revoked" in page(w.member, f"/runs/{release.run_id}")


def test_researchers_see_no_outputs_before_their_release(w: World) -> None:
    release = w.outputs()
    text = page(w.member, f"/runs/{release.run_id}")
    assert "table.csv" not in text and "note.txt" not in text
    output = release.run.outputs.first()
    for path in (
        f"/runs/{release.run_id}/outputs/{output.pk}",
        f"/runs/{release.run_id}/outputs/{output.pk}/file",
        f"/checks/{release.pk}",
        f"/runs/{release.run_id}/package",
        f"/runs/{release.run_id}/log",
    ):
        page(w.member, path, 404)
    answer = browser(w.member).get(f"/api/v1/runs/{release.run_id}").json()
    assert answer["outputs"] == [] and answer["output_release"]["state"] == "in_review"
