"""Submitting a program: look at the upload, store it by hash, start its rehearsal."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from django.conf import settings
from django.db import IntegrityError, transaction

from apps.accounts.models import User
from apps.core.errors import Invalid
from apps.core.lifecycle import recorder
from apps.core.objects import chunks_of, store
from apps.datasets.models import Dataset
from apps.datasets.queries import active_access, current_release
from apps.datasets.states import DatasetState
from apps.jobs import permissions
from apps.jobs.engine import create_run
from apps.jobs.models import Program, Run
from apps.projects.models import Project
from strongroom.archive import ArchiveRefused, inspect_zip

# Reading a program takes the web process a hundred times its size in memory, and nobody writes so much by hand.
MAX_SOURCE_BYTES = 2 << 20


def submit_program(
    *,
    by: User,
    project: Project,
    name: str,
    file: BinaryIO,
    filename: str,
    datasets: Sequence[Dataset],
    submission: str,
    entry: str = "",
    note: str = "",
) -> Program:
    """Store a .py, .ipynb or .zip program for `project` and start its rehearsal on the present stand-in data.

    submission: a token of the form or the client; the same one again returns the first program.
    Raises Denied (not a member), Invalid (file, entry point or datasets).
    """
    permissions.require_submit(by, project)
    existing = Program.objects.filter(project=project, submission=submission).first()
    if existing is not None:
        return existing
    name, note = _text("name", name, 200) or _base(filename), _text("note", note, 2000, lines=True)
    datasets = list({dataset.pk: dataset for dataset in datasets}.values())
    releases = [_release_for(project, dataset) for dataset in datasets]
    if not releases:
        raise _field("datasets", "no_dataset", "Choose at least one dataset that the program reads.")
    kind, entry, files = _look_at(file, filename, entry)
    file.seek(0)
    digest = hashlib.sha256()
    for chunk in chunks_of(file):
        digest.update(chunk)
    sha256 = digest.hexdigest()
    file.seek(0)
    _, size = store().put(f"programs/{sha256}", chunks_of(file))
    try:
        with transaction.atomic():
            program = Program.objects.create(
                project=project, name=name, kind=kind, entry=entry, sha256=sha256, size=size,
                object_name=f"programs/{sha256}", note=note, files=files, uploaded_by=by, submission=submission,
            )  # fmt: skip
            program.versions.set([release.version for release in releases])
            recorder()(
                event="program.submitted", by=by, object_type="program", object_id=program.pk,
                scope=f"project:{project.pk}", data={"sha256": sha256, "kind": kind, "datasets": [str(d.pk) for d in datasets]},
            )  # fmt: skip
            create_run(
                by=by, kind=Run.Kind.REHEARSAL, project=project, program=program,
                inputs=[(release.version, release) for release in releases],
            )  # fmt: skip
    except IntegrityError:
        # The same form, sent twice at once: the other one was first.
        first = Program.objects.filter(project=project, submission=submission).first()
        if first is None:
            raise
        return first
    return program


def _release_for(project: Project, dataset: Dataset) -> Any:
    """The stand-in data that the rehearsal will use. Raises Invalid."""
    if dataset.state != DatasetState.PUBLISHED:
        raise _field(
            "datasets",
            "dataset_not_published",
            f"“{dataset.title}” is not open for use at the moment. Ask its custodian.",
        )
    if active_access(project, dataset) is None:
        raise _field(
            "datasets",
            "access_not_active",
            f"The project has no access to “{dataset.title}” in force. Ask for access first.",
        )
    release = current_release(dataset)
    if release is None:
        raise _field(
            "datasets", "no_stand_in_data",
            f"“{dataset.title}” has no stand-in data released yet, so the program cannot be rehearsed. Ask its custodian.",
        )  # fmt: skip
    return release


def _field(field: str, code: str, sentence: str) -> Invalid:
    return Invalid(code, sentence, fields={field: [sentence]})


def _base(filename: str) -> str:
    return unicodedata.normalize("NFC", PurePosixPath(filename.replace("\\", "/")).name)


def _text(field: str, value: str, limit: int, *, lines: bool = False) -> str:
    """Raises Invalid for what is too long or holds control characters (a note may have several lines)."""
    value = value.strip()
    if len(value) > limit:
        raise _field(field, "too_long", f"The {field} must be {limit} characters or fewer.")
    if "\x00" in value or not (lines or value.isprintable()):
        raise _field(field, "unprintable", f"The {field} holds characters that cannot be shown.")
    return value


def _look_at(file: BinaryIO, filename: str, entry: str) -> tuple[str, str, list[dict[str, Any]]]:
    """(kind, entry point, files of an archive). Raises Invalid with a sentence for the file field."""
    base = _base(filename)
    suffix = PurePosixPath(base).suffix.lower()
    if suffix not in (".py", ".ipynb", ".zip") or not base.isprintable() or len(base) > 120:
        raise _field(
            "file",
            "file_type",
            "A program is a .py file, a .ipynb notebook, or a .zip archive with one of these as entry point.",
        )
    file.seek(0, 2)
    if file.tell() > settings.MAX_PROGRAM_BYTES:
        raise _field(
            "file",
            "too_large",
            f"The program is larger than {settings.MAX_PROGRAM_BYTES // 1024**2} MB. Leave data and packages out of it.",
        )
    if file.tell() == 0:
        raise _field("file", "empty", "The file is empty. Choose the program's file again.")
    file.seek(0)
    if suffix == ".zip":
        return Program.Kind.ARCHIVE, *_look_at_zip(file, entry)
    content = file.read()
    if b"\x00" in content:
        raise _field(
            "file", "not_text", "The file holds NUL bytes, so it is not a Python program or notebook."
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _field(
            "file", "encoding", "The file is not UTF-8 text. Save it as UTF-8 and try again."
        ) from None
    if suffix == ".ipynb":
        _look_at_notebook(text)
        return Program.Kind.NOTEBOOK, base, []
    if len(content) > MAX_SOURCE_BYTES:
        raise _field(
            "file",
            "too_large",
            f"The program is larger than {MAX_SOURCE_BYTES >> 20} MB of text. Leave data out of it.",
        )
    try:
        compile(text, base, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        raise _field(
            "file",
            "syntax",
            f"Python cannot read the program{f' (line {line})' if line else ''}. Mend it and submit it again.",
        ) from None
    return Program.Kind.PYTHON, base, []


def _look_at_zip(file: BinaryIO, entry: str) -> tuple[str, list[dict[str, Any]]]:
    try:
        members = inspect_zip(file)
    except ArchiveRefused as refused:
        raise _field("file", f"archive_{refused.code}", str(refused)) from refused
    names = [member.name for member in members if not member.is_folder]
    entry = entry.strip() or next((n for n in ("main.py", "main.ipynb") if n in names), "")
    if entry not in names or not entry.endswith((".py", ".ipynb")):
        raise _field(
            "entry", "entry_missing",
            "Name the file in the archive that is to be started: a .py or .ipynb, with its folder. (main.py needs no naming.)",
        )  # fmt: skip
    return entry, [{"path": member.name, "size": member.size} for member in members if not member.is_folder]


def _look_at_notebook(text: str) -> None:
    try:
        notebook = json.loads(text)
        cells = notebook["cells"]
        good = notebook["nbformat"] == 4 and isinstance(cells, list)
        good = good and all(
            isinstance(cell["cell_type"], str) and isinstance(cell["source"], str | list) for cell in cells
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        good = False
    if not good:
        raise _field(
            "file",
            "not_a_notebook",
            "The file is not a Jupyter notebook of format 4. Save it from Jupyter and try again.",
        )
