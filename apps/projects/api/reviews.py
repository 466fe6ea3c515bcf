"""/reviews: the ethics board's side."""

from __future__ import annotations

import uuid

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.authentication import HasScope
from apps.core.api import Pagination
from apps.projects import actions, application, permissions, queries
from apps.projects.api import serializers as s
from apps.projects.api.projects import PAGES, body
from apps.projects.models import EthicsOpinion, EthicsReview


class View(APIView):
    """What the views below share."""

    permission_classes = [HasScope]
    scopes = {"GET": "read", "POST": "review"}

    def review(self, pk: uuid.UUID) -> EthicsReview:
        return queries.review_for(self.request.user, pk)

    def shown(self, pk: uuid.UUID) -> Response:
        """The review as it is after the call, as this person may see it."""
        review = self.review(pk)
        before = queries.previous_version(review.version)
        changes = application.changes(before.answers, review.version.answers) if before else []
        standing = queries.quorum_of(review)
        opinions = queries.opinions_for(permissions.person(self.request.user), review)
        return Response(
            {
                **s.ReviewSummary(review).data,
                **s.ReviewDocument(review).data,
                "changes": s.AnswerChange(changes, many=True).data,
                "opinions": s.OpinionsDocument(opinions).data,
                "counted": len(standing.counted),
                "needed": standing.needed,
            }
        )


class Reviews(View):
    @extend_schema(
        operation_id="reviews_list",
        summary="Applications that came to your board, open ones first",
        responses=s.ReviewPage,
        parameters=PAGES,
        examples=[
            OpenApiExample(
                "One application",
                value={
                    "count": 1,
                    "next": None,
                    "previous": None,
                    "results": [
                        {
                            "id": "3f2b8b0e-8e63-4e3b-8a7a-9b6a5c4d3e2f",
                            "project": "0b9f6f1c-6f0e-4f57-9a7b-0a5f0c1d2e3f",
                            "ref": "SR-2026-0001",
                            "title": "Cost sharing",
                            "version": 1,
                            "board": {"slug": "ethics-board", "name": "Ethics Board"},
                            "state": "received",
                            "created_at": "2026-11-25T14:00:00Z",
                            "age_days": 3,
                        }
                    ],
                },
                response_only=True,
            )
        ],
    )
    def get(self, request: Request) -> Response:
        pages = Pagination()
        found = pages.paginate_queryset(queries.reviews_for(request.user), request, view=self)
        return pages.get_paginated_response(s.ReviewSummary(found, many=True).data)


class ReviewDetail(View):
    @extend_schema(
        summary="A review: the frozen application and the opinions that you may see", responses=s.ReviewFull
    )
    def get(self, request: Request, pk: uuid.UUID) -> Response:
        return self.shown(pk)


class Accept(View):
    @extend_schema(summary="Accept an application for review (chair)", request=None, responses=s.ReviewFull)
    def post(self, request: Request, pk: uuid.UUID) -> Response:
        actions.accept_for_review(by=permissions.person(request.user), review=self.review(pk))
        return self.shown(pk)


class Return(View):
    @extend_schema(
        summary="Return an application for changes (chair)",
        request=s.ProjectReason,
        responses=s.ReviewFull,
        examples=[
            OpenApiExample(
                "What must change", value={"reason": "Say which columns you need."}, request_only=True
            )
        ],
    )
    def post(self, request: Request, pk: uuid.UUID) -> Response:
        actions.return_application(
            by=permissions.person(request.user), review=self.review(pk), **body(s.ProjectReason, request)
        )
        return self.shown(pk)


class Opinions(View):
    @extend_schema(summary="The opinions that you may see", responses=s.OpinionsDocument)
    def get(self, request: Request, pk: uuid.UUID) -> Response:
        review = self.review(pk)
        return Response(
            s.OpinionsDocument(queries.opinions_for(permissions.person(request.user), review)).data
        )

    @extend_schema(
        summary="Give your opinion, or declare an interest",
        request=s.GiveOpinion,
        responses={201: s.BoardOpinion},
        examples=[
            OpenApiExample(
                "In favour", value={"opinion": "support", "comment": "Clear and modest."}, request_only=True
            )
        ],
    )
    def post(self, request: Request, pk: uuid.UUID) -> Response:
        review, data = self.review(pk), body(s.GiveOpinion, request)
        if data["opinion"] == EthicsOpinion.Opinion.INTEREST:
            made = actions.declare_interest(
                by=permissions.person(request.user), review=review, comment=data["comment"]
            )
        else:
            made = actions.give_opinion(by=permissions.person(request.user), review=review, **data)
        return Response(s.BoardOpinion(made).data, status=201)


class Decide(View):
    @extend_schema(
        summary="Record the board's decision (chair)",
        request=s.BoardDecision,
        responses=s.ReviewFull,
        examples=[
            OpenApiExample(
                "Favourable",
                value={
                    "outcome": "favourable",
                    "reason": "Public benefit, little risk.",
                    "valid_until": "2028-12-31",
                },
                request_only=True,
            )
        ],
    )
    def post(self, request: Request, pk: uuid.UUID) -> Response:
        actions.decide(
            by=permissions.person(request.user), review=self.review(pk), **body(s.BoardDecision, request)
        )
        return self.shown(pk)


class Letter(View):
    @extend_schema(
        summary="The board's letter, for the people of the project and the board", responses=s.LetterDocument
    )
    def get(self, request: Request, pk: uuid.UUID) -> Response:
        review = queries.letter_for(request.user, pk)
        document = {
            "ref": review.version.project.ref,
            "title": review.version.project.title,
            "version": review.version.number,
            "sha256": review.version.sha256,
            "board": review.board,
            "outcome": review.state,
            "reason": queries.decision_reason(review),
            "conditions": review.conditions,
            "valid_until": review.valid_until,
            "decided_by": review.decided_by.name if review.decided_by else "",
            "decided_at": review.decided_at,
        }
        return Response(s.LetterDocument(document).data)


__all__ = ["Accept", "Decide", "Letter", "Opinions", "Return", "ReviewDetail", "Reviews"]
