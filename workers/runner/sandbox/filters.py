"""Which system calls a program may not make, as a seccomp filter. One filter serves both kinds of sandbox.

A list of refusals rather than of permissions: numerical libraries use a wide and changing set of harmless calls.
What a newer kernel adds is answered ENOSYS, so the list does not open up by itself.
"""

from __future__ import annotations

import errno
import os
import socket
import sys

from . import bpf
from .model import SandboxRefused
from .syscalls import ARCHITECTURES, NEWEST_KNOWN, X32_BIT, number


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Reading or steering other processes, the kernel, its keys, its clock, its mounts.
_NEVER = _words(
    "ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd process_mrelease migrate_pages move_pages "
    "mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr statmount "
    "listmount unshare setns keyctl add_key request_key bpf perf_event_open userfaultfd open_by_handle_at "
    "name_to_handle_at init_module finit_module delete_module create_module kexec_load kexec_file_load reboot swapon "
    "swapoff acct quotactl quotactl_fd syslog iopl ioperm modify_ldt sethostname setdomainname settimeofday "
    "clock_settime clock_adjtime adjtimex vhangup uselib ustat sysfs _sysctl nfsservctl lookup_dcookie fanotify_init "
    "personality"
)

# Memory that no watchdog can see (it is mapped nowhere), and calls whose work a filter cannot look into.
_ABSENT = _words("clone3 io_uring_setup io_uring_enter io_uring_register io_setup memfd_create memfd_secret")
_OWN_IPC = _words("shmget semget msgget mq_open")

# No network namespace, so nothing that names a socket; no own mounts, so nothing that watches other folders.
_SHARED_HOST = _words("socket connect bind listen inotify_add_watch")

# The supervisor's own user: calls that act on files and processes by name and that Landlock lets pass.
_SHARED_USER = _words(
    "chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat setxattr lsetxattr fsetxattr removexattr "
    "lremovexattr fremovexattr setxattrat removexattrat utime utimes futimesat setpriority sched_setparam "
    "sched_setscheduler sched_setattr ioprio_set"
)
_SIGNALS = _words("kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal")

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_CLONE_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_TERMINAL = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: type into the terminal
_SIGNAL_OWNER = (0x8901, 0x8902)  # FIOSETOWN, SIOCSPGRP: have the kernel signal another process
_FCNTL_OWNER = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX
_PR_SET_DUMPABLE = 4  # would hide the program's memory from the watchdog
_SOCKET_TYPE_MASK = 0xF  # the rest are SOCK_NONBLOCK and SOCK_CLOEXEC


def machine() -> str:
    """The machine that we run on. Raises SandboxRefused for one whose system calls we do not know."""
    name = os.uname().machine
    if name not in ARCHITECTURES or sys.byteorder != "little" or sys.maxsize < 2**32:
        raise SandboxRefused(
            "architecture",
            f"The sandbox does not know the system calls of this machine ({name}).",
            "Use a 64-bit x86_64 or aarch64 machine.",
        )
    return name


def build(*, on: str, private_network: bool, shared_user: bool = False, scoped_signals: bool = True) -> bytes:
    """The filter, as an array of struct sock_filter, for the machine `on`.

    `private_network`: the program has its own network namespace, so sockets to itself are harmless and allowed.
    `shared_user`: it runs as the supervisor's user on the host's files. `scoped_signals`: something else (a process
    namespace or Landlock) already keeps its signals inside.
    """
    asm = bpf.Assembler()
    _enter(asm, on)
    for names, error in ((_NEVER, errno.EPERM), (_ABSENT, errno.ENOSYS), (_OWN_IPC, errno.ENOSYS)):
        _refuse(asm, on, names, error)
    if not private_network:
        _refuse(asm, on, _SHARED_HOST, errno.EPERM)
    if shared_user:
        _refuse(asm, on, _SHARED_USER, errno.EPERM)
        _refuse_unless_zero(asm, on, "sched_setaffinity", 0)
        _refuse_path_times(asm, on)
    if not scoped_signals:
        _refuse(asm, on, _SIGNALS, errno.EPERM)
    _refuse_bits(asm, on, "clone", 0, _CLONE_NAMESPACES)
    _refuse_values(asm, on, "ioctl", 1, _TERMINAL + _SIGNAL_OWNER)
    _refuse_values(asm, on, "fcntl", 1, _FCNTL_OWNER)
    _refuse_values(asm, on, "prctl", 0, (_PR_SET_DUMPABLE,))
    _refuse_unless_zero(asm, on, "prlimit64", 0)
    if private_network:
        _allow_own_sockets(asm, on)
    else:
        # A datagram pair could still send to a named socket; a stream pair is joined for good.
        _allow_only(
            asm, on, "socketpair", 1, (socket.SOCK_STREAM, socket.SOCK_SEQPACKET), mask=_SOCKET_TYPE_MASK
        )
    asm.ret(bpf.ALLOW)
    return asm.build()


