"""The decision by itself: several policies at once, and what is never enough."""

from __future__ import annotations

import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from strongroom import contexts, seal, strictjson
from strongroom.broker import release
from strongroom.broker.errors import ReleaseError
from strongroom.broker.release import Asked
from strongroom.evidence import Outcome, Policy, Tier
from tests.unit.strongroom.broker.world import IMAGE, World

OTHER = "sha256:" + "b" * 64


@pytest.fixture
def w(tmp_path: Path) -> World:
    return World(tmp_path)


def policy(**changes: Any) -> Policy:
    return Policy.parse({"v": 1, "types": ["software"], "images": [IMAGE], "max_age_seconds": 600, **changes})


def decide(
    w: World, *policies: Policy, fault: str = "", personal: bool = False, late: int = 0
) -> release.Decision:
    run = str(uuid.uuid4())
    context = w.c1(run, "A" * 43)
    return release.decide(
        context=context,
        envelope=strictjson.canonical(w.machine.evidence(contexts.n1(context), w.now)),
        asked=[Asked(str(uuid.UUID(int=n)), 1, p, personal) for n, p in enumerate(policies)],
        challenge=release.challenge_check(fault),
        expected={"run": run, "broker": context["broker"]},
        trust=w.config.trust,
        now=w.now + timedelta(seconds=late),
    )


def ids(checks: Any) -> list[str]:
    return [c.id for c in checks]


def test_each_dataset_is_judged_by_its_own_policy_and_all_must_hold(w: World) -> None:
    decision = decide(w, policy(), policy(images=[OTHER]), policy(max_age_seconds=30), late=40)
    assert [ids(j.failing) for j in decision.judgements] == [[], ["image"], ["age"]]
    assert not decision.ok and sorted(ids(decision.failing)) == ["age", "image"]
    assert decision.appraisal.tier is Tier.CONTRAINDICATED and len(decision.policy_hashes) == 3
    assert decide(w, policy(), policy(max_age_seconds=60)).ok


def test_what_one_policy_does_not_ask_and_another_does_is_on_record(w: World) -> None:
    decision = decide(w, policy(images=[]), policy())
    (image,) = [c for c in decision.appraisal.checks if c.id == "image"]
    assert decision.ok and image.outcome is Outcome.PASS and decision.appraisal.tier is Tier.NONE


def test_policies_that_contradict_each_other_release_nothing(w: World) -> None:
    assert not decide(w, policy(), policy(types=["snp"])).ok
    assert not decide(w, policy(images=[IMAGE]), policy(images=[OTHER])).ok


@pytest.mark.parametrize("fault", release.CHALLENGE_FAULTS)
def test_every_fault_of_a_challenge_counts_for_every_dataset(w: World, fault: str) -> None:
    decision = decide(w, policy(), policy(max_age_seconds=60), fault=fault)
    assert all(ids(j.failing) == ["challenge"] for j in decision.judgements)
    assert release.CHALLENGE_FAULTS[fault] in [c.detail for c in decision.failing]


def test_real_people_are_never_released_to_software(w: World) -> None:
    assert ids(decide(w, policy(), personal=True).failing) == ["personal-data"]


def test_no_policy_is_no_judgement(w: World) -> None:
    with pytest.raises(ValueError, match="policy"):
        release.judge(envelope=b"{}", asked=[], nonce=None, now=w.now, trust=w.config.trust, image=IMAGE)
    nothing = decide(w)
    assert not nothing.ok and ids(nothing.failing) == ["datasets"] and nothing.judgements == ()


@pytest.mark.parametrize("raw", [b"", b"{}", b"\xff", b"[" * 5000, b"null"])
def test_evidence_that_is_none(w: World, raw: bytes) -> None:
    decision = release.judge(
        envelope=raw,
        asked=[Asked(w.datasets[0], 1, policy(), False)],
        nonce="x",
        now=w.now,
        trust=w.config.trust,
        image=IMAGE,
    )
    assert not decision.ok and decision.to_json("2026-11-25T12:00:00Z")["appraisal"]["ok"] is False


def test_a_key_for_another_dataset_or_version_does_not_open(w: World) -> None:
    context = w.c1(str(uuid.uuid4()), "A" * 43)
    header = seal.parse_seal_header(w.headers[0])
    assert release.wrap(w.store, context, [header])[0]["suite"] == w.machine.hpke.suite
    moved = seal.parse_seal_header({**w.headers[0], "version": 2})
    with pytest.raises(ReleaseError) as refused:
        release.wrap(w.store, context, [header, moved])
    assert refused.value.dataset == w.datasets[0]
