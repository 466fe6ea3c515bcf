"""The attester of Confidential Space, against a launcher that speaks as the real one does."""

from __future__ import annotations

import base64
import json
import socket
from datetime import UTC, datetime

import pytest

from strongroom import evidence
from strongroom.evidence import Policy, Tier, envelope, trust
from tests.fakes.launcher import Launcher, Workload, trust_folder
from tests.unit.runner.attesters.conftest import IMAGE, NONCE
from workers.runner.attester import NoEvidence
from workers.runner.attesters.gcp import LauncherAttester

PORTAL = "strongroom.test"
OTHER = "A" * 43


@pytest.fixture
def launcher(short, authority):
    with Launcher(short, authority, Workload(IMAGE)) as running:
        yield running


def attester(launcher: Launcher) -> LauncherAttester:
    return LauncherAttester(launcher.socket, audience=PORTAL, pauses=(0.01, 0.01))


def forged(authority, monkeypatch, **changes):
    """Let the launcher answer with other claims or another header."""
    real = authority.token
    monkeypatch.setattr(authority, "token", lambda claims: real({**claims, **changes}))


def test_a_token_for_our_nonce(launcher, authority, tmp_path):
    raw = attester(launcher).evidence(NONCE)
    (request,) = launcher.asked
    assert request == (
        "POST",
        "/v1/token",
        {"audience": PORTAL, "token_type": "PKI", "nonces": [NONCE]},
    )
    assert set(envelope.parse(raw).parts) == {"token"}
    policy = Policy.parse(
        {"v": 1, "types": ["gcp-confidential-space"], "images": [IMAGE], "max_age_seconds": 60, "audiences": [PORTAL]}
    )  # fmt: skip
    anchors = trust.read(trust_folder(tmp_path / "trust", authority.root), allow_test=True)
    appraisal = evidence.verify(
        raw, policy, now=datetime.now(UTC), expected_nonce=NONCE, trust=evidence.Trust(anchors=anchors)
    )
    assert appraisal.tier is Tier.AFFIRMING, [c for c in appraisal.checks if c.outcome != "pass"]
    assert appraisal.claims["image"] == IMAGE
    shipped = evidence.verify(
        raw, policy, now=datetime.now(UTC), expected_nonce=NONCE, trust=evidence.Trust.of()
    )
    assert shipped.tier is Tier.CONTRAINDICATED


@pytest.mark.parametrize(
    "fault",
    [
        (500, "failed to create REST verifier client"),
        (429, ""),
        (400, "rpc error: code = RESOURCE_EXHAUSTED"),
    ],
)
def test_busy_is_waited_for(launcher, fault):
    launcher.faults = [fault, fault]
    assert attester(launcher).evidence(NONCE)
    assert len(launcher.asked) == 3


def test_busy_for_good(launcher):
    launcher.faults = [(503, "")] * 9
    with pytest.raises(NoEvidence, match="no token"):
        attester(launcher).evidence(NONCE)
    assert len(launcher.asked) == 3


def test_a_refusal_is_final(launcher):
    launcher.faults = [(400, "failed to parse POST body")]
    with pytest.raises(NoEvidence, match="refused a token with 400"):
        attester(launcher).evidence(NONCE)
    assert len(launcher.asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "test-token-not-in-tee-environment",
        "a.b",
        "a.b.c.d",
        "e30.e30.AA",
        "x" * (70 << 10),
        "\x00\xff.e.e",
    ],
)
def test_what_is_no_token(launcher, answer):
    launcher.faults = [(200, answer)]
    with pytest.raises(NoEvidence):
        attester(launcher).evidence(NONCE)


@pytest.mark.parametrize(
    "changes",
    [
        {"eat_nonce": OTHER},
        {"eat_nonce": [OTHER]},
        {"eat_nonce": NONCE[:-1]},
        {"eat_nonce": None},
        {"aud": "https://sts.googleapis.com"},
        {"aud": [PORTAL]},
    ],
)
def test_a_token_for_something_else(launcher, authority, monkeypatch, changes):
    forged(authority, monkeypatch, **changes)
    with pytest.raises(NoEvidence):
        attester(launcher).evidence(NONCE)


@pytest.mark.parametrize(
    "header", [{"alg": "none"}, {"alg": "RS256"}, {"alg": "HS256", "x5c": ["", "", ""]}, []]
)
def test_a_token_of_another_kind(launcher, header):
    def b64(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    launcher.faults = [(200, f"{b64(header)}.{b64({'eat_nonce': NONCE, 'aud': PORTAL})}.AA")]
    with pytest.raises(NoEvidence):
        attester(launcher).evidence(NONCE)


@pytest.mark.parametrize("nonce", ["", "short", "A" * 44, "A" * 42 + "B", "A" * 42 + "+"])
def test_what_is_no_nonce_is_never_asked_for(launcher, nonce):
    with pytest.raises(NoEvidence):
        attester(launcher).evidence(nonce)
    assert launcher.asked == []


def test_nowhere_near_a_launcher(short):
    with pytest.raises(NoEvidence, match="not a workload container"):
        LauncherAttester(short / "teeserver.sock", audience=PORTAL)
    (short / "file").write_text("")
    with pytest.raises(NoEvidence):
        LauncherAttester(short / "file", audience=PORTAL)


def test_a_launcher_that_hangs_up(short):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short / "s"))  # nobody listens
        with pytest.raises(NoEvidence, match="no token"):
            LauncherAttester(short / "s", audience=PORTAL, pauses=(0.01,)).evidence(NONCE)


@pytest.mark.parametrize("audience", ["", "x" * 513])
def test_audiences_that_google_would_refuse(launcher, audience):
    with pytest.raises(NoEvidence):
        LauncherAttester(launcher.socket, audience=audience)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"audience": "a", "token_type": "PKI", "nonces": [NONCE], "extra": 1}, "unknown field"),
        ({"audience": "a", "nonces": [NONCE]}, "token_type"),
        ({"audience": "", "token_type": "PKI", "nonces": [NONCE]}, "default identity"),
        ({"audience": "a", "token_type": "PKI", "nonces": ["short"]}, "nonces"),
        ({"audience": "a", "token_type": "PKI", "nonces": [NONCE] * 7}, "nonces"),
        ("text", "parse"),
    ],
)
def test_the_fake_is_as_strict_as_the_launcher(launcher, body, word):
    status, text = launcher.answer("POST", "/v1/token", json.dumps(body).encode())
    assert status == 400 and word in text
    assert launcher.answer("PUT", "/v1/token", b"")[0] == 400
    assert launcher.answer("POST", "/v2/token", b"")[0] == 404
