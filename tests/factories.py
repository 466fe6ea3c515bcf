"""Builders of real states for tests: each object comes about by the actions that make it in life.

Runs are driven through the HTTP protocol by a runner without a sandbox, against machines kept in a dictionary.
`use(monkeypatch, settings, tmp_path)` first: it gives the test an object store and machines of its own.
"""

from __future__ import annotations

import copy
import datetime as dt
import io
import itertools
import json
import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from django.conf import settings as django_settings
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apps.accounts import actions as accounts
from apps.accounts.models import Organisation, User
from apps.accounts.reauth import reauthenticate
from apps.accounts.roles import Role
from apps.core import outbox
from apps.core.actors import System
from apps.core.clock import now
from apps.core.errors import DomainError
from apps.datasets import actions as datasets
from apps.datasets.models import AccessRequest, Agreement, Dataset, DatasetVersion, Stage1Release
from apps.jobs import actions as jobs
from apps.jobs import engine
from apps.jobs.engine import machines
from apps.jobs.engine.machines import Sight
from apps.jobs.models import OutputRelease, Program, Run
from apps.projects import actions as projects
from apps.projects.models import EthicsReview, Project
from strongroom import seal as sealing
from tests.unit.jobs.engine.fake_runner import FakeRunner

PORTAL = System("test")
PASSWORD = "correct horse battery staple"
CSV = b"visits,coins\n" + b"".join(b"%d,%d\n" % (n % 9, (n % 4) * 25) for n in range(60))
STAND_IN = b"visits,coins\n2,0\n2,25\n"
PROGRAM = b"import strongroom\nprint(len(strongroom.load('x')))\n"
DICTIONARY: dict[str, Any] = {
    "fields": [
        {
            "name": "visits",
            "type": "integer",
            "description": "Visits to a doctor",
            "constraints": {"minimum": 0},
        },
        {"name": "coins", "type": "number", "description": "Coinsurance", "unit": "%"},
    ],
    "missingValues": ["", "NA"],
}
PROFILE: dict[str, Any] = {
    "v": 1,
    "rows": 60,
    "columns": [
        {"name": name, "type": kind, "missing": 0, "summary": None, "categories": None, "histogram": None}
        for name, kind in (("visits", "integer"), ("coins", "number"))
    ],
}
RELEASE_REPORT: dict[str, Any] = {
    "v": 1, "rows": 2, "shapes": 0.9, "pairs": 0.8, "pairs_if_independent": 0.5, "verbatim_rows": 1, "seconds": 3,
    "columns": [{"name": "visits", "similarity": 0.9}, {"name": "coins", "similarity": 0.8}],
}  # fmt: skip
_numbers = itertools.count(1)
T = TypeVar("T")


class Machines:
    """A backend whose machines are entries of a dictionary. Nothing runs in them."""

    def __init__(self) -> None:
        self.tokens: dict[str, str] = {}

    def launch(self, run: Run, token: str) -> None:
        self.tokens[run.machine] = token

    def observe(self, run: Run) -> Sight:
        return Sight.RUNNING if run.machine in self.tokens else Sight.ABSENT

    def destroy(self, run: Run) -> None:
        self.tokens.pop(run.machine, None)

    def sweep(self, live_names: Collection[str]) -> list[str]:
        return []


def use(monkeypatch: Any, folder: Path) -> Machines:
    """An object store in `folder`, machines of the test's own, and no message to the broker."""
    made = Machines()
    monkeypatch.setitem(machines._backends, "local", made)
    monkeypatch.setattr(
        django_settings, "OBJECT_STORE", {"backend": "files", "root": str(folder / "objects")}
    )
    monkeypatch.setattr(outbox, "kick", lambda: None)
    return made


@contextmanager
def shared(folder: Path, make: Callable[[], T]) -> Iterator[T]:
    """What `make` builds, in one transaction that is rolled back at the end: for many tests that `undone` separates."""
    with pytest.MonkeyPatch.context() as patch:
        use(patch, folder)
        with transaction.atomic():
            yield make()
            transaction.set_rollback(True)


