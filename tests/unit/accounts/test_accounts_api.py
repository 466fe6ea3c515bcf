"""Tokens and scopes, login by password, and the operator's work over HTTP."""

from __future__ import annotations

import datetime as dt

import pytest
import time_machine
from django.test import Client
from django.utils import timezone

from apps.accounts import actions
from apps.accounts.models import ApiToken, User
from apps.audit.models import Entry
from tests.unit.accounts.conftest import PASSWORD

pytestmark = pytest.mark.django_db
JSON = "application/json"


def token_for(user: User, *scopes: str) -> dict[str, str]:
    _, secret = actions.create_token(by=user, name=f"t-{'-'.join(scopes)}", scopes=scopes, days=30)
    return {"Authorization": f"Bearer {secret}"}


def call(method: str, address: str, headers: dict[str, str] | None = None, body: object = None):
    browser = Client(enforce_csrf_checks=True)
    send = getattr(browser, method.lower())
    return (
        send(f"/api/v1{address}", data=body, content_type=JSON, headers=headers or {})
        if body is not None
        else send(f"/api/v1{address}", headers=headers or {})
    )


def log_in(email: str = "person1@example.org", password: str = PASSWORD, **more: object):
    return call("POST", "/login/token", body={"email": email, "password": password, **more})


def test_login_gives_a_working_token(person):
    ada = person("researcher")
    answer = log_in(name="laptop", scopes=["read"], days=7)
    assert answer.status_code == 201
    made = answer.json()
    assert made["scopes"] == ["read"] and made["name"] == "laptop"
    headers = {"Authorization": f"Bearer {made['token']}"}
    me = call("GET", "/whoami", headers).json()
    assert (me["id"], me["email"], me["token"]["name"]) == (str(ada.pk), ada.email, "laptop")
    assert [r["role"] for r in me["roles"]] == ["researcher"]
    assert "digest" not in str(me) and made["token"] not in str(me)
    assert log_in(name="laptop").json()["name"] == "laptop 2"
    assert call("DELETE", "/login/token", headers).status_code == 204
    assert call("GET", "/whoami", headers).status_code == 401


def test_no_token_before_a_password_of_ones_own(person):
    ada = person(own_password=False)
    answer = log_in()
    assert answer.status_code == 403 and answer.json()["code"] == "choose_own_password"
    assert "choose your own password" in answer.json()["remedy"] and not ApiToken.objects.exists()
    actions.change_password(by=ada, current=PASSWORD, new="an entirely different sentence")
    assert log_in(password="an entirely different sentence").status_code == 201


def test_a_token_from_before_the_rule_is_refused(person):
    headers = token_for(person(), "read")
    User.objects.update(password_chosen_at=None)
    assert call("GET", "/whoami", headers).status_code == 401


def test_login_by_password_locks(person):
    person()
    for _ in range(4):
        answer = log_in(password="wrong")
        assert answer.status_code == 422 and answer.json()["code"] == "wrong_password"
    assert log_in(password="wrong").status_code == 429
    answer = log_in()
    assert answer.status_code == 429
    assert answer.json()["code"] == "locked_out" and answer.json()["remedy"]
    # and the page is locked with it
    assert Client().post("/login", {"email": "person1@example.org", "password": PASSWORD}).status_code == 429


def test_login_is_throttled(person, monkeypatch):
    monkeypatch.setattr("apps.accounts.api.LoginRate.rate", "3/min")
    person()
    assert [log_in(name=f"n{n}").status_code for n in range(4)] == [201, 201, 201, 429]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"email": "x", "password": "y"},
        {"scopes": ["root"]},
        {"scopes": []},
        {"days": 0},
        {"days": "x"},
        {"name": ""},
    ],
)
def test_login_refuses_what_it_cannot_read(person, body):
    person()
    full = {"email": "person1@example.org", "password": PASSWORD, **body} if body else {}
    answer = call("POST", "/login/token", body=full)
    assert answer.status_code == 422 and answer.json()["fields"]


def test_a_token_expires_and_is_revoked(person):
    ada = person()
    headers = token_for(ada, "read")
    assert call("GET", "/whoami", headers).status_code == 200
    with time_machine.travel(timezone.now() + dt.timedelta(days=31)):
        assert call("GET", "/whoami", headers).status_code == 401
    token = ApiToken.objects.get()
    assert token.last_used_at is not None
    assert call("POST", f"/tokens/{token.pk}/revoke", headers).status_code in (200, 403)
    actions.revoke_token(by=ada, token=token)
    answer = call("GET", "/whoami", headers)
    assert answer.status_code == 401 and "revoked" in answer.json()["detail"]


@pytest.mark.parametrize("header", ["Bearer", "Bearer a b", "Bearer srt_x", "Bearer \u00e9", "Basic abc", ""])
def test_bad_headers_are_refused(header, person):
    assert call("GET", "/whoami", {"Authorization": header}).status_code in (401, 403)


