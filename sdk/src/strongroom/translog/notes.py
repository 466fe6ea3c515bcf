"""Signed tree heads: C2SP signed-note, tlog-checkpoint and tlog-cosignature (cosignature/v1), with Ed25519.

A checkpoint is three lines (origin, size, root) and signature lines. A verifier key ("vkey") is one line of text,
`<name>+<key id in hex>+<base64 of type byte and public key>`, with type 0x01 for a log and 0x04 for a cosigner.
ML-DSA-44 signatures, which the specification now prefers, are ignored as those of unknown keys are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from strongroom import shapes, signing
from strongroom.errors import FormatError, LogError
from strongroom.signing import SigningKey

LOG_KEY = 0x01
COSIGNER_KEY = 0x04
MAX_NOTE_BYTES = 64 << 10
MAX_SIGNATURES = 64

_DASH = "\u2014 "
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_KEY_ID = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Verifier:
    """A verifier key: who may sign, and how. `type` is LOG_KEY or COSIGNER_KEY, `public` 32 raw bytes."""

    name: str
    public: bytes
    type: int = LOG_KEY

    def __post_init__(self) -> None:
        if not _is_key_name(self.name):
            raise LogError("A key name must not be empty and must not hold spaces, control characters or +.")
        if self.type not in (LOG_KEY, COSIGNER_KEY) or len(self.public) != signing.PUBLIC_SIZE:
            raise LogError(
                "A verifier key here is an Ed25519 key of a log (type 01) or of a cosigner (type 04)."
            )

    @property
    def key_id(self) -> bytes:
        """SHA-256(name || 0x0A || type || public key)[:4], as signed-note recommends."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.type]) + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{shapes.b64_encode(bytes([self.type]) + self.public)}"

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """Read a vkey. Raises LogError, also when its key id is not that of the name and key."""
        parts = text.split("+", 2) if isinstance(text, str) else []  # the base64 may hold + itself
        if len(parts) != 3 or not _KEY_ID.fullmatch(parts[1]):
            raise LogError("A verifier key has the form name+id+key.")
        try:
            raw = shapes.b64_decode(parts[2], "The verifier key", size=1 + signing.PUBLIC_SIZE)
        except FormatError as error:
            raise LogError(str(error)) from None
        key = cls(parts[0], raw[1:], raw[0])
        if key.key_id.hex() != parts[1]:
            raise LogError("The verifier key carries the id of another key: it was changed or mistyped.")
        return key


def vkey(name: str, public: bytes, type_: int = LOG_KEY) -> str:
    """The verifier key text of a raw Ed25519 public key."""
    return str(Verifier(name, public, type_))


@dataclass(frozen=True, slots=True)
class Note:
    """A parsed note: the exact signed text (with its final newline) and (name, key id, signature) lines."""

    text: str
    signatures: tuple[tuple[str, bytes, bytes], ...]


def parse_note(data: bytes) -> Note:
    """Split a note into text and signatures. Nothing is verified yet. Raises LogError."""
    if len(data) > MAX_NOTE_BYTES:
        raise LogError(f"The signed note is longer than {MAX_NOTE_BYTES} bytes.")
    try:
        whole = data.decode("utf-8")
    except UnicodeError:
        raise LogError("The signed note is not UTF-8 text.") from None
    if any(ord(char) < 0x20 and char != "\n" for char in whole):
        raise LogError("The signed note holds control characters.")
    text, gap, lines = whole.rpartition("\n\n")
    if not gap or not lines.endswith("\n"):
        raise LogError("The signed note must be text, an empty line, and signature lines.")
    rows = lines[:-1].split("\n")
    if len(rows) > MAX_SIGNATURES:
        raise LogError(f"The signed note has more than {MAX_SIGNATURES} signatures.")
    return Note(text + "\n", tuple(_parse_signature(row) for row in rows))


def _parse_signature(row: str) -> tuple[str, bytes, bytes]:
    name, space, encoded = row.removeprefix(_DASH).partition(" ")
    try:
        raw = shapes.b64_decode(encoded, "A signature of the note")
    except FormatError as error:
        raise LogError(str(error)) from None
    if not row.startswith(_DASH) or not space or not _is_key_name(name) or len(raw) < 5:
        raise LogError("A signature line of the note does not have the form: dash, key name, base64.")
    return name, raw[:4], raw[4:]


def _signature_line(key: Verifier, signature: bytes) -> str:
    return f"{_DASH}{key.name} {shapes.b64_encode(key.key_id + signature)}\n"


