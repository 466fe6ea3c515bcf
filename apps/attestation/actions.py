"""Every write of this app: challenges, release policies, key release, and evidence of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Max

from apps.accounts.models import User
from apps.attestation import appraisals, challenges, policies
from apps.attestation.challenges import challenge_check, issue_challenges
from apps.attestation.models import Evidence, KeyRelease, Purpose, ReleasePolicy
from apps.attestation.permissions import require_set_policy
from apps.attestation.results import ResultAppraisal, appraise_result
from apps.core.clock import now
from apps.core.errors import Denied, Invalid
from apps.core.keys import hpke_key
from apps.core.lifecycle import recorder
from apps.datasets.models import Dataset, DatasetVersion
from strongroom import contexts, seal, shapes, strictjson
from strongroom.errors import FormatError, SealError
from strongroom.evidence import Check, Policy, digest


def default_policy(*, personal_data: bool) -> dict[str, Any]:
    """The policy document that holds for a dataset until its custodian sets one."""
    return policies.default_policy(personal_data=personal_data)


def set_policy(*, by: User, dataset: Dataset, document: dict[str, Any]) -> ReleasePolicy:
    """Put a new release policy in force for `dataset`. The one in force already, sent again, changes nothing.

    Raises Denied, Invalid (a member is wrong, or software evidence for real personal data).
    """
    require_set_policy(by, dataset)
    try:
        policy = Policy.parse(document)
    except FormatError as error:
        raise _policy_refused(str(error)) from None
    with transaction.atomic():
        row = Dataset.objects.select_for_update().get(pk=dataset.pk)
        if row.personal_data and policies.SOFTWARE in policy.types:
            raise _policy_refused(
                "The dataset holds real personal data, and software evidence protects nothing. "
                "Name types of hardware evidence only."
            )
        last = ReleasePolicy.objects.filter(dataset=row).order_by("-number").first()
        if last is not None and last.sha256 == policy.sha256:
            return last
        number = (ReleasePolicy.objects.filter(dataset=row).aggregate(n=Max("number"))["n"] or 0) + 1
        made = ReleasePolicy.objects.create(
            dataset=row, number=number, document=policy.to_json(), sha256=policy.sha256, made_by=by
        )
        recorder()(
            event="release_policy.set", by=by, object_type="release_policy", object_id=made.pk,
            data={"dataset": str(row.pk), "number": number, "sha256": policy.sha256}, scope=f"dataset:{row.pk}",
        )  # fmt: skip
    return made


def _policy_refused(sentence: str) -> Invalid:
    return Invalid(
        "policy_refused", sentence, "Correct the policy and send it again.", fields={"document": [sentence]}
    )


def release_keys(
    *,
    by: object,
    run_id: UUID,
    attempt: int,
    context: Any,
    envelope: bytes,
    versions: Sequence[DatasetVersion],
    portal: str,
    expected: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Verify E1 under each dataset's policy; if all are satisfied, wrap each data key to the attested key.

    context: C1 as sent. expected: the members of C1 that the portal knows (manifest, image, inputs, approvals).
    Returns [{"dataset", "version", "wrapped", "suite"}]. The decision is on record before any key is opened. The
    same request sent again gives the same keys to the same attested key, and nothing new on record.
    Raises Denied: context_malformed, evidence_refused (with `checks`), key_unusable.
    """
    try:
        asked = contexts.parse_key_release(context)
        nonce = contexts.n1(asked)
    except FormatError as error:
        raise Denied(
            "context_malformed", str(error), "Send the key-release context in its exact form."
        ) from None
    if not versions:
        raise evidence_refused([])
    known = {"run": str(run_id), "portal": portal, **expected}
    arguments = {
        "run_id": run_id,
        "attempt": attempt,
        "purpose": Purpose.KEY_RELEASE,
        "value": asked["challenge"],
    }
    while not _released_before(run_id, attempt, envelope, asked):
        moment = now()
        verdict = appraisals.judge(
            envelope=envelope,
            versions=versions,
            nonce=nonce,
            now=moment,
            binding=[
                challenge_check(challenges.fault_of(**arguments)),
                appraisals.members_equal("context", asked, known, "The key-release context"),
            ],
            image=asked["image"],
        )
        with transaction.atomic():
            if not challenges.spend(**arguments) and verdict.ok:
                # Used up since it was looked at: by this same request on another connection, or by another one.
                continue
            _record(by, run_id, attempt, asked, envelope, verdict, moment)
        if not verdict.ok:
            raise evidence_refused(verdict.failing)
    return _wrap(by, run_id, nonce, asked, versions)


def evidence_refused(failing: Sequence[Check]) -> Denied:
    """The refusal that a runner gets: which checks failed, no more."""
    sentences = " ".join(check.detail for check in failing) or "No dataset is to be released."
    return Denied(
        "evidence_refused",
        f"The evidence does not satisfy every check. {sentences}",
        "Nothing was released. A new run starts with a new challenge.",
        checks=[check.to_json() for check in failing],
    )


