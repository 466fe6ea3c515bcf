"""Reads that join: people with their roles, training and terms, what waits for a person about their own account."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Model, Prefetch, Q, QuerySet
from django.urls import reverse

from apps.accounts.models import ApiToken, Organisation, RoleHolding, Training, User
from apps.accounts.permissions import holds
from apps.accounts.policies import TRAINING_YEARS
from apps.accounts.roles import Role
from apps.core.clock import now
from apps.core.errors import NotFound
from apps.core.lifecycle import history
from apps.core.models import StateChange
from apps.core.tasks import Waiting


def live(holdings: QuerySet[RoleHolding]) -> QuerySet[RoleHolding]:
    """Only those that count now."""
    return holdings.filter(revoked_at__isnull=True).filter(
        Q(expires_at__isnull=True) | Q(expires_at__gt=now())
    )


def training_until(training: Training) -> dt.date:
    """The last day on which the course counts: three years after it was completed."""
    day = training.completed_on
    try:
        return day.replace(year=day.year + TRAINING_YEARS)
    except ValueError:  # 29 February
        return day.replace(year=day.year + TRAINING_YEARS, day=28)


def training_valid(user: User) -> bool:
    """Whether the person completed a course less than three years ago."""
    today = now().date()
    return any(t.completed_on <= today < training_until(t) for t in user.trainings.all())


def terms_accepted(user: User) -> bool:
    """Whether the person accepted the terms of use in their present version."""
    return user.terms.filter(version=settings.TERMS_VERSION).exists()


def people(search: str = "", organisation: str = "", role: str = "") -> QuerySet[User]:
    """People with their organisation and live roles, in three queries whatever their number."""
    found = User.objects.select_related("organisation").prefetch_related(
        Prefetch(
            "holdings",
            live(RoleHolding.objects.select_related("organisation").order_by("role")),
            to_attr="roles_now",
        )
    )
    for word in search.split():
        found = found.filter(
            Q(name__icontains=word) | Q(email__icontains=word) | Q(organisation__name__icontains=word)
        )
    if organisation:
        found = found.filter(organisation__slug=organisation)
    if role:
        found = found.filter(pk__in=live(RoleHolding.objects.filter(role=role)).values("user"))
    return found.order_by("name", "pk")


def person_for(pk: object) -> User:
    """The person with this id. Raises NotFound."""
    person = people().filter(pk__in=[one for one in [_uuid(pk)] if one]).first()
    if person is None:
        raise NotFound("person")
    return person


def holding_for(person: User, pk: object) -> RoleHolding:
    holding = (
        person.holdings.select_related("organisation", "user")
        .filter(pk__in=[one for one in [_uuid(pk)] if one])
        .first()
    )
    if holding is None:
        raise NotFound("role of this person")
    return holding


def token_for(user: User, pk: object) -> ApiToken:
    """One of the person's own tokens. Raises NotFound."""
    token = user.tokens.filter(pk__in=[one for one in [_uuid(pk)] if one]).first()
    if token is None:
        raise NotFound("token of yours")
    return token


def organisations(search: str = "") -> QuerySet[Organisation]:
    found = Organisation.objects.all()
    for word in search.split():
        found = found.filter(Q(name__icontains=word) | Q(slug__icontains=word))
    return found.order_by("name", "pk")


def organisation_for(key: object) -> Organisation:
    """By id or slug. Raises NotFound."""
    pk = _uuid(key)
    found = Organisation.objects.filter(Q(pk=pk) if pk else Q(slug=str(key))).first()
    if found is None:
        raise NotFound("organisation")
    return found


def names_of(codes: Iterable[str]) -> dict[str, str]:
    """Names of people by actor code (`user:<uuid>`), in one query. Codes of nobody are left out."""
    ids = {code: pk for code in codes if code.startswith("user:") and (pk := _uuid(code[5:]))}
    names = dict(User.objects.filter(pk__in=ids.values()).values_list("pk", "name")) if ids else {}
    return {code: names[pk] for code, pk in ids.items() if pk in names}


def actors_called(text: str) -> list[str]:
    """Actor codes of people whose name or e-mail address contains `text`; at most 50."""
    found = User.objects.filter(Q(name__icontains=text) | Q(email__icontains=text)).order_by("pk")
    return [f"user:{pk}" for pk in found.values_list("pk", flat=True)[:50]]


def timeline(obj: Model) -> list[dict[str, Any]]:
    """The history of an object with a lifecycle, newest first: rows for the timeline macro. Two queries.

    Who: a person's name, the portal, or the machine of a run. For those who may see the object only; people whom the
    readers may not know by name (ethics members, output checkers) write no history of what is shown with this.
    """
    labels = obj.LIFECYCLE.labels  # type: ignore[attr-defined]
    changes = list(history(obj).order_by("-id"))
    names = names_of({change.by for change in changes})
    return [
        {
            "text": labels[change.to_state],
            "by": names.get(change.by) or _no_person(change.by),
            "at": change.at,
            "reason": change.reason or None,
        }
        for change in changes
    ]


def _no_person(code: str) -> str:
    kinds = {"system": "The portal", "runner": "The machine of the run"}
    return kinds.get(code.partition(":")[0], "Somebody")


def account_history(person: User) -> list[dict[str, Any]]:
    """What was decided about a person and why, newest first: rows for the timeline macro."""
    holdings = {h.pk: h for h in person.holdings.select_related("organisation")}
    rows = list(StateChange.objects.filter(object_id__in=[person.pk, *holdings]).order_by("-id")[:100])
    names = names_of({row.by for row in rows})
    words = {"role_holding": "Role", "person": "Account"}
    events = []
    for row in rows:
        holding = holdings.get(row.object_id)
        what = f": {holding.get_role_display()}, {holding.organisation.name}" if holding else ""
        text = f"{words.get(row.object_type, row.object_type)} {row.to_state}{what}"
        events.append({"text": text, "by": names.get(row.by, row.by), "at": row.at, "reason": row.reason})
    return events


def waiting_for(user: User) -> list[Waiting]:
    """What the person must still do about their own account."""
    account, heading, out = reverse("accounts:account"), "Your account", []
    if holds(user, Role.RESEARCHER) and not terms_accepted(user):
        out.append(Waiting(heading, "Read and accept the terms of use", reverse("terms"), "to do"))
    # Training is asked of those whose runs read data: the gate wants it of nobody else.
    if holds(user, Role.RESEARCHER) and not training_valid(user):
        note = "Ask the operator to record your course once you have completed it."
        out.append(
            Waiting(
                heading,
                "No valid training in handling sensitive data is recorded",
                account,
                "missing",
                "yellow",
                note,
            )
        )
    return out


def _uuid(value: object) -> UUID | None:
    """None for what is no id at all: an address typed by hand."""
    try:
        return value if isinstance(value, UUID) else UUID(str(value))
    except ValueError:
        return None
