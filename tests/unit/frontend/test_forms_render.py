"""Form fields as components: the right one, linked to hint and error, in words for people."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from django import forms
from markupsafe import Markup

from portal.forms_render import DateInputField, form_errors, form_field
from tests.unit.frontend.render import ApplicationForm


def test_every_kind_of_field_has_its_component() -> None:
    form = ApplicationForm()
    marks = {
        "name": 'class="govuk-input"',
        "email": 'type="email"',
        "password": "govuk-password-input",
        "summary": 'data-maxlength="300"',
        "notes": "govuk-textarea",
        "words": 'data-maxlength="50"',
        "region": "govuk-select",
        "decision": "govuk-radios",
        "topics": "govuk-checkboxes",
        "ends": "govuk-date-input",
        "count": 'inputmode="numeric"',
        "data": "govuk-file-upload",
        "agree": "govuk-checkboxes",
        "token": 'type="hidden"',
    }
    assert set(marks) == set(form.fields)
    for name, mark in marks.items():
        assert mark in form_field(form[name]), name


def test_labels_hints_and_errors_are_linked() -> None:
    form = ApplicationForm({"email": "nope"})
    html = form_field(form["email"])
    assert '<label class="govuk-label govuk-label--s" for="id_email">' in html
    described = re.search(r'aria-describedby="([^"]+)"', html)
    assert described is not None
    assert described[1].split() == ["id_email-hint", "id_email-error"]
    assert all(f'id="{target}"' in html for target in described[1].split())
    assert 'value="nope"' in html


def test_summary_and_field_say_the_same_in_plain_words() -> None:
    form = ApplicationForm(
        {
            "name": "x" * 30,
            "email": "nope",
            "count": "a",
            "ends_day": "3",
            "ends_year": "2026",
            "region": "mars",
        }
    )
    errors = {entry.get("href"): entry["text"] for entry in form_errors(form)}
    assert errors == {
        "#id_name": "Full name must be 20 characters or fewer",
        "#id_email": "Work email must be an email address, like name@example.com",
        "#id_password": "Enter password",
        "#id_summary": "Enter lay summary",
        "#id_words": "Enter purpose",
        "#id_region": "Region: choose one of the options in the list",
        "#id_decision": "Select your decision",
        "#id_topics": "Select topics",
        "#id_ends-month": "End date must include a month",
        "#id_count": "People must be a number, like 30",
        "#id_data": "Choose a file: data dictionary",
        "#id_agree": "Tick the box: I have read the agreement",
        None: "Enter token",
    }
    for name in form.errors:
        if name != "token":
            assert any(text in form_field(form[name]) for text in errors.values()), name


def test_messages_that_a_form_wrote_itself_are_kept() -> None:
    class Own(forms.Form):
        name = forms.CharField(error_messages={"required": "Say who you are"})
        age = forms.IntegerField()

        def clean_age(self) -> int:
            raise forms.ValidationError("Nobody is that old")

        def clean(self) -> None:
            raise forms.ValidationError("The two do not fit together")

    assert [entry["text"] for entry in form_errors(Own({"age": "300"}))] == [
        "The two do not fit together",
        "Say who you are",
        "Nobody is that old",
    ]


def test_a_password_is_never_sent_back() -> None:
    assert "hunter2" not in form_field(ApplicationForm({"password": "hunter2"})["password"])


def test_typed_values_come_back_escaped() -> None:
    form = ApplicationForm(
        {"name": '"><script>', "summary": "</textarea><b>", "topics": ["b"], "decision": "no", "agree": "on"}
    )
    assert "&#34;&gt;&lt;script&gt;" in form_field(form["name"])
    assert "&lt;/textarea&gt;" in form_field(form["summary"])
    assert re.search(r'value="b"\s+checked', form_field(form["topics"]))
    assert re.search(r'value="no"\s+checked', form_field(form["decision"]))
    assert re.search(r'value="on"\s+checked', form_field(form["agree"]))


def test_conditional_and_choice_hints() -> None:
    html = form_field(ApplicationForm()["decision"], conditional={"no": Markup("<p>Why?</p>")})
    assert "You must give a reason" in html
    assert "<p>Why?</p>" in html


def test_initial_values_are_shown() -> None:
    html = form_field(ApplicationForm(initial={"ends": dt.date(2027, 3, 9)})["ends"])
    assert [
        re.search(rf'name="ends_{part}"[^>]*value="(\d+)"', html)[1] for part in ("day", "month", "year")
    ] == ["9", "3", "2027"]  # type: ignore[index]


def test_a_multiple_select_and_unknown_widgets_are_refused() -> None:
    class Bad(forms.Form):
        many = forms.MultipleChoiceField(choices=[("a", "A")])

    with pytest.raises(TypeError, match="CheckboxSelectMultiple"):
        form_field(Bad()["many"])


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["9", "3", "2027"], dt.date(2027, 3, 9)),
        (["09", "Mar", "2027"], dt.date(2027, 3, 9)),
        (["9", "november", "2027"], dt.date(2027, 11, 9)),
        (["31", "2", "2027"], "End date must be a real date, like 27 3 2026"),
        (["9", "3", "27"], "End date must be a real date, like 27 3 2026"),
        (["9", "x", "2027"], "End date must be a real date, like 27 3 2026"),
        (["", "3", ""], "End date must include a day and year"),
        (["", "", ""], "Enter end date"),
        (["²", "3", "2027"], "End date must be a real date, like 27 3 2026"),
    ],
)
def test_date(typed: list[str], expected: object) -> None:
    field = DateInputField(label="End date")
    if isinstance(expected, dt.date):
        assert field.clean(typed) == expected
    else:
        with pytest.raises(forms.ValidationError) as caught:
            field.clean(typed)
        assert caught.value.messages == [expected]


def test_an_empty_optional_date_is_none() -> None:
    assert DateInputField(label="End", required=False).clean(["", "", ""]) is None
