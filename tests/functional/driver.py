"""Drives Chromium over a running portal, in a process of its own: Playwright's event loop must not meet Django's tests.

driver.py crawl URL FOLDER   every page that each account can reach: rules, titles, overflow, console
driver.py live URL FOLDER    one dataset sealed in the browser, one program followed live
Prints one JSON document; FOLDER takes the screenshots.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--headless", "--disable-dev-shm-usage",
]  # fmt: skip
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
ACCOUNTS = ["", "operator", "lead", "signatory", "chair", "custodian", "registrar", "checker-one", "auditor"]
PASSWORD = "correct-horse-battery"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
DUPLICATES = """(() => { const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
    return [...new Set(ids.filter((id, i) => ids.indexOf(id) !== i))]; })()"""


class Visitor:
    """One account in one browser, noting what the console says."""

    def __init__(self, browser: Browser, url: str, who: str) -> None:
        self.url = url
        self.context = browser.new_context(viewport={"width": 1280, "height": 900})
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.said: list[str] = []
        self.page.on("console", lambda m: self.said.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda e: self.said.append(str(e)))
        if who:
            self.page.goto(f"{url}/login")
            self.page.fill("[name=email]", f"{who}@demo.example")
            self.page.fill("[name=password]", PASSWORD)
            self.page.click("main button[type=submit]")
            self.page.wait_for_url(lambda u: "login" not in u)


def shape(path: str) -> str:
    """Pages that differ only in the object they show count as one."""
    return UUID.sub("ID", urlparse(path).path)


def look(visitor: Visitor, folder: Path, name: str) -> list[str]:
    """What is wrong with the page that is open, at both widths."""
    page, wrong = visitor.page, []
    found = Axe().run(page, options={"runOnly": {"type": "tag", "values": TAGS}})
    for violation in found.response["violations"]:
        wrong.append(f"axe {violation['id']}: {[n['html'][:160] for n in violation['nodes'][:2]]}")
    if repeated := page.evaluate(DUPLICATES):
        wrong.append(f"ids twice: {repeated}")
    if not page.title().endswith(" - Strongroom") or page.locator("h1").count() != 1:
        wrong.append(f"title {page.title()!r} with {page.locator('h1').count()} h1")
    page.screenshot(path=str(folder / f"{name}-1280.png"), full_page=True)
    page.set_viewport_size({"width": 360, "height": 800})
    if (width := page.evaluate("document.documentElement.scrollWidth")) > 360:
        wrong.append(f"{width} pixels wide on a screen of 360")
    page.screenshot(path=str(folder / f"{name}-360.png"), full_page=True)
    page.set_viewport_size({"width": 1280, "height": 900})
    wrong += [f"console: {text}" for text in visitor.said]
    visitor.said.clear()
    return wrong


def crawl(browser: Browser, url: str, folder: Path) -> dict[str, Any]:
    """Follow every link that each account finds; look at each kind of page once for each account."""
    seen: dict[str, list[str]] = {}
    for who in ACCOUNTS:
        visitor = Visitor(browser, url, who)
        queue, known = ["/home" if who else "/", "/datasets"], set()
        while queue:
            path = queue.pop(0)
            if shape(path) in known:
                continue
            known.add(shape(path))
            head = visitor.context.request.head(url + path)
            if "html" not in head.headers.get("content-type", ""):
                continue  # a download
            answer = visitor.page.goto(url + path)
            status = answer.status if answer else 0
            name = f"{who or 'visitor'}{shape(path).replace('/', '_')}"
            if f"{shape(path)}" not in seen or who in ("lead", "custodian"):
                wrong = look(visitor, folder, name)
                if status != 200:
                    wrong.append(f"status {status}")
                seen[f"{who or 'visitor'} {path}"] = wrong
                seen.setdefault(shape(path), [])
            for link in visitor.page.eval_on_selector_all("a[href]", "all => all.map((e) => e.href)"):
                target = link.removeprefix(url).split("#")[0].split("?")[0]
                if (
                    link.startswith(url)
                    and target
                    and not target.startswith(("/api/", "/static/", "/account/stay", "/.well-known/"))
                ):
                    queue.append(target)
        visitor.context.close()
    return {key: wrong for key, wrong in seen.items() if " " in key}


CSV = "visits,rate\n" + "".join(f"{n % 9},{n % 4 * 25}\n" for n in range(400))
DICTIONARY = {
    "fields": [
        {"name": "visits", "type": "integer", "description": "Visits", "constraints": {"minimum": 0}},
        {
            "name": "rate",
            "type": "number",
            "description": "Coinsurance",
            "unit": "%",
            "constraints": {"minimum": 0},
        },
    ],
    "missingValues": ["", "NA"],
}
PROGRAM = (
    'import time\nimport strongroom\ntime.sleep(4)\ndata = strongroom.load("rand-hie")\n'
    'data.describe().to_csv(strongroom.outputs() / "summary.csv")\n'
)


def live(browser: Browser, url: str, folder: Path) -> dict[str, Any]:
    """A dataset registered and sealed in the browser; a program whose run moves on the page without a reload."""
    result: dict[str, Any] = {}
    custodian = Visitor(browser, url, "custodian")
    page = custodian.page
    page.goto(f"{url}/my-datasets/register")
    page.click("main button[type=submit]")  # empty: the errors
    result["error_title"] = page.title()
    page.click(".govuk-error-summary a >> nth=0")
    result["error_focus"] = page.evaluate("document.activeElement.name || document.activeElement.tagName")
    page.goto(f"{url}/my-datasets/register")
    page.fill("[name=title]", "Visits by rate")
    page.fill("[name=slug]", "visits-by-rate")
    page.fill("[name=summary]", "Made up by a test.")
    page.check("[name=personal_data][value=no], [name=personal_data][value=False]")
    for radio in page.locator("[name=program_approval]").all()[:1]:
        radio.check()
    page.click("main button[type=submit]")
    page.wait_for_url("**/my-datasets/visits-by-rate*")
    page.goto(f"{url}/my-datasets/visits-by-rate/dictionary")
    page.fill("textarea", json.dumps(DICTIONARY))
    page.click("main button[type=submit]")
    page.goto(f"{url}/my-datasets/visits-by-rate")
    page.locator("main form[action$='/versions'] button, main a[href$='/versions']").first.click()
    page.wait_for_selector("#seal-file")
    data = folder / "visits.csv"
    data.write_text(CSV)
    page.set_input_files("#seal-file", str(data))
    page.click("[data-seal-start]")
    page.wait_for_url("**/versions/*", timeout=60_000)
    page.wait_for_function("!location.pathname.endsWith('/upload')", timeout=60_000)
    for _ in range(60):
        if "Accepted" in page.inner_text("main"):
            break
        page.wait_for_timeout(1000)
        page.reload()
    result["version"] = "Accepted" if "Accepted" in page.inner_text("main") else page.inner_text("main")[:300]
    result["custodian_console"] = list(custodian.said)
    custodian.context.close()

    lead = Visitor(browser, url, "lead")
    page = lead.page
    page.goto(f"{url}/projects")
    page.click("main a[href*='/projects/']:has-text('Cost sharing')")
    page.click("a:has-text('Submit a program')")
    page.fill("[name=name]", "Followed live")
    program = folder / "live.py"
    program.write_text(PROGRAM)
    page.set_input_files("[name=file]", str(program))
    page.check("[name=datasets] >> nth=-1")
    page.click("main button[type=submit]")
    page.wait_for_url("**/programs/*")
    page.evaluate("window.sameDocument = true")
    phases: list[str] = []
    for _ in range(240):
        words = page.locator("#run-progress .app-progress__head strong")
        if words.count():
            text = words.first.inner_text()
            if page.evaluate("window.sameDocument === true") and text not in phases:
                phases.append(text)
            if text == "Finished":
                break
        page.wait_for_timeout(250)
    result["phases_without_reload"] = phases
    result["ended"] = page.locator("#run-progress .app-progress__head strong").first.inner_text()
    page.wait_for_timeout(1500)
    result["can_go_on"] = page.locator("button:has-text('Run on the real data')").count()
    result["lead_console"] = list(lead.said)
    lead.context.close()

    plain = browser.new_context(java_script_enabled=False)
    without = plain.new_page()
    without.goto(f"{url}/login")
    without.fill("[name=email]", "lead@demo.example")
    without.fill("[name=password]", PASSWORD)
    without.click("main button[type=submit]")
    without.goto(page.url)
    result["without_scripts"] = "Finished" in without.inner_text("main")
    plain.close()
    return result


def main() -> None:
    command, url, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        done = {"crawl": crawl, "live": live}[command](browser, url, folder)
        browser.close()
    print(json.dumps(done))


if __name__ == "__main__":
    main()
