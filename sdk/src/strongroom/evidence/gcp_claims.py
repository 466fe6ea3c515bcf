"""What the claims of a Confidential Space token must say. Claims that no rule names are left alone.

Every good value is compared by equality: a value that Google adds later, or spells differently, is refused until a
version of this file knows it. Source of names and values: Google's "Attestation token claims" (2026-04-08).
"""

from __future__ import annotations

import re
from typing import Any

from strongroom.evidence.model import Checks
from strongroom.evidence.policy import UP_TO_DATE, Policy
from strongroom.evidence.tokens import NEVER_COMPARED, member, text, texts

# Google echoes the nonces of a request: at most six, each of 8 to 88 bytes.
NONCES, NONCE_BYTES = 6, (8, 88)
DEFAULT_AUDIENCE = "https://sts.googleapis.com"
DEFAULT_SUPPORT = ("STABLE",)
OEM = 11129  # Google's private enterprise number
# The reference page has no GCP_AMD_SEV_SNP; Google's own verifiers know it beside the others.
TEES = {
    "GCP_AMD_SEV": "sev",
    "GCP_AMD_SEV_ES": "sev-es",
    "GCP_AMD_SEV_SNP": "sev-snp",
    "GCP_INTEL_TDX": "tdx",
}

_REQUIRED = (
    "algorithm", "issuer", "trust-anchor", "signature", "validity", "age", "collected", "audience", "nonce", "debug",
    "support", "secure-boot", "platform", "tee", "monitoring", "image", "restart-policy", "overrides",
)  # fmt: skip
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# Real tokens write YYMM and a counter of two digits; the reference page writes the year in full.
_VERSION = re.compile(r"(?:20)?(\d{6})", re.ASCII)
_AWS = "https://aws.amazon.com/tags"


def judge(
    checks: Checks, claims: dict[str, Any], policy: Policy, expected_nonce: str | bytes | None
) -> tuple[dict[str, Any], list[str]]:
    """Judge the claims. Gives what they say in the common vocabulary, and the checks that an affirmation needs."""
    _check_purpose(checks, claims, policy)
    nonces = _nonces(claims)
    _check_nonce(checks, nonces, expected_nonce)
    _check_platform(checks, claims, policy)
    tee = _check_tee(checks, claims, policy)
    version, required = _check_tcb(checks, claims, policy, tee)
    _check_container(checks, claims, policy)
    _check_place(checks, claims, policy)
    _check_gpu(checks, claims)
    return _said(claims, tee, version, nonces or []), [*_REQUIRED, *required]


def _check_purpose(checks: Checks, claims: dict[str, Any], policy: Policy) -> None:
    if _AWS in claims:
        checks.failed(
            "token-kind", "The token was made for AWS, and leaves out claims that must be verified here."
        )
    audience = claims.get("aud")
    if not isinstance(audience, str):
        checks.failed("audience", "The token must name exactly one audience, as a text.")
    elif audience == DEFAULT_AUDIENCE:
        checks.failed(
            "audience",
            f"The token is the launcher's own for {DEFAULT_AUDIENCE}: any workload gets one without asking, so it "
            "shows nothing about a result. Ask for a token with an audience of your own.",
        )
    elif not policy.audiences:
        checks.not_available("audience", "The policy names no audience, so the token's was not compared.")
    else:
        checks.require(
            "audience",
            audience in policy.audiences,
            "The token was made for an audience that the policy names.",
            "The token was made for somebody else: the policy does not name its audience.",
        )


def _check_nonce(checks: Checks, found: list[bytes] | None, expected: str | bytes | None) -> None:
    if found is None:
        checks.failed("nonce", "The token's eat_nonce is neither a text nor a list of one to six texts.")
        return
    if expected is None:
        checks.not_available("nonce", NEVER_COMPARED)
        return
    wanted = expected.encode(errors="surrogatepass") if isinstance(expected, str) else expected
    least, most = NONCE_BYTES
    checks.require(
        "nonce",
        wanted in found and all(least <= len(nonce) <= most for nonce in found),
        "The evidence is bound to this context.",
        "The evidence is bound to another context: it was made for another run, purpose or set of files."
        if found
        else "The token has no nonce, so it is bound to nothing.",
    )


def _nonces(claims: dict[str, Any]) -> list[bytes] | None:
    """The nonces as a list; None where the claim is there but has another form."""
    if "eat_nonce" not in claims:
        return []
    value = claims["eat_nonce"]
    found = [value] if isinstance(value, str) else texts(value, most=NONCES)
    return [nonce.encode() for nonce in found] if found else None


