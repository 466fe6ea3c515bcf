"""Pages of the application: task list, one section a page, check and submit, what was submitted."""

from __future__ import annotations

import uuid

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from apps.core.errors import Conflict, NotFound
from apps.core.views import act
from apps.projects import actions, application, permissions, policies, queries
from apps.projects.forms import SectionForm, SubmitForm
from apps.projects.models import Project


def _for_reading(request: HttpRequest, pk: uuid.UUID) -> Project:
    """The project, for its accepted people: drafts are nobody else's."""
    project = queries.project_for(request.user, pk)
    permissions.require_member(request.user, project, to="read the application while it is being written")
    return project


def _for_writing(request: HttpRequest, pk: uuid.UUID) -> Project:
    project = queries.project_for(request.user, pk)
    permissions.require_lead(request.user, project, to="change the application")
    if not policies.editable(project):
        raise Conflict(
            "not_editable",
            "The application cannot be changed now, because it has been submitted or the project has ended.",
            "If something must change, ask the ethics board to return it to you.",
        )
    return project


@require_safe
def tasks(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    project = _for_reading(request, pk)
    writable = policies.editable(project) and permissions.is_lead(request.user, project)
    absent = application.missing(project.answers)
    context = {
        "project": project,
        "writable": writable,
        "absent": absent,
        "tasks": [
            {
                "text": s.title,
                "state": application.progress(s, project.answers),
                **({"href": reverse("projects:section", args=[pk, s.code])} if writable else {}),
            }
            for s in application.SECTIONS
        ],
        "finish": {
            "text": "Check your answers and submit",
            "state": "cannot_start" if absent else "not_started",
            **({"href": reverse("projects:check", args=[pk])} if writable and not absent else {}),
        },
        "sections": queries.application_sections(project.answers),
    }
    return render(request, "projects/application_tasks.html", context)


@require_http_methods(["GET", "POST"])
def section(request: HttpRequest, pk: uuid.UUID, code: str) -> HttpResponse:
    found = application.section_by_code(code)
    if found is None:
        raise NotFound("section of the application")
    project = _for_writing(request, pk)
    form = SectionForm(request.POST or None, section=found, answers=project.answers)
    if request.method == "POST" and form.is_valid():
        saved = act(request, form, actions.save_answers, project=project, answers=form.answers())
        if saved is not None:
            return redirect(
                f"{reverse('projects:check' if 'check' in request.GET else 'projects:application', args=[pk])}"
            )
    number = application.SECTIONS.index(found) + 1
    context = {
        "project": project,
        "section": found,
        "form": form,
        "position": f"Section {number} of {len(application.SECTIONS)}",
        "back_url": reverse("projects:application", args=[pk]),
    }
    return render(request, "projects/application_section.html", context)


@require_http_methods(["GET", "POST"])
def check(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    project = queries.project_for(request.user, pk)
    permissions.require_lead(request.user, project, to="submit the application")
    form = SubmitForm(request.POST or None, project=project)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        version = act(
            request,
            form,
            actions.submit_application,
            project=project,
            board=data["board"],
            declared=data["declaration"],
            submission=data["submission"],
        )
        if version is not None:
            return redirect("projects:submitted", pk, version.number)
    elif request.method == "GET":
        _for_writing(request, pk)
    context = {
        "project": project,
        "form": form,
        "absent": application.missing(project.answers),
        "sections": [
            (s.code, title, rows)
            for s, (title, rows) in zip(
                application.SECTIONS, queries.application_sections(project.answers), strict=True
            )
        ],
        "changes": queries.changes_since_submission(project),
        "back_url": reverse("projects:application", args=[pk]),
    }
    return render(request, "projects/application_check.html", context)


@require_safe
def submitted(request: HttpRequest, pk: uuid.UUID, number: int) -> HttpResponse:
    project = _for_reading(request, pk)
    version = queries.version_for(project, number)
    context = {
        "title": "Application submitted"
        if number == 1
        else f"Application submitted again (version {number})",
        "reference": project.ref,
        "next": [
            f"The chair of {project.board} looks whether the application is complete. If something is missing, "
            "it comes back to you with the reason.",
            "Members of the board give their opinions, and the chair decides. "
            "You find the board's letter on the project's page.",
            "After a favourable opinion you ask the custodians for access to the datasets that you need.",
        ],
        "links": [
            {"text": "Go to the project", "href": reverse("projects:detail", args=[pk])},
            {
                "text": "See what was submitted",
                "href": reverse("projects:version", args=[pk, version.number]),
            },
        ],
    }
    return render(request, "confirmation_page.html", context)


@require_safe
def version(request: HttpRequest, pk: uuid.UUID, number: int) -> HttpResponse:
    project = queries.project_for(request.user, pk)
    found = queries.version_for(project, number)
    before = queries.previous_version(found)
    context = {
        "project": project,
        "version": found,
        "sections": queries.application_sections(found.answers),
        "people": found.answers.get(application.PEOPLE, []),
        "changes": application.changes(before.answers, found.answers) if before else None,
        "back_url": reverse("projects:detail", args=[pk]),
    }
    return render(request, "projects/application_version.html", context)
