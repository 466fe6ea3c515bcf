"""Who may do what with a project and its ethics review. A missing object is never permission."""

from __future__ import annotations

import uuid
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet

from apps.accounts.models import Organisation, RoleHolding, User
from apps.accounts.permissions import has_permission, organisations_of
from apps.accounts.roles import Permission, Role
from apps.core.clock import now
from apps.core.errors import Denied, NotFound
from apps.projects.models import EthicsOpinion, EthicsReview, Membership, Project

PI = Membership.Role.PRINCIPAL_INVESTIGATOR
# Who has a part in a project: whoever ever joined it, and whoever may still join. An invitation that was declined or taken
# back leaves none, so that a lead cannot remove a strict custodian or checker by inviting them.
HAS_PART = Q(accepted_at__isnull=False) | Q(left_at__isnull=True)


def _signed_in(user: User | Any) -> bool:
    return bool(getattr(user, "is_authenticated", False)) and user.is_active


def person(user: User | Any) -> User:
    """The signed-in person, for an action's `by`. Raises Denied for a stranger."""
    if not isinstance(user, User) or not _signed_in(user):
        raise Denied("not_signed_in", "You are not signed in.", "Sign in, then try again.")
    return user


# People of a project


def membership(user: User | Any, project: Project | None) -> Membership | None:
    """The person's membership that counts now: accepted and not left."""
    if project is None or not _signed_in(user):
        return None
    return Membership.objects.filter(
        project=project, user=user, accepted_at__isnull=False, left_at__isnull=True
    ).first()


def invitation(user: User | Any, project: Project | None) -> Membership | None:
    """An invitation that the person has not answered yet."""
    if project is None or not _signed_in(user):
        return None
    return Membership.objects.filter(
        project=project, user=user, accepted_at__isnull=True, left_at__isnull=True
    ).first()


def is_member(user: User | Any, project: Project | None) -> bool:
    return membership(user, project) is not None


def is_lead(user: User | Any, project: Project | None) -> bool:
    found = membership(user, project)
    return found is not None and found.role == PI


def belongs(user: User | Any, project: Project | None) -> bool:
    """Whether the person has a part in the project, for the separation of duties: leaving does not undo it, declining does."""
    if project is None or not getattr(user, "pk", None):
        return False
    return Membership.objects.filter(HAS_PART, project=project, user=user).exists()


def parts_of(user: User | Any) -> QuerySet[Membership, Any]:
    """The ids of the projects in which the person has a part, for a query that leaves these out."""
    return Membership.objects.filter(HAS_PART, user=user).values("project_id")


def refuse_belonging(user: User | Any, project: Project, *, to: str) -> None:
    """Raise Denied for a person who has, or had, a part in the project."""
    if invitation(user, project) is not None:
        raise Denied(
            "belongs_to_project",
            f"You cannot {to} while you have an open invitation to this project.",
            "Decline the invitation if you do not want to join; or leave this to somebody who has no part in the project.",
        )
    if belongs(user, project):
        raise Denied(
            "belongs_to_project",
            f"You cannot {to}, because you belong to this project, or once did.",
            "Leave it to somebody who has no part in the project.",
        )


def require_member(user: User | Any, project: Project, *, to: str) -> Membership:
    found = membership(user, project)
    if found is None:
        raise Denied(
            "not_a_member",
            f"Only people of this project can {to}.",
            "If you were invited, accept the invitation first; else ask the project's principal investigator.",
        )
    return found


def require_lead(user: User | Any, project: Project, *, to: str) -> Membership:
    found = membership(user, project)
    if found is None or found.role != PI:
        raise Denied(
            "not_the_lead",
            f"Only the principal investigator of this project can {to}.",
            "Ask the principal investigator, who is named on the project's page.",
        )
    return found


def require_apply(user: User | Any, organisation: Organisation) -> None:
    """A project is started in an organisation in which the person is a researcher."""
    if not has_permission(user, Permission.APPLY, organisation):
        raise Denied(
            "role_missing",
            f"You need the role “Researcher” in {organisation.name} to start a project there.",
            "Choose an organisation in which you hold it, or ask the operator of this portal.",
        )


def can_apply(user: User | Any) -> bool:
    return has_permission(user, Permission.APPLY)


# The ethics board


def boards_of(user: User | Any) -> list[Organisation]:
    """The boards of which the person is a member or chair, each once."""
    found = {
        o.pk: o for role in (Role.ETHICS_MEMBER, Role.ETHICS_CHAIR) for o in organisations_of(user, role)
    }
    return list(found.values())


def on_board(user: User | Any, board: Organisation | None) -> bool:
    return board is not None and has_permission(user, Permission.REVIEW_ETHICS, board)


