"""The local backend with a real child process: started once, found again, ended with all it held."""

from __future__ import annotations

import json
import os
import stat
import sys
import textwrap
import time
from pathlib import Path

import pytest

from apps.jobs.models import Run
from workers.backends import local, processes
from workers.backends.base import BackendError, Sight
from workers.backends.local import LocalBackend

# Speaks the supervisor's command line; leaves a grandchild behind in its own group, and waits.
SUPERVISOR = textwrap.dedent("""
    import argparse, os, subprocess, sys, time
    from pathlib import Path
    p = argparse.ArgumentParser()
    for name in ("environment", "portal", "token-file", "workdir", "attester-key", "sandbox-proof"): p.add_argument("--" + name)
    o = p.parse_args()
    work = Path(o.workdir)
    (work / "token-was").write_text(Path(o.token_file).read_text())
    Path(o.token_file).unlink()
    (work / "env").write_text("\\n".join(sorted(os.environ)))
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (work / "child").write_text(str(child.pid))
    if (Path.cwd() / "die").exists(): os._exit(3)
    time.sleep(600)
""")


@pytest.fixture
def backend(tmp_path: Path):
    root = tmp_path / "root"
    (root / "workers" / "runner").mkdir(parents=True)
    (root / "workers" / "__init__.py").touch()
    (root / "workers" / "runner" / "__init__.py").touch()
    (root / "workers" / "runner" / "__main__.py").write_text(SUPERVISOR)
    made = LocalBackend(
        folder=tmp_path / "runs",
        memory=Path("/dev/shm") if local.in_memory(Path("/dev/shm")) else None,
        python=sys.executable,
        portal="http://127.0.0.1:1",
        root=root,
    )
    yield made
    for machine in made._machines():
        made._destroy(machine)


@pytest.fixture
def run(db) -> Run:
    made = Run(kind="rehearsal")
    made.machine = f"sr-{made.pk.hex[:12]}-1"
    return made


