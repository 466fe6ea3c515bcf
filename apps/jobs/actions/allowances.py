"""What a project may spend on machines: set by the operator, on the record."""

from __future__ import annotations

from collections.abc import Sequence

from django.conf import settings
from django.db import transaction

from apps.core.actors import System, require_actor
from apps.core.errors import Invalid
from apps.core.lifecycle import recorder
from apps.jobs.models import ProjectAllowance
from apps.jobs.sizes import sizes_of
from apps.projects.models import Project

_SAME: Sequence[str] = ("same",)
MOST_PENCE = 2_000_000_000


def set_allowance(
    *,
    by: System,
    project: Project,
    sizes: Sequence[str] = _SAME,
    budget_pence: int | None = -1,
    longest_seconds: int | None = -1,
) -> ProjectAllowance:
    """Set the sizes, the budget and the longest time limit of a project; what is not given stays.

    longest_seconds: None for the usual time. Raises Invalid (size_unknown, budget, time_limit).

    By the operator on the portal's host alone (`manage.py set_allowance`), so there is no person's permission to ask for.
    """
    actor = require_actor(by)
    if not isinstance(by, System):
        raise TypeError("an allowance is set from the portal's own machine")
    if sizes is not _SAME:
        offered = {name for backend in settings.RUN_BACKENDS for name in sizes_of(backend)}
        if unknown := sorted(set(sizes) - offered):
            raise Invalid(
                "size_unknown",
                f"No backend of this portal offers the size {', '.join(unknown)}.",
                f"Choose among: {', '.join(sorted(offered)) or 'none is offered'}.",
            )
    if budget_pence is not None and (budget_pence < -1 or budget_pence > MOST_PENCE):
        raise Invalid("budget", "The budget is not an amount that can be kept.", "Give pounds from 0.")
    if longest_seconds not in (None, -1) and not 0 < longest_seconds <= settings.LONGEST_RUN_SECONDS:
        raise Invalid(
            "time_limit",
            f"No run of this portal may take longer than {settings.LONGEST_RUN_SECONDS:,} seconds.",
            "Give a shorter time, or set STRONGROOM_LONGEST_RUN_SECONDS.",
        )
    with transaction.atomic():
        row, _ = ProjectAllowance.objects.select_for_update().get_or_create(
            project=project, defaults={"set_by": actor}
        )
        if sizes is not _SAME:
            row.sizes = sorted(set(sizes))
        if budget_pence != -1:
            row.budget_pence = budget_pence
        if longest_seconds != -1:
            row.longest_seconds = longest_seconds
        row.set_by = actor
        row.save()
        recorder()(
            event="project.allowance_set", by=by, object_type="project", object_id=project.pk,
            scope=f"project:{project.pk}", data={"sizes": row.sizes, "budget_pence": row.budget_pence, "longest_seconds": row.longest_seconds},
        )  # fmt: skip
    return row
