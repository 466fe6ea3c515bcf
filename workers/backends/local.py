"""The local backend: a machine is a child process of this host in its own session, found again by its folder.

    var/runs/<machine>/       token (read once and removed), process.json (pid, start time), runner.log (capped)
    var/runs/sandbox.json     what the sandbox's self-test proved, and what that rests on
    /dev/shm/strongroom-<installation>-<machine>/    where opened inputs live: memory, mode 0700, gone on destroy

It gives software evidence only. Nothing here remembers anything: a worker that was killed finds every machine again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import subprocess
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from apps.core.keys import key_file
from apps.jobs.models import Run
from workers.backends import processes
from workers.backends.base import MACHINE, BackendError, Sight, checked_name

log = logging.getLogger(__name__)

MAX_LOG = 1 << 20
# A machine younger than this is not swept: its row may have been read before it was written.
GRACE_SECONDS = 60.0
PASSED_ON = ("PATH", "LANG", "TZ", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
MEMORY = Path("/dev/shm")  # noqa: S108  memory-backed on purpose


@dataclass(frozen=True)
class LocalBackend:
    """Children of this host. `memory`: a folder on a memory-backed file system, None where there is none."""

    folder: Path
    memory: Path | None
    python: str
    portal: str
    root: Path

    @classmethod
    def from_settings(cls) -> LocalBackend:
        return cls(
            folder=Path(settings.RUN_DIRECTORY),
            memory=MEMORY if in_memory(MEMORY) else None,
            python=settings.PROGRAMS_PYTHON,
            portal=settings.PORTAL_URL,
            root=Path(settings.BASE_DIR),
        )

    @property
    def sandbox_proof(self) -> Path:
        """Where the sandbox's self-test is remembered; the status page reads it too."""
        return self.folder / "sandbox.json"

    def prepare(self) -> bool:
        """Once for each worker: prove the sandbox and compile the runner, so that no run has to wait for either.

        Returns whether the sandbox holds. A run that finds no proof makes its own, so nothing depends on this.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        env = self._environment(self.folder)
        code = [
            str(self.root / name) for name in ("workers/runner", "workers/programs", "sdk/src/strongroom")
        ]
        try:
            subprocess.run(
                [self.python, "-m", "compileall", "-q", *code], cwd=self.root, env=env, stdin=subprocess.DEVNULL,
                capture_output=True, timeout=120, check=False,
            )  # fmt: skip
            done = subprocess.run(
                [self.python, "-m", "workers.runner.sandbox", str(self.sandbox_proof)], cwd=self.root, env=env,
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            log.warning("local backend: the sandbox could not be tested (%s); each run tests it", error)
            return False
        log.log(
            logging.WARNING if done.returncode else logging.INFO,
            "local backend: sandbox: %s", (done.stderr if done.returncode else done.stdout).strip()[-1000:],
        )  # fmt: skip
        return done.returncode == 0

    def launch(self, run: Run, token: str) -> None:
        """Start the supervisor, unless this machine was started before."""
        machine = checked_name(run.machine)
        if not Path(self.python).exists():
            raise BackendError("launch_failed", f"The programs' Python {self.python} is missing: run make.")
        place = self.folder / machine
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked(place):
            if (place / "process.json").exists() or processes.find_by_argument(str(self._workdir(machine))):
                return
            workdir = self._make_workdir(run)
            token_file = place / "token"
            descriptor = os.open(token_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as f:
                f.write(token)
            self._start(place, workdir, token_file)

    def _start(self, place: Path, workdir: Path, token_file: Path) -> None:
        command = [
            self.python, "-m", "workers.runner", "--environment", "software", "--portal", self.portal,
            "--token-file", str(token_file), "--workdir", str(workdir), "--attester-key", str(key_file("software-attester")),
            "--sandbox-proof", str(self.sandbox_proof),
        ]  # fmt: skip
        env = self._environment(place)
        with (place / "runner.log").open("ab") as output:
            try:
                child = subprocess.Popen(
                    command, cwd=self.root, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    start_new_session=True, close_fds=True,
                )  # fmt: skip
            except OSError as error:
                raise BackendError(
                    "launch_failed", f"The supervisor could not be started: {error.strerror}."
                ) from None
        child.returncode = 0  # it is nobody's child to wait for: observe and destroy take its exit status
        record = {"pid": child.pid, "started": processes.start_time(child.pid), "workdir": str(workdir)}
        temporary = place / ".process.json"
        temporary.write_text(json.dumps(record))
        os.replace(temporary, place / "process.json")

    def _environment(self, home: Path) -> dict[str, str]:
        """The supervisor's whole environment: nothing of the worker's but what is listed."""
        env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        return env | {
            "HOME": str(home),
            "PYTHONPATH": str(self.root / "sdk" / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def observe(self, run: Run) -> Sight:
        """ABSENT: no such folder. GONE: its process has ended, or another one has taken over its pid."""
        machine = checked_name(run.machine)
        place = self.folder / machine
        if not place.is_dir():
            return Sight.ABSENT
        self._cap_log(place)
        if self._pids(machine):
            return Sight.RUNNING
        return Sight.GONE if (place / "process.json").exists() else Sight.ABSENT

    def destroy(self, run: Run) -> None:
        self._destroy(checked_name(run.machine))

    def _destroy(self, machine: str) -> None:
        """End every process of the machine, then remove what it held in memory and on disk."""
        for pid in self._pids(machine):
            if not processes.kill_tree(pid):
                raise BackendError("runner_error", f"A process of {machine} does not end.")
        self._group_left(machine)
        for folder in (self._workdir(machine), self.folder / machine):
            _remove(folder)

    def sweep(self, live_names: Collection[str]) -> list[str]:
        """Destroy machines without a row, once they are older than the grace; returns their names."""
        swept = []
        for machine in self._machines():
            if machine in live_names or self._age(machine) < GRACE_SECONDS:
                continue
            with contextlib.suppress(BackendError):
                self._destroy(machine)
                swept.append(machine)
                log.warning("local backend: removed the orphan machine %s", machine)
        return swept

    def _machines(self) -> set[str]:
        prefix = self._workdir("").name
        names = {p.name for p in self.folder.iterdir()} if self.folder.is_dir() else set()
        for base in {self.memory, self.folder} - {None}:
            if base is not None and base.is_dir():
                names |= {p.name.removeprefix(prefix) for p in base.glob(f"{prefix}*")}
        return {name for name in names if MACHINE.fullmatch(name)}

    def _age(self, machine: str) -> float:
        times = [p.stat().st_mtime for p in (self.folder / machine, self._workdir(machine)) if p.exists()]
        return time.time() - max(times, default=0.0)

    def _workdir(self, machine: str) -> Path:
        """Named after this installation too: others on this host must not sweep it."""
        installation = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:8]
        return (self.memory or self.folder) / f"strongroom-{installation}-{machine}"

    def _make_workdir(self, run: Run) -> Path:
        if self.memory is None and run.inputs.filter(stage=2).exists():
            raise BackendError(
                "no_memory_storage", f"{MEMORY} is not memory-backed, so opened inputs would reach a disk."
            )
        workdir = self._workdir(run.machine)
        _remove(workdir)
        try:
            workdir.mkdir(mode=0o700)  # fails if somebody else has put something there: never theirs
        except OSError as error:
            raise BackendError("launch_failed", f"{workdir} cannot be made: {error.strerror}.") from None
        return workdir

    def _record(self, machine: str) -> tuple[int, int] | None:
        try:
            record = json.loads((self.folder / machine / "process.json").read_text())
            return int(record["pid"]), int(record["started"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _pids(self, machine: str) -> list[int]:
        """The supervisor's pid, by the record or, if a worker died before writing it, by its command line."""
        record = self._record(machine)
        if record is not None:
            pid, started = record
            if processes.start_time(pid) == started:
                return [pid]
            processes.reap(pid)
        return processes.find_by_argument(str(self._workdir(machine)))

    def _group_left(self, machine: str) -> None:
        """What the supervisor left behind when it died: its process group, if the number is still its own."""
        record = self._record(machine)
        if record is None or processes.start_time(record[0]) is not None:
            return
        for pid in processes.members_of_session(record[0], not_before=record[1]):
            processes.kill_tree(pid)

    @contextlib.contextmanager
    def _locked(self, place: Path) -> Iterator[None]:
        with (place / "lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _cap_log(self, place: Path) -> None:
        path = place / "runner.log"
        with contextlib.suppress(OSError):
            if path.stat().st_size > MAX_LOG:
                os.truncate(path, 0)


def in_memory(folder: Path) -> bool:
    """Whether `folder` is the root of a writable memory-backed file system (tmpfs, ramfs)."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return False
    kinds = [fields[2] for fields in mounts if len(fields) > 2 and fields[1] == str(folder)]
    return bool(kinds) and kinds[-1] in ("tmpfs", "ramfs") and os.access(folder, os.W_OK | os.X_OK)


def _remove(folder: Path) -> None:
    """Remove `folder` and what is in it, and touch nothing outside it. Raises BackendError if something is left.

    rm and chmod do it, not shutil: a program may have taken write permission off its folders, or nested them deeper
    than a path can be long. Neither follows links below `folder`.
    """
    for command in ([], ["chmod", "-R", "u+rwx", "--", str(folder)]):
        if not os.path.lexists(folder):
            return
        for step in (command, ["rm", "-rf", "--one-file-system", "--", str(folder)]):
            if step:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    subprocess.run(step, check=False, capture_output=True, timeout=60)
    if os.path.lexists(folder):
        raise BackendError("runner_error", f"{folder} cannot be removed.")