def _enter(asm: bpf.Assembler, on: str) -> None:
    known, native = asm.fresh(), asm.fresh()
    asm.load(bpf.ARCH)
    asm.jump(bpf.JUMP_EQUAL, ARCHITECTURES[on], yes=native)
    asm.ret(bpf.KILL)
    asm.label(native)
    asm.load(bpf.NUMBER)
    if on == "x86_64":
        plain = asm.fresh()
        asm.jump(bpf.JUMP_NOT_LESS, X32_BIT, no=plain)
        asm.ret(bpf.KILL)
        asm.label(plain)
    asm.jump(bpf.JUMP_GREATER, NEWEST_KNOWN, no=known)
    asm.ret(bpf.ERRNO | errno.ENOSYS)
    asm.label(known)


def _refuse(asm: bpf.Assembler, on: str, names: tuple[str, ...], error: int) -> None:
    for name in names:
        value = number(name, on)
        if value is None:
            continue
        after = asm.fresh()
        asm.jump(bpf.JUMP_EQUAL, value, no=after)
        asm.ret(bpf.ERRNO | error)
        asm.label(after)


def _begin(asm: bpf.Assembler, on: str, name: str) -> str:
    """Jump over what follows unless the call is `name`. The caller ends with `_end`."""
    value = number(name, on)
    assert value is not None, name
    after = asm.fresh()
    asm.jump(bpf.JUMP_EQUAL, value, no=after)
    return after


def _end(asm: bpf.Assembler, after: str, *, refused: str | None = None) -> None:
    """Go on with the next rule; `refused` is where the refusals of this one land."""
    if refused is not None:
        passed = asm.fresh()
        asm.load(bpf.NUMBER)
        asm.jump(bpf.JUMP_NOT_LESS, 0, yes=passed)  # always true: a plain jump
        asm.label(refused)
        asm.ret(bpf.ERRNO | errno.EPERM)
        asm.label(passed)
    asm.label(after)


def _refuse_values(asm: bpf.Assembler, on: str, name: str, argument: int, values: tuple[int, ...]) -> None:
    after, refused = _begin(asm, on, name), asm.fresh()
    asm.load(bpf.low(argument))  # the kernel itself reads these arguments as 32 bits
    for value in values:
        asm.jump(bpf.JUMP_EQUAL, value, yes=refused)
    _end(asm, after, refused=refused)


def _refuse_bits(asm: bpf.Assembler, on: str, name: str, argument: int, bits: int) -> None:
    after, refused = _begin(asm, on, name), asm.fresh()
    asm.load(bpf.low(argument))
    asm.jump(bpf.JUMP_ANY_BIT, bits, yes=refused)
    _end(asm, after, refused=refused)


def _refuse_unless_zero(asm: bpf.Assembler, on: str, name: str, argument: int) -> None:
    after, refused, passed = _begin(asm, on, name), asm.fresh(), asm.fresh()
    asm.load(bpf.low(argument))
    asm.jump(bpf.JUMP_EQUAL, 0, yes=passed)
    asm.label(refused)
    asm.ret(bpf.ERRNO | errno.EPERM)
    asm.label(passed)
    asm.load(bpf.NUMBER)
    asm.label(after)


def _allow_only(
    asm: bpf.Assembler, on: str, name: str, argument: int, values: tuple[int, ...], mask: int | None = None
) -> None:
    after, passed = _begin(asm, on, name), asm.fresh()
    asm.load(bpf.low(argument))
    if mask is not None:
        asm.mask(mask)
    for value in values:
        asm.jump(bpf.JUMP_EQUAL, int(value), yes=passed)
    asm.ret(bpf.ERRNO | errno.EPERM)
    asm.label(passed)
    asm.load(bpf.NUMBER)
    asm.label(after)


def _allow_own_sockets(asm: bpf.Assembler, on: str) -> None:
    """Streams and datagrams of the three common families, and asking for the list of interfaces (routing netlink),
    without which a notebook kernel does not start."""
    after, refused, kinds, passed = _begin(asm, on, "socket"), asm.fresh(), asm.fresh(), asm.fresh()
    asm.load(bpf.low(0))
    for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
        asm.jump(bpf.JUMP_EQUAL, int(family), yes=kinds)
    asm.jump(bpf.JUMP_EQUAL, int(socket.AF_NETLINK), no=refused)
    asm.load(bpf.low(2))
    asm.jump(bpf.JUMP_EQUAL, socket.NETLINK_ROUTE, yes=passed, no=refused)
    asm.label(kinds)
    asm.load(bpf.low(1))
    asm.mask(_SOCKET_TYPE_MASK)
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        asm.jump(bpf.JUMP_EQUAL, int(kind), yes=passed)
    asm.label(refused)
    asm.ret(bpf.ERRNO | errno.EPERM)
    asm.label(passed)
    asm.load(bpf.NUMBER)
    asm.label(after)


def _refuse_path_times(asm: bpf.Assembler, on: str) -> None:
    """utimensat with a path; without one it acts on an open file, which is ours already."""
    after, refused, passed = _begin(asm, on, "utimensat"), asm.fresh(), asm.fresh()
    asm.load(bpf.low(1))
    asm.jump(bpf.JUMP_EQUAL, 0, no=refused)
    asm.load(bpf.high(1))
    asm.jump(bpf.JUMP_EQUAL, 0, yes=passed)
    asm.label(refused)
    asm.ret(bpf.ERRNO | errno.EPERM)
    asm.label(passed)
    asm.load(bpf.NUMBER)
    asm.label(after)
