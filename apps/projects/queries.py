"""Reads on projects and reviews. Each has a fixed number of database queries, whatever it finds."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Count, Exists, OuterRef, Prefetch, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.urls import reverse

from apps.accounts.models import Organisation, User
from apps.core.clock import now
from apps.core.errors import Denied, NotFound
from apps.core.lifecycle import Lifecycle, history
from apps.core.models import StateChange
from apps.core.tasks import Waiting
from apps.projects import application, permissions, policies
from apps.projects.models import ApplicationVersion, EthicsOpinion, EthicsReview, Membership, Project
from apps.projects.states import ETHICS_REVIEW, PROJECT, ProjectState, ReviewState

Opinion = EthicsOpinion.Opinion
PI = Membership.Role.PRINCIPAL_INVESTIGATOR


SHOWN = 20  # of one kind on the home page; the lists show all

# Finding


def _live_people() -> Prefetch:
    people = (
        Membership.objects.filter(left_at__isnull=True)
        .select_related("user__organisation")
        .order_by("created_at")
    )
    return Prefetch("memberships", people, to_attr="people")


def project_for(user: User | Any, pk: uuid.UUID | str) -> Project:
    """The project, if the person may see it. `people` holds its live memberships.

    Raises NotFound; or Denied for one who is invited and has not accepted, so knows of it.
    """
    project = _one_of(permissions.visible(user), pk)
    if project is not None:
        return project
    if _one_of(permissions.invited_to(user), pk) is not None:
        raise Denied(
            "invitation_not_accepted",
            "You are invited to this project and have not accepted yet.",
            "Accept the invitation on the project's page; then you see the project.",
        )
    raise NotFound("project")


def project_or_invitation(user: User | Any, pk: uuid.UUID | str) -> Project:
    """As `project_for`, and also for one who is only invited: show them the invitation alone. Raises NotFound."""
    project = _one_of(permissions.visible(user), pk) or _one_of(permissions.invited_to(user), pk)
    if project is None:
        raise NotFound("project")
    return project


def _one_of(projects: QuerySet[Project], pk: uuid.UUID | str) -> Project | None:
    try:
        return (
            projects.select_related("organisation", "board", "created_by")
            .prefetch_related(_live_people())
            .filter(pk=pk)
            .first()
        )
    except (ValueError, TypeError, ValidationError):
        return None


def projects_of(user: User | Any) -> QuerySet[Project]:
    """The projects that the person is in or invited to, newest first, for a list. `people` holds the memberships."""
    own = Membership.objects.filter(project=OuterRef("pk"), user=user, left_at__isnull=True)
    return (
        Project.objects.filter(Exists(own))
        .select_related("organisation", "board")
        .defer("answers")
        .prefetch_related(_live_people())
    )


def has_projects(user: User | Any) -> bool:
    """Whether `projects_of` has any."""
    return Membership.objects.filter(user=user, left_at__isnull=True).exists()


def lead_of(project: Project) -> User | None:
    """The principal investigator. Needs `people`, as the functions above fetch it."""
    return next((m.user for m in project.people if m.role == PI), None)  # type: ignore[attr-defined]


def member_for(project: Project, pk: uuid.UUID | str) -> Membership:
    """A live membership of the project. Raises NotFound."""
    found = (
        Membership.objects.filter(project=project, pk=pk, left_at__isnull=True)
        .select_related("user", "project")
        .first()
    )
    if found is None:
        raise NotFound("person in this project")
    return found


def boards() -> QuerySet[Organisation]:
    return Organisation.objects.filter(kind=Organisation.Kind.ETHICS_BOARD, is_active=True)


def version_for(project: Project, number: int) -> ApplicationVersion:
    """A frozen version of the project's application. Raises NotFound."""
    found = (
        ApplicationVersion.objects.filter(project=project, number=number)
        .select_related("submitted_by")
        .first()
    )
    if found is None:
        raise NotFound("version of this application")
    return found


def versions_of(project: Project) -> list[ApplicationVersion]:
    """All frozen versions, newest first, each with its review."""
    return list(project.versions.select_related("review__board", "submitted_by").order_by("-number"))


def previous_version(version: ApplicationVersion) -> ApplicationVersion | None:
    return ApplicationVersion.objects.filter(project_id=version.project_id, number=version.number - 1).first()


def changes_since_submission(project: Project) -> list[application.Change]:
    """What differs between the answers as they are now and the last version that was submitted."""
    last = project.versions.last()
    if last is None:
        return []
    now_frozen = application.frozen(project.answers, last.answers.get(application.PEOPLE, []))
    return application.changes(last.answers, now_frozen)


# Showing


def application_sections(
    answers: Mapping[str, Any],
) -> list[tuple[str, list[tuple[application.Question, str]]]]:
    """The answers in words, by section: [(title, [(question, answer)])]. `str(question)` is its label.

    Questions that do not apply are left out; a question without an answer has "".
    """
    out = []
    for section in application.SECTIONS:
        rows = [
            (q, application.shown(q, answers.get(q.code)))
            for q in section.questions
            if application.applies(q, answers)
            and not (q.retired and application.is_empty(answers.get(q.code)))
        ]
        out.append((section.title, rows))
    return out


