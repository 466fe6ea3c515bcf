"""Every macro and ready page in a real browser, under a strict policy: rules of WCAG 2.2 AA, reflow at 320 px."""

from __future__ import annotations

import json
import mimetypes
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from strongroom import seal
from tests.unit.frontend import render
from tests.unit.frontend.browser import CHROMIUM
from tests.unit.frontend.test_seal_js import DATASET, opened
from tests.unit.frontend.upload_server import Handler, Upload, serve

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
DIST = render.FRONTEND / "static" / "dist"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="Chromium is missing: apt-get install chromium"),
    pytest.mark.skipif(
        not (DIST / "app.css").exists(),
        reason="The styles are not built: npm ci && npm run build in frontend/",
    ),
]


class PageHandler(Handler):
    """The upload server with our pages and static files beside it."""

    pages: dict[str, str]

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path in self.pages:
            self._bytes(self.pages[path].encode(), "text/html; charset=utf-8")
        elif path.startswith("/static/"):
            name = path.removeprefix("/static/")
            file = render.FRONTEND / "static" / name
            if not file.exists():
                file = Path(str(files("django_htmx"))) / "static" / name
            kind = (
                "text/javascript"
                if name.endswith(".js")
                else mimetypes.guess_type(name)[0] or "application/octet-stream"
            )
            self._bytes(file.read_bytes(), kind)
        else:
            self._bytes(b"<!DOCTYPE html><html lang=en><title>x</title>", "text/html", 404)

    def _bytes(self, body: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Security-Policy", CSP)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def broker() -> seal.PrivateKey:
    return seal.generate_key_pair("x25519")


@pytest.fixture(scope="module")
def upload() -> Upload:
    return Upload(["cut", "503"])


@pytest.fixture(scope="module")
def site(broker: seal.PrivateKey, upload: Upload) -> Iterator[str]:
    """The address of a server with every page."""
    pages = {f"/{name}": html for name, html in render.all_pages(broker.public.to_json(), DATASET).items()}
    with serve(upload, type("WithPages", (PageHandler,), {"pages": pages})) as running:
        yield running.url


def browser(command: str, url: str, **options: Any) -> Any:
    script = str(Path(__file__).with_name("browser.py"))
    done = subprocess.run(
        [sys.executable, script, command, url, json.dumps(options)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_no_page_breaks_an_accessibility_rule_or_scrolls_sideways(site: str) -> None:
    paths = [f"/{name}" for name in render.PAGE_NAMES]
    screenshots = os.environ.get("STRONGROOM_SCREENSHOTS")
    for found in browser("look", site, paths=paths, screenshots=screenshots):
        where = f"{found['path']} at {found['width']} px"
        assert found["violations"] == [], where
        assert found["scroll_width"] <= found["width"], where
        assert found["errors"] == [], where
        assert found["duplicate_ids"] == [], where
        assert found["small_targets"] == [], where


def test_error_summary_takes_the_focus_and_leads_to_the_fields(site: str) -> None:
    found = browser("error_links", site, path="/form-errors")
    assert found["title"] == "Error: Apply for data - Strongroom"
    assert found["focused_first"]
    assert len(found["reached"]) >= 10
    assert all(found["reached"])


def test_a_person_seals_and_uploads_a_file(
    site: str, tmp_path: Path, broker: seal.PrivateKey, upload: Upload
) -> None:
    data = os.urandom(6 * seal.SEGMENT_SIZE + 99)
    (tmp_path / "visits.csv").write_bytes(data)
    found = browser("seal", site, path="/seal", file=str(tmp_path / "visits.csv"))
    assert found["without_file"] == "Choose a file: the data file"
    assert "The server or the connection failed. Trying again in 1 second." in found["spoken"]
    assert [fault for method, fault in upload.seen if fault] == ["cut", "503"]
    assert any(words.startswith("100% sent") for words in found["spoken"])
    assert upload.header is not None
    assert data not in bytes(upload.data)
    assert opened(bytes(upload.data), upload.header, broker) == data
