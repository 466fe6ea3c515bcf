"""Whether runs may still use the keys that a broker released to them: asked by the portal alone, judged as of then."""

from __future__ import annotations

import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from strongroom import shapes, strictjson
from strongroom.broker import authorisation, config, standing
from strongroom.broker.errors import Refusal
from strongroom.broker.service import Broker
from strongroom.errors import FormatError
from strongroom.signing import SigningKey
from tests.unit.strongroom.broker.world import ID, PORTAL, PROGRAM, World


@pytest.fixture
def w(tmp_path: Path) -> World:
    return World(tmp_path, datasets=2)


def released(w: World) -> str:
    run = str(uuid.uuid4())
    w.broker.release(w.request(run, w.challenge(run)))
    return run


def question(w: World, *runs: str, **changes: Any) -> dict[str, Any]:
    arguments = {
        "key": w.portal,
        "portal": PORTAL,
        "broker": ID,
        "runs": [(run, 1) for run in runs],
        "now": w.now,
        **changes,
    }
    return {"question": standing.ask(arguments.pop("key"), **arguments)}


def said(w: World, run: str, **changes: Any) -> tuple[str, str]:
    found = standing.read(w.broker.standing(question(w, run, **changes)))
    (answer,) = found.values()
    return answer.standing, answer.code


def restart(w: World) -> None:
    w.broker = Broker(config.load(w.folder / "broker.toml"), clock=lambda: w.now)


def test_a_release_stands_however_old_its_evidence_is_by_now(w: World) -> None:
    run = released(w)
    before = w.log()
    assert said(w, run) == ("permitted", "")
    w.later(hours=40)  # its evidence would be too old for a release now
    assert said(w, run) == ("permitted", "")
    assert w.log() == before  # nothing was decided


def test_a_run_that_got_nothing_here_is_not_known(w: World) -> None:
    run = released(w)
    assert said(w, str(uuid.uuid4())) == ("unknown", "not_released")
    assert said(w, run, runs=[(run, 2)]) == ("unknown", "not_released")
    assert w.broker.standing(question(w)) == {"runs": []}


def test_a_stop_takes_back_all_and_a_start_gives_them_again(w: World) -> None:
    runs = [released(w), released(w)]
    w.broker.stop("An inspection,\nand a question.\x07")
    found = standing.read(w.broker.standing(question(w, *runs)))
    assert {(a.standing, a.code) for a in found.values()} == {("withdrawn", "stopped")} and len(found) == 2
    assert all("An inspection, and a question." in a.detail for a in found.values())
    w.broker.start()
    assert said(w, runs[0]) == ("permitted", "")


def test_a_changed_policy_judges_the_evidence_of_then(w: World) -> None:
    run = released(w)
    w.later(hours=1)
    w.set_policy(max_age_seconds=599)  # another policy, which the evidence satisfied when it came
    assert said(w, run) == ("permitted", "")
    w.set_policy(images=["sha256:" + "9" * 64])
    assert said(w, run) == ("withdrawn", "policy_not_met")
    (answer,) = standing.read(w.broker.standing(question(w, run))).values()
    assert "image" in answer.detail
    w.set_policy()
    assert said(w, run) == ("permitted", "")
    (w.folder / "policy.json").write_text("{")
    assert said(w, run) == ("unknown", "policy_unreadable")


def test_what_is_struck_from_the_configuration_counts_after_a_restart(w: World) -> None:
    run = released(w)
    whole = list(w.datasets)
    w.datasets = whole[:1]
    w.write_config()
    assert said(w, run) == ("permitted", "")
    restart(w)
    assert said(w, run) == ("withdrawn", "dataset_unknown")
    w.datasets = whole
    w.write_config(more=f'programs = ["{PROGRAM}"]')
    restart(w)
    assert said(w, run) == ("permitted", "")
    w.write_config(more=f'programs = ["{"d" * 64}"]')
    restart(w)
    assert said(w, run) == ("withdrawn", "program_refused")


def test_one_datasets_no_counts_beside_anothers_doubt(w: World) -> None:
    run = released(w)
    first, second = sorted(w.datasets)
    text = (w.folder / "broker.toml").read_text()
    at = text.index(f'[datasets."{first}"]')
    (w.folder / "broker.toml").write_text(
        text[:at] + text[at:].replace('policy = "policy.json"', 'policy = "none.json"', 1)
    )
    restart(w)
    assert said(w, run) == ("unknown", "policy_unreadable")
    w.set_policy(images=["sha256:" + "9" * 64])
    assert said(w, run) == ("withdrawn", "policy_not_met")
    assert second in w.datasets


def test_only_the_portal_may_ask(w: World) -> None:
    run = released(w)
    word = authorisation.sign(
        w.portal, portal=PORTAL, broker=ID, run=run, attempt=1, manifest=w.manifest(run),
        inputs=[{"dataset": h["dataset"], "version": h["version"], "ciphertext": h["ciphertext"]["sha256"]} for h in w.headers],
        now=w.now,
    )  # fmt: skip
    for asked, code in (
        (question(w, run, key=SigningKey.generate()), "authorisation_refused"),
        (question(w, run, broker="another.example"), "authorisation_refused"),
        (question(w, run, portal="another.example"), "authorisation_refused"),
        (question(w, run, now=w.now - timedelta(minutes=15)), "authorisation_refused"),
        (question(w, run, now=w.now + timedelta(minutes=2)), "authorisation_refused"),
        ({"question": word}, "authorisation_refused"),  # the portal's signature, for something else
    ):
        with pytest.raises(Refusal) as refusal:
            w.broker.standing(asked)
        assert refusal.value.code == code and run not in str(refusal.value)


def test_a_question_is_no_authorisation(w: World) -> None:
    with pytest.raises(Refusal) as refusal:
        w.broker.challenge({"authorisation": question(w, str(uuid.uuid4()))["question"]})
    assert refusal.value.code == "authorisation_refused"


@pytest.mark.parametrize(
    "body", [None, {}, {"question": None}, {"question": {}}, {"question": [], "more": 1}]
)
def test_a_malformed_question(w: World, body: Any) -> None:
    with pytest.raises(FormatError):
        w.broker.standing(body)


def test_a_question_has_a_bound(w: World) -> None:
    runs = [(str(uuid.uuid4()), 1)] * (standing.MAX_RUNS + 1)
    with pytest.raises(FormatError):
        standing.ask(w.portal, portal=PORTAL, broker=ID, runs=runs, now=w.now)


def test_a_signed_document_with_more_in_it_is_refused(w: World) -> None:
    asked = question(w, str(uuid.uuid4()))["question"]
    document = strictjson.loads(shapes.b64_decode(asked["document"], "it"), what="it") | {"more": 1}
    raw = strictjson.canonical(document)
    signature = w.portal.sign(b"strongroom/1/key-standing\x00" + raw)
    with pytest.raises(FormatError):
        w.broker.standing(
            {"question": {"document": shapes.b64_encode(raw), "signature": shapes.b64_encode(signature)}}
        )


def test_what_a_release_was_decided_on_is_kept_for_a_month(w: World) -> None:
    run = released(w)
    w.later(days=31)
    assert said(w, run) == ("permitted", "")
    released(w)
    assert said(w, run) == ("unknown", "not_released")
