"""Runs over data whose keys a custodian's own broker holds: through the portal's protocol, against a real service."""

from __future__ import annotations

import threading
import uuid
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.template.loader import render_to_string

from apps.attestation import brokers
from apps.attestation.actions import set_policy
from apps.attestation.models import Evidence, KeyRelease
from apps.audit.models import Entry
from apps.core.actors import System
from apps.core.lifecycle import history, transition
from apps.core.models import Outbox
from apps.core.objects import store
from apps.jobs import engine, queries
from apps.jobs.engine import brokers as engine_brokers
from apps.jobs.engine.packages import portal_keys
from apps.jobs.models import OutputRelease, Run
from apps.jobs.states import RUN
from strongroom import contexts, package, seal, shapes
from strongroom.evidence import Outcome
from strongroom.signing import SigningKey
from tests.integration.keys.conftest import OTHER, Two
from tests.integration.keys.service import ID
from tests.unit.jobs.engine.world import person
from workers import sweep

pytestmark = pytest.mark.django_db
SHOWN = {"phases": queries.PHASES, "lifecycle": RUN, "seconds": 2, "outputs_state": ""}
CSV = b"visits,coins\n1,0\n2,25\n3,95\n"


def again(run: Run) -> Run:
    run.refresh_from_db()
    return run


@pytest.mark.parametrize("twice", [False, True])
def test_both_brokers_are_asked_and_all_is_on_record(
    two: Two, runner_for: Any, tmp_path: Any, twice: bool
) -> None:
    run = two.run()
    runner = runner_for(run, twice=twice)
    runner.until_running()
    assert runner.plain == {str(two.world.dataset.pk): CSV, str(two.theirs.pk): OTHER}
    # content of its own: other tests change stored outputs behind the portal's back
    table = f"a,b\n{run.pk},2\n".encode()
    assert runner.deliver({"table.csv": table}).body == {"state": "succeeded"}
    shown = Evidence.objects.filter(run=run.pk, purpose="key-release")
    assert {(e.broker, e.accepted) for e in shown} == {("", True), (ID, True)} and shown.count() == 2
    assert KeyRelease.objects.filter(run=run.pk, released=True).count() == 2
    entry = Entry.objects.get(event="data_key.released", scope=f"dataset:{two.theirs.pk}")
    (place,) = two.broker.log()
    assert place["entry"]["event"] == "released" and place["entry"]["run"] == str(run.pk)
    # the head of the broker's own chain stands in the portal's transparency log
    assert entry.data["broker"] == ID and entry.data["broker_log"] == {"index": 0, "hash": place["hash"]}
    engine.open_outputs(run.pk)
    release = OutputRelease.objects.get(run=run)
    tester = System("test")
    transition(release, "approved_once", by=tester, set_fields={"first_checker": person("one")})
    transition(release, "approved", by=tester, set_fields={"second_checker": person("two")})
    engine.build_package(release.pk)
    release.refresh_from_db()
    path = tmp_path / "package.zip"
    with store().open(release.package_object) as reader:
        path.write_bytes(reader.read())
    report = package.verify_package(path, trust=portal_keys())
    assert report.ok, [c for c in report.checks if c.outcome is Outcome.FAIL]
    assert {"e1.nonce", "e1-1.nonce", "e1-1-verdict", "e2.nonce", "same-instance"} <= {
        c.id for c in report.checks
    }
    with zipfile.ZipFile(path) as archive:
        assert {"context/c1-1.json", "evidence/e1-1.json"} <= set(archive.namelist())
        files = {i.filename: archive.read(i) for i in archive.infolist() if i.filename != "package.json"}
    for change in ("context/c1-1.json", "evidence/e1-1.json"):
        # without what the custodian's broker was shown, or with the portal's in its place, it does not verify
        for name, changed in (
            ("less", {k: v for k, v in files.items() if k != change}),
            ("other", {**files, change: files[change.replace("-1", "")]}),
        ):
            forged = tmp_path / f"{uuid.uuid4().hex}.zip"
            package.build_package(changed, forged)
            assert not package.verify_package(forged, trust=portal_keys()).ok, (name, change)
    both = {k: v for k, v in files.items() if "-1.json" not in k}
    forged = tmp_path / "both.zip"
    package.build_package(both, forged)
    found = package.verify_package(forged, trust=portal_keys())
    assert {"key-release", "key-release-evidence"} <= {
        c.id for c in found.checks if c.outcome is Outcome.FAIL
    }


