"""Who reads the log. The answer lies with the accounts app, which this app may not import: it registers its rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from apps.audit.models import Entry
from apps.core.errors import Denied, NotFound


@dataclass(frozen=True)
class Rules:
    """may_read: the whole log. names_of: actor code -> name, of people. actors_called: codes of people by name."""

    may_read: Callable[[Any], bool]
    names_of: Callable[[Iterable[str]], dict[str, str]]
    actors_called: Callable[[str], list[str]]


_rules: list[Rules] = []


def set_rules(
    *,
    may_read: Callable[[Any], bool],
    names_of: Callable[[Iterable[str]], dict[str, str]],
    actors_called: Callable[[str], list[str]],
) -> None:
    """Called once by the accounts app at start-up."""
    _rules[:] = [Rules(may_read, names_of, actors_called)]


def rules() -> Rules:
    """The registered rules. RuntimeError without any: then nobody reads anything."""
    if not _rules:
        raise RuntimeError("nobody told the audit app who may read the log")
    return _rules[0]


def require_read_log(user: Any) -> None:
    """Raise Denied unless the person may read the whole log."""
    if not rules().may_read(user):
        raise Denied(
            "role_missing",
            "You need the role “Auditor” to read the audit log.",
            "Ask the operator of this portal if you should hold it. What you did yourself you can see entry by entry.",
        )


def can_see(user: Any, entry: Entry) -> bool:
    """Auditors see every entry; everybody sees what they did themselves."""
    if not getattr(user, "is_authenticated", False) or not user.is_active:
        return False
    return entry.actor == user.actor_code or rules().may_read(user)


def require_see(user: Any, entry: Entry | None) -> Entry:
    """The entry, or NotFound, which looks the same for a hidden entry and for none."""
    if entry is None or not can_see(user, entry):
        raise NotFound("log entry")
    return entry


class ReadScope(BasePermission):
    """A signed-in person may; an API token needs the scope `read`."""

    message = "This token lacks the scope “read”. Make one with that scope on your account page."

    def has_permission(self, request: Request, view: Any) -> bool:
        if not request.user or not request.user.is_authenticated:
            return False
        return request.auth is None or "read" in getattr(request.auth, "scopes", ())
