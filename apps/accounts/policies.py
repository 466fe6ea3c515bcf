"""Which roles one person may hold at once, and where a role may be held. Pure functions over codes.

The reasons, in prose, are in docs/explanation/separation-of-duties.md; the two must say the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from apps.accounts.roles import ROLES, Role

# Held with nothing else: whoever gives out roles, or watches everybody, must have no stake in any decision.
ALONE: dict[Role, str] = {
    Role.OPERATOR: "An operator gives out roles, so an operator decides nothing, checks nothing and does no research.",
    Role.AUDITOR: "An auditor reads what everybody did, so an auditor does nothing that is read there.",
}

# Pairs of independent controls. One person holding both would be one control.
APART: dict[frozenset[Role], str] = {
    frozenset({ethics, Role.CUSTODIAN}): (
        "The ethics board and the custodian each decide whether a project may use data. "
        "Both decisions by one person would be one decision."
    )
    for ethics in (Role.ETHICS_MEMBER, Role.ETHICS_CHAIR)
}


def clash(held: Iterable[Role], wanted: Role) -> tuple[Role, str] | None:
    """The held role that forbids `wanted`, with the reason; None where they go together."""
    for role in sorted(set(held), key=str):
        if role == wanted:
            continue
        for alone, why in ALONE.items():
            if alone in (role, wanted):
                return role, why
        if why := APART.get(frozenset({role, wanted}), ""):
            return role, why
    return None


def incompatible(role: Role) -> list[tuple[Role, str]]:
    """Every role that cannot be held together with `role`, with the reason (for the roles page)."""
    pairs = [(other, clash([other], role)) for other in Role if other != Role.PRINCIPAL_INVESTIGATOR]
    return [(other, found[1]) for other, found in pairs if found]


def fits(role: Role, kind: str) -> bool:
    """Whether `role` can be held in an organisation of this kind."""
    where = ROLES[role].held_in
    return where != "project" and where in ("any", kind)


TOKEN_DAYS = (1, 365)
TRAINING_YEARS = 3
