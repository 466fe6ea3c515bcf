"""What the supervisor asks of its environment: evidence about itself, bound to a nonce.

Each environment has a module in attesters/. The supervisor's steps are the same in all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from strongroom.errors import StrongroomError


@dataclass(frozen=True, slots=True)
class Facts:
    """What an attester may have to know of the attempt.

    portal: the portal's id, which evidence that names an audience is made out to. manifest: hex SHA-256 of the run's
    manifest. image: `sha256:<hex>` of the runner. instance: a name for this start of the runner.
    """

    portal: str
    manifest: str
    image: str
    instance: str


class Attester(Protocol):
    """Gives evidence bound to a nonce."""

    type: str

    def evidence(self, nonce: str) -> bytes:
        """An evidence envelope (docs/reference/evidence.md) for `nonce`, 43 characters of base64url.

        Raises NoEvidence.
        """


class NoEvidence(StrongroomError):
    """The environment gave no evidence, or something that is none. Nothing else is used in its place."""
