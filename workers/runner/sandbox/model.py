"""What the sandbox is told and what it answers: plain values, no behaviour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Kind(StrEnum):
    """How a program is confined, strongest first."""

    BUBBLEWRAP = "bubblewrap"
    LANDLOCK = "landlock"


class ExitClass(StrEnum):
    """How a program ended. The codes are part of the runner protocol."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    DISK_FULL = "disk_full"
    CANCELLED = "cancelled"


class Reason(StrEnum):
    """Which bound was met, where the exit class alone does not say."""

    NONE = ""
    WALL = "wall_seconds"
    CPU = "cpu_seconds"
    MEMORY = "memory_bytes"
    PROCESSES = "processes"
    FILE = "file_bytes"
    DISK = "disk_bytes"
    FILES = "files"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one program, all processes of it taken together unless said otherwise.

    `processes` counts tasks (processes and their threads), as the kernel's own pids controller does.
    `file_bytes` bounds each single file, `disk_bytes` all that is written, `files` the number of entries.
    """

    cpu_seconds: int
    wall_seconds: float
    memory_bytes: int
    disk_bytes: int
    file_bytes: int
    processes: int
    files: int = 20_000

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) <= 0:
                raise ValueError(f"Limit {name} must be more than 0.")


@dataclass(frozen=True, slots=True)
class RunSpec:
    """A program and all of the machine that it may see.

    `argv[0]` is an absolute path inside `read_only` or the system's folders. `workdir` becomes the current
    folder, `inputs` is read-only, `outputs` is writable; `view()` says under which names the program sees them.
    Run as root, the sandbox gives the three folders to the unprivileged user that the program runs as.
    """

    argv: Sequence[str]
    workdir: Path
    inputs: Path
    outputs: Path
    log_path: Path
    read_only: Sequence[Path] = ()
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """The names under which a program sees its folders."""

    work: str
    inputs: str
    outputs: str
    tmp: str


@dataclass(frozen=True, slots=True)
class Tick:
    """What the watchdog saw last: seconds, bytes, tasks."""

    wall_seconds: float
    cpu_seconds: float
    memory_bytes: int
    disk_bytes: int
    tasks: int


@dataclass(frozen=True, slots=True)
class SandboxResult:
    """How a run of a program ended. `return_code` is None when a signal ended it, `signal` is None otherwise.

    `files_written` counts the entries left in the work and outputs folders.
    """

    kind: Kind
    exit_class: ExitClass
    reason: Reason
    return_code: int | None
    signal: int | None
    cpu_seconds: float
    peak_memory: int
    wall_seconds: float
    files_written: int
    log_path: Path


@dataclass(frozen=True, slots=True)
class Probe:
    """One attempt to get out. `closed` is True only if it was tried from inside, failed there, and works outside."""

    name: str
    closed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The kind that this machine can hold, with its proof. `loopback`: may a program use TCP to itself
    (a notebook kernel does)."""

    kind: Kind
    loopback: bool
    detail: str
    probes: tuple[Probe, ...] = ()


class SandboxRefused(Exception):
    """This machine cannot hold a program, or not this one. `sentence` says why, `remedy` what to do in one sentence."""

    def __init__(self, code: str, sentence: str, remedy: str) -> None:
        super().__init__(f"{sentence} {remedy}".strip())
        self.code = code
        self.sentence = sentence
        self.remedy = remedy
