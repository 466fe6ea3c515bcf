"""Writes on catalogue entries: register, describe, publish, stop, and who may act for the custodian."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import URLValidator
from django.db import IntegrityError, transaction
from guardian.shortcuts import assign_perm, remove_perm

from apps.accounts.models import Organisation, RoleHolding, User
from apps.accounts.permissions import holds
from apps.accounts.roles import ROLES, Role
from apps.core.errors import Conflict, Invalid
from apps.core.lifecycle import begin, recorder, transition
from apps.core.outbox import enqueue
from apps.datasets import dictionary as dictionaries
from apps.datasets.models import Dataset
from apps.datasets.permissions import (
    MANAGE,
    granted,
    left_alone,
    managed,
    managers,
    require_acts_for,
    require_registers,
)
from apps.datasets.states import DatasetState

SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
# Words that are addresses of pages, or file names inside a run.
RESERVED = frozenset(
    {
        "register",
        "versions",
        "new",
        "mine",
        "index",
        "agreements",
        "agreement",
        "access",
        "releases",
        "release",
        "outputs",
    }
)
MAX_KEYWORDS = 20
_SUBMISSIONS = uuid.UUID("5d5f4b5e-0d5c-4b0e-9a39-6d1f1a4f2c11")
_TEXTS = {"title": 200, "summary": 2000, "coverage_place": 200, "source_url": 200, "licence": 200}
EDITABLE = frozenset(
    {*_TEXTS, "keywords", "coverage_from", "coverage_to", "personal_data", "program_approval", "dictionary"}
)


def register_dataset(
    *,
    by: User,
    custodian: Organisation,
    slug: str,
    title: str,
    summary: str,
    personal_data: bool,
    keywords: Iterable[str] = (),
    coverage_place: str = "",
    coverage_from: dt.date | None = None,
    coverage_to: dt.date | None = None,
    source_url: str = "",
    licence: str = "",
    program_approval: str = Dataset.ProgramApproval.REVIEWER,
    dictionary: Mapping[str, Any] | None = None,
    submission: uuid.UUID | None = None,
) -> Dataset:
    """Register a dataset as a draft; the person who does it becomes its first manager.

    slug: the name in strongroom.load("..."), for good. submission: a form's token; the same person sending it twice
    gets the first dataset back. Raises Invalid (fields), Denied.
    """
    require_registers(by, custodian)
    # Derived, not taken: a token from a browser must not choose an id that means something to somebody else.
    pk = uuid.uuid5(_SUBMISSIONS, f"{by.pk}:{submission}") if submission else uuid.uuid4()
    values = _clean(
        {
            "title": title,
            "summary": summary,
            "keywords": keywords,
            "coverage_place": coverage_place,
            "coverage_from": coverage_from,
            "coverage_to": coverage_to,
            "source_url": source_url,
            "licence": licence,
            "personal_data": personal_data,
            "program_approval": program_approval,
            "dictionary": dictionary or {},
        },
        slug=slug,
    )
    dataset = Dataset(id=pk, slug=slug, custodian=custodian, created_by=by, **values)
    try:
        with transaction.atomic():
            dataset.save(force_insert=True)
            begin(dataset, by=by, data={"slug": slug, "personal_data": personal_data})
            assign_perm(MANAGE, by, dataset)
    except IntegrityError:
        if submission and (first := Dataset.objects.filter(pk=pk).first()):
            return first
        raise _invalid(slug=["Another dataset already has this short name. Choose another one"]) from None
    return dataset


def update_dataset(*, by: User, dataset: Dataset, **changes: Any) -> Dataset:
    """Change what the catalogue says. `changes`: members of EDITABLE. The short name never changes.

    A new dictionary holds from the next version on. Raises Invalid (fields), Conflict (withdrawn), Denied.
    """
    require_acts_for(by, dataset, to="change this dataset")
    if unknown := sorted(set(changes) - EDITABLE):
        raise Invalid(
            "unknown_field",
            f"These cannot be changed: {', '.join(unknown)}.",
            f"What can be: {', '.join(sorted(EDITABLE))}.",
        )
    with transaction.atomic():
        row = Dataset.objects.select_for_update().get(pk=dataset.pk)
        _refuse_withdrawn(row)
        merged = {name: changes.get(name, getattr(row, name)) for name in EDITABLE}
        cleaned = _clean(merged, slug=row.slug)
        changed = sorted(name for name in EDITABLE if cleaned[name] != getattr(row, name))
        if "dictionary" in changed and row.dictionary and not cleaned["dictionary"]:
            raise _invalid(
                dictionary=["The data dictionary cannot be taken away. Replace it with another one"]
            )
        if "personal_data" in changed and not cleaned["personal_data"] and row.versions.exists():
            raise _invalid(
                personal_data=[
                    "Data was already uploaded as personal data, so this answer can no longer become “no”. Register another dataset"
                ]
            )
        if changed:
            Dataset.objects.filter(pk=row.pk).update(**{name: cleaned[name] for name in changed})
            data: dict[str, Any] = {"changed": changed}
            if "dictionary" in changed:
                data["dictionary"] = dictionaries.digest(cleaned["dictionary"])
            recorder()(
                event="dataset.changed",
                by=by,
                object_type="dataset",
                object_id=row.pk,
                data=data,
                scope=f"dataset:{row.pk}",
            )
            if {"personal_data", "program_approval"} & set(changed):
                enqueue("recheck_runs", row.pk)
    for name in EDITABLE:
        setattr(dataset, name, cleaned[name])
    return dataset


def publish_dataset(*, by: User, dataset: Dataset) -> Dataset:
    """Put a draft into the public catalogue. Needs a data dictionary. Raises Invalid, Conflict, Denied."""
    require_acts_for(by, dataset, to="publish this dataset")
    with transaction.atomic():
        row = Dataset.objects.select_for_update().get(pk=dataset.pk)
        if row.state == DatasetState.SUSPENDED:
            raise Conflict(
                "suspended", "This dataset is suspended, not a draft.", "Resume it, with a reason, instead."
            )
        if not row.dictionary.get("fields"):
            raise Invalid(
                "dictionary_missing",
                "The dataset has no data dictionary yet, so a reader could not tell what is in it.",
                "Add the data dictionary, then publish.",
                fields={"dictionary": ["Add a data dictionary before publishing"]},
            )
        transition(
            row, DatasetState.PUBLISHED, by=by, data={"dictionary": dictionaries.digest(row.dictionary)}
        )
    dataset.state = row.state
    return dataset


def suspend_dataset(*, by: User, dataset: Dataset, reason: str) -> Dataset:
    """Stop every use of the dataset at once, until resumed. Live runs on it are cancelled. Raises Invalid, Conflict, Denied."""
    return _stop(by, dataset, DatasetState.SUSPENDED, reason, "suspend this dataset")


def withdraw_dataset(*, by: User, dataset: Dataset, reason: str) -> Dataset:
    """End every use of the dataset, for good. Live runs on it are cancelled. Raises Invalid, Conflict, Denied."""
    return _stop(by, dataset, DatasetState.WITHDRAWN, reason, "withdraw this dataset")


def resume_dataset(*, by: User, dataset: Dataset, reason: str) -> Dataset:
    """Allow the use of a suspended dataset again. Raises Invalid, Conflict, Denied."""
    require_acts_for(by, dataset, to="resume this dataset")
    if dataset.state == DatasetState.DRAFT:
        raise Conflict(
            "wrong_state",
            "This dataset is a draft; only a suspended one can be resumed.",
            "Publish it instead.",
        )
    return _stop(by, dataset, DatasetState.PUBLISHED, reason, "resume this dataset")


def _stop(by: User, dataset: Dataset, to: DatasetState, reason: str, what: str) -> Dataset:
    require_acts_for(by, dataset, to=what)
    with transaction.atomic():
        transition(dataset, to, by=by, reason=reason)
        # Resuming too: runs that waited for it may go on.
        enqueue("recheck_runs", dataset.pk)
    return dataset


def add_manager(*, by: User, dataset: Dataset, user: User) -> None:
    """Let another custodian of the same organisation act for the custodian on this dataset. Raises Invalid, Denied."""
    require_acts_for(by, dataset, to="add a manager")
    if not holds(user, Role.CUSTODIAN, dataset.custodian):
        raise _invalid(
            email=[
                f"{user.name} does not hold the role “{ROLES[Role.CUSTODIAN].label}” in {dataset.custodian.name}. Ask the operator to grant it first"
            ]
        )
    with transaction.atomic():
        Dataset.objects.select_for_update().get(pk=dataset.pk)
        if granted(user, dataset):
            return
        assign_perm(MANAGE, user, dataset)
        _record_manager("dataset.manager_added", by, dataset, user)


def remove_manager(*, by: User, dataset: Dataset, user: User) -> None:
    """Take the grant back. Somebody who can act must remain. Raises Conflict, Denied."""
    require_acts_for(by, dataset, to="remove a manager")
    with transaction.atomic():
        Dataset.objects.select_for_update().get(pk=dataset.pk)
        left = [
            m for m in managers(dataset) if m.pk != user.pk and holds(m, Role.CUSTODIAN, dataset.custodian)
        ]
        if not left:
            raise Conflict(
                "last_manager",
                f"{user.name} is the last person who can act for this dataset.",
                "Add another manager first.",
            )
        if not granted(user, dataset):
            return
        remove_perm(MANAGE, user, dataset)
        _record_manager("dataset.manager_removed", by, dataset, user)


def keep_managed(holding: RoleHolding) -> None:
    """A custodian's role is not taken back while datasets have nobody else who could stop their use. Raises Conflict.

    Asked by accounts before it takes a role back. Closing an account asks nobody: an incident does not wait, and
    opening the account again undoes it.
    """
    if holding.role != Role.CUSTODIAN:
        return
    own = managed(holding.user).filter(custodian=holding.organisation).exclude(state=DatasetState.WITHDRAWN)
    # The locks of `remove_manager`, so that two managers who leave at once see each other.
    locked = [dataset.pk for dataset in own.select_for_update(of=("self",)).only("pk").order_by("pk")]
    alone = left_alone(holding.user, holding.organisation, locked)
    if alone:
        first = f"“{alone[0]}”" + (f" and {len(alone) - 1} more" if len(alone) > 1 else "")
        raise Conflict(
            "last_manager",
            f"{holding.user.name} is the last person who can act for {first}, so nobody could stop the use of that data any more.",
            "Let them add another custodian of the organisation as a manager first, or withdraw the data.",
        )


def _record_manager(event: str, by: User, dataset: Dataset, user: User) -> None:
    recorder()(
        event=event,
        by=by,
        object_type="dataset",
        object_id=dataset.pk,
        data={"user": str(user.pk)},
        scope=f"dataset:{dataset.pk}",
    )


def _refuse_withdrawn(dataset: Dataset) -> None:
    if dataset.state == DatasetState.WITHDRAWN:
        raise Conflict(
            "withdrawn",
            "This dataset was withdrawn, so nothing about it can change any more.",
            "Register a new dataset if the data is needed again.",
        )


def _invalid(**fields: list[str]) -> Invalid:
    first = next(iter(fields.values()))[0]
    return Invalid("invalid", f"{first}.", "Correct what is listed and send it again.", fields=fields)


def _clean(given: Mapping[str, Any], *, slug: str) -> dict[str, Any]:
    """The values as they are stored, or Invalid naming every field at fault."""
    faults: dict[str, list[str]] = {}
    out: dict[str, Any] = {}
    if not isinstance(slug, str) or not SLUG.fullmatch(slug) or not 2 <= len(slug) <= 60:
        faults["slug"] = [
            "The short name must be 2 to 60 small letters, digits and single hyphens, and start with a letter, like rand-hie"
        ]
    elif slug in RESERVED:
        faults["slug"] = [f"“{slug}” has a meaning of its own in this service. Choose another short name"]
    for name, limit in _TEXTS.items():
        value = given[name]
        text = value.strip().replace("\r\n", "\n") if isinstance(value, str) else None
        if text is None or "\x00" in text or len(text) > limit:
            faults[name] = [
                f"{name.replace('_', ' ').capitalize()} must be text of at most {limit:,} characters"
            ]
        elif not text and name in ("title", "summary"):
            faults[name] = [f"Enter a {name}"]
        out[name] = text
    if out["source_url"]:
        try:
            URLValidator(schemes=["http", "https"])(out["source_url"])
        except ValidationError:
            faults["source_url"] = ["The source must be a web address that starts with https://"]
    out["keywords"] = _keywords(given["keywords"], faults)
    for name in ("coverage_from", "coverage_to"):
        out[name] = given[name]
        if given[name] is not None and not isinstance(given[name], dt.date):
            faults[name] = ["This must be a date"]
    if (
        not faults.keys() & {"coverage_from", "coverage_to"}
        and out["coverage_from"]
        and out["coverage_to"]
        and out["coverage_from"] > out["coverage_to"]
    ):
        faults["coverage_to"] = ["The last day covered must not be before the first"]
    out["personal_data"] = given["personal_data"]
    if not isinstance(given["personal_data"], bool):
        faults["personal_data"] = ["Say whether this is data about real people"]
    out["program_approval"] = str(given["program_approval"])
    if out["program_approval"] not in Dataset.ProgramApproval.values:
        faults["program_approval"] = [f"Choose one of {', '.join(Dataset.ProgramApproval.values)}"]
    out["dictionary"] = {}
    if given["dictionary"]:
        try:
            out["dictionary"] = dictionaries.checked(given["dictionary"])
        except dictionaries.DictionaryError as error:
            faults["dictionary"] = [p.sentence for p in error.problems[:50]]
    if faults:
        raise _invalid(**faults)
    return out


def _keywords(given: Any, faults: dict[str, list[str]]) -> list[str]:
    """Keywords without blanks and repeats, in the order given."""
    if isinstance(given, str) or not all(isinstance(k, str) for k in given):
        faults["keywords"] = ["Keywords must be a list of short texts"]
        return []
    words = {k.strip().lower(): k.strip() for k in given if k.strip()}
    if len(words) > MAX_KEYWORDS or any(len(w) > 60 or not w.isprintable() for w in words):
        faults["keywords"] = [f"Give at most {MAX_KEYWORDS} keywords of at most 60 characters each"]
    return list(words.values())
