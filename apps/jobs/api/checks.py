"""API: output checks."""

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
from apps.core.errors import NotFound
from apps.datasets.api.parts import ReasonIn
from apps.jobs import actions, permissions, queries
from apps.jobs.api.shapes import ERRORS, CheckIn, CheckOut, read
from apps.jobs.models import OutputRelease
from apps.jobs.views.files import send


class Checks(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "review"}

    @extend_schema(
        operation_id="checks_list",
        summary="Outputs that wait for you as a checker",
        responses={200: CheckOut(many=True)},
    )
    def get(self, request: Request) -> Response:
        return Response(
            CheckOut(
                permissions.checkable(request.user)
                .prefetch_related("run__outputs")
                .order_by("created_at")[:200],
                many=True,
            ).data
        )


class CheckDetail(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "review", "POST": "review"}

    @extend_schema(
        operation_id="check_detail",
        summary="One set of outputs under review",
        responses={200: CheckOut, **ERRORS},
    )
    def get(self, request: Request, pk: UUID) -> Response:
        return Response(CheckOut(queries.release_for_checker(request.user, pk)).data)

    @extend_schema(
        operation_id="check_decide",
        summary="Approve or reject outputs",
        request=CheckIn,
        responses={200: CheckOut, **ERRORS},
    )
    def post(self, request: Request, pk: UUID) -> Response:
        release = queries.release_for_checker(request.user, pk)
        actions.check_outputs(by=me(request), output_release=release, **read(CheckIn, request))
        return Response(CheckOut(release).data)


class CheckFile(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "review"}

    @extend_schema(
        operation_id="check_file",
        summary="One file under review",
        responses={(200, "application/octet-stream"): OpenApiTypes.BINARY, **ERRORS},
    )
    def get(self, request: Request, pk: UUID, output_pk: UUID) -> HttpResponseBase:
        item = queries.release_for_checker(request.user, pk).run.outputs.filter(pk=output_pk).first()
        if item is None:
            raise NotFound("output")
        return send(item.object_name, filename=item.path, media_type=item.media_type, size=item.size)


class CheckRevoke(APIView):
    permission_classes = [HasScope]
    scopes = {"POST": ("review", "custody")}

    @extend_schema(
        operation_id="check_revoke",
        summary="Revoke a release",
        request=ReasonIn,
        responses={204: None, **ERRORS},
    )
    def post(self, request: Request, pk: UUID) -> Response:
        release = OutputRelease.objects.select_related("run__project").filter(pk=pk).first()
        if release is None:
            raise NotFound("set of outputs")
        actions.revoke_release(
            by=me(request), output_release=release, reason=read(ReasonIn, request)["reason"]
        )
        return Response(status=204)
