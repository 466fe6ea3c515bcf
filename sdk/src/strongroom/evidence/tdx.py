"""Raw TDX evidence: a quote of version 4 or 5, verified up to the pinned Intel root.

    parts.quote                = the quote, byte for byte
    collateral.tdx-collateral  = optional: TCB info, QE identity and CRLs (see tdx_tcb)

The checks follow Intel's TDX DCAP quote verification (Quoting Library API, appendix A) in plain Python; only the TCB
status needs a library. Measurements say which firmware and system the trust domain started: an image only through
reference values of the policy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from strongroom import shapes
from strongroom.errors import FormatError
from strongroom.evidence import binding, intel_pck, snp, tdx_quote, tdx_tcb
from strongroom.evidence.envelope import Envelope
from strongroom.evidence.intel_pck import Chain
from strongroom.evidence.model import Appraisal, Checks, Tier, hardware_tier
from strongroom.evidence.policy import Policy
from strongroom.evidence.tdx_quote import Body, Quote
from strongroom.evidence.trust import Trust

TYPE = "tdx"
REQUIRED_OF_QUOTE = frozenset(
    ("format", "size", "trust-anchor", "chain", "validity", "qe-signature", "qe-identity", "att-key", "signature",
     "debug", "seam", "migration", "tcb")
)  # fmt: skip
_REQUIRED = REQUIRED_OF_QUOTE | {"nonce", "code", "image", "tee", "age"}

# Intel's TD quoting enclave: who signed it, its product number, and its attributes under Intel's mask (QE identity,
# id TD_QE). Without this any enclave that the platform's owner may provision could speak for the platform.
QE_MRSIGNER = bytes.fromhex("dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5")
QE_PRODUCT = 2
_QE_ATTRIBUTES = int.from_bytes(bytes.fromhex("11"), "little")
_QE_ATTRIBUTES_MASK = int.from_bytes(bytes.fromhex("fbffffffffffffff"), "little")

# TD_ATTRIBUTES (TDX module ABI): bits 0 to 7 are the group "TD under debug", of which any one makes the domain
# untrusted; bit 0 is DEBUG. Bits 8 to 31 are the group SEC, bits 32 to 63 OTHER. What a domain may use (protection keys,
# Key Locker, LASS, performance counters) is its own affair; a bit without a meaning is not.
_TUD = 0xFF
_SERVTD_EXT = 1 << 17
_SEPT_VE_DISABLE = 1 << 28
_MIGRATABLE = 1 << 29
_RESERVED = sum(1 << bit for bit in (*range(8, 16), *range(23, 27), *range(32, 62)))


def verify(
    envelope: Envelope, policy: Policy, *, now: datetime, expected_nonce: str | bytes | None, trust: Trust
) -> Appraisal:
    """Appraise a parsed envelope of this type. Never raises for anything in the envelope."""
    checks = Checks()
    try:
        quote, chain = _read(envelope)
    except FormatError as error:
        checks.failed("format", str(error))
        return Appraisal(TYPE, Tier.CONTRAINDICATED, tuple(checks.items))
    checks.passed("format", f"The evidence is a TDX quote of version {quote.header.version}.")
    collateral = envelope.collateral.get("tdx-collateral")
    claims = check_quote(
        checks, quote, chain, envelope.parts["quote"], collateral, policy=policy, now=now, trust=trust
    )
    binding.check_tee(checks, "tdx", policy)
    binding.check_nonce(checks, quote.body.report_data, expected_nonce, "REPORT_DATA")
    image = _check_code(checks, quote.body, policy)
    binding.check_age(checks, envelope, policy, now)
    binding.check_place(checks, policy)
    claims |= {"nonce": quote.body.report_data.hex(), "collected": shapes.format_time(envelope.collected)}
    # Only an extended body names one start of a domain; else the same platform is what two quotes of a run must share.
    td_id = quote.body.td_id
    claims["instance"] = f"td-{td_id.hex()}" if any(td_id) else f"platform-{chain.platform.ppid.hex()}"
    if image:
        claims["image"] = image
    tier = hardware_tier(checks.items, required=binding.required(policy, _REQUIRED))
    return Appraisal(TYPE, tier, tuple(checks.items), claims)


def _read(envelope: Envelope) -> tuple[Quote, Chain]:
    if set(envelope.parts) != {"quote"} or not set(envelope.collateral) <= {"tdx-collateral"}:
        raise FormatError("TDX evidence has the part quote, and no collateral but tdx-collateral.")
    return read_quote(envelope.parts["quote"])


def read_quote(data: bytes) -> tuple[Quote, Chain]:
    """The quote and the certificates in it. Raises FormatError."""
    quote = tdx_quote.parse(data)
    return quote, intel_pck.read(quote.pck_chain)


def check_quote(
    checks: Checks,
    quote: Quote,
    chain: Chain,
    data: bytes,
    collateral: bytes | None,
    *,
    policy: Policy,
    now: datetime,
    trust: Trust,
) -> dict[str, Any]:
    """Every check of a quote that does not depend on what it is bound to or on who made it. Returns the claims.

    `data`: the bytes that `quote` and `chain` were read from.
    """
    _check_tail(checks, quote)
    root = _check_chain(checks, chain, trust, now)
    _check_signatures(checks, quote, chain)
    _check_domain(checks, quote.body)
    genuine = data[: len(data) - len(quote.tail)]
    tcb = tdx_tcb.check(checks, genuine, quote, chain, collateral, root=root, policy=policy, now=now)
    return _claims(quote, chain, tcb)


def _check_tail(checks: Checks, quote: Quote) -> None:
    if any(quote.tail):
        checks.not_available(
            "size",
            f"{len(quote.tail)} bytes follow the quote that are not zero. No signature covers them, and nothing was "
            "read from them.",
        )
    else:
        checks.passed("size", "Nothing but padding follows the quote.")


def _check_chain(checks: Checks, chain: Chain, trust: Trust, now: datetime) -> bytes | None:
    """The DER of the pinned root, where the chain ends in it."""
    anchor = intel_pck.anchor(chain, trust)
    checks.require(
        "trust-anchor",
        anchor is not None,
        "The certificates end in a pinned Intel root.",
        f"The certificates end in a root that is not pinned (SHA-256 {chain.root_sha256}).",
    )
    fault = intel_pck.chain_fault(chain)
    checks.require(
        "chain",
        fault is None,
        "The platform's certificate is signed by Intel's PCK CA, and that by the root.",
        f"The certificate chain does not hold: {fault}.",
    )
    late = intel_pck.validity_fault(chain, now)
    checks.require(
        "validity",
        late is None,
        "Every certificate of the chain is valid at the time of judging.",
        f"A certificate is not valid at {shapes.format_time(now)}: {late}.",
    )
    return anchor


def _check_signatures(checks: Checks, quote: Quote, chain: Chain) -> None:
    report = quote.qe_report
    checks.require(
        "qe-signature",
        intel_pck.verify_raw(chain.leaf_key, quote.qe_signature, report.raw),
        "The quoting enclave's report is signed by the platform's certified key.",
        "The quoting enclave's report is not signed by the platform's certified key.",
    )
    flags = int.from_bytes(report.attributes[:8], "little") & _QE_ATTRIBUTES_MASK
    checks.require(
        "qe-identity",
        quote.header.qe_vendor == tdx_quote.QE_VENDOR_INTEL
        and (report.mrsigner, report.isv_prod_id) == (QE_MRSIGNER, QE_PRODUCT)
        and flags == _QE_ATTRIBUTES
        and not any(report.miscselect),
        "The quote was made by Intel's TD quoting enclave, not under debug.",
        "The quote was not made by Intel's production TD quoting enclave.",
    )
    bound = hashlib.sha256(quote.attestation_key + quote.qe_auth).digest()
    checks.require(
        "att-key",
        report.report_data == bound.ljust(64, b"\x00"),
        "The quoting enclave's report names the key that signed the quote.",
        "The quoting enclave's report does not name the key that signed the quote.",
    )
    checks.require(
        "signature",
        _signed(quote),
        "The quote is signed by the attestation key.",
        "The signature does not match the quote: one of them was changed.",
    )


def attestation_key(quote: Quote) -> ec.EllipticCurvePublicKey | None:
    """The key that the quote says it is signed by; None where its bytes are no point of the curve."""
    return _point(quote.attestation_key)


@lru_cache(maxsize=256)  # a platform's key signs all its quotes; what it verified is not kept
def _point(raw: bytes) -> ec.EllipticCurvePublicKey | None:
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + raw)
    except ValueError:
        return None


def _signed(quote: Quote) -> bool:
    key = attestation_key(quote)
    return key is not None and intel_pck.verify_raw(key, quote.signature, quote.signed)


def _check_domain(checks: Checks, body: Body) -> None:
    attributes = int.from_bytes(body.attributes, "little")
    checks.require(
        "debug",
        attributes & _TUD == 0,
        "The trust domain is not under debug.",
        f"The trust domain is under debug (TD_ATTRIBUTES {body.attributes.hex()}): its owner can read its memory.",
    )
    checks.require(
        "migration",
        attributes & _MIGRATABLE == 0,
        "The trust domain cannot be moved to another machine.",
        "The trust domain can be moved to another machine, by a service domain that was not appraised.",
    )
    checks.require(
        "seam",
        not any(body.mrsignerseam) and not any(body.seam_attributes),
        "The TDX module is Intel's own (SEAM signer and attributes are zero).",
        "The TDX module is not Intel's production module (SEAM signer or attributes are not zero).",
    )
    _check_attributes(checks, attributes, served=any(body.mrservicetd))


def _check_attributes(checks: Checks, attributes: int, *, served: bool) -> None:
    """`served`: the quote names the service domains that are bound to this one (MRSERVICETD)."""
    if attributes & _RESERVED:
        checks.failed(
            "attributes",
            f"The trust domain has attributes that are not known (bits {attributes & _RESERVED:#x} of TD_ATTRIBUTES), so what "
            "they allow is not known either.",
        )
        return
    missing = [] if attributes & _SEPT_VE_DISABLE else [
        "SEPT_VE_DISABLE is not set: the domain's own system must handle pages that the host takes away. Azure's does; "
        "whether another does is not shown by the evidence."
    ]  # fmt: skip
    if served:
        missing.append("A service domain is bound to it (MRSERVICETD), which was not appraised.")
    elif attributes & _SERVTD_EXT:
        missing.append("A service domain may be bound to it (SERVTD_EXT), which was not appraised.")
    if missing:
        checks.not_available("attributes", " ".join(missing))
    else:
        checks.passed(
            "attributes", "Unexpected page faults are not delivered to the domain (SEPT_VE_DISABLE)."
        )


def _check_code(checks: Checks, body: Body, policy: Policy) -> str | None:
    if snp.refuse_foreign_code(checks, policy, TYPE):
        return None
    shown = f"MRTD {body.mrtd.hex()[:16]}..."
    return binding.check_code(
        checks, policy.code_for(TYPE), policy, shown, lambda entry: _measured(body, entry)
    )


def _measured(body: Body, entry: Mapping[str, Any]) -> bool:
    return (
        entry["mrtd"] == body.mrtd.hex()
        and all(body.rtmrs[int(index)].hex() == value for index, value in entry.get("rtmrs", {}).items())
        and entry.get("mrconfigid", body.mrconfigid.hex()) == body.mrconfigid.hex()
    )


def _claims(quote: Quote, chain: Chain, tcb: Mapping[str, Any]) -> dict[str, Any]:
    body, platform = quote.body, chain.platform
    named = (
        "mrtd", "mrconfigid", "mrowner", "mrownerconfig", "mrseam", "mrservicetd", "td_id", "attributes", "xfam",
    )  # fmt: skip
    code: dict[str, Any] = {name: getattr(body, name).hex() for name in named if getattr(body, name)}
    code["rtmrs"] = {str(index): value.hex() for index, value in enumerate(body.rtmrs)}
    levels = {
        "tee_tcb_svn": body.tcb_svn.hex(),
        "qe_svn": quote.qe_report.isv_svn,
        "pce_svn": platform.pce_svn,
    }
    levels["components"] = platform.components.hex()
    if body.tcb_svn_2:
        levels["tee_tcb_svn_2"] = body.tcb_svn_2.hex()
    return {
        "tee": "tdx",
        "debug": bool(body.attributes[0] & _TUD),
        "code": code,
        "tcb": {**levels, "platform": dict(platform.flags), **tcb},
        "place": {"fmspc": platform.fmspc.hex(), "ppid": platform.ppid.hex()},
        "attester": chain.root_sha256,
    }
