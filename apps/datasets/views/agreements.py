"""Pages of agreements."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from apps.accounts.permissions import me
from apps.accounts.queries import timeline
from apps.accounts.reauth import reauthenticate
from apps.core.errors import Denied, Invalid
from apps.core.views import act, page_of
from apps.datasets import access_permissions, access_queries, actions
from apps.datasets.forms.access import SignForm
from apps.datasets.forms.catalogue import ReasonForm
from apps.datasets.permissions import acts_for
from apps.datasets.states import AGREEMENT, AgreementState

OPEN = (AgreementState.ISSUED, AgreementState.PART_SIGNED)


@require_safe
def agreements(request: HttpRequest) -> HttpResponse:
    page = page_of(request, access_permissions.visible_agreements(request.user).order_by("-created_at"))
    return render(request, "datasets/agreements.html", {"page": page, "lifecycle": AGREEMENT})


@require_safe
def agreement(request: HttpRequest, pk: UUID) -> HttpResponse:
    item = access_queries.agreement_for(request.user, pk)
    signed = {signature.side for signature in item.signatures.all()}
    sides = [side for side in access_permissions.sides_of(request.user, item) if side not in signed]
    context = {
        "item": item, "lifecycle": AGREEMENT, "history": timeline(item), "can_sign": bool(sides) and item.state in OPEN,
        "can_terminate": item.state == AgreementState.IN_FORCE and acts_for(request.user, item.access_request.dataset),
    }  # fmt: skip
    return render(request, "datasets/agreement.html", context)


@require_http_methods(["GET", "POST"])
def sign(request: HttpRequest, pk: UUID) -> HttpResponse:
    item = access_queries.agreement_for(request.user, pk)
    signed = {signature.side for signature in item.signatures.all()}
    sides = [side for side in access_permissions.sides_of(request.user, item) if side not in signed]
    if not sides or item.state not in OPEN:
        raise Denied(
            "cannot_sign",
            "You cannot sign this agreement.",
            "Only a signatory of either side can, while it is open, and not for a project they belong to.",
        )
    form = SignForm(request.POST or None, sides=sides)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        try:
            moment = reauthenticate(user=me(request), password=data["password"], request=request)
        except Invalid as error:
            form.add_error("password", error.fields.get("password", [error.detail])[0])
        else:
            if act(
                request,
                form,
                actions.sign_agreement,
                done="Your signature is recorded.",
                agreement=item,
                side=data["side"],
                reauthenticated_at=moment,
            ):
                return redirect("datasets:agreement", pk=item.pk)
    return render(
        request,
        "datasets/agreement_sign.html",
        {"form": form, "item": item, "back_url": reverse("datasets:agreement", args=[item.pk])},
    )


@require_http_methods(["GET", "POST"])
def terminate(request: HttpRequest, pk: UUID) -> HttpResponse:
    item = access_queries.agreement_for(request.user, pk)
    access_permissions.require_terminate(me(request), item)
    form = ReasonForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        if act(
            request,
            form,
            actions.terminate_agreement,
            done="The agreement is ended.",
            agreement=item,
            reason=form.cleaned_data["reason"],
        ):
            return redirect("datasets:agreement", pk=item.pk)
    context = {
        "title": "End the agreement",
        "form": form,
        "warning": "Access ends with it, and every run on this dataset is stopped at once.",
        "button_text": "End the agreement",
        "button_kind": "warning",
        "back_url": reverse("datasets:agreement", args=[item.pk]),
    }
    return render(request, "form_page.html", context)


@require_safe
def text(request: HttpRequest, pk: UUID) -> HttpResponse:
    """The agreement's text, byte for byte as its hash covers it."""
    item = access_queries.agreement_for(request.user, pk)
    response = HttpResponse(item.body.encode(), content_type="application/octet-stream")
    response["Content-Disposition"] = f'attachment; filename="agreement-{item.sha256[:12]}.txt"'
    return response
