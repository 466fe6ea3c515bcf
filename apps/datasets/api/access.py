"""API: access requests, agreements, stage-1 releases."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http.response import HttpResponseBase
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.authentication import HasScope, has_scope
from apps.accounts.permissions import me
from apps.accounts.reauth import reauthenticate
from apps.core.api import Pagination
from apps.core.errors import NotFound
from apps.datasets import access_permissions, access_queries, actions, permissions, queries
from apps.datasets.api.parts import REF, ErrorOut, ReasonIn
from apps.datasets.models import AccessRequest, Signature, Stage1Release
from apps.datasets.views.access import STOPS, VERBS
from apps.datasets.views.releases import project_using, stream
from apps.projects.queries import project_for

ERRORS = {403: ErrorOut, 404: ErrorOut, 409: ErrorOut, 422: ErrorOut}
Serializer = serializers.Serializer[Any]


class AccessOut(Serializer):
    id = serializers.UUIDField()
    project = serializers.CharField(source="project.ref")
    dataset = serializers.CharField(source="dataset.slug")
    state = serializers.CharField()
    purpose = serializers.CharField()
    ends_on = serializers.DateField()
    conditions = serializers.CharField()
    agreements = serializers.SerializerMethodField()
    created_at = serializers.DateTimeField()

    def get_agreements(self, request: AccessRequest) -> list[str]:
        return [str(agreement.pk) for agreement in request.agreements.all()]


class AccessIn(Serializer):
    project = serializers.UUIDField()
    purpose = serializers.CharField(max_length=3000)
    ends_on = serializers.DateField()


class AccessDecisionIn(Serializer):
    approve = serializers.BooleanField()
    reason = serializers.CharField(max_length=2000)
    conditions = serializers.CharField(max_length=3000, required=False, default="", allow_blank=True)


class SignatureOut(Serializer):
    side = serializers.CharField()
    signer = serializers.CharField(source="signer.name")
    document_sha256 = serializers.CharField()
    statement = serializers.CharField()
    created_at = serializers.DateTimeField()


class AgreementOut(Serializer):
    id = serializers.UUIDField()
    access_request = serializers.UUIDField(source="access_request_id")
    state = serializers.CharField()
    sha256 = serializers.CharField()
    body = serializers.CharField()
    starts_on = serializers.DateField()
    ends_on = serializers.DateField()
    signatures = SignatureOut(many=True)


class SignIn(Serializer):
    """`password` proves again who signs; `sha256` is the text's hash, so that nobody signs another text."""

    side = serializers.ChoiceField(choices=Signature.Side.choices)
    sha256 = serializers.CharField(min_length=64, max_length=64)
    password = serializers.CharField(max_length=200)


class ReleaseOut(Serializer):
    id = serializers.UUIDField()
    dataset = serializers.CharField(source="version.dataset.slug")
    version = serializers.IntegerField(source="version.number")
    state = serializers.CharField()
    method = serializers.CharField()
    rows = serializers.IntegerField(allow_null=True)
    size = serializers.IntegerField(allow_null=True)
    sha256 = serializers.CharField()
    created_at = serializers.DateTimeField()


class ReleaseDetailOut(ReleaseOut):
    report = serializers.JSONField(allow_null=True, help_text="Computed on real data: for the custodian only")
    runs = serializers.SerializerMethodField()

    def get_runs(self, release: Stage1Release) -> list[str]:
        return [str(run.pk) for run in release.runs.all()]


class OrderIn(Serializer):
    method = serializers.ChoiceField(choices=Stage1Release.Method.choices)
    rows = serializers.IntegerField(required=False, allow_null=True, min_value=10, max_value=100_000)


class ReleaseDecisionIn(Serializer):
    approve = serializers.BooleanField()
    reason = serializers.CharField(max_length=2000, required=False, default="", allow_blank=True)


ACCESS_EXAMPLE = OpenApiExample(
    "Asking", request_only=True,
    value={"project": "0b6c1d0e-7d0f-4c7e-9a55-5a5b8d1c2f10", "purpose": "Visits by cost sharing", "ends_on": "2027-06-30"},
)  # fmt: skip


def _read(kind: type[Serializer], request: Request) -> dict[str, Any]:
    body = kind(data=request.data)
    body.is_valid(raise_exception=True)
    return dict(body.validated_data)


class AccessRequests(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "read"}

    @extend_schema(
        operation_id="access_list",
        summary="Access requests that you may see",
        responses={200: AccessOut(many=True)},
    )
    def get(self, request: Request) -> Response:
        pages = Pagination()
        found = (
            access_permissions.visible_requests(request.user)
            .prefetch_related("agreements")
            .order_by("-created_at")
        )
        page = pages.paginate_queryset(found, request, view=self)
        return pages.get_paginated_response(AccessOut(page, many=True).data)


