"""What a broker remembers, in one SQLite file of mode 0600: challenges, decisions and on what, the stop, and its log.

The log is a chain: hash = SHA-256("strongroom/1/broker-log" 0x00 previous hash 0x00 JCS(entry)), the first previous
hash being 32 zero bytes. Every answer names the newest hash, and the portal writes it into its own transparency log: so
a chain that is rewritten later differs from what others hold.

Each call opens its own connection. Writes take the write lock at once (BEGIN IMMEDIATE), so that a decision, the use of
its challenge and its log entry are one.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from strongroom import shapes, strictjson
from strongroom.broker.errors import KeyStoreError
from strongroom.errors import FormatError

CHALLENGE_LIFETIME = timedelta(minutes=10)
KEPT = timedelta(days=1)
KEPT_SHOWN = timedelta(days=30)  # longer than any run is under way
MAX_OPEN_CHALLENGES = 10_000
BUSY_SECONDS = 5.0
FIRST = bytes(32)
_LABEL = b"strongroom/1/broker-log\x00"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS challenge (
    value TEXT PRIMARY KEY, run TEXT NOT NULL, attempt INTEGER NOT NULL, expires TEXT NOT NULL, spent TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS challenge_of ON challenge (run, attempt);
CREATE TABLE IF NOT EXISTS released (
    run TEXT NOT NULL, attempt INTEGER NOT NULL, evidence TEXT NOT NULL, context TEXT NOT NULL, log INTEGER NOT NULL,
    PRIMARY KEY (run, attempt)
) STRICT;
CREATE TABLE IF NOT EXISTS shown (
    run TEXT NOT NULL, attempt INTEGER NOT NULL, at TEXT NOT NULL, context TEXT NOT NULL, envelope BLOB NOT NULL,
    program TEXT NOT NULL, policies TEXT NOT NULL, PRIMARY KEY (run, attempt)
) STRICT;
CREATE TABLE IF NOT EXISTS log (
    number INTEGER PRIMARY KEY, entry TEXT NOT NULL, hash TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS stopped (only INTEGER PRIMARY KEY CHECK (only = 1), since TEXT NOT NULL, reason TEXT NOT NULL) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry stands in the log. `hash`: hex, of the chain up to it."""

    index: int
    hash: str

    def to_json(self) -> dict[str, Any]:
        return {"index": self.index, "hash": self.hash}


@dataclass(frozen=True, slots=True)
class Shown:
    """What a release was decided on, to judge it again. `context`: C1 as JSON; `policies`: hashes by dataset."""

    at: str
    context: str
    envelope: bytes
    program: str
    policies: dict[str, str]


def link(previous: bytes, entry: bytes) -> bytes:
    """The chain's hash after `entry` (canonical JSON)."""
    return hashlib.sha256(_LABEL + previous + b"\x00" + entry).digest()


class State:
    """The file at `path`, made on first use. Raises KeyStoreError (permissions) for one that others may open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise KeyStoreError(
                "permissions",
                f"{path} must be a file of the user that runs this, closed to everybody else (chmod 600).",
            )
        with self._connection() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_SCHEMA)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous=FULL")
            yield connection
        finally:
            connection.close()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One write transaction: all of it or nothing."""
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Transaction(connection)
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise

    def stopped(self) -> tuple[str, str] | None:
        """(since, reason) if the custodian stopped this broker."""
        with self._connection() as connection:
            return Transaction(connection).stopped()

    def shown(self, run: str, attempt: int) -> Shown | None:
        """On what keys were released to this attempt; None where none were, or it was long ago."""
        with self._connection() as connection:
            row = connection.execute(
                "SELECT at, context, envelope, program, policies FROM shown WHERE run = ? AND attempt = ?",
                (run, attempt),
            ).fetchone()
        return Shown(row[0], row[1], bytes(row[2]), row[3], json.loads(row[4])) if row else None

    def head(self) -> Place | None:
        with self._connection() as connection:
            return Transaction(connection).head()

    def entries(self) -> Iterator[tuple[Place, bytes]]:
        """Every entry of the log with its stored place, oldest first."""
        with self._connection() as connection:
            for number, entry, hash_ in connection.execute(
                "SELECT number, entry, hash FROM log ORDER BY number"
            ):
                yield Place(number, hash_), entry.encode()

    def verify(self) -> int:
        """Recompute the chain; returns its length. Raises FormatError naming the first entry that is not right."""
        previous, count = FIRST, 0
        for place, entry in self.entries():
            previous = link(previous, entry)
            if place.index != count or place.hash != previous.hex():
                raise FormatError(
                    f"Entry {count} of the broker's log is missing, or was changed after it was written."
                )
            count += 1
        return count


