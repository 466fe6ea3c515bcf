"""Refuse by default: every page needs a login unless its view says otherwise; domain errors become pages."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth.views import redirect_to_login
from django.db import DataError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render

from apps.accounts.errors import choose_own_password
from apps.core.errors import DomainError, unstorable

GetResponse = Callable[[HttpRequest], HttpResponse]


class SecurityHeaders:
    """Headers that Django does not set by itself. Pages of a signed-in person are never cached by anybody."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response.headers.setdefault("Permissions-Policy", "camera=(), geolocation=(), microphone=(), usb=()")
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        if not request.path.startswith("/static/"):
            response.headers.setdefault("Cache-Control", "no-store, private")
        return response


class LoginRequired:
    """Every view needs a signed-in person unless marked with apps.core.views.public. API views answer for themselves."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Callable[..., HttpResponse], args: object, kwargs: object
    ) -> HttpResponse | None:
        if (
            getattr(view, "public", False)
            or getattr(view, "cls", None) is not None
            or request.user.is_authenticated
        ):
            return None
        return redirect_to_login(request.get_full_path())


class OwnPassword:
    """Whoever still has the first password, which an operator chose and knows, chooses their own before all else.

    Views marked with apps.core.views.before_password stay open. Tokens are not issued before (accounts.actions), so
    what is refused to API calls here are sessions.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Callable[..., HttpResponse], args: object, kwargs: object
    ) -> HttpResponse | None:
        user = request.user
        if not user.is_authenticated or user.password_chosen_at or getattr(view, "before_password", False):
            return None
        if getattr(view, "cls", None) is not None:
            error = choose_own_password()
            return JsonResponse(error.as_dict(), status=error.status)
        return redirect("accounts:password")


class DomainErrors:
    """Denied, Conflict, Invalid and NotFound raised by an action become a page with what, why and what next."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if isinstance(error, DataError):
            error = unstorable()
        if not isinstance(error, DomainError) or request.path.startswith("/api/"):
            return None
        template = f"errors/{error.status if error.status in (403, 404, 409) else 400}.html"
        context = {"title": error.title, "reason": error.detail, "remedy": error.remedy or None}
        return render(request, template, context, status=error.status)
