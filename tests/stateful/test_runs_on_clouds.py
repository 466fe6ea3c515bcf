"""Many runs at once on each cloud, with faults, evictions, silent machines, impostors and workers killed in mid-call.

The engine, the real clients and the fakes; the runner is the tests' own, with real evidence of the software kind. In the
end every run has ended with a word of the table, one that succeeded has its statement, a program that had started was
never started again, no key went out without evidence that passed, no output came in without it, and nothing is left in
the cloud.

STRONGROOM_EXAMPLES: how many runs for each cloud (25 unless set).
"""

from __future__ import annotations

import os
import random
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from apps.attestation.models import Evidence, KeyRelease
from apps.core import outbox
from apps.core.clock import now
from apps.core.lifecycle import history
from apps.jobs import codes, engine
from apps.jobs.engine import machines
from apps.jobs.models import Run, RunCost
from apps.jobs.states import RUN
from strongroom import contexts
from strongroom.signing import SigningKey
from tests.fakes.worlds import WORLDS, World
from tests.unit.jobs.engine.fake_runner import FakeRunner
from tests.unit.jobs.engine.world import World as Portal
from tests.unit.jobs.engine.world import make_world
from workers import sweep

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
RUNS = int(os.environ.get("STRONGROOM_EXAMPLES", "25"))


class Killed(BaseException):
    """SIGKILL: nothing after it runs, no handler catches it."""


