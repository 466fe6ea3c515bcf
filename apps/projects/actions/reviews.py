"""An ethics board's work on one application version: opinions, return, decision.

A person who ever belonged to the project takes no part, and neither does a member who declared an interest.
"""

from __future__ import annotations

import datetime as dt

from django.db import transaction
from django.utils import timezone

from apps.accounts.models import User
from apps.core.clock import now
from apps.core.errors import Conflict, Denied, Invalid
from apps.core.lifecycle import recorder, transition
from apps.projects import permissions, policies, queries
from apps.projects.actions.rows import lock_review, need_text
from apps.projects.models import EthicsOpinion, EthicsReview, Project
from apps.projects.states import ETHICS_REVIEW, ProjectState, ReviewState

Opinion = EthicsOpinion.Opinion


def accept_for_review(*, by: User, review: EthicsReview) -> EthicsReview:
    """The application is complete enough to be read: members may give opinions from now on."""
    permissions.require_chair(by, review, to="accept this application for review")
    with transaction.atomic():
        project, locked = lock_review(review)
        permissions.require_chair(by, locked, to="accept this application for review")
        transition(locked, ReviewState.UNDER_REVIEW, by=by, data={"project": str(project.pk)})
        transition(project, ProjectState.IN_ETHICS_REVIEW, by=by, data={"review": str(locked.pk)})
    return locked


def return_application(*, by: User, review: EthicsReview, reason: str) -> EthicsReview:
    """Send the application back for changes; the applicant may submit it again as the next version."""
    permissions.require_chair(by, review, to="return this application")
    text = need_text("reason", reason, "Say what must change")
    with transaction.atomic():
        project, locked = lock_review(review)
        permissions.require_chair(by, locked, to="return this application")
        transition(
            locked,
            ReviewState.RETURNED,
            by=by,
            reason=text,
            set_fields={"decided_by": by, "decided_at": now()},
            data={"project": str(project.pk)},
        )
        transition(project, ProjectState.RETURNED, by=by, reason=text, data={"review": str(locked.pk)})
    return locked


def give_opinion(*, by: User, review: EthicsReview, opinion: str, comment: str) -> EthicsOpinion:
    """One member's opinion, given once. The same opinion sent twice is one; a different one is a Conflict."""
    if opinion not in {Opinion.SUPPORT, Opinion.SUPPORT_WITH_CONDITIONS, Opinion.OBJECT}:
        sentence = "Choose an opinion from the list"
        raise Invalid("opinion_invalid", f"{sentence}.", "Choose one.", fields={"opinion": [sentence]})
    text = need_text("comment", comment, "Give your reasons")
    return _put(
        by=by, review=review, opinion=Opinion(opinion), comment=text, allowed={ReviewState.UNDER_REVIEW}
    )


def declare_interest(*, by: User, review: EthicsReview, comment: str) -> EthicsOpinion:
    """Say that one has an interest in the application: one takes no part, and sees no opinions."""
    text = need_text("comment", comment, "Say what your interest is")
    return _put(
        by=by, review=review, opinion=Opinion.INTEREST, comment=text, allowed=set(policies.LIVE_REVIEW)
    )


def _put(
    *, by: User, review: EthicsReview, opinion: Opinion, comment: str, allowed: set[ReviewState]
) -> EthicsOpinion:
    permissions.require_reviewer(by, review, to="review this application")
    with transaction.atomic():
        project, locked = lock_review(review)
        permissions.require_reviewer(by, locked, to="review this application")
        own = EthicsOpinion.objects.filter(review=locked, member=by).first()
        if own is not None:
            if (own.opinion, own.comment) == (opinion, comment):
                return own
            raise Conflict(
                "opinion_given",
                "You have given your opinion on this application already, and it cannot be changed.",
                "Tell the chair if you see it differently now.",
            )
        if locked.state not in allowed:
            raise Conflict(
                "not_under_review",
                f"This review is “{ETHICS_REVIEW.labels[str(locked.state)]}”, so no opinion can be given.",
                "Wait until the chair has accepted it for review."
                if locked.state == ReviewState.RECEIVED
                else "It has ended: nothing more is needed.",
            )
        made = EthicsOpinion.objects.create(review=locked, member=by, opinion=opinion, comment=comment)
        recorder()(
            event="ethics_review.interest_declared"
            if opinion == Opinion.INTEREST
            else "ethics_review.opinion_given",
            by=by,
            object_type="ethics_review",
            object_id=locked.pk,
            # Which opinion is not said here: the log may be read before the other members have given theirs.
            data={"project": str(project.pk)},
        )
    return made


