"""Who does something. No actor, no write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@runtime_checkable
class Actor(Protocol):
    """Anything that can be written down as the author of an act."""

    @property
    def actor_code(self) -> str:
        """`user:<uuid>`, `system:<name>` or `runner:<run uuid>`: stable, and free of personal data."""


@dataclass(frozen=True)
class System:
    """The portal itself, acting by a named part (the sweeper, the launcher)."""

    name: str

    @property
    def actor_code(self) -> str:
        return f"system:{self.name}"


@dataclass(frozen=True)
class Runner:
    """A run's attested supervisor, acting for that run only."""

    run: str

    @property
    def actor_code(self) -> str:
        return f"runner:{self.run}"


def require_actor(by: object) -> str:
    """The actor's code. Raises ValueError for None, anonymous users and anything that is not an actor."""
    code = getattr(by, "actor_code", "")
    if not code:
        raise ValueError("every write needs an actor: pass by=<user or System(...)>")
    return str(code)
