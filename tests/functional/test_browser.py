"""The pages in a real browser, over a portal in which the whole story has been told by its users' own forms.

Every page that each account reaches: no accessibility violation (WCAG 2.2 AA), nothing in the console, no sideways
scroll at 360 pixels. And what only a browser does: sealing in the page, a run followed live, pages without scripts.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def portal() -> Iterator[str]:
    """A portal of its own with the demo world in it; gone afterwards."""
    if not CHROMIUM.exists():
        sentence = "Chromium is missing. As root: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(sentence)
        pytest.skip(sentence)
    var = Path(tempfile.mkdtemp(prefix="strongroom-browser-"))
    log = var / "demo.log"
    kept = {
        k: v
        for k, v in os.environ.items()
        if k not in ("DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE")
    }
    env = {**kept, "STRONGROOM_VAR": str(var / "data")}
    with log.open("wb") as output:
        stack = subprocess.Popen(
            [sys.executable, "-m", "infra.embedded", "demo"], cwd=ROOT, env=env, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + 420
        while "The portal: " not in log.read_text():
            assert stack.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.5)
        text = log.read_text()
        assert "Every step held" in text, text[-3000:]
        yield text.split("The portal: ")[1].split()[0]
    finally:
        stack.send_signal(signal.SIGINT)
        try:
            stack.wait(60)
        except subprocess.TimeoutExpired:
            stack.kill()
        shutil.rmtree(var, ignore_errors=True)


def drive(command: str, url: str, folder: Path) -> dict:
    folder = Path(os.environ.get("STRONGROOM_SCREENSHOTS", folder))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("driver.py")), command, url, str(folder)],
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_every_page_is_accessible_and_fits(portal: str, tmp_path: Path) -> None:
    pages = drive("crawl", portal, tmp_path)
    assert len(pages) > 60, sorted(pages)
    assert {page: wrong for page, wrong in pages.items() if wrong} == {}


def test_what_only_a_browser_does(portal: str, tmp_path: Path) -> None:
    seen = drive("live", portal, tmp_path)
    assert seen["error_title"].startswith("Error: ")
    assert seen["error_focus"] in ("title", "custodian", "slug", "summary", "personal_data")
    assert seen["version"] == "Accepted"
    assert len(seen["phases_without_reload"]) >= 3, seen  # it moved on the page by itself
    assert seen["ended"] == "Finished" and seen["can_go_on"] == 1
    assert seen["without_scripts"]
    assert seen["custodian_console"] == [] and seen["lead_console"] == []
