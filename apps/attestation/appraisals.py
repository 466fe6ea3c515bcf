"""Judging evidence for a set of dataset versions, each under its custodian's policy: strongroom.broker.release, with
the policies and the trust of this portal. Nothing is written here, and no key is touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from apps.attestation import policies
from apps.datasets.models import DatasetVersion
from strongroom.broker.release import Asked, Decision, decide, equal, failed, members_equal
from strongroom.broker.release import judge as judge_evidence
from strongroom.evidence import Check, Policy


def asked(version: DatasetVersion) -> Asked:
    """The version and the policy in force for its dataset, as the decision takes them."""
    return asked_under(version, policies.in_force(version.dataset))


def asked_under(version: DatasetVersion, policy: Policy) -> Asked:
    dataset = version.dataset
    return Asked(str(dataset.pk), version.number, policy, dataset.personal_data)


def judge_again(*, envelope: bytes, asked: Asked, nonce: str, now: datetime, image: str) -> Decision:
    """Stored evidence for one dataset, without what stood outside it (the challenge, what was expected of C1)."""
    return judge_evidence(
        envelope=envelope, asked=[asked], nonce=nonce, now=now, trust=policies.trust(), image=image
    )


def judge_release(
    *,
    context: Mapping[str, Any],
    envelope: bytes,
    versions: Sequence[DatasetVersion],
    challenge: Check,
    expected: Mapping[str, Any],
    now: datetime,
) -> Decision:
    """Whether the keys of `versions` may go to the key in C1. The judgements are in the order of `versions`."""
    return decide(
        context=context,
        envelope=envelope,
        asked=[asked(version) for version in versions],
        challenge=challenge,
        expected=expected,
        trust=policies.trust(),
        now=now,
    )


def judge_result(
    *,
    envelope: bytes,
    versions: Sequence[DatasetVersion],
    nonce: str,
    now: datetime,
    binding: Sequence[Check],
    same_as: Mapping[str, Any] | None,
    image: str,
    manifest: str,
) -> Decision:
    """Appraise E2 for each of `versions` (sealed inputs; none: under the portal's own policy)."""
    return judge_evidence(
        envelope=envelope,
        asked=[asked(version) for version in versions],
        nonce=nonce,
        now=now,
        trust=policies.trust(),
        image=image,
        manifest=manifest,
        binding=binding,
        same_as=same_as,
        otherwise=policies.portal_policy(),
    )


__all__ = ["Decision", "asked", "equal", "failed", "judge_release", "judge_result", "members_equal"]
