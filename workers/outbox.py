"""Draining the outbox: claim one due row, do its work outside any transaction, and tick it off.

A claim moves `due_at` forward by a lease, which the worker renews while it works. If the worker dies, the row is due
again when the lease is over. If somebody asks for the same work while it is being done, `enqueue` changes `due_at`, the
row is not deleted, and it is done again.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import DatabaseError, close_old_connections, connection, transaction

from apps.core.clock import now
from apps.core.models import Outbox
from workers.topics import TOPICS, Later

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=30)  # how long the work of a worker that died lies still
LONGEST_WAIT = 600.0


@dataclass
class Claim:
    """A row in our hands. `due_at` is when our lease ends: while the row still says so, it is ours."""

    pk: int
    topic: str
    key: str
    attempts: int
    due_at: datetime


def claim() -> Claim | None:
    """Take the row that has been due longest and that no other worker is looking at."""
    with transaction.atomic():
        row = (
            Outbox.objects.select_for_update(skip_locked=True)
            .filter(due_at__lte=now())
            .order_by("due_at", "id")
            .first()
        )
        if row is None:
            return None
        row.attempts += 1
        row.due_at = now() + LEASE
        row.save(update_fields=["attempts", "due_at"])
    return Claim(row.pk, row.topic, row.key, row.attempts, row.due_at)


def work(item: Claim) -> bool:
    """Do what a claimed row asks for. True if it is done; otherwise the row is due again later."""
    handler = TOPICS.get(item.topic)
    try:
        if handler is None:
            raise LookupError(f"no handler for the topic {item.topic!r}")
        with _held(item):
            handler(item.key)
    except Later as later:
        _again(item, later.seconds, "")
        return False
    except Exception as error:  # whatever it is, the row must stay and say so
        log.exception("outbox: %s %s failed (attempt %d)", item.topic, item.key, item.attempts)
        close_old_connections()  # the fault may have been that the database was restarted
        wait = min(2.0 ** min(item.attempts, 12), LONGEST_WAIT) * random.uniform(0.5, 1.5)  # noqa: S311  jitter
        _again(item, wait, f"{type(error).__name__}: {error}"[:2000])
        return False
    Outbox.objects.filter(pk=item.pk, due_at=item.due_at).delete()
    return True


@contextmanager
def _held(item: Claim) -> Iterator[None]:
    """Renew the lease of `item` in a thread as long as the work goes on, so that long work is not begun a second time."""
    over = threading.Event()

    def renew() -> None:
        try:
            while not over.wait(LEASE.total_seconds() / 3):
                until = now() + LEASE
                try:
                    if not Outbox.objects.filter(pk=item.pk, due_at=item.due_at).update(due_at=until):
                        return  # asked for again meanwhile: it will be done once more
                    item.due_at = until
                except DatabaseError:
                    close_old_connections()
        finally:
            connection.close()

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _again(item: Claim, seconds: float, error: str) -> None:
    Outbox.objects.filter(pk=item.pk, due_at=item.due_at).update(
        due_at=now() + timedelta(seconds=seconds), last_error=error
    )


def drain(until: datetime) -> int:
    """Work until nothing is due or the time is over. Returns how many rows were taken."""
    count = 0
    while now() < until and (item := claim()) is not None:
        work(item)
        count += 1
    return count
