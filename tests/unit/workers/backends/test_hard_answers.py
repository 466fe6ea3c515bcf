"""What a cloud may answer that is neither yes nor no: half a page, a proxy's page, too many requests, somebody else's.

Nothing of it may end a task, pass for "it is gone" or "it was never there", or reach what somebody else made. Each has a
code of codes.py, and the next look finds out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from apps.jobs import codes
from apps.jobs.engine.machines import BackendError, Sight, Unsettled
from tests.fakes.arm import CONTAINERS, NIC, VM, Resource
from tests.fakes.compute import Disk
from tests.fakes.server import BODIES, WRITES
from tests.fakes.worlds import AzureWorld, GcpWorld, KubernetesWorld
from tests.unit.workers.backends.conftest import a_run
from workers.backends import cloud

AZURES = ("azure", "azure-aci")
# Google's client asks again by itself after a 401, twice, with a new token.
ASKS = 3
# Where the connection ends before the answer does, the clients say so themselves.
CODE_OF = {"short": "cloud_unreachable"}


def left_of(world, run) -> set[tuple[str, str]]:
    return {(kind, name) for kind, name in world.left() if name.startswith(run.machine)}


def brought_up(world, run, token: str = "token-1") -> None:
    """As the engine goes on: it looks, and asks again for what is not there."""
    for _ in range(6):
        with contextlib.suppress(Unsettled):
            sight = world.backend.observe(run)
            if sight is Sight.RUNNING:
                return
            if sight is Sight.ABSENT:
                world.backend.launch(run, token)
        world.fake.pass_time(world.settle_seconds)
    raise AssertionError(f"never up: {world.left()}")


def taken_down(world, run) -> None:
    for _ in range(8):
        with contextlib.suppress(Unsettled):
            world.backend.destroy(run)
            assert left_of(world, run) == set()
            return
        world.fake.pass_time(world.settle_seconds)
    raise AssertionError(f"never gone: {world.left()}")


def unsettled(ask: Callable[[], object]) -> str:
    with pytest.raises(Unsettled) as wait:
        ask()
    assert codes.describe(wait.value.code) is codes.CODES[wait.value.code]
    return wait.value.code


# ---- answers that cannot be read ----


@pytest.mark.parametrize("body", sorted(BODIES))
def test_a_look_that_cannot_be_read_tells_nothing(world, run, body):
    world.started(run)
    world.fake.pass_time(700)
    code = CODE_OF.get(body, "cloud_unreadable")
    visits = (world.backend.observe, world.backend.destroy, lambda r: world.backend.sweep(set()))
    for visit in visits:
        world.fake.fault("body", code=body, methods=("GET",))
        assert unsettled(lambda: visit(run)) == code  # noqa: B023  called at once
        assert world.fake.faults == [] and world.machines() == [run.machine]
    assert world.backend.observe(run) is Sight.RUNNING


@pytest.mark.parametrize("body", sorted(BODIES))
def test_whatever_answer_of_a_launch_cannot_be_read(world, body):
    """Each in turn, until there is none left to garble."""
    for number in range(20):
        run = a_run()
        world.fake.fault("body", code=body, later=number)
        with contextlib.suppress(Unsettled):
            world.backend.launch(run, "token-1")
        if spared := bool(world.fake.faults):
            world.fake.faults.clear()
        brought_up(world, run)
        assert world.machines().count(run.machine) == 1 and world.token_of(run.machine) == "token-1"
        if world.name == "kubernetes":
            assert ("networkpolicies", run.machine) in world.left()
        if spared:
            return
    raise AssertionError("a launch never ends")


@pytest.mark.parametrize("body", sorted(BODIES))
def test_whatever_answer_of_a_removal_cannot_be_read(world, body):
    """It returns only when nothing is left, whichever look was garbled and whatever parts were left behind."""
    for number in range(20):
        run = a_run()
        if world.name == "azure-aci":
            world.started(run)
        else:
            world.leave_a_part(run)
        world.fake.fault("body", code=body, later=number)
        for _ in range(10):
            with contextlib.suppress(Unsettled):
                world.backend.destroy(run)
                break
            world.fake.pass_time(world.settle_seconds)
        assert left_of(world, run) == set()
        if world.fake.faults:
            return
    raise AssertionError("a removal never ends")


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 405, 409, 410, 429, 500, 503])
def test_a_proxy_answers_in_the_clouds_place(world, run, status):
    """Nothing was delivered. A 404 or a 403 of a proxy is not the cloud's."""
    code = {429: "cloud_throttled", 500: "cloud_unreachable", 503: "cloud_unreachable"}.get(
        status, "cloud_unreadable"
    )
    world.started(run)
    headers = {"Location": f"{world.fake.url}/login"} if status == 302 else {}

    def garbled(methods: tuple[str, ...], visit: Callable[[], object]) -> str:
        world.backend = world.new_backend()  # without the pause of the visit before
        for _ in range(ASKS):
            world.fake.fault("body", code="html", status=status, headers=headers, methods=methods)
        found = unsettled(visit)
        world.fake.faults.clear()
        return found

    assert garbled(("GET",), lambda: world.backend.observe(run)) == code
    assert garbled(("GET",), lambda: world.backend.destroy(run)) == code
    assert garbled(("GET",), lambda: world.backend.sweep(set())) == code
    other = a_run()
    assert garbled(("POST", "PUT"), lambda: world.backend.launch(other, "t")) == code
    found = garbled(("DELETE",), lambda: world.backend.destroy(run))
    assert found == code or (found == "machine_ending" and status == 200)
    world.backend = world.new_backend()
    assert world.machines() == [run.machine] and left_of(world, other) <= {
        ("networkInterfaces", f"{other.machine}-nic")
    }
    taken_down(world, run)


