"""Files under review and outputs of rehearsals: shown, paged, downloaded, never executed."""

from __future__ import annotations

import csv
import uuid
from collections.abc import Iterator

import pytest

from apps.core.objects import put_bytes
from apps.jobs.models import Output, OutputRelease
from tests.factories import World, browser, page

FILES: dict[str, tuple[bytes, str]] = {
    "table.csv": (b"a,b\n<script>alert(1)</script>,2\n", "&lt;script&gt;alert(1)"),
    "wide.csv": (b",".join(b"c%d" % n for n in range(400)) + b"\n1\n", "c199"),
    "empty.csv": (b"", "The file has no rows"),
    "nul.csv": (b"a,b\n1\x00,2\n", "1\ufffd"),
    "latin.csv": ("a\ngrün\n".encode("latin-1"), "gr\ufffdn"),
    "huge-field.csv": (b"a\n" + b"x" * 200_000 + b"\n", "not readable as CSV"),
    "huge-line.csv": (b"a\n" + b"x," * (2 << 20) + b"\n", "not readable as CSV"),
    "open-quote.csv": (b'a\n"' + b"x\n" * 200_000, "not readable as CSV"),
    "plot.png": (b"\x89PNG\r\n\x1a\n<script>", 'alt="The image plot.png'),
    "page.html": (b"<script>alert(1)</script>", "&lt;script&gt;alert(1)"),
    "pic.svg": (b"<svg onload=alert(1)>", "cannot be shown here"),
    "note.txt": (b"x" * 300_000, "Only the first 256 KB"),
    "nul.txt": (b"a\x00b<script>", "a\ufffdb&lt;script&gt;"),
    "data.json": (b'{"a": "<script>"}', "&lt;script&gt;"),
    "model.pkl": (b"\x80\x04", "cannot be shown here"),
    "report.pdf": (b"%PDF-1.7", "cannot be shown here"),
    "noending": (b"<script>", "cannot be shown here"),
    "<img src=x onerror=alert(1)>.txt": (b"hello", "&lt;img src=x onerror=alert(1)&gt;.txt"),
}


@pytest.fixture(scope="module")
def _files(_world: World) -> OutputRelease:
    return _world.outputs({name: content for name, (content, _) in FILES.items()})


@pytest.fixture(params=[128 << 10, 1 << 20], ids=["own-limit", "another-reader's-limit"])
def _field_limit(request: pytest.FixtureRequest) -> Iterator[None]:
    """The csv module has one limit for the whole process, so what is shown must not hang on it."""
    before = csv.field_size_limit(request.param)
    yield
    csv.field_size_limit(before)


@pytest.mark.usefixtures("_field_limit")
@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".csv")])
def test_a_table_under_review_whatever_the_limit(w: World, _files: OutputRelease, name: str) -> None:
    output = _files.run.outputs.get(path=name)
    assert FILES[name][1] in page(w.checkers[0], f"/checks/{_files.pk}/files/{output.pk}")


@pytest.mark.parametrize("name", FILES)
def test_a_file_under_review(w: World, _files: OutputRelease, name: str) -> None:
    content, shown = FILES[name]
    output, checker = _files.run.outputs.get(path=name), w.checkers[0]
    text = page(checker, f"/checks/{_files.pk}/files/{output.pk}")
    assert (
        shown in text
        and "<script>alert" not in text
        and "<img src=x" not in text
        and "<svg onload" not in text
    )
    for query in ("", "?inline"):
        response = browser(checker).get(f"/checks/{_files.pk}/files/{output.pk}/content{query}")
        assert b"".join(response.streaming_content) == content
        image = name == "plot.png" and query
        assert response["Content-Type"] == ("image/png" if image else "application/octet-stream")
        assert response["Content-Disposition"].startswith("inline" if image else "attachment")
        assert response["Content-Security-Policy"] == "default-src 'none'; sandbox"
        assert response["X-Content-Type-Options"] == "nosniff"


def test_csv_by_pages(w: World, _files: OutputRelease) -> None:
    name = f"outputs/{uuid.uuid4().hex}"
    rows = b"n\n" + b"".join(b"row%d\n" % n for n in range(1, 121))
    put_bytes(name, rows)
    output = Output.objects.create(
        run=_files.run,
        path="long.csv",
        sha256="0" * 64,
        size=len(rows),
        media_type="text/csv",
        object_name=name,
    )
    path = f"/checks/{_files.pk}/files/{output.pk}"
    first, last = page(w.checkers[0], path), page(w.checkers[0], f"{path}?page=3")
    assert "Page 1 of 3" in first and "row50" in first and "row51" not in first and "Previous" not in first
    assert "row101" in last and "row120" in last and "Next page" not in last
    for odd in ("0", "-1", "x", "²", "9" * 5000, "99", "1.5", "%00"):
        page(w.checkers[0], f"{path}?page={odd}")


def test_a_file_of_another_run(w: World, _files: OutputRelease) -> None:
    """The id of a file opens it only below the run that it belongs to."""
    other = (
        Output.objects.filter(run__kind="rehearsal").first() or Output.objects.exclude(run=_files.run).first()
    )
    assert other is not None
    page(w.checkers[0], f"/checks/{_files.pk}/files/{other.pk}", 404)
    page(w.checkers[0], f"/checks/{_files.pk}/files/{other.pk}/content", 404)
