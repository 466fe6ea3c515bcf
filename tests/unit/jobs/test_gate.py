"""The gate: pure conditions one by one, and the reading of the facts from real rows."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest

from apps.accounts.actions import deactivate_person
from apps.accounts.models import TermsAcceptance, Training
from apps.core.clock import now
from apps.core.errors import GateClosed
from apps.datasets import actions as datasets
from apps.jobs import actions as jobs
from apps.jobs import gate
from apps.jobs.gate import MAX_LIVE_RUNS, DatasetFacts, Facts
from apps.jobs.models import Run
from apps.projects import actions as projects
from apps.projects.models import Project
from tests import factories
from tests.factories import World, again

TODAY = dt.date(2026, 11, 5)
DAY = dt.timedelta(days=1)
GOOD = DatasetFacts(
    title="Visits",
    published=True,
    version_accepted=True,
    access_active=True,
    program_decision="approved",
    personal_data=False,
    broker_admitted=True,
)
MET = Facts(
    person_active=True, person_is_member=True, training_valid=True, terms_accepted=True, project_state="active",
    project_starts_on=TODAY, project_ends_on=TODAY, ethics_valid_until=TODAY, rehearsal_state="succeeded", live_runs=0,
    backend="local", backend_known=True, datasets=(GOOD,), today=TODAY, size_allowed=True, budget_fault="",
    longest_seconds=900, time_limit=900,
)  # fmt: skip


def with_dataset(**changes: Any) -> dict[str, Any]:
    return {"datasets": (replace(GOOD, **changes),)}


ONE_UNMET: list[tuple[str, dict[str, Any], str]] = [
    ("person_inactive", {"person_active": False}, "operator"),
    ("not_a_member", {"person_is_member": False}, "researcher"),
    ("training_missing", {"training_valid": False}, "researcher"),
    ("terms_not_accepted", {"terms_accepted": False}, "researcher"),
    *[("project_not_active", {"project_state": s}, "ethics board") for s in ("draft", "submitted", "returned", "in_ethics_review", "suspended", "declined", "withdrawn", "expired", "closed", "", "ACTIVE")],
    ("project_not_started", {"project_starts_on": TODAY + DAY}, "researcher"),
    ("project_ended", {"project_ends_on": TODAY - DAY}, "researcher"),
    ("ethics_not_valid", {"ethics_valid_until": TODAY - DAY}, "ethics board"),
    ("ethics_not_valid", {"ethics_valid_until": None}, "ethics board"),
    *[("rehearsal_not_succeeded", {"rehearsal_state": s}, "researcher") for s in ("", "waiting", "queued", "launching", "running", "failed", "cancelled")],
    ("no_dataset", {"datasets": ()}, "researcher"),
    ("dataset_not_published", with_dataset(published=False), "custodian"),
    ("version_not_accepted", with_dataset(version_accepted=False), "custodian"),
    ("access_not_active", with_dataset(access_active=False), "custodian"),
    *[("program_not_approved", with_dataset(program_decision=d), "custodian") for d in ("", "refused", "revoked", "nonsense")],
    ("no_hardware_protection", with_dataset(personal_data=True), "operator"),
    ("key_broker_unknown", with_dataset(broker_admitted=False), "operator"),
    ("backend_unknown", {"backend_known": False}, "operator"),
    ("size_not_allowed", {"size_allowed": False}, "operator"),
    ("time_limit_not_allowed", {"time_limit": 901}, "operator"),
    *[("budget_exceeded", {"budget_fault": f}, "operator") for f in ("spent", "unknown_price", "anything")],
    ("too_many_runs", {"live_runs": MAX_LIVE_RUNS}, "researcher"),
]  # fmt: skip


def test_all_met() -> None:
    assert gate.evaluate(MET) == []
    assert (
        gate.evaluate(
            replace(
                MET,
                project_state="approved",
                project_starts_on=None,
                project_ends_on=None,
                live_runs=MAX_LIVE_RUNS - 1,
            )
        )
        == []
    )
    assert gate.evaluate(replace(MET, backend="azure", **with_dataset(personal_data=True))) == []


@pytest.mark.parametrize(("code", "changes", "owner"), ONE_UNMET)
def test_one_unmet(code: str, changes: dict[str, Any], owner: str) -> None:
    (condition,) = gate.evaluate(replace(MET, **changes))
    assert (condition.code, condition.owner) == (code, owner)
    assert (
        condition.detail.endswith(".")
        and condition.remedy.endswith(".")
        and condition.detail != condition.remedy
    )


def test_every_condition_is_in_the_table() -> None:
    """Nothing met: every code at once, each once, and none that the table above does not know."""
    nothing = Facts(
        person_active=False, person_is_member=False, training_valid=False, terms_accepted=False, project_state="", backend_known=False,
        project_starts_on=TODAY + DAY, project_ends_on=TODAY - DAY, ethics_valid_until=None, rehearsal_state="", live_runs=99,
        backend="local", today=TODAY, datasets=(DatasetFacts("V", False, False, False, "", True, False),), size_allowed=False, longest_seconds=900, time_limit=901,
        budget_fault="spent",
    )  # fmt: skip
    codes = [c.code for c in gate.evaluate(nothing)]
    assert len(codes) == len(set(codes))
    assert set(codes) == {code for code, _, _ in ONE_UNMET} - {"no_dataset"}


def test_each_dataset_has_its_own_conditions() -> None:
    found = gate.evaluate(
        replace(
            MET,
            datasets=(GOOD, replace(GOOD, title="Incomes", access_active=False, program_decision="refused")),
        )
    )
    assert [c.code for c in found] == ["access_not_active", "program_not_approved"]
    assert all("Incomes" in c.detail for c in found)
    assert "refused" in found[1].detail and "Change the program" in found[1].remedy


# The facts, from real rows


@pytest.fixture
def waiting(w: World) -> Run:
    """A run on the real data whose gate is open."""
    return factories.research_run(w.approved_program(), w.member)


def codes(run: Run) -> list[str]:
    return [c.code for c in gate.unmet_for_run(again(run), now())]


def test_open(waiting: Run) -> None:
    assert codes(waiting) == []
    gate.require_open(waiting, now())


def test_person(w: World, waiting: Run) -> None:
    Training.objects.filter(user=w.member).update(completed_on=now().date() - dt.timedelta(days=3 * 366))
    TermsAcceptance.objects.filter(user=w.member).delete()
    projects.leave_project(by=w.member, project=w.project)
    deactivate_person(by=factories.operator(), user=w.member, reason="Left.")
    assert codes(waiting) == ["person_inactive", "not_a_member", "training_missing", "terms_not_accepted"]


def test_unknown_person(waiting: Run) -> None:
    Run.objects.filter(pk=waiting.pk).update(requested_by="system:somebody")
    assert codes(waiting) == ["person_inactive", "not_a_member", "training_missing", "terms_not_accepted"]


def test_project(w: World, waiting: Run) -> None:
    projects.suspend_project(by=w.board.chair, project=w.project, reason="An incident.")
    assert codes(waiting) == ["project_not_active"]
    yesterday = now().date() - DAY
    Project.objects.filter(pk=w.project.pk).update(
        state="active", ethics_valid_until=yesterday, ends_on=yesterday, starts_on=now().date() + DAY
    )
    assert codes(waiting) == ["project_not_started", "project_ended", "ethics_not_valid"]


def test_dataset_suspended(w: World, waiting: Run) -> None:
    datasets.suspend_dataset(by=w.custodian, dataset=w.dataset, reason="A question.")
    assert codes(waiting) == ["dataset_not_published"]


@pytest.mark.parametrize("stop", [datasets.suspend_access, datasets.revoke_access])
def test_access_stopped(w: World, waiting: Run, stop: Any) -> None:
    stop(by=w.custodian, access_request=w.project.access_requests.get(), reason="A question.")
    assert codes(waiting) == ["access_not_active"]


def test_agreement_over(w: World, waiting: Run) -> None:
    request = w.project.access_requests.get()
    request.agreements.update(ends_on=now().date() - DAY)
    assert codes(waiting) == ["access_not_active"]
    request.agreements.update(ends_on=now().date())
    assert codes(waiting) == []
    request.agreements.update(starts_on=now().date() + DAY)
    assert codes(waiting) == ["access_not_active"]


def test_approval_taken_back(w: World, waiting: Run) -> None:
    assert waiting.program is not None
    jobs.revoke_program_approval(by=w.custodian, approval=waiting.program.approvals.get(), reason="A leak.")
    assert codes(waiting) == ["program_not_approved"]


def test_approval_is_of_the_hash(waiting: Run) -> None:
    """An approval for other bytes than the program's counts as none."""
    assert waiting.program is not None
    waiting.program.approvals.update(program_sha256="0" * 64)
    assert codes(waiting) == ["program_not_approved"]


def test_quota_and_backend(w: World, waiting: Run, settings: Any) -> None:
    assert waiting.program is not None
    others = [factories.research_run(waiting.program, w.member) for _ in range(MAX_LIVE_RUNS)]
    assert codes(waiting) == [], "runs that wait take no place"
    Run.objects.filter(pk__in=[run.pk for run in others]).update(state="queued")
    assert codes(waiting) == ["too_many_runs"]
    settings.RUN_BACKENDS = []
    Run.objects.filter(pk=others[0].pk).update(state="failed")
    assert codes(waiting) == ["backend_unknown"]


def test_closed_gate_lists_everything(w: World, waiting: Run) -> None:
    datasets.suspend_dataset(by=w.custodian, dataset=w.dataset, reason="A question.")
    projects.leave_project(by=w.member, project=w.project)
    with pytest.raises(GateClosed) as refusal:
        gate.require_open(again(waiting), now())
    assert [c["code"] for c in refusal.value.extra["conditions"]] == ["not_a_member", "dataset_not_published"]


def test_other_kinds_have_no_gate(w: World) -> None:
    assert gate.unmet_for_run(Run.objects.get(kind="profile"), now()) == []
