"""Every accounts action: allowed, refused, on the record."""

from __future__ import annotations

import datetime as dt
import hashlib
import json

import pytest
import time_machine
from django.conf import settings
from django.utils import timezone

from apps.accounts import actions, queries
from apps.accounts.models import ApiToken, RoleHolding, User
from apps.accounts.permissions import holds
from apps.accounts.policies import clash, fits
from apps.accounts.reauth import reauthenticate
from apps.accounts.roles import ROLES, Role
from apps.audit.models import Entry
from apps.core.errors import Conflict, Denied, Invalid
from tests.unit.accounts.conftest import PASSWORD

pytestmark = pytest.mark.django_db


def last_entry() -> Entry:
    return Entry.objects.order_by("-at", "-id").first()


def fields_of(error: pytest.ExceptionInfo[Invalid]) -> list[str]:
    return list(error.value.fields)


def test_only_operators_manage(person, operator, organisation):
    place, ada = organisation(), person("researcher")
    holding = ada.holdings.get()
    calls = {
        "organisation": lambda by: actions.create_organisation(by=by, name="X", slug="x", kind="university"),
        "person": lambda by: actions.create_person(
            by=by, email="x@y.org", name="X", organisation=place, password=PASSWORD
        ),
        "grant": lambda by: actions.grant_role(by=by, user=ada, role="auditor", organisation=place),
        "revoke": lambda by: actions.revoke_role(by=by, holding=holding, reason="x"),
        "training": lambda by: actions.record_training(
            by=by, user=ada, course="x", completed_on=dt.date(2026, 1, 1)
        ),
        "deactivate": lambda by: actions.deactivate_person(by=by, user=ada, reason="x"),
        "reactivate": lambda by: actions.reactivate_person(by=by, user=ada, reason="x"),
    }
    before = Entry.objects.count()
    others = [
        person(role.value)
        for role, info in ROLES.items()
        if info.held_in != "project" and role != Role.OPERATOR
    ]
    before = Entry.objects.count()
    for by in [None, *others]:
        for call in calls.values():
            with pytest.raises(Denied) as error:
                call(by)
            assert error.value.code == "role_missing"
    assert Entry.objects.count() == before


def test_organisation(operator):
    made = actions.create_organisation(by=operator, name=" North  Hospital ", slug="North", kind="custodian")
    assert (made.name, made.slug) == ("North Hospital", "north")
    assert (last_entry().event, last_entry().object_id) == ("organisation.created", str(made.pk))
    for fault, values in {
        "slug": {"name": "Again", "slug": "north", "kind": "custodian"},
        "kind": {"name": "Y", "slug": "y", "kind": "bakery"},
        "name": {"name": "  ", "slug": "z", "kind": "custodian"},
    }.items():
        with pytest.raises(Invalid) as error:
            actions.create_organisation(by=operator, **values)
        assert fields_of(error) == [fault]


def test_person(operator, organisation):
    made = actions.create_person(
        by=operator, email=" Ada@Example.ORG ", name="Ada Obi", organisation=organisation(), password=PASSWORD
    )
    assert made.email == "ada@example.org"
    assert made.check_password(PASSWORD)
    assert made.password_chosen_at is None  # the operator knows it
    entry = last_entry()
    assert entry.event == "person.created"
    assert "ada" not in json.dumps(entry.data).lower()
    with pytest.raises(Invalid) as error:
        actions.create_person(
            by=operator, email="ADA@example.org", name="B", organisation=organisation(), password=PASSWORD
        )
    assert fields_of(error) == ["email"]
    for password in ("short", "password12345", "newperson@example.org"):
        with pytest.raises(Invalid) as error:
            actions.create_person(
                by=operator,
                email="newperson@example.org",
                name="New",
                organisation=organisation(),
                password=password,
            )
        assert fields_of(error) == ["password"]
    with pytest.raises(Invalid) as error:
        actions.create_person(
            by=operator, email="x@y.org", name="A\u202eB\x00", organisation=organisation(), password=PASSWORD
        )
    assert fields_of(error) == ["name"]


def test_nobody_gives_themselves_anything(operator, second_operator, organisation):
    for call in (
        lambda: actions.grant_role(
            by=operator, user=operator, role="researcher", organisation=organisation()
        ),
        lambda: actions.record_training(
            by=operator, user=operator, course="x", completed_on=dt.date(2026, 1, 1)
        ),
        lambda: actions.deactivate_person(by=operator, user=operator, reason="x"),
    ):
        with pytest.raises(Denied) as error:
            call()
        assert error.value.code == "separation_of_duties"
    # the same act by the other operator is only refused where the roles clash
    actions.record_training(
        by=second_operator, user=operator, course="GDPR", completed_on=dt.date(2026, 1, 1)
    )


