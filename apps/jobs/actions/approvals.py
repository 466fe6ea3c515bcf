"""Custodians decide on programs, by hash, once for each dataset."""

from __future__ import annotations

from django.db import IntegrityError, transaction

from apps.accounts.models import User
from apps.core.clock import now
from apps.core.errors import Conflict, Invalid
from apps.core.lifecycle import recorder
from apps.core.outbox import enqueue
from apps.datasets.models import Dataset
from apps.jobs import permissions
from apps.jobs.models import Program, ProgramApproval, Run
from apps.jobs.states import RUN, RunState


def decide_program(
    *, by: User, program: Program, dataset: Dataset, approve: bool, reason: str = ""
) -> ProgramApproval:
    """Approve or refuse `program` for `dataset`. Raises Denied, Invalid (no reason for a refusal), Conflict (decided)."""
    permissions.require_decide_program(by, program, dataset)
    if not approve and not reason.strip():
        raise Invalid(
            "reason_missing",
            "Say why the program is refused.",
            fields={"reason": ["Say why, so that the researchers can mend it"]},
        )
    rehearsal = program.runs.filter(kind=Run.Kind.REHEARSAL).values_list("state", flat=True).first()
    if approve and rehearsal != RunState.SUCCEEDED:
        raise Conflict(
            "rehearsal_not_succeeded", "The program has not succeeded in its rehearsal, so it cannot be approved.",
            "Wait for the rehearsal, or for a new program.",
        )  # fmt: skip
    return _record(
        by=by, program=program, dataset=dataset, approve=approve, reason=reason.strip(), automatic=False
    )


def approve_automatically(*, by: object, program: Program) -> None:
    """After a rehearsal that succeeded: approve for each dataset whose custodian chose that. Safe to repeat."""
    automatic = Dataset.objects.filter(
        versions__programs=program, program_approval=Dataset.ProgramApproval.AUTOMATIC
    ).exclude(program_approvals__program=program)
    for dataset in automatic.distinct():
        try:
            _record(by=by, program=program, dataset=dataset, approve=True, reason="", automatic=True)
        except Conflict:
            continue


def _record(
    *, by: object, program: Program, dataset: Dataset, approve: bool, reason: str, automatic: bool
) -> ProgramApproval:
    decision = ProgramApproval.Decision.APPROVED if approve else ProgramApproval.Decision.REFUSED
    try:
        with transaction.atomic():
            approval = ProgramApproval.objects.create(
                program=program, dataset=dataset, program_sha256=program.sha256, decision=decision, automatic=automatic,
                by=by.actor_code, reason=reason,  # type: ignore[attr-defined]
            )  # fmt: skip
            recorder()(
                event=f"program.{decision}", by=by, object_type="program", object_id=program.pk,
                scope=f"dataset:{dataset.pk}",
                data={"sha256": program.sha256, "dataset": str(dataset.pk), "automatic": automatic},
            )  # fmt: skip
            _kick_waiting(program)
    except IntegrityError:
        raise Conflict(
            "already_decided", "Somebody has already decided on this program for this dataset. Nothing of yours was saved.",
            "Reload the page to see the decision.",
        ) from None  # fmt: skip
    return approval


def revoke_program_approval(*, by: User, approval: ProgramApproval, reason: str) -> None:
    """Take an approval back, keeping its own reason. Waiting and live runs of the program are looked at again at once."""
    permissions.require_revoke_approval(by, approval)
    if not reason.strip():
        raise Invalid("reason_missing", "Say why.", fields={"reason": ["Say why"]})
    with transaction.atomic():
        changed = ProgramApproval.objects.filter(
            pk=approval.pk, decision=ProgramApproval.Decision.APPROVED
        ).update(
            decision=ProgramApproval.Decision.REVOKED,
            revoked_at=now(),
            revoked_by=by.actor_code,
            revocation_reason=reason.strip(),
        )
        if not changed:
            raise Conflict("not_approved", "There is no approval in force to take back.", "Reload the page.")
        recorder()(
            event="program.approval_revoked", by=by, object_type="program", object_id=approval.program_id,
            scope=f"dataset:{approval.dataset_id}", data={"dataset": str(approval.dataset_id)},
        )  # fmt: skip
        _kick_waiting(approval.program)
    approval.refresh_from_db()


def _kick_waiting(program: Program) -> None:
    for run in program.runs.filter(kind=Run.Kind.RESEARCH).exclude(state__in=RUN.final):
        enqueue("advance_run", run.pk)
