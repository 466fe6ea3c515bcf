"""The remembered self-test is believed only where nothing has changed that it rests on."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from workers.runner.sandbox import Kind, Probe, Sandbox, SandboxRefused, proof


@pytest.fixture
def tests_made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stands for the self-test, which has tests of its own: counts how often it was made."""
    made: list[int] = []

    def choose() -> Sandbox:
        made.append(1)
        return Sandbox(
            Kind.BUBBLEWRAP, True, "held", tuple(Probe(name, True, "Closed.") for name in sorted(proof.NAMES))
        )

    monkeypatch.setattr(proof, "choose", choose)
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path / "sandbox.json"


def change(path: Path, **members: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **members}))


def test_tested_once_then_remembered(path: Path, tests_made: list[int]) -> None:
    first = proof.proved(path)
    assert proof.proved(path) == first and len(tests_made) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert not [p for p in path.parent.iterdir() if p != path]


@pytest.mark.parametrize(
    "ground", ["boot", "kernel", "user", "process", "namespaces", "settings", "python", "bwrap", "code"]
)
def test_anything_it_rests_on_changed(path: Path, tests_made: list[int], ground: str) -> None:
    proof.proved(path)
    change(path, grounds={**json.loads(path.read_text())["grounds"], ground: "another"})
    assert proof.remembered(path) is None
    proof.proved(path)
    assert len(tests_made) == 2 and proof.remembered(path) is not None


@pytest.mark.parametrize("age", [proof.MAX_AGE_SECONDS + 1, -60])
def test_too_old_or_from_the_future(path: Path, tests_made: list[int], age: int) -> None:
    proof.proved(path)
    change(path, tested_at=int(time.time()) - age)
    assert proof.remembered(path) is None


def test_an_open_or_missing_attempt_is_no_proof(path: Path, tests_made: list[int]) -> None:
    proof.proved(path)
    probes = json.loads(path.read_text())["probes"]
    for wrong in (
        [{**probes[0], "closed": False}, *probes[1:]],
        [{**probes[0], "closed": "true"}, *probes[1:]],
        probes[1:],
        [],
    ):
        change(path, probes=wrong)
        assert proof.remembered(path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"v": 1}', '{"v": 2}'])
def test_a_broken_file_is_no_proof(path: Path, tests_made: list[int], text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)
    assert proof.remembered(path) is None
    assert proof.proved(path).detail == "held"


def test_a_file_that_others_could_have_written_is_no_proof(path: Path, tests_made: list[int]) -> None:
    proof.proved(path)
    path.chmod(0o620)
    assert proof.remembered(path) is None
    path.chmod(0o600)
    path.parent.chmod(0o777)
    assert proof.remembered(path) is None
    path.parent.chmod(0o700)
    assert proof.remembered(path) is not None
    real = path.rename(path.with_name("real.json"))
    path.symlink_to(real)
    assert proof.remembered(path) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_file_is_no_proof(path: Path, tests_made: list[int]) -> None:
    proof.proved(path)
    os.chown(path, 64_123, 64_123)
    assert proof.remembered(path) is None


def test_a_machine_that_cannot_hold_leaves_no_proof(
    path: Path, tests_made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    proof.proved(path)

    def refuse() -> Sandbox:
        raise SandboxRefused("no_sandbox", "It cannot.", "Mend it.")

    monkeypatch.setattr(proof, "choose", refuse)
    with pytest.raises(SandboxRefused):
        proof.prove(path)
    assert not path.exists()


def test_a_proof_that_cannot_be_kept_is_still_one(tmp_path: Path, tests_made: list[int]) -> None:
    assert proof.proved(tmp_path / "missing" / "sandbox.json").detail == "held"
