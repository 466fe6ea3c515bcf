"""A portal's question whether runs under way may still use the keys that a broker released to them, and the answer.

The question is signed as words.py says: {"v": 1, "purpose": "key-standing", "portal", "broker",
"runs": [{"run", "attempt"}], "issued", "expires"}. The answer: {"runs": [{"run", "attempt", "standing", "code",
"detail"}]}. It is not signed: it can only end runs, and whoever could forge it could cut the line as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from strongroom import shapes
from strongroom.broker import words
from strongroom.errors import FormatError
from strongroom.signing import SigningKey

PURPOSE = "key-standing"
MAX_RUNS = 1000
MAX_DETAIL = 2000
PERMITTED, WITHDRAWN, UNKNOWN = "permitted", "withdrawn", "unknown"

_ATTEMPT: dict[str, shapes.Checker] = {"run": shapes.uuid_text, "attempt": shapes.whole(1)}
_MORE: dict[str, shapes.Checker] = {
    "runs": shapes.list_of(lambda item, at: shapes.fields(item, at, _ATTEMPT), MAX_RUNS)
}
_SAID: dict[str, shapes.Checker] = {
    **_ATTEMPT,
    "standing": shapes.one_of(PERMITTED, WITHDRAWN, UNKNOWN),
    "code": shapes.text(100, 0),
    "detail": shapes.text(MAX_DETAIL, 0),
}

Attempt = tuple[str, int]
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True, slots=True)
class Standing:
    """`standing`: permitted, withdrawn or unknown. `code` and `detail` say why, for programs and for people."""

    standing: str
    code: str = ""
    detail: str = ""


def ask(
    key: SigningKey, *, portal: str, broker: str, runs: Sequence[Attempt], now: datetime
) -> dict[str, str]:
    """The signed question about these (run, attempt) pairs, 1,000 at most. Raises FormatError."""
    said = {"runs": [{"run": run, "attempt": attempt} for run, attempt in runs]}
    return words.sign(key, PURPOSE, _MORE, said, portal=portal, broker=broker, now=now)


def verify(value: Any, *, portal: str, key: bytes, broker: str, now: datetime) -> list[Attempt]:
    """The (run, attempt) pairs that are asked about. Raises FormatError, Refusal (authorisation_refused)."""
    document = words.verify(value, PURPOSE, _MORE, portal=portal, key=key, broker=broker, now=now)
    return [(item["run"], item["attempt"]) for item in document["runs"]]


def answer(said: Sequence[tuple[Attempt, Standing]]) -> dict[str, Any]:
    """What a broker answers, in the form that `read` takes: a custodian's reason may have lines, a sentence has none."""
    return {
        "runs": [
            {
                "run": run,
                "attempt": attempt,
                "standing": found.standing,
                "code": found.code,
                "detail": _CONTROL.sub(" ", found.detail)[:MAX_DETAIL],
            }
            for (run, attempt), found in said
        ]
    }


def read(answer: Any) -> dict[Attempt, Standing]:
    """A broker's answer. Raises FormatError, for two sentences about one attempt as well."""
    listed = shapes.pick(answer, "The answer", {"runs": shapes.list_of(shapes.mapping, MAX_RUNS)})["runs"]
    found: dict[Attempt, Standing] = {}
    for number, item in enumerate(listed):
        said = shapes.pick(item, f"The answer's run {number}", _SAID)
        attempt = (said["run"], said["attempt"])
        if attempt in found:
            raise FormatError("The answer speaks of one attempt twice.")
        found[attempt] = Standing(said["standing"], said["code"], said["detail"])
    return found
