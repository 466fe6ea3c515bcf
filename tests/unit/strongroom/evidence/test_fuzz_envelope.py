"""Valid envelopes of every type, changed in ways that know their structure: never an exception, never accepted.

All types are judged by one policy and one trust store that hold what each needs, so that a part of one type is met by
the verifier of another with everything that could make it pass. What may change without a refusal is only what no
claim depends on (a line break in a PEM file); then every claim must have stayed the same.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom import evidence, strictjson
from strongroom.evidence import SUPPORTED, Appraisal, Policy, Tier, Trust, envelope, software
from strongroom.signing import SigningKey
from tests.unit.strongroom.evidence import authority_amd as amd
from tests.unit.strongroom.evidence import authority_cvm as cvm
from tests.unit.strongroom.evidence import authority_intel as intel
from tests.unit.strongroom.evidence import authority_tokens as tokens

NOW = datetime(2026, 2, 1, 12, 0, tzinfo=UTC)
ATTESTER = SigningKey(b"\x07" * 32)
# Parts that are covered byte for byte. Others have some freedom of form (a COSE message with or without its tag), or
# bytes that nobody signs.
EXACT = ("token", "cce-policy", "key", "signature")


@dataclass(frozen=True)
class Case:
    """One valid envelope and what it is bound to."""

    type: str
    parts: Mapping[str, bytes]
    collateral: Mapping[str, bytes]
    nonce: str | bytes


@cache
def _google() -> tokens.Google:
    return tokens.Google()


def _case(data: bytes, nonce: str | bytes) -> Case:
    parsed = envelope.parse(data)
    return Case(parsed.type, dict(parsed.parts), dict(parsed.collateral), nonce)


def _n1(field: bytes) -> str:
    return base64.urlsafe_b64encode(field[:32]).rstrip(b"=").decode()


@cache
def cases() -> dict[str, Case]:
    claims = tokens.google_claims(NOW)
    google, maa = _google(), tokens.Maa()
    runtime = {"runtime-data": tokens.RUNTIME_DATA}
    domain = intel.Domain()
    report = amd.Report()
    soft = software.make(
        ATTESTER, nonce=tokens.NONCE, image=tokens.IMAGE, host="h", instance="i", boot=NOW, now=NOW
    )
    gcp = "gcp-confidential-space"
    report_data = report.body()[0x50:0x90]
    # Another context than the other reports', or a good report of theirs would rightly be accepted in its place.
    aci_data = hashlib.sha256(b"containers").digest()
    containers = replace(amd.ACI_REPORT, report_data=aci_data.ljust(64, b"\0"))
    return {
        "software": _case(soft, tokens.NONCE),
        "google-pki": _case(tokens.wrap(gcp, google.pki(claims), NOW), tokens.NONCE),
        "google-oidc": _case(
            tokens.wrap(gcp, google.oidc(claims), NOW, collateral={"jwks": google.jwks}), tokens.NONCE
        ),
        "maa-vm": _case(tokens.wrap("azure-maa", maa.token(tokens.maa_vm_claims(NOW)), NOW), tokens.NONCE),
        "maa-group": _case(
            tokens.wrap("azure-maa", maa.token(tokens.maa_containers_claims(NOW)), NOW, parts=runtime),
            tokens.NONCE,
        ),
        "snp": _case(
            amd.evidence(report.sign(), amd.Vek().der(), chain=amd.chain(), collected=NOW), _n1(report_data)
        ),
        "aci": _case(amd.aci_evidence(containers.sign(), collected=NOW), _n1(aci_data)),
        "tdx": _case(
            intel.seal(domain.quote(), now=NOW, collateral=intel.collateral(intel.Authority())),
            _n1(domain.report_data),
        ),
        "cvm-snp": _case(cvm.Machine().seal(now=NOW), _n1(cvm.NONCE)),
        "cvm-tdx": _case(
            cvm.Machine(tdx=True).seal(now=NOW, **{"tdx-collateral": intel.collateral(intel.Authority())}),
            _n1(cvm.NONCE),
        ),
    }


CASES = (
    "software", "google-pki", "google-oidc", "maa-vm", "maa-group", "snp", "aci", "tdx", "cvm-snp", "cvm-tdx",
)  # fmt: skip


@cache
def trust() -> Trust:
    anchors = (*_google().anchors, *tokens.Maa().anchors, *cvm.anchors())
    return Trust.of(software_keys=[ATTESTER.public], anchors=anchors)


POLICY = Policy(SUPPORTED, (), 3600, support=("STABLE",), maa={tokens.MAA: [tokens.MAA_POLICY]})


def judge(data: bytes, nonce: str | bytes) -> Appraisal:
    appraisal = evidence.verify(data, POLICY, now=NOW, expected_nonce=nonce, trust=trust())
    assert appraisal.ok == (appraisal.tier is not Tier.CONTRAINDICATED)
    strictjson.canonical(appraisal.to_json())
    return appraisal


def build(case: Case, type_: str, parts: Mapping[str, bytes], collateral: Mapping[str, bytes]) -> bytes:
    return envelope.build(type_, parts, collected=NOW, collateral=collateral)


@cache
def good(name: str) -> tuple[bytes, Appraisal]:
    case = cases()[name]
    data = build(case, case.type, case.parts, case.collateral)
    return data, judge(data, case.nonce)


@pytest.mark.parametrize("name", CASES)
def test_each_is_accepted_as_it_is(name: str) -> None:
    """Else the other tests here would show nothing."""
    _, appraisal = good(name)
    assert appraisal.ok, [check for check in appraisal.checks if check.outcome == "fail"]
    assert next(c for c in appraisal.checks if c.id == "nonce").outcome == "pass"


def test_every_type_is_here() -> None:
    assert {cases()[name].type for name in CASES} == set(SUPPORTED) and set(cases()) == set(CASES)


# --- changes ---


def flip(raw: bytearray, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))


def cut(raw: bytearray, data: st.DataObject) -> None:
    del raw[data.draw(st.integers(0, len(raw) - 1)) :]


def extend(raw: bytearray, data: st.DataObject) -> None:
    raw += data.draw(st.binary(min_size=1, max_size=8) | st.just(bytes(raw)))


def prepend(raw: bytearray, data: st.DataObject) -> None:
    raw[:0] = data.draw(st.binary(min_size=1, max_size=8))


def blank(raw: bytearray, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(raw) - 1))
    end = data.draw(st.integers(start + 1, min(len(raw), start + 600)))
    raw[start:end] = data.draw(st.sampled_from([b"\0", b"\xff"])) * (end - start)


def repeat(raw: bytearray, data: st.DataObject) -> None:
    """A stretch copied to another place: lengths and tags that are well formed, in the wrong position."""
    size = data.draw(st.integers(1, min(64, len(raw))))
    source, target = (data.draw(st.integers(0, len(raw) - size)) for _ in range(2))
    raw[target : target + size] = raw[source : source + size]


def remove(raw: bytearray, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(raw) - 1))
    del raw[start : start + data.draw(st.integers(1, 40))]


def number(raw: bytearray, data: st.DataObject) -> None:
    """A length or a count with a value at the edge."""
    width = data.draw(st.sampled_from([1, 2, 4, 8]))
    at = data.draw(st.integers(0, max(0, len(raw) - width)))
    value = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, (1 << 8 * width) - 1, 1 << (8 * width - 1)]))
    value %= 1 << 8 * width
    raw[at : at + width] = value.to_bytes(width, data.draw(st.sampled_from(["little", "big"])))


BYTES: list[Callable[[bytearray, st.DataObject], None]] = [
    flip, cut, extend, prepend, blank, repeat, remove, number,
]  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
@settings(max_examples=150)
def test_bytes_of_one_member(name: str, data: st.DataObject) -> None:
    case = cases()[name]
    held = data.draw(st.sampled_from(["parts", "collateral"])) if case.collateral else "parts"
    members = dict(getattr(case, held))
    part = data.draw(st.sampled_from(sorted(members)))
    raw = bytearray(members[part])
    data.draw(st.sampled_from(BYTES))(raw, data)
    members[part] = bytes(raw)
    parts = members if held == "parts" else case.parts
    collateral = members if held == "collateral" else case.collateral
    _check(name, case, case.type, parts, collateral, changed=part)


def _check(
    name: str,
    case: Case,
    type_: str,
    parts: Mapping[str, bytes],
    collateral: Mapping[str, bytes],
    *,
    changed: str = "",
) -> None:
    before, accepted = good(name)
    made = build(case, type_, parts, collateral)
    appraisal = judge(made, case.nonce)
    if made == before or not appraisal.ok:
        return
    assert changed not in EXACT, f"{changed} was changed, and the evidence is still accepted"
    assert appraisal.type == accepted.type
    assert _rank(appraisal) <= _rank(accepted)
    assert _lasting(appraisal.claims) == _lasting(accepted.claims), (
        f"{changed} was changed, and a claim with it"
    )


def _rank(appraisal: Appraisal) -> int:
    return [Tier.CONTRAINDICATED, Tier.NONE, Tier.WARNING, Tier.AFFIRMING].index(appraisal.tier)


def _lasting(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Without what depends on collateral: its absence lowers the tier, and is said, but changes no fact of the machine."""
    return {name: value for name, value in claims.items() if name not in ("collected", "tcb", "attester")}


