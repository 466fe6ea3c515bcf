"""The story, step by step: one person's question, from the application to a verified result.

Pages are used through their own forms, the command line as a custodian or researcher would type it. Nothing here calls
the portal's Python.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import zipfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from infra.demo.tools import ROOT, Machine, StepFailed, Story, until
from infra.demo.web import Person
from infra.demo.world import FIRST_PASSWORD, ORGANISATIONS, PASSWORD, PEOPLE

ANSWERS: dict[str, dict[str, Any]] = {
    "people": {
        "people_experience": "Two health economists with published work on insurance.",
        "people_interests": "no",
    },
    "project": {
        "lay_summary": "People who pay part of the price of care may go to the doctor less often. We measure how much, so that insurers can set fair shares.",
        "aims": "Estimate the effect of cost sharing on doctor visits by a Poisson model, adjusting for health.",
        "public_benefit": ["services", "understanding"],
    },
    "data": {
        "data_needed": "Visits, plan and health status, to estimate the effect adjusted for health.",
        "lawful_basis": "not_personal",
        "linkage": "no",
    },
}


def today() -> date:
    return datetime.now(UTC).date()


class Demo:
    """The state that the steps pass on."""

    def __init__(self, portal: str, home: Path, programs_python: str) -> None:
        self.portal, self.home, self.programs_python = portal, home, programs_python
        self.people: dict[str, Person] = {}
        self.machines: dict[str, Machine] = {}
        self.data = home / "data"
        self.direct: dict[str, Any] = {}
        self.versions: dict[str, str] = {}
        self.project = self.ref = self.program = self.run = self.release = ""
        self.agreements: list[str] = []
        self.package = home / "package.zip"

    def at(self, key: str) -> Person:
        """The person, signed in at the pages."""
        if key not in self.people:
            self.people[key] = Person(self.portal, f"{key}@demo.example", PASSWORD).sign_in()
        return self.people[key]

    def machine(self, key: str) -> Machine:
        """The person's own machine, signed in by `strongroom login`."""
        if key not in self.machines:
            machine = Machine(self.home / "homes" / key)
            machine.run("login", self.portal, "--email", f"{key}@demo.example", STRONGROOM_PASSWORD=PASSWORD)
            self.machines[key] = machine
        return self.machines[key]

    # 1 Operator

    def organisations_and_people(self) -> str:
        operator = self.at("operator")
        for slug, name, kind in ORGANISATIONS:
            operator.open("/organisations/new")
            operator.send(name=name, slug=slug, kind=kind)
        names = {slug: name for slug, name, _ in ORGANISATIONS}
        for person in PEOPLE:
            operator.open("/people/new")
            operator.send(
                name=person.name,
                email=person.email,
                organisation=names[person.organisation],
                password=FIRST_PASSWORD,
            )
            page, pk = operator.address, operator.id
            for role in person.roles:
                operator.open(f"/people/{pk}/roles")
                operator.send(role=role, organisation=names[person.organisation])
            if "researcher" in person.roles:
                operator.open(f"/people/{pk}/training")
                day = today() - timedelta(days=60)
                operator.send(
                    course="Research, GDPR and confidentiality",
                    completed_on_day=day.day,
                    completed_on_month=day.month,
                    completed_on_year=day.year,
                )
            assert page
        for person in PEOPLE:
            key = person.email.partition("@")[0]
            self.people[key] = Person(self.portal, person.email, FIRST_PASSWORD).choose_password(PASSWORD)
        for key in ("lead", "colleague"):
            researcher = self.at(key)
            researcher.open("/account")
            researcher.follow("Read the terms of use")
            researcher.send(action="/account/terms")
        return f"{len(ORGANISATIONS)} organisations, {len(PEOPLE)} people"

    # 2 Custodians

    def export(self) -> str:
        done = subprocess.run(
            [self.programs_python, str(ROOT / "infra/demo/datasets/export.py"), str(self.data)],
            capture_output=True,
            text=True,
            timeout=300,
        )
        if done.returncode:
            raise StepFailed(done.stderr)
        self.direct = json.loads(done.stdout.strip().splitlines()[-1])
        return f"{self.direct['rows'][0]} and {self.direct['rows'][1]} rows"

    def register(self) -> str:
        for key, slug in (("custodian", "rand-hie"), ("registrar", "diabetes-progression")):
            self.machine(key).run(
                "dataset", "register", str(ROOT / f"infra/demo/datasets/{slug}.json"), "--publish"
            )
        return "by the command line, published in the catalogue"

    def wrong_upload(self) -> str:
        """A file that does not fit its dictionary is refused, with row numbers, to the custodian only."""
        lines = (self.data / "rand-hie.csv").read_text().splitlines()
        lines[2] = "-3" + lines[2][lines[2].index(",") :]
        lines[4] = "many" + lines[4][lines[4].index(",") :]
        wrong = self.machine("custodian").home / "wrong.csv"
        wrong.write_text("\n".join(lines[:200]) + "\n")
        said = self.machine("custodian").run("dataset", "upload", "rand-hie", str(wrong), fails=True)
        if "refused" not in said or "row 3" not in said or "row 5" not in said:
            raise StepFailed(f"the refusal does not name the rows:\n{said}")
        return "refused with the row numbers"

    def upload(self) -> str:
        for key, slug in (("custodian", "rand-hie"), ("registrar", "diabetes-progression")):
            file = self.machine(key).home / f"{slug}.csv"
            shutil.copy(self.data / f"{slug}.csv", file)
            said = self.machine(key).run("dataset", "upload", slug, str(file))
            self.versions[slug] = re.findall(r"id: ([0-9a-f-]{36})", said)[0]
        return "sealed on the custodian's machine, profiled in a run"

    def catalogue(self) -> str:
        visitor = Person(self.portal, "visitor", "")
        visitor.open("/datasets?q=insurance")
        visitor.follow("RAND Health Insurance Experiment")
        if "Outpatient visits to a doctor" not in visitor.text:
            raise StepFailed("the public page does not show the dictionary")
        return "found without signing in"

    # 4 Project and ethics

    def apply(self) -> str:
        lead = self.at("lead")
        lead.open("/projects/new")
        lead.send(title="Cost sharing and doctor visits")
        self.project = lead.id
        first = today()
        for code in ("people", "project", "data", "settings", "outputs"):
            lead.open(f"/projects/{self.project}/application/{code}")
            answers = dict(ANSWERS.get(code, {}))
            if code == "project":
                end = first + timedelta(days=700)
                answers |= {
                    "starts_on_day": first.day,
                    "starts_on_month": first.month,
                    "starts_on_year": first.year,
                }
                answers |= {"ends_on_day": end.day, "ends_on_month": end.month, "ends_on_year": end.year}
            lead.send(**(answers or self._anything(lead)))
        lead.open(f"/projects/{self.project}/people/invite")
        lead.send(email="colleague@demo.example")
        colleague = self.at("colleague")
        colleague.open(f"/projects/{self.project}")
        colleague.send(action="/invitation")
        lead.open(f"/projects/{self.project}/application/check")
        board = next(f for f in lead.page.forms if "board" in f.fields).choices["board"][0]
        lead.send(board=board, declaration="on")
        self.ref = re.findall(r"SR-\d{4}-\d{4}", lead.text)[0]
        return self.ref

    @staticmethod
    def _anything(person: Person) -> dict[str, Any]:
        """An honest short answer to each question of a short section: the first choice, or a sentence."""
        form = next(f for f in person.page.forms if f.method == "post" and not f.action.endswith("/logout"))
        answers: dict[str, Any] = {}
        for name in form.fields:
            if name in form.choices:
                answers[name] = form.choices[name][:1]
            elif name != "csrfmiddlewaretoken" and not name.endswith("_detail"):
                answers[name] = (
                    "A table of coefficients, a figure and a short report, rounded as the custodians ask."
                )
        return answers

    def ethics(self) -> str:
        chair, member = self.at("chair"), self.at("member")
        chair.open("/reviews")
        chair.follow("Cost sharing and doctor visits")
        review = chair.id
        chair.send(action="/accept")
        for person in (member, chair):
            person.open(f"/reviews/{review}/opinion")
            person.send(opinion="support", comment="Clear question, public data, proportionate.")
        chair.open(f"/reviews/{review}/decide")
        end = today() + timedelta(days=365)
        chair.send(
            outcome="favourable",
            reason="The board supports the project.",
            valid_until_day=end.day,
            valid_until_month=end.month,
            valid_until_year=end.year,
        )
        return "favourable"

    # 5 Access and agreements

    def access(self) -> str:
        lead = self.at("lead")
        end = today() + timedelta(days=300)
        for slug, key in (("rand-hie", "custodian"), ("diabetes-progression", "registrar")):
            lead.open(f"/datasets/{slug}/request-access")
            lead.send(
                project=self.project,
                purpose="To estimate the effect of cost sharing.",
                ends_on_day=end.day,
                ends_on_month=end.month,
                ends_on_year=end.year,
            )
            request = lead.id
            custodian = self.at(key)
            custodian.open(f"/access/{request}/decide")
            custodian.send(
                decision="approve",
                reason="Good use of the data.",
                conditions="Name the custodian in publications.",
            )
            custodian.follow("Agreement of")
            self.agreements.append(custodian.id)
        return "two custodians, two decisions"

    def sign(self) -> str:
        for agreement, other in zip(self.agreements, ("trust-signatory", "registry-signatory"), strict=True):
            for key in ("signatory", other):
                person = self.at(key)
                person.open(f"/agreements/{agreement}/sign")
                form = next(f for f in person.page.forms if "side" in f.fields)
                person.send(side=form.choices["side"][0], confirm="on", password=PASSWORD)
        if "In force" not in self.at("trust-signatory").text:
            raise StepFailed("the agreement is not in force after both signatures")
        return "both sides of both, with the password again"

    # 6 Stand-in data

    def stand_in(self) -> str:
        notes = []
        for key, slug in (("custodian", "rand-hie"), ("registrar", "diabetes-progression")):
            said = self.machine(key).run("dataset", "order-release", self.versions[slug])
            release = re.findall(r"id: ([0-9a-f-]{36})", said)[0]
            person = self.at(key)
            person.open(f"/stand-in/{release}/decide")
            person.send(decision="approve", reason="Looks right.")
            notes += re.findall(r"Likeness of columns ([\d.]+)", said)
        return f"SDV Gaussian copula; likeness of columns {' and '.join(notes)}"

    # 7 Research

    def develop(self) -> str:
        machine = self.machine("colleague")
        machine.run("pull", "rand-hie")
        rows = machine.python(
            self.programs_python, 'import strongroom; print(len(strongroom.load("rand-hie")))'
        ).strip()
        return f"strongroom.load gives {rows} rows of stand-in data"

    def submit(self) -> str:
        machine = self.machine("colleague")
        shutil.copy(ROOT / "infra/demo/programs/cost_sharing.py", machine.home)
        said = machine.run(
            "submit",
            "cost_sharing.py",
            "--project",
            self.ref,
            "--dataset",
            "rand-hie",
            "--note",
            "Poisson model; coefficients, a figure and a short report.",
        )
        self.program = re.findall(r"Program ([0-9a-f-]{36})", said)[0]
        return "rehearsed on stand-in data"

    def failing_program(self) -> str:
        """A program that raises has failed, whatever it printed: type and line, never the message."""
        machine = self.machine("colleague")
        (machine.home / "broken.py").write_text(
            'import strongroom\nprint("all is well")\nraise KeyError("secret")\n'
        )
        said = machine.run("submit", "broken.py", "--project", self.ref, "--dataset", "rand-hie", fails=True)
        if "KeyError at line 3" not in said:
            raise StepFailed(f"the failure is not told by type and line:\n{said}")
        return "KeyError, line 3"

    def notebook(self) -> str:
        lead = self.at("lead")
        lead.open(f"/projects/{self.project}/programs/new")
        content = (ROOT / "infra/demo/programs/cost_sharing.ipynb").read_bytes()
        form = next(f for f in lead.page.forms if "datasets" in f.fields)
        chosen = form.choices["datasets"]
        # The page lists the project's datasets by title; the notebook reads the second (RAND Health Insurance Experiment).
        lead.send(
            name="Cost sharing, notebook",
            note="The same model, cell by cell.",
            datasets=chosen[-1],
            files={"file": ("cost_sharing.ipynb", content)},
        )
        program = lead.id
        until(
            lambda: "Run on the real data" in self._look(lead, f"/programs/{program}"),
            "successful rehearsal of the notebook",
        )
        return "cell by cell, through the page"

    @staticmethod
    def _look(person: Person, address: str) -> str:
        person.open(address)
        return person.text

    # 8 Stage 2

    def approve_program(self) -> str:
        custodian = self.at("custodian")
        custodian.open(f"/programs/{self.program}")
        custodian.follow("Decide")
        custodian.send(decision="approve", reason="Aggregates only.")
        return "by hash"

    def stage_two(self) -> str:
        said = self.machine("colleague").run("run", self.program, "--wait")
        self.run = re.findall(r"Run ([0-9a-f-]{36})", said)[0]
        if "research: succeeded" not in said:
            raise StepFailed(said)
        return "keys released only to verified evidence"

    def second_custodian(self) -> str:
        """The registry chose automatic approval after a rehearsal that succeeded."""
        machine = self.machine("colleague")
        shutil.copy(ROOT / "infra/demo/programs/progression.py", machine.home)
        said = machine.run(
            "submit", "progression.py", "--project", self.ref, "--dataset", "diabetes-progression"
        )
        said = machine.run("run", re.findall(r"Program ([0-9a-f-]{36})", said)[0], "--wait")
        if "research: succeeded" not in said:
            raise StepFailed(said)
        return "automatic approval, as that custodian chose"

    # 9 Output checks

    def check(self) -> str:
        first = self.at("checker-one")
        first.open("/checks/")
        first.follow("cost_sharing.py")
        self.release = first.id
        for name in ("coefficients.csv", "visits.png", "report.md"):
            first.open(f"/checks/{self.release}")
            first.follow(name)
        first.open(f"/checks/{self.release}")
        first.send(decision="approve", comment="Coefficients and one figure of means.")
        self.machine("checker-two").run("review", "decide", self.release, "--approve", "--comment", "Agreed.")
        colleague = self.at("colleague")
        until(
            lambda: "Download the package" in self._look(colleague, f"/runs/{self.run}"), "released package"
        )
        return "two checkers, one at the page, one at the command line"

    # 10 The package

    def verify(self) -> str:
        machine = self.machine("colleague")
        machine.run("get", self.run, "--out", str(self.package))
        said = machine.run("verify", str(self.package))
        if "no hardware" not in said.lower():
            raise StepFailed("verify does not say that software evidence gives no hardware protection")
        report = json.loads(machine.run("verify", str(self.package), "--json"))
        with zipfile.ZipFile(self.package) as package:
            table = list(csv.DictReader(io.StringIO(package.read("outputs/coefficients.csv").decode())))
        stage_two = next(float(row["estimate"]) for row in table if row["term"] == "lncoins")
        difference = abs(stage_two - self.direct["lncoins"])
        if not difference <= 1e-9:
            raise StepFailed(
                f"stage 2 says {stage_two}, the model fitted directly says {self.direct['lncoins']}"
            )
        return f"{len(report['checks'])} checks; coefficient {stage_two:.6f}, {difference:.1e} from the direct fit"

    def tamper(self) -> str:
        changed = self.home / "changed.zip"
        raw = bytearray(self.package.read_bytes())
        position = raw.find(b"# Does cost sharing") + 5
        raw[position] ^= 1
        changed.write_bytes(bytes(raw))
        said = self.machine("colleague").run("verify", str(changed), fails=True)
        reason = next(line for line in said.splitlines() if line.startswith("FAIL"))
        return f"one byte changed: {reason[6:90]}"

    # 11 Audit

    def audit(self) -> str:
        auditor = self.at("auditor")
        auditor.open("/audit")
        auditor.open("/audit?event=agreement.signed")
        said = self.machine("auditor").run("audit", "verify")
        return said.strip().splitlines()[0][6:]


