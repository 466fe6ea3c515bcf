"""Machines that boot: the real runner in a child process, with a launcher, metadata server or guest device of our own.

A guest is made from what a cloud was told of the machine (instance metadata, variables of a container), and from nothing
else, so that whatever the portal forgets to say is missing. Its evidence is of a made-up authority (launcher.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socketserver
import subprocess
import tempfile
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings

from tests.fakes import vtpm
from tests.fakes.launcher import Launcher, Metadata, Signer, Workload, google_metadata
from tests.fakes.security_context import security_context, thim
from tests.unit.strongroom.evidence import authority_amd as amd
from workers.backends import processes
from workers.backends.base import Sight
from workers.runner.attesters import azure_cvm, metadata

ROOT = Path(__file__).resolve().parents[2]
MEMORY = Path("/dev/shm")
TOKEN, VARIABLE = "strongroom-token", "tee-env-"
RUNNER = ("-m", "workers.runner")


def swaps() -> bool:
    """Whether this host swaps to a disk: the runner then refuses to hold data in its memory."""
    with contextlib.suppress(OSError):
        return len(Path("/proc/swaps").read_text().splitlines()) > 1
    return False


class Guest:
    """One machine. `arguments`: of the runner, as its image would give them. `services`: what lives as long as it."""

    def __init__(
        self,
        environment: str,
        variables: Mapping[str, str],
        arguments: Sequence[str] = (),
        *,
        services: contextlib.ExitStack,
        command: Sequence[str] = RUNNER,
    ) -> None:
        self._services = services
        self.home = Path(services.enter_context(tempfile.TemporaryDirectory(prefix="sr-guest-")))
        self.workdir = Path(tempfile.mkdtemp(prefix="strongroom-guest-", dir=MEMORY))
        services.callback(shutil.rmtree, self.workdir, ignore_errors=True)
        self.log = self.home / "runner.log"
        self._command = [
            settings.PROGRAMS_PYTHON, *command, "--environment", environment, "--workdir", str(self.workdir), *arguments,
        ]  # fmt: skip
        self._env = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "PYTHONPATH": os.pathsep.join((str(ROOT / "sdk" / "src"), str(ROOT))),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            **variables,
        }
        self._child: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        with self.log.open("wb") as output:
            self._child = subprocess.Popen(
                self._command, cwd=ROOT, env=self._env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def exit_code(self) -> int | None:
        return None if self._child is None else self._child.poll()

    def wait(self, seconds: float = 60.0) -> int:
        assert self._child is not None
        return self._child.wait(seconds)

    def kill(self) -> None:
        """The machine loses its power."""
        if self._child is not None:
            if self._child.poll() is None:
                processes.kill_tree(self._child.pid)
            self._child.wait(10)

    def destroy(self) -> None:
        self.kill()
        self._services.close()


def google_guest(items: Mapping[str, str], signer: Signer, *, instance: str, **changes: Any) -> Guest:
    """A Confidential Space machine from its instance's metadata. `changes`: claims of its tokens that are otherwise.

    It honours what the real launcher does: the image by digest, and tee-env-* as the container's variables.
    """
    stack = contextlib.ExitStack()
    try:
        variables = {name.removeprefix(VARIABLE): v for name, v in items.items() if name.startswith(VARIABLE)}
        image = items["tee-image-reference"].rpartition("@")[2]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sr-l-")))
        workload = Workload(image, variables, instance=instance, changes=changes)
        launcher = stack.enter_context(Launcher(folder, signer, workload))
        service = stack.enter_context(google_metadata(items[TOKEN]))
        arguments = ["--launcher", str(launcher.socket), "--gcp-metadata", service.url]
        guest = Guest("gcp", variables, arguments, services=stack)
    except BaseException:
        stack.close()
        raise
    guest.launcher = launcher  # type: ignore[attr-defined]
    return guest


class Reports(socketserver.StreamRequestHandler):
    """The guest device: 64 bytes of REPORT_DATA in, what the security processor answers out."""

    def handle(self) -> None:
        report = self.server.report(self.rfile.read(64))  # type: ignore[attr-defined]
        self.wfile.write(bytes(4) + len(report).to_bytes(4, "little") + bytes(24) + report)


def container_guest(
    variables: Mapping[str, str],
    token: str,
    report: Callable[[bytes], bytes],
    cce_policy: bytes = amd.CCE_POLICY,
) -> Guest:
    """A confidential container from its variables, mounted secret and policy. report: by the test's own AMD."""
    stack = contextlib.ExitStack()
    try:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sr-c-")))
        device = _device(stack, folder / "device", report)
        (folder / "token").write_text(token)
        told = {
            **variables,
            "STRONGROOM_TOKEN_FILE": str(folder / "token"),
            "UVM_SECURITY_CONTEXT_DIR": str(security_context(folder, cce_policy)),
        }
        command = ("-m", "tests.fakes.aci_runner", str(device))
        return Guest("azure-aci", told, services=stack, command=command)
    except BaseException:
        stack.close()
        raise


