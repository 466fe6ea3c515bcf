"""The whole stack, with a project of a few lines in the portal's place."""

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.embedded.project import RunningStack, clean_environment, make_project, processes_naming

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    yield make_project(tmp_path / "checkout")
    left = processes_naming(str(tmp_path))
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, f"still running after the test: {left}"


def get(stack: RunningStack, path: str) -> str:
    found = re.search(r"answers at (http://127\.0\.0\.1:\d+)", stack.text)
    assert found
    with urllib.request.urlopen(found[1] + path, timeout=10) as response:
        return response.read().decode()


def command(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infra.embedded", *arguments],
        cwd=project, env=clean_environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def pid_of(project: Path, name: str) -> int:
    line = next(line for line in command(project, "status").stdout.splitlines() if line.startswith(name))
    found = re.search(r"process (\d+)", line)
    assert found, line
    return int(found[1])


def wait_until(condition: object, seconds: float = 40) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.2)


def notes(project: Path) -> list[str]:
    path = project / "var" / "notes"
    return path.read_text().split("\n") if path.exists() else []


def test_a_day_of_the_stack(project: Path) -> None:
    """One long test, because each start costs seconds: start, look, second start refused, stop, start again, down."""
    stack = RunningStack(project)
    stack.wait_for("Ctrl-C stops everything")
    assert get(stack, "/health/ready") == "0"
    assert get(stack, "/add?name=ada") == "added"
    wait_until(lambda: "tick" in notes(project))  # beat sent, broker carried, worker did

    status = command(project, "status")
    assert status.returncode == 0, status.stdout
    assert status.stdout.count("running, process") == 5
    assert "portal    ready" in status.stdout

    second = command(project, "up")
    assert second.returncode == 1
    assert "already running" in second.stderr
    assert str(stack.process.pid) in second.stderr
    refused = command(project, "clean")
    assert refused.returncode == 1
    assert "already running" in refused.stderr

    exports = command(project, "env").stdout
    assert "export DATABASE_URL=postgres://" in exports
    assert "export STRONGROOM_VAR=" in exports

    # A run that the worker detached ends with the stack; nothing else of ours does.
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    get(stack, "/start-run")
    wait_until(lambda: any(note.startswith("run ") for note in notes(project)))
    run = int(next(note for note in notes(project) if note.startswith("run ")).split()[1])
    os.kill(run, 0)
    assert stack.stop() == 0
    assert not Path(f"/proc/{run}").exists()
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
    assert not processes_naming(str(project))
    assert command(project, "status").returncode == 1

    stack = RunningStack(project)
    stack.wait_for("Ctrl-C stops everything")
    assert get(stack, "/health/ready") == "1"
    assert command(project, "down").returncode == 0
    assert stack.process.wait(10) == 0
    assert not processes_naming(str(project))

    assert command(project, "clean").returncode == 0
    assert not (project / "var").exists()


def test_what_dies_is_started_again_and_runs_go_on(project: Path) -> None:
    stack = RunningStack(project)
    stack.wait_for("Ctrl-C stops everything")
    get(stack, "/start-run")
    wait_until(lambda: any(note.startswith("run ") for note in notes(project)))
    run = int(next(note for note in notes(project) if note.startswith("run ")).split()[1])
    for name in ("worker", "postgres", "valkey", "web"):
        before = pid_of(project, name)
        os.kill(before, signal.SIGKILL)
        stack.wait_for(f"{name} ended (killed by SIGKILL); starting it again")
        stack.wait_for(f"{name} started again")
        assert pid_of(project, name) != before
    os.kill(run, 0)
    wait_until(lambda: command(project, "status").returncode == 0)
    count = len(notes(project))
    wait_until(lambda: len(notes(project)) > count)  # work flows again
    assert stack.stop(signal.SIGTERM) == 0
    assert not Path(f"/proc/{run}").exists()


def test_a_killed_manager_leaves_no_server_and_the_next_start_works(project: Path) -> None:
    stack = RunningStack(project)
    stack.wait_for("Ctrl-C stops everything")
    stack.stop(signal.SIGKILL)
    wait_until(lambda: not processes_naming(str(project)))
    stack = RunningStack(project)
    stack.wait_for("Ctrl-C stops everything")
    assert stack.stop() == 0


def test_a_portal_that_does_not_start_says_why_and_leaves_nothing(project: Path) -> None:
    (project / "portal" / "wsgi.py").write_text("raise RuntimeError('no such thing as a portal')\n")
    result = command(project, "up")
    assert result.returncode == 1
    assert "Worker failed to boot" in result.stderr  # the last lines; the whole story is in the log
    assert "no such thing as a portal" in (project / "var" / "log" / "web.log").read_text()
    assert "web.log" in result.stderr
    assert not processes_naming(str(project))


def test_ctrl_c_while_it_starts(project: Path) -> None:
    stack = RunningStack(project)
    stack.wait_for("postgres  started")
    assert stack.stop() == 130
    assert not processes_naming(str(project))


@pytest.mark.parametrize("code", [0, 3])
def test_demo_exits_with_the_code_of_its_story(project: Path, code: int) -> None:
    stack = RunningStack(project, "demo", "--exit", "--quick", env={"STORY_EXIT": str(code)})
    assert stack.process.wait(90) == code, stack.text
    assert "story at http://127.0.0.1:" in stack.text
    assert "['--quick']" in stack.text
    assert not processes_naming(str(project))


def test_a_taken_port_is_passed_over_unless_it_was_asked_for(project: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = subprocess.run(
            [sys.executable, "-m", "infra.embedded", "up"], cwd=project, capture_output=True, text=True, timeout=60,
            env=clean_environment() | {"STRONGROOM_PORT": str(port)},
        )  # fmt: skip
    assert result.returncode == 1
    assert f"Port {port} is taken" in result.stderr
    assert not processes_naming(str(project))


def usable_by(uid: int) -> bool:
    try:
        return subprocess.run([sys.executable, "-c", "import psycopg"], user=uid, cwd="/").returncode == 0
    except PermissionError:
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
def test_as_an_ordinary_user(project: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    home = Path("/tmp") / f"strongroom-nobody-{os.getpid()}"  # pytest's own folders are closed to others
    shutil.copytree(project, home)
    try:
        for path in [home, *home.rglob("*")]:
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        if not usable_by(nobody.pw_uid):
            pytest.skip("this Python environment lies where an ordinary user cannot read it")
        (home / "terminal.txt").unlink(missing_ok=True)
        stack = RunningStack(home, user=nobody.pw_uid)
        stack.wait_for("Ctrl-C stops everything")
        assert get(stack, "/health/ready") == "0"
        assert stack.stop() == 0
        assert not processes_naming(str(home))
    finally:
        shutil.rmtree(home)
