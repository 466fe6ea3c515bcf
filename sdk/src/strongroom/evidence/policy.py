"""What a custodian accepts (Policy), and whose keys are believed (Trust)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from strongroom import shapes, strictjson
from strongroom.errors import FormatError
from strongroom.evidence.envelope import TYPES

MAX_POLICY_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Policy:
    """A release policy. Parsed from JSON; a member that this version does not know is refused, never ignored.

        {"v": 1, "types": ["software"], "images": ["sha256:..."], "max_age_seconds": 600}

    `types`: evidence types accepted; one that is not named is refused. `images`: runner images accepted by digest;
    an empty list pins none (the check then says `not_available`). `max_age_seconds`: from collection to `now`.
    """

    types: tuple[str, ...]
    images: tuple[str, ...]
    max_age_seconds: int

    @classmethod
    def parse(cls, value: bytes | dict[str, Any]) -> Policy:
        """From JSON bytes or a parsed document. Raises FormatError, saying which member is wrong."""
        if isinstance(value, bytes):
            value = strictjson.loads(value, max_bytes=MAX_POLICY_BYTES, what="The policy")
        document = shapes.fields(
            value,
            "The policy",
            {
                "v": shapes.exactly(1),
                "types": shapes.list_of(shapes.one_of(*TYPES), len(TYPES)),
                "images": shapes.list_of(shapes.image_digest, 100),
                "max_age_seconds": shapes.whole(1, 366 * 86400),
            },
        )
        if not document["types"]:
            raise FormatError(
                "The policy accepts no type of evidence, so it could never be met: name at least one."
            )
        for name in ("types", "images"):
            if len(set(document[name])) != len(document[name]):
                raise FormatError(f"The policy names the same entry of {name} twice.")
        return cls(tuple(document["types"]), tuple(document["images"]), document["max_age_seconds"])

    def to_json(self) -> dict[str, Any]:
        return {
            "v": 1,
            "types": list(self.types),
            "images": list(self.images),
            "max_age_seconds": self.max_age_seconds,
        }

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the policy's canonical JSON: what approvals and verdicts name."""
        return strictjson.digest(self.to_json())


@dataclass(frozen=True, slots=True)
class Trust:
    """The keys that evidence may rest on, held by the verifier; nothing here ever comes from the evidence.

    `software_keys`: raw Ed25519 public keys of installations whose software evidence is recognised. They are a
    store of their own: no hardware type looks here.
    """

    software_keys: frozenset[bytes] = frozenset()

    @classmethod
    def of(cls, *, software_keys: Iterable[bytes] = ()) -> Trust:
        return cls(frozenset(bytes(key) for key in software_keys))
