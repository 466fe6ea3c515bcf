"""What a program uses, read from /proc and from its folders: nothing here trusts the program."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
CLOCK = os.sysconf("SC_CLK_TCK")
MAX_DEPTH = 64  # folders in folders; deeper is nobody's result


@dataclass(slots=True)
class Task:
    """One process of the tree."""

    pid: int
    parent: int
    threads: int
    cpu: float
    cpu_with_children: float
    resident: int
    zombie: bool


def processes() -> dict[int, Task]:
    """Every process of this machine that we can see, by id."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb", buffering=0) as handle:
                fields = handle.read(2048).rpartition(b")")[2].split()
        except OSError:
            continue
        own = (int(fields[11]) + int(fields[12])) / CLOCK
        waited = (int(fields[13]) + int(fields[14])) / CLOCK
        found[int(name)] = Task(
            int(name),
            int(fields[1]),
            int(fields[17]),
            own,
            own + waited,
            int(fields[21]) * PAGE,
            fields[0] == b"Z",
        )
    return found


def below(root: int, table: dict[int, Task]) -> list[Task]:
    """The descendants of a process, without itself. Orphans stay among them: their new parent is one of ours."""
    children: dict[int, list[Task]] = {}
    for task in table.values():
        children.setdefault(task.parent, []).append(task)
    found: list[Task] = []
    todo = [root]
    while todo:
        mine = children.get(todo.pop(), [])
        found += mine
        todo += [task.pid for task in mine]
    return found


def private_memory(pids: Iterable[int], shared_elsewhere: int) -> int:
    """Bytes that these processes hold and the kernel could not drop: each shared page once, no mapped file.

    `shared_elsewhere`: bytes of in-memory files that the caller counts by themselves.
    """
    anonymous = shared = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_bytes()
        except OSError:  # ended, or hidden from us: then the resident size must do
            anonymous += _resident(pid)
            continue
        for line in text.splitlines():
            key, _, value = line.partition(b":")
            if key == b"Pss_Anon":
                anonymous += int(value.split()[0]) * 1024
            elif key == b"Pss_Shmem":
                shared += int(value.split()[0]) * 1024
    return anonymous + max(0, shared - shared_elsewhere)


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def memory_left() -> float:
    """The part of this machine's memory that is still to be had, 0 to 1."""
    values = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(values["MemAvailable"].split()[0]) / int(values["MemTotal"].split()[0])


def kernel_oom_kills() -> int:
    """How often the kernel itself has ended a process for want of memory since it started."""
    for line in Path("/proc/vmstat").read_text().splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


def deleted_files(pids: Iterable[int]) -> int:
    """Bytes on disk of files that have no name any more and that one of these processes holds open."""
    seen: dict[tuple[int, int], int] = {}
    for pid in pids:
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for name in names:
            try:
                status = os.stat(f"/proc/{pid}/fd/{name}")
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


@dataclass(slots=True)
class Usage:
    """What lies in a folder. `beyond`: it has more entries, deeper ones, or closed ones, than we can look at."""

    blocks: int = 0
    entries: int = 0
    largest: int = 0
    beyond: bool = False
    _linked: set[tuple[int, int]] = field(default_factory=set)


def usage(folders: Iterable[Path], max_entries: int) -> Usage:
    """Add up folders while a program may be changing them. Follows no link, holds at most MAX_DEPTH handles."""
    total = Usage()
    for folder in folders:
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        _add(handle, total, max_entries, MAX_DEPTH)
    return total


def _add(handle: int, total: Usage, max_entries: int, depth: int) -> None:
    try:
        with os.scandir(handle) as entries:
            for entry in entries:
                total.entries += 1
                if total.entries > max_entries:
                    total.beyond = True
                    return
                try:
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        total.blocks += status.st_blocks * 512
                        if depth == 0:
                            total.beyond = True
                            return
                        try:
                            inner = os.open(
                                entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle
                            )
                        except PermissionError:  # a folder that its owner closed to us could hold anything
                            total.beyond = True
                            return
                        _add(inner, total, max_entries, depth - 1)
                        if total.beyond:
                            return
                        continue
                except OSError:  # gone meanwhile
                    continue
                if status.st_nlink > 1:
                    if (status.st_dev, status.st_ino) in total._linked:
                        continue
                    total._linked.add((status.st_dev, status.st_ino))
                total.blocks += status.st_blocks * 512
                total.largest = max(total.largest, status.st_size)
    except OSError:
        pass
    finally:
        os.close(handle)