def test_a_run_over_their_data_alone(two: Two, runner_for: Any) -> None:
    run = two.run(only_theirs=True)
    runner = runner_for(run)
    runner.until_running()
    assert runner.e1 is None and [item["broker"] for item in runner.shown] == [ID]
    assert runner.deliver({"table.csv": b"1"}).body == {"state": "succeeded"}


def test_the_portal_cannot_open_what_passes_through(two: Two, runner_for: Any) -> None:
    """Neither from the seal header nor from the answer: with every key that the portal has."""
    from apps.core.keys import hpke_key, key_store
    from strongroom.broker.errors import KeyStoreError
    from strongroom.errors import SealError

    header = seal.parse_seal_header(two.version.seal)
    info = seal.info_data_key(str(two.theirs.pk), 1)
    with pytest.raises(KeyStoreError):
        key_store().unwrap(header.recipient, header.wrapped_key, info)
    for key in key_store().public_keys():
        with pytest.raises(SealError):
            key_store().unwrap(key.id, header.wrapped_key, info)
    run = two.run(only_theirs=True)
    runner = runner_for(run)
    runner.claim()
    context = runner.c1_for(ID, runner.challenge_of(ID).body["challenge"])
    answer = runner.ask(ID, context)
    wrapped = shapes.b64_decode(answer.body["keys"][0]["wrapped"], "wrapped")
    nonce_info = seal.info_run_key(str(run.pk), str(two.theirs.pk), 1, contexts.n1(context))
    with pytest.raises(SealError):
        seal.unwrap_key(
            wrapped, seal.PrivateKey("x25519", hpke_key("broker").private_bytes_raw()), nonce_info
        )


def test_a_stopped_broker_ends_the_run_with_its_own_sentence(two: Two, runner_for: Any) -> None:
    two.broker.cli("stop", "--reason", "The archive is closed for an inspection.")
    run = two.run()
    runner = runner_for(run)
    runner.claim()
    answer = runner.challenge_of(ID)
    assert (answer.status, answer.body["code"]) == (403, "broker_refused")
    run = again(run)
    assert (run.state, run.code) == ("failed", "broker_refused")
    assert "The archive is closed for an inspection." in answer.body["detail"]
    assert (
        not Evidence.objects.filter(run=run.pk).exists()
        and not KeyRelease.objects.filter(run=run.pk).exists()
    )


def test_a_broker_stopped_between_challenge_and_release(two: Two, runner_for: Any) -> None:
    run = two.run()
    runner = runner_for(run)
    runner.claim()
    context = runner.c1_for(ID, runner.challenge_of(ID).body["challenge"])
    two.broker.cli("stop")
    answer = runner.ask(ID, context)
    assert (answer.status, answer.body["code"]) == (403, "broker_refused")
    assert again(run).code == "broker_refused"
    release = KeyRelease.objects.get(run=run.pk, version=two.version)
    assert not release.released and release.reasons == ["broker"]
    assert Entry.objects.filter(event="data_key.refused", scope=f"dataset:{two.theirs.pk}").count() == 1


def taken_back(run: Run) -> None:
    """The run ended, on the record with the broker's name, and its machine goes."""
    run = again(run)
    assert (run.state, run.code) == ("cancelled", "keys_withdrawn")
    assert ID in history(run).get(to_state="cancelled").reason
    assert Entry.objects.filter(event="run.cancelled", object_id=str(run.pk)).count() == 1
    assert Outbox.objects.filter(topic="advance_run", key=str(run.pk)).exists()
    engine.advance(run.pk)
    assert again(run).machine_gone


