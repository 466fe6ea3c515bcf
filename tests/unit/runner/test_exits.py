"""What may leave the environment before review: exception types from an allow-list, lines that exist, nothing else."""

import json

import pytest

from workers.runner.exits import UNKNOWN, allowed_type, read_report

LINES = {"main.py": 10, "lib/part.py": 3, "cells": 2}


def report(**members):
    return json.dumps({"exception_type": "ValueError", "line": 3, "file": "main.py", **members}).encode()


def test_known_type_line_and_file_pass():
    assert read_report(report(), lines=LINES) == ("ValueError", 3, "main.py")


@pytest.mark.parametrize(
    "name",
    ["Patient_1234567890", "value_error", "", None, 7, ["ValueError"], "ValueError\nsecret", "Value" * 500],
)
def test_a_name_that_the_program_made_up_becomes_one_word(name):
    assert allowed_type(name) == UNKNOWN
    assert read_report(report(exception_type=name), lines=LINES)[0] == UNKNOWN


@pytest.mark.parametrize("line", [0, -1, 11, 10**9, True, "3", 3.0, None])
def test_a_line_that_the_program_does_not_have_is_dropped(line):
    assert read_report(report(line=line), lines=LINES)[1] is None


@pytest.mark.parametrize(
    "file", ["/etc/passwd", "secret-value.py", "../main.py", None, 4, "cell 3", "cell x", "cell -1"]
)
def test_a_file_that_is_not_the_programs_is_dropped_with_its_line(file):
    assert read_report(report(file=file), lines=LINES)[1:] == (None, "")


def test_a_cell_of_the_notebook_passes():
    assert read_report(report(file="cell 2", line=4), lines=LINES) == ("ValueError", 4, "cell 2")


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff\xfe", b"null", b'"text"', b"{}", b"[" * 2000])
def test_anything_else_says_nothing(raw):
    assert read_report(raw, lines=LINES) == ("", None, "")
