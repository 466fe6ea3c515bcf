"""The browser journey: the whole story in a real Chromium, every page looked at; then without scripts, then by keyboard.

STRONGROOM_SCREENSHOTS=FOLDER keeps a picture of each page at 1280 and 360 pixels; STRONGROOM_DOCS_IMAGES=1 writes those of
the README into docs/images.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.functional.more import by_keyboard, without_scripts
from tests.functional.portal import ROOT, running
from tests.functional.story import Story, kept
from tests.functional.visitor import ARGUMENTS, CHROMIUM, Findings, screenshots

pytestmark = [pytest.mark.browser, pytest.mark.slow]
HOW = (
    "Chromium is not installed, so the browser journey cannot run. Install it with: apt-get install chromium"
)


@pytest.fixture
def chromium() -> Iterator[Browser]:
    if not CHROMIUM:
        # In CI a journey that did not run must not look like one that held.
        if os.environ.get("CI") == "true":
            pytest.fail(HOW)
        pytest.skip(HOW)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def test_journey(chromium: Browser, tmp_path: Path) -> None:
    """One test and one portal, because each step needs what the steps before it made."""
    findings = Findings()
    docs = ROOT / "docs/images" if os.environ.get("STRONGROOM_DOCS_IMAGES") == "1" else None
    if docs:
        docs.mkdir(parents=True, exist_ok=True)
    with (
        running(tmp_path / "var") as portal,
        kept(Story(chromium, portal, findings, screenshots(), docs)) as story,
    ):
        for what, act in [*story.steps(), ("without scripts", lambda: without_scripts(story)), ("by keyboard alone", lambda: by_keyboard(story))]:  # fmt: skip
            began, pages = time.monotonic(), findings.pages
            try:
                act()
            except BaseException:
                for who, visitor in story.people.items():
                    visitor.page.screenshot(path=str(tmp_path / f"failed-{who}.png"))
                print(f"Pictures of where everybody was: {tmp_path}/failed-*.png")
                raise
            print(f"{time.monotonic() - began:6.1f} s  {what} ({findings.pages - pages} pages)")
    assert not findings.wrong, "\n".join(findings.wrong)
    assert findings.pages > 80, "fewer pages than the story has"
