"""Rows under lock, and what every action writes beside them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from apps.core.errors import Invalid
from apps.core.lifecycle import recorder
from apps.projects.models import EthicsReview, Project


def lock_project(project: Project) -> Project:
    """The project's row as it is now, locked until the transaction ends."""
    return (
        Project.objects.select_for_update(of=("self",))
        .select_related("board", "organisation")
        .get(pk=project.pk)
    )


def lock_review(review: EthicsReview) -> tuple[Project, EthicsReview]:
    """Project and review as they are now, both locked: the project first."""
    project = lock_project(Project.objects.get(versions__review=review.pk))
    locked = (
        EthicsReview.objects.select_for_update(of=("self",))
        .select_related("board", "version__project")
        .get(pk=review.pk)
    )
    locked.version.project = project
    return project, locked


def note(event: str, *, by: object, project: Project, data: Mapping[str, Any] | None = None) -> None:
    """An audit entry about something that is no transition. `data` holds ids and counts, no personal data."""
    recorder()(
        event=event,
        by=by,
        object_type="project",
        object_id=project.pk,
        data=dict(data or {}),
        scope=f"project:{project.pk}",
    )


def token_id(owner: object, submission: uuid.UUID | None) -> uuid.UUID:
    """The id of an object that a form creates: the same for a form sent twice, different for any other.

    It depends on its owner (a person or a project), so nobody can hit upon an object of somebody else.
    """
    return uuid.uuid4() if submission is None else uuid.uuid5(uuid.UUID(str(owner)), str(submission))


def need_text(field: str, value: str, sentence: str, *, limit: int = 5000) -> str:
    """The text, stripped. Raises Invalid where it is empty, too long, or cannot be stored."""
    text = value.strip()
    if not text:
        raise Invalid(
            f"{field}_missing", f"{sentence}.", "It is kept with the record.", fields={field: [sentence]}
        )
    if len(text) > limit:
        too_long = f"Use {limit:,} characters or fewer"
        raise Invalid(f"{field}_too_long", f"{too_long}.", "Shorten the text.", fields={field: [too_long]})
    if "\x00" in text or any("\ud800" <= c <= "\udfff" for c in text):
        bad = "The text contains a character that cannot be stored"
        raise Invalid(
            f"{field}_invalid", f"{bad}.", "Type it again without special characters.", fields={field: [bad]}
        )
    return text
