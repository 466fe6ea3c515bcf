"""Who may do what with people and organisations; and the role questions that every other app asks.

Each rule has one form that raises a sentence (`require_*`) and one that answers (`can_*`, `holds`); both read the
same rows, so that page and server cannot disagree. A missing object is never permission.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models import Q

from apps.accounts.models import Organisation, RoleHolding, User
from apps.accounts.roles import ROLES, Permission, Role
from apps.core.clock import now
from apps.core.errors import Denied

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser


def me(request: Any) -> User:
    """The signed-in person behind a request. Denied for a stranger, should a view ever be reached by one."""
    if not isinstance(request.user, User):
        raise Denied("sign_in_first", "You are not signed in.", "Sign in, then try again.")
    return request.user


def live_holdings(user: User) -> list[RoleHolding]:
    """The roles the person holds now (not revoked, not expired), read once per user object."""
    cached: list[RoleHolding] | None = getattr(user, "_live_holdings", None)
    if cached is None:
        cached = list(
            RoleHolding.objects.filter(user=user, revoked_at__isnull=True)
            .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=now()))
            .select_related("organisation")
        )
        user._live_holdings = cached  # type: ignore[attr-defined]
    return cached


def holds(user: User | AnonymousUser | Any, role: Role, organisation: Organisation | None = None) -> bool:
    """Whether the person holds `role`: in that organisation if one is given, in any otherwise."""
    if not isinstance(user, User) or not user.is_active:
        return False
    return any(
        h.role == role
        and h.organisation.is_active
        and (organisation is None or h.organisation_id == organisation.pk)
        for h in live_holdings(user)
    )


def organisations_of(user: User | Any, role: Role) -> list[Organisation]:
    """Active organisations in which the person holds `role`."""
    if not getattr(user, "is_authenticated", False) or not user.is_active:
        return []
    return [h.organisation for h in live_holdings(user) if h.role == role and h.organisation.is_active]


def has_permission(
    user: User | Any, permission: Permission, organisation: Organisation | None = None
) -> bool:
    """Whether any held role (in the organisation, if given) carries `permission`."""
    return any(
        holds(user, role, organisation) for role, info in ROLES.items() if permission in info.permissions
    )


def require_role(user: User | Any, role: Role, organisation: Organisation | None = None, *, to: str) -> None:
    """Raise Denied unless `holds`. `to` completes the sentence "You need the role X to …"."""
    if not holds(user, role, organisation):
        where = f" in {organisation.name}" if organisation else ""
        raise Denied(
            "role_missing",
            f"You need the role “{ROLES[role].label}”{where} to {to}.",
            "Ask the operator of this portal if you should hold it (see “Contact” at the foot of each page).",
        )


def require_manage_people(user: User | Any) -> None:
    require_role(user, Role.OPERATOR, to="manage organisations, people and roles")


def can_manage_people(user: User | Any) -> bool:
    return holds(user, Role.OPERATOR)


def can_read_log(user: User | Any) -> bool:
    """Whether the person may read the whole audit log."""
    return holds(user, Role.AUDITOR)
