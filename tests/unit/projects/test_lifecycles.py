"""Every pair of states of both lifecycles: legal steps write row, history and audit; all others are refused."""

from __future__ import annotations

from typing import Any

import pytest

from apps.accounts.models import User
from apps.audit.models import Entry
from apps.core import lifecycle as core
from apps.core.clock import now
from apps.core.errors import Conflict, Invalid
from apps.core.models import StateChange
from apps.projects.models import ApplicationVersion, EthicsReview, Project
from apps.projects.states import ETHICS_REVIEW, PROJECT
from tests.unit.projects.conftest import World

PAIRS = [
    (table.name, str(source), str(target))
    for table in (PROJECT, ETHICS_REVIEW)
    for source in table.states
    for target in table.states
]
TABLES = {t.name: t for t in (PROJECT, ETHICS_REVIEW)}


def _object(kind: str, state: str, world: World) -> Project | EthicsReview:
    project = Project.objects.create(
        ref="SR-2000-0001", title="T", organisation=world.university, created_by=world.ada,
        state=state if kind == "project" else "submitted",
    )  # fmt: skip
    if kind == "project":
        return project
    version = ApplicationVersion.objects.create(
        project=project, number=1, answers={}, sha256="0" * 64, submitted_by=world.ada
    )
    return EthicsReview.objects.create(version=version, board=world.board, state=state)


def _records(obj: Any) -> tuple[int, int]:
    return core.history(obj).count(), Entry.objects.filter(object_id=str(obj.pk)).count()


@pytest.mark.parametrize(("kind", "source", "target"), PAIRS)
def test_pair(kind: str, source: str, target: str, world: World) -> None:
    obj = _object(kind, source, world)
    if TABLES[kind].allows(source, target):
        core.transition(obj, target, by=world.chair, reason="Because.")
        obj.refresh_from_db()
        assert obj.state == target
        change = StateChange.objects.get(object_id=obj.pk)
        assert (change.from_state, change.to_state, change.by, change.reason) == (
            source, target, world.chair.actor_code, "Because.",
        )  # fmt: skip
        assert Entry.objects.get(object_id=str(obj.pk)).event == f"{kind}.{target}"
    else:
        with pytest.raises(Conflict):
            core.transition(obj, target, by=world.chair, reason="Because.")
        obj.refresh_from_db()
        assert obj.state == source
        assert _records(obj) == (0, 0)


@pytest.mark.parametrize(("kind", "source", "target"), [p for p in PAIRS if TABLES[p[0]].allows(p[1], p[2])])
def test_a_legal_step_is_atomic(
    kind: str, source: str, target: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the log cannot be written, nothing is."""
    obj = _object(kind, source, world)

    def broken() -> Any:
        def record(**_: object) -> None:
            raise RuntimeError("the log is full")

        return record

    monkeypatch.setattr(core, "recorder", broken)
    with pytest.raises(RuntimeError):
        core.transition(obj, target, by=world.chair, reason="Because.", set_fields={})
    obj.refresh_from_db()
    assert obj.state == source
    assert _records(obj) == (0, 0)


@pytest.mark.parametrize(
    ("kind", "source", "target"),
    [p for p in PAIRS if TABLES[p[0]].allows(p[1], p[2]) and TABLES[p[0]].table[p[1]][p[2]].reason],
)
def test_a_reason_is_asked_for_where_the_table_says_so(
    kind: str, source: str, target: str, world: World
) -> None:
    obj = _object(kind, source, world)
    with pytest.raises(Invalid):
        core.transition(obj, target, by=world.chair, reason="  ")
    assert _records(obj) == (0, 0)


def test_nothing_is_written_without_an_actor(world: World) -> None:
    obj = _object("project", "draft", world)
    with pytest.raises(ValueError, match="actor"):
        core.transition(obj, "submitted", by=None)


def test_a_decision_needs_decider_and_time_together(world: World) -> None:
    from django.db import IntegrityError, transaction

    obj = _object("ethics_review", "received", world)
    for half in ({"decided_by": world.chair}, {"decided_at": now()}):
        with pytest.raises(IntegrityError), transaction.atomic():
            EthicsReview.objects.filter(pk=obj.pk).update(**half)


def test_users_are_actors(world: World) -> None:
    assert isinstance(world.ada, User) and world.ada.actor_code == f"user:{world.ada.pk}"
