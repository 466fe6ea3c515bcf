"""Many runs at once on each cloud, with faults, evictions, silent machines, impostors and workers killed in mid-call.

The engine, the real clients and the fakes; the runner is the tests' own, with real evidence of the software kind. In the
end every run has ended with a word of the table, one that succeeded has its statement, a program that had started was
never started again, no key went out without evidence that passed, no output came in without it, and nothing is left in
the cloud.

For longer than the suite has time for, with other dice each time (the seed and what happened are printed):

    STRONGROOM_EXAMPLES=200 STRONGROOM_SEED=random nice -n 10 .venv/bin/python -m pytest tests/stateful -s

STRONGROOM_EXAMPLES: how many runs for each cloud (40 unless set), and histories of test_machines.py.
STRONGROOM_SEED: a number, `random`, or nothing for the same dice every time. A number that was printed repeats that day,
as far as a day repeats: ids of runs and hours of the real clock differ.
"""

from __future__ import annotations

import contextlib
import os
import random
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
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
from tests.fakes.server import BODIES
from tests.fakes.worlds import WORLDS, World
from tests.unit.jobs.engine.fake_runner import FakeRunner
from tests.unit.jobs.engine.world import World as Portal
from tests.unit.jobs.engine.world import make_world
from workers import sweep

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
RUNS = int(os.environ.get("STRONGROOM_EXAMPLES", "40"))
SEED = os.environ.get("STRONGROOM_SEED", "")
CALLS = ("_create", "_look", "_remove", "_ours")


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
        self.kills: Counter[str] = Counter()  # of workers, by the call and whether it had been made
        self.happened: Counter[str] = Counter()  # to machines

    def _ask(self, portal: Portal) -> Run:
        return engine.create_run(
            by=portal.user, kind="research", project=portal.project, program=portal.program,
            backend=self.world.name, inputs=[(portal.version, None)], submission=uuid.uuid4().hex,
        )  # fmt: skip

    def hour(self, *, rough: bool) -> None:
        """Each unsettled run is looked at, its machine may do something, and time passes."""
        for run in self.unsettled():
            if rough and self.dice.random() < 0.4:
                self._fault()
            self._look(run, rough)
            run.refresh_from_db()
            if run.state in ("launching", "running") and self.dice.random() < 0.7:
                self._machine_acts(run, rough)
            if self.dice.random() < 0.2:
                self.world.fake.pass_time(self.dice.choice([1, 5, 35]))
        self.world.fake.pass_time(self.dice.choice([5, 30, 90]))
        Run.objects.filter(state="queued").update(queued_at=now() - timedelta(seconds=1))
        if rough and self.dice.random() < 0.3:
            self.restart()
        with self._deadly(rough):
            sweep.sweep_runs()
        self._free_leases()

    def restart(self) -> None:
        self.happened["restarts of the worker"] += 1
        self.world.backend = self.world.new_backend()
        machines.register(self.world.name, self.world.backend)

    def unsettled(self) -> list[Run]:
        return list(Run.objects.filter(pk__in=[r.pk for r in self.runs], machine_gone=False))

    def _fault(self) -> None:
        """One more of the schedule: see tests/fakes/server.py for the kinds."""
        methods, fake = (self.dice.choice(self.world.methods),), self.world.fake
        match self.dice.choice(
            ["drop_before", "drop_after", "twice", "answer", "answer", "body", "body", "operation"]
        ):
            case "answer":
                refusal = self.dice.choice(
                    [*self.world.transient, self.world.quota, {"status": 401, "code": "Unauthorized"}]
                )
                named = {k: v for k, v in refusal.items() if k in ("status", "code", "message")}
                # Rare, because nothing else can happen meanwhile.
                pause = self.dice.choice(["40", "86400"]) if self.dice.random() < 0.02 else None
                if "status" in named:
                    headers = {"Retry-After": pause} if pause else {}
                    fake.fault("answer", methods=methods, headers=headers, **named)
            case "body":
                body = self.dice.choice(sorted(BODIES))
                status = self.dice.choice([0, 0, 0, 200, 403, 404, 502])
                fake.fault("body", methods=methods, code=body, status=status)
            case "operation":
                if self.world.failures:
                    fake.fault("operation", methods=methods, code=self.dice.choice(self.world.failures))
            case "twice" if methods == ("GET",):
                pass
            case kind:
                fake.fault(kind, methods=methods)

    def _look(self, run: Run, rough: bool) -> None:
        with self._deadly(rough):
            engine.advance(run.pk)
        self._free_leases()

    @contextlib.contextmanager
    def _deadly(self, rough: bool) -> Iterator[None]:
        """Work of a worker that may be killed before or after its first or second call to the cloud."""
        backend: Any = self.world.backend
        late, calls = self.dice.random() < 0.5, self.dice.choice([1, 1, 2])

        def call(name: str, *arguments: Any) -> Any:
            nonlocal calls
            calls -= 1
            if calls == 0 and not late:
                raise Killed(f"before {name}")
            found = getattr(type(backend), name)(backend, *arguments)
            found = list(found) if name == "_ours" else found
            if calls == 0:
                raise Killed(f"after {name}")
            return found

        if rough and self.dice.random() < 0.2:
            for name in CALLS:
                setattr(backend, name, partial(call, name))
        try:
            yield
        except Killed as killed:
            self.kills[str(killed)] += 1
        finally:
            for name in CALLS:
                backend.__dict__.pop(name, None)

    @staticmethod
    def _free_leases() -> None:
        """What a worker held that was killed runs out."""
        Run.objects.filter(lease_until__isnull=False).update(lease_until=now() - timedelta(seconds=1))

    def _machine_acts(self, run: Run, rough: bool) -> None:
        if not self.world.is_on(run.machine):
            return
        if rough and self.dice.random() < 0.1:
            self.happened["silent"] += 1
            Run.objects.filter(pk=run.pk).update(heartbeat_at=now() - timedelta(hours=1))
            return
        if rough and self.dice.random() < 0.05:
            self.happened["taken back by the cloud"] += 1
            self.world.take_back(run.machine)
            return
        if run.machine not in self.runners:
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
        self.happened["false evidence for keys"] += 1
        # 409: the attempt was over already. Never the keys.
        assert answer.status != 200, answer
        if answer.status == 403:
            self.lied.add(run.pk)

    def _lie_of_the_result(self, run: Run, runner: FakeRunner) -> None:
        changes = self.dice.choice([{"instance": "another"}, {"key": SigningKey.generate()}])
        answer = runner.deliver({"table.csv": b"a,b\n1,2\n"}, evidence_changes=changes)
        self.happened["false evidence for a result"] += 1
        assert answer.body.get("state") != "succeeded", answer
        if answer.status == 403 or answer.body.get("state") == "failed":
            self.lied.add(run.pk)

    def report(self, runs: list[Run], seed: int) -> str:
        ends = Counter(f"{run.state} {run.code}" for run in runs)
        parts = {
            "runs": {"in all": len(runs), "attempts": sum(r.attempt for r in runs), **ends},
            "faults": self.world.fake.taken,
            "kills": self.kills,
            "machines and workers": self.happened,
        }
        lines = [
            f"  {name}: {sum(found.values()) if name != 'runs' else len(runs)} {dict(sorted(found.items()))}"
            for name, found in parts.items()
        ]
        return "\n".join([f"{self.world.name}, seed {seed}", *lines])


def seed_of(name: str) -> int:
    if SEED == "random":
        return random.SystemRandom().randrange(2**32)
    return int(SEED) if SEED else sum(name.encode())


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_every_run_ends_and_every_machine_goes(name: str, db: None, monkeypatch: Any, settings: Any) -> None:
    monkeypatch.setattr(outbox, "kick", lambda: None)
    monkeypatch.setattr("apps.jobs.gate.unmet_for_run", lambda run, moment: [])
    settings.MAX_LIVE_MACHINES = RUNS
    with WORLDS[name]() as world:
        monkeypatch.setattr(machines, "_backends", {name: world.backend})
        seed = seed_of(name)
        print(f"\n{name}, seed {seed}")
        day = Day(world, make_world(), seed)
        for _ in range(25):
            day.hour(rough=True)
        world.fake.faults.clear()
        day.restart()  # without the pause that was asked for
        for _ in range(60):
            if not day.unsettled():
                break
            day.hour(rough=False)
        runs = list(Run.objects.filter(pk__in=[r.pk for r in day.runs]))
        print(day.report(runs, seed))
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
        assert (
            day.kills.total() > 0
            and world.fake.taken["body"] > 0
            and day.lied
            and day.delivered
            and len({r.state for r in runs}) > 1
        )
