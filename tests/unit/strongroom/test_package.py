"""A whole package: the valid one, every flipped byte, and each lie that somebody with keys could tell."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import strictjson
from strongroom.errors import FormatError, PackageError
from strongroom.evidence import Outcome
from strongroom.package import PackageReport, PortalKeys, build_package, package_index, verify_package
from strongroom.package.zipform import Reader
from strongroom.signing import SigningKey


@pytest.fixture(scope="module")
def keys(factory: ModuleType) -> Any:
    return factory.Keys()


@pytest.fixture(scope="module")
def good(factory: ModuleType, keys: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("package") / "good.zip"
    factory.make_package(path, keys)
    return path


def later(factory: ModuleType) -> Any:
    return factory.NOW + timedelta(days=400)


def failed(report: PackageReport) -> set[str]:
    return {check.id for check in report.checks if check.outcome is Outcome.FAIL}


def test_valid_with_pinned_keys(factory: ModuleType, keys: Any, good: Path) -> None:
    report = verify_package(good, trust=keys.portal, now=later(factory))
    assert report.ok and not failed(report)
    assert report.tier == "none"
    assert "no hardware protection" in report.protection
    assert report.facts["run"] == factory.RUN
    assert report.facts["outputs"] == sorted(factory.OUTPUTS)
    outcomes = {check.id: check.outcome for check in report.checks}
    assert outcomes["portal-keys"] is Outcome.PASS
    assert outcomes["e2.hardware-protection"] is Outcome.NOT_AVAILABLE
    assert outcomes["witnesses"] is Outcome.NOT_AVAILABLE
    assert json.loads(json.dumps(report.to_json()))["ok"] is True
    assert len(outcomes) == len(report.checks), "every check has its own id"


def test_valid_without_pinned_keys_says_what_that_means(factory: ModuleType, good: Path) -> None:
    report = verify_package(good, now=later(factory))
    check = next(check for check in report.checks if check.id == "portal-keys")
    assert report.ok and check.outcome is Outcome.NOT_AVAILABLE
    assert "--keys portal.json" in check.detail


def test_a_run_without_sealed_input(factory: ModuleType, keys: Any, tmp_path: Path) -> None:
    path = tmp_path / "p.zip"
    factory.make_package(path, keys, sealed=False)
    report = verify_package(path, trust=keys.portal, now=later(factory))
    assert report.ok, failed(report)
    assert {c.id: c.outcome for c in report.checks}["key-release"] is Outcome.NOT_AVAILABLE


def test_a_run_without_outputs(factory: ModuleType, keys: Any, tmp_path: Path) -> None:
    path = tmp_path / "p.zip"
    factory.make_package(path, keys, outputs={})
    assert verify_package(path, trust=keys.portal, now=later(factory)).ok


def test_every_byte_of_the_file_counts(factory: ModuleType, keys: Any, good: Path, tmp_path: Path) -> None:
    """Every byte of headers, list of files and end record, and every third byte of the members' content.

    (All of them were run once: none was accepted.) The next test takes the members further.
    """
    data = good.read_bytes()
    with Reader(good) as reader:
        content = [range(m.data_at, m.data_at + m.size) for m in reader.members.values()]
    skipped = {position for span in content for position in span if position % 3}
    path = tmp_path / "flipped.zip"
    path.write_bytes(data)
    accepted = []
    with path.open(
        "r+b", buffering=0
    ) as file:  # in place: rewriting the file each time is slow on some disks
        for position in sorted(set(range(len(data))) - skipped):
            os.pwrite(file.fileno(), bytes([data[position] ^ 1 << (position % 8)]), position)
            if verify_package(path, trust=keys.portal, now=later(factory)).ok:
                accepted.append(position)
            os.pwrite(file.fileno(), data[position : position + 1], position)
    assert not accepted
    assert verify_package(path, trust=keys.portal, now=later(factory)).ok


def test_every_member_counts_also_with_a_new_index(
    factory: ModuleType, keys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, but by somebody who repairs check sums and package.json afterwards: signatures must hold then."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    files = factory.make_files(keys)
    path, accepted = tmp_path / "p.zip", []
    for name, data in files.items():
        stride = 1 if len(data) < 100 else 11
        for position in range(0, len(data), stride):
            changed = bytearray(data)
            changed[position] ^= 1 << (position % 8)
            build_package({**files, name: bytes(changed)}, path)
            if verify_package(path, trust=keys.portal, now=later(factory)).ok:
                accepted.append((name, position))
    assert not accepted


def test_cut_extended_and_repacked_files(factory: ModuleType, keys: Any, good: Path, tmp_path: Path) -> None:
    data, path = good.read_bytes(), tmp_path / "p.zip"
    repacked = io.BytesIO()
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(repacked, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    appended = io.BytesIO(data)
    with zipfile.ZipFile(appended, "a") as target:
        target.comment = b"hello"
    hidden = io.BytesIO(data)
    with zipfile.ZipFile(hidden, "a") as target:
        target.writestr("outputs/extra.txt", b"x")
    for broken in (
        b"", b"PK", data[:-1], data + b"\0", b"\0" + data, data[:100], data[50:], data + data,
        repacked.getvalue(), appended.getvalue(), hidden.getvalue(), b"\0" * 1000,
    ):  # fmt: skip
        path.write_bytes(broken)
        report = verify_package(path, trust=keys.portal, now=later(factory))
        assert not report.ok and "package-file" in failed(report)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.zip", tmp_path, Path("a\0b")):
        report = verify_package(path)
        assert not report.ok and failed(report) == {"package-file"}


@given(st.binary(max_size=200))
def test_garbage(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.zip"
    path.write_bytes(data)
    assert not verify_package(path).ok


def test_ordinary_zip_programs_can_open_it(factory: ModuleType, good: Path) -> None:
    with zipfile.ZipFile(good) as archive:
        assert archive.testzip() is None
        assert archive.read("outputs/table.csv") == factory.OUTPUTS["table.csv"]


def put(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for name in path[:-1]:
            document = document[int(name) if isinstance(document, list) else name]
        document[path[-1]] = value

    return change


OTHER_RUN = "11111111-7425-40de-944b-e07fc1f90ae7"
OTHER_HASH = "0" * 64
OTHER_KEY = SigningKey(b"\x07" * 32)
EARLIER = "2026-03-01T11:00:00Z"

LIES: list[tuple[str, str, dict[str, Any]]] = [
    ("manifest of another run", "manifest", {"change_manifest": put("run", value=OTHER_RUN)}),
    ("manifest of another portal", "manifest", {"change_manifest": put("portal", value="evil.example")}),
    ("c2 names another manifest", "manifest", {"change_c2": put("manifest", value=OTHER_HASH)}),
    ("c2 of another run", "contexts", {"change_c2": put("run", value=OTHER_RUN)}),
    ("c1 of another run", "contexts", {"change_c1": put("run", value=OTHER_RUN)}),
    ("c1 names another manifest", "contexts", {"change_c1": put("manifest", value=OTHER_HASH)}),
    ("c1 has another signing key", "contexts", {"change_c1": put("sign_pub", value="A" * 43 + "=")}),
    ("c1 has another image", "key-release", {"change_c1": put("image", value="sha256:" + OTHER_HASH)}),
    ("c1 has other approvals", "key-release", {"change_c1": put("approvals", value=OTHER_HASH)}),
    ("c1 asks for other data", "key-release", {"change_c1": put("inputs", value=[])}),
    ("c2 names other E1", "key-release-evidence", {"change_c2": put("e1", value=OTHER_HASH)}),
    ("c2 names no E1", "key-release-evidence", {"change_c2": put("e1", value=None)}),
    ("c2 read other data", "inputs", {"change_c2": put("inputs", "0", "plaintext", value=OTHER_HASH)}),
    ("c2 has another output", "outputs", {"change_c2": put("outputs", "0", "sha256", value=OTHER_HASH)}),
    ("c2 has another size", "outputs", {"change_c2": put("outputs", "0", "size", value=1)}),
    ("c2 has another statement", "statement-hash", {"change_c2": put("statement", value=OTHER_HASH)}),
    ("c2 has another exit", "statement-content", {"change_c2": put("exit", "class", value="failed")}),
    ("statement by another key", "statement-signature", {"sign_statement": OTHER_KEY}),
    ("statement has another subject", "statement-subjects",
     {"change_statement": put("subject", "0", "digest", "sha256", value=OTHER_HASH)}),
    ("statement renames a subject", "statement-subjects", {"change_statement": put("subject", "0", "name", value="a")}),
    *[
        (f"statement lies about {name}", "statement-content", {"change_statement": put("predicate", name, value=value)})
        for name, value in {
            "run": OTHER_RUN, "portal": "evil.example", "project": None, "kind": "rehearsal", "manifest": OTHER_HASH,
            "program": {"sha256": OTHER_HASH}, "inputs": [], "started": EARLIER, "image": "sha256:" + OTHER_HASH,
            "exit": {"class": "failed", "exception_type": "ValueError", "line": 3},
        }.items()
    ],
    ("statement claims other evidence", "statement-evidence",
     {"change_statement": put("predicate", "evidence", value="snp")}),
    ("statement has another type", "statement-signature",
     {"change_statement": put("predicateType", value="https://example.org/other")}),
    ("statement has an unknown member", "statement-signature", {"change_statement": put("predicate", "x", value=1)}),
    ("E1 reused as E2's nonce", "e2.nonce", {"change_evidence": {"e2": {"nonce": "A" * 43}}}),
    ("E1 of another context", "e1.nonce", {"change_evidence": {"e1": {"nonce": "A" * 43}}}),
    ("E2 by an unknown installation", "e2.attester-known", {"change_evidence": {"e2": {"key": OTHER_KEY}}}),
    ("E2 of another instance", "same-instance", {"change_evidence": {"e2": {"instance": "run-2"}}}),
    ("E2 of another image", "e2.image", {"change_evidence": {"e2": {"image": "sha256:" + OTHER_HASH}}}),
    ("verdict on another statement", "verdict-subject",
     {"change_verdict": put("subject", "0", "digest", "sha256", value=OTHER_HASH)}),
    ("verdict on another run", "verdict-subject", {"change_verdict": put("predicate", "run", value=OTHER_RUN)}),
    ("verdict of another portal", "verdict-subject", {"change_verdict": put("predicate", "portal", value="x")}),
    ("verdict refuses", "verdict-accepts", {"change_verdict": put("predicate", "ok", value=False)}),
    ("verdict claims a better tier", "statement-evidence",
     {"change_verdict": put("predicate", "tier", value="affirming")}),
    ("verdict claims a better appraisal", "e2-verdict",
     {"change_verdict": put("predicate", "e2", "appraisal", "tier", value="affirming")}),
    ("verdict is on other evidence", "e1-verdict", {"change_verdict": put("predicate", "e1", "evidence", value=OTHER_HASH)}),
    ("verdict knows of no E1", "e1-verdict", {"change_verdict": put("predicate", "e1", value=None)}),
    ("verdict dates are out of order", "verdict-times", {"change_verdict": put("predicate", "at", value=EARLIER)}),
    ("verdict is from the future", "verdict-times",
     {"change_verdict": put("predicate", "at", value="2099-01-01T00:00:00Z")}),
    ("E2 received days later", "e2.age", {"change_verdict": put("predicate", "e2", "at", value="2026-03-05T00:00:00Z")}),
    ("log entry of another statement", "log-entry", {"change_entry": put("data", "statement", value=OTHER_HASH)}),
    ("log entry without data", "log-entry", {"change_entry": put("data", value=None)}),
]  # fmt: skip


@pytest.mark.parametrize(("what", "check", "changes"), LIES, ids=[lie[0] for lie in LIES])
def test_lies(
    factory: ModuleType, keys: Any, tmp_path: Path, what: str, check: str, changes: dict[str, Any]
) -> None:
    path = tmp_path / "p.zip"
    factory.make_package(path, keys, **changes)
    report = verify_package(path, trust=keys.portal, now=later(factory))
    assert not report.ok
    assert check in failed(report), failed(report)
    assert report.tier == "contraindicated"


def swap(name: str, data: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.__setitem__(name, data)


def drop(*names: str) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        for name in names:
            del files[name]

    return change


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (swap("outputs/table.csv", b"other"), "outputs"),
        (swap("outputs/more.txt", b"more"), "outputs"),
        (drop("outputs/table.csv"), "outputs"),
        (swap("README", b"hello"), "package-members"),
        (drop("verdict.json"), "package-members"),
        (drop("evidence/e1.json"), "package-members"),
        (drop("evidence/e1.json", "context/c1.json"), "key-release"),
        (swap("portal.json", b"{}"), "portal-document"),
        (swap("manifest.json", b"[]"), "manifest-document"),
        (swap("context/c2.json", b"null"), "context-result"),
        (swap("context/c1.json", b"{}"), "context-key-release"),
        (swap("verdict.json", b"{}"), "verdict-signature"),
        (swap("evidence/e2.json", b"{}"), "e2.format"),
        (swap("log/proof.txt", b""), "log-inclusion"),
        (swap("log/entry.json", b"1"), "log-inclusion"),
        (swap("log/checkpoint", b"x"), "log-inclusion"),
    ],
)
def test_swapped_members(
    factory: ModuleType, keys: Any, tmp_path: Path, change: Callable[[dict[str, bytes]], None], check: str
) -> None:
    path = tmp_path / "p.zip"
    factory.make_package(path, keys, change_files=change)
    for trust in (keys.portal, None):
        report = verify_package(path, trust=trust, now=later(factory))
        assert not report.ok and check in failed(report), failed(report)


def test_a_whole_package_of_an_impostor(factory: ModuleType, keys: Any, tmp_path: Path) -> None:
    """Consistent in itself, made by somebody else under the same names: only pinned keys can tell."""
    path = tmp_path / "p.zip"
    factory.make_package(path, factory.Keys())
    assert verify_package(path, now=later(factory)).ok
    report = verify_package(path, trust=keys.portal, now=later(factory))
    assert {"portal-keys", "verdict-signature", "log-inclusion"} <= failed(report)


def test_results_of_two_runs_do_not_mix(factory: ModuleType, keys: Any, tmp_path: Path) -> None:
    one, two = factory.make_files(keys), factory.make_files(keys, outputs={"other.txt": b"other"})
    for names in (["context/c2.json"], ["evidence/e2.json"], ["statement.dsse.json"], ["verdict.json"],
                  ["context/c2.json", "evidence/e2.json"], ["log/entry.json", "log/proof.txt", "log/checkpoint"],
                  ["context/c2.json", "evidence/e2.json", "statement.dsse.json"]):  # fmt: skip
        path = tmp_path / "mixed.zip"
        build_package({**one, **{name: two[name] for name in names}}, path)
        assert not verify_package(path, trust=keys.portal, now=later(factory)).ok


def test_evidence_dressed_up_as_another_type(factory: ModuleType, keys: Any, tmp_path: Path) -> None:
    def dress_up(files: dict[str, bytes]) -> None:
        files["evidence/e2.json"] = files["evidence/e2.json"].replace(b'"software"', b'"snp"')

    path = tmp_path / "p.zip"
    factory.make_package(path, keys, change_files=dress_up)
    report = verify_package(path, trust=keys.portal, now=later(factory))
    assert "e2.type" in failed(report) and "e2-verdict" in failed(report)


class TestBuilding:
    def test_same_files_same_bytes(self, factory: ModuleType, keys: Any, tmp_path: Path) -> None:
        files = factory.make_files(keys)
        on_disk = tmp_path / "table.csv"
        on_disk.write_bytes(files["outputs/table.csv"])
        first = build_package(files, tmp_path / "a.zip")
        second = build_package(
            {**dict(reversed(files.items())), "outputs/table.csv": on_disk}, tmp_path / "b.zip"
        )
        assert first == second == hashlib.sha256((tmp_path / "a.zip").read_bytes()).hexdigest()
        assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
        assert sorted(item.name for item in tmp_path.iterdir()) == ["a.zip", "b.zip", "table.csv"]

    def test_index(self) -> None:
        index = strictjson.loads(package_index({"b": b"2", "a/x": b""}))
        assert [item["path"] for item in index["files"]] == ["a/x", "b"]
        assert index["files"][1] == {"path": "b", "sha256": hashlib.sha256(b"2").hexdigest(), "size": 1}

    @pytest.mark.parametrize(
        "name",
        ["../x", "/x", "a/../b", "a//b", "./a", "", "a\\b", "C:x", "a\nb", "a\0b", "e\u0301", "\u202ea", "x" * 300,
         "\ud800", "package.json"],
    )  # fmt: skip
    def test_unsafe_names(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(PackageError):
            build_package({name: b"x"}, tmp_path / "p.zip")
        assert not list(tmp_path.iterdir())

    def test_one_name_for_a_file_and_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(PackageError):
            build_package({"a": b"x", "a/b": b"y"}, tmp_path / "p.zip")

    def test_links_and_missing_files(self, tmp_path: Path) -> None:
        (tmp_path / "real").write_bytes(b"x")
        (tmp_path / "link").symlink_to("real")
        for source in (tmp_path / "link", tmp_path / "none", tmp_path):
            with pytest.raises(PackageError, match="regular file"):
                build_package({"a": source}, tmp_path / "p.zip")

    def test_too_many(self, tmp_path: Path) -> None:
        with pytest.raises(PackageError):
            build_package({f"{number}": b"" for number in range(2001)}, tmp_path / "p.zip")


class TestPortalKeys:
    def test_round_trip(self, keys: Any) -> None:
        assert PortalKeys.parse(keys.portal.to_bytes()) == keys.portal
        assert PortalKeys.parse(json.dumps(keys.portal.to_json(), indent=1).encode()) == keys.portal

    def test_refused(self, keys: Any) -> None:
        document = keys.portal.to_json()
        for change in ({"v": 2}, {"log": "x"}, {"verdict_key": ""}, {"software_attesters": [1]}, {"more": 1}):
            with pytest.raises(FormatError):
                PortalKeys.parse({**document, **change})


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from strongroom.package import zipform

    monkeypatch.setattr(zipform, "MAX_FILE_SIZE", 500)
    with pytest.raises(PackageError, match="4 GiB"):
        build_package({"a": b"x" * 300}, tmp_path / "p.zip")
    with pytest.raises(PackageError, match="4 GiB"):
        zipform.place([zipform.Member("a", 1 << 33, 0)])