def test_a_missing_account_is_no_missing_machine(run):
    """Azure says 404 for a subscription as well as for a machine."""
    with AzureWorld() as world:
        world.started(run)
        world.fake.fault("answer", status=404, code="SubscriptionNotFound", methods=("GET",))
        assert unsettled(lambda: world.backend.observe(run)) == "look_refused"
        world.fake.fault("answer", status=404, code="SubscriptionNotFound", methods=("GET",))
        with pytest.raises(BackendError) as refused:
            world.backend.destroy(run)
        assert refused.value.code == "destroy_failed"


@pytest.mark.parametrize("state", ["", "Thinking"])
def test_a_state_that_nobody_has_heard_of_is_not_the_end(world, run, state):
    world.started(run)
    if world.name == "gcp":
        world.fake.instances[run.machine].status = state
    elif world.name == "kubernetes":
        world.fake.objects["pods", f"{run.machine}-x7k2p"]["status"]["phase"] = state or "Unknown"
    else:
        kind = CONTAINERS if world.name == "azure-aci" else VM
        world.fake.resources[kind, run.machine].power = state or "Unknown"
    assert unsettled(lambda: world.backend.observe(run)) == "cloud_unreadable"


# ---- too many requests ----


def paused(world, run) -> float:
    """For how long the cloud is asked nothing from here on, by its own clock, in steps of a second."""
    for seconds in range(2000):
        before = len(world.fake.requests)
        with contextlib.suppress(Unsettled):
            world.backend.observe(run)
        if len(world.fake.requests) > before:
            return seconds
        world.fake.pass_time(1)
    raise AssertionError("for ever")


def http_date(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)


NOON = datetime(2031, 5, 6, 12, tzinfo=UTC)
PAUSES = {
    "none named": ({}, 30),
    "seconds": ({"Retry-After": "7"}, 7),
    "zero": ({"Retry-After": "0"}, 30),
    "minutes": ({"Retry-After": "840"}, 840),
    "hours": ({"Retry-After": "86400"}, 900),
    "a date": ({"Retry-After": http_date(NOON + timedelta(minutes=2)), "Date": http_date(NOON)}, 120),
    "a date long past for us": (
        {"Retry-After": http_date(NOON - timedelta(days=9000)), "Date": http_date(NOON - timedelta(days=9000, seconds=50))},
        50,
    ),
    "a date tomorrow": ({"Retry-After": http_date(NOON + timedelta(days=1)), "Date": http_date(NOON)}, 900),
    "a word": ({"Retry-After": "soon"}, 30),
}  # fmt: skip


