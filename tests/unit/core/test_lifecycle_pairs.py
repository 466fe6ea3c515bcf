"""Every registered lifecycle, every pair of its states, on real rows in PostgreSQL."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

import pytest
from django.db import IntegrityError, models, transaction

from apps.accounts.models import Organisation, User
from apps.audit.models import Entry
from apps.core import lifecycle as core
from apps.core.clock import now
from apps.core.errors import Conflict, Invalid
from apps.core.lifecycle import LIFECYCLES, Lifecycle
from apps.core.models import StateChange
from apps.datasets.models import AccessRequest, Agreement, Dataset, DatasetVersion, Stage1Release
from apps.jobs.models import OutputRelease, Program, Run
from apps.projects.models import ApplicationVersion, EthicsReview, Project

pytestmark = pytest.mark.django_db
PAIRS = [
    (name, str(a), str(b))
    for name, table in LIFECYCLES.items()
    for a, b in itertools.product(table.states, repeat=2)
]
STEPS = [(name, a, b) for name, a, b in PAIRS if LIFECYCLES[name].allows(a, b)]
TODAY = dt.date(2026, 11, 5)


class Rows:
    """One row of each kind in any state; what else the row needs is written directly."""

    def __init__(self) -> None:
        self.university = Organisation.objects.create(slug="uni", name="University", kind="university")
        self.archive = Organisation.objects.create(slug="archive", name="Archive", kind="custodian")
        self.ada, self.bob = (User.objects.create(email=f"{n}@example.org", name=n) for n in ("ada", "bob"))
        self.base_project = self.project("active")
        self.base_dataset = self.dataset("published")
        self.base_version = self.dataset_version("accepted")
        self.base_request = self.access_request("active")
        self.base_program = Program.objects.create(
            project=self.base_project, name="p", kind="py", entry="p.py", sha256="a" * 64, size=1, object_name="programs/a",
            uploaded_by=self.ada, submission="s",
        )  # fmt: skip
        self.base_run = self.run("succeeded")

    def make(self, kind: str, state: str) -> Any:
        return getattr(self, kind)(state)

    def project(self, state: str) -> Project:
        ref = f"SR-2026-{Project.objects.count():04d}"
        return Project.objects.create(
            ref=ref, title="T", organisation=self.university, created_by=self.ada, state=state
        )

    def ethics_review(self, state: str) -> EthicsReview:
        version = ApplicationVersion.objects.create(
            project=self.base_project, number=1, answers={}, sha256="0" * 64, submitted_by=self.ada
        )
        return EthicsReview.objects.create(version=version, board=self.university, state=state)

    def dataset(self, state: str) -> Dataset:
        slug = f"set-{Dataset.objects.count()}"
        return Dataset.objects.create(
            slug=slug,
            title=slug,
            summary="S",
            custodian=self.archive,
            personal_data=False,
            created_by=self.ada,
            state=state,
        )

    def dataset_version(self, state: str) -> DatasetVersion:
        number = self.base_dataset.versions.count() + 1
        return DatasetVersion.objects.create(
            dataset=self.base_dataset, number=number, dictionary={}, media_type="text/csv", object_name="o", announced_size=1,
            ciphertext_sha256="c" * 64, plaintext_sha256="p" * 64, uploaded_by=self.ada, state=state,
        )  # fmt: skip

    def access_request(self, state: str) -> AccessRequest:
        return AccessRequest.objects.create(
            project=self.project("active"),
            dataset=self.base_dataset,
            purpose="P",
            ends_on=TODAY,
            requested_by=self.ada,
            state=state,
        )

    def agreement(self, state: str) -> Agreement:
        return Agreement.objects.create(
            access_request=self.base_request,
            template="t",
            body="b",
            sha256="0" * 64,
            starts_on=TODAY,
            ends_on=TODAY,
            state=state,
        )

    def stage1_release(self, state: str) -> Stage1Release:
        return Stage1Release.objects.create(
            version=self.base_version,
            method="gaussian_copula",
            object_name="o",
            sha256="0" * 64,
            ordered_by=self.ada,
            state=state,
        )

    def run(self, state: str) -> Run:
        return Run.objects.create(
            kind="research", project=self.base_project, program=self.base_program, requested_by="user:x", backend="local",
            statement_sha256="0" * 64, state=state,
        )  # fmt: skip

    def output_release(self, state: str) -> OutputRelease:
        return OutputRelease.objects.create(
            run=self.base_run,
            state=state,
            first_checker=self.ada,
            second_checker=self.bob,
            package_sha256="0" * 64,
        )


@pytest.fixture
def rows(db: None) -> Rows:
    return Rows()


def records(obj: models.Model) -> tuple[int, int]:
    return StateChange.objects.filter(object_id=obj.pk).count(), Entry.objects.filter(
        object_id=str(obj.pk)
    ).count()


def test_every_lifecycle_is_covered() -> None:
    assert set(LIFECYCLES) == {name for name in vars(Rows) if name in LIFECYCLES}
    assert len(LIFECYCLES) >= 9


@pytest.mark.parametrize(("kind", "source", "target"), PAIRS)
def test_pair(rows: Rows, kind: str, source: str, target: str) -> None:
    obj, table = rows.make(kind, source), LIFECYCLES[kind]
    before = records(obj)
    if not table.allows(source, target):
        with pytest.raises(Conflict) as refusal:
            core.transition(obj, target, by=rows.ada, reason="Because.")
        assert refusal.value.code == "wrong_state"
        assert table.labels[source] in refusal.value.detail and refusal.value.remedy
        obj.refresh_from_db()
        assert obj.state == source and records(obj) == before
        return
    core.transition(obj, target, by=rows.ada, reason="Because.", data={"n": 1})
    assert obj.state == target
    obj.refresh_from_db()
    assert obj.state == target
    change = StateChange.objects.get(object_id=obj.pk)
    assert (change.object_type, change.from_state, change.to_state) == (kind, source, target)
    assert (change.by, change.reason) == (rows.ada.actor_code, "Because.")
    entry = Entry.objects.get(object_id=str(obj.pk))
    assert (entry.event, entry.actor) == (f"{kind}.{target}", rows.ada.actor_code)
    assert entry.data == {"from": source, "to": target, "n": 1}


@pytest.mark.parametrize(("kind", "source", "target"), STEPS)
def test_reason_is_asked_for_where_the_table_says(rows: Rows, kind: str, source: str, target: str) -> None:
    obj = rows.make(kind, source)
    if LIFECYCLES[kind].table[source][target].reason:
        for empty in ("", "  \n"):
            with pytest.raises(Invalid) as refusal:
                core.transition(obj, target, by=rows.ada, reason=empty)
            assert refusal.value.fields == {"reason": ["Give a reason"]}
        obj.refresh_from_db()
        assert obj.state == source and records(obj) == (0, 0)
    else:
        core.transition(obj, target, by=rows.ada)
        assert StateChange.objects.get(object_id=obj.pk).reason == ""


@pytest.mark.parametrize(("kind", "source", "target"), STEPS)
def test_a_step_is_whole_or_not_at_all(
    rows: Rows, kind: str, source: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    obj = rows.make(kind, source)

    def broken(**_: object) -> None:
        raise RuntimeError("the log cannot be written")

    monkeypatch.setattr(core, "_recorder", [broken])
    with pytest.raises(RuntimeError), transaction.atomic():
        core.transition(obj, target, by=rows.ada, reason="Because.")
    obj.refresh_from_db()
    assert obj.state == source and records(obj) == (0, 0)


@pytest.mark.parametrize("kind", LIFECYCLES)
def test_a_stale_copy_changes_nothing(rows: Rows, kind: str) -> None:
    """Two people look at the same page: the second one's step is refused even though their copy allows it."""
    table = LIFECYCLES[kind]
    source, target = next((a, b) for name, a, b in STEPS if name == kind and a == table.initial)
    first = rows.make(kind, source)
    second = type(first).objects.get(pk=first.pk)
    core.transition(first, target, by=rows.ada, reason="Because.")
    with pytest.raises(Conflict) as refusal:
        core.transition(second, target, by=rows.bob, reason="Because.")
    assert refusal.value.code == "already_changed"
    assert records(first) == (1, 1)