def _is_key_name(name: str) -> bool:
    return bool(name) and not any(char.isspace() or char == "+" or ord(char) < 0x20 for char in name)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: the log's origin, its number of leaves, and the root hash (32 raw bytes)."""

    origin: str
    size: int
    root: bytes


def checkpoint_body(checkpoint: Checkpoint) -> str:
    """The three lines that are signed."""
    return f"{checkpoint.origin}\n{checkpoint.size}\n{shapes.b64_encode(checkpoint.root)}\n"


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> bytes:
    """The signed note of a tree head; the key's name is the origin. Raises LogError."""
    verifier = Verifier(checkpoint.origin, key.public)
    body = checkpoint_body(checkpoint)
    _parse_body(body)
    return (body + "\n" + _signature_line(verifier, key.sign(body.encode()))).encode()


def open_checkpoint(data: bytes, log: Verifier) -> Checkpoint:
    """The tree head, once the log's key is known to have signed it.

    Other signatures are ignored. Raises LogError if there is none by the log, if one does not verify, if the
    origin is not the key's name, or if the text has extension lines (nothing here would check them).
    """
    note = parse_note(data)
    found = [
        signature for name, key_id, signature in note.signatures if (name, key_id) == (log.name, log.key_id)
    ]
    if log.type != LOG_KEY or not found:
        raise LogError(f"The checkpoint is not signed by the log {log.name!r} with the expected key.")
    if not all(signing.verify(log.public, signature, note.text.encode()) for signature in found):
        raise LogError("The log's signature does not match the checkpoint: one of them was changed.")
    checkpoint = _parse_body(note.text)
    if checkpoint.origin != log.name:
        raise LogError(f"The checkpoint is of the log {checkpoint.origin!r}, not of {log.name!r}.")
    return checkpoint


def _parse_body(text: str) -> Checkpoint:
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not lines[0]:
        raise LogError("A checkpoint has exactly three lines: origin, size and root hash.")
    if not _SIZE.fullmatch(lines[1]) or int(lines[1]) >= 1 << 63:
        raise LogError("The checkpoint's tree size is not a plain decimal number.")
    try:
        root = shapes.b64_decode(lines[2], "The checkpoint's root", size=32)
    except FormatError as error:
        raise LogError(str(error)) from None
    return Checkpoint(lines[0], int(lines[1]), root)


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A witness's word that it saw only consistent heads of the log up to this one, at `at`."""

    name: str
    at: datetime


def cosign(data: bytes, witness: Verifier, key: SigningKey, *, at: datetime) -> bytes:
    """The checkpoint with a cosignature/v1 line of a witness. The caller must have checked consistency first.

    Raises LogError for a key of another type or a private key that is not the witness's.
    """
    if witness.type != COSIGNER_KEY or witness.public != key.public:
        raise LogError("A cosignature needs the witness's own key, of type 04.")
    note = parse_note(data)
    _parse_body(note.text)
    if at.tzinfo is None or at.timestamp() < 0:
        raise LogError("The time of a cosignature must be an aware time after 1970.")
    seconds = int(at.timestamp())
    signature = seconds.to_bytes(8, "big") + key.sign(_cosigned(note.text, seconds))
    return data + _signature_line(witness, signature).encode()


def verify_cosignatures(data: bytes, witnesses: Iterable[Verifier]) -> list[Cosignature]:
    """The valid cosignatures of the given witnesses, one of each (its latest). Unknown ones are ignored.

    Raises LogError if a line carries a witness's name and key id but does not verify.
    """
    note = parse_note(data)
    found = []
    for witness in witnesses:
        times = [
            _cosignature_time(note.text, witness, signature)
            for name, key_id, signature in note.signatures
            if (name, key_id) == (witness.name, witness.key_id) and witness.type == COSIGNER_KEY
        ]
        if times:
            found.append(Cosignature(witness.name, max(times)))
    return found


def _cosigned(text: str, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def _cosignature_time(text: str, witness: Verifier, signature: bytes) -> datetime:
    seconds = int.from_bytes(signature[:8], "big")
    good = len(signature) == 8 + signing.SIGNATURE_SIZE and seconds < 1 << 63
    if not good or not signing.verify(witness.public, signature[8:], _cosigned(text, seconds)):
        raise LogError(f"The cosignature of the witness {witness.name!r} does not match the checkpoint.")
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        raise LogError(f"The cosignature of the witness {witness.name!r} has an impossible time.") from None
