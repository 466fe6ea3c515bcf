"""People, organisations, who holds which role where, and API tokens."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Lower
from django.utils import timezone

from apps.accounts.roles import ROLES, Role
from apps.core.models import UUIDModel


class Organisation(UUIDModel):
    """A university, an ethics board, a custodian, or the operator of this portal."""

    class Kind(models.TextChoices):
        UNIVERSITY = "university", "University or research organisation"
        ETHICS_BOARD = "ethics_board", "Ethics board"
        CUSTODIAN = "custodian", "Data custodian"
        OPERATOR = "operator", "Operator of this portal"

    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=200)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    address = models.TextField(blank=True)
    is_active = models.BooleanField(default=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class UserManager(BaseUserManager["User"]):
    def get_by_natural_key(self, username: str | None) -> User:
        return self.get(email__iexact=username)

    def create_user(self, *, email: str, name: str, password: str | None, **extra: Any) -> User:
        user = self.model(email=email.strip().lower(), name=name.strip(), **extra)
        user.set_password(password)
        user.save()
        return user


class User(AbstractBaseUser, PermissionsMixin):
    """A person. Deactivated, never deleted: the log names them by id."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    email = models.EmailField(max_length=254)
    name = models.CharField(max_length=200)
    job_title = models.CharField(max_length=200, blank=True)
    orcid = models.CharField(max_length=19, blank=True)
    organisation = models.ForeignKey(Organisation, on_delete=models.PROTECT, null=True, related_name="people")
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    # Empty while the password is still the one that an operator chose: somebody else knows it.
    password_chosen_at = models.DateTimeField(null=True, blank=True)

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS = ["name"]
    objects = UserManager()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                Lower("email"),
                name="user_email_once",
                violation_error_message="There is already a person with this e-mail address.",
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def actor_code(self) -> str:
        return f"user:{self.pk}"


class RoleHolding(UUIDModel):
    """A person holds a role in an organisation, from somebody, until a day or until it is taken back."""

    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="holdings")
    role = models.CharField(max_length=40, choices=[(r.value, i.label) for r, i in ROLES.items()])
    organisation = models.ForeignKey(Organisation, on_delete=models.PROTECT, related_name="holdings")
    granted_by = models.CharField(max_length=80)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["user", "role", "organisation"],
                condition=models.Q(revoked_at__isnull=True),
                name="role_held_once",
            ),
            models.CheckConstraint(condition=~models.Q(granted_by=""), name="role_has_granter"),
            # The principal investigator is a role of a project (apps.projects.Membership), never of an organisation.
            models.CheckConstraint(
                condition=~models.Q(role=Role.PRINCIPAL_INVESTIGATOR.value), name="pi_is_a_project_role"
            ),
        ]


class Training(UUIDModel):
    """A course in handling sensitive data that a person completed; valid three years (Safe People)."""

    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="trainings")
    course = models.CharField(max_length=200)
    completed_on = models.DateField()
    recorded_by = models.CharField(max_length=80)


class TermsAcceptance(UUIDModel):
    """A person accepted one version of the terms of use."""

    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="terms")
    version = models.CharField(max_length=20)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "version"], name="terms_accepted_once")]


class ApiToken(UUIDModel):
    """A token for programs. Only its SHA-256 is kept; the token itself is shown once."""

    class Scope(models.TextChoices):
        READ = "read", "Read what you may read"
        RESEARCH = "research", "Download stand-in data, submit programs, fetch released outputs"
        CUSTODY = "custody", "Register, upload and release datasets; approve programs"
        REVIEW = "review", "Review and decide (ethics, access, agreements, outputs)"
        ADMIN = "admin", "Manage organisations, people and roles"

    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="tokens")
    name = models.CharField(max_length=100)
    digest = models.CharField(max_length=64, unique=True)
    hint = models.CharField(max_length=12)
    scopes = ArrayField(models.CharField(max_length=20, choices=Scope.choices))
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