@given(data=st.data())
@settings(max_examples=300)
def test_members_left_out_added_renamed_and_exchanged(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(CASES))
    case = cases()[name]
    parts, collateral = dict(case.parts), dict(case.collateral)
    for _ in range(data.draw(st.integers(1, 3))):
        chosen = data.draw(st.sampled_from([parts, collateral]))
        act = data.draw(st.sampled_from(["drop", "add", "rename", "exchange", "empty", "foreign"]))
        if act == "add" or not chosen:
            chosen[data.draw(st.sampled_from(MEMBERS) | st.just("unknown"))] = data.draw(
                st.binary(max_size=40)
            )
            continue
        one = data.draw(st.sampled_from(sorted(chosen)))
        if act == "drop":
            del chosen[one]
        elif act == "rename":
            chosen[data.draw(st.sampled_from(MEMBERS))] = chosen.pop(one)
        elif act == "exchange":
            two = data.draw(st.sampled_from(sorted(chosen)))
            chosen[one], chosen[two] = chosen[two], chosen[one]
        elif act == "empty":
            chosen[one] = b""
        else:
            other = cases()[data.draw(st.sampled_from(CASES))]
            pool = {**other.parts, **other.collateral}
            chosen[one] = pool[data.draw(st.sampled_from(sorted(pool)))]
    _check(name, case, case.type, parts, collateral)