@contextmanager
def undone(made: T) -> Iterator[T]:
    """A copy of `made`; whatever happens to the database meanwhile is rolled back."""
    with transaction.atomic():
        yield copy.deepcopy(made)
        transaction.set_rollback(True)


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Make the calls at the same moment, each on a connection of its own; results or domain errors, in their order."""
    barrier = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)

    def run(index: int, call: Callable[[], Any]) -> None:
        try:
            barrier.wait(10)
            results[index] = call()
        except Exception as error:
            results[index] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(index, call)) for index, call in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, DomainError):
            raise result
    return results


def fixtures(make: Callable[[], T]) -> tuple[Any, Any]:
    """Two fixtures for a file of tests: `_world, w = fixtures(World)`. `w` is what `make` built, the same in each test."""

    @pytest.fixture(scope="module", name="_world")
    def built(
        django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[T]:
        with django_db_blocker.unblock(), shared(tmp_path_factory.mktemp("shared"), make) as made:
            yield made

    @pytest.fixture(name="w")
    def as_built(_world: T, db: None) -> Iterator[T]:
        with undone(_world) as made:
            yield made

    return built, as_built


# People


def operator() -> User:
    found = User.objects.filter(email="operator@example.org").first()
    return found or accounts.bootstrap_operator(
        by=PORTAL,
        email="operator@example.org",
        name="Olive Operator",
        organisation="Operations",
        password=PASSWORD,
    )


def organisation(kind: str, name: str = "") -> Organisation:
    number = next(_numbers)
    return accounts.create_organisation(
        by=operator(), name=name or f"{kind} {number}", slug=f"{kind.replace('_', '-')}-{number}", kind=kind
    )


def person(name: str, where: Organisation, *roles: Role, ready: bool = True) -> User:
    """A person with `roles` in `where`; `ready`: trained, and has accepted the terms."""
    user = accounts.create_person(
        by=operator(),
        email=f"{name.lower().replace(' ', '.')}.{next(_numbers)}@example.org",
        name=name,
        organisation=where,
        password=PASSWORD,
    )
    User.objects.filter(pk=user.pk).update(password_chosen_at=now())  # long ago, for all that the tests ask
    for role in roles:
        accounts.grant_role(by=operator(), user=user, role=role, organisation=where)
    if ready:
        accounts.record_training(
            by=operator(),
            user=user,
            course="Safe use of data",
            completed_on=now().date() - dt.timedelta(days=30),
        )
        accounts.accept_terms(by=user, version=django_settings.TERMS_VERSION)
    return User.objects.get(pk=user.pk)


def again(obj: Any) -> Any:
    """The row as it is now, with nothing cached."""
    return type(obj).objects.get(pk=obj.pk)


# Projects


def answers(title: str) -> dict[str, Any]:
    today = now().date()
    return {
        "people_experience": "Ten years of health economics.", "people_interests": "no", "title": title,
        "lay_summary": "Do people who pay more see the doctor less?", "aims": "A count model of visits.",
        "public_benefit": ["services"], "starts_on": today.isoformat(), "ends_on": (today + dt.timedelta(days=700)).isoformat(),
        "data_needed": "Visits, coinsurance.", "lawful_basis": "public_task", "linkage": "no", "place_of_work": "uk",
        "outputs_expected": ["tables", "models"], "outputs_protection": "No cell below ten.",
    }  # fmt: skip


@dataclass
class Board:
    """An ethics board with its people."""

    organisation: Organisation
    chair: User
    member: User


def board() -> Board:
    where = organisation("ethics_board")
    return Board(
        where, person("Clare Chair", where, Role.ETHICS_CHAIR), person("Mo Member", where, Role.ETHICS_MEMBER)
    )


def draft_project(
    lead: User, members: Sequence[User] = (), title: str = "Cost sharing and visits"
) -> Project:
    assert lead.organisation is not None
    project = projects.start_project(by=lead, title=title, organisation=lead.organisation)
    projects.save_answers(by=lead, project=project, answers=answers(title))
    for member in members:
        projects.invite(by=lead, project=project, email=member.email)
        projects.accept_invitation(by=member, project=project)
    return again(project)


def review_of(project: Project, lead: User, judges: Board) -> EthicsReview:
    """Submitted, accepted for review, with a quorum of opinions."""
    version = projects.submit_application(by=lead, project=project, board=judges.organisation, declared=True)
    review = projects.accept_for_review(by=judges.chair, review=version.review)
    for judge in (judges.chair, judges.member):
        projects.give_opinion(by=judge, review=review, opinion="support", comment="Clear.")
    return review


def approved_project(
    lead: User, judges: Board, members: Sequence[User] = (), title: str = "Cost sharing and visits"
) -> Project:
    project = draft_project(lead, members, title)
    review = review_of(project, lead, judges)
    until = now().date() + dt.timedelta(days=365)
    projects.decide(
        by=judges.chair, review=review, outcome="favourable", reason="Public benefit.", valid_until=until
    )
    return again(project)


# Datasets


def draft_dataset(custodian: User, slug: str = "", title: str = "Visits to doctors", **more: Any) -> Dataset:
    assert custodian.organisation is not None
    given = {
        "personal_data": False,
        "summary": "Visits under insurance plans.",
        "dictionary": DICTIONARY,
        **more,
    }
    return datasets.register_dataset(
        by=custodian,
        custodian=custodian.organisation,
        slug=slug or f"set-{next(_numbers)}",
        title=title,
        **given,
    )


def uploaded_version(dataset: Dataset, custodian: User, plain: bytes = CSV) -> DatasetVersion:
    """A really sealed upload, its data key wrapped to the portal's broker, whose bytes the portal has checked."""
    version = datasets.start_upload(
        by=custodian,
        dataset=dataset,
        media_type="text/csv",
        announced_size=sealing.ciphertext_size(len(plain)),
    )
    name, key, out, broker = str(dataset.pk), sealing.generate_data_key(), io.BytesIO(), datasets.broker_key()
    result = sealing.seal_stream(io.BytesIO(plain), out, key, sealing.aad_dataset(name, version.number))
    wrapped = sealing.wrap_key(key, broker, sealing.info_data_key(name, version.number))
    header = sealing.seal_header(
        dataset=name,
        version=version.number,
        suite=broker.suite,
        recipient=broker.id,
        wrapped_key=wrapped,
        result=result,
        media_type="text/csv",
    )
    datasets.receive_chunk(by=custodian, version=version, offset=0, chunks=[out.getvalue()])
    version = datasets.finish_upload(by=custodian, version=version, seal=header.to_json())
    datasets.verify_upload(by=PORTAL, version=version)
    return again(version)


