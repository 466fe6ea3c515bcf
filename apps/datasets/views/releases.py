"""Pages of stage-1 releases, for those who act for the custodian; and the download, for all who may use the data."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from apps.accounts.permissions import me
from apps.accounts.queries import timeline
from apps.core.errors import NotFound
from apps.core.objects import chunks_of, store
from apps.core.views import act
from apps.datasets import access_queries, actions, permissions, queries
from apps.datasets.forms.access import OrderForm, ReleaseDecisionForm
from apps.datasets.forms.catalogue import ReasonForm
from apps.datasets.models import AccessRequest, Stage1Release
from apps.datasets.quality import quality_of
from apps.datasets.states import STAGE1_RELEASE, ReleaseState
from apps.projects.models import Project


@require_http_methods(["GET", "POST"])
def order(request: HttpRequest, version_pk: UUID) -> HttpResponse:
    version = queries.version_for(me(request), version_pk, to="order stand-in data from this dataset")
    form = OrderForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        rows = form.cleaned_data["rows"]
        release = act(
            request,
            form,
            actions.order_release,
            version=version,
            method=form.cleaned_data["method"],
            parameters={"rows": rows} if rows else {},
        )
        if release is not None:
            return redirect("datasets:release", pk=release.pk)
    return render(
        request,
        "datasets/release_order.html",
        {"form": form, "version": version, "back_url": reverse("datasets:version", args=[version.pk])},
    )


@require_safe
def release(request: HttpRequest, pk: UUID) -> HttpResponse:
    item = access_queries.release_for(request.user, pk)
    context = {
        "item": item, "lifecycle": STAGE1_RELEASE, "history": timeline(item), "quality": quality_of(item.report),
        "live": item.state in (ReleaseState.ORDERED, ReleaseState.MAKING), "can_decide": item.state == ReleaseState.TO_REVIEW,
        "can_withdraw": item.state == ReleaseState.RELEASED,
    }  # fmt: skip
    return render(request, "datasets/release.html", context)


@require_http_methods(["GET", "POST"])
def decide(request: HttpRequest, pk: UUID) -> HttpResponse:
    item = access_queries.release_for(request.user, pk)
    form = ReleaseDecisionForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        approve = form.cleaned_data["decision"] == "approve"
        done = "The stand-in data are released." if approve else "The stand-in data are not released."
        if act(
            request,
            form,
            actions.decide_release,
            done=done,
            release=item,
            approve=approve,
            reason=form.cleaned_data["reason"],
        ):
            return redirect("datasets:release", pk=item.pk)
    context = {
        "title": "Decide on the stand-in data",
        "caption": str(item.version),
        "form": form,
        "button_text": "Record the decision",
        "back_url": reverse("datasets:release", args=[item.pk]),
    }
    return render(request, "decision_page.html", context)


@require_http_methods(["GET", "POST"])
def withdraw(request: HttpRequest, pk: UUID) -> HttpResponse:
    item = access_queries.release_for(request.user, pk)
    form = ReasonForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        if act(
            request,
            form,
            actions.withdraw_release,
            done="The stand-in data are withdrawn.",
            release=item,
            reason=form.cleaned_data["reason"],
        ):
            return redirect("datasets:release", pk=item.pk)
    context = {
        "title": "Withdraw the stand-in data",
        "form": form,
        "warning": "No new downloads or rehearsals. Copies already downloaded stay where they are; who has one is on record.",
        "button_text": "Withdraw",
        "button_kind": "warning",
        "back_url": reverse("datasets:release", args=[item.pk]),
    }
    return render(request, "form_page.html", context)


@require_safe
def data(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """Download the stand-in data. Recorded before the first byte."""
    item = Stage1Release.objects.select_related("version__dataset__custodian").filter(pk=pk).first()
    if item is None or not permissions.can_download_release(request.user, item):
        raise NotFound("stage-1 release")
    actions.record_download(
        by=me(request),
        project=project_using(me(request), item),
        what="stage1_release",
        object_id=item.pk,
        sha256=item.sha256,
    )
    return stream(item)


def project_using(user: object, release: Stage1Release) -> Project | None:
    """The person's project under whose access the release is downloaded; None for a custodian looking at it."""
    mine = user.memberships.filter(accepted_at__isnull=False, left_at__isnull=True).values("project_id")  # type: ignore[attr-defined]
    request = (
        AccessRequest.objects.filter(
            access_queries.in_force(), project_id__in=mine, dataset=release.version.dataset
        )
        .select_related("project")
        .first()
    )
    return request.project if request else None


def stream(release: Stage1Release) -> StreamingHttpResponse:
    """The file in pieces, as a download."""

    def body() -> Iterator[bytes]:
        with store().open(release.object_name) as reader:
            yield from chunks_of(reader)

    response = StreamingHttpResponse(body(), content_type="application/octet-stream")
    response["Content-Disposition"] = f'attachment; filename="{release.version.dataset.slug}-stand-in.csv"'
    response["Content-Length"] = str(release.size)
    response["ETag"] = f'"{release.sha256}"'
    return response
