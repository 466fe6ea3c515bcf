"""The seccomp filter, run by a small interpreter of classic BPF: for both machines, whichever this one is."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from workers.runner.sandbox import bpf, filters, syscalls

ALLOW, KILL = bpf.ALLOW, bpf.KILL
EPERM, ENOSYS = bpf.ERRNO | errno.EPERM, bpf.ERRNO | errno.ENOSYS
I386 = 0x40000003


def decide(program: bytes, number: int, arch: int, *arguments: int) -> int:
    """What the kernel would do with a call."""
    words = [argument & (2**64 - 1) for argument in [*arguments, *[0] * 6][:6]]
    data = struct.pack("<iIQ6Q", number, arch, 0, *words)
    place = accumulator = 0
    while True:
        code, yes, no, value = struct.unpack_from("=HBBI", program, place * 8)
        place += 1
        if code == bpf.LOAD:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == bpf.AND:
            accumulator &= value
        elif code == bpf.RETURN:
            return int(value)
        else:
            holds = {
                bpf.JUMP_EQUAL: accumulator == value,
                bpf.JUMP_GREATER: accumulator > value,
                bpf.JUMP_NOT_LESS: accumulator >= value,
                bpf.JUMP_ANY_BIT: bool(accumulator & value),
            }[code]
            place += yes if holds else no


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ask(machine: str, name: str | int, *arguments: int, **how: bool) -> int:
    program = filters.build(on=machine, **{"private_network": True, **how})
    number = name if isinstance(name, int) else syscalls.number(name, machine)
    assert number is not None
    return decide(program, number, syscalls.ARCHITECTURES[machine], *arguments)


def test_other_machines_and_tables_are_killed(machine: str) -> None:
    program = filters.build(on=machine, private_network=True)
    other = {"x86_64": "aarch64", "aarch64": "x86_64"}[machine]
    assert decide(program, 0, I386) == KILL
    assert decide(program, 0, syscalls.ARCHITECTURES[other]) == KILL
    x32 = decide(program, syscalls.X32_BIT | 39, syscalls.ARCHITECTURES[machine])
    assert x32 == (KILL if machine == "x86_64" else ENOSYS)
    assert decide(program, -1, syscalls.ARCHITECTURES[machine]) in (KILL, ENOSYS)


def test_named_calls(machine: str) -> None:
    for name in filters._NEVER:
        if syscalls.number(name, machine) is not None:
            assert ask(machine, name) == EPERM, name
    for name in filters._ABSENT + filters._OWN_IPC:
        assert ask(machine, name) == ENOSYS, name


def test_calls_of_newer_kernels_do_not_exist(machine: str) -> None:
    assert ask(machine, syscalls.NEWEST_KNOWN + 1) == ENOSYS
    assert ask(machine, 10_000) == ENOSYS


def test_everyday_calls_pass(machine: str) -> None:
    named = {syscalls.number(name, machine) for name in [*syscalls._TABLE, *syscalls._SHARED]}
    for number in range(syscalls.NEWEST_KNOWN):
        if number not in named:
            assert ask(machine, number, 1, 2, 3) == ALLOW, number


def test_clone_makes_processes_but_no_namespaces(machine: str) -> None:
    assert ask(machine, "clone", 17) == ALLOW
    assert ask(machine, "clone", 0x3D0F00) == ALLOW  # a thread
    for bit in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert ask(machine, "clone", bit | 17) == EPERM


def test_sockets(machine: str) -> None:
    assert ask(machine, "socket", 2, 1 | 0o2000000, 0) == ALLOW
    assert ask(machine, "socket", 16, 3, 0) == ALLOW  # asks for the interfaces
    for family, kind, protocol in (
        (16, 3, 4),
        (16, 3, 15),
        (17, 3, 0),
        (40, 1, 0),
        (38, 5, 0),
        (2, 3, 1),
        (2, 5, 0),
    ):
        assert ask(machine, "socket", family, kind, protocol) == EPERM
    for name in ("socket", "connect", "bind", "listen"):
        assert ask(machine, name, 2, 1, private_network=False) == EPERM
    assert ask(machine, "socketpair", 1, 1 | 0o4000, private_network=False) == ALLOW
    assert ask(machine, "socketpair", 1, 2, private_network=False) == EPERM


def test_single_arguments(machine: str) -> None:
    for name, position, bad, good in (
        ("ioctl", 1, 0x5412, 0x5401),
        ("ioctl", 1, 0x8901, 0x541B),
        ("fcntl", 1, 8, 2),
        ("prctl", 0, 4, 15),
        ("prlimit64", 0, 77, 0),
    ):
        refused, allowed = [3, 3], [3, 3]
        refused[position], allowed[position] = bad, good
        assert ask(machine, name, *refused) == EPERM, name
        assert ask(machine, name, *allowed) == ALLOW, name
        refused[position] |= 1 << 40  # the kernel looks at 32 bits of these, and so must we
        assert ask(machine, name, *refused) == EPERM, name


def test_files_and_signals_of_a_shared_user(machine: str) -> None:
    shared = {"private_network": False, "shared_user": True}
    for name in filters._SHARED_USER:
        if syscalls.number(name, machine) is not None:
            assert ask(machine, name, **shared) == EPERM, name
    assert ask(machine, "utimensat", 3, 0, **shared) == ALLOW
    assert ask(machine, "utimensat", 3, 1 << 32, **shared) == EPERM
    assert ask(machine, "kill", 5, 9, **shared) == ALLOW
    for name in filters._SIGNALS:
        assert ask(machine, name, 5, 9, scoped_signals=False, **shared) == EPERM


@pytest.mark.parametrize(
    ("machine", "header"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        ("aarch64", "/usr/include/asm-generic/unistd.h"),
    ],
)
def test_numbers_are_the_kernels(machine: str, header: str) -> None:
    if not Path(header).exists():
        pytest.skip("the kernel's headers are not here (Debian: linux-libc-dev)")
    pairs = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\b", Path(header).read_text())
    real = {name: int(number) for name, number in pairs}
    compared = 0
    for name in [*syscalls._TABLE, *syscalls._SHARED]:
        ours = syscalls.number(name, machine)
        if name in real:
            assert ours == real[name], name
            compared += 1
        else:
            assert ours is None or ours > 450, name  # newer than these headers
    assert compared > 80
