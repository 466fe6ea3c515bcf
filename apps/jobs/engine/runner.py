"""The portal's side of the runner protocol: what a machine may ask and say. No HTTP here (runner_api.py).

Every function is safe to call twice with the same arguments: the runner repeats whatever answer it did not get.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction

from apps.attestation import actions as attestation
from apps.core.actors import Runner
from apps.core.clock import now
from apps.core.errors import Conflict, Denied, GateClosed, Invalid, NotFound
from apps.core.lifecycle import transition
from apps.core.objects import store
from apps.core.outbox import enqueue
from apps.jobs import codes
from apps.jobs.engine import tokens
from apps.jobs.engine.conditions import unmet
from apps.jobs.engine.steps import give_up
from apps.jobs.models import Run
from apps.jobs.states import RunState
from strongroom import seal

PHASES = (
    "claimed",
    "attesting",
    "fetching",
    "decrypting",
    "running",
    "checking",
    "sealing",
    "uploading",
    "done",
)
# How often a heartbeat that says nothing new is written down.
WRITE_EVERY = timedelta(seconds=2)
# A launch token whose answer was lost may be shown again, until the session that it opened is used.
CLAIM_AGAIN = timedelta(seconds=60)
TAR_OVERHEAD = 4 << 20
_EXCEPTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,119}")
_MAX_COUNT = 2**53


@dataclass(frozen=True)
class Stored:
    """Bytes that a machine may read."""

    name: str
    size: int


def claim(token: str) -> dict[str, Any]:
    """Use the one-time launch token: launching -> running. Raises Denied (token_refused)."""
    run = _run(tokens.run_of(token))
    if run is None or not tokens.matches(token, run.launch_digest):
        raise _token_refused()
    session = tokens.session_token(run, token)
    if run.state == RunState.LAUNCHING:
        moment = now()
        fields = {
            "session_digest": tokens.digest(session), "phase": "claimed", "code": "claimed", "started_at": moment,
            "heartbeat_at": moment,
        }  # fmt: skip
        try:
            with transaction.atomic():
                row = hold(run)
                transition(
                    row,
                    RunState.RUNNING,
                    by=Runner(str(row.pk)),
                    set_fields=fields,
                    data={"attempt": row.attempt},
                )
        except Conflict:
            pass
        run.refresh_from_db()
    lately = run.started_at is not None and now() - run.started_at < CLAIM_AGAIN
    if run.state != RunState.RUNNING or run.session_digest != tokens.digest(session) or not lately:
        raise _token_refused()
    first, second = attestation.issue_challenges(run_id=run.pk, attempt=run.attempt)
    return {
        "session": session,
        "manifest": run.manifest,
        "manifest_sha256": run.manifest_sha256,
        "portal": settings.PORTAL_ID,
        "challenge": first,
        "challenge2": second,
    }


def authenticate(session: str) -> Run:
    """The run whose present attempt holds this session; using it ends the launch token. Raises Denied.

    An ended run is returned too, so that its machine can be told to stop; each call says which states it allows.
    """
    run = _run(tokens.run_of(session))
    if run is None or not tokens.matches(session, run.session_digest):
        raise Denied(
            "session_refused",
            "This session does not belong to a live attempt at a run.",
            "Stop: another attempt may be under way.",
        )
    if run.launch_digest:
        Run.objects.filter(pk=run.pk, session_digest=run.session_digest).update(launch_digest="")
        run.launch_digest = ""
    return run


def broker_challenge(run: Run, broker: str) -> str:
    """The challenge of a custodian's key broker that holds a key of this run.

    Raises GateClosed or Denied (broker_refused), which end the run; ServiceUnavailable, after which it may ask again.
    """
    _require_live(run)
    _held_by(run, broker)
    _require_open(run)
    try:
        return attestation.broker_challenge(
            run_id=run.pk, attempt=run.attempt, broker=broker, manifest=run.manifest
        )
    except Denied as refusal:
        _refused(run, refusal)
        raise


def keys(run: Run, *, context: Any, envelope: bytes) -> list[dict[str, Any]]:
    """Release the data keys to the attested machine, if the gate is open and every policy is satisfied.

    C1 says whose broker is asked: the portal's own, or a custodian's, to which the request is passed on.
    Raises GateClosed or Denied (evidence_refused and others); either ends the run.
    """
    _require_live(run)
    broker = context.get("broker", "") if isinstance(context, dict) else ""
    sealed = _held_by(run, broker if isinstance(broker, str) else "")
    _require_open(run)
    held = {entry["dataset"] for entry in sealed}
    rows = run.inputs.filter(stage=2, version__dataset_id__in=held).select_related("version__dataset")
    by_dataset = {str(row.version.dataset_id): row.version for row in rows}
    arguments: dict[str, Any] = {
        "by": Runner(str(run.pk)),
        "run_id": run.pk,
        "attempt": run.attempt,
        "context": context,
        "envelope": envelope,
        "versions": [by_dataset[entry["dataset"]] for entry in sealed],
        "portal": settings.PORTAL_ID,
        "expected": {
            "manifest": run.manifest_sha256,
            "image": run.manifest["image"],
            "inputs": [
                {"dataset": e["dataset"], "version": e["version"], "ciphertext": e["sha256"]} for e in sealed
            ],
            "approvals": run.manifest["approvals"],
        },
    }
    try:
        released = (
            attestation.release_keys_by_broker(broker=broker, manifest=run.manifest, **arguments)
            if broker
            else attestation.release_keys(**arguments)
        )
    except Denied as refusal:
        _refused(run, refusal)
        raise
    # A key service or a custodian's broker may have taken its time: what was revoked meanwhile counts.
    with transaction.atomic():
        present = hold(run)
    _require_live(present)
    _require_open(present)
    return released


def _held_by(run: Run, broker: str) -> list[dict[str, Any]]:
    """The sealed inputs whose keys `broker` holds ("" the portal's own). Raises Conflict (no_keys_needed)."""
    sealed = [e for e in run.manifest["inputs"] if e["sealed"] and (e.get("broker") or "") == broker]
    if not sealed:
        raise Conflict(
            "no_keys_needed", "No input of this run is sealed for that key broker.", "Go on without keys."
        )
    return sealed


def _require_open(run: Run) -> None:
    """Ask the gate; where it has closed the run ends. Raises GateClosed."""
    if conditions := unmet(run):
        closed = GateClosed([condition.as_dict() for condition in conditions])
        with transaction.atomic():
            end(hold(run), RunState.CANCELLED, "gate_closed", closed.detail[:1000])
        raise closed


def _refused(run: Run, refusal: Denied) -> None:
    code = refusal.code if refusal.code in ("key_unusable", "broker_refused") else "evidence_refused"
    with transaction.atomic():
        end(hold(run), RunState.FAILED, code, refusal.detail[:1000])


def input_object(run: Run, dataset: UUID) -> Stored:
    """The stored bytes of an input: ciphertext if it is sealed. Raises NotFound for anything else than an input."""
    _require_live(run)
    entry = run.inputs.filter(version__dataset_id=dataset).select_related("version", "release").first()
    if entry is None:
        raise NotFound("input")
    return _stored(entry.release.object_name if entry.release is not None else entry.version.object_name)


def program_object(run: Run) -> Stored:
    """The stored program. Raises NotFound for a run of a built-in one."""
    _require_live(run)
    if run.program is None:
        raise NotFound("program")
    return _stored(run.program.object_name)


def _stored(name: str) -> Stored:
    size = store().size(name)
    if not size:
        raise NotFound("object")
    return Stored(name, size)


def phase(run: Run, *, name: str, done: int, total: int) -> dict[str, Any]:
    """Where the machine stands; also its heartbeat. Answers whether it may go on.

    With "running" the portal notes that the program has started, after which the attempt is never repeated: a
    supervisor waits for this answer before it starts the program.
    """
    if name not in PHASES:
        raise Invalid("phase_unknown", f"There is no phase {name!r}.", f"Phases: {', '.join(PHASES)}.")
    if not (0 <= done <= _MAX_COUNT and 0 <= total <= _MAX_COUNT):
        raise Invalid("count_out_of_range", "A count is out of range.", "Send whole numbers from 0.")
    if run.state != RunState.RUNNING or run.cancel_reason:
        return {"continue": False, "reason": _why_stop(run)}
    moment = now()
    starts = name == "running" and not run.program_started
    fresh = run.heartbeat_at is not None and moment - run.heartbeat_at < WRITE_EVERY
    if fresh and not starts and name == run.phase and (done, total) == (run.phase_done, run.phase_total):
        return {"continue": True, "reason": ""}
    fields: dict[str, Any] = {
        "phase": name, "phase_done": done, "phase_total": total, "heartbeat_at": moment, "code": name,
    }  # fmt: skip
    if starts:
        fields["program_started"] = True
    changed = Run.objects.filter(
        pk=run.pk,
        state=RunState.RUNNING,
        attempt=run.attempt,
        session_digest=run.session_digest,
        cancel_reason="",
    ).update(**fields)
    if not changed:
        run.refresh_from_db()
        return {"continue": False, "reason": _why_stop(run)}
    return {"continue": True, "reason": ""}


def outputs_offset(run: Run) -> int:
    """How many bytes of the sealed outputs have arrived."""
    return store().size(_sealed_name(run))


def receive_outputs(run: Run, *, offset: int, chunks: Iterator[bytes]) -> int:
    """Append to the sealed outputs; returns the new size. What arrives before a connection breaks stays.

    Raises Conflict (offset_mismatch, with `offset`; or the run has ended), Invalid (too_large).
    """
    _require_live(run)
    limit = seal.ciphertext_size(int(run.manifest["limits"]["disk_bytes"]) + TAR_OVERHEAD)
    try:
        return store().append(_sealed_name(run), offset, chunks, limit=limit)
    except OverflowError:
        raise Invalid(
            "too_large",
            f"The sealed outputs are larger than the {limit:,} bytes allowed.",
            "Write fewer or smaller outputs.",
        ) from None
    except ValueError:
        there = outputs_offset(run)
        raise Conflict(
            "offset_mismatch",
            f"The outputs stand at byte {there:,}, not {offset:,}.",
            "Continue from the offset given.",
            offset=there,
        ) from None


def abandon(run: Run, *, code: str, exception_type: str | None, line: int | None) -> str:
    """The machine cannot go on: back to the queue if the program has not started and the cause may pass, else failed.

    Returns the run's state then. Nothing changes for a run that has ended already.
    """
    if run.state == RunState.RUNNING:
        fields = {"exception_type": clean_exception(exception_type), "exception_line": line}
        try:
            with transaction.atomic():
                row = hold(run)
                if row.cancel_reason:
                    end(row, RunState.CANCELLED, "cancelled", row.cancel_reason)
                else:
                    give_up(row, codes.reported(code), **fields)
                    enqueue("advance_run", row.pk)
        except Conflict:
            pass
        run.refresh_from_db()
    return str(run.state)


def clean_exception(name: str | None) -> str:
    """An exception type as it may be kept: a bare name, or nothing."""
    return name if isinstance(name, str) and _EXCEPTION.fullmatch(name) else ""


def _run(pk: UUID | None) -> Run | None:
    if pk is None:
        return None
    return Run.objects.select_related("project", "program", "version", "release").filter(pk=pk).first()


def _require_live(run: Run) -> None:
    if run.state != RunState.RUNNING or run.cancel_reason:
        raise Conflict(
            "run_ended", f"The run is not under way any more. {_why_stop(run)}", "Stop and destroy all data."
        )


def _why_stop(run: Run) -> str:
    """One of the table's sentences; a reason that a person typed stays on the portal's pages."""
    return codes.describe("cancelled" if run.cancel_reason else run.code).sentence


def hold(run: Run) -> Run:
    """The run's row, locked, if its attempt is still the one that is speaking. Raises Conflict."""
    row = Run.objects.select_for_update(of=("self",)).get(pk=run.pk)
    if (row.attempt, row.session_digest) != (run.attempt, run.session_digest):
        raise Conflict(
            "superseded", "Another attempt at this run is under way.", "Stop and destroy all data."
        )
    return row


def end(run: Run, state: RunState, code: str, reason: str, fields: dict[str, Any] | None = None) -> None:
    """End a run that `hold` has locked, and let the workers clear up."""
    fields = {"code": code, "ended_at": now(), "launch_digest": "", **(fields or {})}
    transition(
        run, state, by=Runner(str(run.pk)), reason=reason, set_fields=fields,
        data={"code": code, "statement": fields.get("statement_sha256", "")},
    )  # fmt: skip
    enqueue("advance_run", run.pk)


def _sealed_name(run: Run) -> str:
    return f"runs/{run.pk}/outputs.sealed"


def _token_refused() -> Denied:
    return Denied(
        "token_refused",
        "This launch token is not valid, or was used before.",
        "The portal starts a new attempt by itself.",
    )
