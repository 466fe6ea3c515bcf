"""Output checks: two different checkers, in no relation to the project, or nothing leaves."""

from __future__ import annotations

from django.db import IntegrityError, transaction

from apps.accounts.models import User
from apps.core.errors import Conflict, Invalid
from apps.core.lifecycle import transition
from apps.core.outbox import enqueue
from apps.jobs import permissions
from apps.jobs.models import OutputCheck, OutputRelease
from apps.jobs.states import OutputState


def check_outputs(*, by: User, output_release: OutputRelease, decision: str, comment: str = "") -> None:
    """Record one checker's decision and move the release on.

    Raises Denied (role, relation to project or data), Invalid (rejection without comment), Conflict (already decided).
    """
    permissions.require_check(by, output_release)
    approve = decision == OutputCheck.Decision.APPROVE
    if decision not in OutputCheck.Decision.values:
        raise Invalid(
            "decision_missing",
            "Choose a decision.",
            fields={"decision": ["Choose whether to approve or reject"]},
        )
    if not approve and not comment.strip():
        raise Invalid(
            "comment_missing",
            "Say what must change.",
            fields={"comment": ["Say what must change before it can be released"]},
        )
    try:
        with transaction.atomic():
            release = (
                OutputRelease.objects.select_for_update(of=("self",))
                .select_related("run__project")
                .get(pk=output_release.pk)
            )
            if release.state not in permissions.CHECKABLE:
                raise Conflict(
                    "not_in_review",
                    "These outputs are not waiting for a checker any more.",
                    "Reload the page to see where they stand.",
                )
            OutputCheck.objects.create(
                output_release=release, checker=by, decision=decision, comment=comment.strip()
            )
            if not approve:
                transition(release, OutputState.REJECTED, by=by, reason=comment)
            elif release.state == OutputState.IN_REVIEW:
                transition(
                    release,
                    OutputState.APPROVED_ONCE,
                    by=by,
                    reason=comment,
                    set_fields={"first_checker": by},
                )
            else:
                transition(
                    release, OutputState.APPROVED, by=by, reason=comment, set_fields={"second_checker": by}
                )
                enqueue("build_package", release.pk)
    except IntegrityError:
        raise Conflict(
            "already_checked",
            "You have already decided on these outputs. A second, different checker has to.",
            "Nothing more to do for you here.",
        ) from None
    output_release.refresh_from_db()


def revoke_release(*, by: User, output_release: OutputRelease, reason: str) -> None:
    """Take a released package back: it can no longer be downloaded. What was downloaded is on record."""
    permissions.require_revoke_release(by, output_release)
    transition(output_release, OutputState.REVOKED, by=by, reason=reason)
