"""One child process: how it starts, where its output goes, how it stops, how a foreign pid is told apart."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.embedded.layout import ROOT

LAUNCH = Path(__file__).with_name("launch.py")
PR_SET_CHILD_SUBREAPER = 36
LOG_LIMIT = 20_000_000  # bytes; looked at when a process starts, and one older log is kept


@dataclass(frozen=True)
class Identity:
    """Another user for a child to run as. `capability` is kept across the change; -1 for none."""

    uid: int
    gid: int
    capability: int = -1


@dataclass(frozen=True)
class Spec:
    """What to start. `stop_signal` asks it politely; `patience` is how many seconds it then has."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    log: Path
    cwd: Path = ROOT
    stop_signal: signal.Signals = signal.SIGTERM
    patience: float = 10.0
    identity: Identity | None = None
    pass_fds: Sequence[int] = ()


class Child:
    """A started process in a session of its own, so that Ctrl-C in the terminal reaches the manager alone."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.started = time.monotonic()
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        if spec.log.exists() and spec.log.stat().st_size > LOG_LIMIT:
            spec.log.replace(spec.log.with_suffix(".log.1"))
        self._log_start = spec.log.stat().st_size if spec.log.exists() else 0
        with spec.log.open("ab") as log:
            self.process = subprocess.Popen(
                launcher(spec.command, stop_signal=spec.stop_signal, identity=spec.identity),
                cwd=spec.cwd,
                env=dict(spec.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=spec.pass_fds,
            )
        self.pid = self.process.pid

    def returncode(self) -> int | None:
        """None while it runs. When it has just ended, what is left of its process group is ended with it."""
        if self.process.returncode is not None:
            return self.process.returncode
        try:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return self.process.poll()
        if ended is None:
            return None
        # Before the pid is given back to the system, so that the group can only be ours.
        self._signal_group(signal.SIGKILL)
        return self.process.wait()

    def ask(self) -> None:
        """Send the polite signal to the process itself."""
        if self.returncode() is None:
            self.process.send_signal(self.spec.stop_signal)

    def stop(self, patience: float | None = None) -> None:
        """Ask, wait, then kill the whole group. Returns when it is gone."""
        self.ask()
        until = time.monotonic() + (self.spec.patience if patience is None else patience)
        while self.returncode() is None:
            if time.monotonic() > until:
                self._signal_group(signal.SIGKILL)
                self.process.wait()
                return
            time.sleep(0.02)

    def tail(self, lines: int = 20) -> str:
        """The last lines that this process wrote."""
        return tail(self.spec.log, lines=lines, start=self._log_start)

    def _signal_group(self, sig: signal.Signals) -> None:
        try:
            os.killpg(self.pid, sig)
        except (ProcessLookupError, PermissionError):
            pass


def launcher(
    command: Sequence[str], *, stop_signal: signal.Signals = signal.SIGTERM, identity: Identity | None = None
) -> list[str]:
    """The command wrapped so that it ends with this process and runs as the identity asked for."""
    # The kernel's "parent died" means the thread that forked. A helper thread may end at any time: no signal then.
    sig = int(stop_signal) if threading.current_thread() is threading.main_thread() else 0
    who = identity or Identity(-1, -1)
    return [
        sys.executable, "-I", "-S", str(LAUNCH),
        *map(str, (os.getpid(), sig, who.uid, who.gid, who.capability)),
        *command,
    ]  # fmt: skip


def tail(path: Path, *, lines: int = 20, start: int = 0) -> str:
    """The last lines of a file from byte `start` on, read from the end (a log may be long)."""
    try:
        with path.open("rb") as f:
            size = f.seek(0, os.SEEK_END)
            f.seek(max(min(start, size), size - 64 * 1024))
            text = f.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot: with the pid it names one process for ever. None if gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    state_and_on = stat[stat.rindex(b")") + 2 :].split()
    return None if state_and_on[0] in (b"Z", b"X") else int(state_and_on[19])


def adopt_orphans() -> None:
    """Become the parent of any descendant whose own parent ends, so that `end_orphans` finds it."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def orphans(known: set[int]) -> list[int]:
    """Direct children of this process that are not in `known`; those already dead are reaped on the way."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in known:
            continue
        try:
            stat = (entry / "stat").read_bytes()
        except OSError:
            continue
        state, parent = stat[stat.rindex(b")") + 2 :].split()[:2]
        if int(parent) != os.getpid():
            continue
        if state == b"Z":
            try:
                os.waitpid(int(entry.name), os.WNOHANG)
            except ChildProcessError:
                pass
        else:
            found.append(int(entry.name))
    return found


def end_orphans(known: set[int], patience: float = 5.0) -> int:
    """End every adopted descendant, first politely; returns how many there were."""
    seen: set[int] = set()
    polite_until = time.monotonic() + patience
    give_up = polite_until + 5
    while (pids := orphans(known)) and time.monotonic() < give_up:
        for pid in pids:
            late = time.monotonic() > polite_until
            if pid not in seen or late:
                _signal_whole(pid, signal.SIGKILL if late else signal.SIGTERM)
            seen.add(pid)
        time.sleep(0.05)
    return len(seen)


def _signal_whole(pid: int, sig: signal.Signals) -> None:
    """A process that leads its own group is signalled with its group. The pid is our child: it cannot be reused."""
    try:
        if os.getpgid(pid) == pid:
            os.killpg(pid, sig)
        else:
            os.kill(pid, sig)
    except (ProcessLookupError, PermissionError):
        pass
