"""Confidential containers under authorities of our own: what is accepted, and each single thing that is not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom import evidence, strictjson
from strongroom.errors import FormatError
from strongroom.evidence import Appraisal, Outcome, Policy, Tier, Trust, azure_aci, cbor, cose
from tests.unit.strongroom.evidence import authority_amd as amd
from tests.unit.strongroom.evidence.authority_amd import (
    ACI_REPORT,
    NOW,
    Endorsement,
    aci_evidence,
    did,
    uvm_chain,
)

TRUST = Trust(anchors=amd.anchors())
POLICY = Policy.parse(amd.policy("azure-aci"))
LAYOUTS = ("text", "cwt", "hash")
SIGNED = int(amd.UVM_SIGNED.timestamp())
CLAIMS = {1: did(), 2: "ContainerPlat-AMD-UVM", 6: SIGNED, "svn": 103}


def judge(data: bytes, **changes: Any) -> Appraisal:
    given_ = {"policy": POLICY, "now": NOW, "expected_nonce": amd.NONCE, "trust": TRUST, **changes}
    return evidence.verify(data, given_.pop("policy"), **given_)


def endorsed(**changes: Any) -> bytes:
    return aci_evidence(endorsement=Endorsement(**changes).cose())


def outcomes(appraisal: Appraisal) -> dict[str, str]:
    return {check.id: check.outcome.value for check in appraisal.checks}


def failed(appraisal: Appraisal) -> set[str]:
    return {check.id for check in appraisal.checks if check.outcome is Outcome.FAIL}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tag", [True, False])
def test_every_layout_of_an_endorsement(layout: str, tag: bool) -> None:
    appraisal = judge(endorsed(layout=layout, tag=tag))
    assert appraisal.tier is Tier.AFFIRMING and not failed(appraisal)
    digest = hashlib.sha256(amd.CCE_POLICY).hexdigest()
    assert appraisal.claims["image"] == amd.IMAGE
    assert appraisal.claims["code"] == {"measurement": "4d" * 48, "host_data": digest, "cce_policy": digest}
    assert appraisal.claims["uvm"] == {"feed": "ContainerPlat-AMD-UVM", "svn": 103, "issuer": did()}
    assert strictjson.loads(strictjson.canonical(appraisal.to_json()))["claims"] == appraisal.claims


@pytest.mark.parametrize(
    "changes",
    [
        {"svn": 103},
        {"header": {34: [-16, hashlib.sha256(uvm_chain()[0]).digest()]}},
        {"header": {"signingtime": SIGNED}},
        {"layout": "hash", "header": {259: ..., 300: "application/octet-stream", 258: ...}},
        {"layout": "cwt", "header": {3: ..., 259: "application/json"}},
        {"layout": "hash", "header": {15: {**CLAIMS, 6: amd.Tagged(1, SIGNED)}}},
        {"layout": "cwt", "signed_at": None, "header": {"signingtime": amd.Tagged(1, SIGNED)}},
        {"header": {"something new": 1}},
        {"chain": uvm_chain()[:3]},
    ],
)
def test_forms_of_the_same_endorsement(changes: dict[str, Any]) -> None:
    assert judge(endorsed(**changes)).tier is Tier.AFFIRMING


OTHER_ROOT = uvm_chain("other-root")
ENDORSEMENTS: dict[str, dict[str, Any]] = {
    "other feed": {"feed": "ContainerPlat-AMD-UVM-Test"},
    "feed of another service": {"feed": "ConfAKS-AMD-UVM"},
    "no feed": {"header": {"feed": ...}},
    "wrong fingerprint in the did": {"issuer": did(b"another")},
    "wrong purpose in the did": {"issuer": did(purpose="1.3.6.1.4.1.311.76.59.1.5")},
    "did of another method": {"issuer": did().replace("x509", "web")},
    "a longer did": {"issuer": did() + "::subject:CN:x"},
    "no did": {"header": {"iss": ...}},
    "untrusted root": {"chain": OTHER_ROOT},
    "untrusted root, in its own name": {"chain": OTHER_ROOT, "issuer": did(OTHER_ROOT[-1])},
    "the root swapped": {"chain": (*uvm_chain()[:2], OTHER_ROOT[-1])},
    "no root": {"chain": uvm_chain()[:2]},
    "the root first": {"chain": tuple(reversed(uvm_chain()))},
    "the signer alone": {"chain": uvm_chain()[:1]},
    "a stranger's certificate first": {"chain": (OTHER_ROOT[0], *uvm_chain()[1:])},
    "an authority that may not sign": {"chain": uvm_chain(ca=False)},
    "a signer for other things": {"chain": uvm_chain(purposes=("1.3.6.1.4.1.311.76.59.1.1",))},
    "a signer for nothing": {"chain": uvm_chain(purposes=())},
    "another key": {"signer": "uvm-stranger"},
    "PS256": {"alg": -37},
    "ES384": {"alg": -35},
    "no algorithm": {"header": {1: ...}},
    "critical headers": {"header": {2: [1]}},
    "other thumbprint": {"header": {34: [-16, bytes(32)]}},
    "no chain": {"header": {33: ...}},
    "one certificate not in an array": {"header": {33: uvm_chain()[0]}},
    "signed in the future": {"signed_at": NOW + timedelta(minutes=5)},
    "signed after the signer's time": {"signed_at": amd.UVM_LEAF_UNTIL + timedelta(seconds=1)},
    "signed before the signer's time": {"signed_at": amd.NOT_BEFORE - timedelta(seconds=1)},
    "no signing time, and the signer's time is over": {"signed_at": None},
    "a signing time of another form": {"header": {"signingtime": "2025-06-01"}},
    "payload of another type": {"header": {3: "text/plain"}},
    "payload of no type": {"header": {3: ...}},
    "payload of two types": {"header": {259: "application/json"}},
    "payload that is not JSON": {"payload": b"{"},
    "payload without a version": {"payload": b'{"x-ms-sevsnpvm-launchmeasurement": "%s"}' % (b"4d" * 48)},
    "measurement in capitals": {
        "payload": b'{"x-ms-sevsnpvm-launchmeasurement": "%s", "x-ms-sevsnpvm-guestsvn": "103"}' % (b"4D" * 48)
    },
    "measurement twice": {
        "payload": b'{"x-ms-sevsnpvm-launchmeasurement": "%s", "x-ms-sevsnpvm-launchmeasurement": "%s",'
        b' "x-ms-sevsnpvm-guestsvn": "103"}' % (b"4d" * 48, b"4d" * 48)
    },
    "version with a sign": {"svn": "+103"},
    "version in Arabic-Indic digits": {"svn": "١٠٣"},
    "version as a fraction": {"svn": 103.5},
    "two versions": {"layout": "cwt", "header": {15: {**CLAIMS, "svn": 104}}},
    "two signing times": {"layout": "cwt", "header": {"signingtime": amd.Tagged(1, SIGNED)}},
    "claims without a signing time": {"layout": "cwt", "signed_at": None},
    "claims signed after the signer's time": {
        "layout": "hash",
        "signed_at": amd.UVM_LEAF_UNTIL + timedelta(seconds=1),
    },
    "claims with a signing time of another form": {"layout": "cwt", "header": {15: {**CLAIMS, 6: "2025"}}},
    "claims that are none": {"header": {15: None}},
    "issuer in two ways": {"layout": "cwt", "header": {"iss": did()}},
    "hash without a version": {"layout": "hash", "header": {15: {n: v for n, v in CLAIMS.items() if n != "svn"}}},
    "hash of another size": {"layout": "hash", "payload": b"\x4d" * 32},
    "hash of another kind": {"layout": "hash", "header": {258: -16}},
}  # fmt: skip


@pytest.mark.parametrize("what", ENDORSEMENTS)
def test_endorsements_that_are_refused(what: str) -> None:
    appraisal = judge(endorsed(**ENDORSEMENTS[what]))
    assert appraisal.tier is Tier.CONTRAINDICATED
    assert failed(appraisal) == {"uvm-endorsement"}
    assert outcomes(appraisal)["uvm-measurement"] == "not_available"


def test_without_a_pinned_authority_nothing_is_endorsed() -> None:
    anchors = tuple(anchor for anchor in amd.anchors() if anchor.purpose != "uvm-root")
    assert failed(judge(aci_evidence(), trust=Trust(anchors=anchors))) == {"uvm-endorsement"}


def test_now_decides_on_the_authorities_and_the_signing_time_on_the_signer() -> None:
    policy = replace(POLICY, max_age_seconds=366 * 86400)
    vek = amd.Vek(not_after=amd.NOT_AFTER + 400 * amd.DAY).der()
    at = amd.NOT_AFTER + amd.DAY
    late = judge(aci_evidence(vek=vek, collected=at), now=at, policy=policy)
    assert "uvm-endorsement" in failed(late)
    during = amd.UVM_SIGNED + amd.DAY
    unsigned = aci_evidence(endorsement=Endorsement(signed_at=None).cose(), collected=during)
    assert judge(unsigned, now=during).tier is Tier.AFFIRMING


WRONG: dict[str, tuple[set[str], Callable[[], bytes]]] = {
    "another utility VM": ({"uvm-measurement"}, lambda: endorsed(measurement=b"\x4e" * 48)),
    "another policy in force": ({"cce-policy"}, lambda: aci_evidence(cce_policy=amd.CCE_POLICY + b"\n")),
    "policy still in base64": ({"cce-policy"}, lambda: aci_evidence(cce_policy=b"cGFja2FnZSBwb2xpY3kK")),
    "runtime data of another": ({"runtime-data"}, lambda: aci_evidence(runtime_data=b"other")),
    "debug": ({"debug"}, lambda: aci_evidence(replace(ACI_REPORT, policy=amd.POLICY | 1 << 19).sign())),
    "vmpl": ({"vmpl"}, lambda: aci_evidence(replace(ACI_REPORT, vmpl=2).sign())),
    "another nonce": ({"nonce"}, lambda: aci_evidence(replace(ACI_REPORT, report_data=b"x" * 32).sign())),
    "another key": ({"signature"}, lambda: aci_evidence(vek=amd.Vek(key="other").der())),
    "a root of one's own": (
        {"trust-anchor", "chain"},
        lambda: aci_evidence(chain=amd.pem(amd.intermediate(root="stranger"), amd.ark(label="stranger"))),
    ),
    "revoked": ({"revocation"}, lambda: aci_evidence(crl=amd.crl(revoked=(amd.SERIALS["ask"],)))),
    "old": ({"age"}, lambda: aci_evidence(collected=NOW - timedelta(seconds=601))),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_refused(what: str) -> None:
    checks, build = WRONG[what]
    appraisal = judge(build())
    assert appraisal.tier is Tier.CONTRAINDICATED and failed(appraisal) == checks


def test_a_policy_that_allows_everything_is_refused_even_where_it_is_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (digest,) = azure_aci.ALLOW_ALL
    assert len(bytes.fromhex(digest)) == 32
    monkeypatch.setattr(azure_aci, "ALLOW_ALL", frozenset((hashlib.sha256(amd.CCE_POLICY).hexdigest(),)))
    assert failed(judge(aci_evidence())) == {"cce-policy"}


def test_host_data_of_the_known_policy_that_allows_everything() -> None:
    (digest,) = azure_aci.ALLOW_ALL
    report = replace(ACI_REPORT, host_data=bytes.fromhex(digest))
    code = [{"type": "azure-aci", "image": amd.IMAGE, "cce_policy": digest}]
    policy = Policy.parse(amd.policy("azure-aci", code=code))
    assert failed(judge(aci_evidence(report.sign()), policy=policy)) == {"cce-policy"}


def test_runtime_data() -> None:
    data = b'{"keys": []}'
    report = replace(ACI_REPORT, report_data=hashlib.sha256(data).digest())
    appraisal = judge(
        aci_evidence(report.sign(), runtime_data=data), expected_nonce=hashlib.sha256(data).digest()
    )
    assert appraisal.tier is Tier.AFFIRMING and outcomes(appraisal)["runtime-data"] == "pass"
    assert outcomes(judge(aci_evidence()))["runtime-data"] == "not_available"


CONDITIONS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("uvm-svn", {"uvm_svn": 103}, {"uvm_svn": 104}),
    ("tee", {"tees": ["sev-snp"]}, {"tees": ["tdx"]}),
    ("product-accepted", {"products": ["Milan"]}, {"products": ["Genoa"]}),
    ("tcb", {"tcb": {"Milan": {"snp": 24}}}, {"tcb": {"Milan": {"snp": 25}}}),
    ("code", {}, {"code": [{"type": "azure-aci", "image": amd.IMAGE, "cce_policy": "ab" * 32}]}),
    ("code", {}, {"images": ["sha256:" + "cd" * 32]}),
]


@pytest.mark.parametrize(("check", "met", "not_met"), CONDITIONS)
def test_each_condition_both_ways(check: str, met: dict[str, Any], not_met: dict[str, Any]) -> None:
    good = judge(aci_evidence(), policy=Policy.parse(amd.policy("azure-aci", **met)))
    assert good.tier is Tier.AFFIRMING and outcomes(good)[check] == "pass"
    assert failed(judge(aci_evidence(), policy=Policy.parse(amd.policy("azure-aci", **not_met)))) == {check}


def test_reference_values_of_another_type_do_not_count() -> None:
    snp = {"type": "snp", "image": amd.IMAGE, "measurement": "4d" * 48}
    appraisal = judge(aci_evidence(), policy=Policy.parse(amd.policy("azure-aci", code=[snp])))
    assert appraisal.tier is Tier.WARNING and outcomes(appraisal)["code"] == "not_available"


def test_parts_that_are_missing_or_not_known() -> None:
    document = strictjson.loads(aci_evidence())
    for name in ("report", "cce-policy", "uvm-endorsement"):
        parts = {part: value for part, value in document["parts"].items() if part != name}
        assert failed(judge(strictjson.canonical({**document, "parts": parts}))) == {"format"}
    more = {**document["parts"], "quote": ""}
    assert failed(judge(strictjson.canonical({**document, "parts": more}))) == {"format"}
    assert failed(judge(strictjson.canonical({**document, "collateral": {}}))) == {"format"}


@pytest.mark.parametrize("name", ["timestamp", 269, 270])
def test_a_time_stamp_is_named_and_not_read(name: str | int) -> None:
    """Microsoft's endorsements have one; it neither refuses nor raises the tier."""
    made = Endorsement()
    message = [made.protected(), {name: b"\x30\x00"}, made.content(), cose.parse(made.cose()).signature]
    stamped = judge(aci_evidence(endorsement=amd.cbor(amd.Tagged(18, message))))
    message[1] = {}
    plain = judge(aci_evidence(endorsement=amd.cbor(amd.Tagged(18, message))))
    assert stamped.tier is plain.tier is Tier.AFFIRMING
    assert outcomes(stamped)["uvm-time-stamp"] == "not_available" and "uvm-time-stamp" not in outcomes(plain)


