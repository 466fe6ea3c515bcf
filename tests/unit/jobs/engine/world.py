"""A small world for the engine's tests: people, a sealed dataset, its stand-in data, a project and a program.

Rows are written directly: what leads to them is tested elsewhere. The gate is open unless a test closes it.
"""

from __future__ import annotations

import hashlib
import io
import uuid
from dataclasses import dataclass
from datetime import timedelta

from apps.accounts.models import Organisation, User
from apps.core.clock import now
from apps.core.keys import hpke_key
from apps.core.objects import put_bytes
from apps.datasets.models import Dataset, DatasetVersion, Stage1Release
from apps.jobs.models import Program
from apps.projects.models import Project
from strongroom import seal

CSV = b"visits,coins\n1,0\n2,25\n3,95\n"
STAND_IN = b"visits,coins\n2,0\n2,25\n"
PROGRAM = b"print('hello')\n"
DICTIONARY = {
    "fields": [
        {"name": "visits", "type": "integer", "description": "Visits", "constraints": {"minimum": 0}},
        {"name": "coins", "type": "number", "description": "Coinsurance", "unit": "%"},
    ]
}


@dataclass
class World:
    user: User
    dataset: Dataset
    version: DatasetVersion
    release: Stage1Release
    project: Project
    program: Program


def person(name: str) -> User:
    return User.objects.create(email=f"{name}-{uuid.uuid4().hex[:8]}@example.org", name=name)


def organisation(kind: str) -> Organisation:
    slug = f"{kind.replace('_', '-')}-{uuid.uuid4().hex[:8]}"
    return Organisation.objects.create(slug=slug, name=slug, kind=kind)


def sealed_version(
    dataset: Dataset, user: User, *, state: str = "accepted", data: bytes = CSV
) -> DatasetVersion:
    """A version whose bytes are really sealed, with its data key wrapped to the portal's broker."""
    number = dataset.versions.count() + 1
    key = seal.generate_data_key()
    out = io.BytesIO()
    made = seal.seal_stream(io.BytesIO(data), out, key, seal.aad_dataset(str(dataset.pk), number))
    broker = seal.PublicKey("x25519", hpke_key("broker").public_key().public_bytes_raw())
    wrapped = seal.wrap_key(key, broker, seal.info_data_key(str(dataset.pk), number))
    header = seal.SealHeader(
        dataset=str(dataset.pk),
        version=number,
        suite="x25519",
        recipient=broker.id,
        wrapped_key=wrapped,
        ciphertext=seal.Digested(made.ciphertext_sha256, made.ciphertext_size),
        plaintext=seal.Digested(made.plaintext_sha256, made.plaintext_size),
        media_type="text/csv",
    )
    version = DatasetVersion(
        dataset=dataset,
        number=number,
        state=state,
        dictionary=dataset.dictionary,
        media_type="text/csv",
        announced_size=made.ciphertext_size,
        received_size=made.ciphertext_size,
        seal=header.to_json(),
        ciphertext_sha256=made.ciphertext_sha256,
        plaintext_sha256=made.plaintext_sha256,
        uploaded_by=user,
    )
    version.object_name = f"datasets/{version.pk}.sealed"
    version.save()
    put_bytes(version.object_name, out.getvalue())
    return version


def dataset_of(user: User, slug: str = "", *, personal_data: bool = False) -> Dataset:
    return Dataset.objects.create(
        slug=slug or f"set-{uuid.uuid4().hex[:8]}",
        title="Visits",
        summary="Visits",
        custodian=organisation("custodian"),
        state="published",
        personal_data=personal_data,
        dictionary=DICTIONARY,
        created_by=user,
    )


def make_world(*, personal_data: bool = False) -> World:
    user = person("ada")
    dataset = dataset_of(user, personal_data=personal_data)
    version = sealed_version(dataset, user)
    release = Stage1Release(
        version=version, state="released", method="gaussian_copula", ordered_by=user, rows=2,
        sha256=hashlib.sha256(STAND_IN).hexdigest(), size=len(STAND_IN),
    )  # fmt: skip
    release.object_name = f"releases/{release.pk}"
    release.save()
    put_bytes(release.object_name, STAND_IN)
    project = Project.objects.create(
        ref=f"SR-{uuid.uuid4().hex[:8]}", title="Visits", organisation=organisation("university"), state="active",
        created_by=user, ends_on=(now() + timedelta(days=30)).date(),
    )  # fmt: skip
    sha256 = hashlib.sha256(PROGRAM).hexdigest()
    put_bytes(f"programs/{sha256}", PROGRAM)
    program = Program.objects.create(
        project=project, name="visits", kind="py", entry="main.py", sha256=sha256, size=len(PROGRAM),
        object_name=f"programs/{sha256}", uploaded_by=user, submission=uuid.uuid4().hex,
    )  # fmt: skip
    program.versions.add(version)
    return World(user, dataset, version, release, project, program)
