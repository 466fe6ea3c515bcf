"""All five processes: started in order, watched, restarted with back-off, stopped in order."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType

from infra.embedded import process
from infra.embedded.layout import ROOT, Failure, Layout, child_environment, web_socket, write_json
from infra.embedded.lock import Lock
from infra.embedded.postgres import Postgres
from infra.embedded.process import Child, Spec
from infra.embedded.valkey import Valkey

START_ORDER = ("postgres", "valkey", "web", "worker", "beat")
STOP_ORDER = ("web", "beat", "worker", "valkey", "postgres")
FIRST_WAIT, LONGEST_WAIT, STEADY_AFTER = 1.0, 30.0, 60.0


class Interrupted(Exception):
    """Ctrl-C or SIGTERM came while the stack was starting."""


class Watched:
    """A child that should always run: how often it died, and when it may be started again."""

    def __init__(self, name: str, start: Callable[[], Child], address: str = "") -> None:
        self.name = name
        self.start = start
        self.address = address
        self.child: Child | None = None
        self.restarts = 0
        self.wait = FIRST_WAIT
        self.due = 0.0


class Stack:
    """The embedded stack on one var/ folder.

        with Stack(layout) as stack:    # takes the lock; raises Failure if another stack has it
            stack.up()                  # returns when the portal answers
            stack.watch()               # returns at Ctrl-C or SIGTERM

    Leaving stops everything that it started, and nothing else.
    """

    def __init__(self, layout: Layout, *, say: Callable[[str], None] | None = None) -> None:
        self.layout = layout
        self.say = say or _say
        self.url = ""
        self.env: dict[str, str] = {}
        self.watched: dict[str, Watched] = {}
        self._visitor: subprocess.Popen[bytes] | None = None
        self._listener: socket.socket | None = None
        self._signals = 0
        self._ready = False
        self._since = time.time()
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> "Stack":
        self.layout.prepare()
        self._lock = Lock(self.layout.lock_file)
        self._lock.__enter__()
        self.layout.state_file.unlink(missing_ok=True)
        process.adopt_orphans()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            self.down()
        finally:
            if self._listener is not None:
                self._listener.close()
            for number, handler in self._handlers.items():
                signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave us
            self.layout.state_file.unlink(missing_ok=True)
            self._lock.__exit__(None, None, None)

    @property
    def stopping(self) -> bool:
        """True once Ctrl-C or SIGTERM has come."""
        return self._signals > 0

    def up(self) -> None:
        """Start everything and wait until GET /health/ready answers.

        Raises Failure (with the last lines of the log of what failed) or Interrupted.
        """
        began = time.monotonic()
        self._listener = listener = web_socket(self.layout)
        port = listener.getsockname()[1]
        postgres, valkey = Postgres(self.layout), Valkey(self.layout)
        for service in (postgres, valkey):
            self._start(Watched(service.name, service.start))
            # Only now is the port known for certain.
            self.watched[service.name].address = service.address
        self.url = f"http://127.0.0.1:{port}"
        self.env = child_environment(
            self.layout, database_url=postgres.url, redis_url=valkey.url, url=self.url, environ=os.environ
        )
        self._once("migrate", [sys.executable, "manage.py", "migrate", "--noinput"])
        self._once(
            "collectstatic", [sys.executable, "manage.py", "collectstatic", "--noinput", "--verbosity=0"]
        )
        for name, command in self.portal_commands(listener.fileno()).items():
            spec = Spec(
                name=name,
                command=command,
                env=self.env,
                log=self.layout.log / f"{name}.log",
                patience=20,
                pass_fds=[listener.fileno()] if name == "web" else [],
            )
            self._start(Watched(name, partial(Child, spec), self.url if name == "web" else ""))
        self._wait_for_web()
        self.layout.remember_port("web", port)
        self._ready = True
        self._write_state()
        self.say(f"The portal answers at {self.url} after {time.monotonic() - began:.1f} s.")

    def portal_commands(self, listener: int) -> dict[str, Sequence[str]]:
        """How the three processes of the portal are started, by name. `listener` is the web's socket, open in it."""
        python = sys.executable
        return {
            "web": [
                python, "-m", "gunicorn", "portal.wsgi:application", "--bind", f"fd://{listener}",
                "--worker-class", "gthread", "--workers", "2", "--threads", "8", "--timeout", "120",
                # Longer than any client keeps a connection: else it is closed just as the client sends on it.
                "--keep-alive", "75",
                "--graceful-timeout", "10", "--no-control-socket",
            ],
            "worker": [
                python, "-m", "celery", "-A", "portal", "worker", "--hostname", "embedded@localhost",
                "--concurrency", "2", "--prefetch-multiplier", "1", "--without-gossip", "--without-mingle",
                "--loglevel", "info",
            ],
            "beat": [
                python, "-m", "celery", "-A", "portal", "beat", "--loglevel", "warning",
                "--schedule", str(self.layout.beat / "schedule"), "--pidfile", "",
            ],
        }  # fmt: skip

    def watch(self) -> None:
        """Keep everything running until Ctrl-C or SIGTERM."""
        while not self.stopping:
            self._tend()
            time.sleep(0.25)

    def run(self, command: Sequence[str]) -> int:
        """Run a command with the stack's environment while watching the stack; returns its exit code.

        It writes to the terminal but is in a session of its own: Ctrl-C comes to us, we end it and then the stack.
        """
        child = subprocess.Popen(list(command), env=self.env, cwd=ROOT, start_new_session=True)
        self._visitor = child
        try:
            while child.poll() is None and not self.stopping:
                self._tend()
                time.sleep(0.1)
        finally:
            _end_visitor(child)
            self._visitor = None
        return child.returncode if child.returncode >= 0 else 128 - child.returncode

    def down(self) -> None:
        """Stop what runs, in order. A second Ctrl-C while it goes on stops being polite."""
        running = [
            self.watched[name] for name in STOP_ORDER if name in self.watched and self.watched[name].child
        ]
        if not running:
            return
        self._ready = False
        hurry_above = self._signals
        self.say("Stopping ...")
        for part in running:
            if part.name == "valkey":
                self._end_runs(known_names=("valkey", "postgres"))
            assert part.child is not None
            part.child.stop(patience=1 if self._signals > hurry_above else None)
            part.child = None
        process.end_orphans(set(), patience=1)
        self.say("All stopped. The data stays in " + str(self.layout.var))

    def _end_runs(self, known_names: Sequence[str]) -> None:
        """Runs outlive the worker that launched them, so that a worker may be restarted; not the whole stack."""
        known = {c.pid for name in known_names if name in self.watched and (c := self.watched[name].child)}
        if ended := process.end_orphans(known):
            self.say(
                f"Ended {ended} process(es) of runs that were going on; they are taken up again at the next start."
            )

    def _start(self, part: Watched) -> None:
        if self.stopping:
            raise Interrupted
        began = time.monotonic()
        part.child = part.start()
        self.watched[part.name] = part
        self.say(f"{part.name:<9} started, process {part.child.pid} ({time.monotonic() - began:.1f} s)")
        self._write_state()

    def _once(self, name: str, command: Sequence[str]) -> None:
        """A step that has to succeed before the portal starts."""
        began = time.monotonic()
        child = Child(Spec(name=name, command=command, env=self.env, log=self.layout.log / f"{name}.log"))
        try:
            while child.returncode() is None:
                if self.stopping:
                    raise Interrupted
                time.sleep(0.05)
        finally:
            child.stop()
        if child.returncode() != 0:
            raise Failure(f"The step `{name}` failed. The end of {child.spec.log}:\n{child.tail()}")
        self.say(f"{name:<9} done ({time.monotonic() - began:.1f} s)")

    def _wait_for_web(self, seconds: float = 90) -> None:
        until = time.monotonic() + seconds
        answer = "no answer"
        while time.monotonic() < until:
            if self.stopping:
                raise Interrupted
            for name in ("web", "worker", "beat"):
                child = self.watched[name].child
                if child is not None and child.returncode() is not None:
                    raise Failure(f"{name} ended at once. The end of {child.spec.log}:\n{child.tail()}")
            ready, answer = probe(self.url + "/health/ready")
            if ready:
                return
            time.sleep(0.1)
        log = self.layout.log / "web.log"
        raise Failure(
            f"The portal is not ready after {seconds:.0f} s: GET /health/ready says {answer!r}. "
            f"The end of {log}:\n{process.tail(log)}"
        )

    def _tend(self) -> None:
        """Notice what died, start again what is due, reap what was adopted."""
        now = time.monotonic()
        for part in self.watched.values():
            if part.child is not None:
                code = part.child.returncode()
                if code is None:
                    if now - part.child.started > STEADY_AFTER:
                        part.wait = FIRST_WAIT
                    continue
                self.say(f"{part.name} ended ({_why(code)}); starting it again in {part.wait:.0f} s.")
                if text := part.child.tail():
                    self.say(f"The end of {part.child.spec.log}:\n{text}")
                part.child = None
                part.due = now + part.wait
                part.wait = min(part.wait * 2, LONGEST_WAIT)
                self._write_state()
            elif now >= part.due:
                self._start_again(part)
        known = {part.child.pid for part in self.watched.values() if part.child}
        if self._visitor is not None:
            known.add(self._visitor.pid)
        process.orphans(known)

    def _start_again(self, part: Watched) -> None:
        part.restarts += 1
        try:
            part.child = part.start()
        except Failure as failure:
            part.due = time.monotonic() + part.wait
            part.wait = min(part.wait * 2, LONGEST_WAIT)
            self.say(str(failure))
        else:
            self.say(f"{part.name} started again, process {part.child.pid}.")
        self._write_state()

    def _write_state(self) -> None:
        """For `status`, `env` and `down` in another terminal. Holds passwords: mode 0600."""
        write_json(
            self.layout.state_file,
            {
                "ready": self._ready,
                "since": self._since,
                "url": self.url,
                "env": {k: v for k, v in self.env.items() if k in _PUBLISHED},
                "parts": {
                    part.name: {
                        "pid": part.child.pid if part.child else None,
                        "started": process.start_time(part.child.pid) if part.child else None,
                        "address": part.address,
                        "restarts": part.restarts,
                    }
                    for part in self.watched.values()
                },
            },
        )

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1


_PUBLISHED = (
    "DATABASE_URL",
    "REDIS_URL",
    "STRONGROOM_VAR",
    "STRONGROOM_URL",
    "STRONGROOM_PROGRAMS_PYTHON",
    "DJANGO_SETTINGS_MODULE",
)


def probe(url: str) -> tuple[bool, str]:
    """Ask a health address: (True, body) at 200, else (False, what it said or why it could not be asked)."""
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({})
    )  # loopback never goes through a proxy
    try:
        with opener.open(url, timeout=3) as response:
            return response.status == 200, response.read(2000).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return False, f"{error.code} {error.read(500).decode('utf-8', 'replace')}"
    except OSError as error:
        return False, str(error)


def _end_visitor(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is not None:
        return
    child.send_signal(signal.SIGINT)
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _why(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


def _say(text: str) -> None:
    # A terminal that was closed must not keep us from stopping what we started.
    with contextlib.suppress(OSError):
        print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)
