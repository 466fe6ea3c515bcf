"""/application-form and /projects."""

from __future__ import annotations

import uuid
from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from apps.accounts.authentication import HasScope
from apps.core.api import Pagination
from apps.projects import actions, application, permissions, queries
from apps.projects.api import serializers as s
from apps.projects.forms import DECLARATION
from apps.projects.models import Project

PAGES = [
    OpenApiParameter("page", int, description="From 1 on."),
    OpenApiParameter("page_size", int, description="At most 200."),
]
RESEARCH = {"GET": "read", "POST": "research", "PATCH": "research"}
REVIEW = {"POST": "review"}


def body(serializer: type[Serializer[Any]], request: Request) -> dict[str, Any]:
    """The request's body as `serializer` reads it. Raises DRF's ValidationError, which becomes a 422."""
    reader = serializer(data=request.data)
    reader.is_valid(raise_exception=True)
    return dict(reader.validated_data)


class View(APIView):
    """What the views below share."""

    permission_classes = [HasScope]
    scopes = RESEARCH

    def project(self, pk: uuid.UUID) -> Project:
        return queries.project_for(self.request.user, pk)

    def shown(self, pk: uuid.UUID, status: int = 200) -> Response:
        """The project as it is after the call."""
        return Response(s.ProjectFull(self.project(pk)).data, status=status)


REASON = OpenApiExample("A reason", value={"reason": "The funding has ended."}, request_only=True)
STARTED = OpenApiExample(
    "A project of one's own",
    value={"title": "Cost sharing and visits to the doctor", "organisation": "university"},
    request_only=True,
)


class ApplicationForm(View):
    @extend_schema(
        summary="The application form: sections, questions, ethics boards",
        responses=s.ApplicationFormDocument,
        examples=[
            OpenApiExample(
                "In short",
                value={
                    "version": "1",
                    "sections": [{"code": "people", "title": "Safe people", "intro": "…", "questions": []}],
                    "boards": [{"slug": "ethics-board", "name": "Ethics Board"}],
                    "declaration": "I confirm that …",
                },
                response_only=True,
            )
        ],
    )
    def get(self, request: Request) -> Response:
        document = {
            "version": application.FORM_VERSION,
            "sections": [
                {
                    "code": section.code,
                    "title": section.title,
                    "intro": section.intro,
                    "questions": [q for q in section.questions if not q.retired],
                }
                for section in application.SECTIONS
            ],
            "boards": queries.boards(),
            "declaration": DECLARATION,
        }
        return Response(s.ApplicationFormDocument(document).data)


class Projects(View):
    @extend_schema(
        operation_id="projects_list",
        summary="The projects that you are in or invited to",
        responses=s.ProjectPage,
        parameters=PAGES,
        examples=[
            OpenApiExample(
                "A draft",
                value={
                    "count": 1,
                    "next": None,
                    "previous": None,
                    "results": [
                        {
                            "id": "0b9f6f1c-6f0e-4f57-9a7b-0a5f0c1d2e3f",
                            "ref": "SR-2026-0001",
                            "title": "Cost sharing",
                            "state": "draft",
                            "organisation": {"slug": "university", "name": "University"},
                            "board": None,
                            "principal_investigator": "Ada Obi",
                            "created_at": "2026-11-25T14:00:00Z",
                        }
                    ],
                },
                response_only=True,
            )
        ],
    )
    def get(self, request: Request) -> Response:
        pages = Pagination()
        found = pages.paginate_queryset(queries.projects_of(request.user), request, view=self)
        return pages.get_paginated_response(s.ProjectSummary(found, many=True).data)

    @extend_schema(
        summary="Start a project; you become its principal investigator",
        request=s.StartProject,
        responses={201: s.ProjectFull},
        examples=[STARTED],
    )
    def post(self, request: Request) -> Response:
        project = actions.start_project(by=permissions.person(request.user), **body(s.StartProject, request))
        return self.shown(project.pk, 201)


