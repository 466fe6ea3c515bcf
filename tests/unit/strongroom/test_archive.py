"""Zip files that nobody should take."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.archive import ArchiveRefused, ZipMember, extract_zip, inspect_zip


def make(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    """A zip file in memory, written as the library would, whatever the names are."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file


def info(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    found = zipfile.ZipInfo(name)
    found.external_attr = mode << 16
    return found


def refusal(file: io.BytesIO, **bounds: int) -> ArchiveRefused:
    with pytest.raises(ArchiveRefused) as caught:
        inspect_zip(file, **bounds)
    assert caught.value.sentence.isprintable()
    return caught.value


def edited(file: io.BytesIO, old: bytes, new: bytes) -> io.BytesIO:
    """The same zip file with bytes replaced, in both headers."""
    assert len(old) == len(new) and old in file.getvalue()
    return io.BytesIO(file.getvalue().replace(old, new))


def test_a_good_archive(tmp_path: Path) -> None:
    file = make(("main.py", b"print()"), ("lib/", b""), ("lib/über.py", b""), ("lib/deep/x.txt", b"y" * 5000))
    expected = [
        ("main.py", 7, False),
        ("lib", 0, True),
        ("lib/über.py", 0, False),
        ("lib/deep/x.txt", 5000, False),
    ]
    assert [(m.name, m.size, m.is_folder) for m in inspect_zip(file)] == expected
    assert isinstance(extract_zip(file, tmp_path / "new")[0], ZipMember)
    assert (tmp_path / "new/lib/deep/x.txt").read_bytes() == b"y" * 5000
    assert (tmp_path / "new/main.py").stat().st_mode & 0o777 == 0o600
    path = tmp_path / "a.zip"
    path.write_bytes(file.getvalue())
    assert len(inspect_zip(path)) == len(inspect_zip(str(path))) == 4


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("../evil", "parent_name"),
        ("a/../../evil", "parent_name"),
        ("a/..", "parent_name"),
        ("/etc/passwd", "absolute_name"),
        ("C:/evil", "absolute_name"),
        ("c:evil", "absolute_name"),
        ("a//b", "unsafe_name"),
        ("./a", "unsafe_name"),
        ("a/./b", "unsafe_name"),
        ("ab:stream", "unsafe_name"),
        ("dot.", "unsafe_name"),
        ("space ", "unsafe_name"),
        ("line\nbreak", "unsafe_name"),
        ("\x1b[31mred", "unsafe_name"),
        ("gpj.\u202eexe", "unsafe_name"),
        ("e\u0301", "unsafe_name"),
        ("x" * 201, "unsafe_name"),
        ("/".join("d" * 13), "too_deep"),
    ],
)
def test_names(name: str, code: str) -> None:
    assert refusal(make(("good.py", b""), (name, b"x"))).code == code


def test_backslashes_and_nul() -> None:
    assert refusal(edited(make(("..Xevil", b"x")), b"..Xevil", b"..\\evil")).code == "unsafe_name"
    assert (
        refusal(edited(make(("good.pyXevil", b"x")), b"good.pyXevil", b"good.py\0evil")).code == "unsafe_name"
    )


def test_the_member_is_named_and_made_printable() -> None:
    assert "“../<b>evil\\n”" not in refusal(make(("../evil", b""))).sentence
    assert "“../evil”" in refusal(make(("../evil", b""))).sentence
    assert "“a\\nb”" in refusal(make(("a\nb", b""))).sentence


def test_names_that_are_not_utf8() -> None:
    assert refusal(edited(make(("nameX", b"x")), b"nameX", b"name\xe9")).code == "name_encoding"
    assert refusal(edited(make(("näme", b"x")), "näme".encode(), b"n\xff\xffme")).code == "name_encoding"


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices(kind: int) -> None:
    assert refusal(make((info("x", kind | 0o777), b"/etc/passwd"))).code == "not_a_file"


def test_a_file_that_says_it_is_a_folder() -> None:
    assert refusal(make((info("x", stat.S_IFDIR | 0o755), b"data"))).code == "not_a_file"
    assert refusal(make((info("x/", stat.S_IFREG | 0o755), b""))).code == "not_a_file"


def test_encrypted() -> None:
    file = bytearray(make(("x", b"data")).getvalue())
    directory = file.index(b"PK\x01\x02")
    file[6] |= 1
    file[directory + 8] |= 1
    assert refusal(io.BytesIO(file)).code == "encrypted"


