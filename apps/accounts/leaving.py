"""What other apps have to say before somebody stops holding a role: this app may not import them."""

from __future__ import annotations

from collections.abc import Callable

from apps.accounts.models import RoleHolding

# Raises a domain error if the role cannot be taken back yet. Asked in the transaction that would take it.
Objection = Callable[[RoleHolding], None]
_objections: list[Objection] = []


def ask_before(objection: Objection) -> None:
    """Let `objection` be asked before a role is taken back (apps say this at start-up)."""
    if objection not in _objections:
        _objections.append(objection)


def ask(holding: RoleHolding) -> None:
    for objection in _objections:
        objection(holding)
