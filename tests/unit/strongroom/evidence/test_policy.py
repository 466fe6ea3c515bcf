"""Release policies: each member's form, one hash for one meaning, and the strictest of several."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom import strictjson
from strongroom.errors import FormatError
from strongroom.evidence import Policy, Tier, envelope, strictest
from strongroom.evidence import policy as policies
from tests.unit.strongroom.evidence import authority_amd as amd
from tests.unit.strongroom.evidence import test_azure_aci as aci
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


# --- The strictest of several --------------------------------------------------------------------------------------
# Each draws around the values of the evidence below, so that both outcomes are common.
def _some(*values: Any) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), min_size=1, unique_by=repr)


SNP_CODE = [{"type": "snp", "image": i, "measurement": m * 48} for i in (IMAGE, OTHER) for m in ("4d", "4e")]
ACI_CODE = [
    {"type": "azure-aci", "image": i, "cce_policy": d}
    for i in (IMAGE, OTHER)
    for d in (amd.ACI_REPORT.host_data.hex(), "ab" * 32)
]
tcb = st.fixed_dictionaries(
    {},
    optional={
        "Milan": st.fixed_dictionaries(
            {}, optional={"snp": st.integers(23, 25), "microcode": st.integers(218, 220), "fmc": st.just(0)}
        ),
        "Turin": st.just({"fmc": 9}),
    },
).filter(bool)
optional = {
    "tees": _some("sev-snp", "tdx"),
    "products": _some("Milan", "Genoa"),
    "tcb": tcb,
    "uvm_svn": st.integers(102, 104),
    "zones": _some("a", "b"),
    "env_override": _some("A", "B"),
    "maa": st.just({ISSUER: [HASH]}),
}
documents = st.fixed_dictionaries(
    {
        "v": st.just(1),
        "types": _some("snp", "azure-aci", "tdx"),
        "images": _some(IMAGE, OTHER),
        "max_age_seconds": st.integers(1, 20),
        # Reference values for both types: a policy that names an image and leaves it to others to say what it
        # measures as is met by nobody's word but theirs, and is not compared here.
        "code": st.tuples(_some(*SNP_CODE), _some(*ACI_CODE)).map(lambda both: [*both[0], *both[1]]),
    },
    optional=optional,
)
LATE = 10 * amd.timedelta(seconds=1)


@settings(max_examples=400)
@given(st.lists(documents, min_size=2, max_size=3), st.booleans())
def test_what_meets_the_strictest_meets_each(drawn: list[dict[str, Any]], aci_evidence: bool) -> None:
    each = [Policy.parse(document) for document in drawn]
    joined = strictest(each)
    if joined is None:
        return
    assert Policy.parse(joined.to_json()) == joined, "it is a policy like any other"
    judge, data = (aci.judge, ACI) if aci_evidence else (snp.judge, SNP)
    now = amd.NOW + LATE
    if judge(data, policy=joined, now=now).tier is Tier.AFFIRMING:
        for policy in each:
            appraisal = judge(data, policy=policy, now=now)
            assert appraisal.tier is Tier.AFFIRMING
            assert not snp.failed(appraisal)


SNP, ACI = snp.make(), amd.aci_evidence()


@settings(max_examples=200)
@given(documents)
def test_the_strictest_of_one_or_twice_the_same(document: dict[str, Any]) -> None:
    policy = Policy.parse(document)
    assert strictest([policy]) == policy
    assert strictest([policy, policy]) == policy


@settings(max_examples=200)
@given(documents, documents)
def test_the_order_does_not_matter(one: dict[str, Any], two: dict[str, Any]) -> None:
    a, b = Policy.parse(one), Policy.parse(two)
    there, back = strictest([a, b]), strictest([b, a])
    assert (there is None) == (back is None)
    if there is not None and back is not None:
        for data, judge in ((SNP, snp.judge), (ACI, aci.judge)):
            now = amd.NOW + LATE
            assert judge(data, policy=there, now=now).tier is judge(data, policy=back, now=now).tier


def test_policies_that_nothing_can_meet_together() -> None:
    one = Policy.parse({**BASE, "images": [IMAGE]})
    assert strictest([one, Policy.parse({**BASE, "images": [OTHER]})]) is None
    assert strictest([one, Policy.parse({**BASE, "types": ["tdx"]})]) is None
    maa = [Policy.parse({**BASE, "maa": {ISSUER: [hash_]}}) for hash_ in (HASH, "B" * 42 + "A")]
    assert strictest(maa) is None and strictest(maa[:1] * 2) == maa[0]


def test_what_is_tolerated_must_be_tolerated_by_both() -> None:
    tolerant, strict = Policy.parse({**BASE, "env_override": ["A", "B"]}), Policy.parse(BASE)
    joined = strictest([tolerant, strict])
    assert joined is not None and joined.env_override == ()