class AskForAccess(APIView):
    permission_classes = [HasScope]
    scopes = {"POST": "research"}

    @extend_schema(
        operation_id="access_request",
        summary="Ask for access to a dataset for a project",
        parameters=[REF],
        request=AccessIn,
        responses={201: AccessOut, **ERRORS},
        examples=[ACCESS_EXAMPLE],
    )
    def post(self, request: Request, ref: str) -> Response:
        data = _read(AccessIn, request)
        project = project_for(request.user, data.pop("project"))
        made = actions.request_access(
            by=me(request), project=project, dataset=queries.dataset_by_ref(request.user, ref), **data
        )
        return Response(AccessOut(made).data, status=201)


class AccessDetail(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "read"}

    @extend_schema(
        operation_id="access_detail", summary="One access request", responses={200: AccessOut, **ERRORS}
    )
    def get(self, request: Request, pk: UUID) -> Response:
        return Response(AccessOut(access_queries.request_for(request.user, pk)).data)


class AccessDecision(APIView):
    permission_classes = [HasScope]
    scopes = {"POST": "review"}

    @extend_schema(
        operation_id="access_decide",
        summary="Decide on an access request, for the custodian",
        request=AccessDecisionIn,
        responses={200: AccessOut, **ERRORS},
    )
    def post(self, request: Request, pk: UUID) -> Response:
        item = access_queries.request_for(request.user, pk)
        actions.decide_access(by=me(request), access_request=item, **_read(AccessDecisionIn, request))
        return Response(AccessOut(item).data)


class AccessChange(APIView):
    """Whoever keeps the data may stop its use with a token for custody too; all else is a decision."""

    permission_classes = [HasScope]
    scopes = {"POST": ("review", "custody")}

    @extend_schema(
        operation_id="access_change",
        summary="Withdraw, suspend, resume or revoke access",
        description="verb: withdraw, suspend, resume, revoke.",
        request=ReasonIn,
        responses={200: AccessOut, **ERRORS},
    )
    def post(self, request: Request, pk: UUID, verb: str) -> Response:
        if verb not in VERBS:
            raise NotFound("act")
        if verb not in STOPS and not has_scope(request, "review"):
            self.permission_denied(request, message=HasScope.message)
        item = access_queries.request_for(request.user, pk)
        VERBS[verb][0](by=me(request), access_request=item, reason=_read(ReasonIn, request)["reason"])
        return Response(AccessOut(item).data)


class Agreements(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "read"}

    @extend_schema(
        operation_id="agreements_list",
        summary="Agreements that you may see",
        responses={200: AgreementOut(many=True)},
    )
    def get(self, request: Request) -> Response:
        pages = Pagination()
        found = (
            access_permissions.visible_agreements(request.user)
            .prefetch_related("signatures__signer")
            .order_by("-created_at")
        )
        page = pages.paginate_queryset(found, request, view=self)
        return pages.get_paginated_response(AgreementOut(page, many=True).data)


class AgreementDetail(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "read"}

    @extend_schema(
        operation_id="agreement_detail",
        summary="One agreement with its text and signatures",
        responses={200: AgreementOut, **ERRORS},
    )
    def get(self, request: Request, pk: UUID) -> Response:
        return Response(AgreementOut(access_queries.agreement_for(request.user, pk)).data)


class AgreementSign(APIView):
    permission_classes = [HasScope]
    scopes = {"POST": "review"}

    @extend_schema(
        operation_id="agreement_sign",
        summary="Sign an agreement for one side",
        request=SignIn,
        responses={200: AgreementOut, **ERRORS},
    )
    def post(self, request: Request, pk: UUID) -> Response:
        data = _read(SignIn, request)
        item = access_queries.agreement_for(request.user, pk)
        if data["sha256"] != item.sha256:
            raise serializers.ValidationError(
                {"sha256": ["This is not the hash of the agreement's text. Read it again."]}
            )
        moment = reauthenticate(user=me(request), password=data["password"])
        actions.sign_agreement(by=me(request), agreement=item, side=data["side"], reauthenticated_at=moment)
        return Response(AgreementOut(access_queries.agreement_for(request.user, pk)).data)


class AgreementTerminate(APIView):
    permission_classes = [HasScope]
    scopes = {"POST": ("review", "custody")}

    @extend_schema(
        operation_id="agreement_terminate",
        summary="End an agreement, for the custodian",
        request=ReasonIn,
        responses={200: AgreementOut, **ERRORS},
    )
    def post(self, request: Request, pk: UUID) -> Response:
        item = access_queries.agreement_for(request.user, pk)
        actions.terminate_agreement(by=me(request), agreement=item, reason=_read(ReasonIn, request)["reason"])
        return Response(AgreementOut(access_queries.agreement_for(request.user, pk)).data)


