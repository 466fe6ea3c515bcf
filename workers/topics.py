"""What the outbox asks for, and who does it. Every handler takes an object's id and is safe to run twice."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from django.db.models import Q

from apps.audit.sequencer import seal_log
from apps.core.actors import System
from apps.core.errors import Denied
from apps.datasets import actions as datasets
from apps.datasets.models import DatasetVersion, Stage1Release
from apps.datasets.states import ReleaseState, VersionState
from apps.jobs import engine
from apps.jobs.models import Run
from apps.jobs.states import RUN

WORKER = System("worker")


class Later(Exception):
    """Not now and no fault: try again in `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"again in {seconds} s")
        self.seconds = seconds


def check_upload(key: str) -> None:
    """Compare the stored bytes with the seal; if they agree, have the version profiled."""
    version = DatasetVersion.objects.select_related("dataset").get(pk=key)
    if (
        datasets.verify_upload(by=WORKER, version=version) != VersionState.PROFILING
        and version.state != VersionState.PROFILING
    ):
        return
    try:
        engine.create_profile_run(version)
    except Denied as refusal:
        version.refresh_from_db()
        datasets.profile_failed(by=WORKER, version=version, reason=f"{refusal.detail} {refusal.remedy}")


def make_release(key: str) -> None:
    """Start the run that makes an ordered stage-1 release."""
    release = Stage1Release.objects.get(pk=key)
    try:
        engine.create_release_run(release)
    except Denied as refusal:
        release.refresh_from_db()
        if release.state == ReleaseState.ORDERED:
            datasets.release_failed(by=WORKER, release=release, reason=f"{refusal.detail} {refusal.remedy}")


def advance_run(key: str) -> None:
    if not engine.advance(key):
        raise Later(0.3)


def recheck_runs(key: str) -> None:
    """Something about a dataset or a project has changed: look again at every live run that it concerns."""
    subject = UUID(key)
    concerned = Q(project_id=subject) | Q(inputs__version__dataset_id=subject)
    live = Run.objects.filter(concerned).exclude(state__in=RUN.final).values_list("pk", flat=True).distinct()
    busy = [pk for pk in live if not engine.advance(pk)]
    if busy:
        raise Later(0.3)


TOPICS: dict[str, Callable[[str], object]] = {
    "check_upload": check_upload,
    "make_release": make_release,
    "advance_run": advance_run,
    "open_outputs": engine.open_outputs,
    "build_package": engine.build_package,
    "recheck_runs": recheck_runs,
    "seal_log": lambda key: seal_log(by=WORKER),
}