def accepted_version(dataset: Dataset, custodian: User) -> DatasetVersion:
    """Accepted after a profiling run, which is driven to its end."""
    version = uploaded_version(dataset, custodian)
    run = engine.create_profile_run(version)
    assert run is not None
    report = {"v": 1, "ok": True, "rows": 60, "problems": [], "checked_at": "2026-11-05T14:05:00Z"}
    drive(run, {"report.json": json.dumps(report).encode(), "profile.json": json.dumps(PROFILE).encode()})
    return again(version)


def published_dataset(
    custodian: User, slug: str = "", title: str = "Visits to doctors", **more: Any
) -> Dataset:
    dataset = draft_dataset(custodian, slug, title, **more)
    accepted_version(dataset, custodian)
    return again(datasets.publish_dataset(by=custodian, dataset=dataset))


def made_release(version: DatasetVersion, custodian: User) -> Stage1Release:
    """Stand-in data that wait for the custodian's yes."""
    release = datasets.order_release(by=custodian, version=version, method="gaussian_copula", parameters={})
    run = engine.create_release_run(release)
    assert run is not None
    drive(run, {"stand-in.csv": STAND_IN, "report.json": json.dumps(RELEASE_REPORT).encode()})
    return again(release)


def released_stand_in(dataset: Dataset, custodian: User) -> Stage1Release:
    version = dataset.versions.get(state="accepted")
    return again(
        datasets.decide_release(
            by=custodian, release=made_release(version, custodian), approve=True, reason="Good."
        )
    )


