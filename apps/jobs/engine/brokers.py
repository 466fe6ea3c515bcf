"""A custodian who stops their own key broker ends the runs that got a key from it; the portal finds out by asking.

A broker never calls the portal, so this is a question, asked again and again: one for each broker, not for each run.
"""

from __future__ import annotations

from apps.attestation import brokers
from apps.attestation.queries import keys_from_brokers
from apps.jobs.engine.steps import advance, close
from apps.jobs.models import Run
from apps.jobs.states import RunState


def end_runs_of_stopped_brokers() -> int:
    """Ask each broker that gave a key to a run under way whether it stands; end those whose broker says it was stopped.

    No answer is no stop: it is asked again at the next round. Returns how many runs were ended.
    """
    under_way = dict(Run.objects.filter(state=RunState.RUNNING).values_list("pk", "attempt"))
    ended = 0
    for broker, runs in sorted(keys_from_brokers(under_way).items()):
        if not brokers.stopped(broker):
            continue
        reason = f"Its custodian stopped the key broker {broker}, which had given this run a key."
        for run in runs:
            if close(run, attempt=under_way[run], reason=reason):
                ended += 1
                advance(run)
    return ended