class Day:
    """One cloud, its runs, and what happens to them."""

    def __init__(self, world: World, portal: Portal, seed: int) -> None:
        self.world, self.dice = world, random.Random(seed)
        self.runs = [self._ask(portal) for _ in range(RUNS)]
        self.runners: dict[str, FakeRunner] = {}
        self.started: dict[uuid.UUID, int] = {}  # run -> the attempt in which its program started
        self.delivered: set[uuid.UUID] = set()
        self.lied: set[uuid.UUID] = set()  # runs whose machine showed evidence that is not its own
        self.kills = 0

    def _ask(self, portal: Portal) -> Run:
        return engine.create_run(
            by=portal.user, kind="research", project=portal.project, program=portal.program,
            backend=self.world.name, inputs=[(portal.version, None)], submission=uuid.uuid4().hex,
        )  # fmt: skip

    def hour(self, *, rough: bool) -> None:
        """Each unsettled run is looked at, its machine may do something, and time passes."""
        for run in self.unsettled():
            if rough and self.dice.random() < 0.3:
                self._fault()
            self._look(run, rough)
            run.refresh_from_db()
            if run.state in ("launching", "running") and self.dice.random() < 0.7:
                self._machine_acts(run, rough)
        self.world.fake.pass_time(self.dice.choice([5, 30, 90]))
        Run.objects.filter(state="queued").update(queued_at=now() - timedelta(seconds=1))
        if rough and self.dice.random() < 0.3:
            self.world.backend = self.world.new_backend()
            machines.register(self.world.name, self.world.backend)
        sweep.sweep_runs()

    def unsettled(self) -> list[Run]:
        return list(Run.objects.filter(pk__in=[r.pk for r in self.runs], machine_gone=False))

    def _fault(self) -> None:
        fault = self.dice.choice(
            [*self.world.transient, self.world.quota, {"status": 401, "code": "Unauthorized"}]
        )
        answer = {k: v for k, v in fault.items() if k in ("status", "code", "message")}
        kind = self.dice.choice(["drop_before", "drop_after", "twice", "answer"])
        methods = (self.dice.choice(["GET", "POST", "PUT", "PATCH", "DELETE"]),)
        if kind == "answer" and "status" in answer:
            self.world.fake.fault("answer", methods=methods, **answer)
        elif kind != "answer" and not (kind == "twice" and methods == ("GET",)):
            self.world.fake.fault(kind, methods=methods)

    def _look(self, run: Run, rough: bool) -> None:
        """A look by a worker that may be killed before or after one of its calls to the cloud."""
        backend: Any = self.world.backend
        name = self.dice.choice(["_create", "_look", "_remove"])
        ask = getattr(type(backend), name)
        if rough and self.dice.random() < 0.15:
            late = self.dice.random() < 0.5

            def dies(*arguments: Any) -> None:
                if late:
                    ask(backend, *arguments)
                raise Killed

            setattr(backend, name, dies)
        try:
            engine.advance(run.pk)
        except Killed:
            self.kills += 1
            Run.objects.filter(pk=run.pk).update(lease_until=now() - timedelta(seconds=1))
        finally:
            backend.__dict__.pop(name, None)

    def _machine_acts(self, run: Run, rough: bool) -> None:
        if run.machine not in self.world.machines():
            return
        if rough and self.dice.random() < 0.1:
            # Silent from now on, or taken away behind everybody's back.
            Run.objects.filter(pk=run.pk).update(heartbeat_at=now() - timedelta(hours=1))
            return
        if run.machine not in self.runners:
            if self.world.name == "kubernetes" and ("secrets", run.machine) not in self.world.left():
                return
            runner = FakeRunner(Client(), self.world.token_of(run.machine))
            if runner.claim().status == 200:
                self.runners[run.machine] = runner
            return
        runner = self.runners[run.machine]
        if run.pk not in self.started:
            if self.dice.random() < 0.1:
                self._lie(run, runner)
            elif runner.ask_keys().status == 200 and runner.phase("running").body.get("continue"):
                self.started[run.pk] = run.attempt
        elif run.pk not in self.delivered:
            if self.dice.random() < 0.1:
                self._lie_of_the_result(run, runner)
            elif runner.deliver({"table.csv": b"a,b\n1,2\n"}).body.get("state") == "succeeded":
                self.delivered.add(run.pk)

    def _lie(self, run: Run, runner: FakeRunner) -> None:
        """Ask for keys with evidence of another context, another image, or an attester that nobody knows."""
        context = runner.c1()
        nonce = contexts.n1(context)
        evidence = self.dice.choice(
            [
                runner.evidence("A" * 43),
                runner.evidence(nonce, image="sha256:" + "00" * 32),
                runner.evidence(nonce, key=SigningKey.generate()),
            ]
        )
        answer = runner.ask_keys(context, evidence)
        # 409: the attempt was over already. Never the keys.
        assert answer.status != 200, answer
        if answer.status == 403:
            self.lied.add(run.pk)

    def _lie_of_the_result(self, run: Run, runner: FakeRunner) -> None:
        changes = self.dice.choice([{"instance": "another"}, {"key": SigningKey.generate()}])
        answer = runner.deliver({"table.csv": b"a,b\n1,2\n"}, evidence_changes=changes)
        assert answer.body.get("state") != "succeeded", answer
        if answer.status == 403 or answer.body.get("state") == "failed":
            self.lied.add(run.pk)


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_every_run_ends_and_every_machine_goes(name: str, db: None, monkeypatch: Any, settings: Any) -> None:
    monkeypatch.setattr(outbox, "kick", lambda: None)
    monkeypatch.setattr("apps.jobs.gate.unmet_for_run", lambda run, moment: [])
    settings.MAX_LIVE_MACHINES = RUNS
    with WORLDS[name]() as world:
        monkeypatch.setattr(machines, "_backends", {name: world.backend})
        day = Day(world, make_world(), seed=sum(name.encode()))
        for _ in range(25):
            day.hour(rough=True)
        world.fake.faults.clear()
        for _ in range(60):
            if not day.unsettled():
                break
            day.hour(rough=False)
        runs = list(Run.objects.filter(pk__in=[r.pk for r in day.runs]))
        assert [(r.state, r.code) for r in runs if r.state not in RUN.final or not r.machine_gone] == []
        for run in runs:
            assert run.code in codes.CODES and (run.state == "succeeded") == (run.code == "succeeded")
            assert (run.pk in day.delivered) == (run.state == "succeeded") == bool(run.statement_sha256)
            assert history(run).filter(to_state__in=RUN.final).count() == 1
            assert RunCost.objects.filter(run=run).count() == 1
            shown = {(e.purpose, e.attempt): e for e in Evidence.objects.filter(run=run.pk, accepted=True)}
            assert all(e.appraisal["appraisal"]["ok"] for e in shown.values())
            released = KeyRelease.objects.filter(run=run.pk, released=True).select_related("evidence")
            assert all(r.evidence.accepted and r.evidence.purpose == "key-release" for r in released)
            assert (("result", run.attempt) in shown) == (run.state == "succeeded")
            assert not run.outputs.exists() or ("result", run.attempt) in shown
            assert not (run.pk in day.lied and run.state == "succeeded" and run.attempt == 1)
            if run.pk in day.started:
                assert run.attempt == day.started[run.pk], "a program that had started was started again"
        world.fake.pass_time(700)
        for _ in range(6):
            world.backend.sweep(set())
            world.fake.pass_time(world.settle_seconds)
        assert world.left() == set() and world.fake.mistakes == []
        assert day.kills > 0 and day.lied and day.delivered and len({r.state for r in runs}) > 1
