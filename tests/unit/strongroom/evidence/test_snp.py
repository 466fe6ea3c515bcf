"""SEV-SNP evidence of an authority of our own: what is accepted, and each single thing that is not."""

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
from strongroom.evidence import Appraisal, Outcome, Policy, Tier, Trust, envelope, snp_report
from tests.unit.strongroom.evidence import authority_amd as amd
from tests.unit.strongroom.evidence.authority_amd import NOW, Report, Vek, pem, vlek_report

TRUST = Trust(anchors=amd.anchors())
WITH_INTERMEDIATES = Trust(anchors=amd.anchors(intermediates=True))
POLICY = Policy.parse(amd.policy("snp"))
MILAN, TURIN, LENT = Vek(), Vek("Turin"), Vek(kind="VLEK")


def make(report: Report | None = None, vek: Vek | None = None, **changes: Any) -> bytes:
    """Good evidence, but for what is given."""
    vek = vek or MILAN
    report = report or Report(vek.product)
    collateral = {"chain": amd.chain(vek.product, vek.kind), **changes}
    return amd.evidence(report.sign(vek), vek.der(), **collateral)


def unsigned() -> bytes:
    """Evidence whose report has zeros in place of its signature."""
    return amd.evidence(Report().body(), MILAN.der(), chain=amd.chain())


def judge(data: bytes, **changes: Any) -> Appraisal:
    given_ = {"policy": POLICY, "now": NOW, "expected_nonce": amd.NONCE, "trust": TRUST, **changes}
    return evidence.verify(data, given_.pop("policy"), **given_)


def outcomes(appraisal: Appraisal) -> dict[str, str]:
    return {check.id: check.outcome.value for check in appraisal.checks}


def failed(appraisal: Appraisal) -> set[str]:
    return {check.id for check in appraisal.checks if check.outcome is Outcome.FAIL}


@pytest.mark.parametrize("product", amd.PRODUCTS)
@pytest.mark.parametrize("version", snp_report.VERSIONS)
def test_every_version_and_product(product: str, version: int) -> None:
    appraisal = judge(make(Report(product, version=version), Vek(product)))
    assert appraisal.tier is Tier.AFFIRMING and not failed(appraisal)
    claims = appraisal.claims
    assert (claims["tee"], claims["product"], claims["debug"]) == ("sev-snp", product, False)
    assert claims["image"] == amd.IMAGE and claims["report_version"] == version
    assert claims["tcb"]["reported"] == dict(
        Vek(product).tcb or (amd.TCB_TURIN if product == "Turin" else amd.TCB)
    )
    assert claims["platform"]["alias_check"] is True and claims["platform"]["smt"] is True
    assert claims["instance"] == "49" * 32 and claims["signer"] == "VCEK"
    assert claims["attester"].endswith(hashlib.sha256(amd.ark(product)).hexdigest())
    assert strictjson.loads(strictjson.canonical(appraisal.to_json()))["claims"] == claims


@pytest.mark.parametrize("product", amd.PRODUCTS)
def test_a_host_may_hide_its_chip(product: str) -> None:
    """MASK_CHIP_ID (AMD 56860): the chip's own key still signs, so the certificate is no other chip's."""
    for version in (2, 5):
        report = Report(product, version=version, chip_id=bytes(64))
        appraisal = judge(make(report, Vek(product)))
        assert appraisal.tier is Tier.AFFIRMING and outcomes(appraisal)["chip-id"] == "not_available"


def test_a_host_that_hides_its_key_signs_nothing() -> None:
    """MASK_CHIP_KEY: AMD 56860 has zeros in place of the signature."""
    appraisal = judge(unsigned())
    assert "not signed" in next(c.detail for c in appraisal.checks if c.id == "signature")


@pytest.mark.parametrize("product", amd.PRODUCTS)
def test_a_vlek_is_of_no_chip_and_says_so(product: str) -> None:
    vek = Vek(product, kind="VLEK")
    appraisal = judge(make(vlek_report(product), vek))
    assert appraisal.tier is Tier.AFFIRMING
    assert outcomes(appraisal)["chip-id"] == "not_available"
    assert "Not applicable" in next(c.detail for c in appraisal.checks if c.id == "chip-id")
    assert appraisal.claims["csp"] == vek.csp


