"""People and organisations for the accounts and audit tests, made by the actions that make them in the portal."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from apps.accounts import actions
from apps.accounts.models import Organisation, User
from apps.core.actors import System

PASSWORD = "correct horse battery"
Maker = Callable[..., User]


@pytest.fixture(autouse=True)
def no_rates() -> Iterator[None]:
    """Throttles count in the broker, which no transaction rolls back."""
    cache.clear()
    yield


def chosen(user: User) -> None:
    """As if the person had replaced the first password (by the same one, for the tests' sake)."""
    user.password_chosen_at = timezone.now()
    user.save(update_fields=["password_chosen_at"])


@pytest.fixture
def operator(db: None) -> User:
    return actions.bootstrap_operator(
        by=System("test"),
        email="op@example.org",
        name="Olu Operator",
        organisation="Test operator",
        password=PASSWORD,
    )


@pytest.fixture
def second_operator(operator: User) -> User:
    other = actions.create_person(
        by=operator,
        email="op2@example.org",
        name="Pat Operator",
        organisation=operator.organisation,
        password=PASSWORD,
    )
    chosen(other)
    actions.grant_role(by=operator, user=other, role="operator", organisation=operator.organisation)
    return other


@pytest.fixture
def organisation(operator: User) -> Callable[..., Organisation]:
    """An organisation of a kind, made once for each kind."""

    def make(kind: str = "university") -> Organisation:
        slug = f"test-{kind.replace('_', '-')}"
        found = Organisation.objects.filter(slug=slug).first()
        return found or actions.create_organisation(by=operator, name=f"The {kind}", slug=slug, kind=kind)

    return make


@pytest.fixture
def person(operator: User, organisation: Callable[..., Organisation]) -> Maker:
    """A person with the roles given, each in an organisation where it can be held."""
    count = iter(range(1, 10_000))
    where = {
        "ethics_member": "ethics_board",
        "ethics_chair": "ethics_board",
        "custodian": "custodian",
        "operator": "operator",
    }

    def make(*roles: str, name: str = "", email: str = "", own_password: bool = True) -> User:
        n = next(count)
        made = actions.create_person(
            by=operator,
            email=email or f"person{n}@example.org",
            name=name or f"Person {n}",
            organisation=organisation(),
            password=PASSWORD,
        )
        if own_password:
            chosen(made)
        for role in roles:
            place = organisation(where.get(role, "university"))
            actions.grant_role(by=operator, user=made, role=role, organisation=place)
        return made

    return make


@pytest.fixture
def as_user() -> Callable[..., Client]:
    """A browser in which the person has signed in; without one, a stranger's."""

    def client(user: User | None = None, **options: bool) -> Client:
        browser = Client(**options)
        if user is not None:
            browser.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
        return browser

    return client
