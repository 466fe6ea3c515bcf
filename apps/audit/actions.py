"""Writing the log. `record` is called by every action, inside that action's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from apps.audit.models import Entry
from apps.core.actors import require_actor
from apps.core.clock import now
from strongroom.translog import generate_salt, leaf_data, leaf_hash


def entry_document(entry: Entry) -> dict[str, Any]:
    """The entry as the commitment covers it. Everything that an auditor sees is in it, but salt and index."""
    return {
        "v": 1,
        "id": str(entry.id),
        "event": entry.event,
        "actor": entry.actor,
        "object_type": entry.object_type,
        "object_id": entry.object_id,
        "scope": entry.scope,
        "data": entry.data,
        "at": entry.at.isoformat(timespec="microseconds"),
    }


def record(
    *,
    event: str,
    by: object,
    object_type: str,
    object_id: object,
    data: Mapping[str, Any] | None = None,
    scope: str = "",
) -> Entry:
    """Append one entry, in the caller's transaction. Refuses without an actor (ValueError); LogError for data that
    canonical JSON cannot hold.

    event: `noun.verb_past`, stable. scope: `project:<id>` or `dataset:<id>`, whose people may read the entry.
    data: JSON without floats, personal data or values from a dataset.
    """
    actor = require_actor(by)
    salt = generate_salt()
    entry = Entry(
        event=event,
        actor=actor,
        object_type=object_type,
        object_id=str(object_id),
        scope=scope,
        data=dict(data or {}),
        at=now(),
        salt=salt,
    )
    entry.leaf_hash = leaf_hash(leaf_data(entry_document(entry), salt))
    with transaction.atomic():
        entry.save(force_insert=True)
    return entry


__all__ = ["entry_document", "leaf_data", "leaf_hash", "record"]
