"""Reading data against its dictionary: every misfit found, by row, and no value in any sentence."""

import pytest

from tests.unit.programs.conftest import HEADER, ROW
from workers.programs.table import Table, Unreadable


def read(table):
    return list(table.rows())


def test_rows_become_values_of_the_dictionarys_types(laid_out):
    laid_out((HEADER + ROW + "41,NA,,NA,0\n").encode())
    table = Table()
    first, second = read(table)
    assert (first[0], first[1], first[2], first[3].isoformat(), first[4]) == (
        40,
        1.5,
        "a",
        "2021-02-03",
        True,
    )
    assert second == [41, None, None, None, False]
    assert not table.problems and table.count == 2


@pytest.mark.parametrize(
    ("row", "code", "column"),
    [
        (",1,a,2021-01-01,1", "missing", "age"),
        ("forty,1,a,2021-01-01,1", "type", "age"),
        ("4.5,1,a,2021-01-01,1", "type", "age"),
        ("nan,1,a,2021-01-01,1", "type", "age"),
        ("1e999,1,a,2021-01-01,1", "type", "age"),
        ("40,inf,a,2021-01-01,1", "type", "dose"),
        ("40,1,a,03/02/2021,1", "type", "seen"),
        ("40,1,a,2021-01-01,perhaps", "type", "fit"),
        ("-1,1,a,2021-01-01,1", "minimum", "age"),
        ("111,1,a,2021-01-01,1", "maximum", "age"),
        ("40,-0.1,a,2021-01-01,1", "minimum", "dose"),
        ("40,1,c,2021-01-01,1", "category", "arm"),
        ("40,1,a,2019-12-31,1", "minimum", "seen"),
    ],
)
def test_a_misfit_is_named_by_column_and_row_never_by_value(laid_out, row, code, column):
    laid_out((HEADER + ROW + row + "\n" + ROW).encode())
    table = Table()
    read(table)
    (problem,) = table.problems.values()
    assert (problem.code, problem.column, problem.rows, problem.count) == (code, column, [3], 1)
    said = problem.as_dict()["sentence"]
    for value in row.split(","):
        assert len(value) < 3 or value not in said


def test_only_the_first_rows_are_listed_but_all_are_counted(laid_out):
    laid_out((HEADER + "-1,1,a,2021-01-01,1\n" * 50).encode())
    table = Table()
    read(table)
    (problem,) = table.problems.values()
    assert (problem.rows, problem.count) == (list(range(2, 22)), 50)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty"),
        (HEADER.encode(), "empty"),
        (b"age,dose,arm,seen\n", "header"),
        (b"age,dose,arm,seen,fit,extra\n", "header"),
        (b"dose,age,arm,seen,fit\n", "header"),
        ((HEADER + "40,1.5,a\n").encode(), "width"),
        ((HEADER + "40,1.5,a,2021-01-01,1,9\n").encode(), "width"),
        ((HEADER + "40,1.5,\xe9,2021-01-01,1\n").encode("latin-1"), "encoding"),
        ((HEADER + "40,1.5,a\x00,2021-01-01,1\n").encode(), "nul"),
        ((HEADER + '40,1.5,"' + "x" * ((1 << 20) + 1) + '",2021-01-01,1\n').encode(), "huge_field"),
        ((HEADER + '40,1.5,"a,2021-01-01,1\n').encode(), "csv"),
        (b"PAR1" + b"\x00" * 50, "not_csv"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_a_sentence(laid_out, content, code):
    laid_out(content)
    with pytest.raises(Unreadable) as refused:
        read(Table())
    assert refused.value.code == code
    assert refused.value.sentence.endswith(".") and "Traceback" not in refused.value.sentence


def test_a_byte_order_mark_and_windows_line_ends_are_taken(laid_out):
    laid_out(b"\xef\xbb\xbf" + (HEADER + ROW).replace("\n", "\r\n").encode())
    assert len(read(Table())) == 1
