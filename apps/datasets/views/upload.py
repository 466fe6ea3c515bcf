"""The custodian's pages for dataset versions: upload, state, report."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from apps.accounts.permissions import me
from apps.accounts.queries import timeline
from apps.core.views import act
from apps.datasets import actions, queries
from apps.datasets import dictionary as dictionaries
from apps.datasets.forms.catalogue import ReasonForm
from apps.datasets.profile import columns_of
from apps.datasets.states import VERSION, VersionState
from apps.datasets.views.catalogue import address
from apps.datasets.views.manage import managed, trail


@require_POST
def start(request: HttpRequest, slug: str) -> HttpResponse:
    """Begin a version; its size and type are known once a file is chosen on the next page."""
    dataset = managed(request, slug, to="upload data for this dataset")
    version = actions.start_upload(
        by=me(request), dataset=dataset, media_type="text/csv", announced_size=None
    )
    return redirect("datasets:upload", version.pk)


@require_safe
def upload(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Seal a file in the browser and send it in pieces."""
    version = queries.version_for(me(request), pk, to="upload data for this dataset")
    if version.state != VersionState.UPLOADING:
        return redirect("datasets:version", version.pk)
    return render(
        request,
        "datasets/upload.html",
        {
            "version": version,
            "dataset": version.dataset,
            "received": queries.received(version),
            "upload_url": reverse("api:version-content", args=[version.pk]),
            "finish_url": reverse("api:version-finish", args=[version.pk]),
            "done_url": reverse("datasets:version", args=[version.pk]),
            "broker_key": actions.broker_key(version.dataset).to_json(),
            "max_size": settings.MAX_DATASET_BYTES,
            "columns": dictionaries.table_rows(version.dictionary),
            "breadcrumbs": trail(version.dataset, f"Version {version.number}"),
        },
    )


@require_safe
def version(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """A version as its custodian sees it: state, report with row numbers, profile, seal header."""
    found = queries.version_for(me(request), pk, to="see this version")
    report = found.report or {}
    return render(
        request,
        "datasets/version.html",
        {
            "version": found,
            "dataset": found.dataset,
            "state_labels": VERSION.labels,
            "state_colours": VERSION.colours,
            "received": queries.received(found),
            "why": queries.last_reason(found),
            "kept_days": settings.REFUSED_CIPHERTEXT_DAYS,
            "report": report,
            "problems": report.get("problems", []),
            "profile": found.profile,
            "profile_columns": columns_of(found.profile, threshold=queries.threshold()),
            "threshold": queries.threshold(),
            "columns": dictionaries.table_rows(found.dictionary),
            "history": timeline(found),
            "breadcrumbs": trail(found.dataset, f"Version {found.number}"),
            "release_url": address("datasets:release_order", found.pk)
            if found.state == VersionState.ACCEPTED
            else None,
        },
    )


@require_http_methods(["GET", "POST"])
def give_up(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """The page before an unfinished upload is given up."""
    found = queries.version_for(me(request), pk, to="give this upload up")
    form = ReasonForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        if act(
            request,
            form,
            actions.give_up_upload,
            done="The upload was given up. What was received is deleted.",
            version=found,
            reason=form.cleaned_data["reason"],
        ):
            return redirect("datasets:manage", found.dataset.slug)
    return render(
        request,
        "form_page.html",
        {
            "title": "Give this upload up?",
            "caption": str(found),
            "form": form,
            "warning": "What was received so far is deleted.",
            "button_text": "Give up",
            "button_kind": "warning",
            "cancel_url": reverse("datasets:version", args=[found.pk]),
            "breadcrumbs": trail(found.dataset, f"Version {found.number}"),
        },
    )


@require_POST
def check_again(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Ask for the check once more."""
    found = queries.version_for(me(request), pk, to="check this version again")
    actions.check_again(by=me(request), version=found)
    return redirect("datasets:version", found.pk)
