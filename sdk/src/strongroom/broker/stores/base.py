"""A key store: the broker's HPKE key pairs in one file, whose private halves are closed by what the store trusts.

    {"v": 1, "store": "aws", "keys": [{"suite", "public", "id", "created", "state", "box"}]}

`box` is what the protector made of the private half: the bytes themselves (local file), or bytes that only a cloud's
key service opens, bound to this very key (`about`). A private half is in memory for the moment of one unwrap, and is
asked for anew each time: taking the broker's right to the key service away stops every release at once.

States of a key: `current` (new data keys are sealed to it, one a suite), `old` (opens what was sealed before),
`retired` (its private half is gone from the file). Nothing here logs, and no `repr` shows a private byte.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from strongroom import seal, shapes, strictjson
from strongroom.broker.errors import KeyStoreError
from strongroom.errors import FormatError, SealError
from strongroom.seal.keys import MLKEM768X25519, SUITES, X25519, PrivateKey, PublicKey

CURRENT, OLD, RETIRED = "current", "old", "retired"
STATES = (CURRENT, OLD, RETIRED)
# The hybrid first: it is preferred. Browsers can seal to X25519 only.
DEFAULT_SUITES = (MLKEM768X25519, X25519)
MAX_BYTES = 1 << 20
PURPOSE = "strongroom/1/broker-key"


class Protector(Protocol):
    """What closes and opens a private half. Both raise KeyStoreError (unreachable, refused, malformed)."""

    @property
    def kind(self) -> str:
        """Its name in the file and in configuration."""

    def protect(self, secret: bytes, about: dict[str, str]) -> dict[str, Any]:
        """Close `secret` (at most 96 bytes), bound to `about`. Gives a JSON object."""

    def reveal(self, box: dict[str, Any], about: dict[str, str]) -> bytes:
        """Open what `protect` gave for the same `about`."""


@dataclass(frozen=True, slots=True)
class Unopened:
    """Closes and opens nothing: for reading public keys without asking a key service."""

    kind: str

    def protect(self, secret: bytes, about: dict[str, str]) -> dict[str, Any]:
        raise KeyStoreError("refused", "The key store was opened for its public keys only.")

    def reveal(self, box: dict[str, Any], about: dict[str, str]) -> bytes:
        raise KeyStoreError("refused", "The key store was opened for its public keys only.")


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One key pair. `created`: RFC 3339, UTC. `box` is empty once the key is retired, and never printed."""

    public: PublicKey
    created: str
    state: str
    box: dict[str, Any] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        return {**self.public.to_json(), "created": self.created, "state": self.state, "box": self.box}

    def public_json(self) -> dict[str, Any]:
        """What anybody may see."""
        return {**self.public.to_json(), "created": self.created, "state": self.state}


def _about(public: PublicKey) -> dict[str, str]:
    return {"purpose": PURPOSE, "key": public.id, "suite": public.suite}


