"""API: programs, runs, output checks, packages."""

from __future__ import annotations

import uuid
from typing import Any
from uuid import UUID

from django.http.response import HttpResponseBase
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.authentication import HasScope
from apps.accounts.permissions import me
from apps.core.api import Pagination
from apps.core.clock import now
from apps.core.errors import Conflict, NotFound
from apps.core.objects import store
from apps.datasets.api.parts import ErrorOut, ReasonIn
from apps.datasets.queries import dataset_by_ref
from apps.jobs import actions, gate, permissions, queries, spending
from apps.jobs.models import OutputCheck, OutputRelease, Program, ProgramApproval, Run
from apps.jobs.states import OUTPUT_RELEASE, OutputState
from apps.jobs.views.files import send
from apps.jobs.views.runs import package as package_page
from apps.projects.permissions import require_member
from apps.projects.queries import project_for

ERRORS = {403: ErrorOut, 404: ErrorOut, 409: ErrorOut, 422: ErrorOut}
Serializer = serializers.Serializer[Any]


class ApprovalOut(Serializer):
    id = serializers.UUIDField()
    dataset = serializers.CharField(source="dataset.slug")
    decision = serializers.CharField()
    automatic = serializers.BooleanField()
    reason = serializers.CharField()
    revocation_reason = serializers.CharField(help_text="Why an approval was taken back")


class ProgramOut(Serializer):
    id = serializers.UUIDField()
    project = serializers.CharField(source="project.ref")
    name = serializers.CharField()
    kind = serializers.CharField()
    entry = serializers.CharField()
    sha256 = serializers.CharField()
    size = serializers.IntegerField()
    datasets = serializers.SerializerMethodField()
    rehearsal = serializers.SerializerMethodField(help_text="Id of the rehearsal run")
    approvals = ApprovalOut(many=True)
    created_at = serializers.DateTimeField()

    def get_datasets(self, program: Program) -> list[str]:
        return [version.dataset.slug for version in program.versions.all()]

    def get_rehearsal(self, program: Program) -> str | None:
        return next((str(run.pk) for run in program.runs.all() if run.kind == Run.Kind.REHEARSAL), None)


class ProgramIn(Serializer):
    file = serializers.FileField()
    name = serializers.CharField(max_length=200, required=False, default="", allow_blank=True)
    datasets = serializers.CharField(help_text="Short names, separated by commas")
    entry = serializers.CharField(max_length=200, required=False, default="", allow_blank=True)
    note = serializers.CharField(max_length=2000, required=False, default="", allow_blank=True)
    submission = serializers.CharField(
        max_length=64,
        required=False,
        default="",
        allow_blank=True,
        help_text="Your own token: the same one again gives the same program",
    )


class ConditionOut(Serializer):
    code = serializers.CharField()
    detail = serializers.CharField()
    remedy = serializers.CharField()
    owner = serializers.CharField()


class RunOut(Serializer):
    id = serializers.UUIDField()
    kind = serializers.CharField()
    project = serializers.CharField(source="project.ref", allow_null=True, default=None)
    program = serializers.UUIDField(source="program_id", allow_null=True)
    state = serializers.CharField()
    standing = serializers.SerializerMethodField(help_text="Where it stands, in words and numbers")
    exit_class = serializers.CharField()
    exception_type = serializers.CharField()
    exception_line = serializers.IntegerField(allow_null=True)
    exception_file = serializers.CharField()
    manifest_sha256 = serializers.CharField()
    statement_sha256 = serializers.CharField()
    output_release = serializers.SerializerMethodField(
        help_text="State of the outputs' release, if there are outputs to release"
    )
    created_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField(allow_null=True)

    def get_standing(self, run: Run) -> dict[str, Any]:
        return queries.standing(run).__dict__

    def get_output_release(self, run: Run) -> dict[str, str] | None:
        release = getattr(run, "output_release", None)
        return {"id": str(release.pk), "state": release.state} if release else None


class RunDetailOut(RunOut):
    unmet = serializers.SerializerMethodField(help_text="Unmet conditions of a waiting run")
    outputs = serializers.SerializerMethodField(help_text="Outputs of a rehearsal, for the project's members")
    cost = serializers.SerializerMethodField(
        help_text="What the run may cost and did cost, and its project's totals, in pence; null is not known"
    )

    def get_cost(self, run: Run) -> dict[str, Any]:
        return spending.cost_of(run)

    def get_unmet(self, run: Run) -> list[dict[str, str]]:
        return [c.as_dict() for c in gate.unmet_for_run(run, now())] if run.state == "waiting" else []

    def get_outputs(self, run: Run) -> list[dict[str, Any]]:
        user = self.context["request"].user
        if not permissions.can_read_rehearsal(user, run):
            return []
        return [
            {"id": str(o.pk), "path": o.path, "size": o.size, "sha256": o.sha256} for o in run.outputs.all()
        ]