def test_a_stop_ends_the_runs_that_have_their_keys(
    two: Two, runner_for: Any, backend: Any, client: Any
) -> None:
    """Found by asking, once for each broker; a broker that is away has not been stopped."""
    run, untouched = two.run(), two.run()
    for one in (run, untouched):
        engine.advance(one.pk)
    runner_for(run).until_running()
    assert sweep.ask_brokers() == 0 and again(run).state == "running"
    assert again(run).keys_unknown_since is None
    two.broker.end()
    assert sweep.ask_brokers() == 0 and again(run).state == "running"
    since = again(run).keys_unknown_since
    assert since is not None and queries.standing(run).keys_unknown_since == since
    shown = render_to_string("jobs/_progress.html", {**SHOWN, "run": run, "standing": queries.standing(run)})
    assert "has not been known since" in shown
    assert sweep.ask_brokers() == 0 and again(run).keys_unknown_since == since  # since when, not when last
    two.broker.start()
    assert sweep.ask_brokers() == 0 and again(run).keys_unknown_since is None
    two.broker.cli("stop", "--reason", "An inspection.")
    assert sweep.ask_brokers() == 1
    assert "An inspection." in history(run).get(to_state="cancelled").reason
    taken_back(run)
    assert again(untouched).state == "launching"  # it has no key, and will get none
    assert sweep.ask_brokers() == 0


def test_one_question_for_each_broker_whatever_the_number_of_runs(
    two: Two, runner_for: Any, monkeypatch: Any
) -> None:
    runs = [two.run() for _ in range(3)]
    for run in runs:
        runner_for(run).until_running()
    asked, ask = [], brokers._ask

    def counted(broker: str, path: str, body: Any) -> Any:
        asked.append((broker, path))
        return ask(broker, path, body)

    monkeypatch.setattr(brokers, "_ask", counted)
    assert sweep.ask_brokers() == 0
    assert asked == [(ID, "/v1/standing")]
    two.broker.cli("stop")
    assert sweep.ask_brokers() == 3 and len(asked) == 2


@pytest.mark.parametrize("what", ["policy", "dataset", "same", "unreadable"])
def test_what_the_custodian_changes_at_the_broker_ends_the_runs_too(
    two: Two, runner_for: Any, what: str
) -> None:
    run = two.run()
    runner_for(run).until_running()
    match what:
        case "policy":
            two.broker.set_policy(images=["sha256:" + "9" * 64])
        case "same":  # another policy, which this evidence satisfies as well
            two.broker.set_policy(max_age_seconds=599)
        case "unreadable":
            (two.broker.folder / "policy.json").write_text('{"v": 1,')
        case "dataset":
            two.broker.datasets.clear()
            two.broker._write()
            two.broker.end()
            two.broker.start()
    if what in ("policy", "dataset"):
        assert sweep.ask_brokers() == 1
        return taken_back(run)
    assert sweep.ask_brokers() == 0 and again(run).state == "running"
    assert (again(run).keys_unknown_since is not None) is (what == "unreadable")


@pytest.mark.parametrize("when", ["result", "another attempt"])
def test_a_run_that_has_moved_on_is_not_stopped(
    two: Two, runner_for: Any, monkeypatch: Any, when: str
) -> None:
    run = two.run()
    runner = runner_for(run)
    runner.until_running()
    two.broker.cli("stop")
    ask = brokers._ask

    def meanwhile(broker: str, path: str, body: Any) -> Any:
        said = ask(broker, path, body)
        assert said["runs"][0]["standing"] == "withdrawn"
        moved.set()
        assert done.wait(60)
        return said

    # The answer is on its way in a thread of its own, while the run moves in this one, which has the transaction.
    moved, done = threading.Event(), threading.Event()
    monkeypatch.setattr(brokers, "_ask", meanwhile)
    answers = engine_brokers._answers

    def in_between(questions: Any) -> Any:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(answers, questions)
            assert moved.wait(60)
            if when == "result":
                assert runner.deliver({"table.csv": b"1"}).body == {"state": "succeeded"}
            else:
                Run.objects.filter(pk=run.pk).update(attempt=2)
            done.set()
            return waiting.result()

    monkeypatch.setattr(engine_brokers, "_answers", in_between)
    assert sweep.ask_brokers() == 0
    assert again(run).state == ("succeeded" if when == "result" else "running")


