"""Two people, or one person twice, at the same moment on two connections: one wins, the other is told, nothing is done twice."""

from __future__ import annotations

import contextlib
import io
import threading
import uuid
from typing import Any

import pytest

from apps.audit.models import Entry
from apps.core.clock import now
from apps.core.errors import Conflict, Denied, DomainError
from apps.core.models import StateChange
from apps.datasets import actions as datasets
from apps.datasets.models import AccessRequest, Agreement, Signature, Stage1Release
from apps.jobs import actions as jobs
from apps.jobs import engine, spending
from apps.jobs.engine import steps
from apps.jobs.models import (
    OutputCheck,
    OutputRelease,
    Program,
    ProgramApproval,
    ProjectAllowance,
    Run,
    RunCost,
)
from tests import factories
from tests.factories import World, again, at_once

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, transactional_db: None) -> World:
    factories.use(monkeypatch, tmp_path)
    return World()


@pytest.fixture
def w(world: World) -> World:
    """With access in force."""
    world.open_access()
    return world


def errors(results: list[Any]) -> list[DomainError]:
    return [r for r in results if isinstance(r, DomainError)]


def check(by: Any, release: OutputRelease, decision: str = "approve") -> Any:
    own = again(release)
    return lambda: jobs.check_outputs(by=by, output_release=own, decision=decision, comment="Because.")


def states(obj: Any) -> list[str]:
    return list(
        StateChange.objects.filter(object_id=obj.pk).order_by("id").values_list("to_state", flat=True)
    )


def test_two_checkers_at_once(w: World) -> None:
    release, (one, two, _) = w.outputs(), w.checkers
    assert errors(at_once(check(one, release), check(two, release))) == []
    release = again(release)
    assert release.state == "approved" and {release.first_checker, release.second_checker} == {one, two}
    assert states(release) == ["collected", "in_review", "approved_once", "approved"]


def test_one_checker_twice_at_once(w: World) -> None:
    release, one = w.outputs(), w.checkers[0]
    (refusal,) = errors(at_once(check(one, release), check(again(one), release)))
    assert isinstance(refusal, Conflict) and refusal.code == "already_checked"
    assert again(release).state == "approved_once" and OutputCheck.objects.count() == 1


def test_three_checkers_at_once(w: World) -> None:
    release = w.outputs()
    (refusal,) = errors(at_once(*(check(checker, release) for checker in w.checkers)))
    assert (
        refusal.code == "not_in_review"
        and again(release).state == "approved"
        and OutputCheck.objects.count() == 2
    )


def test_yes_and_no_at_once(w: World) -> None:
    release, (one, two, _) = w.outputs(), w.checkers
    results = at_once(check(one, release), check(two, release, "reject"))
    assert again(release).state == "rejected", "a no counts, whoever was first"
    told = len(errors(results))
    assert OutputCheck.objects.count() == 2 - told and states(release)[-1] == "rejected"


def test_two_workers_build_one_package(w: World) -> None:
    release = w.outputs()
    for checker in w.checkers[:2]:
        check(checker, release)()
    results = at_once(*(lambda: engine.build_package(release.pk) for _ in range(2)))
    assert all(isinstance(r, Conflict) for r in errors(results))
    assert again(release).state == "released" and states(release).count("released") == 1


def test_two_custodians_decide_one_program(w: World) -> None:
    program = w.program()

    def act(by: Any, approve: bool) -> Any:
        return lambda: jobs.decide_program(
            by=by, program=again(program), dataset=again(w.dataset), approve=approve, reason="Because."
        )

    (refusal,) = errors(at_once(act(w.custodian, True), act(w.custodian2, False)))
    assert isinstance(refusal, Conflict) and refusal.code == "already_decided"
    assert (
        ProgramApproval.objects.count() == 1
        and Entry.objects.filter(event__in=["program.approved", "program.refused"]).count() == 1
    )


def test_two_custodians_take_one_approval_back(w: World) -> None:
    approval = w.approved_program().approvals.get()
    results = at_once(
        *(
            lambda by=by: jobs.revoke_program_approval(by=by, approval=again(approval), reason="Because.")
            for by in (w.custodian, w.custodian2)
        )
    )  # type: ignore[misc]
    (refusal,) = errors(results)
    assert (
        refusal.code == "not_approved" and Entry.objects.filter(event="program.approval_revoked").count() == 1
    )


