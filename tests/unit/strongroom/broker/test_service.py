"""A custodian's broker against a portal and machines that are honest, mistaken, or lying."""

from __future__ import annotations

import json
import threading
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from strongroom import contexts, seal, shapes, strictjson
from strongroom.broker import config, release, service
from strongroom.broker.errors import KeyStoreError, Refusal
from strongroom.broker.service import Broker
from strongroom.broker.state import State
from strongroom.errors import FormatError
from strongroom.evidence import Appraisal, Check, Outcome, Tier
from strongroom.signing import SigningKey
from tests.unit.strongroom.broker.world import ID, IMAGE, PROGRAM, Machine, World


@pytest.fixture
def w(tmp_path: Path) -> World:
    return World(tmp_path)


def new_run() -> str:
    return str(uuid.uuid4())


def refused(w: World, body: dict[str, Any]) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        w.broker.release(body)
    return refusal.value


def failing(refusal: Refusal) -> set[str]:
    return {check["id"] for check in refusal.checks}


def test_a_run_gets_its_keys_and_the_same_again(tmp_path: Path) -> None:
    w = World(tmp_path, datasets=2)
    w.headers[1] = w.sealed(
        w.datasets[1], suite=1
    )  # one sealed to the hybrid key, one to X25519, as browsers do
    run = new_run()
    challenge = w.challenge(run)
    assert w.challenge(run) == challenge  # an answer lost on the way
    body = w.request(run, challenge)
    answer = w.broker.release(body)
    assert w.opened(run, body["context"], answer) == w.data_keys
    again = w.broker.release(body)
    assert w.opened(run, body["context"], again) == w.data_keys and again["log"] == answer["log"]
    assert [(e["event"], e["run"]) for e in w.log()] == [("released", run)]
    assert w.broker.state.verify() == 1
    (entry,) = w.log()
    assert (
        entry["failing"] == []
        and len(entry["datasets"]) == 2
        and entry["manifest"] == body["context"]["manifest"]
    )


def test_nothing_of_a_key_is_in_state_or_log(w: World) -> None:
    run = new_run()
    w.broker.release(w.request(run, w.challenge(run)))
    (key,) = w.data_keys.values()
    for path in w.folder.iterdir():
        raw = path.read_bytes()
        assert (
            key not in raw and key.hex().encode() not in raw and shapes.b64_encode(key).encode() not in raw
        ), path


def test_a_challenge_works_once_for_one_run_in_time(w: World) -> None:
    run, other = new_run(), new_run()
    challenge = w.challenge(run)
    assert failing(refused(w, w.request(other, challenge))) == {"challenge"}
    made_up = "A" * 43
    assert failing(refused(w, w.request(run, made_up))) == {"challenge"}
    w.broker.release(w.request(run, challenge))
    second = Machine(w.attester)
    context = w.c1(run, challenge, hpke_pub=second.hpke.public)
    replayed = refused(
        w, w.request(run, challenge, context=context, evidence=second.evidence(contexts.n1(context), w.now))
    )
    assert failing(replayed) == {"challenge"}
    # a refusal uses the challenge up as well
    late = new_run()
    challenge = w.challenge(late)
    assert failing(refused(w, w.request(late, challenge, evidence=w.machine.evidence("A" * 43, w.now)))) == {
        "nonce"
    }
    assert failing(refused(w, w.request(late, challenge))) == {"challenge"}
    slow = new_run()
    challenge = w.challenge(slow)
    w.later(minutes=10, seconds=1)
    assert failing(refused(w, w.request(slow, challenge))) == {"challenge"}
    assert w.challenge(slow) != challenge
    assert w.broker.state.verify() == len(w.log()) == 7


def test_another_attempts_challenge_is_foreign(w: World) -> None:
    run = new_run()
    old = w.challenge(run, attempt=1)
    body = w.request(run, old)
    body["authorisation"] = w.word(run, attempt=2)
    assert failing(refused(w, body)) == {"challenge"}


def test_evidence_of_another_run_or_machine(w: World) -> None:
    one, two = new_run(), new_run()
    first, second = w.challenge(one), w.challenge(two)
    of_one = w.request(one, first)
    # E1 of run one shown for run two: bound to another context
    assert failing(refused(w, w.request(two, second, evidence=of_one["evidence"]))) == {"nonce"}
    # context and evidence of run one under the authorisation of run two
    third = new_run()
    w.challenge(third)
    stolen = {**w.request(third, first), "context": of_one["context"], "evidence": of_one["evidence"]}
    assert failing(refused(w, stolen)) == {"challenge", "context"}
    # somebody in between puts their own key into C1: the evidence is not bound to that
    thief = Machine(SigningKey.generate())
    fourth = new_run()
    challenge = w.challenge(fourth)
    honest = w.request(fourth, challenge)
    between = w.c1(fourth, challenge, hpke_pub=thief.hpke.public)
    assert failing(refused(w, {**honest, "context": between})) == {"nonce"}
    # an attester that nobody pinned
    fifth = new_run()
    context = w.c1(fifth, w.challenge(fifth))
    forged = thief.evidence(contexts.n1(context), w.now)
    assert failing(refused(w, w.request(fifth, "", context=context, evidence=forged))) == {"attester-known"}