class Transaction:
    """Reads and writes on one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection

    def stopped(self) -> tuple[str, str] | None:
        row = self._sql.execute("SELECT since, reason FROM stopped").fetchone()
        return (row[0], row[1]) if row else None

    def stop(self, since: datetime, reason: str) -> None:
        self._sql.execute(
            "INSERT OR REPLACE INTO stopped VALUES (1, ?, ?)", (shapes.format_time(since), reason)
        )

    def start(self) -> None:
        self._sql.execute("DELETE FROM stopped")

    def challenge(self, run: str, attempt: int, now: datetime) -> str | None:
        """The attempt's challenge: the open one, else a new one. None where too many are open."""
        moment = shapes.format_time(now)
        row = self._sql.execute(
            "SELECT value FROM challenge WHERE run = ? AND attempt = ? AND spent IS NULL AND expires > ?",
            (run, attempt, moment),
        ).fetchone()
        if row:
            return str(row[0])
        self._sql.execute("DELETE FROM challenge WHERE expires < ?", (shapes.format_time(now - KEPT),))
        open_ = self._sql.execute("SELECT count(*) FROM challenge WHERE expires > ?", (moment,)).fetchone()[0]
        if open_ >= MAX_OPEN_CHALLENGES:
            return None
        value = secrets.token_urlsafe(32)
        self._sql.execute(
            "INSERT INTO challenge VALUES (?, ?, ?, ?, NULL)",
            (value, run, attempt, shapes.format_time(now + CHALLENGE_LIFETIME)),
        )
        return value

    def fault_of(self, value: str, run: str, attempt: int, now: datetime) -> str:
        """Why the challenge cannot be used: "", unknown, foreign, spent or expired."""
        row = self._sql.execute(
            "SELECT run, attempt, expires, spent FROM challenge WHERE value = ?", (value,)
        ).fetchone()
        if row is None:
            return "unknown"
        if (row[0], row[1]) != (run, attempt):
            return "foreign"
        if row[3] is not None:
            return "spent"
        return "expired" if shapes.parse_time(row[2], "expires") <= now else ""

    def spend(self, value: str, run: str, attempt: int, now: datetime) -> None:
        self._sql.execute(
            "UPDATE challenge SET spent = ? WHERE value = ? AND run = ? AND attempt = ? AND spent IS NULL",
            (shapes.format_time(now), value, run, attempt),
        )

    def released(self, run: str, attempt: int) -> tuple[str, str, Place] | None:
        """(evidence, context, place in the log) of what was released to this attempt."""
        row = self._sql.execute(
            "SELECT r.evidence, r.context, l.number, l.hash FROM released r JOIN log l ON l.number = r.log "
            "WHERE run = ? AND attempt = ?",
            (run, attempt),
        ).fetchone()
        return (row[0], row[1], Place(row[2], row[3])) if row else None

    def set_released(self, run: str, attempt: int, evidence: str, context: str, place: Place) -> None:
        self._sql.execute(
            "INSERT INTO released VALUES (?, ?, ?, ?, ?)", (run, attempt, evidence, context, place.index)
        )

    def set_shown(self, run: str, attempt: int, shown: Shown) -> None:
        at = shapes.parse_time(shown.at, "at")
        self._sql.execute("DELETE FROM shown WHERE at < ?", (shapes.format_time(at - KEPT_SHOWN),))
        self._sql.execute(
            "INSERT INTO shown VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                run,
                attempt,
                shown.at,
                shown.context,
                shown.envelope,
                shown.program,
                json.dumps(shown.policies),
            ),
        )

    def append(self, entry: dict[str, Any]) -> Place:
        """Add an entry to the log. Raises FormatError for what canonical JSON cannot hold."""
        raw, head = strictjson.canonical(entry), self.head()
        number, previous = (head.index + 1, bytes.fromhex(head.hash)) if head else (0, FIRST)
        hash_ = link(previous, raw).hex()
        self._sql.execute("INSERT INTO log VALUES (?, ?, ?)", (number, raw.decode(), hash_))
        return Place(number, hash_)

    def head(self) -> Place | None:
        row = self._sql.execute("SELECT number, hash FROM log ORDER BY number DESC LIMIT 1").fetchone()
        return Place(row[0], row[1]) if row else None
