"""The one function that moves a run: look at the row, look at the world, take the next step, until none is left.

Safe to call at any time, twice, and from several workers: a lease lets one worker at a time look, and every step is a
conditional update. A worker that dies leaves a lease that runs out, and a world that the next look finds as it is.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q

from apps.attestation.challenges import attempt_lifetime
from apps.core.clock import now
from apps.core.errors import Conflict
from apps.core.lifecycle import history, transition
from apps.core.objects import store
from apps.core.outbox import enqueue
from apps.jobs import codes, spending
from apps.jobs.engine import consequences, tokens
from apps.jobs.engine.conditions import unmet
from apps.jobs.engine.creation import ENGINE
from apps.jobs.engine.machines import BackendError, Sight, Unsettled, backend, first_call
from apps.jobs.engine.manifests import approvals_of, manifest_digest
from apps.jobs.models import Run
from apps.jobs.states import RUN, RunState
from apps.projects.models import Project
from strongroom import strictjson

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=60)
# A machine that has called home must be heard of again within this time: the supervisor says where it stands every two
# seconds, and gives up by itself after a minute without the portal.
SILENCE = timedelta(seconds=120)
MAX_STEPS = 12
MAX_ATTEMPTS = 999  # whatever the rules of codes.py add up to: a machine's name has room for this many
_LAUNCH_LOCK = 0x5352534C  # beside the name of a backend, the key of an advisory lock
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
    # One run of a project after the other: two that looked at its budget at the same moment would both fit into it.
    with transaction.atomic():
        if run.project_id is not None:
            Project.objects.select_for_update(no_key=True).get(pk=run.project_id)
        if not unmet(run):
            _queue(run)
            return True
    _say(run, "waits_for_conditions")
    return False


def _queue(run: Run) -> None:
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


def _launch(run: Run) -> bool:
    """Claim the next attempt in the row, then start its machine. Killed in between, the next look starts it."""
    if conditions := unmet(run):
        return _stop(run, "; ".join(c.detail for c in conditions))
    backend(run.backend)  # a worker without this backend leaves the run to others
    due = run.queued_at is None or run.queued_at <= now()
    if run.machine:  # of the attempt before
        if not _removed(run, say=due):
            return False
        Run.objects.filter(pk=run.pk, state=RunState.QUEUED, machine=run.machine).update(machine="")
    if not due:
        return False  # why it waits was said when it was put back
    with transaction.atomic():
        _after_other_launches(run.backend)
        busy = Run.objects.filter(state__in=LIVE, backend=run.backend).count()
        if room := busy < settings.MAX_LIVE_MACHINES:
            _claim_attempt(run)
    if room:
        return _start_machine(run)
    _say(run, "waits_for_capacity")
    return False


def _after_other_launches(backend_name: str) -> None:
    """Until this transaction ends, no other one gets past here: two that counted together would both find room."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [_LAUNCH_LOCK, backend_name])


def _claim_attempt(run: Run) -> None:
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


def _start_machine(run: Run) -> bool:
    try:
        store().delete(
            f"runs/{run.pk}/outputs.sealed"
        )  # of an earlier attempt, which can add nothing any more
        backend(run.backend).launch(run, tokens.launch_token(run))
    except Unsettled as unsettled:
        log.info("run %s: whether its machine is being started is not known yet: %s", run.pk, unsettled)
        _say(run, unsettled.code)
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
    quiet = now() - (run.heartbeat_at or run.created_at)
    try:
        sight = backend(run.backend).observe(run)
    except Unsettled as unsettled:
        # Nothing is known of the machine. Whoever has not called yet is waited for; a silent runner has given up itself.
        if run.state == RunState.RUNNING and quiet > SILENCE:
            return _lost(run, "runner_lost")
        if run.state == RunState.LAUNCHING:
            _say(run, unsettled.code)
        return False
    except BackendError as error:
        log.warning("run %s: machine refused: %s", run.pk, error)
        return _lost(run, error.code)
    return (
        _watch_launching(run, sight, quiet)
        if run.state == RunState.LAUNCHING
        else _watch_running(run, sight, quiet)
    )