def _check_platform(checks: Checks, claims: dict[str, Any], policy: Policy) -> None:
    checks.require(
        "platform",
        _is(claims.get("oemid"), OEM) and claims.get("swname") == "CONFIDENTIAL_SPACE",
        "The machine runs a Confidential Space image on Google's hardware.",
        "The machine does not run a Confidential Space image on Google's hardware (oemid, swname).",
    )
    checks.require(
        "debug",
        claims.get("dbgstat") == "disabled-since-boot",
        "Debugging has been off since the machine started.",
        "The image may be debugged: dbgstat is not disabled-since-boot, so people with access to the machine could see "
        "the data. Debug images are refused whatever the policy says.",
    )
    checks.require(
        "secure-boot",
        claims.get("secboot") is True,
        "The machine started with secure boot.",
        "The token does not say that the machine started with secure boot.",
    )
    wanted = policy.support or DEFAULT_SUPPORT
    space = member(claims, "submods", "confidential_space")
    support = texts(space, "support_attributes") or []
    checks.require(
        "support",
        any(item in wanted for item in support),
        f"Google supports the machine's image as {', '.join(support)}.",
        f"Google does not support the machine's image as {' or '.join(wanted)}: debug images have no such mark, and old "
        "or experimental ones another.",
    )
    monitoring = member(space, "monitoring_enabled")
    if monitoring is None:
        checks.not_available(
            "monitoring", "The token does not say whether memory monitoring is off: older ones do not."
        )
    else:
        checks.require(
            "monitoring",
            member(monitoring, "memory") is False,
            "Memory monitoring is off.",
            "The token does not say that memory monitoring is off.",
        )


def _check_tee(checks: Checks, claims: dict[str, Any], policy: Policy) -> str | None:
    model = claims.get("hwmodel")
    tee = TEES.get(model) if isinstance(model, str) else None
    if tee is None:
        checks.failed(
            "tee",
            "The machine's memory is not encrypted: it is a Shielded VM only."
            if model == "GCP_SHIELDED_VM"
            else "The token names no kind of machine (hwmodel) that is known to encrypt its memory.",
        )
        return None
    if tee == "tdx" and claims.get("attester_tcb") != ["INTEL"]:
        checks.failed(
            "tee", "The token names a TDX machine but does not rest on Intel's evidence (attester_tcb)."
        )
        return tee
    if tee == "sev-snp" and claims.get("attester_tcb", ["AMD"]) != ["AMD"]:
        checks.failed(
            "tee",
            "The token names a machine with SEV-SNP but rests on another maker's evidence (attester_tcb).",
        )
        return tee
    checks.require(
        "tee",
        not policy.tees or tee in policy.tees,
        f"The machine's memory is encrypted by {tee}.",
        f"The machine's memory is encrypted by {tee}; the policy accepts {', '.join(policy.tees)}.",
    )
    return tee


def _check_tcb(
    checks: Checks, claims: dict[str, Any], policy: Policy, tee: str | None
) -> tuple[int | None, list[str]]:
    """Versions against the policy's minima. Also names what this token must not leave open, for the policy asks it."""
    version = _version(claims)
    wrong, asked = [], []
    if policy.swversion is not None:
        asked.append(f"the image's version is {policy.swversion} or later")
        if version is None or version < policy.swversion:
            wrong.append(
                f"its image is version {version or 'unknown'}, the policy asks for {policy.swversion}"
            )
    status = text(_tdx(claims), "gcp_attester_tcb_status")
    if tee == "tdx" and (policy.tdx_tcb or status is not None):  # older tokens do not say it
        accepted = policy.tdx_tcb or UP_TO_DATE
        asked.append(f"the TDX platform is {status}")
        if status not in accepted:
            wrong.append(
                f"its TDX platform is {status or 'unknown'}, the policy asks for {', '.join(accepted)}"
            )
    amd = tee in ("sev", "sev-es", "sev-snp") and bool(policy.tcb or policy.products)
    if wrong:
        checks.failed("tcb", f"The machine is not recent enough: {'; '.join(wrong)}.")
    elif amd:
        checks.not_available(
            "tcb", "The policy names AMD products or versions, and this token does not show them."
        )
    elif asked:
        checks.passed("tcb", f"The machine is recent enough: {' and '.join(asked)}.")
    else:
        checks.not_available("tcb", "The policy asks for no version of the image or the hardware.")
    return version, ["tcb"] if amd else []


def _version(claims: dict[str, Any]) -> int | None:
    found = texts(claims, "swversion", most=1)
    match = _VERSION.fullmatch(found[0]) if found else None
    return int(match[1]) if match else None


