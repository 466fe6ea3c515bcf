"""How a program ended, reduced to what may leave the environment before review.

The allow-list is the point. A program chooses the names of its own exception classes and could spell data with them,
so a type is passed on only if it is a name known beforehand; anything else becomes "ProgramDefinedError". The line is
kept only if the program has that many lines. Never a message.
"""

from __future__ import annotations

import builtins
import json
from dataclasses import dataclass
from pathlib import PurePosixPath

BUILTIN = frozenset(
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
)
LIBRARIES = frozenset({
    "LinAlgError", "AxisError", "ParserError", "EmptyDataError", "MergeError", "UndefinedVariableError", "DtypeWarning",
    "OutOfBoundsDatetime", "IntCastingNaNError", "SpecificationError", "InvalidIndexError", "DataError",
    "NotFittedError", "ConvergenceError", "ConvergenceWarning", "PerfectSeparationError", "PatsyError", "MissingDataError",
    "ValueWarning", "XGBoostError", "ArrowInvalid", "ArrowTypeError", "ArrowKeyError", "ArrowNotImplementedError",
    "JSONDecodeError", "UsageError", "InputRejected", "StrongroomError", "DatasetNotGranted",
})  # fmt: skip
UNKNOWN = "ProgramDefinedError"


@dataclass(frozen=True)
class Exit:
    """exit_class as in the runner protocol; the rest empty unless the program raised."""

    exit_class: str
    exception_type: str = ""
    line: int | None = None
    file: str = ""

    def as_dict(self) -> dict[str, object]:
        return {
            "class": self.exit_class,
            "exception_type": self.exception_type,
            "line": self.line,
            "file": self.file,
        }


def allowed_type(name: object) -> str:
    """The exception type as it may leave."""
    return name if isinstance(name, str) and (name in BUILTIN or name in LIBRARIES) else UNKNOWN


def read_report(raw: bytes, *, lines: dict[str, int]) -> tuple[str, int | None, str]:
    """Parse what the inside wrote. `lines` maps each of the program's own files to its number of lines."""
    try:
        report = json.loads(raw.decode("utf-8")) if raw else {}
    except (ValueError, RecursionError):  # the program may have written it
        report = {}
    if not isinstance(report, dict) or not report:
        return "", None, ""
    file, line = report.get("file"), report.get("line")
    if isinstance(file, str) and file.startswith("cell "):
        known = file if file[5:].isdigit() and int(file[5:]) <= lines.get("cells", 0) else ""
        limit = 10_000
    else:
        known = str(PurePosixPath(file)) if isinstance(file, str) and file in lines else ""
        limit = lines.get(known, 0)
    good_line = (
        line if isinstance(line, int) and not isinstance(line, bool) and known and 0 < line <= limit else None
    )
    return allowed_type(report.get("exception_type")), good_line, known