@pytest.mark.parametrize(
    "collateral",
    [
        {"chain": pem(amd.intermediate(), amd.ark())},
        {"chain": pem(amd.ark(), amd.intermediate())},
        {"chain": pem(amd.intermediate())},
        {"chain": amd.intermediate()},
        {"chain": pem(amd.intermediate(), amd.ark(), amd.intermediate(kind="VLEK"))},
        {"chain": pem(amd.intermediate(), amd.ark()).replace(b"\n", b"\r\n") + b"\r\n"},
        {"chain": b"\n subject=SEV-Milan\n" + pem(amd.intermediate()).rstrip()},
        {"vek": pem(MILAN.der())},
        {"vek": pem(MILAN.der(), amd.intermediate(), amd.ark()), "chain": None},
        {"vek": pem(amd.ark(), amd.intermediate(), MILAN.der()), "chain": None},
        {"chain": pem(MILAN.der(), amd.intermediate(), amd.ark())},
        {"chain": MILAN.der() + amd.intermediate() + amd.ark()},
        {"chain": amd.ark() + amd.intermediate()},
        {"vek": MILAN.der() + amd.intermediate(), "chain": None},
        {"vek": Vek(nested_hwid=True).der()},
        {"vek": Vek(serial=77).der()},
        {"vek": Vek(product_name="Milan-C3").der()},
        {"vek": Vek(algorithm=amd.pss_algorithm(trailer=False)).der()},
    ],
)
def test_forms_of_the_same_chain(collateral: dict[str, bytes]) -> None:
    given_ = {"vek": MILAN.der(), "chain": amd.chain(), **collateral}
    assert judge(amd.evidence(Report().sign(), **given_)).tier is Tier.AFFIRMING  # type: ignore[arg-type]


def test_processors_that_share_a_products_keys() -> None:
    for name, model in (("Bergamo-A0", 0xA0), ("Siena-A0", 0xAF), ("Genoa-B1", 0x1F)):
        vek = Vek("Genoa", product_name=name)
        assert judge(make(Report("Genoa", cpuid=(0x19, model, 0)), vek)).tier is Tier.AFFIRMING
    assert judge(make(Report("Turin", cpuid=(0x1A, 0x11, 0)), TURIN)).tier is Tier.AFFIRMING


def test_intermediates_of_the_trust_store_are_enough() -> None:
    for vek, report in ((MILAN, Report()), (LENT, vlek_report())):
        data = make(report, vek, chain=None)
        assert judge(data, trust=WITH_INTERMEDIATES).tier is Tier.AFFIRMING
        assert failed(judge(data)) == {"chain"}


def test_an_intermediate_of_the_trust_store_is_no_root() -> None:
    anchors = tuple(a for a in amd.anchors(intermediates=True) if a.purpose != "amd-ark")
    assert failed(judge(make(), trust=Trust(anchors=anchors))) == {"trust-anchor"}


HIGH = {**amd.TCB, "microcode": amd.TCB["microcode"] + 1}
HIGH_TURIN = {**amd.TCB_TURIN, "fmc": 2}
STRANGER = Vek(signer="stranger-Milan")

