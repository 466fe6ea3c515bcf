"""TDX quotes of an authority of our own: what is accepted, and each single thing that is not."""

from __future__ import annotations

import base64
import importlib
import json
from datetime import datetime, timedelta
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom import evidence
from strongroom.errors import FormatError
from strongroom.evidence import Appraisal, Policy, Tier, Trust, envelope, intel_pck, tdx_quote
from tests.unit.strongroom.evidence import authority_intel as intel
from tests.unit.strongroom.evidence.authority_intel import NOW, Authority, Domain

IMAGE = "sha256:" + "ab" * 32
AUTHORITY = Authority()
TRUST = Trust.of(anchors=[AUTHORITY.anchor()])
GOOD = Domain()
NONCE = base64.urlsafe_b64encode(GOOD.report_data[:32]).rstrip(b"=").decode()
CODE = {"type": "tdx", "image": IMAGE, "mrtd": GOOD.mrtd.hex(), "rtmrs": {"1": GOOD.rtmrs[1].hex()}}
FULL = Policy.parse({"v": 1, "types": ["tdx"], "images": [IMAGE], "max_age_seconds": 600, "code": [CODE]})
VARIANTS = {
    "v4": GOOD,
    "v5 TDX 1.5": GOOD.but(version=5),
    "v5 TDX 1.0": GOOD.but(version=5, body_type=2),
    "v5 TDX 1.5 extended": GOOD.but(version=5, body_type=4),
}


@cache
def collateral(**changes: Any) -> bytes:
    return intel.collateral(AUTHORITY, **changes)


def judge(
    quote: bytes,
    *,
    policy: Policy = FULL,
    nonce: str | bytes | None = NONCE,
    now: datetime = NOW,
    trust: Trust = TRUST,
    more: bytes | None = None,
) -> Appraisal:
    data = intel.seal(quote, collateral=more)
    return evidence.verify(data, policy, now=now, expected_nonce=nonce, trust=trust)


def outcomes(appraisal: Appraisal) -> dict[str, str]:
    return {check.id: check.outcome.value for check in appraisal.checks}


def failed(appraisal: Appraisal) -> set[str]:
    return {check.id for check in appraisal.checks if check.outcome == "fail"}


@pytest.mark.parametrize("domain", VARIANTS.values(), ids=VARIANTS)
def test_every_form_of_quote_is_affirming_when_all_is_well(domain: Domain) -> None:
    found = judge(domain.quote(), more=collateral())
    assert found.tier is Tier.AFFIRMING and found.ok, found.checks
    assert found.claims["image"] == IMAGE and found.claims["tee"] == "tdx" and found.claims["debug"] is False
    assert found.claims["code"]["mrtd"] == domain.mrtd.hex()
    assert found.claims["place"] == {"fmspc": intel.FMSPC.hex(), "ppid": intel.PPID.hex()}
    assert found.claims["tcb"]["status"] == "UpToDate" and found.claims["tcb"]["advisories"] == []
    assert found.claims["nonce"] == domain.report_data.hex()


def test_an_extended_body_names_one_start_of_the_domain() -> None:
    extended = GOOD.but(version=5, body_type=4)
    assert len(extended.body()) == tdx_quote.BODY_15_EX_SIZE
    found = judge(extended.quote())
    assert found.claims["instance"] == "td-" + "1d" * 32 and found.claims["code"]["td_id"] == "1d" * 32
    # Hosts that do not report it leave zeros there.
    for domain in (GOOD, extended.but(td_id=bytes(32))):
        assert judge(domain.quote()).claims["instance"] == f"platform-{intel.PPID.hex()}"


@pytest.mark.parametrize("body_type", [2, 3, 4])
def test_a_body_of_another_size_than_its_type_has(body_type: int) -> None:
    good = GOOD.but(version=5, body_type=body_type).quote()
    for size in (0, 584, 648, 885, 1 << 31):
        changed = good[:50] + size.to_bytes(4, "little") + good[54:]
        assert changed == good or failed(judge(changed)) == {"format"}


