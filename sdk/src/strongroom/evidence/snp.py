"""Raw SEV-SNP evidence: a report signed by a key of an AMD processor, verified up to the pinned AMD root.

    parts.report      = the attestation report, 1184 bytes
    collateral.vek    = the VCEK or VLEK that signed it (DER or PEM)
    collateral.chain  = optional: ASK or ASVK and ARK, in any order
    collateral.crl    = optional: the ARK's revocation list

`check_report` judges the report and its chain, and is shared by every type of evidence that holds one. What the report
is bound to and which program it stands for differ from type to type and are checked by each.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from strongroom import shapes
from strongroom.errors import FormatError
from strongroom.evidence import amd, binding, snp_report
from strongroom.evidence.amd import Endorsement
from strongroom.evidence.envelope import Envelope
from strongroom.evidence.model import Appraisal, Checks, Tier, hardware_tier
from strongroom.evidence.policy import Policy
from strongroom.evidence.snp_report import Report
from strongroom.evidence.trust import Trust

TYPE = "snp"
TEE = "sev-snp"
COLLATERAL = frozenset(("vek", "chain", "crl"))
# What must have passed, beside what a type adds, before evidence with a report is affirming.
REQUIRED_OF_REPORT = frozenset(
    ("format", "version", "signature-algorithm", "trust-anchor", "chain", "validity", "signer", "signature",
     "tcb-certificate", "vmpl", "debug", "migration", "guest-policy", "product", "tee")
)  # fmt: skip
_REQUIRED = REQUIRED_OF_REPORT | {"nonce", "code", "image", "age"}


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
    checks.passed("format", "The evidence has the parts of raw SEV-SNP evidence, of the right form.")
    collateral = envelope.collateral
    claims = check_report(
        checks,
        report,
        vek=collateral["vek"],
        chain=collateral.get("chain"),
        crl=collateral.get("crl"),
        policy=policy,
        now=now,
        trust=trust,
    )
    binding.check_nonce(checks, report.report_data, expected_nonce, "REPORT_DATA")
    image = check_code(checks, report, policy)
    binding.check_place(checks, policy)
    binding.check_age(checks, envelope, policy, now)
    claims |= {"nonce": report.report_data.hex(), "collected": shapes.format_time(envelope.collected)}
    if image is not None:
        claims["image"] = image
    tier = hardware_tier(checks.items, required=binding.required(policy, _REQUIRED))
    return Appraisal(TYPE, tier, tuple(checks.items), claims)


def _read(envelope: Envelope) -> Report:
    if set(envelope.parts) != {"report"}:
        raise FormatError("Raw SEV-SNP evidence has one part: report.")
    need_collateral(envelope)
    return snp_report.parse(envelope.parts["report"])


def need_collateral(envelope: Envelope) -> None:
    """Refuse collateral that is not for a report, and the lack of its certificate. Raises FormatError."""
    if not {"vek"} <= set(envelope.collateral) <= COLLATERAL:
        raise FormatError("The collateral of an SEV-SNP report is vek and, where at hand, chain and crl.")


def check_report(
    checks: Checks,
    report: Report,
    *,
    vek: bytes,
    chain: bytes | None,
    crl: bytes | None,
    policy: Policy,
    now: datetime,
    trust: Trust,
) -> dict[str, Any]:
    """Every check of a report and its chain but those of its binding (nonce) and its program (code). Returns claims."""
    checks.require(
        "version",
        report.version in snp_report.VERSIONS,
        f"The report is of version {report.version}.",
        f"The report is of version {report.version}; this verifier knows {', '.join(map(str, snp_report.VERSIONS))}.",
    )
    checks.require(
        "signature-algorithm",
        report.sig_algo == snp_report.ECDSA_P384_SHA384,
        "The report names ECDSA on P-384 with SHA-384.",
        f"The report names signature algorithm {report.sig_algo}, which is not known.",
    )
    said = amd.endorse(checks, vek=vek, chain=chain, crl=crl, now=now, trust=trust)
    if said is None:
        for name in ("signer", "signature", "tcb-certificate", "tcb", "chip-id", "product"):
            checks.not_available(name, "Without a certificate of the signing key this was not looked at.")
    else:
        _check_signature(checks, report, said)
        _check_tcb(checks, report, said, policy)
        _check_chip(checks, report, said)
        _check_product(checks, report, said, policy)
    _check_guest(checks, report)
    binding.check_tee(checks, TEE, policy)
    return _claims(report, said)


def _check_signature(checks: Checks, report: Report, said: Endorsement) -> None:
    checks.require(
        "signer",
        report.signer == said.kind,
        f"The report says that a {said.kind} signed it, and the certificate is one.",
        f"The report says that its signer is {report.signer}, and the certificate is a {said.kind}.",
    )
    checks.require(
        "signature",
        said.key is not None and _verified(report, said.key),
        "The signature is by the certified key, over this report.",
        "The signature does not match: the report was changed, or another key signed it."
        if report.r or report.s
        else "The report is not signed: its host hides the chip's key (MASK_CHIP_KEY), or the signature was taken away.",
    )


def _verified(report: Report, key: ec.EllipticCurvePublicKey) -> bool:
    try:
        key.verify(encode_dss_signature(report.r, report.s), report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True


def _check_tcb(checks: Checks, report: Report, said: Endorsement, policy: Policy) -> None:
    """The key is derived from the reported version, so the certificate must name the same one.

    Firmware that runs may be newer than what is reported; newer than what is committed means that its owner can
    still go back, which is why only the reported version is compared with the policy.
    """
    reported, committed, current = (
        snp_report.tcb_parts(raw, said.product)
        for raw in (report.reported_tcb, report.committed_tcb, report.current_tcb)
    )
    wrong = [
        f"{name} {reported[name]} and not {value}"
        for name, value in said.tcb.items()
        if reported[name] != value
    ]
    ahead = sorted({*snp_report.below(current, reported), *snp_report.below(current, committed)})
    if wrong:
        checks.failed(
            "tcb-certificate", f"The report's TCB is not that of the certificate: {', '.join(wrong)}."
        )
    else:
        checks.require(
            "tcb-certificate",
            not ahead,
            "The reported TCB is that of the certificate and not above what the firmware runs.",
            f"The report claims a TCB above the one that runs: {', '.join(ahead)}.",
        )
    minima = policy.tcb.get(said.product)
    if not minima:
        checks.not_available("tcb", f"The policy asks for no minimum TCB of {said.product}.")
        return
    lower = [
        f"{n} {reported.get(n, 0)} of {value}" for n, value in minima.items() if reported.get(n, 0) < value
    ]
    checks.require(
        "tcb",
        not lower,
        f"The reported TCB is at least the policy's minimum for {said.product}.",
        f"The reported TCB is below the policy's minimum for {said.product}: {', '.join(lower)}.",
    )


def _check_chip(checks: Checks, report: Report, said: Endorsement) -> None:
    if said.kind == "VLEK":
        checks.not_available(
            "chip-id", f"Not applicable: a VLEK belongs to a cloud ({said.csp}) and not to one chip."
        )
        return
    if not any(report.chip_id):
        checks.not_available(
            "chip-id",
            "The report names no chip, because its host hides it (MASK_CHIP_ID). The signature alone shows that it is the "
            "certificate's.",
        )
        return
    hwid = said.hwid or b""
    checks.require(
        "chip-id",
        any(hwid) and report.chip_id[: len(hwid)] == hwid,
        "The report comes from the chip that the certificate was issued for.",
        "The report comes from another chip than the certificate was issued for.",
    )


def _check_product(checks: Checks, report: Report, said: Endorsement, policy: Policy) -> None:
    seen = report.product
    checks.require(
        "product",
        seen is None or seen == said.product,
        f"The processor is of the product line {said.product}"
        + (", by its certificate (a report of version 2 does not say)." if seen is None else "."),
        f"The report comes from {seen or 'a processor that is not known'}, and its certificate is for {said.product}.",
    )
    if policy.products:
        checks.require(
            "product-accepted",
            said.product in policy.products,
            "The policy accepts this product line.",
            f"The policy does not accept {said.product}. It accepts: {', '.join(policy.products)}.",
        )
    else:
        checks.not_available("product-accepted", "The policy names no product lines.")


def _check_guest(checks: Checks, report: Report) -> None:
    checks.require(
        "vmpl",
        report.vmpl == 0,
        "The report was asked for at privilege level 0, the most trusted of the guest.",
        f"The report was asked for at privilege level {report.vmpl}; only level 0 is accepted.",
    )
    checks.require(
        "debug",
        report.debug is False,
        "Debugging is off: the host cannot read the guest's memory.",
        "Debugging is allowed: the host can read the guest's memory.",
    )
    checks.require(
        "migration",
        report.policy_bit(snp_report.POLICY_MIGRATE) is False,
        "No migration agent may move the guest.",
        "A migration agent may move the guest to another machine.",
    )
    unknown = report.policy >> snp_report.POLICY_KNOWN_BITS
    checks.require(
        "guest-policy",
        report.policy_bit(snp_report.POLICY_RESERVED_ONE) and not unknown,
        "The guest policy has its fixed bit and no bit that is not known.",
        f"The guest policy {report.policy:#x} lacks its fixed bit 17 or sets bits above 25, which are not known.",
    )


def check_code(checks: Checks, report: Report, policy: Policy) -> str | None:
    """Checks `code` and `image` by measurement and, where the reference has one, host data. Returns the image."""
    entries = policy.code_for(TYPE)
    if refuse_foreign_code(checks, policy, TYPE):
        return None
    return binding.check_code(
        checks,
        entries,
        policy,
        f"measurement {report.measurement.hex()}, host data {report.host_data.hex()}",
        lambda entry: (
            entry["measurement"] == report.measurement.hex()
            and entry.get("host_data", report.host_data.hex()) == report.host_data.hex()
        ),
    )


def refuse_foreign_code(checks: Checks, policy: Policy, type_: str) -> bool:
    """Fail `code` where the policy has reference values for `type_`, but of no image that it accepts."""
    if policy.code_for(type_) or not any(entry["type"] == type_ for entry in policy.code):
        return False
    checks.failed("code", "The policy gives reference values of images only that it does not accept itself.")
    checks.not_available("image", "No runner image is known for these measurements.")
    return True


def _claims(report: Report, said: Endorsement | None) -> dict[str, Any]:
    product = said.product if said else report.product or ""
    versions = ("reported", "current", "committed", "launch")
    claims: dict[str, Any] = {
        "tee": TEE,
        "product": product,
        "debug": report.debug,
        "code": {"measurement": report.measurement.hex(), "host_data": report.host_data.hex()},
        "tcb": {name: snp_report.tcb_parts(getattr(report, f"{name}_tcb"), product) for name in versions},
        "instance": report.report_id.hex(),
        "chip": report.chip_id.hex(),
        "vmpl": report.vmpl,
        "guest_svn": report.guest_svn,
        "guest_policy": f"{report.policy:#x}",
        "platform": {**snp_report.platform(report), "bits": f"{report.platform_info:#x}"},
        "id_key": report.id_key_digest.hex(),
        "report_version": report.version,
        "signer": report.signer,
    }
    if said is not None:
        claims["attester"] = f"amd-ark:{said.product}:{said.anchor or 'not pinned'}"
        claims |= {"csp": said.csp} if said.csp else {}
    return claims
