"""Pages of programs, runs and checks: each state renders, lists cost a constant number of queries, files are only shown."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from apps.accounts.models import User
from apps.accounts.roles import Role
from apps.datasets import actions as datasets
from apps.datasets.models import Download, Stage1Release
from apps.jobs import actions, engine, queries
from apps.jobs.models import Program, Run
from apps.jobs.states import RUN
from apps.projects import actions as projects
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
        evidence = page(user, f"/runs/{run.pk}/evidence")
        assert ("checked once" in evidence) is (kind == "rehearsal") is ("checked twice" not in evidence)
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


def test_the_runs_page_follows_the_checkers(w: World) -> None:
    """Somebody who leaves the page open sees the package without loading it again."""
    release = w.outputs()
    address = f"/runs/{release.run_id}"

    def shown() -> str:
        return str(
            re.search(r'hx-get="(/runs/[^"]*)" hx-trigger="every (\d+)s"', page(w.member, address)).groups()
        )  # type: ignore[union-attr]

    def told(before: str) -> bool:
        """Whether the page is told to fetch itself anew."""
        answer = browser(w.member).get(f"{address}/progress?outputs={before}")
        return "HX-Trigger-After-Settle" in answer.headers

    assert shown() == str((f"{address}/progress?outputs=in_review", "10")) and not told("in_review")
    for number, (before, after, seconds) in enumerate(
        [("in_review", "approved_once", "10"), ("approved_once", "approved", "2")]
    ):
        post(w.checkers[number], f"/checks/{release.pk}", decision="approve")
        assert told(before) and not told(after)
        assert shown() == str((f"{address}/progress?outputs={after}", seconds))
    engine.build_package(release.pk)
    assert told("approved") and "Download the package" in page(w.member, address)
    assert "hx-trigger" not in page(w.member, address)


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


# Who did what, newest first


def told(text: str) -> list[tuple[str, str, str]]:
    """(what, who, why) of each entry of the page's histories, as they stand there."""
    items = re.findall(r'<li class="app-timeline__item">(.*?)</li>', text, re.S)
    parts = [
        [
            re.sub(r"<[^>]*>", "", x).strip()
            for x in re.findall(r'<p class="app-timeline__[^>]*>.*?</p>', i, re.S)
        ]
        for i in items
    ]
    return [(what, who.partition(",")[0], why[0] if why else "") for what, who, *why in parts]


def test_the_history_of_access_names_who(w: World) -> None:
    request = w.project.access_requests.get()
    datasets.suspend_access(by=w.custodian2, access_request=request, reason="A question.")
    newest, *rest = told(page(w.lead, f"/access/{request.pk}"))
    assert newest == ("Suspended", w.custodian2.name, "A question.")
    assert rest[0] == ("Active", "The portal", "") and rest[-1] == ("Submitted", w.lead.name, "")
    agreement = told(page(w.lead, f"/agreements/{request.agreements.get().pk}"))
    assert agreement[0][0] == "In force" and agreement[0][1] in (w.ours.name, w.theirs.name)
    assert agreement[-1] == ("To be signed", w.custodian.name, "")


def test_the_history_of_stand_in_data_names_who(w: World) -> None:
    release = Stage1Release.objects.get()
    datasets.withdraw_release(by=w.custodian2, release=release, reason="A flaw.")
    events = told(page(w.custodian, f"/stand-in/{release.pk}"))
    assert events[0] == ("Withdrawn", w.custodian2.name, "A flaw.")
    assert events[-1] == ("Ordered", w.custodian.name, "")


def test_the_history_of_a_run_names_no_checker(w: World) -> None:
    release = w.outputs()
    for checker, comment in zip(w.checkers[:2], ("Fine.", "Fine too."), strict=True):
        actions.check_outputs(by=checker, output_release=again(release), decision="approve", comment=comment)
    engine.build_package(release.pk)
    text = page(w.member, f"/runs/{release.run_id}")
    checks, events = told(text)[:2], told(text)[2:]
    assert checks == [
        ("Approved", "An output checker", "Fine too."),
        ("Approved", "An output checker", "Fine."),
    ]
    assert events[0][:2] == ("Succeeded", "The portal") or events[0][1] == "The machine of the run"
    assert events[-1] == ("Waiting", w.member.name, "")
    assert not any(checker.name in text for checker in w.checkers)


# The menu


def menu(user: User) -> list[str]:
    nav = re.search(r"<section[^>]*service-navigation.*?</section>|<nav.*?</nav>", page(user, "/home"), re.S)
    assert nav
    return [name for name in ("/projects", "/runs") if f'href="{name}' in nav.group()]


def test_the_menu_shows_what_one_can_have(w: World) -> None:
    everything = ["/projects", "/runs"]
    assert menu(w.member) == menu(w.lead) == everything
    assert menu(w.custodian) == ["/runs"]
    for user in (w.board.chair, w.board.member, w.ours, w.checkers[0]):
        assert menu(user) == [], user
    projects.invite(by=w.lead, project=w.project, email=w.ours.email)
    assert menu(again(w.ours)) == everything, "somebody who was invited has a list"
