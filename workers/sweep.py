"""Repair: look at every run that is not settled, remove machines that nobody wants, let what has run out expire."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from django.db import connection

from apps.core.actors import System
from apps.core.clock import now
from apps.core.errors import DomainError
from apps.datasets import actions as datasets
from apps.datasets.models import AccessRequest, Agreement
from apps.datasets.states import AccessState, AgreementState
from apps.jobs import engine
from apps.jobs.engine.machines import Backend, Unsettled, backends
from apps.jobs.models import Run
from apps.jobs.states import RUN
from apps.projects import actions as projects

log = logging.getLogger(__name__)

SWEEPER = System("sweeper")
_LOCKS = {"runs": 0x53525355, "expiries": 0x53525345, "brokers": 0x53525342}


@contextmanager
def alone(name: str) -> Iterator[bool]:
    """True in one process at a time (a PostgreSQL advisory lock of this session)."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [_LOCKS[name]])
        got = bool(cursor.fetchone()[0])
    try:
        yield got
    finally:
        if got:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCKS[name]])


def sweep_runs() -> int:
    """Advance every run that is live or whose machine may still be there; then destroy orphan machines.

    Returns how many runs were looked at. One run's fault does not keep the others waiting.
    """
    with alone("runs") as got:
        if not got:
            return 0
        unsettled = Run.objects.exclude(state__in=RUN.final) | Run.objects.filter(machine_gone=False)
        due = list(unsettled.order_by("created_at").values_list("pk", flat=True))
        for pk in due:
            _try(partial(engine.advance, pk), f"run {pk}")
        for name, backend in backends().items():
            _try(partial(_sweep_backend, name, backend), f"backend {name}")
        return len(due)


def _sweep_backend(name: str, backend: Backend) -> None:
    wanted = Run.objects.filter(backend=name, machine_gone=False).exclude(machine="")
    backend.sweep(set(wanted.values_list("machine", flat=True)))


def ask_brokers() -> int:
    """Ask custodians' key brokers whether runs may still use their keys, and end those that may not. Returns how many."""
    with alone("brokers") as got:
        return engine.ask_brokers() if got else 0


def sweep_expiries() -> int:
    """Agreements and access whose last day has passed, and projects that have run out. Returns how many changed.

    Roles need no sweep: whether one is held is asked with the time of asking.
    """
    with alone("expiries") as got:
        if not got:
            return 0
        today, count = now().date(), 0
        for agreement in Agreement.objects.filter(state=AgreementState.IN_FORCE, ends_on__lt=today):
            expire = partial(datasets.expire_agreement, by=SWEEPER, agreement=agreement)
            count += _try(expire, f"agreement {agreement.pk}")
        for access in AccessRequest.objects.filter(state=AccessState.ACTIVE, ends_on__lt=today):
            expire = partial(datasets.expire_access, by=SWEEPER, access_request=access)
            count += _try(expire, f"access {access.pk}")
        count += _try(partial(projects.expire_projects, by=SWEEPER), "projects")
        _try(partial(datasets.remove_refused_ciphertext, by=SWEEPER), "files of refused uploads")
        return count


def _try(do: Callable[[], object], what: str) -> int:
    try:
        do()
    except DomainError as error:
        log.info("sweep: %s: %s", what, error.detail)
        return 0
    except Unsettled as unknown:
        log.info("sweep: %s: not known this time: %s", what, unknown)
        return 0
    except Exception:  # the sweeper must reach the next one
        log.exception("sweep: %s failed", what)
        return 0
    return 1
