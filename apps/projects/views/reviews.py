"""Pages of the ethics board."""

from __future__ import annotations

import uuid

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from apps.accounts.models import User
from apps.core.errors import Denied
from apps.core.views import act, page_of
from apps.projects import actions, application, permissions, policies, queries
from apps.projects.forms import DecideForm, InterestForm, OpinionForm, ReasonForm
from apps.projects.models import EthicsReview
from apps.projects.states import ETHICS_REVIEW, ReviewState


@require_safe
def list_(request: HttpRequest) -> HttpResponse:
    if not permissions.boards_of(request.user):
        raise Denied(
            "not_on_board",
            "This page is for members of ethics boards.",
            "If you are a member of one, ask the operator of this portal to record it.",
        )
    page = page_of(request, queries.reviews_for(request.user))
    rows = [{"review": r, "days": queries.days_since(r.created_at)} for r in page]
    return render(
        request, "projects/review_list.html", {"page": page, "rows": rows, "lifecycle": ETHICS_REVIEW}
    )


def _may_chair(user: User, review: EthicsReview) -> bool:
    return permissions.chairs(user, review.board) and not permissions.has_interest(user, review)


@require_safe
def detail(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    review = queries.review_for(request.user, pk)
    version = review.version
    before = queries.previous_version(version)
    opinions = queries.opinions_for(permissions.person(request.user), review)
    chair = _may_chair(permissions.person(request.user), review)
    state = review.state
    standing = queries.quorum_of(review)
    context = {
        "review": review,
        "project": version.project,
        "version": version,
        "sections": queries.application_sections(version.answers),
        "people": version.answers.get(application.PEOPLE, []),
        "before": before,
        "changes": application.changes(before.answers, version.answers) if before else [],
        "opinions": opinions,
        "standing": standing,
        "chair": chair,
        "can_accept": chair and state == ReviewState.RECEIVED,
        "can_return": chair and state in policies.LIVE_REVIEW,
        "can_give": opinions.own is None and state == ReviewState.UNDER_REVIEW,
        "can_declare": opinions.own is None and state in policies.LIVE_REVIEW,
        "can_decide": chair
        and state == ReviewState.UNDER_REVIEW
        and opinions.own is not None
        and standing.met,
        "has_letter": state in policies.LETTERS,
        "days": queries.days_since(review.created_at),
        "lifecycle": ETHICS_REVIEW,
    }
    return render(request, "projects/review_detail.html", context)


@require_POST
def accept(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    actions.accept_for_review(
        by=permissions.person(request.user), review=queries.review_for(request.user, pk)
    )
    messages.success(request, "The application is under review. Members can now give their opinions.")
    return redirect("projects:review", pk)


def _form_page(request: HttpRequest, review: EthicsReview, **context: object) -> HttpResponse:
    back = reverse("projects:review", args=[review.pk])
    return render(
        request, "form_page.html", {"caption": str(review.version.project), "cancel_url": back, **context}
    )


@require_http_methods(["GET", "POST"])
def return_(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    review = queries.review_for(request.user, pk)
    permissions.require_chair(request.user, review, to="return this application")
    form = ReasonForm(request.POST or None, label="What must change?", hint="The applicants read this.")
    if request.method == "POST" and form.is_valid():
        done = "The application is returned to its applicants."
        taken = act(
            request,
            form,
            actions.return_application,
            done=done,
            review=review,
            reason=form.cleaned_data["reason"],
        )
        if taken is not None:
            return redirect("projects:review", pk)
    return _form_page(
        request,
        review,
        title="Return this application",
        form=form,
        button_text="Return application",
        intro="The applicants can change it and submit it to this board again, as a new version.",
    )


@require_http_methods(["GET", "POST"])
def opinion(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    review = queries.review_for(request.user, pk)
    form = OpinionForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        done = "Your opinion is recorded."
        taken = act(request, form, actions.give_opinion, done=done, review=review, **form.cleaned_data)
        if taken is not None:
            return redirect("projects:review", pk)
    return _form_page(
        request,
        review,
        title="Give your opinion",
        form=form,
        button_text="Give opinion",
        warning="You give it once, and cannot change it afterwards.",
    )


@require_http_methods(["GET", "POST"])
def interest(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    review = queries.review_for(request.user, pk)
    form = InterestForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        done = "Your interest is recorded. You take no part in this review."
        taken = act(request, form, actions.declare_interest, done=done, review=review, **form.cleaned_data)
        if taken is not None:
            return redirect("projects:review", pk)
    return _form_page(
        request,
        review,
        title="Declare an interest",
        form=form,
        button_text="Declare interest",
        warning="You take no part in this review after that, and cannot take it back.",
    )


@require_http_methods(["GET", "POST"])
def decide(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    review = queries.review_for(request.user, pk)
    permissions.require_chair(request.user, review, to="decide on this application")
    form = DecideForm(request.POST or None, initial={"valid_until": review.version.project.ends_on})
    if request.method == "POST" and form.is_valid():
        done = "The board's opinion is recorded, and its letter is on the project's page."
        taken = act(request, form, actions.decide, done=done, review=review, **form.cleaned_data)
        if taken is not None:
            return redirect("projects:review", pk)
    context = {
        "title": "Decide on this application",
        "caption": str(review.version.project),
        "form": form,
        "review": review,
        "opinions": queries.opinions_for(permissions.person(request.user), review),
        "back_url": reverse("projects:review", args=[pk]),
    }
    return render(request, "projects/review_decide.html", context)


@require_safe
def letter(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    review = queries.letter_for(request.user, pk)
    context = {
        "review": review,
        "project": review.version.project,
        "version": review.version,
        "reason": queries.decision_reason(review),
        "lifecycle": ETHICS_REVIEW,
        "back_url": reverse("projects:detail", args=[review.version.project_id]),
    }
    return render(request, "projects/decision_letter.html", context)
