"""A portal with N datasets, N projects and N runs, written straight into the database: only its size is of interest.

Ownership is spread as it would be, and grows with N: the researcher who is measured is in 2 % of all projects, the
custodian acts for 5 % of all datasets, each of four ethics boards has a quarter of the reviews, and the output
checkers see every release that waits. Rows satisfy every constraint of the database; their JSON has lifelike sizes.
"""

from __future__ import annotations

import datetime as dt
import random
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import Permission
from django.db import connection, models
from django.utils import timezone

from apps.accounts.models import Organisation, RoleHolding, TermsAcceptance, Training, User
from apps.attestation.models import Evidence
from apps.audit.models import Checkpoint
from apps.datasets.models import (
    AccessRequest,
    Agreement,
    Dataset,
    DatasetUserObjectPermission,
    DatasetVersion,
    Signature,
    Stage1Release,
)
from apps.jobs.models import Output, OutputCheck, OutputRelease, Program, ProgramApproval, Run, RunInput
from apps.projects.models import ApplicationVersion, EthicsOpinion, EthicsReview, Membership, Project

TOPICS = (
    "asthma", "blood pressure", "cancer screening", "dementia", "diabetes", "doctor visits", "emergency care", "eye health",
    "general practice", "heart failure", "hospital admissions", "insurance", "kidney disease", "maternity", "medicines",
    "mental health", "mortality", "obesity", "physical activity", "primary care", "rehabilitation", "sleep", "smoking",
    "social care", "stroke", "surgery", "vaccination", "waiting times", "work and health", "youth",
)  # fmt: skip
PLACES = (
    "England",
    "Scotland",
    "Wales",
    "Northern Ireland",
    "London",
    "North West",
    "Yorkshire",
    "United Kingdom",
)
SHA = "ab" * 32
COLUMNS = [f"column_{number}" for number in range(12)]
DICTIONARY = {
    "fields": [{"name": c, "type": "integer", "description": f"What {c} means, in a sentence of some length.", "constraints": {"minimum": 0, "maximum": 400}} for c in COLUMNS],
    "missingValues": ["", "NA"],
}  # fmt: skip
PROFILE = {
    "v": 1,
    "rows": 20190,
    "columns": [
        {"name": c, "type": "integer", "missing": 12, "categories": None,
         "summary": {"mean": 2.86, "sd": 4.5, "quantiles": {"0.05": 0, "0.25": 0, "0.5": 1, "0.75": 4, "0.95": 11}},
         "histogram": {"edges": list(range(11)), "counts": [1200 - 90 * n for n in range(10)]}}
        for c in COLUMNS
    ],
}  # fmt: skip
ANSWERS = {
    f"question_{n}": "A sentence that an applicant wrote about the project, of the usual length. " * 3
    for n in range(10)
}
MANIFEST = {
    "v": 1, "inputs": [{"name": "set", "sealed": True, "sha256": SHA, "size": 1, "dictionary": DICTIONARY}], "image": f"sha256:{SHA}",
    "limits": {"cpu_seconds": 600, "wall_seconds": 900},
}  # fmt: skip
STATEMENT = {
    "payload": "eyJ" * 700,
    "payloadType": "application/vnd.in-toto+json",
    "signatures": [{"keyid": "k", "sig": "s" * 88}],
}
APPRAISAL = {
    "checks": [
        {"id": f"check-{n}", "outcome": "pass", "detail": "It was as it had to be, and that is said here."}
        for n in range(9)
    ]
}
PROJECT_STATES = (
    ("active", 45),
    ("approved", 15),
    ("closed", 12),
    ("draft", 10),
    ("in_ethics_review", 6),
    ("submitted", 3),
    ("expired", 4),
    ("returned", 2),
    ("declined", 2),
    ("suspended", 1),
)
DATASET_STATES = (("published", 88), ("draft", 5), ("suspended", 4), ("withdrawn", 3))
OUTPUT_STATES = (("released", 86), ("in_review", 5), ("approved_once", 4), ("rejected", 5))


@dataclass
class World:
    """Who looks at the pages, and at which objects."""

    researcher: User
    custodian: User
    chair: User
    checker: User
    auditor: User
    operator: User
    dataset: Dataset
    run: Run
    waiting_run: Run


def build(number: int) -> World:
    """Fill an empty database. Takes about half a minute for 20,000."""
    return _Builder(number).build()


def _create(rows: Iterable[models.Model]) -> None:
    rows = list(rows)
    if rows:
        type(rows[0])._default_manager.bulk_create(rows, batch_size=2000)


