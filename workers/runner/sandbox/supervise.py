"""One program, from its start to its end: the watchdog, the log, and what to call the end."""

from __future__ import annotations

import os
import select
import selectors
import signal
import threading
import time
from collections.abc import Callable

from . import bubblewrap, landlock, watch
from .log import CappedLog
from .model import ExitClass, Kind, Limits, Reason, RunSpec, SandboxRefused, SandboxResult, Tick, View
from .start import Started

TICK_SECONDS = 0.05
BEAT_SECONDS = 0.25
_END_SECONDS = 15.0  # for everything to be gone after it was killed
_MEMORY_FLOOR = 0.02  # below this part of the machine's memory the kernel would soon choose for itself
_DISK_RESERVE = 64 * 1024 * 1024
_SCAN_SHARE = 4  # a scan of the folders may take a fifth of our time, no more

_CLASSES = {
    Reason.WALL: ExitClass.TIMED_OUT,
    Reason.CPU: ExitClass.TIMED_OUT,
    Reason.MEMORY: ExitClass.OUT_OF_MEMORY,
    Reason.PROCESSES: ExitClass.FAILED,
    Reason.FILE: ExitClass.DISK_FULL,
    Reason.DISK: ExitClass.DISK_FULL,
    Reason.FILES: ExitClass.DISK_FULL,
    Reason.CANCELLED: ExitClass.CANCELLED,
}


def view(spec: RunSpec, kind: Kind) -> View:
    """The names under which a program will see its folders."""
    return bubblewrap.view(spec) if kind is Kind.BUBBLEWRAP else landlock.view(spec)


