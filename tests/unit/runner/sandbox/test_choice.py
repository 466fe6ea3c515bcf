"""Which sandbox is chosen, the proof that it holds, and the refusal where none does."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from workers.backends.cce import CAPABILITIES
from workers.runner.sandbox import (
    Kind,
    Limits,
    Reason,
    RunSpec,
    SandboxRefused,
    Tick,
    bpf,
    choose,
    confine,
    filters,
    run,
    selftest,
)
from workers.runner.sandbox.log import CappedLog
from workers.runner.sandbox.start import base_python, check
from workers.runner.sandbox.syscalls import ARCHITECTURES, number

from .conftest import DRIVER, GENEROUS, Lab, make_lab


def ask(lab: Lab, *arguments: str) -> dict[str, Any]:
    with lab.popen([lab.python, str(DRIVER), *arguments], stdout=-1, stderr=-1) as driver:
        out, err = driver.communicate(timeout=40)
    assert driver.returncode == 0, err.decode()
    answer: dict[str, Any] = json.loads(out)
    return answer


def test_self_test_proves_every_point(lab: Lab) -> None:
    probes = ask(lab, "--self-test", lab.kind)["probes"]
    assert [probe for probe in probes if not probe["closed"]] == []
    assert {probe["name"] for probe in probes} >= {
        "tcp",
        "udp",
        "unix_name",
        "file_outside",
        "other_process",
        "memory",
    }
    assert len(probes) == 17


def test_self_test_sees_a_leak() -> None:
    """Got out, not tried, or not testable: none of these is closed."""
    outside = {function.__name__: None for function in selftest.probe.WITH_HOST}
    for function in selftest.probe.WITH_HOST:
        assert not selftest._judge(function, {function.__name__: None}, outside).closed
        assert not selftest._judge(function, {}, outside).closed
        assert not selftest._judge(
            function, {function.__name__: "refused"}, {function.__name__: "refused"}
        ).closed
        assert selftest._judge(function, {function.__name__: "refused"}, outside).closed


@pytest.fixture(params=["bubblewrap-root", "bubblewrap-ordinary"])
def who(request: pytest.FixtureRequest) -> Iterator[Lab]:
    yield from make_lab(request.param)


def test_bubblewrap_comes_first(who: Lab) -> None:
    assert ask(who, "--choose") == {"kind": "bubblewrap"}


def forbid(names: list[str], flags: bool) -> None:
    """In a child, before it starts: a kernel that has no such calls, and no namespaces."""
    machine = filters.machine()
    asm = bpf.Assembler()
    asm.load(bpf.NUMBER)
    for name in names:
        after = asm.fresh()
        value = {"landlock_create_ruleset": 444}.get(name) or number(name, machine)
        assert value is not None
        asm.jump(bpf.JUMP_EQUAL, value, no=after)
        asm.ret(
            bpf.ERRNO | (errno.ENOSYS if name.startswith("landlock") or name == "clone3" else errno.EPERM)
        )
        asm.label(after)
    if flags:
        after, passed = asm.fresh(), asm.fresh()
        asm.jump(bpf.JUMP_EQUAL, number("clone", machine) or 0, no=after)
        asm.load(bpf.low(0))
        asm.jump(bpf.JUMP_ANY_BIT, 0x7E020000, no=passed)
        asm.ret(bpf.ERRNO | errno.EPERM)
        asm.label(passed)
        asm.label(after)
    asm.ret(bpf.ALLOW)
    assert ARCHITECTURES
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(38, 1, 0, 0, 0)
    confine.filter_calls(asm.build())


def test_without_namespaces_it_is_landlock() -> None:
    for lab in make_lab("landlock-ordinary"):
        answer = _choose_under(lab, ["unshare", "mount", "clone3"])
        assert answer == {"kind": "landlock"}


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
@pytest.mark.parametrize("lost", [None, "CAP_SETUID", "CAP_CHOWN"])
def test_the_capabilities_of_a_confidential_container_are_enough_and_needed(lost: str | None) -> None:
    """Root in such a container, without namespaces: Landlock holds with what the group asks for, else a refusal."""
    kept = [f"+{name.removeprefix('CAP_').lower()}" for name in CAPABILITIES if name != lost]
    for lab in make_lab("landlock-root"):
        command = [
            "setpriv",
            "--no-new-privs",
            "--inh-caps=-all",
            "--bounding-set=" + ",".join(["-all", *kept]),
        ]
        with lab.popen([*command, lab.python, str(DRIVER), "--choose"], stdout=-1, stderr=-1) as driver:
            out, err = driver.communicate(timeout=120)
        assert driver.returncode == 0, err.decode()
        answer = json.loads(out)
        assert answer.get("kind" if lost is None else "refused") == (
            "landlock" if lost is None else "no_sandbox"
        ), answer


def test_with_neither_it_refuses_and_says_what_to_do(who: Lab) -> None:
    answer = _choose_under(who, ["unshare", "mount", "clone3", "landlock_create_ruleset"])
    assert answer["refused"] == "no_sandbox"
    assert "bwrap could not set up a sandbox" in answer["sentence"]
    assert "Landlock" in answer["sentence"]
    assert answer["remedy"].endswith(".") and len(re.findall(r"\.(?:\s|$)", answer["remedy"])) == 1
    assert "strongroom" not in answer["remedy"]


def _choose_under(lab: Lab, names: list[str]) -> dict[str, Any]:
    with lab.popen(
        [lab.python, str(DRIVER), "--choose"], stdout=-1, stderr=-1, preexec_fn=lambda: forbid(names, True)
    ) as driver:
        out, err = driver.communicate(timeout=40)
    assert driver.returncode == 0, err.decode()
    answer: dict[str, Any] = json.loads(out)
    return answer


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor"),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "user.max_user_namespaces"),
    ],
)
def test_the_kernels_settings_name_the_remedy(tmp_path: Path, name: str, value: str, expected: str) -> None:
    assert selftest.namespace_remedy(tmp_path) is None
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text(value + "\n")
    assert expected in (selftest.namespace_remedy(tmp_path) or "")
    (tmp_path / name).write_text({"1": "0", "0": "1"}[value])
    assert selftest.namespace_remedy(tmp_path) is None


def test_no_kind_no_run() -> None:
    with pytest.raises(SandboxRefused):
        choose(())


@pytest.fixture
def spec() -> Iterator[RunSpec]:
    base = Path(tempfile.mkdtemp(prefix="strongroom-lab-"))
    base.chmod(0o711)
    for name in ("work", "inputs", "outputs"):
        (base / name).mkdir()
    python, library = base_python()
    yield RunSpec(
        argv=[python, "-I", "-S", "-c", "import time; time.sleep(30)"],
        workdir=base / "work",
        inputs=base / "inputs",
        outputs=base / "outputs",
        log_path=base / "log",
        read_only=[library],
    )
    shutil.rmtree(base)


LIMITS = Limits(**{**GENEROUS, "wall_seconds": 30})


def test_cancel(spec: RunSpec) -> None:
    outcome = run(spec, LIMITS, kind=Kind.BUBBLEWRAP, cancel=lambda: True)
    assert (outcome.exit_class, outcome.reason) == ("cancelled", Reason.CANCELLED)
    assert outcome.wall_seconds < 25


def test_ticks_tell_and_a_slow_one_does_not_blind_the_watchdog(spec: RunSpec) -> None:
    seen: list[Tick] = []

    def slow(tick: Tick) -> None:
        seen.append(tick)
        time.sleep(8)

    outcome = run(spec, Limits(**{**GENEROUS, "wall_seconds": 1}), kind=Kind.BUBBLEWRAP, on_tick=slow)
    assert outcome.exit_class == "timed_out" and outcome.wall_seconds < 7
    assert seen and seen[0].tasks >= 1 and 0 < seen[0].wall_seconds < 7 and seen[0].memory_bytes > 2**20


def test_an_error_in_a_callback_ends_the_program_and_is_raised(spec: RunSpec) -> None:
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        run(spec, LIMITS, kind=Kind.BUBBLEWRAP, on_tick=lambda tick: 1 // 0)  # type: ignore[arg-type,return-value]
    assert time.monotonic() - began < 25


@pytest.mark.parametrize("folder", ["/", "/etc", "/proc", "/root", "relative", "/not/there"])
def test_a_spec_that_shows_too_much(spec: RunSpec, folder: str) -> None:
    check(spec)
    wide = RunSpec(spec.argv, spec.workdir, spec.inputs, spec.outputs, spec.log_path, [Path(folder)])
    with pytest.raises(SandboxRefused):
        run(wide, LIMITS, kind=Kind.BUBBLEWRAP)


def test_a_hard_link_among_the_inputs_is_not_given_away(spec: RunSpec) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives folders to another user")
    secret = spec.workdir.parent / "secret"
    secret.write_text("x")
    os.link(secret, spec.inputs / "name")
    with pytest.raises(SandboxRefused, match="second name"):
        run(spec, LIMITS, kind=Kind.BUBBLEWRAP)
    assert secret.stat().st_uid == 0


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 1000])
@pytest.mark.parametrize("piece", [1, 7, 50, 1000])
def test_log_keeps_head_and_tail(tmp_path: Path, size: int, piece: int) -> None:
    data = bytes(i % 251 for i in range(size))
    log = CappedLog(cap=100)
    for place in range(0, size, piece):
        log.write(data[place : place + piece])
    log.save(tmp_path / "log")
    kept = (tmp_path / "log").read_bytes()
    if size <= 100:
        assert kept == data
    else:
        assert kept == data[:50] + b"\n[%d bytes of output left out here]\n" % (size - 100) + data[-50:]
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
