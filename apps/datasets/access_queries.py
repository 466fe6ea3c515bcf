"""Reads about access requests, agreements and stage-1 releases."""

from __future__ import annotations

from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.urls import reverse
from django.utils.html import format_html

from apps.accounts.models import User
from apps.accounts.permissions import organisations_of
from apps.accounts.roles import Role
from apps.core.clock import now
from apps.core.errors import NotFound
from apps.core.tasks import Waiting
from apps.datasets import access_permissions
from apps.datasets.models import AccessRequest, Agreement, Dataset, Signature, Stage1Release
from apps.datasets.permissions import managed
from apps.datasets.states import (
    ACCESS,
    AGREEMENT,
    STAGE1_RELEASE,
    AccessState,
    AgreementState,
    DatasetState,
    ReleaseState,
    VersionState,
)
from apps.projects.models import Project
from apps.projects.permissions import parts_of
from apps.projects.queries import Panel

OPEN = (
    AccessState.SUBMITTED,
    AccessState.APPROVED,
    AccessState.AGREEMENT_PENDING,
    AccessState.ACTIVE,
    AccessState.SUSPENDED,
)


def in_force() -> Q:
    """Access requests under which data may be used today: active, in time, with an agreement in force and in time."""
    today = now().date()
    agreement = Agreement.objects.filter(
        access_request=OuterRef("pk"), state=AgreementState.IN_FORCE, starts_on__lte=today, ends_on__gte=today
    )
    return Q(Exists(agreement), state=AccessState.ACTIVE, ends_on__gte=today)


def active_access(project: Project, dataset: Dataset) -> AccessRequest | None:
    """The request under which `project` may use `dataset` today, or None."""
    return AccessRequest.objects.filter(in_force(), project=project, dataset=dataset).first()


def datasets_in_use(project: Project) -> list[Dataset]:
    """Published datasets that the project may use today and that have stand-in data, by title."""
    released = Stage1Release.objects.filter(version__dataset=OuterRef("pk"), state=ReleaseState.RELEASED)
    allowed = AccessRequest.objects.filter(in_force(), project=project).values("dataset_id")
    return list(
        Dataset.objects.filter(Exists(released), pk__in=allowed, state=DatasetState.PUBLISHED)
        .select_related("custodian")
        .order_by("title")
    )


def current_release(dataset: Dataset) -> Stage1Release | None:
    """The newest released stand-in data of the newest accepted version that has any."""
    return (
        Stage1Release.objects.filter(
            version__dataset=dataset, state=ReleaseState.RELEASED, version__state=VersionState.ACCEPTED
        )
        .select_related("version__dataset")
        .order_by("-version__number", "-created_at")
        .first()
    )


def request_for(user: User | Any, pk: Any) -> AccessRequest:
    found = access_permissions.visible_requests(user).filter(pk=pk).first()
    if found is None:
        raise NotFound("access request")
    return found


def requests_of(project: Project) -> QuerySet[AccessRequest]:
    return (
        AccessRequest.objects.filter(project=project)
        .select_related("dataset__custodian")
        .order_by("-created_at")
    )


def agreement_for(user: User | Any, pk: Any) -> Agreement:
    found = (
        access_permissions.visible_agreements(user)
        .prefetch_related("signatures__signer__organisation")
        .filter(pk=pk)
        .first()
    )
    if found is None:
        raise NotFound("agreement")
    return found


def release_for(user: User | Any, pk: Any) -> Stage1Release:
    """The release with its report, for those who act for the custodian. Raises NotFound."""
    release = (
        Stage1Release.objects.select_related("version__dataset__custodian", "ordered_by", "decided_by")
        .filter(pk=pk)
        .first()
    )
    if release is None or not access_permissions.can_view_release(user, release):
        raise NotFound("stage-1 release")
    return release


def releases_of(dataset: Dataset) -> QuerySet[Stage1Release]:
    return (
        Stage1Release.objects.filter(version__dataset=dataset)
        .select_related("version")
        .defer("report")
        .order_by("-created_at")
    )