@pytest.mark.parametrize("member", ["run", "portal", "broker", "manifest", "image", "approvals", "inputs"])
def test_each_member_of_c1_is_compared_with_what_the_portal_signed(w: World, member: str) -> None:
    run = new_run()
    challenge = w.challenge(run)
    other: dict[str, Any] = {
        "run": new_run(), "portal": "other.example", "broker": "other-broker", "manifest": "d" * 64,
        "image": "sha256:" + "e" * 64, "approvals": "f" * 64,
        "inputs": [{"dataset": w.datasets[0], "version": 2, "ciphertext": "0" * 64}],
    }  # fmt: skip
    context = w.c1(**{"run": run, "challenge": challenge, member: other[member]})
    assert "context" in failing(refused(w, w.request(run, challenge, context=context)))


def test_a_context_for_the_portals_broker_is_not_one_for_this(w: World) -> None:
    run = new_run()
    challenge = w.challenge(run)
    context = w.c1(run, challenge, broker=None)
    assert failing(refused(w, w.request(run, challenge, context=context))) == {"context"}


def forged_words(w: World, run: str) -> dict[str, dict[str, str]]:
    good = w.word(run)
    raw = bytearray(shapes.b64_decode(good["document"], "document"))
    raw[raw.index(b'"attempt":1') + 10] = ord("2")
    manifest = w.manifest(run)
    more = [*manifest["inputs"], {**manifest["inputs"][0], "version": 2}]
    other = {**manifest, "inputs": [{**manifest["inputs"][0], "broker": "other"}]}
    return {
        "another key": w.word(run, key=SigningKey.generate()),
        "changed": {**good, "document": shapes.b64_encode(bytes(raw))},
        "signature": {**good, "signature": shapes.b64_encode(bytes(64))},
        "another broker": w.word(run, broker="broker.other.example"),
        "another portal": w.word(run, portal="other.example"),
        "expired": w.word(run, now=w.now - timedelta(minutes=15)),
        "from the future": w.word(run, now=w.now + timedelta(minutes=2)),
        "manifest of another run": w.word(run, manifest=w.manifest(new_run())),
        "inputs that the manifest has not": w.word(
            run, manifest=manifest, inputs=[{"dataset": w.datasets[0], "version": 2, "ciphertext": "0" * 64}]
        ),
        "fewer inputs than the manifest": w.word(
            run,
            manifest={**manifest, "inputs": more},
            inputs=[{"dataset": w.datasets[0], "version": 1, "ciphertext": manifest["inputs"][0]["sha256"]}],
        ),
        "inputs of another broker": w.word(run, manifest=other),
    }


def test_forged_authorisations(w: World) -> None:
    run = new_run()
    challenge = w.challenge(run)
    for what, word in forged_words(w, run).items():
        for call in (
            lambda word=word: w.broker.challenge({"authorisation": word}),
            lambda word=word: w.broker.release(w.request(run, challenge, authorisation=word)),
        ):
            with pytest.raises(Refusal) as refusal:
                call()
            assert refusal.value.code == "authorisation_refused", what
    assert w.log() == []  # strangers cannot fill the log
    # and the portal's signature for another purpose, over the same bytes, is none
    good = w.word(run)
    raw = shapes.b64_decode(good["document"], "document")
    bare = {**good, "signature": shapes.b64_encode(w.portal.sign(raw))}
    with pytest.raises(Refusal):
        w.broker.challenge({"authorisation": bare})


@pytest.mark.parametrize(
    ("policy", "check"),
    [
        ({"images": ["sha256:" + "9" * 64]}, "image"),
        ({"types": ["snp"]}, "type"),
        ({"max_age_seconds": 1}, "age"),
    ],
)
def test_a_policy_that_is_not_met_counts_at_once(w: World, policy: dict[str, Any], check: str) -> None:
    run = new_run()
    body = w.request(run, w.challenge(run))
    w.later(seconds=5)
    w.set_policy(**policy)
    assert check in failing(refused(w, body))
    (entry,) = w.log()
    assert entry["event"] == "refused" and check in entry["failing"] and entry["datasets"][0]["failing"]
    w.set_policy()
    assert failing(refused(w, body)) == {"challenge"}  # no second try on the same challenge


