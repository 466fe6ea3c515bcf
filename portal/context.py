"""What every page knows: who is signed in, the service navigation, whether the insecure stand-in is in use."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse

from apps.accounts.permissions import holds
from apps.accounts.roles import Role
from apps.projects.queries import has_projects

RENEW_AFTER = 60  # seconds: a session that is used is renewed at most this often


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """Links of the service navigation: only what the person's roles can use."""
    user = request.user
    items: list[tuple[str, str, bool]] = [("Datasets", "datasets:catalogue", True)]
    if user.is_authenticated and not user.password_chosen_at:
        return []  # every link would lead to the one page that is open (middleware.OwnPassword)
    if user.is_authenticated:
        custodian, operator = holds(user, Role.CUSTODIAN), holds(user, Role.OPERATOR)
        researcher = holds(user, Role.RESEARCHER)
        # Without the role, whoever was invited somewhere has a list of projects too.
        projects = researcher or has_projects(user)
        items = [
            ("Home", "home", True),
            ("Datasets", "datasets:catalogue", True),
            ("Projects", "projects:list", projects),
            ("Runs", "jobs:runs", projects or custodian),
            ("My datasets", "datasets:mine", custodian),
            (
                "Reviews",
                "projects:reviews",
                holds(user, Role.ETHICS_MEMBER) or holds(user, Role.ETHICS_CHAIR),
            ),
            ("Agreements", "datasets:agreements", holds(user, Role.SIGNATORY) or custodian),
            ("Output checks", "jobs:checks", holds(user, Role.OUTPUT_CHECKER)),
            ("Audit log", "audit:log", holds(user, Role.AUDITOR)),
            ("People", "accounts:people", operator),
            ("Organisations", "accounts:organisations", operator),
        ]
    out = []
    for text, name, shown in items:
        if shown:
            href = reverse(name)
            active = request.path == href or (name != "home" and request.path.startswith(f"{href}/"))
            out.append({"text": text, "href": href, "active": active})
    return out


def footer() -> list[dict[str, str]]:
    """Links that stand below every page."""
    names = [
        ("Accessibility", "accessibility"),
        ("Privacy", "privacy"),
        ("Terms of use", "terms"),
        ("Roles", "accounts:roles"),
        ("API", "api-docs"),
        ("Status", "status"),
        ("Contact", "contact"),
    ]
    return [{"text": text, "href": reverse(name)} for text, name in names]


def _renew(request: HttpRequest) -> None:
    """Count the session's life from the last page that a person asked for; a page that refreshes itself is nobody."""
    if request.headers.get("HX-Request"):
        return
    moment = int(time.time())
    if moment - int(request.session.get("seen", 0)) > RENEW_AFTER:
        request.session["seen"] = moment


def page(request: HttpRequest) -> dict[str, Any]:
    """The context processor of every page, error pages included."""
    user = getattr(request, "user", None)  # absent where an early middleware failed
    known: dict[str, Any] = {
        "insecure": settings.SOFTWARE_EVIDENCE_ONLY,
        "user": user,
        "portal_id": settings.PORTAL_ID,
        "footer_links": footer(),
    }
    if user is None:
        return known
    known["nav"] = partial(navigation, request)  # only whole pages ask for it
    if user.is_authenticated:
        _renew(request)
        known["account"] = {
            "name": user.name,
            "url": reverse("accounts:account"),
            "sign_out_url": reverse("accounts:logout"),
        }
        known["session_seconds"] = settings.SESSION_COOKIE_AGE
        known["session_keep_url"] = reverse("accounts:stay")
    elif request.path != reverse("accounts:login"):
        known["sign_in_url"] = reverse("accounts:login")
    return known
