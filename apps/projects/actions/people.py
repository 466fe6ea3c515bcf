"""People come into a project and leave it. The principal investigator stays as long as the project does."""

from __future__ import annotations

from django.db import transaction

from apps.accounts.models import User
from apps.core.clock import now
from apps.core.errors import Conflict, Denied, Invalid
from apps.core.outbox import enqueue
from apps.projects import permissions, policies
from apps.projects.actions.rows import lock_project, need_text, note
from apps.projects.models import Membership, Project


def _refuse_email(sentence: str, remedy: str) -> Invalid:
    return Invalid("cannot_invite", sentence, remedy, fields={"email": [f"{sentence} {remedy}"]})


def invite(*, by: User, project: Project, email: str) -> Membership:
    """Invite a person who has an account, by the address of that account. It counts once they accept.

    Inviting somebody again who has not answered changes nothing and returns that invitation.
    """
    permissions.require_lead(by, project, to="invite people")
    address = need_text("email", email, "Enter an email address", limit=254)
    with transaction.atomic():
        locked = lock_project(project)
        if not policies.open_to_people(locked):
            raise Conflict(
                "project_ended", "This project has ended, so nobody can join it.", "Start a new project."
            )
        person = User.objects.filter(email__iexact=address).first()
        if person is None or not person.is_active:
            raise _refuse_email(
                f"Nobody with the address {address} has an account on this portal.",
                "Check the address, or ask the operator to create an account for them, then invite them.",
            )
        there = Membership.objects.filter(project=locked, user=person, left_at__isnull=True).first()
        if there is not None and there.accepted_at is None:
            return there
        if there is not None:
            raise _refuse_email(f"{person.name} is in this project already.", "Nothing more is needed.")
        if permissions.on_board(person, locked.board):
            # An open invitation keeps its holder from reviewing: an applicant must not be able to remove a reviewer so.
            raise _refuse_email(
                f"{person.name} sits on the ethics board of this project, so they cannot join it.",
                "Invite somebody else.",
            )
        made = Membership.objects.create(
            project=locked, user=person, role=Membership.Role.RESEARCHER, invited_by=by
        )
        note("project.member_invited", by=by, project=locked, data={"member": str(person.pk)})
    return made


def _own_invitation(by: User, project: Project) -> Membership:
    found = permissions.invitation(by, project)
    if found is None:
        if permissions.is_member(by, project):
            raise Conflict(
                "already_answered", "You have accepted this invitation already.", "Open the project's page."
            )
        raise Denied(
            "not_invited",
            "There is no open invitation to this project for you.",
            "Ask the principal investigator to invite you again.",
        )
    return found


def accept_invitation(*, by: User, project: Project) -> Membership:
    """Join the project that one was invited to."""
    with transaction.atomic():
        locked = lock_project(project)
        found = _own_invitation(by, locked)
        if not policies.open_to_people(locked):
            raise Conflict(
                "project_ended", "This project has ended, so nobody can join it.", "Decline the invitation."
            )
        found.accepted_at = now()
        found.save(update_fields=["accepted_at"])
        note(
            "project.member_joined",
            by=by,
            project=locked,
            data={"member": str(by.pk), "role": str(found.role)},
        )
        enqueue("recheck_runs", locked.pk)
    return found


def decline_invitation(*, by: User, project: Project) -> Membership:
    """Say no to an invitation. Whoever does has no part in the project, and may decide on it as before."""
    with transaction.atomic():
        locked = lock_project(project)
        found = _own_invitation(by, locked)
        found.left_at = now()
        found.save(update_fields=["left_at"])
        note("project.invitation_declined", by=by, project=locked, data={"member": str(by.pk)})
    return found


def _end(membership: Membership, *, by: User, project: Project, event: str, reason: str) -> None:
    if membership.role == Membership.Role.PRINCIPAL_INVESTIGATOR:
        raise Conflict(
            "lead_stays",
            "A project cannot be without its principal investigator.",
            "Withdraw or close the project instead.",
        )
    membership.left_at = now()
    membership.save(update_fields=["left_at"])
    note(event, by=by, project=project, data={"member": str(membership.user_id), "reason": reason})
    enqueue("recheck_runs", project.pk)


def remove_member(*, by: User, membership: Membership, reason: str) -> Membership:
    """Take a person out of the project, or take an invitation back."""
    permissions.require_lead(by, membership.project, to="remove people")
    text = need_text("reason", reason, "Give a reason", limit=1000)
    with transaction.atomic():
        locked = lock_project(membership.project)
        found = Membership.objects.filter(pk=membership.pk, left_at__isnull=True).first()
        if found is None:
            raise Conflict(
                "already_left", "This person has left the project already.", "Reload the project's page."
            )
        _end(found, by=by, project=locked, event="project.member_removed", reason=text)
    return found


def leave_project(*, by: User, project: Project) -> Membership:
    """Leave a project that one belongs to."""
    with transaction.atomic():
        locked = lock_project(project)
        found = permissions.require_member(by, locked, to="leave it")
        _end(found, by=by, project=locked, event="project.member_left", reason="")
    return found