@pytest.mark.parametrize("named", list(PAUSES))
@pytest.mark.parametrize("form", ["the cloud's", "a proxy's"])
def test_too_many_requests(world, run, named, form):
    headers, seconds = PAUSES[named]
    if form == "the cloud's":
        world.fake.fault("answer", status=429, code="TooManyRequests", headers=headers)
    else:
        world.fake.fault("body", status=429, code="html", headers=headers)
    assert unsettled(lambda: world.backend.observe(run)) == "cloud_throttled"
    for visit in (world.backend.observe, world.backend.destroy, lambda r: world.backend.launch(r, "t")):
        assert unsettled(lambda: visit(run)) == "cloud_throttled"  # noqa: B023
    assert paused(world, run) == seconds


@pytest.mark.parametrize(("asked", "seconds"), [("7", 7), ("86400", 900), ("-5", 0), ("", 0)])
def test_a_fault_of_the_clouds_own_with_a_time(world, run, asked, seconds):
    """A pause is kept whatever it comes with. Where none is named, a fault alone asks for none."""
    world.fake.fault("answer", headers={"Retry-After": asked}, **world.transient[0])
    assert unsettled(lambda: world.backend.observe(run)) == "cloud_unreachable"
    assert paused(world, run) == seconds


def test_googles_other_words_for_too_many_requests(run):
    with GcpWorld() as world:
        world.fake.fault("answer", status=403, code="rateLimitExceeded")
        assert unsettled(lambda: world.backend.observe(run)) == "cloud_throttled"
        assert paused(world, run) == 30


def test_a_cloud_at_work_asks_for_no_pause(world, run):
    """409: about one machine. The others are looked at as ever."""
    world.started(run)
    code = {"kubernetes": "Conflict", "gcp": "resourceNotReady"}.get(world.name, "AnotherOperationInProgress")
    world.fake.fault("answer", status=409, code=code, methods=("DELETE",))
    assert unsettled(lambda: world.backend.destroy(run)) == "cloud_busy"
    assert paused(world, run) == 0


def test_the_sentence_says_what_was_built():
    sentence = codes.CODES["cloud_throttled"].sentence
    assert f"{cloud.LONGEST_WAIT_SECONDS / 60:.0f} minutes" in sentence
    assert cloud.UNNAMED_WAIT_SECONDS == 30 and "half a minute" in sentence


# ---- credentials ----


@pytest.mark.parametrize("status", [401, 403])
def test_a_look_that_is_refused_says_nothing_of_the_machine(world, run, status):
    world.started(run)
    for _ in range(ASKS):
        world.fake.fault("answer", status=status, code="Unauthorized", methods=("GET",))
    assert unsettled(lambda: world.backend.observe(run)) == "look_refused"
    world.fake.faults.clear()
    assert world.backend.observe(run) is Sight.RUNNING


# ---- clocks ----


def test_a_machine_from_the_future_is_swept_like_any_other(world, run):
    """Its tags were written by a clock that was a month ahead, and has been set right since."""
    ahead = world.fake.now + timedelta(days=30)
    object.__setattr__(world.backend.common, "clock", lambda: ahead)
    world.started(run)
    world.backend = world.new_backend()
    for _ in range(20):  # on Azure, the disk has no tags, and its own age
        world.backend.sweep(set())
        world.fake.pass_time(world.settle_seconds)
    assert world.left() == set()


def test_a_machine_from_the_future_stays_while_a_row_wants_it(world, run):
    ahead = world.fake.now + timedelta(days=30)
    object.__setattr__(world.backend.common, "clock", lambda: ahead)
    world.started(run)
    world.backend = world.new_backend()
    world.fake.pass_time(700)
    assert world.backend.sweep({run.machine}) == [] and world.machines() == [run.machine]


def test_a_clock_set_back_or_forward_moves_no_pause(world, run, monkeypatch):
    world.fake.fault("answer", status=429, code="TooManyRequests", headers={"Retry-After": "60"})
    unsettled(lambda: world.backend.observe(run))
    for jump in (-timedelta(days=400), timedelta(days=400)):
        monkeypatch.setattr(cloud, "now", lambda jump=jump: datetime.now(UTC) + jump)
        object.__setattr__(world.backend.common, "clock", lambda jump=jump: datetime.now(UTC) + jump)
        assert unsettled(lambda: world.backend.observe(run)) == "cloud_throttled"
    assert paused(world, run) == 60


# ---- lists ----


