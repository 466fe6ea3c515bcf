"""What a project may spend on machines, what it has spent, and what its live runs may still cost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import Sum

from apps.core.clock import now
from apps.core.lifecycle import history
from apps.jobs.costs import estimate, machine_seconds
from apps.jobs.models import ProjectAllowance, Run, RunCost
from apps.jobs.sizes import GIB, Size, default_size, sizes_of
from apps.jobs.states import RunState
from apps.projects.models import Project
from apps.projects.queries import Panel
from strongroom.money import in_pounds

# Starting a machine and removing it, beyond the program's own time.
AROUND = timedelta(minutes=30)


@dataclass(frozen=True)
class Spending:
    """Pence. `spent`: booked since the project's start. `reserved`: what its live runs may cost at most."""

    spent: int
    reserved: int
    budget: int | None
    unpriced_seconds: int

    @property
    def left(self) -> int | None:
        return None if self.budget is None else self.budget - self.spent - self.reserved


def allowed_sizes(project: Project | None, backend: str) -> dict[str, Size]:
    """The sizes that the project may choose on `backend`, by name: the default one, and those it was given."""
    table = sizes_of(backend)
    given = ProjectAllowance.objects.filter(project=project).values_list("sizes", flat=True).first() or []
    default = default_size(table, settings.RUN_LIMITS)
    return {
        name: size
        for name, size in table.items()
        if name in given or (default is not None and name == default.name)
    }


@dataclass(frozen=True)
class Offer:
    """A size that a project may choose. `at_most`: pence of one attempt on it at most; None where its price is not known."""

    size: Size
    at_most: int | None


@dataclass(frozen=True)
class Choice:
    """What a project may choose for a run. `offers`: empty where machines have no sizes; costs are those of the usual time."""

    usual_seconds: int
    longest_seconds: int
    offers: list[Offer]


def choice(project: Project, backend: str) -> Choice:
    """What the project may choose for a run on `backend`."""
    longest = longest_seconds(project)
    usual = usual_seconds(longest)
    offers = [
        Offer(size, at_most(backend, name, limits_for(backend, name, usual)))
        for name, size in allowed_sizes(project, backend).items()
    ]
    return Choice(usual, longest, offers)


def longest_seconds(project: Project | None) -> int:
    """The longest time limit that the project may choose for a run, in seconds."""
    given = ProjectAllowance.objects.filter(project=project).values_list("longest_seconds", flat=True).first()
    usual: int = settings.RUN_LIMITS["wall_seconds"]
    return min(given, max(usual, settings.LONGEST_RUN_SECONDS)) if given else usual


def usual_seconds(longest: int) -> int:
    """The time limit of a run for which none was chosen. longest: what its project may choose."""
    return min(settings.RUN_LIMITS["wall_seconds"], longest)


def size_of(backend: str, chosen: str, limits: dict[str, int]) -> Size | None:
    """The size a run gets: the one chosen, else the smallest that fits. None: none is offered."""
    table = sizes_of(backend)
    return table.get(chosen) if chosen else default_size(table, limits)


def limits_for(backend: str, chosen: str, seconds: int | None = None) -> dict[str, int]:
    """The bounds of a program on the size chosen: half its memory for the program, a quarter to write, all its cores.

    seconds: its time limit, as chosen. Without choices, the installation's own bounds; but for the time, none is below those.
    """
    limits = dict(settings.RUN_LIMITS)
    if seconds is not None:
        more_time = limits["cpu_seconds"] * seconds // limits["wall_seconds"]
        limits |= {"wall_seconds": seconds, "cpu_seconds": max(limits["cpu_seconds"], more_time)}
    size = sizes_of(backend).get(chosen)
    if size is None:
        return limits
    memory = size.memory_gib * GIB
    more = {
        "memory_bytes": memory // 2,
        "disk_bytes": memory // 4,
        "cpu_seconds": limits["wall_seconds"] * size.vcpus,
    }
    return limits | {name: max(limits[name], value) for name, value in more.items()}


def at_most(backend: str, chosen: str, limits: dict[str, int]) -> int | None:
    """Pence that one attempt can cost at most; None where its price is not known."""
    size = size_of(backend, chosen, limits)
    if size is None:
        return None
    return estimate(size, limits["wall_seconds"] + int(AROUND.total_seconds()))


