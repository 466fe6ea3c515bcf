"""Profiling and synthesis as they run: in the programs' environment, on the public RAND data."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from django.conf import settings

from tests.unit.programs.conftest import DICTIONARY, HEADER

ROOT = Path(settings.BASE_DIR)
PYTHON = Path(settings.PROGRAMS_PYTHON)
pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="the programs' environment is missing: run `make setup`"
)


def run(name, **parameters):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "STRONGROOM_PARAMETERS": json.dumps(parameters)}
    done = subprocess.run(
        [PYTHON, "-m", f"workers.programs.{name}"],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(count, rare=3):
    lines = [
        f"{20 + i % 60},{i % 7}.5,{'b' if i < rare else 'a'},2021-02-{1 + i % 28:02},{i % 2}"
        for i in range(count)
    ]
    return (HEADER + "\n".join(lines) + "\n").encode()


def test_profile_rounds_and_suppresses(laid_out):
    outputs = laid_out(rows(333))
    run("profile")
    report, profile = (json.loads((outputs / f"{n}.json").read_text()) for n in ("report", "profile"))
    assert report["ok"] and report["rows"] == 333 and not report["problems"]
    assert profile["rows"] == 330
    columns = {column["name"]: column for column in profile["columns"]}
    assert columns["arm"]["categories"] == [{"value": "a", "count": 330}, {"value": "b", "count": None}]
    assert columns["age"]["summary"]["quantiles"]["0.5"] == pytest.approx(49, abs=3)
    assert columns["fit"] == {
        **columns["fit"],
        "summary": None,
        "categories": None,
        "histogram": None,
    }  # sensitive
    for column in profile["columns"]:
        for count in (column["histogram"] or {"counts": []})["counts"]:
            assert count is None or count % 10 == 0


def test_profile_of_data_that_do_not_fit_is_not_public(laid_out):
    outputs = laid_out(rows(50).replace(b"\n20,", b"\n-20,", 1))
    run("profile")
    assert not (outputs / "profile.json").exists()
    report = json.loads((outputs / "report.json").read_text())
    assert not report["ok"] and report["problems"][0]["rows"] == [2]


def test_parquet_is_read_and_what_only_says_so_is_refused(laid_out):
    outputs = laid_out(b"not parquet at all", media_type="application/vnd.apache.parquet")
    run("profile")
    assert json.loads((outputs / "report.json").read_text())["problems"][0]["code"] == "not_parquet"


def test_synthesis_keeps_columns_types_and_the_dictionarys_bounds(laid_out):
    dictionary = {**DICTIONARY, "fields": DICTIONARY["fields"][:3]}
    content = b"age,dose,arm\n" + b"".join(
        f"{20 + i % 60},{i % 7}.5,{'ab'[i % 2]}\n".encode() for i in range(400)
    )
    outputs = laid_out(content, dictionary=dictionary)
    run("synthesise", rows=200)
    made = [line.split(",") for line in (outputs / "stand-in.csv").read_text().splitlines()]
    assert made[0] == ["age", "dose", "arm"] and len(made) == 201
    assert all(0 <= int(age) <= 110 and float(dose) >= 0 and arm in "ab" for age, dose, arm in made[1:])
    report = json.loads((outputs / "report.json").read_text())
    assert report["rows"] == 200 and report["guarantee"] == "none" and 0 < report["shapes"] <= 1
