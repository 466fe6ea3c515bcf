"""The same portal for people who have no scripts, and for people who have no mouse."""

from __future__ import annotations

import re
import time

from playwright.sync_api import Page

from tests.functional.portal import PASSWORD
from tests.functional.story import DATASET, TITLE, Story
from tests.functional.visitor import Visitor

PROGRAM = """import strongroom

data = strongroom.load("rand-hie")
(strongroom.outputs() / "mean.txt").write_text(f"{data['mdvis'].mean():.2f}")
print("rows:", len(data))
"""


def without_scripts(story: Story) -> None:
    """Submit a program, and reach its finished rehearsal by reloading the page as it says."""
    person = Visitor(story.browser, story.portal, "colleague", story.findings, None, javascript=False)
    story.people["colleague without scripts"] = person
    file = story.folder / "mean.py"
    file.write_text(PROGRAM)
    person.sign_in(PASSWORD).follow("Projects", inside="nav").follow(TITLE).follow("Submit a program")
    person.fill({"Name of the program": "Mean of visits", "Program file": file})
    person.page.get_by_label(DATASET["title"]).check()
    person.press("Submit and rehearse").shows("Refresh this page")
    until = time.monotonic() + 90
    while not person.page.get_by_role("button", name="Run on the real data").count():
        assert time.monotonic() < until, person.page.inner_text("main")
        person.page.wait_for_timeout(700)
        person.follow("Refresh this page")
        if not person.page.locator("a", has_text="Refresh this page").count():
            break
    person.shows("Finished").follow("Log and outputs of the rehearsal").shows("rows: ", "mean.txt")


def by_keyboard(story: Story) -> None:
    """Sign in and come to a run's page with Tab and Enter alone; what has the focus is always seen."""
    person = Visitor(story.browser, story.portal, "colleague", story.findings, None)
    story.people["colleague without a mouse"] = person
    page = person.page
    page.goto(story.portal + "/")
    page.keyboard.press("Tab")
    assert "Skip to main content" in _focus(page), "the first stop is not the skip link"
    _enter(page, "Sign in")
    _tab_to(page, "email")
    page.keyboard.type("colleague@demo.example")
    _tab_to(page, "password")
    page.keyboard.type(PASSWORD)
    with page.expect_navigation():
        page.keyboard.press("Enter")
    _enter(page, "Runs")
    _enter(page, "Cost sharing")
    assert re.search(r"/runs/[0-9a-f-]{36}$", page.url), page.url
    person.look()


def _focus(page: Page) -> str:
    """Text, name and visibility of what has the focus."""
    return str(
        page.evaluate("(() => { const e = document.activeElement; return `${e.innerText ?? ''} ${e.name ?? ''}`.trim(); })()")
    )  # fmt: skip


def _tab_to(page: Page, word: str) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        if word in _focus(page):
            # Seen: in the window, and drawn differently from when it has no focus (outline, colour or shadow).
            seen = page.evaluate(
                "(() => { const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();"
                " return r.width > 0 && r.height > 0 && (s.outlineStyle !== 'none' || s.boxShadow !== 'none'); })()"
            )
            assert seen, f"the focus on “{word}” is not seen"
            return
    raise AssertionError(f"Tab does not come to “{word}” on {page.url}")


def _enter(page: Page, word: str) -> None:
    _tab_to(page, word)
    with page.expect_navigation():
        page.keyboard.press("Enter")