def _tdx(claims: dict[str, Any]) -> Any:
    """The reference page calls it an array; real tokens hold an object."""
    value = claims.get("tdx")
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _check_container(checks: Checks, claims: dict[str, Any], policy: Policy) -> None:
    container = member(claims, "submods", "container")
    digest = text(container, "image_digest")
    if digest is None or not _DIGEST.fullmatch(digest):
        checks.failed("image", "The token names no container image by its SHA-256 digest.")
    elif not policy.images:
        checks.not_available("image", "The policy pins no runner image.")
    else:
        checks.require(
            "image",
            digest in policy.images,
            "The container image is one that the policy accepts.",
            f"The policy does not accept the container image {digest}.",
        )
    checks.require(
        "restart-policy",
        member(container, "restart_policy") == "Never",
        "The container is never started again.",
        "The container may be started again, so what ran before and after could differ (restart_policy is not Never).",
    )
    _check_overrides(checks, container, policy)


def _check_overrides(checks: Checks, container: Any, policy: Policy) -> None:
    changed = member(container, "env_override")
    command = member(container, "cmd_override")
    if not isinstance(container, dict) or not isinstance(changed, dict | None) or command not in (None, []):
        checks.failed(
            "overrides",
            "The operator replaced the image's command, or the token does not show what was changed.",
        )
        return
    foreign = [name for name in changed or {} if name not in policy.env_override]
    checks.require(
        "overrides",
        not foreign,
        "The operator changed nothing of the image but what the policy allows.",
        f"The operator set {', '.join(name[:100] for name in foreign[:10])}, which the policy does not allow.",
    )


def _check_place(checks: Checks, claims: dict[str, Any], policy: Policy) -> None:
    gce = member(claims, "submods", "gce")
    project = {text(gce, "project_id"), text(gce, "project_number")} - {None}
    zone = text(gce, "zone")
    if not policy.projects and not policy.zones:
        checks.not_available("place", "The policy names no project and no zone.")
    else:
        checks.require(
            "place",
            (not policy.projects or bool(project & set(policy.projects)))
            and (not policy.zones or zone in policy.zones),
            "The machine ran in a project and zone that the policy accepts.",
            f"The policy does not accept a machine in project {text(gce, 'project_id')}, zone {zone}.",
        )
    accounts = texts(claims, "google_service_accounts") or []
    if not policy.service_accounts:
        checks.not_available("service-account", "The policy names no service account.")
    else:
        checks.require(
            "service-account",
            bool(accounts) and set(accounts) <= set(policy.service_accounts),
            "The machine acts as a service account that the policy accepts, and as no other.",
            "The machine acts as a service account that the policy does not accept, or names none.",
        )


def _check_gpu(checks: Checks, claims: dict[str, Any]) -> None:
    submods = member(claims, "submods")
    if not isinstance(submods, dict) or "nvidia_gpu" not in submods:
        return
    gpu = submods["nvidia_gpu"]
    checks.require(
        "gpu",
        member(gpu, "cc_mode") == "ON",
        "The GPU runs in its confidential mode.",
        "The GPU does not run in its confidential mode (cc_mode is not ON), so what it holds is not protected.",
    )


def _said(
    claims: dict[str, Any], tee: str | None, version: int | None, nonces: list[bytes]
) -> dict[str, Any]:
    """The claims in the common vocabulary, each only where it has the form that it should have."""
    container, gce = member(claims, "submods", "container"), member(claims, "submods", "gce")
    digest = text(container, "image_digest")
    overrides = member(container, "env_override")
    tcb = {
        "image_version": version,
        "status": text(_tdx(claims), "gcp_attester_tcb_status"),
        "date": text(_tdx(claims), "gcp_attester_tcb_date"),
    }
    said = {
        "tee": tee,
        "debug": claims.get("dbgstat") != "disabled-since-boot",
        "image": digest if digest and _DIGEST.fullmatch(digest) else None,
        "instance": text(gce, "instance_id"),
        "args": texts(container, "args"),
        "env_override": sorted(overrides) if isinstance(overrides, dict) and overrides else None,
        "service_accounts": texts(claims, "google_service_accounts"),
        "nonce": nonces[0].decode() if len(nonces) == 1 else [nonce.decode() for nonce in nonces] or None,
        "audience": text(claims, "aud"),
        "tcb": {name: value for name, value in tcb.items() if value is not None} or None,
        "place": {
            name: value
            for name in ("zone", "project_id", "project_number", "instance_name")
            if (value := text(gce, name)) is not None
        }
        or None,
    }
    return {name: value for name, value in said.items() if value is not None}


def _is(value: Any, wanted: int) -> bool:
    """Whether a JSON number is this whole number: `true` is not 1, and 1.0 is not written by anybody here."""
    return isinstance(value, int) and not isinstance(value, bool) and value == wanted
