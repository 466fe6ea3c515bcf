"""Forms of the programs, runs and output checks pages."""

from __future__ import annotations

import uuid
from typing import Any

from django import forms

from apps.datasets.models import Dataset
from apps.jobs.models import OutputCheck
from apps.jobs.spending import Choice, Offer
from portal.jinja import duration
from strongroom.money import in_pounds

_CHARGED = "A run is charged to the project for as long as its machine exists."


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


class RunForm(forms.Form):
    """The step to the real data: a size, where there is more than one, and a time limit."""

    submission = forms.CharField(widget=forms.HiddenInput, required=False, max_length=64)
    # Not a list to unfold: on a phone that cuts the cost off.
    size = forms.ChoiceField(label="Size of the machine", required=False, widget=forms.RadioSelect)
    minutes = forms.CharField(
        label="Time limit in minutes",
        required=False,
        max_length=20,
        widget=forms.TextInput(attrs={"inputmode": "numeric", "autocomplete": "off"}),
    )

    def __init__(self, *args: Any, choice: Choice, **kwargs: Any) -> None:
        kwargs.setdefault("initial", {}).setdefault("submission", uuid.uuid4().hex)
        super().__init__(*args, **kwargs)
        self.choice = choice
        usual, longest = duration(choice.usual_seconds), duration(choice.longest_seconds)
        more = f" At most {longest}." if choice.longest_seconds > choice.usual_seconds else ""
        minutes, size = self.fields["minutes"], self.fields["size"]
        minutes.help_text = f"The program is stopped after this time, {usual} if you leave it empty.{more}"
        assert isinstance(size, forms.ChoiceField)
        size.choices = [(offer.size.name, size_text(offer)) for offer in choice.offers]
        size.initial = choice.offers[0].size.name if choice.offers else ""
        size.help_text = f"{_CHARGED} The cost is for {usual} of the program."

    @property
    def asks_size(self) -> bool:
        """Whether there is a choice, or one was made that is no longer offered."""
        return len(self.choice.offers) > 1 or "size" in self.errors

    @property
    def only_size(self) -> str:
        """What there is where there is nothing to choose; empty where machines have no sizes."""
        if len(self.choice.offers) != 1:
            return ""
        usual = duration(self.choice.usual_seconds)
        return f"Its machine is of the size {size_text(self.choice.offers[0])} for {usual} of the program. {_CHARGED}"

    def clean_minutes(self) -> int | None:
        """Seconds; None where nothing was filled in."""
        text = self.cleaned_data["minutes"].strip()
        if not text:
            return None
        if not (text.isascii() and text.isdigit() and int(text)):
            raise forms.ValidationError("Enter a whole number of minutes, such as 15")
        if int(text) * 60 > self.choice.longest_seconds:
            raise forms.ValidationError(
                f"The time limit must be {duration(self.choice.longest_seconds)} or less, or the operator must allow the project more"
            )
        return int(text) * 60


def size_text(offer: Offer) -> str:
    """A size that a project may choose, in words, with what a run on it may cost."""
    size = offer.size
    gpus = f", {size.gpus} GPU" if size.gpus else ""
    most = "" if offer.at_most is None else "at most "
    return f"{size.name}: {size.vcpus} processors, {size.memory_gib} GiB memory{gpus}; cost {most}{in_pounds(offer.at_most)}"


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
