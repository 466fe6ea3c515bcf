"""Agreements: frozen text, two sides, two different signers, none of them in the project."""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from apps.accounts import actions as accounts
from apps.accounts.models import User
from apps.accounts.reauth import reauthenticate
from apps.accounts.roles import Role
from apps.audit.models import Entry
from apps.core.clock import now
from apps.core.errors import Conflict, Denied, Invalid
from apps.core.models import Outbox
from apps.datasets import access_permissions, access_queries, actions
from apps.datasets.models import Agreement, Signature
from apps.projects import actions as projects
from tests import factories
from tests.factories import World, again, sign

OURS, THEIRS = "user_organisation", "custodian"


class Signing(World):
    """An agreement has been issued."""

    agreement: Agreement

    def __init__(self) -> None:
        super().__init__()
        self.agreement = factories.issued_agreement(self.project, self.dataset, self.lead, self.custodian)


_world, w = factories.fixtures(Signing)


@pytest.fixture(autouse=True)
def object_store() -> None:
    """The world's own store stays in use."""


def join(w: World, user: User) -> None:
    projects.invite(by=w.lead, project=w.project, email=user.email)
    projects.accept_invitation(by=user, project=w.project)
    projects.leave_project(by=user, project=w.project)


def test_text(w: Signing) -> None:
    body = w.agreement.body
    assert w.agreement.sha256 == hashlib.sha256(body.encode()).hexdigest()
    for part in (
        w.project.ref,
        w.project.title,
        w.dataset.title,
        w.university.name,
        w.archive.name,
        "visits, coins",
        "Cite us.",
        "Real personal data: no",
    ):
        assert part in body
    assert (w.agreement.starts_on, w.agreement.ends_on) == (now().date(), w.agreement.access_request.ends_on)


def test_both_sides_in_either_order(w: Signing) -> None:
    sign(w.agreement, w.theirs, THEIRS)
    agreement = again(w.agreement)
    assert (agreement.state, again(agreement.access_request).state, again(w.project).state) == (
        "part_signed",
        "agreement_pending",
        "approved",
    )
    assert access_queries.active_access(w.project, w.dataset) is None
    sign(agreement, w.ours, OURS)
    agreement = again(agreement)
    assert (agreement.state, again(agreement.access_request).state, again(w.project).state) == (
        "in_force",
        "active",
        "active",
    )
    assert agreement.in_force_at and access_queries.active_access(w.project, w.dataset) is not None
    assert Outbox.objects.filter(topic="recheck_runs", key=str(w.project.pk)).exists()
    for signature in agreement.signatures.all():
        assert (
            signature.document_sha256 == agreement.sha256
            and agreement.sha256 in signature.statement
            and signature.method == "password"
        )
    entries = Entry.objects.filter(event="agreement.signed")
    assert {e.actor for e in entries} == {w.ours.actor_code, w.theirs.actor_code} and all(
        e.data["document"] == agreement.sha256 for e in entries
    )


def test_a_second_agreement_leaves_an_active_project_alone(w: Signing) -> None:
    sign(w.agreement, w.ours, OURS)
    sign(w.agreement, w.theirs, THEIRS)
    other = factories.published_dataset(w.custodian)
    request = factories.access_in_force(w.project, other, w.lead, w.custodian, w.ours, w.theirs)
    assert request.state == "active" and again(w.project).state == "active"


def test_a_suspended_project_is_not_woken(w: Signing) -> None:
    projects.suspend_project(by=w.board.chair, project=w.project, reason="An incident.")
    sign(w.agreement, w.ours, OURS)
    sign(w.agreement, w.theirs, THEIRS)
    assert again(w.project).state == "suspended"


def test_one_signature_a_side(w: Signing) -> None:
    second = factories.person("Uma Signatory", w.university, Role.SIGNATORY)
    sign(w.agreement, w.ours, OURS)
    with pytest.raises(Conflict) as refusal:
        sign(w.agreement, second, OURS)
    assert refusal.value.code == "already_signed" and again(w.agreement).state == "part_signed"


def test_one_person_never_signs_both_sides(w: Signing) -> None:
    accounts.grant_role(by=factories.operator(), user=w.ours, role=Role.SIGNATORY, organisation=w.archive)
    both = again(w.ours)
    assert access_permissions.sides_of(both, w.agreement) == [OURS, THEIRS]
    sign(w.agreement, both, OURS)
    with pytest.raises(Conflict) as refusal:
        sign(w.agreement, both, THEIRS)
    assert (
        refusal.value.code == "already_signed"
        and Signature.objects.count() == 1
        and again(w.agreement).state == "part_signed"
    )


@pytest.mark.parametrize(
    ("who", "side"),
    [("ours", THEIRS), ("theirs", OURS), ("lead", OURS), ("member", OURS), ("custodian", THEIRS)],
)
def test_who_signs(w: Signing, who: str, side: str) -> None:
    with pytest.raises(Denied) as refusal:
        sign(w.agreement, getattr(w, who), side)
    assert refusal.value.code in ("not_a_signatory", "belongs_to_project")


def test_signatory_elsewhere(w: Signing) -> None:
    foreign = factories.person("Fay", factories.organisation("university"), Role.SIGNATORY)
    with pytest.raises(Denied) as refusal:
        sign(w.agreement, foreign, OURS)
    assert refusal.value.code == "not_a_signatory" and w.university.name in refusal.value.detail


