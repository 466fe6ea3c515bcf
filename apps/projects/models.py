"""Projects, their people, the frozen versions of their application, and what ethics boards said of them."""

from __future__ import annotations

from django.db import models

from apps.accounts.models import Organisation, User
from apps.core.models import UUIDModel
from apps.projects.states import ETHICS_REVIEW, PROJECT, ProjectState, ReviewState


class Project(UUIDModel):
    """A research project, from draft to close. `answers` are those of the application form, by question code."""

    LIFECYCLE = PROJECT

    ref = models.CharField(max_length=20, unique=True)  # SR-2026-0001, for people to quote
    title = models.CharField(max_length=200)
    organisation = models.ForeignKey(Organisation, on_delete=models.PROTECT, related_name="projects")
    board = models.ForeignKey(
        Organisation, on_delete=models.PROTECT, null=True, related_name="reviewed_projects"
    )
    state = models.CharField(max_length=30, default=ProjectState.DRAFT)
    answers = models.JSONField(default=dict)
    starts_on = models.DateField(null=True)
    ends_on = models.DateField(null=True)
    ethics_valid_until = models.DateField(null=True)
    conditions = models.TextField(blank=True)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")

    class Meta:
        ordering = ["-created_at"]
        indexes = [models.Index(fields=["state"])]

    def __str__(self) -> str:
        return f"{self.ref} {self.title}"

    @property
    def log_scope(self) -> str:
        return f"project:{self.pk}"


class Membership(UUIDModel):
    """A person in a project. Invited first; counts only once accepted."""

    class Role(models.TextChoices):
        PRINCIPAL_INVESTIGATOR = "principal_investigator", "Principal investigator"
        RESEARCHER = "researcher", "Researcher"

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="memberships")
    role = models.CharField(max_length=40, choices=Role.choices)
    invited_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    accepted_at = models.DateTimeField(null=True)
    left_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["project", "user"], condition=models.Q(left_at__isnull=True), name="member_once"
            ),
            models.UniqueConstraint(
                fields=["project"],
                condition=models.Q(left_at__isnull=True, role="principal_investigator"),
                name="one_principal_investigator",
            ),
        ]


class ApplicationVersion(UUIDModel):
    """The application as submitted: frozen, numbered, hashed (SHA-256 of the JCS of `answers`)."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    answers = models.JSONField()
    sha256 = models.CharField(max_length=64)
    submitted_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")

    class Meta:
        ordering = ["number"]
        constraints = [models.UniqueConstraint(fields=["project", "number"], name="application_version_once")]


class EthicsReview(UUIDModel):
    """One board's review of one application version."""

    LIFECYCLE = ETHICS_REVIEW

    version = models.OneToOneField(ApplicationVersion, on_delete=models.PROTECT, related_name="review")
    board = models.ForeignKey(Organisation, on_delete=models.PROTECT, related_name="reviews")
    state = models.CharField(max_length=40, default=ReviewState.RECEIVED)
    conditions = models.TextField(blank=True)
    valid_until = models.DateField(null=True)
    decided_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    decided_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(decided_by__isnull=True, decided_at__isnull=True)
                | models.Q(decided_by__isnull=False, decided_at__isnull=False),
                name="ethics_decision_paired",
            ),
            models.UniqueConstraint(
                fields=["board", "version"],
                condition=models.Q(state__in=["received", "under_review"]),
                name="one_live_review",
            ),
        ]

    @property
    def log_scope(self) -> str:
        return f"project:{self.version.project_id}"


class EthicsOpinion(UUIDModel):
    """One member's opinion, or their declared interest (then they take no part)."""

    class Opinion(models.TextChoices):
        SUPPORT = "support", "Support"
        SUPPORT_WITH_CONDITIONS = "support_with_conditions", "Support with conditions"
        OBJECT = "object", "Object"
        INTEREST = "interest", "I have an interest and take no part"

    review = models.ForeignKey(EthicsReview, on_delete=models.PROTECT, related_name="opinions")
    member = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    opinion = models.CharField(max_length=40, choices=Opinion.choices)
    comment = models.TextField()

    class Meta:
        ordering = ["created_at"]
        constraints = [models.UniqueConstraint(fields=["review", "member"], name="one_opinion_a_member")]
