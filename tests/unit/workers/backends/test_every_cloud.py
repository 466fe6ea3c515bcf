"""What holds for every cloud: launched once, found again, gone with all it held, and nothing of anybody else's touched."""

from __future__ import annotations

import pytest

from apps.jobs.engine.machines import BackendError, Sight, Unsettled
from tests.unit.workers.backends.conftest import a_run


def destroyed(world, run, looks: int = 6) -> None:
    for _ in range(looks):
        try:
            return world.backend.destroy(run)
        except Unsettled as wait:
            assert wait.code in ("machine_ending", "cloud_unreachable", "cloud_busy", "cloud_throttled")
            world.fake.pass_time(world.settle_seconds)
    raise AssertionError(f"never gone: {world.left()}")


def test_the_life_of_a_machine(world, run):
    backend = world.backend
    assert backend.observe(run) is Sight.ABSENT
    backend.launch(run, "token-1")
    assert backend.observe(run) is Sight.STARTING
    world.fake.pass_time(world.settle_seconds)
    assert backend.observe(run) is Sight.RUNNING
    assert world.token_of(run.machine) == "token-1"
    with pytest.raises(Unsettled) as wait:
        backend.destroy(run)
    assert wait.value.code == "machine_ending"
    assert backend.observe(run) in (Sight.GONE, Sight.ABSENT)
    destroyed(world, run)
    assert world.left() == set()
    backend.destroy(run)  # absent is fine


def test_launched_again_it_stays_as_it_is(world, run):
    world.started(run)
    before = world.left()
    world.backend.launch(run, "token-2")
    world.new_backend().launch(run, "token-3")
    assert world.left() == before and world.token_of(run.machine) == "token-1"
    assert world.backend.observe(run) is Sight.RUNNING


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
def test_a_lost_answer_is_resolved_by_the_next_look(world, run, kind):
    world.fake.fault(kind, methods=("POST", "PUT"))
    with pytest.raises(Unsettled) as lost:
        world.backend.launch(run, "token-1")
    assert lost.value.code == "cloud_unreachable"
    if world.backend.observe(run) is Sight.ABSENT:
        world.backend.launch(run, "token-1")
    world.fake.pass_time(world.settle_seconds)
    assert world.backend.observe(run) is Sight.RUNNING and world.machines() == [run.machine]
    world.fake.fault(kind, methods=("DELETE",))
    destroyed(world, run)
    assert world.left() == set()


def test_delivered_twice(world, run):
    world.fake.fault("twice", methods=("POST", "PUT"))
    try:
        world.backend.launch(run, "token-1")
    except Unsettled:
        world.backend.launch(run, "token-1")
    world.fake.pass_time(world.settle_seconds)
    assert world.backend.observe(run) is Sight.RUNNING
    world.fake.fault("twice", methods=("DELETE",))
    destroyed(world, run)
    assert world.left() == set()


def test_what_passes_is_unsettled(world, run):
    for fault in world.transient:
        for methods in (("POST", "PUT"), ("GET",)):
            world.fake.faults.clear()
            world.fake.fault("answer", methods=methods, **fault)
            world.backend = world.new_backend()  # without the pause that the fault before asked for
            with pytest.raises(Unsettled) as wait:
                (world.backend.launch(run, "t") if "PUT" in methods else world.backend.observe(run))
            assert wait.value.code in ("cloud_unreachable", "cloud_busy", "cloud_throttled"), fault
    world.backend = world.new_backend()
    world.started(run)
    for fault in world.transient:
        world.fake.fault("answer", methods=("DELETE",), **fault)
        with pytest.raises(Unsettled):
            world.backend.destroy(run)
    world.fake.faults.clear()
    destroyed(world, run)
    assert world.left() == set()


def refusal(world, run) -> str:
    """The code with which the machine is refused: at once, or at the next look."""
    try:
        world.backend.launch(run, "t")
        world.fake.pass_time(world.settle_seconds)
        sight = world.backend.observe(run)
    except BackendError as error:
        assert not isinstance(error, Unsettled)
        return error.code
    raise AssertionError(f"not refused but {sight}")


@pytest.mark.parametrize("which", ["quota", "capacity"])
def test_refusals_for_a_day_or_two(world, run, which):
    world.fake.fault(**{"methods": ("POST", "PUT"), **getattr(world, which)})
    assert refusal(world, run) == {"quota": "quota_exceeded", "capacity": "capacity_missing"}[which]
    destroyed(world, run)
    assert world.left() == set()


