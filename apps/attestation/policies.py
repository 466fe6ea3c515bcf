"""Which evidence a dataset's keys are released for: the policy in force, the default, and whose keys are believed."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from django.conf import settings

from apps.attestation.models import ReleasePolicy
from apps.core.keys import signing_key
from apps.datasets.models import Dataset
from strongroom.evidence import TYPES, Policy, Trust
from strongroom.image import runner_image as image_of

SOFTWARE = "software"
MAX_AGE_SECONDS = 600


@lru_cache(maxsize=1)
def runner_image() -> str:
    """The digest of this installation's runner, `sha256:<hex>`. Read once: a deployment restarts processes."""
    return image_of(settings.BASE_DIR)


def trust() -> Trust:
    """The installation's own software attester. Roots of hardware evidence are part of the strongroom package."""
    return Trust.of(software_keys=[signing_key("software-attester").public_key().public_bytes_raw()])


def default_policy(*, personal_data: bool) -> dict[str, Any]:
    """What holds until the custodian sets a policy: this portal's runner; for personal data, hardware evidence only."""
    types = [t for t in TYPES if t != SOFTWARE] if personal_data else [SOFTWARE]
    return {"v": 1, "types": types, "images": [runner_image()], "max_age_seconds": MAX_AGE_SECONDS}


def in_force(dataset: Dataset) -> Policy:
    """The custodian's newest policy for `dataset`, else the default."""
    row = ReleasePolicy.objects.filter(dataset=dataset).order_by("-number").first()
    return Policy.parse(row.document if row else default_policy(personal_data=dataset.personal_data))


def portal_policy() -> Policy:
    """For runs that read no sealed data (rehearsals): any evidence, of this portal's runner."""
    return Policy.parse(
        {"v": 1, "types": list(TYPES), "images": [runner_image()], "max_age_seconds": MAX_AGE_SECONDS}
    )