def test_the_sweep_sees_beyond_the_first_page(world):
    runs = [a_run() for _ in range(5)]
    for one in runs:
        world.backend.launch(one, "t")
    world.fake.pass_time(700)
    assert sorted(world.backend.sweep(set())) == sorted(r.machine for r in runs)


def test_a_list_without_an_end(world, monkeypatch):
    monkeypatch.setattr(cloud, "MOST_PAGES", 5)
    world.backend.launch(a_run(), "t")
    world.fake.pass_time(700)
    world.fake.endless = True
    assert unsettled(lambda: world.backend.sweep(set())) == "cloud_unreadable"


@pytest.mark.parametrize(
    "elsewhere", ["http://localhost:{port}", "http://127.0.0.1:9", "https://127.0.0.1:{port}"]
)
def test_a_next_page_elsewhere_is_not_fetched(world, elsewhere):
    """The client would take its access token there. `localhost` is our fake under a name that is not the cloud's."""
    if world.name not in AZURES:
        pytest.skip("only Azure names its next page by an address")
    for _ in range(3):
        world.started(a_run())
    world.fake.pass_time(700)
    world.fake.elsewhere = elsewhere.format(port=world.fake.url.rpartition(":")[2])
    before = len(world.fake.requests)
    assert unsettled(lambda: world.backend.sweep(set())) == "cloud_unreadable"
    assert [r for r in world.fake.requests[before:] if "$skiptoken" in r.query] == []
    assert not [r for r in world.fake.requests if r.method == "DELETE"]


# ---- accepted, and then not done ----


def test_a_removal_that_was_accepted_and_fails_is_asked_again(world, run):
    if world.name == "kubernetes":
        pytest.skip("a cluster's removal is no operation that fails")
    world.started(run)
    world.fake.fault("operation", code="INTERNAL_ERROR", methods=("DELETE",))
    assert unsettled(lambda: world.backend.destroy(run)) == "machine_ending"
    world.fake.pass_time(world.settle_seconds)
    assert world.machines() == [run.machine]
    taken_down(world, run)


def test_still_there_after_an_hour(world, run):
    world.started(run)
    world.fake.stuck = True
    deletes = lambda: [r for r in world.fake.requests if r.method == "DELETE"]  # noqa: E731
    assert unsettled(lambda: world.backend.destroy(run)) == "machine_ending"
    asked = len(deletes())
    for _ in range(3):
        world.fake.pass_time(1190)
        assert unsettled(lambda: world.backend.destroy(run)) == "machine_ending"
    assert len(deletes()) == asked
    world.fake.pass_time(60)
    for again in (1, 2):
        with pytest.raises(BackendError) as stays:
            world.backend.destroy(run)
        assert stays.value.code == "destroy_failed" and not isinstance(stays.value, Unsettled)
        assert len(deletes()) == asked + again
    world.fake.stuck = False
    with contextlib.suppress(BackendError):
        world.backend.destroy(run)
    world.fake.pass_time(world.settle_seconds)
    with contextlib.suppress(BackendError):
        world.backend.destroy(run)
    world.fake.pass_time(world.settle_seconds)
    world.backend.destroy(run)
    assert world.left() == set()


# ---- what somebody else made ----


def test_the_name_is_somebody_elses(world, run):
    """Two portals in one account, both with this run: one of them is the other's copy under another installation."""
    world.new_backend("fedcba987654").launch(run, "theirs")
    world.fake.pass_time(world.settle_seconds)
    before, requests = world.left(), len(world.fake.requests)
    for visit in (world.backend.observe, lambda r: world.backend.launch(r, "ours")):
        with pytest.raises(BackendError) as taken:
            visit(run)
            world.backend.observe(run)  # Google's launch looks at nothing: the look after it says so
        assert taken.value.code == "name_taken" and not isinstance(taken.value, Unsettled)
    world.backend.destroy(run)  # nothing of ours is there
    world.fake.pass_time(700)
    assert world.backend.sweep(set()) == []
    assert world.left() == before and world.token_of(run.machine) == "theirs"
    written = [r for r in world.fake.requests[requests:] if r.method in WRITES]
    assert [r.method for r in written if r.method != "POST"] == []
    assert codes.CODES["name_taken"].retry is codes.SOON  # another attempt has another name


