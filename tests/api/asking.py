"""Asking a route as an actor, leaving nothing behind."""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.conf import settings
from django.contrib import auth
from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import reverse

from apps.accounts.models import User
from apps.accounts.permissions import live_holdings
from apps.core import api as core_api
from portal import middleware
from tests.api.routes import Route
from tests.api.world import Call, Matrix, data_of

REFUSED = (401, 403, 404)
ACTOR = "matrix.actor"


class Asker:
    """Everybody, signed in. How somebody signs in has its own tests: here the session is taken for granted."""

    def __init__(self, matrix: Matrix) -> None:
        self.people = matrix.actors
        self.client = Client()
        for user in self.people.values():
            if user is not None:
                live_holdings(user)  # read once, as a request does

    def ask(self, actor: str, method: str, route: Route, call: Call) -> int | str:
        """The status, "login" for a redirect to it, or the error that came up."""
        path = reverse(route.name, kwargs=call.kwargs)
        body, content_type = (b"", "") if method in ("GET", "DELETE") else data_of(call)
        extra: dict[str, Any] = {ACTOR: copy.copy(self.people[actor])}
        try:
            with transaction.atomic():
                try:
                    self.client.cookies.clear()
                    response = self.client.generic(
                        method, path, body, content_type=content_type, headers=call.headers or {}, **extra
                    )
                    if response.streaming:
                        b"".join(response.streaming_content)  # type: ignore[arg-type]
                finally:
                    transaction.set_rollback(True)
        except Exception as error:
            return f"500 {type(error).__name__}: {error}"[:300]
        if response.status_code == 302 and response["Location"].startswith("/login"):
            return "login"
        return response.status_code


def let_in(answer: int | str) -> bool:
    return isinstance(answer, int) and answer not in REFUSED and answer != 405


@contextmanager
def quick() -> Iterator[None]:
    """Error pages without their looks, sessions without a table, no limit of rates: the matrix asks thousands of times."""

    def plain(request: HttpRequest, template: str, context: Any = None, status: int = 200) -> HttpResponse:
        return HttpResponse(template, status=status)

    def who(request: HttpRequest) -> User | AnonymousUser:
        return request.META.get(ACTOR) or AnonymousUser()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(middleware, "render", plain)
        patch.setattr(auth, "get_user", who)
        patch.setattr(settings, "SESSION_ENGINE", "django.contrib.sessions.backends.signed_cookies")
        for rate in (core_api.UserRate, core_api.AnonymousRate):
            patch.setattr(rate, "allow_request", lambda self, request, view: True)
        gc.freeze()  # what is there stays: looking through it for garbage takes a tenth of the time
        yield
        gc.unfreeze()