def test_one_form_sent_twice_is_one_program(w: World) -> None:
    token = uuid.uuid4().hex

    def act() -> Program:
        return jobs.submit_program(
            by=again(w.member), project=again(w.project), name="p", file=io.BytesIO(factories.PROGRAM), filename="p.py",
            datasets=[again(w.dataset)], submission=token,
        )  # fmt: skip

    results = at_once(act, act, act)
    assert errors(results) == [] and len({program.pk for program in results}) == 1
    assert (
        Run.objects.filter(kind="rehearsal").count() == 1
        and Entry.objects.filter(event="program.submitted").count() == 1
    )


def test_one_click_twice_is_one_run(w: World) -> None:
    program, token = w.approved_program(), uuid.uuid4().hex
    results = at_once(
        *(
            lambda: jobs.submit_run(by=again(w.member), program=again(program), submission=token)
            for _ in range(3)
        )
    )
    assert errors(results) == [] and len({run.pk for run in results}) == 1
    assert (
        Run.objects.filter(kind="research").count() == 1
        and Entry.objects.filter(event="run.waiting", object_id=str(results[0].pk)).count() == 1
    )


def test_two_people_stop_one_run(w: World) -> None:
    run = factories.research_run(w.program(), w.member)
    results = at_once(
        *(
            lambda by=by: jobs.cancel_run(by=by, run=again(run), reason="Because.")
            for by in (w.lead, w.custodian)
        )
    )  # type: ignore[misc]
    (refusal,) = errors(results)
    assert refusal.code == "not_running" and Entry.objects.filter(event="run.cancel_requested").count() == 1


