"""Taking a result: evidence, statement and hashes are verified, then the run ends, once, in one transaction."""

from __future__ import annotations

import hashlib
from typing import Any

from django.conf import settings
from django.db import transaction

from apps.attestation import actions as attestation
from apps.core.actors import Runner
from apps.core.errors import Conflict, Invalid
from apps.core.lifecycle import recorder
from apps.core.objects import put_bytes, store
from apps.core.outbox import enqueue
from apps.jobs import codes
from apps.jobs.engine.manifests import egress_key
from apps.jobs.engine.runner import clean_exception, end, hold
from apps.jobs.models import Run
from apps.jobs.states import RUN, RunState
from strongroom import shapes, strictjson
from strongroom.errors import FormatError

MAX_LOG = 1 << 20
MAX_OUTPUT_FILES = 200
_SEALED = {
    "wrapped_key": lambda value, where: shapes.fields(
        value, where, {"suite": shapes.text(40), "recipient": shapes.text(16, 16), "data": shapes.b64()}
    ),
    "sha256": shapes.sha256,
    "size": shapes.whole(1),
}


def accept(
    run: Run,
    *,
    context: Any,
    envelope: bytes,
    statement: bytes,
    sealed: Any,
    exit_: dict[str, Any],
    log: bytes | None,
) -> str:
    """Verify a result and end the run: succeeded only if the program did and every check passed. Returns the state.

    exit_: {"class", "exception_type", "line", "file", "refusal"}. The same statement sent again gives the same
    answer. A result that does not verify is kept as refused and ends the run as failed. Raises Denied
    (evidence_refused with checks, context_malformed), Invalid (shape), Conflict (the attempt is not the live one).
    """
    digest = hashlib.sha256(statement).hexdigest()
    if run.state in RUN.final and run.statement_sha256 == digest:
        return str(run.state)
    if run.state != RunState.RUNNING or run.cancel_reason:
        raise Conflict("run_ended", "The run is not under way any more.", "Stop and destroy all data.")
    parcel = _sealed(run, sealed)
    told = {"class": exit_["class"], "exception_type": exit_["exception_type"] or None, "line": exit_["line"]}
    appraisal = attestation.appraise_result(
        run_id=run.pk,
        attempt=run.attempt,
        context=context,
        envelope=envelope,
        statement_bytes=statement,
        versions=[entry.version for entry in run.inputs.filter(stage=2).select_related("version__dataset")],
        image=run.manifest["image"],
        sealed_inputs=any(entry["sealed"] for entry in run.manifest["inputs"]),
        expected_context=_context(run, told),
        expected_predicate=_predicate(run),
    )
    if not appraisal.ok:
        with transaction.atomic():
            row = hold(run)
            if row.state in RUN.final and row.statement_sha256 == digest:
                return str(row.state)  # this very result, a moment earlier on another connection
            attestation.accept_result_evidence(by=Runner(str(run.pk)), appraisal=appraisal, accepted=False)
            end(row, RunState.FAILED, "result_refused", codes.describe("result_refused").sentence)
        raise attestation.evidence_refused(appraisal.verdict.failing)
    _check_outputs(run, appraisal.context["outputs"], told["class"])
    kept: dict[str, Any] = {}
    if log is not None and run.manifest["full_log"]:
        kept["log_object"] = f"runs/{run.pk}/log.txt"
        put_bytes(kept["log_object"], log[:MAX_LOG])
    kept |= {
        "exit_class": told["class"],
        "exception_type": clean_exception(told["exception_type"]),
        "exception_line": told["line"],
        "exception_file": (exit_.get("file") or "")[:200],
        "sealed_object": f"runs/{run.pk}/outputs.sealed",
        "sealed": parcel,
        "statement": _document(statement),
        "statement_sha256": digest,
        "phase": "done",
        "code": codes.ended(told["class"], exit_["refusal"] or ""),
    }
    state = RunState.SUCCEEDED if told["class"] == "succeeded" else RunState.FAILED
    return _finish(run, appraisal, state, kept, digest)


