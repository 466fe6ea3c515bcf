"""Two sealers at once, on two connections: every entry gets one place, and the log verifies."""

from __future__ import annotations

import threading

import pytest
from django.db import connection, connections

from apps.audit import sequencer
from apps.audit.actions import record
from apps.audit.models import Checkpoint, Entry, Tile
from apps.audit.sequencer import seal_log
from apps.audit.verifier import verify_log
from apps.core.actors import System


@pytest.mark.django_db(transaction=True)
def test_two_sealers(monkeypatch):
    monkeypatch.setattr(sequencer, "BATCH", 30)
    for n in range(200):
        record(event="thing.done", by=System("test"), object_type="thing", object_id=n)
    taken, faults = [], []

    def work() -> None:
        try:
            taken.append(seal_log())
        except Exception as error:
            faults.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seal_log()
    assert not faults
    assert sum(taken) == 200
    assert sorted(Entry.objects.values_list("index", flat=True)) == list(range(200))
    report = verify_log()  # outside a transaction: one read-only snapshot
    assert report.ok and report.entries == 200
    # Leave nothing behind that a row trigger would refuse to delete.
    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {', '.join(m._meta.db_table for m in (Entry, Tile, Checkpoint))}")