class RunIn(Serializer):
    submission = serializers.CharField(max_length=64, required=False, default="", allow_blank=True)
    size = serializers.CharField(
        max_length=40,
        required=False,
        default="",
        allow_blank=True,
        help_text="Size of the machine, among those that the project may choose; empty for the smallest that fits",
    )


class DecisionIn(Serializer):
    dataset = serializers.CharField(help_text="Short name or id")
    approve = serializers.BooleanField()
    reason = serializers.CharField(max_length=2000, required=False, default="", allow_blank=True)


class FileOut(Serializer):
    id = serializers.UUIDField()
    path = serializers.CharField()
    size = serializers.IntegerField()
    sha256 = serializers.CharField()
    media_type = serializers.CharField()


class CheckOut(Serializer):
    id = serializers.UUIDField()
    run = serializers.UUIDField(source="run_id")
    project = serializers.CharField(source="run.project.ref")
    program = serializers.CharField(source="run.program.name")
    state = serializers.CharField()
    files = FileOut(many=True, source="run.outputs")
    created_at = serializers.DateTimeField()


class CheckIn(Serializer):
    decision = serializers.ChoiceField(choices=OutputCheck.Decision.choices)
    comment = serializers.CharField(max_length=2000, required=False, default="", allow_blank=True)


def _read(kind: type[Serializer], request: Request) -> dict[str, Any]:
    body = kind(data=request.data)
    body.is_valid(raise_exception=True)
    return dict(body.validated_data)


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
        data = _read(ProgramIn, request)
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
        data = _read(DecisionIn, request)
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
            by=me(request), approval=approval, reason=_read(ReasonIn, request)["reason"]
        )
        return Response(ApprovalOut(approval).data)


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
        asked = _read(RunIn, request)
        run = actions.submit_run(
            by=me(request),
            program=program,
            submission=asked["submission"] or uuid.uuid4().hex,
            size=asked["size"],
        )
        return Response(RunDetailOut(run, context={"request": request}).data, status=201)


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
        actions.cancel_run(by=me(request), run=run, reason=_read(ReasonIn, request)["reason"])
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
        actions.check_outputs(by=me(request), output_release=release, **_read(CheckIn, request))
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
            by=me(request), output_release=release, reason=_read(ReasonIn, request)["reason"]
        )
        return Response(status=204)


urlpatterns = [
    path("projects/<uuid:pk>/programs", Programs.as_view(), name="programs"),
    path("programs/to-decide", ProgramsToDecide.as_view(), name="programs-to-decide"),
    path("programs/<uuid:pk>", ProgramDetail.as_view(), name="program-detail"),
    path("programs/<uuid:pk>/source", ProgramSource.as_view(), name="program-source"),
    path("programs/<uuid:pk>/decisions", ProgramDecision.as_view(), name="program-decide"),
    path("programs/<uuid:pk>/runs", ProgramRuns.as_view(), name="program-run"),
    path("approvals/<uuid:pk>/revoke", ApprovalRevoke.as_view(), name="approval-revoke"),
    path("runs", Runs.as_view(), name="runs"),
    path("runs/<uuid:pk>", RunDetail.as_view(), name="run-detail"),
    path("runs/<uuid:pk>/cancel", RunCancel.as_view(), name="run-cancel"),
    path("runs/<uuid:pk>/log", RunLog.as_view(), name="run-log"),
    path("runs/<uuid:pk>/outputs/<uuid:output_pk>", RunOutput.as_view(), name="run-output"),
    path("runs/<uuid:pk>/package", RunPackage.as_view(), name="run-package"),
    path("checks", Checks.as_view(), name="checks"),
    path("checks/<uuid:pk>", CheckDetail.as_view(), name="check-detail"),
    path("checks/<uuid:pk>/files/<uuid:output_pk>", CheckFile.as_view(), name="check-file"),
    path("checks/<uuid:pk>/revoke", CheckRevoke.as_view(), name="check-revoke"),
]
