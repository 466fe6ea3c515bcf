"""Reads for the pages and the API about programs, runs and outputs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO

from django.db.models import Exists, OuterRef, Prefetch, QuerySet
from django.urls import reverse
from django.utils.html import format_html

from apps.accounts.models import User
from apps.core.clock import now
from apps.core.errors import NotFound
from apps.core.objects import store
from apps.core.tasks import Waiting
from apps.datasets.permissions import managed
from apps.jobs import permissions
from apps.jobs.codes import describe
from apps.jobs.models import Output, OutputRelease, Program, ProgramApproval, Run
from apps.jobs.states import OUTPUT_RELEASE, RUN, OutputState, RunState
from apps.projects.models import Project
from apps.projects.permissions import parts_of
from apps.projects.queries import Panel

PHASES = (
    ("claimed", "Machine started"), ("attesting", "Attestation"), ("fetching", "Fetching data"), ("decrypting", "Opening data"),
    ("running", "Program runs"), ("checking", "Checking outputs"), ("sealing", "Sealing outputs"), ("uploading", "Handing in"),
)  # fmt: skip
PREVIEW_BYTES = 256 * 1024
ROWS_A_PAGE = 50
# The csv module's own limit is the process's, and others may have changed it.
LONGEST_CELL = 128 << 10  # characters
LONGEST_LINE = 1 << 20


def run_for(user: User | Any, pk: Any) -> Run:
    """The run, if the person may know of it, or could check its outputs. Raises NotFound."""
    run = permissions.visible_runs(user).filter(pk=pk).first()
    if run is None:
        raise NotFound("run")
    return run


def program_for(user: User | Any, pk: Any) -> Program:
    """The program, if the person may see it. Raises NotFound."""
    program = permissions.visible_programs(user).filter(pk=pk).first()
    if program is None:
        raise NotFound("program")
    return program


def release_for_checker(user: User | Any, pk: Any) -> OutputRelease:
    """Outputs with their files, for a checker in no relation to the project. Raises NotFound."""
    release = (
        OutputRelease.objects.select_related("run__project", "run__program")
        .prefetch_related("run__outputs", "checks__checker")
        .filter(pk=pk)
        .first()
    )
    if release is None or not permissions.can_see_outputs(user, release):
        raise NotFound("set of outputs")
    return release


def runs_list(user: User | Any, *, kind: str = "", state: str = "", project: str = "") -> QuerySet[Run]:
    """The person's runs, newest first, filtered by what the address says."""
    runs = (
        permissions.visible_runs(user)
        .select_related("output_release")
        .defer("manifest", "statement", "sealed")
    )
    runs = runs.order_by("-created_at", "-pk")
    if kind in Run.Kind.values:
        runs = runs.filter(kind=kind)
    if state in RUN.labels:
        runs = runs.filter(state=state)
    if project:
        runs = runs.filter(project__ref=project) if project.isprintable() else runs.none()
    return runs


@dataclass(frozen=True)
class Standing:
    """Where a run stands, in words and numbers, for the page, the API and the command line."""

    state: str
    label: str
    sentence: str
    phase: str
    done: int
    total: int
    elapsed: int
    finished: bool
    settled: bool  # nothing more will happen by itself
    keys_unknown_since: datetime | None = (
        None  # a custodian's key broker does not say whether its keys still stand
    )


def standing(run: Run) -> Standing:
    """Read from the run's row alone (and its output release, if it has one)."""
    end = run.ended_at or now()
    begin = run.started_at or run.queued_at or run.created_at
    finished = run.state in RUN.final
    said = describe(run.code)
    release = getattr(run, "output_release", None)
    opening = run.state == RunState.SUCCEEDED and not run.outputs_opened
    return Standing(
        state=run.state,
        label=RUN.labels[run.state],
        sentence=f"{said.sentence} {said.remedy}".strip(),
        phase=run.phase,
        done=run.phase_done,
        total=run.phase_total,
        elapsed=max(0, int((end - begin).total_seconds())),
        finished=finished,
        settled=finished
        and not opening
        and (release is None or release.state not in (OutputState.COLLECTED, OutputState.APPROVED)),
        keys_unknown_since=run.keys_unknown_since if run.state == RunState.RUNNING else None,
    )