def spending(project: Project, *, without: Run | None = None) -> Spending:
    """The project's books now. `without`: a run whose own reservation is not counted."""
    booked = RunCost.objects.filter(project=project)
    unbooked = Run.objects.filter(
        project=project, cost__isnull=True, attempt__gt=0, machine_gone=False
    ) | Run.objects.filter(project=project, state=RunState.QUEUED)
    if without is not None:
        unbooked = unbooked.exclude(pk=without.pk)
    reserved = (
        at_most(r.backend, r.size, r.manifest.get("limits") or settings.RUN_LIMITS)
        for r in unbooked.distinct()
    )
    allowance = ProjectAllowance.objects.filter(project=project).first()
    return Spending(
        spent=booked.aggregate(n=Sum("pence"))["n"] or 0,
        reserved=sum(pence or 0 for pence in reserved),
        budget=allowance.budget_pence if allowance else None,
        unpriced_seconds=booked.filter(pence__isnull=True).aggregate(n=Sum("seconds"))["n"] or 0,
    )


def budget_fault(project: Project, backend: str, chosen: str, seconds: int | None, run: Run | None) -> str:
    """Why the run does not fit the project's budget: "", "unknown_price" or "spent".

    A run that has had a machine keeps its place: its cost is reserved, and stopping it would save little.
    """
    if run is not None and run.attempt > 0:
        return ""
    books = spending(project, without=run)
    if books.left is None:
        return ""
    cost = at_most(backend, chosen, limits_for(backend, chosen, seconds))
    if cost is None:
        return "" if not sizes_of(backend) else "unknown_price"
    return "" if cost <= books.left else "spent"


def book(run: Run) -> None:
    """Write down what the run's machines cost, once. Its last machine is gone by now."""
    if run.attempt == 0:
        return
    limits = run.manifest.get("limits") or settings.RUN_LIMITS
    size = size_of(run.backend, run.size, limits)
    changes = [(change.to_state, change.at) for change in history(run)]
    seconds = machine_seconds(changes, now())
    RunCost.objects.get_or_create(
        run=run,
        defaults={
            "project": run.project,
            "backend": run.backend,
            "size": size.name if size else "",
            "seconds": seconds,
            "pence_per_hour": size.pence_per_hour if size else None,
            "price_source": size.price_source[:200] if size else "",
            "pence": estimate(size, seconds) if size else None,
        },
    )


def cost_of(run: Run) -> dict[str, Any]:
    """A run's cost for page and API: what it may cost, what it did cost, its project's books. Pence; None: not known."""
    booked = RunCost.objects.filter(run=run).first()
    limits = run.manifest.get("limits") or settings.RUN_LIMITS
    size = size_of(run.backend, run.size, limits)
    books = spending(run.project) if run.project else None
    return {
        "size": size.name if size else "",
        "at_most_pence": at_most(run.backend, run.size, limits),
        "booked_pence": booked.pence if booked else None,
        "seconds": booked.seconds if booked else None,
        "price_source": booked.price_source if booked else (size.price_source if size else ""),
        "project_spent_pence": books.spent if books else None,
        "project_budget_pence": books.budget if books else None,
    }


def project_panel(user: Any, project: Project) -> Panel | None:
    """The project's books, on the project's page; None where nothing was spent and no budget was set."""
    books = spending(project)
    runs = RunCost.objects.filter(project=project)
    if not runs.exists() and books.budget is None:
        return None
    seconds = runs.aggregate(n=Sum("seconds"))["n"] or 0
    rows: list[list[Any]] = [
        ["Runs booked since the project's start", f"{runs.count():,}"],
        ["Time of machines", f"{seconds:,} seconds"],
        ["Cost", _cost(books, seconds)],
    ]
    if books.unpriced_seconds:
        rows.append(["Of that time, without a known price", f"{books.unpriced_seconds:,} seconds"])
    rows += [
        ["Live runs may still cost", in_pounds(books.reserved)],
        ["Budget", "No limit" if books.budget is None else in_pounds(books.budget)],
    ]
    return Panel(heading="Machines", head=["What", "How much"], rows=rows)


def _cost(books: Spending, seconds: int) -> str:
    """In pounds, or that nobody knows: time without a price is not free."""
    unknown = books.unpriced_seconds >= seconds and books.spent == 0
    return (
        "Not known: no machine that was used has a price" if unknown and seconds else in_pounds(books.spent)
    )


def words(run: Run) -> str:
    """The cost of a run in a sentence, for its page."""
    cost = cost_of(run)
    if cost["seconds"] is not None and cost["booked_pence"] is None:
        return f"No price is set for this machine, which was there for {cost['seconds']:,} seconds"
    if cost["seconds"] is not None:
        return f"{in_pounds(cost['booked_pence'])} for {cost['seconds']:,} seconds of a machine"
    return (
        f"at most {in_pounds(cost['at_most_pence'])}"
        if cost["at_most_pence"] is not None
        else "No price is set for this machine"
    )