def people_of_board(board: Organisation) -> set[uuid.UUID]:
    """Ids of the active people who are a member or chair of the board now."""
    moment = now()
    return set(
        RoleHolding.objects.filter(
            organisation=board,
            role__in=(Role.ETHICS_MEMBER, Role.ETHICS_CHAIR),
            revoked_at__isnull=True,
            user__is_active=True,
        )
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=moment))
        .values_list("user_id", flat=True)
    )


def chairs(user: User | Any, board: Organisation | None) -> bool:
    return board is not None and has_permission(user, Permission.DECIDE_ETHICS, board)


def has_interest(user: User | Any, review: EthicsReview) -> bool:
    """Whether the member declared an interest in this review and so takes no part in it."""
    return EthicsOpinion.objects.filter(
        review=review, member=user, opinion=EthicsOpinion.Opinion.INTEREST
    ).exists()


def require_reviewer(user: User | Any, review: EthicsReview, *, to: str) -> None:
    """A member of the board that has the review, without part in the project."""
    if not on_board(user, review.board):
        raise Denied(
            "not_on_board",
            f"Only members of {review.board.name} can {to}.",
            "If you are a member of this board, ask the operator of this portal to record it.",
        )
    refuse_belonging(user, review.version.project, to=to)


def require_chair(user: User | Any, review: EthicsReview, *, to: str) -> None:
    """A chair of the board, without part in the project and without a declared interest."""
    if not chairs(user, review.board):
        raise Denied(
            "not_the_chair",
            f"Only a chair of {review.board.name} can {to}.",
            "Ask the chair of the board.",
        )
    refuse_belonging(user, review.version.project, to=to)
    if has_interest(user, review):
        raise Denied(
            "declared_interest",
            f"You cannot {to}, because you declared an interest in this application.",
            "Leave it to another chair of the board.",
        )


def require_board_of(user: User | Any, project: Project, *, to: str) -> None:
    """A chair of the board that gave its opinion on the project, without part in it."""
    if project.board is None or not chairs(user, project.board):
        raise Denied(
            "not_the_chair",
            f"Only a chair of the project's ethics board can {to}.",
            "Tell the board what you know; its chair can act.",
        )
    refuse_belonging(user, project, to=to)


# What can be seen


def can_view(user: User | Any, project: Project | None) -> bool:
    """The people of the project, and its ethics board unless they have, or had, a part in it.

    Whoever is only invited sees the invitation (`invited_to`), and the project once they accept.
    """
    return is_member(user, project) or (
        project is not None and on_board(user, project.board) and not belongs(user, project)
    )


def visible(user: User | Any) -> QuerySet[Project]:
    """The projects that `can_view` admits, as one query."""
    if not _signed_in(user):
        return Project.objects.none()
    own = Membership.objects.filter(project=OuterRef("pk"), user=user)
    here = own.filter(accepted_at__isnull=False, left_at__isnull=True)
    part = own.filter(HAS_PART)
    return Project.objects.filter(Exists(here) | (Q(board__in=boards_of(user)) & ~Exists(part)))


def invited_to(user: User | Any) -> QuerySet[Project]:
    """The projects to which the person has an invitation that they have not answered."""
    if not _signed_in(user):
        return Project.objects.none()
    open_ = Membership.objects.filter(
        project=OuterRef("pk"), user=user, accepted_at__isnull=True, left_at__isnull=True
    )
    return Project.objects.filter(Exists(open_))


def visible_reviews(user: User | Any) -> QuerySet[EthicsReview]:
    """Reviews of the person's boards, without those of projects in which they have, or had, a part."""
    boards = boards_of(user)
    if not boards:
        return EthicsReview.objects.none()
    own = Membership.objects.filter(HAS_PART, project=OuterRef("version__project"), user=user)
    return EthicsReview.objects.filter(board__in=boards).filter(~Exists(own))


def can_see_letter(user: User | Any, review: EthicsReview) -> bool:
    """The board's letter is for the people of the project and for the board."""
    return can_view(user, review.version.project)


def sees_opinions(user: User | Any, review: EthicsReview) -> bool:
    """Blind: only after giving one's own opinion; with an interest, or a part in the project, never."""
    if not on_board(user, review.board) or belongs(user, review.version.project):
        return False
    own = EthicsOpinion.objects.filter(review=review, member=user).first()
    if own is not None and own.opinion == EthicsOpinion.Opinion.INTEREST:
        return False
    return own is not None or review.decided_at is not None


def require_view(user: User | Any, project: Project) -> None:
    if not can_view(user, project):
        raise NotFound("project")


__all__ = [
    "belongs",
    "boards_of",
    "can_apply",
    "can_see_letter",
    "can_view",
    "chairs",
    "has_interest",
    "invitation",
    "invited_to",
    "is_lead",
    "is_member",
    "membership",
    "on_board",
    "parts_of",
    "people_of_board",
    "person",
    "refuse_belonging",
    "require_apply",
    "require_board_of",
    "require_chair",
    "require_lead",
    "require_member",
    "require_reviewer",
    "require_view",
    "sees_opinions",
    "visible",
    "visible_reviews",
]
