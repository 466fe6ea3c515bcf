"""Lifecycles as tables, and the one function that moves an object along one.

A lifecycle is data: states, and for each state where it may go and who may take it there. `transition` is the only
writer of a `state` column. It updates conditionally on the old state, so that of two people deciding at once exactly
one wins and the other is told; history, audit entry and outbox row are written in the same transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from django.db import models, transaction

from apps.core.actors import require_actor
from apps.core.clock import now
from apps.core.errors import Conflict
from apps.core.models import StateChange


@dataclass(frozen=True)
class Step:
    """One arrow of a lifecycle.

    owner: who may take it, as a role word for the reference page (the check itself stands in permissions.py).
    reason: whether a reason must be given.
    """

    owner: str
    reason: bool = False
    note: str = ""


@dataclass(frozen=True)
class Lifecycle:
    """A state table. `name` is the object type's stable code (it is stored in history and log)."""

    name: str
    states: type[StrEnum]
    initial: str
    table: Mapping[str, Mapping[str, Step]]
    labels: Mapping[str, str]
    colours: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {str(s) for s in self.states}
        if set(self.table) != known:
            raise ValueError(f"{self.name}: every state needs a row in the table: {known ^ set(self.table)}")
        for source, steps in self.table.items():
            if unknown := set(steps) - known:
                raise ValueError(f"{self.name}: {source} leads to unknown states {unknown}")
        if set(self.labels) != known:
            raise ValueError(f"{self.name}: every state needs a label: {known ^ set(self.labels)}")

    @property
    def final(self) -> frozenset[str]:
        """States that nothing leaves."""
        return frozenset(state for state, steps in self.table.items() if not steps)

    def allows(self, source: str, target: str) -> bool:
        return target in self.table[source]


LIFECYCLES: dict[str, Lifecycle] = {}


def register(lifecycle: Lifecycle) -> Lifecycle:
    """Make a lifecycle known to the reference page and to the tests that walk every pair of states."""
    LIFECYCLES[lifecycle.name] = lifecycle
    return lifecycle


Recorder = Callable[..., object]
_recorder: list[Recorder] = []


def set_recorder(recorder: Recorder) -> None:
    """The audit app gives its `record` here at start-up (core may not import it)."""
    _recorder[:] = [recorder]


def recorder() -> Recorder:
    """The audit log's `record(event=, by=, object_type=, object_id=, data=)`. Without one nothing may be written."""
    if not _recorder:
        raise RuntimeError("no audit recorder is registered: refusing to write")
    return _recorder[0]


def transition(
    obj: models.Model,
    to: str,
    *,
    by: object,
    reason: str = "",
    set_fields: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Move `obj` (a model with `state` and `LIFECYCLE`) to state `to`; the only writer of `state`.

    set_fields: other columns to write in the same UPDATE (who decided, when).
    data: what the audit entry says beside from/to; must hold no personal data and no data values.

    Raises Conflict when the table has no such step from the state the row is in *now*, or when another
    transaction moved it first. Permission is the caller's business (permissions.py).
    """
    lifecycle: Lifecycle = obj.LIFECYCLE  # type: ignore[attr-defined]
    actor = require_actor(by)
    source = str(obj.state)  # type: ignore[attr-defined]
    target = str(to)
    step = lifecycle.table[source].get(target)
    if step is None:
        raise Conflict(
            "wrong_state",
            f"This {lifecycle.name.replace('_', ' ')} is “{lifecycle.labels[source]}”, so it cannot become "
            f"“{lifecycle.labels[target]}”.",
            "Reload the page to see where it stands now.",
        )
    if step.reason and not reason.strip():
        from apps.core.errors import Invalid

        raise Invalid(
            "reason_missing", "Give a reason.", "Say in a sentence why.", fields={"reason": ["Give a reason"]}
        )
    fields = {**(set_fields or {}), "state": target}
    with transaction.atomic():
        changed = type(obj)._default_manager.filter(pk=obj.pk, state=source).update(**fields)
        if changed == 0:
            raise Conflict(
                "already_changed",
                f"Somebody else changed this {lifecycle.name.replace('_', ' ')} a moment before you. Nothing of yours was saved.",
                "Reload the page to see what they did, then decide again if it is still needed.",
            )
        StateChange.objects.create(
            object_type=lifecycle.name,
            object_id=obj.pk,
            from_state=source,
            to_state=target,
            by=actor,
            reason=reason,
            at=now(),
        )
        recorder()(
            event=f"{lifecycle.name}.{target}",
            by=by,
            object_type=lifecycle.name,
            object_id=obj.pk,
            scope=scope_of(obj),
            data={"from": source, "to": target, **(data or {})},
        )
    for name, value in fields.items():
        setattr(obj, name, value)


def scope_of(obj: models.Model) -> str:
    """`project:<id>` or `dataset:<id>`: whose people may read the entry. A model says it by `log_scope`, else ""."""
    return str(getattr(obj, "log_scope", ""))


def begin(obj: models.Model, *, by: object, data: Mapping[str, Any] | None = None) -> None:
    """Write the first history row and audit entry of a freshly saved object (state = the lifecycle's initial one)."""
    lifecycle: Lifecycle = obj.LIFECYCLE  # type: ignore[attr-defined]
    actor = require_actor(by)
    state = str(obj.state)  # type: ignore[attr-defined]
    if state != lifecycle.initial:
        raise ValueError(f"a new {lifecycle.name} starts as {lifecycle.initial}, not {state}")
    with transaction.atomic():
        StateChange.objects.create(
            object_type=lifecycle.name, object_id=obj.pk, from_state="", to_state=state, by=actor, at=now()
        )
        recorder()(
            event=f"{lifecycle.name}.{state}",
            by=by,
            object_type=lifecycle.name,
            object_id=obj.pk,
            scope=scope_of(obj),
            data={"to": state, **(data or {})},
        )


def history(obj: models.Model) -> models.QuerySet[StateChange]:
    """All transitions of `obj`, oldest first."""
    lifecycle: Lifecycle = obj.LIFECYCLE  # type: ignore[attr-defined]
    return StateChange.objects.filter(object_type=lifecycle.name, object_id=obj.pk).order_by("id")
