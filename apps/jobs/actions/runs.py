"""Asking for a run on the real data, and stopping one."""

from __future__ import annotations

import hashlib

from django.conf import settings
from django.db import IntegrityError, transaction

from apps.accounts.models import User
from apps.core.errors import Conflict, Invalid
from apps.core.lifecycle import recorder
from apps.core.outbox import enqueue
from apps.jobs import permissions
from apps.jobs.engine import create_run
from apps.jobs.models import Program, Run
from apps.jobs.spending import allowed_sizes, longest_seconds, usual_seconds
from apps.jobs.states import RUN, RunState


def submit_run(
    *, by: User, program: Program, submission: str, size: str = "", time_limit: int | None = None
) -> Run:
    """Ask that `program` run on the real data. The run waits until the gate has no unmet condition.

    size: of the machine, among those that the project may choose; "" for the smallest that fits. time_limit: seconds for
    the program, up to what the project may use; None for the usual time.

    The same submission again returns the first run. Raises Denied, Conflict (rehearsal not succeeded).
    """
    permissions.require_submit(by, program.project)
    # Tokens come from clients: two programs may well be given the same one.
    submission = hashlib.sha256(f"{program.pk}:{submission}".encode()).hexdigest()
    existing = Run.objects.filter(submission=submission, program=program).first()
    if existing is not None:
        return existing
    rehearsal = program.runs.filter(kind=Run.Kind.REHEARSAL).first()
    if rehearsal is None or rehearsal.state != RunState.SUCCEEDED:
        raise Conflict(
            "rehearsal_not_succeeded", "The program has not succeeded in its rehearsal, so it cannot go on to the real data.",
            "Read the rehearsal's log, mend the program and submit it again.",
        )  # fmt: skip
    if size and size not in allowed_sizes(program.project, settings.DEFAULT_BACKEND):
        raise Invalid(
            "size_not_allowed", "The project may not use this size of machine, or it is not offered here.",
            "Choose one of those on the program's page, or ask the operator to allow it.",
            fields={"size": ["Choose one of the sizes on the program's page"]},
        )  # fmt: skip
    longest = longest_seconds(program.project)
    if time_limit is not None and not 0 < time_limit <= longest:
        raise Invalid(
            "time_limit_not_allowed", "The project may not use this time limit.",
            f"Choose a time up to {longest:,} seconds, or ask the operator to allow more.",
            fields={"time_limit": [f"Choose a time up to {longest:,} seconds"]},
        )  # fmt: skip
    try:
        with transaction.atomic():
            return create_run(
                by=by, kind=Run.Kind.RESEARCH, project=program.project, program=program,
                inputs=[(version, None) for version in program.versions.select_related("dataset")], submission=submission,
                size=size, time_limit=time_limit or usual_seconds(longest),
            )  # fmt: skip
    except IntegrityError as error:
        first = Run.objects.filter(submission=submission, program=program).first()
        if first is None:
            if "no_personal_data_under_software_evidence" in str(error):
                raise Conflict(
                    "no_hardware_protection",
                    "One of the datasets holds real personal data, and this portal's machine has software evidence only, which protects nothing.",
                    "It can run once the operator has set up a backend with hardware evidence.",
                ) from None
            raise
        return first


def cancel_run(*, by: User, run: Run, reason: str) -> None:
    """Ask a run to stop. The runner hears it within seconds; its machine is destroyed. Raises Denied, Conflict."""
    permissions.require_cancel(by, run)
    if not reason.strip():
        raise Invalid(
            "reason_missing", "Say why the run is to stop.", fields={"reason": ["Say why the run is to stop"]}
        )
    with transaction.atomic():
        changed = (
            Run.objects.filter(pk=run.pk, cancel_reason="")
            .exclude(state__in=RUN.final)
            .update(cancel_reason=reason.strip()[:1000])
        )
        if not changed:
            raise Conflict(
                "not_running",
                "The run has already ended, or somebody has already stopped it.",
                "Reload the page.",
            )
        recorder()(
            event="run.cancel_requested", by=by, object_type="run", object_id=run.pk,
            scope=f"project:{run.project_id}" if run.project_id else "",
        )  # fmt: skip
        enqueue("advance_run", run.pk)
    run.refresh_from_db()
