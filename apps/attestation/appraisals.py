"""Judging evidence for a set of dataset versions: each under its custodian's policy, and all under the strictest.

Pure apart from reading the policies: nothing is written here, and no key is touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from apps.attestation import policies
from apps.datasets.models import DatasetVersion
from strongroom import evidence
from strongroom.evidence import Appraisal, Check, Outcome, Policy, Tier


@dataclass(frozen=True)
class Judgement:
    """What one dataset's policy says. `failing`: the checks that failed."""

    version: DatasetVersion
    policy: Policy
    failing: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return not self.failing


@dataclass(frozen=True)
class Verdict:
    """All judgements, and the one appraisal that goes on record (under the strictest of the policies)."""

    judgements: tuple[Judgement, ...]
    appraisal: Appraisal
    policy_hashes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return self.appraisal.ok and all(j.ok for j in self.judgements)

    @property
    def failing(self) -> list[Check]:
        """Every failed check once, in order."""
        seen: dict[str, Check] = {}
        for check in (*failed(self.appraisal.checks), *(c for j in self.judgements for c in j.failing)):
            seen.setdefault(check.id, check)
        return list(seen.values())

    def to_json(self, at: str) -> dict[str, Any]:
        """What is stored beside the evidence; `at` is the time it was judged at (RFC 3339)."""
        return {
            "at": at,
            "policies": list(self.policy_hashes),
            "appraisal": {**self.appraisal.to_json(), "ok": self.ok},
            "datasets": [
                {
                    "dataset": str(j.version.dataset_id),
                    "version": j.version.number,
                    "policy": j.policy.sha256,
                    "ok": j.ok,
                    "failing": [c.id for c in j.failing],
                }
                for j in self.judgements
            ],
        }


def failed(checks: Iterable[Check]) -> list[Check]:
    return [check for check in checks if check.outcome is Outcome.FAIL]


def strictest(all_: Sequence[Policy]) -> Policy | None:
    """The policy that is met only where each of `all_` is; None where nothing could meet them all."""
    types = [t for t in all_[0].types if all(t in p.types for p in all_)]
    pinned = [p.images for p in all_ if p.images]
    images = [i for i in pinned[0] if all(i in other for other in pinned)] if pinned else []
    if not types or (pinned and not images):
        return None
    return Policy(tuple(types), tuple(images), min(p.max_age_seconds for p in all_))


def judge(
    *,
    envelope: bytes,
    versions: Sequence[DatasetVersion],
    nonce: str,
    now: datetime,
    binding: Sequence[Check] = (),
    same_as: Mapping[str, Any] | None = None,
    image: str,
) -> Verdict:
    """Appraise `envelope` for each of `versions` (sealed inputs; none: under the portal's own policy).

    binding: checks made by the caller that every judgement shares. image: the runner image that the manifest names,
    which the evidence must claim. same_as: claims of the first evidence, where the same instance must have made both.
    """
    by_dataset = [(version, policies.in_force(version.dataset)) for version in versions]
    all_ = [policy for _, policy in by_dataset] or [policies.portal_policy()]
    shared = [check for check in binding if check.outcome is Outcome.FAIL]
    judgements = []
    for version, policy in by_dataset:
        appraisal = evidence.verify(envelope, policy, now=now, expected_nonce=nonce, trust=policies.trust())
        more = _identity(appraisal, image, same_as)
        if version.dataset.personal_data and appraisal.type == policies.SOFTWARE:
            # The database holds this too (jobs.RunInput); the key broker does not rely on it.
            more.append(
                Check(
                    "personal-data",
                    Outcome.FAIL,
                    "The dataset holds real personal data; software evidence protects nothing.",
                )
            )
        judgements.append(Judgement(version, policy, (*shared, *failed(appraisal.checks), *failed(more))))
    return Verdict(
        tuple(judgements), _on_record(envelope, all_, nonce, now, binding, image, same_as), _hashes(all_)
    )


def _hashes(all_: Sequence[Policy]) -> tuple[str, ...]:
    return tuple(sorted({policy.sha256 for policy in all_}))


def _on_record(
    envelope: bytes,
    all_: Sequence[Policy],
    nonce: str,
    now: datetime,
    binding: Sequence[Check],
    image: str,
    same_as: Mapping[str, Any] | None,
) -> Appraisal:
    policy = strictest(all_)
    if policy is None:
        sentence = "The release policies of the datasets contradict each other: no evidence could satisfy all of them."
        return Appraisal(
            "unknown", Tier.CONTRAINDICATED, (*binding, Check("policies", Outcome.FAIL, sentence))
        )
    appraisal = evidence.verify(envelope, policy, now=now, expected_nonce=nonce, trust=policies.trust())
    checks = (*binding, *appraisal.checks, *_identity(appraisal, image, same_as))
    tier = Tier.CONTRAINDICATED if failed(checks) else appraisal.tier
    return Appraisal(appraisal.type, tier, checks, appraisal.claims)


def _identity(appraisal: Appraisal, image: str, same_as: Mapping[str, Any] | None) -> list[Check]:
    checks = [
        equal(
            "runner-image", appraisal.claims.get("image"), image, "the runner image that the manifest names"
        ),
    ]
    if same_as is not None:
        members = ("instance", "attester", "host", "boot")
        here = {m: appraisal.claims.get(m) for m in members}
        there = {m: same_as.get(m) for m in members}
        checks.append(equal("same-instance", here, there, "the instance to which the keys were released"))
    return checks


def equal(id_: str, here: Any, there: Any, what: str) -> Check:
    """A check that `here` is `there`; `what` completes "It names …" / "It does not name …"."""
    if here == there:
        return Check(id_, Outcome.PASS, f"It names {what}.")
    return Check(id_, Outcome.FAIL, f"It does not name {what}.")


def members_equal(id_: str, here: Mapping[str, Any], there: Mapping[str, Any], what: str) -> Check:
    """A check that `here` has each member of `there` as it is there; the sentence lists those that differ."""
    different = sorted(name for name, value in there.items() if here.get(name) != value)
    if not different:
        return Check(id_, Outcome.PASS, f"{what} says what this portal expects of the run.")
    return Check(
        id_, Outcome.FAIL, f"{what} differs from what this portal expects in: {', '.join(different)}."
    )
