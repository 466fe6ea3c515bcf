"""Reads that pages and the API share. Each has a constant number of queries."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core.paginator import Page, Paginator
from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Subquery
from django.urls import reverse

from apps.accounts.models import User
from apps.accounts.permissions import holds
from apps.accounts.roles import Role
from apps.core.errors import NotFound
from apps.core.lifecycle import history
from apps.core.objects import store
from apps.core.tasks import Waiting
from apps.datasets import permissions
from apps.datasets.access_queries import (
    access_waiting,
    active_access,
    current_release,
    datasets_in_use,
    releases_of,
)
from apps.datasets.models import AccessRequest, Dataset, DatasetVersion, Stage1Release
from apps.datasets.search import Found, Search, find
from apps.datasets.states import DATASET, VERSION, DatasetState, ReleaseState, VersionState

PAGE_SIZE = 20


class _Counted(Paginator):
    """A paginator over a list of which only one page was fetched."""

    def __init__(self, rows: Sequence[Any], size: int, total: int) -> None:
        super().__init__(rows, size)
        self._total = total

    @property
    def count(self) -> int:
        return self._total


@dataclass(frozen=True)
class Catalogue:
    """One page of the catalogue with the facets' counts."""

    page: Page[Any]
    found: Found


def catalogue(search: Search, *, page: str | int | None = 1, size: int = PAGE_SIZE) -> Catalogue:
    """The page of published datasets that `search` asks for; a page out of range gives the nearest one."""
    text = str(page or 1)
    number = max(int(text), 1) if text.isascii() and text.isdigit() and len(text) <= 7 else 1
    found = find(search, start=(number - 1) * size, size=size)
    paginator = _Counted([], size, found.total)
    if number > paginator.num_pages:
        number = paginator.num_pages
        found = find(search, start=(number - 1) * size, size=size)
    by_id = {d.pk: d for d in _listed().filter(pk__in=found.ids)}
    rows = [by_id[pk] for pk in found.ids if pk in by_id]
    return Catalogue(Page(rows, number, paginator), found)


def _listed() -> QuerySet[Dataset]:
    accepted = DatasetVersion.objects.filter(dataset=OuterRef("pk"), state=VersionState.ACCEPTED).order_by(
        "-number"
    )
    released = Stage1Release.objects.filter(
        version__dataset=OuterRef("pk"), version__state=VersionState.ACCEPTED, state=ReleaseState.RELEASED
    )
    return (
        Dataset.objects.select_related("custodian")
        .defer("dictionary")
        .annotate(
            rows=Subquery(accepted.values("profile__rows")[:1]),
            current_number=Subquery(accepted.values("number")[:1]),
            has_stand_in=Exists(released),
        )
    )


def current_version(dataset: Dataset) -> DatasetVersion | None:
    """The newest accepted version."""
    return dataset.versions.filter(state=VersionState.ACCEPTED).order_by("-number").first()


def has_stand_in(dataset: Dataset) -> bool:
    """Whether stand-in data of any accepted version is released."""
    return current_release(dataset) is not None


def public_versions(dataset: Dataset) -> list[DatasetVersion]:
    """Accepted versions, newest first: what the public page lists, with their ciphertext hashes."""
    return list(
        dataset.versions.filter(state=VersionState.ACCEPTED)
        .defer("report", "dictionary", "profile")
        .order_by("-number")
    )


def dataset_for(user: User | Any, slug: str) -> Dataset:
    """The dataset with this short name, if the person may know of it. Raises NotFound."""
    dataset = permissions.visible(user).filter(slug=slug).first()
    if dataset is None:
        raise NotFound("dataset")
    return dataset


def dataset_by_ref(user: User | Any, ref: str) -> Dataset:
    """Like `dataset_for`, by short name or id: what the API accepts."""
    try:
        rule = Q(pk=uuid.UUID(ref))
    except ValueError:
        rule = Q(slug=ref)
    dataset = permissions.visible(user).filter(rule).first()
    if dataset is None:
        raise NotFound("dataset")
    return dataset


