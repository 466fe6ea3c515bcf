"""The quality report of stand-in data, read for its page. A run wrote it: nothing about its shape is taken for granted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from portal.jinja import number

NOT_AVAILABLE = "Not available"


@dataclass(frozen=True)
class Quality:
    """What the page shows. A figure that is missing, or is not one, is said to be not available: never 0, never good."""

    figures: list[list[str]]
    constant: list[str]  # columns in which every real row has the same value
    verbatim: bool  # some stand-in rows are known to equal a real one
    columns: list[list[Any]]  # name and likeness, 0 to 1
    unknown: list[str]  # columns without a readable likeness

    @property
    def missing(self) -> bool:
        return (
            bool(self.unknown) or not self.columns or any(text == NOT_AVAILABLE for _, text in self.figures)
        )


def quality_of(report: object) -> Quality | None:
    """None where there is no report at all."""
    if report is None:
        return None
    found = report if isinstance(report, dict) else {}
    rows, verbatim, seconds = (_number(found, name) for name in ("rows", "verbatim_rows", "seconds"))
    columns, unknown = _columns(found.get("columns"))
    constant = found.get("constant")
    return Quality(
        figures=[
            ["Rows", _said(rows)],
            ["Likeness of columns", _likeness(found)],
            ["Likeness of relationships", _relationships(found)],
            ["Rows that also stand in the real data", _said(verbatim)],
            ["Formal privacy guarantee", "None"],
            ["Made in", f"{_said(seconds)} seconds" if seconds is not None else NOT_AVAILABLE],
        ],
        constant=[name for name in constant if isinstance(name, str)] if isinstance(constant, list) else [],
        verbatim=bool(verbatim),
        columns=columns,
        unknown=unknown,
    )


def _number(found: dict[str, Any], name: str, most: float = math.inf) -> float | int | None:
    """The member if it is a number from 0 to `most` (included, if finite)."""
    value = found.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value if 0 <= value <= most else None


def _said(value: float | int | None) -> str:
    return NOT_AVAILABLE if value is None else number(value)


def _likeness(found: dict[str, Any]) -> str:
    value = _number(found, "shapes", 1)
    return NOT_AVAILABLE if value is None else f"{number(value, 2)} (1 is alike, 0 is not)"


def _relationships(found: dict[str, Any]) -> str:
    if "pairs" in found and found["pairs"] is None:
        return "Fewer than two numeric columns"
    pairs, floor = _number(found, "pairs", 1), _number(found, "pairs_if_independent", 1)
    if pairs is None:
        return NOT_AVAILABLE
    drawn = "not available" if floor is None else number(floor, 2)
    return f"{number(pairs, 2)}; columns drawn independently would score {drawn}"


def _columns(found: object) -> tuple[list[list[Any]], list[str]]:
    columns: list[list[Any]] = []
    unknown: list[str] = []
    for column in found if isinstance(found, list) else []:
        name = column.get("name") if isinstance(column, dict) else None
        if not isinstance(name, str):
            continue
        value = _number(column, "similarity", 1)
        if value is None:
            unknown.append(name)
        else:
            columns.append([name, value])
    return columns, unknown
