"""The data dictionary of a dataset: a strict subset of Frictionless Table Schema, read, checked, compared, shown.

Pure: no database, no network. A dictionary is public and is what a custodian says about the data; nothing in it is
ever derived from the data. Shape (docs/reference/data-dictionary.md):

    {"fields": [{"name", "type", "description", "unit", "constraints": {"minimum", "maximum", "enum", "required"},
                 "sensitive": bool, "public_because": str}], "missingValues": ["", "NA"]}

Unknown members are refused rather than ignored: a misspelt constraint that silently does nothing is worse than none.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from strongroom import strictjson
from strongroom.errors import FormatError

TYPES = ("integer", "number", "string", "boolean", "date", "datetime")
ORDERED = ("integer", "number", "date", "datetime")
MAX_BYTES = 1 << 20
MAX_FIELDS = 2000
MAX_ENUM = 1000
DEFAULT_MISSING = ["", "NA"]
CSV_COLUMNS = ("name", "type", "meaning", "unit", "min", "max", "categories", "sensitive")
CSV_OPTIONAL = ("required", "public_because")
SYNONYMS = {
    "int": "integer",
    "whole": "integer",
    "float": "number",
    "double": "number",
    "decimal": "number",
    "numeric": "number",
    "text": "string",
    "str": "string",
    "category": "string",
    "bool": "boolean",
    "timestamp": "datetime",
}
_FIELD_MEMBERS = {"name", "type", "description", "unit", "constraints", "sensitive", "public_because"}
_CONSTRAINTS = {"minimum", "maximum", "enum", "required"}


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a dictionary. `field` is the column's name, or "" for the document as a whole."""

    field: str
    sentence: str


