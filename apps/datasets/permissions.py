"""Who may do what with datasets. The only place that reads the per-dataset grants.

Acting for a custodian takes two things at once: the role custodian in the custodian organisation, and the grant on
this dataset. Losing either ends it.
"""

from __future__ import annotations

from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet

from apps.accounts.models import Organisation, RoleHolding, User
from apps.accounts.permissions import holds, organisations_of, require_role
from apps.accounts.queries import live
from apps.accounts.roles import Role
from apps.core.clock import now
from apps.core.errors import Denied
from apps.datasets.models import AccessRequest, Dataset, DatasetUserObjectPermission, Stage1Release
from apps.datasets.states import AccessState, AgreementState, DatasetState, ReleaseState

MANAGE = "manage_dataset"
PUBLIC_STATES = (DatasetState.PUBLISHED, DatasetState.SUSPENDED)


def granted(user: Any, dataset: Dataset) -> bool:
    """Whether the person holds the grant on this dataset (which alone entitles to nothing)."""
    return DatasetUserObjectPermission.objects.filter(
        user_id=user.pk, content_object_id=dataset.pk, permission__codename=MANAGE
    ).exists()


def acts_for(user: User | Any, dataset: Dataset) -> bool:
    """Whether the person may act for the custodian on this dataset."""
    return holds(user, Role.CUSTODIAN, dataset.custodian) and granted(user, dataset)


def require_acts_for(user: User | Any, dataset: Dataset, *, to: str) -> None:
    """Raise Denied unless `acts_for`. `to` completes "You cannot …"."""
    if acts_for(user, dataset):
        return
    require_role(user, Role.CUSTODIAN, dataset.custodian, to=to)
    raise Denied(
        "not_a_manager",
        f"You are a custodian in {dataset.custodian.name}, but not for the dataset “{dataset.title}”, so you cannot {to}.",
        "Ask one of its managers to add you.",
    )


def require_registers(user: User | Any, organisation: Organisation) -> None:
    """Raise Denied unless the person is a custodian in this (active, custodian) organisation."""
    require_role(user, Role.CUSTODIAN, organisation, to=f"register a dataset for {organisation.name}")
    if organisation.kind != Organisation.Kind.CUSTODIAN:
        raise Denied(
            "not_a_custodian",
            f"{organisation.name} is not a data custodian, so no dataset can be registered for it.",
            "Choose a custodian organisation.",
        )


def registers_for(user: User | Any) -> list[Organisation]:
    """Organisations for which the person may register a dataset."""
    return [o for o in organisations_of(user, Role.CUSTODIAN) if o.kind == Organisation.Kind.CUSTODIAN]


def require_portal(by: object, *, to: str) -> None:
    """Raise Denied unless the actor is the portal itself or a run: no person may report what a run found."""
    code = str(getattr(by, "actor_code", ""))
    if not code.startswith(("system:", "runner:")):
        raise Denied(
            "portal_only", f"Only the portal itself can {to}.", "Nothing is to be done by hand here."
        )


def visible(user: User | Any) -> QuerySet[Dataset]:
    """Datasets that this person (or nobody in particular) may know of.

    Published and suspended ones are public. Drafts and withdrawn ones are for custodians of that organisation; a
    withdrawn one stays visible to the people of projects that asked for it.
    """
    rule = Q(state__in=PUBLIC_STATES)
    if getattr(user, "is_authenticated", False):
        rule |= Q(custodian__in=[o.pk for o in organisations_of(user, Role.CUSTODIAN)])
        asked = AccessRequest.objects.filter(
            dataset=OuterRef("pk"),
            project__memberships__user=user,
            project__memberships__accepted_at__isnull=False,
        )
        rule |= Q(Exists(asked), state=DatasetState.WITHDRAWN)
    return Dataset.objects.filter(rule).select_related("custodian")


def can_view(user: User | Any, dataset: Dataset) -> bool:
    """Whether `dataset` is among `visible(user)`."""
    return dataset.state in PUBLIC_STATES or visible(user).filter(pk=dataset.pk).exists()


def managed(user: User | Any) -> QuerySet[Dataset]:
    """Datasets for which the person acts."""
    grants = DatasetUserObjectPermission.objects.filter(user_id=user.pk, permission__codename=MANAGE)
    return Dataset.objects.filter(
        pk__in=grants.values("content_object_id"),
        custodian__in=[o.pk for o in organisations_of(user, Role.CUSTODIAN)],
    )


def managers(dataset: Dataset) -> QuerySet[User]:
    """Everybody with the grant on this dataset, by name; some may have lost the role since."""
    grants = DatasetUserObjectPermission.objects.filter(content_object=dataset, permission__codename=MANAGE)
    return (
        User.objects.filter(pk__in=grants.values("user_id")).select_related("organisation").order_by("name")
    )


def left_alone(user: User, organisation: Organisation, among: list[Any]) -> list[str]:
    """Titles of those datasets (ids `among`) of the organisation for which nobody but this person can act."""
    others = DatasetUserObjectPermission.objects.filter(
        content_object_id=OuterRef("pk"),
        permission__codename=MANAGE,
        user__is_active=True,
        user_id__in=live(RoleHolding.objects.filter(role=Role.CUSTODIAN, organisation=organisation)).values(
            "user_id"
        ),
    ).exclude(user_id=user.pk)
    alone = Dataset.objects.filter(~Exists(others), pk__in=among).order_by("title")
    return list(alone.values_list("title", flat=True))


def can_download_release(user: User | Any, release: Stage1Release) -> bool:
    """Custodians of the dataset may, from the review on; members of a project with access in force may, once released
    and while the dataset is open for use."""
    if not getattr(user, "is_authenticated", False) or not user.is_active or not release.sha256:
        return False
    if acts_for(user, release.version.dataset):
        return True
    if release.state != ReleaseState.RELEASED or release.version.dataset.state != DatasetState.PUBLISHED:
        return False
    today = now().date()
    return AccessRequest.objects.filter(
        dataset_id=release.version.dataset_id,
        state=AccessState.ACTIVE,
        ends_on__gte=today,
        pk__in=AccessRequest.objects.filter(
            agreements__state=AgreementState.IN_FORCE,
            agreements__starts_on__lte=today,
            agreements__ends_on__gte=today,
        ).values("pk"),
        project_id__in=_projects_of(user),
    ).exists()


def _projects_of(user: User) -> QuerySet[Any, Any]:
    return user.memberships.filter(accepted_at__isnull=False, left_at__isnull=True).values("project_id")
