"""Leave work for the workers: a row in the transaction, a kick after the commit, a sweep for what was lost."""

from __future__ import annotations

import logging

from django.db import transaction
from django.utils import timezone

from apps.core.models import Outbox

log = logging.getLogger(__name__)


def enqueue(topic: str, key: object) -> None:
    """Ask that `topic` be done for the object `key`. Must be called inside the transaction that makes it due.

    A repeated request while one is pending merges into it. The handler must be safe to run twice.
    """
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("enqueue() belongs inside the transaction of the change that asks for the work")
    while True:
        row, created = Outbox.objects.get_or_create(topic=topic, key=str(key))
        # A pending row may be in the hands of a worker that has already read the old state: make it due again. If that
        # worker deleted it in this very moment, nothing was updated, and a row of our own is needed.
        if created or Outbox.objects.filter(pk=row.pk).update(due_at=timezone.now(), attempts=0):
            break
    transaction.on_commit(kick, robust=True)


def kick() -> None:
    """Tell the workers that there is work. Losing this message loses nothing: beat drains the outbox too."""
    from portal.celery import app

    try:
        app.send_task("workers.drain_outbox", retry=False)
    except Exception as error:  # the broker may be down; the row stays
        log.warning("outbox kick not sent (%s); the periodic drain will find the row", type(error).__name__)
