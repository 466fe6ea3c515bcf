"""Reads that join: whether released keys still stand, the history of policies, and how a policy judges past evidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from apps.accounts.models import User
from apps.attestation import appraisals, policies
from apps.attestation.models import Evidence, KeyRelease, Purpose, ReleasePolicy
from apps.attestation.permissions import require_set_policy
from apps.datasets.models import Dataset, DatasetVersion
from apps.datasets.queries import dataset_for
from apps.datasets.states import VersionState
from strongroom import contexts, shapes
from strongroom.broker.release import Decision
from strongroom.evidence import Check, Outcome, Policy

PREVIEWED_RUNS = 20


@dataclass(frozen=True)
class Revoked:
    """A dataset whose policy in force would not have let this run's evidence pass. `failing`: ids of checks."""

    title: str
    failing: tuple[str, ...]


@dataclass(frozen=True)
class Preview:
    """A run's evidence under the policy in force and under another one. Failing: ids and sentences."""

    run: UUID
    at: datetime
    type: str
    released: bool
    before_ok: bool
    after_ok: bool
    before: tuple[Check, ...]
    after: tuple[Check, ...]

    @property
    def changes(self) -> bool:
        return self.before_ok != self.after_ok


def keys_from_brokers(attempts: Mapping[UUID, int]) -> dict[str, list[UUID]]:
    """Which of these runs (each with its attempt) were given a key by which custodian's broker."""
    shown = Evidence.objects.filter(
        run__in=list(attempts), purpose=Purpose.KEY_RELEASE, accepted=True
    ).exclude(broker="")
    found: dict[str, list[UUID]] = {}
    for broker, run, attempt in shown.values_list("broker", "run", "attempt"):
        if attempts[run] == attempt:
            found.setdefault(broker, []).append(run)
    return found


def no_longer_met(*, run_id: UUID, attempt: int) -> list[Revoked]:
    """Datasets of a run under way whose present policy does not accept the evidence on which their key was released.

    The evidence is judged as of the time when it came: a policy is never failed by the time that has passed since.
    """
    found = []
    releases = (
        KeyRelease.objects.filter(
            run=run_id, released=True, evidence__attempt=attempt, evidence__purpose=Purpose.KEY_RELEASE
        )
        .select_related("version__dataset", "evidence")
        .order_by("pk")
    )
    for row in releases:
        policy = policies.in_force(row.version.dataset)
        if policy.sha256 == row.policy_sha256:
            continue
        decision = rejudge(row.evidence, row.version, policy)
        if not decision.ok:
            failing = tuple(check.id for check in decision.failing)
            found.append(Revoked(row.version.dataset.title, failing))
    return found


def rejudge(evidence: Evidence, version: DatasetVersion, policy: Policy) -> Decision:
    """The stored evidence of a key release, for one dataset, under `policy`, as of the time when it was judged."""
    asked = appraisals.asked_under(version, policy)
    return appraisals.judge_again(
        envelope=bytes(evidence.envelope),
        asked=asked,
        nonce=contexts.n1(evidence.context),
        now=shapes.parse_time(evidence.appraisal["at"], "at"),
        image=str(evidence.context["image"]),
    )


def policy_page(user: User | Any, slug: str) -> tuple[Dataset, Policy, list[ReleasePolicy]]:
    """The dataset, the policy in force and all that were set, newest first. Raises NotFound, Denied."""
    dataset = dataset_for(user, slug)
    require_set_policy(user, dataset)
    return dataset, policies.in_force(dataset), history(dataset)


def sealed_to(key: str) -> list[str]:
    """Dataset versions, in words, that only the key `key` of this portal's broker can open."""
    rows = (
        DatasetVersion.objects.filter(seal__wrapped_key__recipient=key, dataset__key_broker="")
        .exclude(state=VersionState.REFUSED)
        .select_related("dataset")
        .order_by("dataset__title", "number")
    )
    return [f"{row.dataset.slug} version {row.number}" for row in rows]


def history(dataset: Dataset) -> list[ReleasePolicy]:
    """Every policy that was set for the dataset, newest first."""
    return list(ReleasePolicy.objects.filter(dataset=dataset).select_related("made_by").order_by("-number"))


def preview(dataset: Dataset, policy: Policy, *, limit: int = PREVIEWED_RUNS) -> list[Preview]:
    """How `policy` judges the evidence of the last runs that asked for this dataset's key, beside the one in force.

    What stood outside the evidence then (the challenge, the context) is as it was found.
    """
    rows = (
        KeyRelease.objects.filter(version__dataset=dataset)
        .select_related("version__dataset", "evidence")
        .order_by("-created_at")[:limit]
    )
    present = policies.in_force(dataset)
    found = []
    for row in rows:
        outside = _outside(row.evidence)
        before = _judged(row, present, outside)
        after = _judged(row, policy, outside)
        found.append(
            Preview(
                row.run,
                row.created_at,
                row.evidence.type,
                row.released,
                not before,
                not after,
                tuple(before),
                tuple(after),
            )
        )
    return found


def _judged(row: KeyRelease, policy: Policy, outside: Sequence[Check]) -> list[Check]:
    """The failed checks."""
    return [*outside, *rejudge(row.evidence, row.version, policy).failing]


def _outside(evidence: Evidence) -> list[Check]:
    checks: Iterable[dict[str, str]] = evidence.appraisal["appraisal"]["checks"]
    return [
        Check(c["id"], Outcome.FAIL, c["detail"])
        for c in checks
        if c["id"] in ("challenge", "context") and c["outcome"] == Outcome.FAIL
    ]
