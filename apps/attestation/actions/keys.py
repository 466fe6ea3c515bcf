"""Release of data keys: by this portal's own broker, and by a custodian's through this portal.

The decision is strongroom.broker.release, the same for both. Here: what is read before, what is written of it, and that
no key is opened, and no other machine asked, inside a transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from django.db import transaction

from apps.attestation import appraisals, brokers, challenges, policies
from apps.attestation.brokers import BrokerRefused, ServiceUnavailable
from apps.attestation.challenges import challenge_check
from apps.attestation.models import Evidence, KeyRelease, Purpose
from apps.core.clock import now
from apps.core.errors import Denied
from apps.core.keys import key_store
from apps.core.lifecycle import recorder
from apps.datasets.models import Dataset, DatasetVersion
from strongroom import contexts, seal, shapes, strictjson
from strongroom.broker import release
from strongroom.broker.errors import KeyStoreError, ReleaseError
from strongroom.broker.release import Decision
from strongroom.errors import FormatError
from strongroom.evidence import Check, Outcome, digest


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
    Raises Denied: context_malformed, evidence_refused (with `checks`), key_unusable; ServiceUnavailable.
    """
    asked = _parsed(context)
    if not versions:
        raise evidence_refused([])
    known = {"run": str(run_id), "portal": portal, "broker": None, **expected}
    arguments = {
        "run_id": run_id,
        "attempt": attempt,
        "purpose": Purpose.KEY_RELEASE,
        "value": asked["challenge"],
    }
    while not _released_before(run_id, attempt, envelope, asked):
        moment = now()
        decision = appraisals.judge_release(
            context=asked,
            envelope=envelope,
            versions=versions,
            challenge=challenge_check(challenges.fault_of(**arguments)),
            expected=known,
            now=moment,
        )
        with transaction.atomic():
            if not _still_in_force(versions, decision):
                continue  # the policy was replaced while the evidence was judged
            if not challenges.spend(**arguments) and (
                decision.ok or _released_before(run_id, attempt, envelope, asked)
            ):
                # Used up since it was looked at: by this same request on another connection, or by another one.
                continue
            _record(by, run_id, attempt, asked, envelope, decision, versions, moment)
        if not decision.ok:
            raise evidence_refused(decision.failing)
    return _wrap(by, run_id, asked, versions)


def broker_challenge(*, run_id: UUID, attempt: int, broker: str, manifest: dict[str, Any]) -> str:
    """The challenge of a custodian's broker for this attempt. Raises Denied (broker_refused), ServiceUnavailable."""
    authorisation = brokers.authorise(run_id=run_id, attempt=attempt, broker=broker, manifest=manifest)
    try:
        return brokers.challenge(broker, authorisation)
    except BrokerRefused as refusal:
        raise _broker_refused(broker, refusal) from None


def release_keys_by_broker(
    *,
    by: object,
    run_id: UUID,
    attempt: int,
    broker: str,
    context: Any,
    envelope: bytes,
    versions: Sequence[DatasetVersion],
    portal: str,
    expected: Mapping[str, Any],
    manifest: dict[str, Any],
) -> list[dict[str, Any]]:
    """Pass E1 on to the custodian's broker that holds these keys, if it satisfies this portal too.

    What comes back is closed for the attested key: the portal can read none of it. Both decisions go on record.
    Raises as `release_keys`, and Denied broker_refused with the broker's own sentence.
    """
    asked = _parsed(context)
    known = {"run": str(run_id), "portal": portal, "broker": broker, **expected}
    answer: brokers.Released | None = None
    while True:
        moment = now()
        before = _released_before(run_id, attempt, envelope, asked, broker)
        decision = appraisals.judge_release(
            context=asked,
            envelope=envelope,
            versions=versions,
            challenge=Check(
                "challenge", Outcome.NOT_AVAILABLE, f"The challenge is that of the key broker {broker}."
            ),
            expected=known,
            now=moment,
        )
        record = partial(
            _record, by, run_id, attempt, asked, envelope, decision, versions, moment, broker=broker
        )
        if not before and not decision.ok:
            with transaction.atomic():
                record()
            raise evidence_refused(decision.failing)
        try:
            answer = answer or brokers.release(
                broker,
                authorisation=brokers.authorise(
                    run_id=run_id, attempt=attempt, broker=broker, manifest=manifest
                ),
                context=asked,
                evidence=strictjson.loads(envelope, max_bytes=len(envelope)),
                grants=[version.seal for version in versions],
            )
        except BrokerRefused as refusal:
            with transaction.atomic():
                record(refusal=refusal)
            raise _broker_refused(broker, refusal) from None
        with transaction.atomic():
            if not _still_in_force(versions, decision):
                continue  # the policy was replaced while the broker was asked
            if not _released_before(run_id, attempt, envelope, asked, broker):
                record(log=answer.log)
        return answer.keys


