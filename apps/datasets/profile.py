"""The aggregate profile of a dataset version: what of it is public, and how it is shown.

Written by a profiling run. It is public, so whatever the run wrote is checked and suppressed once more here before
it is stored: small counts are None ("fewer than 10"), the number of rows is rounded to 10.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from strongroom.errors import FormatError
from strongroom.shapes import Checker, exactly, fields, list_of, nullable, text, whole

MAX_COLUMNS = 2000


def _number(value: Any, where: str) -> float | int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FormatError(f"{where} must be a number.")
    return value


def _label(value: Any, where: str) -> Any:
    if isinstance(value, str):
        return text(400, 0)(value, where)
    return value if isinstance(value, bool) else _number(value, where)


def _quantiles(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > 25:
        raise FormatError(f"{where} must be an object of at most 25 quantiles.")
    for name, item in value.items():
        try:
            inside = 0 <= float(name) <= 1
        except ValueError:
            inside = False
        if not inside:
            raise FormatError(f"{where} must name quantiles from 0 to 1.")
        if item is not None:
            _number(item, where)
    return value


def _object(required: dict[str, Checker], optional: dict[str, Checker] | None = None) -> Checker:
    return lambda value, where: fields(value, where, required, optional)


_COUNT = nullable(whole())
_COLUMN = _object(
    {"name": text(100), "type": text(20), "missing": _COUNT},
    {
        "summary": nullable(
            _object({"mean": nullable(_number), "sd": nullable(_number), "quantiles": nullable(_quantiles)})
        ),
        "categories": nullable(list_of(_object({"value": _label, "count": _COUNT}))),
        "histogram": nullable(_object({"edges": list_of(_number, 202), "counts": list_of(_COUNT, 201)})),
    },
)


def publishable(profile: Any, *, threshold: int) -> dict[str, Any]:
    """The profile as it may be published. Raises FormatError where it does not have the agreed shape.

    Counts from 1 to threshold - 1 become None. Where one count of a list is suppressed alone it could be worked out
    from the total, so its smallest neighbour goes with it. With fewer rows than the threshold only the columns' names
    and types remain.
    """
    document = fields(
        profile, "The profile", {"v": exactly(1), "rows": whole(), "columns": list_of(_COLUMN, MAX_COLUMNS)}
    )
    few = document["rows"] < threshold
    return {
        "v": 1,
        "rows": 0 if few else round(document["rows"], -1),
        "columns": [_bare(c) if few else _suppressed(c, threshold) for c in document["columns"]],
    }


def _bare(column: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": column["name"],
        "type": column["type"],
        "missing": None,
        "summary": None,
        "categories": None,
        "histogram": None,
    }


def _suppressed(column: dict[str, Any], threshold: int) -> dict[str, Any]:
    out = {**_bare(column), "summary": column.get("summary"), "missing": _cell(column["missing"], threshold)}
    if (categories := column.get("categories")) is not None:
        counts = _cells([c["count"] for c in categories], threshold)
        out["categories"] = [
            {"value": c["value"], "count": n} for c, n in zip(categories, counts, strict=True)
        ]
    if (histogram := column.get("histogram")) is not None:
        if len(histogram["edges"]) != len(histogram["counts"]) + 1:
            raise FormatError(f"The histogram of column {column['name']!r} needs one edge more than counts.")
        out["histogram"] = {"edges": histogram["edges"], "counts": _cells(histogram["counts"], threshold)}
    return out


def _cell(count: int | None, threshold: int) -> int | None:
    return None if count is None or 0 < count < threshold else count


def _cells(counts: list[int | None], threshold: int) -> list[int | None]:
    out = [_cell(c, threshold) for c in counts]
    if out.count(None) == 1:
        rest = [(n, i) for i, n in enumerate(out) if n]
        if rest:
            out[min(rest)[1]] = None
    return out


@dataclass(frozen=True)
class ColumnView:
    """One column of a profile, ready to be shown. `bars`: (label, count or None); `bins`: (from, to, count or None)."""

    name: str
    type: str
    missing: str
    mean: float | None
    sd: float | None
    quantiles: dict[str, float | None]
    bars: list[tuple[str, int | None]] = field(default_factory=list)
    bins: list[tuple[float, float, int | None]] = field(default_factory=list)


def _short(value: float) -> float | int:
    return value if isinstance(value, int) else float(f"{value:.4g}")


def columns_of(profile: dict[str, Any] | None, *, threshold: int) -> list[ColumnView]:
    """The profile's columns for a page; an absent profile gives none. At most 20 categories are drawn."""
    out = []
    rows = (profile or {}).get("rows") or 0
    for column in (profile or {}).get("columns", []):
        summary = column.get("summary") or {}
        histogram = column.get("histogram") or {"edges": [], "counts": []}
        edges = [_short(e) for e in histogram["edges"]]
        missing = column.get("missing")
        if missing is None:
            said = f"fewer than {threshold}" if rows else "not shown"
        elif rows and missing:
            # Rows are rounded, so the share may come out a little above the whole.
            said = f"{min(100.0, 100 * missing / rows):.1f}%"
        else:
            said = "0%"
        out.append(
            ColumnView(
                name=column["name"],
                type=column["type"],
                missing=said,
                mean=summary.get("mean"),
                sd=summary.get("sd"),
                quantiles=summary.get("quantiles") or {},
                bars=[(str(c["value"]), c["count"]) for c in (column.get("categories") or [])[:20]],
                bins=list(zip(edges[:-1], edges[1:], histogram["counts"], strict=True)),
            )
        )
    return out
