"""Submitting programs: who may, what is taken, and every bad upload with its sentence."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import uuid
import zipfile
from typing import Any

import pytest

from apps.audit.models import Entry
from apps.core.errors import Denied, Invalid
from apps.core.models import Outbox
from apps.core.objects import store
from apps.datasets import actions as datasets
from apps.jobs import actions
from apps.jobs.models import Program, Run
from apps.projects import actions as projects
from tests import factories
from tests.factories import PROGRAM, World

NOTEBOOK = json.dumps(
    {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code", "source": "1/0"}]}
).encode()


def submit(w: World, content: bytes = PROGRAM, filename: str = "visits.py", **more: Any) -> Program:
    given = {
        "by": w.member, "project": w.project, "name": "Visits", "file": io.BytesIO(content), "filename": filename,
        "datasets": [w.dataset], "submission": uuid.uuid4().hex, **more,
    }  # fmt: skip
    return actions.submit_program(**given)


def archive(files: dict[str, bytes], **attributes: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = attributes.get("external_attr", (stat.S_IFREG | 0o644) << 16)
            made.writestr(info, data)
    return out.getvalue()


def refused(w: World, field: str, code: str, *args: Any, **more: Any) -> str:
    """The sentence of a refusal; nothing was stored."""
    before = Program.objects.count(), Run.objects.count(), Entry.objects.count()
    with pytest.raises(Invalid) as refusal:
        submit(w, *args, **more)
    assert refusal.value.code == code
    (sentence,) = refusal.value.fields[field]
    assert (Program.objects.count(), Run.objects.count(), Entry.objects.count()) == before
    return sentence


def test_taken(w: World) -> None:
    program = submit(w, note="Counts visits.\nNo tables.")
    digest = hashlib.sha256(PROGRAM).hexdigest()
    assert (program.kind, program.entry, program.sha256, program.size) == (
        "py",
        "visits.py",
        digest,
        len(PROGRAM),
    )
    with store().open(program.object_name) as reader:
        assert reader.read() == PROGRAM
    assert list(program.versions.all()) == [w.dataset.versions.get()]
    run = program.runs.get()
    assert (run.kind, run.state, run.requested_by) == ("rehearsal", "waiting", w.member.actor_code)
    (entry,) = run.manifest["inputs"]
    assert entry["stage"] == 1 and not entry["sealed"] and run.manifest["full_log"]
    logged = Entry.objects.get(event="program.submitted")
    assert (
        logged.data == {"sha256": digest, "kind": "py", "datasets": [str(w.dataset.pk)]}
        and logged.scope == f"project:{w.project.pk}"
    )
    assert Outbox.objects.filter(topic="advance_run", key=str(run.pk)).exists()


@pytest.mark.parametrize(
    ("content", "filename", "entry", "kind", "expected"),
    [
        (b"\xef\xbb\xbfprint('with a byte order mark')\n", "a.py", "", "py", "a.py"),
        ("print('größer')\n".encode(), "größer.PY", "", "py", "größer.PY"),
        (PROGRAM, "C:\\Users\\ada\\a.py", "", "py", "a.py"),
        (PROGRAM, "../../../etc/a.py", "", "py", "a.py"),
        (NOTEBOOK, "a.ipynb", "", "ipynb", "a.ipynb"),
        (archive({"main.py": PROGRAM, "lib/x.py": b"y = 1\n"}), "a.zip", "", "zip", "main.py"),
        (archive({"src/go.py": PROGRAM}), "a.zip", " src/go.py ", "zip", "src/go.py"),
        (archive({"main.ipynb": NOTEBOOK}), "a.zip", "", "zip", "main.ipynb"),
    ],
)
def test_kinds(w: World, content: bytes, filename: str, entry: str, kind: str, expected: str) -> None:
    program = submit(w, content, filename, entry=entry)
    assert (program.kind, program.entry) == (kind, expected)
    if kind == "zip":
        assert {f["path"] for f in program.files} >= {expected} and all(f["size"] for f in program.files)


def test_name_defaults_to_the_file(w: World) -> None:
    assert submit(w, name="  ", filename="../x/visits.py").name == "visits.py"


def test_the_same_submission_is_one_program(w: World) -> None:
    token = uuid.uuid4().hex
    first, second = submit(w, submission=token), submit(w, b"other = 1\n", submission=token)
    assert (
        first == second and Program.objects.count() == 1 and Run.objects.filter(kind="rehearsal").count() == 1
    )


def test_the_same_dataset_twice_is_one_input(w: World) -> None:
    program = submit(w, datasets=[w.dataset, w.dataset])
    assert program.runs.get().inputs.count() == 1


# Who may


@pytest.mark.parametrize("who", ["custodian", "ours", "theirs"])
def test_only_members(w: World, who: str) -> None:
    with pytest.raises(Denied) as refusal:
        submit(w, by=getattr(w, who))
    assert refusal.value.code == "not_a_member" and not Program.objects.exists()


def test_not_before_accepting_nor_after_leaving(w: World) -> None:
    guest = factories.person("Gus Guest", w.university)
    projects.invite(by=w.lead, project=w.project, email=guest.email)
    with pytest.raises(Denied):
        submit(w, by=guest)
    projects.accept_invitation(by=guest, project=w.project)
    submit(w, by=guest)
    projects.leave_project(by=guest, project=w.project)
    with pytest.raises(Denied):
        submit(w, by=guest)


# Which datasets


def test_no_dataset(w: World) -> None:
    assert "at least one dataset" in refused(w, "datasets", "no_dataset", datasets=[])


def test_no_access(w: World) -> None:
    datasets.suspend_access(
        by=w.custodian, access_request=w.project.access_requests.get(), reason="A question."
    )
    assert "no access" in refused(w, "datasets", "access_not_active")


@pytest.mark.parametrize("stop", [datasets.suspend_dataset, datasets.withdraw_dataset])
def test_closed_dataset(w: World, stop: Any) -> None:
    stop(by=w.custodian, dataset=w.dataset, reason="A question.")
    assert "not open for use" in refused(w, "datasets", "dataset_not_published")


def test_no_stand_in_data(w: World) -> None:
    release = w.dataset.versions.get().releases.get()
    datasets.withdraw_release(by=w.custodian, release=release, reason="A flaw.")
    assert "no stand-in data released" in refused(w, "datasets", "no_stand_in_data")


# Bad uploads


def bomb() -> bytes:
    return archive({"main.py": PROGRAM, "zeros.bin": b"\0" * (30 << 20)})


BAD: list[tuple[str, bytes, str, str, str]] = [
    ("no such kind", PROGRAM, "a.exe", "file_type", "A program is"),
    ("no ending", PROGRAM, "program", "file_type", "A program is"),
    ("no name", PROGRAM, "", "file_type", "A program is"),
    ("dots", PROGRAM, "..", "file_type", "A program is"),
    ("control character in the name", PROGRAM, "a\x07b.py", "file_type", "A program is"),
    ("NUL in the name", PROGRAM, "a\x00b.py", "file_type", "A program is"),
    ("direction override in the name", PROGRAM, "a\u202eyp.py", "file_type", "A program is"),
    ("long name", PROGRAM, "a" * 130 + ".py", "file_type", "A program is"),
    ("empty", b"", "a.py", "empty", "empty"),
    ("empty notebook", b"", "a.ipynb", "empty", "empty"),
    ("empty zip file", b"", "a.zip", "empty", "empty"),
    ("NUL bytes", b"print(1)\x00", "a.py", "not_text", "NUL bytes"),
    ("NUL bytes in a notebook", b'{"nbformat"\x00', "a.ipynb", "not_text", "NUL bytes"),
    ("UTF-16", "print(1)".encode("utf-16"), "a.py", "not_text", "NUL bytes"),
    ("Latin-1", "print('größer')".encode("latin-1"), "a.py", "encoding", "UTF-8"),
    ("a picture", b"\x89PNG\r\n\x1a\n\xff\xff", "a.py", "encoding", "UTF-8"),
    ("syntax", b"print(1)\n\ndef x(:\n", "a.py", "syntax", "line 3"),
    ("indentation", b"if 1:\nprint(1)\n", "a.py", "syntax", "line 2"),
    ("Python 2", b"print 'hello'\n", "a.py", "syntax", "line 1"),
    ("nested too deep", b"(" * 5000 + b")" * 5000, "a.py", "syntax", "cannot read"),
    ("endless sum", b"x = " + b"1+" * 200_000 + b"1\n", "a.py", "syntax", "cannot read"),
    ("endless minus", b"x = " + b"-" * 100_000 + b"1\n", "a.py", "syntax", "cannot read"),
    ("a zip called .py", archive({"main.py": PROGRAM}), "a.py", "not_text", "NUL bytes"),
    ("a notebook that is a list", b"[]", "a.ipynb", "not_a_notebook", "not a Jupyter notebook"),
    ("a notebook that is text", b"print(1)", "a.ipynb", "not_a_notebook", "not a Jupyter notebook"),
    ("a notebook of format 3", b'{"nbformat": 3, "cells": []}', "a.ipynb", "not_a_notebook", "format 4"),
    ("a notebook without cells", b'{"nbformat": 4}', "a.ipynb", "not_a_notebook", "not a Jupyter notebook"),
    ("a notebook with no list of cells", b'{"nbformat": 4, "cells": {}}', "a.ipynb", "not_a_notebook", "not a Jupyter notebook"),
    ("a notebook nested too deep", b'{"cells":' + b"[" * 200_000, "a.ipynb", "not_a_notebook", "not a Jupyter notebook"),
    ("not a zip", b"PK nonsense", "a.zip", "archive_not_a_zip", "not a zip file"),
    ("half a zip", archive({"main.py": PROGRAM})[:40], "a.zip", "archive_not_a_zip", "not a zip file"),
    ("../ in an archive", archive({"main.py": PROGRAM, "../evil.py": b"x"}), "a.zip", "archive_parent_name", "../"),
    ("../ in the middle", archive({"main.py": PROGRAM, "a/../../evil.py": b"x"}), "a.zip", "archive_parent_name", "../"),
    ("absolute name", archive({"main.py": PROGRAM, "/etc/passwd": b"x"}), "a.zip", "archive_absolute_name", "absolute name"),
    ("drive letter", archive({"main.py": PROGRAM, "C:\\x.py": b"x"}), "a.zip", "archive_unsafe_name", "backslash"),
    ("a link", archive({"main.py": b"/etc/passwd"}, external_attr=(stat.S_IFLNK | 0o777) << 16), "a.zip", "archive_not_a_file", "a link"),
    ("a device", archive({"main.py": b"x"}, external_attr=(stat.S_IFBLK | 0o777) << 16), "a.zip", "archive_not_a_file", "a device"),
    ("a bomb", bomb(), "a.zip", "archive_bomb", "100 times"),
    ("too many files", archive({"main.py": PROGRAM, **{f"f{n}.txt": b"x" for n in range(300)}}), "a.zip", "archive_too_many", "more than 200 members"),
    ("one name in two cases", archive({"main.py": PROGRAM, "MAIN.py": b"x"}), "a.zip", "archive_duplicate", "capital letters"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "filename", "code", "words"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
def test_bad_upload(w: World, content: bytes, filename: str, code: str, words: str) -> None:
    assert words in refused(w, "file", code, content, filename)


def test_too_large(w: World, settings: Any) -> None:
    assert "2 MB of text" in refused(w, "file", "too_large", b"#" * ((2 << 20) + 1))
    settings.MAX_PROGRAM_BYTES = 1 << 20
    assert "larger than 1 MB" in refused(w, "file", "too_large", b"#" * ((1 << 20) + 1))


@pytest.mark.parametrize("entry", ["", "gone.py", "data.csv", "src", "../go.py", "/src/go.py", "src/go.py/"])
def test_entry_of_an_archive(w: World, entry: str) -> None:
    refused(w, "entry", "entry_missing", archive({}), "a.zip", entry=entry)
    content = archive({"src/go.py": PROGRAM, "data.csv": b"a\n1\n"})
    assert "file in the archive" in refused(w, "entry", "entry_missing", content, "a.zip", entry=entry)


def test_a_damaged_member_is_found_before_it_is_stored(w: World) -> None:
    content = bytearray(archive({"main.py": PROGRAM * 50}))
    content[60] ^= 0xFF
    assert "damaged" in refused(w, "file", "archive_damaged", bytes(content), "a.zip")


@pytest.mark.parametrize("name", ["x" * 201, "a\x00b", "a\x1bb", "two\nlines"])
def test_bad_names(w: World, name: str) -> None:
    refused(w, "name", "too_long" if len(name) > 200 else "unprintable", name=name)


def test_bad_note(w: World) -> None:
    refused(w, "note", "unprintable", note="a\x00b")
    refused(w, "note", "too_long", note="x" * 2001)
