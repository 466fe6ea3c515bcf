"""API: programs, their source, what custodians decide on them, and asking for a run."""

from __future__ import annotations

import uuid
from uuid import UUID

from django.conf import settings
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.authentication import HasScope
from apps.accounts.permissions import me
from apps.core.api import Pagination
from apps.core.errors import NotFound
from apps.datasets.api.parts import ReasonIn
from apps.datasets.queries import dataset_by_ref
from apps.jobs import actions, permissions, queries, spending
from apps.jobs.api.shapes import (
    ERRORS,
    ApprovalOut,
    DecisionIn,
    MachinesOut,
    ProgramIn,
    ProgramOut,
    RunDetailOut,
    RunIn,
    read,
)
from apps.jobs.models import ProgramApproval
from apps.jobs.views.files import send
from apps.projects.permissions import require_member
from apps.projects.queries import project_for


class Programs(APIView):
    """Programs of a project."""

    permission_classes = [HasScope]
    parser_classes = [MultiPartParser]
    scopes = {"GET": "read", "POST": "research"}

    @extend_schema(
        operation_id="programs_list",
        summary="Programs of a project",
        responses={200: ProgramOut(many=True), **ERRORS},
    )
    def get(self, request: Request, pk: UUID) -> Response:
        project = project_for(request.user, pk)
        require_member(request.user, project, to="see its programs")
        pages = Pagination()
        found = queries.described(
            permissions.visible_programs(request.user).filter(project=project)
        ).order_by("-created_at")
        return pages.get_paginated_response(
            ProgramOut(pages.paginate_queryset(found, request, view=self), many=True).data
        )

    @extend_schema(
        operation_id="programs_submit",
        summary="Submit a program: it is rehearsed at once on stand-in data",
        request={"multipart/form-data": ProgramIn},
        responses={201: ProgramOut, **ERRORS},
    )
    def post(self, request: Request, pk: UUID) -> Response:
        data = read(ProgramIn, request)
        project = project_for(request.user, pk)
        datasets = [
            dataset_by_ref(request.user, ref.strip()) for ref in data["datasets"].split(",") if ref.strip()
        ]
        program = actions.submit_program(
            by=me(request), project=project, name=data["name"], file=data["file"], filename=data["file"].name, datasets=datasets,
            entry=data["entry"], note=data["note"], submission=data["submission"] or uuid.uuid4().hex,
        )  # fmt: skip
        return Response(ProgramOut(program).data, status=201)


class ProgramDetail(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "read"}

    @extend_schema(
        operation_id="program_detail",
        summary="One program with the custodians' decisions",
        responses={200: ProgramOut, **ERRORS},
    )
    def get(self, request: Request, pk: UUID) -> Response:
        return Response(ProgramOut(queries.program_for(request.user, pk)).data)


class ProgramSource(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "read"}

    @extend_schema(
        operation_id="program_source",
        summary="The program, byte for byte",
        responses={(200, "application/octet-stream"): OpenApiTypes.BINARY, **ERRORS},
    )
    def get(self, request: Request, pk: UUID) -> HttpResponseBase:
        program = queries.program_for(request.user, pk)
        return send(
            program.object_name,
            filename=f"{program.sha256[:12]}.{program.kind}",
            media_type="",
            size=program.size,
        )


class ProgramsToDecide(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "custody"}

    @extend_schema(
        operation_id="programs_to_decide",
        summary="Programs that wait for your decision as a custodian",
        responses={200: ProgramOut(many=True)},
    )
    def get(self, request: Request) -> Response:
        return Response(
            ProgramOut(queries.described(queries.programs_to_decide(request.user))[:200], many=True).data
        )


class ProgramDecision(APIView):
    permission_classes = [HasScope]
    scopes = {"POST": "custody"}

    @extend_schema(
        operation_id="program_decide", summary="Approve or refuse a program for one dataset, by hash", request=DecisionIn, responses={201: ApprovalOut, **ERRORS},
        examples=[OpenApiExample("Approve", value={"dataset": "rand-hie", "approve": True, "reason": ""}, request_only=True)],
    )  # fmt: skip
    def post(self, request: Request, pk: UUID) -> Response:
        data = read(DecisionIn, request)
        program = queries.program_for(request.user, pk)
        dataset = dataset_by_ref(request.user, data["dataset"])
        made = actions.decide_program(
            by=me(request), program=program, dataset=dataset, approve=data["approve"], reason=data["reason"]
        )
        return Response(ApprovalOut(made).data, status=201)


class ApprovalRevoke(APIView):
    permission_classes = [HasScope]
    scopes = {"POST": "custody"}

    @extend_schema(
        operation_id="approval_revoke",
        summary="Take an approval back: runs of the program are stopped",
        request=ReasonIn,
        responses={200: ApprovalOut, **ERRORS},
    )
    def post(self, request: Request, pk: UUID) -> Response:
        approval = (
            ProgramApproval.objects.select_related("program__project", "dataset__custodian")
            .filter(pk=pk)
            .first()
        )
        if (
            approval is None
            or not permissions.visible_programs(request.user).filter(pk=approval.program_id).exists()
        ):
            raise NotFound("approval")
        actions.revoke_program_approval(
            by=me(request), approval=approval, reason=read(ReasonIn, request)["reason"]
        )
        return Response(ApprovalOut(approval).data)


class ProjectMachines(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "read"}

    @extend_schema(
        operation_id="project_machines",
        summary="What the project may choose for a run: sizes of machines, their cost at most, time limits",
        responses={200: MachinesOut, **ERRORS},
    )
    def get(self, request: Request, pk: UUID) -> Response:
        project = project_for(request.user, pk)
        require_member(request.user, project, to="see what its runs cost")
        return Response(MachinesOut(spending.choice(project, settings.DEFAULT_BACKEND)).data)


class ProgramRuns(APIView):
    permission_classes = [HasScope]
    scopes = {"POST": "research"}

    @extend_schema(
        operation_id="program_run",
        summary="Ask that a program run on the real data",
        request=RunIn,
        responses={201: RunDetailOut, **ERRORS},
    )
    def post(self, request: Request, pk: UUID) -> Response:
        program = queries.program_for(request.user, pk)
        asked = read(RunIn, request)
        run = actions.submit_run(
            by=me(request),
            program=program,
            submission=asked["submission"] or uuid.uuid4().hex,
            size=asked["size"],
            time_limit=asked["time_limit"],
        )
        return Response(RunDetailOut(run, context={"request": request}).data, status=201)
