"""Health for machines and the status page for people."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

from apps.core.clock import now
from apps.core.models import Outbox
from apps.core.views import before_password, public

# Beat drains the outbox every 2 seconds; work that is due for longer than this has nobody who does it.
LATE_SECONDS = 120


@dataclass(frozen=True)
class Health:
    """What answered. `database` and `broker` are "ok" or the name of the error; the other two may be unknown (None)."""

    database: str
    broker: str
    oldest_due_seconds: int | None
    sandbox: str | None

    @property
    def good(self) -> bool:
        return self.database == self.broker == "ok"


def check() -> Health:
    """Ask each part now; an error is an answer, never an exception."""
    database, oldest = "ok", None
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        moment = now()
        first = (
            Outbox.objects.filter(due_at__lte=moment)
            .order_by("due_at")
            .values_list("due_at", flat=True)
            .first()
        )
        oldest = int((moment - first).total_seconds()) if first else 0
    except DatabaseError as error:
        database = type(error).__name__
    broker = "ok"
    try:
        with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2) as client:
            client.ping()
    except redis.RedisError as error:
        broker = type(error).__name__
    return Health(database, broker, oldest, _sandbox())


def _sandbox() -> str | None:
    """The kind of sandbox that the worker's self-test proved, as it wrote it down; None if it has written nothing."""
    try:
        found: Any = json.loads((Path(settings.RUN_DIRECTORY) / "sandbox.json").read_text())
    except (OSError, ValueError):
        return None
    kind = found.get("kind") if isinstance(found, dict) else None
    return str(kind)[:60] if kind else None


def contact_address() -> str:
    """Where to write to, if the operator has set one (STRONGROOM_CONTACT)."""
    return str(getattr(settings, "CONTACT", "") or "")


def as_rows(found: Health) -> list[dict[str, str]]:
    """The status page's lines: outcome is pass, fail or not_available."""

    def part(name: str, state: str, text: str) -> dict[str, str]:
        good = state == "ok"
        return {
            "outcome": "pass" if good else "fail",
            "text": name,
            "detail": text if good else f"No answer ({state}).",
        }

    late = found.oldest_due_seconds
    if late is None:
        work = {
            "outcome": "not_available",
            "text": "Background work",
            "detail": "Unknown while the database does not answer.",
        }
    elif late > LATE_SECONDS:
        minutes = late // 60
        detail = (
            f"Work has been waiting for {minutes} minute{'s' if minutes != 1 else ''}: the workers seem to be stopped. "
            "Runs and uploads are safe, and go on when they return."
        )
        work = {"outcome": "fail", "text": "Background work", "detail": detail}
    else:
        work = {
            "outcome": "pass",
            "text": "Background work",
            "detail": "Nothing is waiting longer than it should.",
        }
    sandbox = {
        "outcome": "pass" if found.sandbox else "not_available",
        "text": "Sandbox for local runs",
        "detail": found.sandbox or "No worker has reported the result of its self-test to this page.",
    }
    return [
        part("Database", found.database, "It answers."),
        part("Message broker", found.broker, "It answers."),
        work,
        sandbox,
    ]


@public
@before_password
@require_safe
def live(request: HttpRequest) -> JsonResponse:
    """The process answers."""
    return JsonResponse({"status": "ok"})


@public
@before_password
@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """Database and broker answer; `oldest_due_seconds` says whether the workers keep up (deaf workers look alive)."""
    found = check()
    body: dict[str, object] = {"database": found.database, "broker": found.broker}
    if found.oldest_due_seconds is not None:
        body["oldest_due_seconds"] = found.oldest_due_seconds
    return JsonResponse(
        {"status": "ok" if found.good else "failing", **body}, status=200 if found.good else 503
    )
