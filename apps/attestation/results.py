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
    verdict: appraisals.Verdict
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
    first = Evidence.objects.filter(
        run=run_id, attempt=attempt, purpose=Purpose.KEY_RELEASE, accepted=True
    ).first()
    binding = [
        challenges.challenge_check(fault),
        appraisals.members_equal("context", said, expected_context, "The result context"),
        *_link(said, first, sealed_inputs),
        *_statement(said, statement_bytes, expected_predicate),
    ]
    claims = first.appraisal["appraisal"]["claims"] if first is not None else None
    verdict = appraisals.judge(
        envelope=envelope,
        versions=versions,
        nonce=nonce,
        now=moment,
        binding=binding,
        same_as=claims,
        image=image,
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


def _link(said: dict[str, Any], first: Evidence | None, sealed_inputs: bool) -> list[Check]:
    """E2's context must name E1, and the key that E1 attested must be the one that signs."""
    if not sealed_inputs:
        return [
            appraisals.equal(
                "first-evidence", said["e1"], None, "no first evidence, as the run needed no keys"
            )
        ]
    if first is None:
        return [
            Check(
                "first-evidence",
                Outcome.FAIL,
                "No keys were released to this attempt, so it can have no result.",
            )
        ]
    return [
        appraisals.equal(
            "first-evidence", said["e1"], first.sha256, "the evidence for which the keys were released"
        ),
        appraisals.equal(
            "signing-key", said["sign_pub"], first.context["sign_pub"], "the signing key attested before"
        ),
    ]


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
