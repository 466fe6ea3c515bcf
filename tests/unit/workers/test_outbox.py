"""Draining: once each, outside transactions, again when asked again, later after a fault, by one worker at a time."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from django.db import connections, transaction

from apps.core import outbox as core
from apps.core.clock import now
from apps.core.models import Outbox
from workers import outbox, topics
from workers.topics import Later


@pytest.fixture
def done(monkeypatch):
    """A topic that notes its keys."""
    monkeypatch.setattr(core, "kick", lambda: None)
    keys: list[str] = []
    monkeypatch.setitem(topics.TOPICS, "note", keys.append)
    return keys


def ask(key: str, topic: str = "note") -> None:
    with transaction.atomic():
        core.enqueue(topic, key)


def soon():
    return now() + timedelta(seconds=30)


@pytest.mark.django_db(transaction=True)
def test_each_once(done):
    for key in "abc":
        ask(key)
    ask("a")
    assert outbox.drain(soon()) == 3 and sorted(done) == ["a", "b", "c"]
    assert not Outbox.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_the_work_is_done_outside_any_transaction(monkeypatch, done):
    seen = []
    monkeypatch.setitem(
        topics.TOPICS, "note", lambda key: seen.append(transaction.get_connection().in_atomic_block)
    )
    ask("a")
    outbox.drain(soon())
    assert seen == [False]


@pytest.mark.django_db(transaction=True)
def test_asked_again_while_it_is_being_done(monkeypatch, done):
    def handler(key):
        done.append(key)
        if len(done) == 1:
            ask(key)

    monkeypatch.setitem(topics.TOPICS, "note", handler)
    ask("a")
    outbox.drain(soon())
    assert done == ["a", "a"] and not Outbox.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_fault_is_kept_and_tried_later(monkeypatch, done):
    monkeypatch.setitem(topics.TOPICS, "note", lambda key: 1 / 0)
    ask("a")
    outbox.drain(soon())
    row = Outbox.objects.get()
    assert row.last_error.startswith("ZeroDivisionError") and row.attempts == 1 and row.due_at > now()
    monkeypatch.setitem(topics.TOPICS, "note", done.append)
    Outbox.objects.update(due_at=now())
    outbox.drain(soon())
    assert done == ["a"]


@pytest.mark.django_db(transaction=True)
def test_later_is_no_fault(monkeypatch, done):
    def handler(key):
        raise Later(5)

    monkeypatch.setitem(topics.TOPICS, "note", handler)
    ask("a")
    assert outbox.drain(soon()) == 1
    row = Outbox.objects.get()
    assert row.last_error == "" and now() < row.due_at < now() + timedelta(seconds=6)


@pytest.mark.django_db(transaction=True)
def test_unknown_topic_stays(done):
    ask("a", topic="from-a-newer-version")
    outbox.drain(soon())
    assert "no handler" in Outbox.objects.get().last_error


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_died_in_the_middle(done):
    ask("a")
    assert outbox.claim().key == "a"
    assert outbox.claim() is None  # leased
    Outbox.objects.update(due_at=now())
    outbox.drain(soon())
    assert done == ["a"]


@pytest.mark.django_db(transaction=True)
def test_long_work_keeps_its_lease(monkeypatch, done):
    """While one worker is at it, longer than a lease, no other takes it; and it is ticked off afterwards."""
    others = []

    def handler(key):
        for _ in range(6):
            time.sleep(0.5)
            others.append(outbox.claim())

    monkeypatch.setattr(outbox, "LEASE", timedelta(seconds=2))
    monkeypatch.setitem(topics.TOPICS, "note", handler)
    ask("a")
    assert outbox.work(outbox.claim()) and others == [None] * 6
    assert not Outbox.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_many_workers_share_the_rows(done):
    for number in range(40):
        ask(str(number))

    def work():
        outbox.drain(soon())
        connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done, key=int) == [str(n) for n in range(40)]


@pytest.mark.django_db(transaction=True)
def test_asking_while_the_row_is_ticked_off_is_never_lost(done):
    """Two connections: one asks in an open transaction, the other finishes the row in between."""
    ask("a")
    item = outbox.claim()
    with transaction.atomic():
        core.enqueue("note", "a")
        worker = threading.Thread(target=lambda: (outbox.work(item), connections.close_all()))
        worker.start()
        worker.join(timeout=0.5)
    worker.join()
    assert Outbox.objects.filter(key="a").count() == 1
    outbox.drain(soon())
    assert done == ["a", "a"]


@pytest.mark.django_db(transaction=True)
def test_row_deleted_between_get_and_update(done, monkeypatch):
    ask("a")
    real = Outbox.objects.get_or_create

    def get_and_lose(**kwargs):
        found = real(**kwargs)
        if not found[1]:
            monkeypatch.setattr(Outbox.objects, "get_or_create", real)
            lose = threading.Thread(target=lambda: (Outbox.objects.all().delete(), connections.close_all()))
            lose.start()
            lose.join()
        return found

    monkeypatch.setattr(Outbox.objects, "get_or_create", get_and_lose)
    ask("a")
    assert Outbox.objects.filter(key="a").exists()