def refresh_seconds(run: Run, standing: Standing) -> int:
    """How often the run's page asks anew: at once while something moves, seldom while people look, 0 for never again."""
    if not standing.settled:
        return 2
    return 10 if outputs_state(run) in permissions.CHECKABLE else 0


def outputs_state(run: Run) -> str:
    """The state of the run's outputs on their way out; empty while it has none."""
    release = getattr(run, "output_release", None)
    return str(release.state) if release else ""


def programs_of(project: Any) -> QuerySet[Program]:
    """Programs of a project with their rehearsal, newest first."""
    rehearsals = Run.objects.filter(kind=Run.Kind.REHEARSAL)
    return (
        Program.objects.filter(project=project).select_related("uploaded_by")
        .prefetch_related(Prefetch("runs", queryset=rehearsals, to_attr="rehearsals"), "versions__dataset", "approvals")
        .order_by("-created_at")
    )  # fmt: skip


def described(programs: QuerySet[Program]) -> QuerySet[Program]:
    """With all that the API says of a program, in a constant number of queries."""
    runs = Run.objects.only("kind", "program_id")
    return programs.prefetch_related(
        "approvals__dataset", "versions__dataset", Prefetch("runs", queryset=runs)
    )


def programs_to_decide(user: User | Any) -> QuerySet[Program]:
    """Programs that succeeded in rehearsal and lack this custodian's decision."""
    decided = ProgramApproval.objects.filter(
        program=OuterRef("program_id"), dataset=OuterRef("datasetversion__dataset_id")
    )
    rehearsed = Run.objects.filter(
        program=OuterRef("program_id"), kind=Run.Kind.REHEARSAL, state=RunState.SUCCEEDED
    )
    undecided = Program.versions.through.objects.filter(
        ~Exists(decided), Exists(rehearsed), datasetversion__dataset_id__in=managed(user).values("pk")
    )
    return (
        Program.objects.filter(pk__in=undecided.values("program_id").distinct())
        .exclude(project__in=parts_of(user))
        .select_related("project")
        .defer("project__answers")
    )


def approvals_table(program: Program) -> list[dict[str, Any]]:
    """Each dataset of the program with its custodian's decision, or none yet."""
    decided = {approval.dataset_id: approval for approval in program.approvals.all()}
    return [
        {"version": version, "dataset": version.dataset, "approval": decided.get(version.dataset_id)}
        for version in program.versions.select_related("dataset__custodian").order_by("dataset__title")
    ]


def _named(run: Run) -> str:
    """The run by its program and project, as a list shows it."""
    program = run.program.name if run.program else run.get_kind_display()
    return f"{program} ({run.project.ref})" if run.project else program


def waiting_for(user: User) -> list[Waiting]:
    """Programs to decide on, outputs to check, rehearsals that ended badly, packages that are ready."""
    waiting: list[Waiting] = []
    for program in programs_to_decide(user)[:20]:
        waiting.append(
            Waiting(
                "Programs to approve",
                f"{program.name} ({program.project.ref})",
                reverse("jobs:program", args=[program.pk]),
                "to decide",
                "yellow",
            )
        )
    for release in permissions.checkable(user)[:20]:
        waiting.append(
            Waiting(
                "Outputs to check",
                _named(release.run),
                reverse("jobs:check", args=[release.pk]),
                OUTPUT_RELEASE.labels[release.state],
                OUTPUT_RELEASE.colours[release.state],
            )
        )
    mine = user.memberships.filter(accepted_at__isnull=False, left_at__isnull=True).values("project_id")
    ready = (
        OutputRelease.objects.filter(state=OutputState.RELEASED, run__project_id__in=mine)
        .select_related("run__program", "run__project")
        .defer("run__manifest", "run__statement", "run__sealed", "run__project__answers")
    )
    for release in ready.order_by("-created_at")[:5]:
        waiting.append(
            Waiting(
                "Released outputs",
                _named(release.run),
                reverse("jobs:run", args=[release.run_id]),
                "Released",
                "green",
            )
        )
    live = (
        Run.objects.filter(project_id__in=mine)
        .exclude(state__in=RUN.final)
        .select_related("program", "project")
        .defer("manifest", "project__answers")
    )
    for run in live.order_by("-created_at")[:10]:
        waiting.append(
            Waiting(
                "Runs under way",
                f"{_named(run)}: {run.get_kind_display()}",
                reverse("jobs:run", args=[run.pk]),
                RUN.labels[run.state],
                RUN.colours[run.state],
            )
        )
    return waiting


