"""Access requests: a project asks, the custodian decides, and can take it back at any time."""

from __future__ import annotations

import datetime as dt

from django.db import IntegrityError, transaction

from apps.accounts.models import User
from apps.core.clock import now
from apps.core.errors import Conflict, Invalid
from apps.core.lifecycle import begin, transition
from apps.core.outbox import enqueue
from apps.datasets import access_permissions
from apps.datasets.actions.agreements import issue_agreement, lock, void_open_agreements
from apps.datasets.models import AccessRequest, Dataset
from apps.datasets.states import AccessState, DatasetState
from apps.projects.models import Project
from apps.projects.permissions import require_lead
from apps.projects.states import ProjectState

USABLE = (ProjectState.APPROVED, ProjectState.ACTIVE)


def request_access(
    *, by: User, project: Project, dataset: Dataset, purpose: str, ends_on: dt.date
) -> AccessRequest:
    """Ask for `dataset` for an approved project. Raises Denied (not the lead), Invalid, Conflict (asked already)."""
    require_lead(by, project, to="ask for access to data")
    if project.state not in USABLE:
        raise Conflict(
            "project_not_approved",
            "The project has no favourable ethics opinion yet, so it cannot ask for data.",
            "Submit its application first.",
        )
    if dataset.state != DatasetState.PUBLISHED:
        raise Conflict(
            "dataset_not_published",
            f"“{dataset.title}” is not open for requests at the moment.",
            "Ask its custodian.",
        )
    fields: dict[str, list[str]] = {}
    if not purpose.strip():
        fields["purpose"] = ["Say what the project needs the data for"]
    if ends_on <= now().date():
        fields["ends_on"] = ["The end date must be in the future"]
    elif project.ends_on and ends_on > project.ends_on:
        fields["ends_on"] = [f"The end date must not be after the project's, {project.ends_on:%-d %B %Y}"]
    if fields:
        raise Invalid("invalid", "The request cannot be sent as it is.", fields=fields)
    try:
        with transaction.atomic():
            request = AccessRequest.objects.create(
                project=project, dataset=dataset, purpose=purpose.strip(), ends_on=ends_on, requested_by=by
            )
            begin(request, by=by, data={"project": str(project.pk), "dataset": str(dataset.pk)})
    except IntegrityError:
        raise Conflict(
            "already_requested",
            "The project has already asked for this dataset.",
            "See the project's page for where the request stands.",
        ) from None
    return request


def decide_access(
    *, by: User, access_request: AccessRequest, approve: bool, reason: str, conditions: str = ""
) -> AccessRequest:
    """The custodian's decision. Approval issues the agreement at once. Raises Denied, Invalid, Conflict."""
    access_permissions.require_decide_access(by, access_request, to="decide on its access to data")
    fields = {"decided_by": by, "decided_at": now()}
    with transaction.atomic():
        project = Project.objects.select_for_update().get(pk=access_request.project_id)
        if approve and project.state not in USABLE:
            raise Conflict(
                "project_not_approved",
                "The project has no favourable ethics opinion in force any more.",
                "Wait for its ethics board, or decline.",
            )
        if approve:
            transition(
                access_request,
                AccessState.APPROVED,
                by=by,
                reason=reason,
                set_fields={**fields, "conditions": conditions.strip()},
            )
            issue_agreement(by=by, access_request=access_request)
            transition(access_request, AccessState.AGREEMENT_PENDING, by=by)
        else:
            transition(access_request, AccessState.DECLINED, by=by, reason=reason, set_fields=fields)
    return access_request


def withdraw_request(*, by: User, access_request: AccessRequest, reason: str) -> None:
    """The project takes its request back before it is active."""
    require_lead(by, access_request.project, to="withdraw its request")
    with transaction.atomic():
        lock(access_request)
        transition(access_request, AccessState.WITHDRAWN, by=by, reason=reason)
        void_open_agreements(by=by, access_request=access_request, reason="The request was withdrawn.")


def suspend_access(*, by: User, access_request: AccessRequest, reason: str) -> None:
    """Stop all use for now: waiting and live runs are looked at again at once."""
    access_permissions.require_stop_access(by, access_request, to="suspend its access")
    _stop(access_request, AccessState.SUSPENDED, by=by, reason=reason)


def resume_access(*, by: User, access_request: AccessRequest, reason: str) -> None:
    """Allow use again after `suspend_access`. Only signatures open access: a request never signed for stays closed."""
    access_permissions.require_decide_access(by, access_request, to="resume its access")
    if access_request.state != AccessState.SUSPENDED:
        raise Conflict(
            "not_suspended",
            "This access is not suspended, so it cannot be resumed.",
            "Reload the page to see where it stands.",
        )
    _stop(access_request, AccessState.ACTIVE, by=by, reason=reason)


def revoke_access(*, by: User, access_request: AccessRequest, reason: str) -> None:
    """End all use for good."""
    access_permissions.require_stop_access(by, access_request, to="revoke its access")
    with transaction.atomic():
        lock(access_request)
        _stop(access_request, AccessState.REVOKED, by=by, reason=reason)
        void_open_agreements(by=by, access_request=access_request, reason="Access was revoked.")


def expire_access(*, by: object, access_request: AccessRequest) -> None:
    """The end date has passed (called by the portal's sweep; safe to repeat)."""
    _stop(access_request, AccessState.EXPIRED, by=by, reason="Its end date has passed.")


def _stop(access_request: AccessRequest, to: AccessState, *, by: object, reason: str) -> None:
    with transaction.atomic():
        transition(access_request, to, by=by, reason=reason)
        enqueue("recheck_runs", access_request.project_id)
