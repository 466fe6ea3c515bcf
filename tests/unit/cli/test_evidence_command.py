"""`strongroom evidence`: verify, show and build, as custodians and auditors type them. No portal is needed."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from strongroom import cli as command_line
from strongroom.cli import decoding
from strongroom.evidence import envelope, software
from strongroom.signing import SigningKey
from tests.unit.strongroom.evidence import authority_amd as amd

AT = "2026-02-01T12:00:00Z"
KEY = SigningKey(b"\x01" * 32)


def run(*arguments: Any, code: int = 0) -> str:
    done: Result = CliRunner().invoke(command_line.cli, ["evidence", *map(str, arguments)])
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Evidence, a policy for it, and the trust store that knows its authority."""
    (tmp_path / "e.json").write_bytes(amd.evidence(amd.Report().sign(), amd.Vek().der(), chain=amd.chain()))
    (tmp_path / "policy.json").write_text(json.dumps(amd.policy("snp")))
    store = tmp_path / "trust"
    store.mkdir()
    (store / "ark.pem").write_bytes(amd.pem(amd.ark()))
    entry = {"purpose": "amd-ark", "name": "Test ARK", "product": "Milan", "file": "ark.pem"}
    entry["sha256"] = amd.anchors()[0].sha256
    (store / "anchors.json").write_text(json.dumps({"v": 1, "anchors": [entry]}))
    return tmp_path


def good(folder: Path) -> list[Any]:
    return [folder / "e.json", "--policy", folder / "policy.json", "--now", AT, "--trust", folder / "trust"]


def test_verify(folder: Path) -> None:
    said = run("verify", *good(folder), "--nonce", amd.NONCE)
    assert "pass  signature:" in said and "Tier affirming" in said and f"image: {amd.IMAGE}" in said
    assert run("verify", *good(folder), "--nonce-hex", amd.NONCE_BYTES.hex()) == said


def test_verify_for_machines(folder: Path) -> None:
    said = json.loads(run("verify", *good(folder), "--nonce", amd.NONCE, "--json"))
    assert said["ok"] is True and said["tier"] == "affirming" and said["now"] == AT
    assert said["policy_sha256"] and said["claims"]["product"] == "Milan"


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        (["--nonce", "A" * 43], "FAIL  nonce:"),
        (["--nonce-hex", "00ff"], "FAIL  nonce:"),
        (["--now", "2033-01-01T00:00:00Z"], "FAIL  validity:"),
    ],
)
def test_what_fails_is_exit_status_1(folder: Path, changes: list[str], check: str) -> None:
    said = run("verify", *good(folder), *changes, code=1)
    assert check in said and "Tier contraindicated" in said and "It says" not in said


def test_the_shipped_trust_store_is_the_default(folder: Path) -> None:
    assert "FAIL  trust-anchor:" in run("verify", folder / "e.json", "--now", AT, code=1)


def test_without_a_policy_it_says_that_nothing_was_pinned(folder: Path) -> None:
    said = run("verify", folder / "e.json", "--now", AT, "--trust", folder / "trust")
    assert "No policy was given, so nothing was pinned" in said and "Tier warning" in said
    plain = json.loads(run("verify", folder / "e.json", "--now", AT, "--trust", folder / "trust", "--json"))
    assert plain["policy_sha256"] is None and plain["tier"] == "warning"


def test_without_a_time_it_is_now(folder: Path) -> None:
    said = run(
        "verify", folder / "e.json", "--trust", folder / "trust", "--policy", folder / "policy.json", code=1
    )
    assert "FAIL  age:" in said


def test_something_that_is_no_evidence(folder: Path) -> None:
    (folder / "x").write_bytes(b"{}")
    assert "FAIL  format:" in run("verify", folder / "x", code=1)
    assert "lacks" in run("show", folder / "x", code=1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--now", "yesterday"], ["--now", "2026-02-01"], ["--nonce-hex", "xyz"], ["--software-key", "AAAA"],
        ["--nonce", "a", "--nonce-hex", "00"], ["--policy", "missing"], ["--trust", "missing"], ["--colour"],
    ],
)  # fmt: skip
def test_what_is_not_understood_is_exit_status_2(folder: Path, arguments: list[str]) -> None:
    run("verify", *good(folder), *arguments, code=2)


def test_a_policy_or_trust_store_that_cannot_be_read(folder: Path) -> None:
    (folder / "policy.json").write_text('{"v": 1, "types": []}')
    assert "lacks" in run("verify", *good(folder), code=2)
    (folder / "policy.json").write_text(json.dumps(amd.policy("snp")))
    (folder / "trust" / "ark.pem").write_bytes(amd.pem(amd.ark("Genoa")))
    assert "fingerprint" in run("verify", *good(folder), code=2)