class KeyStore:
    """The key pairs in `path`. Every call reads the file anew, so that a rotation by another process counts at once."""

    def __init__(self, path: Path | str, protector: Protector) -> None:
        self.path = Path(path)
        self._protector = protector

    def __repr__(self) -> str:
        return f"<KeyStore {self._protector.kind} at {self.path}>"

    @property
    def kind(self) -> str:
        return self._protector.kind

    @classmethod
    def create(
        cls,
        path: Path | str,
        protector: Protector,
        *,
        suites: Sequence[str] = DEFAULT_SUITES,
        adopt: Sequence[PrivateKey] = (),
    ) -> KeyStore:
        """A new store with a key pair of each suite. `adopt`: keys of before, each current for its suite.

        Raises KeyStoreError: `exists`, or what the protector raises. Of two that race one creates, the other is told.
        """
        store = cls(path, protector)
        pairs = [*adopt, *(seal.generate_key_pair(s) for s in suites if s not in {k.suite for k in adopt})]
        store.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        data = store._bytes([store._closed(pair) for pair in pairs])
        temporary = store._temporary(data)
        try:
            os.link(temporary, store.path)
        except FileExistsError:
            raise KeyStoreError(
                "exists", f"There is a key store at {store.path} already; it was left alone."
            ) from None
        finally:
            temporary.unlink()
        return store

    @classmethod
    def open(cls, path: Path | str, protector: Protector) -> KeyStore:
        """The store at `path`. Raises KeyStoreError: missing, permissions, malformed (also: of another kind)."""
        store = cls(path, protector)
        store.list_keys()
        return store

    def list_keys(self) -> list[StoredKey]:
        """Every key, newest first within its suite. Raises KeyStoreError."""
        raw = read_private_file(self.path, MAX_BYTES)
        try:
            document = shapes.fields(
                strictjson.loads(raw, max_bytes=MAX_BYTES, what="The key store"),
                "The key store",
                {"v": shapes.exactly(1), "store": shapes.text(20), "keys": shapes.list_of(_stored_key, 1000)},
            )
        except FormatError:
            # The file may hold a private key: what exactly is wrong with it is not repeated.
            raise KeyStoreError(
                "malformed", f"The key store {self.path} is damaged. Restore it from a backup."
            ) from None
        if document["store"] != self._protector.kind:
            raise KeyStoreError(
                "malformed",
                f"The key store {self.path} is of kind {document['store']!r}, but it is to be opened as "
                f"{self._protector.kind!r}. Check the configuration.",
            )
        return list(document["keys"])

    def public_keys(self) -> list[PublicKey]:
        """The keys to seal to, preferred suite first."""
        current = {k.public.suite: k.public for k in self.list_keys() if k.state == CURRENT}
        return [current[s] for s in (MLKEM768X25519, X25519) if s in current]

    def current(self, suite: str) -> PublicKey:
        """The key to seal to in this suite. Raises KeyStoreError (unknown_key)."""
        for key in self.public_keys():
            if key.suite == suite:
                return key
        raise KeyStoreError(
            "unknown_key", f"The key store has no key of suite {suite}. Make one: rotate that suite."
        )

    def find(self, key_id: str) -> StoredKey | None:
        return next((k for k in self.list_keys() if k.public.id == key_id), None)

    def unwrap(self, recipient: str, wrapped: bytes, info: bytes) -> bytes:
        """The data key that was wrapped for the key `recipient` under `info`. In memory only.

        Raises KeyStoreError (unknown_key, retired, and what the protector raises), SealError (it does not open).
        """
        key = self.find(recipient)
        if key is None:
            raise KeyStoreError("unknown_key", f"The key {recipient} is not one of this key broker's.")
        if key.state == RETIRED:
            raise KeyStoreError(
                "retired", f"The key {recipient} was retired: nothing sealed to it opens any more."
            )
        return seal.unwrap_key(wrapped, self._private(key), info)

    def rotate(self, suite: str) -> PublicKey:
        """A new current key of `suite`; the one before becomes old and still opens. Raises KeyStoreError."""
        if suite not in SUITES:
            raise KeyStoreError(
                "unknown_key", f"There is no key suite {suite!r}. Suites: {', '.join(SUITES)}."
            )
        with self._locked():
            made = self._closed(seal.generate_key_pair(suite))
            before = [
                replace(k, state=OLD) if k.public.suite == suite and k.state == CURRENT else k
                for k in self.list_keys()
            ]
            self._write([made, *before])
        return made.public

    def retire(self, key_id: str) -> None:
        """Throw the private half of an old key away, for good. Raises KeyStoreError (unknown_key; refused: current)."""
        with self._locked():
            keys = self.list_keys()
            found = next((k for k in keys if k.public.id == key_id), None)
            if found is None:
                raise KeyStoreError("unknown_key", f"The key {key_id} is not one of this key broker's.")
            if found.state == CURRENT:
                raise KeyStoreError(
                    "refused", f"The key {key_id} is in use. Rotate its suite first, then retire it."
                )
            self._write([replace(k, state=RETIRED, box={}) if k is found else k for k in keys])

    def check(self) -> None:
        """Open every private half once, to see that the key service answers and lets us. Raises KeyStoreError."""
        for key in self.list_keys():
            if key.state != RETIRED:
                self._private(key)

    def _private(self, key: StoredKey) -> PrivateKey:
        secret = self._protector.reveal(key.box, _about(key.public))
        try:
            private = PrivateKey(key.public.suite, secret)
        except SealError:
            private = None
        if private is None or private.public != key.public:
            raise KeyStoreError(
                "malformed", f"The key store {self.path} holds another private key for {key.public.id}."
            )
        return private

    def _closed(self, pair: PrivateKey) -> StoredKey:
        created = shapes.format_time(datetime.now(UTC).replace(microsecond=0))
        about = _about(pair.public)
        key = StoredKey(pair.public, created, CURRENT, self._protector.protect(pair.raw, about))
        self._private(key)  # closing may work where opening does not: then no key may ever be sealed to
        return key

    def _bytes(self, keys: Sequence[StoredKey]) -> bytes:
        return strictjson.canonical({"v": 1, "store": self.kind, "keys": [k.to_json() for k in keys]})

    def _write(self, keys: Sequence[StoredKey]) -> None:
        os.replace(self._temporary(self._bytes(keys)), self.path)

    def _temporary(self, data: bytes) -> Path:
        path = self.path.with_name(f".{self.path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return path

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        handle = os.open(self.path.with_name(f".{self.path.name}.lock"), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def read_private_file(path: Path, maximum: int) -> bytes:
    """The bytes of a regular file of our own that nobody else may read or write. Raises KeyStoreError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise KeyStoreError(
            "missing", f"There is no file {path}. At the first start, make it: strongroom broker init."
        ) from None
    except OSError as error:
        raise KeyStoreError("permissions", f"{path} cannot be read: {error.strerror}.") from None
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise KeyStoreError(
                "permissions",
                f"{path} must be a file of the user that runs this, closed to everybody else. Others may have read "
                "it: make a new key (rotate), then `chmod 600` the file.",
            )
        data = file.read(maximum + 1)
    if len(data) > maximum:
        raise KeyStoreError("malformed", f"{path} is larger than {maximum:,} bytes.")
    return data


def _stored_key(value: Any, where: str) -> StoredKey:
    document = dict(
        shapes.fields(
            value,
            where,
            {
                "suite": shapes.anything,
                "public": shapes.anything,
                "id": shapes.anything,
                "created": shapes.time_text,
                "state": shapes.one_of(*STATES),
                "box": shapes.mapping,
            },
        )
    )
    public = PublicKey.from_json({m: document[m] for m in ("suite", "public", "id")}, where)
    return StoredKey(public, document["created"], document["state"], document["box"])
