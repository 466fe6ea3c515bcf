"""The one function that moves a run: look at the row, look at the world, take the next step, until none is left.

Safe to call at any time, twice, and from several workers: a lease lets one worker at a time look, and every step is a
conditional update. A worker that dies leaves a lease that runs out, and a world that the next look finds as it is.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from apps.attestation.challenges import attempt_lifetime
from apps.core.clock import now
from apps.core.errors import Conflict
from apps.core.lifecycle import transition
from apps.core.objects import store
from apps.core.outbox import enqueue
from apps.jobs import codes
from apps.jobs.engine import consequences, tokens
from apps.jobs.engine.conditions import unmet
from apps.jobs.engine.creation import ENGINE
from apps.jobs.engine.machines import BackendError, Sight, backend
from apps.jobs.engine.manifests import approvals_of, manifest_digest
from apps.jobs.models import Run
from apps.jobs.states import RUN, RunState
from strongroom import strictjson

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
LEASE = timedelta(seconds=60)
# A machine must call home within this time, and be heard of again within the next: the supervisor says where it stands
# every two seconds, and gives up by itself after a minute without the portal.
FIRST_CALL = timedelta(seconds=60)
SILENCE = timedelta(seconds=120)
BACK_OFF = (timedelta(0), timedelta(seconds=10))
MAX_STEPS = 12
LIVE = (RunState.LAUNCHING, RunState.RUNNING)


def advance(run_id: UUID | str) -> bool:
    """Take every step that is due for the run. False if another worker is at it just now: try again shortly."""
    until = now() + LEASE
    free = Q(lease_until__isnull=True) | Q(lease_until__lt=now())
    if not Run.objects.filter(free, pk=run_id).update(lease_until=until):
        return not Run.objects.filter(pk=run_id).exists()
    try:
        for _ in range(MAX_STEPS):
            run = Run.objects.select_related("project", "program", "version", "release").get(pk=run_id)
            try:
                if not step(run):
                    break
            except Conflict:
                continue  # the runner or a person moved it: look again
    finally:
        Run.objects.filter(pk=run_id, lease_until=until).update(lease_until=None)
    return True


def step(run: Run) -> bool:
    """Take one step from where the run stands now. True if there may be another one at once."""
    if run.state in RUN.final:
        return _settle(run)
    if run.cancel_reason:
        _end(run, RunState.CANCELLED, "cancelled", run.cancel_reason)
        return True
    match run.state:
        case RunState.WAITING:
            return _leave_waiting(run)
        case RunState.QUEUED:
            return _launch(run)
        case _:
            return _watch(run)


def _leave_waiting(run: Run) -> bool:
    if unmet(run):
        _say(run, "waits_for_conditions")
        return False
    inputs = [
        (entry.version, entry.release) for entry in run.inputs.select_related("version__dataset", "release")
    ]
    approvals = approvals_of(run, inputs)
    manifest = {**run.manifest, "approvals": strictjson.digest(approvals)}
    fields = {
        "code": "queued",
        "queued_at": now(),
        "manifest": manifest,
        "manifest_sha256": manifest_digest(manifest),
    }
    data = {"manifest": fields["manifest_sha256"], "approvals": approvals}
    transition(run, RunState.QUEUED, by=ENGINE, set_fields=fields, data=data)
    return True


def _launch(run: Run) -> bool:
    """Claim the next attempt in the row, then start its machine. Killed in between, the next look starts it."""
    if conditions := unmet(run):
        return _stop(run, "; ".join(c.detail for c in conditions))
    if run.queued_at is not None and run.queued_at > now():
        _say(run, "waits_to_retry")
        return False
    machines = backend(run.backend)  # a worker without this backend leaves the run to others
    if run.machine:
        machines.destroy(run)  # of the attempt before, if it gave up by itself
    busy = Run.objects.filter(state__in=LIVE, backend=run.backend).count()
    if busy >= getattr(settings, "MAX_LIVE_MACHINES", 4):
        _say(run, "waits_for_capacity")
        return False
    run.attempt += 1
    fields = {
        "attempt": run.attempt,
        "machine": f"sr-{run.pk.hex[:12]}-{run.attempt}",
        "launch_digest": tokens.digest(tokens.launch_token(run)),
        "session_digest": "",
        "program_started": False,
        "phase": "",
        "phase_done": 0,
        "phase_total": 0,
        "heartbeat_at": now(),
        "code": "launching",
    }
    transition(run, RunState.LAUNCHING, by=ENGINE, set_fields=fields, data={"attempt": run.attempt})
    return _start_machine(run)


def _start_machine(run: Run) -> bool:
    try:
        store().delete(
            f"runs/{run.pk}/outputs.sealed"
        )  # of an earlier attempt, which can add nothing any more
        backend(run.backend).launch(run, tokens.launch_token(run))
    except BackendError as error:
        log.warning("run %s: machine not started: %s", run.pk, error)
        return _lost(run, error.code)
    return False


def _watch(run: Run) -> bool:
    """A machine should be there: see whether it is, and whether the run may still go on."""
    if conditions := unmet(run):
        return _stop(run, "; ".join(c.detail for c in conditions))
    if run.state == RunState.RUNNING and run.started_at and now() - run.started_at > attempt_lifetime():
        _end(run, RunState.FAILED, "overdue", codes.describe("overdue").sentence)
        return True
    sight = backend(run.backend).observe(run)
    quiet = now() - (run.heartbeat_at or run.created_at)
    if run.state == RunState.LAUNCHING:
        if sight is Sight.ABSENT:
            # A worker died before it had started it. The time to call home begins now.
            Run.objects.filter(pk=run.pk, state=RunState.LAUNCHING).update(heartbeat_at=now())
            return _start_machine(run)
        if sight is Sight.GONE or quiet > FIRST_CALL:
            return _lost(run, "never_called")
        return False
    if sight is not Sight.RUNNING or quiet > SILENCE:
        return _lost(run, "runner_lost")
    return False


def _lost(run: Run, code: str) -> bool:
    """The attempt cannot go on. Before the program has started it is tried again; after, never."""
    # The old machine first: once the row moves on, nothing may be left that could still act for the run.
    backend(run.backend).destroy(run)
    run = Run.objects.get(pk=run.pk)  # it may have spoken since
    if run.state not in LIVE:
        return True
    give_up(run, code)
    return True


def give_up(run: Run, code: str, **fields: object) -> None:
    """Move a live attempt that cannot go on: back to the queue, or to failed. `fields`: more columns to write."""
    may_retry = not run.program_started and (code in codes.RETRYABLE or code == "runner_lost")
    if may_retry and run.attempt < MAX_ATTEMPTS:
        pause = BACK_OFF[min(run.attempt - 1, len(BACK_OFF) - 1)]
        reset = {
            "code": "waits_to_retry",
            "queued_at": now() + pause,
            "launch_digest": "",
            "session_digest": "",
            "phase": "",
        }
        transition(run, RunState.QUEUED, by=ENGINE, reason=codes.describe(code).sentence, set_fields=reset)
        return
    if may_retry and code == "runner_lost":
        code = "attempts_exhausted"
    _end(run, RunState.FAILED, code, codes.describe(code).sentence, **fields)


def _stop(run: Run, reason: str) -> bool:
    """The gate has closed on a run that had passed it."""
    _end(run, RunState.CANCELLED, "gate_closed", reason[:1000])
    return True


def _end(run: Run, state: RunState, code: str, reason: str, **fields: object) -> None:
    transition(
        run,
        state,
        by=ENGINE,
        reason=reason,
        set_fields={"code": code, "ended_at": now(), "launch_digest": "", **fields},
    )


def _settle(run: Run) -> bool:
    """After the end: the machine goes, what the end means for others is done, and only then is it ticked off."""
    if run.machine_gone:
        return False
    if run.machine:
        backend(run.backend).destroy(run)
    consequences.settle(run)
    Run.objects.filter(pk=run.pk).update(machine_gone=True)
    following = Run.objects.filter(state=RunState.QUEUED, backend=run.backend).order_by("queued_at").first()
    if following is not None:
        with transaction.atomic():
            enqueue("advance_run", following.pk)
    return False


def _say(run: Run, code: str) -> None:
    if run.code != code:
        Run.objects.filter(pk=run.pk, state=run.state).update(code=code)