@pytest.mark.parametrize(
    "role", [r for r, i in ROLES.items() if i.held_in != "project" and r != Role.OPERATOR]
)
def test_an_operator_holds_nothing_else(role, operator, second_operator, organisation):
    kind = ROLES[role].held_in if ROLES[role].held_in != "any" else "university"
    with pytest.raises(Denied) as error:
        actions.grant_role(by=second_operator, user=operator, role=role, organisation=organisation(kind))
    assert error.value.code == "separation_of_duties"
    assert "operator" in error.value.detail.lower()


def test_clash_is_symmetric_and_as_documented():
    real = [r for r in Role if r != Role.PRINCIPAL_INVESTIGATOR]
    apart = {frozenset({a, b}) for a in real for b in real if a != b and clash([a], b)}
    assert apart == {frozenset({b, a}) for a in real for b in real if a != b and clash([b], a)}
    expected = {frozenset({alone, r}) for alone in (Role.OPERATOR, Role.AUDITOR) for r in real if r != alone}
    expected |= {frozenset({Role.CUSTODIAN, e}) for e in (Role.ETHICS_MEMBER, Role.ETHICS_CHAIR)}
    assert apart == expected
    assert clash([Role.RESEARCHER], Role.OUTPUT_CHECKER) is None


def test_ethics_and_custodian_stay_apart(person, operator, organisation):
    member = person("ethics_member")
    with pytest.raises(Denied) as error:
        actions.grant_role(by=operator, user=member, role="custodian", organisation=organisation("custodian"))
    assert error.value.code == "separation_of_duties"
    # once the first is taken back, the second may be given
    actions.revoke_role(by=operator, holding=member.holdings.get(), reason="Moved to the hospital.")
    actions.grant_role(by=operator, user=member, role="custodian", organisation=organisation("custodian"))
    assert holds(member, Role.CUSTODIAN)
    assert not holds(member, Role.ETHICS_MEMBER)


def test_where_a_role_is_held(person, operator, organisation):
    ada = person()
    assert fits(Role.RESEARCHER, "custodian")
    for role, kind in [
        ("custodian", "university"),
        ("ethics_chair", "custodian"),
        ("operator", "university"),
        ("principal_investigator", "university"),
        ("king", "university"),
    ]:
        with pytest.raises(Invalid):
            actions.grant_role(by=operator, user=ada, role=role, organisation=organisation(kind))
    assert not ada.holdings.exists()


def test_a_role_ends(person, operator, organisation):
    ada, soon = person(), timezone.now() + dt.timedelta(days=1)
    actions.grant_role(by=operator, user=ada, role="researcher", organisation=organisation(), expires_at=soon)
    assert holds(ada, Role.RESEARCHER)
    with pytest.raises(Conflict) as error:
        actions.grant_role(by=operator, user=ada, role="researcher", organisation=organisation())
    assert error.value.code == "already_held"
    with pytest.raises(Invalid):
        actions.grant_role(
            by=operator, user=ada, role="auditor", organisation=organisation(), expires_at=timezone.now()
        )
    with time_machine.travel(soon + dt.timedelta(seconds=1)):
        assert not holds(User.objects.get(pk=ada.pk), Role.RESEARCHER)
        # an expired one stands in nobody's way
        actions.grant_role(by=operator, user=ada, role="researcher", organisation=organisation())
        assert holds(User.objects.get(pk=ada.pk), Role.RESEARCHER)


def test_revoke_keeps_the_reason_out_of_the_log(person, operator):
    ada = person("researcher")
    holding = ada.holdings.get()
    with pytest.raises(Invalid):
        actions.revoke_role(by=operator, holding=holding, reason=" ")
    actions.revoke_role(by=operator, holding=holding, reason="Ada left.")
    entry = last_entry()
    assert entry.event == "role.revoked"
    assert entry.data["reason_sha256"] == hashlib.sha256(b"Ada left.").hexdigest()
    assert "Ada left" not in json.dumps(entry.data)
    assert "Ada left." in [row["reason"] for row in queries.account_history(ada)]
    with pytest.raises(Conflict):
        actions.revoke_role(by=operator, holding=holding, reason="again")


def test_the_last_operator_stays(operator, second_operator):
    mine = RoleHolding.objects.get(user=operator, role="operator")
    actions.revoke_role(by=second_operator, holding=mine, reason="On leave.")
    theirs = RoleHolding.objects.get(user=second_operator, role="operator")
    with pytest.raises(Denied) as error:
        actions.revoke_role(by=second_operator, holding=theirs, reason="x")
    assert error.value.code == "last_operator"


def test_deactivation_ends_everything(person, operator, as_user):
    ada = person("researcher")
    token, _ = actions.create_token(by=ada, name="x", scopes=["read"], days=1)
    browser = as_user(ada)
    assert browser.get("/account").status_code == 200
    actions.deactivate_person(by=operator, user=ada, reason="Left.")
    assert browser.get("/account").status_code == 302
    token.refresh_from_db()
    assert token.revoked_at is not None
    assert not holds(ada, Role.RESEARCHER)
    with pytest.raises(Conflict):
        actions.deactivate_person(by=operator, user=ada, reason="again")
    with pytest.raises(Denied):
        actions.create_token(by=ada, name="y", scopes=["read"], days=1)
    actions.reactivate_person(by=operator, user=ada, reason="Came back.")
    token.refresh_from_db()
    assert token.revoked_at is not None
    with pytest.raises(Conflict):
        actions.reactivate_person(by=operator, user=ada, reason="again")


