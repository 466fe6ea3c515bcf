"""The command that makes the first operator."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from apps.accounts.actions import bootstrap_operator
from apps.accounts.models import User
from apps.accounts.permissions import can_manage_people
from apps.audit.models import Entry
from apps.core.errors import Denied
from tests.unit.accounts.conftest import PASSWORD

pytestmark = pytest.mark.django_db


def run(**options: str) -> str:
    out = StringIO()
    call_command(
        "create_operator",
        email="op@example.org",
        name="Olu",
        organisation="Data House",
        stdout=out,
        **options,
    )
    return out.getvalue()


def test_it_makes_an_operator(monkeypatch):
    monkeypatch.setenv("STRONGROOM_OPERATOR_PASSWORD", PASSWORD)
    assert "op@example.org is an operator" in run()
    person = User.objects.get()
    assert can_manage_people(person) and person.check_password(PASSWORD)
    assert person.organisation.slug == "data-house"
    assert set(Entry.objects.values_list("actor", flat=True)) == {"system:create-operator"}
    with pytest.raises(CommandError, match="already a person"):
        run()


def test_a_weak_password_leaves_nothing_behind(monkeypatch):
    monkeypatch.setenv("STRONGROOM_OPERATOR_PASSWORD", "short")
    with pytest.raises(CommandError, match="too short"):
        run()
    assert not User.objects.exists() and not Entry.objects.exists()


def test_nobody_else_can(person):
    with pytest.raises(Denied):
        bootstrap_operator(by=person(), email="x@y.org", name="X", organisation="X", password=PASSWORD)