def until(condition, seconds: float = 10.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return value


def written(backend, run, name: str) -> str:
    path = backend._workdir(run.machine) / name
    return until(lambda: path.exists() and path.read_text())


def record(backend, run) -> dict:
    return json.loads((backend.folder / run.machine / "process.json").read_text())


def test_from_launch_to_nothing_left(backend, run):
    assert backend.observe(run) is Sight.ABSENT
    backend.launch(run, "the-token")
    assert backend.observe(run) is Sight.RUNNING
    assert written(backend, run, "token-was") == "the-token"
    child = int(written(backend, run, "child"))
    workdir = backend._workdir(run.machine)
    assert stat.S_IMODE(workdir.stat().st_mode) == 0o700
    if backend.memory:
        assert str(workdir).startswith("/dev/shm/strongroom-")
    names = set(written(backend, run, "env").split("\n"))
    assert not names & {"DATABASE_URL", "REDIS_URL", "STRONGROOM_SECRET_KEY", "DJANGO_SETTINGS_MODULE"}
    pid = record(backend, run)["pid"]
    assert os.getsid(pid) == pid  # outlives the worker
    for _ in range(2):
        backend.destroy(run)
    assert processes.start_time(pid) is None and processes.start_time(child) is None
    assert backend.observe(run) is Sight.ABSENT
    assert not workdir.exists() and not (backend.folder / run.machine).exists()


def test_launched_twice_is_one_machine(backend, run):
    backend.launch(run, "t")
    pid = record(backend, run)["pid"]
    backend.launch(run, "t")
    assert record(backend, run)["pid"] == pid
    assert len(processes.find_by_argument(str(backend._workdir(run.machine)))) == 1


def test_worker_died_before_it_wrote_the_pid_down(backend, run):
    backend.launch(run, "t")
    pid = record(backend, run)["pid"]
    written(backend, run, "child")
    (backend.folder / run.machine / "process.json").unlink()
    assert backend.observe(run) is Sight.RUNNING
    backend.launch(run, "t")
    assert processes.find_by_argument(str(backend._workdir(run.machine))) == [pid]
    backend.destroy(run)
    assert processes.start_time(pid) is None


def test_another_process_under_the_same_pid(backend, run):
    backend.launch(run, "t")
    pid = record(backend, run)["pid"]
    written(backend, run, "child")
    processes.kill_tree(pid)
    mine = {"pid": os.getpid(), "started": 1, "workdir": ""}
    (backend.folder / run.machine / "process.json").write_text(json.dumps(mine))
    assert backend.observe(run) is Sight.GONE
    backend.destroy(run)  # and we are still here


def test_supervisor_that_died_leaves_nothing(backend, run):
    (backend.root / "die").touch()
    backend.launch(run, "t")
    child = int(written(backend, run, "child"))
    until(lambda: backend.observe(run) is Sight.GONE)
    assert processes.start_time(child) is not None
    backend.destroy(run)
    assert processes.start_time(child) is None
    assert not backend._workdir(run.machine).exists()


def test_folders_that_refuse_removal(backend, run):
    backend.launch(run, "t")
    written(backend, run, "child")
    locked = backend._workdir(run.machine) / "work" / "deep"
    locked.mkdir(parents=True)
    (locked / "file").write_text("x")
    locked.chmod(0o500)
    locked.parent.chmod(0o500)
    backend.destroy(run)
    assert not backend._workdir(run.machine).exists()


def test_removal_touches_nothing_outside(backend, run, tmp_path):
    """Neither the folder around it, nor what a link inside points to, nor the folder of a machine that is not there."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o555)
    around = backend._workdir(run.machine).parent
    before = (stat.S_IMODE(around.stat().st_mode), stat.S_IMODE(backend.folder.parent.stat().st_mode))
    backend.destroy(run)
    backend.launch(run, "t")
    written(backend, run, "child")
    locked = backend._workdir(run.machine) / "locked"
    locked.mkdir()
    (locked / "link").symlink_to(outside)
    locked.chmod(0o500)
    backend.destroy(run)
    assert (stat.S_IMODE(around.stat().st_mode), stat.S_IMODE(backend.folder.parent.stat().st_mode)) == before
    assert stat.S_IMODE(outside.stat().st_mode) == 0o555


def test_deeply_nested_folders(backend, run):
    backend.launch(run, "t")
    written(backend, run, "child")
    here = os.open(backend._workdir(run.machine), os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deeper", dir_fd=here)
        inner = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    backend.destroy(run)
    assert not backend._workdir(run.machine).exists()


def test_sweep_takes_old_orphans_only(backend, run, monkeypatch):
    backend.launch(run, "t")
    written(backend, run, "child")
    assert backend.sweep([run.machine]) == []
    assert backend.sweep([]) == []  # too young to judge
    monkeypatch.setattr(local, "GRACE_SECONDS", -1.0)
    assert backend.sweep([run.machine]) == []
    assert backend.sweep([]) == [run.machine]
    assert backend.observe(run) is Sight.ABSENT


def test_sweep_finds_memory_without_a_folder(backend, run, monkeypatch):
    monkeypatch.setattr(local, "GRACE_SECONDS", -1.0)
    left = backend._workdir(run.machine)
    left.mkdir(parents=True)
    (left / "inputs.csv").write_text("secret")
    other = left.with_name(left.name.replace("strongroom-", "strongroom-x"))
    other.mkdir()
    try:
        assert backend.sweep([]) == [run.machine]
        assert not left.exists() and other.exists()  # another installation's is not ours to remove
    finally:
        other.rmdir()


def test_no_python_for_programs(backend, run):
    broken = LocalBackend(backend.folder, backend.memory, "/nowhere/python", backend.portal, backend.root)
    with pytest.raises(BackendError) as refusal:
        broken.launch(run, "t")
    assert refusal.value.code == "launch_failed"


@pytest.mark.parametrize("name", ["", "../../etc", "sr-x-1", "sr-0123456789ab-0", "sr-0123456789ab-1/.."])
def test_only_our_names(backend, run, name):
    run.machine = name
    for call in (
        lambda: backend.launch(run, "t"),
        lambda: backend.observe(run),
        lambda: backend.destroy(run),
    ):
        with pytest.raises(BackendError):
            call()


def test_no_memory_no_real_data(backend, db, monkeypatch):
    from apps.core import outbox
    from apps.jobs import engine
    from tests.unit.jobs.engine.world import make_world

    monkeypatch.setattr(outbox, "kick", lambda: None)
    world = make_world()
    run = engine.create_run(
        by=world.user,
        kind="research",
        project=world.project,
        program=world.program,
        inputs=[(world.version, None)],
    )
    run.machine = f"sr-{run.pk.hex[:12]}-1"
    on_disk = LocalBackend(backend.folder, None, backend.python, backend.portal, backend.root)
    with pytest.raises(BackendError) as refusal:
        on_disk.launch(run, "t")
    assert refusal.value.code == "no_memory_storage"


def test_log_is_capped(backend, run, monkeypatch):
    monkeypatch.setattr(local, "MAX_LOG", 100)
    backend.launch(run, "t")
    log = backend.folder / run.machine / "runner.log"
    log.write_bytes(b"x" * 101)
    backend.observe(run)
    assert log.stat().st_size == 0
