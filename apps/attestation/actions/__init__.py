"""Every write of this app: challenges, release policies, key release, and evidence of results."""

from apps.attestation.actions.evidence import accept_result_evidence
from apps.attestation.actions.keys import (
    broker_challenge,
    evidence_refused,
    release_keys,
    release_keys_by_broker,
)
from apps.attestation.actions.policies import check_policy, default_policy, set_policy
from apps.attestation.challenges import challenge_check, issue_challenges
from apps.attestation.results import appraise_result

__all__ = [
    "accept_result_evidence",
    "appraise_result",
    "broker_challenge",
    "challenge_check",
    "check_policy",
    "default_policy",
    "evidence_refused",
    "issue_challenges",
    "release_keys",
    "release_keys_by_broker",
    "set_policy",
]
