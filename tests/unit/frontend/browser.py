"""Drives Chromium for the front-end tests, in a process of its own:
Playwright's event loop must not meet the tests that use the database.

Usage: python browser.py COMMAND URL JSON ; prints one JSON document.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--headless",
]
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
WIDTHS = (1280, 360, 320)


def look(page: Page, url: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Each page at each width: rule violations, sideways scrolling, messages of the console, duplicate ids."""
    findings = []
    for path in options["paths"]:
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            errors: list[str] = []

            def listener(message: ConsoleMessage, kept: list[str] = errors) -> None:
                if message.type == "error":
                    kept.append(message.text)

            page.on("console", listener)
            page.goto(url + path)
            page.wait_for_function(
                "document.querySelector('[data-govuk-button-init], .govuk-skip-link[data-govuk-skip-link-init]')"
            )
            result = Axe().run(page, options={"runOnly": {"type": "tag", "values": TAGS}})
            if folder := options.get("screenshots"):
                page.screenshot(path=str(Path(folder) / f"{path.strip('/')}-{width}.png"), full_page=True)
            page.remove_listener("console", listener)
            findings.append(
                {
                    "path": path,
                    "width": width,
                    "violations": [
                        [one["id"], [node["html"][:200] for node in one["nodes"]]]
                        for one in result.response["violations"]
                    ],
                    "scroll_width": page.evaluate("document.documentElement.scrollWidth"),
                    "errors": [text for text in errors if "404" not in text],
                    "duplicate_ids": page.evaluate(
                        "(() => { const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);"
                        " return [...new Set(ids.filter((id, i) => ids.indexOf(id) !== i))]; })()"
                    ),
                    "small_targets": page.evaluate(
                        "[...document.querySelectorAll('button, .govuk-button, .app-header__link')]"
                        ".filter((e) => e.checkVisibility() && (e.offsetHeight < 24 || e.offsetWidth < 24))"
                        ".map((e) => e.outerHTML.slice(0, 80))"
                    ),
                }
            )
    return findings


def error_links(page: Page, url: str, options: dict[str, Any]) -> dict[str, Any]:
    """Follow every link of the error summary: each must put the focus into a field."""
    page.goto(url + options["path"])
    page.wait_for_selector("[data-govuk-error-summary-init]")
    focused_first = page.evaluate("document.activeElement.classList.contains('govuk-error-summary')")
    reached = []
    for link in page.query_selector_all(".govuk-error-summary a"):
        link.click()
        reached.append(
            page.evaluate("['INPUT', 'TEXTAREA', 'SELECT'].includes(document.activeElement.tagName)")
        )
    return {"title": page.title(), "focused_first": focused_first, "reached": reached}


def seal(page: Page, url: str, options: dict[str, Any]) -> dict[str, Any]:
    """A person chooses a file and presses the button."""
    spoken: list[str] = []
    page.expose_function("heard", lambda words: spoken.append(words))
    page.goto(url + options["path"])
    page.evaluate(
        "new MutationObserver((all) => all.forEach((one) => one.addedNodes.forEach((node) => heard(node.textContent))))"
        ".observe(document.querySelector('[data-seal-status]'), {childList: true})"
    )
    page.click("[data-seal-start]")
    page.wait_for_selector(".govuk-error-message:not([hidden])")
    without_file = page.text_content(".govuk-error-message")
    page.set_input_files("input[type=file]", options["file"])
    page.click("[data-seal-start]")
    page.wait_for_url("**/done.html", timeout=90_000)
    return {"without_file": without_file, "spoken": spoken}


COMMANDS = {"look": look, "error_links": error_links, "seal": seal}

if __name__ == "__main__":
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        tab = browser.new_page()
        tab.set_default_timeout(90_000)  # a shared machine may be slow
        answer = COMMANDS[sys.argv[1]](tab, sys.argv[2], json.loads(sys.argv[3]))
        browser.close()
    print(json.dumps(answer))