@settings(max_examples=200)
@given(st.sampled_from(LAYOUTS), st.data())
def test_any_flipped_bit_of_what_is_signed_in_the_endorsement(layout: str, data: st.DataObject) -> None:
    """All but the unprotected header, which nothing signs and nobody reads."""
    made = Endorsement(layout=layout)
    parts = [made.protected(), made.content(), cose.parse(made.cose()).signature]
    which = data.draw(st.integers(0, 2))
    bit = data.draw(st.integers(0, len(parts[which]) * 8 - 1))
    changed = bytearray(parts[which])
    changed[bit // 8] ^= 1 << bit % 8
    parts[which] = bytes(changed)
    message = amd.cbor(amd.Tagged(18, [parts[0], {}, parts[1], parts[2]]))
    assert "uvm-endorsement" in failed(judge(aci_evidence(endorsement=message)))


@settings(max_examples=100)
@given(st.integers(0, 10**9))
def test_any_flipped_bit_of_the_report(position: int) -> None:
    report = bytearray(ACI_REPORT.sign())
    bit = position % (0x330 * 8)
    report[bit // 8] ^= 1 << bit % 8
    assert judge(aci_evidence(bytes(report))).tier is Tier.CONTRAINDICATED


@settings(max_examples=150)
@given(st.binary(max_size=600), st.integers(0, 5000), st.integers(0, 60))
def test_noise_in_the_endorsement(noise: bytes, start: int, cut: int) -> None:
    good = Endorsement().cose()
    start %= len(good)
    changed = good[:start] + noise + good[start + cut :]
    appraisal = judge(aci_evidence(endorsement=changed))
    assert appraisal.tier is Tier.AFFIRMING or failed(appraisal) == {"uvm-endorsement"}
    assert failed(judge(aci_evidence(endorsement=noise))) == {"uvm-endorsement"}


@settings(max_examples=100)
@given(st.binary(max_size=300))
def test_a_signed_endorsement_of_any_payload(payload: bytes) -> None:
    assert "uvm-endorsement" in failed(judge(endorsed(payload=payload)))


values: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.binary(max_size=300)
    | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.integers(-9, 2**40) | st.text(max_size=4), inner, max_size=4)
        | st.builds(amd.Tagged, st.integers(0, 2**33), inner)
    ),
    max_leaves=12,
)


