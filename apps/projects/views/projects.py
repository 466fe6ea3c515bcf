"""Pages of a project: list, start, detail, and the steps that end or stop it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from apps.accounts.models import User
from apps.core.errors import Denied
from apps.core.views import act, page_of
from apps.projects import actions, application, permissions, policies, queries
from apps.projects.forms import ReasonForm, StartForm
from apps.projects.models import Membership, Project
from apps.projects.states import ETHICS_REVIEW, PROJECT, ProjectState


@require_safe
def list_(request: HttpRequest) -> HttpResponse:
    page = page_of(request, queries.projects_of(request.user))
    rows = [
        {
            "project": p,
            "lead": queries.lead_of(p),
            "invited": any(m.user_id == request.user.pk and not m.accepted_at for m in p.people),
        }
        for p in page
    ]
    context = {
        "page": page,
        "rows": rows,
        "can_apply": permissions.can_apply(request.user),
        "lifecycle": PROJECT,
    }
    return render(request, "projects/project_list.html", context)


@require_http_methods(["GET", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    if not permissions.can_apply(request.user):
        raise Denied(
            "role_missing",
            "You need the role “Researcher” to start a project.",
            "Ask the operator of this portal if you should hold it.",
        )
    form = StartForm(request.POST or None, user=permissions.person(request.user))
    if request.method == "POST" and form.is_valid():
        project = act(request, form, actions.start_project, **form.cleaned_data)
        if project is not None:
            return redirect("projects:application", project.pk)
    context = {
        "title": "Start a project",
        "form": form,
        "intro": "You become its principal investigator: you write the application, invite colleagues "
        "and ask for access to data.",
        "button_text": "Save and continue",
        "cancel_url": reverse("projects:list"),
    }
    return render(request, "form_page.html", context)


def _tools(user: User | Any, project: Project, *, lead: bool) -> dict[str, bool]:
    """Which steps the page offers: those that the actions would take from this person in this state."""
    chairs = permissions.chairs(user, project.board) and not permissions.belongs(user, project)
    return {
        "edit": lead and policies.editable(project),
        "invite": lead and policies.open_to_people(project),
        "withdraw": lead and policies.can_become(project, ProjectState.WITHDRAWN),
        "close": lead and policies.can_become(project, ProjectState.CLOSED),
        "suspend": chairs and policies.can_become(project, ProjectState.SUSPENDED),
        "reinstate": chairs and project.state == ProjectState.SUSPENDED,
        "work": project.state in policies.RUNNING,
    }


def _invited(request: HttpRequest, project: Project, invitation: Membership) -> HttpResponse:
    """What one needs to answer an invitation; the application itself is for those who have accepted."""
    context = {
        "project": project,
        "lead": queries.lead_of(project),
        "invitation": invitation,
        "open": policies.open_to_people(project),
        "lifecycle": PROJECT,
    }
    return render(request, "projects/project_invited.html", context)


@require_safe
def detail(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    project = queries.project_or_invitation(request.user, pk)
    own = next((m for m in project.people if m.user_id == request.user.pk), None)  # type: ignore[attr-defined]
    if own is not None and own.accepted_at is None:
        return _invited(request, project, own)
    member = own is not None
    lead = member and queries.lead_of(project) == request.user
    versions = queries.versions_of(project)
    context = {
        "project": project,
        "lead": queries.lead_of(project),
        "member": member,
        "is_lead": lead,
        "tools": _tools(request.user, project, lead=lead),
        "versions": versions,
        "returned": next((v.review for v in versions if v.review.state == "returned"), None)
        if project.state == ProjectState.RETURNED
        else None,
        "letters": policies.LETTERS,
        "missing": len(application.missing(project.answers)),
        "panels": queries.panels(permissions.person(request.user), project),
        "events": queries.timeline(project)[::-1],
        "on_board": not member,
        "lifecycle": PROJECT,
        "review_lifecycle": ETHICS_REVIEW,
    }
    return render(request, "projects/project_detail.html", context)


def _reasoned(
    request: HttpRequest,
    pk: uuid.UUID,
    *,
    action: Callable[..., Any],
    title: str,
    button: str,
    done: str,
    warning: str = "",
    intro: str = "",
    kind: str = "warning",
) -> HttpResponse:
    """A page that asks for a reason, and takes the step."""
    project = queries.project_for(request.user, pk)
    form = ReasonForm(request.POST or None, hint="It is kept with the project and shown in its history.")
    if request.method == "POST" and form.is_valid():
        taken = act(request, form, action, done=done, project=project, reason=form.cleaned_data["reason"])
        if taken is not None:
            return redirect("projects:detail", pk)
    context = {
        "title": title,
        "caption": str(project),
        "form": form,
        "warning": warning,
        "intro": intro,
        "button_text": button,
        "button_kind": kind,
        "cancel_url": reverse("projects:detail", args=[pk]),
    }
    return render(request, "form_page.html", context)


@require_http_methods(["GET", "POST"])
def withdraw(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    permissions.require_lead(
        request.user, queries.project_for(request.user, pk), to="withdraw the application"
    )
    return _reasoned(
        request,
        pk,
        action=actions.withdraw_project,
        title="Withdraw this application",
        button="Withdraw application",
        done="The application is withdrawn.",
        warning="A withdrawn application cannot be taken up again.",
    )


@require_http_methods(["GET", "POST"])
def close(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    permissions.require_lead(request.user, queries.project_for(request.user, pk), to="close the project")
    return _reasoned(
        request,
        pk,
        action=actions.close_project,
        title="Close this project",
        button="Close project",
        done="The project is closed.",
        warning="Runs that are under way end, and no more can be started. A closed project cannot be opened again.",
    )


@require_http_methods(["GET", "POST"])
def suspend(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    permissions.require_board_of(
        request.user, queries.project_for(request.user, pk), to="suspend the project"
    )
    return _reasoned(
        request,
        pk,
        action=actions.suspend_project,
        title="Suspend this project",
        button="Suspend project",
        done="The project is suspended. Its runs are being ended.",
        warning="Runs that are under way end at once. You can reinstate the project later.",
    )


@require_http_methods(["GET", "POST"])
def reinstate(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    permissions.require_board_of(
        request.user, queries.project_for(request.user, pk), to="reinstate the project"
    )
    return _reasoned(
        request,
        pk,
        action=actions.reinstate_project,
        title="Reinstate this project",
        button="Reinstate project",
        done="The project is reinstated.",
        intro="Its people can work again, under the opinion that it had.",
        kind="",
    )
