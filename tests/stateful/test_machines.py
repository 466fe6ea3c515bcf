"""Random machines, faults, restarts and lost rows over each cloud; then everything that nobody wants is gone.

The real clients speak to the fakes over HTTP. After every step: at most one machine ever under a name, with the token of
its first launch; nothing of another installation, and nothing without our tag, was touched. At the end, once faults
are over: not a machine, disk, interface, secret or policy of ours is left that no row wants.

How to run it for longer, with other dice: see test_runs_on_clouds.py. What was met is printed.
"""

from __future__ import annotations

import os
import random
import uuid
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from apps.jobs.engine.machines import BackendError, Sight, Unsettled
from apps.jobs.models import Run
from tests.fakes.arm import DISK, NIC, Resource
from tests.fakes.server import BODIES
from tests.fakes.worlds import AciWorld, AzureWorld, GcpWorld, KubernetesWorld, World
from tests.unit.workers.backends.conftest import a_run
from workers.backends.cloud import GRACE, LINGERS_SECONDS

EXAMPLES = int(os.environ.get("STRONGROOM_EXAMPLES", "40"))
SEED = os.environ.get("STRONGROOM_SEED", "")


LATER = st.integers(0, 3)
# What meets the requests of one call: kind, and what it needs. See tests/fakes/server.py.
FAULTS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["drop_before", "drop_after", "twice", "refusal", "credentials"]), LATER),
        st.tuples(st.just("operation"), st.integers(0, 9)),
        st.tuples(st.just("pause"), st.sampled_from(["", "20", "600", "86400"])),
        st.tuples(st.just("body"), st.sampled_from(sorted(BODIES)), st.sampled_from([0, 0, 200, 403, 404]), LATER),
    ),
    max_size=2,
)  # fmt: skip


