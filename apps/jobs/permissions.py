"""Who may see, start, stop and check runs. Separation of duties stands here and in database constraints."""

from __future__ import annotations

from typing import Any

from django.db.models import Q, QuerySet

from apps.accounts.models import User
from apps.accounts.permissions import holds, organisations_of, require_role
from apps.accounts.roles import Role
from apps.core.errors import Denied
from apps.datasets.models import Dataset, DatasetVersion
from apps.datasets.permissions import acts_for, managed, require_acts_for
from apps.jobs.models import OutputRelease, Program, ProgramApproval, Run, RunInput
from apps.jobs.states import OutputState
from apps.projects.permissions import belongs, is_member, parts_of, refuse_belonging, require_member

CHECKABLE = (OutputState.IN_REVIEW, OutputState.APPROVED_ONCE)
# Documents of what a run belongs to: kilobytes a row that neither lists nor the run's page show.
_VERSION = ("dictionary", "profile", "report", "seal", "dataset__dictionary")
WIDE_AROUND_A_RUN = (
    "project__answers",
    "program__files",
    *(f"version__{name}" for name in _VERSION),
    "release__report",
    *(f"release__version__{name}" for name in _VERSION),
)


def visible_runs(user: User | Any) -> QuerySet[Run]:
    """Runs that the person may know of: their projects', those on their datasets or on stand-in data of them; auditors
    see all. Of what a rehearsal read and wrote, `can_read_rehearsal` shows more."""
    runs = Run.objects.select_related(
        "project", "program", "version__dataset", "release__version__dataset"
    ).defer(*WIDE_AROUND_A_RUN)
    if not getattr(user, "is_authenticated", False) or not user.is_active:
        return runs.none()
    if holds(user, Role.AUDITOR):
        return runs
    mine = user.memberships.filter(accepted_at__isnull=False, left_at__isnull=True).values("project_id")
    if not organisations_of(user, Role.CUSTODIAN):
        return runs.filter(Q(project_id__in=mine))
    versions = DatasetVersion.objects.filter(dataset_id__in=managed(user).values("pk")).values("pk")
    # As sets of ids: joins over relations in one OR would multiply rows and defeat the indexes. Every run has its inputs
    # (engine.create_run), profiling and making stand-in data too; and rehearsals: whoever decides on a program looks at
    # how it was rehearsed.
    on_theirs = RunInput.objects.filter(version_id__in=versions).values("run_id")
    return runs.filter(Q(project_id__in=mine) | Q(pk__in=on_theirs))


def can_view_run(user: User | Any, run: Run) -> bool:
    return visible_runs(user).filter(pk=run.pk).exists()


def can_read_rehearsal(user: User | Any, run: Run) -> bool:
    """Log and outputs of a rehearsal: the project's members, and the custodians who decide on the program."""
    if run.kind != Run.Kind.REHEARSAL or run.project is None:
        return False
    return is_member(user, run.project) or (run.program is not None and can_decide_program(user, run.program))


def visible_programs(user: User | Any) -> QuerySet[Program]:
    programs = Program.objects.select_related("project", "uploaded_by")
    if not getattr(user, "is_authenticated", False) or not user.is_active:
        return programs.none()
    mine = user.memberships.filter(accepted_at__isnull=False, left_at__isnull=True).values("project_id")
    named = Program.objects.filter(versions__dataset_id__in=managed(user).values("pk")).values("pk")
    return programs.filter(Q(project_id__in=mine) | Q(pk__in=named))


def decidable_datasets(user: User | Any, program: Program) -> list[Dataset]:
    """Datasets of the program for which the person acts and may decide on the program."""
    if belongs(user, program.project):
        return []
    datasets = Dataset.objects.filter(versions__programs=program).select_related("custodian").distinct()
    return [dataset for dataset in datasets if acts_for(user, dataset)]


def can_decide_program(user: User | Any, program: Program) -> bool:
    return bool(decidable_datasets(user, program))


def require_decide_program(user: User | Any, program: Program, dataset: Dataset) -> None:
    """A custodian of the dataset, in no relation to the project."""
    require_acts_for(user, dataset, to="decide on a program for it")
    refuse_belonging(user, program.project, to="decide on its programs")
    if not program.versions.filter(dataset=dataset).exists():
        raise Denied(
            "dataset_not_named",
            "The program does not read this dataset.",
            "Choose one of the program's datasets.",
        )


