"""Programs of a project: list, submit, page with decisions, custodians' decision, the step to the real data."""

from __future__ import annotations

import json
import uuid
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from apps.accounts.permissions import me
from apps.core.clock import now
from apps.core.errors import NotFound
from apps.core.objects import store
from apps.core.views import act, page_of
from apps.datasets.models import Dataset
from apps.datasets.queries import datasets_in_use
from apps.jobs import actions, gate, permissions, queries, spending
from apps.jobs.forms import ProgramDecisionForm, ProgramForm, ReasonForm, RunForm
from apps.jobs.models import Program, ProgramApproval, Run
from apps.jobs.states import RUN, RunState
from apps.jobs.views.files import send
from apps.projects.permissions import is_member, require_member
from apps.projects.queries import project_for

SOURCE_SHOWN = 200_000


@require_safe
def programs(request: HttpRequest, project_pk: UUID) -> HttpResponse:
    project = project_for(request.user, project_pk)
    require_member(request.user, project, to="see its programs")
    page = page_of(request, queries.programs_of(project))
    return render(request, "jobs/programs.html", {"project": project, "page": page, "lifecycle": RUN})


@require_http_methods(["GET", "POST"])
def program_new(request: HttpRequest, project_pk: UUID) -> HttpResponse:
    project = project_for(request.user, project_pk)
    permissions.require_submit(request.user, project)
    form = ProgramForm(request.POST or None, request.FILES or None, datasets=datasets_in_use(project))
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        program = act(
            request, form, actions.submit_program, project=project, name=data["name"], file=data["file"], filename=data["file"].name,
            datasets=form.chosen(), entry=data["entry"], note=data["note"], submission=data["submission"],
        )  # fmt: skip
        if program is not None:
            return redirect("jobs:program", pk=program.pk)
    return render(
        request,
        "jobs/program_new.html",
        {"form": form, "project": project, "back_url": reverse("projects:detail", args=[project.pk])},
    )


@require_safe
def program(request: HttpRequest, pk: UUID) -> HttpResponse:
    return _page(request, queries.program_for(request.user, pk))


