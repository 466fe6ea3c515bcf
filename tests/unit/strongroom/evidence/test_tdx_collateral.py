"""Intel's word about a platform: our own appraisal against the library's, and for what the library refuses to judge."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import dcap_qvl
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from strongroom import evidence
from strongroom.errors import FormatError
from strongroom.evidence import Appraisal, Policy, Trust, tdx, tdx_collateral, tdx_tcb
from tests.unit.strongroom.evidence import authority_intel as intel
from tests.unit.strongroom.evidence.authority_intel import NOW, Authority, Domain

AUTHORITY = Authority()
ROOT = AUTHORITY.root.public_bytes(Encoding.DER)
TRUST = Trust.of(anchors=[AUTHORITY.anchor()])
STATUSES = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
)


def library(domain: Domain, collateral: bytes) -> tuple[str, tuple[str, ...]] | None:
    try:
        parsed = dcap_qvl.QuoteCollateralV3.from_json(collateral.decode())
        found = dcap_qvl.verify_with_root_ca(domain.quote(), parsed, ROOT, int(NOW.timestamp()))
    except ValueError:
        return None
    return found.status, tuple(sorted(found.advisory_ids))


def ours(domain: Domain, collateral: bytes) -> tuple[str, tuple[str, ...]] | None:
    """A revoked level is no status at all for the library."""
    quote, chain = tdx.read_quote(domain.quote())
    try:
        found = tdx_collateral.appraise(tdx_tcb.parse(collateral).members, quote, chain, ROOT, NOW)
    except FormatError:
        return None
    return None if found.status == "Revoked" else (found.status, found.advisories)


def same(domain: Domain, **changes: Any) -> tuple[str, tuple[str, ...]] | None:
    collateral = intel.collateral(AUTHORITY, **changes)
    mine = ours(domain, collateral)
    assert mine == library(domain, collateral), changes
    return mine


@pytest.mark.parametrize("status", STATUSES)
def test_the_status_of_a_whole_is_the_librarys(status: str) -> None:
    for module, enclave in itertools.product(("UpToDate", "OutOfDate"), repeat=2):
        found = same(
            Domain(),
            status=status,
            advisories=("INTEL-SA-3",),
            module_status=module,
            enclave_status=enclave,
            module_advisories=("INTEL-SA-2",),
            enclave_advisories=("INTEL-SA-1",),
        )
        assert found is not None
        assert (found[0] == status) is (
            "OutOfDate" not in (module, enclave) or status.startswith("OutOfDate")
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "Revoked"},
        {"module_status": "Revoked"},
        {"enclave_status": "Revoked"},
        {"minimum": 200},
        {"isv_minimum": 200},
        {"module_id": "TDX_03"},
        {"fmspc": bytes(6)},
        {"until": NOW - timedelta(hours=1)},
        {"crl_until": NOW - timedelta(hours=1)},
        {"revoked": (AUTHORITY.leaf,)},
    ],
)
def test_what_has_no_status_has_none_here_and_there(changes: dict[str, Any]) -> None:
    assert same(Domain(), **changes) is None


@pytest.mark.parametrize(
    "changes", [{"issued": NOW + timedelta(hours=1)}, {"signer_name": "Intel SGX PCK Certificate"}]
)
def test_what_only_we_refuse(changes: dict[str, Any]) -> None:
    assert ours(Domain(), intel.collateral(AUTHORITY, **changes)) is None


def test_every_level_of_the_domain_counts() -> None:
    """SVNs of the module, the TDX components and the SGX components, each below what is asked for."""
    assert same(Domain(tcb_svn=bytes((7, 1, 3)) + bytes(13))) is not None
    for svn in (bytes((0, 1)) + bytes(14), bytes((7, 2)) + bytes(14)):
        assert same(Domain(tcb_svn=svn)) is None
    assert same(Domain(tcb_svn=bytes(16))) is not None  # version 0 has no identity of its own
    weak = replace(AUTHORITY, extension=intel.sgx_extension(components=bytes(16)))
    assert same(Domain(authority=weak)) is None
    assert same(Domain(authority=replace(AUTHORITY, extension=intel.sgx_extension(pce_svn=0)))) is None
    assert same(Domain(mrsignerseam=b"\x01" * 48)) is None
    assert same(Domain(seam_attributes=b"\x01" + bytes(7))) is None
    for qe in ({"qe_mrsigner": b"\x01" * 32}, {"qe_product": 1}, {"qe_attributes": b"\x17" + bytes(15)}):
        assert same(Domain(**qe)) is None


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("body_type", [2, 3, 4])
def test_a_machine_with_a_newer_module_than_the_domain_was_started_with(status: str, body_type: int) -> None:
    """Intel's word for it is that the domain should be started again; a body of TDX 1.0 does not show it.

    A module is never older than the one before it, so nothing is said of that.
    """
    for started, running in ((5, 5), (5, 9), (9, 9)):
        domain = Domain(
            version=5,
            body_type=body_type,
            tcb_svn=bytes((started, 1)) + bytes(14),
            tcb_svn_2=bytes((running, 1)) + bytes(14),
        )
        old = {"module_status": "OutOfDate", "module_advisories": ("INTEL-SA-9",), "module_due": 9}
        found = same(domain, status=status, **old)
        advised = body_type > 2 and (started, running) == (5, 9) and not status.startswith("OutOfDate")
        assert found is not None and found[0].startswith("TDRelaunchAdvised") is advised
        assert found[0].endswith("ConfigurationNeeded") is ("Configuration" in status) or not advised


def test_a_machine_with_a_module_that_nobody_knows_has_no_status() -> None:
    for unknown in (bytes((9, 2)), bytes((0, 1))):
        domain = Domain(version=5, tcb_svn_2=unknown + bytes(14))
        assert same(domain) is None


@pytest.mark.parametrize("attributes", [0, intel.SEPT_VE_DISABLE])
def test_a_policy_may_accept_that_a_new_start_is_due(attributes: int) -> None:
    """By the library and by our own appraisal alike."""
    domain = Domain(
        version=5,
        attributes=attributes,
        tcb_svn=bytes((5, 1)) + bytes(14),
        tcb_svn_2=bytes((9, 1)) + bytes(14),
    )
    more = intel.collateral(AUTHORITY, module_status="OutOfDate", module_due=9)
    sealed = intel.seal(domain.quote(), collateral=more)
    for statuses, outcome in ((["UpToDate"], "fail"), (["TDRelaunchAdvised"], "pass")):
        policy = Policy.parse(
            {"v": 1, "types": ["tdx"], "images": [], "max_age_seconds": 600, "tdx_tcb": statuses}
        )
        found = evidence.verify(sealed, policy, now=NOW, expected_nonce=None, trust=TRUST)
        check = next(c for c in found.checks if c.id == "tcb")
        assert check.outcome == outcome and "TDRelaunchAdvised" in check.detail


# --- trust domains that the library gives no status for -------------------------------------------------------------
AZURE = Domain(attributes=0)
SERVED = Domain(version=5, mrservicetd=b"\x01" * 48)


def judge(domain: Domain, **changes: Any) -> Appraisal:
    data = intel.seal(domain.quote(), collateral=intel.collateral(AUTHORITY, **changes))
    return evidence.verify(data, Policy.any(), now=NOW, expected_nonce=None, trust=TRUST)


def tcb(appraisal: Appraisal) -> str:
    return next(check.outcome.value for check in appraisal.checks if check.id == "tcb")


@pytest.mark.parametrize("domain", [AZURE, SERVED], ids=["without SEPT_VE_DISABLE", "with a service domain"])
def test_they_are_judged_all_the_same(domain: Domain) -> None:
    assert library(domain, intel.collateral(AUTHORITY)) is None
    found = judge(domain)
    assert tcb(found) == "pass" and found.claims["tcb"]["status"] == "UpToDate"
    found = judge(domain, status="OutOfDate", advisories=("INTEL-SA-1",))
    assert tcb(found) == "fail" and found.claims["tcb"]["advisories"] == ["INTEL-SA-1"]


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "Revoked"},
        {"module_status": "OutOfDate"},
        {"enclave_status": "OutOfDate"},
        {"module_status": "Revoked"},
        {"enclave_status": "Revoked"},
        {"minimum": 200},
        {"isv_minimum": 200},
        {"module_id": "TDX_03"},
        {"fmspc": bytes(6)},
        {"until": NOW - timedelta(hours=1)},
        {"issued": NOW + timedelta(hours=1)},
        {"crl_until": NOW - timedelta(hours=1)},
        {"revoked": (AUTHORITY.leaf,)},
        {"signer_name": "Intel SGX PCK Certificate"},
    ],
)
def test_they_are_refused_like_any_other(changes: dict[str, Any]) -> None:
    assert tcb(judge(AZURE, **changes)) == "fail"


GOOD = intel.collateral(AUTHORITY)


def appraise(document: dict[str, Any]) -> None:
    quote, chain = tdx.read_quote(AZURE.quote())
    members = tdx_tcb.parse(json.dumps(document).encode()).members
    tdx_collateral.appraise(members, quote, chain, ROOT, NOW)


@pytest.mark.parametrize("name", json.loads(GOOD))
def test_each_document_must_be_the_authoritys_own(name: str) -> None:
    document = json.loads(GOOD)
    other = json.loads(intel.collateral(Authority("forger"), issued=NOW - timedelta(days=3)))
    appraise(document)
    if name == "pck_crl_issuer_chain":
        return  # the list is verified by the CA in the quote, whatever chain comes with it
    with pytest.raises(FormatError):
        appraise({**document, name: other[name]})


@pytest.mark.parametrize("name", ["tcb_info", "qe_identity", "root_ca_crl", "pck_crl", "tcb_info_signature"])
def test_a_changed_character_anywhere_is_refused(name: str) -> None:
    text = json.loads(GOOD)[name]
    for at in range(0, len(text), 7):
        changed = text[:at] + ("1" if text[at] != "1" else "2") + text[at + 1 :]
        with pytest.raises(FormatError):
            appraise({**json.loads(GOOD), name: changed})


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
@pytest.mark.parametrize("changes", [{"id": "SGX"}, {"id": "QE"}, {"version": 9}, {"tcbLevels": []}])
def test_a_signed_document_of_another_kind(document: str, changes: dict[str, Any]) -> None:
    """Of SGX, of another version, or without a level that the platform reaches."""
    good = json.loads(GOOD)
    inner = {**json.loads(good[document]), **changes}
    text = json.dumps(inner, separators=(",", ":"))
    signature = intel.sign(AUTHORITY.key("tcb"), text.encode()).hex()
    with pytest.raises(FormatError):
        appraise({**good, document: text, f"{document}_signature": signature})


def test_a_signer_that_had_expired() -> None:
    signer = intel.certify(
        "Intel SGX TCB Signing",
        AUTHORITY.key("tcb"),
        intel.ROOT,
        AUTHORITY.key("root"),
        ca=False,
        end=NOW - timedelta(days=1),
    )
    good = json.loads(GOOD)
    with pytest.raises(FormatError, match="signer is not valid"):
        appraise({**good, "tcb_info_issuer_chain": intel._pem(signer, AUTHORITY.root)})


def test_a_root_list_that_names_the_signer_or_the_ca() -> None:
    signer_serial_of = intel.certify(
        "Intel SGX TCB Signing", AUTHORITY.key("tcb"), intel.ROOT, AUTHORITY.key("root"), ca=False
    )
    for certificate in (AUTHORITY.ca, signer_serial_of):
        listed = intel._crl(
            intel.ROOT,
            AUTHORITY.key("root"),
            NOW - timedelta(days=1),
            NOW + timedelta(days=1),
            (certificate,),
        )
        with pytest.raises(FormatError, match="CertRevoked"):
            appraise({**json.loads(GOOD), "root_ca_crl": listed})
