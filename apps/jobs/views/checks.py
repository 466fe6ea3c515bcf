"""Output checks: what waits, the files rendered without being executed, the decision."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from apps.accounts.permissions import me, require_role
from apps.accounts.roles import Role
from apps.core.errors import NotFound
from apps.core.views import act, page_of
from apps.jobs import actions, permissions, queries
from apps.jobs.forms import CheckForm, ReasonForm
from apps.jobs.models import Output, OutputRelease
from apps.jobs.states import OUTPUT_RELEASE
from apps.jobs.views.files import send


@require_safe
def checks(request: HttpRequest) -> HttpResponse:
    require_role(request.user, Role.OUTPUT_CHECKER, to="check outputs")
    page = page_of(request, permissions.checkable(request.user).order_by("created_at"))
    return render(request, "jobs/checks.html", {"page": page, "lifecycle": OUTPUT_RELEASE})


@require_http_methods(["GET", "POST"])
def check(request: HttpRequest, pk: UUID) -> HttpResponse:
    release = queries.release_for_checker(request.user, pk)
    mine = release.checks.filter(checker=me(request)).first()
    may = release.state in permissions.CHECKABLE and mine is None
    form = CheckForm(request.POST or None) if may else None
    if form is not None and request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        if act(
            request,
            form,
            actions.check_outputs,
            done="Your decision is recorded.",
            output_release=release,
            decision=data["decision"],
            comment=data["comment"],
        ):
            return redirect("jobs:checks")
    context = {
        "release": release, "run": release.run, "outputs": release.run.outputs.all(), "form": form, "mine": mine, "lifecycle": OUTPUT_RELEASE,
        "datasets": permissions.datasets_of(release.run),
    }  # fmt: skip
    return render(request, "jobs/check.html", context)


@require_safe
def file(request: HttpRequest, pk: UUID, output_pk: UUID) -> HttpResponse:
    release, output = _output(request, pk, output_pk)
    page = queries.page_number(request.GET.get("page", ""))
    context = {
        "output": output, "preview": queries.preview(output, page), "run": release.run,
        "content_url": "jobs:check_content", "parent": release.pk, "back_url": reverse("jobs:check", args=[release.pk]),
    }  # fmt: skip
    return render(request, "jobs/output.html", context)


@require_safe
def content(request: HttpRequest, pk: UUID, output_pk: UUID) -> HttpResponseBase:
    _, output = _output(request, pk, output_pk)
    return send(
        output.object_name,
        filename=output.path,
        media_type=output.media_type,
        size=output.size,
        inline="inline" in request.GET,
    )


@require_http_methods(["GET", "POST"])
def revoke(request: HttpRequest, pk: UUID) -> HttpResponse:
    release = OutputRelease.objects.select_related("run__project").filter(pk=pk).first()
    if release is None:
        raise NotFound("set of outputs")
    permissions.require_revoke_release(request.user, release)
    form = ReasonForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        if act(
            request,
            form,
            actions.revoke_release,
            done="The release is revoked.",
            output_release=release,
            reason=form.cleaned_data["reason"],
        ):
            return redirect("home")
    context = {
        "title": "Revoke the release",
        "form": form,
        "button_text": "Revoke",
        "button_kind": "warning",
        "intro": "The package can then no longer be downloaded. Who has downloaded it is on record.",
    }
    return render(request, "form_page.html", context)


def _output(request: HttpRequest, pk: UUID, output_pk: UUID) -> tuple[OutputRelease, Output]:
    release = queries.release_for_checker(request.user, pk)
    output = release.run.outputs.filter(pk=output_pk).first()
    if output is None:
        raise NotFound("output")
    return release, output