class Machines(RuleBasedStateMachine):
    """`rows`: what the database says, by machine. `tokens`: of each machine's first launch that was asked for."""

    make: Any
    faults: Counter[str]  # that a request has met, of all histories
    steps: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.steps["histories"] += 1
        self.world: World = self.make()
        self.count = 0
        self.rows: dict[str, Run] = {}
        self.tokens: dict[str, str] = {}
        self.running: dict[str, Any] = {}  # seen running and not ended since, with the time
        self.others = self._others()

    def _others(self) -> set[tuple[str, str]]:
        """Another installation's machine, a thing without a tag, and both stay whatever happens."""
        other = self.world.new_backend("fedcba987654")
        other.launch(self._run(), "theirs")
        if self.world.name == "azure":
            plain = Resource(
                DISK, "sr-0123456789ab-1-data", {"location": "x"}, self.world.fake.now, "Succeeded"
            )
            self.world.fake.resources[DISK, plain.name] = plain
        return self.world.left()

    def _run(self) -> Run:
        """The same ids in the same order every time: a history that is found must come again."""
        self.count += 1
        return a_run(pk=uuid.UUID(f"{self.count:012x}{0:020x}"))

    # What workers and people do.

    @rule(data=st.data(), faults=FAULTS)
    def launch(self, data: st.DataObject, faults: list[tuple[Any, ...]]) -> None:
        """As the engine does: whoever has been seen to run is not launched again."""
        if len(self.rows) < 4:
            new = self._run()
            self.rows[new.machine] = new
        due = sorted(set(self.rows) - set(self.running))
        if not due:
            return
        run = self.rows[data.draw(st.sampled_from(due))]
        token = self.tokens.setdefault(run.machine, f"token-of-{run.machine}")
        self.steps["launches"] += 1
        self._try(lambda: self.world.backend.launch(run, token), faults)

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), faults=FAULTS)
    def observe(self, data: st.DataObject, faults: list[tuple[Any, ...]]) -> None:
        run = data.draw(st.sampled_from(sorted(self.rows.values(), key=lambda r: r.machine)))
        self.steps["looks"] += 1
        sight = self._try(lambda: self.world.backend.observe(run), faults)
        if run.machine in self.running:
            assert sight in (Sight.RUNNING, None), f"{run.machine} is on, and is seen as {sight}"
        if sight is Sight.RUNNING:
            assert run.machine in self.world.machines()
            self.running.setdefault(run.machine, self.world.fake.now)

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), again=st.booleans(), faults=FAULTS)
    def destroy(self, data: st.DataObject, again: bool, faults: list[tuple[Any, ...]]) -> None:
        run = data.draw(st.sampled_from(sorted(self.rows.values(), key=lambda r: r.machine)))
        self.running.pop(run.machine, None)
        self.steps["removals"] += 1
        self._schedule(faults)
        try:
            self.world.backend.destroy(run)
        except BackendError:
            if again:
                return  # the row stays, and asks again
            # A fault of the portal's: the row forgets it. The sweep must find it.
        else:
            assert not any(run.machine in name for _, name in self._left_of_ours())
        self.rows.pop(run.machine)

    @precondition(lambda self: len(self.rows) < 4)
    @rule()
    def bring_up(self) -> None:
        """On a quiet day a machine comes up as it should: random faults alone would hardly ever let one."""
        self.world.fake.faults.clear()
        self.restart()  # without the pause that was asked for
        run = self._run()
        self.rows[run.machine] = run
        self.tokens[run.machine] = f"token-of-{run.machine}"
        self.steps["brought up"] += 1
        self.world.started(run, self.tokens[run.machine])
        assert self.world.backend.observe(run) is Sight.RUNNING
        self.running[run.machine] = self.world.fake.now

    @precondition(lambda self: self.running)
    @rule(data=st.data(), leave=st.booleans())
    def end_a_running_one(self, data: st.DataObject, leave: bool) -> None:
        """To the last part, whatever the cloud forgets to take along."""
        self.steps["ended to the last part"] += 1
        machine = data.draw(st.sampled_from(sorted(self.running)))
        run = self.rows.pop(machine)
        self.running.pop(machine)
        if leave:
            self.parts_are_left_behind(which=data.draw(st.sampled_from(["all", "one", "other"])))
        self.world.fake.stuck = False
        for _ in range(16):
            try:
                self.world.backend.destroy(run)
                break
            except BackendError as wait:
                self.pass_time(901 if wait.code == "cloud_throttled" else 60)
        else:
            raise AssertionError(f"{machine} is never gone: {self.world.left()}")
        assert not any(machine in name for _, name in self._left_of_ours())

    def restart(self) -> None:
        self.steps["restarts"] += 1
        self.world.backend = self.world.new_backend()

    @rule(faults=FAULTS)
    def sweep(self, faults: list[tuple[Any, ...]]) -> None:
        self.steps["sweeps"] += 1
        self._try(lambda: self.world.backend.sweep(set(self.rows)), faults)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def rows_are_lost(self, data: st.DataObject) -> None:
        """One, or all of them: yesterday's database was restored. The machines stay."""
        for machine in data.draw(st.sampled_from([sorted(self.rows), sorted(self.rows)[:1]])):
            self.steps["rows lost"] += 1
            self.rows.pop(machine)
            self.running.pop(machine, None)

    @rule(seconds=st.sampled_from([1, 15, 45, 120, 660]), restart=st.booleans())
    def pass_time(self, seconds: int, restart: bool = False) -> None:
        if restart:
            self.restart()
        self.world.fake.pass_time(seconds)
        oldest = self.world.fake.now - self.world.backend.common.lifetime
        for machine, since in list(self.running.items()):
            if since <= oldest + GRACE:
                self.running.pop(machine)

    # What the cloud does.

    def _schedule(self, faults: list[tuple[Any, ...]]) -> None:
        """Few at a time: what no request of an earlier call has met is taken off."""
        del self.world.fake.faults[:-2]
        for kind, *rest in faults:
            self._add(kind, *rest)

    def _add(self, kind: str, *rest: Any) -> None:
        fake, world = self.world.fake, self.world
        match kind, *rest:
            case "twice", later:
                fake.fault("twice", methods=tuple(m for m in world.methods if m != "GET"), later=later % 2)
            case "refusal", later:
                refusals = [*world.transient, world.quota]
                chosen = refusals[len(fake.requests) % len(refusals)]
                answer = {k: v for k, v in chosen.items() if k in ("status", "code", "message")}
                if "status" in answer:
                    fake.fault("answer", later=later, **answer)
            case "credentials", later:
                fake.fault("answer", status=401, code="Unauthorized", later=later)
            case "operation", number if world.failures:
                fake.fault("operation", code=world.failures[number % len(world.failures)])
            case "pause", wait:
                fake.fault("answer", status=429, code="TooManyRequests", headers={"Retry-After": wait})
            case "body", body, status, later:
                fake.fault("body", code=body, status=status, later=later)
            case "drop_before" | "drop_after", later:
                fake.fault(kind, later=later)

    @rule(stuck=st.booleans())
    def removals_hang(self, stuck: bool) -> None:
        self.world.fake.stuck = stuck

    @rule(which=st.sampled_from(["all", "one", "other"]))
    def parts_are_left_behind(self, which: str) -> None:
        fake = self.world.fake
        if self.world.name == "gcp":
            fake.leave_disk = True
            fake.fault("operation", code="INTERNAL_ERROR", methods=("POST",))
        elif self.world.name == "azure":
            fake.leave_parts = {"all": {NIC, DISK}, "one": {NIC}, "other": {DISK}}[which]
        elif self.world.name == "kubernetes":
            fake.collects = {
                "all": set(), "one": {"secrets"}, "other": {"networkpolicies"},
            }[which]  # fmt: skip

    # What always holds.

    @invariant()
    def one_machine_a_name_with_its_first_token(self) -> None:
        names = self.world.machines()
        assert len(names) == len(set(names))
        for machine in names:
            if machine in self.tokens and self._has_token(machine):
                assert self.world.token_of(machine) == self.tokens[machine]

    @invariant()
    def what_runs_and_is_wanted_stays(self) -> None:
        assert set(self.running) <= set(self.world.machines())

    @invariant()
    def nothing_of_anybody_elses_was_touched(self) -> None:
        # The other installation's machine comes to its own end by the cloud's clock, never by us.
        theirs = {r.path for r in self.world.fake.writes() if "DELETE" in r.method}
        for _, name in self.others:
            assert not any(path.endswith("/" + name) for path in theirs)

    @invariant()
    def every_request_was_one_that_the_cloud_takes(self) -> None:
        assert self.world.fake.mistakes == []

    def teardown(self) -> None:
        fake = self.world.fake
        try:
            self.faults.update(fake.taken)
            fake.faults.clear()
            fake.stuck = False
            self.restart()
            if hasattr(fake, "collects"):
                fake.collects = {"secrets", "networkpolicies"}
            if hasattr(fake, "leave_parts"):
                fake.leave_parts = set()
            wanted = set(self.rows) & set(self.running)
            fake.pass_time(GRACE.total_seconds() + 1)
            # Azure's removal that hung goes on only when it is asked for again, which is after an hour.
            for seconds in (60, 60, LINGERS_SECONDS, 60, 60, 60, 60, 60):
                self.world.backend.sweep(wanted)
                fake.pass_time(seconds)
            left = {name for _, name in self._left_of_ours()}
            assert all(any(name.startswith(machine) for machine in wanted) for name in left), left
            for _ in range(8):
                self.world.backend.sweep(set())
                fake.pass_time(self.world.settle_seconds)
            assert self._left_of_ours() == set()
            self.nothing_of_anybody_elses_was_touched()
            assert fake.mistakes == []
        finally:
            fake.close()

    # Help.

    def _left_of_ours(self) -> set[tuple[str, str]]:
        theirs = {name.removesuffix("-nic") for _, name in self.others}
        return {
            (kind, name)
            for kind, name in self.world.left() - self.others
            if not any(name.startswith(t) for t in theirs)
        }

    def _has_token(self, machine: str) -> bool:
        return self.world.name != "kubernetes" or ("secrets", machine) in self.world.left()

    def _try(self, ask: Any, faults: list[tuple[Any, ...]]) -> Any:
        """What a cloud refuses or does not answer is no fault of ours: the next look decides."""
        self._schedule(faults)
        try:
            return ask()
        except (Unsettled, BackendError):
            return None


@pytest.mark.slow
@pytest.mark.parametrize("make", [AciWorld, AzureWorld, GcpWorld, KubernetesWorld], ids=lambda m: m.name)
def test_machines_come_and_always_go(make: type[World]) -> None:
    of_all: dict[str, Any] = {"make": make, "faults": Counter(), "steps": Counter()}
    machine = type(f"{make.__name__}Machines", (Machines,), of_all)
    if SEED:
        number = random.SystemRandom().randrange(2**32) if SEED == "random" else int(SEED)
        seed(number)(machine)
        print(f"\n{make.name}, seed {number}")
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    for name in ("steps", "faults"):
        print(f"{make.name}, {name}: {dict(sorted(of_all[name].items()))}")
