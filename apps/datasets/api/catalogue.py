"""API: searching the catalogue, registering a dataset, reading and changing one."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.authentication import HasScope
from apps.accounts.models import Organisation
from apps.accounts.permissions import me
from apps.core.errors import Invalid
from apps.datasets import actions, permissions, queries
from apps.datasets.api.parts import REF, ErrorOut, PublicRead, valid
from apps.datasets.api.shapes import (
    EXAMPLE,
    CatalogueOut,
    DatasetChange,
    DatasetDetail,
    DatasetIn,
    DatasetListed,
    DatasetOut,
    detail_of,
)
from apps.datasets.search import FACETS, Search


class Datasets(APIView):
    permission_classes = [PublicRead]
    scopes = {"GET": "read", "POST": "custody"}

    @extend_schema(
        operation_id="datasets_search",
        summary="Search the catalogue",
        description="Published datasets. Values of one facet are alternatives; facets narrow each other. Open to everybody.",
        parameters=[
            OpenApiParameter(
                "q", OpenApiTypes.STR, description='Words; "quoted" for a phrase, -word to leave out'
            ),
            *[
                OpenApiParameter(
                    name, OpenApiTypes.STR, many=True, description="Facet; may be given several times"
                )
                for name in FACETS
            ],
            OpenApiParameter("year", OpenApiTypes.INT, description="A year that the data covers"),
            OpenApiParameter("sort", OpenApiTypes.STR, enum=["relevance", "title", "newest"]),
            OpenApiParameter("page", OpenApiTypes.INT),
            OpenApiParameter("page_size", OpenApiTypes.INT, description="At most 200"),
        ],
        responses=CatalogueOut,
        examples=[
            OpenApiExample(
                "One result",
                value={
                    "count": 1,
                    "page": 1,
                    "pages": 1,
                    "facets": {"custodian": [{"value": "rand", "label": "RAND archive", "count": 1}]},
                    "results": [{**EXAMPLE, "rows": 20190, "current_version": 1, "stand_in_available": True}],
                },
                response_only=True,
            )
        ],
    )
    def get(self, request: Request) -> Response:
        asked = request.query_params.get("page_size", "")
        size = min(max(int(asked), 1), 200) if asked.isascii() and asked.isdigit() and len(asked) < 6 else 50
        listed = queries.catalogue(
            Search.from_query(request.query_params), page=request.query_params.get("page"), size=size
        )
        return Response(
            {
                "count": listed.found.total,
                "page": listed.page.number,
                "pages": listed.page.paginator.num_pages,
                "facets": {
                    name: [{"value": v, "label": t or v, "count": n} for v, t, n in rows]
                    for name, rows in listed.found.facets.items()
                },
                "results": DatasetListed(list(listed.page), many=True).data,
            }
        )

    @extend_schema(
        operation_id="datasets_register",
        summary="Register a dataset",
        description="A draft for a custodian; you become its first manager.",
        request=DatasetIn,
        responses={201: DatasetDetail, 403: ErrorOut, 422: ErrorOut},
        examples=[
            OpenApiExample(
                "Register",
                value={
                    "custodian": "rand",
                    "slug": "rand-hie",
                    "title": EXAMPLE["title"],
                    "summary": EXAMPLE["summary"],
                    "personal_data": False,
                    "program_approval": "reviewer",
                },
                request_only=True,
            )
        ],
    )
    def post(self, request: Request) -> Response:
        given = valid(DatasetIn(data=request.data))
        custodian = _custodian(request.user, given.pop("custodian", None))
        dataset = actions.register_dataset(by=me(request), custodian=custodian, **given)
        return Response(detail_of(request, dataset), status=status.HTTP_201_CREATED)


def _custodian(user: Any, slug: str | None) -> Organisation:
    mine = permissions.registers_for(user)
    if slug is None and len(mine) == 1:
        return mine[0]
    found = Organisation.objects.filter(slug=slug, is_active=True).first() if slug else None
    if found is None:
        names = ", ".join(o.slug for o in mine) or "none"
        raise Invalid(
            "custodian",
            "Say for which custodian the dataset is registered.",
            f"You can register for: {names}.",
            fields={"custodian": ["Name an organisation by its slug"]},
        )
    return found


class OneDataset(APIView):
    permission_classes = [PublicRead]
    scopes = {"GET": "read", "PATCH": "custody"}

    @extend_schema(
        operation_id="datasets_get",
        summary="A dataset",
        parameters=[REF],
        responses={200: DatasetDetail, 404: ErrorOut},
        examples=[
            OpenApiExample(
                "A dataset",
                value={
                    **EXAMPLE,
                    "dictionary": {
                        "fields": [{"name": "mdvis", "type": "integer", "sensitive": False}],
                        "missingValues": ["", "NA"],
                    },
                    "profile": None,
                    "versions": [],
                    "stand_in_available": False,
                },
                response_only=True,
            )
        ],
    )
    def get(self, request: Request, ref: str) -> Response:
        return Response(detail_of(request, queries.dataset_by_ref(request.user, ref)))

    @extend_schema(
        operation_id="datasets_change",
        summary="Change a dataset's description",
        parameters=[REF],
        request=DatasetChange,
        responses={200: DatasetDetail, 403: ErrorOut, 409: ErrorOut, 422: ErrorOut},
        examples=[
            OpenApiExample(
                "New title", value={"title": "RAND Health Insurance Experiment, revised"}, request_only=True
            )
        ],
    )
    def patch(self, request: Request, ref: str) -> Response:
        dataset = queries.dataset_by_ref(request.user, ref)
        permissions.require_acts_for(request.user, dataset, to="change this dataset")
        changes = valid(DatasetChange(data=request.data, partial=True))
        if isinstance(request.data, dict) and (
            unknown := sorted(set(request.data) - set(DatasetChange().fields))
        ):
            raise Invalid(
                "unknown_field",
                f"These cannot be changed here: {', '.join(unknown)}.",
                "Send only members that the documentation lists.",
            )
        return Response(
            detail_of(request, actions.update_dataset(by=me(request), dataset=dataset, **changes))
        )


class Mine(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "custody"}

    @extend_schema(
        operation_id="datasets_mine",
        summary="Datasets for which you act",
        responses={200: DatasetOut(many=True)},
        examples=[OpenApiExample("One dataset", value=[EXAMPLE], response_only=True)],
    )
    def get(self, request: Request) -> Response:
        return Response(DatasetOut(queries.mine(me(request)), many=True).data)


urlpatterns = [
    path("datasets", Datasets.as_view(), name="datasets"),
    path("my-datasets", Mine.as_view(), name="my-datasets"),
    path("datasets/<str:ref>", OneDataset.as_view(), name="dataset"),
]
