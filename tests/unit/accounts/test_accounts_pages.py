"""Signing in, lock-out, CSRF, the operator's pages, and what the pages show of what people typed."""

from __future__ import annotations

import datetime as dt
import re

import pytest
import time_machine
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.accounts import actions
from apps.accounts.models import ApiToken, User
from apps.audit.models import Entry
from apps.core.addresses import client_address
from apps.core.api import AnonymousRate
from portal.middleware import OwnPassword
from tests.api.routes import routes
from tests.unit.accounts.conftest import PASSWORD

pytestmark = pytest.mark.django_db
NASTY = '<script>alert(1)</script> & "O\'Hara"'


def sign_in(browser: Client, email: str, password: str = PASSWORD, **data: str):
    return browser.post("/login", {"email": email, "password": password, **data})


def test_sign_in_and_out(person):
    ada, browser = person(), Client()
    assert browser.get("/account")["Location"] == "/login?next=/account"
    page = browser.get("/login?next=/account").content.decode()
    assert 'name="next" value="/account"' in page
    answer = sign_in(browser, "PERSON1@example.org ", next="/account")
    assert (answer.status_code, answer["Location"]) == (302, "/account")
    assert browser.get("/account").status_code == 200
    assert browser.get("/logout").status_code == 405
    assert browser.post("/logout").status_code == 302
    assert browser.get("/account").status_code == 302
    events = list(Entry.objects.filter(actor=ada.actor_code).order_by("at").values_list("event", flat=True))
    assert events == ["person.signed_in", "person.signed_out"]


# The first password


def test_nothing_before_a_password_of_ones_own(person, as_user):
    """The operator knows the first one: signing in with it leads to one page, whatever the address."""
    ada, browser = person("researcher", own_password=False), Client()
    assert sign_in(browser, ada.email, next="/projects/new")["Location"] == "/projects/new"
    for address in ("/", "/home", "/projects/new", "/account", "/account/tokens", "/datasets", "/runs/"):
        answer = browser.get(address)
        assert (answer.status_code, answer["Location"]) == (302, "/account/password"), address
    assert browser.post("/account/tokens", {"name": "x", "scopes": "read", "days": 3}).status_code == 302
    answer = browser.get("/api/v1/whoami")
    assert (answer.status_code, answer.json()["code"]) == (403, "choose_own_password")
    page = browser.get("/account/password").content.decode()
    assert "Choose your own password" in page and "The operator of this portal chose" in page
    assert "Sign out" in page and "/projects" not in page and browser.get("/terms").status_code == 200
    own = "an entirely different sentence"
    same = browser.post("/account/password", {"current": PASSWORD, "new": PASSWORD, "again": PASSWORD})
    assert "must differ from the present one" in same.content.decode()
    answer = browser.post("/account/password", {"current": PASSWORD, "new": own, "again": own})
    assert (answer.status_code, answer["Location"]) == (302, "/home")
    assert browser.get("/home").status_code == browser.get("/api/v1/whoami").status_code == 200
    assert not ApiToken.objects.exists() and "is not right" in sign_in(Client(), ada.email).content.decode()


def test_signing_out_is_always_possible(person, as_user):
    browser = as_user(person(own_password=False))
    assert browser.post("/logout")["Location"] == "/"
    assert browser.get("/account")["Location"].startswith("/login")


