"""(c) The main pages with few and with many objects: p50, p95 and number of queries, by Django's test client.

In this process, with the embedded settings and a real PostgreSQL of its own; so it is the portal's time and the
database's, without HTTP server and network. Each page is asked for once before it is timed.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.embedded.services import Services
from tests.bench.table import Row, judged, percentile

if TYPE_CHECKING:
    from tests.bench.pages_world import World

AIM_MS = 150.0
SIZES, SMALL_SIZES = (1_000, 20_000), (60, 240)
REQUESTS = 30


def measure(*, small: bool, say: Callable[[str], None]) -> list[Row]:
    """Rows of part (c)."""
    with (
        tempfile.TemporaryDirectory(prefix="strongroom-bench-", ignore_cleanup_errors=True) as name,
        Services(Path(name) / "var", fast=False) as services,
    ):
        os.environ |= {
            "DATABASE_URL": services.database_url,
            "REDIS_URL": services.redis_url,
            "STRONGROOM_VAR": str(services.layout.var),
        }
        os.environ["DJANGO_SETTINGS_MODULE"] = "portal.settings.embedded"
        import django
        from django.core.management import call_command
        from django.db import connections

        django.setup()
        logging.disable(logging.INFO)
        call_command("migrate", verbosity=0, interactive=False)
        call_command("collectstatic", verbosity=0, interactive=False)
        try:
            return compare(SMALL_SIZES if small else SIZES, requests=4 if small else REQUESTS, say=say)
        finally:
            connections.close_all()


def compare(sizes: tuple[int, int], *, requests: int, say: Callable[[str], None]) -> list[Row]:
    """The table's rows. Needs a migrated database that may be emptied."""
    from django.core.management import call_command

    from tests.bench.pages_world import build

    found: list[dict[str, tuple[float, float, int]]] = []
    for size in sizes:
        call_command("flush", verbosity=0, interactive=False)
        began = time.monotonic()
        world = build(size)
        say(f"    {size:,} datasets, projects and runs made in {time.monotonic() - began:.0f} s")
        found.append({title: ask(path, user, requests) for title, (path, user) in addresses(world).items()})
    few, many = found
    rows = []
    for title in few:
        (p50a, p95a, queries_a), (p50b, p95b, queries_b) = few[title], many[title]
        figure = f"p50 {p50a:.0f} / {p50b:.0f} ms, p95 {p95a:.0f} / {p95b:.0f} ms, {queries_a} / {queries_b} queries"
        met = max(p95a, p95b) < AIM_MS and queries_a == queries_b
        rows.append(judged("c", title, figure, f"p95 < {AIM_MS:.0f} ms, same queries", met=met))
    title = f"(each page {requests} times, at {sizes[0]:,} / {sizes[1]:,} datasets, projects and runs)"
    return [Row("c", title, ""), *rows]


def addresses(world: World) -> dict[str, tuple[str, Any]]:
    """The main pages: title -> (address, who looks; None for a visitor)."""
    return {
        "catalogue": ("/datasets", None),
        "catalogue search": ("/datasets?q=diabetes&personal=no", None),
        "catalogue, far page": ("/datasets?page=40", None),
        "dataset": (f"/datasets/{world.dataset.slug}", None),
        "home, researcher": ("/home", world.researcher),
        "home, custodian": ("/home", world.custodian),
        "home, ethics chair": ("/home", world.chair),
        "home, output checker": ("/home", world.checker),
        "home, auditor": ("/home", world.auditor),
        "projects": ("/projects", world.researcher),
        "runs, researcher": ("/runs/", world.researcher),
        "runs, custodian": ("/runs/", world.custodian),
        "runs, auditor": ("/runs/", world.auditor),
        "run": (f"/runs/{world.run.pk}", world.researcher),
        "run that waits": (f"/runs/{world.waiting_run.pk}", world.auditor),
        "reviews": ("/reviews", world.chair),
        "output checks": ("/checks/", world.checker),
        "audit log": ("/audit", world.auditor),
        "audit log, one person": ("/audit?actor=Rosa", world.auditor),
        "people": ("/people", world.operator),
        "people search": ("/people?q=Custodian+number", world.operator),
    }


def ask(path: str, user: Any, requests: int) -> tuple[float, float, int]:
    """p50 and p95 in milliseconds, and the number of queries. Raises RuntimeError unless the page is there."""
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    client = Client(HTTP_HOST="127.0.0.1")
    if user is not None:
        client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    client.get(path)
    with CaptureQueriesContext(connection) as queries:
        response = client.get(path)
    statements = list(queries.captured_queries)
    if response.status_code != 200:
        raise RuntimeError(f"{path} answered {response.status_code}")
    times = []
    for _ in range(requests):
        began = time.perf_counter()
        client.get(path)
        times.append((time.perf_counter() - began) * 1000)
    return percentile(times, 0.5), percentile(times, 0.95), len(statements)
