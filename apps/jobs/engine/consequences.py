"""What the end of a run means for what asked for it. Each may be done again."""

from __future__ import annotations

from apps.core.errors import Conflict
from apps.datasets import actions as datasets
from apps.datasets.states import ReleaseState, VersionState
from apps.jobs import codes
from apps.jobs.engine.creation import ENGINE
from apps.jobs.models import Run
from apps.jobs.states import RunState


def settle(run: Run) -> None:
    """After the machine is gone. A run that succeeded has its outputs opened elsewhere (outputs.open_outputs)."""
    if run.state != RunState.SUCCEEDED:
        failed(run, codes.describe(run.code).sentence)
    elif run.kind == Run.Kind.REHEARSAL and run.program is not None:
        from apps.jobs.actions import approve_automatically

        approve_automatically(by=ENGINE, program=run.program)


def failed(run: Run, reason: str) -> None:
    """Tell the dataset version or the stage-1 release that its run did not bring what it was for."""
    try:
        if run.kind == Run.Kind.PROFILE and run.version is not None:
            run.version.refresh_from_db()
            again = Run.objects.filter(
                kind=run.kind, version=run.version, created_at__gt=run.created_at
            ).exists()
            if run.version.state == VersionState.PROFILING and not again:
                datasets.profile_failed(by=ENGINE, version=run.version, reason=reason)
        elif run.kind == Run.Kind.SYNTHESISE and run.release is not None:
            run.release.refresh_from_db()
            if run.release.state in (ReleaseState.ORDERED, ReleaseState.MAKING):
                datasets.release_failed(by=ENGINE, release=run.release, reason=reason)
    except Conflict:
        return  # it has moved on by itself