@pytest.mark.parametrize("bit", range(8, 64))
def test_each_attribute(bit: int) -> None:
    """What a domain may use is accepted; a bit that has no meaning is not. Collateral changes nothing in that."""
    quote = GOOD.but(attributes=intel.SEPT_VE_DISABLE | 1 << bit).quote()
    for more in (None, collateral()):
        found = judge(quote, more=more)
        if bit in (16, *range(18, 23), 27, 28, 30, 31, 62, 63):
            assert outcomes(found)["attributes"] == "pass"
        elif bit == 17:
            assert outcomes(found)["attributes"] == "not_available"
        assert failed(found) == (
            {"migration"}
            if bit == 29
            else {"attributes"}
            if 8 <= bit < 16 or 23 <= bit < 27 or 32 <= bit < 62
            else set()
        )


@pytest.mark.parametrize("body_type", [3, 4])
def test_a_service_domain_that_is_bound_is_named_and_not_appraised(body_type: int) -> None:
    domain = GOOD.but(version=5, body_type=body_type, mrservicetd=bytes(47) + b"\x01")
    for attributes in (intel.SEPT_VE_DISABLE, intel.SEPT_VE_DISABLE | 1 << 17):
        found = judge(domain.but(attributes=attributes).quote(), more=collateral())
        assert found.ok and outcomes(found)["attributes"] == "not_available"
        assert "MRSERVICETD" in next(c.detail for c in found.checks if c.id == "attributes")


def test_a_domain_under_debug_is_refused_for_that_alone() -> None:
    for bit in range(8):
        found = judge(GOOD.but(attributes=intel.SEPT_VE_DISABLE | 1 << bit).quote(), more=collateral())
        assert failed(found) == {"debug"} and found.claims["debug"] is True
        assert outcomes(found)["tcb"] == "pass"


def test_shipped_anchors_accept_nothing_of_another_authority() -> None:
    found = judge(GOOD.quote(), trust=Trust.of(), more=collateral())
    assert found.tier is Tier.CONTRAINDICATED and {"trust-anchor", "tcb"} <= failed(found)


def test_what_cannot_be_known_warns() -> None:
    """Each alone: no context, no collateral, no reference values, bytes after the quote."""
    cases = {
        "nonce": {"nonce": None, "more": collateral()},
        "tcb": {},
        "code": {"policy": Policy.any(), "more": collateral()},
        "size": {"quote": GOOD.but(tail=b"more").quote(), "more": collateral()},
    }
    for id_, arguments in cases.items():
        found = judge(arguments.pop("quote", GOOD.quote()), **arguments)
        assert found.ok and found.tier is Tier.WARNING, id_
        assert outcomes(found)[id_] == "not_available", id_


@pytest.mark.parametrize("size", [1, 70, 3066])
def test_zeros_after_a_quote_are_padding(size: int) -> None:
    assert judge(GOOD.but(tail=bytes(size)).quote(), more=collateral()).tier is Tier.AFFIRMING


# Single changes made before signing, and the checks that must say so.
DOMAINS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "debug": ({"attributes": intel.SEPT_VE_DISABLE | 1}, {"debug"}),
    "another bit of the debug group": ({"attributes": intel.SEPT_VE_DISABLE | 0x20}, {"debug"}),
    "migratable": ({"attributes": intel.SEPT_VE_DISABLE | 1 << 29}, {"migration"}),
    "SEAM signer": ({"mrsignerseam": b"\x01" + bytes(47)}, {"seam"}),
    "SEAM attributes": ({"seam_attributes": b"\x01" + bytes(7)}, {"seam"}),
    "MRTD": ({"mrtd": b"\x12" * 48}, {"code"}),
    "RTMR 1": ({"rtmrs": (GOOD.rtmrs[0], bytes(48), *GOOD.rtmrs[2:])}, {"code"}),
    "report data of another context": ({"report_data": bytes(range(2, 34)) + bytes(32)}, {"nonce"}),
    "report data padded differently": ({"report_data": bytes(32) + bytes(range(1, 33))}, {"nonce"}),
    "report data with something after it": ({"report_data": GOOD.report_data[:32] + b"\x01" * 32}, {"nonce"}),
    "report data zero": ({"report_data": bytes(64)}, {"nonce"}),
    "QE of another vendor": ({"vendor": bytes(16)}, {"qe-identity"}),
    "QE of another signer": ({"qe_mrsigner": b"\x8c" * 32}, {"qe-identity"}),
    "the SGX QE": ({"qe_product": 1}, {"qe-identity"}),
    "QE under debug": ({"qe_attributes": bytes.fromhex("17") + bytes(15)}, {"qe-identity"}),
    "attestation key not bound": ({"qe_report_data": b"\x01" * 64}, {"att-key"}),
    "bound, with something after it": (
        {"qe_report_data": GOOD.qe_report()[320:352] + b"\x01" + bytes(31)},
        {"att-key"},
    ),
}


