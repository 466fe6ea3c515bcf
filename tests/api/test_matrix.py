"""Every route x every method x every actor, from the URL conf: refused unless tests/api/expected.py declares it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from django.test import RequestFactory
from rest_framework.permissions import AllowAny

from apps.accounts import actions as accounts
from apps.accounts.authentication import HasScope
from apps.audit.permissions import ReadScope
from apps.datasets.api.parts import PublicRead
from tests import factories
from tests.api.asking import Asker, let_in, quick
from tests.api.expected import ACTORS, EXPECTED
from tests.api.routes import METHODS, Route, routes
from tests.api.world import Call, Matrix

_world, w = factories.fixtures(Matrix)
ROUTES = routes()
SLOW = ("api:schema", "status", "health-ready")
# A token makes no tokens: that takes the person, or the password.
NO_TOKEN = {("api:tokens", "POST")}


def route_of(key: str) -> Route:
    return ROUTES[key.partition("[")[0]]


@pytest.fixture(scope="module")
def asker(_world: Matrix) -> Iterator[Asker]:
    logger = logging.getLogger("django.request")
    before, logger.disabled = logger.disabled, True
    with quick():
        yield Asker(_world)
    logger.disabled = before


def test_every_route_is_declared() -> None:
    declared = {key.partition("[")[0] for key in EXPECTED}
    assert set(ROUTES) - declared == set(), "routes that nobody declared"
    assert declared - set(ROUTES) == set(), "declared routes that do not exist"


def test_every_method_of_the_api_is_declared() -> None:
    missing = {
        (r.name, m) for r in ROUTES.values() if r.is_class for m in r.methods if m not in EXPECTED[r.name]
    }
    assert missing == set()


PAGES = [route for route in ROUTES.values() if not route.is_class]


@pytest.mark.parametrize("route", PAGES, ids=lambda r: r.name)
def test_a_page_has_the_declared_methods_only(route: Route, rf: RequestFactory) -> None:
    """Above all: what is only read refuses POST. A view that lets the method through misses its arguments here."""
    for method in set(METHODS) - set(EXPECTED[route.name]):
        assert route.view(rf.generic(method, "/")).status_code == 405, method


def test_every_actor_is_there(_world: Matrix, db: None) -> None:
    assert set(_world.actors) == ACTORS
    assert set(_world.calls) <= set(EXPECTED)


def asked(route: Route, key: str, method: str) -> frozenset[str]:
    """All actors; a few where the answer is slow and public, or where the view should not take the method at all."""
    if method in EXPECTED[key]:
        return ACTORS if key not in SLOW else frozenset({"anonymous", "lead"})
    return (
        frozenset({"anonymous", "operator"})
        if method == "PUT"
        else frozenset({"anonymous", "lead", "custodian", "auditor", "operator"})
    )


@pytest.mark.parametrize("key", EXPECTED)
def test_route(_world: Matrix, asker: Asker, key: str, db: None) -> None:
    route, rule = route_of(key), EXPECTED[key]
    call = _world.calls.get(key, Call({}))
    wrong: list[str] = []
    for method in route.methods:
        for actor in sorted(asked(route, key, method)):
            answer = asker.ask(actor, method, route, call)
            if (isinstance(answer, str) and answer != "login") or (isinstance(answer, int) and answer >= 500):
                wrong.append(f"{method} as {actor}: {answer}")
            elif method in rule and let_in(answer) != (actor in rule[method]):
                wrong.append(
                    f"{method} as {actor}: {answer}, but {'is' if actor in rule[method] else 'is not'} declared"
                )
            elif method not in rule and answer not in (405, "login"):
                # Strangers are sent to sign in first; to everybody else a method that is not declared does not exist.
                wrong.append(f"{method} as {actor}: {answer}, and the method is not declared")
    assert wrong == []


# Tokens

SCOPED = [r for r in ROUTES.values() if r.is_class and r.name.startswith("api:")]


@pytest.mark.parametrize("route", SCOPED, ids=lambda r: r.name)
def test_every_api_view_names_its_scopes(route: Route) -> None:
    """A view without a scope for a method refuses every token there; public and password routes aside."""
    kind = route.view.cls
    if route.name in ("api:schema", "api:login-token") or kind.permission_classes == [AllowAny]:
        return
    assert any(issubclass(p, (HasScope, ReadScope, PublicRead)) for p in kind.permission_classes)
    missing = {(route.name, method) for method in route.methods if method not in kind.scopes}
    assert missing <= NO_TOKEN


def test_a_token_to_read_writes_nothing(_world: Matrix, asker: Asker, db: None) -> None:
    """Whoever may do everything in person may still do nothing but read with such a token."""
    wrong = []
    for name in ("lead", "custodian", "chair", "checker", "signatory_ours", "operator"):
        _, secret = accounts.create_token(by=_world.actors[name], name="matrix", scopes=["read"], days=1)
        for key, rule in EXPECTED.items():
            route = route_of(key)
            if (
                not key.startswith("api:")
                or key == "api:login-token"
                or route.view.cls.permission_classes == [AllowAny]
            ):
                continue
            for method in set(rule) - {"GET"}:
                if name not in rule[method] or route.view.cls.scopes.get(method) == "read":
                    continue
                call = _world.calls.get(key, Call({}))
                bearing = Call(
                    call.kwargs,
                    call.body,
                    call.content_type,
                    {**(call.headers or {}), "Authorization": f"Bearer {secret}"},
                )
                answer = asker.ask("anonymous", method, route, bearing)
                if answer != 403:
                    wrong.append(f"{key} {method} as {name}: {answer}")
    assert wrong == []


@pytest.mark.parametrize("token", ["", "x", "0" * 32 + ".x", "\x00", "é" * 30])
def test_the_runner_needs_its_token(asker: Asker, token: str, db: None) -> None:
    claim = asker.ask("anonymous", "POST", ROUTES["runner-claim"], Call({}, {"token": token}))
    assert claim in (403, 422)
    for key in ("runner-program", "runner-outputs"):
        assert asker.ask(
            "anonymous", "GET", ROUTES[key], Call({}, headers={"Authorization": f"Bearer {token!r}"})
        ) in (401, 403)
