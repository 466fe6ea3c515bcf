"""Reports of the paravisor: what is read, and what is refused."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import FormatError
from strongroom.evidence import hcl
from tests.unit.strongroom.evidence.authority_cvm import ak, hcl_report, jwk, runtime_claims

BODY = bytes(range(256)) * 4 + bytes(160)
CLAIMS = runtime_claims()


def report(**changes: Any) -> bytes:
    values: dict[str, Any] = {"body": BODY, "claims": CLAIMS, **changes}
    return hcl_report(values.pop("body"), values.pop("claims"), **values)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", [2, 4])
@pytest.mark.parametrize("said", [None, "payload"])
def test_reads_both_versions_kinds_and_meanings_of_the_size(
    version: int, kind: int, said: str | None
) -> None:
    size = {2: 1184, 4: 1024}[kind] if said else None
    found = hcl.parse(report(version=version, report_type=kind, report_size=size))
    assert found.kind == {2: "snp", 4: "tdx"}[kind]
    assert found.hardware == BODY[: {2: 1184, 4: 1024}[kind]]
    assert found.var_data == CLAIMS and found.user_data == bytes(64)
    assert found.ak.n == ak().public_key().public_numbers().n and found.ak.e == 65537
    assert found.vm["secure-boot"] is True
    assert found.report_data() == hashlib.sha256(CLAIMS).digest() + bytes(32)


@pytest.mark.parametrize("kind", [2, 4])
def test_request_data_of_version_2_have_four_more_bytes_before_the_claims(kind: int) -> None:
    found = hcl.parse(report(report_type=kind, request_version=2))
    assert found == hcl.parse(report(report_type=kind))


def test_reads_a_report_without_padding_and_with_other_hashes() -> None:
    for number, name in ((2, "sha384"), (3, "sha512")):
        found = hcl.parse(report(hash_type=number, total=None))
        assert found.report_data() == hashlib.new(name, CLAIMS).digest().ljust(64, b"\x00")


@pytest.mark.parametrize(
    "changes",
    [
        {"magic": b"HCLB"},
        {"version": 0},
        {"version": 3},
        {"request_type": 1},
        {"status": 1},
        {"reserved": b"\x01" + bytes(11)},
        {"report_size": 5},
        {"report_type": 3},
        {"report_type": 0},
        {"hash_type": 0},
        {"hash_type": 4},
        {"request_version": 0},
        {"request_version": 3},
        {"request_version": 2, "data_size": 20 + len(CLAIMS)},
        {"request_version": 2, "claims_size": len(CLAIMS) + 4},
        {"request_version": 1, "data_size": 24 + len(CLAIMS)},
        {"claims_size": len(CLAIMS) - 1},
        {"claims_size": len(CLAIMS) + 1},
        {"data_size": len(CLAIMS)},
        {"claims": b"", "report_size": 1184},
        {"padding": b"\x01"},
        {"report_type": 4, "body": BODY[:-1] + b"\x01"},
    ],
)
def test_refuses_every_other_value(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        hcl.parse(report(**changes))


def test_refuses_a_report_cut_off_anywhere() -> None:
    data = report(total=None)
    for size in range(0, len(data), 13):
        with pytest.raises(FormatError):
            hcl.parse(data[:size])
    with pytest.raises(FormatError):
        hcl.parse(data + bytes(70_000))


GOOD = json.loads(CLAIMS)


def _without(name: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key != name}


@pytest.mark.parametrize(
    "claims",
    [
        b"{}",
        b"[]",
        b"\xff\xfe",
        b'{"keys":[],"keys":[]}',
        _without("keys"),
        _without("vm-configuration"),
        {**GOOD, "keys": []},
        {**GOOD, "keys": [GOOD["keys"][1]]},
        {**GOOD, "keys": [GOOD["keys"][0], GOOD["keys"][0]]},
        {**GOOD, "keys": [{**GOOD["keys"][0], "kty": "EC"}]},
        {**GOOD, "keys": [{**GOOD["keys"][0], "e": "Aw"}]},
        {**GOOD, "keys": [{**GOOD["keys"][0], "n": "AQAB"}]},
        {**GOOD, "keys": [{**GOOD["keys"][0], "n": GOOD["keys"][0]["n"] + "=="}]},
        {**GOOD, "keys": [{**GOOD["keys"][0], "n": "A" * 343}]},
        {**GOOD, "keys": [{**GOOD["keys"][0], "n": "A" * 341}]},
        {**GOOD, "keys": [{**GOOD["keys"][0], "n": "A" * 1500}]},
        {**GOOD, "keys": [{**GOOD["keys"][0], "n": None}]},
        {**GOOD, "keys": "HCLAkPub"},
        {**GOOD, "vm-configuration": {"secure-boot": True}},
        {**GOOD, "vm-configuration": {**GOOD["vm-configuration"], "secure-boot": "true"}},
        {**GOOD, "vm-configuration": {**GOOD["vm-configuration"], "vmUniqueId": "x" * 65}},
        {**GOOD, "user-data": "0" * 127},
        {**GOOD, "user-data": "00" * 63},
        {**GOOD, "user-data": "00 " * 64},
        {**GOOD, "user-data": 5},
        {**GOOD, "user-data": "zz" * 64},
    ],
)
def test_refuses_other_claims(claims: bytes | dict[str, Any]) -> None:
    data = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    with pytest.raises(FormatError):
        hcl.parse(report(claims=data))


def test_reads_claims_that_have_less_or_more() -> None:
    older = {"keys": [jwk("HCLAkPub", ["encrypt"])], "vm-configuration": GOOD["vm-configuration"]}
    assert hcl.parse(report(claims=json.dumps(older).encode())).user_data == b""
    newer = {**GOOD, "another": {"a": 1}, "user-data": "AB" * 64}
    more = {"filtered-vpci-devices-allowed": False, "devices": [{"a": 1}], "none": None}
    newer["vm-configuration"] = {**GOOD["vm-configuration"], **more}
    found = hcl.parse(report(claims=json.dumps(newer, indent=1).encode()))
    assert found.user_data == b"\xab" * 64 and found.vm["filtered-vpci-devices-allowed"] is False
    assert found.vm.keys() == {*GOOD["vm-configuration"], "filtered-vpci-devices-allowed"}


@given(data=st.binary(max_size=3000))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    for candidate in (data, b"HCLA" + data, report()[:1216] + data, report(claims=data or b"x")):
        try:
            hcl.parse(candidate)
        except FormatError:
            continue
