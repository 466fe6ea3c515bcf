"""API: the data dictionary of a dataset's next version."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.permissions import me
from apps.core.errors import Invalid
from apps.datasets import actions, permissions, queries
from apps.datasets import dictionary as dictionaries
from apps.datasets.api.parts import REF, ErrorOut, PublicRead


class ChangesOut(serializers.Serializer[Any]):
    dictionary = serializers.JSONField()
    gaps = serializers.ListField(child=serializers.CharField())
    changes = serializers.ListField(child=serializers.CharField())


class DictionaryParser(BaseParser):
    """The dictionary's bytes as they came: the strict reader must see duplicate names and wrong encodings itself."""

    media_type = "*/*"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        data: bytes = stream.read(dictionaries.MAX_BYTES + 1)
        return data


class Dictionary(APIView):
    permission_classes = [PublicRead]
    scopes = {"GET": "read", "PUT": "custody"}
    parser_classes = [DictionaryParser]

    @extend_schema(
        operation_id="dictionary_get",
        summary="The data dictionary for the next version",
        description="Table Schema. The dictionary of the version in use is a member of the dataset.",
        parameters=[REF],
        responses={200: OpenApiTypes.OBJECT, 404: ErrorOut},
        examples=[
            OpenApiExample(
                "Dictionary",
                value={
                    "fields": [
                        {
                            "name": "age",
                            "type": "integer",
                            "description": "Age in completed years",
                            "unit": "years",
                            "constraints": {"minimum": 0, "maximum": 110},
                            "sensitive": False,
                        }
                    ],
                    "missingValues": ["", "NA"],
                },
                response_only=True,
            )
        ],
    )
    def get(self, request: Request, ref: str) -> Response:
        return Response(queries.dataset_by_ref(request.user, ref).dictionary)

    @extend_schema(
        operation_id="dictionary_put",
        summary="Set the data dictionary",
        description="JSON (Table Schema) or CSV with the columns name, type, meaning, unit, min, max, categories (separated by |), sensitive. Answers with what is unsaid and what changes from the version in use.",
        parameters=[REF],
        request={"application/json": OpenApiTypes.OBJECT, "text/csv": OpenApiTypes.STR},
        responses={200: ChangesOut, 403: ErrorOut, 409: ErrorOut, 422: ErrorOut},
        examples=[
            OpenApiExample(
                "One column",
                value={
                    "fields": [
                        {
                            "name": "age",
                            "type": "integer",
                            "description": "Age in completed years",
                            "constraints": {"minimum": 0, "maximum": 110},
                        }
                    ]
                },
                request_only=True,
                media_type="application/json",
            )
        ],
    )
    def put(self, request: Request, ref: str) -> Response:
        dataset = queries.dataset_by_ref(request.user, ref)
        permissions.require_acts_for(request.user, dataset, to="change the data dictionary")
        try:
            new = dictionaries.parse(request.data if isinstance(request.data, bytes) else b"")
        except dictionaries.DictionaryError as error:
            raise Invalid(
                "dictionary",
                "The data dictionary cannot be accepted. Nothing was saved.",
                "Correct each problem listed and send it again.",
                fields={"dictionary": [p.sentence for p in error.problems[:200]]},
            ) from None
        actions.update_dataset(by=me(request), dataset=dataset, dictionary=new)
        current = queries.current_version(dataset)
        return Response(
            {
                "dictionary": dataset.dictionary,
                "gaps": dictionaries.gaps(new),
                "changes": dictionaries.compare(current.dictionary, new) if current else [],
            }
        )


urlpatterns = [
    path("datasets/<str:ref>/dictionary", Dictionary.as_view(), name="dataset-dictionary"),
]
