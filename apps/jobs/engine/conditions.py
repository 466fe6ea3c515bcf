"""Whether a run may go on now. Research runs ask the gate; the others have few conditions of their own."""

from __future__ import annotations

from apps.attestation import queries as evidence
from apps.core.clock import now
from apps.datasets.states import DatasetState, ReleaseState, VersionState
from apps.jobs import gate
from apps.jobs.gate import Condition
from apps.jobs.models import Run
from apps.jobs.states import RunState

# Conditions on starting: once a run is under way they are no reason to stop it.
_ONLY_TO_START = frozenset({"too_many_runs", "budget_exceeded", "size_not_allowed", "time_limit_not_allowed"})


def unmet(run: Run) -> list[Condition]:
    """Every condition that this run does not meet now; empty means that it may go on."""
    if run.kind == Run.Kind.RESEARCH:
        found = gate.unmet_for_run(run, now())
        started = run.state != RunState.WAITING
        return [*(c for c in found if not (started and c.code in _ONLY_TO_START)), *_policies(run)]
    return [*_own(run), *_policies(run)]


def _policies(run: Run) -> list[Condition]:
    """Release policies that were changed under a run: it goes on only if the new one accepts its evidence as well."""
    if run.state != RunState.RUNNING:
        return []
    return [
        _condition(
            "policy_not_met",
            f"The release policy of “{revoked.title}” was changed, and the evidence on which its key was released does "
            f"not satisfy the new one ({', '.join(revoked.failing)}).",
        )
        for revoked in evidence.no_longer_met(run_id=run.pk, attempt=run.attempt)
    ]


def _own(run: Run) -> list[Condition]:
    found = []
    if (
        run.kind == Run.Kind.PROFILE
        and run.version is not None
        and run.version.state != VersionState.PROFILING
    ):
        found.append(
            _condition("version_not_profiling", "The dataset version does not wait for its check any more.")
        )
    if run.kind == Run.Kind.SYNTHESISE and run.release is not None:
        if run.release.state not in (ReleaseState.ORDERED, ReleaseState.MAKING):
            found.append(_condition("release_not_ordered", "The stage-1 release is not to be made any more."))
    for entry in run.inputs.select_related("version__dataset", "release"):
        if entry.version.dataset.state == DatasetState.WITHDRAWN:
            found.append(
                _condition(
                    "dataset_withdrawn", f"“{entry.version.dataset.title}” was withdrawn by its custodian."
                )
            )
        if entry.release is not None and entry.release.state != ReleaseState.RELEASED:
            found.append(
                _condition(
                    "release_withdrawn",
                    f"The stand-in data of “{entry.version.dataset.title}” is not released any more.",
                )
            )
    return found


def _condition(code: str, detail: str) -> Condition:
    return Condition(code, detail, "Ask the custodian.", "custodian")
