"""API: runs, their logs, outputs and packages."""

from __future__ import annotations

from uuid import UUID

from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.authentication import HasScope
from apps.accounts.permissions import me
from apps.core.api import Pagination
from apps.core.errors import Conflict, NotFound
from apps.core.objects import store
from apps.datasets.api.parts import ReasonIn
from apps.jobs import actions, permissions, queries
from apps.jobs.api.shapes import ERRORS, RunDetailOut, RunOut, read
from apps.jobs.models import OutputRelease, Run
from apps.jobs.states import OUTPUT_RELEASE, OutputState
from apps.jobs.views.files import send
from apps.jobs.views.runs import package as package_page


class Runs(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "read"}

    @extend_schema(
        operation_id="runs_list", summary="Runs that you may see", responses={200: RunOut(many=True)}
    )
    def get(self, request: Request) -> Response:
        pages = Pagination()
        found = queries.runs_list(
            request.user,
            kind=request.GET.get("kind", ""),
            state=request.GET.get("state", ""),
            project=request.GET.get("project", ""),
        )
        return pages.get_paginated_response(
            RunOut(pages.paginate_queryset(found, request, view=self), many=True).data
        )


class RunDetail(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "read"}

    @extend_schema(
        operation_id="run_detail",
        summary="One run: where it stands and what it waits for",
        responses={200: RunDetailOut, **ERRORS},
    )
    def get(self, request: Request, pk: UUID) -> Response:
        return Response(RunDetailOut(queries.run_for(request.user, pk), context={"request": request}).data)


class RunCancel(APIView):
    permission_classes = [HasScope]
    scopes = {"POST": ("research", "custody")}

    @extend_schema(
        operation_id="run_cancel", summary="Stop a run", request=ReasonIn, responses={200: RunOut, **ERRORS}
    )
    def post(self, request: Request, pk: UUID) -> Response:
        run = queries.run_for(request.user, pk)
        actions.cancel_run(by=me(request), run=run, reason=read(ReasonIn, request)["reason"])
        return Response(RunOut(run).data)


class RunLog(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "research"}

    @extend_schema(
        operation_id="run_log",
        summary="The log of a rehearsal",
        responses={(200, "application/octet-stream"): OpenApiTypes.BINARY, **ERRORS},
    )
    def get(self, request: Request, pk: UUID) -> HttpResponseBase:
        run = queries.run_for(request.user, pk)
        if run.kind == Run.Kind.RESEARCH:
            raise Conflict(
                "no_log",
                "A run on the real data has no log: it could hold data.",
                "Read the log of its rehearsal instead.",
            )
        if not run.log_object or not permissions.can_read_rehearsal(request.user, run):
            raise NotFound("log")
        return send(
            run.log_object, filename="log.txt", media_type="text/plain", size=store().size(run.log_object)
        )


class RunOutput(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "research"}

    @extend_schema(
        operation_id="run_output",
        summary="One output of a rehearsal",
        responses={(200, "application/octet-stream"): OpenApiTypes.BINARY, **ERRORS},
    )
    def get(self, request: Request, pk: UUID, output_pk: UUID) -> HttpResponseBase:
        run = queries.run_for(request.user, pk)
        item = run.outputs.filter(pk=output_pk).first()
        if item is None or not permissions.can_read_rehearsal(request.user, run):
            raise NotFound("output")
        return send(item.object_name, filename=item.path, media_type=item.media_type, size=item.size)


class RunPackage(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "research"}

    @extend_schema(
        operation_id="run_package",
        summary="Download the released package (recorded)",
        responses={(200, "application/zip"): OpenApiTypes.BINARY, **ERRORS},
    )
    def get(self, request: Request, pk: UUID) -> HttpResponseBase:
        release = OutputRelease.objects.filter(run=queries.run_for(request.user, pk)).first()
        if release is None:
            raise NotFound("released package")
        if release.state != OutputState.RELEASED:
            raise Conflict(
                "not_released",
                f"The outputs are not released: “{OUTPUT_RELEASE.labels[release.state]}”.",
                "See the run's page for where they stand.",
            )
        request._request.user = request.user
        return package_page(request._request, pk)