def names_of(codes: Iterable[str]) -> dict[str, str]:
    """Actor codes to names for people: one query."""
    wanted = set(codes)
    ids = [code.removeprefix("user:") for code in wanted if code.startswith("user:")]
    names = {f"user:{pk}": name for pk, name in User.objects.filter(pk__in=ids).values_list("pk", "name")}
    return {
        code: names.get(code, "The portal" if code.startswith("system:") else "Somebody") for code in wanted
    }


def _events(changes: Iterable[StateChange], lifecycle: Lifecycle, first: str) -> list[dict[str, Any]]:
    return [
        {
            "text": lifecycle.labels[c.to_state] if c.from_state else first,
            "by": c.by,
            "at": c.at,
            "reason": c.reason,
            "state": c.to_state,
        }
        for c in changes
    ]


def timeline(project: Project) -> list[dict[str, Any]]:
    """Everything that happened to the project, oldest first: states, and people who came and went."""
    events = _events(history(project), PROJECT, "Project started")
    for m in Membership.objects.filter(project=project).select_related("user", "invited_by"):
        if m.role != PI:
            events.append(
                {"text": f"{m.user.name} invited", "by": m.invited_by.actor_code, "at": m.created_at}
            )
            if m.accepted_at:
                events.append({"text": f"{m.user.name} joined", "by": m.user.actor_code, "at": m.accepted_at})
            if m.left_at:
                text = (
                    f"{m.user.name} left the project"
                    if m.accepted_at
                    else f"Invitation of {m.user.name} ended"
                )
                events.append({"text": text, "by": "", "at": m.left_at})
    names = names_of(e["by"] for e in events if e["by"])
    for event in events:
        event["by"] = names.get(event["by"], "")
        event.setdefault("reason", "")
        event.setdefault("state", "")
    return sorted(events, key=lambda e: e["at"])


def decision_reason(review: EthicsReview) -> str:
    """The reason given with the review's last step."""
    last = history(review).filter(to_state=review.state).last()
    return last.reason if last else ""


# Panels of other apps on the project's page


@dataclass(frozen=True)
class Panel:
    """A part of the project's page that another app fills. `rows` fit `head`; cells are text or markup."""

    heading: str
    head: list[Any] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)
    empty: str = ""
    links: list[dict[str, str]] = field(default_factory=list)  # {"text", "href"}


_panels: list[Callable[[User, Project], Panel | None]] = []


def add_panel(provider: Callable[[User, Project], Panel | None]) -> None:
    """Called at start-up (AppConfig.ready) by apps that have something to show of a project to its people."""
    if provider not in _panels:
        _panels.append(provider)


def panels(user: User, project: Project) -> list[Panel]:
    """The panels of the project's page; only its accepted members get them."""
    if not permissions.is_member(user, project):
        return []
    return [panel for provider in _panels if (panel := provider(user, project)) is not None]


# Reviews


def days_since(moment: datetime) -> int:
    """Whole days from `moment` to now."""
    return (now() - moment).days


def reviews_for(user: User | Any) -> QuerySet[EthicsReview]:
    """The reviews of the person's boards, open ones first, then the newest. `own` says whether they gave an opinion."""
    given = EthicsOpinion.objects.filter(review=OuterRef("pk"), member=user)
    counted = (
        EthicsOpinion.objects.filter(review=OuterRef("pk"))
        .exclude(opinion=Opinion.INTEREST)
        .order_by()
        .values("review")
        .annotate(n=Count("pk"))
    )
    return (
        permissions.visible_reviews(user)
        .select_related("board", "version__project__organisation")
        .defer("version__answers", "version__project__answers")
        .annotate(
            own=Exists(given),
            opinion_count=Coalesce(Subquery(counted.values("n")), 0),
            closed=~Q(state__in=policies.LIVE_REVIEW),
        )
        .order_by("closed", "-created_at")
    )


def review_for(user: User | Any, pk: uuid.UUID | str) -> EthicsReview:
    """The review, for people of its board. Raises NotFound, or Denied for one who belongs to the project."""
    review = (
        EthicsReview.objects.select_related(
            "board",
            "decided_by",
            "version__submitted_by",
            "version__project__organisation",
            "version__project__board",
        )
        .filter(pk=pk)
        .first()
    )
    if review is None or not permissions.on_board(user, review.board):
        raise NotFound("review")
    permissions.refuse_belonging(
        user, review.version.project, to="see what the board says of this application"
    )
    return review