def _finish(run: Run, appraisal: Any, state: RunState, kept: dict[str, Any], digest: str) -> str:
    """The one transaction that ends the run. Exactly one result of exactly the live attempt can pass it."""
    actor = Runner(str(run.pk))
    with transaction.atomic():
        row = hold(run)
        if row.state in RUN.final and row.statement_sha256 == digest:
            return str(row.state)
        if row.state != RunState.RUNNING or row.cancel_reason:
            raise Conflict("run_ended", "The run is not under way any more.", "Stop and destroy all data.")
        attestation.accept_result_evidence(by=actor, appraisal=appraisal, accepted=True)
        entry = recorder()(
            event="run.result_accepted", by=actor, object_type="run", object_id=row.pk,
            data={"statement": digest}, scope=_scope(row),
        )  # fmt: skip
        code = kept["code"]
        reason = "" if state == RunState.SUCCEEDED else codes.describe(code).sentence
        end(row, state, code, reason, {**kept, "log_entry": entry.pk})  # type: ignore[attr-defined]
        enqueue("open_outputs", row.pk)
    return str(state)


def _context(run: Run, told: dict[str, Any]) -> dict[str, Any]:
    return {
        "run": str(run.pk),
        "portal": settings.PORTAL_ID,
        "manifest": run.manifest_sha256,
        "inputs": [{"dataset": e["dataset"], "plaintext": e["plaintext"]} for e in run.manifest["inputs"]],
        "exit": told,
    }


def _predicate(run: Run) -> dict[str, Any]:
    manifest = run.manifest
    return {
        "run": str(run.pk),
        "portal": settings.PORTAL_ID,
        "project": manifest["project"],
        "kind": manifest["kind"],
        "manifest": run.manifest_sha256,
        "program": {"sha256": manifest["program"]["sha256"]},
        "inputs": [
            {
                "dataset": e["dataset"],
                "version": e["version"],
                "stage": e["stage"],
                "ciphertext": e["sha256"] if e["sealed"] else None,
                "plaintext": e["plaintext"],
            }
            for e in manifest["inputs"]
        ],
        "image": manifest["image"],
        "backend": manifest["backend"],
    }


def _sealed(run: Run, sealed: Any) -> dict[str, Any]:
    try:
        parcel = shapes.fields(sealed, "The sealed outputs", _SEALED)
    except FormatError as error:
        raise Invalid(
            "sealed_malformed", str(error), "Send the sealed outputs' description in its exact form."
        ) from None
    key = egress_key()
    if (parcel["wrapped_key"]["recipient"], parcel["wrapped_key"]["suite"]) != (key.id, key.suite):
        raise Invalid(
            "sealed_for_another",
            "The outputs are sealed to another key than the manifest names.",
            "Seal them to the manifest's egress key.",
        )
    arrived = store().size(f"runs/{run.pk}/outputs.sealed")
    if arrived != parcel["size"]:
        raise Conflict(
            "outputs_incomplete",
            f"{arrived:,} of {parcel['size']:,} bytes of the sealed outputs have arrived.",
            "Upload the rest first.",
            offset=arrived,
        )
    return parcel


def _check_outputs(run: Run, outputs: list[dict[str, Any]], exit_class: str) -> None:
    if exit_class != "succeeded" and outputs and not run.manifest["full_log"]:
        raise Invalid(
            "outputs_of_a_failure",
            "A program that failed on real data leaves no outputs.",
            "Send an empty list.",
        )
    if len(outputs) > MAX_OUTPUT_FILES or any(len(output["path"]) > 200 for output in outputs):
        raise Invalid(
            "outputs_too_many",
            f"At most {MAX_OUTPUT_FILES} outputs, with paths of at most 200 characters, are taken.",
            "Write fewer files with shorter names.",
        )


def _scope(run: Run) -> str:
    if run.project_id:
        return f"project:{run.project_id}"
    return f"dataset:{run.version.dataset_id}" if run.version is not None else ""


def _document(statement: bytes) -> Any:
    """The envelope as JSON for the database; its canonical bytes are `statement` again."""
    return strictjson.loads_canonical(statement, max_bytes=4 << 20, what="The statement")
