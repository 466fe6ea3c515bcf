"""Forms of release policies and key brokers. Their fields come from the table in members.py."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator

from apps.attestation.members import MEMBERS, Member, Unreadable
from strongroom import strictjson
from strongroom.errors import FormatError
from strongroom.evidence.policy import MAX_POLICY_BYTES

_TEXT = {"spellcheck": "false", "autocomplete": "off"}
MAX_KEYS_BYTES = 64 << 10


def _long_text(rows: int, maximum: int, **kwargs: Any) -> forms.CharField:
    """A text area for what is pasted. Its bound is no `max_length`: nobody needs to count down from it while typing."""
    widget = forms.Textarea(attrs={"rows": rows, **_TEXT})
    return forms.CharField(widget=widget, validators=[MaxLengthValidator(maximum)], **kwargs)


class Form(forms.Form):
    """Labels without a colon."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("label_suffix", "")
        super().__init__(*args, **kwargs)


def _field(member: Member) -> forms.Field:
    hint = f"{member.explanation} {member.hint}".strip()
    hint = hint if hint.endswith(".") else f"{hint}."
    common: dict[str, Any] = {"label": member.label, "required": member.required, "help_text": hint}
    if member.widget == "choices":
        return forms.MultipleChoiceField(
            widget=forms.CheckboxSelectMultiple, choices=list(member.choices), **common
        )
    if member.widget == "number":
        return forms.IntegerField(min_value=0, max_value=2**53 - 1, **common)
    return _long_text(3 if member.widget == "lines" else 6, MAX_POLICY_BYTES, **common)


class PolicyForm(Form):
    """Every member of a policy as a field of its own. After `is_valid`, `document()` is the policy."""

    def __init__(self, *args: Any, document: dict[str, Any], personal_data: bool, **kwargs: Any) -> None:
        kwargs["initial"] = {m.name: m.write(document.get(m.name)) for m in MEMBERS}
        super().__init__(*args, **kwargs)
        for member in MEMBERS:
            self.fields[member.name] = _field(member)
        if personal_data:
            types = self.fields["types"]
            types.choices = [c for c in types.choices if c[0] != "software"]  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        for member in MEMBERS:
            if member.name in self.cleaned_data:
                try:
                    self.cleaned_data[member.name] = member.read(self.cleaned_data[member.name])
                except Unreadable as error:
                    self.add_error(member.name, str(error))
        return self.cleaned_data

    def document(self) -> dict[str, Any]:
        """The policy as it is stored: members that say nothing are left out."""
        found = {m.name: self.cleaned_data[m.name] for m in MEMBERS}
        kept = {n: v for n, v in found.items() if n == "images" or v not in (None, [], {}, "")}
        return {"v": 1, **kept}


class PasteForm(Form):
    """A whole policy as JSON, for those who keep it in a file."""

    document = _long_text(
        18,
        MAX_POLICY_BYTES,
        label="Policy as JSON",
        help_text="The whole document. A member that is not known is refused, never ignored.",
    )

    def clean_document(self) -> dict[str, Any]:
        try:
            value = strictjson.loads(
                self.cleaned_data["document"].encode(), max_bytes=MAX_POLICY_BYTES, what="The policy"
            )
        except (FormatError, UnicodeError) as error:
            raise ValidationError(str(error)) from None
        if not isinstance(value, dict):
            raise ValidationError("The policy must be a JSON object: begin with { and end with }.")
        return value


class ConfirmForm(Form):
    """What the page before the last one carried along; the action judges it anew."""

    document = forms.CharField(widget=forms.HiddenInput, max_length=2 * MAX_POLICY_BYTES)
    instead_of = forms.RegexField(r"\A[0-9a-f]{64}\Z", widget=forms.HiddenInput)

    def clean_document(self) -> dict[str, Any]:
        try:
            value = json.loads(self.cleaned_data["document"])
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise ValidationError("no policy")
        return value

    def clean(self) -> dict[str, Any]:
        if self.errors:  # of fields that nobody has seen: one sentence for all
            self.errors.clear()
            raise ValidationError("The policy was lost on its way. Start again.")
        return self.cleaned_data


class KeyBrokerForm(Form):
    """Who holds the keys of a dataset."""

    PORTAL = "this portal"  # no id: those have no blanks

    broker = forms.ChoiceField(label="Who is to hold the keys of this dataset", widget=forms.RadioSelect)
    keys = _long_text(
        8,
        MAX_KEYS_BYTES,
        label="Public keys of your key broker",
        required=False,
        help_text="For a key broker of your own: what “strongroom broker keys” prints on its machine. Get it there, not from "
        "this portal.",
    )

    def __init__(self, *args: Any, offered: Collection[str], **kwargs: Any) -> None:
        """offered: ids of brokers, "" being this portal's own."""
        super().__init__(*args, **kwargs)
        choices = [
            (name, name) if name else (self.PORTAL, "This portal's own key broker") for name in offered
        ]
        self.fields["broker"].choices = choices  # type: ignore[attr-defined]
        if not any(offered):
            del self.fields["keys"]

    def clean_broker(self) -> str:
        chosen = self.cleaned_data["broker"]
        return "" if chosen == self.PORTAL else str(chosen)

    def clean(self) -> dict[str, Any]:
        broker = self.cleaned_data.get("broker")
        if broker == "":  # what still stands in the text area is about another one
            self.errors.pop("keys", None)
            return {"broker": "", "keys": None}
        if broker and "keys" not in self.errors and self.cleaned_data.get("keys") is None:
            self.add_error("keys", f"Enter the public keys of {broker}")
        return self.cleaned_data

    def clean_keys(self) -> Any:
        text = self.cleaned_data["keys"]
        if not text.strip():
            return None
        try:
            return strictjson.loads(text.encode(), max_bytes=MAX_KEYS_BYTES, what="The list of keys")
        except (FormatError, UnicodeError) as error:
            raise ValidationError(str(error)) from None
