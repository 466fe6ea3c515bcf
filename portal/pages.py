"""Error pages and the pages that belong to no app."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET
from drf_spectacular.generators import SchemaGenerator

from apps.accounts.queries import terms_accepted
from apps.audit import queries as audit
from apps.core.views import before_password, public
from portal import health


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return render(request, "errors/400.html", status=400)


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return render(request, "errors/403.html", status=403)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return render(request, "errors/404.html", status=404)


def server_error(request: HttpRequest) -> HttpResponse:
    if request.path.startswith("/api/"):
        error = {
            "code": "server_error",
            "detail": "The portal met a fault of its own.",
            "remedy": "Try again in a minute.",
        }
        return JsonResponse(error, status=500)
    return render(request, "errors/500.html", status=500)


@public
@before_password
@require_GET
def accessibility(request: HttpRequest) -> HttpResponse:
    """The accessibility statement."""
    return render(request, "portal/accessibility.html", {"title": "Accessibility statement"})


@public
@before_password
@require_GET
def privacy(request: HttpRequest) -> HttpResponse:
    """What the portal keeps about people, why, and for how long."""
    return render(
        request,
        "portal/privacy.html",
        {"title": "Privacy", "session_hours": settings.SESSION_COOKIE_AGE // 3600},
    )


@public
@before_password
@require_GET
def terms(request: HttpRequest) -> HttpResponse:
    """The terms of use, with the button to accept them for those who have not."""
    user = request.user
    accepted = terms_accepted(user) if user.is_authenticated else None
    context = {
        "title": "Terms of use",
        "version": settings.TERMS_VERSION,
        "accepted": accepted,
        "accept_url": reverse("accounts:accept_terms"),
    }
    return render(request, "portal/terms.html", context)


@public
@before_password
@require_GET
def contact(request: HttpRequest) -> HttpResponse:
    """Whom to ask."""
    return render(request, "portal/contact.html", {"title": "Contact", "contact": health.contact_address()})


@lru_cache(maxsize=1)
def _routes() -> list[tuple[str, list[dict[str, Any]]]]:
    """(group, routes) of the API from its own OpenAPI document, which does not change while the process lives."""
    schema = SchemaGenerator().get_schema(request=None, public=True)
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, methods in sorted(schema.get("paths", {}).items()):
        for method, operation in methods.items():
            tag = (operation.get("tags") or ["Other"])[0]
            route = {
                "method": method.upper(),
                "path": path,
                "summary": operation.get("summary", ""),
                "public": operation.get("security") == [] or {} in operation.get("security", []),
            }
            groups.setdefault(tag[:1].upper() + tag[1:], []).append(route)
    return sorted(groups.items())


@public
@before_password
@require_GET
def api_docs(request: HttpRequest) -> HttpResponse:
    """How to use the API, and every route of it."""
    return render(
        request,
        "portal/api_docs.html",
        {"title": "API", "groups": _routes(), "base": f"{settings.PORTAL_URL}/api/v1"},
    )


@public
@before_password
@require_GET
def status(request: HttpRequest) -> HttpResponse:
    """Whether the parts answer and the work is keeping up; for people (health/ready is for machines)."""
    found = health.check()
    context = {"title": "Status", "checks": health.as_rows(found), "good": found.good}
    return render(request, "portal/status.html", context, status=200 if found.good else 503)


@public
@before_password
@require_GET
def portal_keys(request: HttpRequest) -> JsonResponse:
    """/.well-known/strongroom.json: the portal's public keys and where its API is."""
    response = JsonResponse(audit.portal_keys())
    response["Cache-Control"] = "public, max-age=300"
    response["Cross-Origin-Resource-Policy"] = "cross-origin"
    return response