class DictionaryError(ValueError):
    """A dictionary that cannot be accepted; `problems` lists everything found, not only the first."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(p.sentence for p in problems))
        self.problems = problems


@dataclass(frozen=True)
class Row:
    """One column of the dataset, ready to be shown."""

    name: str
    type: str
    meaning: str
    unit: str
    allowed: str
    required: bool
    sensitive: bool
    public_because: str


def parse(data: bytes) -> dict[str, Any]:
    """Read a dictionary from JSON (Table Schema) or CSV, whichever the first character says. Raises DictionaryError."""
    text = data.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not text:
        raise DictionaryError(
            [Problem("", "The data dictionary is empty. Upload a file or paste its content.")]
        )
    return parse_json(data) if text[:1] in (b"{", b"[") else parse_csv(data)


def parse_json(data: bytes) -> dict[str, Any]:
    """Read a Table Schema from JSON bytes: duplicate names, NaN and unknown members are refused. Raises DictionaryError."""
    try:
        document = strictjson.loads(data.strip(), max_bytes=MAX_BYTES, what="The data dictionary")
    except FormatError as error:
        raise DictionaryError([Problem("", str(error))]) from None
    return checked(document)


def parse_csv(data: bytes) -> dict[str, Any]:
    """Read a dictionary from CSV with the columns of CSV_COLUMNS (categories separated by "|"). Raises DictionaryError."""
    if len(data) > MAX_BYTES:
        raise DictionaryError(
            [
                Problem(
                    "",
                    f"The file is larger than {MAX_BYTES:,} bytes. A dictionary has one row for each column.",
                )
            ]
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DictionaryError(
            [Problem("", "The file is not UTF-8 text. Save it as “CSV UTF-8” and upload it again.")]
        ) from None
    if "\x00" in text:
        raise DictionaryError(
            [Problem("", "The file holds NUL bytes, so it is not a text file. Save it as “CSV UTF-8”.")]
        )
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise DictionaryError(
            [Problem("", f"The file is not valid CSV ({error}). Check its quotation marks.")]
        ) from None
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    missing = [name for name in ("name", "type") if name not in header]
    unknown = [name for name in header if name not in CSV_COLUMNS + CSV_OPTIONAL]
    if missing or unknown or len(set(header)) != len(header):
        said = (
            f"lacks {', '.join(missing)}"
            if missing
            else f"has {', '.join(map(repr, unknown))}"
            if unknown
            else "names a column twice"
        )
        raise DictionaryError(
            [
                Problem(
                    "",
                    f"The first row {said}. It must name these columns: {', '.join(CSV_COLUMNS)} (and may add {', '.join(CSV_OPTIONAL)}).",
                )
            ]
        )
    problems: list[Problem] = []
    fields: list[dict[str, Any]] = []
    for number, cells in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(header):
            problems.append(
                Problem(
                    "",
                    f"Row {number} has more cells than the first row. Put text with commas in quotation marks.",
                )
            )
            continue
        values = dict(zip(header, (cell.strip() for cell in cells), strict=False))
        fields.append(_csv_field(values, number, problems))
    if problems:
        raise DictionaryError(problems)
    return checked({"fields": fields, "missingValues": list(DEFAULT_MISSING)})


def _csv_field(values: dict[str, str], number: int, problems: list[Problem]) -> dict[str, Any]:
    name, kind = values.get("name", ""), values.get("type", "").lower()
    field: dict[str, Any] = {"name": name, "type": kind}
    if values.get("meaning"):
        field["description"] = values["meaning"]
    for member in ("unit", "public_because"):
        if values.get(member):
            field[member] = values[member]
    constraints: dict[str, Any] = {}
    texts = [("minimum", values.get("min", "")), ("maximum", values.get("max", ""))]
    texts += [("enum", part.strip()) for part in values.get("categories", "").split("|") if part.strip()]
    for member, text in texts:
        if not text:
            continue
        try:
            value = _typed(kind, text)
        except ValueError:
            problems.append(
                Problem(name, f"Row {number}, column “{name}”: “{text[:40]}” is not of type {kind}.")
            )
            continue
        if member == "enum":
            constraints.setdefault("enum", []).append(value)
        else:
            constraints[member] = value
    for member in ("sensitive", "required"):
        said = values.get(member, "").lower()
        if said not in ("", "yes", "no", "true", "false", "1", "0", "y", "n"):
            problems.append(
                Problem(
                    name,
                    f"Row {number}, column “{name}”: write yes or no under “{member}”, not “{said[:40]}”.",
                )
            )
        elif said in ("yes", "true", "1", "y"):
            if member == "required":
                constraints["required"] = True
            else:
                field["sensitive"] = True
    if constraints:
        field["constraints"] = constraints
    return field


def _typed(kind: str, text: str) -> Any:
    if kind == "integer":
        value = int(text)
        if abs(value) > strictjson.MAX_INTEGER:
            raise ValueError(text)
        return value
    if kind == "number":
        real = float(text)
        if not math.isfinite(real):
            raise ValueError(text)
        return int(real) if real.is_integer() and abs(real) < strictjson.MAX_INTEGER else real
    return text


def checked(document: Any) -> dict[str, Any]:
    """The dictionary in its plain form (defaults left out, members in a fixed order). Raises DictionaryError."""
    problems = list(problems_of(document))
    if problems:
        raise DictionaryError(problems)
    fields = []
    for given in document["fields"]:
        field: dict[str, Any] = {"name": given["name"], "type": given["type"]}
        for member in ("description", "unit", "public_because"):
            if given.get(member, "").strip():
                field[member] = given[member].strip()
        constraints = {
            k: v for k, v in given.get("constraints", {}).items() if not (k == "required" and v is False)
        }
        if constraints:
            field["constraints"] = constraints
        field["sensitive"] = bool(given.get("sensitive", False))
        fields.append(field)
    return {"fields": fields, "missingValues": list(document.get("missingValues", DEFAULT_MISSING))}


def problems_of(document: Any) -> Iterator[Problem]:
    """Everything that keeps `document` from being a dictionary, each as a sentence that names the column."""
    if not isinstance(document, dict):
        yield Problem("", "The data dictionary must be a JSON object with the member “fields”.")
        return
    if unknown := sorted(set(document) - {"fields", "missingValues"}):
        yield Problem(
            "",
            f"The dictionary has members that are not known here: {', '.join(unknown)}. Known: fields, missingValues.",
        )
    yield from _missing_values(document.get("missingValues", DEFAULT_MISSING))
    fields = document.get("fields")
    if not isinstance(fields, list) or not fields:
        yield Problem("", "The dictionary must list at least one column under “fields”.")
        return
    if len(fields) > MAX_FIELDS:
        yield Problem(
            "", f"The dictionary lists {len(fields):,} columns; at most {MAX_FIELDS:,} are possible."
        )
        return
    seen: set[str] = set()
    for number, field in enumerate(fields, start=1):
        if not isinstance(field, dict):
            yield Problem("", f"Column {number} must be an object with at least a name and a type.")
            continue
        name = field.get("name")
        if not isinstance(name, str) or not name.strip():
            yield Problem("", f"Column {number} has no name.")
            continue
        if name != name.strip() or len(name) > 100 or any(not c.isprintable() for c in name):
            yield Problem(
                name, f"Column {number}: a name has 1 to 100 printable characters and no space at either end."
            )
        if name in seen:
            yield Problem(name, f"Column “{name}” is listed twice. Keep one of them.")
        seen.add(name)
        yield from _field_problems(name, field)


def _missing_values(values: Any) -> Iterator[Problem]:
    fine = (
        isinstance(values, list)
        and len(values) <= 20
        and all(isinstance(v, str) and len(v) <= 40 for v in values)
    )
    if not fine or len(set(values)) != len(values):
        yield Problem(
            "", '“missingValues” must be a list of at most 20 different short texts, such as ["", "NA"].'
        )


def _field_problems(name: str, field: dict[str, Any]) -> Iterator[Problem]:
    kind = field.get("type")
    if unknown := sorted(set(field) - _FIELD_MEMBERS):
        yield Problem(
            name,
            f"Column “{name}” has members that are not known here: {', '.join(unknown)}. Known: {', '.join(sorted(_FIELD_MEMBERS))}.",
        )
    for member, limit in (("description", 1000), ("unit", 60), ("public_because", 500)):
        value = field.get(member, "")
        if not isinstance(value, str) or len(value) > limit or "\x00" in value:
            yield Problem(name, f"Column “{name}”: “{member}” must be text of at most {limit:,} characters.")
    if not isinstance(field.get("sensitive", False), bool):
        yield Problem(name, f"Column “{name}”: “sensitive” must be true or false.")
    if kind not in TYPES:
        hint = f" Did you mean “{SYNONYMS[kind]}”?" if isinstance(kind, str) and kind in SYNONYMS else ""
        yield Problem(name, f"Column “{name}”: the type must be one of {', '.join(TYPES)}.{hint}")
        return
    constraints = field.get("constraints", {})
    if not isinstance(constraints, dict):
        yield Problem(name, f"Column “{name}”: “constraints” must be an object.")
        return
    if unknown := sorted(set(constraints) - _CONSTRAINTS):
        yield Problem(
            name,
            f"Column “{name}” has constraints that are not known here: {', '.join(unknown)}. Known: {', '.join(sorted(_CONSTRAINTS))}.",
        )
    if not isinstance(constraints.get("required", False), bool):
        yield Problem(name, f"Column “{name}”: “required” must be true or false.")
    yield from _range_problems(name, kind, constraints)
    if "enum" in constraints:
        yield from _enum_problems(name, kind, constraints["enum"])


def _range_problems(name: str, kind: str, constraints: dict[str, Any]) -> Iterator[Problem]:
    ends = {member: constraints[member] for member in ("minimum", "maximum") if member in constraints}
    if ends and kind not in ORDERED:
        yield Problem(
            name,
            f"Column “{name}” is of type {kind}, which has no minimum or maximum. List its categories instead.",
        )
        return
    wrong = [member for member, value in ends.items() if not _is(kind, value)]
    for member in wrong:
        yield Problem(name, f"Column “{name}”: the {member} must be of type {kind}{_example(kind)}.")
    if len(ends) == 2 and not wrong and _order(kind, ends["minimum"]) > _order(kind, ends["maximum"]):
        yield Problem(
            name,
            f"Column “{name}”: the minimum ({ends['minimum']}) is above the maximum ({ends['maximum']}).",
        )


def _enum_problems(name: str, kind: str, values: Any) -> Iterator[Problem]:
    if kind == "boolean":
        yield Problem(name, f"Column “{name}” is of type boolean and needs no list of categories.")
    elif not isinstance(values, list) or not 1 <= len(values) <= MAX_ENUM:
        yield Problem(name, f"Column “{name}”: the categories must be a list of 1 to {MAX_ENUM:,} values.")
    else:
        for value in values:
            if not _is(kind, value) or (isinstance(value, str) and len(value) > 200):
                yield Problem(
                    name,
                    f"Column “{name}”: the category {str(value)[:40]!r} is not of type {kind}{_example(kind)}.",
                )
                return
        if len(set(values)) != len(values):
            yield Problem(name, f"Column “{name}” lists a category twice.")


def _is(kind: str, value: Any) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer":
        return isinstance(value, int)
    if kind == "number":
        return isinstance(value, int | float) and math.isfinite(value)
    if kind in ("date", "datetime"):
        try:
            _order(kind, value)
        except (TypeError, ValueError):
            return False
        return True
    return isinstance(value, str) and "\x00" not in value


def _order(kind: str, value: Any) -> Any:
    if kind == "date":
        return dt.date.fromisoformat(value)
    if kind == "datetime":
        moment = dt.datetime.fromisoformat(value)
        return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return value


def _example(kind: str) -> str:
    return {"date": ", such as 2026-01-31", "datetime": ", such as 2026-01-31T09:30:00"}.get(kind, "")


def gaps(dictionary: dict[str, Any]) -> list[str]:
    """What the dictionary leaves unsaid: not an error, but a reader will miss it. Sentences for the custodian."""
    fields = dictionary.get("fields", [])
    out = []
    if unsaid := [f["name"] for f in fields if not f.get("description")]:
        out.append(f"No meaning is given for {_some(unsaid)}.")
    open_ended = [
        f["name"] for f in fields if f["type"] in ("integer", "number", "string") and not _bounded(f)
    ]
    if open_ended:
        out.append(
            f"No allowed range or categories are given for {_some(open_ended)}, so their values cannot be checked."
        )
    return out


def _bounded(field: dict[str, Any]) -> bool:
    constraints = field.get("constraints", {})
    return "enum" in constraints or ("minimum" in constraints and "maximum" in constraints)


def _some(names: list[str]) -> str:
    shown = ", ".join(f"“{n}”" for n in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def allowed(field: dict[str, Any]) -> str:
    """The allowed values of a column in words; "" where nothing is said."""
    constraints = field.get("constraints", {})
    if enum := constraints.get("enum"):
        shown = ", ".join(str(v) for v in enum[:12])
        return shown if len(enum) <= 12 else f"{shown} and {len(enum) - 12} more"
    low, high = constraints.get("minimum"), constraints.get("maximum")
    if low is not None and high is not None:
        return f"{low} to {high}"
    if low is not None:
        return f"{low} or more"
    return f"{high} or less" if high is not None else ""


def table_rows(dictionary: dict[str, Any]) -> list[Row]:
    """The dictionary as rows for a table, in the order of the columns. An empty dictionary gives none."""
    return [
        Row(
            name=f["name"],
            type=f["type"],
            meaning=f.get("description", ""),
            unit=f.get("unit", ""),
            allowed=allowed(f),
            required=bool(f.get("constraints", {}).get("required")),
            sensitive=bool(f.get("sensitive")),
            public_because=f.get("public_because", ""),
        )
        for f in dictionary.get("fields", [])
    ]


def compare(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What changes for a reader's program from `old` to `new`: one sentence each, nothing where they are the same."""
    before = {f["name"]: f for f in old.get("fields", [])}
    after = {f["name"]: f for f in new.get("fields", [])}
    out = [f"Column “{name}” is gone." for name in before if name not in after]
    out += [f"Column “{name}” ({f['type']}) is new." for name, f in after.items() if name not in before]
    for name, was in before.items():
        now = after.get(name)
        if now is None:
            continue
        if was["type"] != now["type"]:
            out.append(f"Column “{name}” was {was['type']} and is now {now['type']}.")
        if was.get("constraints", {}) != now.get("constraints", {}):
            out.append(f"Column “{name}”: allowed values were “{_rule(was)}” and are now “{_rule(now)}”.")
        out += [
            f"Column “{name}”: the {word} has changed."
            for member, word in (
                ("description", "meaning"),
                ("unit", "unit"),
                ("public_because", "reason for being public"),
            )
            if was.get(member, "") != now.get(member, "")
        ]
        if bool(was.get("sensitive")) != bool(now.get("sensitive")):
            out.append(
                f"Column “{name}” is now marked as {'sensitive' if now.get('sensitive') else 'not sensitive'}."
            )
    shared = [n for n in before if n in after], [n for n in after if n in before]
    if shared[0] != shared[1]:
        out.append("The order of the columns has changed.")
    if old.get("fields") and old.get("missingValues", DEFAULT_MISSING) != new.get(
        "missingValues", DEFAULT_MISSING
    ):
        out.append("The texts that stand for a missing value have changed.")
    return out


def _rule(field: dict[str, Any]) -> str:
    words = [allowed(field) or "anything"]
    if field.get("constraints", {}).get("required"):
        words.append("never missing")
    return ", ".join(words)


def digest(dictionary: dict[str, Any]) -> str:
    """SHA-256 (hex) of the dictionary's canonical JSON (RFC 8785): its name in the audit log."""
    return strictjson.digest(dictionary)
