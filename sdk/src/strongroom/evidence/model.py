"""What verification says: single checks, and the appraisal that they add up to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


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


@dataclass(frozen=True, slots=True)
class Check:
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
        self.items.append(Check(id_, Outcome.PASS, detail))

    def failed(self, id_: str, detail: str) -> None:
        self.items.append(Check(id_, Outcome.FAIL, detail))

    def not_available(self, id_: str, detail: str) -> None:
        self.items.append(Check(id_, Outcome.NOT_AVAILABLE, detail))

    def require(self, id_: str, holds: bool, yes: str, no: str) -> bool:
        """Record pass with the sentence `yes` or fail with `no`; returns `holds`."""
        self.items.append(Check(id_, Outcome.PASS if holds else Outcome.FAIL, yes if holds else no))
        return holds

    @property
    def ok(self) -> bool:
        return acceptable(self.items)


def acceptable(checks: Iterable[Check]) -> bool:
    """Whether there is at least one check and none failed: nothing looked at is nothing shown."""
    outcomes = [check.outcome for check in checks]
    return bool(outcomes) and Outcome.FAIL not in outcomes


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
