"""Stage-1 releases: stand-in data made by a run, looked at by the custodian, released, downloaded on the record."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import transaction

from apps.accounts.models import User
from apps.core.clock import now
from apps.core.errors import Conflict, Invalid
from apps.core.lifecycle import begin, recorder, transition
from apps.core.outbox import enqueue
from apps.datasets.models import DatasetVersion, Download, Stage1Release
from apps.datasets.permissions import require_acts_for, require_portal
from apps.datasets.states import ReleaseState, VersionState
from apps.projects.models import Project

MAX_ROWS = 100_000


def order_release(
    *, by: User, version: DatasetVersion, method: str, parameters: dict[str, Any] | None = None
) -> Stage1Release:
    """Order stand-in data from an accepted version. The run starts by itself. Raises Denied, Invalid, Conflict."""
    require_acts_for(by, version.dataset, to="order stand-in data from this dataset")
    if version.state != VersionState.ACCEPTED:
        raise Conflict(
            "version_not_accepted",
            "This version has not passed its profiling run, so nothing can be made from it.",
            "Wait for the run, or upload a corrected version.",
        )
    if method not in Stage1Release.Method.values:
        raise Invalid(
            "method_unknown",
            "Choose how the stand-in data are made.",
            fields={"method": ["Choose how the stand-in data are made"]},
        )
    rows = (parameters or {}).get("rows")
    if rows is not None and (
        not isinstance(rows, int) or isinstance(rows, bool) or not 10 <= rows <= MAX_ROWS
    ):
        raise Invalid(
            "rows",
            f"The number of rows must be from 10 to {MAX_ROWS:,}.",
            fields={"rows": [f"Enter a number from 10 to {MAX_ROWS:,}, or leave it empty"]},
        )
    with transaction.atomic():
        DatasetVersion.objects.select_for_update().get(pk=version.pk)
        if version.releases.filter(state__in=(ReleaseState.ORDERED, ReleaseState.MAKING)).exists():
            raise Conflict(
                "already_ordered",
                "Stand-in data of this version are being made at the moment.",
                "Wait until they are ready.",
            )
        release = Stage1Release.objects.create(
            version=version, method=method, parameters={"rows": rows} if rows else {}, ordered_by=by
        )
        begin(release, by=by, data={"version": str(version.pk), "method": method})
        enqueue("make_release", release.pk)
    return release


def release_making(*, by: object, release: Stage1Release) -> None:
    """The run that makes it has been created."""
    require_portal(by, to="start making stand-in data")
    transition(release, ReleaseState.MAKING, by=by)


def release_made(
    *,
    by: object,
    release: Stage1Release,
    object_name: str,
    sha256: str,
    size: int,
    rows: int,
    report: dict[str, Any],
) -> None:
    """The run has ended well: keep what it made for the custodian's decision."""
    require_portal(by, to="say what a run has made")
    transition(
        release, ReleaseState.TO_REVIEW, by=by, data={"sha256": sha256},
        set_fields={"object_name": object_name, "sha256": sha256, "size": size, "rows": rows, "report": report},
    )  # fmt: skip


def release_failed(*, by: object, release: Stage1Release, reason: str) -> None:
    """The run has ended badly."""
    require_portal(by, to="say how a run has ended")
    transition(release, ReleaseState.FAILED, by=by, reason=reason)


def decide_release(*, by: User, release: Stage1Release, approve: bool, reason: str = "") -> Stage1Release:
    """The custodian's yes or no to the stand-in data. Raises Denied, Invalid (a no without reason), Conflict."""
    require_acts_for(by, release.version.dataset, to="decide on its stand-in data")
    fields = {"decided_by": by, "decided_at": now()}
    target = ReleaseState.RELEASED if approve else ReleaseState.REFUSED
    transition(release, target, by=by, reason=reason, set_fields=fields, data={"sha256": release.sha256})
    return release


def withdraw_release(*, by: User, release: Stage1Release, reason: str) -> None:
    """No new downloads and rehearsals. What was downloaded is on record."""
    require_acts_for(by, release.version.dataset, to="withdraw its stand-in data")
    transition(release, ReleaseState.WITHDRAWN, by=by, reason=reason)


def record_download(
    *, by: User, project: Project | None, what: str, object_id: UUID, sha256: str
) -> Download:
    """Record that `by` downloads something. Called before the first byte is sent."""
    with transaction.atomic():
        download = Download.objects.create(
            user=by, project=project, what=what, object_id=object_id, sha256=sha256
        )
        recorder()(
            event=f"{what}.downloaded", by=by, object_type=what, object_id=object_id,
            scope=f"project:{project.pk}" if project else "", data={"sha256": sha256},
        )  # fmt: skip
    return download
