"""A child that gives root away: what it can still reach."""

import os
import subprocess
from pathlib import Path

import pytest

from infra.embedded.postgres import identity_for
from infra.embedded.process import Identity, launcher

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program under a folder that only root may enter, as a clone under /root is."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    program = closed / "program"
    program.write_text("#!/bin/sh\nid -u\n")
    program.chmod(0o755)
    return program


def run(command: list[str], identity: Identity) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        launcher(command, identity=identity), capture_output=True, text=True, timeout=20, cwd="/"
    )


def test_a_closed_folder_is_passed_by_the_user_that_postgresql_runs_as(program: Path) -> None:
    identity = identity_for(program)
    assert identity is not None and identity.uid != 0 and identity.capability >= 0
    assert run([str(program)], identity).stdout == f"{identity.uid}\n"
    # initdb does not run its program to see whether it is there: it asks access(2).
    assert run(["/usr/bin/test", "-x", str(program)], identity).returncode == 0


def test_without_the_capability_the_folder_stays_closed(program: Path) -> None:
    identity = identity_for(program)
    assert identity is not None
    closed = Identity(identity.uid, identity.gid)
    assert run(["/usr/bin/test", "-x", str(program)], closed).returncode == 1


def test_nothing_but_that_capability_is_left(program: Path) -> None:
    identity = identity_for(program)
    assert identity is not None
    status = run(["/bin/grep", "^Cap", "/proc/self/status"], identity).stdout
    found = dict(line.split(":\t") for line in status.splitlines())
    for kind in ("CapEff", "CapPrm", "CapAmb"):
        assert int(found[kind], 16) == 1 << identity.capability
