"""The profiling run: does the data match its dictionary, and what may the catalogue show of it?

Writes report.json (for the custodian: problems with row numbers) and, if the data match, profile.json (public:
aggregates with small cells suppressed, counts and rows rounded to ten). Columns marked sensitive show no distribution.
Small counts: fewer than THRESHOLD (SDC handbook, threshold rule; ONS "10-5 rule").
"""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy

from workers.programs.table import Column, Table, Unreadable

THRESHOLD = 10
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BINS = 12
MAX_CATEGORIES = 60


def safe_count(count: int) -> int | None:
    """A count as it may be shown: None (suppressed) from 1 to 9, else rounded to the nearest ten."""
    if count == 0:
        return 0
    return None if count < THRESHOLD else round(count, -1)


class Summary:
    """Collects one column."""

    def __init__(self, column: Column) -> None:
        self.column = column
        self.missing = 0
        self.numbers: list[float] = []
        self.categories: Counter[str] = Counter()
        self.numeric = column.type in ("integer", "number") and column.enum is None
        self.categorical = column.enum is not None or column.type == "boolean"

    def add(self, value: Any) -> None:
        if value is None:
            self.missing += 1
        elif self.numeric:
            self.numbers.append(float(value))
        elif self.categorical:
            self.categories[str(value).lower() if isinstance(value, bool) else str(value)] += 1

    def as_dict(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "name": self.column.name,
            "type": self.column.type,
            "missing": safe_count(self.missing),
            "summary": None,
            "categories": None,
            "histogram": None,
        }
        if self.column.sensitive:
            return shown
        if self.numeric and len(self.numbers) >= THRESHOLD * 10:
            values = numpy.asarray(self.numbers)
            low, high = (float(q) for q in numpy.quantile(values, (0.05, 0.95)))
            shown["summary"] = {
                "mean": _rounded(values.mean()),
                "sd": _rounded(values.std(ddof=1)),
                "quantiles": {str(q): _rounded(numpy.quantile(values, q)) for q in QUANTILES},
            }
            # The picture spans the middle nine tenths: smallest and largest values are single persons'.
            if high > low:
                counts, edges = numpy.histogram(
                    values[(values >= low) & (values <= high)], bins=BINS, range=(low, high)
                )
                shown["histogram"] = {
                    "edges": [_rounded(edge) for edge in edges],
                    "counts": [safe_count(int(count)) for count in counts],
                }
        elif self.categorical and len(self.categories) <= MAX_CATEGORIES:
            shown["categories"] = [
                {"value": value, "count": safe_count(count)}
                for value, count in sorted(self.categories.items())
            ]
        return shown


def _rounded(number: float) -> float:
    return float(f"{float(number):.4g}")


def profile(table: Table) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """(report, profile or None if the data do not match)."""
    report: dict[str, Any] = {
        "v": 1,
        "ok": False,
        "rows": 0,
        "problems": [],
        "checked_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    summaries = [Summary(column) for column in table.columns]
    try:
        for values in table.rows():
            for summary, value in zip(summaries, values, strict=True):
                summary.add(value)
    except Unreadable as error:
        rows = [error.row] if error.row else []
        report["problems"] = [
            {"code": error.code, "column": "", "rows": rows, "count": len(rows), "sentence": error.sentence}
        ]
        return report, None
    report["rows"] = table.count
    report["problems"] = [problem.as_dict() for problem in table.problems.values()]
    report["ok"] = not report["problems"]
    if not report["ok"]:
        return report, None
    return report, {
        "v": 1,
        "rows": int(round(table.count, -1)),
        "columns": [summary.as_dict() for summary in summaries],
    }


def main() -> None:
    report, public = profile(Table())
    outputs = Path(os.environ["STRONGROOM_OUTPUTS"])
    (outputs / "report.json").write_text(json.dumps(report))
    if public is not None:
        (outputs / "profile.json").write_text(json.dumps(public))
    found = len(report["problems"])
    print(f"{report['rows']} rows read, {found} problems found")


if __name__ == "__main__":
    main()
