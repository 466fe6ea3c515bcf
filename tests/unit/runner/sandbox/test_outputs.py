"""What may leave the outputs folder, and how a run's folders are removed."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest

from workers.runner.sandbox import OutputFile, OutputRefused, collect_outputs, wipe


def refused(folder: Path, **bounds: int) -> str:
    with pytest.raises(OutputRefused) as caught:
        collect_outputs(folder, **bounds)
    assert caught.value.sentence.isprintable()
    return caught.value.code


def test_plain_files_sorted_with_hashes(tmp_path: Path) -> None:
    (tmp_path / "tables" / "deep").mkdir(parents=True)
    (tmp_path / "tables" / "deep" / "a.csv").write_bytes(b"a,b\n")
    (tmp_path / "-leading dash é.txt").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    assert collect_outputs(tmp_path) == [
        OutputFile("-leading dash é.txt", 0, hashlib.sha256(b"").hexdigest()),
        OutputFile("tables/deep/a.csv", 4, hashlib.sha256(b"a,b\n").hexdigest()),
    ]


def test_links_are_refused_wherever_they_point(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for target in ("/etc/passwd", "missing", ".", "../out"):
        (out / "link").symlink_to(target)
        assert refused(out) == "not_a_file"
        (out / "link").unlink()
    tmp_path.joinpath("folder-link").symlink_to(out)
    assert refused(tmp_path / "folder-link") == "unreadable"


def test_hard_links_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "secret").write_text("x")
    os.link(tmp_path / "secret", out / "copy")
    assert refused(out) == "hard_link"
    (tmp_path / "secret").unlink()
    assert len(collect_outputs(out)) == 1


def test_pipes_sockets_and_devices_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path) == "not_a_file"
    (tmp_path / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        assert refused(tmp_path) == "not_a_file"
    (tmp_path / "socket").unlink()
    if os.geteuid() == 0:
        os.mknod(tmp_path / "null", 0o020666, os.makedev(1, 3))
        assert refused(tmp_path) == "not_a_file"


@pytest.mark.parametrize(
    "name",
    [b"new\nline", b"tab\t", b"\x1b[31m", b"not-utf8-\xff", "e\u0301".encode(), "right\u202eleft".encode(), b"back\\slash",
     b" space", b"space ", b"x" * 201, "\u00ad".encode()],
)  # fmt: skip
def test_unsafe_names(tmp_path: Path, name: bytes) -> None:
    with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
        file.write(b"x")
    assert refused(tmp_path) == "unsafe_name"


def test_a_folder_may_not_have_an_unsafe_name_either(tmp_path: Path) -> None:
    (tmp_path / "a\nb").mkdir()
    assert refused(tmp_path) == "unsafe_name"


def test_long_paths_are_counted_whole(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 100) / ("b" * 98)
    folder.mkdir(parents=True)
    (folder / "c").touch()
    assert refused(tmp_path) == "unsafe_name"


def test_bounds(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / str(number)).write_bytes(b"xx")
    assert len(collect_outputs(tmp_path, max_files=3, max_bytes=6)) == 3
    assert refused(tmp_path, max_files=2) == "too_many"
    assert refused(tmp_path, max_bytes=5) == "too_large"


def test_a_sparse_giant_is_refused_soon(tmp_path: Path) -> None:
    with (tmp_path / "giant").open("wb") as file:
        file.truncate(2**40)
    assert refused(tmp_path, max_bytes=2**20) == "too_large"


def test_too_many_folders(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / str(number)).mkdir()
    assert refused(tmp_path, max_files=20) == "too_many"


def test_too_deep(tmp_path: Path) -> None:
    tmp_path.joinpath(*["d"] * 20).mkdir(parents=True)
    assert refused(tmp_path) == "too_many"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_output(tmp_path: Path) -> None:
    (tmp_path / "closed").touch(mode=0)
    assert refused(tmp_path) == "unreadable"


def test_a_swap_while_we_look_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between looking at a name and opening it, the file becomes a link."""
    (tmp_path / "out").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "out/file").write_text("x")
    real = os.open

    def swap(name: str, *arguments: int, **more: int) -> int:
        if name == "file":
            (tmp_path / "out/file").unlink()
            (tmp_path / "out/file").symlink_to(tmp_path / "secret")
        return real(name, *arguments, **more)

    monkeypatch.setattr("workers.runner.sandbox.outputs.os.open", swap)
    assert refused(tmp_path / "out") == "unreadable"


def test_wipe_removes_whatever_was_made(tmp_path: Path) -> None:
    """Closed folders, a tree deeper than a path or Python's stack can be, links that lead out."""
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "file").touch()
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "link").symlink_to(keep)
    handle = os.open(folder, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deeper", dir_fd=handle)
        inner = os.open("deeper", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(os.open("last", os.O_CREAT | os.O_WRONLY, dir_fd=handle))
    os.close(handle)
    (folder / "closed").mkdir()
    (folder / "closed/file").touch()
    (folder / "closed").chmod(0)
    wipe(folder)
    assert not folder.exists()
    assert (keep / "file").exists()
    wipe(folder)  # again: nothing to do
    (tmp_path / "to-keep").symlink_to(keep)
    wipe(tmp_path / "to-keep")
    assert not (tmp_path / "to-keep").is_symlink() and (keep / "file").exists()