def access_waiting(user: User) -> list[Waiting]:
    """Requests to decide, releases to decide, agreements to sign, and the standing of the person's own requests."""
    waiting: list[Waiting] = []
    datasets = managed(user).values("pk")
    requests = (
        AccessRequest.objects.filter(state=AccessState.SUBMITTED, dataset_id__in=datasets)
        .select_related("project", "dataset")
        .defer("project__answers", "dataset__dictionary")
    )
    for request in requests.order_by("created_at")[:20]:
        waiting.append(
            Waiting(
                "Access requests",
                f"{request.project.ref} asks for {request.dataset.title}",
                reverse("datasets:access", args=[request.pk]),
                "To decide",
                "yellow",
            )
        )
    releases = (
        Stage1Release.objects.filter(state=ReleaseState.TO_REVIEW, version__dataset_id__in=datasets)
        .select_related("version__dataset")
        .only("state", "version__number", "version__dataset__title")
    )
    for release in releases[:20]:
        waiting.append(
            Waiting(
                "Stand-in data",
                str(release.version),
                reverse("datasets:release", args=[release.pk]),
                STAGE1_RELEASE.labels[release.state],
                "yellow",
            )
        )
    waiting += _to_sign(user)
    mine = user.memberships.filter(accepted_at__isnull=False, left_at__isnull=True).values("project_id")
    own = (
        AccessRequest.objects.filter(
            project_id__in=mine, state__in=(AccessState.SUBMITTED, AccessState.AGREEMENT_PENDING)
        )
        .select_related("dataset", "project")
        .defer("project__answers", "dataset__dictionary")
    )
    for request in own[:20]:
        waiting.append(
            Waiting(
                "Your access requests",
                f"{request.dataset.title} ({request.project.ref})",
                reverse("datasets:access", args=[request.pk]),
                ACCESS.labels[request.state],
                ACCESS.colours[request.state],
            )
        )
    return waiting


def _to_sign(user: User) -> list[Waiting]:
    organisations = [organisation.pk for organisation in organisations_of(user, Role.SIGNATORY)]
    if not organisations:
        return []
    signed = Signature.objects.filter(agreement=OuterRef("pk"))
    ours = Q(access_request__project__organisation_id__in=organisations) & ~Exists(
        signed.filter(side=Signature.Side.USER_ORGANISATION)
    )
    theirs = Q(access_request__dataset__custodian_id__in=organisations) & ~Exists(
        signed.filter(side=Signature.Side.CUSTODIAN)
    )
    agreements = (
        Agreement.objects.filter(state__in=(AgreementState.ISSUED, AgreementState.PART_SIGNED)).filter(ours | theirs)
        .exclude(access_request__project__in=parts_of(user)).select_related("access_request__project", "access_request__dataset")
        .defer("body", "access_request__project__answers", "access_request__dataset__dictionary")
    )  # fmt: skip
    return [
        Waiting(
            "Agreements to sign",
            f"{a.access_request.project.ref}, {a.access_request.dataset.title}",
            reverse("datasets:agreement", args=[a.pk]),
            AGREEMENT.labels[a.state],
            AGREEMENT.colours[a.state],
        )
        for a in agreements.distinct()[:20]
    ]


def project_panel(user: User, project: Project) -> Panel:
    """The project's access to data, on the project's page."""
    rows = [
        [
            format_html(
                '<a class="govuk-link" href="{}">{}</a>',
                reverse("datasets:access", args=[request.pk]),
                request.dataset.title,
            ),
            request.dataset.custodian.name,
            ACCESS.labels[request.state],
            f"{request.ends_on:%-d %B %Y}",
        ]
        for request in requests_of(project)[:50]
    ]
    return Panel(
        heading="Access to data",
        head=["Dataset", "Custodian", "State", "Until"],
        rows=rows,
        empty="The project has not asked for any data yet. It can once its ethics board has approved it.",
        links=[{"text": "Find a dataset in the catalogue", "href": reverse("datasets:catalogue")}],
    )