MEMBERS = (
    "token", "runtime-data", "report", "quote", "signature", "pcrs", "hcl-report", "td-quote", "cce-policy", "key",
    "uvm-endorsement", "jwks", "vek", "chain", "crl", "tdx-collateral",
)  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_under_the_name_of_every_other_type(name: str) -> None:
    case = cases()[name]
    for type_ in SUPPORTED:
        if type_ != case.type:
            assert not judge(build(case, type_, case.parts, case.collateral), case.nonce).ok


@pytest.mark.parametrize("name", CASES)
def test_bound_to_something_else(name: str) -> None:
    data, _ = good(name)
    nonces: list[str | bytes] = [
        "B" * 42 + "A",
        b"\0" * 64,
        b"",
        "",
        "x" * 5000,
        "\udcff" * 43,  # what a command line makes of bytes that are no text
        hashlib.sha512(b"x").digest(),
    ]
    for nonce in nonces:
        assert not judge(data, nonce).ok


@pytest.mark.parametrize("name", CASES)
def test_without_a_trust_store_or_with_the_shipped_one(name: str) -> None:
    data, _ = good(name)
    for store in (Trust(), Trust.of()):
        appraisal = evidence.verify(data, POLICY, now=NOW, expected_nonce=cases()[name].nonce, trust=store)
        assert not appraisal.ok and appraisal.tier is Tier.CONTRAINDICATED


@pytest.mark.parametrize("name", CASES)
def test_ten_years_later_and_before(name: str) -> None:
    data, _ = good(name)
    for days in (-3650, 3650):
        appraisal = evidence.verify(
            data, POLICY, now=NOW + timedelta(days=days), expected_nonce=cases()[name].nonce, trust=trust()
        )
        assert not appraisal.ok


@given(data=st.data())
@settings(max_examples=150)
def test_bytes_of_the_envelope(data: st.DataObject) -> None:
    """Its JSON is canonical, so one envelope has one form; only the time of collection is nobody's signature."""
    name = data.draw(st.sampled_from(CASES))
    before, accepted = good(name)
    raw = bytearray(before)
    data.draw(st.sampled_from(BYTES))(raw, data)
    appraisal = judge(bytes(raw), cases()[name].nonce)
    if appraisal.ok and raw != before:
        assert _lasting(appraisal.claims) == _lasting(accepted.claims)


@pytest.mark.parametrize("type_", SUPPORTED)
@given(data=st.data())
@settings(max_examples=40)
def test_random_members(type_: str, data: st.DataObject) -> None:
    names = st.sampled_from(MEMBERS)
    blobs = st.dictionaries(names, st.binary(max_size=300), max_size=5)
    made = envelope.build(type_, data.draw(blobs), collected=NOW, collateral=data.draw(blobs))
    assert not judge(made, "B" * 42 + "A").ok
