"""The gate: every condition that a run on real data must meet, asked at submit, at key release and at output release.

`evaluate` is pure: facts in, the list of unmet conditions out. `facts_for` reads the facts. The list is what the page
shows, so each condition says what is missing, what to do, and whose move it is. Refuse by default: a fact that cannot
be read is an unmet condition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime

from django.conf import settings

from apps.accounts.models import User
from apps.accounts.queries import terms_accepted, training_valid
from apps.core.errors import GateClosed
from apps.datasets.brokers import is_admitted
from apps.datasets.models import DatasetVersion
from apps.datasets.queries import active_access
from apps.datasets.states import DatasetState, VersionState
from apps.jobs import spending
from apps.jobs.models import Program, ProgramApproval, Run
from apps.jobs.states import RUN, RunState
from apps.projects.models import Project
from apps.projects.permissions import is_member
from apps.projects.states import ProjectState

MAX_LIVE_RUNS = 5


@dataclass(frozen=True)
class Condition:
    """One unmet condition. `owner`: whose move it is (researcher, custodian, ethics board, operator)."""

    code: str
    detail: str
    remedy: str
    owner: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class DatasetFacts:
    title: str
    published: bool
    version_accepted: bool
    access_active: bool
    program_decision: str  # "", approved, refused, revoked
    personal_data: bool
    broker_admitted: bool  # the portal may ask the key broker that holds its keys


@dataclass(frozen=True)
class Facts:
    """Everything that the gate looks at, at one moment."""

    person_active: bool
    person_is_member: bool
    training_valid: bool
    terms_accepted: bool
    project_state: str
    project_starts_on: date | None
    project_ends_on: date | None
    ethics_valid_until: date | None
    rehearsal_state: str
    live_runs: int
    backend: str
    backend_known: bool
    datasets: tuple[DatasetFacts, ...]
    today: date
    size_allowed: bool  # the project may choose this size of machine
    longest_seconds: int  # the longest time limit that it may choose
    time_limit: int | None
    budget_fault: str  # "", unknown_price, spent


def evaluate(facts: Facts) -> list[Condition]:
    """Every unmet condition, people first, in the order of the Five Safes."""
    unmet: list[Condition] = []

    def need(met: bool, code: str, detail: str, remedy: str, owner: str) -> None:
        if not met:
            unmet.append(Condition(code, detail, remedy, owner))

    need(
        facts.person_active,
        "person_inactive",
        "The person who asked for this run has no active account.",
        "Ask the operator.",
        "operator",
    )
    need(
        facts.person_is_member,
        "not_a_member",
        "The person who asked for this run is not a member of the project.",
        "Ask the principal investigator for an invitation.",
        "researcher",
    )
    need(
        facts.training_valid,
        "training_missing",
        "The person who asked for this run has no training in handling sensitive data from the last three years.",
        "Complete the training and ask the operator to record it.",
        "researcher",
    )
    need(
        facts.terms_accepted,
        "terms_not_accepted",
        "The person who asked for this run has not accepted the present terms of use.",
        "Accept them on the account page.",
        "researcher",
    )
    need(
        facts.project_state in (ProjectState.APPROVED, ProjectState.ACTIVE),
        "project_not_active",
        "The project is not approved and active.",
        "See the project's page for where it stands.",
        "ethics board",
    )
    need(
        facts.project_starts_on is None or facts.project_starts_on <= facts.today,
        "project_not_started",
        "The project's start date has not come.",
        "Wait for it, or amend the project.",
        "researcher",
    )
    need(
        facts.project_ends_on is None or facts.project_ends_on >= facts.today,
        "project_ended",
        "The project's end date has passed.",
        "Apply for an extension.",
        "researcher",
    )
    need(
        facts.ethics_valid_until is not None and facts.ethics_valid_until >= facts.today,
        "ethics_not_valid",
        "There is no ethics opinion in force.",
        "Apply to the ethics board, or for renewal.",
        "ethics board",
    )
    need(
        facts.rehearsal_state == RunState.SUCCEEDED,
        "rehearsal_not_succeeded",
        "The program has not succeeded in its rehearsal on stand-in data.",
        "Read the rehearsal's log, mend the program and submit it again.",
        "researcher",
    )
    need(
        bool(facts.datasets),
        "no_dataset",
        "The program names no dataset.",
        "Submit it again and choose its datasets.",
        "researcher",
    )
    for dataset in facts.datasets:
        need(
            dataset.published,
            "dataset_not_published",
            f"“{dataset.title}” is not open for use at the moment: its custodian has suspended or withdrawn it.",
            "Ask its custodian.",
            "custodian",
        )
        need(
            dataset.version_accepted,
            "version_not_accepted",
            f"The version of “{dataset.title}” has not passed its profiling run.",
            "Wait, or ask its custodian.",
            "custodian",
        )
        need(
            dataset.access_active,
            "access_not_active",
            f"There is no access to “{dataset.title}” in force: a decision, a signature or an end date is missing.",
            "See the access request's page.",
            "custodian",
        )
        need(
            dataset.program_decision == ProgramApproval.Decision.APPROVED,
            "program_not_approved",
            _decision(dataset),
            "The custodian decides on the program's page."
            if dataset.program_decision != "refused"
            else "Change the program as the custodian asked and submit it again.",
            "custodian",
        )
        need(
            dataset.broker_admitted,
            "key_broker_unknown",
            f"The keys of “{dataset.title}” lie with a key broker that the operator has taken off this portal's list.",
            "Ask the operator to put it back.",
            "operator",
        )
        need(
            not (dataset.personal_data and facts.backend in settings.SOFTWARE_BACKENDS),
            "no_hardware_protection",
            f"“{dataset.title}” holds real personal data, and this portal's machine has software evidence only, which protects nothing.",
            "It can run once the operator has set up a backend with hardware evidence.",
            "operator",
        )
    need(
        facts.backend_known,
        "backend_unknown",
        "The machine kind asked for is not set up here.",
        "Ask the operator.",
        "operator",
    )
    need(
        facts.size_allowed,
        "size_not_allowed",
        "The project may not use the size of machine that was chosen, or it is not offered any more.",
        "Choose another size, or ask the operator to allow it.",
        "operator",
    )
    need(
        facts.time_limit is None or facts.time_limit <= facts.longest_seconds,
        "time_limit_not_allowed",
        f"The time limit that was chosen is longer than the {facts.longest_seconds:,} seconds that the project may use.",
        "Choose a shorter time, or ask the operator to allow more.",
        "operator",
    )
    need(
        not facts.budget_fault,
        "budget_exceeded",
        "The project has a budget for machines, and the price of this one is not known."
        if facts.budget_fault == "unknown_price"
        else "What this run may cost is more than is left of the project's budget for machines.",
        "Choose a smaller size or a shorter time, wait for live runs to end, or ask the operator to raise the budget.",
        "operator",
    )
    need(
        facts.live_runs < MAX_LIVE_RUNS,
        "too_many_runs",
        f"The project has {facts.live_runs} runs under way; {MAX_LIVE_RUNS} are allowed at once.",
        "Wait for one to end, or cancel one.",
        "researcher",
    )
    return unmet


def _decision(dataset: DatasetFacts) -> str:
    match dataset.program_decision:
        case "refused":
            return f"The custodian of “{dataset.title}” refused this program."
        case "revoked":
            return f"The custodian of “{dataset.title}” took the approval of this program back."
        case _:
            return f"The custodian of “{dataset.title}” has not approved this program yet."


def facts_for(
    *,
    project: Project,
    program: Program,
    versions: Sequence[DatasetVersion],
    backend: str,
    person: User | None,
    moment: datetime,
    run: Run | None = None,
    size: str = "",
    time_limit: int | None = None,
) -> Facts:
    """Read the facts now, from the database, not from objects that may be old."""
    project = Project.objects.get(pk=project.pk)
    decisions = dict(
        ProgramApproval.objects.filter(program=program, program_sha256=program.sha256).values_list(
            "dataset_id", "decision"
        )
    )
    rehearsal = program.runs.filter(kind=Run.Kind.REHEARSAL).values_list("state", flat=True).first()
    live = Run.objects.filter(project=project, kind=Run.Kind.RESEARCH).exclude(
        state__in=[*RUN.final, RunState.WAITING]
    )
    if run is not None:
        live = live.exclude(pk=run.pk)
    fresh = DatasetVersion.objects.select_related("dataset").filter(pk__in=[v.pk for v in versions])
    return Facts(
        person_active=bool(person and person.is_active),
        person_is_member=bool(person and is_member(person, project)),
        training_valid=bool(person and training_valid(person)),
        terms_accepted=bool(person and terms_accepted(person)),
        project_state=project.state,
        project_starts_on=project.starts_on,
        project_ends_on=project.ends_on,
        ethics_valid_until=project.ethics_valid_until,
        rehearsal_state=rehearsal or "",
        live_runs=live.count(),
        backend=backend,
        backend_known=backend in settings.RUN_BACKENDS,
        datasets=tuple(
            DatasetFacts(
                title=version.dataset.title,
                published=version.dataset.state == DatasetState.PUBLISHED,
                version_accepted=version.state == VersionState.ACCEPTED,
                access_active=active_access(project, version.dataset) is not None,
                program_decision=decisions.get(version.dataset_id, ""),
                personal_data=version.dataset.personal_data,
                broker_admitted=is_admitted(version.dataset),
            )
            for version in fresh
        ),
        today=moment.date(),
        size_allowed=not size or size in spending.allowed_sizes(project, backend),
        longest_seconds=spending.longest_seconds(project),
        time_limit=time_limit,
        budget_fault=spending.budget_fault(project, backend, size, time_limit, run),
    )


def unmet(
    *,
    project: Project,
    program: Program,
    versions: Sequence[DatasetVersion],
    backend: str,
    person: User | None,
    moment: datetime,
    run: Run | None = None,
    size: str = "",
    time_limit: int | None = None,
) -> list[Condition]:
    """The unmet conditions of a research run; empty means that it may go on."""
    return evaluate(
        facts_for(
            project=project,
            program=program,
            versions=versions,
            backend=backend,
            person=person,
            moment=moment,
            run=run,
            size=size,
            time_limit=time_limit,
        )
    )


def unmet_for_run(run: Run, moment: datetime) -> list[Condition]:
    """The gate for an existing run. Rehearsals, profiling and synthesis have conditions of their own, not these."""
    if run.kind != Run.Kind.RESEARCH:
        return []
    assert run.project is not None and run.program is not None  # a database constraint
    person = (
        User.objects.filter(pk=run.requested_by.removeprefix("user:")).first()
        if run.requested_by.startswith("user:")
        else None
    )
    versions = [entry.version for entry in run.inputs.select_related("version")]
    return unmet(
        project=run.project,
        program=run.program,
        versions=versions,
        backend=run.backend,
        person=person,
        moment=moment,
        run=run,
        size=run.size,
        time_limit=run.time_limit,
    )


def require_open(run: Run, moment: datetime) -> None:
    """Raise GateClosed with every unmet condition, or return."""
    if conditions := unmet_for_run(run, moment):
        raise GateClosed([condition.as_dict() for condition in conditions])