def test_a_machine_whose_tags_were_taken_away(world, run):
    """It cannot be told from somebody else's: never destroyed, and said."""
    world.started(run)
    if world.name == "gcp":
        world.fake.instances[run.machine].body["labels"] = {}
    elif world.name == "kubernetes":
        world.fake.objects["jobs", run.machine]["metadata"]["labels"] = {}
    else:
        kind = CONTAINERS if world.name == "azure-aci" else VM
        world.fake.resources[kind, run.machine].body["tags"] = {}
    with pytest.raises(BackendError) as taken:
        world.backend.observe(run)
    assert taken.value.code == "name_taken"
    with contextlib.suppress(Unsettled, BackendError):
        world.backend.destroy(run)
    assert world.machines() == [run.machine]


def test_an_interface_of_somebody_elses_is_not_overwritten(run):
    with AzureWorld() as world:
        theirs = {
            "location": "uksouth",
            "tags": {"owner": "somebody"},
            "properties": {"ipConfigurations": []},
        }
        key = (NIC, f"{run.machine}-nic")
        world.fake.resources[key] = Resource(*key, theirs, world.fake.now, "Succeeded")
        with pytest.raises(BackendError) as taken:
            world.backend.launch(run, "t")
        assert taken.value.code == "name_taken"
        world.backend.destroy(run)
        assert world.fake.resources[key].body is theirs and world.fake.mistakes == []


@pytest.mark.parametrize(
    ("labels", "code"), [({}, "name_taken"), ({"strongroom-installation": "0123456789ab"}, "launch_failed")]
)
def test_a_disk_is_in_the_way(run, labels, code):
    with GcpWorld() as world:
        world.fake.disks[run.machine] = Disk(run.machine, world.fake.zone, labels, world.fake.now, False)
        world.backend.launch(run, "t")
        world.fake.pass_time(60)
        with pytest.raises(BackendError) as refused:
            world.backend.observe(run)
        assert refused.value.code == code
        with contextlib.suppress(Unsettled):
            world.backend.destroy(run)
        world.fake.pass_time(60)
        assert bool(world.fake.disks) == (not labels) and world.fake.mistakes == []


@pytest.mark.parametrize("kind", ["secrets", "networkpolicies"])
def test_no_pod_with_a_token_or_a_policy_of_somebody_elses(run, kind):
    with KubernetesWorld() as world:
        theirs = {
            "metadata": {"name": run.machine, "uid": "u", "labels": {}},
            "data": {},
            "spec": {"egress": [{}]},
        }
        world.fake.objects[kind, run.machine] = theirs
        with pytest.raises(BackendError) as taken:
            world.backend.launch(run, "t")
        assert taken.value.code == "name_taken"
        assert not [name for k, name in world.fake.objects if k == "pods"]
        taken_down_but(world, run, {(kind, run.machine)})


@pytest.mark.parametrize("kind", ["secrets", "networkpolicies"])
def test_no_pod_with_a_part_that_is_on_its_way_out(run, kind):
    """The Job was removed by hand. What the collector has not come to yet would go from under the new one."""
    with KubernetesWorld() as world:
        world.started(run)
        parts = {k: v for k, v in world.fake.objects.items() if k == (kind, run.machine)}
        taken_down(world, run)
        world.fake.objects.update(parts)
        assert unsettled(lambda: world.backend.launch(run, "token-1")) == "cloud_busy"
        assert not [name for k, name in world.fake.objects if k == "pods"]
        del world.fake.objects[kind, run.machine]
        brought_up(world, run)
        assert world.fake.mistakes == []


def taken_down_but(world, run, stays: set[tuple[str, str]]) -> None:
    for _ in range(8):
        with contextlib.suppress(Unsettled):
            world.backend.destroy(run)
            break
        world.fake.pass_time(world.settle_seconds)
    assert world.left() == stays and world.fake.mistakes == []


# ---- the table ----


def test_what_is_unsettled_has_a_sentence_and_no_rule_of_its_own():
    """It is asked again at every look, so it counts as no loss."""
    for code in codes.UNSETTLED:
        assert codes.CODES[code].sentence and codes.CODES[code].retry is None
    assert codes.CODES["cloud_denied"].retry is codes.ACCESS and codes.ACCESS.waits in codes.WAITS
