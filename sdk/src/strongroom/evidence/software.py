"""Software evidence: a report signed with a key that lies in a file. It gives no hardware protection.

Whoever can read the key file can make such evidence for any program on any machine, so every claim in it is the
signer's own word. It is there to run the whole pipeline without special hardware, it has its own type and its own
trust store, and its tier is never above `none`.

    parts.report    = JCS({"v", "nonce", "image", "host", "instance", "boot", "collected"})
    parts.signature = Ed25519 over "strongroom/1/software-evidence" 0x00 report
    parts.key       = the raw public key
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from strongroom import shapes, signing, strictjson
from strongroom.errors import FormatError
from strongroom.evidence import envelope as envelopes
from strongroom.evidence.envelope import Envelope
from strongroom.evidence.model import Appraisal, Checks, Tier
from strongroom.evidence.policy import Policy
from strongroom.evidence.trust import Trust
from strongroom.signing import SigningKey

TYPE = "software"
NO_PROTECTION = (
    "Software evidence gives no hardware protection: it does not show that the data were shielded from the people "
    "who run the machine, nor which program really ran."
)
CLOCK_SKEW = timedelta(seconds=60)

_LABEL = b"strongroom/1/software-evidence\x00"
_REPORT: dict[str, shapes.Checker] = {
    "v": shapes.exactly(1),
    "nonce": shapes.b64url(32),
    "image": shapes.image_digest,
    "host": shapes.text(255),
    "instance": shapes.text(200),
    "boot": shapes.time_text,
    "collected": shapes.time_text,
}


def make(
    key: SigningKey,
    *,
    nonce: str,
    image: str,
    host: str,
    instance: str,
    boot: datetime,
    now: datetime,
) -> bytes:
    """An evidence envelope bound to `nonce` (n1 or n2), signed by the installation's attester key.

    `image` is the digest that the runner claims for itself, `instance` names this start of the runner and must be
    the same in both evidences of a run. Raises FormatError.
    """
    document = {
        "v": 1,
        "nonce": nonce,
        "image": image,
        "host": host,
        "instance": instance,
        "boot": shapes.format_time(boot),
        "collected": shapes.format_time(now),
    }
    report = strictjson.canonical(shapes.fields(document, "The software report", _REPORT))
    parts = {"report": report, "signature": key.sign(_LABEL + report), "key": key.public}
    return envelopes.build(TYPE, parts, collected=now)


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
    checks.passed("format", "The evidence has exactly the parts of software evidence.")
    _check_signer(checks, envelope, trust)
    _check_report(checks, envelope, report, policy, now, expected_nonce)
    checks.not_available("hardware-protection", NO_PROTECTION)
    tier = Tier.NONE if checks.ok else Tier.CONTRAINDICATED
    names = ("image", "host", "instance", "boot", "collected", "nonce")
    claims: dict[str, Any] = {name: report[name] for name in names}
    claims["attester"] = signing.key_id(envelope.parts["key"])
    return Appraisal(TYPE, tier, tuple(checks.items), claims)


def _read(envelope: Envelope) -> dict[str, Any]:
    if set(envelope.parts) != {"report", "signature", "key"} or envelope.collateral:
        raise FormatError("Software evidence has the parts report, signature and key, and no collateral.")
    report = strictjson.loads_canonical(
        envelope.parts["report"], max_bytes=8 << 10, what="The software report"
    )
    return shapes.fields(report, "The software report", _REPORT)


def _check_signer(checks: Checks, envelope: Envelope, trust: Trust) -> None:
    key = envelope.parts["key"]
    checks.require(
        "attester-known",
        key in trust.software_keys,
        f"The attester key {signing.key_id(key)} is one of the trusted installation keys.",
        f"The attester key {signing.key_id(key)} is not one of the trusted installation keys. "
        "If the installation is yours, add its key to the trust store.",
    )
    checks.require(
        "signature",
        signing.verify(key, envelope.parts["signature"], _LABEL + envelope.parts["report"]),
        "The report is signed by the attester key.",
        "The signature does not match the report: one of them was changed.",
    )


def _check_report(
    checks: Checks,
    envelope: Envelope,
    report: dict[str, Any],
    policy: Policy,
    now: datetime,
    expected_nonce: str | bytes | None,
) -> None:
    if expected_nonce is None:
        checks.not_available(
            "nonce", "No context was given, so what the evidence is bound to was not compared."
        )
    else:
        checks.require(
            "nonce",
            report["nonce"] == expected_nonce,
            "The evidence is bound to this context.",
            "The evidence is bound to another context: it was made for another run, purpose or set of files.",
        )
    if policy.images:
        checks.require(
            "image",
            report["image"] in policy.images,
            "The runner image that the runner claims for itself is one that the policy accepts.",
            f"The policy does not accept the runner image {report['image']}.",
        )
    else:
        checks.not_available("image", "The policy pins no runner image.")
    collected = shapes.parse_time(report["collected"], "collected")
    checks.require(
        "collected",
        collected == envelope.collected,
        "The time of collection in the envelope is the signed one.",
        "The time of collection in the envelope is not the signed one.",
    )
    checks.require(
        "time-order",
        shapes.parse_time(report["boot"], "boot") <= collected,
        "The runner started before it collected the evidence.",
        "The runner claims to have started after it collected the evidence.",
    )
    age = now - collected
    checks.require(
        "age",
        -CLOCK_SKEW <= age <= timedelta(seconds=policy.max_age_seconds),
        "The evidence was fresh when it was verified.",
        f"The evidence is {age.total_seconds():.0f} seconds old at {shapes.format_time(now)}; the policy accepts "
        f"up to {policy.max_age_seconds}, and none from the future.",
    )
