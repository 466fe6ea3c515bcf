"""Forms of the programs, runs and output checks pages."""

from __future__ import annotations

import uuid
from typing import Any

from django import forms

from apps.datasets.models import Dataset
from apps.jobs.models import OutputCheck


class ProgramForm(forms.Form):
    name = forms.CharField(
        label="Name of the program",
        max_length=200,
        help_text="So that you and the custodians can tell programs apart",
    )
    file = forms.FileField(
        label="Program file",
        help_text="A .py file, a .ipynb notebook, or a .zip archive. No data, no passwords.",
        widget=forms.FileInput(attrs={"accept": ".py,.ipynb,.zip"}),
    )
    entry = forms.CharField(
        label="File to start (for an archive)",
        max_length=200,
        required=False,
        help_text="For example analysis/main.py. Not needed for main.py.",
    )
    datasets = forms.MultipleChoiceField(
        label="Datasets that the program reads", widget=forms.CheckboxSelectMultiple
    )
    note = forms.CharField(
        label="What the program does, and which outputs it makes", required=False, max_length=2000, widget=forms.Textarea,
        help_text="Custodians and output checkers read this. Good context gets outputs released sooner.",
    )  # fmt: skip
    submission = forms.CharField(widget=forms.HiddenInput, max_length=64)

    def __init__(self, *args: Any, datasets: list[Dataset], **kwargs: Any) -> None:
        kwargs.setdefault("initial", {}).setdefault("submission", uuid.uuid4().hex)
        super().__init__(*args, **kwargs)
        self.by_id = {str(dataset.pk): dataset for dataset in datasets}
        field = self.fields["datasets"]
        assert isinstance(field, forms.MultipleChoiceField)
        field.choices = [(pk, f"{dataset.title} ({dataset.slug})") for pk, dataset in self.by_id.items()]

    def chosen(self) -> list[Dataset]:
        return [self.by_id[pk] for pk in self.cleaned_data["datasets"]]


class ProgramDecisionForm(forms.Form):
    decision = forms.ChoiceField(
        label="Your decision",
        choices=[("approve", "Approve this program"), ("refuse", "Refuse it")],
        widget=forms.RadioSelect,
    )
    reason = forms.CharField(
        label="Reason",
        required=False,
        max_length=2000,
        widget=forms.Textarea,
        help_text="Required when you refuse.",
    )


class ReasonForm(forms.Form):
    reason = forms.CharField(
        label="Reason",
        max_length=1000,
        widget=forms.Textarea,
        help_text="It is kept in the audit log and shown to the people concerned.",
    )


class CheckForm(forms.Form):
    decision = forms.ChoiceField(
        label="Your decision", choices=OutputCheck.Decision.choices, widget=forms.RadioSelect
    )
    comment = forms.CharField(
        label="Comment",
        required=False,
        max_length=2000,
        widget=forms.Textarea,
        help_text="Required when you reject: say what must change.",
    )
