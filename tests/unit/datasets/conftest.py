"""People, a dataset, and a sealed file for the tests of the datasets app."""

from __future__ import annotations

import io
import uuid
from dataclasses import dataclass
from typing import Any

import pytest
from django.utils import timezone

from apps.accounts.models import Organisation, RoleHolding, User
from apps.accounts.roles import Role
from apps.core.actors import System
from apps.datasets import actions
from apps.datasets.models import Dataset, DatasetVersion
from strongroom import seal as sealing

PORTAL = System("test")
CSV = b"mdvis,health,income\n" + b"".join(
    b"%d,%s,%d.5\n" % (n % 7, b"good" if n % 3 else b"poor", n) for n in range(500)
)
DICTIONARY: dict[str, Any] = {
    "fields": [
        {
            "name": "mdvis",
            "type": "integer",
            "description": "Visits to a doctor",
            "unit": "visits",
            "constraints": {"minimum": 0, "maximum": 200},
        },
        {
            "name": "health",
            "type": "string",
            "description": "Health, as told",
            "constraints": {"enum": ["good", "fair", "poor"]},
            "sensitive": True,
        },
        {"name": "income", "type": "number"},
    ],
    "missingValues": ["", "NA"],
}
PROFILE: dict[str, Any] = {
    "v": 1,
    "rows": 496,
    "columns": [
        {
            "name": "mdvis",
            "type": "integer",
            "missing": 0,
            "summary": {"mean": 2.86, "sd": 4.5, "quantiles": {"0.05": 0, "0.5": 1, "0.95": 10}},
            "categories": None,
            "histogram": {"edges": [0, 2, 4, 6], "counts": [300, 190, 6]},
        },
        {
            "name": "health",
            "type": "string",
            "missing": 4,
            "summary": None,
            "categories": [
                {"value": "good", "count": 300},
                {"value": "fair", "count": 150},
                {"value": "<b>poor</b>", "count": 3},
                {"value": "bad", "count": 43},
            ],
            "histogram": None,
        },
        {
            "name": "income",
            "type": "number",
            "missing": 50,
            "summary": None,
            "categories": None,
            "histogram": None,
        },
    ],
}
REPORT = {"v": 1, "ok": True, "rows": 496, "problems": [], "checked_at": "2026-11-05T14:05:00Z"}


def person(name: str, organisation: Organisation, *roles: Role) -> User:
    user = User.objects.create_user(
        email=f"{name}@example.org",
        name=name.capitalize(),
        password="correct horse battery",
        organisation=organisation,
        password_chosen_at=timezone.now(),
    )
    for role in roles:
        RoleHolding.objects.create(user=user, role=role, organisation=organisation, granted_by="system:test")
    return user


@dataclass
class World:
    rand: Organisation
    other: Organisation
    ada: User  # custodian in rand, manages the dataset
    bea: User  # custodian in rand, does not
    cyd: User  # custodian elsewhere
    eve: User  # researcher
    dataset: Dataset


@pytest.fixture(autouse=True)
def object_store(settings: Any, tmp_path: Any) -> None:
    settings.OBJECT_STORE = {"backend": "files", "root": str(tmp_path / "objects")}


@pytest.fixture
def world(db: None) -> World:
    rand = Organisation.objects.create(slug="rand", name="RAND archive", kind="custodian")
    other = Organisation.objects.create(slug="other", name="Other archive", kind="custodian")
    uni = Organisation.objects.create(slug="uni", name="University", kind="university")
    ada = person("ada", rand, Role.CUSTODIAN)
    return World(
        rand=rand,
        other=other,
        ada=ada,
        bea=person("bea", rand, Role.CUSTODIAN),
        cyd=person("cyd", other, Role.CUSTODIAN),
        eve=person("eve", uni, Role.RESEARCHER),
        dataset=actions.register_dataset(
            by=ada,
            custodian=rand,
            slug="rand-hie",
            title="RAND Health Insurance Experiment",
            summary="Visits to a doctor under insurance plans.",
            personal_data=False,
            keywords=["health insurance", "visits"],
            coverage_place="United States",
            dictionary=DICTIONARY,
        ),
    )


def sealed(version: DatasetVersion, plain: bytes = CSV, **header: Any) -> tuple[bytes, dict[str, Any]]:
    """The sealed file and its header, as the command line on a custodian's machine makes them."""
    broker, dataset = actions.broker_key(), str(version.dataset_id)
    key, out = sealing.generate_data_key(), io.BytesIO()
    result = sealing.seal_stream(io.BytesIO(plain), out, key, sealing.aad_dataset(dataset, version.number))
    wrapped = sealing.wrap_key(key, broker, sealing.info_data_key(dataset, version.number))
    made = sealing.seal_header(
        dataset=dataset,
        version=version.number,
        suite=broker.suite,
        recipient=broker.id,
        wrapped_key=wrapped,
        result=result,
        media_type="text/csv",
    )
    return out.getvalue(), {**made.to_json(), **header}


def uploaded(world: World, plain: bytes = CSV) -> DatasetVersion:
    """A version whose upload is finished."""
    size = sealing.ciphertext_size(len(plain))
    version = actions.start_upload(
        by=world.ada, dataset=world.dataset, media_type="text/csv", announced_size=size
    )
    data, header = sealed(version, plain)
    actions.receive_chunk(by=world.ada, version=version, offset=0, chunks=[data])
    return actions.finish_upload(by=world.ada, version=version, seal=header)


def accepted(world: World, profile: dict[str, Any] = PROFILE) -> DatasetVersion:
    """A version that its profiling run accepted."""
    version = uploaded(world)
    actions.verify_upload(by=PORTAL, version=version)
    return actions.record_profile(
        by=PORTAL, version=version, ok=True, rows=496, profile=profile, report=REPORT
    )


def unique() -> str:
    return uuid.uuid4().hex[:8]
