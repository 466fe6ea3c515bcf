"""Starting a project, writing its application, submitting it."""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from collections.abc import Mapping
from typing import Any

import rfc8785
from django.db import connection, transaction
from django.db.models.functions import Length
from django.utils import timezone

from apps.accounts.models import Organisation, User
from apps.core.clock import now
from apps.core.errors import Conflict, Invalid
from apps.core.lifecycle import begin, transition
from apps.projects import application, permissions, policies
from apps.projects.actions.rows import lock_project, need_text, note, token_id
from apps.projects.models import ApplicationVersion, EthicsReview, Membership, Project
from apps.projects.states import ProjectState

# Any fixed number: it only has to differ from the other advisory locks of this database.
REFERENCE_LOCK = 0x5352_5245_4631


def _next_reference() -> str:
    """SR-<year>-<4 digits>, the next one. Never given twice: under a lock until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [REFERENCE_LOCK])
    prefix = f"SR-{timezone.localdate(now()).year}-"
    last = (
        Project.objects.filter(ref__startswith=prefix)
        .annotate(length=Length("ref"))
        .order_by("-length", "-ref")
        .values_list("ref", flat=True)
        .first()
    )
    return f"{prefix}{int(last.removeprefix(prefix)) + 1 if last else 1:04d}"


def start_project(
    *, by: User, title: str, organisation: Organisation, submission: uuid.UUID | None = None
) -> Project:
    """A draft project, led by `by`. The same `submission` sent again gives the project that it made the first time."""
    permissions.require_apply(by, organisation)
    answers = application.clean({"title": need_text("title", title, "Enter a title")}, {})
    pk = token_id(by.pk, submission)
    with transaction.atomic():
        reference = _next_reference()  # from here on no other start can interleave
        made = Project.objects.filter(pk=pk).first()
        if made is not None:
            return made
        project = Project.objects.create(
            pk=pk,
            ref=reference,
            title=answers["title"],
            organisation=organisation,
            answers=answers,
            created_by=by,
        )
        begin(project, by=by, data={"ref": reference, "organisation": str(organisation.pk)})
        Membership.objects.create(
            project=project,
            user=by,
            role=Membership.Role.PRINCIPAL_INVESTIGATOR,
            invited_by=by,
            accepted_at=now(),
        )
        note(
            "project.member_joined",
            by=by,
            project=project,
            data={"role": "principal_investigator", "member": str(by.pk)},
        )
    return project


def save_answers(*, by: User, project: Project, answers: Mapping[str, Any]) -> list[str]:
    """Lay `answers` (by question code) over those of a draft or returned application; an empty answer removes one.

    Returns the codes that changed, in the order of the form. The application may stay incomplete.
    """
    permissions.require_lead(by, project, to="change the application")
    with transaction.atomic():
        locked = lock_project(project)
        if not policies.editable(locked):
            raise Conflict(
                "not_editable",
                "The application cannot be changed now, because it has been submitted or the project has ended.",
                "If something must change, ask the ethics board to return it to you.",
            )
        after = application.clean(answers, locked.answers)
        if application.is_empty(after.get("title")):
            raise Invalid(
                "answers_invalid",
                "Enter a title.",
                "A project needs one.",
                fields={"title": ["Enter the title of the project"]},
            )
        changed = [c for c in application.QUESTIONS if after.get(c) != locked.answers.get(c)]
        if changed:
            locked.answers = after
            locked.title = after.get("title", locked.title)
            locked.save(update_fields=["answers", "title"])
            note("project.answers_saved", by=by, project=locked, data={"questions": changed})
    project.answers, project.title = locked.answers, locked.title
    return changed


def _people(project: Project) -> list[str]:
    members = (
        Membership.objects.filter(project=project, accepted_at__isnull=False, left_at__isnull=True)
        .select_related("user__organisation")
        .order_by("created_at")
    )
    return [
        ", ".join(filter(None, [m.user.name, str(m.user.organisation or ""), Membership.Role(m.role).label]))
        for m in members
    ]


def _board_for(project: Project, board: Organisation) -> Organisation:
    if board.kind != Organisation.Kind.ETHICS_BOARD or not board.is_active:
        sentence = "Choose an ethics board from the list"
        raise Invalid("board_invalid", f"{sentence}.", "Choose another board.", fields={"board": [sentence]})
    if project.board_id is not None and project.board_id != board.pk:
        # A returned application stays where it was: applicants may not go from board to board.
        sentence = f"This application is with {project.board}. Send the new version there too"
        raise Invalid("board_fixed", f"{sentence}.", "Choose that board.", fields={"board": [sentence]})
    return board


def submit_application(
    *, by: User, project: Project, board: Organisation, declared: bool, submission: uuid.UUID | None = None
) -> ApplicationVersion:
    """Freeze the answers as the next version, with their SHA-256, and put them before `board`.

    Raises Invalid where a required answer or the declaration is missing. The same `submission` sent again gives
    the version that it made the first time.
    """
    permissions.require_lead(by, project, to="submit the application")
    pk = token_id(project.pk, submission)
    with transaction.atomic():
        locked = lock_project(project)
        made = ApplicationVersion.objects.filter(pk=pk).first()
        if made is not None:
            return made
        if not policies.editable(locked):
            transition(
                locked, ProjectState.SUBMITTED, by=by
            )  # raises the Conflict that tells where it stands
        if absent := application.missing(locked.answers):
            fields = {q.code: [f"Answer the question “{q.label}”"] for q in absent}
            raise Invalid(
                "incomplete",
                "Some questions are not answered yet: " + "; ".join(q.label for q in absent) + ".",
                "Answer them, then submit.",
                fields=fields,
            )
        ends_on = dt.date.fromisoformat(locked.answers["ends_on"])
        if ends_on <= timezone.localdate(now()):
            sentence = "The end of the project must be in the future"
            raise Invalid(
                "ended",
                f"{sentence}.",
                "Correct it in the section Safe project.",
                fields={"ends_on": [sentence]},
            )
        if declared is not True:
            sentence = "Confirm the declaration"
            raise Invalid(
                "not_declared",
                f"{sentence}.",
                "Read it and tick the box.",
                fields={"declaration": [sentence]},
            )
        chosen = _board_for(locked, board)
        frozen = application.frozen(locked.answers, _people(locked))
        digest = hashlib.sha256(rfc8785.dumps(frozen)).hexdigest()
        number = locked.versions.count() + 1
        version = ApplicationVersion.objects.create(
            pk=pk, project=locked, number=number, answers=frozen, sha256=digest, submitted_by=by
        )
        transition(
            locked,
            ProjectState.SUBMITTED,
            by=by,
            set_fields={
                "board": chosen,
                "starts_on": dt.date.fromisoformat(locked.answers["starts_on"]),
                "ends_on": ends_on,
            },
            data={"version": number, "sha256": digest, "board": str(chosen.pk)},
        )
        review = EthicsReview.objects.create(version=version, board=chosen)
        begin(review, by=by, data={"project": str(locked.pk), "version": number, "sha256": digest})
    return version