@dataclass(frozen=True)
class Preview:
    """A file as a checker or researcher looks at it. Never executed, never sent as a page of its own."""

    kind: str  # table, image, text, none
    head: list[str]
    rows: list[list[str]]
    text: str
    page: int
    pages: int
    note: str


def preview(output: Output, page: int = 1) -> Preview:
    """Read as much of the file as a person looks at: CSV by pages, text cut at 256 KB, PNG and JPEG as images."""
    if output.media_type == "text/csv":
        return _table(output, page)
    if output.media_type in ("image/png", "image/jpeg"):
        return Preview("image", [], [], "", 1, 1, "")
    if output.media_type.startswith("text/") or output.media_type == "application/json":
        with store().open(output.object_name) as reader:
            raw = reader.read(PREVIEW_BYTES + 1)
        note = (
            "Only the first 256 KB are shown. Download the file to see the rest."
            if len(raw) > PREVIEW_BYTES
            else ""
        )
        return Preview(
            "text",
            [],
            [],
            raw[:PREVIEW_BYTES].decode("utf-8", "replace").replace("\x00", "\ufffd"),
            1,
            1,
            note,
        )
    return Preview(
        "none", [], [], "", 1, 1, "This kind of file cannot be shown here. Download it to look at it."
    )


def page_number(text: str) -> int:
    """The number in an address's ?page=; 1 for anything else."""
    return max(int(text), 1) if text.isascii() and text.isdigit() and len(text) <= 7 else 1


def _lines(binary: BinaryIO) -> Iterator[str]:
    """Lines of UTF-8 text. Raises csv.Error for one that no table has: a file is not read into memory by one line."""
    text = io.TextIOWrapper(binary, encoding="utf-8", errors="replace", newline="")
    while line := text.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise csv.Error("line too long")
        yield line.replace("\x00", "\ufffd")


def _table(output: Output, page: int) -> Preview:
    head: list[str] = []
    rows: list[list[str]] = []
    first, count, note = (max(page, 1) - 1) * ROWS_A_PAGE, 0, ""
    with store().open(output.object_name) as binary:
        reader = csv.reader(_lines(binary))
        try:
            head = [cell[:500] for cell in next(reader, [])[:200]]
            for count, row in enumerate(reader, start=1):
                if any(len(cell) > LONGEST_CELL for cell in row):
                    raise csv.Error("cell too long")
                if first < count <= first + ROWS_A_PAGE:
                    cells = [cell[:500] for cell in row[: len(head)]]
                    rows.append(cells + [""] * (len(head) - len(cells)))
        except csv.Error:
            note = "The rest of the file is not readable as CSV. Download it to look at it."
    return Preview("table", head, rows, "", max(page, 1), max(1, -(-count // ROWS_A_PAGE)), note)


def decisions_on(program: Program) -> QuerySet[ProgramApproval]:
    return program.approvals.select_related("dataset").order_by("created_at")


def project_panel(user: User, project: Project) -> Panel:
    """The project's newest programs, on the project's page."""
    rows = []
    for program in programs_of(project)[:10]:
        rehearsal = program.rehearsals[0] if program.rehearsals else None  # type: ignore[attr-defined]
        rows.append(
            [
                format_html(
                    '<a class="govuk-link" href="{}">{}</a>',
                    reverse("jobs:program", args=[program.pk]),
                    program.name,
                ),
                RUN.labels[rehearsal.state] if rehearsal else "None",
                program.uploaded_by.name,
            ]
        )
    return Panel(
        heading="Programs",
        head=["Program", "Rehearsal", "Submitted by"],
        rows=rows,
        empty="No programs yet. One can be submitted once access to a dataset is in force.",
        links=[
            {"text": "Submit a program", "href": reverse("jobs:program_new", args=[project.pk])},
            {"text": "All programs of this project", "href": reverse("jobs:programs", args=[project.pk])},
        ],
    )
