"""Putting E2 on record."""

from __future__ import annotations

from django.db import transaction

from apps.attestation import challenges
from apps.attestation.actions.keys import evidence_refused
from apps.attestation.challenges import challenge_check
from apps.attestation.models import Evidence, Purpose
from apps.attestation.results import ResultAppraisal
from apps.core.lifecycle import recorder
from strongroom import strictjson
from strongroom.evidence import digest


def accept_result_evidence(*, by: object, appraisal: ResultAppraisal, accepted: bool) -> Evidence:
    """Put E2 on record with its verdict and spend its challenge, in the caller's transaction.

    Raises Denied if the challenge turns out to be used or late when an acceptance is to be recorded.
    """
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("the evidence belongs into the transaction that ends the run")
    spent = challenges.spend(
        run_id=appraisal.run_id,
        attempt=appraisal.attempt,
        purpose=Purpose.RESULT,
        value=appraisal.context["challenge2"],
    )
    if accepted and not spent:
        raise evidence_refused([challenge_check("spent")])
    verdict = appraisal.verdict
    row = Evidence.objects.create(
        run=appraisal.run_id,
        attempt=appraisal.attempt,
        purpose=Purpose.RESULT,
        type=verdict.appraisal.type,
        envelope=appraisal.envelope,
        sha256=digest(appraisal.envelope),
        context=appraisal.context,
        tier=verdict.appraisal.tier.value,
        accepted=accepted,
        appraisal=verdict.to_json(appraisal.at),
    )
    recorder()(
        event="result_evidence.accepted" if accepted else "result_evidence.refused",
        by=by,
        object_type="run",
        object_id=appraisal.run_id,
        data={
            "attempt": appraisal.attempt,
            "evidence": row.sha256,
            "context": strictjson.digest(appraisal.context),
            "failing": [check.id for check in verdict.failing],
        },
    )
    return row