@pytest.mark.parametrize("name", DOMAINS)
def test_single_change_of_the_domain_is_refused(name: str) -> None:
    changes, expected = DOMAINS[name]
    found = judge(GOOD.but(**changes).quote())
    assert found.tier is Tier.CONTRAINDICATED and failed(found) == expected


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tee_type": 0}, "not TDX"),
        ({"version": 3}, "version 3"),
        ({"version": 6}, "version 6"),
        ({"key_type": 3}, "attestation key"),
        ({"version": 5, "body_type": 1}, "type 1"),
        ({"version": 5, "body_type": 5}, "type 5"),
        ({"outer_type": 5}, "type 5 where 6"),
        ({"inner_type": 1}, "type 1 where 5"),
        ({"pem": b""}, "0 certificates"),
    ],
)
def test_other_formats_are_refused(changes: dict[str, Any], sentence: str) -> None:
    found = judge(GOOD.but(**changes).quote())
    assert failed(found) == {"format"} and found.claims == {}
    assert sentence in next(c.detail for c in found.checks if c.id == "format")


AUTHORITIES: dict[str, tuple[Authority, set[str]]] = {
    "another root of the same name": (Authority("forger"), {"trust-anchor"}),
    "a leaf of another name": (Authority(leaf_name="Intel SGX TCB Signing"), {"chain"}),
    "a CA of another name": (Authority(ca_name="Some CA"), {"chain"}),
    "a CA that may not sign": (Authority(ca_is_ca=False), {"chain"}),
    "a leaf that may sign": (Authority(leaf_ca=True), {"chain"}),
    "an expired leaf": (Authority(leaf_end=NOW - timedelta(days=1)), {"validity"}),
}


@pytest.mark.parametrize("name", AUTHORITIES)
def test_wrong_certificates_are_refused(name: str) -> None:
    authority, expected = AUTHORITIES[name]
    assert failed(judge(GOOD.but(authority=authority).quote())) == expected


def test_validity_is_judged_at_the_given_time() -> None:
    late = NOW + timedelta(days=400)
    data = intel.seal(GOOD.quote(), now=late)
    found = evidence.verify(data, FULL, now=late, expected_nonce=NONCE, trust=TRUST)
    assert failed(found) == {"validity"}


def test_a_chain_of_another_leaf_or_of_swapped_parts_is_refused() -> None:
    forger = Authority("forger")
    mixed = [
        [forger.leaf, AUTHORITY.ca, AUTHORITY.root],
        [AUTHORITY.leaf, forger.ca, AUTHORITY.root],
        [AUTHORITY.ca, AUTHORITY.leaf, AUTHORITY.root],
        [AUTHORITY.leaf, AUTHORITY.root, AUTHORITY.root],
    ]
    for chain in mixed:
        pem = b"".join(c.public_bytes(Encoding.PEM) for c in chain)
        found = judge(GOOD.but(pem=pem).quote())
        assert {"chain", "format", "qe-signature"} & failed(found), chain