def test_signatory_with_a_part_in_the_project(w: Signing) -> None:
    join(w, w.ours)
    with pytest.raises(Denied) as refusal:
        sign(w.agreement, w.ours, OURS)
    assert refusal.value.code == "belongs_to_project"
    assert access_permissions.sides_of(w.ours, w.agreement) == []
    assert access_queries.access_waiting(w.ours) == []


def test_unknown_side(w: Signing) -> None:
    with pytest.raises(Invalid) as refusal:
        sign(w.agreement, w.ours, "nobody")
    assert "side" in refusal.value.fields


@pytest.mark.parametrize("age", [dt.timedelta(minutes=6), -dt.timedelta(minutes=1)])
def test_the_password_must_be_fresh(w: Signing, age: dt.timedelta) -> None:
    with pytest.raises(Invalid) as refusal:
        actions.sign_agreement(by=w.ours, agreement=w.agreement, side=OURS, reauthenticated_at=now() - age)
    assert "password" in refusal.value.fields and not Signature.objects.exists()


def test_wrong_password(w: Signing) -> None:
    with pytest.raises(Invalid):
        reauthenticate(user=w.ours, password="wrong horse")
    assert not Signature.objects.exists()


def test_changed_text_is_not_signed(w: Signing) -> None:
    Agreement.objects.update(body=w.agreement.body.replace("once", "twice") + "And more.")
    with pytest.raises(Conflict) as refusal:
        sign(w.agreement, w.ours, OURS)
    assert refusal.value.code == "text_changed"


def test_a_term_that_is_over(w: Signing) -> None:
    Agreement.objects.update(ends_on=now().date() - dt.timedelta(days=1))
    with pytest.raises(Conflict) as refusal:
        sign(w.agreement, w.ours, OURS)
    assert refusal.value.code == "term_over"


@pytest.mark.parametrize("end", ["withdraw", "revoke"])
def test_nobody_signs_what_is_void(w: Signing, end: str) -> None:
    if end == "withdraw":
        actions.withdraw_request(by=w.lead, access_request=w.agreement.access_request, reason="Not needed.")
    else:
        actions.revoke_access(by=w.custodian, access_request=w.agreement.access_request, reason="No.")
    assert again(w.agreement).state == "void"
    with pytest.raises(Conflict) as refusal:
        sign(w.agreement, w.ours, OURS)
    assert refusal.value.code == "not_open"


def in_force(w: Signing) -> Agreement:
    sign(w.agreement, w.ours, OURS)
    sign(w.agreement, w.theirs, THEIRS)
    return again(w.agreement)


@pytest.mark.parametrize("suspended", [False, True])
def test_terminate(w: Signing, suspended: bool) -> None:
    agreement = in_force(w)
    if suspended:
        actions.suspend_access(by=w.custodian, access_request=agreement.access_request, reason="A question.")
    Outbox.objects.all().delete()
    for by in (w.lead, w.ours, w.theirs, factories.operator()):
        with pytest.raises(Denied):
            actions.terminate_agreement(by=by, agreement=agreement, reason="Because.")
    with pytest.raises(Invalid):
        actions.terminate_agreement(by=w.custodian, agreement=agreement, reason=" ")
    assert again(agreement).state == "in_force"
    actions.terminate_agreement(by=w.custodian2, agreement=agreement, reason="A breach.")
    assert (again(agreement).state, again(agreement.access_request).state) == ("terminated", "revoked")
    assert Outbox.objects.filter(topic="recheck_runs", key=str(w.project.pk)).exists()
    with pytest.raises(Conflict):
        actions.terminate_agreement(by=w.custodian, agreement=again(agreement), reason="Again.")


def test_only_agreements_in_force_are_terminated(w: Signing) -> None:
    with pytest.raises(Conflict):
        actions.terminate_agreement(by=w.custodian, agreement=w.agreement, reason="Because.")
    assert again(w.agreement.access_request).state == "agreement_pending"


def test_expiry(w: Signing) -> None:
    agreement = in_force(w)
    actions.expire_agreement(by=factories.PORTAL, agreement=agreement)
    assert again(agreement).state == "expired" and access_queries.active_access(w.project, w.dataset) is None


def test_what_waits_for_a_signatory(w: Signing) -> None:
    (waiting,) = access_queries.access_waiting(w.ours)
    assert waiting.url == f"/agreements/{w.agreement.pk}"
    sign(w.agreement, w.ours, OURS)
    assert access_queries.access_waiting(w.ours) == [] and len(access_queries.access_waiting(w.theirs)) == 1


CASES: dict[str, Any] = {
    "one_live_agreement": lambda w: Agreement.objects.create(
        access_request=w.agreement.access_request,
        template="t",
        body="b",
        sha256="0" * 64,
        starts_on=now().date(),
        ends_on=now().date(),
    ),
    "one_signature_a_side": lambda w: _signature(w, w.lead, OURS),
    "two_different_signers": lambda w: _signature(w, w.ours, THEIRS),
}


def _signature(w: Signing, signer: User, side: str) -> Signature:
    return Signature.objects.create(
        agreement=w.agreement,
        side=side,
        signer=signer,
        document_sha256="0" * 64,
        statement="S",
        reauthenticated_at=now(),
        method="password",
    )


@pytest.mark.parametrize("name", CASES)
def test_refused_by_the_database(w: Signing, name: str) -> None:
    sign(w.agreement, w.ours, OURS)
    with pytest.raises(IntegrityError, match=name), transaction.atomic():
        CASES[name](w)
