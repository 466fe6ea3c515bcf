"""Pages about the people of a project."""

from __future__ import annotations

import uuid

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from apps.core.errors import Invalid
from apps.core.views import act
from apps.projects import actions, permissions, queries
from apps.projects.forms import ConfirmForm, InviteForm, ReasonForm


@require_http_methods(["GET", "POST"])
def invite(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    project = queries.project_for(request.user, pk)
    permissions.require_lead(request.user, project, to="invite people")
    form = InviteForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        made = act(request, form, actions.invite, project=project, email=form.cleaned_data["email"])
        if made is not None:
            messages.success(
                request, f"{made.user.name} is invited. They find the invitation on their home page."
            )
            return redirect("projects:detail", pk)
    context = {
        "title": "Invite a colleague",
        "caption": str(project),
        "form": form,
        "intro": "They see the application once they accept. "
        "Until they decline, and for ever once they have joined, they cannot review, decide on or check anything of it.",
        "button_text": "Invite",
        "cancel_url": reverse("projects:detail", args=[pk]),
    }
    return render(request, "form_page.html", context)


@require_POST
def invitation(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Accept or decline (POST decision=accept|decline)."""
    project = queries.project_or_invitation(request.user, pk)
    match request.POST.get("decision"):
        case "accept":
            actions.accept_invitation(by=permissions.person(request.user), project=project)
            messages.success(request, "You have joined the project.")
            return redirect("projects:detail", pk)
        case "decline":
            actions.decline_invitation(by=permissions.person(request.user), project=project)
            messages.success(request, "You have declined the invitation.")
            return redirect("projects:list")
    raise Invalid(
        "decision_missing", "It was not said whether you accept or decline.", "Go back and choose one."
    )


@require_http_methods(["GET", "POST"])
def remove(request: HttpRequest, pk: uuid.UUID, member: uuid.UUID) -> HttpResponse:
    project = queries.project_for(request.user, pk)
    permissions.require_lead(request.user, project, to="remove people")
    found = queries.member_for(project, member)
    form = ReasonForm(request.POST or None)
    done = f"{found.user.name} is no longer in the project."
    if request.method == "POST" and form.is_valid():
        taken = act(
            request,
            form,
            actions.remove_member,
            done=done,
            membership=found,
            reason=form.cleaned_data["reason"],
        )
        if taken is not None:
            return redirect("projects:detail", pk)
    context = {
        "title": f"Remove {found.user.name}"
        if found.accepted_at
        else f"Take back the invitation of {found.user.name}",
        "caption": str(project),
        "form": form,
        "warning": "They lose access to the project at once." if found.accepted_at else "",
        "button_text": "Remove" if found.accepted_at else "Take back",
        "button_kind": "warning",
        "cancel_url": reverse("projects:detail", args=[pk]),
    }
    return render(request, "form_page.html", context)


@require_http_methods(["GET", "POST"])
def leave(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    project = queries.project_for(request.user, pk)
    permissions.require_member(request.user, project, to="leave it")
    form = ConfirmForm(request.POST or None)
    if request.method == "POST":
        actions.leave_project(by=permissions.person(request.user), project=project)
        messages.success(request, "You have left the project.")
        return redirect("projects:list")
    context = {
        "title": "Leave this project",
        "caption": str(project),
        "form": form,
        "warning": "You lose access to the project at once. To come back you must be invited again.",
        "button_text": "Leave project",
        "button_kind": "warning",
        "cancel_url": reverse("projects:detail", args=[pk]),
    }
    return render(request, "form_page.html", context)
