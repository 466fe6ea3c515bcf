"""Random machines, faults, restarts and lost rows over each cloud; then everything that nobody wants is gone.

The real clients speak to the fakes over HTTP. After every step: at most one machine ever under a name, with the token of
its first launch; nothing of another installation, and nothing without our tag, was touched. At the end, once faults
are over: not a machine, disk, interface, secret or policy of ours is left that no row wants.

STRONGROOM_EXAMPLES: how many random histories for each cloud (25 unless set).
"""

from __future__ import annotations

import os
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
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
from tests.fakes.worlds import AciWorld, AzureWorld, GcpWorld, KubernetesWorld, World
from tests.unit.workers.backends.conftest import a_run
from workers.backends.cloud import GRACE

EXAMPLES = int(os.environ.get("STRONGROOM_EXAMPLES", "25"))
WRITES = ("POST", "PUT", "PATCH", "DELETE")
OPERATION_CODES = {
    "gcp": ["ZONE_RESOURCE_POOL_EXHAUSTED", "QUOTA_EXCEEDED", "INTERNAL_ERROR"],
    "azure": ["AllocationFailed", "OSProvisioningTimedOut", "QuotaExceeded"],
    "azure-aci": ["ServiceUnavailable", "InternalError"],
    "kubernetes": [],
}


class Machines(RuleBasedStateMachine):
    """`rows`: what the database says, by machine. `tokens`: of each machine's first launch that was asked for."""

    make: Any

    def __init__(self) -> None:
        super().__init__()
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

    @rule()
    def ask(self) -> None:
        if len(self.rows) < 4:
            run = self._run()
            self.rows[run.machine] = run

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def launch(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(sorted(self.rows.values(), key=lambda r: r.machine)))
        # As the engine does: whoever has been seen to run is not launched again.
        if run.machine in self.running:
            return
        token = self.tokens.setdefault(run.machine, f"token-of-{run.machine}")
        self._try(lambda: self.world.backend.launch(run, token))

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def observe(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(sorted(self.rows.values(), key=lambda r: r.machine)))
        sight = self._try(lambda: self.world.backend.observe(run))
        if sight is Sight.RUNNING:
            assert run.machine in self.world.machines()
            self.running.setdefault(run.machine, self.world.fake.now)

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), again=st.booleans())
    def destroy(self, data: st.DataObject, again: bool) -> None:
        run = data.draw(st.sampled_from(sorted(self.rows.values(), key=lambda r: r.machine)))
        self.running.pop(run.machine, None)
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
        run = self._run()
        self.rows[run.machine] = run
        self.tokens[run.machine] = f"token-of-{run.machine}"
        self.world.started(run, self.tokens[run.machine])
        assert self.world.backend.observe(run) is Sight.RUNNING
        self.running[run.machine] = self.world.fake.now

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def the_row_goes_and_the_machine_stays(self, data: st.DataObject) -> None:
        machine = data.draw(st.sampled_from(sorted(self.running)))
        self.rows.pop(machine)
        self.running.pop(machine)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), leave=st.booleans())
    def end_a_running_one(self, data: st.DataObject, leave: bool) -> None:
        """To the last part, whatever the cloud forgets to take along."""
        machine = data.draw(st.sampled_from(sorted(self.running)))
        run = self.rows.pop(machine)
        self.running.pop(machine)
        if leave:
            self.parts_are_left_behind(which=data.draw(st.sampled_from(["all", "one", "other"])))
        for _ in range(12):
            try:
                self.world.backend.destroy(run)
                break
            except BackendError:
                self.world.fake.pass_time(self.world.settle_seconds)
        else:
            raise AssertionError(f"{machine} is never gone: {self.world.left()}")
        assert not any(machine in name for _, name in self._left_of_ours())

    @rule()
    def restart(self) -> None:
        self.world.backend = self.world.new_backend()

    @rule()
    def sweep(self) -> None:
        self._try(lambda: self.world.backend.sweep(set(self.rows)))

    @rule()
    def restore_yesterdays_database(self) -> None:
        self.rows.clear()
        self.running.clear()

    @rule(seconds=st.sampled_from([1, 15, 45, 120, 660]))
    def pass_time(self, seconds: int) -> None:
        self.world.fake.pass_time(seconds)
        oldest = self.world.fake.now - self.world.backend.common.lifetime
        for machine, since in list(self.running.items()):
            if since <= oldest + GRACE:
                self.running.pop(machine)

    # What the cloud does.

    @precondition(lambda self: len(self.world.fake.faults) < 3)
    @rule(
        kind=st.sampled_from(["drop_before", "drop_after", "twice"]),
        method=st.sampled_from([*WRITES, "GET"]),
    )
    def connection_fault(self, kind: str, method: str) -> None:
        if kind == "twice" and method == "GET":
            return
        self.world.fake.fault(kind, methods=(method,))

    @precondition(lambda self: len(self.world.fake.faults) < 3)
    @rule(data=st.data(), method=st.sampled_from([*WRITES, "GET"]))
    def refusal(self, data: st.DataObject, method: str) -> None:
        fault = data.draw(st.sampled_from([*self.world.transient, self.world.quota]))
        answer = {k: v for k, v in fault.items() if k in ("status", "code", "message")}
        self.world.fake.fault("answer", methods=(method,), **answer)

    @precondition(lambda self: len(self.world.fake.faults) < 3)
    @rule(data=st.data(), method=st.sampled_from(["POST", "PUT", "DELETE"]))
    def operation_fault(self, data: st.DataObject, method: str) -> None:
        codes = OPERATION_CODES[self.world.name]
        if codes:
            self.world.fake.fault("operation", code=data.draw(st.sampled_from(codes)), methods=(method,))

    @precondition(lambda self: len(self.world.fake.faults) < 3)
    @rule()
    def credentials_run_out_for_a_moment(self) -> None:
        self.world.fake.fault("answer", status=401, code="Unauthorized")

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
            fake.faults.clear()
            if hasattr(fake, "collects"):
                fake.collects = {"secrets", "networkpolicies"}
            if hasattr(fake, "leave_parts"):
                fake.leave_parts = set()
            wanted = set(self.rows) & set(self.running)
            fake.pass_time(GRACE.total_seconds() + 1)
            for _ in range(8):
                self.world.backend.sweep(wanted)
                fake.pass_time(self.world.settle_seconds)
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

    @staticmethod
    def _try(ask: Any) -> Any:
        """What a cloud refuses or does not answer is no fault of ours: the next look decides."""
        try:
            return ask()
        except (Unsettled, BackendError):
            return None


@pytest.mark.slow
@pytest.mark.parametrize("make", [AciWorld, AzureWorld, GcpWorld, KubernetesWorld], ids=lambda m: m.name)
def test_machines_come_and_always_go(make: type[World]) -> None:
    machine = type(f"{make.__name__}Machines", (Machines,), {"make": make})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
