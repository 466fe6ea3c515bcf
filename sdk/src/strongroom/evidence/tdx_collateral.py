"""Intel's word about a TDX platform, appraised here: TCB info, QE identity and revocation lists.

The library `dcap-qvl` does this too, but it gives no status for a trust domain whose attributes it does not like: without
SEPT_VE_DISABLE or with a service domain, as every Azure machine is. This is the appraisal for those (see tdx_tcb), after
Intel's description of TCB info and QE identity (Provisioning Certification Service API v4, "Get TDX TCB Info" and "Get TDX
QE Identity"). It judges the module that a domain was started with (TEE_TCB_SVN) and, where the quote names it, the one
that runs now (TEE_TCB_SVN_2): an old one under a good one means that the domain should be started again (Intel,
QuoteVerification library, "TD relaunch").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from strongroom import shapes, strictjson
from strongroom.errors import FormatError
from strongroom.evidence import intel_pck
from strongroom.evidence.intel_pck import Chain
from strongroom.evidence.tdx_quote import Body, QeReport, Quote

SIGNING_NAME = "Intel SGX TCB Signing"
_MAX_BYTES = 512 << 10
_COMPONENTS = 16
# The status of a whole by the status of its parts: what is out of date anywhere is out of date.
_WORSE = {
    "UpToDate": "OutOfDate",
    "SWHardeningNeeded": "OutOfDate",
    "ConfigurationNeeded": "OutOfDateConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded": "OutOfDateConfigurationNeeded",
    "OutOfDate": "OutOfDate",
    "OutOfDateConfigurationNeeded": "OutOfDateConfigurationNeeded",
}
_CURRENT = frozenset(name for name in _WORSE if not name.startswith("OutOfDate"))


@dataclass(frozen=True, slots=True)
class Level:
    """A status with the advisories that go with it."""

    status: str
    advisories: tuple[str, ...]


def appraise(collateral: Mapping[str, str], quote: Quote, chain: Chain, root: bytes, now: datetime) -> Level:
    """The status of the platform that made `quote`. Raises FormatError, saying why there is none.

    `collateral`: the members of dcap-qvl's QuoteCollateralV3. `root`: DER of the pinned root. The chain in the quote
    must have been verified by the caller, and ends in that root.
    """
    try:
        return _appraise(collateral, quote, chain, x509.load_der_x509_certificate(root), now)
    except FormatError:
        raise
    except Exception as error:  # the library of certificates has many kinds for bytes that are none
        raise FormatError(f"the collateral cannot be read ({type(error).__name__}: {error})") from None


def _appraise(
    collateral: Mapping[str, str], quote: Quote, chain: Chain, root: x509.Certificate, now: datetime
) -> Level:
    root_list = _revocation_list(collateral["root_ca_crl"], root, now, "root's")
    leaf_list = _revocation_list(collateral["pck_crl"], chain.ca, now, "PCK CA's")
    _not_revoked(root_list, chain.ca)
    _not_revoked(leaf_list, chain.leaf)
    documents = {}
    for name in ("tcb_info", "qe_identity"):
        signer = _signer(collateral[f"{name}_issuer_chain"], root, now)
        _not_revoked(root_list, signer)
        documents[name] = _document(collateral, name, signer, now)
    info, body = documents["tcb_info"], quote.body
    enclave = _enclave_level(documents["qe_identity"], quote.qe_report)
    started, *now_running = (
        _together(_platform_level(info, svn, chain), _module_level(info, body, svn), enclave)
        for svn in (body.tcb_svn, body.tcb_svn_2)
        if svn
    )
    return _relaunch(started, now_running[0]) if now_running else started


def _revocation_list(
    text: str, issuer: x509.Certificate, now: datetime, whose: str
) -> x509.CertificateRevocationList:
    found = x509.load_der_x509_crl(bytes.fromhex(text))
    key = issuer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or found.issuer != issuer.subject:
        raise FormatError(f"the {whose} revocation list is another issuer's")
    if not found.is_signature_valid(key):
        raise FormatError(f"the {whose} revocation list is not signed by its issuer")
    after = found.next_update_utc
    if after is None or not found.last_update_utc <= now <= after:
        raise FormatError(f"the {whose} revocation list is not valid at that time")
    return found


def _not_revoked(found: x509.CertificateRevocationList, certificate: x509.Certificate) -> None:
    if found.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
        raise FormatError("CertRevoked: Intel has revoked a certificate")


def _signer(text: str, root: x509.Certificate, now: datetime) -> x509.Certificate:
    """The certificate that signs TCB info and QE identity, verified up to the pinned root."""
    blocks = intel_pck.split_pem(text.encode())
    if len(blocks) != 2 or blocks[1] != root.public_bytes(Encoding.DER):
        raise FormatError("the issuer chain of the collateral is not a signer and the pinned root")
    signer = x509.load_der_x509_certificate(blocks[0])
    if intel_pck.common_name(signer) != SIGNING_NAME or not intel_pck.issued(signer, root):
        raise FormatError("the collateral's signer is not Intel's")
    if not signer.not_valid_before_utc <= now <= signer.not_valid_after_utc:
        raise FormatError("the collateral's signer is not valid at that time")
    return signer


def _document(
    collateral: Mapping[str, str], name: str, signer: x509.Certificate, now: datetime
) -> dict[str, Any]:
    text, key = collateral[name].encode(), signer.public_key()
    signature = bytes.fromhex(collateral[f"{name}_signature"])
    if not isinstance(key, ec.EllipticCurvePublicKey) or not intel_pck.verify_raw(key, signature, text):
        raise FormatError(f"the collateral's {name} is not signed by its signer")
    document = shapes.mapping(strictjson.loads(text, max_bytes=_MAX_BYTES, what=name), name)
    if (document["id"], document["version"]) != {"tcb_info": ("TDX", 3), "qe_identity": ("TD_QE", 2)}[name]:
        raise FormatError(f"the collateral's {name} is of another kind")
    begin, end = (shapes.parse_time(document[field], field) for field in ("issueDate", "nextUpdate"))
    if not begin <= now <= end:
        raise FormatError(f"the collateral's {name} is not valid at that time")
    return document


def _platform_level(info: Mapping[str, Any], svn: bytes, chain: Chain) -> Level:
    """The first level that every component reaches. Components 0 and 1 are the module's own where it has identities."""
    platform = chain.platform
    if (info["fmspc"].lower(), info["pceId"].lower()) != (platform.fmspc.hex(), platform.pce_id.hex()):
        raise FormatError("the TCB info is for other platforms")
    first = 2 if svn[1] > 0 else 0
    for level in info["tcbLevels"]:
        tcb = level["tcb"]
        sgx, tdx = (_svns(tcb[name]) for name in ("sgxtcbcomponents", "tdxtcbcomponents"))
        if (
            all(mine >= due for mine, due in zip(platform.components, sgx, strict=True))
            and platform.pce_svn >= tcb["pcesvn"]
            and all(mine >= due for mine, due in zip(svn[first:], tdx[first:], strict=True))
        ):
            return _level(level)
    raise FormatError("No matching TCB level found")