def require_submit(user: User | Any, project: Any) -> None:
    require_member(user, project, to="submit programs for it")


def can_cancel(user: User | Any, run: Run) -> bool:
    """A member of the run's project, or anybody acting for the custodian of one of its datasets."""
    if run.project is not None and is_member(user, run.project):
        return True
    return any(acts_for(user, dataset) for dataset in datasets_of(run))


def require_cancel(user: User | Any, run: Run) -> None:
    if not can_cancel(user, run):
        raise Denied(
            "cannot_cancel",
            "Only a member of the project or a custodian of one of the datasets can stop this run.",
            "Ask one of them.",
        )


def datasets_of(run: Run) -> list[Dataset]:
    """Every dataset that the run touches."""
    if run.version is not None:
        return [run.version.dataset]
    if run.release is not None:
        return [run.release.version.dataset]
    return list(Dataset.objects.filter(versions__run_inputs__run=run).select_related("custodian").distinct())


def checkable(user: User | Any) -> QuerySet[OutputRelease]:
    """Outputs that wait for this checker: not those they have decided on, not of a project they have, or had, a part in, not
    made from a dataset that they act for."""
    releases = OutputRelease.objects.select_related("run__project", "run__program").defer(
        "run__manifest", "run__statement", "run__sealed", "run__project__answers", "run__program__files"
    )
    if not holds(user, Role.OUTPUT_CHECKER):
        return releases.none()
    return (
        releases.filter(state__in=CHECKABLE)
        .exclude(run__project__in=parts_of(user))
        .exclude(checks__checker=user)
        .exclude(run__in=Run.objects.filter(inputs__version__dataset__in=managed(user)).values("pk"))
    )


def can_see_outputs(user: User | Any, release: OutputRelease) -> bool:
    """Files under review: output checkers in no relation to project or data. Nobody else, the researcher least of all."""
    if release.run.project is None:
        return False
    try:
        require_check(user, release)
    except Denied:
        return False
    return True


def require_check(user: User | Any, release: OutputRelease) -> None:
    require_role(user, Role.OUTPUT_CHECKER, to="check outputs")
    assert release.run.project is not None  # only research runs have outputs to release
    refuse_belonging(user, release.run.project, to="check its outputs")
    if any(acts_for(user, dataset) for dataset in datasets_of(release.run)):
        raise Denied(
            "custodian_of_input",
            "You act for the custodian of one of the datasets, so you cannot also check what came out of them.",
            "Another output checker has to do it.",
        )


def can_download_package(user: User | Any, release: OutputRelease) -> bool:
    """Members of the project, once released."""
    return (
        release.state == OutputState.RELEASED
        and release.run.project is not None
        and is_member(user, release.run.project)
    )


def require_revoke_approval(user: User | Any, approval: ProgramApproval) -> None:
    require_acts_for(user, approval.dataset, to="take back an approval")


def revocable_approvals(user: User | Any, program: Program) -> list[ProgramApproval]:
    """Approvals in force that the person may take back: `require_revoke_approval`, for a page."""
    approvals = program.approvals.filter(decision=ProgramApproval.Decision.APPROVED)
    return [a for a in approvals.select_related("dataset__custodian") if acts_for(user, a.dataset)]


def can_revoke_release(user: User | Any, release: OutputRelease) -> bool:
    """The same rule as `require_revoke_release`, for what is released."""
    if release.state != OutputState.RELEASED:
        return False
    try:
        require_revoke_release(user, release)
    except Denied:
        return False
    return True


def require_revoke_release(user: User | Any, release: OutputRelease) -> None:
    """An output checker, or a custodian of one of the datasets."""
    if holds(user, Role.OUTPUT_CHECKER) and not belongs(user, release.run.project):
        return
    if not any(acts_for(user, dataset) for dataset in datasets_of(release.run)):
        raise Denied(
            "cannot_revoke",
            "Only an output checker or a custodian of one of the datasets can revoke a release.",
            "Ask one of them.",
        )
