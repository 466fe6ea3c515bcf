"""Machines that run the runner's own container image, in podman, from what the cloud was told of them.

Their network is this host's loopback, where portal, launcher and metadata service are; everything else of the container
is as its launch has it: its user, no capability, a read-only root, the usual filter of system calls.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.fakes.launcher import Launcher, Signer, Workload, google_metadata

RUNTIME = "podman"
_HELD = (
    "--network", "host", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--read-only", "--tmpfs", "/tmp",
    "--shm-size", "512m", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096",
)  # fmt: skip


class ContainerGuest:
    """One machine; the face of `tests.fakes.guest.Guest`. arguments: after those of the image's entry point."""

    def __init__(
        self,
        image: str,
        variables: Mapping[str, str],
        *,
        services: contextlib.ExitStack,
        arguments: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> None:
        self._services = services
        self.home = Path(services.enter_context(tempfile.TemporaryDirectory(prefix="sr-i-")))
        self.log, self._id = self.home / "runner.log", self.home / "id"
        told = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
        self._command = [
            RUNTIME,
            "run",
            "--rm",
            "--cidfile",
            str(self._id),
            *_HELD,
            *options,
            *told,
            image,
            *arguments,
        ]
        self._child: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        with self.log.open("wb") as output:
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=dict(os.environ)
            )

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def kill(self) -> None:
        if self._child is None:
            return
        if self._child.poll() is None:
            name = self._id.read_text() if self._id.exists() else ""
            subprocess.run([RUNTIME, "kill", name], check=False, capture_output=True, timeout=60)
        self._child.wait(60)

    def destroy(self) -> None:
        self.kill()
        self._services.close()


def available() -> bool:
    return shutil.which(RUNTIME) is not None


def pod(image: str, variables: Mapping[str, str], at: str, files: Mapping[str, bytes]) -> ContainerGuest:
    """From the variables of a pod's container and the files of its secret, mounted at `at`."""
    stack = contextlib.ExitStack()
    try:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sr-p-")))
        for name, content in files.items():
            (folder / name).write_bytes(content)
            (folder / name).chmod(0o444)
        folder.chmod(0o755)
        options = ("--volume", f"{folder}:{at}:ro", "--tmpfs", "/work:rw,mode=1777")
        return ContainerGuest(image, variables, services=stack, options=options)
    except BaseException:
        stack.close()
        raise


def google(
    image: str, digest: str, variables: Mapping[str, str], token: str, signer: Signer, *, instance: str
) -> ContainerGuest:
    """From a Confidential Space instance's variables and token. digest: what the launcher says that it started."""
    stack = contextlib.ExitStack()
    try:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sr-l-")))
        launcher = stack.enter_context(
            Launcher(folder, signer, Workload(digest, dict(variables), instance=instance))
        )
        folder.chmod(0o755)
        launcher.socket.chmod(0o666)
        service = stack.enter_context(google_metadata(token))
        arguments = ("--launcher", "/launcher/" + launcher.socket.name, "--gcp-metadata", service.url)
        options = ("--volume", f"{launcher.socket.parent}:/launcher")
        return ContainerGuest(image, variables, services=stack, arguments=arguments, options=options)
    except BaseException:
        stack.close()
        raise
