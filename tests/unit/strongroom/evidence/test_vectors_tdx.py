"""Real TDX quotes: each as ../shared/vectors/expected.json says."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom import evidence
from strongroom.evidence import (
    Appraisal,
    Policy,
    Tier,
    Trust,
    envelope,
    tdx,
    tdx_collateral,
    tdx_quote,
    tdx_tcb,
)

VECTORS = Path(__file__).resolve().parents[5] / "shared" / "vectors"
pytestmark = pytest.mark.skipif(
    not (VECTORS / "expected.json").is_file(),
    reason="the folder ../shared/vectors with real evidence is not there",
)

PHALA = "phala-dcap-qvl/tdx_quote"
OUTDATED = "phala-dcap-qvl/tdx_quote_outdated"
COS = "google-go-tdx-guest/ccel/cos-113-tdx-quote.dat"
# Quote -> a time inside its certificates' windows, version, kind of body, FMSPC.
STRUCTURAL: dict[str, tuple[datetime, int, str, str]] = {
    PHALA: (datetime(2025, 7, 18, 10, 16, 3, tzinfo=UTC), 4, "1.0", "b0c06f000000"),
    OUTDATED: (datetime(2026, 3, 19, tzinfo=UTC), 5, "1.5", "90c06f000000"),
    "coco-trustee/tdx_quote_4.dat": (datetime(2024, 6, 1, tzinfo=UTC), 4, "1.0", "50806f000000"),
    "coco-trustee/tdx_quote_5.dat": (datetime(2025, 12, 1, tzinfo=UTC), 5, "1.5", "90c06f000000"),
    "google-go-tdx-guest/tdx_prod_quote_SPR_E4.dat": (
        datetime(2023, 7, 1, tzinfo=UTC), 4, "1.0", "50806f000000",
    ),
    "google-go-tdx-guest/quote_v5_sample.dat": (
        datetime(2026, 3, 1, tzinfo=UTC), 5, "1.5", "90c06f000000",
    ),
    COS: (datetime(2025, 1, 1, tzinfo=UTC), 4, "1.0", "00806f050000"),
    "coco-trustee/az-tdx-vtpm/td-quote.bin": (datetime(2025, 1, 1, tzinfo=UTC), 4, "1.0", "00806f050000"),
}  # fmt: skip
CRYPTO = {
    "format",
    "trust-anchor",
    "chain",
    "validity",
    "qe-signature",
    "qe-identity",
    "att-key",
    "signature",
    "seam",
}


def read(name: str) -> bytes:
    return (VECTORS / name).read_bytes()


def expected(name: str) -> dict[str, Any]:
    (found,) = [entry for entry in json.loads(read("expected.json"))["tdx"] if entry["f"] == name]
    return dict(found)


def judge(
    quote: bytes,
    now: datetime,
    *,
    more: bytes | None = None,
    nonce: str | bytes | None = None,
    policy: Policy | None = None,
) -> Appraisal:
    collateral = {} if more is None else {"tdx-collateral": more}
    data = envelope.build("tdx", {"quote": quote}, collected=now, collateral=collateral)
    return evidence.verify(data, policy or Policy.any(), now=now, expected_nonce=nonce, trust=Trust.of())


def failed(appraisal: Appraisal) -> set[str]:
    return {check.id for check in appraisal.checks if check.outcome == "fail"}


def outcome(appraisal: Appraisal, id_: str) -> str:
    return next(check.outcome.value for check in appraisal.checks if check.id == id_)


def test_every_quote_of_the_list_is_tested_here() -> None:
    named = {entry["f"] for entry in json.loads(read("expected.json"))["tdx"]}
    assert named <= set(STRUCTURAL)


@pytest.mark.parametrize("name", STRUCTURAL)
def test_structure_chain_and_signatures(name: str) -> None:
    now, version, kind, fmspc = STRUCTURAL[name]
    found = judge(read(name), now)
    passed = {check.id for check in found.checks if check.outcome == "pass"}
    assert passed >= CRYPTO, [check for check in found.checks if check.id in CRYPTO]
    debug = name.endswith("tdx_quote_4.dat")
    assert failed(found) == ({"debug"} if debug else set())
    assert found.tier is (Tier.CONTRAINDICATED if debug else Tier.WARNING)
    assert found.claims["debug"] is debug and found.claims["place"]["fmspc"] == fmspc
    quote = tdx_quote.parse(read(name))
    assert quote.header.version == version and quote.body.kind == kind


def test_padding_and_other_bytes_after_a_quote() -> None:
    """Zeros are padding; the Google sample has text there, which keeps it from being affirming."""
    found = judge(read("google-go-tdx-guest/tdx_prod_quote_SPR_E4.dat"), datetime(2023, 7, 1, tzinfo=UTC))
    assert outcome(found, "size") == "not_available"
    assert outcome(judge(read(COS), STRUCTURAL[COS][0]), "size") == "pass"


def test_up_to_date_with_collateral() -> None:
    entry = expected(PHALA)
    now = datetime.fromtimestamp(entry["as_of"], UTC)
    quote, collateral = read(PHALA), read(entry["collateral"])
    body = tdx_quote.parse(quote).body
    found = judge(quote, now, more=collateral, nonce=body.report_data)
    assert (
        found.ok
        and outcome(found, "tcb") == outcome(found, "revocation") == outcome(found, "nonce") == "pass"
    )
    assert found.claims["tcb"]["status"] == "UpToDate" and found.claims["tcb"]["advisories"] == []
    image = "sha256:" + "ab" * 32
    code = {"type": "tdx", "image": image, "mrtd": body.mrtd.hex(),
            "rtmrs": {str(n): value.hex() for n, value in enumerate(body.rtmrs)}}  # fmt: skip
    policy = Policy(("tdx",), (image,), 600, code=(code,))
    full = judge(quote, now, more=collateral, nonce=body.report_data, policy=policy)
    assert full.tier is Tier.AFFIRMING and full.claims["image"] == image
    other = replace(policy, code=({**code, "mrtd": "00" * 48},))
    assert failed(judge(quote, now, more=collateral, nonce=body.report_data, policy=other)) == {"code"}


def test_our_own_appraisal_of_that_collateral_agrees() -> None:
    entry = expected(PHALA)
    quote, chain = tdx.read_quote(read(PHALA))
    members = tdx_tcb.parse(read(entry["collateral"])).members
    root = Trust.of().find("intel-root")[0].data
    now = datetime.fromtimestamp(entry["as_of"], UTC)
    assert tdx_collateral.appraise(members, quote, chain, root, now) == tdx_collateral.Level("UpToDate", ())


def test_late_collateral() -> None:
    entry = expected(PHALA)
    assert entry["late"] == "at 1795305600: CrlExpired"
    late = datetime.fromtimestamp(1795305600, UTC)
    found = judge(read(PHALA), late, more=read(entry["collateral"]))
    assert "tcb" in failed(found)
    assert "CrlExpired" in next(check.detail for check in found.checks if check.id == "tcb")


def test_no_matching_level() -> None:
    entry = expected(OUTDATED)
    now = datetime.fromtimestamp(entry["as_of"], UTC)
    found = judge(read(OUTDATED), now, more=read(entry["collateral"]))
    assert failed(found) == {"tcb"}
    assert "No matching TCB level found" in next(c.detail for c in found.checks if c.id == "tcb")


def test_collateral_of_another_platform() -> None:
    entry = expected(OUTDATED)
    now = datetime.fromtimestamp(entry["as_of"], UTC)
    for name in (PHALA, COS):
        assert "tcb" in failed(judge(read(name), now, more=read(entry["collateral"])))


def test_a_quote_of_zeros_is_bound_to_nothing() -> None:
    now = STRUCTURAL[COS][0]
    assert failed(judge(read(COS), now, nonce=bytes(64))) == {"nonce"}
    nonce = base64.urlsafe_b64encode(bytes(32)).rstrip(b"=").decode()
    assert failed(judge(read(COS), now, nonce=nonce)) == {"nonce"}


def test_certificates_that_had_expired_or_were_not_yet_issued() -> None:
    for name, (now, *_) in STRUCTURAL.items():
        for moment in (now + timedelta(days=9000), now - timedelta(days=4000)):
            assert "validity" in failed(judge(read(name), moment))


@given(which=st.integers(0, len(STRUCTURAL) - 1), at=st.integers(0, 10**6), bit=st.integers(0, 7))
@settings(max_examples=300)
def test_any_flipped_bit_is_refused(which: int, at: int, bit: int) -> None:
    name = list(STRUCTURAL)[which]
    data = read(name)
    size = len(data) - len(tdx_quote.parse(data).tail)
    edited = bytearray(data)
    edited[at % size] ^= 1 << bit
    assert not judge(bytes(edited), STRUCTURAL[name][0]).ok


def test_the_event_log_beside_a_quote_replays_to_its_rtmrs() -> None:
    """The CCEL (TCG event log of the crypto-agile form) of the same machine extends RTMR 0 to 2 to the quoted values."""
    log = read("google-go-tdx-guest/ccel/ccel_data.dat")
    rtmrs = [bytes(48)] * 4
    for index, digest in _events(log):
        if 1 <= index <= 4:
            rtmrs[index - 1] = hashlib.sha384(rtmrs[index - 1] + digest).digest()
    body = tdx_quote.parse(read(COS)).body
    assert tuple(rtmrs[:3]) == body.rtmrs[:3]


def _events(log: bytes) -> list[tuple[int, bytes]]:
    """(measurement register, SHA-384 digest) of each event after the header event."""
    _, kind = struct.unpack_from("<II", log)
    size = struct.unpack_from("<I", log, 28)[0]
    assert kind == 3 and log[32:48].startswith(b"Spec ID Event03")
    at, found = 32 + size, []
    while at + 12 <= len(log):
        index, kind, count = struct.unpack_from("<III", log, at)
        if index == 0xFFFFFFFF or count != 1:
            break
        (algorithm,) = struct.unpack_from("<H", log, at + 12)
        assert algorithm == 0x000C
        digest = log[at + 14 : at + 62]
        (length,) = struct.unpack_from("<I", log, at + 62)
        at += 66 + length
        if kind != 3:  # EV_NO_ACTION is recorded and not extended
            found.append((index, digest))
    return found
