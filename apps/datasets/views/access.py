"""Pages of access requests."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from apps.accounts.models import User
from apps.accounts.permissions import me
from apps.accounts.queries import timeline
from apps.core.errors import Denied, NotFound
from apps.core.views import act
from apps.datasets import access_permissions, access_queries, actions, permissions, queries
from apps.datasets.actions.access import USABLE
from apps.datasets.forms.access import AccessDecisionForm, AccessRequestForm
from apps.datasets.forms.catalogue import ReasonForm
from apps.datasets.models import AccessRequest
from apps.datasets.states import ACCESS, AGREEMENT, AccessState
from apps.projects.models import Project
from apps.projects.permissions import is_member, require_lead
from apps.projects.queries import application_sections

# What can be done to a request besides deciding it: verb -> (action, state it leads to, title, button, what it means).
VERBS = {
    "withdraw": (actions.withdraw_request, AccessState.WITHDRAWN, "Withdraw the request", "Withdraw", "The custodian is no longer asked."),
    "suspend": (actions.suspend_access, AccessState.SUSPENDED, "Suspend access", "Suspend access", "Every run of the project on this dataset is stopped at once, until you resume access."),
    "resume": (actions.resume_access, AccessState.ACTIVE, "Resume access", "Resume access", "The project can run programs on this dataset again."),
    "revoke": (actions.revoke_access, AccessState.REVOKED, "Revoke access", "Revoke access", "Every run of the project on this dataset is stopped at once, for good."),
}  # fmt: skip
STOPS = ("suspend", "revoke")


@require_http_methods(["GET", "POST"])
def request_access(request: HttpRequest, slug: str) -> HttpResponse:
    dataset = queries.dataset_for(request.user, slug)
    led = Project.objects.filter(
        memberships__user=me(request), memberships__role="principal_investigator", memberships__accepted_at__isnull=False,
        memberships__left_at__isnull=True, state__in=USABLE,
    ).exclude(access_requests__in=AccessRequest.objects.filter(dataset=dataset, state__in=access_queries.OPEN))  # fmt: skip
    form = AccessRequestForm(request.POST or None, projects=list(led))
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        made = act(
            request,
            form,
            actions.request_access,
            project=form.chosen(),
            dataset=dataset,
            purpose=data["purpose"],
            ends_on=data["ends_on"],
        )
        if made is not None:
            return redirect("datasets:access", pk=made.pk)
    return render(
        request,
        "datasets/access_request.html",
        {"form": form, "dataset": dataset, "back_url": reverse("datasets:detail", args=[dataset.slug])},
    )


def require_change(user: User, item: AccessRequest, verb: str) -> None:
    """The rule of the verb's action, asked before its form is shown. Raises Denied."""
    if verb == "withdraw":
        require_lead(user, item.project, to="withdraw its request")
    elif verb in STOPS:
        access_permissions.require_stop_access(user, item, to=f"{verb} its access")
    else:
        access_permissions.require_decide_access(user, item, to=f"{verb} its access")


def may_change(user: User | Any, item: AccessRequest, verb: str) -> bool:
    try:
        require_change(user, item, verb)
    except Denied:
        return False
    return True


@require_safe
def access(request: HttpRequest, pk: UUID) -> HttpResponse:
    item = access_queries.request_for(request.user, pk)
    decides = access_permissions.can_decide_access(request.user, item)
    verbs = []
    for verb, (_, target, _title, button, _note) in VERBS.items():
        allowed = may_change(request.user, item, verb)
        if (
            allowed
            and ACCESS.allows(item.state, target)
            and not (verb == "resume" and item.state == AccessState.AGREEMENT_PENDING)
        ):
            verbs.append((button, reverse("datasets:access_change", args=[item.pk, verb])))
    release = queries.current_release(item.dataset)
    version = item.project.versions.order_by("-number").first()
    context = {
        "item": item, "lifecycle": ACCESS, "agreement_lifecycle": AGREEMENT, "agreements": item.agreements.all(), "history": timeline(item),
        "can_decide": decides and item.state == AccessState.SUBMITTED, "verbs": verbs,
        "sections": application_sections(version.answers) if version and (decides or is_member(request.user, item.project)) else [],
        "release": release, "open": release is not None and permissions.can_download_release(request.user, release), "member": is_member(request.user, item.project),
    }  # fmt: skip
    return render(request, "datasets/access.html", context)


@require_http_methods(["GET", "POST"])
def decide(request: HttpRequest, pk: UUID) -> HttpResponse:
    item = access_queries.request_for(request.user, pk)
    access_permissions.require_decide_access(me(request), item, to="decide on its access to data")
    form = AccessDecisionForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        approve = data["decision"] == "approve"
        done = (
            "Access approved. The agreement now waits for both signatures."
            if approve
            else "The request is declined."
        )
        if act(
            request,
            form,
            actions.decide_access,
            done=done,
            access_request=item,
            approve=approve,
            reason=data["reason"],
            conditions=data["conditions"],
        ):
            return redirect("datasets:access", pk=item.pk)
    summary = [
        ["Project", f"{item.project.ref} {item.project.title}"],
        ["Organisation", item.project.organisation.name],
        ["Dataset", item.dataset.title],
        ["Purpose", item.purpose],
        ["Until", f"{item.ends_on:%-d %B %Y}"],
    ]
    context = {
        "title": "Decide on access",
        "form": form,
        "summary": summary,
        "back_url": reverse("datasets:access", args=[item.pk]),
        "button_text": "Record the decision",
    }
    return render(request, "decision_page.html", context)


@require_http_methods(["GET", "POST"])
def change(request: HttpRequest, pk: UUID, verb: str) -> HttpResponse:
    if verb not in VERBS:
        raise NotFound("page")
    action, _, title, button, note = VERBS[verb]
    item = access_queries.request_for(request.user, pk)
    require_change(me(request), item, verb)
    form = ReasonForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        if act(
            request, form, action, done="It is done.", access_request=item, reason=form.cleaned_data["reason"]
        ):
            return redirect("datasets:access", pk=item.pk)
    context = {
        "title": title,
        "form": form,
        "warning": note,
        "button_text": button,
        "button_kind": "warning",
        "back_url": reverse("datasets:access", args=[item.pk]),
    }
    return render(request, "form_page.html", context)