def version_for(user: User, pk: uuid.UUID | str, *, to: str) -> DatasetVersion:
    """A version for those who act for its custodian. NotFound where the dataset is not visible, else Denied."""
    version = DatasetVersion.objects.select_related("dataset__custodian", "uploaded_by").filter(pk=pk).first()
    if version is None or not permissions.can_view(user, version.dataset):
        raise NotFound("dataset version")
    permissions.require_acts_for(user, version.dataset, to=to)
    return version


def received(version: DatasetVersion) -> int:
    """Bytes of the upload that are stored: where it goes on."""
    return (
        store().size(version.object_name)
        if version.state == VersionState.UPLOADING
        else version.received_size
    )


def mine(user: User) -> QuerySet[Dataset]:
    """Datasets for which the person acts, with counts of versions."""
    accepted = DatasetVersion.objects.filter(dataset=OuterRef("pk"), state=VersionState.ACCEPTED).order_by(
        "-number"
    )
    return (
        permissions.managed(user)
        .select_related("custodian")
        .defer("dictionary")
        .annotate(version_count=Count("versions"), current_number=Subquery(accepted.values("number")[:1]))
        .order_by("title", "pk")
    )


def versions_of(dataset: Dataset) -> list[DatasetVersion]:
    """Every version, newest first, for the custodian."""
    return list(
        dataset.versions.select_related("uploaded_by")
        .defer("dictionary", "profile", "report")
        .order_by("-number")
    )


def requests_to(dataset: Dataset) -> list[AccessRequest]:
    """The newest 50 requests for access to this dataset, for its custodian."""
    return list(dataset.access_requests.select_related("project__organisation").order_by("-created_at")[:50])


def last_reason(obj: Dataset | DatasetVersion) -> str:
    """Why the object came into the state it is in; "" where no reason was due."""
    last = history(obj).last()
    return last.reason if last else ""


def custody_waiting(user: User) -> list[Waiting]:
    """Datasets and uploads of the person's that stand still until they do something. Two queries."""
    if not holds(user, Role.CUSTODIAN):
        return []
    out = []
    managed = permissions.managed(user)
    for dataset in (
        managed.filter(state=DatasetState.DRAFT)
        .order_by("title")
        .only("title", "slug", "state", "dictionary")[:20]
    ):
        note = "Publish it when it is ready" if dataset.dictionary else "Add its data dictionary"
        out.append(
            Waiting(
                "Datasets to finish",
                dataset.title,
                reverse("datasets:manage", args=[dataset.slug]),
                DATASET.labels[dataset.state],
                DATASET.colours[dataset.state],
                note,
            )
        )
    newer = DatasetVersion.objects.filter(dataset=OuterRef("dataset"), number__gt=OuterRef("number"))
    stuck = (
        DatasetVersion.objects.filter(~Exists(newer), dataset__in=managed)
        .exclude(dataset__state=DatasetState.WITHDRAWN)
        .filter(state__in=[VersionState.UPLOADING, VersionState.REFUSED])
        .select_related("dataset")
        .only("number", "state", "dataset__title")
        .order_by("dataset__title")
    )
    for version in stuck[:20]:
        note = (
            "Finish the upload or give it up"
            if version.state == VersionState.UPLOADING
            else "Read why, and upload a corrected version"
        )
        out.append(
            Waiting(
                "Uploads",
                str(version),
                reverse("datasets:version", args=[version.pk]),
                VERSION.labels[version.state],
                VERSION.colours[version.state],
                note,
            )
        )
    return out


def waiting_for(user: User) -> list[Waiting]:
    """What waits for the person in this app."""
    return [*access_waiting(user), *custody_waiting(user)]


def threshold() -> int:
    """Counts below this are not shown."""
    return int(settings.SMALL_CELL_THRESHOLD)


__all__ = [
    "Catalogue",
    "access_waiting",
    "active_access",
    "catalogue",
    "current_release",
    "current_version",
    "custody_waiting",
    "dataset_by_ref",
    "dataset_for",
    "datasets_in_use",
    "has_stand_in",
    "last_reason",
    "mine",
    "public_versions",
    "received",
    "releases_of",
    "requests_to",
    "threshold",
    "version_for",
    "versions_of",
    "waiting_for",
]