# What is wrong, and exactly the checks that must say so.
WRONG: dict[str, tuple[set[str], Callable[[], bytes]]] = {
    "debug": ({"debug"}, lambda: make(Report(policy=amd.POLICY | 1 << 19))),
    "migration agent": ({"migration"}, lambda: make(Report(policy=amd.POLICY | 1 << 18))),
    "policy bit 26": ({"guest-policy"}, lambda: make(Report(policy=amd.POLICY | 1 << 26))),
    "policy bit 63": ({"guest-policy"}, lambda: make(Report(policy=amd.POLICY | 1 << 63))),
    "policy without its one": ({"guest-policy"}, lambda: make(Report(policy=amd.POLICY & ~(1 << 17)))),
    "vmpl 1": ({"vmpl"}, lambda: make(Report(vmpl=1))),
    "asked for by the host": ({"vmpl"}, lambda: make(Report(vmpl=0xFFFFFFFF))),
    "version 1": ({"version"}, lambda: make(Report(version=1))),
    "version 6": ({"version"}, lambda: make(Report(version=6))),
    "version 2 in the upper half": ({"version"}, lambda: make(Report(version=2 << 16))),
    "signature algorithm": ({"signature-algorithm"}, lambda: make(Report(sig_algo=2))),
    "signer VLEK, certificate VCEK": ({"signer"}, lambda: make(Report(signer=1 << 2))),
    "signer VCEK, certificate VLEK": ({"signer"}, lambda: make(Report(chip_id=bytes(64)), LENT)),
    "no signer": ({"signer"}, lambda: make(Report(signer=7 << 2))),
    "another chip": ({"chip-id"}, lambda: make(Report(chip_id=bytes(reversed(amd.HWID))))),
    "hidden chip, key of another": (
        {"signature"},
        lambda: amd.evidence(
            Report(chip_id=bytes(64)).sign(Vek(key="another chip's")), MILAN.der(), chain=amd.chain()
        ),
    ),
    "not signed": ({"signature"}, unsigned),
    "another chip, Turin": ({"chip-id"}, lambda: make(Report("Turin", chip_id=bytes(8) + amd.HWID[:8]), TURIN)),
    "reported TCB above the certificate": (
        {"tcb-certificate"},
        lambda: make(Report(reported=HIGH, current=HIGH, committed=HIGH)),
    ),
    "reported TCB below the certificate": ({"tcb-certificate"}, lambda: make(vek=Vek(tcb=HIGH))),
    "reported TCB above the current": (
        {"tcb-certificate"},
        lambda: make(Report(reported=HIGH, committed=HIGH), Vek(tcb=HIGH)),
    ),
    "committed TCB above the current": ({"tcb-certificate"}, lambda: make(Report(committed=HIGH))),
    "fmc, Turin": (
        {"tcb-certificate"},
        lambda: make(Report("Turin", reported=HIGH_TURIN, current=HIGH_TURIN, committed=HIGH_TURIN), TURIN),
    ),
    "Turin's TCB in Milan's layout": (
        {"tcb-certificate"},
        lambda: make(Report("Turin", raw={0x180: amd.tcb_bytes(amd.TCB, "Milan")}), TURIN),
    ),
    "Milan's certificate, Genoa's processor": ({"product"}, lambda: make(Report(cpuid=(0x19, 0x11, 0)))),
    "unknown processor": ({"product"}, lambda: make(Report(cpuid=(0x1B, 0x01, 0)))),
    "Turin's successor": ({"product"}, lambda: make(Report("Turin", cpuid=(0x1A, 0x12, 0)), TURIN)),
    "key of another chip": (
        {"signature"},
        lambda: amd.evidence(Report().sign(Vek(key="other")), MILAN.der(), chain=amd.chain()),
    ),
    "key on another curve": (
        {"signature"},
        lambda: amd.evidence(Report().sign(), Vek(key="p256", curve="secp256r1").der(), chain=amd.chain()),
    ),
    "VCEK signed by nobody": ({"chain"}, lambda: make(vek=STRANGER)),
    "VCEK signed by the ARK": ({"chain"}, lambda: make(vek=Vek(signer="ark-Milan"))),
    "VCEK signed by the ASVK": ({"chain"}, lambda: make(vek=Vek(signer="asvk-Milan"))),
    "VLEK signed by the ASK": ({"chain"}, lambda: make(vlek_report(), Vek(kind="VLEK", signer="ask-Milan"))),
    "VCEK in the ASVK's name": (
        {"chain"},
        lambda: make(vek=Vek(issuer_cn="SEV-VLEK-Milan", signer="asvk-Milan"), chain=amd.chain(kind="VLEK")),
    ),
    "a VCEK that calls itself VLEK": ({"chain"}, lambda: make(vek=Vek(cn="SEV-VLEK"))),
    "common name VCEK": ({"chain"}, lambda: make(vek=Vek(cn="VCEK"))),
    "chain of VLEKs for a VCEK": ({"chain"}, lambda: make(chain=amd.chain(kind="VLEK"))),
    "chain of another product": ({"trust-anchor", "chain"}, lambda: make(chain=amd.chain("Genoa"))),
    "ASK of another product": (
        {"trust-anchor", "chain"},
        lambda: make(chain=pem(amd.intermediate("Genoa"), amd.ark())),
    ),
    "ASK of another product beside the right one": (
        {"trust-anchor", "chain"},
        lambda: make(chain=pem(amd.intermediate("Genoa"), amd.intermediate(), amd.ark())),
    ),
    "a root of one's own with AMD's name": (
        {"trust-anchor", "chain"},
        lambda: make(chain=pem(amd.intermediate(root="stranger"), amd.ark(label="stranger"))),
    ),
    "a root of one's own beside AMD's ASK": (
        {"trust-anchor", "chain"},
        lambda: make(chain=pem(amd.intermediate(), amd.ark(label="stranger"))),
    ),
    "an intermediate that may not sign": (
        {"trust-anchor", "chain"},
        lambda: make(chain=pem(amd.intermediate(ca=False), amd.ark())),
    ),
    "two endorsement certificates": (
        {"chain"},
        lambda: amd.evidence(Report().sign(), pem(MILAN.der(), Vek(serial=1).der()), chain=amd.chain()),
    ),
    "no endorsement certificate": ({"chain"}, lambda: amd.evidence(Report().sign(), amd.chain())),
    "a private key as the certificate": (
        {"chain"},
        lambda: amd.evidence(Report().sign(), pem(MILAN.der(), label="PRIVATE KEY"), chain=amd.chain()),
    ),
    "product of the certificate": ({"chain"}, lambda: make(vek=Vek(product_name="Genoa-B1"))),
    "product with a longer name": ({"chain"}, lambda: make(vek=Vek(product_name="MilanX-B0"))),
    "Turin's certificate with a long hardware id": (
        {"chain"},
        lambda: make(
            Report("Turin"), Vek("Turin", without=("4",), more=(amd.extension(amd.ARC + "4", amd.HWID),))
        ),
    ),
    "Turin's certificate without fmc": ({"chain"}, lambda: make(Report("Turin"), Vek("Turin", without=("3.9",)))),
    "certificate without a hardware id": ({"chain"}, lambda: make(vek=Vek(without=("4",)))),
    "certificate without microcode": ({"chain"}, lambda: make(vek=Vek(without=("3.8",)))),
    "VLEK that names a chip": (
        {"chain"},
        lambda: make(vlek_report(), Vek(kind="VLEK", more=(amd.extension(amd.ARC + "4", amd.HWID),))),
    ),
    "an extension twice": ({"chain"}, lambda: make(vek=Vek(more=(amd.extension(amd.ARC + "4", amd.HWID),)))),
    "an unknown critical extension": (
        {"chain"},
        lambda: make(vek=Vek(more=(amd.extension("1.2.3.4", b"\x05\x00", critical=True),))),
    ),
    "a shorter salt": ({"chain"}, lambda: make(vek=Vek(algorithm=amd.pss_algorithm(salt=32)))),
    "expired VCEK": ({"validity"}, lambda: make(vek=Vek(not_after=NOW - timedelta(seconds=1)))),
    "VCEK not yet valid": ({"validity"}, lambda: make(vek=Vek(not_before=NOW + timedelta(seconds=1)))),
    "expired ASK": (
        {"validity"},
        lambda: make(chain=pem(amd.intermediate(not_after=NOW - timedelta(seconds=1)), amd.ark())),
    ),
    "revoked ASK": ({"revocation"}, lambda: make(crl=amd.crl(revoked=(99, amd.SERIALS["ask"])))),
    "revocation list of another root": ({"revocation"}, lambda: make(crl=amd.crl(root="stranger"))),
    "revocation list of another product": ({"revocation"}, lambda: make(crl=amd.crl("Genoa"))),
    "revocation list of yesterday": (
        {"revocation"},
        lambda: make(crl=amd.crl(next_update=NOW - timedelta(seconds=1))),
    ),
    "revocation list of tomorrow": (
        {"revocation"},
        lambda: make(crl=amd.crl(this_update=NOW + timedelta(seconds=1))),
    ),
    "revocation list of noise": ({"revocation"}, lambda: make(crl=b"\x30\x03\x02\x01\x00")),
    "two revocation lists": ({"revocation"}, lambda: make(crl=pem(amd.crl(), amd.crl(), label="X509 CRL"))),
    "nonce of another context": ({"nonce"}, lambda: make(Report(report_data=hashlib.sha256(b"x").digest()))),
    "nonce in the second half": ({"nonce"}, lambda: make(Report(report_data=bytes(32) + amd.NONCE_BYTES))),
    "nonce with a tail": ({"nonce"}, lambda: make(Report(report_data=amd.NONCE_BYTES + b"\1"))),
    "no nonce": ({"nonce"}, lambda: make(Report(report_data=bytes(64)))),
    "other measurement": ({"code"}, lambda: make(Report(measurement=b"\x4e" * 48))),
    "old envelope": ({"age"}, lambda: make(collected=NOW - timedelta(seconds=601))),
    "envelope from the future": ({"age"}, lambda: make(collected=NOW + timedelta(seconds=61))),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_refused(what: str) -> None:
    checks, build = WRONG[what]
    appraisal = judge(build())
    assert appraisal.tier is Tier.CONTRAINDICATED
    assert failed(appraisal) == checks


def test_certificates_in_der_are_read_to_the_last_byte() -> None:
    good = amd.intermediate() + amd.ark()
    for chain in (good + b"\0", good[:-1], good + b"\x30", b"\0" + good, b"\x30\x00" + good, good * 9):
        assert failed(judge(make(chain=chain))) == {"chain"}
    assert judge(make(chain=good * 8)).tier is Tier.AFFIRMING


@pytest.mark.parametrize("purpose", ["amd-ark", "amd-ask"])
def test_a_trust_store_that_cannot_be_read_is_said_to_be_so(purpose: str) -> None:
    broken = tuple(
        replace(a, data=b"\x30\x03\x02\x01\x00") if a.purpose == purpose else a
        for a in amd.anchors(intermediates=True)
    )
    appraisal = judge(make(), trust=Trust(anchors=broken))
    assert failed(appraisal) == {"trust-anchor"} and outcomes(appraisal)["chain"] == "not_available"


def test_reports_of_another_size() -> None:
    good = Report().sign()
    for report in (good[:-1], good + b"\0", b"", good[:0x2A0], good + good):
        assert failed(judge(amd.evidence(report, MILAN.der()))) == {"format"}


def test_the_unused_bytes_of_the_signature_say_nothing() -> None:
    for place in (0x2D0, 0x2E7, 0x318, 0x32F, 0x330, 0x49F):
        report = bytearray(Report().sign())
        report[place] = 1
        assert failed(judge(amd.evidence(bytes(report), MILAN.der(), chain=amd.chain()))) == {"format"}


@pytest.mark.parametrize("r", [0, 1, 2**384 - 1, 2**384 - 2**96])
def test_signatures_out_of_range(r: int) -> None:
    report = bytearray(Report().sign())
    report[0x2A0:0x2D0] = r.to_bytes(48, "little")
    assert failed(judge(amd.evidence(bytes(report), MILAN.der(), chain=amd.chain()))) == {"signature"}


def test_parts_and_collateral_that_are_not_known() -> None:
    document = strictjson.loads(make())
    for member, name in (("parts", "quote"), ("collateral", "tdx-collateral"), ("collateral", "report")):
        changed = {**document, member: {**document[member], name: ""}}
        assert failed(judge(strictjson.canonical(changed))) == {"format"}
    for member in ("parts", "collateral"):
        assert failed(judge(strictjson.canonical({**document, member: {}}))) == {"format"}


def test_revocation_lists_that_are_good() -> None:
    for crl in (
        amd.crl(),
        amd.crl(revoked=(amd.SERIALS["asvk"],)),
        amd.crl(next_update=None),
        pem(amd.crl(), label="X509 CRL"),
    ):
        appraisal = judge(make(crl=crl))
        assert appraisal.tier is Tier.AFFIRMING and outcomes(appraisal)["revocation"] == "pass"
    assert outcomes(judge(make()))["revocation"] == "not_available"


def test_now_decides_what_is_valid() -> None:
    policy = replace(POLICY, max_age_seconds=366 * 86400)
    for offset, good in ((-amd.DAY, False), (timedelta(0), True)):
        at = amd.NOT_BEFORE + offset
        data = make(collected=at)
        assert judge(data, now=at, policy=policy).ok is good
    for offset, good in ((timedelta(0), True), (timedelta(seconds=1), False)):
        at = amd.NOT_AFTER + offset
        assert judge(make(collected=at), now=at, policy=policy).ok is good


def test_provisional_firmware_is_not_refused() -> None:
    """A firmware that runs and is not yet committed: newer than what the certificate names, and real hosts have it."""
    appraisal = judge(make(Report(current=HIGH)))
    assert appraisal.tier is Tier.AFFIRMING
    assert appraisal.claims["tcb"]["current"] != appraisal.claims["tcb"]["committed"]


def test_unknown_platform_bits_are_data() -> None:
    appraisal = judge(make(Report(platform=0x67 | 1 << 40)))
    assert appraisal.tier is Tier.AFFIRMING
    assert appraisal.claims["platform"]["bits"] == hex(0x67 | 1 << 40)
    assert judge(make(Report(platform=0))).claims["platform"]["alias_check"] is False


@pytest.mark.parametrize(
    "expected", ["", "A" * 42, "A" * 44, amd.NONCE + "=", amd.NONCE_BYTES.hex(), b"", b"\0" * 32]
)
def test_expected_nonces_that_nothing_matches(expected: str | bytes) -> None:
    for report_data in (amd.NONCE_BYTES, bytes(64)):
        assert failed(judge(make(Report(report_data=report_data)), expected_nonce=expected)) == {"nonce"}


def test_literal_bytes_of_the_field() -> None:
    data = make(Report(report_data=b"any text"))
    assert judge(data, expected_nonce=b"any text").tier is Tier.AFFIRMING
    assert judge(data, expected_nonce=b"any text".ljust(64, b"\0")).tier is Tier.AFFIRMING
    assert failed(judge(data, expected_nonce=b"any")) == {"nonce"}
    full = bytes(range(64))
    assert judge(make(Report(report_data=full)), expected_nonce=full).tier is Tier.AFFIRMING
    assert failed(judge(make(Report(report_data=full)), expected_nonce=full + b"\0")) == {"nonce"}


def test_what_was_not_compared_is_a_warning() -> None:
    unbound = judge(make(), expected_nonce=None)
    assert unbound.tier is Tier.WARNING and outcomes(unbound)["nonce"] == "not_available"
    unpinned = judge(make(), policy=Policy(("snp",), (), 600))
    assert unpinned.tier is Tier.WARNING and outcomes(unpinned)["code"] == "not_available"
    assert "image" not in unpinned.claims
    placed = judge(make(), policy=replace(POLICY, zones=("eu",)))
    assert placed.tier is Tier.WARNING and outcomes(placed)["place"] == "not_available"


# A condition of the policy: what meets it, what does not, and the check that says so.
CONDITIONS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("tee", {"tees": ["tdx", "sev-snp"]}, {"tees": ["tdx"]}),
    ("product-accepted", {"products": ["Milan"]}, {"products": ["Genoa", "Turin"]}),
    ("tcb", {"tcb": {"Milan": {**amd.TCB}}}, {"tcb": {"Milan": {"microcode": amd.TCB["microcode"] + 1}}}),
    ("tcb", {"tcb": {"Milan": {"snp": 1}}}, {"tcb": {"Milan": {"snp": amd.TCB["snp"] + 1}}}),
    ("tcb", {"tcb": {"Milan": {"tee": 0}}}, {"tcb": {"Milan": {"tee": 1}}}),
    ("tcb", {"tcb": {"Milan": {"bootloader": 4}}}, {"tcb": {"Milan": {"bootloader": 5}}}),
    ("tcb", {"tcb": {"Milan": {"fmc": 0}}}, {"tcb": {"Milan": {"fmc": 1}}}),
    (
        "code",
        {"code": [{"type": "snp", "image": amd.IMAGE, "measurement": "4d" * 48, "host_data": "48" * 32}]},
        {"code": [{"type": "snp", "image": amd.IMAGE, "measurement": "4d" * 48, "host_data": "49" * 32}]},
    ),
    (
        "code",
        {
            "code": [
                {"type": "snp", "image": "sha256:" + "cd" * 32, "measurement": "4d" * 48},
                {"type": "snp", "image": amd.IMAGE, "measurement": "4d" * 48},
            ]
        },
        {"code": [{"type": "snp", "image": "sha256:" + "cd" * 32, "measurement": "4d" * 48}]},
    ),
    ("age", {"max_age_seconds": 1}, {"max_age_seconds": 1, "late": 2}),
]