class ProjectDetail(View):
    @extend_schema(
        summary="A project, with its people",
        description="While you have not accepted an invitation: without dates and conditions, and of the people only the "
        "principal investigator and you.",
        responses=s.ProjectFull,
    )
    def get(self, request: Request, pk: uuid.UUID) -> Response:
        project = queries.project_or_invitation(request.user, pk)
        if permissions.invitation(request.user, project) is not None:
            return Response(s.ProjectInvited(project, context={"user": request.user}).data)
        return Response(s.ProjectFull(project).data)


class Answers(View):
    def answered(self, project: Project, changed: list[str]) -> Response:
        missing = [q.code for q in application.missing(project.answers)]
        return Response({"answers": project.answers, "missing": missing, "changed": changed})

    @extend_schema(
        summary="The answers as they stand, and what is missing",
        responses=s.AnswersState,
        examples=[
            OpenApiExample(
                "Two questions left",
                value={"answers": {"title": "Cost sharing"}, "missing": ["aims", "ends_on"], "changed": []},
                response_only=True,
            )
        ],
    )
    def get(self, request: Request, pk: uuid.UUID) -> Response:
        project = self.project(pk)
        permissions.require_member(request.user, project, to="read the application while it is being written")
        return self.answered(project, [])

    @extend_schema(
        summary="Change some answers of a draft or returned application",
        request=s.AnswersDocument,
        responses=s.AnswersState,
        examples=[
            OpenApiExample(
                "Three answers",
                value={
                    "answers": {
                        "aims": "Whether …",
                        "public_benefit": ["services"],
                        "starts_on": "2027-01-01",
                    }
                },
                request_only=True,
            )
        ],
    )
    def patch(self, request: Request, pk: uuid.UUID) -> Response:
        project = self.project(pk)
        changed = actions.save_answers(
            by=permissions.person(request.user),
            project=project,
            answers=body(s.AnswersDocument, request)["answers"],
        )
        return self.answered(project, changed)


class Members(View):
    @extend_schema(
        summary="The people of a project, and those invited",
        responses=s.ProjectMember(many=True),
        examples=[
            OpenApiExample(
                "One person",
                value=[
                    {
                        "id": "7f1e7f0c-53f5-4d3b-8a44-6f6f7a1f9b10",
                        "user": "c0b3a0de-5c55-4f8a-8a5b-1c2d3e4f5a6b",
                        "name": "Ada Obi",
                        "organisation": "University",
                        "role": "principal_investigator",
                        "created_at": "2026-11-25T14:00:00Z",
                        "accepted_at": "2026-11-25T14:00:00Z",
                    }
                ],
                response_only=True,
            )
        ],
    )
    def get(self, request: Request, pk: uuid.UUID) -> Response:
        return Response(s.ProjectMember(self.project(pk).people, many=True).data)  # type: ignore[attr-defined]

    @extend_schema(
        summary="Invite a colleague who has an account",
        request=s.InviteToProject,
        responses={201: s.ProjectMember},
        examples=[OpenApiExample("By address", value={"email": "colleague@example.org"}, request_only=True)],
    )
    def post(self, request: Request, pk: uuid.UUID) -> Response:
        made = actions.invite(
            by=permissions.person(request.user), project=self.project(pk), **body(s.InviteToProject, request)
        )
        return Response(s.ProjectMember(made).data, status=201)


class Remove(View):
    @extend_schema(
        summary="Remove a person, or take an invitation back",
        request=s.ProjectReason,
        responses=s.ProjectFull,
        examples=[REASON],
    )
    def post(self, request: Request, pk: uuid.UUID, member: uuid.UUID) -> Response:
        found = queries.member_for(self.project(pk), member)
        actions.remove_member(
            by=permissions.person(request.user), membership=found, **body(s.ProjectReason, request)
        )
        return self.shown(pk)


