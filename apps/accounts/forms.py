"""The forms of the accounts pages. What may be done is decided by the actions; forms only read what was typed."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django import forms
from django.utils import timezone

from apps.accounts.models import ApiToken, Organisation
from apps.accounts.policies import ALONE, APART, TOKEN_DAYS
from apps.accounts.roles import ROLES, Role
from portal.forms_render import DateInputField


def _password(label: str, autocomplete: str, help_text: str = "") -> forms.CharField:
    widget = forms.PasswordInput(attrs={"autocomplete": autocomplete})
    return forms.CharField(label=label, strip=False, max_length=1000, widget=widget, help_text=help_text)


NEW_HINT = "At least 12 characters. Three random words make a good one."


class LoginForm(forms.Form):
    email = forms.EmailField(
        label="Email address",
        widget=forms.EmailInput(attrs={"autocomplete": "username", "spellcheck": "false"}),
    )
    password = _password("Password", "current-password")


class PasswordForm(forms.Form):
    current = _password("Present password", "current-password")
    new = _password("New password", "new-password", NEW_HINT)
    again = _password("New password again", "new-password")

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if data.get("new") and data.get("again") and data["new"] != data["again"]:
            self.add_error("again", "The two new passwords are not the same")
        return data


class TokenForm(forms.Form):
    name = forms.CharField(
        label="Name", max_length=100, help_text="Where you will use it, for example “my laptop”."
    )
    scopes = forms.MultipleChoiceField(
        label="What the token may do",
        choices=ApiToken.Scope.choices,
        widget=forms.CheckboxSelectMultiple,
        initial=["read"],
        help_text="Never more than you may do yourself. Give it only what it needs.",
    )
    days = forms.IntegerField(
        label="Days until it expires",
        initial=90,
        min_value=TOKEN_DAYS[0],
        max_value=TOKEN_DAYS[1],
        help_text=f"Between {TOKEN_DAYS[0]} and {TOKEN_DAYS[1]}.",
    )


class OrganisationForm(forms.Form):
    name = forms.CharField(label="Name", max_length=200)
    slug = forms.SlugField(
        label="Short name",
        max_length=60,
        help_text="Letters, digits and hyphens, for example “north-hospital”. It cannot be changed.",
    )
    kind = forms.ChoiceField(label="Kind", choices=Organisation.Kind.choices, widget=forms.RadioSelect)
    address = forms.CharField(label="Address", required=False, widget=forms.Textarea(attrs={"rows": 3}))


class PersonForm(forms.Form):
    name = forms.CharField(label="Full name", max_length=200)
    email = forms.EmailField(label="Email address", max_length=254)
    organisation = forms.ModelChoiceField(label="Organisation", queryset=Organisation.objects.none())
    job_title = forms.CharField(label="Job title", max_length=200, required=False)
    password = _password(
        "First password", "new-password", "They must replace it when they first sign in. " + NEW_HINT
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["organisation"].queryset = Organisation.objects.filter(is_active=True)  # type: ignore[attr-defined]


class RoleForm(forms.Form):
    role = forms.ChoiceField(
        label="Role",
        choices=[(r.value, info.label) for r, info in ROLES.items() if info.held_in != "project"],
        widget=forms.RadioSelect,
    )
    organisation = forms.ModelChoiceField(label="In the organisation", queryset=Organisation.objects.none())
    expires_on = DateInputField(
        label="Last day", required=False, help_text="Leave empty if the role does not end by itself."
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["organisation"].queryset = Organisation.objects.filter(is_active=True)  # type: ignore[attr-defined]
        self.fields["role"].choice_hints = {r.value: info.purpose for r, info in ROLES.items()}  # type: ignore[attr-defined]

    @property
    def expires_at(self) -> dt.datetime | None:
        """The end of the last day, local time."""
        day = self.cleaned_data.get("expires_on")
        if day is None:
            return None
        return timezone.make_aware(dt.datetime.combine(day + dt.timedelta(days=1), dt.time.min))


class TrainingForm(forms.Form):
    course = forms.CharField(
        label="Course", max_length=200, help_text="For example “Research, GDPR and confidentiality”."
    )
    completed_on = DateInputField(label="Completed on")


class ReasonForm(forms.Form):
    reason = forms.CharField(label="Reason", max_length=1000, widget=forms.Textarea(attrs={"rows": 3}))


def role_rules(role: Role) -> list[str]:
    """The sentences of the roles page about what a role excludes."""
    rules = [f"Held alone. {ALONE[role]}"] if role in ALONE else []
    for pair, why in APART.items():
        if role in pair:
            (other,) = pair - {role}
            rules.append(f"Never with “{ROLES[other].label}”. {why}")
    return rules