@pytest.mark.parametrize(("check", "met", "not_met"), CONDITIONS)
def test_each_condition_both_ways(check: str, met: dict[str, Any], not_met: dict[str, Any]) -> None:
    good = judge(make(), policy=Policy.parse(amd.policy("snp", **met)))
    assert good.tier is Tier.AFFIRMING and outcomes(good)[check] == "pass"
    late = timedelta(seconds=not_met.pop("late", 0))
    bad = judge(make(), policy=Policy.parse(amd.policy("snp", **not_met)), now=NOW + late)
    assert failed(bad) == {check}


def test_minima_are_of_one_product() -> None:
    policy = Policy.parse(amd.policy("snp", tcb={"Turin": {"fmc": 1, "microcode": 219}}))
    assert outcomes(judge(make(), policy=policy))["tcb"] == "not_available"
    assert outcomes(judge(make(vek=TURIN), policy=policy))["tcb"] == "pass"
    higher = Policy.parse(amd.policy("snp", tcb={"Turin": {"fmc": 2}}))
    assert failed(judge(make(vek=TURIN), policy=higher)) == {"tcb"}


@settings(max_examples=150)
@given(st.integers(0, 0x330 * 8 - 1))
def test_any_flipped_bit_of_the_report(bit: int) -> None:
    report = bytearray(Report().sign())
    report[bit // 8] ^= 1 << bit % 8
    appraisal = judge(amd.evidence(bytes(report), MILAN.der(), chain=amd.chain()))
    assert appraisal.tier is Tier.CONTRAINDICATED


@pytest.mark.parametrize("which", ["vek", "chain"])
@settings(max_examples=150)
@given(st.data())
def test_any_flipped_bit_of_a_certificate(which: str, data: st.DataObject) -> None:
    """In DER no bit is without meaning: neither the certificate's nor the intermediate's."""
    given_ = {"vek": MILAN.der(), "chain": amd.intermediate()}
    bit = data.draw(st.integers(0, len(given_[which]) * 8 - 1))
    changed = bytearray(given_[which])
    changed[bit // 8] ^= 1 << bit % 8
    given_[which] = bytes(changed)
    assert judge(amd.evidence(Report().sign(), **given_)).tier is Tier.CONTRAINDICATED


@settings(max_examples=60)
@given(st.data())
def test_any_flipped_bit_of_a_revocation_list(data: st.DataObject) -> None:
    crl = bytearray(amd.crl(revoked=(9,)))
    bit = data.draw(st.integers(0, len(crl) * 8 - 1))
    crl[bit // 8] ^= 1 << bit % 8
    assert failed(judge(make(crl=bytes(crl)))) == {"revocation"}


@settings(max_examples=150)
@given(st.sampled_from(["report", "vek", "chain", "crl"]), st.binary(max_size=1300), st.booleans())
def test_noise_in_any_part(which: str, noise: bytes, tail: bool) -> None:
    given_ = {"report": Report().sign(), "vek": MILAN.der(), "chain": amd.chain(), "crl": amd.crl()}
    given_[which] = given_[which] + noise if tail else noise
    # Text after a PEM block is ignored; everything else counts to the last byte.
    assert judge(amd.evidence(**given_)).ok is (tail and (which == "chain" or not noise))


@settings(max_examples=100)
@given(st.binary(min_size=1184, max_size=1184))
def test_a_signed_report_of_any_content(body: bytes) -> None:
    """Even a report that the key really signed is refused, not crashed on."""
    report = Report(raw={0: body}).sign()
    assert isinstance(judge(amd.evidence(report, MILAN.der(), chain=amd.chain())), Appraisal)


def test_a_report_is_data() -> None:
    report = snp_report.parse(Report(version=5, guest_svn=7, signer=1 << 2).sign())
    assert (report.version, report.guest_svn, report.signer, report.product) == (5, 7, "VLEK", "Milan")
    assert report.current_version == (1, 55, 1) and report.debug is False
    assert snp_report.parse(Report(version=2).sign()).product is None
    with pytest.raises(FormatError):
        snp_report.parse(b"")


def test_evidence_dressed_up_as_another_type() -> None:
    policy = Policy.any()
    for type_ in set(evidence.TYPES) - {"snp"}:
        parts = {"report": Report().sign()}
        data = envelope.build(type_, parts, collateral={"vek": MILAN.der()}, collected=NOW)
        assert not judge(data, policy=policy).ok
