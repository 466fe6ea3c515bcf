"""What the claims of an Azure Attestation token must say. Claims that no rule names are left alone.

Kinds of token, by `x-ms-attestation-type` and `x-ms-compliance-status`:

    azurevm                            a confidential VM's guest; the machine's claims stand in `x-ms-isolation-tee`
    sevsnpvm + azure-compliant-cvm     the same machine without its guest, claims at the top
    sevsnpvm + azure-compliant-uvm     a confidential container group, claims at the top
    tdxvm                              a TDX machine without its guest, claims at the top

Every good value is compared by equality. A nonce that the caller gave to the service, and `client-payload`, are
echoed and prove nothing: what binds is user-data or the report data, which the hardware signed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from strongroom.evidence import maa_binding, maa_code
from strongroom.evidence.model import Checks
from strongroom.evidence.policy import PRODUCTS, TCB_PARTS, UP_TO_DATE, Policy
from strongroom.evidence.tokens import member, text, texts

CONTAINERS, MACHINE = "azure-compliant-uvm", "azure-compliant-cvm"
TEES = {"sevsnpvm": "sev-snp", "tdxvm": "tdx"}
_REQUIRED = (
    "algorithm", "issuer", "trust-anchor", "signature", "validity", "age", "collected", "policy-identity", "tee",
    "compliance", "debug", "secure-boot", "vmpl", "migration", "nonce", "code",
)  # fmt: skip
_NOT_ON_TDX = ("vmpl", "migration")
# TD_ATTRIBUTES (Intel TDX module ABI): any bit of the first byte is "TD under debug"; bit 29 lets the machine be moved.
_TUD, _MIGRATABLE = 0xFF, 1 << 29
_NOT_FOR_CONTAINERS = ("secure-boot",)
_SVN = {"bootloader": "bootloader", "tee": "tee", "snp": "snpfw", "microcode": "microcode", "fmc": "fmc"}
_HEX8 = re.compile(r"[0-9a-fA-F]{16}")
_HEX32 = re.compile(r"[0-9a-f]{64}")
_HEX48 = re.compile(r"[0-9a-fA-F]{96}")
_DIGITS = re.compile(r"[0-9]{1,9}")
# Flags of the guest's boot, each with its one good value.
_DEBUG = {
    "bootdebug-enabled": False, "kerneldebug-enabled": False, "hypervisordebug-enabled": False,
    "debuggersdisabled": True,
}  # fmt: skip
_BOOT = {
    "dbvalidated": True, "dbxvalidated": True, "signingdisabled": True, "testsigning-enabled": False,
    "flightsigning-enabled": False,
}  # fmt: skip
_OTHER_SYSTEM = "The attestation service does not know the guest's system, so the token does not say"


@dataclass(frozen=True, slots=True)
class Machine:
    """The claims about the machine, wherever in the token they stand. `tee` is None for a kind that is not known."""

    claims: Mapping[str, Any]
    tee: str | None
    guest: bool
    compliance: Any

    @property
    def containers(self) -> bool:
        return self.compliance == CONTAINERS and not self.guest

    def snp(self, name: str) -> Any:
        return self.claims.get(f"x-ms-sevsnpvm-{name}")


def judge(
    checks: Checks,
    claims: dict[str, Any],
    policy: Policy,
    expected_nonce: str | bytes | None,
    runtime: bytes | None,
) -> tuple[dict[str, Any], list[str]]:
    """Judge the claims. Gives what they say in the common vocabulary, and the checks that an affirmation needs."""
    machine = _machine(claims)
    _check_tee(checks, machine, policy)
    _check_debug(checks, claims, machine)
    if not machine.containers:
        _check_boot(checks, claims, machine)
    if machine.tee == "tdx":
        _check_tdx(checks, machine)
    else:
        _check_snp(checks, machine)
    required = _check_tcb(checks, machine, policy)
    maa_binding.check(checks, machine.claims, expected_nonce, runtime, containers=machine.containers)
    image = (
        maa_code.check_containers(checks, machine.snp("hostdata"), policy)
        if machine.containers
        else maa_code.check_machine(checks, _pcr_values(claims, machine), _measured(machine), policy)
    )
    _check_place(checks, claims, machine, policy)
    if policy.uvm_svn is not None and machine.containers:
        _check_uvm(checks, machine, policy.uvm_svn)
        required.append("uvm-endorsement")
    if policy.projects or policy.zones:
        required.append("place")
    left_out = {*(_NOT_ON_TDX if machine.tee == "tdx" else ())}
    left_out |= {*(_NOT_FOR_CONTAINERS if machine.containers else ())}
    required += [name for name in _REQUIRED if name not in left_out]
    return _said(claims, machine, image), required


def _machine(claims: dict[str, Any]) -> Machine:
    kind = claims.get("x-ms-attestation-type")
    guest = kind == "azurevm"
    found = claims.get("x-ms-isolation-tee") if guest else claims
    inner: dict[str, Any] = found if isinstance(found, dict) else {}
    kind = inner.get("x-ms-attestation-type")
    tee = TEES.get(kind) if isinstance(kind, str) else None
    return Machine(inner, tee, guest, inner.get("x-ms-compliance-status"))


def _check_tee(checks: Checks, machine: Machine, policy: Policy) -> None:
    if machine.tee is None:
        checks.failed("tee", "The token is not about a machine or container group with SEV-SNP or TDX.")
    else:
        checks.require(
            "tee",
            not policy.tees or machine.tee in policy.tees,
            f"The machine's memory is encrypted by {machine.tee}.",
            f"The machine's memory is encrypted by {machine.tee}; the policy accepts {', '.join(policy.tees)}.",
        )
    good = [MACHINE] if machine.guest or machine.tee == "tdx" else [MACHINE, CONTAINERS]
    checks.require(
        "compliance",
        machine.compliance in good,
        f"The attestation service found the machine to be {machine.compliance}.",
        f"The attestation service did not find the machine to be {' or '.join(good)}.",
    )


def _check_debug(checks: Checks, claims: dict[str, Any], machine: Machine) -> None:
    wrong = []
    if machine.tee == "tdx":
        attributes = _td_attributes(machine)
        wrong += (
            ["tdx_td_attributes_debug"] if machine.claims.get("tdx_td_attributes_debug") is not False else []
        )
        wrong += ["tdx_td_attributes"] if attributes is None or attributes & _TUD else []
        wrong += ["dbgstat"] if machine.claims.get("dbgstat", "disabled") != "disabled" else []
    elif machine.snp("is-debuggable") is not False:
        wrong.append("x-ms-sevsnpvm-is-debuggable")
    if machine.guest:
        wrong += _flags(claims, _DEBUG)
        if not wrong and (unsaid := _unsaid(claims, _DEBUG)):
            checks.not_available("debug", f"{_OTHER_SYSTEM} whether it was started for debugging ({unsaid}).")
            return
    checks.require(
        "debug",
        not wrong,
        "The machine cannot be debugged from outside, and its system was not started for debugging.",
        f"The machine may be debugged, so its memory is open ({', '.join(wrong)}). Refused whatever the policy says.",
    )


def _td_attributes(machine: Machine) -> int | None:
    """TD_ATTRIBUTES, eight bytes in hex, the lowest first. Older tokens do not have them: 0; None for another form."""
    value = machine.claims.get("tdx_td_attributes", "00" * 8)
    good = isinstance(value, str) and _HEX8.fullmatch(value)
    return int.from_bytes(bytes.fromhex(value), "little") if good else None


def _flags(claims: dict[str, Any], wanted: Mapping[str, bool]) -> list[str]:
    """The flags with another value than the good one. One that must be false may be missing: see _unsaid."""
    names = {f"x-ms-azurevm-{name}": value for name, value in wanted.items()}
    return [name for name, value in names.items() if claims.get(name, False) is not value]


def _unsaid(claims: dict[str, Any], wanted: Mapping[str, bool]) -> str:
    """The flags that are missing. The service reads those that must be false from the logs of systems that it knows."""
    return ", ".join(name for name in wanted if f"x-ms-azurevm-{name}" not in claims)


def _check_boot(checks: Checks, claims: dict[str, Any], machine: Machine) -> None:
    configuration = member(machine.claims, "x-ms-runtime", "vm-configuration")
    if configuration is None and not machine.guest:
        checks.not_available(
            "secure-boot",
            "The token does not say how the machine was configured to start: it has no vm-configuration.",
        )
        return
    wrong = [name for name in ("secure-boot", "tpm-enabled") if member(configuration, name) is not True]
    if machine.guest:
        wrong += ["secureboot"] if claims.get("secureboot") is not True else []
        wrong += _flags(claims, _BOOT)
        if not wrong and (unsaid := _unsaid(claims, _BOOT)):
            checks.not_available("secure-boot", f"{_OTHER_SYSTEM} how it checks signatures ({unsaid}).")
            return
    checks.require(
        "secure-boot",
        not wrong,
        "The machine started with secure boot and a virtual TPM.",
        f"The token does not show that the machine started with secure boot and a virtual TPM ({', '.join(wrong)}).",
    )


def _check_snp(checks: Checks, machine: Machine) -> None:
    vmpl = machine.snp("vmpl")
    checks.require(
        "vmpl",
        isinstance(vmpl, int) and not isinstance(vmpl, bool) and vmpl == 0,
        "The report was made at the highest privilege level (VMPL 0).",
        "The report was not made at the highest privilege level (VMPL 0), so other software stood above it.",
    )
    checks.require(
        "migration",
        machine.snp("migration-allowed") is False,
        "The machine cannot be moved by a migration agent.",
        "The machine may be moved by a migration agent, which would then hold its memory.",
    )


def _check_tdx(checks: Checks, machine: Machine) -> None:
    attributes = _td_attributes(machine)
    checks.require(
        "migration",
        attributes is not None and not attributes & _MIGRATABLE,
        "The machine cannot be moved to another one.",
        "The machine may be moved to another one, by a service domain that was not appraised.",
    )


def _check_tcb(checks: Checks, machine: Machine, policy: Policy) -> list[str]:
    """Versions of the hardware. Also names what this token must not leave open.

    As for raw evidence: Intel's status must always be an accepted one; of AMD's versions only what the policy asks.
    """
    if machine.tee == "tdx":
        _check_tdx_tcb(checks, machine, policy)
        return ["tcb"]
    found = _svns(machine)
    product = _product(machine)
    if policy.products:
        if product is None:
            checks.not_available(
                "product", "The token does not name the processor, and the policy asks for one."
            )
        else:
            checks.require(
                "product",
                product in policy.products,
                f"The processor is {product}.",
                f"The processor is {product}; the policy accepts {', '.join(policy.products)}.",
            )
    if found is None:
        checks.failed("tcb", "The token does not show the versions of the processor's firmware.")
    elif not policy.tcb:
        checks.not_available("tcb", "The policy asks for no version of the processor's firmware.")
    else:
        _compare_tcb(checks, found, product, policy)
    needed = ["product"] if policy.products else []
    return [*needed, "tcb"] if policy.tcb and product is None else needed


def _compare_tcb(checks: Checks, found: Mapping[str, int], product: str | None, policy: Policy) -> None:
    """Where the token does not name its processor, every minimum of the policy must be met, or none is said to be."""
    minima = policy.tcb if product is None else {n: m for n, m in policy.tcb.items() if n == product}
    low = {
        name
        for name, minimum in minima.items()
        if any(found.get(part, -1) < value for part, value in minimum.items())
    }
    shown = ", ".join(f"{name} {value}" for name, value in found.items())
    if not minima:
        checks.not_available("tcb", f"The policy asks for no version of the firmware of {product}.")
    elif low == set(minima):
        checks.failed("tcb", f"The processor's firmware is older than the policy accepts: {shown}.")
    elif low:
        checks.not_available(
            "tcb",
            f"The token does not name the processor, so which minimum its firmware ({shown}) must meet is open.",
        )
    else:
        checks.passed("tcb", f"The processor's firmware is recent enough: {shown}.")


def _check_tdx_tcb(checks: Checks, machine: Machine, policy: Policy) -> None:
    status = text(machine.claims, "attester_tcb_status", most=100)
    named = machine.claims.get("attester_advisory_ids") or []
    advisories = texts(named) if isinstance(named, list) else None
    advisories = ["in a form that cannot be read"] if advisories is None else advisories
    open_ = [name[:40] for name in advisories if name not in policy.tdx_advisories]
    if status is None and not policy.tdx_tcb:
        checks.not_available("tcb", "The token does not say whether the TDX platform is up to date.")
    elif status not in (policy.tdx_tcb or UP_TO_DATE):
        checks.failed(
            "tcb", f"The TDX platform is {status or 'of unknown status'}, which the policy does not accept."
        )
    else:
        checks.require(
            "tcb",
            not open_,
            f"The policy accepts a TDX platform that is {status}.",
            f"The TDX platform has open advisories that the policy does not tolerate: {', '.join(open_[:20])}.",
        )


def _svns(machine: Machine) -> dict[str, int] | None:
    found = {part: machine.snp(f"{_SVN[part]}-svn") for part in TCB_PARTS}
    if found["fmc"] is None:
        del found["fmc"]
    good = all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= 255 for v in found.values())
    return found if good else None


def _product(machine: Machine) -> str | None:
    found = machine.snp("chip-family")
    return found if found in PRODUCTS else None


def _measured(machine: Machine) -> dict[str, str]:
    """The launch measurement of the machine's firmware by its name in a `code` entry, in lower-case hex."""
    code = {"measurement": machine.snp("launchmeasurement"), "mrtd": machine.claims.get("tdx_mrtd")}
    return {n: v.lower() for n, v in code.items() if isinstance(v, str) and _HEX48.fullmatch(v)}


