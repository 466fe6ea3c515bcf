"""Signed statements: in-toto Statement v1 in a DSSE envelope, signed with Ed25519.

Sources: github.com/in-toto/attestation spec/v1/statement.md; github.com/secure-systems-lab/dsse protocol.md and
envelope.md. Stricter than those: envelope and statement must be canonical JSON (RFC 8785) and base64 must be the
padded standard form, so that one statement has one envelope and one hash. That hash (SHA-256 of the envelope's
bytes) is what the result context, the verdict and the log entry name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from strongroom import contexts, paths, shapes, signing, strictjson
from strongroom.errors import FormatError, StatementError
from strongroom.signing import SigningKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
RUN_PREDICATE = "https://strongroom.example/attestation/tee-run/v1"
VERDICT_PREDICATE = "https://strongroom.example/attestation/verdict/v1"
MAX_BYTES = 2 << 20
MAX_SIGNATURES = 16


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: the exact bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A parsed envelope. `signatures` are (key id, 64 bytes). Nothing in it is verified yet."""

    payload: bytes
    payload_type: str
    signatures: tuple[tuple[str, bytes], ...]

    def to_bytes(self) -> bytes:
        return strictjson.canonical(
            {
                "payload": shapes.b64_encode(self.payload),
                "payloadType": self.payload_type,
                "signatures": [
                    {"keyid": key_id, "sig": shapes.b64_encode(signature)}
                    for key_id, signature in self.signatures
                ],
            }
        )


def parse_envelope(data: bytes) -> Envelope:
    """Read envelope bytes strictly. Raises StatementError."""
    try:
        document = shapes.fields(
            strictjson.loads_canonical(data, max_bytes=MAX_BYTES, what="The signed envelope"),
            "The signed envelope",
            {"payload": shapes.b64(), "payloadType": shapes.text(128), "signatures": _signatures},
        )
    except FormatError as error:
        raise StatementError(str(error)) from None
    return Envelope(
        payload=shapes.b64_decode(document["payload"], "payload"),
        payload_type=document["payloadType"],
        signatures=tuple(
            (item["keyid"], shapes.b64_decode(item["sig"], "sig")) for item in document["signatures"]
        ),
    )


def _signatures(value: Any, where: str) -> list[dict[str, str]]:
    shape = {"keyid": shapes.text(16, 16), "sig": shapes.b64(signing.SIGNATURE_SIZE)}
    items: list[dict[str, str]] = shapes.list_of(
        lambda item, at: shapes.fields(item, at, shape), MAX_SIGNATURES
    )(value, where)
    if not items or len({item["keyid"] for item in items}) != len(items):
        raise FormatError(f"{where} must hold at least one signature, and one only of each key.")
    return items