def _svns(components: list[dict[str, Any]]) -> list[int]:
    found = [shapes.whole(0, 255)(component["svn"], "svn") for component in components]
    if len(found) != _COMPONENTS:
        raise FormatError("a TCB level does not have 16 components")
    return found


def _module_level(info: Mapping[str, Any], body: Body, tcb_svn: bytes) -> Level:
    """The level of the TDX module of that version. Version 0 has no identities, and is judged by the platform's level alone."""
    svn, version = tcb_svn[:2]
    identity = info["tdxModule"]
    if version > 0:
        name = f"TDX_{version:02X}"
        found = [item for item in info["tdxModuleIdentities"] if item["id"].upper() == name]
        if len(found) != 1:
            raise FormatError(f"the TCB info does not know the TDX module {name}")
        identity = found[0]
    mask = bytes.fromhex(identity["attributesMask"])
    masked = bytes(a & m for a, m in zip(body.seam_attributes, mask, strict=True))
    if (
        body.mrsignerseam.hex() != identity["mrsigner"].lower()
        or masked.hex() != identity["attributes"].lower()
    ):
        raise FormatError("the TDX module is not the one that the TCB info names")
    return _isv_level(identity["tcbLevels"], svn, "TDX module") if version > 0 else Level("UpToDate", ())


def _enclave_level(identity: Mapping[str, Any], report: QeReport) -> Level:
    """The level of the quoting enclave. Its signer and product are compared by the caller as well."""
    for name, mine in (("miscselect", report.miscselect), ("attributes", report.attributes)):
        mask = bytes.fromhex(identity[f"{name}Mask"])
        masked = bytes(a & m for a, m in zip(mine, mask, strict=True))
        if masked.hex() != identity[name].lower():
            raise FormatError(f"the quoting enclave's {name} is not what Intel names")
    if (report.mrsigner.hex(), report.isv_prod_id) != (identity["mrsigner"].lower(), identity["isvprodid"]):
        raise FormatError("the quoting enclave is not the one that Intel names")
    return _isv_level(identity["tcbLevels"], report.isv_svn, "quoting enclave")


def _isv_level(levels: list[dict[str, Any]], svn: int, what: str) -> Level:
    for level in levels:
        if svn >= level["tcb"]["isvsvn"]:
            return _level(level)
    raise FormatError(f"No matching TCB level found for the {what}")


def _level(found: Mapping[str, Any]) -> Level:
    return Level(str(found["tcbStatus"]), tuple(str(name) for name in found.get("advisoryIDs", ())))


def _together(platform: Level, *others: Level) -> Level:
    status, advisories = platform.status, set(platform.advisories)
    for other in others:
        advisories |= set(other.advisories)
        if other.status == "Revoked" or status == "Revoked":
            status = "Revoked"
        elif other.status != "UpToDate":
            # Intel gives modules and enclaves no other status than these three.
            status = _WORSE.get(status, status) if other.status == "OutOfDate" else other.status
    return Level(status, tuple(sorted(advisories)))


def _relaunch(started: Level, running: Level) -> Level:
    """The status of a domain whose machine has taken another module since: its own, unless a new start would mend it."""
    status = started.status
    if status.startswith("OutOfDate") and running.status in _CURRENT:
        configuration = "Configuration" in status + running.status
        status = "TDRelaunchAdvised" + ("ConfigurationNeeded" if configuration else "")
    return Level(status, tuple(sorted({*started.advisories, *running.advisories})))
