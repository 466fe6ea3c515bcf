"""Evidence envelopes, policies, and software evidence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import evidence, shapes, strictjson
from strongroom.errors import FormatError
from strongroom.evidence import Appraisal, Outcome, Policy, Tier, Trust, envelope, software
from strongroom.signing import SigningKey

KEY, OTHER = SigningKey(b"\x01" * 32), SigningKey(b"\x02" * 32)
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
IMAGE = "sha256:" + "ab" * 32
NONCE = "n" * 42 + "Q"
POLICY = Policy(("software",), (IMAGE,), 600)
TRUST = Trust.of(software_keys=[KEY.public])


def make(key: SigningKey = KEY, **changes: Any) -> bytes:
    values: dict[str, Any] = {
        "nonce": NONCE,
        "image": IMAGE,
        "host": "h",
        "instance": "i",
        "boot": NOW,
        "now": NOW,
    }
    return software.make(key, **{**values, **changes})


def verify(data: bytes, **changes: Any) -> Appraisal:
    values: dict[str, Any] = {
        "policy": POLICY,
        "now": NOW,
        "expected_nonce": NONCE,
        "trust": TRUST,
        **changes,
    }
    return evidence.verify(data, values.pop("policy"), **values)


def outcomes(appraisal: Appraisal) -> dict[str, str]:
    return {check.id: check.outcome.value for check in appraisal.checks}


def test_accepted_but_never_more_than_no_protection() -> None:
    appraisal = verify(make())
    assert appraisal.ok and appraisal.tier is Tier.NONE and appraisal.type == "software"
    assert outcomes(appraisal)["hardware-protection"] == "not_available"
    detail = next(c.detail for c in appraisal.checks if c.id == "hardware-protection")
    assert "no hardware protection" in detail
    assert appraisal.claims["image"] == IMAGE and appraisal.claims["instance"] == "i"
    assert strictjson.loads(strictjson.canonical(appraisal.to_json()))["tier"] == "none"


@pytest.mark.parametrize(
    ("check", "data", "changes"),
    [
        ("nonce", make(nonce="A" * 43), {}),
        ("attester-known", make(OTHER), {}),
        ("attester-known", make(), {"trust": Trust()}),
        ("image", make(image="sha256:" + "cd" * 32), {}),
        ("age", make(now=NOW - timedelta(seconds=601), boot=NOW - timedelta(hours=1)), {}),
        ("age", make(now=NOW + timedelta(seconds=61)), {}),
        ("age", make(), {"now": NOW.replace(year=2030)}),
        ("time-order", make(boot=NOW + timedelta(seconds=1)), {}),
        ("type", make(), {"policy": Policy(("snp",), (), 600)}),
    ],
)
def test_refused(check: str, data: bytes, changes: dict[str, Any]) -> None:
    appraisal = verify(data, **changes)
    assert not appraisal.ok and appraisal.tier is Tier.CONTRAINDICATED
    assert outcomes(appraisal)[check] == "fail"


def test_what_was_not_looked_at_is_said() -> None:
    appraisal = verify(make(), expected_nonce=None, policy=Policy(("software",), (), 600))
    assert appraisal.ok
    assert outcomes(appraisal)["nonce"] == outcomes(appraisal)["image"] == "not_available"


def test_every_flipped_bit() -> None:
    data = make()
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            appraisal = verify(bytes(changed))
            assert not appraisal.ok and appraisal.tier is Tier.CONTRAINDICATED


@given(st.data())
def test_inserted_removed_and_replaced_bytes(data: st.DataObject) -> None:
    good = make()
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 40)))
    changed = good[:start] + data.draw(st.binary(max_size=40)) + good[end:]
    assert verify(changed).ok == (changed == good)


@given(st.binary(max_size=400))
def test_garbage(data: bytes) -> None:
    assert not verify(data).ok


json_values: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=8,
)


@given(st.sampled_from(["v", "type", "parts", "collateral", "collected"]), json_values)
def test_any_value_in_any_member(name: str, value: Any) -> None:
    document = strictjson.loads(make())
    changed = strictjson.canonical({**document, name: value})
    assert verify(changed).ok == (changed == make())


@given(st.binary(max_size=300))
def test_a_signed_report_of_any_content(report: bytes) -> None:
    """Somebody with a trusted key who signs nonsense is refused, not crashed on."""
    signature = KEY.sign(b"strongroom/1/software-evidence\x00" + report)
    data = envelope.build(
        "software", {"report": report, "signature": signature, "key": KEY.public}, collected=NOW
    )
    assert not verify(data).ok


@pytest.mark.parametrize("type_", [name for name in evidence.TYPES if name != "software"])
def test_a_type_without_a_verifier_is_refused_by_name(type_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(evidence._MODULES, type_)
    data = envelope.build(type_, {"report": b"x"}, collected=NOW)
    appraisal = verify(data, policy=Policy(evidence.TYPES, (), 600))
    assert appraisal.type == type_ and appraisal.tier is Tier.CONTRAINDICATED
    assert [check.outcome for check in appraisal.checks] == [Outcome.FAIL]
    assert "not supported by this version" in appraisal.checks[0].detail


def test_unknown_types_and_dressed_up_evidence() -> None:
    for name in (b'"hardware"', b'"SNP"', b"1", b"null"):
        assert not verify(make().replace(b'"software"', name)).ok
    dressed = make().replace(b'"software"', b'"snp"')
    assert not verify(dressed, policy=Policy(evidence.TYPES, (), 600)).ok


def test_extra_parts_and_collateral() -> None:
    document = strictjson.loads(make())
    for member in ("parts", "collateral"):
        changed = {**document, member: {**document[member], "more": ""}}
        assert outcomes(verify(strictjson.canonical(changed)))["format"] == "fail"


def test_size_cap_and_bad_arguments() -> None:
    assert "at most" in verify(b" " * (envelope.MAX_BYTES + 1)).checks[0].detail
    with pytest.raises(FormatError):
        verify(make(), now=NOW.replace(tzinfo=None))
    with pytest.raises(FormatError):
        make(nonce="short")
    with pytest.raises(FormatError):
        make(now=NOW.replace(tzinfo=None))


def test_an_appraisal_of_nothing_is_not_ok() -> None:
    assert not Appraisal("software", Tier.NONE, ()).ok


class TestPolicy:
    DOCUMENT = {"v": 1, "types": ["software"], "images": [IMAGE], "max_age_seconds": 600}

    def test_round_trip_and_hash(self) -> None:
        policy = Policy.parse(self.DOCUMENT)
        assert policy == Policy.parse(strictjson.canonical(self.DOCUMENT)) == POLICY
        assert policy.to_json() == self.DOCUMENT
        assert policy.sha256 == strictjson.digest(self.DOCUMENT)

    @pytest.mark.parametrize(
        "change",
        [
            {"debug": True}, {"v": 2}, {"v": True}, {"types": []}, {"types": ["software", "software"]},
            {"types": ["sofware"]}, {"types": "software"}, {"images": ["latest"]}, {"images": [IMAGE, IMAGE]},
            {"images": [IMAGE.upper()]}, {"max_age_seconds": 0}, {"max_age_seconds": 600.0}, {"max_age_seconds": True},
            {"max_age_seconds": None},
        ],
    )  # fmt: skip
    def test_refused(self, change: dict[str, Any]) -> None:
        with pytest.raises(FormatError):
            Policy.parse({**self.DOCUMENT, **change})

    @pytest.mark.parametrize("name", ["v", "types", "images", "max_age_seconds"])
    def test_nothing_is_assumed(self, name: str) -> None:
        with pytest.raises(FormatError):
            Policy.parse({key: value for key, value in self.DOCUMENT.items() if key != name})

    @given(json_values | st.binary())
    def test_only_ever_a_format_error(self, value: Any) -> None:
        with pytest.raises(FormatError):
            Policy.parse(value)


def test_times_are_exact() -> None:
    for text in ("2026-03-01T12:00:00Z", "2026-03-01T12:00:00.123456Z"):
        assert shapes.format_time(shapes.parse_time(text, "t")) == text
    for bad in (
        "2026-03-01T12:00:00",
        "2026-03-01t12:00:00z",
        "2026-13-01T12:00:00Z",
        "",
        None,
        5,
        "2026-03-01T24:00:00Z",
    ):
        with pytest.raises(FormatError):
            shapes.parse_time(bad, "t")