def plain(value: Any) -> Any:
    """The reader's tags as the authority's."""
    match value:
        case cbor.Tag(number, inner):
            return amd.Tagged(number, plain(inner))
        case list():
            return [plain(item) for item in value]
        case dict():
            return {name: plain(item) for name, item in value.items()}
    return value


@given(values)
def test_cbor_round_trip(value: Any) -> None:
    assert plain(cbor.loads(amd.cbor(value))) == value


@settings(max_examples=300)
@given(st.binary(max_size=80))
def test_cbor_noise(data: bytes) -> None:
    try:
        value = cbor.loads(data)
    except FormatError:
        return
    assert amd.cbor(plain(value)) == data, "one value has one form"


@pytest.mark.parametrize(
    "data",
    [
        "", "1800", "190001", "1a00000001", "1b0000000000000001", "1c", "5f41ff", "9fff", "bfff", "f90000", "f97e00",
        "f800", "f7", "a201010102", "a2613101613102", "a1f401", "a18001", "a1410001", "5b7fffffffffffffff",
        "9b7fffffffffffffff", "bb7fffffffffffffff", "61ff", "0000", "81" * 20 + "00", "c1" * 20 + "00", "ff",
    ],
)  # fmt: skip
def test_cbor_that_is_refused(data: str) -> None:
    with pytest.raises(FormatError):
        cbor.loads(bytes.fromhex(data))


@settings(max_examples=60)
@given(st.sampled_from([1, 3, 15, 33, 34, 258, 259, "iss", "feed", "signingtime", 2]), values)
def test_any_value_in_any_header(name: int | str, value: Any) -> None:
    """Even under a signature: never an exception, and never accepted unless the value is the good one."""
    made = Endorsement(layout="cwt")
    good = cbor.loads(made.protected())
    appraisal = judge(endorsed(layout="cwt", header={name: value}))
    harmless = plain(good.get(name)) == value or (
        name in (34, "signingtime", 258) and failed(appraisal) == set()
    )
    assert harmless or failed(appraisal) == {"uvm-endorsement"}
