"""Writes on release policies."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import Max

from apps.accounts.models import User
from apps.attestation import policies
from apps.attestation.models import ReleasePolicy
from apps.attestation.permissions import require_set_policy
from apps.core.errors import Conflict, Invalid
from apps.core.lifecycle import recorder
from apps.core.outbox import enqueue
from apps.datasets.models import Dataset
from strongroom.errors import FormatError
from strongroom.evidence import Policy


def default_policy(*, personal_data: bool) -> dict[str, Any]:
    """The policy document that holds for a dataset until its custodian sets one."""
    return policies.default_policy(personal_data=personal_data)


def check_policy(dataset: Dataset, document: dict[str, Any]) -> Policy:
    """The policy, if it may be put in force for `dataset`. Writes nothing. Raises Invalid."""
    try:
        policy = Policy.parse(document)
    except FormatError as error:
        raise _policy_refused(str(error)) from None
    if dataset.personal_data and policies.SOFTWARE in policy.types:
        raise _policy_refused(
            "The dataset holds real personal data, and software evidence protects nothing. "
            "Name types of hardware evidence only."
        )
    return policy


def set_policy(
    *, by: User, dataset: Dataset, document: dict[str, Any], instead_of: str | None = None
) -> ReleasePolicy:
    """Put a new release policy in force for `dataset`. The one in force already, sent again, changes nothing.

    Keys are released under it from this moment on, and runs whose evidence it would not have accepted are stopped.
    instead_of: hash of the policy that the person saw in force; another one by now is a Conflict.
    Raises Denied, Conflict, Invalid (a member is wrong, or software evidence for real personal data).
    """
    require_set_policy(by, dataset)
    with transaction.atomic():
        row = Dataset.objects.select_for_update().get(pk=dataset.pk)
        policy = check_policy(row, document)
        last = ReleasePolicy.objects.filter(dataset=row).order_by("-number").first()
        if last is not None and last.sha256 == policy.sha256:
            return last
        if instead_of is not None and policies.in_force(row).sha256 != instead_of:
            raise Conflict(
                "policy_changed",
                "Somebody has put another release policy in force since you opened this page.",
                "Look at the policy in force now, then make your change again.",
            )
        number = (ReleasePolicy.objects.filter(dataset=row).aggregate(n=Max("number"))["n"] or 0) + 1
        made = ReleasePolicy.objects.create(
            dataset=row, number=number, document=policy.to_json(), sha256=policy.sha256, made_by=by
        )
        recorder()(
            event="release_policy.set", by=by, object_type="release_policy", object_id=made.pk,
            data={"dataset": str(row.pk), "number": number, "sha256": policy.sha256}, scope=f"dataset:{row.pk}",
        )  # fmt: skip
        enqueue("recheck_runs", row.pk)
    return made


def _policy_refused(sentence: str) -> Invalid:
    return Invalid(
        "policy_refused", sentence, "Correct the policy and send it again.", fields={"document": [sentence]}
    )
