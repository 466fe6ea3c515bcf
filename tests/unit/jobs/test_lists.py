"""Lists take as many queries for 25 rows as for 5, whatever stands in the address."""

from __future__ import annotations

import uuid

import pytest

from apps.jobs.models import OutputRelease, Program, Run
from tests import factories
from tests.factories import World, again, browser, page, same_cost


def more_runs(run: Run, count: int) -> list[Run]:
    """Copies of a run, for lists that must stay cheap."""
    template = {f.attname: getattr(run, f.attname) for f in Run._meta.concrete_fields}
    changes = ({"id": uuid.uuid4(), "submission": None} for _ in range(count))
    return Run.objects.bulk_create([Run(**{**template, **change}) for change in changes])


def more_programs(program: Program, count: int) -> None:
    rehearsal = factories.rehearsal_of(program)
    for number in range(count):
        copy = again(program)
        copy.pk, copy.submission, copy.name = uuid.uuid4(), uuid.uuid4().hex, f"copy {number}"
        copy.save(force_insert=True)
        copy.versions.set(program.versions.all())
        run = again(rehearsal)
        run.pk, run.program = uuid.uuid4(), copy
        run.save(force_insert=True)


@pytest.mark.parametrize("path", ["/runs/", "/api/v1/runs", "/runs/?kind=research&state=waiting"])
def test_runs_cost_the_same(w: World, path: str) -> None:
    run = factories.research_run(w.program(), w.member)
    for user in (w.member, w.custodian):
        same_cost(user, path, lambda n: more_runs(run, n))


@pytest.mark.parametrize("path", ["/projects/{}/programs/", "/api/v1/projects/{}/programs"])
def test_programs_cost_the_same(w: World, path: str) -> None:
    program = w.program()
    same_cost(w.member, path.format(w.project.pk), lambda n: more_programs(program, n))


def test_programs_to_decide_cost_the_same(w: World) -> None:
    program = w.program()
    same_cost(w.custodian, "/api/v1/programs/to-decide", lambda n: more_programs(program, n))


@pytest.mark.parametrize("path", ["/checks/", "/api/v1/checks", "/home"])
def test_checks_cost_the_same(w: World, path: str) -> None:
    release = w.outputs()

    def more(count: int) -> None:
        for run in more_runs(again(release.run), count):
            OutputRelease.objects.create(run=run, state="in_review")

    same_cost(w.checkers[0], path, more)


def test_odd_filters(w: World) -> None:
    for query in (
        "?kind=%00&state=x&project=%00",
        "?project=%F0%9F%98%80",
        "?page=x",
        "?page=-1",
        "?page=%00",
        "?project=" + "x" * 3000,
    ):
        page(w.member, f"/runs/{query}")
        assert browser(w.member).get(f"/api/v1/runs{query}").status_code in (200, 404)
