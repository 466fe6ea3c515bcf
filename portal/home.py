"""The front door, and the home page: what waits for this person, gathered from every app."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from apps.accounts import queries as accounts
from apps.accounts.permissions import live_holdings, me
from apps.accounts.roles import ROLES, Role
from apps.core.tasks import Waiting
from apps.core.views import public
from apps.datasets import queries as datasets
from apps.jobs import queries as jobs
from apps.projects import queries as projects

SHOWN = 10  # of one group; the lists of each app show the rest


@public
@require_safe
def front(request: HttpRequest) -> HttpResponse:
    """The front door: what this is, for whom, and the way in."""
    if request.user.is_authenticated:
        return redirect("home")
    return render(request, "portal/front.html", {"title": "Ask questions of data that nobody has to see"})


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """What waits for the person, grouped by heading; and the roles they hold."""
    waiting: list[Waiting] = []
    for app in (projects, datasets, jobs, accounts):
        waiting += app.waiting_for(request.user)
    groups: dict[str, list[Waiting]] = {}
    for item in waiting:
        groups.setdefault(item.heading, []).append(item)
    roles = [(ROLES[Role(h.role)], h.organisation.name, h.expires_at) for h in live_holdings(me(request))]
    context = {
        "title": f"Hello, {me(request).name}",
        "roles": roles,
        "shown": SHOWN,
        "groups": list(groups.items()),
        "count": len(waiting),
    }
    return render(request, "portal/home.html", context)
