"""API: publishing a dataset, and stopping its use."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_view
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.authentication import HasScope
from apps.accounts.permissions import me
from apps.datasets import actions, permissions, queries
from apps.datasets.api.parts import REF, ErrorOut, ReasonIn, valid
from apps.datasets.api.shapes import DatasetDetail, detail_of


class Publish(APIView):
    permission_classes = [HasScope]
    scopes = {"POST": "custody"}

    @extend_schema(
        operation_id="datasets_publish",
        summary="Publish a dataset",
        parameters=[REF],
        request=None,
        responses={200: DatasetDetail, 403: ErrorOut, 409: ErrorOut, 422: ErrorOut},
        examples=[
            OpenApiExample(
                "Not yet",
                value={
                    "code": "dictionary_missing",
                    "detail": "The dataset has no data dictionary yet, so a reader could not tell what is in it.",
                    "remedy": "Add the data dictionary, then publish.",
                },
                response_only=True,
                status_codes=["422"],
            )
        ],
    )
    def post(self, request: Request, ref: str) -> Response:
        return Response(
            detail_of(
                request,
                actions.publish_dataset(by=me(request), dataset=queries.dataset_by_ref(request.user, ref)),
            )
        )


class _Stop(APIView):
    permission_classes = [HasScope]
    scopes = {"POST": "custody"}
    act: Any

    def post(self, request: Request, ref: str) -> Response:
        dataset = queries.dataset_by_ref(request.user, ref)
        permissions.require_acts_for(request.user, dataset, to="change the state of this dataset")
        reason = valid(ReasonIn(data=request.data))["reason"]
        return Response(detail_of(request, type(self).act(by=me(request), dataset=dataset, reason=reason)))


def _documented(verb: str, summary: str) -> Any:
    post = extend_schema(
        operation_id=f"datasets_{verb}",
        summary=summary,
        parameters=[REF],
        request=ReasonIn,
        responses={200: DatasetDetail, 403: ErrorOut, 409: ErrorOut, 422: ErrorOut},
        examples=[
            OpenApiExample("Reason", value={"reason": "A participant withdrew consent."}, request_only=True)
        ],
    )
    return extend_schema_view(post=post)


@_documented("suspend", "Suspend a dataset: every run on it is cancelled at once")
class Suspend(_Stop):
    act = staticmethod(actions.suspend_dataset)


@_documented("resume", "Resume a suspended dataset")
class Resume(_Stop):
    act = staticmethod(actions.resume_dataset)


@_documented("withdraw", "Withdraw a dataset for good: every run on it is cancelled at once")
class Withdraw(_Stop):
    act = staticmethod(actions.withdraw_dataset)


urlpatterns = [
    path("datasets/<str:ref>/publish", Publish.as_view(), name="dataset-publish"),
    path("datasets/<str:ref>/suspend", Suspend.as_view(), name="dataset-suspend"),
    path("datasets/<str:ref>/resume", Resume.as_view(), name="dataset-resume"),
    path("datasets/<str:ref>/withdraw", Withdraw.as_view(), name="dataset-withdraw"),
]
