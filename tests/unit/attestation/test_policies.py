"""Release policies: who sets them, what they may say, and which is in force."""

from __future__ import annotations

import pytest

from apps.accounts.models import RoleHolding
from apps.attestation import actions, challenges, policies
from apps.attestation.models import Challenge, ReleasePolicy
from apps.audit.models import Entry
from apps.core.clock import now
from apps.core.errors import Denied, Invalid
from apps.datasets.permissions import MANAGE
from tests.unit.jobs.engine.world import dataset_of, person

IMAGE = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


def document(**changes):
    return {"v": 1, "types": ["software"], "images": [IMAGE], "max_age_seconds": 300, **changes}


@pytest.fixture
def custodian(db):
    from guardian.shortcuts import assign_perm

    user = person("carla")
    dataset = dataset_of(user)
    RoleHolding.objects.create(
        user=user, role="custodian", organisation=dataset.custodian, granted_by="system:test"
    )
    assign_perm(MANAGE, user, dataset)
    return user, dataset


def test_default_until_one_is_set_and_then_the_newest(custodian):
    user, dataset = custodian
    assert policies.in_force(dataset).to_json() == policies.default_policy(personal_data=False)
    first = actions.set_policy(by=user, dataset=dataset, document=document())
    assert actions.set_policy(by=user, dataset=dataset, document=document()).pk == first.pk
    second = actions.set_policy(by=user, dataset=dataset, document=document(max_age_seconds=60))
    assert [first.number, second.number] == [1, 2]
    assert policies.in_force(dataset).max_age_seconds == 60
    entry = Entry.objects.get(event="release_policy.set", object_id=str(second.pk))
    assert entry.scope == f"dataset:{dataset.pk}" and entry.data["sha256"] == second.sha256


def test_nobody_else_sets_it(custodian):
    _, dataset = custodian
    with pytest.raises(Denied):
        actions.set_policy(by=person("eve"), dataset=dataset, document=document())
    assert not ReleasePolicy.objects.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"types": []},
        {"types": ["wishes"]},
        {"images": ["latest"]},
        {"max_age_seconds": 0},
        {"more": 1},
        {"v": 2},
    ],
)
def test_wrong_documents(custodian, change):
    user, dataset = custodian
    with pytest.raises(Invalid) as refusal:
        actions.set_policy(by=user, dataset=dataset, document=document(**change))
    assert "document" in refusal.value.fields


def test_software_evidence_never_for_personal_data(custodian):
    user, dataset = custodian
    type(dataset).objects.filter(pk=dataset.pk).update(personal_data=True)
    dataset.refresh_from_db()
    assert "software" not in policies.in_force(dataset).types
    with pytest.raises(Invalid, match="protects nothing"):
        actions.set_policy(by=user, dataset=dataset, document=document(types=["snp", "software"]))


def test_challenges_are_issued_once_and_spent_once(db):
    import uuid

    run = uuid.uuid4()
    pair = actions.issue_challenges(run_id=run, attempt=1)
    assert actions.issue_challenges(run_id=run, attempt=1) == pair and len(set(pair)) == 2
    assert set(actions.issue_challenges(run_id=run, attempt=2)).isdisjoint(pair)
    use = {"run_id": run, "attempt": 1, "purpose": "key-release", "value": pair[0]}
    assert challenges.fault_of(**use) == ""
    assert challenges.fault_of(**{**use, "attempt": 2}) == "foreign"
    assert challenges.fault_of(**{**use, "purpose": "result"}) == "foreign"
    assert not challenges.spend(**{**use, "attempt": 2}) and not challenges.spend(
        **{**use, "purpose": "result"}
    )
    assert [challenges.spend(**use), challenges.spend(**use)] == [True, False]
    assert challenges.fault_of(**use) == "spent"
    late = {**use, "purpose": "result", "value": pair[1]}
    Challenge.objects.filter(value=pair[1]).update(expires_at=now())
    assert challenges.fault_of(**late) == "expired" and not challenges.spend(**late)
