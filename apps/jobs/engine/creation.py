"""New runs: the row, its inputs, its manifest, its first history, and the kick that sets it moving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from apps.core.actors import System, require_actor
from apps.core.errors import Conflict, Denied
from apps.core.lifecycle import begin
from apps.core.outbox import enqueue
from apps.datasets.models import DatasetVersion, Stage1Release
from apps.datasets.states import ReleaseState, VersionState
from apps.jobs.engine.manifests import Input, freeze_manifest, manifest_digest
from apps.jobs.models import Program, Run, RunInput
from apps.jobs.states import RUN
from apps.projects.models import Project

ENGINE = System("run-engine")


def create_run(
    *,
    by: object,
    kind: str,
    project: Project | None = None,
    program: Program | None = None,
    version: DatasetVersion | None = None,
    release: Stage1Release | None = None,
    inputs: Sequence[Input],
    parameters: dict[str, Any] | None = None,
    submission: str | None = None,
    backend: str | None = None,
    size: str = "",
    time_limit: int | None = None,
) -> Run:
    """Record a run (state waiting) and ask the workers to look at it.

    inputs: (version, None) for the sealed version, (version, release) for its stand-in data. submission: the same one
    again gives the first run back, as does a second rehearsal of a program. Whether the person may ask, and
    whether the run may go on, is for the caller and for the gate. Raises IntegrityError
    (no_personal_data_under_software_evidence) where the database refuses an input.
    """
    actor = require_actor(by)
    usual = settings.REHEARSAL_BACKEND if kind == Run.Kind.REHEARSAL else settings.DEFAULT_BACKEND
    run = Run(
        kind=kind, project=project, program=program, version=version, release=release, requested_by=actor,
        backend=backend or usual, submission=submission, size=size, time_limit=time_limit,
    )  # fmt: skip
    try:
        with transaction.atomic():
            run.manifest = freeze_manifest(run, inputs, parameters)
            run.manifest_sha256 = manifest_digest(run.manifest)
            run.save(force_insert=True)
            RunInput.objects.bulk_create(
                RunInput(
                    run=run,
                    version=source,
                    release=made,
                    stage=2 if made is None else 1,
                    personal_data=source.dataset.personal_data,
                    backend=run.backend,
                )
                for source, made in inputs
            )
            begin(run, by=by, data={"kind": str(kind), "manifest": run.manifest_sha256})
            enqueue("advance_run", run.pk)
    except IntegrityError as error:
        first = _first(error, kind, program, submission)
        if first is None:
            raise
        return first
    return run


def _first(error: IntegrityError, kind: str, program: Program | None, submission: str | None) -> Run | None:
    """The run that was there already, where the error says that there can be one only."""
    if "one_rehearsal_a_program" in str(error):
        return Run.objects.filter(kind=kind, program=program).first()
    if submission and "submission" in str(error):
        return Run.objects.filter(submission=submission, kind=kind, program=program).first()
    return None


def create_profile_run(version: DatasetVersion, *, by: object = ENGINE) -> Run | None:
    """The profiling run of a version whose bytes were checked; the live one if there is one.

    None if the version does not wait for it. Raises Denied (no_hardware_protection) for real personal data where the
    portal's machines have software evidence only.
    """
    with transaction.atomic():
        row = (
            DatasetVersion.objects.select_for_update(of=("self",))
            .select_related("dataset")
            .get(pk=version.pk)
        )
        if row.state != VersionState.PROFILING:
            return None
        live = Run.objects.filter(kind=Run.Kind.PROFILE, version=row).exclude(state__in=RUN.final).first()
        if live is not None:
            return live
        _refuse_unprotected(row)
        return create_run(
            by=by,
            kind=Run.Kind.PROFILE,
            version=row,
            inputs=[(row, None)],
            parameters={"threshold": settings.SMALL_CELL_THRESHOLD},
        )


def create_release_run(release: Stage1Release, *, by: object = ENGINE) -> Run | None:
    """The run that makes an ordered stage-1 release; moves the release to "being made". Repeated, the first run.

    None if the release is past that. Raises Denied (no_hardware_protection), Conflict (the version is not accepted).
    """
    from apps.datasets import actions as datasets

    with transaction.atomic():
        row = (
            Stage1Release.objects.select_for_update(of=("self",))
            .select_related("version__dataset")
            .get(pk=release.pk)
        )
        first = Run.objects.filter(kind=Run.Kind.SYNTHESISE, release=row).first()
        if first is not None or row.state != ReleaseState.ORDERED:
            return first
        if row.version.state != VersionState.ACCEPTED:
            raise Conflict(
                "version_not_accepted",
                "The dataset version has not passed its check.",
                "Order it for an accepted version.",
            )
        _refuse_unprotected(row.version)
        run = create_run(
            by=by,
            kind=Run.Kind.SYNTHESISE,
            release=row,
            version=row.version,
            inputs=[(row.version, None)],
            parameters={**row.parameters, "method": str(row.method)},
        )
        datasets.release_making(by=by, release=row)
        return run


def _refuse_unprotected(version: DatasetVersion) -> None:
    if version.dataset.personal_data and settings.DEFAULT_BACKEND in settings.SOFTWARE_BACKENDS:
        raise Denied(
            "no_hardware_protection",
            "The dataset holds real personal data, and this portal's machines have software evidence only, "
            "which protects nothing.",
            "It can be opened once the operator has set up a backend with hardware evidence.",
        )