def evidence_refused(failing: Sequence[Check]) -> Denied:
    """The refusal that a runner gets: which checks failed, no more."""
    sentences = " ".join(check.detail for check in failing) or "No dataset is to be released."
    return Denied(
        "evidence_refused",
        f"The evidence does not satisfy every check. {sentences}",
        "Nothing was released. A new run starts with a new challenge.",
        checks=[check.to_json() for check in failing],
    )


def _broker_refused(broker: str, refusal: BrokerRefused) -> Denied:
    return Denied(
        "broker_refused",
        f"The key broker {broker} refused: {refusal.sentence}",
        "Ask its custodian. Nothing was released by it.",
        broker=broker,
        checks=refusal.checks,
    )


def _parsed(context: Any) -> dict[str, Any]:
    try:
        return contexts.parse_key_release(context)
    except FormatError as error:
        raise Denied(
            "context_malformed", str(error), "Send the key-release context in its exact form."
        ) from None


def _released_before(
    run_id: UUID, attempt: int, envelope: bytes, context: dict[str, Any], broker: str = ""
) -> bool:
    """Whether exactly this evidence for exactly this context was accepted already."""
    row = Evidence.objects.filter(
        run=run_id, attempt=attempt, purpose=Purpose.KEY_RELEASE, broker=broker, accepted=True
    ).first()
    return row is not None and row.sha256 == digest(envelope) and row.context == context


def _still_in_force(versions: Sequence[DatasetVersion], decision: Decision) -> bool:
    """Whether each dataset's policy is still the one that the decision is about; from here to the commit it stays so."""
    ids = sorted({version.dataset_id for version in versions})
    rows = {row.pk: row for row in Dataset.objects.select_for_update().filter(pk__in=ids).order_by("pk")}
    return all(
        policies.in_force(rows[version.dataset_id]).sha256 == judgement.asked.policy.sha256
        for version, judgement in zip(versions, decision.judgements, strict=True)
    )


def _record(
    by: object,
    run_id: UUID,
    attempt: int,
    context: dict[str, Any],
    envelope: bytes,
    decision: Decision,
    versions: Sequence[DatasetVersion],
    moment: datetime,
    broker: str = "",
    refusal: BrokerRefused | None = None,
    log: dict[str, Any] | None = None,
) -> None:
    """Evidence, one decision a dataset, and one audit entry a dataset, in the caller's transaction."""
    accepted = decision.ok and refusal is None
    row = Evidence.objects.create(
        run=run_id,
        attempt=attempt,
        purpose=Purpose.KEY_RELEASE,
        broker=broker,
        type=decision.appraisal.type,
        envelope=envelope,
        sha256=digest(envelope),
        context=context,
        tier=decision.appraisal.tier.value,
        accepted=accepted,
        appraisal=decision.to_json(shapes.format_time(moment)),
    )
    by_broker = [f"broker:{check['id']}" for check in refusal.checks] or ["broker"] if refusal else []
    for version, judgement in zip(versions, decision.judgements, strict=True):
        reasons = [check.id for check in judgement.failing] + by_broker
        if not accepted and not reasons:
            reasons = [check.id for check in decision.failing]
        made = KeyRelease.objects.create(
            run=run_id,
            version=version,
            evidence=row,
            policy_sha256=judgement.asked.policy.sha256,
            released=accepted,
            reasons=reasons,
        )
        more: dict[str, Any] = {"broker": broker, "broker_log": log} if broker else {}
        recorder()(
            event="data_key.released" if accepted else "data_key.refused",
            by=by,
            object_type="key_release",
            object_id=made.pk,
            data={
                "run": str(run_id),
                "attempt": attempt,
                "dataset": str(version.dataset_id),
                "version": version.number,
                "evidence": row.sha256,
                "context": strictjson.digest(context),
                "policy": judgement.asked.policy.sha256,
                "failing": reasons,
                **more,
            },
            scope=f"dataset:{version.dataset_id}",
        )


def _wrap(
    by: object, run_id: UUID, context: dict[str, Any], versions: Sequence[DatasetVersion]
) -> list[dict[str, Any]]:
    try:
        return release.wrap(key_store(), context, [seal.parse_seal_header(v.seal) for v in versions])
    except ReleaseError as error:
        broken = next(v for v in versions if str(v.dataset_id) == error.dataset)
    except FormatError:
        broken = versions[0]
    except KeyStoreError as error:
        if error.code == "unreachable":
            raise ServiceUnavailable("key_store_unavailable", str(error)) from None
        broken = versions[0]
    dataset = str(broken.dataset_id)
    with transaction.atomic():
        recorder()(
            event="data_key.unusable", by=by, object_type="dataset_version", object_id=broken.pk,
            data={"run": str(run_id)}, scope=f"dataset:{dataset}",
        )  # fmt: skip
    raise Denied(
        "key_unusable",
        "The data key of an input cannot be opened by this portal's key broker.",
        "The custodian must seal and upload the dataset again for this portal.",
        dataset=dataset,
    )
