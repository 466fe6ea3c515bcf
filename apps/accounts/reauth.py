"""Asking for the password again, before something that cannot be taken back (a signature, a decision)."""

from __future__ import annotations

import datetime as dt

from django.db import transaction
from django.http import HttpRequest

from apps.accounts.models import User
from apps.audit.models import Entry
from apps.core.clock import now
from apps.core.errors import Denied, Invalid
from apps.core.lifecycle import recorder

LIMIT = 5
WINDOW = dt.timedelta(minutes=15)
FAILED = "person.reauthentication_failed"
CONFIRMED = "person.reauthenticated"


def reauthenticate(*, user: User, password: str, request: HttpRequest | None = None) -> dt.datetime:
    """The moment at which `user` proved again that they know their password.

    Raises Invalid (field `password`) for a wrong one, and Denied after five wrong ones within a quarter of an hour,
    the right one included. Both outcomes are on the record; the record is also what the limit counts, so call this
    outside any transaction that an error would roll back. `request` is not needed; callers may pass it for symmetry.
    """
    failure: Invalid | None = None
    with transaction.atomic():
        # One at a time for each person: many guesses sent at once must count each other.
        person = User.objects.select_for_update().get(pk=user.pk)
        moment = now()
        attempts = Entry.objects.filter(
            actor=person.actor_code, event__in=[FAILED, CONFIRMED], at__gt=moment - WINDOW
        )
        recent = list(attempts.order_by("-at").values_list("event", "at")[:LIMIT])
        if len(recent) == LIMIT and all(event == FAILED for event, _ in recent):
            minutes = int((recent[-1][1] + WINDOW - moment).total_seconds() // 60) + 1
            raise Denied(
                "too_many_attempts",
                f"The password was wrong {LIMIT} times in {WINDOW.seconds // 60} minutes, so nothing was done.",
                f"Try again in {minutes} minute{'s' if minutes != 1 else ''}. "
                "If you forgot your password, ask the operator.",
            )
        right = person.is_active and person.check_password(password)
        recorder()(
            event=CONFIRMED if right else FAILED,
            by=person,
            object_type="person",
            object_id=person.pk,
            data={},
        )
        if not right:
            failure = Invalid(
                "wrong_password",
                "The password is not right, so nothing was signed or decided.",
                "Type it again.",
                fields={"password": ["The password is not right"]},
            )
    if failure:  # raised after the transaction, so that the failed attempt stays on the record
        raise failure
    return moment
