"""Every write on projects, one file per aggregate.

All functions are keyword-only, name their actor as `by`, and write row, history, audit entry and outbox in one
transaction. They raise Denied (not this person), Conflict (not in this state, or somebody was first) and Invalid.
Where several rows decide, the project's row is locked first and the review's second, so that no two can deadlock.
"""

from apps.projects.actions.applications import save_answers, start_project, submit_application
from apps.projects.actions.people import (
    accept_invitation,
    decline_invitation,
    invite,
    leave_project,
    remove_member,
)
from apps.projects.actions.reviews import (
    accept_for_review,
    decide,
    declare_interest,
    give_opinion,
    return_application,
)
from apps.projects.actions.standing import (
    activate,
    close_project,
    expire_projects,
    reinstate_project,
    suspend_project,
    withdraw_project,
)

__all__ = [
    "accept_for_review",
    "accept_invitation",
    "activate",
    "close_project",
    "decide",
    "declare_interest",
    "decline_invitation",
    "expire_projects",
    "give_opinion",
    "invite",
    "leave_project",
    "reinstate_project",
    "remove_member",
    "return_application",
    "save_answers",
    "start_project",
    "submit_application",
    "suspend_project",
    "withdraw_project",
]
