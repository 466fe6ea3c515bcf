"""Judging a result: C2, E2 and the signed statement, against what the portal knows of the run. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from apps.attestation import appraisals, challenges
from apps.attestation.models import Evidence, Purpose
from apps.core.clock import now
from apps.core.errors import Denied
from apps.datasets.models import DatasetVersion
from strongroom import contexts, shapes, statement
from strongroom.errors import FormatError, StatementError
from strongroom.evidence import Check, Outcome


@dataclass(frozen=True)
class ResultAppraisal:
    """Everything that was looked at, and the verdict. `at`: RFC 3339 time of judgement."""

    run_id: UUID
    attempt: int
    context: dict[str, Any]
    envelope: bytes
    statement_sha256: str
    verdict: appraisals.Decision
    at: str

    @property
    def ok(self) -> bool:
        return self.verdict.ok


def appraise_result(
    *,
    run_id: UUID,
    attempt: int,
    context: Any,
    envelope: bytes,
    statement_bytes: bytes,
    versions: Sequence[DatasetVersion],
    image: str,
    sealed_inputs: bool,
    expected_context: Mapping[str, Any],
    expected_predicate: Mapping[str, Any],
) -> ResultAppraisal:
    """Check a result. Wrong content gives failed checks; only a malformed context raises (Denied: context_malformed).

    versions: the sealed inputs, each of whose policies must hold. expected_context: members of C2 known beforehand
    (run, portal, manifest, inputs, exit). expected_predicate: members of the statement's predicate.
    """
    try:
        said = contexts.parse_result(context)
        nonce = contexts.n2(said)
    except FormatError as error:
        raise Denied("context_malformed", str(error), "Send the result context in its exact form.") from None
    moment = now()
    fault = challenges.fault_of(
        run_id=run_id, attempt=attempt, purpose=Purpose.RESULT, value=said["challenge2"]
    )
    shown = {
        row.broker: row
        for row in Evidence.objects.filter(
            run=run_id, attempt=attempt, purpose=Purpose.KEY_RELEASE, accepted=True
        )
    }
    asked = {version.dataset.key_broker for version in versions} if sealed_inputs else set()
    binding = [
        challenges.challenge_check(fault),
        appraisals.members_equal("context", said, expected_context, "The result context"),
        *_link(said, shown, asked),
        *_statement(said, statement_bytes, expected_predicate),
    ]
    claims = next((shown[b].appraisal["appraisal"]["claims"] for b in sorted(shown)), None)
    verdict = appraisals.judge_result(
        envelope=envelope,
        versions=versions,
        nonce=nonce,
        now=moment,
        binding=binding,
        same_as=claims,
        image=image,
        manifest=said["manifest"],
    )
    return ResultAppraisal(
        run_id,
        attempt,
        said,
        envelope,
        statement.digest(statement_bytes),
        verdict,
        shapes.format_time(moment),
    )


def _link(said: dict[str, Any], shown: Mapping[str, Evidence], asked: set[str]) -> list[Check]:
    """E2's context must name each E1, by the broker it was shown to, and the key that each attested must sign.

    shown: accepted evidence by broker ("" this portal's own). asked: the brokers that hold keys of the run's inputs.
    """
    if missing := asked - set(shown):
        whose = ", ".join(sorted(missing)) or "this portal's key broker"
        return [
            Check(
                "first-evidence",
                Outcome.FAIL,
                f"No keys were released to this attempt by {whose}, so it can have no result.",
            )
        ]
    first = shown.get("")
    what = (
        "the evidence for which the keys were released"
        if asked
        else "no first evidence, as the run needed no keys"
    )
    checks = [appraisals.equal("first-evidence", said["e1"], first.sha256 if first else None, what)]
    others = [{"broker": b, "e1": shown[b].sha256} for b in sorted(shown) if b]
    if others or "brokers" in said:
        checks.append(
            appraisals.equal(
                "broker-evidence",
                said.get("brokers", []),
                others,
                "the evidence shown to each custodian's key broker",
            )
        )
    if shown:
        signers = {row.context["sign_pub"] for row in shown.values()}
        checks.append(
            appraisals.equal("signing-key", {said["sign_pub"]}, signers, "the signing key attested before")
        )
    return checks


def _statement(said: dict[str, Any], envelope: bytes, expected: Mapping[str, Any]) -> list[Check]:
    checks = [
        appraisals.equal(
            "statement", statement.digest(envelope), said["statement"], "the statement handed in"
        )
    ]
    try:
        document = statement.open_envelope(envelope, shapes.b64_decode(said["sign_pub"], "sign_pub"))
    except StatementError as error:
        return [*checks, Check("statement-signature", Outcome.FAIL, str(error))]
    checks.append(Check("statement-signature", Outcome.PASS, "The statement is signed by the attested key."))
    try:
        document = statement.parse_statement(document, statement.RUN_PREDICATE)
    except FormatError as error:
        return [*checks, Check("statement-form", Outcome.FAIL, str(error))]
    subjects = [{"name": o["path"], "digest": {"sha256": o["sha256"]}} for o in said["outputs"]]
    checks.append(
        appraisals.equal(
            "statement-outputs", document["subject"], subjects, "exactly the output files of the context"
        )
    )
    wanted = {**expected, "exit": said["exit"], "started": said["started"], "ended": said["ended"]}
    checks.append(
        appraisals.members_equal("statement-content", document["predicate"], wanted, "The statement")
    )
    return checks
