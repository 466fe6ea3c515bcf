"""The public pages: the catalogue and a dataset. No sign-in needed."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from apps.core.views import public
from apps.datasets import dictionary as dictionaries
from apps.datasets import permissions, queries
from apps.datasets.models import Dataset
from apps.datasets.profile import columns_of
from apps.datasets.search import Found, Search
from apps.datasets.states import DATASET, DatasetState
from portal.jinja import number, plural, uk_date

YES_NO = {"yes": "Yes", "no": "No"}
SORTS = (("relevance", "Best match"), ("title", "Title"), ("newest", "Newest first"))


@public
@require_safe
def catalogue(request: HttpRequest) -> HttpResponse:
    """Search, facets, results."""
    search = Search.from_query(request.GET)
    listed = queries.catalogue(search, page=request.GET.get("page"))
    return render(
        request,
        "datasets/catalogue.html",
        {
            "page": listed.page,
            "results": [result(d) for d in listed.page],
            "facets": facets(search, listed.found, request.GET.get("year", "")),
            "search": {"name": "q", "label": "Search", "value": search.text},
            "asked": bool(request.GET),
        },
    )


def result(dataset: Any) -> dict[str, Any]:
    """One entry of the list."""
    meta = [dataset.custodian.name]
    if dataset.rows is not None:
        meta.append(f"about {plural(dataset.rows, 'row')}")
    if dataset.personal_data:
        meta.append("Personal data")
    if dataset.has_stand_in:
        meta.append("Stand-in data available")
    if dataset.coverage_place:
        meta.append(dataset.coverage_place)
    summary = (
        dataset.summary if len(dataset.summary) <= 280 else f"{dataset.summary[:280].rsplit(' ', 1)[0]}…"
    )
    return {
        "text": dataset.title,
        "href": reverse("datasets:detail", args=[dataset.slug]),
        "summary": summary,
        "meta": meta,
    }


def facets(search: Search, found: Found, year: str) -> list[dict[str, Any]]:
    """The facets for the macro; a facet with nothing to choose is left out."""
    labels = {
        "custodian": "Custodian",
        "keyword": "Keyword",
        "personal": "Personal data",
        "standin": "Stand-in data available",
        "place": "Place covered",
    }
    out: list[dict[str, Any]] = []
    for name, label in labels.items():
        chosen = set(search.chosen.get(name, ()))
        options = [
            {
                "value": value,
                "text": YES_NO.get(value, value) if name in ("personal", "standin") else text or value,
                "total": count,
                "checked": value in chosen,
            }
            for value, text, count in found.facets[name]
        ]
        # What was chosen but finds nothing stays, so that it can be taken away.
        known = {o["value"] for o in options}
        options += [
            {"value": v, "text": YES_NO.get(v, v), "total": 0, "checked": True}
            for v in chosen
            if v not in known
        ]
        if options:
            out.append({"name": name, "label": label, "options": options})
    out.append(
        {
            "name": "year",
            "label": "Covers the year",
            "kind": "text",
            "value": year[:10],
            "hint": "For example, 1980",
        }
    )
    out.append(
        {
            "name": "sort",
            "label": "Sort by",
            "kind": "select",
            "any_text": "Best match",
            "options": [{"value": v, "text": t, "checked": search.sort == v} for v, t in SORTS[1:]],
        }
    )
    return out


@public
@require_safe
def detail(request: HttpRequest, slug: str) -> HttpResponse:
    """A dataset: what it is, its dictionary, its profile, its versions, and how to get access."""
    dataset = queries.dataset_for(request.user, slug)
    version = queries.current_version(dataset)
    dictionary = version.dictionary if version else dataset.dictionary
    profile = version.profile if version else None
    return render(
        request,
        "datasets/detail.html",
        {
            "dataset": dataset,
            "state_labels": DATASET.labels,
            "state_colours": DATASET.colours,
            "stopped": dataset.state in (DatasetState.SUSPENDED, DatasetState.WITHDRAWN),
            "version": version,
            "versions": queries.public_versions(dataset),
            "columns": dictionaries.table_rows(dictionary),
            "missing_values": dictionary.get("missingValues", []),
            "profile": profile,
            "profile_columns": columns_of(profile, threshold=queries.threshold()),
            "threshold": queries.threshold(),
            "facts": facts(dataset, profile),
            "stand_in": queries.has_stand_in(dataset),
            "acts": request.user.is_authenticated and permissions.acts_for(request.user, dataset),
            "request_url": address("datasets:request_access", dataset.slug)
            if dataset.state == DatasetState.PUBLISHED
            else None,
        },
    )


def address(name: str, *args: object) -> str | None:
    """The address of a page of another part of the app, or None where this installation has none."""
    from django.urls import NoReverseMatch

    try:
        return reverse(name, args=args)
    except NoReverseMatch:
        return None


def facts(dataset: Dataset, profile: dict[str, Any] | None) -> list[list[Any]]:
    """The dataset's metadata as rows of a summary list; what is not given is left out."""
    start, end = dataset.coverage_from, dataset.coverage_to
    period = (
        f"{uk_date(start)} to {uk_date(end)}"
        if start and end
        else f"From {uk_date(start)}"
        if start
        else f"Until {uk_date(end)}"
        if end
        else ""
    )
    rows = [
        ["Short name", dataset.slug],
        ["Custodian", dataset.custodian.name],
        ["Personal data", "Yes" if dataset.personal_data else "No"],
        ["Rows", f"about {number(profile['rows'])}" if profile else ""],
        ["Place covered", dataset.coverage_place],
        ["Period covered", period],
        ["Keywords", ", ".join(dataset.keywords)],
        ["Licence or terms", dataset.licence],
        ["Source", dataset.source_url],
        ["Approval of programs", dataset.get_program_approval_display()],
    ]
    return [row for row in rows if row[1]]
