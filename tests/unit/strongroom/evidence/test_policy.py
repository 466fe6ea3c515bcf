"""Release policies: each member's form, and one hash for one meaning."""

from __future__ import annotations

from typing import Any

import pytest

from strongroom import strictjson
from strongroom.errors import FormatError
from strongroom.evidence import Policy, envelope
from strongroom.evidence import policy as policies
from tests.unit.strongroom.evidence import authority_amd as amd
from tests.unit.strongroom.evidence import test_snp as snp

IMAGE, OTHER = amd.IMAGE, "sha256:" + "cd" * 32
BASE = {"v": 1, "types": ["snp"], "images": [IMAGE], "max_age_seconds": 600}
HASH = "A" * 43
ISSUER = "https://sharedeus2.eus2.attest.azure.net"
GOOD: dict[str, list[Any]] = {
    "code": [
        [{"type": "snp", "image": IMAGE, "measurement": "ab" * 48}],
        [{"type": "snp", "image": IMAGE, "measurement": "ab" * 48, "host_data": "ab" * 32}],
        [{"type": "azure-cvm", "image": IMAGE, "pcrs": {"4": "ab" * 32, "11": "cd" * 32}}],
        [{"type": "azure-cvm", "image": IMAGE, "pcrs": {"0": "ab" * 32}, "measurement": "ab" * 48, "mrtd": "ab" * 48}],
        [{"type": "azure-aci", "image": IMAGE, "cce_policy": "ab" * 32}],
        [{"type": "azure-maa", "image": IMAGE, "host_data": "ab" * 32}],
        [{"type": "tdx", "image": IMAGE, "mrtd": "ab" * 48, "rtmrs": {"0": "ab" * 48}, "mrconfigid": "ab" * 48}],
    ],
    "tees": [["sev-snp"], ["sev-snp", "tdx", "sev", "sev-es"]],
    "products": [["Milan"], ["Turin", "Genoa"]],
    "tcb": [{"Milan": {"microcode": 219}}, {"Turin": {"fmc": 1, "bootloader": 2, "tee": 3, "snp": 4, "microcode": 255}}],
    "tdx_tcb": [["UpToDate"]],
    "tdx_advisories": [["INTEL-SA-00837"]],
    "swversion": [1, 260600],
    "support": [["STABLE"]],
    "uvm_svn": [0, 103],
    "audiences": [["https://portal.example"]],
    "projects": [["1234567890"]],
    "zones": [["europe-west4-a"]],
    "service_accounts": [["runner@project.example"]],
    "env_override": [["RUN_ID"]],
    "maa": [{ISSUER: [HASH]}],
}  # fmt: skip
BAD: dict[str, list[Any]] = {
    "code": [
        [], {}, [{}], [{"type": "snp", "image": IMAGE}], [{"type": "software", "image": IMAGE}],
        [{"type": "snp", "image": "latest", "measurement": "ab" * 48}],
        [{"type": "snp", "image": IMAGE, "measurement": "AB" * 48}],
        [{"type": "snp", "image": IMAGE, "measurement": "ab" * 32}],
        [{"type": "snp", "image": IMAGE, "measurement": "ab" * 48, "pcrs": {"0": "ab" * 32}}],
        [{"type": "azure-cvm", "image": IMAGE, "pcrs": {}}],
        [{"type": "azure-cvm", "image": IMAGE, "pcrs": {"24": "ab" * 32}}],
        [{"type": "azure-cvm", "image": IMAGE, "pcrs": {"04": "ab" * 32}}],
        [{"type": "tdx", "image": IMAGE, "mrtd": "ab" * 48, "rtmrs": {"4": "ab" * 48}}],
        [{"type": "azure-aci", "image": IMAGE, "cce_policy": "ab" * 32}] * 2,
    ],
    "tees": [[], ["snp"], ["software"], "sev-snp", ["tdx", "tdx"]],
    "products": [[], ["milan"], ["Rome"]],
    "tcb": [{}, {"Rome": {}}, {"Milan": {"spl": 1}}, {"Milan": {"snp": 256}}, {"Milan": {"snp": -1}}, {"Milan": 1}],
    "tdx_tcb": [[], ["Revoked"]],
    "tdx_advisories": [[], [""]],
    "swversion": [0, "260600", True, 10**6],
    "support": [[], ["stable"]],
    "uvm_svn": [-1, "103", True, None],
    "audiences": [[], [""]],
    "projects": [[], [1]],
    "zones": [[], ["a", "a"]],
    "service_accounts": [[], [None]],
    "env_override": [[], ["1A"], ["A=B"], ["A-B"]],
    "maa": [{"http://x.example": [HASH]}, {ISSUER + "/": [HASH]}, {ISSUER: []}, {ISSUER: ["x"]}, [ISSUER]],
}  # fmt: skip


def test_every_optional_member_is_in_the_tables() -> None:
    assert set(GOOD) == set(BAD) == set(policies._OPTIONAL)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in GOOD.items() for value in values]
)
def test_members(name: str, value: Any) -> None:
    document = {**BASE, name: value}
    found = Policy.parse(document)
    assert found.to_json() == document and found == Policy.parse(strictjson.canonical(document))
    assert found.sha256 == strictjson.digest(document) != Policy.parse(BASE).sha256


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values]
)
def test_members_that_are_refused(name: str, value: Any) -> None:
    with pytest.raises(FormatError):
        Policy.parse({**BASE, name: value})


def test_the_policy_that_pins_nothing() -> None:
    found = Policy.any()
    assert found.types == envelope.TYPES and not found.images and Policy.parse(found.to_json()) == found


def test_reference_values_of_accepted_images_only() -> None:
    code = [{"type": "snp", "image": image, "measurement": "ab" * 48} for image in (IMAGE, OTHER)]
    found = Policy.parse({**BASE, "code": code})
    assert [entry["image"] for entry in found.code_for("snp")] == [IMAGE] and not found.code_for("tdx")
    assert len(Policy.parse({**BASE, "images": [], "code": code}).code_for("snp")) == 2


def test_reference_values_of_no_accepted_image_are_not_the_same_as_none() -> None:
    code = [{"type": "snp", "image": OTHER, "measurement": "4d" * 48}]
    assert snp.failed(snp.judge(snp.make(), policy=Policy.parse({**BASE, "code": code}))) == {"code"}
