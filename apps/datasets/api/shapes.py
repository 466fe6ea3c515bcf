"""What the catalogue's API takes and answers."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request

from apps.datasets import queries
from apps.datasets.models import Dataset

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
