"""What the bench reports: rows with a figure, its aim, and whether the aim was met."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MET, MISSED, NO_AIM, FAILED = "met", "MISSED", "", "NOT MEASURED"


@dataclass(frozen=True)
class Row:
    """One line of the table. `verdict`: met, MISSED, NOT MEASURED, or nothing where there is no aim."""

    part: str
    what: str
    figure: str
    aim: str = ""
    verdict: str = NO_AIM


def judged(part: str, what: str, figure: str, aim: str, *, met: bool) -> Row:
    """A row with an aim."""
    return Row(part, what, figure, aim, MET if met else MISSED)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` (0 to 1) of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def render(rows: Sequence[Row]) -> str:
    """The rows as an aligned text table."""
    head = Row("", "measure", "figure", "aim", "result")
    lines = [(r.part, r.what, r.figure, r.aim, r.verdict) for r in (head, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