def vm_guest(user_data: str, pcrs: Mapping[int, bytes]) -> Guest:
    """An Azure confidential VM from its user data. pcrs: what its firmware extends while it boots."""
    stack = contextlib.ExitStack()
    try:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sr-v-")))
        vm = vtpm.Machine(folder)
        stack.callback(vm.close)
        for number, digest in pcrs.items():
            vm.tpm.extend(number, digest)
        device = _device(stack, folder / "device", vm.make)
        pages = {azure_cvm.THIM: json.dumps(thim()), metadata.USER_DATA: user_data}
        imds = stack.enter_context(Metadata(pages, ("Metadata", "true")))
        command = ("-m", "tests.fakes.cvm_runner", vm.tpm.tcti, str(device))
        return Guest("azure-cvm", {}, ["--azure-metadata", imds.url], services=stack, command=command)
    except BaseException:
        stack.close()
        raise


def _device(stack: contextlib.ExitStack, path: Path, report: Callable[[bytes], bytes]) -> Path:
    """A socket that answers as a guest device does, for as long as the machine lives."""
    server = socketserver.ThreadingUnixStreamServer(str(path), Reports)
    server.report = report  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    stack.callback(server.server_close)
    stack.callback(server.shutdown)
    return path


def pod_guest(variables: Mapping[str, str], at: str, files: Mapping[str, bytes]) -> Guest:
    """A pod from its container's variables and a secret's files, which it finds where the pod says: at `at`.

    Its evidence is software evidence, which says so of itself.
    """
    stack = contextlib.ExitStack()
    try:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sr-p-")))
        for name, content in files.items():
            (folder / name).write_bytes(content)
        told = {
            n: str(folder / v.removeprefix(f"{at}/")) if v.startswith(at) else v for n, v in variables.items()
        }
        return Guest("software", told, services=stack)
    except BaseException:
        stack.close()
        raise


class Guests:
    """A backend of the engine whose machines are guests. `make`: the guest for a run and its token, not yet booted."""

    def __init__(self, make: Callable[[Any, str], Guest]) -> None:
        self._make = make
        self.machines: dict[str, Guest] = {}
        self.logs: dict[str, str] = {}
        self.launched: list[str] = []

    def launch(self, run: Any, token: str) -> None:
        if run.machine not in self.machines:
            self.machines[run.machine] = guest = self._make(run, token)
            self.launched.append(run.machine)
            guest.boot()

    def observe(self, run: Any) -> Sight:
        guest = self.machines.get(run.machine)
        if guest is None:
            return Sight.ABSENT
        return Sight.RUNNING if guest.alive else Sight.GONE

    def destroy(self, run: Any) -> None:
        self._destroy(run.machine)

    def _destroy(self, machine: str) -> None:
        guest = self.machines.pop(machine, None)
        if guest is not None:
            guest.kill()
            self.logs[machine] = guest.log.read_text() if guest.log.exists() else ""
            guest.destroy()

    def sweep(self, live_names: Collection[str]) -> list[str]:
        orphans = [name for name in self.machines if name not in live_names]
        for name in orphans:
            self._destroy(name)
        return orphans

    def close(self) -> None:
        for name in list(self.machines):
            self._destroy(name)


def as_variables(run: Any, *, portal: str) -> dict[str, str]:
    """What a container for this run has as variables."""
    return {"STRONGROOM_PORTAL": portal, "STRONGROOM_RUN": str(run.pk)}


def as_metadata(run: Any, token: str, *, portal: str, image: str) -> dict[str, str]:
    """What a Confidential Space instance for this run has as metadata."""
    return {
        "tee-image-reference": f"registry.example/strongroom/runner@{image}",
        "tee-restart-policy": "Never",
        "tee-container-log-redirect": "false",
        "tee-env-STRONGROOM_PORTAL": portal,
        "tee-env-STRONGROOM_RUN": str(run.pk),
        TOKEN: token,
    }
