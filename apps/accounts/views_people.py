"""The operator's pages: organisations, people and their roles; and the page that explains roles to everybody."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods

from apps.accounts import actions, queries
from apps.accounts.forms import OrganisationForm, PersonForm, ReasonForm, RoleForm, TrainingForm, role_rules
from apps.accounts.models import Organisation, User
from apps.accounts.permissions import require_manage_people
from apps.accounts.roles import ROLES
from apps.core.errors import Denied
from apps.core.views import act, page_of, public

FORM = require_http_methods(["GET", "POST"])
HELD_IN = {"any": "Any organisation", "project": "A project", **dict(Organisation.Kind.choices)}


@public
@require_GET
def roles(request: HttpRequest) -> HttpResponse:
    """Every role: what it is for, where it is held, what it permits, what it excludes. Rendered from roles.py."""
    rows = [
        {
            "code": role.value,
            "info": info,
            "held_in": HELD_IN[info.held_in],
            "rules": role_rules(role),
            "permissions": sorted(p.value for p in info.permissions),
        }
        for role, info in ROLES.items()
    ]
    return render(request, "accounts/role_list.html", {"title": "Roles", "roles": rows})


@require_GET
def people(request: HttpRequest) -> HttpResponse:
    """All people, searched and in pages."""
    require_manage_people(request.user)
    search, where, role = (_text(request, name) for name in ("q", "organisation", "role"))
    page = page_of(request, queries.people(search, where, role))
    facets = [
        {
            "name": "organisation",
            "label": "Organisation",
            "kind": "select",
            "options": [
                {"value": o.slug, "text": o.name, "checked": o.slug == where} for o in queries.organisations()
            ],
        },
        {
            "name": "role",
            "label": "Role",
            "kind": "select",
            "options": [
                {"value": r.value, "text": i.label, "checked": r.value == role}
                for r, i in ROLES.items()
                if i.held_in != "project"
            ],
        },
    ]
    context = {"title": "People", "page": page, "facets": facets, "search_value": search}
    return render(request, "accounts/person_list.html", context)


@FORM
def person_new(request: HttpRequest) -> HttpResponse:
    """Add a person."""
    require_manage_people(request.user)
    form = PersonForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        made = act(
            request,
            form,
            actions.create_person,
            done="The person was added. Give them a role next.",
            **form.cleaned_data,
        )
        if made:
            return redirect("accounts:person", made.pk)
    context = _form("Add a person", form, "Add person", reverse("accounts:people"))
    return render(request, "form_page.html", {**context, "breadcrumbs": _crumbs("Add a person")})


@require_GET
def person(request: HttpRequest, pk: object) -> HttpResponse:
    """One person: roles, training, what was decided about them."""
    require_manage_people(request.user)
    who = queries.person_for(pk)
    context = {
        "title": who.name,
        "person": who,
        "state": "active" if who.is_active else "deactivated",
        "myself": who.pk == request.user.pk,
        "roles": [(ROLES[h.role], h) for h in who.roles_now],  # type: ignore[attr-defined]
        "trainings": [(t, queries.training_until(t)) for t in who.trainings.order_by("-completed_on")],
        "terms_accepted": queries.terms_accepted(who),
        "history": queries.account_history(who),
        "breadcrumbs": _crumbs(who.name),
    }
    return render(request, "accounts/person_detail.html", context)


@FORM
def role_grant(request: HttpRequest, pk: object) -> HttpResponse:
    """Give a person a role."""
    require_manage_people(request.user)
    who = queries.person_for(pk)
    form = RoleForm(request.POST or None, initial={"organisation": who.organisation_id})
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        try:
            made = act(
                request,
                form,
                actions.grant_role,
                done=f"{who.name} now holds the role.",
                user=who,
                role=data["role"],
                organisation=data["organisation"],
                expires_at=form.expires_at,
            )
        except Denied as error:  # a forbidden pair is about what was typed here: say it beside the form
            form.add_error("role", f"{error.detail} {error.remedy}")
            made = None
        if made:
            return redirect("accounts:person", who.pk)
    return _person_form(request, who, "Give a role", form, "Give role")


@FORM
def role_revoke(request: HttpRequest, pk: object, holding: object) -> HttpResponse:
    """Take a role back, with a reason."""
    require_manage_people(request.user)
    who = queries.person_for(pk)
    held = queries.holding_for(who, holding)
    what = f"{held.get_role_display()}, {held.organisation.name}"
    return _with_reason(
        request, who, f"Take back the role: {what}", "Take role back", actions.revoke_role, holding=held
    )


@FORM
def training(request: HttpRequest, pk: object) -> HttpResponse:
    """Record a course that the person completed."""
    require_manage_people(request.user)
    who = queries.person_for(pk)
    form = TrainingForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        made = act(
            request,
            form,
            actions.record_training,
            done="The training was recorded.",
            user=who,
            **form.cleaned_data,
        )
        if made:
            return redirect("accounts:person", who.pk)
    return _person_form(request, who, "Record training", form, "Record training")


@FORM
def deactivate(request: HttpRequest, pk: object) -> HttpResponse:
    """Close an account."""
    require_manage_people(request.user)
    who = queries.person_for(pk)
    warning = "They are signed out at once, and all their API tokens end for good."
    return _with_reason(
        request,
        who,
        "Deactivate the account",
        "Deactivate",
        actions.deactivate_person,
        warning=warning,
        user=who,
    )


@FORM
def reactivate(request: HttpRequest, pk: object) -> HttpResponse:
    """Open a closed account again."""
    require_manage_people(request.user)
    who = queries.person_for(pk)
    return _with_reason(
        request, who, "Reactivate the account", "Reactivate", actions.reactivate_person, kind="", user=who
    )


@require_GET
def organisations(request: HttpRequest) -> HttpResponse:
    """All organisations."""
    require_manage_people(request.user)
    search = _text(request, "q")
    page = page_of(request, queries.organisations(search))
    return render(
        request,
        "accounts/organisation_list.html",
        {
            "title": "Organisations",
            "page": page,
            "search_value": search,
            "breadcrumbs": _crumbs("Organisations"),
        },
    )


@FORM
def organisation_new(request: HttpRequest) -> HttpResponse:
    """Add an organisation."""
    require_manage_people(request.user)
    form = OrganisationForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        made = act(
            request,
            form,
            actions.create_organisation,
            done="The organisation was added.",
            **form.cleaned_data,
        )
        if made:
            return redirect("accounts:organisations")
    context = _form("Add an organisation", form, "Add organisation", reverse("accounts:organisations"))
    return render(request, "form_page.html", {**context, "breadcrumbs": _crumbs("Add an organisation")})


def _with_reason(
    request: HttpRequest,
    who: User,
    title: str,
    button: str,
    action: Any,
    *,
    kind: str = "warning",
    warning: str = "",
    **kwargs: Any,
) -> HttpResponse:
    form = ReasonForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        done = act(request, form, action, reason=form.cleaned_data["reason"], **kwargs)
        if done:
            messages.success(request, "Done, and recorded with your reason.")
            return redirect("accounts:person", who.pk)
    return _person_form(request, who, title, form, button, button_kind=kind, warning=warning)


def _person_form(
    request: HttpRequest, who: User, title: str, form: Any, button: str, **extra: Any
) -> HttpResponse:
    back = reverse("accounts:person", args=[who.pk])
    crumbs = [*_crumbs()[:1], {"text": who.name, "href": back}, {"text": title}]
    return render(
        request,
        "form_page.html",
        {**_form(title, form, button, back), "caption": who.name, "breadcrumbs": crumbs, **extra},
    )


def _form(title: str, form: Any, button: str, cancel: str) -> dict[str, Any]:
    return {"title": title, "form": form, "button_text": button, "cancel_url": cancel}


def _crumbs(*texts: str) -> list[dict[str, str]]:
    return [{"text": "People", "href": reverse("accounts:people")}, *({"text": text} for text in texts)]


def _text(request: HttpRequest, name: str) -> str:
    """What the address asks for, without the one character that PostgreSQL cannot hold."""
    return request.GET.get(name, "")[:200].replace("\x00", "")