@pytest.mark.parametrize("status", [401, 403])
def test_credentials_that_are_refused(world, run, status):
    world.fake.faults += []
    for _ in range(6):
        world.fake.fault("answer", status=status, code="forbidden", message="no right")
    with pytest.raises(BackendError) as refused:
        world.backend.launch(run, "t")
    assert refused.value.code == "cloud_denied" and not isinstance(refused.value, Unsettled)
    world.fake.faults.clear()
    for _ in range(6):
        world.fake.fault("answer", status=status, code="forbidden", message="no right")
    with pytest.raises(BackendError) as refused:
        world.backend.destroy(run)
    assert refused.value.code == "destroy_failed"


def test_a_machine_that_is_set_up_wrongly(world, run):
    world.fake.fault(
        "answer", status=400, code="badRequest", message="no such thing", methods=("POST", "PUT")
    )
    assert refusal(world, run) == "cloud_rejected"


def test_sweep_removes_what_no_row_wants(world, run):
    wanted = a_run()
    world.started(run)
    world.started(wanted)
    assert world.backend.sweep({wanted.machine}) == []  # young
    world.fake.pass_time(700)
    for _ in range(6):
        world.backend.sweep({wanted.machine})
        world.fake.pass_time(world.settle_seconds)
    assert world.machines() == [wanted.machine]
    assert {name for _, name in world.left() if run.machine in name} == set()
    assert world.backend.sweep({wanted.machine}) == []


def test_sweep_after_the_database_came_back_from_yesterday(world):
    """Rows are missing, others name machines that are long gone: names and days decide."""
    lost = [a_run(), a_run(3)]
    for run in lost:
        world.started(run)
    world.fake.pass_time(24 * 3600)
    yesterday = a_run()
    for _ in range(6):
        world.backend.sweep({yesterday.machine})
        world.fake.pass_time(world.settle_seconds)
    assert world.left() == set()
    assert world.backend.observe(yesterday) is Sight.ABSENT


def test_sweep_ends_what_is_past_its_day_even_if_a_row_names_it(world, run):
    world.started(run)
    world.fake.pass_time(4 * 3600)
    for _ in range(6):
        world.backend.sweep({run.machine})
        world.fake.pass_time(world.settle_seconds)
    assert world.left() == set()


def test_another_installations_machines_are_nobodys_business(world, run):
    other = world.new_backend("fedcba987654")
    other.launch(run, "token-1")
    world.fake.pass_time(world.settle_seconds)
    before = world.left()
    world.fake.pass_time(48 * 60)
    assert world.backend.sweep(set()) == []
    world.backend.destroy(run)
    assert world.left() == before


def test_a_part_that_was_left_behind_goes_too(world, run):
    if world.name == "azure-aci":
        pytest.skip("a container group has no parts of its own")
    world.leave_a_part(run)
    assert world.left() and not world.machines()
    destroyed(world, run)
    assert world.left() == set()


def test_sweep_removes_parts_left_behind(world, run):
    if world.name == "azure-aci":
        pytest.skip("a container group has no parts of its own")
    world.leave_a_part(run)
    world.fake.pass_time(700)
    for _ in range(4):
        world.backend.sweep(set())
        world.fake.pass_time(world.settle_seconds)
    assert world.left() == set()


def test_a_delete_that_fails_for_good_says_so(world, run):
    world.started(run)
    world.fake.fault("answer", status=403, code="forbidden", message="locked", methods=("DELETE",))
    with pytest.raises(BackendError) as refused:
        world.backend.destroy(run)
    assert refused.value.code == "destroy_failed" and not isinstance(refused.value, Unsettled)
    destroyed(world, run)


def test_a_size_that_is_not_offered(world):
    run = a_run(size="enormous")
    with pytest.raises(BackendError) as refused:
        world.backend.launch(run, "t")
    assert refused.value.code == "size_unknown" and world.left() == set()


def test_no_name_but_a_machines(world):
    run = a_run()
    run.machine = "../x"
    for call in (lambda: world.backend.launch(run, "t"), lambda: world.backend.observe(run)):
        with pytest.raises(BackendError):
            call()
    assert world.fake.requests == []


def test_the_cloud_is_down(world, run):
    world.fake.close()
    for call in (
        lambda: world.backend.launch(run, "t"),
        lambda: world.backend.observe(run),
        lambda: world.backend.destroy(run),
        lambda: world.backend.sweep(set()),
    ):
        with pytest.raises(Unsettled):
            call()
