"""Proving who one is by password, for the page and for the API; lock-out by django-axes, spray limit beside it."""

from __future__ import annotations

import datetime as dt

from axes.models import AccessAttempt
from django.contrib.auth import authenticate
from django.db.models import Sum
from django.http import HttpRequest

from apps.accounts.models import User
from apps.core.addresses import client_address
from apps.core.clock import now
from apps.core.errors import DomainError, Invalid

WINDOW = dt.timedelta(minutes=15)
# Wrong passwords from one address, over all accounts: one password tried on many accounts locks none of them.
ADDRESS_LIMIT = 50
LOCKED = "Signing in to this account from your address is locked for 15 minutes after 5 wrong passwords."
LOCKED_REMEDY = (
    "Wait 15 minutes, then try again. If you do not know the password, ask the operator of this portal."
)


class TooMany(DomainError):
    """Too many wrong passwords (429)."""

    status = 429
    title = "Too many attempts"


def locked() -> TooMany:
    return TooMany("locked_out", LOCKED, LOCKED_REMEDY)


def sign_in_by_password(request: HttpRequest, *, email: str, password: str) -> User:
    """The person whose password this is.

    Raises Invalid for a wrong pair (never saying which half), TooMany when the account is locked for this address
    or the address failed too often. An unknown address costs the same time as a wrong password (Django hashes both).
    """
    failed = AccessAttempt.objects.filter(ip_address=client_address(request), attempt_time__gt=now() - WINDOW)
    if (failed.aggregate(n=Sum("failures_since_start"))["n"] or 0) >= ADDRESS_LIMIT:
        raise TooMany(
            "too_many_attempts",
            "There were too many wrong passwords from your address in the last 15 minutes.",
            "Wait 15 minutes, then try again.",
        )
    # Lower case here: the lock-out counts by this name, and "A@x.org" must not be a fresh start for "a@x.org".
    user = authenticate(request, username=email.strip().lower(), password=password)
    if getattr(request, "axes_locked_out", False):
        raise locked()
    if not isinstance(user, User):
        raise Invalid(
            "wrong_password",
            "The e-mail address or the password is not right.",
            "Check both and try again. After 5 wrong passwords the account is locked for 15 minutes.",
        )
    return user
