"""What verifying a package says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from strongroom.evidence.model import Check, Tier, acceptable


@dataclass(frozen=True, slots=True)
class PackageReport:
    """All checks in the order in which they were made.

    `facts` name what the package is about (run, portal, project, outputs, ...): read them only when `ok`.
    `protection` is one plain sentence on what the evidence proves about the environment, to be shown always.
    """

    checks: tuple[Check, ...]
    tier: Tier
    protection: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return acceptable(self.checks)

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "tier": self.tier.value,
            "protection": self.protection,
            "checks": [check.to_json() for check in self.checks],
            "facts": self.facts,
        }