def _pcr_values(claims: Mapping[str, Any], machine: Machine) -> dict[str, str]:
    return maa_code.pcr_values(claims) if machine.guest else {}


def _uvm_svn(machine: Machine) -> int | None:
    """The security version in Microsoft's endorsement of the utility VM, a number or its digits; None without one.

    `guestsvn` beside it is another number: that of the identity block which the report holds (Microsoft, "Confidential
    ACI scheme": "This is NOT the AMD SEV-SNP guestsvn").
    """
    found = member(machine.snp("uvm-endorsement"), "x-ms-sevsnpvm-guestsvn")
    if isinstance(found, str) and _DIGITS.fullmatch(found):
        return int(found)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _check_uvm(checks: Checks, machine: Machine, least: int) -> None:
    found = _uvm_svn(machine)
    if found is None:
        checks.not_available(
            "uvm-endorsement",
            "The token does not name the security version of the utility VM that was endorsed.",
        )
    else:
        checks.require(
            "uvm-endorsement",
            found >= least,
            f"The utility VM's security version {found} is at least {least}.",
            f"The utility VM's security version is {found}; the policy accepts {least} and above.",
        )


def _check_place(checks: Checks, claims: dict[str, Any], machine: Machine, policy: Policy) -> None:
    inner = text(machine.claims, "x-ms-runtime", "vm-configuration", "vmUniqueId", most=100)
    outer = text(claims, "x-ms-azurevm-vmid", most=100)
    if machine.guest:
        checks.require(
            "instance",
            outer is not None and inner is not None and outer.upper() == inner.upper(),
            "The guest and its firmware name the same machine.",
            "The guest and its firmware do not name the same machine.",
        )
    if policy.projects or policy.zones:
        checks.not_available("place", "The token does not say in which subscription or zone the machine ran.")


