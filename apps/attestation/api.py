"""Release policies and key brokers over the API: the same acts as the pages, for those who keep a policy in a file."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.authentication import HasScope
from apps.accounts.permissions import me
from apps.attestation import actions, policies, queries
from apps.attestation.members import lines_of
from apps.attestation.models import ReleasePolicy
from apps.attestation.permissions import require_set_policy
from apps.datasets.actions import set_key_broker
from apps.datasets.api.parts import ErrorOut
from apps.datasets.brokers import admitted
from apps.datasets.models import Dataset
from apps.datasets.queries import dataset_by_ref

REF = OpenApiParameter(
    "ref", OpenApiTypes.STR, OpenApiParameter.PATH, description="Short name or id of the dataset"
)
EXAMPLE = {"v": 1, "types": ["snp"], "images": ["sha256:" + "9f86d081" * 8], "max_age_seconds": 600}


class PolicyIn(serializers.Serializer[Any]):
    """A policy to put in force."""

    policy = serializers.DictField(
        help_text="The document; docs/reference/evidence.md says what each member compares"
    )
    instead_of = serializers.RegexField(
        r"\A[0-9a-f]{64}\Z",
        required=False,
        help_text="Hash of the policy you saw in force; another by now is a 409",
    )


class PreviewIn(serializers.Serializer[Any]):
    """A policy to try."""

    policy = serializers.DictField()


class LineOut(serializers.Serializer[Any]):
    """One member as the page explains it."""

    name = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]  # a Field has a label of its own
    explanation = serializers.CharField()
    values = serializers.ListField(child=serializers.CharField())
    unset = serializers.CharField()


class PolicyOut(serializers.Serializer[Any]):
    """A policy that is or was in force. `number` is null for the portal's default."""

    number = serializers.IntegerField(allow_null=True)
    policy = serializers.DictField()
    sha256 = serializers.CharField()
    set_at = serializers.DateTimeField(allow_null=True)
    set_by = serializers.CharField(allow_null=True)


class PolicyDetail(PolicyOut):
    lines = LineOut(many=True)


class FailedCheckOut(serializers.Serializer[Any]):
    id = serializers.CharField()
    detail = serializers.CharField()


class PreviewOut(serializers.Serializer[Any]):
    """A run's evidence under the policy in force and under the one sent."""

    run = serializers.UUIDField()
    at = serializers.DateTimeField()
    type = serializers.CharField()
    released = serializers.BooleanField()
    before_ok = serializers.BooleanField()
    after_ok = serializers.BooleanField()
    before = FailedCheckOut(many=True)
    after = FailedCheckOut(many=True)


class KeyBrokerIn(serializers.Serializer[Any]):
    """`broker`: empty for this portal's own. `keys`: what `strongroom broker keys` prints."""

    broker = serializers.CharField(max_length=200, allow_blank=True)
    keys = serializers.JSONField(required=False)


class KeyBrokerOut(serializers.Serializer[Any]):
    broker = serializers.CharField(allow_blank=True)
    address = serializers.CharField(allow_blank=True)
    keys = serializers.ListField(child=serializers.DictField())


def _set(row: ReleasePolicy) -> dict[str, Any]:
    return {
        "number": row.number, "policy": row.document, "sha256": row.sha256, "set_at": row.created_at,
        "set_by": row.made_by.name,
    }  # fmt: skip


def _in_force(dataset: Dataset) -> dict[str, Any]:
    rows = queries.history(dataset)
    found = policies.in_force(dataset)
    unset = {
        "number": None,
        "policy": found.to_json(),
        "sha256": found.sha256,
        "set_at": None,
        "set_by": None,
    }
    shown: dict[str, Any] = _set(rows[0]) if rows else unset
    return {**shown, "lines": lines_of(shown["policy"])}


def _dataset(request: Request, ref: str) -> Dataset:
    """For those who act for its custodian. Raises NotFound, Denied."""
    dataset = dataset_by_ref(request.user, ref)
    require_set_policy(request.user, dataset)
    return dataset


