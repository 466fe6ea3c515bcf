"""The data dictionary: what is read, what is refused and in which words, what changes between two."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.datasets import dictionary as d


def problems(field: dict[str, Any] | None = None, **document: Any) -> str:
    given_ = {"fields": [field] if field is not None else [{"name": "a", "type": "integer"}], **document}
    return " ".join(p.sentence for p in d.problems_of(given_))


def test_a_whole_dictionary_is_kept_in_plain_form() -> None:
    raw = {
        "fields": [
            {
                "type": "integer",
                "name": "age",
                "description": " Age ",
                "constraints": {"minimum": 0, "required": False},
            }
        ]
    }
    assert d.parse(json.dumps(raw).encode()) == {
        "fields": [
            {
                "name": "age",
                "type": "integer",
                "description": "Age",
                "constraints": {"minimum": 0},
                "sensitive": False,
            }
        ],
        "missingValues": ["", "NA"],
    }


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"name": "a", "type": "int"}, "Column “a”: the type must be one of"),
        ({"name": "a", "type": "int"}, "Did you mean “integer”?"),
        ({"name": "a"}, "the type must be one of"),
        ({"type": "integer"}, "Column 1 has no name."),
        ({"name": " a", "type": "integer"}, "no space at either end"),
        ({"name": "a\x00", "type": "integer"}, "printable"),
        ({"name": "a", "type": "integer", "format": "x"}, "not known here: format"),
        (
            {"name": "a", "type": "integer", "constraints": {"maxLength": 3}},
            "constraints that are not known here: maxLength",
        ),
        ({"name": "a", "type": "integer", "constraints": []}, "“constraints” must be an object"),
        ({"name": "a", "type": "string", "constraints": {"minimum": 1}}, "which has no minimum"),
        (
            {"name": "a", "type": "integer", "constraints": {"minimum": 1.5}},
            "the minimum must be of type integer",
        ),
        (
            {"name": "a", "type": "integer", "constraints": {"minimum": True}},
            "the minimum must be of type integer",
        ),
        (
            {"name": "a", "type": "integer", "constraints": {"minimum": 5, "maximum": 1}},
            "the minimum (5) is above the maximum (1)",
        ),
        ({"name": "a", "type": "date", "constraints": {"minimum": "31/1/2020"}}, "such as 2026-01-31"),
        (
            {
                "name": "a",
                "type": "datetime",
                "constraints": {"minimum": "2020-01-01T00:00:00Z", "maximum": "2019-01-01"},
            },
            "is above",
        ),
        ({"name": "a", "type": "boolean", "constraints": {"enum": [True]}}, "needs no list of categories"),
        ({"name": "a", "type": "string", "constraints": {"enum": []}}, "a list of 1 to"),
        ({"name": "a", "type": "string", "constraints": {"enum": ["x", "x"]}}, "lists a category twice"),
        (
            {"name": "a", "type": "string", "constraints": {"enum": ["x", 1]}},
            "category '1' is not of type string",
        ),
        ({"name": "a", "type": "string", "constraints": {"enum": [["x"]]}}, "is not of type string"),
        ({"name": "a", "type": "integer", "sensitive": "yes"}, "“sensitive” must be true or false"),
        ({"name": "a", "type": "integer", "description": 3}, "“description” must be text"),
        (
            {"name": "a", "type": "integer", "constraints": {"required": 1}},
            "“required” must be true or false",
        ),
    ],
)
def test_each_fault_is_a_sentence_that_names_the_column(field: dict[str, Any], words: str) -> None:
    assert words in problems(field)


def test_faults_of_the_whole() -> None:
    assert "listed twice" in " ".join(
        p.sentence for p in d.problems_of({"fields": [{"name": "a", "type": "integer"}] * 2})
    )
    assert "at least one column" in " ".join(p.sentence for p in d.problems_of({"fields": []}))
    assert "not known here: primaryKey" in problems(primaryKey="a")
    assert "missingValues" in problems(missingValues=["", ""])
    assert "missingValues" in problems(missingValues="NA")
    assert "must be a JSON object" in " ".join(p.sentence for p in d.problems_of([]))


@pytest.mark.parametrize(
    "data", [b'{"fields": [], "fields": []}', b'{"fields": NaN}', b"{", b"", b"\xff\xfe{", b"[" * 200]
)
def test_json_that_two_readers_could_read_differently_is_refused(data: bytes) -> None:
    with pytest.raises(d.DictionaryError):
        d.parse(data)


def test_csv_becomes_the_same_dictionary() -> None:
    text = '\ufeffName,type,meaning,unit,min,max,categories,sensitive\r\nage,integer,"Age, in years",years,0,110,,no\r\nhealth,string,As told,,,,good|fair|poor,yes\r\nplan,number,,,0,0.95,,\r\n\r\n'
    assert d.parse(text.encode())["fields"] == [
        {
            "name": "age",
            "type": "integer",
            "description": "Age, in years",
            "unit": "years",
            "constraints": {"minimum": 0, "maximum": 110},
            "sensitive": False,
        },
        {
            "name": "health",
            "type": "string",
            "description": "As told",
            "constraints": {"enum": ["good", "fair", "poor"]},
            "sensitive": True,
        },
        {
            "name": "plan",
            "type": "number",
            "constraints": {"minimum": 0, "maximum": 0.95},
            "sensitive": False,
        },
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"colour,size\n", "lacks name, type"),
        (b"name,type,colour\na,integer,red\n", "has 'colour'"),
        (b"name,name,type\n", "names a column twice"),
        (b"name,type,min\na,integer,low\n", "Row 2, column “a”: “low” is not of type integer"),
        (b"name,type,min\na,number,nan\n", "is not of type number"),
        (b"name,type,sensitive\na,integer,perhaps\n", "write yes or no"),
        (b"name,type\na,integer,1,2\n", "more cells than the first row"),
        (b"name,type\n\x00,integer\n", "NUL"),
        (b"name,type\n\xe9,integer\n", "not UTF-8"),
        (b'name,type\n"a,integer\n', "not valid CSV"),
        (b"name,type\n" + b"x" * 200_000 + b",integer\n", "not valid CSV"),
    ],
)
def test_csv_faults_name_the_row(text: bytes, words: str) -> None:
    with pytest.raises(d.DictionaryError) as error:
        d.parse(text)
    assert words in str(error.value)


def test_compare_says_what_a_program_must_know() -> None:
    old = d.checked(
        {
            "fields": [
                {"name": "a", "type": "integer", "constraints": {"minimum": 0, "maximum": 9}},
                {"name": "b", "type": "string"},
            ]
        }
    )
    new = d.checked(
        {
            "fields": [
                {"name": "c", "type": "date"},
                {"name": "a", "type": "number", "sensitive": True, "constraints": {"minimum": 0}},
            ],
            "missingValues": [""],
        }
    )
    assert d.compare(old, old) == []
    assert d.compare(old, new) == [
        "Column “b” is gone.",
        "Column “c” (date) is new.",
        "Column “a” was integer and is now number.",
        "Column “a”: allowed values were “0 to 9” and are now “0 or more”.",
        "Column “a” is now marked as sensitive.",
        "The texts that stand for a missing value have changed.",
    ]


def test_gaps_are_told_but_not_refused() -> None:
    told = d.gaps(d.checked({"fields": [{"name": f"c{n}", "type": "integer"} for n in range(7)]}))
    assert told[0] == "No meaning is given for “c0”, “c1”, “c2”, “c3”, “c4” and 2 more."


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda c: (
            st.lists(c, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["fields", "name", "type", "constraints", "enum", "minimum", "missingValues", "x"]
                ),
                c,
                max_size=5,
            )
        ),
        max_leaves=20,
    )
)
def test_no_document_breaks_the_checker(document: Any) -> None:
    list(d.problems_of(document))


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    try:
        d.parse(data)
    except d.DictionaryError as error:
        assert error.problems
