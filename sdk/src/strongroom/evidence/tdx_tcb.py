"""The state of a platform's trusted computing base, by Intel's own word: TCB info, QE identity and CRLs.

These documents are not in a quote. They travel beside it as collateral, signed by Intel, with dates; the appraisal is
the one of Intel's TCB specification, done by the library `dcap-qvl` (extra `tdx`), and by tdx_collateral for the trust
domains that the library gives no status for. Nothing is fetched here.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from strongroom import shapes, strictjson
from strongroom.errors import FormatError
from strongroom.evidence import tdx_collateral
from strongroom.evidence.intel_pck import Chain
from strongroom.evidence.model import Checks
from strongroom.evidence.policy import UP_TO_DATE, Policy
from strongroom.evidence.tdx_quote import Quote

MAX_BYTES = 512 << 10
# In the library's own words: what is about certificates, and what is about the trust domain and not about the TCB. The
# second kind is judged by other checks (`debug`, `attributes`, `migration`), and the library's status is lost with it.
_REVOKED = "CertRevoked"
_NOT_OF_THE_TCB = (
    "Debug mode is enabled",
    "TD profiling is enabled",
    "Reserved bits in TD attributes are set",
    "SERVTD_EXT is enabled",
    "SEPT_VE_DISABLE is not enabled",
    "TD migration is enabled",
    "Invalid MR service TD",
)


@dataclass(frozen=True, slots=True)
class Collateral:
    """Collateral: its members as they are, and what this package reads of the two signed documents."""

    members: dict[str, str]
    tcb_info: dict[str, Any]
    qe_identity: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Status:
    """The library's answer; `fault` says why there is none."""

    status: str = ""
    advisories: tuple[str, ...] = ()
    fault: str = ""
    claims: dict[str, Any] = field(default_factory=dict)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise FormatError(f"{where} must be text.")
    return value


_NAMES = (
    "pck_crl_issuer_chain", "root_ca_crl", "pck_crl", "tcb_info_issuer_chain", "tcb_info", "tcb_info_signature",
    "qe_identity_issuer_chain", "qe_identity", "qe_identity_signature",
)  # fmt: skip
_DATED: dict[str, shapes.Checker] = {
    "issueDate": shapes.time_text,
    "nextUpdate": shapes.time_text,
    "tcbEvaluationDataNumber": shapes.whole(0, 1 << 31),
}


def parse(data: bytes) -> Collateral:
    """Read `tdx-collateral`: a JSON object of dcap-qvl's QuoteCollateralV3. Raises FormatError.

    A chain of the platform (`pck_certificate_chain`) is left out: the quote brings the one that was verified.
    """
    value = strictjson.loads(data, max_bytes=MAX_BYTES, what="The TDX collateral")
    required: dict[str, shapes.Checker] = dict.fromkeys(_NAMES, _text)
    optional: dict[str, shapes.Checker] = {"pck_certificate_chain": shapes.nullable(_text)}
    document = shapes.fields(value, "The TDX collateral", required, optional)
    document.pop("pck_certificate_chain", None)
    inner = {}
    for name, more in (("tcb_info", {"fmspc": _text}), ("qe_identity", {})):
        what = f"The collateral's {name}"
        signed = strictjson.loads(document[name].encode(), max_bytes=MAX_BYTES, what=what)
        inner[name] = shapes.pick(signed, what, {"id": _text, **_DATED, **more})
    return Collateral(document, inner["tcb_info"], inner["qe_identity"])


def check(
    checks: Checks,
    data: bytes,
    quote: Quote,
    chain: Chain,
    collateral: bytes | None,
    *,
    root: bytes | None,
    policy: Policy,
    now: datetime,
) -> dict[str, Any]:
    """Checks `tcb` and `revocation`. Returns the claims about the TCB.

    `data`: the quote's own bytes. `root`: DER of the pinned root that the quote's chain ends in.
    """
    if collateral is None:
        checks.not_available(
            "tcb",
            "The evidence brings no TDX collateral, so whether the platform is up to date is not known.",
        )
        checks.not_available("revocation", "The evidence brings no revocation lists.")
        return {}
    try:
        library = importlib.import_module("dcap_qvl")
    except ImportError:
        checks.not_available(
            "tcb",
            "The TDX collateral was not read, because the library dcap-qvl is not installed. "
            "Install strongroom[tdx] and verify again.",
        )
        checks.not_available("revocation", "The revocation lists were not read, because dcap-qvl is missing.")
        return {}
    found = _appraise(library, data, (quote, chain), collateral, root, now)
    if found.fault:
        checks.failed("tcb", f"The platform's TCB could not be shown to be acceptable: {found.fault}.")
        if _REVOKED in found.fault:
            checks.failed(
                "revocation", "A certificate of the quote or of its collateral was revoked by Intel."
            )
        else:
            checks.not_available(
                "revocation", "The collateral was not accepted, so neither were its revocation lists."
            )
        return found.claims
    checks.passed("revocation", "No certificate of the quote is on Intel's revocation lists.")
    _judge(checks, found, policy)
    return found.claims


