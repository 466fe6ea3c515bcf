"""The log for people: a list with filters for auditors, and a page for one entry with its proof."""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET

from apps.audit import queries
from apps.audit.actions import entry_document
from apps.audit.permissions import require_read_log, rules
from apps.core.errors import Conflict
from apps.core.views import page_of
from strongroom import translog


@require_GET
def log(request: HttpRequest) -> HttpResponse:
    """Every entry, newest first, filtered and in pages. Auditors only."""
    require_read_log(request.user)
    filters = queries.Filters.read(request.GET)
    page = page_of(request, queries.entries(filters), 50)
    texts: list[tuple[str, str, str]] = [
        ("event", "What happened", "For example role.granted, or role. for all of that kind"),
        ("actor", "Who", "A name, an e-mail address or a code such as system:launcher"),
        ("object", "Concerning", "An id or a kind, such as run"),
        ("scope", "Project or dataset", "For example dataset: and its id"),
        ("from", "From", "A day, like 2026-03-27"),
        ("to", "To", "A day, like 2026-03-27"),
    ]
    facets = [
        {"name": n, "label": label, "kind": "text", "hint": hint, "value": request.GET.get(n, "")[:120]}
        for n, label, hint in texts
    ]
    context = {
        "title": "Audit log",
        "page": page,
        "rows": queries.named(list(page)),
        "facets": facets,
        "head": queries.latest_checkpoint(),
        "error_list": [{"text": text, "href": f"#facet-{name}"} for name, text in filters.faults.items()],
    }
    return render(request, "audit/entry_list.html", context)


@require_GET
def entry(request: HttpRequest, pk: object) -> HttpResponse:
    """One entry: what it says, what the log commits to, and the proof that it is in there."""
    row = queries.entry_for(request.user, pk)
    document = entry_document(row)
    try:
        proof: Any = queries.proof_of(row)
    except Conflict:
        proof = None
    may_read = rules().may_read(request.user)
    crumbs = [{"text": "Audit log", "href": reverse("audit:log")}] if may_read else []
    context = {
        "title": row.event,
        "caption": "Log entry",
        "entry": row,
        "actor": queries.named([row])[0][1],
        "data": json.dumps(row.data, indent=2, sort_keys=True, ensure_ascii=False),
        "document": json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False),
        "commitment": translog.commitment(document, bytes(row.salt)),
        "salt": bytes(row.salt).hex(),
        "leaf_hash": bytes(row.leaf_hash).hex(),
        "proof": proof.proof.decode() if proof else "",
        "size": proof.size if proof else 0,
        "breadcrumbs": [*crumbs, {"text": row.event}],
    }
    return render(request, "audit/entry_detail.html", context)