def _released_before(run_id: UUID, attempt: int, envelope: bytes, context: dict[str, Any]) -> bool:
    """Whether exactly this evidence for exactly this context was accepted already."""
    row = Evidence.objects.filter(
        run=run_id, attempt=attempt, purpose=Purpose.KEY_RELEASE, accepted=True
    ).first()
    return row is not None and row.sha256 == digest(envelope) and row.context == context


def _record(
    by: object,
    run_id: UUID,
    attempt: int,
    context: dict[str, Any],
    envelope: bytes,
    verdict: appraisals.Verdict,
    moment: datetime,
) -> None:
    accepted = verdict.ok
    row = Evidence.objects.create(
        run=run_id,
        attempt=attempt,
        purpose=Purpose.KEY_RELEASE,
        type=verdict.appraisal.type,
        envelope=envelope,
        sha256=digest(envelope),
        context=context,
        tier=verdict.appraisal.tier.value,
        accepted=accepted,
        appraisal=verdict.to_json(shapes.format_time(moment)),
    )
    for judgement in verdict.judgements:
        reasons = [check.id for check in judgement.failing]
        if not accepted and not reasons:
            reasons = [check.id for check in verdict.failing]
        release = KeyRelease.objects.create(
            run=run_id,
            version=judgement.version,
            evidence=row,
            policy_sha256=judgement.policy.sha256,
            released=accepted,
            reasons=reasons,
        )
        recorder()(
            event="data_key.released" if accepted else "data_key.refused",
            by=by,
            object_type="key_release",
            object_id=release.pk,
            data={
                "run": str(run_id),
                "attempt": attempt,
                "dataset": str(judgement.version.dataset_id),
                "version": judgement.version.number,
                "evidence": row.sha256,
                "context": strictjson.digest(context),
                "policy": judgement.policy.sha256,
                "failing": reasons,
            },
            scope=f"dataset:{judgement.version.dataset_id}",
        )


def _wrap(
    by: object, run_id: UUID, nonce: str, context: dict[str, Any], versions: Sequence[DatasetVersion]
) -> list[dict[str, Any]]:
    """Open each data key with the broker's key and close it again for the attested key. In memory, for a moment."""
    recipient = seal.PublicKey.from_json(context["hpke_pub"])
    broker = seal.PrivateKey(seal.keys.X25519, hpke_key("broker").private_bytes_raw())
    wrapped = []
    for version in versions:
        dataset, number = str(version.dataset_id), version.number
        try:
            header = seal.parse_seal_header(version.seal)
            key = seal.unwrap_key(header.wrapped_key, broker, seal.info_data_key(dataset, number))
            closed = seal.wrap_key(key, recipient, seal.info_run_key(str(run_id), dataset, number, nonce))
        except (SealError, FormatError):
            with transaction.atomic():
                recorder()(
                    event="data_key.unusable", by=by, object_type="dataset_version", object_id=version.pk,
                    data={"run": str(run_id)}, scope=f"dataset:{dataset}",
                )  # fmt: skip
            raise Denied(
                "key_unusable",
                "The data key of an input cannot be opened by this portal's key broker.",
                "The custodian must seal and upload the dataset again for this portal.",
                dataset=dataset,
            ) from None
        wrapped.append(
            {
                "dataset": dataset,
                "version": number,
                "wrapped": shapes.b64_encode(closed),
                "suite": recipient.suite,
            }
        )
    return wrapped


def accept_result_evidence(*, by: object, appraisal: ResultAppraisal, accepted: bool) -> Evidence:
    """Put E2 on record with its verdict and spend its challenge, in the caller's transaction.

    Raises Denied if the challenge turns out to be used or late when an acceptance is to be recorded.
    """
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("the evidence belongs into the transaction that ends the run")
    spent = challenges.spend(
        run_id=appraisal.run_id,
        attempt=appraisal.attempt,
        purpose=Purpose.RESULT,
        value=appraisal.context["challenge2"],
    )
    if accepted and not spent:
        raise evidence_refused([challenge_check("spent")])
    verdict = appraisal.verdict
    row = Evidence.objects.create(
        run=appraisal.run_id,
        attempt=appraisal.attempt,
        purpose=Purpose.RESULT,
        type=verdict.appraisal.type,
        envelope=appraisal.envelope,
        sha256=digest(appraisal.envelope),
        context=appraisal.context,
        tier=verdict.appraisal.tier.value,
        accepted=accepted,
        appraisal=verdict.to_json(appraisal.at),
    )
    recorder()(
        event="result_evidence.accepted" if accepted else "result_evidence.refused",
        by=by,
        object_type="run",
        object_id=appraisal.run_id,
        data={
            "attempt": appraisal.attempt,
            "evidence": row.sha256,
            "context": strictjson.digest(appraisal.context),
            "failing": [check.id for check in verdict.failing],
        },
    )
    return row


__all__ = [
    "accept_result_evidence",
    "appraise_result",
    "challenge_check",
    "default_policy",
    "evidence_refused",
    "issue_challenges",
    "release_keys",
    "set_policy",
]
