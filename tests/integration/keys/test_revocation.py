"""Taking back what a run rests on: no key from that moment on, and a run under way is ended. The real gate throughout."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from apps.attestation import actions as attestation
from apps.attestation import policies
from apps.attestation.models import KeyRelease
from apps.audit.models import Entry
from apps.core.clock import now
from apps.core.lifecycle import history
from apps.datasets import actions as datasets
from apps.jobs import actions as jobs
from apps.jobs import engine
from apps.jobs.engine import machines
from apps.jobs.models import ProgramApproval, Run
from tests import factories as make
from tests.unit.jobs.engine.fake_runner import FakeRunner
from workers import outbox

IMAGE = "sha256:" + "9" * 64
_world, w = make.fixtures(make.World.with_access)


def policy(**changes: Any) -> dict[str, Any]:
    return {
        "v": 1,
        "types": ["software"],
        "images": [policies.runner_image()],
        "max_age_seconds": 600,
        **changes,
    }


REVOCATIONS: dict[str, Callable[[make.World], object]] = {
    "the agreement": lambda w: datasets.terminate_agreement(by=w.custodian, agreement=w.dataset.access_requests.get().agreements.get(), reason="It is over."),
    "the access": lambda w: datasets.revoke_access(by=w.custodian, access_request=w.dataset.access_requests.get(), reason="It is over."),
    "the approval of the program": lambda w: jobs.revoke_program_approval(by=w.custodian, approval=ProgramApproval.objects.get(dataset=w.dataset), reason="It reads too much."),
    "the dataset, suspended": lambda w: datasets.suspend_dataset(by=w.custodian, dataset=w.dataset, reason="An incident."),
    "the policy, by one not met": lambda w: attestation.set_policy(by=w.custodian, dataset=w.dataset, document=policy(images=[IMAGE])),
    "the policy, by other evidence": lambda w: attestation.set_policy(by=w.custodian, dataset=w.dataset, document=policy(types=["snp"])),
}  # fmt: skip


def started(w: make.World) -> tuple[Run, FakeRunner]:
    run = make.research_run(w.approved_program(name=uuid.uuid4().hex), w.member)
    assert engine.advance(run.pk)
    run.refresh_from_db()
    assert run.state == "launching", (run.state, run.code)
    runner = FakeRunner(Client(), machines.backend("local").tokens[run.machine])  # type: ignore[attr-defined]
    assert runner.claim().status == 200
    return run, runner


def work() -> None:
    outbox.drain(now() + timedelta(seconds=5))


@pytest.mark.parametrize("what", REVOCATIONS)
def test_no_key_after_it(w: make.World, what: str) -> None:
    run, runner = started(w)
    REVOCATIONS[what](w)  # no worker has looked yet
    answer = runner.ask_keys()
    assert answer.status == 403, (what, answer)
    assert not KeyRelease.objects.filter(run=run.pk, released=True).exists()
    run.refresh_from_db()
    assert run.state in ("cancelled", "failed") and runner.ask_keys().status == 409
    if what.startswith("the policy"):
        refused = Entry.objects.get(event="data_key.refused", data__run=str(run.pk))
        assert refused.data["failing"] and refused.scope == f"dataset:{w.dataset.pk}"


@pytest.mark.parametrize("what", REVOCATIONS)
def test_a_run_under_way_is_ended(w: make.World, what: str) -> None:
    run, runner = started(w)
    assert runner.ask_keys().status == 200
    assert runner.phase("running").body["continue"]
    REVOCATIONS[what](w)
    work()
    run.refresh_from_db()
    assert (run.state, run.code) == ("cancelled", "gate_closed"), what
    assert run.machine not in machines.backend("local").tokens  # type: ignore[attr-defined]
    assert not runner.phase("running", 1, 2).body["continue"]
    _sealed, parcel = runner.seal_outputs({"a.txt": b"a"})
    assert runner.call("POST", "/result", runner.result_body({"a.txt": b"a"}, parcel)).status == 409
    assert not run.outputs.exists()
    reason = list(history(run))[-1].reason
    assert w.dataset.title in reason or what == "the agreement", reason


def test_a_policy_that_the_evidence_meets_as_well_ends_nothing(w: make.World) -> None:
    run, runner = started(w)
    assert runner.ask_keys().status == 200
    assert runner.phase("running").body["continue"]
    attestation.set_policy(by=w.custodian, dataset=w.dataset, document=policy(max_age_seconds=300))
    work()
    assert runner.phase("running", 1, 2).body["continue"]
    assert runner.deliver({"a.txt": b"a"}).status == 200
    run.refresh_from_db()
    assert run.state == "succeeded"


def test_the_age_that_a_policy_allows_is_judged_when_the_evidence_came(
    w: make.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that has lasted longer than the new policy's age of evidence is not ended for that."""
    run, runner = started(w)
    assert runner.ask_keys().status == 200
    later = now() + timedelta(minutes=8)
    monkeypatch.setattr("apps.jobs.engine.conditions.now", lambda: later)
    attestation.set_policy(by=w.custodian, dataset=w.dataset, document=policy(max_age_seconds=60))
    assert engine.conditions.unmet(Run.objects.get(pk=run.pk)) == []


def test_a_policy_replaced_while_evidence_is_judged(w: make.World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between reading the policy and writing the release: judged anew, and refused."""
    from apps.attestation import appraisals

    run, runner = started(w)
    real, seen = appraisals.judge_release, []

    def judge(**arguments: Any) -> Any:
        decision = real(**arguments)
        if not seen:
            seen.append(decision)
            attestation.set_policy(by=w.custodian, dataset=w.dataset, document=policy(images=[IMAGE]))
        return decision

    monkeypatch.setattr(appraisals, "judge_release", judge)
    assert runner.ask_keys().status == 403
    assert seen[0].ok and not KeyRelease.objects.filter(run=run.pk, released=True).exists()
