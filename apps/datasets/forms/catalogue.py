"""Forms of catalogue entries."""

from __future__ import annotations

import uuid
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from apps.accounts.models import Organisation
from apps.datasets import dictionary as dictionaries
from apps.datasets.models import Dataset
from portal.forms_render import DateInputField


class Form(forms.Form):
    """Labels without a colon."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("label_suffix", "")
        super().__init__(*args, **kwargs)


class DetailsForm(Form):
    """What the catalogue says of a dataset."""

    title = forms.CharField(
        max_length=200,
        label="Title",
        help_text="As researchers know it, for example “RAND Health Insurance Experiment”",
    )
    summary = forms.CharField(
        max_length=2000,
        label="Summary",
        help_text="What the data is about, who is in it, how it was collected. Anybody can read this.",
        widget=forms.Textarea(attrs={"rows": 6}),
    )
    keywords = forms.CharField(
        required=False,
        label="Keywords",
        max_length=1300,
        help_text="Separated by commas, for example: health insurance, use of care",
    )
    coverage_place = forms.CharField(
        required=False,
        max_length=200,
        label="Place covered",
        help_text="For example, United States, six sites",
    )
    coverage_from = DateInputField(
        required=False, label="First day covered", help_text="For example, 1 11 1974"
    )
    coverage_to = DateInputField(required=False, label="Last day covered", help_text="For example, 31 1 1982")
    source_url = forms.CharField(
        required=False, max_length=200, label="Web address of the source", help_text="Starts with https://"
    )
    licence = forms.CharField(
        required=False,
        max_length=200,
        label="Licence or terms",
        help_text="For example, public domain, or the terms under which you hold the data",
    )
    personal_data = forms.TypedChoiceField(
        label="Is this personal data?",
        help_text="Personal data is never used on an installation without hardware protection.",
        choices=[("yes", "Yes"), ("no", "No")],
        coerce=lambda v: v == "yes",
        widget=forms.RadioSelect,
        empty_value=None,
    )
    program_approval = forms.ChoiceField(
        label="Who approves a program before it runs on the data?",
        choices=Dataset.ProgramApproval.choices,
        widget=forms.RadioSelect,
        initial=Dataset.ProgramApproval.REVIEWER,
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["personal_data"].choice_hints = {  # type: ignore[attr-defined]
            "yes": "About real people, also without their names: whoever can be picked out by a combination of facts counts",
            "no": "About nobody (prices, weather), invented, or lawfully public",
        }
        self.fields["program_approval"].choice_hints = {  # type: ignore[attr-defined]
            "automatic": "Outputs are still checked by two people before they leave",
            "reviewer": "A person reads each program first",
        }

    def clean_keywords(self) -> list[str]:
        return [k.strip() for k in self.cleaned_data["keywords"].split(",") if k.strip()]

    @staticmethod
    def initial_of(dataset: Dataset) -> dict[str, Any]:
        """Initial values of the form for an existing dataset."""
        plain = (
            "title",
            "summary",
            "coverage_place",
            "coverage_from",
            "coverage_to",
            "source_url",
            "licence",
            "program_approval",
        )
        return {
            **{name: getattr(dataset, name) for name in plain},
            "keywords": ", ".join(dataset.keywords),
            "personal_data": "yes" if dataset.personal_data else "no",
        }


class RegisterForm(DetailsForm):
    """Registration: the details, for whom, and the short name."""

    custodian = forms.ModelChoiceField(
        queryset=Organisation.objects.none(),
        label="Custodian",
        help_text="The organisation that answers for the data",
        empty_label=None,
    )
    slug = forms.CharField(
        max_length=60,
        label="Short name",
        help_text='Programs use it: strongroom.load("rand-hie"). Small letters, digits and hyphens. It cannot be changed later.',
        widget=forms.TextInput(attrs={"spellcheck": "false", "autocomplete": "off"}),
    )
    submission = forms.UUIDField(widget=forms.HiddenInput)

    field_order = ["custodian", "title", "slug"]

    def __init__(self, *args: Any, organisations: list[Organisation], **kwargs: Any) -> None:
        kwargs["initial"] = {"submission": uuid.uuid4(), **kwargs.get("initial", {})}
        super().__init__(*args, **kwargs)
        self.fields["custodian"].queryset = Organisation.objects.filter(pk__in=[o.pk for o in organisations])  # type: ignore[attr-defined]

    def clean_slug(self) -> str:
        return str(self.cleaned_data["slug"]).strip()


class DictionaryForm(Form):
    """A dictionary as a file or as pasted text; cleans to `dictionary`, and lists every problem in `problems`."""

    file = forms.FileField(
        required=False,
        label="Dictionary file",
        help_text="JSON (Table Schema) or CSV, at most 1 MB",
        widget=forms.FileInput(attrs={"accept": ".json,.csv"}),
    )
    text = forms.CharField(
        required=False,
        strip=False,
        label="Or paste it",
        widget=forms.Textarea(attrs={"rows": 12, "spellcheck": "false"}),
        help_text="The same content as in a file",
    )
    problems: list[dictionaries.Problem]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        self.problems = []
        upload, pasted = cleaned.get("file"), (cleaned.get("text") or "").strip()
        if upload is None and "file" in self.errors:
            return cleaned
        if upload is None and not pasted:
            raise ValidationError("Choose a file or paste the dictionary")
        if upload is not None and upload.size > dictionaries.MAX_BYTES:
            raise ValidationError(
                "The file is larger than 1 MB. A dictionary has one row for each column, not the data itself"
            )
        data = upload.read() if upload is not None else pasted.encode("utf-8", "surrogatepass")
        try:
            cleaned["dictionary"] = dictionaries.parse(data)
        except dictionaries.DictionaryError as error:
            self.problems = error.problems
            found = len(error.problems)
            raise ValidationError(
                f"The dictionary has {found} {'problem' if found == 1 else 'problems'}, listed below. Nothing was saved"
            ) from None
        return cleaned


class ReasonForm(Form):
    """Why. Kept for good, with the person's name and the time."""

    reason = forms.CharField(
        max_length=2000,
        label="Reason",
        help_text="A sentence. It is kept in the record.",
        widget=forms.Textarea(attrs={"rows": 4}),
    )


class ManagerForm(Form):
    """Another custodian, by the e-mail address they sign in with."""

    email = forms.EmailField(
        label="E-mail address",
        help_text="Of somebody with the role “Data custodian” in the same organisation",
    )
