"""What is not kept for ever: the ciphertext of refused uploads."""

from __future__ import annotations

import datetime as dt

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef

from apps.core.clock import now
from apps.core.lifecycle import recorder
from apps.core.models import StateChange
from apps.core.objects import store
from apps.datasets.models import DatasetVersion
from apps.datasets.permissions import require_portal
from apps.datasets.states import VersionState


def remove_refused_ciphertext(*, by: object) -> int:
    """Delete the sealed files of versions refused more than REFUSED_CIPHERTEXT_DAYS ago; returns how many there were.

    Called by the portal's sweep; safe to repeat and to interrupt. The version's row stays, with its report and hashes;
    its object name is empty from then on. Raises Denied (people).
    """
    require_portal(by, to="delete the sealed files of refused uploads")
    before = now() - dt.timedelta(days=settings.REFUSED_CIPHERTEXT_DAYS)
    refused = StateChange.objects.filter(
        object_type=DatasetVersion.LIFECYCLE.name,
        object_id=OuterRef("pk"),
        to_state=VersionState.REFUSED,
        at__lt=before,
    )
    due = DatasetVersion.objects.filter(Exists(refused), state=VersionState.REFUSED).exclude(object_name="")
    return sum(_remove(version, by=by) for version in due.only("object_name", "dataset_id"))


def _remove(version: DatasetVersion, *, by: object) -> bool:
    name, objects = version.object_name, store()
    size = objects.size(name)
    with transaction.atomic():
        rows = DatasetVersion.objects.filter(pk=version.pk, state=VersionState.REFUSED, object_name=name)
        if not rows.update(object_name=""):
            return False
        if size:  # uploads given up, or broken on their way, were deleted when they were refused
            recorder()(
                event="dataset_version.ciphertext_deleted",
                by=by,
                object_type="dataset_version",
                object_id=version.pk,
                data={"bytes": size, "days": settings.REFUSED_CIPHERTEXT_DAYS},
                scope=f"dataset:{version.dataset_id}",
            )
        # Last before the commit: if that fails, the next sweep finds the row as it was and no file, which is fine.
        objects.delete(name)
    return bool(size)
