"""Programs of a project: list, submit, page with decisions, custodians' decision, the step to the real data."""

from __future__ import annotations

import json
import uuid
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from apps.accounts.permissions import me
from apps.core.clock import now
from apps.core.errors import Invalid, NotFound
from apps.core.objects import store
from apps.core.views import act, page_of
from apps.datasets.models import Dataset
from apps.datasets.queries import datasets_in_use
from apps.jobs import actions, gate, permissions, queries, spending
from apps.jobs.costs import in_pounds
from apps.jobs.forms import ProgramDecisionForm, ProgramForm, ReasonForm
from apps.jobs.models import ProgramApproval, Run
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
    program = queries.program_for(request.user, pk)
    rehearsal = program.runs.filter(kind=Run.Kind.REHEARSAL).first()
    member = is_member(request.user, program.project)
    decidable = {dataset.pk for dataset in permissions.decidable_datasets(request.user, program)}
    revocable = {approval.pk for approval in permissions.revocable_approvals(request.user, program)}
    research = program.runs.filter(kind=Run.Kind.RESEARCH).select_related("output_release")
    conditions = []
    if member and rehearsal and rehearsal.state == RunState.SUCCEEDED:
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
    choice = spending.choice(program.project, _backend()) if member else None
    context = {
        "program": program, "rehearsal": rehearsal, "standing": standing, "outputs_state": "",
        "seconds": queries.refresh_seconds(rehearsal, standing) if rehearsal and standing else 0,
        "phases": queries.PHASES, "approvals": queries.approvals_table(program), "decidable": decidable,
        "revocable": revocable, "member": member,
        "research": research, "conditions": conditions, "lifecycle": RUN, "submission": uuid.uuid4().hex,
        "sizes": _sizes(choice) if choice else [], "choice": choice,
        "can_run": member and rehearsal is not None and rehearsal.state == RunState.SUCCEEDED, "source": _source(program),
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


@require_POST
def run_on_real_data(request: HttpRequest, pk: UUID) -> HttpResponse:
    program = queries.program_for(request.user, pk)
    submission = request.POST.get("submission", "")[:64].replace("\x00", "") or uuid.uuid4().hex
    size = request.POST.get("size", "")[:40].replace("\x00", "")
    run = actions.submit_run(
        by=me(request),
        program=program,
        submission=submission,
        size=size,
        time_limit=_time_limit(request.POST.get("minutes", "")),
    )
    return redirect("jobs:run", pk=run.pk)


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


def _time_limit(minutes: str) -> int | None:
    """Seconds; None where nothing was filled in. Raises Invalid."""
    text = minutes.strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and int(text)):
        raise Invalid(
            "time_limit_not_allowed", "The time limit is not a whole number of minutes.", "Give a number such as 15, or leave it empty.",
            fields={"minutes": ["Enter a whole number of minutes, such as 15"]},
        )  # fmt: skip
    return int(text) * 60


def _sizes(choice: spending.Choice) -> list[dict[str, str]]:
    """The sizes that the project may choose, each with what a run on it may cost; empty where machines have none."""
    return [
        {
            "value": offer.size.name,
            "text": f"{offer.size.name}: {offer.size.vcpus} processors, {offer.size.memory_gib} GiB memory"
            + (f", {offer.size.gpus} GPU" if offer.size.gpus else ""),
            "cost": ("" if offer.at_most is None else "at most ") + in_pounds(offer.at_most),
        }
        for offer in choice.offers
    ]


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