def test_scopes(person, operator):
    read, admin = token_for(operator, "read"), token_for(operator, "admin")
    new = {"name": "X", "slug": "x", "kind": "university"}
    assert call("GET", "/organisations", read).status_code == 200
    answer = call("POST", "/organisations", read, new)
    assert answer.status_code == 403 and "scope" in answer.json()["detail"]
    assert call("GET", "/people", read).status_code == 403
    assert call("POST", "/organisations", admin, new).status_code == 201
    # a token makes no tokens, whatever its scopes
    everything = token_for(operator, *ApiToken.Scope.values)
    assert (
        call("POST", "/tokens", everything, {"name": "more", "scopes": ["read"], "days": 365}).status_code
        == 403
    )
    # and a scope gives no role
    assert call("GET", "/people", token_for(person("researcher"), "admin")).status_code == 403


def test_a_session_needs_the_csrf_token(operator):
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(operator, backend="django.contrib.auth.backends.ModelBackend")
    assert browser.get("/api/v1/people").status_code == 200
    body = {"name": "X", "slug": "x", "kind": "university"}
    assert browser.post("/api/v1/organisations", body, content_type=JSON).status_code == 403


def test_an_operators_day(operator):
    headers = token_for(operator, "admin", "read")
    body = {"name": "North Hospital", "slug": "north", "kind": "custodian", "address": ""}
    assert call("POST", "/organisations", headers, body).status_code == 201
    answer = call("POST", "/organisations", headers, body)
    assert answer.status_code == 422 and "slug" in answer.json()["fields"]
    assert call("GET", "/organisations/north", headers).json()["kind"] == "custodian"
    assert call("GET", "/organisations/nowhere", headers).status_code == 404
    who = {"email": "cy@example.org", "name": "Cy", "organisation": "north", "password": PASSWORD}
    made = call("POST", "/people", headers, who).json()
    assert "password" not in made
    here = f"/people/{made['id']}"
    grant = {"role": "custodian", "organisation": "north"}
    holding = call("POST", f"{here}/roles", headers, grant)
    assert holding.status_code == 201
    assert call("POST", f"{here}/roles", headers, grant).status_code == 409
    answer = call("POST", f"{here}/roles", headers, {"role": "auditor", "organisation": "north"})
    assert answer.status_code == 403 and answer.json()["code"] == "separation_of_duties"
    answer = call(
        "POST", f"/people/{operator.pk}/roles", headers, {"role": "auditor", "organisation": "north"}
    )
    assert answer.json()["code"] == "separation_of_duties"
    assert (
        call(
            "POST", f"{here}/training", headers, {"course": "GDPR", "completed_on": "2026-01-01"}
        ).status_code
        == 201
    )
    assert [r["role"] for r in call("GET", here, headers).json()["roles"]] == ["custodian"]
    revoke = f"{here}/roles/{holding.json()['id']}/revoke"
    assert call("POST", revoke, headers, {"reason": ""}).status_code == 422
    assert call("POST", revoke, headers, {"reason": "Left."}).json()["revoked_at"]
    assert call("POST", f"{here}/deactivate", headers, {"reason": "Left."}).json()["is_active"] is False
    assert call("POST", f"{here}/reactivate", headers, {"reason": "Back."}).json()["is_active"] is True
    found = call("GET", "/people?q=cy", headers).json()
    assert found["count"] == 1 and found["results"][0]["email"] == "cy@example.org"


OPERATORS = [
    ("GET", "/people"),
    ("POST", "/people"),
    ("GET", "/people/{pk}"),
    ("POST", "/people/{pk}/roles"),
    ("POST", "/people/{pk}/training"),
    ("POST", "/people/{pk}/deactivate"),
    ("POST", "/people/{pk}/reactivate"),
    ("POST", "/people/{pk}/roles/{pk}/revoke"),
]


@pytest.mark.parametrize("role", ["researcher", "custodian", "auditor", "ethics_chair", "output_checker"])
def test_the_operators_calls_are_the_operators(person, role):
    headers = token_for(person(role), *ApiToken.Scope.values)
    before = Entry.objects.count()
    for method, address in OPERATORS:
        address = address.format(pk="00000000-0000-0000-0000-000000000000")
        assert call(method, address, headers, {} if method == "POST" else None).status_code == 403, address
        assert call(method, address, None, {} if method == "POST" else None).status_code == 401, address
    assert Entry.objects.count() == before


def test_terms(person):
    ada = person()
    assert call("POST", "/terms", token_for(ada, "read"), {"version": "1"}).status_code == 403
    headers = token_for(ada, "research", "read")
    assert call("POST", "/terms", headers, {"version": "0"}).status_code == 409
    assert call("POST", "/terms", headers, {"version": "1"}).status_code == 200
    assert call("GET", "/whoami", headers).json()["terms_accepted"] is True


def test_roles_table(person):
    rows = call("GET", "/roles", token_for(person(), "read")).json()
    assert {r["code"]: r["not_with"] for r in rows}["ethics_chair"] == ["custodian", "auditor", "operator"]