def letter_for(user: User | Any, pk: uuid.UUID | str) -> EthicsReview:
    """A review that has ended with a letter, for people of the project and its board. Raises NotFound."""
    review = (
        EthicsReview.objects.select_related("board", "decided_by", "version__project__organisation")
        .filter(pk=pk, state__in=policies.LETTERS)
        .first()
    )
    if review is None or not permissions.can_see_letter(user, review):
        raise NotFound("letter")
    return review


@dataclass(frozen=True)
class Standing:
    """Which opinions count towards a decision, and how many it needs."""

    needed: int
    counted: list[EthicsOpinion]

    @property
    def met(self) -> bool:
        return len(self.counted) >= self.needed


def quorum_of(review: EthicsReview) -> Standing:
    """Opinions that count: no interest declared, by people of the board who never had a part in the project."""
    board = permissions.people_of_board(review.board)
    belonging = set(
        Membership.objects.filter(permissions.HAS_PART, project=review.version.project_id).values_list(
            "user_id", flat=True
        )
    )
    opinions = [
        o
        for o in EthicsOpinion.objects.filter(review=review)
        .exclude(opinion=Opinion.INTEREST)
        .select_related("member")
        if o.member_id in board - belonging
    ]
    return Standing(policies.quorum(review), opinions)


@dataclass(frozen=True)
class Opinions:
    """What one member may see: their own opinion, the others' once they gave theirs, and always how many there are."""

    own: EthicsOpinion | None
    others: list[EthicsOpinion]
    hidden: int


def opinions_for(user: User, review: EthicsReview) -> Opinions:
    """The opinions on a review as `user` may see them: blind until their own is given."""
    all_of_them = list(review.opinions.select_related("member"))
    own = next((o for o in all_of_them if o.member_id == user.pk), None)
    others = [o for o in all_of_them if o.member_id != user.pk]
    if permissions.sees_opinions(user, review):
        return Opinions(own, others, 0)
    return Opinions(own, [], len(others))


# Home page


def _waiting_as_member(user: User) -> list[Waiting]:
    found = (
        Membership.objects.filter(user=user, left_at__isnull=True)
        .filter(Q(accepted_at__isnull=True) | Q(role=PI, project__state__in=policies.EDITABLE))
        .exclude(accepted_at__isnull=True, project__state__in=PROJECT.final)
        .select_related("project", "invited_by")
        .defer("project__answers")
        .order_by("-project__created_at")[:SHOWN]
    )
    out = []
    for m in found:
        url = reverse("projects:detail", args=[m.project_id])
        if m.accepted_at is None:
            note = f"{m.invited_by.name} invites you to join"
            out.append(Waiting("Invitations", str(m.project), url, "Invited", "blue", note))
        else:
            state = str(m.project.state)
            note = (
                "The ethics board asks for changes"
                if state == ProjectState.RETURNED
                else "Finish and submit the application"
            )
            out.append(
                Waiting(
                    "Your projects", str(m.project), url, PROJECT.labels[state], PROJECT.colours[state], note
                )
            )
    return out


def _since(review: Any) -> str:
    days = days_since(review.created_at)
    return f"for {days} day{'' if days == 1 else 's'}" if days else "since today"


def _review_note(user: User, review: Any) -> str:
    if review.state == ReviewState.RECEIVED:
        return "Accept it for review, or return it" if permissions.chairs(user, review.board) else ""
    if not review.own:
        return "Give your opinion"
    if (
        permissions.chairs(user, review.board)
        and not review.recused
        and review.opinion_count >= policies.quorum(review)
    ):
        return "Ready for a decision"
    return ""


def _waiting_as_reviewer(user: User) -> list[Waiting]:
    interest = EthicsOpinion.objects.filter(review=OuterRef("pk"), member=user, opinion=Opinion.INTEREST)
    out = []
    chaired = [board for board in permissions.boards_of(user) if permissions.chairs(user, board)]
    # The reviews that `_review_note` has something to say of, so that of many only the shown ones are read.
    wanted = Q(state=ReviewState.RECEIVED, board__in=chaired) | Q(state=ReviewState.UNDER_REVIEW, own=False)
    wanted |= Q(
        state=ReviewState.UNDER_REVIEW, board__in=chaired, recused=False, opinion_count__gte=policies.QUORUM
    )
    for review in reviews_for(user).annotate(recused=Exists(interest)).filter(wanted)[:SHOWN]:
        if note := _review_note(user, review):
            state = str(review.state)
            out.append(
                Waiting(
                    "Ethics reviews",
                    str(review.version.project),
                    reverse("projects:review", args=[review.pk]),
                    ETHICS_REVIEW.labels[state],
                    ETHICS_REVIEW.colours[state],
                    f"{note}. Here {_since(review)}",
                )
            )
    return out


def waiting_for(user: User) -> list[Waiting]:
    """Invitations to answer, applications to finish, reviews to give an opinion or a decision on."""
    if not getattr(user, "is_authenticated", False):
        return []
    found = _waiting_as_member(user)
    return [*found, *_waiting_as_reviewer(user)] if permissions.boards_of(user) else found
