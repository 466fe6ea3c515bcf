"""Agreements: issued with the approval, frozen by hash, signed by both sides, ended at any time."""

from __future__ import annotations

import datetime as dt

from django.db import IntegrityError, transaction

from apps.accounts.models import User
from apps.core.actors import System
from apps.core.clock import now
from apps.core.errors import Conflict, Invalid
from apps.core.lifecycle import begin, recorder, transition
from apps.core.outbox import enqueue
from apps.datasets import access_permissions, agreement_text
from apps.datasets.models import AccessRequest, Agreement, Signature
from apps.datasets.states import AccessState, AgreementState, VersionState
from apps.projects.actions import activate
from apps.projects.models import Project
from apps.projects.states import ProjectState

STATEMENT = "I am authorised to sign for {organisation}. I have read the agreement with the SHA-256 {sha256} and sign it for {organisation}."
FRESH = dt.timedelta(minutes=5)


def statement_for(agreement: Agreement, side: str) -> str:
    """The sentence that the signer confirms, with the document's hash."""
    request = agreement.access_request
    organisation = (
        request.project.organisation
        if side == Signature.Side.USER_ORGANISATION
        else request.dataset.custodian
    )
    return STATEMENT.format(organisation=organisation.name, sha256=agreement.sha256)


def issue_agreement(*, by: object, access_request: AccessRequest) -> Agreement:
    """Write and freeze the agreement of an approved request (called by decide_access, in its transaction)."""
    today = now().date()
    version = access_request.dataset.versions.filter(state=VersionState.ACCEPTED).order_by("-number").first()
    body = agreement_text.render(
        access_request, version, starts_on=today.isoformat(), ends_on=access_request.ends_on.isoformat()
    )
    agreement = Agreement.objects.create(
        access_request=access_request, template=agreement_text.TEMPLATE, body=body, sha256=agreement_text.digest(body),
        starts_on=today, ends_on=access_request.ends_on,
    )  # fmt: skip
    begin(agreement, by=by, data={"sha256": agreement.sha256, "access_request": str(access_request.pk)})
    return agreement


def lock(access_request: AccessRequest) -> AccessRequest:
    """Project and request as they are now, locked in this order by everything that may also touch the agreement."""
    Project.objects.select_for_update().get(pk=access_request.project_id)
    return (
        AccessRequest.objects.select_for_update(of=("self",))
        .select_related("project__organisation", "dataset__custodian")
        .get(pk=access_request.pk)
    )


def sign_agreement(
    *, by: User, agreement: Agreement, side: str, reauthenticated_at: dt.datetime
) -> Agreement:
    """Sign for one side. The second signature puts the agreement in force, opens access and activates the project.

    reauthenticated_at: from accounts.reauth.reauthenticate, at most five minutes ago.
    Raises Denied (not a signatory of that side, or belongs to the project), Conflict (signed, void, wrong text).
    """
    if side not in Signature.Side.values:
        raise Invalid(
            "side_missing",
            "Choose for which side you sign.",
            fields={"side": ["Choose for which side you sign"]},
        )
    access_permissions.require_sign(by, agreement, side)
    if not now() - FRESH <= reauthenticated_at <= now():
        raise Invalid(
            "reauthenticate",
            "Enter your password again: too much time has passed.",
            fields={"password": ["Enter your password again"]},
        )
    try:
        with transaction.atomic():
            request = lock(agreement.access_request)
            agreement = Agreement.objects.select_for_update().get(pk=agreement.pk)
            agreement.access_request = request
            if agreement_text.digest(agreement.body) != agreement.sha256:
                raise Conflict(
                    "text_changed",
                    "The text of the agreement is not the one that was issued.",
                    "Tell the operator: it must be issued anew.",
                )
            if agreement.state not in (AgreementState.ISSUED, AgreementState.PART_SIGNED):
                raise Conflict(
                    "not_open",
                    "This agreement is not waiting for a signature.",
                    "Reload the page to see where it stands.",
                )
            if agreement.ends_on < now().date():
                raise Conflict(
                    "term_over",
                    "The term of the agreement has ended already.",
                    "Withdraw the request and ask for access again.",
                )
            signature = Signature.objects.create(
                agreement=agreement, side=side, signer=by, document_sha256=agreement.sha256, statement=statement_for(agreement, side),
                reauthenticated_at=reauthenticated_at, method="password",
            )  # fmt: skip
            recorder()(
                event="agreement.signed", by=by, object_type="agreement", object_id=agreement.pk,
                scope=f"dataset:{agreement.access_request.dataset_id}",
                data={"side": side, "document": agreement.sha256, "signature": str(signature.pk)},
            )  # fmt: skip
            if agreement.state == AgreementState.ISSUED:
                transition(agreement, AgreementState.PART_SIGNED, by=by)
            else:
                transition(agreement, AgreementState.IN_FORCE, by=by, set_fields={"in_force_at": now()})
                _open_access(agreement)
    except IntegrityError:
        raise Conflict(
            "already_signed", "This side has signed already, or you have signed for the other side. Two different people must sign.",
            "Reload the page to see the signatures.",
        ) from None  # fmt: skip
    return agreement


def _open_access(agreement: Agreement) -> None:
    portal = System("agreements")
    transition(agreement.access_request, AccessState.ACTIVE, by=portal)
    if agreement.access_request.project.state == ProjectState.APPROVED:
        activate(by=portal, project=agreement.access_request.project)
    enqueue("recheck_runs", agreement.access_request.project_id)


def terminate_agreement(*, by: User, agreement: Agreement, reason: str) -> None:
    """The custodian ends an agreement in force: access is revoked with it, runs are stopped at once."""
    access_permissions.require_terminate(by, agreement)
    with transaction.atomic():
        request = lock(agreement.access_request)
        transition(agreement, AgreementState.TERMINATED, by=by, reason=reason)
        if request.state in (AccessState.ACTIVE, AccessState.SUSPENDED):
            transition(request, AccessState.REVOKED, by=by, reason="Its agreement was terminated.")
        enqueue("recheck_runs", request.project_id)


def void_open_agreements(*, by: object, access_request: AccessRequest, reason: str) -> None:
    """End whatever agreement of the request is still open or in force (in the caller's transaction)."""
    for agreement in access_request.agreements.select_for_update():
        if agreement.state in (AgreementState.ISSUED, AgreementState.PART_SIGNED):
            transition(agreement, AgreementState.VOID, by=by, reason=reason)
        elif agreement.state == AgreementState.IN_FORCE:
            transition(agreement, AgreementState.TERMINATED, by=by, reason=reason)


def expire_agreement(*, by: object, agreement: Agreement) -> None:
    """The term has ended (called by the portal's sweep; safe to repeat)."""
    with transaction.atomic():
        transition(agreement, AgreementState.EXPIRED, by=by, reason="Its term has ended.")
        enqueue("recheck_runs", agreement.access_request.project_id)
