"""Killing and restarting everything, at every step: the run finishes, once; nothing is released twice, nothing is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from uuid import UUID

import httpx
import pytest

from apps.jobs import codes
from tests.integration.runs.portal import PATIENCE, Portal, until
from tests.integration.runs.test_programs import py

PROGRAM = py(
    "time.sleep(float(os.environ.get('SLEEP', '0')))\n(strongroom.outputs() / 'n.csv').write_text('n\\n' + str(len(strongroom.load('words'))))"
)
SLEEPER = py(
    "time.sleep(5 if os.environ['STRONGROOM_STAGE'] == '2' else 0)\n(strongroom.outputs() / 'n.csv').write_text('n\\n60')"
)
_approved: dict[tuple[int, bytes], str] = {}


def approved(portal: Portal, source: bytes = PROGRAM) -> str:
    """A program that may run on the real data; made once for each portal."""
    if (id(portal), source) not in _approved:
        program = portal.submit(source)
        assert portal.ended(program["rehearsal"])["state"] == "succeeded"
        portal.approve(program["id"])
        _approved[id(portal), source] = program["id"]
    return _approved[id(portal), source]


def started(portal: Portal, source: bytes = PROGRAM) -> str:
    return portal.research(approved(portal, source))


def counts(portal: Portal, pk: str, *events: str) -> list[int]:
    """How often each event stands in the log about this run or its output release."""
    query = (
        "SELECT count(*) FROM audit_entry WHERE event = %s AND (object_id = %s OR object_id IN "
        "(SELECT id::text FROM jobs_outputrelease WHERE run_id = %s))"
    )
    return [portal.sql(query, event, pk, UUID(pk))[0][0] for event in events]


def once(portal: Portal, pk: str) -> str:
    """The run has succeeded and everything about it is there exactly once. Returns its output release."""
    run = portal.ended(pk)
    assert run["state"] == "succeeded", run
    until(
        lambda: portal.sql("SELECT 1 FROM jobs_outputrelease WHERE run_id = %s AND state <> 'collected'", pk),
        "outputs in review",
    )
    assert counts(
        portal,
        pk,
        "run.succeeded",
        "run.result_accepted",
        "output_release.collected",
        "output_release.in_review",
    ) == [1, 1, 1, 1]
    evidence = "SELECT purpose, count(*) FROM attestation_evidence WHERE run = %s AND accepted AND attempt = %s GROUP BY purpose"
    assert all(count == 1 for _, count in portal.sql(evidence, pk, run["attempt"]))
    assert portal.sql("SELECT path FROM jobs_output WHERE run_id = %s", pk) == [("n.csv",)]
    ((release,),) = portal.sql("SELECT id FROM jobs_outputrelease WHERE run_id = %s", pk)
    assert not portal.sql("SELECT 1 FROM core_outbox WHERE key = %s AND attempts > 20", pk)
    return str(release)


def die_at(portal: Portal, point: str, act: Callable[[], object]) -> None:
    """Let the workers come to a point, kill them there, and start another one."""
    portal.hold(point)
    act()
    until(lambda: portal.waits_at(point), f"worker at {point}", PATIENCE, every=0.02)
    portal.kill_workers()
    portal.let_go()
    portal.start_worker()


def test_worker_killed_while_it_starts_a_machine(portal: Portal) -> None:
    approved(portal)
    run = ""

    def ask() -> None:
        nonlocal run
        run = started(portal)

    die_at(portal, "before-launch", ask)
    assert portal.run(run)["state"] == "launching"
    once(portal, run)
    die_at(portal, "after-launch", ask)
    once(portal, run)
    assert portal.run(run)["attempt"] == 1


@pytest.mark.parametrize(
    "points",
    [("after-opening",), ("before-consequence", "after-consequence"), ("after-settling",)],
    ids="-".join,
)
def test_worker_killed_while_it_opens_outputs_or_settles(portal: Portal, points: tuple[str, ...]) -> None:
    """Settling stands alone: it is done beside the opening, so it may be over when a worker dies in that."""
    run = started(portal)
    for point in points:
        die_at(portal, point, lambda: None)
    once(portal, run)
    assert portal.run(run)["attempt"] == 1


def test_worker_killed_while_it_packs(portal: Portal) -> None:
    run = started(portal)
    release = once(portal, run)
    portal.api("checker0").post(f"/checks/{release}", {"decision": "approve"})
    die_at(
        portal,
        "after-packing",
        lambda: portal.api("checker1").post(f"/checks/{release}", {"decision": "approve"}),
    )
    die_at(portal, "before-releasing", lambda: None)
    die_at(portal, "after-releasing", lambda: None)
    until(
        lambda: portal.api("member").get(f"/runs/{run}")["output_release"]["state"] == "released",
        "a package",
        PATIENCE,
    )
    assert counts(portal, run, "output_release.approved", "output_release.released") == [1, 1]
    until(
        lambda: not portal.sql("SELECT 1 FROM core_outbox WHERE topic = 'build_package'"),
        "an empty outbox",
        PATIENCE,
    )
    assert counts(portal, run, "output_release.released") == [1]
    assert portal.api("member").http.get(f"/runs/{run}/package").status_code == 200


PHASES = (
    "before-keys",
    "before-inputs",
    "before-program",
    "before-phase-running",
    "before-outputs-get",
    "before-outputs-put",
    "before-result",
)


def held(portal: Portal, run: str, point: str) -> None:
    until(lambda: portal.waits_at(f"{point}.{UUID(run).hex}"), f"machine at {point}", PATIENCE, every=0.02)


def test_worker_killed_in_every_phase_of_the_machine(portal: Portal) -> None:
    """The machine needs no worker: it goes on, and the next worker finds it."""
    run = started(portal)
    points = [f"{point}.{UUID(run).hex}" for point in PHASES]
    portal.hold(*points)
    for point in PHASES:
        held(portal, run, point)
        if point in ("before-keys", "before-phase-running", "before-result"):
            portal.kill_workers()
            portal.start_worker()
        (portal.pauses / f"{point}.{UUID(run).hex}").unlink()
    once(portal, run)
    assert portal.run(run)["attempt"] == 1


def test_machine_killed_before_its_program_runs(portal: Portal) -> None:
    """Tried again by itself; what the dead one had asked for is answered to nobody."""
    runs = {}
    for point in ("before-keys", "before-inputs", "before-program", "before-phase-running"):
        runs[point] = run = started(portal)
        portal.hold(f"{point}.{UUID(run).hex}")
    for point, run in runs.items():
        held(portal, run, point)
        os.kill(portal.supervisor(run), signal.SIGKILL)
    until(lambda: all(portal.run(run)["attempt"] > 1 for run in runs.values()), "second attempts", PATIENCE)
    portal.let_go()
    for run in runs.values():
        once(portal, run)
        assert portal.run(run)["attempt"] == 2
        assert counts(portal, run, "run.running") == [2]


def test_machine_killed_once_its_program_has_started(portal: Portal) -> None:
    """Never tried again, because the program had seen the data; said in words; nothing comes out."""
    runs = {}
    for point in ("before-outputs-get", "before-outputs-put", "before-result"):
        runs[point] = run = started(portal)
        portal.hold(f"{point}.{UUID(run).hex}")
    running = started(portal, SLEEPER)
    portal.program_runs(running)
    os.kill(portal.supervisor(running), signal.SIGKILL)
    for point, run in runs.items():
        held(portal, run, point)
        os.kill(portal.supervisor(run), signal.SIGKILL)
    for run in (running, *runs.values()):
        row = portal.ended(run)
        assert (row["state"], row["code"], row["attempt"]) == ("failed", "runner_lost", 1), row
        assert codes.describe("runner_lost").sentence in portal.at("member")._http.get(f"/runs/{run}").text
    portal.let_go()  # the requests of the dead go on now
    time.sleep(1)
    for run in (running, *runs.values()):
        assert portal.run(run)["state"] == "failed"
        assert counts(portal, run, "run.succeeded", "output_release.collected") == [0, 0]


def test_machine_killed_when_its_result_has_arrived(portal: Portal) -> None:
    run = started(portal)
    point = f"after-result.{UUID(run).hex}"
    portal.hold(point)
    until(lambda: portal.waits_at(point), "answer", PATIENCE, every=0.02)
    # A worker that saw the result may have destroyed the machine already, at any moment from here.
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        os.kill(portal.supervisor(run), signal.SIGKILL)
    portal.let_go()
    once(portal, run)


@pytest.mark.parametrize("kill", [False, True], ids=["politely", "by-SIGKILL"])
def test_database_and_broker_restarted_in_the_middle(portal: Portal, kill: bool) -> None:
    run = started(portal, SLEEPER)
    portal.program_runs(run)
    portal.services.restart_postgres(kill=kill)
    portal.services.restart_valkey(kill=kill)
    assert portal.run(run)["state"] == "running"
    once(portal, run)
    assert portal.run(run)["attempt"] == 1
    until(
        lambda: httpx.get(f"{portal.url}/health/ready", trust_env=False).status_code == 200, "a ready portal"
    )


def test_web_killed_in_the_middle(portal: Portal) -> None:
    run = started(portal, SLEEPER)
    portal.program_runs(run)
    portal.kill_web()
    time.sleep(3)
    portal.start_web()
    once(portal, run)
    assert portal.run(run)["attempt"] == 1


def test_broker_away_when_a_program_is_submitted(portal: Portal) -> None:
    """The kick is lost, the row is not: pages and API go on, and the work is done when the broker is back."""
    portal.api("member").get("/runs")
    portal.services.valkey.stop()
    try:
        began = time.monotonic()
        program = portal.submit(PROGRAM)
        assert time.monotonic() - began < 60
        assert portal.at("member")._http.get(f"/runs/{program['rehearsal']}").status_code == 200
    finally:
        portal.services.valkey.start()
    assert portal.ended(program["rehearsal"])["state"] == "succeeded"


def test_two_workers_at_once(portal: Portal) -> None:
    """Four runs, two workers, one of which loses its head (its children go on): everything is done once."""
    approved(portal)
    second = portal.start_worker()
    runs = [started(portal) for _ in range(4)]
    portal.hold("after-opening")
    until(lambda: portal.waits_at("after-opening"), "opening", PATIENCE)
    os.kill(portal.workers[0].pid, signal.SIGKILL)
    portal.let_go()
    for run in runs:
        once(portal, run)
        assert portal.run(run)["attempt"] == 1
    assert second.returncode() is None