def test_open_before_a_password_of_ones_own(person, rf):
    """Of all routes: these pages, and what is no page of a person (health, the runner's protocol, static files)."""
    guard, open_ = OwnPassword(lambda request: HttpResponse()), set()
    for name, route in routes().items():
        request = rf.get("/")
        request.user = User(name="Ada")
        if guard.process_view(request, route.view, (), {}) is None:
            open_.add(name)
    assert open_ == {
        *("accessibility", "privacy", "terms", "contact", "api-docs", "status", "portal-keys", "health-live", "health-ready"),
        *("accounts:password", "accounts:logout", "accounts:stay"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "wanted", ["https://evil.example/", "//evil.example", "javascript:alert(1)", "/\\evil.example"]
)
def test_no_open_redirect(person, wanted):
    person()
    assert sign_in(Client(), "person1@example.org", next=wanted)["Location"] == "/home"


def test_wrong_password_never_says_which_half(person):
    person()
    texts = []
    for email in ("person1@example.org", "nobody@example.org"):
        page = sign_in(Client(), email, "wrong password")
        assert page.status_code == 200
        body = re.sub(r'value="[^"]*"', "", page.content.decode())
        texts.append(body)
        assert "The e-mail address or the password is not right." in body
    assert texts[0] == texts[1]


def test_lock_out_says_why_and_when(person):
    ada, browser = person(), Client()
    for n in range(5):
        # neither another spelling of the address nor a fresh browser is a fresh start
        answer = sign_in(
            Client() if n % 2 else browser, "PERSON1@example.org" if n % 2 else "person1@example.org", "wrong"
        )
    assert answer.status_code == 429
    answer = sign_in(browser, "person1@example.org")
    assert answer.status_code == 429
    assert answer["Retry-After"] == "900"
    body = answer.content.decode()
    assert "locked for 15 minutes after 5 wrong passwords" in body and "ask the operator" in body
    assert Entry.objects.filter(event="person.locked_out", object_id=str(ada.pk)).count() == 1
    with time_machine.travel(timezone.now() + dt.timedelta(minutes=16)):
        assert sign_in(browser, "person1@example.org").status_code == 302


def test_one_account_locked_leaves_the_others(person):
    person(), person()
    for _ in range(6):
        sign_in(Client(), "person1@example.org", "wrong")
    assert sign_in(Client(), "person2@example.org").status_code == 302


def test_spraying_one_password_over_many_accounts(person, monkeypatch):
    monkeypatch.setattr("apps.accounts.login.ADDRESS_LIMIT", 4)
    person()
    for n in range(4):
        sign_in(Client(), f"nobody{n}@example.org", "wrong")
    answer = sign_in(Client(), "person1@example.org")
    assert answer.status_code == 429
    assert "too many wrong passwords from your address" in answer.content.decode()


@pytest.mark.parametrize(
    ("hops", "header", "address"),
    [
        (0, "203.0.113.7", "192.0.2.1"),
        (1, "203.0.113.7", "203.0.113.7"),
        (1, "10.0.0.1, 203.0.113.7", "203.0.113.7"),
        (2, "198.51.100.9, 203.0.113.7, 10.0.0.1", "203.0.113.7"),
        (2, "203.0.113.7", "192.0.2.1"),
        (1, "", "192.0.2.1"),
        (1, "somewhere", "192.0.2.1"),
        (1, "2001:DB8::0:7", "2001:db8::7"),
    ],
)
def test_the_address_behind_proxies(rf, settings, hops, header, address):
    """Only what our own proxies wrote counts; without them the header is a stranger's word."""
    settings.TRUSTED_PROXIES = hops
    request = rf.get("/", REMOTE_ADDR="192.0.2.1", HTTP_X_FORWARDED_FOR=header)
    assert client_address(request) == AnonymousRate().get_ident(request) == address


@pytest.mark.parametrize("hops", [0, 1])
def test_lock_out_behind_a_proxy(person, settings, hops):
    """With the number of proxies set, one person's wrong passwords lock nobody else out of that account."""
    settings.TRUSTED_PROXIES = hops
    ada = person()

    def from_address(address: str, password: str) -> int:
        headers = {"X-Forwarded-For": f"198.51.100.{len(password)}, {address}"}
        return sign_in(Client(headers=headers), ada.email, password).status_code

    assert [from_address("203.0.113.7", "wrong" * n) for n in range(1, 6)][-1] == 429
    assert from_address("203.0.113.7", PASSWORD) == 429
    assert from_address("203.0.113.8", PASSWORD) == (302 if hops else 429)


def test_deactivated_people_cannot_sign_in(person, operator):
    ada = person()
    actions.deactivate_person(by=operator, user=ada, reason="Left.")
    assert "is not right" in sign_in(Client(), ada.email).content.decode()


def test_posts_need_the_csrf_token(person, operator):
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(operator, backend="django.contrib.auth.backends.ModelBackend")
    for address in ("/logout", "/account/tokens", "/account/terms", "/people/new", "/organisations/new"):
        assert browser.post(address, {}).status_code == 403, address
    assert Client(enforce_csrf_checks=True).post("/login", {}).status_code == 403


PAGES = [
    "/people",
    "/people/new",
    "/people/{pk}",
    "/people/{pk}/roles",
    "/people/{pk}/roles/{holding}/revoke",
    "/people/{pk}/training",
    "/people/{pk}/deactivate",
    "/people/{pk}/reactivate",
    "/organisations",
    "/organisations/new",
]


@pytest.mark.parametrize("role", ["researcher", "custodian", "ethics_chair", "auditor", ""])
def test_the_operators_pages_are_the_operators(person, operator, as_user, role):
    ada = person("researcher")
    values = {"pk": ada.pk, "holding": ada.holdings.get().pk}
    other, boss = as_user(person(*[role] if role else [])), as_user(operator)
    for page in PAGES:
        address = page.format(**values)
        assert as_user().get(address).status_code == 302
        assert boss.get(address).status_code == 200, address
        with CaptureQueriesContext(connection) as queries:
            refused = [other.get(address).status_code, other.post(address, {}).status_code]
        assert refused[0] == 403 and refused[1] in (403, 405), address
        assert not [q for q in queries if q["sql"].startswith(('INSERT INTO "accounts', 'UPDATE "accounts'))]


def test_an_operators_day(operator, as_user):
    browser = as_user(operator)
    assert (
        browser.post(
            "/organisations/new", {"name": "North Hospital", "slug": "north", "kind": "custodian"}
        ).status_code
        == 302
    )
    page = browser.post("/organisations/new", {"name": "North", "slug": "north", "kind": "custodian"})
    assert "There is already an organisation with this short name" in page.content.decode()
    from apps.accounts.models import Organisation

    north = Organisation.objects.get(slug="north")
    new = {"name": "Cy Custodian", "email": "cy@example.org", "organisation": north.pk, "password": PASSWORD}
    address = browser.post("/people/new", new)["Location"]
    assert "already a person with this e-mail address" in browser.post("/people/new", new).content.decode()
    assert (
        browser.post(f"{address}/roles", {"role": "custodian", "organisation": north.pk}).status_code == 302
    )
    cy = User.objects.get(email="cy@example.org")
    page = browser.post(
        f"{address}/roles", {"role": "ethics_member", "organisation": north.pk}
    ).content.decode()
    assert "can only be held in an organisation of the kind" in page
    page = browser.post(f"{address}/roles", {"role": "auditor", "organisation": north.pk}).content.decode()
    assert "cannot also be" in page and "An auditor reads what everybody did" in page
    done = {"course": "GDPR", "completed_on_day": "1", "completed_on_month": "2", "completed_on_year": "2026"}
    assert browser.post(f"{address}/training", done).status_code == 302
    holding = cy.holdings.get()
    assert browser.post(f"{address}/roles/{holding.pk}/revoke", {"reason": "Left <b>"}).status_code == 302
    body = browser.get(address).content.decode()
    assert "Left &lt;b&gt;" in body and "GDPR" in body
    assert browser.post(f"{address}/roles/{holding.pk}/revoke", {"reason": "again"}).status_code == 409
    assert browser.post(f"{address}/deactivate", {"reason": "Left"}).status_code == 302
    assert "Deactivated" in browser.get(address).content.decode()
    me = f"/people/{operator.pk}"
    assert browser.post(f"{me}/deactivate", {"reason": "x"}).status_code == 403
    assert "Give a role" not in browser.get(me).content.decode()


def test_names_are_escaped_everywhere(person, operator, as_user):
    ada = person("researcher", name=NASTY)
    pages = [
        ("/people", operator),
        (f"/people/{ada.pk}", operator),
        (f"/people/{ada.pk}/roles", operator),
        ("/home", ada),
        ("/account", ada),
    ]
    actions.create_token(by=ada, name=NASTY, scopes=["read"], days=1)
    for address, user in [*pages, ("/account/tokens", ada)]:
        body = as_user(user).get(address).content.decode()
        assert "alert(1)" in body, address
        assert "<script>alert" not in body, address
    body = as_user(operator).get("/people", {"q": '"><script>alert(1)</script>'}).content.decode()
    assert "<script>alert" not in body


def test_the_people_list_asks_the_same_number_of_questions(person, operator, as_user):
    browser = as_user(operator)
    browser.get("/people")
    counts = []
    for more in (2, 12):
        for _ in range(more):
            person("researcher", "output_checker")
        with CaptureQueriesContext(connection) as queries:
            assert browser.get("/people").status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 9, counts


def test_people_are_found(person, operator, as_user):
    person("researcher", name="Ada Obi")
    person("custodian", name="Bo Smith")
    browser = as_user(operator)

    def names(**asked: str) -> list[bool]:
        body = browser.get("/people", asked).content.decode()
        return [name in body for name in ("Ada Obi", "Bo Smith")]

    assert names() == [True, True]
    assert names(q="obi ada") == [True, False]
    assert names(q="person2@") == [False, True]
    assert names(role="custodian") == [False, True]
    assert names(organisation="nowhere") == [False, False]
    assert browser.get("/people", {"page": "99999999999999"}).status_code == 200


def test_a_token_is_shown_once(person, as_user):
    ada = person()
    browser = as_user(ada)
    form = {"name": "laptop", "scopes": ["read"], "days": "30"}
    page = browser.post("/account/tokens", form).content.decode()
    secret = re.search(r"srt_[\w-]{43}", page)[0]
    assert secret not in browser.get("/account/tokens").content.decode()
    assert "already have a token with this name" in browser.post("/account/tokens", form).content.decode()
    token = ApiToken.objects.get()
    assert as_user(person()).post(f"/account/tokens/{token.pk}/revoke").status_code == 404
    assert browser.post(f"/account/tokens/{token.pk}/revoke").status_code == 302
    assert "Revoked" in browser.get("/account/tokens").content.decode()


def test_password_page(person, as_user):
    ada = person()
    browser, elsewhere = as_user(ada), as_user(ada)
    new = {"current": PASSWORD, "new": "another long phrase", "again": "another long phrase"}
    assert "not the same" in browser.post("/account/password", {**new, "again": "x"}).content.decode()
    assert browser.post("/account/password", new).status_code == 302
    assert browser.get("/account").status_code == 200
    assert elsewhere.get("/account").status_code == 302


def test_home_says_what_is_to_do(person, operator, as_user):
    ada = person("researcher")
    browser = as_user(ada)
    body = browser.get("/home").content.decode()
    for text in ("accept the terms of use", "training"):
        assert text in body
    assert "/account/terms" in browser.get("/terms").content.decode()
    assert browser.post("/account/terms", {"version": "1"}).status_code == 302
    assert browser.post("/account/terms", {"version": "0"}).status_code == 409
    actions.record_training(by=operator, user=ada, course="GDPR", completed_on=timezone.now().date())
    actions.change_password(by=ada, current=PASSWORD, new="another long phrase")
    browser = as_user(User.objects.get(pk=ada.pk))
    assert "Nothing waits for you" in browser.get("/home").content.decode()


def test_a_session_lives_from_its_last_use(person, as_user):
    browser = as_user(person())
    start = timezone.now()
    for hours in (7, 14, 21):
        with time_machine.travel(start + dt.timedelta(hours=hours)):
            assert browser.get("/account").status_code == 200
    with time_machine.travel(start + dt.timedelta(hours=28)):
        assert browser.get("/account", headers={"HX-Request": "true"}).status_code == 200
    with time_machine.travel(start + dt.timedelta(hours=30)):
        assert browser.get("/account").status_code == 302


PUBLIC = [
    "/",
    "/login",
    "/roles",
    "/accessibility",
    "/privacy",
    "/terms",
    "/contact",
    "/developers",
    "/status",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_pages(address, as_user):
    answer = as_user().get(address)
    assert answer.status_code == 200
    body = answer.content.decode()
    assert "<h1" in body and 'style="' not in body and "onclick" not in body
    assert re.findall(r"<script(?! src=| type=\"module\" src=)", body) == []


def test_status_when_the_broker_is_away(as_user, settings):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    answer = as_user().get("/status")
    assert answer.status_code == 503
    assert "No answer (ConnectionError)" in answer.content.decode()
    assert as_user().get("/health/ready").json()["status"] == "failing"


def test_wrong_methods_are_refused(as_user, operator):
    browser = as_user(operator)
    for address in ("/account/terms", "/logout"):
        assert browser.get(address).status_code == 405
    for address in ("/people", "/roles", "/status", "/account"):
        assert browser.post(address).status_code == 405