class Invitation(View):
    @extend_schema(
        summary="Accept or decline your invitation",
        request=s.AnswerInvitation,
        responses=s.ProjectMember,
        examples=[OpenApiExample("Accept", value={"decision": "accept"}, request_only=True)],
    )
    def post(self, request: Request, pk: uuid.UUID) -> Response:
        project = queries.project_or_invitation(request.user, pk)
        accept = body(s.AnswerInvitation, request)["decision"] == "accept"
        action = actions.accept_invitation if accept else actions.decline_invitation
        return Response(s.ProjectMember(action(by=permissions.person(request.user), project=project)).data)


class Leave(View):
    @extend_schema(summary="Leave a project", request=None, responses={204: None})
    def post(self, request: Request, pk: uuid.UUID) -> Response:
        actions.leave_project(by=permissions.person(request.user), project=self.project(pk))
        return Response(status=204)


class Submit(View):
    @extend_schema(
        summary="Freeze the application as its next version and put it before an ethics board",
        request=s.SubmitApplication,
        responses={201: s.VersionFull},
        examples=[
            OpenApiExample("Submit", value={"board": "ethics-board", "declaration": True}, request_only=True)
        ],
    )
    def post(self, request: Request, pk: uuid.UUID) -> Response:
        data = body(s.SubmitApplication, request)
        version = actions.submit_application(
            by=permissions.person(request.user),
            project=self.project(pk),
            board=data["board"],
            declared=data["declaration"],
            submission=data.get("submission"),
        )
        return Response(s.VersionFull(version).data, status=201)


class Versions(View):
    @extend_schema(summary="Submitted versions, newest first", responses=s.VersionSummary(many=True))
    def get(self, request: Request, pk: uuid.UUID) -> Response:
        return Response(s.VersionSummary(queries.versions_of(self.project(pk)), many=True).data)


class Version(View):
    @extend_schema(summary="One submitted version as frozen", responses=s.VersionFull)
    def get(self, request: Request, pk: uuid.UUID, number: int) -> Response:
        return Response(s.VersionFull(queries.version_for(self.project(pk), number)).data)


class History(View):
    @extend_schema(summary="What happened to the project, oldest first", responses=s.HistoryEvent(many=True))
    def get(self, request: Request, pk: uuid.UUID) -> Response:
        return Response(s.HistoryEvent(queries.timeline(self.project(pk)), many=True).data)


class Withdraw(View):
    @extend_schema(
        summary="Withdraw the application",
        request=s.ProjectReason,
        responses=s.ProjectFull,
        examples=[REASON],
    )
    def post(self, request: Request, pk: uuid.UUID) -> Response:
        actions.withdraw_project(
            by=permissions.person(request.user), project=self.project(pk), **body(s.ProjectReason, request)
        )
        return self.shown(pk)


class Close(View):
    @extend_schema(
        summary="Close the project for good",
        request=s.ProjectReason,
        responses=s.ProjectFull,
        examples=[REASON],
    )
    def post(self, request: Request, pk: uuid.UUID) -> Response:
        actions.close_project(
            by=permissions.person(request.user), project=self.project(pk), **body(s.ProjectReason, request)
        )
        return self.shown(pk)


class Suspend(View):
    scopes = REVIEW

    @extend_schema(
        summary="Suspend a project (chair of its ethics board)",
        request=s.ProjectReason,
        responses=s.ProjectFull,
        examples=[REASON],
    )
    def post(self, request: Request, pk: uuid.UUID) -> Response:
        actions.suspend_project(
            by=permissions.person(request.user), project=self.project(pk), **body(s.ProjectReason, request)
        )
        return self.shown(pk)


class Reinstate(View):
    scopes = REVIEW

    @extend_schema(
        summary="Lift a suspension (chair of its ethics board)",
        request=s.ProjectReason,
        responses=s.ProjectFull,
        examples=[REASON],
    )
    def post(self, request: Request, pk: uuid.UUID) -> Response:
        actions.reinstate_project(
            by=permissions.person(request.user), project=self.project(pk), **body(s.ProjectReason, request)
        )
        return self.shown(pk)
