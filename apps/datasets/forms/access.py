"""Forms of access requests, agreements and stage-1 releases."""

from __future__ import annotations

from typing import Any

from django import forms

from apps.datasets.models import Signature, Stage1Release
from apps.projects.models import Project
from portal.forms_render import DateInputField


class AccessRequestForm(forms.Form):
    project = forms.ChoiceField(label="Project", help_text="Approved projects that you lead")
    purpose = forms.CharField(
        label="What the project needs this dataset for", max_length=3000, widget=forms.Textarea(attrs={"maxwords": 300}),
        help_text="The custodian reads this beside your approved application, so you need not repeat it.",
    )  # fmt: skip
    ends_on = DateInputField(label="Access is needed until")

    def __init__(self, *args: Any, projects: list[Project], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.by_id = {str(project.pk): project for project in projects}
        field = self.fields["project"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [(pk, f"{project.ref} {project.title}") for pk, project in self.by_id.items()]

    def chosen(self) -> Project:
        return self.by_id[self.cleaned_data["project"]]


class AccessDecisionForm(forms.Form):
    decision = forms.ChoiceField(
        label="Your decision",
        choices=[("approve", "Approve access"), ("decline", "Decline")],
        widget=forms.RadioSelect,
    )
    conditions = forms.CharField(
        label="Conditions",
        required=False,
        max_length=3000,
        widget=forms.Textarea,
        help_text="They become part of the agreement.",
    )
    reason = forms.CharField(
        label="Reason", max_length=2000, widget=forms.Textarea, help_text="Shown to the applicants."
    )


class SignForm(forms.Form):
    side = forms.ChoiceField(label="For which side do you sign?", widget=forms.RadioSelect)
    confirm = forms.BooleanField(label="I have read the agreement and am authorised to sign it")
    password = forms.CharField(
        label="Your password", widget=forms.PasswordInput(attrs={"autocomplete": "current-password"})
    )

    def __init__(self, *args: Any, sides: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["side"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [(side, Signature.Side(side).label) for side in sides]
        if len(sides) == 1:
            field.initial = sides[0]


class OrderForm(forms.Form):
    method = forms.ChoiceField(
        label="How the stand-in data are made",
        choices=Stage1Release.Method.choices,
        widget=forms.RadioSelect,
        initial=Stage1Release.Method.GAUSSIAN_COPULA,
    )
    rows = forms.IntegerField(
        label="Number of rows",
        required=False,
        min_value=10,
        max_value=100_000,
        help_text="Leave empty for as many as the real data have.",
    )


class ReleaseDecisionForm(forms.Form):
    decision = forms.ChoiceField(
        label="Your decision",
        choices=[("approve", "Release the stand-in data"), ("refuse", "Do not release them")],
        widget=forms.RadioSelect,
    )
    reason = forms.CharField(
        label="Reason",
        required=False,
        max_length=2000,
        widget=forms.Textarea,
        help_text="Required when you do not release them.",
    )
