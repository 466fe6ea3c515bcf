"""Where a project stands after its review: active, suspended, ended. Each change has its live runs checked again."""

from __future__ import annotations

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from apps.accounts.models import User
from apps.core.clock import now
from apps.core.errors import Conflict
from apps.core.lifecycle import history, transition
from apps.core.outbox import enqueue
from apps.projects import permissions, policies
from apps.projects.actions.rows import lock_project, need_text
from apps.projects.models import EthicsReview, Project
from apps.projects.states import PROJECT, ProjectState, ReviewState


def withdraw_project(*, by: User, project: Project, reason: str) -> Project:
    """Take back an application that has not been decided; its review ends with it."""
    permissions.require_lead(by, project, to="withdraw the application")
    text = need_text("reason", reason, "Give a reason")
    with transaction.atomic():
        locked = lock_project(project)
        transition(locked, ProjectState.WITHDRAWN, by=by, reason=text)
        live = EthicsReview.objects.select_for_update(of=("self",)).filter(
            version__project=locked, state__in=policies.LIVE_REVIEW
        )
        for review in live:
            transition(review, ReviewState.WITHDRAWN, by=by, reason=text, data={"project": str(locked.pk)})
    return locked


def close_project(*, by: User, project: Project, reason: str) -> Project:
    """End an approved, active or suspended project for good."""
    permissions.require_lead(by, project, to="close the project")
    text = need_text("reason", reason, "Give a reason")
    with transaction.atomic():
        locked = lock_project(project)
        transition(locked, ProjectState.CLOSED, by=by, reason=text)
        enqueue("recheck_runs", locked.pk)
    return locked


def activate(*, by: object, project: Project) -> Project:
    """The first agreement is in force: approved becomes active. Safe to call again; Conflict from any other state."""
    with transaction.atomic():
        locked = lock_project(project)
        if locked.state == ProjectState.ACTIVE:
            return locked
        if locked.state != ProjectState.APPROVED:  # lifting a suspension is the board's, never a signature's
            raise Conflict(
                "not_approved",
                f"This project is “{PROJECT.labels[str(locked.state)]}”, so it cannot become active.",
                "Ask its ethics board, or look at the project's history.",
            )
        transition(locked, ProjectState.ACTIVE, by=by)
    return locked


def suspend_project(*, by: User, project: Project, reason: str) -> Project:
    """Stop an approved or active project at once; runs that are under way end."""
    permissions.require_board_of(by, project, to="suspend the project")
    text = need_text("reason", reason, "Give a reason")
    with transaction.atomic():
        locked = lock_project(project)
        permissions.require_board_of(by, locked, to="suspend the project")
        transition(locked, ProjectState.SUSPENDED, by=by, reason=text)
        enqueue("recheck_runs", locked.pk)
    return locked


def reinstate_project(*, by: User, project: Project, reason: str) -> Project:
    """Lift a suspension: the project is again what it was before."""
    permissions.require_board_of(by, project, to="reinstate the project")
    text = need_text("reason", reason, "Give a reason")
    with transaction.atomic():
        locked = lock_project(project)
        permissions.require_board_of(by, locked, to="reinstate the project")
        last = history(locked).filter(to_state=ProjectState.SUSPENDED).last()
        if locked.state != ProjectState.SUSPENDED or last is None:
            raise Conflict(
                "not_suspended",
                "This project is not suspended, so it cannot be reinstated.",
                "Reload the page.",
            )
        transition(locked, ProjectState(last.from_state), by=by, reason=text)
        enqueue("recheck_runs", locked.pk)
    return locked


def expire_projects(*, by: object) -> int:
    """End approved and active projects whose end, or whose ethics opinion's end, has passed. Returns how many."""
    today = timezone.localdate(now())
    due = Project.objects.filter(state__in=policies.RUNNING).filter(
        Q(ends_on__lt=today) | Q(ethics_valid_until__lt=today)
    )
    count = 0
    for found in due:
        with transaction.atomic():
            locked = lock_project(found)
            if locked.state not in policies.RUNNING:
                continue
            ended = locked.ends_on is not None and locked.ends_on < today
            reason = (
                "The project's end date has passed." if ended else "The ethics opinion's end date has passed."
            )
            transition(locked, ProjectState.EXPIRED, by=by, reason=reason)
            enqueue("recheck_runs", locked.pk)
            count += 1
    return count