def run(
    spec: RunSpec,
    limits: Limits,
    *,
    kind: Kind,
    on_tick: Callable[[Tick], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> SandboxResult:
    """Run a program to its end in a sandbox of this kind; when this returns, every process of it is gone.

    `on_tick` and `cancel` are called about four times a second from another thread, so that a slow one never blinds
    the watchdog; what they raise ends the program and is raised here. Raises SandboxRefused if there is no sandbox:
    then the program has not run. The calling thread must live until the end (the program dies with it).
    """
    oom_before = watch.kernel_oom_kills()
    started = bubblewrap.start(spec, limits) if kind is Kind.BUBBLEWRAP else landlock.start(spec, limits)
    watched = _Watched(started, spec, limits)
    beat = _Beat(watched, on_tick, cancel)
    try:
        watched.until_end(beat)
        code, ended_by = started.status()
    finally:
        beat.stop()
        started.cleanup()
        watched.log.save(spec.log_path)
    if beat.error is not None:
        raise beat.error
    left = watch.usage((spec.workdir, spec.outputs), limits.files * 2)
    reason = watched.reason or _reason(watched, left, limits, code, ended_by, oom_before)
    exit_class = _CLASSES.get(reason) or (ExitClass.SUCCEEDED if code == 0 else ExitClass.FAILED)
    return SandboxResult(
        kind=kind,
        exit_class=exit_class,
        reason=reason,
        return_code=code,
        signal=ended_by,
        cpu_seconds=round(watched.cpu, 3),
        peak_memory=watched.peak,
        wall_seconds=round(watched.ended - watched.began, 3),
        files_written=left.entries,
        log_path=spec.log_path,
    )


def _reason(
    watched: _Watched,
    left: watch.Usage,
    limits: Limits,
    code: int | None,
    ended_by: int | None,
    oom_before: int,
) -> Reason:
    """Which bound ended a program that we did not end; Reason.NONE where nothing shows that one did."""
    if ended_by == signal.SIGXCPU or (ended_by == signal.SIGKILL and watched.cpu >= limits.cpu_seconds):
        return Reason.CPU
    if ended_by == signal.SIGKILL and watch.kernel_oom_kills() > oom_before:
        return Reason.MEMORY
    if ended_by == signal.SIGXFSZ or (code and left.largest >= limits.file_bytes):
        return Reason.FILE
    if code and left.blocks > limits.disk_bytes:
        return Reason.DISK
    return Reason.NONE


class _Watched:
    """A program under the watchdog."""

    def __init__(self, started: Started, spec: RunSpec, limits: Limits) -> None:
        self.started, self.spec, self.limits = started, spec, limits
        self.began = self.ended = time.monotonic()
        self.reason = Reason.NONE
        self.cpu, self.peak, self.memory, self.disk, self.tasks = 0.0, 0, 0, 0, 0
        self.log = CappedLog()
        self._next_scan = 0.0
        self._gone_cpu = 0.0
        self._seen_cpu: dict[int, float] = {}

    def tick(self) -> Tick:
        """The last reading."""
        return Tick(time.monotonic() - self.began, self.cpu, self.memory, self.disk, self.tasks)

    def until_end(self, beat: _Beat) -> None:
        """Read the output and look at the program until it has ended or met a bound; then end all of it."""
        os.set_blocking(self.started.log, False)
        handle = os.pidfd_open(self.started.popen.pid)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(handle, selectors.EVENT_READ)
                selector.register(self.started.log, selectors.EVENT_READ)
                self._loop(selector, handle, beat)
        finally:
            self.ended = time.monotonic()
            self._end(handle)
            os.close(handle)

    def _end(self, handle: int) -> None:
        """Kill whatever is left, wait until it is gone, keep the rest of its output."""
        self.started.kill()
        for fd in (handle, *self.started.gone):
            if not select.select([fd], [], [], _END_SECONDS)[0]:
                raise SandboxRefused(
                    "left_over",
                    "Processes of the program may still be running.",
                    "Restart this machine before the next run.",
                )
        _, word, used = os.wait4(self.started.popen.pid, 0)
        self.started.popen.returncode = os.waitstatus_to_exitcode(word)
        self.cpu = max(self.cpu, used.ru_utime + used.ru_stime)
        for _ in range(64):  # a pipe holds less
            if not self._read():
                return

    def _loop(self, selector: selectors.BaseSelector, handle: int, beat: _Beat) -> None:
        next_look = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= next_look:
                self.reason = self._look(now) or (
                    Reason.CANCELLED if beat.cancelled.is_set() else Reason.NONE
                )
                if self.reason:
                    return
                next_look = time.monotonic() + TICK_SECONDS
            for key, _ in selector.select(max(0.0, next_look - time.monotonic())):
                if key.fd == handle:
                    return
                if not self._read():
                    selector.unregister(self.started.log)

    def _read(self) -> bool:
        """Take one piece of output; False at its end."""
        try:
            data = os.read(self.started.log, 1 << 18)
        except BlockingIOError:
            return True
        self.log.write(data)
        return bool(data)

    def _look(self, now: float) -> Reason:
        """The bound that the program has met, if any. Cheap readings first; dear ones only when they could matter."""
        limits = self.limits
        if now - self.began > limits.wall_seconds:
            return Reason.WALL
        tasks = watch.below(self.started.root, watch.processes())
        self.tasks = sum(task.threads for task in tasks if not task.zombie)
        self._count_cpu(tasks)
        if self.tasks > limits.processes:
            return Reason.PROCESSES
        if self.cpu > limits.cpu_seconds:
            return Reason.CPU
        pids = [task.pid for task in tasks]
        return self._look_at_memory(tasks, pids) or self._look_at_disk(now, pids)

    def _count_cpu(self, tasks: list[watch.Task]) -> None:
        """The larger of two sums, each blind to something: what parents have waited for, and what we have seen."""
        alive = {task.pid: task.cpu for task in tasks}
        self._gone_cpu += sum(cpu for pid, cpu in self._seen_cpu.items() if pid not in alive)
        self._seen_cpu = alive
        waited = sum(task.cpu_with_children for task in tasks)
        self.cpu = max(self.cpu, waited, self._gone_cpu + sum(alive.values()))

    def _look_at_memory(self, tasks: list[watch.Task], pids: list[int]) -> Reason:
        in_files = entries = 0
        for folder in self.started.memory_folders:
            try:
                room = os.statvfs(folder)
            except OSError:
                continue
            in_files += (room.f_blocks - room.f_bfree) * room.f_frsize
            entries += room.f_files - room.f_ffree
        self.memory = sum(task.resident for task in tasks) + in_files
        if self.memory > self.limits.memory_bytes:
            self.memory = watch.private_memory(pids, in_files) + in_files
        self.peak = max(self.peak, self.memory)
        if self.memory > self.limits.memory_bytes or watch.memory_left() < _MEMORY_FLOOR:
            return Reason.MEMORY
        return Reason.FILES if entries > self.limits.files else Reason.NONE

    def _look_at_disk(self, now: float, pids: list[int]) -> Reason:
        if now < self._next_scan:
            return Reason.NONE
        folders = (self.spec.workdir, self.spec.outputs)
        found = watch.usage(folders, self.limits.files)
        self.disk = found.blocks + watch.deleted_files(pids)
        after = time.monotonic()
        self._next_scan = after + max(TICK_SECONDS, _SCAN_SHARE * (after - now))
        if found.beyond:
            return Reason.FILES
        room = min(os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize for folder in folders)
        return Reason.DISK if self.disk > self.limits.disk_bytes or room < _DISK_RESERVE else Reason.NONE


class _Beat:
    """The caller's callbacks, on a thread of their own."""

    def __init__(
        self, watched: _Watched, on_tick: Callable[[Tick], None] | None, cancel: Callable[[], bool] | None
    ) -> None:
        self.cancelled = threading.Event()
        self.error: BaseException | None = None
        self._watched, self._on_tick, self._cancel = watched, on_tick, cancel
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go, name="sandbox-beat", daemon=True)
        if on_tick or cancel:
            self._thread.start()

    def _go(self) -> None:
        try:
            while not self._stop.wait(BEAT_SECONDS):
                if self._on_tick:
                    self._on_tick(self._watched.tick())
                if self._cancel and self._cancel():
                    self.cancelled.set()
                    return
        except BaseException as error:
            self.error = error
            self.cancelled.set()

    def stop(self) -> None:
        """No callback is under way after this."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