def test_only_the_profiles_signature_algorithm_is_accepted() -> None:
    leaf = intel.certify(
        intel.LEAF,
        AUTHORITY.key("leaf"),
        intel.PLATFORM_CA,
        AUTHORITY.key("ca"),
        ca=False,
        extension=AUTHORITY.extension,
        hash_=hashes.SHA384(),
    )
    pem = b"".join(c.public_bytes(Encoding.PEM) for c in (leaf, AUTHORITY.ca, AUTHORITY.root))
    assert failed(judge(GOOD.but(pem=pem).quote())) == {"chain"}


def test_a_leaf_with_a_key_of_another_curve_is_refused() -> None:
    leaf = intel.certify(
        intel.LEAF,
        ec.generate_private_key(ec.SECP384R1()),
        intel.PLATFORM_CA,
        AUTHORITY.key("ca"),
        ca=False,
        extension=AUTHORITY.extension,
    )
    pem = b"".join(c.public_bytes(Encoding.PEM) for c in (leaf, AUTHORITY.ca, AUTHORITY.root))
    assert failed(judge(GOOD.but(pem=pem).quote())) == {"format"}


def test_the_unused_bits_before_a_certificates_signature_mean_nothing() -> None:
    """They are covered by no signature, so only the one value that certificates have is accepted."""
    for _ in range(64):  # the count can be changed only where the signature ends in that many zero bits
        leaf = intel.certify(
            intel.LEAF, AUTHORITY.key("leaf"), intel.PLATFORM_CA, AUTHORITY.key("ca"), ca=False,
            extension=AUTHORITY.extension,
        )  # fmt: skip
        if leaf.signature[-1] & 1 == 0:
            break
    der = bytearray(leaf.public_bytes(Encoding.DER))
    at = len(der) - len(leaf.signature) - 1
    assert der[at] == 0
    der[at] = 1
    text = base64.encodebytes(bytes(der)).replace(b"\n", b"")
    lines = b"\n".join(text[n : n + 64] for n in range(0, len(text), 64))
    block = b"-----BEGIN CERTIFICATE-----\n" + lines + b"\n-----END CERTIFICATE-----\n"
    pem = block + b"".join(c.public_bytes(Encoding.PEM) for c in (AUTHORITY.ca, AUTHORITY.root))
    assert failed(judge(GOOD.but(pem=pem).quote())) in ({"chain"}, {"format"})


def test_a_chain_that_is_too_long_is_not_read() -> None:
    assert failed(judge(GOOD.but(pem=PEM + bytes(16 << 10)).quote())) == {"format"}


PEM = AUTHORITY.chain().rstrip(b"\x00")


