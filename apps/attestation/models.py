"""Evidence as it came, the verdict on it, the policies it was judged by, and every key released or refused.

A run is named by its id without a foreign key: this app stands to the left of jobs, and evidence outlives runs.
"""

from __future__ import annotations

from django.db import models

from apps.accounts.models import User
from apps.core.models import UUIDModel
from apps.datasets.models import Dataset, DatasetVersion


class ReleasePolicy(UUIDModel):
    """What a custodian demands of the evidence before a data key is released. The newest number is in force."""

    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="release_policies")
    number = models.PositiveIntegerField()
    document = models.JSONField()
    sha256 = models.CharField(max_length=64)
    made_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["dataset", "number"], name="release_policy_once")]


class Purpose(models.TextChoices):
    KEY_RELEASE = "key-release", "Key release"
    RESULT = "result", "Result"


class Challenge(UUIDModel):
    """A random value that evidence must be bound to; used once, for one run and purpose, within its time."""

    run = models.UUIDField()
    attempt = models.PositiveIntegerField()
    purpose = models.CharField(max_length=20, choices=Purpose.choices)
    value = models.CharField(max_length=64, unique=True)
    expires_at = models.DateTimeField()
    spent_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "attempt", "purpose"], name="one_challenge_a_purpose"),
        ]


class Evidence(UUIDModel):
    """An evidence envelope byte for byte, the context it must be bound to, and the verdict."""

    run = models.UUIDField(db_index=True)
    attempt = models.PositiveIntegerField()
    purpose = models.CharField(max_length=20, choices=Purpose.choices)
    type = models.CharField(max_length=40)
    # Whose key broker it was shown to: "" this portal's, else the id of a custodian's.
    broker = models.CharField(max_length=200, blank=True, default="")
    envelope = models.BinaryField()
    sha256 = models.CharField(max_length=64)
    context = models.JSONField()
    tier = models.CharField(max_length=20)
    accepted = models.BooleanField()
    appraisal = models.JSONField()

    class Meta:
        ordering = ["created_at"]
        verbose_name_plural = "evidence"
        constraints = [
            models.UniqueConstraint(
                fields=["run", "attempt", "purpose", "broker"],
                condition=models.Q(accepted=True),
                name="one_accepted_evidence",
            ),
        ]


class KeyRelease(UUIDModel):
    """One decision on one data key: released to an attested key, or refused with the failing checks."""

    run = models.UUIDField(db_index=True)
    version = models.ForeignKey(DatasetVersion, on_delete=models.PROTECT, related_name="key_releases")
    evidence = models.ForeignKey(Evidence, on_delete=models.PROTECT, related_name="key_releases")
    policy_sha256 = models.CharField(max_length=64)
    released = models.BooleanField()
    reasons = models.JSONField(default=list)

    class Meta:
        ordering = ["created_at"]
