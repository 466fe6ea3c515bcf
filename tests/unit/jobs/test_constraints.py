"""The database's own locks on the doors of jobs, each tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from apps.core.clock import now
from apps.jobs.models import Output, OutputCheck, OutputRelease, Program, ProgramApproval, Run, RunInput
from tests.factories import World, again


@pytest.fixture(scope="module")
def _released(_world: World) -> OutputRelease:
    return _world.released()


@pytest.fixture
def release(w: World, _released: OutputRelease) -> Iterator[OutputRelease]:
    yield again(_released)


def run_like(run: Run, **changes: Any) -> Run:
    given = {
        "kind": "research",
        "project": run.project,
        "program": run.program,
        "requested_by": "user:x",
        "backend": "local",
        **changes,
    }
    return Run.objects.create(**given)


CASES: dict[str, Callable[[OutputRelease], Any]] = {
    "program_submitted_once": lambda r: Program.objects.create(
        project=r.run.project, name="p", kind="py", entry="p.py", sha256="0" * 64, size=1, object_name="o",
        uploaded_by=r.run.program.uploaded_by, submission=r.run.program.submission,
    ),
    "program_decided_once": lambda r: ProgramApproval.objects.create(
        program=r.run.program, dataset=r.run.program.approvals.get().dataset, program_sha256="0" * 64, decision="refused", by="user:x"
    ),
    "program_approval_has_actor": lambda r: r.run.program.approvals.update(by=""),
    "program_approval_revoked_with_reason": lambda r: r.run.program.approvals.update(decision="revoked"),
    "run_kind_has_its_subject": lambda r: run_like(r.run, program=None),
    "no_success_without_statement": lambda r: run_like(r.run, state="succeeded"),
    "one_rehearsal_a_program": lambda r: run_like(r.run, kind="rehearsal"),
    "submission": lambda r: run_like(r.run, submission=r.run.submission),
    "run_input_once": lambda r: RunInput.objects.create(
        run=r.run, version=r.run.inputs.get().version, stage=2, personal_data=False, backend="local"
    ),
    "run_input_stage": lambda r: r.run.inputs.update(stage=1),
    "no_personal_data_under_software_evidence": lambda r: r.run.inputs.update(personal_data=True),
    "two_different_checkers": lambda r: OutputRelease.objects.filter(pk=r.pk).update(second_checker=r.first_checker),
    "release_needs_two_checkers": lambda r: OutputRelease.objects.filter(pk=r.pk).update(second_checker=None),
    "released_means_packed": lambda r: OutputRelease.objects.filter(pk=r.pk).update(package_sha256=""),
    "output_once": lambda r: Output.objects.create(
        run=r.run, path=r.run.outputs.first().path, sha256="0" * 64, size=1, media_type="text/csv", object_name="o"
    ),
    "one_check_a_person": lambda r: OutputCheck.objects.create(output_release=r, checker=r.first_checker, decision="approve"),
}  # fmt: skip
SUBJECTS = [
    {"kind": "profile"}, {"kind": "synthesise"}, {"kind": "rehearsal", "project": None}, {"kind": "research", "project": None},
    {"kind": "unheard-of"},
]  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_refused_by_the_database(release: OutputRelease, name: str) -> None:
    with pytest.raises(IntegrityError, match=name), transaction.atomic():
        CASES[name](release)


@pytest.mark.parametrize(
    "changes",
    [{"decision": "revoked", "revoked_at": now()}, {"revocation_reason": "A leak."}, {"revoked_at": now()}],
)
def test_a_revocation_has_a_reason_of_its_own(release: OutputRelease, changes: dict[str, Any]) -> None:
    approvals = ProgramApproval.objects.filter(program=release.run.program)
    with pytest.raises(IntegrityError, match="revoked_with_reason"), transaction.atomic():
        approvals.update(**changes)


@pytest.mark.parametrize("changes", SUBJECTS)
def test_each_kind_of_run_has_its_subject(release: OutputRelease, changes: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError, match="run_kind_has_its_subject"), transaction.atomic():
        run_like(release.run, **changes)


def test_every_constraint_is_tried() -> None:
    named = {
        c.name
        for model in (Program, ProgramApproval, Run, RunInput, OutputRelease, Output, OutputCheck)
        for c in model._meta.constraints
    }
    assert named <= set(CASES)


def test_personal_data_may_run_elsewhere(release: OutputRelease) -> None:
    release.run.inputs.update(personal_data=True, backend="azure")
