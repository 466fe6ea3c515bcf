"""Small helpers that every page view uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django import forms
from django.contrib import messages
from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from apps.core.errors import Invalid

View = TypeVar("View", bound=Callable[..., HttpResponse])


def public(view: View) -> View:
    """Mark a page as open to everybody (portal.middleware.LoginRequired refuses all others to strangers)."""
    view.public = True  # type: ignore[attr-defined]
    return view


def before_password(view: View) -> View:
    """Mark a page as open to somebody who still has to replace the first password that an operator chose for them."""
    view.before_password = True  # type: ignore[attr-defined]
    return view


def page_of(request: HttpRequest, queryset: QuerySet[Any], size: int = 25) -> Page[Any]:
    """The page of `queryset` that the address asks for (?page=N); out of range gives the nearest one."""
    return Paginator(queryset, size).get_page(request.GET.get("page"))


def act(
    request: HttpRequest, form: forms.Form, action: Callable[..., Any], /, done: str = "", **kwargs: Any
) -> Any | None:
    """Run `action(by=request.user, **kwargs)` for a valid form; put an Invalid error back onto the form.

    Returns the action's result (or True where it returns None), or None when the form must be shown again.
    Denied and Conflict pass through and become pages (portal.middleware.DomainErrors).
    """
    try:
        result = action(by=request.user, **kwargs)
    except Invalid as error:
        placed = False
        for field, sentences in error.fields.items():
            for sentence in sentences:
                form.add_error(field if field in form.fields else None, sentence)
                placed = True
        if not placed:
            form.add_error(None, f"{error.detail} {error.remedy}".strip())
        return None
    if done:
        messages.success(request, done)
    return True if result is None else result


__all__ = ["act", "before_password", "page_of", "public"]
