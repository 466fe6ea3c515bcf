"""Azure confidential VM evidence from its raw parts: the paravisor's report, hardware evidence, and a vTPM quote.

    parts.hcl-report  = the paravisor's report: an SNP report or TDREPORT, and claims that name the vTPM's key
    parts.quote       = TPMS_ATTEST of a quote by that key, over the nonce and PCRs
    parts.signature   = its signature: raw RSA, or a TPMT_SIGNATURE
    parts.pcrs        = the PCR values: {"sha256": {"0": hex, ...}}
    parts.td-quote    = TDX only: the TD quote made from the TDREPORT
    collateral        = SNP: vek, optional chain and crl; TDX: optional tdx-collateral

The hardware measures Microsoft's paravisor only, the same for every customer. Which system started is in the PCRs, so
an image follows from pinned PCRs and from nothing else. The chain: hardware signature -> REPORT_DATA -> hash of the
claims -> the vTPM's attestation key -> the quote -> the nonce and the PCRs.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from strongroom import shapes
from strongroom.errors import FormatError
from strongroom.evidence import binding, hcl, snp, snp_report, tdreport, tdx, tpm
from strongroom.evidence.envelope import Envelope
from strongroom.evidence.intel_pck import Chain
from strongroom.evidence.model import Appraisal, Checks, Tier, hardware_tier
from strongroom.evidence.policy import Policy
from strongroom.evidence.tdreport import TdReport
from strongroom.evidence.tdx_quote import Quote
from strongroom.evidence.trust import Trust

TYPE = "azure-cvm"
_PARTS = {"hcl-report", "quote", "signature", "pcrs"}
_TD_QUOTE = "td-quote"
_REQUIRED = frozenset(
    ("format", "report-type", "paravisor", "ak-binding", "ak-signature", "pcr-selection", "pcr-digest", "nonce", "user-data",
     "secure-boot", "code", "image", "tee", "age")
)  # fmt: skip
_VM_CLAIMS = (
    "console-enabled", "interactive-console-enabled", "secure-boot", "tpm-enabled", "tpm-persisted",
    "filtered-vpci-devices-allowed", "root-cert-thumbprint",
)  # fmt: skip


# SHA-384 of the keys by which Microsoft signs the identity of its paravisors on SNP (ID_KEY_DIGEST), as tokens of
# Azure Attestation name them for compliant machines (claim x-ms-sevsnpvm-idkeydigest). Without a known key or a pinned
# measurement, anybody with a processor of the right kind could write claims that name a key of their own.
MICROSOFT_ID_KEYS = frozenset(
    (
        "0356215882a825279a85b300b0b742931d113bf7e32dde2e50ffde7ec743ca491ecdd7f336dc28a6e0b2bb57af7a44a3",
        "942fd93ebde6ea7a96efadeafc60f1c6b3d10e703b1dafd7555b92f7f3d32d0e006767648cba5b102af3d65756af4177",
    )
)


@dataclass(frozen=True, slots=True)
class _Vtpm:
    """What every such machine brings, of either kind of hardware."""

    report: hcl.Report
    attest: tpm.Attest
    signature: bytes
    pcrs: Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class _Td:
    """TDX hardware evidence."""

    report: TdReport
    quote: Quote
    chain: Chain


_Hardware = snp_report.Report | _Td


def verify(
    envelope: Envelope, policy: Policy, *, now: datetime, expected_nonce: str | bytes | None, trust: Trust
) -> Appraisal:
    """Appraise a parsed envelope of this type. Never raises for anything in the envelope."""
    checks = Checks()
    try:
        vtpm = _vtpm(envelope)
        if not _check_body(checks, vtpm.report):
            return Appraisal(TYPE, Tier.CONTRAINDICATED, tuple(checks.items))
        hardware = _hardware(envelope, vtpm.report)
    except FormatError as error:
        checks.failed("format", str(error))
        return Appraisal(TYPE, Tier.CONTRAINDICATED, tuple(checks.items))
    checks.passed("format", "The evidence has the parts of an Azure confidential VM, of the right form.")
    claims = _check_hardware(checks, envelope, hardware, policy, now, trust)
    held = hardware.report.report_data if isinstance(hardware, _Td) else hardware.report_data
    _check_vtpm(checks, vtpm, held)
    _check_bound(checks, vtpm, expected_nonce)
    image = _check_code(checks, vtpm, hardware, policy)
    binding.check_age(checks, envelope, policy, now)
    binding.check_place(checks, policy)
    claims = _claims(claims, vtpm, envelope) | ({"image": image} if image else {})
    needed = tdx.REQUIRED_OF_QUOTE | {"td-report"} if isinstance(hardware, _Td) else snp.REQUIRED_OF_REPORT
    tier = hardware_tier(checks.items, required=binding.required(policy, _REQUIRED | needed))
    return Appraisal(TYPE, tier, tuple(checks.items), claims)


def _vtpm(envelope: Envelope) -> _Vtpm:
    parts = envelope.parts
    if not set(parts) - {_TD_QUOTE} == _PARTS:
        raise FormatError(
            f"Evidence of an Azure confidential VM has the parts {', '.join(sorted(_PARTS))}, and td-quote on TDX."
        )
    return _Vtpm(
        hcl.parse(parts["hcl-report"]),
        tpm.parse_attest(parts["quote"]),
        tpm.parse_signature(parts["signature"]),
        tpm.parse_pcrs(parts["pcrs"]),
    )


def _check_body(checks: Checks, report: hcl.Report) -> bool:
    """Whether the report in the slot is of the kind that the HCL report names."""
    is_td = tdreport.looks_like(report.hardware)
    return checks.require(
        "report-type",
        is_td is (report.kind == hcl.TDX),
        f"The HCL report holds the kind of hardware report that it names ({report.kind}).",
        f"The HCL report names a hardware report of the kind {report.kind}, and holds another one.",
    )


def _hardware(envelope: Envelope, report: hcl.Report) -> _Hardware:
    """The hardware evidence; collateral and parts of the other kind are refused. Raises FormatError."""
    if report.kind == hcl.SNP:
        if _TD_QUOTE in envelope.parts:
            raise FormatError("A machine with an SNP report has no td-quote.")
        snp.need_collateral(envelope)
        return snp_report.parse(report.hardware)
    if _TD_QUOTE not in envelope.parts or not set(envelope.collateral) <= {"tdx-collateral"}:
        raise FormatError(
            "A machine with a TDREPORT brings a td-quote, and no collateral but tdx-collateral."
        )
    return _Td(tdreport.parse(report.hardware), *tdx.read_quote(envelope.parts[_TD_QUOTE]))


def _check_hardware(
    checks: Checks, envelope: Envelope, hardware: _Hardware, policy: Policy, now: datetime, trust: Trust
) -> dict[str, Any]:
    collateral = envelope.collateral
    if not isinstance(hardware, _Td):
        return snp.check_report(
            checks,
            hardware,
            vek=collateral["vek"],
            chain=collateral.get("chain"),
            crl=collateral.get("crl"),
            policy=policy,
            now=now,
            trust=trust,
        )
    claims = tdx.check_quote(
        checks,
        hardware.quote,
        hardware.chain,
        envelope.parts[_TD_QUOTE],
        collateral.get("tdx-collateral"),
        policy=policy,
        now=now,
        trust=trust,
    )
    fault = tdreport.fault(hardware.report, hardware.quote)
    checks.require(
        "td-report",
        fault is None,
        "The TD quote was made from the report that the paravisor holds.",
        f"The TD quote was not made from the report that the paravisor holds: {fault}.",
    )
    binding.check_tee(checks, "tdx", policy)
    return claims


def _check_vtpm(checks: Checks, vtpm: _Vtpm, report_data: bytes) -> None:
    report, attest = vtpm.report, vtpm.attest
    checks.require(
        "ak-binding",
        hmac.compare_digest(report_data, report.report_data()),
        "The hardware report holds the hash of the claims, and they name the vTPM's attestation key.",
        "The hardware report does not hold the hash of the claims, so the vTPM's key could be anybody's.",
    )
    checks.require(
        "ak-signature",
        _signed(vtpm),
        "The vTPM quote is signed by that attestation key.",
        "The vTPM quote is not signed by the attestation key that the claims name.",
    )
    fault = tpm.selection_fault(attest, vtpm.pcrs)
    checks.require(
        "pcr-selection",
        fault is None,
        f"The quote covers exactly the {len(vtpm.pcrs)} SHA-256 PCRs whose values are given.",
        f"The PCR values are not those that the quote covers: {fault}.",
    )
    checks.require(
        "pcr-digest",
        tpm.pcr_digest(vtpm.pcrs) == attest.digest,
        "The PCR values are the quoted ones.",
        "The PCR values are not the quoted ones: their digest is another.",
    )
    checks.require(
        "secure-boot",
        report.vm["secure-boot"] is True and report.vm.get("tpm-enabled", True) is True,
        "The machine was configured with secure boot.",
        "The machine was configured without secure boot, so its firmware would start any system.",
    )


def _signed(vtpm: _Vtpm) -> bool:
    try:
        key = vtpm.report.ak.public()
    except ValueError:
        return False
    return tpm.verify(key, vtpm.signature, vtpm.attest)


def _check_bound(checks: Checks, vtpm: _Vtpm, expected: str | bytes | None) -> None:
    """Checks `nonce` (the quote's extra data) and `user-data` (what the paravisor was asked to put into its claims)."""
    extra, user_data = vtpm.attest.extra_data, vtpm.report.user_data
    if expected is None:
        checks.not_available("nonce", binding.NOT_COMPARED)
        checks.not_available(
            "user-data", "No context was given, so the paravisor's user-data was not compared."
        )
        return
    checks.require(
        "nonce",
        any(extra) and hmac.compare_digest(extra, binding.expected_bytes(expected)),
        "The evidence is bound to this context: the vTPM quote's extra data is its hash.",
        f"{binding.OTHER_CONTEXT} (The quote's extra data is {'empty' if not extra else 'another value'}.)",
    )
    if not any(user_data):
        checks.not_available(
            "user-data",
            "Nobody asked the paravisor for a report bound to this context: its user-data is empty. The quote alone "
            "carries the binding, so the hardware report may be older.",
        )
        return
    checks.require(
        "user-data",
        binding.holds(user_data, expected),
        "The paravisor's report was made for this context: its user-data is the hash.",
        "The paravisor's report was made for another context: its user-data is another value.",
    )


def _check_code(checks: Checks, vtpm: _Vtpm, hardware: _Hardware, policy: Policy) -> str | None:
    """Checks `paravisor`, `code` and `image`. A reference may pin the paravisor too: `measurement` (SNP) or `mrtd`."""
    name, started = (
        ("mrtd", hardware.quote.body.mrtd)
        if isinstance(hardware, _Td)
        else ("measurement", hardware.measurement)
    )

    def matches(entry: Mapping[str, Any]) -> bool:
        pcrs_agree = all(
            vtpm.pcrs.get(int(pcr)) == bytes.fromhex(value) for pcr, value in entry["pcrs"].items()
        )
        return pcrs_agree and entry.get(name, started.hex()) == started.hex()

    entries = policy.code_for(TYPE)
    pinned = any(name in entry and matches(entry) for entry in entries)
    known = not isinstance(hardware, _Td) and hardware.id_key_digest.hex() in MICROSOFT_ID_KEYS
    if pinned or known:
        who = "one that the policy pins" if pinned else "signed by Microsoft"
        checks.passed("paravisor", f"The paravisor, which speaks for the vTPM, is {who}.")
    else:
        checks.not_available(
            "paravisor",
            f"Who made the paravisor, which speaks for the vTPM, is not known: the policy pins no {name} "
            f"{started.hex()}, and no known key of Microsoft's signed it.",
        )
    if snp.refuse_foreign_code(checks, policy, TYPE):
        return None
    shown = f"{len(vtpm.pcrs)} PCRs, quoted digest {vtpm.attest.digest.hex()[:16]}..."
    return binding.check_code(checks, entries, policy, shown, matches)


def _claims(claims: dict[str, Any], vtpm: _Vtpm, envelope: Envelope) -> dict[str, Any]:
    attest, vm = vtpm.attest, vtpm.report.vm
    code = {
        **claims.get("code", {}),
        "pcrs": dict(zip(map(str, vtpm.pcrs), map(bytes.hex, vtpm.pcrs.values()), strict=True)),
    }
    return {
        **claims,
        "code": code,
        "instance": vm["vmUniqueId"].lower(),
        "nonce": attest.extra_data.hex(),
        "user_data": vtpm.report.user_data.hex(),
        "collected": shapes.format_time(envelope.collected),
        "vm": {name.replace("-", "_"): vm[name] for name in _VM_CLAIMS if name in vm},
        "vtpm": {
            "firmware": f"{attest.firmware:#x}",
            "resets": attest.reset_count,
            "restarts": attest.restart_count,
            "clock_ms": str(attest.clock),  # 64 bits, more than JSON holds exactly
            "clock_safe": attest.safe,
        },
    }
