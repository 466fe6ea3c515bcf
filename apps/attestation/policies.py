"""Which evidence a dataset's keys are released for: the policy in force, the default, and whose keys are believed."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from django.conf import settings

from apps.attestation.models import ReleasePolicy
from apps.core.keys import signing_key
from apps.datasets.models import Dataset
from strongroom.evidence import TYPES, Anchor, Policy, Trust
from strongroom.evidence import trust as anchors
from strongroom.image import runner_image as image_of

SOFTWARE = "software"
MAX_AGE_SECONDS = 600
# Variables that a machine's launch sets: the portal's address and the run's id (workers/runner/told.py).
TOLD = ("STRONGROOM_PORTAL", "STRONGROOM_RUN")


def runner_image(backend: str = "local") -> str:
    """The digest of the runner that a backend's machines start, `sha256:<hex>`: the one set for it, else our own files."""
    return settings.RUNNER_IMAGES.get(backend) or _own_runner()


@lru_cache(maxsize=1)
def _own_runner() -> str:
    """The digest of this checkout's runner. Read once: a deployment restarts processes."""
    return image_of(settings.BASE_DIR)


def trust() -> Trust:
    """The installation's own software attester; for hardware, the package's anchors and those of TRUST_DIRECTORY."""
    own = _own_anchors(settings.TRUST_DIRECTORY, settings.ALLOW_TEST_ANCHORS)
    key = signing_key("software-attester").public_key().public_bytes_raw()
    return Trust.of(software_keys=[key], anchors=(*anchors.shipped(), *own))


@lru_cache(maxsize=4)
def _own_anchors(folder: str, allow_test: bool) -> tuple[Anchor, ...]:
    """Raises FormatError for a directory that is not as it says, or that holds test anchors where none are allowed."""
    return anchors.read(Path(folder), allow_test=allow_test) if folder else ()


def default_policy(*, personal_data: bool) -> dict[str, Any]:
    """What holds until the custodian sets a policy: this portal's runner; for personal data, hardware evidence only."""
    return _our_runner([t for t in TYPES if t != SOFTWARE]) if personal_data else _our_runner([SOFTWARE])


def _our_runner(types: list[str]) -> dict[str, Any]:
    """This portal's runner on evidence of `types`: its images, and for clouds what the launch tells each machine."""
    document: dict[str, Any] = {"v": 1, "types": types, "images": [], "max_age_seconds": MAX_AGE_SECONDS}
    hardware = [t for t in types if t != SOFTWARE]
    images = set(settings.RUNNER_IMAGES.values()) if hardware else set()
    if SOFTWARE in types or not images:
        images.add(runner_image())
    document["images"] = sorted(images)
    if hardware:
        document |= {"audiences": [settings.PORTAL_ID], "env_override": list(TOLD)}
        if settings.RUNNER_CODE:
            document["code"] = settings.RUNNER_CODE
    return document


def in_force(dataset: Dataset) -> Policy:
    """The custodian's newest policy for `dataset`, else the default."""
    row = ReleasePolicy.objects.filter(dataset=dataset).order_by("-number").first()
    return Policy.parse(row.document if row else default_policy(personal_data=dataset.personal_data))


def portal_policy() -> Policy:
    """For runs that read no sealed data (rehearsals): any evidence, of this portal's runner."""
    return Policy.parse(_our_runner(list(TYPES)))