def tell(demo: Demo) -> None:
    """All steps in order. Raises on the first that does not hold."""
    story = Story()
    for title, act in (
        ("The operator creates organisations, people and roles", demo.organisations_and_people),
        ("Two public health datasets are read from installed packages", demo.export),
        ("Two custodians register their datasets", demo.register),
        ("A file that does not fit its dictionary is refused", demo.wrong_upload),
        ("Both custodians seal and upload their data", demo.upload),
        ("A visitor finds the dataset in the public catalogue", demo.catalogue),
        ("A researcher applies, with a colleague", demo.apply),
        ("The ethics board reviews and its chair decides", demo.ethics),
        ("Access to both datasets is asked for and decided", demo.access),
        ("Both agreements are signed by both sides", demo.sign),
        ("Stand-in data are made, looked at and released", demo.stand_in),
        ("The colleague works on stand-in data in their own Python", demo.develop),
        ("A program that raises fails its rehearsal", demo.failing_program),
        ("The program is submitted", demo.submit),
        ("The same model as a notebook is submitted", demo.notebook),
        ("The custodian approves the program", demo.approve_program),
        ("Stage 2 runs on the real data", demo.stage_two),
        ("A second program runs under the other custodian's rule", demo.second_custodian),
        ("Two output checkers approve", demo.check),
        ("The package is downloaded and verified offline", demo.verify),
        ("A changed package is refused", demo.tamper),
        ("An auditor verifies the log", demo.audit),
    ):
        story.step(title, act)
    print(f"Every step held, in {story.total():.0f} seconds.")