class _Builder:
    def __init__(self, number: int) -> None:
        self.number = number
        self.random = random.Random(number)  # the same world each time
        self.now = timezone.now()

    def build(self) -> World:
        self.people()
        self.datasets()
        self.projects()
        self.access()
        self.programs_and_runs()
        self.histories()
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")  # as autovacuum would, sooner or later
        mine = next(r for r in self.research if r.state == "succeeded" and r.project_id in self.own_projects)
        waiting = next((r for r in self.research if r.state == "waiting"), mine)
        published = next(d for d in self.all_datasets if d.state == "published" and self.released_of(d))
        return World(
            self.researcher,
            self.custodian,
            self.chair,
            self.checker,
            self.auditor,
            self.operator,
            published,
            mine,
            waiting,
        )

    def pick(self, weighted: Sequence[tuple[str, int]]) -> str:
        return self.random.choices([s for s, _ in weighted], [w for _, w in weighted])[0]

    def past(self, days: int = 900) -> dt.datetime:
        return self.now - dt.timedelta(seconds=self.random.randrange(days * 86400))

    # People

    def people(self) -> None:
        n = self.number

        def organisations(kind: str, count: int) -> list[Organisation]:
            return [
                Organisation(
                    slug=f"{kind.replace('_', '-')}-{i}",
                    name=f"{kind.replace('_', ' ').title()} number {i}",
                    kind=kind,
                )
                for i in range(count)
            ]

        self.universities, self.custodians = (
            organisations("university", max(3, n // 500)),
            organisations("custodian", max(4, n // 200)),
        )
        self.boards, houses = organisations("ethics_board", 4), organisations("operator", 1)
        _create([*self.universities, *self.custodians, *self.boards, *houses])
        self.users: list[User] = []
        self.holdings: list[RoleHolding] = []
        self.researcher = self._person("Rosa Researcher", self.universities[0], "researcher")
        self.custodian = self._person("Carl Custodian", self.custodians[0], "custodian")
        self.chair = self._person("Clare Chair", self.boards[0], "ethics_chair")
        self.checker = self._person("Chris Checker", self.universities[1], "output_checker")
        self.auditor = self._person("Aude Auditor", self.universities[2], "auditor")
        self.operator = self._person("Olive Operator", houses[0], "operator")
        self.second = self._person("Chloe Checker", self.universities[1], "output_checker")
        self.researchers = [
            self._person(f"Researcher {i}", self.universities[i % len(self.universities)], "researcher")
            for i in range(max(20, n // 10))
        ]
        self.managers = [
            self._person(f"Custodian {i}", o, "custodian") for i, o in enumerate(self.custodians)
        ]
        self.members = [self._person(f"Member {i}", self.boards[i % 4], "ethics_member") for i in range(12)]
        signatories = [
            self._person(f"Signatory {i}", o, "organisation_signatory")
            for i, o in enumerate([*self.universities, *self.custodians])
        ]
        self.signers = {s.organisation_id: s for s in signatories}
        _create(self.users)
        _create(self.holdings)
        day = (self.now - dt.timedelta(days=100)).date()
        _create(
            Training(user=u, course="Safe use of data", completed_on=day, recorded_by="system:bench")
            for u in self.users
        )
        _create(TermsAcceptance(user=u, version="1") for u in self.users)

    def _person(self, name: str, where: Organisation, role: str) -> User:
        user = User(
            name=name,
            email=f"person{len(self.users)}@example.org",
            organisation=where,
            password="!",
            password_chosen_at=self.now,
        )
        self.users.append(user)
        self.holdings.append(RoleHolding(user=user, role=role, organisation=where, granted_by="system:bench"))
        return user

    # Datasets

    def datasets(self) -> None:
        manage = Permission.objects.get(codename="manage_dataset", content_type__app_label="datasets")
        self.all_datasets = []
        for i in range(self.number):
            one, two, three = self.random.sample(TOPICS, 3)
            place, first = self.random.choice(PLACES), dt.date(self.random.randrange(1990, 2020), 1, 1)
            owner = 0 if i % 20 == 0 else 1 + i % (len(self.custodians) - 1)
            self.all_datasets.append(
                Dataset(
                    slug=f"set-{i}",
                    title=f"{one.capitalize()} and {two}, {place} {i}",
                    summary=f"Records of {one}, {two} and {three} in {place}, collected from {first.year} on. "
                    * 4,
                    custodian=self.custodians[owner],
                    state=self.pick(DATASET_STATES),
                    keywords=[one, two, three],
                    coverage_place=place,
                    coverage_from=first,
                    coverage_to=dt.date(2024, 12, 31),
                    licence="By agreement",
                    personal_data=self.random.random() < 0.6,
                    dictionary=DICTIONARY,
                    created_by=self._manager(owner),
                    created_at=self.past(),
                )
            )
        _create(self.all_datasets)
        _create(
            DatasetUserObjectPermission(user=d.created_by, permission=manage, content_object=d)
            for d in self.all_datasets
        )
        self.versions = [self._version(d, 1) for d in self.all_datasets]
        _create(
            [
                *self.versions,
                *(
                    self._version(d, 2, "refused" if i % 3 else "uploading")
                    for i, d in enumerate(self.all_datasets)
                    if i % 25 == 0
                ),
            ]
        )
        self.releases = {
            v.pk: Stage1Release(
                version=v, state="to_review" if i % 50 == 0 else "released", method="gaussian_copula", object_name=f"releases/{v.pk}", sha256=SHA, size=10**6,
                rows=20190, report={"v": 1, "rows": 20190, "shapes": 0.9}, ordered_by=v.uploaded_by,
            )
            for i, v in enumerate(self.versions) if i % 5 < 3
        }  # fmt: skip
        _create(self.releases.values())

    def _manager(self, owner: int) -> User:
        return self.custodian if owner == 0 else self.managers[owner]

    def _version(self, dataset: Dataset, number: int, state: str = "accepted") -> DatasetVersion:
        accepted = state == "accepted"
        return DatasetVersion(
            dataset=dataset, number=number, state=state, dictionary=DICTIONARY, media_type="text/csv", object_name=f"datasets/{uuid.uuid4()}.sealed",
            announced_size=10**6, received_size=10**6, seal={"v": 1, "wrapped_key": {"data": "x" * 100}}, ciphertext_sha256=SHA, plaintext_sha256=SHA,
            rows=20190 if accepted else None, profile=PROFILE if accepted else None, report={"v": 1, "ok": accepted, "problems": []},
            uploaded_by=dataset.created_by, created_at=dataset.created_at,
        )  # fmt: skip

    def released_of(self, dataset: Dataset) -> bool:
        return any(
            r.version.dataset_id == dataset.pk and r.state == "released" for r in self.releases.values()
        )

    # Projects

    def projects(self) -> None:
        self.all_projects, memberships, self.own_projects = [], [], set()
        today = self.now.date()
        for i in range(self.number):
            own = i % 50 == 0
            lead = self.researcher if i % 100 == 0 else self.random.choice(self.researchers)
            state = self.pick(PROJECT_STATES) if i else "active"
            board = None if state == "draft" else self.boards[i % 4]
            project = Project(
                ref=f"SR-2025-{i:05d}", title=f"Does {self.random.choice(TOPICS)} change {self.random.choice(TOPICS)}? Question {i}",
                organisation=lead.organisation, board=board, state=state, answers=ANSWERS, starts_on=today - dt.timedelta(days=100),
                ends_on=today + dt.timedelta(days=500), ethics_valid_until=today + dt.timedelta(days=300), created_by=lead, created_at=self.past(),
            )  # fmt: skip
            self.all_projects.append(project)
            people = [lead, *self.random.sample(self.researchers, 2)]
            if own and self.researcher not in people:
                people.append(self.researcher)
            if own:
                self.own_projects.add(project.pk)
            for person in dict.fromkeys(people):
                role = "principal_investigator" if person is lead else "researcher"
                memberships.append(
                    Membership(
                        project=project,
                        user=person,
                        role=role,
                        invited_by=lead,
                        accepted_at=project.created_at,
                    )
                )
        _create(self.all_projects)
        _create(memberships)
        submitted = [p for p in self.all_projects if p.board is not None]
        versions = [
            ApplicationVersion(
                project=p,
                number=1,
                answers=ANSWERS,
                sha256=SHA,
                submitted_by=p.created_by,
                created_at=p.created_at,
            )
            for p in submitted
        ]
        _create(versions)
        reviews = [self._review(v) for v in versions]
        _create(reviews)
        members = {b.pk: [m for m in self.members if m.organisation_id == b.pk] for b in self.boards}
        _create(
            EthicsOpinion(review=r, member=m, opinion="support", comment="Clear.")
            for r in reviews if r.state not in ("received", "returned") for m in members[r.board_id][:2]
        )  # fmt: skip

    def _review(self, version: ApplicationVersion) -> EthicsReview:
        state = {
            "submitted": "received",
            "in_ethics_review": "under_review",
            "returned": "returned",
            "declined": "unfavourable",
        }.get(version.project.state, "favourable")
        decided = state in ("favourable", "unfavourable")
        return EthicsReview(
            version=version, board=version.project.board, state=state, created_at=version.created_at,
            decided_by=self.chair if decided else None, decided_at=self.now if decided else None,
        )  # fmt: skip

    # Access

    def access(self) -> None:
        today = self.now.date()
        running = [p for p in self.all_projects if p.state in ("approved", "active")]
        self.uses = {p.pk: self.random.randrange(len(self.all_datasets)) for p in running}
        requests, agreements, signatures = [], [], []
        for i, project in enumerate(running):
            dataset = self.all_datasets[self.uses[project.pk]]
            state = "submitted" if i % 25 == 0 else "agreement_pending" if i % 25 == 1 else "active"
            decided = state != "submitted"
            request = AccessRequest(
                project=project, dataset=dataset, state=state, purpose="To answer the question. " * 5, ends_on=today + dt.timedelta(days=200),
                requested_by=project.created_by, decided_by=dataset.created_by if decided else None, decided_at=self.now if decided else None,
            )  # fmt: skip
            requests.append(request)
            if not decided:
                continue
            agreement = Agreement(
                access_request=request, state="in_force" if state == "active" else "issued", template="1", body="The parties agree. " * 200, sha256=SHA,
                starts_on=today - dt.timedelta(days=50), ends_on=today + dt.timedelta(days=200), in_force_at=self.now if state == "active" else None,
            )  # fmt: skip
            agreements.append(agreement)
            if state == "active":
                for side, organisation in (
                    ("user_organisation", project.organisation_id),
                    ("custodian", dataset.custodian_id),
                ):
                    signatures.append(
                        Signature(
                            agreement=agreement,
                            side=side,
                            signer=self.signers[organisation],
                            document_sha256=SHA,
                            statement="I sign.",
                            reauthenticated_at=self.now,
                            method="password",
                        )
                    )
        _create(requests)
        _create(agreements)
        _create(signatures)

    # Runs

    def programs_and_runs(self) -> None:
        n = self.number
        projects = [p for p in self.all_projects if p.pk in self.uses]
        programs = []
        for i in range(max(1, n // 3)):
            project = projects[i % len(projects)]
            programs.append(
                Program(
                    project=project,
                    name=f"program_{i}.py",
                    kind="py",
                    entry=f"program_{i}.py",
                    sha256=SHA,
                    size=1000,
                    object_name=f"programs/{SHA}",
                    uploaded_by=project.created_by,
                    submission=uuid.uuid4().hex,
                    created_at=self.past(400),
                )
            )
        _create(programs)
        reads = {p.pk: self.versions[self.uses[p.project_id]] for p in programs}
        _create(Program.versions.through(program_id=p.pk, datasetversion_id=reads[p.pk].pk) for p in programs)
        _create(
            ProgramApproval(
                program=p,
                dataset=reads[p.pk].dataset,
                program_sha256=SHA,
                decision="approved",
                by="system:bench",
            )
            for i, p in enumerate(programs)
            if i % 10
        )
        rehearsals = [
            self._run("rehearsal", p, "failed" if i % 12 == 0 else "succeeded")
            for i, p in enumerate(programs)
        ]
        profiles = [self._run("profile", None, "succeeded", version=v) for v in self.versions[: n // 10]]
        left = max(1, n - len(rehearsals) - len(profiles))
        # The first program is one of the measured researcher's, and its later runs succeed.
        endings = ["succeeded" if i and i % len(programs) == 0 else self._ending(i) for i in range(left)]
        self.research = [
            self._run("research", programs[i % len(programs)], ending) for i, ending in enumerate(endings)
        ]
        runs = [*rehearsals, *profiles, *self.research]
        _create(runs)
        inputs = [
            RunInput(run=r, version=reads[r.program_id], stage=2, personal_data=False, backend=r.backend)
            for r in self.research
        ]
        inputs += [
            RunInput(run=r, version=r.version, stage=2, personal_data=False, backend=r.backend)
            for r in profiles
        ]
        inputs += [
            RunInput(run=r, version=reads[r.program_id], release=release, stage=1, personal_data=False, backend=r.backend)
            for r in rehearsals if (release := self.releases.get(reads[r.program_id].pk))
        ]  # fmt: skip
        _create(inputs)
        self.runs = runs
        self._releases([r for r in self.research if r.state == "succeeded"])
        _create(
            Evidence(run=r.pk, attempt=1, purpose=purpose, type="software", envelope=b"x" * 900, sha256=SHA, context={"outputs": []}, tier="none", accepted=True, appraisal=APPRAISAL)
            for r in self.research if r.state == "succeeded" for purpose in ("key-release", "result")
        )  # fmt: skip

    @staticmethod
    def _ending(number: int) -> str:
        if number < 4:
            return "running"
        return (
            "waiting"
            if number % 50 == 0
            else "cancelled"
            if number % 30 == 0
            else "failed"
            if number % 15 == 0
            else "succeeded"
        )

    def _run(
        self, kind: str, program: Program | None, state: str, version: DatasetVersion | None = None
    ) -> Run:
        asked = self.past(400)
        ended = state in ("succeeded", "failed", "cancelled")
        by = program.uploaded_by if program else version.uploaded_by if version else self.operator
        return Run(
            kind=kind, state=state, code={"waiting": "waits_for_conditions"}.get(state, state), project=program.project if program else None, program=program, version=version,
            requested_by=by.actor_code, backend="local", manifest=MANIFEST, manifest_sha256=SHA, attempt=1, created_at=asked, queued_at=asked, started_at=asked,
            ended_at=asked + dt.timedelta(minutes=3) if ended else None, machine_gone=ended, outputs_opened=ended,
            statement=STATEMENT if state == "succeeded" else None, statement_sha256=SHA if state == "succeeded" else "", exit_class=state if ended else "",
        )  # fmt: skip

    def _releases(self, runs: list[Run]) -> None:
        releases, checks, outputs = [], [], []
        for run in runs:
            state = self.pick(OUTPUT_STATES)
            first = self.checker if self.random.random() < 0.5 else self.second
            both = state == "released"
            release = OutputRelease(
                run=run, state=state, first_checker=first if state != "in_review" else None, created_at=run.created_at,
                second_checker=(self.second if first is self.checker else self.checker) if both else None, package_sha256=SHA if both else "", package_size=10**5 if both else None,
            )  # fmt: skip
            releases.append(release)
            for checker in (release.first_checker, release.second_checker):
                if checker is not None:
                    checks.append(
                        OutputCheck(
                            output_release=release,
                            checker=checker,
                            decision="reject" if state == "rejected" else "approve",
                        )
                    )
            outputs += [
                Output(
                    run=run,
                    path=path,
                    sha256=SHA,
                    size=1000,
                    media_type="text/csv",
                    object_name=f"outputs/{SHA}",
                )
                for path in ("a.csv", "b.csv")
            ]
        _create(releases)
        _create(checks)
        _create(outputs)

    # What happened to all of it

    def histories(self) -> None:
        """Four transitions an object, and as many entries of the log, sealed into it."""
        tables = (
            ("run", "jobs_run", "waiting,queued,launching,running"),
            ("project", "projects_project", "draft,submitted,in_ethics_review,approved"),
            ("dataset", "datasets_dataset", "draft,published"),
        )
        with connection.cursor() as cursor:
            for name, table, states in tables:
                steps = states.split(",")
                parameters: list[Any] = [name, steps, steps]
                cursor.execute(
                    f"""INSERT INTO core_statechange (object_type, object_id, from_state, to_state, by, reason, at)
                        SELECT %s, o.id, '', s.to_state, 'system:bench', '', o.created_at + s.n * interval '1 minute'
                        FROM {table} o CROSS JOIN (SELECT unnest(%s::text[]) AS to_state, generate_series(1, cardinality(%s::text[])) AS n) s""",
                    parameters,
                )  # fmt: skip
            cursor.execute(
                """INSERT INTO audit_entry (id, index, event, actor, object_type, object_id, scope, data, at, salt, leaf_hash)
                   SELECT gen_random_uuid(), row_number() OVER (ORDER BY c.id) - 1, c.object_type || '.' || c.to_state,
                          (SELECT array_agg('user:' || id) FROM accounts_user)[1 + (c.id %% %s::int)], c.object_type, c.object_id::text,
                          'project:' || c.object_id, jsonb_build_object('to', c.to_state), c.at, '\\x00', '\\x00'
                   FROM core_statechange c""",
                [len(self.users)],
            )
            cursor.execute("SELECT count(*) FROM audit_entry")
            size = cursor.fetchone()[0]
        Checkpoint.objects.create(size=size, root=b"\0" * 32, note="bench")
