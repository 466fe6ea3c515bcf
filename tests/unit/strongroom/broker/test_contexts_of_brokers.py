"""C1 for a custodian's broker and C2's list of brokers: what they add, what they refuse, and that nothing else changed."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path
from typing import Any

import pytest

from strongroom import contexts, shapes, strictjson
from strongroom.errors import FormatError
from strongroom.statement import VERDICT_PREDICATE, parse_statement
from tests.unit.strongroom.broker.world import World

SHA = "0" * 64


@pytest.fixture
def w(tmp_path: Path) -> World:
    return World(tmp_path)


def c2(**changes: Any) -> dict[str, Any]:
    members: dict[str, Any] = {
        "run": str(uuid.UUID(int=1)), "portal": "p", "challenge2": "A" * 43, "e1": SHA, "manifest": SHA, "inputs": [], "outputs": [],
        "statement": SHA, "exit": {"class": "succeeded", "exception_type": None, "line": None}, "started": "2026-11-25T12:00:00Z",
        "ended": "2026-11-25T12:00:01Z", "sign_pub": b"x" * 32,
    }  # fmt: skip
    return contexts.result_context(**{**members, **changes})


def test_without_a_broker_both_are_as_they_were(w: World) -> None:
    context = w.c1(str(uuid.uuid4()), "A" * 43, broker=None)
    assert "broker" not in context and "brokers" not in c2()
    message = b"strongroom/1/key-release\x00" + strictjson.canonical(context)
    assert contexts.n1(context) == shapes.b64url_encode(hashlib.sha256(message).digest())


def test_each_broker_has_a_nonce_of_its_own(w: World) -> None:
    run = str(uuid.uuid4())
    made = [w.c1(run, "A" * 43, broker=broker) for broker in (None, "a", "b")]
    assert len({contexts.n1(context) for context in made}) == 3


def test_the_list_of_brokers_is_sorted_and_each_stands_there_once() -> None:
    two = [{"broker": "b", "e1": SHA}, {"broker": "a", "e1": SHA}]
    made = c2(brokers=two)
    assert [item["broker"] for item in made["brokers"]] == ["a", "b"]
    assert contexts.n2(made) != contexts.n2(c2()) and contexts.parse_result(made) == made
    assert contexts.n2(c2(e1=None, brokers=two)) != contexts.n2(made)
    for wrong in (
        [], two, [two[0], two[0]], [{**two[0], "more": 1}], [{"broker": "", "e1": SHA}], [{"broker": "a", "e1": None}],
        [{"broker": f"{n:02d}", "e1": SHA} for n in range(21)], {}, None,
    ):  # fmt: skip
        with pytest.raises(FormatError):
            contexts.parse_result({**made, "brokers": wrong})
    with pytest.raises(FormatError):
        contexts.parse_result({**made, "broker": "a"})


@pytest.mark.parametrize("broker", ["", 5, None, "a\nb", "x" * 201])
def test_a_brokers_id_is_plain_text(w: World, broker: Any) -> None:
    context = w.c1(str(uuid.uuid4()), "A" * 43)
    with pytest.raises(FormatError):
        contexts.parse_key_release({**context, "broker": broker})


def test_a_verdict_may_name_brokers() -> None:
    one = {"evidence": SHA, "at": "2026-11-25T12:00:00Z", "policies": [SHA], "appraisal": {}}
    predicate: dict[str, Any] = {
        "run": str(uuid.UUID(int=1)), "portal": "p", "manifest": SHA, "at": "2026-11-25T12:00:00Z", "e1": None, "e2": one,
        "ok": True, "tier": "none",
    }  # fmt: skip
    document = {
        "_type": "https://in-toto.io/Statement/v1", "predicateType": VERDICT_PREDICATE,
        "subject": [{"name": "statement.dsse.json", "digest": {"sha256": SHA}}], "predicate": predicate,
    }  # fmt: skip
    assert parse_statement(document, VERDICT_PREDICATE)
    good = {**predicate, "brokers": [{"broker": "a", **one}]}
    assert parse_statement({**document, "predicate": good}, VERDICT_PREDICATE)
    for wrong in ([one], [{"broker": 5, **one}], {}):
        with pytest.raises(FormatError):
            parse_statement({**document, "predicate": {**predicate, "brokers": wrong}}, VERDICT_PREDICATE)
