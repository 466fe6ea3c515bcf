"""Who may ask for access, decide on it, sign for it, and handle stage-1 releases."""

from __future__ import annotations

from typing import Any

from django.db.models import Q, QuerySet

from apps.accounts.models import User
from apps.accounts.permissions import holds, organisations_of
from apps.accounts.roles import ROLES, Role
from apps.core.errors import Denied
from apps.datasets.models import AccessRequest, Agreement, Signature, Stage1Release
from apps.datasets.permissions import acts_for, managed, require_acts_for
from apps.projects.permissions import refuse_belonging

Side = Signature.Side


def require_decide_access(user: User, request: AccessRequest, *, to: str) -> None:
    """To grant use, or to decide whether to: acts for the dataset's custodian and has no part in the project."""
    require_acts_for(user, request.dataset, to=to)
    refuse_belonging(user, request.project, to=to)


def can_decide_access(user: User | Any, request: AccessRequest) -> bool:
    try:
        require_decide_access(user, request, to="decide")
    except Denied:
        return False
    return True


def require_stop_access(user: User, request: AccessRequest, *, to: str) -> None:
    """To suspend or revoke: everybody who acts for the dataset. A part in the project is no bar to stopping it."""
    require_acts_for(user, request.dataset, to=to)


def visible_requests(user: User | Any) -> QuerySet[AccessRequest]:
    """Requests of the person's projects, on the datasets they act for, or that they may sign for; auditors see all."""
    requests = AccessRequest.objects.select_related(
        "project__organisation", "dataset__custodian", "requested_by", "decided_by"
    )
    if not getattr(user, "is_authenticated", False) or not user.is_active:
        return requests.none()
    if holds(user, Role.AUDITOR):
        return requests
    mine = user.memberships.filter(accepted_at__isnull=False, left_at__isnull=True).values("project_id")
    rule = Q(project_id__in=mine) | Q(dataset_id__in=managed(user).values("pk"))
    signing = [organisation.pk for organisation in organisations_of(user, Role.SIGNATORY)]
    rule |= Q(project__organisation_id__in=signing) | Q(dataset__custodian_id__in=signing)
    return requests.filter(rule)


def visible_agreements(user: User | Any) -> QuerySet[Agreement]:
    return Agreement.objects.select_related(
        "access_request__project__organisation", "access_request__dataset__custodian"
    ).filter(access_request__in=visible_requests(user).values("pk"))


def sides_of(user: User | Any, agreement: Agreement) -> list[str]:
    """The sides for which the person may sign: a signatory there, in no relation to the project."""
    request = agreement.access_request
    sides: list[str] = []
    if holds(user, Role.SIGNATORY, request.project.organisation):
        sides.append(Side.USER_ORGANISATION)
    if holds(user, Role.SIGNATORY, request.dataset.custodian):
        sides.append(Side.CUSTODIAN)
    try:
        refuse_belonging(user, request.project, to="sign for it")
    except Denied:
        return []
    return sides


def require_sign(user: User, agreement: Agreement, side: str) -> None:
    """Raise Denied unless the person may sign for `side`."""
    request = agreement.access_request
    refuse_belonging(user, request.project, to="sign an agreement for it")
    organisation = (
        request.project.organisation if side == Side.USER_ORGANISATION else request.dataset.custodian
    )
    if not holds(user, Role.SIGNATORY, organisation):
        raise Denied(
            "not_a_signatory",
            f"You need the role “{ROLES[Role.SIGNATORY].label}” in {organisation.name} to sign for it.",
            f"Ask a signatory of {organisation.name}.",
        )


def require_terminate(user: User, agreement: Agreement) -> None:
    require_acts_for(user, agreement.access_request.dataset, to="end an agreement on it")


def can_view_release(user: User | Any, release: Stage1Release) -> bool:
    """The report is computed on real data, so the release's own page is for those who act for the custodian."""
    return acts_for(user, release.version.dataset)