def test_a_policy_changed_after_the_release_holds_for_its_repetition(w: World) -> None:
    run = new_run()
    body = w.request(run, w.challenge(run))
    w.broker.release(body)
    w.set_policy(images=["sha256:" + "9" * 64])
    assert "image" in failing(refused(w, body))


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"nonsense", b'{"v":1,"types":["software"],"images":[],"max_age_seconds":9,"more":1}'],
)
def test_a_policy_that_cannot_be_read_releases_nothing(w: World, content: bytes) -> None:
    run = new_run()
    challenge = w.challenge(run)
    (w.folder / "policy.json").write_bytes(content)
    assert refused(w, w.request(run, challenge)).code == "policy_unreadable"
    (w.folder / "policy.json").unlink()
    assert refused(w, w.request(run, challenge)).code == "policy_unreadable"


def test_software_evidence_never_for_personal_data(w: World) -> None:
    (w.folder / "broker.toml").write_text(
        (w.folder / "broker.toml").read_text().replace("personal_data = false", "personal_data = true")
    )
    w.broker = Broker(config.load(w.folder / "broker.toml"), clock=lambda: w.now)
    run = new_run()
    assert refused(w, w.request(run, w.challenge(run))).code == "policy_unreadable"


def hardware(tier: Tier) -> Any:
    def verify(envelope: bytes, policy: Any, **_: Any) -> Appraisal:
        checks = (Check("nonce", Outcome.PASS, "."), Check("code", Outcome.NOT_AVAILABLE, "."))
        return Appraisal("snp", tier, checks, {"image": IMAGE, "instance": "i"})

    return verify


@pytest.mark.parametrize("tier", list(Tier))
def test_hardware_evidence_must_be_affirming(w: World, monkeypatch: pytest.MonkeyPatch, tier: Tier) -> None:
    run = new_run()
    body = w.request(run, w.challenge(run))
    monkeypatch.setattr(release.evidence, "verify", hardware(tier))
    if tier is Tier.AFFIRMING:
        assert w.opened(run, body["context"], w.broker.release(body)) == w.data_keys
    else:
        assert failing(refused(w, body)) == {"tier"}


def test_datasets_and_grants_that_are_not_those_authorised(w: World) -> None:
    run = new_run()
    challenge = w.challenge(run)
    other = w.sealed(str(uuid.uuid4()))
    for grants in ([], [other], [*w.headers, other], w.headers * 2):
        assert refused(w, w.request(run, challenge, grants=grants)).code == "grants_differ"
    w.headers = [other]
    unknown = new_run()
    assert refused(w, w.request(unknown, w.challenge(unknown))).code == "dataset_unknown"


def test_a_key_wrapped_for_somebody_else(w: World) -> None:
    run = new_run()
    challenge = w.challenge(run)
    (header,) = w.headers
    stranger = seal.generate_key_pair().public
    wrapped = seal.wrap_key(seal.generate_data_key(), stranger, seal.info_data_key(w.datasets[0], 1))
    closed = {"suite": stranger.suite, "recipient": stranger.id, "data": shapes.b64_encode(wrapped)}
    assert (
        refused(w, w.request(run, challenge, grants=[{**header, "wrapped_key": closed}])).code
        == "key_unusable"
    )
    assert [e["event"] for e in w.log()] == ["released", "unusable"]


def test_only_programs_that_the_custodian_named(w: World) -> None:
    for programs, code in ((["d" * 64], "program_refused"), ([], "program_refused"), ([PROGRAM], "")):
        w.write_config(f"programs = {json.dumps(programs)}")
        w.broker = Broker(config.load(w.folder / "broker.toml"), clock=lambda: w.now)
        run = new_run()
        body = w.request(run, w.challenge(run))
        if code:
            assert refused(w, body).code == code
        else:
            assert w.broker.release(body)["keys"]


def test_stop_refuses_everything_and_start_takes_it_back(w: World) -> None:
    run, held = new_run(), new_run()
    challenge = w.challenge(run)
    done = w.request(held, w.challenge(held))
    w.broker.release(done)
    w.broker.stop("The ethics opinion was withdrawn.")
    for body in (w.request(run, challenge), done):
        stopped = refused(w, body)
        assert stopped.code == "stopped" and "The ethics opinion was withdrawn." in str(stopped)
    with pytest.raises(Refusal) as refusal:
        w.challenge(run)
    assert refusal.value.code == "stopped"
    assert w.broker.health() == {"ok": True, "stopped": True}
    assert Broker(w.config, clock=lambda: w.now).state.stopped() is not None  # it outlives the process
    w.broker.start()
    w.broker.start()
    assert w.broker.release(w.request(run, challenge))["keys"]
    assert [e["event"] for e in w.log()] == [
        "released",
        "stopped",
        "refused",
        "refused",
        "started",
        "released",
    ]


