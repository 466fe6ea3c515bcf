"""Forms of the pages. What an answer may be is decided in application.py and the actions, for pages and API alike."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from typing import Any

from django import forms

from apps.accounts.models import Organisation, User
from apps.accounts.permissions import organisations_of
from apps.accounts.roles import Role
from apps.projects import application, queries
from apps.projects.application import Kind, Question, Section
from apps.projects.models import EthicsOpinion, Project
from apps.projects.policies import OUTCOMES
from apps.projects.states import ETHICS_REVIEW, ReviewState
from portal.forms_render import DateInputField

DECLARATION = (
    "I confirm that this application is true and complete, that everybody in the team has agreed to take part, and "
    "that we will use the data only for this project"
)


class SubmissionForm(forms.Form):
    """A form that makes something: sent twice, it makes it once (the hidden token is the same)."""

    submission = forms.UUIDField(widget=forms.HiddenInput, required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["submission"].initial = uuid.uuid4


class StartForm(SubmissionForm):
    title = forms.CharField(
        label="Title of the project", max_length=200, help_text="You can change it until you submit."
    )
    organisation = forms.ModelChoiceField(
        label="Organisation that answers for the project",
        queryset=Organisation.objects.none(),
        widget=forms.RadioSelect,
        empty_label=None,
    )

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = [o.pk for o in organisations_of(user, Role.RESEARCHER)]
        self.fields["organisation"].queryset = Organisation.objects.filter(pk__in=own)  # type: ignore[attr-defined]
        if len(own) == 1:
            self.fields["organisation"].initial = own[0]


def _hint(question: Question) -> str:
    """The hint; a question that hangs on another says on which answer (not hidden until then: works everywhere)."""
    if question.only_if is None:
        return question.hint
    parent = application.QUESTIONS[question.only_if[0]]
    answer = application.shown(parent, question.only_if[1])
    return f"Only if you answered “{answer}” to the question before. {question.hint}".strip()


def _field(question: Question) -> forms.Field:
    common: dict[str, Any] = {"label": question.label, "help_text": _hint(question), "required": False}
    choices = [(o.code, o.label) for o in question.options]
    match question.kind:
        case Kind.TEXTAREA:
            return forms.CharField(
                widget=forms.Textarea(attrs={"maxwords": question.words, "rows": 8}), **common
            )
        case Kind.RADIOS:
            made: forms.Field = forms.ChoiceField(widget=forms.RadioSelect, choices=choices, **common)
        case Kind.CHECKBOXES:
            made = forms.MultipleChoiceField(widget=forms.CheckboxSelectMultiple, choices=choices, **common)
        case Kind.DATE:
            return DateInputField(**common)
        case _:
            return forms.CharField(**common)
    made.choice_hints = {o.code: o.hint for o in question.options if o.hint}  # type: ignore[attr-defined]
    return made


class SectionForm(forms.Form):
    """One section of the application. Answers may be left for later: nothing is required here but good form."""

    def __init__(self, *args: Any, section: Section, answers: Mapping[str, Any], **kwargs: Any) -> None:
        self.section = section
        initial = {}
        for question in section.questions:
            value = answers.get(question.code)
            initial[question.code] = (
                dt.date.fromisoformat(value) if value and question.kind is Kind.DATE else value
            )
        super().__init__(*args, **{**kwargs, "initial": initial})
        for question in section.questions:
            if not question.retired:
                self.fields[question.code] = _field(question)

    def answers(self) -> dict[str, Any]:
        """What was typed, by question code, in the form of the API."""
        typed = {code: self.cleaned_data.get(code) for code in self.fields}
        return {code: v.isoformat() if isinstance(v, dt.date) else v for code, v in typed.items()}

    def layout(self) -> list[tuple[forms.BoundField, bool]]:
        """The questions as the page draws them: (field, whether the word "optional" stands beside it)."""
        return [(self[q.code], not q.required) for q in self.section.questions if not q.retired]


class SubmitForm(SubmissionForm):
    board = forms.ModelChoiceField(
        label="Ethics board",
        queryset=Organisation.objects.none(),
        widget=forms.RadioSelect,
        empty_label=None,
        help_text="The board that reviews the application.",
    )
    declaration = forms.BooleanField(label=DECLARATION)

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        boards = queries.boards()
        if project.board_id is not None:
            boards = boards.filter(pk=project.board_id)
            self.fields["board"].help_text = "A returned application goes to the same board again."
            self.fields["board"].initial = project.board_id
        self.fields["board"].queryset = boards  # type: ignore[attr-defined]


class InviteForm(forms.Form):
    email = forms.EmailField(
        label="Email address of your colleague",
        help_text="The address of their account on this portal.",
        widget=forms.EmailInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )


class ReasonForm(forms.Form):
    reason = forms.CharField(label="Reason", widget=forms.Textarea, max_length=1000)

    def __init__(self, *args: Any, label: str = "Reason", hint: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reason"].label = label
        self.fields["reason"].help_text = hint


class ConfirmForm(forms.Form):
    """A page that asks: are you sure? No fields."""


class OpinionForm(forms.Form):
    opinion = forms.ChoiceField(
        label="Your opinion",
        widget=forms.RadioSelect,
        choices=[c for c in EthicsOpinion.Opinion.choices if c[0] != EthicsOpinion.Opinion.INTEREST],
    )
    comment = forms.CharField(
        label="Reasons",
        widget=forms.Textarea,
        max_length=5000,
        help_text="The other members and the chair read this once they have given their own opinion.",
    )


class InterestForm(forms.Form):
    comment = forms.CharField(
        label="What is your interest?",
        widget=forms.Textarea,
        max_length=1000,
        help_text="For example, you supervise one of the applicants.",
        error_messages={"required": "Enter what your interest is"},
    )


class DecideForm(forms.Form):
    outcome = forms.ChoiceField(
        label="Opinion of the board",
        widget=forms.RadioSelect,
        choices=[(s.value, ETHICS_REVIEW.labels[s]) for s in OUTCOMES],
    )
    conditions = forms.CharField(
        label="Conditions",
        widget=forms.Textarea,
        max_length=5000,
        required=False,
        help_text="Only for the outcome “Favourable with conditions”.",
    )
    reason = forms.CharField(
        label="Reason for the decision",
        widget=forms.Textarea,
        max_length=5000,
        help_text="It stands in the letter to the applicants.",
    )
    valid_until = DateInputField(
        label="Valid until",
        required=False,
        help_text="For a favourable opinion: at most five years from today. Not used for an unfavourable one",
    )

    def clean(self) -> dict[str, Any]:
        """Drop the date that the page filled in, where the outcome has none."""
        data = super().clean() or {}
        if data.get("outcome") == ReviewState.UNFAVOURABLE:
            data["valid_until"] = None
        return data