def test_training_counts_three_years(person, operator):
    ada, today = person(), timezone.now().date()
    assert not queries.training_valid(ada)
    with pytest.raises(Invalid):
        actions.record_training(
            by=operator, user=ada, course="GDPR", completed_on=today + dt.timedelta(days=2)
        )
    actions.record_training(by=operator, user=ada, course="GDPR", completed_on=dt.date(2024, 2, 29))
    with time_machine.travel("2027-02-27"):
        assert queries.training_valid(ada)
    with time_machine.travel("2027-02-28T12:00"):
        assert not queries.training_valid(ada)


def test_terms(person):
    ada = person()
    with pytest.raises(Conflict):
        actions.accept_terms(by=ada, version="0")
    assert not queries.terms_accepted(ada)
    actions.accept_terms(by=ada, version=settings.TERMS_VERSION)
    n = Entry.objects.count()
    actions.accept_terms(by=ada, version=settings.TERMS_VERSION)
    assert queries.terms_accepted(ada)
    assert Entry.objects.count() == n
    with pytest.raises(Denied):
        actions.accept_terms(by=None, version=settings.TERMS_VERSION)


def test_tokens(person):
    ada, bo = person(), person()
    token, secret = actions.create_token(by=ada, name="laptop", scopes=["research", "read"], days=30)
    assert secret.startswith("srt_") and len(secret) > 40
    assert secret not in json.dumps(list(ApiToken.objects.values()), default=str)
    assert secret not in json.dumps(list(Entry.objects.values("data")))
    for values, field in [
        ({"name": "laptop", "scopes": ["read"], "days": 1}, "name"),
        ({"name": "a", "scopes": [], "days": 1}, "scopes"),
        ({"name": "a", "scopes": ["root"], "days": 1}, "scopes"),
        ({"name": "a", "scopes": ["read"], "days": 0}, "days"),
        ({"name": "a", "scopes": ["read"], "days": 366}, "days"),
    ]:
        with pytest.raises(Invalid) as error:
            actions.create_token(by=ada, **values)
        assert fields_of(error) == [field]
    with pytest.raises(Denied):
        actions.revoke_token(by=bo, token=token)
    actions.revoke_token(by=ada, token=token)
    actions.revoke_token(by=ada, token=token)
    assert Entry.objects.filter(event="token.revoked").count() == 1
    actions.create_token(by=ada, name="laptop", scopes=["read"], days=30)


def test_password_change(person):
    ada = person()
    with pytest.raises(Invalid) as error:
        actions.change_password(by=ada, current="wrong", new="another long phrase")
    assert fields_of(error) == ["current"]
    for new in (PASSWORD, "short"):
        with pytest.raises(Invalid) as error:
            actions.change_password(by=ada, current=PASSWORD, new=new)
        assert fields_of(error) == ["new"]
    actions.change_password(by=ada, current=PASSWORD, new="another long phrase")
    ada.refresh_from_db()
    assert ada.check_password("another long phrase")
    assert ada.password_chosen_at is not None


def test_reauthentication_is_limited(person):
    ada = person()
    start = timezone.now()
    with time_machine.travel(start, tick=False):
        assert reauthenticate(user=ada, password=PASSWORD) == start
    for n in range(5):
        with time_machine.travel(start + dt.timedelta(seconds=n + 1)), pytest.raises(Invalid) as error:
            reauthenticate(user=ada, password=f"guess {n}")
        assert fields_of(error) == ["password"]
    with time_machine.travel(start + dt.timedelta(minutes=1)), pytest.raises(Denied) as denied:
        reauthenticate(user=ada, password=PASSWORD)
    assert denied.value.code == "too_many_attempts"
    with time_machine.travel(start + dt.timedelta(minutes=16)):
        reauthenticate(user=ada, password=PASSWORD)
    assert Entry.objects.filter(actor=ada.actor_code, event="person.reauthentication_failed").count() == 5


def test_no_personal_data_in_the_log(person, operator):
    ada = person("researcher", name="Zebedee Quux", email="zebedee@quux.org")
    actions.record_training(by=operator, user=ada, course="Quux course", completed_on=dt.date(2026, 1, 1))
    actions.create_token(by=ada, name="Zebedee's laptop", scopes=["read"], days=1)
    actions.deactivate_person(by=operator, user=ada, reason="Zebedee left.")
    text = json.dumps(
        list(Entry.objects.values("event", "actor", "object_type", "object_id", "scope", "data"))
    ).lower()
    assert "zebedee" not in text and "quux" not in text