def test_software_evidence(tmp_path: Path) -> None:
    made = software.make(
        KEY, nonce=amd.NONCE, image=amd.IMAGE, host="h", instance="i", boot=amd.NOW, now=amd.NOW
    )
    (tmp_path / "s.json").write_bytes(made)
    assert "FAIL  attester-known:" in run("verify", tmp_path / "s.json", "--now", AT, code=1)
    key = base64.b64encode(KEY.public).decode()
    said = run("verify", tmp_path / "s.json", "--now", AT, "--software-key", key)
    assert "Tier none" in said


def test_show_verifies_nothing_and_says_so(folder: Path) -> None:
    broken = amd.evidence(
        amd.Report(policy=1 << 19).sign(amd.Vek(key="other")), amd.Vek().der(), chain=amd.chain()
    )
    (folder / "b.json").write_bytes(broken)
    said = run("show", folder / "b.json")
    assert said.startswith("NOT VERIFIED") and "debug: true" in said
    assert "certificates[0].subject: SEV-VCEK" in said and "part report" in said and "bytes: 1184" in said
    plain = json.loads(run("show", folder / "b.json", "--json"))
    assert plain["verified"] is False and plain["parts"]["report"]["bytes"] == 1184


def test_build_wraps_byte_for_byte(folder: Path) -> None:
    report, vek = amd.Report().sign(), amd.pem(amd.Vek().der())
    (folder / "r.bin").write_bytes(report)
    (folder / "v.pem").write_bytes(vek)
    arguments = ["snp", "--part", f"report={folder / 'r.bin'}", "--collateral", f"vek={folder / 'v.pem'}"]
    said = run("build", *arguments, "--collected", AT, "-o", folder / "out.json")
    assert "not verified" in said
    found = envelope.parse((folder / "out.json").read_bytes())
    assert (found.type, dict(found.parts), dict(found.collateral)) == (
        "snp",
        {"report": report},
        {"vek": vek},
    )
    run("build", *arguments, "-o", folder / "now.json")
    assert envelope.parse((folder / "now.json").read_bytes()).collected > found.collected


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["--part", "report"], ["--part", "report="], ["--part", "report=missing"], ["--part", "Report=FILE"],
        ["--part", "report=FILE", "--part", "report=FILE"], ["--part", "report=FILE", "--collected", "now"],
        ["--part", "=FILE"],
    ],
)  # fmt: skip
def test_build_refuses(folder: Path, arguments: list[str]) -> None:
    (folder / "r").write_bytes(b"x")
    given = [argument.replace("FILE", str(folder / "r")) for argument in arguments]
    run("build", "snp", *given, "-o", folder / "out.json", code=2)
    run("build", "hardware", "--part", f"report={folder / 'r'}", "-o", folder / "out.json", code=2)
    assert not (folder / "out.json").exists()


def test_nothing_in_evidence_reaches_the_terminal_as_a_command(tmp_path: Path) -> None:
    hostile = "\x1b[2Jpass  signature: all is well\u202e\x07"
    data = envelope.build(
        "azure-aci", {"cce-policy": f"package policy\n{hostile}".encode(), "report": b"x"},
        collateral={"chain": json.dumps({"a": hostile}).encode()}, collected=amd.NOW,
    )  # fmt: skip
    (tmp_path / "h.json").write_bytes(data)
    for said in (run("show", tmp_path / "h.json"), run("verify", tmp_path / "h.json", "--now", AT, code=1)):
        assert not any(char in said for char in "\x1b\u202e\x07")


@pytest.mark.parametrize(
    ("data", "member"),
    [
        (b"", "begins"), (b"\x00\x01", "begins"), (b"text\n", "text"), (b'{"a": 1}', "json"), (b"1", "text"),
        (b"eyJhbGciOiJub25lIn0.e30.c2ln", "token"), (b"a.b.c", "text"), (amd.Vek().der(), "certificates"),
        (amd.chain(), "certificates"),
    ],
)  # fmt: skip
def test_what_is_described(data: bytes, member: str) -> None:
    assert list(decoding.describe(data)) == ["bytes", "sha256", member]


def test_long_things_are_cut() -> None:
    assert len(decoding.describe(b"x" * 10_000)["text"]) < 2100
    assert len(list(decoding.lines({str(n): n for n in range(10_000)}))) == decoding.MAX_LINES + 1
