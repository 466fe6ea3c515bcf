"""API: the catalogue, a dataset, its dictionary, its state, its managers."""

from __future__ import annotations

import uuid
from typing import Any

from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import serializers, status
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.authentication import HasScope
from apps.accounts.models import Organisation, User
from apps.accounts.permissions import me
from apps.core.errors import Invalid, NotFound
from apps.datasets import actions, permissions, queries
from apps.datasets import dictionary as dictionaries
from apps.datasets.api.parts import ErrorOut, PublicRead, ReasonIn
from apps.datasets.models import Dataset
from apps.datasets.search import FACETS, Search

EXAMPLE = {
    "id": "0b6c1d0e-7d0f-4c7e-9a55-5a5b8d1c2f10",
    "slug": "rand-hie",
    "title": "RAND Health Insurance Experiment",
    "summary": "Visits to a doctor under different insurance plans.",
    "custodian": {"slug": "rand", "name": "RAND archive"},
    "state": "published",
    "keywords": ["health insurance"],
    "coverage_place": "United States",
    "coverage_from": "1974-11-01",
    "coverage_to": "1982-01-31",
    "source_url": "",
    "licence": "public domain",
    "personal_data": False,
    "program_approval": "reviewer",
}


class CustodianOut(serializers.Serializer[Any]):
    slug = serializers.CharField()
    name = serializers.CharField()


class DatasetOut(serializers.Serializer[Any]):
    """What the catalogue says of a dataset."""

    id = serializers.UUIDField()
    slug = serializers.CharField()
    title = serializers.CharField()
    summary = serializers.CharField()
    custodian = CustodianOut()
    state = serializers.CharField()
    keywords = serializers.ListField(child=serializers.CharField())
    coverage_place = serializers.CharField()
    coverage_from = serializers.DateField(allow_null=True)
    coverage_to = serializers.DateField(allow_null=True)
    source_url = serializers.CharField()
    licence = serializers.CharField()
    personal_data = serializers.BooleanField()
    program_approval = serializers.CharField()


class DatasetListed(DatasetOut):
    """A search result. `rows` is rounded to 10 and null while no version is accepted."""

    rows = serializers.IntegerField(allow_null=True)
    current_version = serializers.IntegerField(source="current_number", allow_null=True)
    stand_in_available = serializers.BooleanField(source="has_stand_in")


class VersionListed(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    number = serializers.IntegerField()
    media_type = serializers.CharField()
    size = serializers.IntegerField(source="announced_size")
    ciphertext_sha256 = serializers.CharField()
    created_at = serializers.DateTimeField()


class DatasetDetail(DatasetOut):
    """A dataset with its dictionary, its public profile (small counts are null) and its accepted versions."""

    dictionary = serializers.JSONField()
    profile = serializers.JSONField(allow_null=True)
    versions = VersionListed(many=True)
    stand_in_available = serializers.BooleanField()


class FacetOut(serializers.Serializer[Any]):
    value = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]  # "label" is also an attribute of Field; the metaclass keeps them apart
    count = serializers.IntegerField()


class CatalogueOut(serializers.Serializer[Any]):
    count = serializers.IntegerField()
    page = serializers.IntegerField()
    pages = serializers.IntegerField()
    facets = serializers.DictField(child=FacetOut(many=True))
    results = DatasetListed(many=True)


class DatasetChange(serializers.Serializer[Any]):
    """Members that are left out stay as they are."""

    title = serializers.CharField(max_length=200)
    summary = serializers.CharField(max_length=2000)
    keywords = serializers.ListField(
        child=serializers.CharField(max_length=60), max_length=20, required=False
    )
    coverage_place = serializers.CharField(max_length=200, required=False, allow_blank=True)
    coverage_from = serializers.DateField(required=False, allow_null=True)
    coverage_to = serializers.DateField(required=False, allow_null=True)
    source_url = serializers.CharField(max_length=200, required=False, allow_blank=True)
    licence = serializers.CharField(max_length=200, required=False, allow_blank=True)
    personal_data = serializers.BooleanField()
    program_approval = serializers.ChoiceField(choices=Dataset.ProgramApproval.choices, required=False)


class DatasetIn(DatasetChange):
    """`custodian` is an organisation's slug; may be left out by somebody who is custodian in one organisation only."""

    slug = serializers.CharField(max_length=60)
    custodian = serializers.CharField(max_length=60, required=False)
    dictionary = serializers.JSONField(required=False)
    submission = serializers.UUIDField(
        required=False, help_text="A token of your own: sent twice, it registers once"
    )


class ManagerIn(serializers.Serializer[Any]):
    email = serializers.EmailField()