def _appraise(
    library: Any,
    data: bytes,
    parsed: tuple[Quote, Chain],
    more: bytes,
    root: bytes | None,
    now: datetime,
) -> Status:
    platform = parsed[1].platform
    try:
        collateral = parse(more)
    except FormatError as error:
        return Status(fault=str(error).rstrip("."))
    info, identity = collateral.tcb_info, collateral.qe_identity
    claims = {
        "evaluation": info["tcbEvaluationDataNumber"],
        "issued": info["issueDate"],
        "next_update": info["nextUpdate"],
    }
    if info["fmspc"].lower() != platform.fmspc.hex():
        return Status(
            fault=f"the collateral is for platforms {info['fmspc']}, this one is {platform.fmspc.hex()}",
            claims=claims,
        )
    if root is None:
        return Status(fault="there is no pinned root to verify the collateral by", claims=claims)
    found = _ask(library, data, collateral, root, now, claims)
    if found.fault in _NOT_OF_THE_TCB:
        found = _judge_here(parsed, collateral, root, now, claims)
    return found if found.fault else _in_time(found, info, identity, now)


def _in_time(found: Status, info: dict[str, Any], identity: dict[str, Any], now: datetime) -> Status:
    """The library refuses what has expired; what was issued later than `now` is refused here."""
    for name, dated in (("TCB info", info), ("QE identity", identity)):
        begin, end = (shapes.parse_time(dated[n], name) for n in ("issueDate", "nextUpdate"))
        if not begin <= now <= end:
            return Status(
                fault=f"the {name} of the collateral holds from {begin:%Y-%m-%d} to {end:%Y-%m-%d}",
                claims=found.claims,
            )
    return found


def _ask(
    library: Any, quote: bytes, collateral: Collateral, root: bytes, now: datetime, claims: dict[str, Any]
) -> Status:
    try:
        parsed = library.QuoteCollateralV3.from_json(json.dumps(collateral.members))
        report = library.verify_with_root_ca(quote, parsed, root, int(now.timestamp()))
        status, advisories = str(report.status), tuple(sorted({str(a) for a in report.advisory_ids}))
    except BaseException as error:
        # A panic of the compiled library is no Exception; anything else of that kind is not ours to hold.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        why = " ".join(str(error).split())[:300].removeprefix("Verification failed: ").rstrip(".")
        return Status(fault=why or "the library gave no reason", claims=claims)
    return Status(status, advisories, claims={**claims, "status": status, "advisories": list(advisories)})


def _judge_here(
    parsed: tuple[Quote, Chain], collateral: Collateral, root: bytes, now: datetime, claims: dict[str, Any]
) -> Status:
    try:
        level = tdx_collateral.appraise(collateral.members, *parsed, root, now)
    except FormatError as error:
        return Status(fault=str(error).rstrip("."), claims=claims)
    more = {"status": level.status, "advisories": list(level.advisories)}
    return Status(level.status, level.advisories, claims={**claims, **more})


def _judge(checks: Checks, found: Status, policy: Policy) -> None:
    accepted = policy.tdx_tcb or UP_TO_DATE
    open_ = [a for a in found.advisories if a not in policy.tdx_advisories]
    if found.status not in accepted:
        advisories = f" Advisories: {', '.join(found.advisories)}." if found.advisories else ""
        checks.failed(
            "tcb",
            f"Intel rates the platform's TCB {found.status}; the policy accepts {', '.join(accepted)}.{advisories}",
        )
    elif open_:
        checks.failed(
            "tcb",
            f"Intel rates the platform's TCB {found.status}, with advisories that the policy does not tolerate: "
            f"{', '.join(open_)}.",
        )
    else:
        checks.passed("tcb", f"Intel rates the platform's TCB {found.status}, which the policy accepts.")
