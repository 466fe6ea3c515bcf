"""Challenges: random values that evidence must be bound to, single use, for one run, attempt and purpose, in time."""

from __future__ import annotations

import secrets
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction

from apps.attestation.models import Challenge, Purpose
from apps.core.clock import now
from strongroom.broker.release import challenge_check

KEY_RELEASE_LIFETIME = timedelta(minutes=10)
# From the machine's start to its result: fetching and opening, the program's own time, handing over.
OVERHEAD = timedelta(hours=2)


def attempt_lifetime() -> timedelta:
    """How long one attempt of any run may take in all; its result challenge lives as long."""
    return (
        timedelta(seconds=max(settings.RUN_LIMITS["wall_seconds"], settings.LONGEST_RUN_SECONDS)) + OVERHEAD
    )


def issue_challenges(*, run_id: UUID, attempt: int) -> tuple[str, str]:
    """The challenges (key release, result) of an attempt, 43 characters each. Asked again, the same ones."""
    lifetimes = {Purpose.KEY_RELEASE: KEY_RELEASE_LIFETIME, Purpose.RESULT: attempt_lifetime()}
    values = []
    with transaction.atomic():
        for purpose, lifetime in lifetimes.items():
            row, _ = Challenge.objects.get_or_create(
                run=run_id,
                attempt=attempt,
                purpose=purpose,
                defaults={"value": secrets.token_urlsafe(32), "expires_at": now() + lifetime},
            )
            values.append(row.value)
    return values[0], values[1]


def fault_of(*, run_id: UUID, attempt: int, purpose: str, value: str) -> str:
    """Why `value` cannot be used for this attempt and purpose: "", unknown, foreign, spent or expired."""
    row = Challenge.objects.filter(value=value).first()
    if row is None:
        return "unknown"
    if (row.run, row.attempt, row.purpose) != (run_id, attempt, purpose):
        return "foreign"
    if row.spent_at is not None:
        return "spent"
    return "expired" if row.expires_at <= now() else ""


def spend(*, run_id: UUID, attempt: int, purpose: str, value: str) -> bool:
    """Use the challenge up. True for exactly one caller, in time; the row decides, not what was read before."""
    moment = now()
    return bool(
        Challenge.objects.filter(
            run=run_id,
            attempt=attempt,
            purpose=purpose,
            value=value,
            spent_at__isnull=True,
            expires_at__gt=moment,
        ).update(spent_at=moment)
    )


__all__ = ["attempt_lifetime", "challenge_check", "fault_of", "issue_challenges", "spend"]