def test_the_brokers_policy_decides_and_its_failing_checks_are_on_record(two: Two, runner_for: Any) -> None:
    two.broker.set_policy(images=["sha256:" + "9" * 64])
    run = two.run()
    runner = runner_for(run)
    runner.claim()
    answer = runner.ask(ID, runner.c1_for(ID, runner.challenge_of(ID).body["challenge"]))
    assert answer.status == 403 and [c["id"] for c in answer.body["checks"]] == ["image"]
    assert KeyRelease.objects.get(run=run.pk).reasons == ["broker:image"]
    assert again(run).code == "broker_refused"
    assert [e["entry"]["failing"] for e in two.broker.log()] == [["image"]]


def test_the_portals_policy_for_that_dataset_holds_as_well(two: Two, runner_for: Any) -> None:
    from apps.attestation.models import ReleasePolicy
    from strongroom.evidence import Policy

    document = {"v": 1, "types": ["software"], "images": ["sha256:" + "9" * 64], "max_age_seconds": 600}
    run = two.run()
    runner = runner_for(run)
    runner.claim()
    context = runner.c1_for(ID, runner.challenge_of(ID).body["challenge"])
    ReleasePolicy.objects.create(
        dataset=two.theirs,
        number=1,
        document=document,
        sha256=Policy.parse(document).sha256,
        made_by=two.world.user,
    )
    answer = runner.ask(ID, context)
    assert (answer.status, answer.body["code"]) == (403, "evidence_refused")
    assert two.broker.log() == []  # it was not even asked


def test_the_portals_policy_replaced_while_the_broker_is_asked(
    two: Two, runner_for: Any, monkeypatch: Any
) -> None:
    runner = runner_for(two.run())
    runner.claim()
    context = runner.c1_for(ID, runner.challenge_of(ID).body["challenge"])
    ask, document = brokers.release, {**two.policy(), "images": ["sha256:" + "9" * 64]}

    def meanwhile(*args: Any, **more: Any) -> Any:
        set_policy(by=two.world.user, dataset=two.theirs, document=document)
        return ask(*args, **more)

    monkeypatch.setattr(brokers, "release", meanwhile)
    monkeypatch.setattr("apps.attestation.actions.policies.require_set_policy", lambda *_: None)
    answer = runner.ask(ID, context)
    assert (answer.status, answer.body["code"]) == (403, "evidence_refused")
    assert not KeyRelease.objects.filter(released=True, version=two.version).exists()


def test_the_same_request_twice_at_once(two: Two, runner_for: Any, monkeypatch: Any) -> None:
    """The second one is done while the first one waits for the broker: both get the keys, and it is on record once."""
    run = two.run(only_theirs=True)
    runner = runner_for(run)
    runner.claim()
    context = runner.c1_for(ID, runner.challenge_of(ID).body["challenge"])
    body = {"context": context, "evidence": runner.evidence(contexts.n1(context))}
    ask, twins = brokers.release, []

    def meanwhile(*args: Any, **more: Any) -> Any:
        monkeypatch.setattr(brokers, "release", ask)
        twins.append(runner.call("POST", "/keys", body))
        return ask(*args, **more)

    monkeypatch.setattr(brokers, "release", meanwhile)
    answer = runner.call("POST", "/keys", body)
    assert [answer.status, twins[0].status] == [200, 200]
    assert Evidence.objects.filter(run=run.pk).count() == 1 == len(two.broker.log())