def _check_decision(
    outcome: str, conditions: str, valid_until: dt.date | None, today: dt.date
) -> ReviewState:
    if outcome not in policies.OUTCOMES:
        sentence = "Choose an outcome from the list"
        raise Invalid("outcome_invalid", f"{sentence}.", "Choose one.", fields={"outcome": [sentence]})
    state = ReviewState(outcome)
    errors: dict[str, list[str]] = {}
    if state == ReviewState.FAVOURABLE_WITH_CONDITIONS and not conditions:
        errors["conditions"] = ["Say what the conditions are"]
    if state != ReviewState.FAVOURABLE_WITH_CONDITIONS and conditions:
        errors["conditions"] = [
            "Conditions belong to the outcome “Favourable with conditions”. Choose that, or remove them"
        ]
    if state == ReviewState.UNFAVOURABLE:
        if valid_until is not None:
            errors["valid_until"] = ["An unfavourable opinion has no end date. Leave this empty"]
    elif valid_until is None:
        errors["valid_until"] = ["Enter the date until which the opinion is valid"]
    elif not today < valid_until <= policies.years_after(today, policies.LONGEST_OPINION_YEARS):
        errors["valid_until"] = [
            f"The date must be in the future, and at most {policies.LONGEST_OPINION_YEARS} years from today"
        ]
    if errors:
        raise Invalid(
            "decision_invalid",
            "The decision cannot be recorded as it is.",
            "Correct what is named.",
            fields=errors,
        )
    return state


def _require_quorum(by: User, review: EthicsReview) -> None:
    standing = queries.quorum_of(review)
    if not any(o.member_id == by.pk for o in standing.counted):
        raise Denied(
            "own_opinion_missing",
            "You cannot decide before you have given your own opinion.",
            "Read the application, give your opinion, then decide.",
        )
    if not standing.met:
        raise Denied(
            "no_quorum",
            f"A decision needs {standing.needed} opinions, the chair's among them, and so far "
            f"{len(standing.counted)} counts. Opinions of members with an interest, "
            "or with a part in the project, do not count.",
            "Ask the members of the board for their opinions.",
        )


def decide(
    *,
    by: User,
    review: EthicsReview,
    outcome: str,
    reason: str,
    conditions: str = "",
    valid_until: dt.date | None = None,
) -> EthicsReview:
    """Give the board's opinion. Of two chairs who decide at once, one is recorded and the other gets a Conflict."""
    permissions.require_chair(by, review, to="decide on this application")
    text = need_text("reason", reason, "Give the reason for the decision")
    terms = need_text("conditions", conditions, "Say what the conditions are") if conditions.strip() else ""
    state = _check_decision(outcome, terms, valid_until, timezone.localdate(now()))
    with transaction.atomic():
        project, locked = lock_review(review)
        permissions.require_chair(by, locked, to="decide on this application")
        if locked.state == ReviewState.UNDER_REVIEW:
            _require_quorum(by, locked)
        transition(
            locked,
            state,
            by=by,
            reason=text,
            set_fields={
                "conditions": terms,
                "valid_until": valid_until,
                "decided_by": by,
                "decided_at": now(),
            },
            data={
                "project": str(project.pk),
                "valid_until": valid_until.isoformat() if valid_until else None,
            },
        )
        _carry_over(project, locked, by=by, reason=text)
    return locked


def _carry_over(project: Project, review: EthicsReview, *, by: User, reason: str) -> None:
    favourable = review.state != ReviewState.UNFAVOURABLE
    transition(
        project,
        ProjectState.APPROVED if favourable else ProjectState.DECLINED,
        by=by,
        reason=reason,
        set_fields={"ethics_valid_until": review.valid_until, "conditions": review.conditions},
        data={"review": str(review.pk)},
    )
