"""Confidential containers on Azure Container Instances: a utility VM that Microsoft endorses, and the policy it enforces.

    parts.report           = the SEV-SNP report of the utility VM
    parts.cce-policy       = the confidential computing enforcement policy, as bytes (not base64)
    parts.uvm-endorsement  = Microsoft's COSE_Sign1 over the utility VM's launch measurement
    parts.runtime-data     = optional: what REPORT_DATA is the SHA-256 of
    collateral             = vek, chain, crl, as of raw SEV-SNP evidence

The measurement shows that the genuine utility VM runs, HOST_DATA which policy it was started with, and the policy which
containers it may run: a runner image follows from the policy's digest by a reference value.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from strongroom import shapes
from strongroom.errors import FormatError
from strongroom.evidence import binding, snp, snp_report, uvm
from strongroom.evidence.envelope import Envelope
from strongroom.evidence.model import Appraisal, Checks, Tier, hardware_tier
from strongroom.evidence.policy import Policy
from strongroom.evidence.snp_report import Report
from strongroom.evidence.trust import Trust

TYPE = "azure-aci"
_PARTS = frozenset(("report", "cce-policy", "uvm-endorsement"))
_REQUIRED = snp.REQUIRED_OF_REPORT | {
    "cce-policy", "uvm-endorsement", "uvm-measurement", "nonce", "code", "image", "age",
}  # fmt: skip
# Digests of policies that let the operator run any container. Refused even where a policy lists one by mistake.
ALLOW_ALL = frozenset(("73973b78d70cc68353426de188db5dfc57e5b766e399935fb73a61127ea26d20",))


def verify(
    envelope: Envelope, policy: Policy, *, now: datetime, expected_nonce: str | bytes | None, trust: Trust
) -> Appraisal:
    """Appraise a parsed envelope of this type. Never raises for anything in the envelope."""
    checks = Checks()
    try:
        report = _read(envelope)
    except FormatError as error:
        checks.failed("format", str(error))
        return Appraisal(TYPE, Tier.CONTRAINDICATED, tuple(checks.items))
    checks.passed("format", "The evidence has the parts of a confidential container's, of the right form.")
    parts, collateral = envelope.parts, envelope.collateral
    claims = snp.check_report(
        checks,
        report,
        vek=collateral["vek"],
        chain=collateral.get("chain"),
        crl=collateral.get("crl"),
        policy=policy,
        now=now,
        trust=trust,
    )
    claims |= _check_uvm(checks, parts["uvm-endorsement"], report, policy, now, trust)
    digest = _check_cce_policy(checks, parts["cce-policy"], report)
    image = _check_code(checks, digest, policy)
    _check_runtime_data(checks, parts.get("runtime-data"), report)
    binding.check_nonce(checks, report.report_data, expected_nonce, "REPORT_DATA")
    binding.check_place(checks, policy)
    binding.check_age(checks, envelope, policy, now)
    claims["code"]["cce_policy"] = digest
    claims |= {"nonce": report.report_data.hex(), "collected": shapes.format_time(envelope.collected)}
    if image is not None:
        claims["image"] = image
    tier = hardware_tier(checks.items, required=binding.required(policy, _REQUIRED))
    return Appraisal(TYPE, tier, tuple(checks.items), claims)


def _read(envelope: Envelope) -> Report:
    if not set(envelope.parts) >= _PARTS or set(envelope.parts) - _PARTS - {"runtime-data"}:
        raise FormatError(
            "The evidence of a confidential container has the parts report, cce-policy, uvm-endorsement and, where "
            "at hand, runtime-data."
        )
    snp.need_collateral(envelope)
    return snp_report.parse(envelope.parts["report"])


def _check_uvm(
    checks: Checks, data: bytes, report: Report, policy: Policy, now: datetime, trust: Trust
) -> dict[str, Any]:
    """Checks `uvm-endorsement`, `uvm-measurement` and `uvm-svn`; what the endorsement says, as claims."""
    try:
        found = uvm.verify(data, now=now, trust=trust)
    except FormatError as error:
        checks.failed("uvm-endorsement", str(error))
        for name in ("uvm-measurement", "uvm-svn"):
            checks.not_available(name, "Without a genuine endorsement this was not looked at.")
        return {}
    at = f" on {shapes.format_time(found.signed_at)}, by its own word" if found.signed_at else ""
    checks.passed("uvm-endorsement", f"Microsoft signed the endorsement of a utility VM{at}.")
    if found.time_stamp:
        checks.not_available(
            "uvm-time-stamp",
            "A time stamp of another authority (RFC 3161) came with the endorsement and was not read: when it was signed "
            "is its signer's own word.",
        )
    checks.require(
        "uvm-measurement",
        found.measurement == report.measurement,
        "The utility VM that runs is the endorsed one.",
        f"The utility VM that runs is not the endorsed one: its measurement is {report.measurement.hex()}.",
    )
    if policy.uvm_svn is None:
        checks.not_available("uvm-svn", "The policy asks for no minimum version of the utility VM.")
    else:
        checks.require(
            "uvm-svn",
            found.svn >= policy.uvm_svn,
            f"The utility VM's security version {found.svn} is at least {policy.uvm_svn}.",
            f"The utility VM's security version is {found.svn}; the policy accepts {policy.uvm_svn} and above.",
        )
    return {"uvm": {"feed": found.feed, "svn": found.svn, "issuer": found.issuer}}


def _check_cce_policy(checks: Checks, data: bytes, report: Report) -> str:
    """Check `cce-policy`; returns the digest that the hardware reports, which is the policy in force."""
    digest = report.host_data.hex()
    if hashlib.sha256(data).digest() != report.host_data:
        checks.failed("cce-policy", f"The enforcement policy is not the one that was in force ({digest}).")
    elif digest in ALLOW_ALL:
        checks.failed("cce-policy", "The enforcement policy lets the operator run any container.")
    else:
        checks.passed("cce-policy", f"The enforcement policy is the one in force: {digest}.")
    return digest


def _check_code(checks: Checks, digest: str, policy: Policy) -> str | None:
    if snp.refuse_foreign_code(checks, policy, TYPE):
        return None
    return binding.check_code(
        checks,
        policy.code_for(TYPE),
        policy,
        f"enforcement policy {digest}",
        lambda entry: entry["cce_policy"] == digest,
    )


def _check_runtime_data(checks: Checks, data: bytes | None, report: Report) -> None:
    if data is None:
        checks.not_available("runtime-data", "No runtime data came with the evidence.")
        return
    checks.require(
        "runtime-data",
        report.report_data == hashlib.sha256(data).digest().ljust(64, b"\x00"),
        "REPORT_DATA is the hash of the runtime data.",
        "REPORT_DATA is not the hash of the runtime data.",
    )