class ManagerOut(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    name = serializers.CharField()
    email = serializers.EmailField()


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


REF = OpenApiParameter(
    "ref", OpenApiTypes.STR, OpenApiParameter.PATH, description="Short name or id of the dataset"
)


def detail_of(request: Request, dataset: Dataset) -> dict[str, Any]:
    """A dataset as DatasetDetail reads it."""
    version = queries.current_version(dataset)
    plain: dict[str, Any] = dict(DatasetOut(dataset).data)
    return {
        **plain,
        "dictionary": version.dictionary if version else dataset.dictionary,
        "profile": version.profile if version else None,
        "versions": VersionListed(queries.public_versions(dataset), many=True).data,
        "stand_in_available": queries.has_stand_in(dataset),
    }


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
        given = _valid(DatasetIn(data=request.data))
        custodian = _custodian(request.user, given.pop("custodian", None))
        dataset = actions.register_dataset(by=me(request), custodian=custodian, **given)
        return Response(detail_of(request, dataset), status=status.HTTP_201_CREATED)


def _valid(serializer: serializers.Serializer[Any]) -> dict[str, Any]:
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


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
        changes = _valid(DatasetChange(data=request.data, partial=True))
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
        reason = _valid(ReasonIn(data=request.data))["reason"]
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


class Managers(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "custody", "POST": "custody"}

    @extend_schema(
        operation_id="managers_list",
        summary="Who may act for the custodian",
        parameters=[REF],
        responses={200: ManagerOut(many=True), 403: ErrorOut},
        examples=[
            OpenApiExample(
                "One manager",
                value=[{"id": EXAMPLE["id"], "name": "Ada Obi", "email": "ada@example.org"}],
                response_only=True,
            )
        ],
    )
    def get(self, request: Request, ref: str) -> Response:
        dataset = queries.dataset_by_ref(request.user, ref)
        permissions.require_acts_for(request.user, dataset, to="see its managers")
        return Response(ManagerOut(permissions.managers(dataset), many=True).data)

    @extend_schema(
        operation_id="managers_add",
        summary="Let another custodian act",
        parameters=[REF],
        request=ManagerIn,
        responses={200: ManagerOut(many=True), 403: ErrorOut, 422: ErrorOut},
        examples=[OpenApiExample("Add", value={"email": "ada@example.org"}, request_only=True)],
    )
    def post(self, request: Request, ref: str) -> Response:
        dataset = queries.dataset_by_ref(request.user, ref)
        permissions.require_acts_for(request.user, dataset, to="add a manager")
        user = User.objects.filter(
            email__iexact=_valid(ManagerIn(data=request.data))["email"], is_active=True
        ).first()
        if user is None:
            raise Invalid(
                "unknown_person",
                "Nobody with this e-mail address can sign in here.",
                "Check the spelling.",
                fields={"email": ["Nobody with this e-mail address can sign in here"]},
            )
        actions.add_manager(by=me(request), dataset=dataset, user=user)
        return Response(ManagerOut(permissions.managers(dataset), many=True).data)


class OneManager(APIView):
    permission_classes = [HasScope]
    scopes = {"DELETE": "custody"}

    @extend_schema(
        operation_id="managers_remove",
        summary="Take a manager's grant back",
        parameters=[REF],
        responses={204: None, 403: ErrorOut, 404: ErrorOut, 409: ErrorOut},
        examples=[
            OpenApiExample(
                "Last one",
                value={
                    "code": "last_manager",
                    "detail": "Ada Obi is the last person who can act for this dataset.",
                    "remedy": "Add another manager first.",
                },
                response_only=True,
                status_codes=["409"],
            )
        ],
    )
    def delete(self, request: Request, ref: str, pk: uuid.UUID) -> Response:
        dataset = queries.dataset_by_ref(request.user, ref)
        permissions.require_acts_for(request.user, dataset, to="remove a manager")
        user = permissions.managers(dataset).filter(pk=pk).first()
        if user is None:
            raise NotFound("manager of this dataset")
        actions.remove_manager(by=me(request), dataset=dataset, user=user)
        return Response(status=status.HTTP_204_NO_CONTENT)


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
    path("datasets/<str:ref>/dictionary", Dictionary.as_view(), name="dataset-dictionary"),
    path("datasets/<str:ref>/publish", Publish.as_view(), name="dataset-publish"),
    path("datasets/<str:ref>/suspend", Suspend.as_view(), name="dataset-suspend"),
    path("datasets/<str:ref>/resume", Resume.as_view(), name="dataset-resume"),
    path("datasets/<str:ref>/withdraw", Withdraw.as_view(), name="dataset-withdraw"),
    path("datasets/<str:ref>/managers", Managers.as_view(), name="dataset-managers"),
    path("datasets/<str:ref>/managers/<uuid:pk>", OneManager.as_view(), name="dataset-manager"),
]