def longest_walk(table: Lifecycle) -> list[str]:
    """Some way through the table that repeats no state, as long as a greedy search finds."""
    best: list[str] = []

    def walk(path: list[str]) -> None:
        nonlocal best
        if len(path) > len(best):
            best = path
        for target in table.table[path[-1]]:
            if str(target) not in path:
                walk([*path, str(target)])

    walk([str(table.initial)])
    return best


@pytest.mark.parametrize("kind", LIFECYCLES)
def test_history_rebuilds_the_state(rows: Rows, kind: str) -> None:
    table = LIFECYCLES[kind]
    obj = rows.make(kind, str(table.initial))
    core.begin(obj, by=rows.ada)
    path = longest_walk(table)
    for target in path[1:]:
        core.transition(obj, target, by=rows.ada, reason="Because.")
    state = ""
    for change in core.history(obj):
        assert change.from_state == state
        state = change.to_state
    obj.refresh_from_db()
    assert obj.state == state == path[-1]
    assert [e.event for e in Entry.objects.filter(object_id=str(obj.pk)).order_by("at")] == [
        f"{kind}.{s}" for s in path
    ]


@pytest.mark.parametrize("kind", LIFECYCLES)
def test_nothing_begins_in_the_middle(rows: Rows, kind: str) -> None:
    table = LIFECYCLES[kind]
    obj = rows.make(kind, next(str(s) for s in table.states if s != table.initial))
    with pytest.raises(ValueError, match="starts as"):
        core.begin(obj, by=rows.ada)
    assert records(obj) == (0, 0)


@pytest.mark.parametrize("nobody", [None, "", object()])
def test_no_actor_no_write(rows: Rows, nobody: object) -> None:
    obj = rows.make("dataset", "draft")
    with pytest.raises(ValueError, match="actor"):
        core.transition(obj, "published", by=nobody)
    obj.refresh_from_db()
    assert obj.state == "draft" and records(obj) == (0, 0)
    with pytest.raises(IntegrityError), transaction.atomic():
        StateChange.objects.create(object_type="dataset", object_id=obj.pk, to_state="draft", by="", at=now())


@pytest.mark.parametrize("kind", LIFECYCLES)
def test_tables_are_well_formed(kind: str) -> None:
    """Every state can be reached and named; every final state is really one; every step has an owner."""
    table = LIFECYCLES[kind]
    reached, frontier = {str(table.initial)}, [str(table.initial)]
    while frontier:
        for target in table.table[frontier.pop()]:
            if str(target) not in reached:
                reached.add(str(target))
                frontier.append(str(target))
    assert reached == {str(s) for s in table.states}
    assert table.final and all(not table.table[s] for s in table.final)
    assert all(step.owner for steps in table.table.values() for step in steps.values())
    assert set(table.colours) == reached
