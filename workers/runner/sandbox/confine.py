"""Landlock: the monitor process that stands between the supervisor and a program, and the rules it sets.

Run as a script by the base Python (-I -S), so it imports nothing of ours:  confine.py CONFIG_FD STATUS_FD
It forks. The child limits itself (resource limits, user, Landlock, seccomp) and becomes the program; the monitor
adopts every orphan, ends all of them when the program or the supervisor ends, and writes {"code", "signal"} to
STATUS_FD. Landlock: Documentation/userspace-api/landlock.rst, uapi/linux/landlock.h.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import resource
import signal
import struct
import sys
import time
from typing import Any

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
MINIMUM_ABI = 3  # 3 brings truncation (Linux 6.2); below it a program could empty the host's files
SIGNALS_ABI = 6  # 6 scopes signals and abstract sockets (Linux 6.12)

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
MAKE_SOCK, MAKE_CHAR, MAKE_BLOCK, REFER, TRUNCATE, IOCTL_DEV = (
    1 << 9,
    1 << 6,
    1 << 11,
    1 << 13,
    1 << 14,
    1 << 15,
)
ALL_FILES = (1 << 15) - 1  # every right of ABI 3
READ = EXECUTE | READ_FILE | READ_DIR
WRITE = ALL_FILES & ~(EXECUTE | MAKE_SOCK | MAKE_CHAR | MAKE_BLOCK)
FILE_ONLY = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
_NETWORK = 0b11  # bind and connect TCP, ABI 4
_SCOPES = 0b11  # abstract sockets and signals, ABI 6

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_SET_CHILD_SUBREAPER = (
    1,
    22,
    24,
    38,
    36,
)
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def abi() -> int:
    """Landlock's version in this kernel, 0 if there is none or it is off."""
    return max(0, int(_libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1)))


def restrict(rules: list[tuple[str, int]]) -> None:
    """Confine this process to `rules` (path, rights) for good. Raises OSError; a path that is missing is left out."""
    version = abi()
    files = ALL_FILES | (IOCTL_DEV if version >= 5 else 0)
    attributes = struct.pack("=QQQ", files, _NETWORK if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _check(
        _libc.syscall(CREATE_RULESET, attributes, ctypes.c_size_t(size), 0), "landlock_create_ruleset"
    )
    for path, rights in rules:
        try:
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if not os.path.isdir(path):
            rights &= FILE_ONLY
        rule = struct.pack("=Qi", rights & files, handle)  # packed in the kernel's header too
        _check(_libc.syscall(ADD_RULE, ruleset, 1, rule, 0), f"landlock_add_rule {path}")
        os.close(handle)
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _check(_libc.syscall(RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def filter_calls(program: bytes) -> None:
    """Set a seccomp filter for good: `program` is an array of struct sock_filter. Raises OSError."""
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    _check(_libc.prctl(_PR_SET_SECCOMP, 2, head, 0, 0), "seccomp")


def _check(answer: int, what: str) -> int:
    if answer < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return answer


def _become_program(config: dict[str, Any], parent: int, status_fd: int) -> None:
    os.setsid()
    os.nice(config["nice"])
    for name, (soft, hard) in config["limits"].items():
        resource.setrlimit(getattr(resource, name), (soft, hard))
    if config["uid"] is not None:
        for capability in range(64):
            _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
        os.setgroups([])
        os.setresgid(*[config["uid"]] * 3)
        os.setresuid(*[config["uid"]] * 3)
        head, none = struct.pack("=Ii", 0x20080522, 0), struct.pack("=6I", 0, 0, 0, 0, 0, 0)
        _check(_libc.capset(head, none), "capset")  # the inheritable ones would stay
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")
    if os.getppid() != parent:
        raise OSError("The monitor ended before the program began.")
    os.chdir(config["cwd"])
    restrict([(path, rights) for path, rights in config["rules"]])
    os.set_inheritable(status_fd, False)
    os.closerange(3, status_fd)
    os.closerange(status_fd + 1, 65536)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    filter_calls(base64.b64decode(config["filter"]))
    os.execve(config["argv"][0], config["argv"], config["env"])  # noqa: S606 that is what we are for


def descendants(root: int) -> list[int]:
    """Every living process below `root`, by the parents that /proc names."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as handle:
                    fields = handle.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if fields[0] != b"Z":
                children.setdefault(int(fields[1]), []).append(int(name))
    found, todo = [], [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def end_all(uid: int | None) -> None:
    """End every descendant of this process and wait until none is left, however long that takes.

    A run's own user is ended in one call that no fork can outrun. Otherwise each process first loses the right to fork.
    """
    while True:
        if uid is not None:
            _end_user(uid)
        for pid in descendants(os.getpid()):
            with contextlib.suppress(OSError):  # root without CAP_SYS_RESOURCE may not
                resource.prlimit(pid, resource.RLIMIT_NPROC, (0, 0))
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)


def _end_user(uid: int) -> None:
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.kill(-1, signal.SIGKILL)  # all that this user may signal, itself left out
        os._exit(0)
    os.waitpid(child, 0)


def main() -> None:
    """Start the program, wait for its end or for ours, leave nothing behind."""
    config_fd, status_fd = int(sys.argv[1]), int(sys.argv[2])
    with os.fdopen(config_fd, "rb") as handle:
        config = json.load(handle)
    ended: list[int] = []
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # waited for, below
    signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "subreaper")
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0), "pdeathsig")
    if os.getppid() != config["supervisor"]:
        sys.exit(1)
    me = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            _become_program(config, me, status_fd)
        except BaseException as error:
            # Before the program began nothing of it can be in this message.
            os.write(status_fd, json.dumps({"refused": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        os._exit(127)
    for fd in (0, 1, 2):
        os.close(fd)  # else our copy would keep the log's pipe open
    status: dict[str, Any] = {}
    while not ended:
        try:
            pid, word = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == child:
            status = {"code": os.waitstatus_to_exitcode(word)}
            break
        if pid == 0:
            signal.sigtimedwait([signal.SIGCHLD], 0.05)
    end_all(config["uid"] if config["own_user"] else None)
    os.write(status_fd, json.dumps({**status, "clean": True}).encode() + b"\n")


if __name__ == "__main__":
    main()
