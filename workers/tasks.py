"""Celery tasks, thin. A message is a kick: each task finds by itself what is due, and may come late, twice or never."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from celery.signals import worker_ready

from portal.celery import app

# Registering happens when a worker imports its tasks; Django is set up by then.
from apps.audit.sequencer import seal_log as seal  # isort: skip
from apps.core.clock import now
from apps.core.outbox import kick
from apps.jobs.engine import machines
from workers import outbox, sweep
from workers.backends import install, prepare

SLICE = timedelta(seconds=60)

install(machines.register)


@worker_ready.connect
def prepare_backends(**_: Any) -> None:
    prepare(machines.backends().values())


@app.task(name="workers.drain_outbox", ignore_result=True)
def drain_outbox() -> None:
    """Do what is due; hand over to another task after a minute, so that a deployment does not wait."""
    until = now() + SLICE
    if outbox.drain(until) and now() >= until:
        kick()


@app.task(name="workers.sweep_runs", ignore_result=True)
def sweep_runs() -> None:
    sweep.sweep_runs()


@app.task(name="workers.ask_brokers", ignore_result=True)
def ask_brokers() -> None:
    sweep.ask_brokers()


@app.task(name="workers.seal_log", ignore_result=True)
def seal_log() -> None:
    seal()


@app.task(name="workers.sweep_expiries", ignore_result=True)
def sweep_expiries() -> None:
    sweep.sweep_expiries()
