"""The form's table: what is refused, what is missing, what is shown, what changed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from apps.core.errors import Invalid
from apps.projects import application, queries
from tests.unit.projects.conftest import complete_answers


def test_the_table_is_sound() -> None:
    codes = [q.code for s in application.SECTIONS for q in s.questions]
    assert [c for c, n in Counter(codes).items() if n > 1] == []
    assert [s.title for s in application.SECTIONS] == [
        f"Safe {w}" for w in ("people", "project", "data", "settings", "outputs")
    ]
    for q in application.QUESTIONS.values():
        assert bool(q.options) == (q.kind in (application.Kind.RADIOS, application.Kind.CHECKBOXES)), q.code
        assert (q.words > 0) == (q.kind is application.Kind.TEXTAREA), q.code
        if q.only_if:
            parent = application.QUESTIONS[q.only_if[0]]
            assert q.only_if[1] in [o.code for o in parent.options]
            assert any(parent in s.questions and q in s.questions for s in application.SECTIONS)
        if q.not_before:
            assert application.QUESTIONS[q.not_before].kind is application.Kind.DATE


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("nonsense", "x"),
        ("people", ["Mallory"]),
        ("title", "x" * 201),
        ("title", "two\nlines"),
        ("title", 5),
        ("aims", "a\x00b"),
        ("aims", "\ud800"),
        ("aims", "word " * 501),
        ("aims", "x" * 10_001),
        ("aims", ["a"]),
        ("linkage", "maybe"),
        ("public_benefit", "services"),
        ("public_benefit", ["services", "profit"]),
        ("public_benefit", [["services"]]),
        ("starts_on", "tomorrow"),
        ("starts_on", "2027-02-30"),
        ("starts_on", "2199-99-99"),
    ],
)
def test_a_bad_answer_is_refused_by_name(code: str, value: Any) -> None:
    with pytest.raises(Invalid) as caught:
        application.clean({code: value}, {})
    assert list(caught.value.fields) == [code]


def test_the_end_may_not_precede_the_start_whichever_is_changed() -> None:
    before = {"starts_on": "2027-05-01", "ends_on": "2028-05-01"}
    for change in ({"ends_on": "2027-04-30"}, {"starts_on": "2028-05-02"}):
        with pytest.raises(Invalid) as caught:
            application.clean(change, before)
        assert list(caught.value.fields) == list(change)


def test_an_empty_answer_removes_one_and_nothing_else() -> None:
    assert application.clean({"aims": " "}, {"aims": "x", "title": "t"}) == {"title": "t"}


def test_missing_counts_only_what_applies() -> None:
    assert application.missing(complete_answers()) == []
    assert [q.code for q in application.missing(complete_answers(linkage="yes"))] == ["linkage_detail"]
    assert [q.code for q in application.missing(complete_answers(public_benefit=[]))] == ["public_benefit"]


def test_frozen_leaves_out_what_does_not_apply() -> None:
    frozen = application.frozen(complete_answers(linkage_detail="left over"), ["Ada"])
    assert "linkage_detail" not in frozen
    assert frozen["people"] == ["Ada"] and frozen["form"] == application.FORM_VERSION


def test_answers_are_shown_in_words() -> None:
    sections = dict(queries.application_sections(complete_answers()))
    rows = {str(question): answer for question, answer in sections["Safe outputs"]}
    assert (
        rows["What results will you ask to have released?"]
        == "Summary tables\nCoefficients of statistical models"
    )
    assert "Which datasets you link, and by what" not in [str(q) for q, _ in sections["Safe data"]]


def test_changes_are_in_words_and_in_the_order_of_the_form() -> None:
    old = application.frozen(complete_answers(), ["Ada"])
    new = application.frozen(
        complete_answers(linkage="yes", linkage_detail="By person", title="New"), ["Ada", "Ben"]
    )
    assert [(c.label, c.before, c.after) for c in application.changes(old, new)] == [
        ("Title of the project", "Cost sharing and visits", "New"),
        ("Will you link datasets with each other?", "No", "Yes"),
        ("Which datasets you link, and by what", "", "By person"),
        ("People of the project", "Ada", "Ada\nBen"),
    ]


def test_progress() -> None:
    project = application.section_by_code("project")
    assert project is not None
    assert application.progress(project, {"title": "t"}) == "not_started"
    assert application.progress(project, {"title": "t", "aims": "a"}) == "in_progress"
    assert application.progress(project, complete_answers()) == "completed"