def access_request(project: Project, dataset: Dataset, lead: User) -> AccessRequest:
    return datasets.request_access(
        by=lead,
        project=project,
        dataset=dataset,
        purpose="Visits by cost sharing.",
        ends_on=now().date() + dt.timedelta(days=200),
    )


def issued_agreement(project: Project, dataset: Dataset, lead: User, custodian: User) -> Agreement:
    request = access_request(project, dataset, lead)
    datasets.decide_access(
        by=custodian, access_request=request, approve=True, reason="Fits.", conditions="Cite us."
    )
    return again(request.agreements.get())


def sign(agreement: Agreement, signer: User, side: str) -> Agreement:
    moment = reauthenticate(user=signer, password=PASSWORD)
    return datasets.sign_agreement(by=signer, agreement=agreement, side=side, reauthenticated_at=moment)


def access_in_force(
    project: Project, dataset: Dataset, lead: User, custodian: User, ours: User, theirs: User
) -> AccessRequest:
    """Asked, approved, signed by `ours` for the researchers' organisation and by `theirs` for the custodian."""
    agreement = issued_agreement(again(project), dataset, lead, custodian)
    sign(agreement, ours, "user_organisation")
    sign(agreement, theirs, "custodian")
    return again(agreement.access_request)


# Programs and runs


def drive(run: Run, files: dict[str, bytes], **options: Any) -> Run:
    """Take a run from its creation to its end and open its outputs, through the runner protocol."""
    assert engine.advance(run.pk)
    run = again(run)
    assert run.state == "launching", (run.state, run.code)
    runner = FakeRunner(Client(), machines.backend("local").tokens[run.machine])  # type: ignore[attr-defined]
    runner.until_running()
    answer = runner.deliver(files, **options)
    assert answer.status == 200, answer
    engine.open_outputs(run.pk)
    engine.advance(run.pk)
    return again(run)


def submitted_program(
    project: Project,
    by: User,
    on: Sequence[Dataset],
    content: bytes = PROGRAM,
    name: str = "visits",
    filename: str = "visits.py",
    **more: Any,
) -> Program:
    return jobs.submit_program(
        by=by,
        project=project,
        name=name,
        file=io.BytesIO(content),
        filename=filename,
        datasets=on,
        submission=uuid.uuid4().hex,
        **more,
    )


def rehearsal_of(program: Program) -> Run:
    return program.runs.get(kind=Run.Kind.REHEARSAL)


def rehearsed_program(project: Project, by: User, on: Sequence[Dataset], **more: Any) -> Program:
    """A program whose rehearsal succeeded."""
    program = submitted_program(project, by, on, **more)
    run = drive(
        rehearsal_of(program), {"summary.csv": b"n\n3\n", "plot.png": b"\x89PNG\r\n\x1a\n"}, log=b"3\n"
    )
    assert run.state == "succeeded", (run.state, run.code)
    return again(program)


def research_run(program: Program, by: User) -> Run:
    """Asked for; it goes on by itself once the gate is open."""
    return jobs.submit_run(by=by, program=program, submission=uuid.uuid4().hex)


def outputs_in_review(program: Program, by: User, files: dict[str, bytes] | None = None) -> OutputRelease:
    run = drive(research_run(program, by), files or {"table.csv": b"a,b\n1,2\n", "note.txt": b"hello\n"})
    assert run.state == "succeeded", (run.state, run.code)
    return again(run.output_release)


