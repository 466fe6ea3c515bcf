"""One machine, one manifest: what PCR 15 must hold."""

from __future__ import annotations

import hashlib

import pytest

from strongroom.evidence import Appraisal, Outcome, Tier, manifest

MANIFEST = hashlib.sha256(b"manifest").hexdigest()


def appraisal(type_: str, **code: object) -> Appraisal:
    return Appraisal(type_, Tier.AFFIRMING, (), {"code": code})


def test_the_value_is_one_extension_of_zeros() -> None:
    once = hashlib.sha256(bytes(32) + bytes.fromhex(MANIFEST)).hexdigest()
    (check,) = manifest.check(appraisal("azure-cvm", pcrs={"15": once}), MANIFEST)
    assert check.outcome is Outcome.PASS


@pytest.mark.parametrize(
    "pcrs",
    [
        {},
        {"15": "00" * 32},
        {"15": MANIFEST},
        {"14": manifest.expected(MANIFEST)},
        {"15": hashlib.sha256(bytes.fromhex(manifest.expected(MANIFEST) + MANIFEST)).hexdigest()},  # twice
        {"15": manifest.expected(hashlib.sha256(b"another").hexdigest())},
    ],
)
def test_any_other_value_fails(pcrs: dict[str, str]) -> None:
    (check,) = manifest.check(appraisal("azure-cvm", pcrs=pcrs), MANIFEST)
    assert check.outcome is Outcome.FAIL


def test_other_types_have_no_such_register() -> None:
    assert manifest.check(appraisal("snp"), MANIFEST) == []
