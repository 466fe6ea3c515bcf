"""Two tables that every app leans on: what changed (StateChange) and what is still to be done (Outbox)."""

from __future__ import annotations

import uuid

from django.db import models
from django.utils import timezone


class UUIDModel(models.Model):
    """Every domain object has an unguessable id; addresses never count objects."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        abstract = True


class StateChange(models.Model):
    """One row per transition. The `state` column of an object is a cache of its last row (docs/reference/states.md).

    No foreign keys: history must outlive what it speaks of.
    """

    object_type = models.CharField(max_length=60)
    object_id = models.UUIDField()
    from_state = models.CharField(max_length=40, blank=True)
    to_state = models.CharField(max_length=40)
    by = models.CharField(max_length=80)
    reason = models.TextField(blank=True)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        indexes = [models.Index(fields=["object_type", "object_id", "id"])]
        constraints = [models.CheckConstraint(condition=~models.Q(by=""), name="statechange_has_actor")]


class Outbox(models.Model):
    """Work that a committed change asks for. Written with the change; deleted only after the work succeeded."""

    topic = models.CharField(max_length=60)
    key = models.CharField(max_length=80)
    created_at = models.DateTimeField(default=timezone.now)
    due_at = models.DateTimeField(default=timezone.now)
    attempts = models.PositiveIntegerField(default=0)
    last_error = models.TextField(blank=True)

    class Meta:
        indexes = [models.Index(fields=["due_at"])]
        constraints = [
            # The same kick twice is one kick.
            models.UniqueConstraint(fields=["topic", "key"], name="outbox_one_per_topic_and_key"),
        ]
