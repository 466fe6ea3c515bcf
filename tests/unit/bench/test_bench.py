"""The bench at tiny sizes: that each part measures and reports. The figures mean nothing here.

Part (a) needs a whole stack and a world in it, so only its arithmetic is tested: `make bench ARGS="--only a --small"`
runs it.
"""

from __future__ import annotations

import io
import uuid
from typing import Any

import pytest

from tests.bench import __main__ as bench
from tests.bench import pages, runs, sealing, table, verifying
from tests.bench.table import FAILED, MET, MISSED, Row


def quiet(text: str) -> None:
    """Nobody listens."""


def test_percentile_is_the_nearest_rank() -> None:
    values = [float(v) for v in range(30, 0, -1)]
    assert table.percentile(values, 0.5) == 15
    assert table.percentile(values, 0.95) == 29
    assert table.percentile([7.0], 0.95) == 7


def test_table_says_what_was_met_and_what_was_not() -> None:
    text = table.render(
        [
            table.judged("a", "this", "1 s", "< 2 s", met=True),
            table.judged("a", "that", "3 s", "< 2 s", met=False),
        ]
    )
    assert [line.split()[-1] for line in text.splitlines()] == ["result", MET, MISSED]


def test_a_part_that_breaks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**options: Any) -> list[Row]:
        raise OSError("no disk")

    monkeypatch.setattr(verifying, "measure", broken)
    (row,) = bench.measure("d", small=True, say=quiet)
    assert (row.verdict, row.figure) == (FAILED, "OSError: no disk")


def timeline(total: float, **later: float) -> runs.Timeline:
    names = [
        "asked",
        "launched",
        "loaded",
        "claimed",
        "attesting",
        "fetching",
        "running",
        "checking",
        "sealing",
        "uploading",
        "ended",
        "review",
    ]
    at = {name: 100.0 + number * 0.1 for number, name in enumerate(names)}
    return runs.Timeline(total, at | later)


def test_overhead_is_the_run_less_the_program() -> None:
    rows = runs._rows("a program", [timeline(3.0), timeline(3.5), timeline(9.0)], [2.0, 1.9, 8.0])
    by = {row.what: row for row in rows}
    assert by["a program: overhead"].figure == "1.50 s median, 7.00 max"
    assert by["a program: overhead"].verdict == MET
    assert by["  claim"].figure == "0.10 s"
    assert runs._rows("a program", [timeline(4.5)], [2.0])[2].verdict == MISSED


def test_moments_come_from_the_history_and_the_machines_log() -> None:
    class Database:
        def execute(self, *args: Any) -> Database:
            return self

        def fetchall(self) -> list[tuple[str, float]]:
            return [("launching", 1.0), ("running", 2.0), ("succeeded", 9.0)]

    pk = uuid.uuid4()
    measured = object.__new__(runs.Bench)
    measured.database = Database()  # type: ignore[assignment]
    log = "1.250 loaded\nsome warning\n2.000 claimed\n3.000 decrypting\n4.000 running\n"
    measured._logs = {
        f"sr-{pk.hex[:12]}-1": io.StringIO(log),
        "sr-000000000000-1": io.StringIO("7.0 claimed\n"),
    }
    assert measured._moments(str(pk)) == {
        "launched": 1.0,
        "ended": 9.0,
        "loaded": 1.25,
        "claimed": 2.0,
        "fetching": 3.0,
        "running": 4.0,
    }


def test_sealing() -> None:
    speed = sealing._speed(3 << 20, rounds=1)
    assert [row.what for row in speed[2:]] == ["sealing", "unsealing"]
    assert all("of raw" in row.figure for row in speed[2:])
    assert [row.verdict for row in sealing._memory(2)] == [MET, MET]


def test_verifying(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all("a second" in row.figure for row in verifying.measure(small=True, say=quiet))


@pytest.mark.django_db(transaction=True)
def test_pages_have_the_same_number_of_queries_at_both_sizes() -> None:
    rows = pages.compare((200, 400), requests=1, say=quiet)
    assert len(rows) > 20
    for row in rows[1:]:
        few, _, many = row.figure.rpartition(", ")[2].removesuffix(" queries").partition(" / ")
        assert few == many != "0", (row.what, row.figure)