def _said(claims: dict[str, Any], machine: Machine, image: str | None) -> dict[str, Any]:
    """The claims in the common vocabulary, each only where it has the form that it should have."""
    instance = (
        text(claims, "x-ms-azurevm-vmid", most=100)
        or text(machine.claims, "x-ms-runtime", "vm-configuration", "vmUniqueId", most=100)
        or text(machine.claims, "x-ms-sevsnpvm-reportid", most=100)
    )
    code: dict[str, Any] = _measured(machine)
    pcrs = _pcr_values(claims, machine)
    code |= {"pcrs": pcrs} if pcrs else {}
    host_data = machine.snp("hostdata")
    if machine.containers and isinstance(host_data, str) and _HEX32.fullmatch(host_data):
        code["host_data"] = host_data
    tdx = {"status": text(machine.claims, "attester_tcb_status", most=100)}
    svn = _uvm_svn(machine) if machine.containers else None
    debug = (
        machine.claims.get("tdx_td_attributes_debug")
        if machine.tee == "tdx"
        else machine.snp("is-debuggable")
    )
    said = {
        "tee": machine.tee,
        "product": _product(machine),
        "debug": debug is not False,
        "image": image,
        "instance": instance,
        "code": code or None,
        "tcb": ({n: v for n, v in tdx.items() if v} if machine.tee == "tdx" else _svns(machine)) or None,
        "uvm": None if svn is None else {"svn": svn},
        "nonce": maa_binding.user_data(machine.claims, containers=machine.containers),
    }
    return {name: value for name, value in said.items() if value is not None}
