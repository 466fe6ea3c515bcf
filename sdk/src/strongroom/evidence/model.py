"""What verification says: single checks, and the appraisal that they add up to."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple


class Outcome(StrEnum):
    """The three answers of a check. `not_available` is neither: the thing could not be, or was not, looked at."""

    PASS = "pass"  # noqa: S105  not a password
    FAIL = "fail"
    NOT_AVAILABLE = "not_available"


class Tier(StrEnum):
    """How far to trust the environment: the trustworthiness tiers of AR4SI (draft-ietf-rats-ar4si, section 3.2)."""

    AFFIRMING = "affirming"
    WARNING = "warning"
    CONTRAINDICATED = "contraindicated"
    NONE = "none"


# To look a member up in its class takes longer than the rest of recording a check (until Python 3.12).
_PASS, _FAIL, _NOT_AVAILABLE = Outcome.PASS, Outcome.FAIL, Outcome.NOT_AVAILABLE


class Check(NamedTuple):
    """One thing that was looked at. `id` is stable and for machines, `detail` is a sentence for people."""

    id: str
    outcome: Outcome
    detail: str

    def to_json(self) -> dict[str, str]:
        return {"id": self.id, "outcome": self.outcome.value, "detail": self.detail}


@dataclass(slots=True)
class Checks:
    """A list of checks that is being filled."""

    items: list[Check] = field(default_factory=list)

    def passed(self, id_: str, detail: str) -> None:
        self.items.append(Check(id_, _PASS, detail))

    def failed(self, id_: str, detail: str) -> None:
        self.items.append(Check(id_, _FAIL, detail))

    def not_available(self, id_: str, detail: str) -> None:
        self.items.append(Check(id_, _NOT_AVAILABLE, detail))

    def require(self, id_: str, holds: bool, yes: str, no: str) -> bool:
        """Record pass with the sentence `yes` or fail with `no`; returns `holds`."""
        self.items.append(Check(id_, _PASS if holds else _FAIL, yes if holds else no))
        return holds

    @property
    def ok(self) -> bool:
        return acceptable(self.items)


def acceptable(checks: Iterable[Check]) -> bool:
    """Whether there is at least one check and none failed: nothing looked at is nothing shown."""
    outcomes = [check.outcome for check in checks]
    return bool(outcomes) and _FAIL not in outcomes


def hardware_tier(checks: Iterable[Check], *, required: Collection[str]) -> Tier:
    """The tier of hardware evidence: a fail contraindicates; a `required` check that is absent or not available warns."""
    items = list(checks)
    if not acceptable(items):
        return Tier.CONTRAINDICATED
    passed = {check.id for check in items if check.outcome is _PASS}
    open_ = {check.id for check in items if check.outcome is _NOT_AVAILABLE}
    return Tier.AFFIRMING if set(required) <= passed - open_ else Tier.WARNING


@dataclass(frozen=True, slots=True)
class Appraisal:
    """The result of verifying one piece of evidence.

    `claims` are what the evidence says about its environment; read them only when `ok`. A failed appraisal has the
    tier `contraindicated`; evidence that protects nothing has `none` even when every check passes.
    """

    type: str
    tier: Tier
    checks: tuple[Check, ...]
    claims: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return acceptable(self.checks)

    def to_json(self) -> dict[str, Any]:
        return {
            "type": self.type,
            "tier": self.tier.value,
            "ok": self.ok,
            "checks": [check.to_json() for check in self.checks],
            "claims": self.claims,
        }


_RANK = {Outcome.NOT_AVAILABLE: 0, Outcome.PASS: 1, Outcome.FAIL: 2}
_TIERS = (Tier.CONTRAINDICATED, Tier.NONE, Tier.WARNING, Tier.AFFIRMING)  # worst first


def combined(appraisals: Sequence[Appraisal]) -> Appraisal:
    """One appraisal of one piece of evidence under several policies: the worst tier, each check at its strictest.

    A check that one policy does not ask for (not available) and another one does takes the other's answer.
    """
    worst: dict[tuple[str, int], Check] = {}
    for appraisal in appraisals:
        times: dict[str, int] = {}
        for check in appraisal.checks:
            key = (check.id, times.setdefault(check.id, 0))
            times[check.id] += 1
            if key not in worst or _RANK[check.outcome] > _RANK[worst[key].outcome]:
                worst[key] = check
    first = max(appraisals, key=lambda a: len(a.claims))
    tier = min((a.tier for a in appraisals), key=_TIERS.index)
    return Appraisal(first.type, tier, tuple(worst.values()), first.claims)
