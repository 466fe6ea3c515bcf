"""Make stand-in data: the Gaussian copula of SDV, fitted on the real data, sampled, and reported on.

The result carries no formal guarantee (it is not differentially private). Its columns, types, ranges and categories are
those of the data dictionary. Writes stand-in.csv and report.json; the report is computed on the real data and is for
the custodian only. SDV is under the Business Source License 1.1: see docs/explanation/licences.md.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy
import pandas

from workers.programs.table import Column, Table

SDTYPES = {
    "integer": "numerical",
    "number": "numerical",
    "boolean": "boolean",
    "date": "datetime",
    "datetime": "datetime",
}
MAX_ROWS = 100_000


def metadata_of(columns: list[Column]) -> dict[str, Any]:
    """SDV metadata from the dictionary alone: nothing is detected from the data."""
    described: dict[str, Any] = {}
    for column in columns:
        kind = "categorical" if column.enum is not None or column.type == "string" else SDTYPES[column.type]
        described[column.name] = {"sdtype": kind}
        if kind == "datetime":
            described[column.name]["datetime_format"] = (
                "%Y-%m-%d" if column.type == "date" else "%Y-%m-%dT%H:%M:%S"
            )
    return {"tables": {"table": {"columns": described}}, "relationships": []}


def frame(table: Table) -> pandas.DataFrame:
    """The real data as SDV wants them. Free text is refused: a synthesiser would repeat it word for word."""
    rows = list(table.rows())
    data = pandas.DataFrame(rows, columns=[column.name for column in table.columns])
    for column in table.columns:
        if column.type == "string" and column.enum is None:
            # A dictionary without categories promises nothing about what a text may reveal.
            data[column.name] = "withheld"
        elif column.type in ("integer", "number") and column.enum is None:
            data[column.name] = pandas.to_numeric(data[column.name])
        elif column.type in ("date", "datetime"):
            form = "%Y-%m-%d" if column.type == "date" else "%Y-%m-%dT%H:%M:%S"
            data[column.name] = [
                None if value is None else value.strftime(form) for value in data[column.name]
            ]
        elif column.type == "boolean" and column.enum is None:
            data[column.name] = data[column.name].astype(
                "boolean" if data[column.name].isna().any() else bool
            )
        else:
            data[column.name] = [None if value is None else str(value) for value in data[column.name]]
    return data


def within_dictionary(data: pandas.DataFrame, columns: list[Column]) -> pandas.DataFrame:
    """Clip to the dictionary's ranges and give back its types."""
    for column in columns:
        if column.type in ("integer", "number") and column.enum is None:
            values = pandas.to_numeric(data[column.name]).clip(column.minimum, column.maximum)
            data[column.name] = values.round().astype("Int64") if column.type == "integer" else values
    return data[[column.name for column in columns]]


def similarity(real: pandas.Series, made: pandas.Series, numeric: bool) -> float:
    """1 minus the Kolmogorov-Smirnov (numbers) or total variation (categories) distance: 1 is alike, 0 is not."""
    if numeric:
        a, b = (numpy.sort(pandas.to_numeric(s).dropna().to_numpy(dtype=float)) for s in (real, made))
        if not len(a) or not len(b):
            return 0.0
        at = numpy.concatenate([a, b])
        gap = numpy.abs(
            numpy.searchsorted(a, at, "right") / len(a) - numpy.searchsorted(b, at, "right") / len(b)
        ).max()
        return float(1 - gap)
    p, q = (s.astype(str).value_counts(normalize=True) for s in (real, made))
    return float(1 - p.sub(q, fill_value=0).abs().sum() / 2)


def correlations(data: pandas.DataFrame, names: list[str]) -> Any:
    """Spearman correlations of the numeric columns."""
    return data[names].astype(float).corr("spearman").fillna(0).to_numpy()


def report_on(real: pandas.DataFrame, made: pandas.DataFrame, columns: list[Column]) -> dict[str, Any]:
    """Per-column and pairwise likeness, beside the floor (columns drawn independently), and verbatim copies."""
    numeric = [c.name for c in columns if c.type in ("integer", "number") and c.enum is None]
    shapes = [
        {"name": c.name, "similarity": round(similarity(real[c.name], made[c.name], c.name in numeric), 3)}
        for c in columns
    ]
    pairs: float | None = None
    floor: float | None = None
    if len(numeric) > 1:
        upper = numpy.triu_indices(len(numeric), 1)
        true = correlations(real, numeric)[upper]
        pairs = round(float(1 - numpy.abs(true - correlations(made, numeric)[upper]).mean() / 2), 3)
        floor = round(float(1 - numpy.abs(true).mean() / 2), 3)
    keys = [tuple(map(str, row)) for row in real.itertuples(index=False)]
    known = set(keys)
    copies = sum(tuple(map(str, row)) in known for row in made.itertuples(index=False))
    return {
        "columns": shapes,
        "shapes": round(float(numpy.mean([s["similarity"] for s in shapes])), 3),
        "pairs": pairs,
        "pairs_if_independent": floor,
        "verbatim_rows": copies,
    }


def main() -> None:
    parameters = json.loads(os.environ.get("STRONGROOM_PARAMETERS", "{}"))
    table = Table()
    real = frame(table)
    if table.problems:
        raise ValueError("the data do not match the dictionary any more")
    wanted = min(int(parameters.get("rows") or len(real)), MAX_ROWS)
    warnings.filterwarnings("ignore")
    from sdv.metadata import Metadata
    from sdv.single_table import GaussianCopulaSynthesizer

    started = time.monotonic()
    constant = [c.name for c in table.columns if real[c.name].nunique(dropna=False) <= 1]
    columns = [c for c in table.columns if c.name not in constant]
    metadata = Metadata.load_from_dict(metadata_of(columns))
    # The true smallest and largest values are single persons' values: the dictionary's public bounds are used instead.
    synthesiser = GaussianCopulaSynthesizer(metadata, enforce_min_max_values=False, enforce_rounding=True)
    synthesiser.fit({"table": real[[c.name for c in columns]]})
    made = synthesiser.sample(wanted)["table"]
    for name in constant:
        made[name] = real[name].iloc[0]
    made = within_dictionary(made, table.columns)
    outputs = Path(os.environ["STRONGROOM_OUTPUTS"])
    made.to_csv(outputs / "stand-in.csv", index=False)
    report = {
        "v": 1,
        "method": "gaussian_copula",
        "rows": len(made),
        "real_rows": len(real),
        # Copied from the real data, where every row has the same value: the custodian should know.
        "constant": constant,
        "seconds": round(time.monotonic() - started, 1),
        **report_on(real, made, table.columns),
        "guarantee": "none",
    }
    (outputs / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
