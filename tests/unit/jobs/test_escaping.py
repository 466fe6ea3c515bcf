"""Whatever people type, and whatever a program writes, is text on every page: never a tag."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from apps.accounts.roles import Role
from apps.datasets import actions as datasets
from apps.jobs import actions, engine
from apps.jobs.models import OutputRelease, Program, Run
from apps.projects.models import Project
from tests import factories
from tests.factories import World, again, browser

EVIL = "<script>alert(1)</script>"
QUOTED = "\"'><img src=x onerror=alert(2)>"
SAID = f"{EVIL} {QUOTED}"
# A tag, or an attribute broken out of: none of these may be in a page as it stands.
LIVE = re.compile(r"<script>alert|<img src=x|[\"']><img", re.IGNORECASE)


class Evil(World):
    """Everything that can be typed holds a tag."""

    program_: Program
    refused: Program
    release: OutputRelease
    waiting: Run

    def __init__(self) -> None:
        super().__init__(dataset_title=SAID)
        for user in (self.lead, self.member, self.custodian, self.ours, self.theirs, *self.checkers):
            user.name = f"{SAID} {user.name}"
            user.save()
        for organisation in (self.university, self.archive):
            organisation.name = f"{SAID} {organisation.name}"
            organisation.save()
        Project.objects.update(title=SAID)
        self.lead, self.member, self.custodian = again(self.lead), again(self.member), again(self.custodian)
        self.project, self.dataset = again(self.project), again(self.dataset)
        factories.released_stand_in(self.dataset, self.custodian)
        request = datasets.request_access(
            by=self.lead,
            project=self.project,
            dataset=self.dataset,
            purpose=SAID,
            ends_on=self.project.ends_on,
        )
        datasets.decide_access(
            by=self.custodian, access_request=request, approve=True, reason=SAID, conditions=SAID
        )
        agreement = again(request.agreements.get())
        factories.sign(agreement, again(self.ours), "user_organisation")
        factories.sign(agreement, again(self.theirs), "custodian")
        self.refused = factories.rehearsed_program(
            self.project, self.member, [self.dataset], name=f"refused {SAID}", note=SAID
        )
        actions.decide_program(
            by=self.custodian, program=self.refused, dataset=self.dataset, approve=False, reason=SAID
        )
        source = f"# {SAID}\n".encode()
        self.program_ = factories.submitted_program(
            self.project,
            self.member,
            [self.dataset],
            name=SAID,
            note=SAID,
            content=source,
            filename="<script>alert(1)<!--.py",
        )
        rehearsal = factories.rehearsal_of(self.program_)
        files = {
            "<script>alert(1)<!--.csv": f"{EVIL},b\n{EVIL},2\n".encode(),
            "\"'><img src=x onerror=alert(2)>.txt": SAID.encode(),
        }
        factories.drive(rehearsal, files, log=SAID.encode())
        actions.decide_program(
            by=self.custodian, program=self.program_, dataset=self.dataset, approve=True, reason=SAID
        )
        self.release = factories.outputs_in_review(self.program_, self.member, files)
        self.waiting = factories.research_run(self.refused, self.member)
        actions.cancel_run(by=self.member, run=self.waiting, reason=SAID)


_world, w = factories.fixtures(Evil)


def paths(w: Evil) -> Iterator[tuple[Any, str]]:
    """Every page of these objects with somebody who may see it."""
    rehearsal, request = factories.rehearsal_of(w.program_), w.project.access_requests.get()
    agreement, version = request.agreements.get(), w.dataset.versions.get()
    stand_in = version.releases.get()
    for user in (w.member, w.lead, w.custodian, w.ours, w.checkers[0]):
        yield from (
            (user, path)
            for path in (
                "/home",
                "/runs/",
                "/agreements",
                f"/datasets/{w.dataset.slug}",
                "/datasets",
                "/projects",
            )
        )
    for user in (w.member, w.custodian):
        for program in (w.program_, w.refused):
            yield user, f"/programs/{program.pk}"
        for run in (rehearsal, w.release.run, w.waiting):
            yield from ((user, f"/runs/{run.pk}{end}") for end in ("", "/evidence", "/progress"))
        for output in rehearsal.outputs.all():
            yield user, f"/runs/{rehearsal.pk}/outputs/{output.pk}"
        yield from ((user, path) for path in (f"/access/{request.pk}", f"/agreements/{agreement.pk}"))
    yield w.member, f"/projects/{w.project.pk}/programs/"
    yield w.member, f"/projects/{w.project.pk}/programs/new"
    yield w.member, f"/projects/{w.project.pk}"
    yield w.lead, f"/datasets/{w.dataset.slug}/request-access"
    yield w.custodian, f"/programs/{w.program_.pk}/decide/{w.dataset.pk}"
    yield w.custodian, f"/approvals/{w.program_.approvals.get().pk}/revoke"
    for path in (
        f"/stand-in/{stand_in.pk}",
        f"/my-datasets/versions/{version.pk}",
        f"/my-datasets/versions/{version.pk}/order",
        f"/my-datasets/{w.dataset.slug}",
        f"/access/{request.pk}/suspend",
    ):
        yield w.custodian, path
    yield w.checkers[0], "/checks/"
    yield w.checkers[0], f"/checks/{w.release.pk}"
    for output in w.release.run.outputs.all():
        yield w.checkers[0], f"/checks/{w.release.pk}/files/{output.pk}"


def look(w: Evil) -> tuple[int, list[str]]:
    wrong, shown = [], 0
    clients: dict[Any, Any] = {}
    for user, path in paths(w):
        client = clients.setdefault(user.pk, browser(user))
        response = client.get(path)
        text = response.content.decode()
        if response.status_code != 200 or LIVE.search(text):
            wrong.append(f"{path}: {response.status_code} {LIVE.findall(text)[:3]}")
        shown += "&lt;script&gt;alert(1)" in text
    return shown, wrong


def test_pages(w: Evil) -> None:
    shown, wrong = look(w)
    assert wrong == []
    assert shown > 40, "the words stand there, as words"


def test_pages_after_the_check(w: Evil) -> None:
    """The checkers' comments on the researchers' page."""
    for checker in w.checkers[:2]:
        actions.check_outputs(
            by=again(checker), output_release=again(w.release), decision="approve", comment=SAID
        )
    engine.build_package(w.release.pk)
    text = browser(w.member).get(f"/runs/{w.release.run_id}").content.decode()
    assert (
        "What the output checkers said" in text and "&lt;script&gt;alert(1)" in text and not LIVE.search(text)
    )


def test_refusals(w: Evil) -> None:
    """Sentences of errors name things too."""
    stranger = factories.person("Cy", w.archive, Role.CUSTODIAN)
    for user, method, path, data in (
        (stranger, "get", f"/my-datasets/versions/{w.dataset.versions.get().pk}/order", {}),
        (
            w.custodian,
            "post",
            f"/programs/{w.program_.pk}/decide/{w.dataset.pk}",
            {"decision": "refuse", "reason": SAID},
        ),
        (w.member, "post", f"/runs/{w.waiting.pk}/cancel", {"reason": SAID}),
        (
            w.member,
            "post",
            f"/projects/{w.project.pk}/programs/new",
            {"name": SAID, "note": SAID, "entry": SAID, "submission": SAID[:60]},
        ),
        (w.member, "get", f"/runs/?kind={EVIL}&state={EVIL}&project={EVIL}&page={EVIL}", {}),
    ):
        text = getattr(browser(user), method)(path, data).content.decode()
        assert not LIVE.search(text), path


def test_names_of_downloads(w: Evil) -> None:
    for output in w.release.run.outputs.all():
        header = browser(w.checkers[0]).get(f"/checks/{w.release.pk}/files/{output.pk}/content")[
            "Content-Disposition"
        ]
        assert header.startswith('attachment; filename="') and header.count('"') == 2 and "\n" not in header