@require_http_methods(["GET", "POST"])
def run_on_real_data(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Ask for the run; what is wrong is said on the program's page."""
    program = queries.program_for(request.user, pk)
    permissions.require_submit(request.user, program.project)
    if request.method == "GET":  # somebody who reads an address again that was posted to
        return redirect("jobs:program", pk=program.pk)
    form = RunForm(request.POST, choice=spending.choice(program.project, _backend()))
    if form.is_valid():
        run = act(
            request, form, actions.submit_run, program=program, submission=form.cleaned_data["submission"] or uuid.uuid4().hex,
            size=form.cleaned_data["size"], time_limit=form.cleaned_data["minutes"],
        )  # fmt: skip
        if run is not None:
            return redirect("jobs:run", pk=run.pk)
    return _page(request, program, form)


def _page(request: HttpRequest, program: Program, form: RunForm | None = None) -> HttpResponse:
    """The program's page; form: what was filled in for its run and is wrong."""
    rehearsal = program.runs.filter(kind=Run.Kind.REHEARSAL).first()
    member = is_member(request.user, program.project)
    decidable = {dataset.pk for dataset in permissions.decidable_datasets(request.user, program)}
    revocable = {approval.pk for approval in permissions.revocable_approvals(request.user, program)}
    research = program.runs.filter(kind=Run.Kind.RESEARCH).select_related("output_release")
    can_run = member and rehearsal is not None and rehearsal.state == RunState.SUCCEEDED
    conditions = []
    if can_run:
        versions = list(program.versions.all())
        conditions = gate.unmet(
            project=program.project,
            program=program,
            versions=versions,
            backend=_backend(),
            person=me(request),
            moment=now(),
        )
    standing = queries.standing(rehearsal) if rehearsal else None
    if can_run and form is None:
        form = RunForm(choice=spending.choice(program.project, _backend()))
    context = {
        "program": program, "rehearsal": rehearsal, "standing": standing, "outputs_state": "",
        "seconds": queries.refresh_seconds(rehearsal, standing) if rehearsal and standing else 0,
        "phases": queries.PHASES, "approvals": queries.approvals_table(program), "decidable": decidable,
        "revocable": revocable, "member": member,
        "research": research, "conditions": conditions, "lifecycle": RUN, "can_run": can_run,
        "form": form, "source": _source(program),
    }  # fmt: skip
    return render(request, "jobs/program.html", context)


@require_safe
def source(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """The program as uploaded, byte for byte, as a download."""
    program = queries.program_for(request.user, pk)
    return send(
        program.object_name,
        filename=f"{program.sha256[:12]}.{program.kind}",
        media_type="application/octet-stream",
        size=program.size,
    )


@require_http_methods(["GET", "POST"])
def decide(request: HttpRequest, pk: UUID, dataset_pk: UUID) -> HttpResponse:
    program = queries.program_for(request.user, pk)
    dataset = Dataset.objects.select_related("custodian").filter(pk=dataset_pk).first()
    if dataset is None:
        raise NotFound("dataset")
    permissions.require_decide_program(request.user, program, dataset)
    form = ProgramDecisionForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        approve = form.cleaned_data["decision"] == "approve"
        done = "Program approved." if approve else "Program refused."
        if act(
            request,
            form,
            actions.decide_program,
            done=done,
            program=program,
            dataset=dataset,
            approve=approve,
            reason=form.cleaned_data["reason"],
        ):
            return redirect("jobs:program", pk=program.pk)
    context = {
        "form": form, "program": program, "dataset": dataset, "source": _source(program), "title": f"Decide on “{program.name}”",
        "caption": dataset.title, "back_url": reverse("jobs:program", args=[program.pk]),
    }  # fmt: skip
    return render(request, "jobs/program_decide.html", context)


@require_http_methods(["GET", "POST"])
def revoke(request: HttpRequest, pk: UUID) -> HttpResponse:
    approval = (
        ProgramApproval.objects.select_related("program__project", "dataset__custodian").filter(pk=pk).first()
    )
    if approval is None:
        raise NotFound("approval")
    permissions.require_revoke_approval(request.user, approval)
    form = ReasonForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        if act(
            request,
            form,
            actions.revoke_program_approval,
            done="The approval is taken back.",
            approval=approval,
            reason=form.cleaned_data["reason"],
        ):
            return redirect("jobs:program", pk=approval.program_id)
    context = {
        "title": "Take the approval back", "form": form, "button_text": "Take it back", "button_kind": "warning",
        "intro": "Runs of this program that have not ended are stopped at once.",
        "back_url": reverse("jobs:program", args=[approval.program_id]),
    }  # fmt: skip
    return render(request, "form_page.html", context)


def _backend() -> str:
    from django.conf import settings

    return str(settings.DEFAULT_BACKEND)


def _source(program: object) -> str:
    """The program's text: of a notebook its cells, without saved outputs; archives are listed and downloaded."""
    if program.kind == "zip":  # type: ignore[attr-defined]
        return ""
    with store().open(program.object_name) as reader:  # type: ignore[attr-defined]
        text = reader.read(SOURCE_SHOWN).decode("utf-8", "replace")
    return _cells(text) if program.kind == "ipynb" else text  # type: ignore[attr-defined]


def _cells(text: str) -> str:
    """The cells of a notebook one below the other; the raw text where it cannot be read (cut short, or no notebook)."""
    try:
        cells = [(c["cell_type"], "".join(c["source"])) for c in json.loads(text)["cells"]]
    except (ValueError, KeyError, TypeError):
        return text
    return "\n\n".join(f"[{n}] {kind}\n{source}" for n, (kind, source) in enumerate(cells, 1))
