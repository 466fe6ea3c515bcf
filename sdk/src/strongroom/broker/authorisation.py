"""A portal's word that a run exists: what was approved, for which broker. It opens nothing by itself.

    document  = JCS({"v": 1, "purpose": "key-authorisation", "portal", "broker", "run", "attempt", "manifest",
                     "inputs": [{"dataset", "version", "ciphertext"}], "issued", "expires"})
    signature = Ed25519 over "strongroom/1/key-authorisation" 0x00 document, by the portal's verdict key

`manifest` is the whole manifest, so that the broker reads for itself which program, image and approvals are meant.
`inputs` are those of its datasets whose keys are asked for. It lives for minutes; the broker holds the portal's key
from another source. The label keeps this signature from standing for any other of the same key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from strongroom import contexts, shapes, signing, strictjson
from strongroom.broker.errors import Refusal
from strongroom.errors import FormatError
from strongroom.signing import SigningKey

PURPOSE = "key-authorisation"
LIFETIME = timedelta(minutes=15)
CLOCK_SKEW = timedelta(seconds=60)
MAX_BYTES = 4 << 20
_LABEL = b"strongroom/1/key-authorisation\x00"

broker_id = contexts.broker_id

_INPUT: dict[str, shapes.Checker] = {
    "dataset": shapes.uuid_text,
    "version": shapes.whole(1),
    "ciphertext": shapes.sha256,
}
_DOCUMENT: dict[str, shapes.Checker] = {
    "v": shapes.exactly(1),
    "purpose": shapes.exactly(PURPOSE),
    "portal": contexts.portal_id,
    "broker": broker_id,
    "run": shapes.uuid_text,
    "attempt": shapes.whole(1),
    "manifest": shapes.mapping,
    "inputs": shapes.list_of(lambda item, at: shapes.fields(item, at, _INPUT), contexts.MAX_INPUTS),
    "issued": shapes.time_text,
    "expires": shapes.time_text,
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
    document = shapes.fields(
        {
            "v": 1,
            "purpose": PURPOSE,
            "portal": portal,
            "broker": broker,
            "run": run,
            "attempt": attempt,
            "manifest": manifest,
            "inputs": list(inputs),
            "issued": shapes.format_time(now),
            "expires": shapes.format_time(now + LIFETIME),
        },
        "The authorisation",
        _DOCUMENT,
    )
    raw = strictjson.canonical(document)
    return {"document": shapes.b64_encode(raw), "signature": shapes.b64_encode(key.sign(_LABEL + raw))}


def verify(value: Any, *, portal: str, key: bytes, broker: str, now: datetime) -> Authorisation:
    """Check form, signature by the pinned `key`, addressee, time, and that it fits its own manifest.

    Raises FormatError, Refusal (authorisation_refused).
    """
    envelope = shapes.fields(
        value, "The authorisation", {"document": shapes.b64(), "signature": shapes.b64(64)}
    )
    raw = shapes.b64_decode(envelope["document"], "The authorisation")
    if not signing.verify(key, shapes.b64_decode(envelope["signature"], "signature"), _LABEL + raw):
        raise _refused("It is not signed by the portal key that this broker trusts.")
    document = shapes.fields(
        strictjson.loads_canonical(raw, max_bytes=MAX_BYTES, what="The authorisation"),
        "The authorisation",
        _DOCUMENT,
    )
    if (document["portal"], document["broker"]) != (portal, broker):
        raise _refused("It is for another broker, or of another portal.")
    issued, expires = (shapes.parse_time(document[m], m) for m in ("issued", "expires"))
    if not (issued - CLOCK_SKEW <= now < expires <= issued + LIFETIME):
        raise _refused("It has expired, or is from the future.")
    manifest = document["manifest"]
    if (manifest.get("run"), manifest.get("portal")) != (document["run"], portal):
        raise _refused("Its manifest is of another run or portal.")
    try:
        named = [
            {"dataset": i["dataset"], "version": i["version"], "ciphertext": i["sha256"]}
            for i in manifest["inputs"]
            if i["sealed"] is True and i.get("broker") == broker
        ]
    except (KeyError, TypeError):
        raise FormatError("The authorisation's manifest has no readable list of inputs.") from None
    if not named or named != document["inputs"]:
        raise _refused("Its inputs are not those that its manifest names for this broker.")
    return Authorisation(
        portal,
        broker,
        document["run"],
        document["attempt"],
        manifest,
        strictjson.digest(manifest),
        tuple(named),
    )


def _refused(why: str) -> Refusal:
    return Refusal(403, "authorisation_refused", f"The portal's authorisation cannot be accepted. {why}")