def test_two_runs_do_not_pass_a_budget_together(
    w: World, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """Both have looked before either has left the queue: only one fits, so only one may go on."""
    settings.RUN_SIZES = {
        "local": {"s": {"vcpus": 2, "memory_gib": 8, "pence_per_hour": 12, "price_source": "own"}}
    }
    settings.RUN_LIMITS = {**settings.RUN_LIMITS, "memory_bytes": 4 << 30, "disk_bytes": 2 << 30}
    program = w.approved_program()
    RunCost.objects.all().delete()
    Run.objects.filter(program=program).update(attempt=0)
    runs = [jobs.submit_run(by=w.member, program=program, submission=uuid.uuid4().hex) for _ in range(2)]
    most = spending.at_most("local", "", spending.limits_for("local", ""))
    ProjectAllowance.objects.create(project=w.project, budget_pence=most, set_by="system:x")
    looked, judge = threading.Barrier(2), steps.unmet

    def slowly(run: Run) -> Any:
        found = judge(run)
        with contextlib.suppress(threading.BrokenBarrierError):
            looked.wait(2)  # the other one is here too, or is kept out
        return found

    monkeypatch.setattr(steps, "unmet", slowly)
    gone_on = at_once(*(lambda run=run: steps.step(again(run)) for run in runs))  # type: ignore[misc]
    assert sorted(gone_on) == [False, True]
    assert sorted(again(run).state for run in runs) == ["queued", "waiting"]


# Access and agreements


def test_two_custodians_decide_one_request(world: World) -> None:
    w, request = world, factories.access_request(world.project, world.dataset, world.lead)

    def act(by: Any, approve: bool) -> Any:
        own = again(request)
        return lambda: datasets.decide_access(by=by, access_request=own, approve=approve, reason="Because.")

    (refusal,) = errors(at_once(act(w.custodian, True), act(w.custodian2, False)))
    assert isinstance(refusal, Conflict) and refusal.code in ("already_changed", "wrong_state")
    request = again(request)
    assert request.agreements.count() == (1 if request.state == "agreement_pending" else 0)
    assert len(states(request)) == (3 if request.state == "agreement_pending" else 2)


def test_two_custodians_approve_one_request(world: World) -> None:
    w, request = world, factories.access_request(world.project, world.dataset, world.lead)
    rows = [again(request), again(request)]
    results = at_once(
        *(
            lambda by=by, row=row: datasets.decide_access(
                by=by, access_request=row, approve=True, reason="Because."
            )
            for by, row in zip((w.custodian, w.custodian2), rows, strict=True)
        )
    )  # type: ignore[misc]
    assert len(errors(results)) == 1 and Agreement.objects.count() == 1


def test_one_request_sent_twice(world: World) -> None:
    results = at_once(
        *(
            lambda: factories.access_request(again(world.project), again(world.dataset), again(world.lead))
            for _ in range(2)
        )
    )
    (refusal,) = errors(results)
    assert refusal.code == "already_requested" and AccessRequest.objects.count() == 1


def signature(agreement: Agreement, by: Any, side: str) -> Any:
    own, moment = again(agreement), now()
    return lambda: datasets.sign_agreement(by=by, agreement=own, side=side, reauthenticated_at=moment)


@pytest.fixture
def agreement(world: World) -> Agreement:
    return factories.issued_agreement(world.project, world.dataset, world.lead, world.custodian)


def test_both_sides_sign_at_once(world: World, agreement: Agreement) -> None:
    assert (
        errors(
            at_once(
                signature(agreement, world.ours, "user_organisation"),
                signature(agreement, world.theirs, "custodian"),
            )
        )
        == []
    )
    assert (again(agreement).state, again(agreement.access_request).state, again(world.project).state) == (
        "in_force",
        "active",
        "active",
    )
    assert states(agreement) == ["issued", "part_signed", "in_force"]


def test_two_signatories_of_one_side(world: World, agreement: Agreement) -> None:
    second = factories.person("Uma", world.university, factories.Role.SIGNATORY)
    (refusal,) = errors(
        at_once(
            signature(agreement, world.ours, "user_organisation"),
            signature(agreement, second, "user_organisation"),
        )
    )
    assert isinstance(refusal, Conflict) and refusal.code == "already_signed"
    assert again(agreement).state == "part_signed" and Signature.objects.count() == 1


@pytest.mark.parametrize("end", ["revoke", "withdraw"])
def test_signed_and_ended_at_once(world: World, agreement: Agreement, end: str) -> None:
    """Signing locks what ending locks, in the same order: no deadlock, and never an open access under a void agreement."""
    factories.sign(agreement, world.ours, "user_organisation")
    request = again(agreement.access_request)
    if end == "revoke":
        ending = lambda: datasets.revoke_access(by=world.custodian, access_request=request, reason="Because.")  # noqa: E731
    else:
        ending = lambda: datasets.withdraw_request(by=world.lead, access_request=request, reason="Because.")  # noqa: E731
    results = at_once(signature(agreement, world.theirs, "custodian"), ending)
    assert len(errors(results)) == 1
    states = (again(request).state, again(agreement).state)
    assert states in {("active", "in_force"), ("revoked", "void"), ("withdrawn", "void")}


def test_terminated_and_revoked_at_once(w: World) -> None:
    request = w.project.access_requests.get()
    agreement = request.agreements.get()
    results = at_once(
        lambda: datasets.terminate_agreement(by=w.custodian, agreement=again(agreement), reason="Because."),
        lambda: datasets.revoke_access(by=w.custodian2, access_request=again(request), reason="Because."),
    )
    assert len(errors(results)) <= 1
    assert (again(request).state, again(agreement).state) == ("revoked", "terminated")


# Stand-in data


def test_two_custodians_order_at_once(world: World) -> None:
    version = world.dataset.versions.get()
    results = at_once(
        *(
            lambda by=by: datasets.order_release(by=by, version=again(version), method="gaussian_copula")
            for by in (world.custodian, world.custodian2)
        )
    )  # type: ignore[misc]
    (refusal,) = errors(results)
    assert refusal.code == "already_ordered" and Stage1Release.objects.count() == 1


def test_two_custodians_decide_one_release(world: World) -> None:
    release = factories.made_release(world.dataset.versions.get(), world.custodian)
    rows = [again(release), again(release)]
    results = at_once(
        lambda: datasets.decide_release(by=world.custodian, release=rows[0], approve=True),
        lambda: datasets.decide_release(
            by=world.custodian2, release=rows[1], approve=False, reason="Because."
        ),
    )
    (refusal,) = errors(results)
    assert isinstance(refusal, Conflict) and not isinstance(refusal, Denied)
    assert states(release)[-1] == again(release).state and len(states(release)) == 4
