"""What the API of programs, runs and checks takes and gives."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request

from apps.core.clock import now
from apps.datasets.api.parts import ErrorOut
from apps.jobs import gate, permissions, queries, spending
from apps.jobs.models import OutputCheck, Program, Run

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
    time_limit = serializers.IntegerField(
        min_value=1,
        max_value=2**31 - 1,
        required=False,
        default=None,
        allow_null=True,
        help_text="Seconds after which the program is stopped, up to what the project may use; null for the usual time",
    )


class SizeOut(Serializer):
    name = serializers.CharField(source="size.name")
    vcpus = serializers.IntegerField(source="size.vcpus")
    memory_gib = serializers.IntegerField(source="size.memory_gib")
    gpus = serializers.IntegerField(source="size.gpus")
    pence_per_hour = serializers.IntegerField(
        source="size.pence_per_hour", allow_null=True, help_text="Null where the operator gave no price"
    )
    price_source = serializers.CharField(source="size.price_source")
    at_most_pence = serializers.IntegerField(
        source="at_most",
        allow_null=True,
        help_text="What one attempt of the usual time limit costs at most on it; null where not known",
    )


class MachinesOut(Serializer):
    usual_seconds = serializers.IntegerField(help_text="Time limit of a run for which none is chosen")
    longest_seconds = serializers.IntegerField(help_text="The longest time limit that may be chosen")
    sizes = SizeOut(many=True, source="offers", help_text="Empty where machines have no sizes")


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


def read(kind: type[Serializer], request: Request) -> dict[str, Any]:
    body = kind(data=request.data)
    body.is_valid(raise_exception=True)
    return dict(body.validated_data)
