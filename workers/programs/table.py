"""Read a dataset row by row against its data dictionary, and remember what does not fit.

Sentences name columns and rows, never a value: the report goes through the portal, which must not see data. Row
numbers are those of a spreadsheet: the header is row 1.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

MAX_FIELD = 1 << 20
MAX_ROWS_LISTED = 20
WORDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "date": "a date (YYYY-MM-DD)",
    "datetime": "a date and time (ISO 8601)",
}
PLAIN = (str, int, float, bool, Decimal, date, datetime)
TRUE, FALSE = frozenset({"true", "1", "yes", "t", "y"}), frozenset({"false", "0", "no", "f", "n"})


class Unreadable(Exception):
    """The file as a whole cannot be read. `code` is stable; the sentence says what to do."""

    def __init__(self, code: str, sentence: str, row: int | None = None) -> None:
        super().__init__(sentence)
        self.code, self.sentence, self.row = code, sentence, row


@dataclass
class Problem:
    """One kind of misfit in one column: where (the first rows) and how often."""

    code: str
    column: str
    sentence: str
    rows: list[int] = field(default_factory=list)
    count: int = 0

    def seen(self, row: int) -> None:
        self.count += 1
        if len(self.rows) < MAX_ROWS_LISTED:
            self.rows.append(row)

    def as_dict(self) -> dict[str, Any]:
        times = f"{self.count} {'row' if self.count == 1 else 'rows'}"
        return {
            "code": self.code,
            "column": self.column,
            "rows": self.rows,
            "count": self.count,
            "sentence": f"{self.sentence} ({times})" if self.count else self.sentence,
        }


class Column:
    """One dictionary field: turns text or a Parquet value into a Python value, or says what is wrong with it."""

    def __init__(self, spec: dict[str, Any], missing: frozenset[str]) -> None:
        self.name, self.type = spec["name"], spec["type"]
        limits = spec.get("constraints", {})
        self.required = bool(limits.get("required"))
        self.enum = {str(v) for v in limits["enum"]} if limits.get("enum") else None
        self.minimum, self.maximum = self._bound(limits.get("minimum")), self._bound(limits.get("maximum"))
        self.missing_words = missing
        self.sensitive = bool(spec.get("sensitive"))

    def _bound(self, value: Any) -> Any:
        if value is None or self.type not in WORDS or self.type == "boolean":
            return None
        return self.parse(str(value))

    def parse(self, text: str) -> Any:
        """The value, or ValueError."""
        if self.type == "integer":
            if len(text) > 25:
                raise ValueError
            return int(text) if text.lstrip("+-").isdigit() else self._whole(float(text))
        if self.type == "number":
            number = float(text)
            if not math.isfinite(number):
                raise ValueError
            return number
        if self.type == "boolean":
            word = text.strip().lower()
            if word in TRUE:
                return True
            if word in FALSE:
                return False
            raise ValueError
        if self.type == "date":
            return date.fromisoformat(text)
        if self.type == "datetime":
            return datetime.fromisoformat(text)
        return text

    @staticmethod
    def _whole(number: float) -> int:
        if not number.is_integer():
            raise ValueError
        return int(number)

    def read(self, raw: Any) -> tuple[Any, str]:
        """(value or None, code of the problem or "")."""
        if raw is None or (isinstance(raw, float) and math.isnan(raw)):
            return None, "missing" if self.required else ""
        if not isinstance(raw, PLAIN):  # Parquet also holds lists, bytes, structures
            return None, "type"
        if (
            self.type == "date"
            and isinstance(raw, datetime)
            and raw.time() == time.min
            and raw.tzinfo is None
        ):
            raw = raw.date()  # how pandas writes a date
        text = raw if isinstance(raw, str) else str(raw)
        if text in self.missing_words:
            return None, "missing" if self.required else ""
        try:
            value = self.parse(text)
        except ValueError:
            return None, "type"
        if self.enum is not None and text not in self.enum and str(value) not in self.enum:
            return None, "category"
        try:
            if self.minimum is not None and value < self.minimum:
                return None, "minimum"
            if self.maximum is not None and value > self.maximum:
                return None, "maximum"
        except TypeError:  # an aware and a naive time
            return None, "type"
        return value, ""

    def sentence(self, code: str) -> str:
        return {
            "missing": f"“{self.name}” must not be empty, and is",
            "type": f"“{self.name}” must be {WORDS.get(self.type, 'text')}, and is not",
            "category": f"“{self.name}” holds a category that the data dictionary does not list",
            "minimum": f"“{self.name}” is below the smallest value that the data dictionary allows",
            "maximum": f"“{self.name}” is above the largest value that the data dictionary allows",
        }[code]


class Table:
    """One input of the run with its dictionary. Iterate `rows()` once; `problems` is complete after it."""

    def __init__(self) -> None:
        folder = Path(os.environ["STRONGROOM_INPUTS"])
        index = json.loads((folder / "index.json").read_text())
        (self.name, entry), *rest = index.items()
        if rest:
            raise ValueError("a built-in program reads exactly one dataset")
        self.path, self.media_type, self.dictionary = (
            Path(entry["path"]),
            entry["media_type"],
            entry["dictionary"],
        )
        missing = frozenset(self.dictionary.get("missingValues", [""]))
        self.columns = [Column(spec, missing) for spec in self.dictionary["fields"]]
        self.problems: dict[tuple[str, str], Problem] = {}
        self.count = 0

    def rows(self) -> Iterator[list[Any]]:
        """Every row as values in the dictionary's order; None where missing or misfit. Raises Unreadable."""
        source = self._csv() if self.media_type == "text/csv" else self._parquet()
        for number, raw in source:
            values = []
            for column, cell in zip(self.columns, raw, strict=True):
                value, code = column.read(cell)
                if code:
                    self._problem(code, column).seen(number)
                values.append(value)
            self.count += 1
            yield values
        if self.count == 0:
            raise Unreadable(
                "empty", "The file has no rows. Upload a file with a header and at least one row."
            )

    def _problem(self, code: str, column: Column) -> Problem:
        return self.problems.setdefault(
            (code, column.name), Problem(code, column.name, column.sentence(code))
        )

    def _header(self, names: list[str]) -> None:
        expected = [column.name for column in self.columns]
        if names == expected:
            return
        absent = [name for name in expected if name not in names]
        surplus = len([name for name in names if name not in expected])
        said = []
        if absent:
            said.append("it lacks " + ", ".join(f"“{name}”" for name in absent[:10]))
        if surplus:
            said.append(
                f"it has {surplus} {'column' if surplus == 1 else 'columns'} that the dictionary does not list"
            )
        if not said:
            said.append("the columns stand in another order")
        raise Unreadable(
            "header",
            f"The header is not that of the data dictionary: {'; '.join(said)}. "
            "Make the file's columns and the dictionary agree, in the same order, and upload again.",
            1,
        )

    def _csv(self) -> Iterator[tuple[int, list[str]]]:
        csv.field_size_limit(MAX_FIELD)
        with self.path.open("rb") as binary:
            if binary.read(4) == b"PAR1":
                raise Unreadable("not_csv", "The file is Parquet, not CSV. Upload it as Parquet.", None)
        row = 1
        try:
            with self.path.open(encoding="utf-8-sig", newline="", errors="strict") as text:
                reader = csv.reader(_without_nul(text), strict=True)
                try:
                    self._header(next(reader))
                except StopIteration:
                    raise Unreadable(
                        "empty", "The file is empty. Upload a file with a header and rows.", 1
                    ) from None
                width = len(self.columns)
                for row, cells in enumerate(reader, start=2):
                    if len(cells) != width:
                        raise Unreadable(
                            "width",
                            f"Row {row} has {len(cells)} fields where the header has {width}. "
                            "Look for a missing or surplus separator or quotation mark there.",
                            row,
                        )
                    yield row, cells
        except UnicodeDecodeError:
            raise Unreadable(
                "encoding", "The file is not UTF-8. Save it as UTF-8 and upload again.", row
            ) from None
        except csv.Error as error:
            if "field larger" in str(error):
                sentence = f"A field near row {row + 1} is longer than 1 MiB. Look for a quotation mark that is never closed."
                raise Unreadable("huge_field", sentence, row + 1) from None
            raise Unreadable(
                "csv", f"The CSV cannot be read near row {row + 1}: its quotation marks do not pair.", row + 1
            ) from None

    def _parquet(self) -> Iterator[tuple[int, list[Any]]]:
        import pyarrow
        import pyarrow.parquet

        try:
            file = pyarrow.parquet.ParquetFile(self.path)
            self._header(list(file.schema_arrow.names))
            row = 1
            for batch in file.iter_batches(batch_size=10_000):
                for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    row += 1
                    yield row, list(cells)
        except (pyarrow.ArrowException, OSError):
            raise Unreadable(
                "not_parquet", "The file is not Parquet, or is damaged. Write it anew and upload again.", None
            ) from None


def _without_nul(lines: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if "\x00" in line:
            raise Unreadable(
                "nul",
                f"Line {number} holds a NUL byte, so the file is not plain text. Write it anew as CSV.",
                number,
            )
        yield line
