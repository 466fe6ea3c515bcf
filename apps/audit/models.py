"""The append-only log: entries (what happened), and the Merkle tree over their salted commitments.

An entry holds codes and hashes, never a name, an e-mail address or a data value. Its leaf in the tree is a commitment
under a random salt, so that tree and proofs can be given to anybody. No foreign keys: the log outlives all else.
"""

from __future__ import annotations

import uuid

from django.db import models
from django.utils import timezone


class Entry(models.Model):
    """One thing that happened. Rows are inserted and sequenced, and never changed after."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    # Place in the tree; empty until the sequencer has taken the entry in, seconds after the commit.
    index = models.BigIntegerField(null=True, unique=True)
    event = models.CharField(max_length=80)
    actor = models.CharField(max_length=80)
    object_type = models.CharField(max_length=60)
    object_id = models.CharField(max_length=80)
    # The project or dataset that it concerns, for "who may see this entry".
    scope = models.CharField(max_length=120, blank=True)
    data = models.JSONField(default=dict)
    at = models.DateTimeField(default=timezone.now)
    salt = models.BinaryField()
    leaf_hash = models.BinaryField()

    class Meta:
        indexes = [
            models.Index(fields=["object_type", "object_id"]),
            models.Index(fields=["event"]),
            models.Index(fields=["actor"]),
            models.Index(fields=["scope"]),
            models.Index(fields=["at"]),
            models.Index(fields=["id"], name="audit_unsequenced", condition=models.Q(index__isnull=True)),
        ]
        constraints = [models.CheckConstraint(condition=~models.Q(actor=""), name="audit_entry_has_actor")]


class Tile(models.Model):
    """Up to 256 hashes of one level of the tree (C2SP tlog-tiles). Level 0 holds leaf hashes."""

    level = models.PositiveSmallIntegerField()
    index = models.BigIntegerField()
    hashes = models.BinaryField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["level", "index"], name="audit_one_tile")]


class Checkpoint(models.Model):
    """A signed tree head (C2SP tlog-checkpoint): the portal's word on the whole log at one size."""

    size = models.BigIntegerField(unique=True)
    root = models.BinaryField()
    note = models.TextField()
    at = models.DateTimeField(default=timezone.now)
