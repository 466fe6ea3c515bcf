"""A custodian who takes back keys at their own key broker ends the runs that hold them; the portal finds out by asking.

A broker never calls the portal, so this is a question, asked again and again: one for each broker, not for each run.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

from django.db import transaction

from apps.attestation import brokers
from apps.attestation.queries import keys_from_brokers
from apps.core.clock import now
from apps.core.outbox import enqueue
from apps.jobs import codes
from apps.jobs.engine.steps import close
from apps.jobs.models import Run
from apps.jobs.states import RunState
from strongroom.broker.standing import PERMITTED, WITHDRAWN, Standing

AT_ONCE = 8
Answers = dict[tuple[UUID, int], Standing]


def ask_brokers() -> int:
    """Ask each broker that gave a key to a run under way whether it still permits it, and end the runs it does not.

    No answer is no withdrawal: the run's page says that it is not known, and the next round asks again. Returns how
    many runs were ended.
    """
    under_way = dict(Run.objects.filter(state=RunState.RUNNING).values_list("pk", "attempt"))
    held = keys_from_brokers(under_way)
    questions = [(broker, [(pk, under_way[pk]) for pk in runs]) for broker, runs in sorted(held.items())]
    ended, known = 0, dict.fromkeys((pk for runs in held.values() for pk in runs), True)
    for broker, answers in _answers(questions):
        for pk in held[broker]:
            said = answers.get((pk, under_way[pk]))
            if said is not None and said.standing == WITHDRAWN:
                ended += _end(pk, under_way[pk], broker, said)
            elif said is None or said.standing != PERMITTED:
                known[pk] = False
    _note(known)
    return ended


def _answers(questions: Sequence[tuple[str, list[tuple[UUID, int]]]]) -> list[tuple[str, Answers]]:
    """Every broker's answer. They are asked at once: one that lets the portal wait must not hold up another's stop."""
    if not questions:
        return []
    with ThreadPoolExecutor(min(AT_ONCE, len(questions)), "brokers") as pool:
        found = pool.map(lambda question: brokers.standing(*question), questions)
        return [(broker, answers) for (broker, _), answers in zip(questions, found, strict=True)]


def _end(pk: UUID, attempt: int, broker: str, said: Standing) -> int:
    reason = f"{codes.describe('keys_withdrawn').sentence} {broker}: {said.detail or said.code}"
    with transaction.atomic():
        if not close(pk, attempt=attempt, code="keys_withdrawn", reason=reason):
            return 0
        enqueue("advance_run", pk)
    return 1


def _note(known: dict[UUID, bool]) -> None:
    """Since when it is not known of which runs; two statements, whatever their number."""
    unknown = [pk for pk, is_known in known.items() if not is_known]
    Run.objects.filter(pk__in=unknown, keys_unknown_since__isnull=True).update(keys_unknown_since=now())
    Run.objects.filter(keys_unknown_since__isnull=False).exclude(pk__in=unknown).update(
        keys_unknown_since=None
    )