def test_unusual_methods() -> None:
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        assert refusal(make(("x", b"data"), method=method)).code == "method"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names",
    [("a", "a"), ("a", "A"), ("straße", "STRASSE"), ("a", "a/b"), ("a/b", "a"), ("A/x", "a"), ("x/", "X")],
)
def test_duplicates(names: tuple[str, str]) -> None:
    assert refusal(make(*((name, b"") for name in names))).code == "duplicate"


def test_folders_may_be_named_late() -> None:
    assert len(inspect_zip(make(("a/b", b""), ("a/", b"")))) == 2


def test_too_many() -> None:
    file = make(*((str(number), b"") for number in range(5)))
    assert len(inspect_zip(file, max_files=5)) == 5
    assert refusal(file, max_files=4).code == "too_many"


def test_too_many_is_found_before_the_directory_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    file = make(*((str(number), b"") for number in range(1000)))
    monkeypatch.setattr(zipfile, "ZipFile", None)
    assert refusal(file).code == "too_many"


def test_a_count_that_lies() -> None:
    file = bytearray(make(*((str(number), b"") for number in range(5))).getvalue())
    end = file.rindex(b"PK\x05\x06")
    struct.pack_into("<HH", file, end + 8, 1, 1)
    assert refusal(io.BytesIO(file), max_files=4).code == "too_many"


def test_too_large() -> None:
    file = make(("a", b"x" * 600), ("b", b"x" * 600))
    assert len(inspect_zip(file, max_bytes=1200)) == 2
    assert refusal(file, max_bytes=1199).code == "too_large"


def test_bomb_by_ratio() -> None:
    file = make(("zeros", bytes(20 * 2**20)))
    assert len(file.getvalue()) < 30_000
    assert refusal(file).code == "bomb"
    assert len(inspect_zip(file, max_ratio=2000)) == 1


def declare(file: io.BytesIO, size: int) -> io.BytesIO:
    """The same zip file, saying that its only member is of another size."""
    data = bytearray(file.getvalue())
    struct.pack_into("<I", data, 22, size)
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, size)
    return io.BytesIO(data)


def test_bomb_that_declares_little(tmp_path: Path) -> None:
    file = declare(make(("x", bytes(30 * 2**20))), 10)
    assert refusal(file).code in ("damaged", "bomb")
    with pytest.raises(ArchiveRefused):
        extract_zip(file, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_member_shorter_than_declared() -> None:
    assert refusal(declare(make(("x", b"abc")), 5)).code in ("damaged", "bomb")


def test_members_on_top_of_each_other() -> None:
    """Two directory entries for one packed member (as in Fifield's bomb, which overlaps them)."""
    data = make(("x", b"abc" * 100)).getvalue()
    start, end = data.index(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    entry = data[start:end]
    other = entry.replace(b"x", b"y")
    tail = bytearray(data[end:])
    struct.pack_into("<HHI", tail, 8, 2, 2, 2 * len(entry))
    assert refusal(io.BytesIO(data[:end] + other + bytes(tail))).code == "bomb"


def test_two_names_for_one_member() -> None:
    """The directory and the member's own header disagree."""
    data = make(("good", b"x")).getvalue()
    assert refusal(io.BytesIO(data.replace(b"good", b"evil", 1))).code == "damaged"


def test_damage_is_found() -> None:
    data = bytearray(make(("x", b"hello world" * 50), method=zipfile.ZIP_STORED).getvalue())
    data[40] ^= 1
    assert refusal(io.BytesIO(data)).code == "damaged"


@pytest.mark.parametrize(
    "data", [b"", b"PK", b"not a zip", b"PK\x05\x06", b"x" * 100_000, b"PK\x03\x04" + b"\0" * 100]
)
def test_not_a_zip(data: bytes) -> None:
    assert refusal(io.BytesIO(data)).code == "not_a_zip"


def test_extract_needs_a_new_folder_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        extract_zip(make(("x", b"")), tmp_path)
    with pytest.raises(ArchiveRefused):
        extract_zip(make(("x", b""), ("../y", b"")), tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


@given(st.binary(max_size=60), st.integers(0, 400), st.integers(1, 8))
def test_damaged_archives_are_refused_or_read_but_never_anything_else(
    noise: bytes, place: int, length: int
) -> None:
    data = bytearray(make(("main.py", b"print(1)"), ("data/x.csv", b"a,b\n1,2\n" * 9)).getvalue())
    place %= len(data)
    data[place : place + length] = noise
    try:
        inspect_zip(io.BytesIO(data))
    except ArchiveRefused as refused:
        assert refused.sentence.isprintable()