def test_a_stop_works_when_the_key_store_does_not(w: World) -> None:
    (w.folder / "keys.json").unlink()
    Broker(w.config, store=w.config.store_unopened(), clock=lambda: w.now).stop("")
    assert State(w.config.state).stopped() is not None


def test_of_many_at_once_one_gets_the_keys(w: World) -> None:
    """Eight machines with one challenge, each with honest evidence for a key of its own."""
    run = new_run()
    challenge = w.challenge(run)
    bodies = []
    for number in range(8):
        machine = Machine(w.attester, instance=f"machine-{number}")
        context = w.c1(run, challenge, hpke_pub=machine.hpke.public, sign_pub=machine.signer.public)
        bodies.append(
            (
                machine,
                w.request(
                    run, challenge, context=context, evidence=machine.evidence(contexts.n1(context), w.now)
                ),
            )
        )
    won: list[Any] = []
    lost: list[Any] = []

    def ask(machine: Machine, body: dict[str, Any]) -> None:
        try:
            won.append((machine, body, w.broker.release(body)))
        except Refusal as refusal:
            lost.append(refusal)

    threads = [threading.Thread(target=ask, args=pair) for pair in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ((machine, body, answer),) = won
    assert len(lost) == 7 and all(failing(r) == {"challenge"} for r in lost)
    assert w.opened(run, body["context"], answer, machine) == w.data_keys
    assert w.broker.state.verify() == 8


def test_a_changed_log_is_found(w: World) -> None:
    import sqlite3

    for _ in range(3):
        run = new_run()
        w.broker.release(w.request(run, w.challenge(run)))
    for change in (
        "UPDATE log SET entry = replace(entry, 'released', 'refused') WHERE number = 1",
        "DELETE FROM log WHERE number = 1",
        "UPDATE log SET hash = upper(hash) WHERE number = 2",
    ):
        copy = w.folder / f"copy-{uuid.uuid4().hex}.sqlite"
        with sqlite3.connect(w.config.state) as source, sqlite3.connect(copy) as target:
            source.backup(target)
            target.execute(change)
            target.commit()
        copy.chmod(0o600)
        with pytest.raises(FormatError, match=r"Entry [12]"):
            State(copy).verify()
    assert w.broker.state.verify() == 3


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604])
def test_state_that_others_may_open_is_refused(w: World, mode: int) -> None:
    w.config.state.chmod(mode)
    with pytest.raises(KeyStoreError) as refusal:
        State(w.config.state)
    assert refusal.value.code == "permissions"


def test_too_many_open_challenges(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from strongroom.broker import state

    monkeypatch.setattr(state, "MAX_OPEN_CHALLENGES", 3)
    for _ in range(3):
        w.challenge(new_run())
    with pytest.raises(Refusal) as refusal:
        w.challenge(new_run())
    assert (refusal.value.code, refusal.value.status) == ("busy", 503)
    w.later(minutes=11)
    assert w.challenge(new_run())


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"context": {}},
        {"evidence": {"v": 1}},
        {"grants": [{}]},
        {"authorisation": {}},
        {"authorisation": {"document": "!", "signature": ""}},
        {"grants": "x"},
    ],
)
def test_malformed_requests(w: World, change: dict[str, Any]) -> None:
    run = new_run()
    challenge = w.challenge(run)
    with pytest.raises((FormatError, Refusal)):
        w.broker.release({**w.request(run, challenge), **change})
    assert not any(e["event"] == "released" for e in w.log())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('kind = "local"', 'kind = "magic"'),
        ('id = "', 'more = 1\nid = "'),
        ("127.0.0.1:0", "127.0.0.1"),
        ("personal_data = false", ""),
        ("personal_data = false", "personal_data = 0"),
        ('policy = "policy.json"', ""),
        ('[datasets."', '[datasets."x'),
        ("[portal]", "[portal"),
    ],
)
def test_configuration_is_read_strictly(w: World, old: str, new: str) -> None:
    path = w.folder / "broker.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(FormatError):
        config.load(path)


def test_the_decision_refuses_where_nothing_is_asked(w: World) -> None:
    run = new_run()
    context = w.c1(run, "A" * 43)
    decision = release.decide(
        context=context, envelope=strictjson.canonical(w.machine.evidence(contexts.n1(context), w.now)), asked=[],
        challenge=release.challenge_check(""), expected={}, trust=w.config.trust, now=w.now,
    )  # fmt: skip
    assert not decision.ok and service.MAX_BODY > 4 << 20 and ID
