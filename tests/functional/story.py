"""The story of one question, from organisations to a verified package, clicked by everybody who has a part in it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from playwright.sync_api import Browser

from tests.functional.portal import PASSWORD, ROOT
from tests.functional.visitor import Findings, Visitor

FIRST_PASSWORD = "paper-lantern-orchard"
ORGANISATIONS = (
    ("Northern University", "northern-university", "University or research organisation"),
    ("Research Ethics Board", "research-ethics-board", "Ethics board"),
    ("Health Data Trust", "health-data-trust", "Data custodian"),
    ("Output Checking Office", "output-office", "University or research organisation"),
)
PEOPLE = (
    ("lead", "Demo Principal Investigator", "Northern University", "Researcher"),
    ("colleague", "Demo Researcher", "Northern University", "Researcher"),
    ("signatory", "Demo University Signatory", "Northern University", "Organisation signatory"),
    ("chair", "Demo Ethics Chair", "Research Ethics Board", "Ethics board chair"),
    ("member", "Demo Ethics Member", "Research Ethics Board", "Ethics board member"),
    ("custodian", "Demo Trust Custodian", "Health Data Trust", "Data custodian"),
    ("trust-signatory", "Demo Trust Signatory", "Health Data Trust", "Organisation signatory"),
    ("checker-one", "Demo First Checker", "Output Checking Office", "Output checker"),
    ("checker-two", "Demo Second Checker", "Output Checking Office", "Output checker"),
    ("auditor", "Demo Auditor", "Output Checking Office", "Auditor"),
)
DATASET = json.loads((ROOT / "infra/demo/datasets/rand-hie.json").read_text())
TITLE = "Cost sharing and doctor visits"
ROWS = 4000  # of the experiment's 20,190: enough for the model, and quicker


def day(after: int = 0) -> tuple[int, int, int]:
    then: date = datetime.now(UTC).date() + timedelta(days=after)
    return then.day, then.month, then.year


class Story:
    """All that the steps pass on. `tell` runs them in order."""

    def __init__(self, browser: Browser, portal: str, findings: Findings, shots: Path | None, docs: Path | None) -> None:  # fmt: skip
        self.browser, self.portal, self.findings, self.shots, self.docs = (
            browser,
            portal,
            findings,
            shots,
            docs,
        )
        self.people: dict[str, Visitor] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="strongroom-journey-"))
        self.run = self.project = self.program = ""

    def at(self, who: str) -> Visitor:
        """The person at their own browser, signed in."""
        if who not in self.people:
            visitor = Visitor(self.browser, self.portal, who, self.findings, self.shots)
            self.people[who] = visitor
            if who == "operator":
                visitor.sign_in(PASSWORD)
            else:
                self.first_time(visitor)
        return self.people[who]

    def first_time(self, visitor: Visitor) -> None:
        """Everybody's first sign-in leads to the page of a password of one's own, and nowhere else."""
        visitor.sign_in(FIRST_PASSWORD).shows("Choose your own password")
        if visitor.who == "lead":
            visitor.open("/projects").shows("Choose your own password").empty("Choose password")
        for label, value in (("Present password", FIRST_PASSWORD), ("New password", PASSWORD), ("New password again", PASSWORD)):  # fmt: skip
            visitor.page.get_by_label(label, exact=True).fill(value)
        visitor.press("Choose password")

    def picture(self, visitor: Visitor, name: str, *, width: int = 1000, height: int = 700) -> None:
        """A picture for the README, if asked for."""
        if self.docs:
            visitor.page.set_viewport_size({"width": width, "height": height})
            visitor.page.screenshot(path=str(self.docs / f"{name}.png"))
            visitor.page.set_viewport_size({"width": 1280, "height": 900})

    def steps(self) -> Iterator[tuple[str, Callable[[], None]]]:
        yield "visitor looks around", self.visitor
        yield "operator creates organisations and people", self.operator
        yield "researchers settle in", self.settle
        yield "custodian registers and publishes a dataset", self.register
        yield "custodian seals and uploads data, and follows the check", self.upload
        yield "visitor finds the dataset", self.catalogue
        yield "researcher applies", self.apply
        yield "ethics board decides", self.ethics
        yield "custodian gives access", self.access
        yield "both sides sign", self.sign
        yield "custodian has stand-in data made and releases them", self.stand_in
        yield "researcher submits a program and follows its rehearsal", self.submit
        yield "custodian approves the program", self.approve
        yield "researcher follows the run on the real data", self.stage_two
        yield "two output checkers look and approve", self.check
        yield "researcher downloads and verifies the package", self.package
        yield "auditor reads the log", self.audit
        yield "pages of refusal", self.refusals

    # Before anybody has an account

    def visitor(self) -> None:
        visitor = Visitor(self.browser, self.portal, "visitor", self.findings, self.shots)
        self.people["visitor"] = visitor
        visitor.open("/").shows("Ask questions of data that nobody has to see")
        self.picture(visitor, "front")
        for link in ("Accessibility", "Privacy", "Terms of use", "Roles", "API", "Status", "Contact"):
            visitor.follow(link, inside="footer")
        visitor.follow("Sign in", inside="header").empty("Sign in")
        visitor.fill({"Email address": "nobody@demo.example"})
        visitor.page.locator("main input[type=password]").fill("wrong")
        visitor.press("Sign in").shows("There is a problem")

    # 1 Operator

    def operator(self) -> None:
        operator = self.at("operator")
        operator.follow("Organisations", inside="nav").follow("Add an organisation").empty("Add organisation")
        for number, (name, slug, kind) in enumerate(ORGANISATIONS):
            operator.hasty = 0 < number < len(ORGANISATIONS) - 1
            if number:
                operator.follow("Add an organisation")
            operator.fill({"Name": name, "Short name": slug}).choose(kind).press("Add organisation")
        operator.shows(*(name for name, _, _ in ORGANISATIONS))
        for number, (key, name, organisation, role) in enumerate(PEOPLE):
            operator.hasty = number > 0
            operator.follow("People", inside="nav").follow("Add a person")
            if not number:
                operator.empty("Add person")
            operator.fill(
                {"Full name": name, "Email address": f"{key}@demo.example", "Organisation": organisation}
            )
            operator.page.locator("main input[type=password]").fill(FIRST_PASSWORD)
            operator.press("Add person").follow("Give a role")
            if not number:
                operator.empty("Give role")
            operator.choose(role).fill({"In the organisation": organisation}).press("Give role")
            if role == "Researcher":
                operator.follow("Record training")
                if not number:
                    operator.empty("Record training")
                operator.fill({"Course": "Research, GDPR and confidentiality", "Completed on": day(-60)})
                operator.press("Record training")
            operator.shows(name, role)
        operator.hasty = False

    def settle(self) -> None:
        for who in ("lead", "colleague"):
            person = self.at(who)
            person.follow("Read and accept the terms of use").press("Accept the terms of use")
        colleague = self.at("colleague")
        colleague.follow("Your account", inside="header").follow("Make or revoke tokens").empty("Make token")
        colleague.fill({"Name": "my laptop", "Days until it expires": "30"}).choose("Read what you may read")
        colleague.press("Make token").shows("Copy it now")

    # 2 Custodian

    def register(self) -> None:
        custodian = self.at("custodian")
        custodian.follow("My datasets", inside="nav").follow("Register a dataset").empty("Register")
        custodian.fill(
            {
                "Title": DATASET["title"], "Short name": DATASET["slug"], "Summary": DATASET["summary"],
                "Keywords": ", ".join(DATASET["keywords"]), "Place covered": DATASET["coverage_place"],
                "First day covered": (1, 1, 1974), "Last day covered": (31, 12, 1982), "Licence or terms": DATASET["licence"],
            }
        )  # fmt: skip
        custodian.choose("No").choose("A custodian approves each program, by hash, for each project")
        custodian.press("Register").follow("Add the data dictionary").empty("Check and save")
        custodian.fill({"Or paste it": json.dumps(DATASET["dictionary"])}).press("Check and save")
        custodian.shows("Outpatient visits to a doctor in the year").follow(DATASET["title"])
        custodian.follow("Publish in the catalogue").press("Publish").shows("The dataset is in the catalogue")

    def upload(self) -> None:
        done = subprocess.run(
            [programs_python(), str(ROOT / "infra/demo/datasets/export.py"), str(self.folder)],
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        whole = (self.folder / "rand-hie.csv").read_text().splitlines()
        file = self.folder / "data.csv"
        file.write_text("\n".join(whole[: ROWS + 1]) + "\n")
        custodian = self.at("custodian")
        custodian.open(f"/my-datasets/{DATASET['slug']}").press("Upload a version")
        custodian.page.locator("#seal-file").set_input_files(file)
        sent: list[bytes] = []
        custodian.page.on("request", lambda request: sent.append(request.post_data_buffer or b""))
        custodian.press("Encrypt and upload")
        told = b"\n".join(sent)
        assert (
            len(told) > file.stat().st_size
            and whole[0].encode() not in told
            and whole[1].encode() not in told
        )
        custodian.shows("Version ")
        with custodian.live() as phases:
            custodian.wait("This version is as its dictionary says")
        custodian.shows("Accepted", "No problems were found")
        print(f"    phases of the profiling run that were shown: {', '.join(phases)}")

    # 3 Catalogue

    def catalogue(self) -> None:
        visitor = self.people["visitor"]
        visitor.open("/").follow("Browse the datasets")
        visitor.page.get_by_label("Search").fill("insurance")
        visitor.press("Apply").shows("1 dataset").follow(DATASET["title"])
        visitor.shows("Outpatient visits to a doctor in the year", "Profile", "Ask for access")
        self.picture(visitor, "dataset", height=820)

    # 4 Project and ethics

    def apply(self) -> None:
        lead = self.at("lead")
        lead.open("/home").follow("Start a project").empty("Save and continue")
        lead.fill({"Title of the project": TITLE})
        lead.press("Save and continue")
        self.project = lead.id
        self.answer(lead)
        lead.follow("Invite a colleague").empty("Invite")
        lead.fill({"Email address of your colleague": "colleague@demo.example"}).press("Invite")
        self.waiting(self.at("colleague"), TITLE).press("Accept")
        lead.open(f"/projects/{self.project}/application").follow("Check your answers").empty(
            "Submit application"
        )
        lead.choose("Research Ethics Board").page.locator("main [type=checkbox]").check()
        lead.press("Submit application").shows("What happens next")

    def answer(self, lead: Visitor) -> None:
        """The five sections of the form."""
        if "/application" not in lead.page.url:
            lead.follow("Write the application", inside="main")
        lead.follow("Safe people")
        lead.fill({"Experience of the team": "Two health economists with published work on insurance."})
        lead.choose("No").press("Save and continue")
        self.section(lead, "Safe project")
        lead.fill(
            {
                "Lay summary": "People who pay part of the price of care may go to the doctor less often. We measure how much.",
                "Aims and method": "Estimate the effect of cost sharing on doctor visits by a Poisson model.",
                "Start of the project": day(), "End of the project": day(700),
            }
        )  # fmt: skip
        lead.choose("Better planning or use of services", "Better understanding of health and disease")
        lead.press("Save and continue")
        self.section(lead, "Safe data")
        lead.fill({"Data that you need, and why": "Visits, plan and health status, for the adjusted effect."})
        lead.choose("The data are not personal data").choose(
            "No", group="Will you link datasets with each other?"
        )
        lead.press("Save and continue")
        self.section(lead, "Safe settings")
        lead.choose("Only in the United Kingdom").press("Save and continue")
        self.section(lead, "Safe outputs")
        lead.choose("Coefficients of statistical models", "Figures")
        lead.fill(
            {
                "How you will avoid disclosing anything about a person": "No cell below 10; a model of averages."
            }
        )
        lead.press("Save and continue")
        if "/check" in lead.page.url:
            lead.open(f"/projects/{self.project}/application")

    def section(self, lead: Visitor, title: str) -> None:
        if lead.page.locator("h1").inner_text().strip().endswith(title):
            return
        lead.open(f"/projects/{self.project}/application").follow(title)

    def ethics(self) -> None:
        chair, member = self.at("chair"), self.at("member")
        self.waiting(chair, TITLE).press("Accept for review")
        for person in (member, chair):
            self.waiting(person, TITLE).follow("Give your opinion")
            if person is member:
                person.empty("Give opinion")
            person.choose("Support").fill({"Reasons": "Clear question, public data, proportionate."})
            person.press("Give opinion")
        chair.follow("Decide").empty("Record the decision").choose("Favourable")
        chair.fill({"Reason for the decision": "The board supports the project.", "Valid until": day(365)})
        chair.press("Record the decision").shows("Favourable")
        self.at("lead").open(f"/projects/{self.project}").shows("Approved").follow("Letter").shows(
            "What happens next"
        )

    # 5 Access and agreement

    def access(self) -> None:
        lead, custodian = self.at("lead"), self.at("custodian")
        lead.open(f"/projects/{self.project}").follow("Find a dataset").follow(DATASET["title"]).follow(
            "Ask for access"
        )
        lead.empty("Send the request")
        lead.page.locator("main select[name=project]").select_option(index=0)
        lead.fill({"What the project needs this dataset for": "To estimate the effect of cost sharing.", "Access is needed until": day(300)})  # fmt: skip
        lead.press("Send the request").shows("Health Data Trust decides next")
        self.waiting(custodian, "SR-").follow("Decide on this request").empty("Record the decision")
        custodian.choose("Approve access").fill({"Reason": "Good use of the data.", "Conditions": "Name the custodian in publications."})  # fmt: skip
        custodian.press("Record the decision").follow("Agreement of")

    @staticmethod
    def waiting(visitor: Visitor, word: str) -> Visitor:
        """From the home page to the first thing that waits and holds the word."""
        visitor.open("/home")
        link = visitor.page.locator("main .govuk-task-list a").filter(has_text=word).first
        return visitor.follow(link.inner_text().strip())

    def sign(self) -> None:
        for number, who in enumerate(("signatory", "trust-signatory")):
            person = self.at(who)
            self.waiting(person, "SR-").follow("Read and sign")
            if not number:
                person.empty("Sign")
            person.page.locator("main [type=radio]").first.check()
            person.page.locator("main [type=checkbox]").check()
            person.page.locator("main input[type=password]").fill(PASSWORD)
            person.press("Sign")
        self.at("trust-signatory").shows("In force")
        self.at("trust-signatory").follow("Agreements", inside="nav")

    # 6 Stand-in data

    def stand_in(self) -> None:
        custodian = self.at("custodian")
        custodian.open(f"/my-datasets/{DATASET['slug']}").follow("Order stand-in data").press("Order")
        with custodian.live() as phases:
            custodian.wait("Rows that also stand in the real data")
        custodian.shows("Likeness of columns", "Waits for the custodian").follow("Decide").empty(
            "Record the decision"
        )
        custodian.choose("Release the stand-in data").fill({"Reason": "Looks right."}).press(
            "Record the decision"
        )
        custodian.shows("Released")
        print(f"    phases that were shown: {', '.join(phases)}")
        lead = self.at("lead")
        lead.open(f"/projects/{self.project}").follow(DATASET["title"]).shows("What you can do now")
        with lead.page.expect_download() as download:
            lead.page.locator("main a", has_text="Download the stand-in data").click()
        with open(download.value.path(), newline="") as file:
            assert len(list(csv.reader(file))) == ROWS + 1

    # 7 Research

    def submit(self) -> None:
        colleague = self.at("colleague")
        colleague.open("/home").follow("Projects", inside="nav").follow(TITLE).follow("Submit a program")
        colleague.empty("Submit and rehearse")
        colleague.fill(
            {
                "Name of the program": "Cost sharing", "Program file": ROOT / "infra/demo/programs/cost_sharing.py",
                "What the program does, and which outputs it makes": "Poisson model; coefficients, a figure and a short report.",
            }
        )  # fmt: skip
        colleague.page.get_by_label(DATASET["title"]).check()
        colleague.press("Submit and rehearse")
        self.program = colleague.id
        with colleague.live() as phases:
            colleague.wait("You can ask for the run now")
        assert len(phases) > 2, phases
        colleague.shows("Finished", "Not decided").follow("Log and outputs of the rehearsal")
        colleague.shows("done: ", "visits.png").follow("coefficients.csv").shows("lncoins")
        print(f"    phases that were shown: {', '.join(phases)}")

    def approve(self) -> None:
        custodian = self.at("custodian")
        self.waiting(custodian, "Cost sharing").follow("Decide").empty("Record the decision")
        custodian.choose("Approve this program").fill({"Reason": "Aggregates only."}).press(
            "Record the decision"
        )
        custodian.shows("Approved")

    # 8 Stage 2

    def stage_two(self) -> None:
        colleague = self.at("colleague")
        colleague.open(f"/programs/{self.program}").press("Run on the real data")
        self.run = colleague.id
        with colleague.live() as phases:
            colleague.page.locator(".app-progress__head strong", has_text="Program runs").wait_for()
            self.picture(colleague, "run")
            colleague.wait("What the evidence showed")
            colleague.wait("two output checkers look")
        assert len(phases) > 2 and phases[-1] == "Finished", phases
        print(f"    phases that were shown: {', '.join(phases)}")
        colleague.follow("What the evidence showed").shows("Before the run", "After the run", "Passed")
        self.picture(colleague, "evidence", height=900)
        colleague.follow("Runs", inside="nav").shows("Cost sharing")

    # 9 Output checks

    def check(self) -> None:
        for number, who in enumerate(("checker-one", "checker-two")):
            checker = self.at(who)
            checker.open("/home").follow("Output checks", inside="nav").follow("Cost sharing")
            page = checker.page.url.removeprefix(self.portal)
            if not number:
                self.picture(checker, "check", height=900)
                checker.empty("Record the decision")
            checker.hasty = number > 0  # the same pages again
            checker.follow("coefficients.csv").shows("lncoins").open(page)
            checker.follow("visits.png")
            assert checker.page.evaluate("document.querySelector('main img').naturalWidth") > 100
            checker.open(page).follow("report.md").shows("Does cost sharing reduce doctor visits?").open(page)
            checker.choose("Approve for release").fill({"Comment": "Coefficients and one figure of means."})
            checker.press("Record the decision")
        self.at("checker-two").hasty = False
        self.at("checker-two").open("/checks/")

    # 10 The package

    def package(self) -> None:
        colleague = self.at("colleague")
        for _ in range(60):
            colleague.open(f"/runs/{self.run}")
            if colleague.page.locator("main a", has_text="Download the package").count():
                break
            colleague.page.wait_for_timeout(500)
        with colleague.page.expect_download() as download:
            colleague.page.locator("main a", has_text="Download the package").click()
        package = self.folder / "package.zip"
        download.value.save_as(package)
        done = subprocess.run(
            [str(Path(sys.executable).parent / "strongroom"), "verify", str(package)],
            capture_output=True, text=True, timeout=120, env={"HOME": str(self.folder), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "no hardware" in done.stdout.lower()

    # 11 Audit

    def audit(self) -> None:
        auditor = self.at("auditor")
        auditor.follow("Read the audit log").shows("Every act is recorded")
        self.filtered(auditor)
        self.picture(auditor, "audit", width=1100, height=740)
        auditor.page.locator("main table a").first.wait_for()
        with auditor.page.expect_navigation():
            auditor.page.locator("main table a").first.click()
        auditor.look()
        auditor.shows("What the log commits to", "Commitment")

    def filtered(self, auditor: Visitor) -> None:
        box = auditor.page.locator("main .app-facets [name=event]")
        if box.evaluate("e => e.tagName") == "SELECT":
            box.select_option("agreement.signed")
        else:
            box.fill("agreement.signed")
        auditor.press("Apply").shows("2 entries")

    # Refusals, and what was not on the way

    def refusals(self) -> None:
        colleague = self.at("colleague")
        colleague.open("/no-such-page", status=404).open("/audit", status=403)
        for path in ("/datasets?q=nothing-like-it", "/agreements", "/runs/?kind=research"):
            colleague.open(path)
        lead = self.at("lead")
        for path in ("", "/programs/", "/close", "/versions/1"):
            lead.open(f"/projects/{self.project}{path}")
        custodian = self.at("custodian")
        for path in ("", "/description", "/dictionary", "/state/suspend", "/state/withdraw"):
            custodian.open(f"/my-datasets/{DATASET['slug']}{path}")
        for who in ("operator", "signatory", "auditor"):
            self.at(who).open("/home").follow("Your account", inside="header")
        self.at("auditor")._leave(
            self.at("auditor").page.locator("header").get_by_role("button", name="Sign out")
        )


def programs_python() -> str:
    return os.environ.get("STRONGROOM_PROGRAMS_PYTHON") or str(ROOT / ".venv-programs/bin/python")


@contextmanager
def kept(story: Story) -> Iterator[Story]:
    """Close every person's browser at the end."""
    try:
        yield story
    finally:
        for visitor in story.people.values():
            visitor.context.close()
