"""The portal's verdict on a run: a signed statement about the run's signed statement, from what is on record.

Predicate https://strongroom.example/attestation/verdict/v1 (after in-toto's svr/v0.2). The same record always gives
the same bytes, so a package built twice holds one verdict.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.conf import settings

from apps.attestation.models import Evidence, Purpose
from apps.core.keys import signing_key
from strongroom import shapes, statement
from strongroom.signing import SigningKey


def evidence_of(*, run_id: UUID, attempt: int) -> tuple[Evidence | None, Evidence]:
    """The accepted evidence (key release, result) of an attempt. Raises Evidence.DoesNotExist without a result's.

    Of key release, that shown to this portal's own broker; the others': `broker_evidence_of`.
    """
    rows = Evidence.objects.filter(run=run_id, attempt=attempt, accepted=True, broker="")
    found = {row.purpose: row for row in rows}
    if Purpose.RESULT not in found:
        raise Evidence.DoesNotExist(f"no accepted result evidence for run {run_id}")
    return found.get(Purpose.KEY_RELEASE), found[Purpose.RESULT]


def broker_evidence_of(*, run_id: UUID, attempt: int) -> list[Evidence]:
    """The accepted evidence shown to custodians' own key brokers, sorted by broker."""
    rows = Evidence.objects.filter(run=run_id, attempt=attempt, accepted=True, purpose=Purpose.KEY_RELEASE)
    return sorted(rows.exclude(broker=""), key=lambda row: row.broker)  # by code points, as C2 is


def sign_verdict(*, run_id: UUID, attempt: int, statement_bytes: bytes, manifest: str) -> bytes:
    """The DSSE envelope of the verdict. `manifest`: hex SHA-256."""
    first, second = evidence_of(run_id=run_id, attempt=attempt)
    others = broker_evidence_of(run_id=run_id, attempt=attempt)
    more = {"brokers": [{"broker": row.broker, **_appraisal(row)} for row in others]} if others else {}
    document = statement.verdict(
        statement_bytes,
        {
            "run": str(run_id),
            "portal": settings.PORTAL_ID,
            "manifest": manifest,
            "at": shapes.format_time(second.created_at),
            "e1": _appraisal(first) if first is not None else None,
            "e2": _appraisal(second),
            "ok": second.accepted and (first is None or first.accepted),
            "tier": second.tier,
            **more,
        },
    )
    return statement.sign(document, [SigningKey(signing_key("verdict").private_bytes_raw())])


def _appraisal(row: Evidence) -> dict[str, Any]:
    kept = row.appraisal
    return {
        "evidence": row.sha256,
        "at": kept["at"],
        "policies": kept["policies"],
        "appraisal": kept["appraisal"],
    }
