"""The public keys of a portal: what portal.json says in a package, and what somebody pins to verify against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from strongroom import contexts, shapes, strictjson
from strongroom.errors import FormatError, LogError
from strongroom.evidence import Trust
from strongroom.translog import Verifier

MAX_PORTAL_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class PortalKeys:
    """A portal's identity.

        {"v": 1, "portal": id, "log": vkey, "verdict_key": base64, "software_attesters": [base64, ...]}

    `portal` is the id that contexts name, `log` the verifier key of its log (C2SP signed-note), `verdict_key` the raw
    Ed25519 key that signs verdicts, `software_attesters` those of its software installations.
    """

    portal: str
    log: Verifier
    verdict_key: bytes
    software_attesters: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, value: bytes | dict[str, Any]) -> PortalKeys:
        """From the bytes of portal.json (any JSON form) or a parsed document. Raises FormatError."""
        if isinstance(value, bytes):
            value = strictjson.loads(value, max_bytes=MAX_PORTAL_BYTES, what="portal.json")
        document = shapes.fields(
            value,
            "portal.json",
            {
                "v": shapes.exactly(1),
                "portal": contexts.portal_id,
                "log": shapes.text(500),
                "verdict_key": shapes.b64(32),
                "software_attesters": shapes.list_of(shapes.b64(32), 100),
            },
        )
        try:
            log = Verifier.parse(document["log"])
        except LogError as error:
            raise FormatError(f"portal.json: {error}") from None
        return cls(
            document["portal"],
            log,
            shapes.b64_decode(document["verdict_key"], "verdict_key"),
            tuple(shapes.b64_decode(key, "software_attesters") for key in document["software_attesters"]),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "v": 1,
            "portal": self.portal,
            "log": str(self.log),
            "verdict_key": shapes.b64_encode(self.verdict_key),
            "software_attesters": [shapes.b64_encode(key) for key in self.software_attesters],
        }

    def to_bytes(self) -> bytes:
        return strictjson.canonical(self.to_json())

    @property
    def trust(self) -> Trust:
        """The trust store of evidence that these keys stand for."""
        return Trust.of(software_keys=self.software_attesters)