def _watch_launching(run: Run, sight: Sight, quiet: timedelta) -> bool:
    match sight:
        case Sight.ABSENT:
            # A worker died before it had started it, or the request was lost. The time to call home begins now.
            Run.objects.filter(pk=run.pk, state=RunState.LAUNCHING).update(heartbeat_at=now())
            return _start_machine(run)
        case Sight.EVICTED:
            return _lost(run, "machine_evicted")
        case Sight.GONE:
            return _lost(run, "never_called")
        case Sight.STARTING | Sight.RUNNING:
            if quiet > first_call(backend(run.backend)):
                return _lost(run, "never_called")
            if run.code in codes.UNSETTLED:
                _say(run, "launching")
            return False


def _watch_running(run: Run, sight: Sight, quiet: timedelta) -> bool:
    if sight is Sight.EVICTED:
        return _lost(run, "machine_evicted")
    if sight is not Sight.RUNNING or quiet > SILENCE:
        return _lost(run, "runner_lost")
    return False


def _lost(run: Run, code: str) -> bool:
    """The attempt cannot go on. Before the program has started it is tried again; after, never.

    The old machine is asked to go first. Where that takes time or fails, the row moves on all the same: its session
    ends with that, and neither another attempt nor the last tick comes before the machine is gone.
    """
    _removed(run)
    with transaction.atomic():
        row = (
            Run.objects.select_for_update(of=("self",))
            .select_related("project", "program", "version", "release")
            .get(pk=run.pk)
        )  # it may have spoken since, and must not while this is decided
        if row.state in LIVE and row.attempt == run.attempt:
            give_up(row, code)
    return True


def _removed(run: Run, *, say: bool = False) -> bool:
    """Have the machine destroyed. False if it is not gone yet: it is asked again at the next look.

    say: whether that is what the run waits for, and so what its page says.
    """
    try:
        backend(run.backend).destroy(run)
    except BackendError as error:
        level = logging.INFO if isinstance(error, Unsettled) else logging.WARNING
        log.log(level, "run %s: machine %s is not gone yet: %s", run.pk, run.machine, error)
        if say:
            _say(run, error.code)
        return False
    return True


def give_up(run: Run, code: str, **fields: object) -> None:
    """Move a live attempt that cannot go on: back to the queue, or to failed. `fields`: more columns to write."""
    rule = None if run.program_started else codes.describe(code).retry
    if rule is not None:
        lost = _losses(run, rule)
        if lost + 1 < rule.attempts and run.attempt < MAX_ATTEMPTS:
            reset = {
                "code": rule.waits,
                "queued_at": now() + rule.pauses[min(lost, len(rule.pauses) - 1)],
                "launch_digest": "",
                "session_digest": "",
                "phase": "",
            }
            transition(
                run, RunState.QUEUED, by=ENGINE, reason=codes.describe(code).sentence, set_fields=reset,
                data={"code": code},
            )  # fmt: skip
            return
        if code == "runner_lost":
            code = "attempts_exhausted"
    _end(run, RunState.FAILED, code, codes.describe(code).sentence, **fields)


def _losses(run: Run, rule: codes.Retry) -> int:
    """How many attempts were lost under this rule so far. Waiting for a quota does not use up other attempts."""
    reasons = [code.sentence for code in codes.CODES.values() if code.retry is rule]
    return history(run).filter(to_state=RunState.QUEUED, reason__in=reasons).count()


def close(run_id: UUID, *, attempt: int, code: str, reason: str) -> bool:
    """Cancel a run under way because something it rests on is gone. False if that attempt has ended or moved meanwhile."""
    run = Run.objects.filter(pk=run_id, attempt=attempt, state=RunState.RUNNING).first()
    if run is None:
        return False
    try:
        _end(run, RunState.CANCELLED, code, reason[:1000])
    except Conflict:
        return False
    return True


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
    """After the end: the machine goes, what the end means for others is done, and only then is it ticked off.

    Others do not wait for a machine that takes its time to go; the tick does.
    """
    if run.machine_gone:
        return False
    if run.machine:
        backend(run.backend)  # a worker without this backend leaves the run to others
    gone = not run.machine or _removed(run)
    consequences.settle(run)
    if not gone:
        return False
    spending.book(run)
    Run.objects.filter(pk=run.pk).update(machine_gone=True)
    following = Run.objects.filter(state=RunState.QUEUED, backend=run.backend).order_by("queued_at").first()
    if following is not None:
        with transaction.atomic():
            enqueue("advance_run", following.pk)
    return False


def _say(run: Run, code: str) -> None:
    if run.code != code:
        Run.objects.filter(pk=run.pk, state=run.state).update(code=code)
