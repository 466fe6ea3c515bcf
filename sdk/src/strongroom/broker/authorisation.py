"""A portal's word that a run exists: what was approved, for which broker. It opens nothing by itself.

    {"v": 1, "purpose": "key-authorisation", "portal", "broker", "run", "attempt", "manifest",
     "inputs": [{"dataset", "version", "ciphertext"}], "issued", "expires"}, signed as words.py says

`manifest` is the whole manifest, so that the broker reads for itself which program, image and approvals are meant.
`inputs` are those of its datasets whose keys are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from strongroom import contexts, shapes, strictjson
from strongroom.broker import words
from strongroom.errors import FormatError
from strongroom.signing import SigningKey

PURPOSE = "key-authorisation"

broker_id = contexts.broker_id

_INPUT: dict[str, shapes.Checker] = {
    "dataset": shapes.uuid_text,
    "version": shapes.whole(1),
    "ciphertext": shapes.sha256,
}
_MORE: dict[str, shapes.Checker] = {
    "run": shapes.uuid_text,
    "attempt": shapes.whole(1),
    "manifest": shapes.mapping,
    "inputs": shapes.list_of(lambda item, at: shapes.fields(item, at, _INPUT), contexts.MAX_INPUTS),
}


@dataclass(frozen=True, slots=True)
class Authorisation:
    """A verified one. `manifest_sha256`: hex, of the manifest's canonical JSON."""

    portal: str
    broker: str
    run: str
    attempt: int
    manifest: dict[str, Any]
    manifest_sha256: str
    inputs: tuple[dict[str, Any], ...]

    def expected(self) -> dict[str, Any]:
        """The members of C1 that follow from it."""
        return {
            "run": self.run,
            "portal": self.portal,
            "broker": self.broker,
            "manifest": self.manifest_sha256,
            "image": self.manifest.get("image"),
            "approvals": self.manifest.get("approvals"),
            "inputs": list(self.inputs),
        }


def sign(
    key: SigningKey,
    *,
    portal: str,
    broker: str,
    run: str,
    attempt: int,
    manifest: dict[str, Any],
    inputs: Sequence[dict[str, Any]],
    now: datetime,
) -> dict[str, str]:
    """{"document", "signature"}, both base64. Raises FormatError."""
    said = {"run": run, "attempt": attempt, "manifest": manifest, "inputs": list(inputs)}
    return words.sign(key, PURPOSE, _MORE, said, portal=portal, broker=broker, now=now)


def verify(value: Any, *, portal: str, key: bytes, broker: str, now: datetime) -> Authorisation:
    """Check form, signature by the pinned `key`, addressee, time, and that it fits its own manifest.

    Raises FormatError, Refusal (authorisation_refused).
    """
    document = words.verify(value, PURPOSE, _MORE, portal=portal, key=key, broker=broker, now=now)
    manifest = document["manifest"]
    if (manifest.get("run"), manifest.get("portal")) != (document["run"], portal):
        raise words.refused("Its manifest is of another run or portal.")
    try:
        named = [
            {"dataset": i["dataset"], "version": i["version"], "ciphertext": i["sha256"]}
            for i in manifest["inputs"]
            if i["sealed"] is True and i.get("broker") == broker
        ]
    except (KeyError, TypeError):
        raise FormatError("The authorisation's manifest has no readable list of inputs.") from None
    if not named or named != document["inputs"]:
        raise words.refused("Its inputs are not those that its manifest names for this broker.")
    return Authorisation(
        portal,
        broker,
        document["run"],
        document["attempt"],
        manifest,
        strictjson.digest(manifest),
        tuple(named),
    )
