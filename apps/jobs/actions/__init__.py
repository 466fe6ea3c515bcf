"""Every write about programs, runs and output checks that a person makes. What the portal does by itself is in engine/."""

from apps.jobs.actions.allowances import set_allowance
from apps.jobs.actions.approvals import approve_automatically, decide_program, revoke_program_approval
from apps.jobs.actions.outputs import check_outputs, revoke_release
from apps.jobs.actions.programs import submit_program
from apps.jobs.actions.runs import cancel_run, submit_run

__all__ = [
    "approve_automatically",
    "cancel_run",
    "check_outputs",
    "decide_program",
    "revoke_program_approval",
    "revoke_release",
    "set_allowance",
    "submit_program",
    "submit_run",
]