def test_a_broker_that_is_away_ends_nothing_by_itself(two: Two, runner_for: Any) -> None:
    run = two.run()
    runner = runner_for(run)
    runner.claim()
    two.broker.end()
    for _ in range(2):
        answer = runner.challenge_of(ID)
        assert (answer.status, answer.body["code"]) == (503, "broker_unavailable")
    assert again(run).state == "running"
    two.broker.start()
    context = runner.c1_for(ID, runner.challenge_of(ID).body["challenge"])
    two.broker.end()
    assert runner.ask(ID, context).status == 503
    assert not Evidence.objects.filter(run=run.pk).exists()
    two.broker.start()
    assert runner.ask(ID, context).status == 200
    # the runner gives up after a minute, with a word of its own
    two.broker.end()
    other = two.run()
    late = runner_for(other)
    late.claim()
    assert late.call("POST", "/abandon", {"code": "broker_unavailable"}).body == {"state": "queued"}


def test_a_broker_taken_off_the_operators_list(two: Two, runner_for: Any, settings: Any) -> None:
    run = two.run()
    runner = runner_for(run)
    runner.claim()
    settings.KEY_BROKERS = {"another": two.broker.url}
    answer = runner.challenge_of(ID)
    assert answer.status == 403 and "off the list" in answer.body["detail"]


@pytest.mark.parametrize(
    "lie",
    [
        "challenge of the portal",
        "evidence for the portal",
        "their context, my evidence",
        "no such broker",
        "key of another machine",
    ],
)
def test_what_is_meant_for_one_broker_is_nothing_to_the_other(two: Two, runner_for: Any, lie: str) -> None:
    run = two.run()
    runner = runner_for(run)
    runner.claim()
    challenge = runner.challenge_of(ID).body["challenge"]
    theirs, ours = runner.c1_for(ID, challenge), runner.c1_for("", runner.claimed["challenge"])
    match lie:
        case "challenge of the portal":
            answer = runner.ask(ID, runner.c1_for(ID, runner.claimed["challenge"]))
            assert answer.body["code"] == "broker_refused" and [c["id"] for c in answer.body["checks"]] == [
                "challenge"
            ]
        case "evidence for the portal":
            answer = runner.ask(ID, theirs, runner.evidence(contexts.n1(ours)))
            assert [c["id"] for c in answer.body["checks"]] == ["nonce"]
        case "their context, my evidence":
            answer = runner.ask("", {k: v for k, v in theirs.items() if k != "broker"})
            assert "context" in [c["id"] for c in answer.body["checks"]]
        case "no such broker":
            answer = runner.ask("x", {**theirs, "broker": "x"})
            assert answer.status == 409
            assert runner.challenge_of("x").status == 409
            assert again(run).state == "running"
            return
        case _:
            forged = runner.evidence(contexts.n1(theirs), key=SigningKey.generate())
            answer = runner.ask(ID, theirs, forged)
            assert [c["id"] for c in answer.body["checks"]] == ["attester-known"]
    assert answer.status == 403 and again(run).state == "failed"
    assert not any(e["entry"]["event"] == "released" for e in two.broker.log())


@pytest.mark.parametrize("change", ["left out", "another hash", "another broker", "twice"])
def test_a_result_must_name_the_evidence_shown_to_each_broker(two: Two, runner_for: Any, change: str) -> None:
    run = two.run()
    runner = runner_for(run)
    runner.until_running()
    (said,) = runner.shown
    runner.shown = {
        "left out": [],
        "another hash": [{**said, "e1": "0" * 64}],
        "another broker": [{**said, "broker": "x"}],
        "twice": [said, {**said, "broker": "x"}],
    }[change]
    answer = runner.deliver({"table.csv": b"1"})
    assert answer.status == 403 and "broker-evidence" in [c["id"] for c in answer.body["checks"]]
    assert again(run).code == "result_refused"


def test_no_result_before_every_broker_released(two: Two, runner_for: Any) -> None:
    run = two.run()
    runner = runner_for(run)
    runner.claim()
    assert runner.ask("", runner.c1_for("", runner.claimed["challenge"])).status == 200
    runner.phase("running")
    answer = runner.deliver({"table.csv": b"1"})
    assert answer.status == 403 and "first-evidence" in [c["id"] for c in answer.body["checks"]]