class Releases(APIView):
    """Of one version: its custodian orders and lists."""

    permission_classes = [HasScope]
    scopes = {"GET": "custody", "POST": "custody"}

    @extend_schema(
        operation_id="releases_list",
        summary="Stage-1 releases of a version, for its custodian",
        responses={200: ReleaseOut(many=True), **ERRORS},
    )
    def get(self, request: Request, pk: UUID) -> Response:
        version = queries.version_for(me(request), pk, to="see its stand-in data")
        return Response(ReleaseOut(version.releases.select_related("version__dataset"), many=True).data)

    @extend_schema(
        operation_id="releases_order",
        summary="Order stand-in data",
        request=OrderIn,
        responses={201: ReleaseOut, **ERRORS},
    )
    def post(self, request: Request, pk: UUID) -> Response:
        data = _read(OrderIn, request)
        version = queries.version_for(me(request), pk, to="order stand-in data from this dataset")
        rows = data.get("rows")
        made = actions.order_release(
            by=me(request), version=version, method=data["method"], parameters={"rows": rows} if rows else {}
        )
        return Response(ReleaseOut(made).data, status=201)


class ReleaseDetail(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "custody"}

    @extend_schema(
        operation_id="release_detail",
        summary="One stage-1 release with its report, for the custodian",
        responses={200: ReleaseDetailOut, **ERRORS},
    )
    def get(self, request: Request, pk: UUID) -> Response:
        return Response(ReleaseDetailOut(access_queries.release_for(request.user, pk)).data)


class ReleaseDecision(APIView):
    permission_classes = [HasScope]
    scopes = {"POST": "custody"}

    @extend_schema(
        operation_id="release_decide",
        summary="Release the stand-in data, or not",
        request=ReleaseDecisionIn,
        responses={200: ReleaseOut, **ERRORS},
    )
    def post(self, request: Request, pk: UUID) -> Response:
        item = access_queries.release_for(request.user, pk)
        return Response(
            ReleaseOut(
                actions.decide_release(by=me(request), release=item, **_read(ReleaseDecisionIn, request))
            ).data
        )


class ReleaseWithdraw(APIView):
    permission_classes = [HasScope]
    scopes = {"POST": "custody"}

    @extend_schema(
        operation_id="release_withdraw",
        summary="Withdraw released stand-in data",
        request=ReasonIn,
        responses={200: ReleaseOut, **ERRORS},
    )
    def post(self, request: Request, pk: UUID) -> Response:
        item = access_queries.release_for(request.user, pk)
        actions.withdraw_release(by=me(request), release=item, reason=_read(ReasonIn, request)["reason"])
        return Response(ReleaseOut(item).data)


class StandIn(APIView):
    """What strongroom.load() asks: the present stand-in data of a dataset."""

    permission_classes = [HasScope]
    scopes = {"GET": "research"}

    @extend_schema(
        operation_id="stand_in",
        summary="The present stand-in data of a dataset that you may use",
        parameters=[REF],
        responses={200: ReleaseOut, **ERRORS},
    )
    def get(self, request: Request, ref: str) -> Response:
        release = queries.current_release(queries.dataset_by_ref(request.user, ref))
        if release is None or not permissions.can_download_release(request.user, release):
            raise NotFound("stand-in data that you may use")
        return Response(
            {**ReleaseOut(release).data, "dictionary": release.version.dictionary, "media_type": "text/csv"}
        )


class ReleaseData(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "research"}

    @extend_schema(
        operation_id="release_data",
        summary="Download stand-in data (recorded)",
        responses={(200, "application/octet-stream"): OpenApiTypes.BINARY, 404: ErrorOut},
    )
    def get(self, request: Request, pk: UUID) -> HttpResponseBase:
        item = Stage1Release.objects.select_related("version__dataset__custodian").filter(pk=pk).first()
        if item is None or not permissions.can_download_release(request.user, item):
            raise NotFound("stage-1 release")
        actions.record_download(
            by=me(request),
            project=project_using(me(request), item),
            what="stage1_release",
            object_id=item.pk,
            sha256=item.sha256,
        )
        return stream(item)


urlpatterns = [
    path("datasets/<str:ref>/access", AskForAccess.as_view(), name="access-request"),
    path("datasets/<str:ref>/stand-in", StandIn.as_view(), name="stand-in"),
    path("access", AccessRequests.as_view(), name="access-list"),
    path("access/<uuid:pk>", AccessDetail.as_view(), name="access-detail"),
    path("access/<uuid:pk>/decision", AccessDecision.as_view(), name="access-decide"),
    path("access/<uuid:pk>/<slug:verb>", AccessChange.as_view(), name="access-change"),
    path("agreements", Agreements.as_view(), name="agreements"),
    path("agreements/<uuid:pk>", AgreementDetail.as_view(), name="agreement-detail"),
    path("agreements/<uuid:pk>/signatures", AgreementSign.as_view(), name="agreement-sign"),
    path("agreements/<uuid:pk>/terminate", AgreementTerminate.as_view(), name="agreement-terminate"),
    path("versions/<uuid:pk>/releases", Releases.as_view(), name="releases"),
    path("releases/<uuid:pk>", ReleaseDetail.as_view(), name="release-detail"),
    path("releases/<uuid:pk>/decision", ReleaseDecision.as_view(), name="release-decide"),
    path("releases/<uuid:pk>/withdraw", ReleaseWithdraw.as_view(), name="release-withdraw"),
    path("releases/<uuid:pk>/data", ReleaseData.as_view(), name="release-data"),
]
