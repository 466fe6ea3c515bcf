"""Runs: list, page, live progress, log and outputs of a rehearsal, evidence, the released package."""

from __future__ import annotations

from uuid import UUID

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from apps.accounts.permissions import me
from apps.accounts.queries import timeline
from apps.attestation.models import Evidence
from apps.core.clock import now
from apps.core.errors import Denied, NotFound
from apps.core.objects import store
from apps.core.views import act, page_of
from apps.datasets.actions import record_download
from apps.jobs import actions, gate, permissions, queries, spending
from apps.jobs.forms import ReasonForm
from apps.jobs.models import OutputRelease, Run
from apps.jobs.states import OUTPUT_RELEASE, RUN, OutputState
from apps.jobs.views.files import send

LOG_SHOWN = 200_000


@require_safe
def runs(request: HttpRequest) -> HttpResponse:
    filters = {name: request.GET.get(name, "") for name in ("kind", "state", "project")}
    page = page_of(request, queries.runs_list(request.user, **filters))
    return render(
        request, "jobs/runs.html",
        {"page": page, "kinds": Run.Kind.choices, "lifecycle": RUN, "outputs": OUTPUT_RELEASE, "filters": filters},
    )  # fmt: skip


@require_safe
def run(request: HttpRequest, pk: UUID) -> HttpResponse:
    run = queries.run_for(request.user, pk)
    release = OutputRelease.objects.filter(run=run).first()
    standing = queries.standing(run)
    rehearsal = permissions.can_read_rehearsal(request.user, run)
    context = {
        "run": run,
        "standing": standing,
        "software": run.backend in settings.SOFTWARE_BACKENDS,
        "cost": spending.words(run) if run.attempt else "",
        "seconds": queries.refresh_seconds(run, standing),
        "outputs_state": queries.outputs_state(run),
        "phases": queries.PHASES,
        "lifecycle": RUN,
        "outputs_lifecycle": OUTPUT_RELEASE,
        "conditions": gate.unmet_for_run(run, now()) if run.state == "waiting" else [],
        "history": timeline(run),
        "release": release,
        "checks": release.checks.order_by("-created_at")
        if release and release.state in (OutputState.RELEASED, OutputState.REJECTED, OutputState.REVOKED)
        else [],
        "datasets": permissions.datasets_of(run),
        "can_open_program": run.program is not None
        and permissions.visible_programs(request.user).filter(pk=run.program.pk).exists(),
        "rehearsal_outputs": run.outputs.all() if rehearsal else [],
        "log": _log(run) if rehearsal else "",
        "can_cancel": run.state not in RUN.final and permissions.can_cancel(request.user, run),
        "can_download": release is not None and permissions.can_download_package(request.user, release),
        "can_revoke": release is not None and permissions.can_revoke_release(request.user, release),
        "evidence": Evidence.objects.filter(run=run.pk, accepted=True),
    }
    return render(request, "jobs/run.html", context)


@require_safe
def progress(request: HttpRequest, pk: UUID) -> HttpResponse:
    """The part of the run's page that refreshes itself. Tells the page to fetch its rest anew once nothing more will
    happen, or once its outputs are not in the state any more that the page shows (`outputs` in the address)."""
    run = queries.run_for(request.user, pk)
    standing = queries.standing(run)
    seconds, outputs_state = queries.refresh_seconds(run, standing), queries.outputs_state(run)
    context = {
        "run": run, "standing": standing, "phases": queries.PHASES, "lifecycle": RUN, "seconds": seconds,
        "outputs_state": outputs_state,
    }  # fmt: skip
    response = render(request, "jobs/_progress.html", context)
    if not seconds or request.GET.get("outputs", outputs_state) != outputs_state:
        response["HX-Trigger-After-Settle"] = "run-settled"
    return response


@require_http_methods(["GET", "POST"])
def cancel(request: HttpRequest, pk: UUID) -> HttpResponse:
    run = queries.run_for(request.user, pk)
    permissions.require_cancel(request.user, run)
    form = ReasonForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        if act(
            request,
            form,
            actions.cancel_run,
            done="The run is being stopped.",
            run=run,
            reason=form.cleaned_data["reason"],
        ):
            return redirect("jobs:run", pk=run.pk)
    context = {
        "title": "Stop this run",
        "form": form,
        "button_text": "Stop the run",
        "button_kind": "warning",
        "back_url": _url(run),
    }
    return render(request, "form_page.html", context)


@require_safe
def log(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    run = queries.run_for(request.user, pk)
    if not run.log_object or not permissions.can_read_rehearsal(request.user, run):
        raise NotFound("log")
    return send(
        run.log_object, filename="log.txt", media_type="text/plain", size=store().size(run.log_object)
    )


@require_safe
def output(request: HttpRequest, pk: UUID, output_pk: UUID) -> HttpResponse:
    """One output of a rehearsal, for the project's members."""
    run = queries.run_for(request.user, pk)
    if not permissions.can_read_rehearsal(request.user, run):
        raise NotFound("output")
    item = run.outputs.filter(pk=output_pk).first()
    if item is None:
        raise NotFound("output")
    page = queries.page_number(request.GET.get("page", ""))
    context = {
        "output": item, "preview": queries.preview(item, page), "run": run,
        "content_url": "jobs:rehearsal_output_file", "parent": run.pk, "back_url": _url(run),
    }  # fmt: skip
    return render(request, "jobs/output.html", context)


@require_safe
def output_file(request: HttpRequest, pk: UUID, output_pk: UUID) -> HttpResponseBase:
    run = queries.run_for(request.user, pk)
    item = run.outputs.filter(pk=output_pk).first()
    if item is None or not permissions.can_read_rehearsal(request.user, run):
        raise NotFound("output")
    return send(
        item.object_name,
        filename=item.path,
        media_type=item.media_type,
        size=item.size,
        inline="inline" in request.GET,
    )


@require_safe
def evidence(request: HttpRequest, pk: UUID) -> HttpResponse:
    """What the evidence showed, check by check."""
    run = queries.run_for(request.user, pk)
    found = Evidence.objects.filter(run=run.pk).prefetch_related("key_releases__version__dataset")
    return render(request, "jobs/evidence.html", {"run": run, "found": found, "back_url": _url(run)})


@require_safe
def package(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """Download the released package; the download is recorded."""
    run = queries.run_for(request.user, pk)
    release = OutputRelease.objects.select_related("run__project").filter(run=run).first()
    if release is None or release.state != OutputState.RELEASED:
        raise Http404
    if not permissions.can_download_package(request.user, release):
        raise Denied(
            "not_a_member",
            "Only members of the project can download its outputs.",
            "Ask the principal investigator for an invitation.",
        )
    record_download(
        by=me(request),
        project=run.project,
        what="output_package",
        object_id=release.pk,
        sha256=release.package_sha256,
    )
    return send(
        release.package_object,
        filename=f"{run.project.ref if run.project else 'run'}-{str(run.pk)[:8]}.zip",
        media_type="application/zip",
        size=release.package_size or 0,
    )


def _log(run: Run) -> str:
    if not run.log_object:
        return ""
    with store().open(run.log_object) as reader:
        return reader.read(LOG_SHOWN).decode("utf-8", "replace")


def _url(run: Run) -> str:
    from django.urls import reverse

    return reverse("jobs:run", args=[run.pk])
