"""A person at a browser, who looks closely at every page they come to."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Error, Locator, Page

CHROMIUM = next((p for p in ("/usr/bin/chromium", shutil.which("chromium"), shutil.which("chromium-browser")) if p and Path(p).exists()), "")  # fmt: skip
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--headless",
]
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
PATIENCE = 60_000  # ms; a shared machine may be slow

LOOK = """() => {
  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  const h1 = [...document.querySelectorAll('h1')].map((e) => {
    const copy = e.cloneNode(true);
    copy.querySelectorAll('.app-caption').forEach((c) => c.remove());
    return copy.textContent.trim().replace(/\\s+/g, ' ');
  });
  return {
    title: document.title, h1, wrong: !!document.querySelector('.govuk-error-summary'),
    twice: [...new Set(ids.filter((id, i) => ids.indexOf(id) !== i))],
    text: document.body.innerText,
  };
}"""
WATCH = """() => {
  window.here = true;
  window.heard = [];
  const look = () => {
    const words = document.querySelector('.app-progress__head strong')?.textContent.trim();
    if (words && window.heard.at(-1) !== words) window.heard.push(words);
  };
  new MutationObserver(look).observe(document.body, {childList: true, subtree: true, characterData: true});
  look();
}"""


@dataclass
class Findings:
    """What was seen: a list of sentences, empty if every page is as it should be."""

    wrong: list[str] = field(default_factory=list)
    looked: set[str] = field(default_factory=set)
    pages: int = 0

    def say(self, where: str, what: str) -> None:
        self.wrong.append(f"{where}: {what}")


class Visitor:
    """One person with cookies of their own. Every page they come to is looked at (`look`)."""

    def __init__(
        self,
        browser: Browser,
        portal: str,
        who: str,
        findings: Findings,
        shots: Path | None,
        *,
        javascript: bool = True,
    ) -> None:
        self.portal, self.who, self.findings, self.shots, self.javascript = (
            portal,
            who,
            findings,
            shots,
            javascript,
        )
        self.context = browser.new_context(viewport=WIDE, java_script_enabled=javascript, locale="en-GB")  # type: ignore[arg-type]
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: findings.say(self.where, f"script error: {error}"))
        self.expected_failure = False
        self.hasty = False  # looks at nothing: a page of a kind that was looked at already

    @property
    def where(self) -> str:
        return f"{self.who} at {urlsplit(self.page.url).path}"

    def _console(self, message: ConsoleMessage) -> None:
        # A page that is itself an answer with a status of 4xx is told on the console too.
        told = self.expected_failure and "the server responded with a status of 4" in message.text
        if message.type in ("error", "warning") and not told:
            self.findings.say(self.where, f"console {message.type}: {message.text[:300]}")

    # Going about

    def open(self, path: str, *, status: int = 200) -> Visitor:
        """Type an address."""
        self.expected_failure = status != 200
        answer = self.page.goto(self.portal + path)
        self.look()
        if answer is None or answer.status != status:
            self.findings.say(self.where, f"status {answer.status if answer else 'none'}, not {status}")
        self.expected_failure = False
        return self

    def follow(self, text: str, *, inside: str = "body") -> Visitor:
        """Click the first link that begins with `text`."""
        link = self.page.locator(f"{inside} a:visible").filter(has_text=re.compile(rf"^\s*{re.escape(text)}"))
        return self._leave(link.first)

    def press(self, text: str) -> Visitor:
        """Click the button."""
        return self._leave(self.page.locator("main").get_by_role("button", name=text, exact=True).first)

    def _leave(self, target: Locator) -> Visitor:
        with self.page.expect_navigation():
            target.click()
        self.look()
        return self

    def fill(
        self, answers: Mapping[str, str | Path | tuple[int, int, int]], *, inside: str = "main"
    ) -> Visitor:
        """Type into fields by their labels; a date as (day, month, year); a Path chooses a file."""
        main = self.page.locator(inside)
        for label, answer in answers.items():
            if isinstance(answer, tuple):
                date = main.get_by_role("group", name=label)
                for part, value in zip(("Day", "Month", "Year"), answer, strict=True):
                    date.get_by_label(part, exact=True).fill(str(value))
                continue
            box = main.get_by_label(re.compile(rf"^\s*{re.escape(label)}( \(optional\))?\s*$")).first
            if isinstance(answer, Path):
                box.set_input_files(answer)
            elif box.evaluate("e => e.tagName") == "SELECT":
                box.select_option(label=answer)
            else:
                box.fill(answer)
        return self

    def choose(self, *labels: str, group: str = "") -> Visitor:
        """Tick radios and checkboxes by their labels."""
        main = self.page.locator("main")
        place = main.get_by_role("group", name=group) if group else main
        for label in labels:
            place.get_by_label(label, exact=True).first.check()
        return self

    def sign_in(self, password: str) -> Visitor:
        self.open("/login")
        self.fill({"Email address": f"{self.who}@demo.example"})
        self.page.locator("main input[type=password]").fill(password)
        return self.press("Sign in")

    def shows(self, *texts: str) -> Visitor:
        """Raises AssertionError unless the page says all of this."""
        said = " ".join(self.page.locator("body").inner_text().split())
        for text in texts:
            assert text in said, f"{self.where} does not say “{text}”:\n{said[:3000]}"
        return self

    # Looking

    def look(self, name: str = "") -> None:
        """Accessibility rules, title, ids, sideways scrolling at 360 px; a page that was seen as it is now is skipped."""
        if not self.javascript or self.hasty:
            return
        seen = self.page.evaluate(LOOK)
        path = urlsplit(self.page.url).path
        mark = hashlib.sha256(f"{path} {seen['text']}".encode()).hexdigest()
        if mark in self.findings.looked:
            return
        self.findings.looked.add(mark)
        self.findings.pages += 1
        say = self.findings.say
        if len(seen["h1"]) != 1:
            say(self.where, f"{len(seen['h1'])} main headings: {seen['h1']}")
        elif seen["title"] != f"{'Error: ' if seen['wrong'] else ''}{seen['h1'][0]} - Strongroom":
            say(self.where, f"title “{seen['title']}” over heading “{seen['h1'][0]}”")
        if seen["twice"]:
            say(self.where, f"ids twice: {seen['twice']}")
        rules = Axe().run(self.page, options={"runOnly": {"type": "tag", "values": TAGS}, "resultTypes": ["violations"]})  # fmt: skip
        for one in rules.response["violations"]:
            say(self.where, f"axe {one['id']}: {[node['html'][:160] for node in one['nodes']][:4]}")
        self._sizes(name or _name(path, seen))

    def _sizes(self, name: str) -> None:
        self._shot(f"{name}-1280")
        width = self.page.evaluate("document.documentElement.scrollWidth")
        if width > WIDE["width"]:
            self.findings.say(self.where, f"scrolls sideways at 1280 pixels: {width} wide")
        self.page.set_viewport_size(NARROW)  # type: ignore[arg-type]
        width = self.page.evaluate("document.documentElement.scrollWidth")
        if width > NARROW["width"]:
            self.findings.say(self.where, f"scrolls sideways at 360 pixels: {width} wide")
        self._shot(f"{name}-360")
        self.page.set_viewport_size(WIDE)  # type: ignore[arg-type]

    def _shot(self, name: str) -> None:
        if self.shots:
            self.page.screenshot(path=str(self.shots / f"{self.findings.pages:03d}-{self.who}-{name}.png"), full_page=True)  # fmt: skip

    def empty(self, button: str) -> Visitor:
        """Send the form with nothing in it: the title says so, and each link of the summary leads into a field."""
        self.page.evaluate(
            "for (const e of document.querySelectorAll('main form [type=checkbox]')) e.checked = false;"
            "for (const e of document.querySelectorAll('main form textarea, main form .govuk-input')) e.value = '';"
        )
        self.press(button)
        summary = self.page.locator(".govuk-error-summary")
        if not summary.count():
            self.findings.say(self.where, "no error summary after an empty form")
            return self
        if not self.page.title().startswith("Error:"):
            self.findings.say(self.where, f"title “{self.page.title()}” does not start with “Error:”")
        if not summary.evaluate("e => e === document.activeElement"):
            self.findings.say(self.where, "the error summary has not the focus")
        for link in summary.locator("a").all():
            link.click()
            if not self.page.evaluate(
                "['INPUT', 'TEXTAREA', 'SELECT'].includes(document.activeElement.tagName)"
            ):
                self.findings.say(self.where, f"“{link.inner_text()}” leads to no field")
        return self

    @contextmanager
    def live(self) -> Iterator[list[str]]:
        """Follow a run's progress: fails if the page is loaded anew meanwhile. Yields the phases that were shown."""
        loads: list[str] = []

        def loaded(frame: Any) -> None:
            if frame == self.page.main_frame:
                loads.append(frame.url)

        self.page.on("framenavigated", loaded)
        self.page.evaluate(WATCH)
        phases: list[str] = []
        try:
            yield phases
            assert self.page.evaluate("window.here === true") and not loads, f"{self.where} was reloaded"
            phases += self.page.evaluate("window.heard")
        finally:
            self.page.remove_listener("framenavigated", loaded)
        self.look()

    def wait(self, text: str, *, seconds: float = 120) -> Visitor:
        """Until the page shows the text, without touching it."""
        try:
            self.page.locator("main").get_by_text(text).first.wait_for(timeout=seconds * 1000)
        except Error as error:
            said = self.page.locator("main").inner_text()
            raise AssertionError(f"{self.where} does not come to “{text}”:\n{said[:2000]}") from error
        return self

    @property
    def id(self) -> str:
        """The last id in the page's address."""
        found = re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", self.page.url)
        assert found, f"{self.page.url} names no object"
        return str(found[-1])


def _name(path: str, seen: Mapping[str, Any]) -> str:
    short = re.sub(r"/[0-9a-f]{8}-[0-9a-f-]{27}", "", path).strip("/").replace("/", "_")
    return (short or "front") + ("-error" if seen["wrong"] else "")


def screenshots() -> Path | None:
    """Where pictures of every page go: STRONGROOM_SCREENSHOTS, or nowhere."""
    if folder := os.environ.get("STRONGROOM_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        return Path(folder)
    return None