def sign(document: dict[str, Any], keys: Sequence[SigningKey], *, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """The canonical bytes of an envelope over `document`, signed by each of `keys`. Raises FormatError."""
    payload = strictjson.canonical(document)
    message = pae(payload_type, payload)
    made = Envelope(
        payload, payload_type, tuple((signing.key_id(key.public), key.sign(message)) for key in keys)
    )
    parse_envelope(made.to_bytes())
    return made.to_bytes()


def add_signature(envelope: bytes, key: SigningKey) -> bytes:
    """The envelope with one more signature. This changes its hash: add all signatures before hashing it."""
    parsed = parse_envelope(envelope)
    more = (signing.key_id(key.public), key.sign(pae(parsed.payload_type, parsed.payload)))
    made = Envelope(parsed.payload, parsed.payload_type, (*parsed.signatures, more)).to_bytes()
    parse_envelope(made)
    return made


def open_envelope(envelope: bytes, public: bytes, *, payload_type: str = PAYLOAD_TYPE) -> dict[str, Any]:
    """The signed document, once the Ed25519 key `public` (32 raw bytes) is known to have signed it.

    Signatures of other keys are ignored. Raises StatementError if there is no signature by this key, if it does
    not verify, or if type or payload are not as required.
    """
    parsed = parse_envelope(envelope)
    if parsed.payload_type != payload_type:
        raise StatementError(f"The envelope holds {parsed.payload_type!r}, not {payload_type!r}.")
    wanted = signing.key_id(public)
    message = pae(parsed.payload_type, parsed.payload)
    found = [signature for key_id, signature in parsed.signatures if key_id == wanted]
    if not found:
        raise StatementError(f"The envelope is not signed by the expected key {wanted}.")
    if not signing.verify(public, found[0], message):
        raise StatementError(
            f"The signature by key {wanted} does not match: envelope or signature was changed."
        )
    try:
        document = strictjson.loads_canonical(
            parsed.payload, max_bytes=MAX_BYTES, what="The signed statement"
        )
        return shapes.mapping(document, "The signed statement")
    except FormatError as error:
        raise StatementError(str(error)) from None


def digest(envelope: bytes) -> str:
    """The hash that stands for a signed statement: hex SHA-256 of the envelope's bytes."""
    return hashlib.sha256(envelope).hexdigest()


_RUN_INPUT: dict[str, shapes.Checker] = {
    "dataset": shapes.uuid_text,
    "version": shapes.whole(1),
    "stage": shapes.whole(1, 2),
    "ciphertext": shapes.nullable(shapes.sha256),
    "plaintext": shapes.sha256,
}

_RUN: dict[str, shapes.Checker] = {
    "run": shapes.uuid_text,
    "portal": contexts.portal_id,
    "project": shapes.nullable(shapes.text(200)),
    "kind": shapes.one_of("profile", "synthesise", "rehearsal", "research"),
    "manifest": shapes.sha256,
    "program": lambda value, where: shapes.fields(value, where, {"sha256": shapes.nullable(shapes.sha256)}),
    "inputs": shapes.list_of(lambda item, at: shapes.fields(item, at, _RUN_INPUT), contexts.MAX_INPUTS),
    "exit": contexts.exit_record,
    "started": shapes.time_text,
    "ended": shapes.time_text,
    "image": shapes.image_digest,
    "backend": shapes.text(64),
    "evidence": shapes.text(64),
    "protection": shapes.text(500),
}


def run_statement(outputs: Iterable[dict[str, Any]], predicate: dict[str, Any]) -> dict[str, Any]:
    """The statement that a run signs about its outputs ([{"path", "sha256", ...}], any order).

    `predicate` has the members of the table `_RUN` above; `ciphertext` is None for an input that was not sealed.
    Raises FormatError.
    """
    ordered = sorted(outputs, key=lambda item: str(item["path"]))
    subjects = [{"name": item["path"], "digest": {"sha256": item["sha256"]}} for item in ordered]
    return parse_statement(_statement(subjects, RUN_PREDICATE, predicate), RUN_PREDICATE)


def parse_statement(document: Any, predicate_type: str) -> dict[str, Any]:
    """Check a statement member by member, its predicate too. Raises FormatError.

    A run that failed may have no outputs; in-toto asks for at least one subject, so such a statement is not for
    in-toto's own tools.
    """
    predicate, more = (_RUN, {}) if predicate_type == RUN_PREDICATE else (_VERDICT, _VERDICT_MORE)
    return shapes.fields(
        document,
        "The statement",
        {
            "_type": shapes.exactly(STATEMENT_TYPE),
            "subject": _subjects,
            "predicateType": shapes.exactly(predicate_type),
            "predicate": lambda value, where: shapes.fields(value, where, predicate, more),
        },
    )


def _subjects(value: Any, where: str) -> list[dict[str, Any]]:
    def one(item: Any, at: str) -> dict[str, Any]:
        return shapes.fields(item, at, {"name": paths.safe_path, "digest": hash_set})

    def hash_set(item: Any, at: str) -> dict[str, Any]:
        return shapes.fields(item, at, {"sha256": shapes.sha256})

    subjects: list[dict[str, Any]] = shapes.list_of(one, contexts.MAX_OUTPUTS)(value, where)
    names = paths.distinct_files((item["name"] for item in subjects), where)
    if names != sorted(names):
        raise FormatError(f"{where} must be sorted by name.")
    return subjects


def _statement(subjects: list[dict[str, Any]], kind: str, predicate: dict[str, Any]) -> dict[str, Any]:
    return {"_type": STATEMENT_TYPE, "subject": subjects, "predicateType": kind, "predicate": predicate}


_APPRAISAL: dict[str, shapes.Checker] = {
    "evidence": shapes.sha256,  # of the evidence envelope's bytes
    "at": shapes.time_text,  # when the portal verified it
    "policies": shapes.list_of(shapes.sha256, 100),  # hashes of the policies that it satisfied
    "appraisal": shapes.mapping,  # Appraisal.to_json()
}

_VERDICT: dict[str, shapes.Checker] = {
    "run": shapes.uuid_text,
    "portal": contexts.portal_id,
    "manifest": shapes.sha256,
    "at": shapes.time_text,
    "e1": shapes.nullable(lambda value, where: shapes.fields(value, where, _APPRAISAL)),
    "e2": lambda value, where: shapes.fields(value, where, _APPRAISAL),
    "ok": shapes.boolean,
    "tier": shapes.one_of("affirming", "warning", "contraindicated", "none"),
}
# The same as `e1` for the evidence shown to custodians' own key brokers, in the order of C2's `brokers`.
_VERDICT_MORE: dict[str, shapes.Checker] = {
    "brokers": shapes.list_of(
        lambda item, at: shapes.fields(item, at, {"broker": contexts.broker_id, **_APPRAISAL}),
        contexts.MAX_BROKERS,
    )
}


def verdict(statement: bytes, predicate: dict[str, Any]) -> dict[str, Any]:
    """What the portal signs after verifying a run: its subject is the run's signed statement (envelope bytes).

    `predicate`: run, portal, manifest (sha256), at, ok, tier, and for each evidence `e1` (or None) and `e2`:
    {"evidence": sha256, "at", "policies": [sha256], "appraisal": Appraisal.to_json()}. Raises FormatError.
    """
    subject = {"name": "statement.dsse.json", "digest": {"sha256": digest(statement)}}
    return parse_statement(_statement([subject], VERDICT_PREDICATE, predicate), VERDICT_PREDICATE)