class Policy(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "read", "PUT": "custody"}

    @extend_schema(
        operation_id="release_policy",
        summary="The release policy in force, each line explained",
        parameters=[REF],
        responses={200: PolicyDetail, 403: ErrorOut, 404: ErrorOut},
    )
    def get(self, request: Request, ref: str) -> Response:
        return Response(PolicyDetail(_in_force(_dataset(request, ref))).data)

    @extend_schema(
        operation_id="release_policy_put",
        summary="Put a release policy in force",
        description="It counts at once. Runs under way whose evidence it does not accept are stopped. The policy in force, sent again, changes nothing.",
        parameters=[REF],
        request=PolicyIn,
        responses={200: PolicyDetail, 403: ErrorOut, 409: ErrorOut, 422: ErrorOut},
        examples=[OpenApiExample("A policy", value={"policy": EXAMPLE}, request_only=True)],
    )
    def put(self, request: Request, ref: str) -> Response:
        dataset = _dataset(request, ref)
        sent = PolicyIn(data=request.data)
        sent.is_valid(raise_exception=True)
        data = sent.validated_data
        actions.set_policy(
            by=me(request), dataset=dataset, document=data["policy"], instead_of=data.get("instead_of")
        )
        return Response(PolicyDetail(_in_force(dataset)).data)


class Policies(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "read"}

    @extend_schema(
        operation_id="release_policies",
        summary="Every release policy that was set, newest first",
        parameters=[REF],
        responses={200: PolicyOut(many=True), 403: ErrorOut, 404: ErrorOut},
    )
    def get(self, request: Request, ref: str) -> Response:
        return Response(
            PolicyOut([_set(row) for row in queries.history(_dataset(request, ref))], many=True).data
        )


class Preview(APIView):
    permission_classes = [HasScope]
    scopes = {"POST": "custody"}

    @extend_schema(
        operation_id="release_policy_preview",
        summary="How a policy judges the evidence of the last runs",
        description="Changes nothing.",
        parameters=[REF],
        request=PreviewIn,
        responses={200: PreviewOut(many=True), 403: ErrorOut, 422: ErrorOut},
        examples=[OpenApiExample("A policy", value={"policy": EXAMPLE}, request_only=True)],
    )
    def post(self, request: Request, ref: str) -> Response:
        dataset = _dataset(request, ref)
        sent = PreviewIn(data=request.data)
        sent.is_valid(raise_exception=True)
        policy = actions.check_policy(dataset, sent.validated_data["policy"])
        return Response(PreviewOut(queries.preview(dataset, policy), many=True).data)


class KeyBroker(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "read", "PUT": "custody"}

    @extend_schema(
        operation_id="key_broker",
        summary="Who holds the keys of a dataset",
        parameters=[REF],
        responses={200: KeyBrokerOut, 403: ErrorOut, 404: ErrorOut},
    )
    def get(self, request: Request, ref: str) -> Response:
        return Response(_broker(_dataset(request, ref)))

    @extend_schema(
        operation_id="key_broker_put",
        summary="Let a key broker of your own hold the keys of a dataset",
        description="Until the first upload. The operator of the portal must have admitted the broker.",
        parameters=[REF],
        request=KeyBrokerIn,
        responses={200: KeyBrokerOut, 403: ErrorOut, 409: ErrorOut, 422: ErrorOut},
        examples=[OpenApiExample("This portal's own", value={"broker": ""}, request_only=True)],
    )
    def put(self, request: Request, ref: str) -> Response:
        dataset = _dataset(request, ref)
        sent = KeyBrokerIn(data=request.data)
        sent.is_valid(raise_exception=True)
        data = sent.validated_data
        return Response(
            _broker(
                set_key_broker(by=me(request), dataset=dataset, broker=data["broker"], keys=data.get("keys"))
            )
        )


def _broker(dataset: Dataset) -> dict[str, Any]:
    address = admitted().get(dataset.key_broker, "")  # "" too where the operator has taken it off the list
    row = {"broker": dataset.key_broker, "address": address, "keys": dataset.key_broker_keys}
    return dict(KeyBrokerOut(row).data)


urlpatterns = [
    path("datasets/<str:ref>/release-policy", Policy.as_view(), name="release-policy"),
    path("datasets/<str:ref>/release-policies", Policies.as_view(), name="release-policies"),
    path("datasets/<str:ref>/release-policy/preview", Preview.as_view(), name="release-policy-preview"),
    path("datasets/<str:ref>/key-broker", KeyBroker.as_view(), name="key-broker"),
]