def _wrapped(width: int) -> bytes:
    """The chain with lines of another length."""
    blocks = []
    for der in intel_pck.split_pem(PEM):
        text = base64.b64encode(der)
        lines = [text[at : at + width] for at in range(0, len(text), width)]
        blocks += [b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----"]
    return b"\n".join(blocks) + b"\n"


@pytest.mark.parametrize(
    "pem",
    [
        PEM,
        PEM + b"\x00\x00",
        PEM.replace(b"\n", b"\r\n"),
        PEM.replace(b"-\n-", b"-\n\n-"),
        PEM.rstrip(),
        _wrapped(76),
    ],
)
def test_ways_in_which_quotes_hold_the_chain(pem: bytes) -> None:
    assert judge(GOOD.but(pem=pem).quote()).ok


@pytest.mark.parametrize(
    "pem",
    [
        PEM + b"x",
        PEM + b"\x00x",
        b"comment\n" + PEM,
        PEM.replace(b"-\n-", b"-\ncomment\n-", 1),
        PEM + PEM,
        PEM[: len(PEM) // 2],
        PEM.replace(b"\n", b"\x0b", 2),
        PEM.replace(b"BEGIN CERTIFICATE", b"BEGIN X509 CRL"),
        PEM[:29] + b"\n" + PEM[29:],  # a line of one letter, where others have 64
        PEM[:60] + b"\n" + PEM[60:],
        PEM.replace(b"\n", b"\r\n", 5),
        b"".join(c.public_bytes(Encoding.PEM) for c in (AUTHORITY.leaf, AUTHORITY.ca)),
    ],
)
def test_anything_else_in_the_chain_is_refused(pem: bytes) -> None:
    assert failed(judge(GOOD.but(pem=pem).quote())) == {"format"}


@pytest.mark.parametrize(
    "extension",
    [
        b"",
        b"\x30\x00",
        b"\x30\x80\x00\x00",
        intel.sgx_extension(fmspc=bytes(5)),
        intel.sgx_extension(ppid=bytes(15)),
        intel.sgx_extension(components=bytes(15)),
        intel.sgx_extension(components=b"\x80" + bytes(15)),
        intel.sgx_extension() + b"\x00",
        intel.der(0x30, intel.sgx_extension()[4:] * 2),
    ],
)
def test_a_leaf_with_a_malformed_extension_is_refused(extension: bytes) -> None:
    authority = Authority(extension=extension)
    assert failed(judge(GOOD.but(authority=authority).quote())) == {"format"}


@pytest.mark.parametrize("nonce", ["", "x" * 43, NONCE[:-1], NONCE + "=", b"", bytes(64), bytes(65), "ä"])
def test_a_wrong_expectation_is_a_fail_and_no_exception(nonce: str | bytes) -> None:
    assert failed(judge(GOOD.quote(), nonce=nonce)) == {"nonce"}


def test_literal_bytes_are_compared_as_they_are() -> None:
    long = bytes(range(1, 65))
    assert judge(GOOD.but(report_data=long).quote(), nonce=long).ok
    assert failed(judge(GOOD.but(report_data=long).quote(), nonce=long[:32])) == {"nonce"}


def test_nothing_is_bound_to_zeros() -> None:
    assert failed(judge(GOOD.but(report_data=bytes(64)).quote(), nonce=bytes(32))) == {"nonce"}


class TestPolicy:
    def test_age(self) -> None:
        assert failed(judge(GOOD.quote(), now=NOW + timedelta(seconds=601))) == {"age"}
        assert failed(judge(GOOD.quote(), now=NOW - timedelta(seconds=61))) == {"age"}
        assert judge(GOOD.quote(), now=NOW + timedelta(seconds=600)).ok

    def test_kind_of_environment(self) -> None:
        snp_only = Policy(("tdx",), (), 600, tees=("sev-snp",))
        assert failed(judge(GOOD.quote(), policy=snp_only)) == {"tee"}
        assert judge(GOOD.quote(), policy=Policy(("tdx",), (), 600, tees=("tdx",))).ok

    def test_a_place_is_never_shown(self) -> None:
        policy = Policy(("tdx",), FULL.images, 600, code=FULL.code, zones=("europe-west4-a",))
        found = judge(GOOD.quote(), policy=policy, more=collateral())
        assert found.tier is Tier.WARNING and outcomes(found)["place"] == "not_available"

    def test_reference_values_of_images_that_are_not_accepted_count_for_nothing(self) -> None:
        policy = Policy(("tdx",), ("sha256:" + "cd" * 32,), 600, code=FULL.code)
        found = judge(GOOD.quote(), policy=policy, more=collateral())
        assert failed(found) == {"code"} and "image" not in found.claims

    def test_every_value_of_an_entry_must_match_and_one_entry_is_enough(self) -> None:
        wrong = {**CODE, "mrconfigid": "01" * 48}
        assert failed(judge(GOOD.quote(), policy=Policy(("tdx",), (IMAGE,), 600, code=(wrong,)))) == {"code"}
        both = Policy(("tdx",), (IMAGE,), 600, code=(wrong, CODE))
        assert judge(GOOD.quote(), policy=both).claims["image"] == IMAGE


class TestTcb:
    def tcb(self, policy: Policy = FULL, **changes: Any) -> tuple[str, str]:
        found = judge(GOOD.quote(), policy=policy, more=collateral(**changes))
        check = next(c for c in found.checks if c.id == "tcb")
        assert (check.outcome == "pass") is (found.tier is Tier.AFFIRMING)
        return check.outcome.value, check.detail

    @pytest.mark.parametrize(
        "status", ["SWHardeningNeeded", "ConfigurationNeeded", "OutOfDate", "OutOfDateConfigurationNeeded"]
    )
    def test_only_up_to_date_unless_the_policy_says_more(self, status: str) -> None:
        outcome, detail = self.tcb(status=status)
        assert outcome == "fail" and status in detail
        accepting = Policy(("tdx",), FULL.images, 600, code=FULL.code, tdx_tcb=("UpToDate", status))
        assert self.tcb(accepting, status=status)[0] == "pass"

    def test_revoked_is_never_accepted(self) -> None:
        policy = Policy(("tdx",), FULL.images, 600, code=FULL.code, tdx_tcb=("OutOfDate", "UpToDate"))
        assert self.tcb(policy, status="Revoked")[0] == "fail"

    def test_advisories_must_be_tolerated_by_name(self) -> None:
        accepting = Policy(("tdx",), FULL.images, 600, code=FULL.code, tdx_tcb=("SWHardeningNeeded",))
        changes: dict[str, Any] = {"status": "SWHardeningNeeded", "advisories": ("INTEL-SA-1", "INTEL-SA-2")}
        outcome, detail = self.tcb(accepting, **changes)
        assert outcome == "fail" and "INTEL-SA-1" in detail
        one = Policy(
            ("tdx",),
            FULL.images,
            600,
            code=FULL.code,
            tdx_tcb=("SWHardeningNeeded",),
            tdx_advisories=("INTEL-SA-1",),
        )
        assert "INTEL-SA-2" in self.tcb(one, **changes)[1]
        both = Policy(
            ("tdx",),
            FULL.images,
            600,
            code=FULL.code,
            tdx_tcb=one.tdx_tcb,
            tdx_advisories=changes["advisories"],
        )
        assert self.tcb(both, **changes)[0] == "pass"

    @pytest.mark.parametrize(
        "changes",
        [
            {"fmspc": bytes(6)},
            {"minimum": 200},
            {"until": NOW - timedelta(hours=1)},
            {"issued": NOW + timedelta(hours=1)},
            {"crl_until": NOW - timedelta(hours=1)},
        ],
        ids=["another platform", "no level reached", "expired", "issued later", "revocation list expired"],
    )
    def test_collateral_that_does_not_apply(self, changes: dict[str, Any]) -> None:
        assert self.tcb(**changes)[0] == "fail"

    def test_a_revoked_leaf(self) -> None:
        found = judge(GOOD.quote(), more=intel.collateral(AUTHORITY, revoked=(AUTHORITY.leaf,)))
        assert failed(found) == {"tcb", "revocation"}

    def test_collateral_of_another_authority(self) -> None:
        found = judge(GOOD.quote(), more=intel.collateral(Authority("forger")))
        assert failed(found) == {"tcb"}

    @pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"a":1,"a":2}', b"\xff", b"{" * 5000])
    def test_malformed_collateral(self, data: bytes) -> None:
        assert failed(judge(GOOD.quote(), more=data)) == {"tcb"}

    def test_a_chain_in_the_collateral_counts_for_nothing(self) -> None:
        for chain in (None, "x", Authority("forger").chain().decode()):
            more = json.dumps({**json.loads(collateral()), "pck_certificate_chain": chain}).encode()
            assert judge(GOOD.quote(), more=more).tier is Tier.AFFIRMING
        for document in ({"more": ""}, {"tcb_info": None}, {"tcb_info": "[]"}, {"qe_identity": "{}"}):
            more = json.dumps({**json.loads(collateral()), **document}).encode()
            assert failed(judge(GOOD.quote(), more=more)) == {"tcb"}

    def test_a_changed_byte_of_the_collateral_is_never_accepted(self) -> None:
        good = collateral()
        for at in range(0, len(good), 97):
            data = bytearray(good)
            data[at] ^= 0x01
            found = judge(GOOD.quote(), more=bytes(data))
            # Chains and lists hold PEM and DER; whatever still verifies must be what Intel signed.
            assert found.tier is Tier.CONTRAINDICATED or found.claims["tcb"]["status"] == "UpToDate"

    def test_without_the_library_nothing_is_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = importlib.import_module

        def missing(name: str) -> Any:
            if name == "dcap_qvl":
                raise ImportError(name)
            return real(name)

        monkeypatch.setattr(importlib, "import_module", missing)
        found = judge(GOOD.quote(), more=collateral())
        assert found.ok and found.tier is Tier.WARNING and outcomes(found)["tcb"] == "not_available"

    def test_a_panic_of_the_library_is_a_fail_and_an_interrupt_is_not_ours(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class PanicException(BaseException):
            pass

        def fake(error: BaseException) -> Any:
            def verify(*_: object) -> None:
                raise error

            parser = SimpleNamespace(from_json=lambda _: None)
            return SimpleNamespace(QuoteCollateralV3=parser, verify_with_root_ca=verify)

        monkeypatch.setattr(importlib, "import_module", lambda _: fake(PanicException("out of range")))
        from strongroom.evidence import tdx

        parsed = envelope.parse(intel.seal(GOOD.quote(), collateral=collateral()))
        found = tdx.verify(parsed, FULL, now=NOW, expected_nonce=NONCE, trust=TRUST)
        assert failed(found) == {"tcb"}
        monkeypatch.setattr(importlib, "import_module", lambda _: fake(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            tdx.verify(parsed, FULL, now=NOW, expected_nonce=NONCE, trust=TRUST)


def test_parts_and_collateral_are_exactly_these() -> None:
    def sealed(parts: dict[str, bytes], more: dict[str, bytes]) -> set[str]:
        data = envelope.build("tdx", parts, collected=NOW, collateral=more)
        return failed(evidence.verify(data, FULL, now=NOW, expected_nonce=NONCE, trust=TRUST))

    assert sealed({}, {}) == {"format"}
    assert sealed({"quote": GOOD.quote(), "more": b"x"}, {}) == {"format"}
    assert sealed({"quote": GOOD.quote()}, {"vek": b"x"}) == {"format"}
    assert sealed({"quote": b""}, {}) == {"format"}
    assert sealed({"quote": bytes(40_000)}, {}) == {"format"}


@pytest.mark.parametrize("domain", VARIANTS.values(), ids=VARIANTS)
def test_one_flipped_bit_in_each_byte_is_refused(domain: Domain) -> None:
    quote = domain.quote()
    for at in range(0, len(quote), 1 if domain is GOOD else 5):
        data = bytearray(quote)
        data[at] ^= 1 << (at * 5 + 3) % 8
        assert not judge(bytes(data)).ok, at


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
@settings(max_examples=300)
def test_any_flipped_bit_is_refused(at: int, bit: int) -> None:
    data = bytearray(QUOTES[at % len(QUOTES)])
    data[at // len(QUOTES) % len(data)] ^= 1 << bit
    assert not judge(bytes(data)).ok


QUOTES = [domain.quote() for domain in VARIANTS.values()]


@given(data=st.binary(max_size=6000))
@settings(max_examples=200)
def test_random_bytes_are_refused_without_an_exception(data: bytes) -> None:
    assert failed(judge(data)) == {"format"}


@given(
    which=st.integers(0, 2),
    at=st.integers(0, 6000),
    cut=st.integers(0, 700),
    put=st.binary(max_size=64),
    tail=st.binary(max_size=9),
)
@settings(max_examples=300)
def test_edited_quotes_never_pass_and_never_raise(
    which: int, at: int, cut: int, put: bytes, tail: bytes
) -> None:
    quote = QUOTES[which]
    edited = quote[:at] + put + quote[at + cut :] + tail
    found = judge(edited)
    same = edited[: len(quote)] == quote  # what follows a quote is not the quote, and says so
    assert found.ok is same
    if same and any(edited[len(quote) :]):
        assert outcomes(found)["size"] == "not_available"


def test_a_quote_cut_off_anywhere_is_refused() -> None:
    quote = GOOD.quote()
    for size in range(0, len(quote), 53):
        with pytest.raises(FormatError):
            tdx_quote.parse(quote[:size])


def test_the_anchor_of_intel_is_the_published_one() -> None:
    (anchor,) = Trust.of().find("intel-root")
    assert anchor.sha256 == "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
