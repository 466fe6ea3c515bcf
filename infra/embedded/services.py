"""PostgreSQL and Valkey without the portal: for the test suite, and for trying a command by hand."""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from infra.embedded.layout import Layout, child_environment, service_variables
from infra.embedded.postgres import Postgres
from infra.embedded.valkey import Valkey


class Services:
    """Both servers, as a context manager.

        with Services(folder) as services:
            services.database_url, services.redis_url

    `fast` turns off what protects data from a power cut, and Valkey's memory of its messages across a restart.
    Entering raises layout.Failure when a server does not start; leaving stops both, whatever happened.
    """

    def __init__(self, var: Path | str, *, fast: bool = True) -> None:
        self.layout = Layout(var)
        self.layout.prepare()
        self.postgres = Postgres(self.layout, fast=fast)
        self.valkey = Valkey(self.layout, fast=fast)

    @property
    def database_url(self) -> str:
        """For DATABASE_URL. The role may create databases; it is no superuser."""
        return self.postgres.url

    @property
    def redis_url(self) -> str:
        """For REDIS_URL: database 0 of 64."""
        return self.valkey.url

    @property
    def env(self) -> dict[str, str]:
        """DATABASE_URL, REDIS_URL, STRONGROOM_VAR and STRONGROOM_PROGRAMS_PYTHON."""
        return service_variables(self.layout, database_url=self.database_url, redis_url=self.redis_url)

    def start(self) -> None:
        try:
            self.postgres.start()
            self.valkey.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self.valkey.stop()
        self.postgres.stop()

    def restart_postgres(self, *, kill: bool = False) -> None:
        """Stop and start PostgreSQL on the same port: every open connection breaks. `kill`: as by SIGKILL."""
        _halt(self.postgres, kill=kill)
        self.postgres.start()

    def restart_valkey(self, *, kill: bool = False) -> None:
        """Stop and start Valkey on the same port. With `fast` it comes back empty."""
        _halt(self.valkey, kill=kill)
        self.valkey.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _halt(service: Postgres | Valkey, *, kill: bool) -> None:
    if service.child is not None:
        service.child.stop(patience=0 if kill else None)
    service.child = None


def run_with_services(command: Sequence[str], *, environ: Mapping[str, str] = os.environ) -> int:
    """Run a command with both servers in a folder of their own, which is removed afterwards.

    Returns the command's exit code (128 + signal when it was killed). SIGTERM is passed on to the command.
    """
    temporary = tempfile.TemporaryDirectory(prefix="strongroom-services-", ignore_cleanup_errors=True)
    with temporary as folder, Services(folder) as services:
        env = child_environment(
            services.layout,
            database_url=services.database_url,
            redis_url=services.redis_url,
            environ=environ,
        )
        # The command shares our terminal: Ctrl-C reaches it by itself, and we only wait for it to end.
        with subprocess.Popen(list(command), env=env) as process, _signals_passed_to(process):
            code = process.wait()
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _signals_passed_to(process: subprocess.Popen[bytes]) -> Iterator[None]:
    def pass_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, pass_on),
        signal.SIGINT: signal.signal(signal.SIGINT, lambda number, frame: None),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
