"""A real portal for the tests of this folder: PostgreSQL, Valkey, web, Celery workers and beat, in a folder of its own.

Not the stack of infra.embedded: here a test decides who dies and when somebody starts again. Doors to it: HTTP, the
database read-only by SQL, the processes' ids. The workers can be made to wait at named points (worker.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psycopg

from infra.demo.web import Person
from infra.embedded.layout import ROOT, child_environment
from infra.embedded.process import Child, Spec
from infra.embedded.services import Services
from strongroom import seal
from workers.backends import processes

MB = 1 << 20
LIMITS = {
    "cpu_seconds": 20, "wall_seconds": 15, "memory_bytes": 400 * MB, "disk_bytes": 64 * MB, "file_bytes": 24 * MB,
    "processes": 40,
}  # fmt: skip
PATIENCE = 240.0  # seconds: more than the leases of a worker that died (60 and 30) and the start of another
FINAL = ("succeeded", "failed", "cancelled")


class Portal:
    """One installation. `with Portal() as portal:` starts it and removes all of it afterwards."""

    def __init__(self) -> None:
        self.var = Path(tempfile.mkdtemp(prefix="strongroom-runs-"))
        self.world: dict[str, Any] = {}
        self.workers: list[Child] = []
        self.web: Child | None = None
        self.beat: Child | None = None
        self._people: dict[str, Person] = {}
        self._apis: dict[str, Api] = {}

    # Life

    def __enter__(self) -> Portal:
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _start(self) -> None:
        # With what keeps data over a crash: a test kills the database, and what it had said must still be so.
        self.services = Services(self.var, fast=False)
        self.services.start()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("STRONGROOM_", "DJANGO_", "PYTEST_", "PYTHONPATH"))
        }
        self.env = child_environment(
            self.services.layout,
            database_url=self.services.database_url,
            redis_url=self.services.redis_url,
            url=self.url,
            environ=environ,
        )
        self.env |= {"STRONGROOM_RUN_LIMITS": json.dumps(LIMITS), "PYTHONDONTWRITEBYTECODE": "1"}
        self.env["STRONGROOM_TEST_PAUSES"] = str(self.pauses)
        self.pauses.mkdir()
        self._once([sys.executable, "manage.py", "migrate", "--noinput", "--verbosity=0"])
        # Before the web: it reads the list of static files once, when it starts.
        self._once([sys.executable, "manage.py", "collectstatic", "--noinput", "--verbosity=0"])
        self.start_web()
        self.world = json.loads(
            self._once([sys.executable, "-m", "tests.integration.runs.build"]).splitlines()[-1]
        )
        self.start_worker()
        self.start_beat()
        until(
            lambda: httpx.get(f"{self.url}/login", trust_env=False, timeout=30).status_code == 200,
            lambda: f"a portal whose pages answer; its log ends {self._end_of_log('web')}",
        )

    def _end_of_log(self, name: str) -> str:
        return (self.var / "log" / f"{name}.log").read_text(errors="replace")[-3000:]

    def __exit__(self, *exc_info: object) -> None:
        for person in self._people.values():
            person._http.close()
        children = [child for child in (self.beat, *self.workers, self.web) if child is not None]
        for child in children:
            child.ask()
        for child in children:
            child.stop(patience=2)
        self.end_machines()
        if hasattr(self, "services"):
            self.services.stop()
        if hasattr(self, "listener"):
            self.listener.close()
        shutil.rmtree(self.var, ignore_errors=True)

    def end_machines(self) -> list[str]:
        """Destroy whatever runs are left of this installation; returns the folders that lay in memory."""
        left = list(Path("/dev/shm").glob(f"{self.memory_prefix}*"))
        for folder in left:
            for pid in processes.find_by_argument(str(folder)):
                processes.kill_tree(pid)
            subprocess.run(["rm", "-rf", "--", str(folder)], check=False)
        return [folder.name for folder in left]

    @property
    def memory_prefix(self) -> str:
        return f"strongroom-{hashlib.sha256(str((self.var / 'runs').resolve()).encode()).hexdigest()[:8]}-"

    def _once(self, command: Sequence[str]) -> str:
        done = subprocess.run(
            list(command), cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=180
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
        return done.stdout

    def _child(self, name: str, command: Sequence[str], **more: Any) -> Child:
        return Child(
            Spec(name=name, command=command, env=self.env, log=self.var / "log" / f"{name}.log", **more)
        )

    def start_web(self) -> None:
        number = self.listener.fileno()
        command = [
            sys.executable, "-m", "gunicorn", "tests.integration.runs.web:application", "--bind", f"fd://{number}", "--worker-class",
            "gthread", "--workers", "1", "--threads", "12", "--timeout", "60", "--keep-alive", "75", "--no-control-socket",
        ]  # fmt: skip
        self.web = self._child("web", command, pass_fds=[number])

    def start_worker(self) -> Child:
        name = f"worker{len(self.workers)}"
        command = [
            sys.executable, "-m", "tests.integration.runs.worker", "-A", "portal", "worker", "--hostname", f"{name}@localhost",
            "--concurrency", "2", "--prefetch-multiplier", "1", "--without-gossip", "--without-mingle", "--loglevel", "info",
        ]  # fmt: skip
        self.workers.append(self._child(name, command))
        return self.workers[-1]

    def start_beat(self) -> None:
        schedule = str(self.var / "beat" / "schedule")
        command = [
            sys.executable, "-m", "celery", "-A", "portal", "beat", "--loglevel", "warning", "--schedule", schedule, "--pidfile", "",
        ]  # fmt: skip
        self.beat = self._child("beat", command)

    def kill_web(self) -> None:
        assert self.web is not None
        os.killpg(self.web.pid, signal.SIGKILL)
        self.web.process.wait(10)

    def _start_again_what_ended(self) -> None:
        """As the stack's manager does with a worker that ended by itself: one whose broker goes away may (kombu 5.7)."""
        for worker in [worker for worker in self.workers if (worker.process.poll() or 0) > 0]:
            self.workers.remove(worker)
            self.start_worker()

    def kill_workers(self) -> None:
        """As the kernel does it: SIGKILL, the whole group, no time to say anything."""
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.process.wait(10)
        self.workers.clear()

    def hold(self, *points: str) -> None:
        """From now on a worker or the web that comes to one of these points waits there."""
        for point in points:
            (self.pauses / f"{point}.here").unlink(missing_ok=True)
            (self.pauses / point).touch()

    def let_go(self) -> None:
        for file in self.pauses.iterdir():
            file.unlink()

    def waits_at(self, point: str) -> bool:
        """Whether somebody has come to this point since it was held."""
        return (self.pauses / f"{point}.here").exists()

    @property
    def pauses(self) -> Path:
        return self.var / "pauses"

    # Looking

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.services.database_url, autocommit=True, connect_timeout=5) as connection:
            return connection.execute(query, values).fetchall()  # type: ignore[call-overload, no-any-return]

    def run(self, pk: str) -> dict[str, Any]:
        columns = "state, code, phase, attempt, machine, program_started, exit_class, exception_type, exception_line, exception_file, outputs_opened, machine_gone, statement_sha256, log_object, heartbeat_at"
        return dict(
            zip(
                columns.split(", "),
                self.sql(f"SELECT {columns} FROM jobs_run WHERE id = %s", pk)[0],
                strict=True,
            )
        )

    def ended(self, pk: str, seconds: float = PATIENCE) -> dict[str, Any]:
        """The run's row once it has ended, its machine is gone and its outputs are opened."""
        row: dict[str, Any] = {}

        def look() -> bool:
            row.update(self.run(pk))
            self._start_again_what_ended()
            opened = row["outputs_opened"] or not row["statement_sha256"]
            return row["state"] in FINAL and row["machine_gone"] and opened

        until(look, lambda: f"end of run {pk}: {row}", seconds)
        if row["machine"]:
            assert not Path(f"/dev/shm/{self.memory_prefix}{row['machine']}").exists()
            assert not (self.var / "runs" / row["machine"]).exists()
        return row

    def program_runs(self, pk: str) -> None:
        """Wait until the program of the run has been started."""
        row: dict[str, Any] = {}

        def look() -> bool:
            row.update(self.run(pk))
            self._start_again_what_ended()
            assert row["state"] not in FINAL, row
            return bool(row["program_started"])

        until(look, lambda: f"program under way: {row}", PATIENCE, every=0.05)

    def supervisor(self, pk: str) -> int:
        """The process id of the run's supervisor."""
        return int(
            json.loads((self.var / "runs" / self.run(pk)["machine"] / "process.json").read_text())["pid"]
        )

    def texts(self) -> str:
        """Every value of every column of the database, as text, and every log of this installation."""
        tables = self.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        parts = [str(self.sql(f'SELECT t.*::text FROM "{name}" t')) for (name,) in tables]
        parts += [path.read_text(errors="replace") for path in (self.var / "log").iterdir()]
        return "\n".join(parts)

    # People

    def at(self, who: str) -> Person:
        """Somebody signed in at the pages: member, lead, custodian, checker0, checker1, auditor, operator, outsider."""
        if who not in self._people:
            person = self.world["people"][who]
            self._people[who] = Person(self.url, person["email"], self.world["password"]).sign_in()
        return self._people[who]

    def api(self, who: str) -> Api:
        """The same by token."""
        if who not in self._apis:
            self._apis[who] = Api(self.url, self.world["people"][who]["token"])
        return self._apis[who]

    # Steps

    def submit(self, content: bytes, filename: str = "program.py", **more: str) -> dict[str, Any]:
        """Submit a program as the member does; its rehearsal starts by itself. Returns the program as the API shows it."""
        data = {"name": "attack", "datasets": self.world["dataset"], "submission": uuid.uuid4().hex, **more}
        files = {"file": (filename, io.BytesIO(content))}
        answer = self.api("member").http.post(
            f"/projects/{self.world['project']}/programs", data=data, files=files
        )
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def upload(
        self, plain: bytes, media_type: str = "text/csv", *, by: str = "custodian", dataset: str = "draft"
    ) -> str:
        """Seal a file as a custodian's machine does and upload it; returns the version, whose check then begins."""
        api, name = self.api(by), self.world[f"{dataset}_id"]
        broker = seal.PublicKey.from_json(api.get("/broker-key"))
        size = seal.ciphertext_size(len(plain))
        version = api.post(
            f"/datasets/{self.world[dataset]}/versions", {"media_type": media_type, "announced_size": size}
        )
        key, out = seal.generate_data_key(), io.BytesIO()
        result = seal.seal_stream(io.BytesIO(plain), out, key, seal.aad_dataset(name, version["number"]))
        headers = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
        sent = api.http.patch(f"/versions/{version['id']}/content", content=out.getvalue(), headers=headers)
        assert sent.status_code == 204, sent.text
        wrapped = seal.wrap_key(key, broker, seal.info_data_key(name, version["number"]))
        header = seal.seal_header(
            dataset=name,
            version=version["number"],
            suite=broker.suite,
            recipient=broker.id,
            wrapped_key=wrapped,
            result=result,
            media_type=media_type,
        )
        api.post(f"/versions/{version['id']}/finish", header.to_json())
        return str(version["id"])

    def approve(self, program: str) -> None:
        decision = {"dataset": self.world["dataset"], "approve": True}
        self.api("custodian").post(f"/programs/{program}/decisions", decision)

    def research(self, program: str) -> str:
        return str(
            self.api("member").post(f"/programs/{program}/runs", {"submission": uuid.uuid4().hex})["id"]
        )


class Api:
    """Calls of /api/v1 with a token."""

    def __init__(self, url: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self.http = httpx.Client(base_url=f"{url}/api/v1", headers=headers, timeout=60, trust_env=False)

    def get(self, path: str) -> Any:
        answer = self.http.get(path)
        assert answer.status_code == 200, (answer.status_code, answer.text[:2000])
        return answer.json()

    def post(self, path: str, body: Any) -> Any:
        answer = self.http.post(path, json=body)
        assert answer.status_code < 300, (answer.status_code, answer.text[:2000])
        return answer.json() if answer.content else None


def until(
    check: Callable[[], Any], what: str | Callable[[], str], seconds: float = PATIENCE, *, every: float = 0.1
) -> None:
    """Wait for `check`; a portal or database that is away for a moment counts as "not yet"."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(psycopg.OperationalError, httpx.TransportError):
            if check():
                return
        assert time.monotonic() < deadline, (
            f"after {seconds:.0f} seconds still no {what() if callable(what) else what}"
        )
        time.sleep(every)


@contextlib.contextmanager
def timed(store: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    store[name] = time.monotonic() - began
