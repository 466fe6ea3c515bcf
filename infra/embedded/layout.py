"""Where things lie under var/, which ports are free, which secrets exist, and what environment the children get."""

import contextlib
import json
import os
import secrets
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FIRST_WEB_PORT, LAST_WEB_PORT = 8000, 8099


class Failure(Exception):
    """Something the person at the terminal has to know: what happened and what to do. Printed, never a traceback."""


class Layout:
    """The paths under one var/ folder. Making one touches nothing; `prepare()` makes the folders."""

    def __init__(self, var: Path | str) -> None:
        self.var = Path(var).absolute()
        self.log = self.var / "log"
        self.postgres = self.var / "postgres"
        self.valkey = self.var / "valkey"
        self.beat = self.var / "beat"
        self.run = self.var / "run"
        self.lock_file = self.run / "stack.lock"
        self.state_file = self.run / "stack.json"
        self.ports_file = self.run / "ports.json"

    def prepare(self) -> None:
        """Make the folders, readable by their owner alone.

        Raises Failure when var/ cannot be made or written.
        """
        try:
            self.var.mkdir(parents=True, exist_ok=True)
            self.var.chmod(0o700)
            for folder in (self.log, self.beat, self.run, self.var / "tmp"):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise Failure(
                f"Cannot write to {self.var} ({error.strerror}). It may belong to another user: run as that user, or "
                "set STRONGROOM_VAR to a folder of your own."
            ) from error

    def secret(self, name: str) -> str:
        """A password of this installation: made at the first call, kept in var/secrets/ with mode 0600."""
        folder = self.var / "secrets"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / name
        if not path.exists():
            part = folder / f".{name}.{os.getpid()}"
            part.touch(mode=0o600)
            part.write_text(secrets.token_urlsafe(24))
            with contextlib.suppress(FileExistsError):  # another process was first: its value counts
                os.link(part, path)
            part.unlink()
        return path.read_text()

    def remembered_port(self, name: str) -> int | None:
        """The port this service had last time, so that addresses survive a restart."""
        port = read_json(self.ports_file).get(name)
        return port if isinstance(port, int) else None

    def remember_port(self, name: str, port: int) -> None:
        ports = read_json(self.ports_file)
        if ports.get(name) != port:
            write_json(self.ports_file, {**ports, name: port})


def default_layout(environ: Mapping[str, str] = os.environ) -> Layout:
    """The layout of this checkout, or of the folder that STRONGROOM_VAR names."""
    return Layout(environ.get("STRONGROOM_VAR") or ROOT / "var")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty when there is none or it is broken (these files only save time)."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step, mode 0600."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.touch(mode=0o600)
    part.write_text(json.dumps(value, indent=1))
    part.replace(path)


def port_is_free(port: int) -> bool:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(preferred: int | None = None) -> int:
    """A loopback TCP port that nobody listens on: the preferred one if it can be had."""
    if preferred and port_is_free(preferred):
        return preferred
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def web_socket(layout: Layout, environ: Mapping[str, str] = os.environ) -> socket.socket:
    """The portal's listening socket, on STRONGROOM_PORT if set, else last time's port, else the first free from 8000.

    Held by the manager and handed to the web process: the port cannot be lost between choosing and using it, and while
    web restarts, connections wait instead of failing. Raises Failure when the port asked for is taken, or none is free.
    """
    asked = environ.get("STRONGROOM_PORT", "")
    if asked:
        if not asked.isdigit() or not 0 < int(asked) < 65536:
            raise Failure(f"STRONGROOM_PORT is {asked!r}, not a port. Give a number from 1024 to 65535.")
        if listener := _listen(int(asked)):
            return listener
        raise Failure(
            f"Port {asked} is taken by another program. Stop it, or set STRONGROOM_PORT to another."
        )
    last = layout.remembered_port("web")
    for port in ([last] if last else []) + list(range(FIRST_WEB_PORT, LAST_WEB_PORT + 1)):
        if listener := _listen(port):
            return listener
    raise Failure(
        f"No port from {FIRST_WEB_PORT} to {LAST_WEB_PORT} is free. Set STRONGROOM_PORT to one that is."
    )


def _listen(port: int) -> socket.socket | None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except OSError:
        listener.close()
        return None
    return listener


def child_environment(
    layout: Layout,
    *,
    database_url: str,
    redis_url: str,
    url: str = "",
    environ: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """What every child of the stack gets: the caller's environment and the addresses of this installation."""
    env = dict(environ)
    bin_folder = str(Path(sys.executable).parent)
    path = env.get("PATH", os.defpath)
    if bin_folder not in path.split(os.pathsep):
        env["PATH"] = bin_folder + os.pathsep + path
    env.update(
        service_variables(layout, database_url=database_url, redis_url=redis_url, url=url, environ=environ)
    )
    env["PYTHONUNBUFFERED"] = "1"
    return env


def service_variables(
    layout: Layout,
    *,
    database_url: str,
    redis_url: str,
    url: str = "",
    environ: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """The variables alone, as `python -m infra.embedded env` prints them."""
    programs = environ.get("STRONGROOM_PROGRAMS_PYTHON") or str(ROOT / ".venv-programs" / "bin" / "python")
    variables = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "STRONGROOM_VAR": str(layout.var),
        "STRONGROOM_PROGRAMS_PYTHON": programs,
    }
    if url:
        variables |= {
            "STRONGROOM_URL": url,
            "DJANGO_SETTINGS_MODULE": environ.get("DJANGO_SETTINGS_MODULE") or "portal.settings.embedded",
        }
    return variables
