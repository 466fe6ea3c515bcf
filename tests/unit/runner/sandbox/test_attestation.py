"""What attests the machine is out of the program's reach: sockets and devices are really there, and open outside.

Whoever reaches them can have evidence with any nonce, so a program that could would sign for results of its own.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.runner.sandbox import probe

from .conftest import Lab

SOCKET = Path("/run/container_launcher/teeserver.sock")
TOKEN = Path("/run/container_launcher/attestation_verifier_claims_token")
LAUNCH_TOKEN = Path("/run/strongroom/token")
DEVICES = [Path(path) for path in ("/dev/tpm0", "/dev/tpmrm0", "/dev/sev-guest", "/dev/tdx_guest")]
CODE = f"""
def connect(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
def read(path):
    os.close(os.open(path, os.O_RDONLY))
def metadata():
    with socket.socket(socket.AF_INET) as s:
        s.settimeout(0.5)
        try:
            s.connect({probe.METADATA!r})
        except TimeoutError:
            return  # the question left
told = {{path: attempt(read, path) for path in json.loads(ARGUMENT)}}
told["socket"] = attempt(connect, {str(SOCKET)!r})
told["metadata"] = attempt(metadata)
tell(told)
"""


@pytest.fixture
def machine() -> Iterator[list[str]]:
    """A machine that looks like a cloud's: the launcher's socket and files, devices that anybody may open."""
    if os.geteuid() != 0:
        pytest.skip("only root can lay devices and sockets where a cloud has them")
    if any(path.exists() for path in (SOCKET, TOKEN, LAUNCH_TOKEN, *DEVICES)):
        pytest.skip("this is a real cloud machine, or its parts are there already")
    with contextlib.ExitStack() as stack:
        for folder in (SOCKET.parent, LAUNCH_TOKEN.parent):
            if not folder.exists():
                folder.mkdir(mode=0o755)
                stack.callback(folder.rmdir)
        for file in (TOKEN, LAUNCH_TOKEN):
            file.write_text("a token")
            stack.callback(file.unlink)
            file.chmod(0o644)
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(SOCKET))
        stack.callback(SOCKET.unlink)
        SOCKET.chmod(0o777)
        listener.listen()
        for device in DEVICES:
            try:
                os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))  # reads as /dev/null does
            except OSError as error:
                pytest.skip(f"no devices can be made here ({error.strerror})")
            stack.callback(device.unlink)
            device.chmod(0o666)
        yield [str(path) for path in (TOKEN, LAUNCH_TOKEN, *DEVICES)]


def test_nothing_that_attests_is_in_reach(lab: Lab, machine: list[str]) -> None:
    import json

    argument = json.dumps(machine)
    outside = lab.plainly(CODE, argument)
    assert {name for name, answer in outside.items() if answer == "done"} >= {*machine, "socket"}
    inside = lab.run(CODE, argument).told
    assert [name for name, answer in inside.items() if answer == "done"] == []


def test_the_self_test_would_see_it(machine: list[str]) -> None:
    """Made without a sandbox, the probe gets out; so it can fail."""
    assert probe.attempt(probe.attestation, {}) is None


def test_the_probe_on_an_ordinary_machine() -> None:
    if any(os.path.exists(path) for path in probe.ATTESTATION):
        pytest.skip("this machine has means of attestation of its own")
    assert probe.attempt(probe.attestation, {}) == "nothing of the kind is to be seen"