@dataclass
class World:
    """One university with a project on one dataset, and everybody whose hands it goes through."""

    university: Organisation = field(init=False)
    archive: Organisation = field(init=False)
    board: Board = field(init=False)
    lead: User = field(init=False)
    member: User = field(init=False)
    custodian: User = field(init=False)
    custodian2: User = field(init=False)
    ours: User = field(init=False)
    theirs: User = field(init=False)
    checkers: list[User] = field(init=False)
    dataset: Dataset = field(init=False)
    project: Project = field(init=False)

    def __init__(self, *, dataset_title: str = "Visits to doctors") -> None:
        self.university, self.archive = organisation("university"), organisation("custodian")
        self.board = board()
        self.lead = person("Lena Lead", self.university, Role.RESEARCHER)
        self.member = person("Ravi Researcher", self.university, Role.RESEARCHER)
        self.ours = person("Una Signatory", self.university, Role.SIGNATORY)
        self.custodian = person("Carl Custodian", self.archive, Role.CUSTODIAN)
        self.custodian2 = person("Cora Custodian", self.archive, Role.CUSTODIAN)
        self.theirs = person("Theo Signatory", self.archive, Role.SIGNATORY)
        self.checkers = [person(f"Chris Checker {n}", self.archive, Role.OUTPUT_CHECKER) for n in (1, 2, 3)]
        self.dataset = published_dataset(self.custodian, title=dataset_title)
        datasets.add_manager(by=self.custodian, dataset=self.dataset, user=self.custodian2)
        self.project = approved_project(self.lead, self.board, [self.member])

    @classmethod
    def with_access(cls) -> World:
        """Access in force and stand-in data released."""
        world = cls()
        world.open_access()
        return world

    def open_access(self) -> AccessRequest:
        """Access in force and stand-in data released."""
        released_stand_in(self.dataset, self.custodian)
        request = access_in_force(
            self.project, self.dataset, self.lead, self.custodian, self.ours, self.theirs
        )
        self.project = again(self.project)
        return request

    def program(self, **more: Any) -> Program:
        """Rehearsed, not yet decided."""
        return rehearsed_program(self.project, self.member, [self.dataset], **more)

    def approved_program(self, **more: Any) -> Program:
        program = self.program(**more)
        jobs.decide_program(by=self.custodian, program=program, dataset=self.dataset, approve=True)
        return program

    def outputs(self, files: dict[str, bytes] | None = None, **more: Any) -> OutputRelease:
        """In review."""
        return outputs_in_review(self.approved_program(**more), self.member, files)

    def released(self, files: dict[str, bytes] | None = None) -> OutputRelease:
        release = self.outputs(files)
        for checker in self.checkers[:2]:
            jobs.check_outputs(by=checker, output_release=again(release), decision="approve")
        engine.build_package(release.pk)
        return again(release)


# Browsers


def browser(user: User) -> Client:
    """Somebody's browser, signed in."""
    client = Client()
    client.force_login(user, "django.contrib.auth.backends.ModelBackend")
    return client


def page(user: User, path: str, status: int = 200) -> str:
    """The page that `user` gets at `path`."""
    response = browser(user).get(path)
    assert response.status_code == status, (path, response.status_code)
    return response.content.decode()


def cost(user: User, path: str) -> int:
    """Queries that a page takes, with templates compiled and the session seen."""
    client = browser(user)
    client.get(path)
    with CaptureQueriesContext(connection) as captured:
        assert client.get(path).status_code == 200
    return len(captured)


def same_cost(user: User, path: str, more: Callable[[int], object], limit: int = 30) -> None:
    """The page takes as many queries for 5 rows as for 25. `more(n)` makes n rows."""
    more(5)
    few = cost(user, path)
    more(20)
    many = cost(user, path)
    assert few == many < limit, f"{path}: {few} queries for 5 rows, {many} for 25"
