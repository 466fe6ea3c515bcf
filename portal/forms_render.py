"""Django form fields as GOV.UK components: label, hint, error and value, linked for assistive technology.

``form_field(form["name"])`` chooses the component by the field's widget. Error sentences are written for people:
Django's defaults ("This field is required.") are replaced by ones that name the field and say what to do.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.forms.boundfield import BoundField
from django.forms.widgets import Input
from markupsafe import Markup

from portal.jinja import components

LEGEND = {
    "": "",
    "s": "govuk-fieldset__legend--s",
    "m": "govuk-fieldset__legend--m",
    "l": "govuk-fieldset__legend--l",
}
LABEL = {"": "", "s": "govuk-label--s", "m": "govuk-label--m", "l": "govuk-label--l"}
OWN_ATTRIBUTES = {
    "class",
    "id",
    "name",
    "type",
    "value",
    "rows",
    "cols",
    "maxlength",
    "minlength",
    "required",
    "placeholder",
    "autocomplete",
    "spellcheck",
    "inputmode",
    "aria-describedby",
    "aria-invalid",
}


class DateInputWidget(forms.MultiWidget):
    """Day, month and year as three text inputs, posted as NAME_day, NAME_month and NAME_year."""

    def __init__(self, attrs: dict[str, Any] | None = None) -> None:
        super().__init__({part: forms.TextInput() for part in ("day", "month", "year")}, attrs)

    def decompress(self, value: Any) -> list[Any]:
        if isinstance(value, dt.date):
            return [value.day, value.month, value.year]
        return list(value) if isinstance(value, list | tuple) else ["", "", ""]


class DateInputField(forms.MultiValueField):
    """A date typed as three numbers; cleans to ``datetime.date`` or None. Months may be words ("nov", "November")."""

    widget = DateInputWidget

    def __init__(self, **kwargs: Any) -> None:
        parts = tuple(forms.CharField(required=False) for _ in range(3))
        super().__init__(parts, require_all_fields=False, **kwargs)

    def compress(self, data_list: Sequence[Any]) -> Any:
        return data_list

    def clean(self, value: Any) -> dt.date | None:
        if isinstance(value, dt.date):
            return value
        typed = [str(part or "").strip() for part in (value or ["", "", ""])]
        name = str(self.label or "The date")
        missing = [part for part, text in zip(("day", "month", "year"), typed, strict=False) if not text]
        if len(missing) == 3:
            if self.required:
                raise ValidationError(f"Enter {_lower_first(name)}", code="required")
            return None
        if missing:
            raise ValidationError(
                f"{name} must include a {' and '.join(missing)}", code="incomplete", params={"parts": missing}
            )
        try:
            if len(typed[2]) != 4:
                raise ValueError("year")
            date = dt.date(int(typed[2]), _month(typed[1]), int(typed[0]))
        except ValueError:
            raise ValidationError(f"{name} must be a real date, like 27 3 2026", code="invalid") from None
        self.run_validators(date)
        return date


def _month(text: str) -> int:
    if text.isdigit():
        return int(text)
    months = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
    return months.index(text[:3].lower()) + 1  # ValueError when it is no month


def _lower_first(text: str) -> str:
    """From "Your name" to "your name", but "DOI" and "UK address" stay as they are."""
    keep = text.startswith(("I ", "I'")) or (len(text) > 1 and text[1].isupper())
    return text if keep else text[:1].lower() + text[1:]


def _choice_like(field: forms.Field) -> bool:
    return isinstance(
        field.widget, forms.Select | forms.RadioSelect
    )  # CheckboxSelectMultiple is a RadioSelect in Django


def _is_radios(widget: forms.Widget) -> bool:
    return isinstance(widget, forms.RadioSelect) and not isinstance(widget, forms.CheckboxSelectMultiple)


def _sentence(field: BoundField, error: ValidationError) -> str:
    """One error in plain words; messages that a form wrote itself are kept."""
    plain = field.field
    name, low = str(field.label), _lower_first(str(field.label))
    text = str(error.messages[0])
    own = plain.error_messages.get(error.code or "")
    if error.code not in {"max_length", "min_length", "max_value", "min_value"} and own != _default_message(
        plain, error.code
    ):
        return text
    limit = (error.params or {}).get("limit_value")
    match error.code:
        case "required" if isinstance(plain, DateInputField):
            return text
        case "required" if isinstance(plain.widget, forms.CheckboxInput):
            return f"Tick the box: {name}"
        case "required" if isinstance(plain.widget, forms.FileInput):
            return f"Choose a file: {low}"
        case "required":
            return f"{'Select' if _choice_like(plain) else 'Enter'} {low}"
        case "max_length" if limit is not None:
            return f"{name} must be {limit:,} characters or fewer"
        case "min_length" if limit is not None:
            return f"{name} must be {limit:,} characters or more"
        case "max_value" if limit is not None:
            return f"{name} must be {limit} or less"
        case "min_value" if limit is not None:
            return f"{name} must be {limit} or more"
        case "invalid" if isinstance(plain, forms.EmailField):
            return f"{name} must be an email address, like name@example.com"
        case "invalid" if isinstance(plain, forms.IntegerField):
            return f"{name} must be a number, like 30"
        case "invalid_choice":
            return f"{name}: choose one of the options in the list"
        case "empty":
            return f"The file for {low} is empty. Choose another one"
    return text


def _default_message(field: forms.Field, code: str | None) -> Any:
    for cls in type(field).__mro__:
        messages = getattr(cls, "default_error_messages", {})
        if code in messages:
            return messages[code]
    return None


def field_errors(field: BoundField) -> list[str]:
    """The error sentences of one bound field, the same in the summary and beside the field."""
    errors = field.form.errors.get(field.name)
    return [_sentence(field, error) for error in errors.as_data()] if errors else []


def form_errors(*forms_: forms.BaseForm | Iterable[forms.BaseForm] | None) -> list[dict[str, str]]:
    """Entries of the error summary for forms and formsets: {"text", "href"}; no href if no one field is at fault."""
    entries: list[dict[str, str]] = []
    for form in forms_:
        if form is None:
            continue
        if isinstance(form, forms.BaseFormSet):
            entries += [{"text": str(text)} for text in form.non_form_errors()] if form.is_bound else []
            entries += form_errors(*form.forms)
            continue
        if not isinstance(form, forms.BaseForm):
            entries += form_errors(*form)
            continue
        if not form.is_bound:
            continue
        entries += [{"text": str(text)} for text in form.non_field_errors()]
        for field in form:
            if field.name in form.errors:
                suffix = f"-{_date_fault(field)[0]}" if isinstance(field.field, DateInputField) else ""
                target = {} if field.is_hidden else {"href": f"#{field.auto_id}{suffix}"}
                entries += [{"text": text, **target} for text in field_errors(field)]
    return entries


def _date_fault(field: BoundField) -> list[str]:
    for error in field.form.errors[field.name].as_data():
        if error.code == "incomplete" and error.params:
            return list(error.params["parts"])
    return ["day", "month", "year"]


def form_fields(form: forms.BaseForm, **options: Any) -> Markup:
    """Every field of a form in its order, hidden ones included."""
    return Markup("\n").join(form_field(field, **options) for field in form)


def form_field(
    field: BoundField,
    *,
    label: str | None = None,
    hint: str | None = None,
    size: str = "s",
    page_heading: bool = False,
    width: str = "",
    rows: int | None = None,
    inline: bool = False,
    small: bool = False,
    conditional: Mapping[str, Markup] | None = None,
    optional: bool = True,
) -> Markup:
    """Render a bound field as a GOV.UK component.

    size: "", "s", "m", "l" of label or legend. page_heading: the label is the page's h1. width: an input width class
    number ("2", "3", "4", "5", "10", "20", "30"). conditional: choice value -> HTML shown under a chosen radio or
    checkbox. optional: append "(optional)" to fields that may stay empty. Choice hints come from ``choice_hints`` (a
    dict) on the form field, word limits from the widget attribute ``maxwords``. Raises TypeError for an unknown widget.
    """
    widget = field.field.widget
    if widget.is_hidden:
        return Markup(str(field))  # noqa: S704 - Django renders and escapes it
    text = str(label if label is not None else field.label)
    if (
        optional
        and not field.field.required
        and not isinstance(widget, forms.CheckboxInput)
        and "optional" not in text.lower()
    ):
        text = f"{text} (optional)"
    errors = field_errors(field)
    params: dict[str, Any] = {"id": field.auto_id, "name": field.html_name}
    if help_text := hint if hint is not None else str(field.help_text or ""):
        params["hint"] = {"html" if hasattr(help_text, "__html__") else "text": help_text}
    if errors:
        params["errorMessage"] = {"html": Markup("<br>").join(errors)}
    attributes = {name: str(value) for name, value in widget.attrs.items() if name not in OWN_ATTRIBUTES}
    if attributes:
        params["attributes"] = attributes
    if widget.attrs.get("autocomplete"):
        params["autocomplete"] = widget.attrs["autocomplete"]
    params["spellcheck"] = False if str(widget.attrs.get("spellcheck", "")).lower() == "false" else None

    if isinstance(widget, forms.RadioSelect | forms.CheckboxInput | DateInputWidget):
        classes = "govuk-fieldset__legend--l" if page_heading and size == "s" else LEGEND[size]
        params["fieldset"] = {"legend": {"text": text, "classes": classes, "isPageHeading": page_heading}}
        params["idPrefix"] = field.auto_id
        params["classes"] = " ".join(
            name
            for name, wanted in (
                ("govuk-radios--inline", inline and _is_radios(widget)),
                ("govuk-radios--small govuk-checkboxes--small", small),
            )
            if wanted
        )
        return _group(field, widget, params, text, conditional or {})

    classes = "govuk-label--l" if page_heading and size == "s" else LABEL[size]
    params["label"] = {"text": text, "classes": classes, "isPageHeading": page_heading}
    if isinstance(widget, forms.FileInput):
        if widget.allow_multiple_selected:
            params["multiple"] = True
        if "accept" in widget.attrs:
            params.setdefault("attributes", {})["accept"] = widget.attrs["accept"]
        return _call("govukFileUpload", params)
    value = field.value()
    if isinstance(widget, forms.Select):
        if isinstance(widget, forms.SelectMultiple):
            raise TypeError(f"{field.name}: use CheckboxSelectMultiple; a multiple select is hard to use")
        params["items"] = [_option(choice, label_, value) for choice, label_ in _flat(field)]
        return _call("govukSelect", params)
    params["value"] = "" if value is None else str(field.field.prepare_value(value))
    if isinstance(widget, forms.Textarea):
        typed_rows = str(widget.attrs.get("rows", "10"))  # Django's own default is 10: nobody chose it
        params["rows"] = str(rows or (typed_rows if typed_rows != "10" else 5))
        limit = getattr(field.field, "max_length", None)
        if words := widget.attrs.get("maxwords"):
            said = f"You can enter up to {words} words"
            counter = {**params, "maxlength": words, "textareaDescriptionText": said, "attributes": None}
            html = _call("govukCharacterCount", counter)
            # The component's own `maxwords` warns on the console; its script wants this pair, its macro lacks it.
            return html.replace("data-maxlength=", Markup('data-count-type="words" data-maxlength='), 1)
        return (
            _call("govukCharacterCount", {**params, "maxlength": limit})
            if limit
            else _call("govukTextarea", params)
        )
    if isinstance(widget, forms.PasswordInput):
        params["value"] = ""  # a password is never sent back
        return _call("govukPasswordInput", params)
    if not isinstance(widget, Input):
        raise TypeError(f"{field.name}: no component for {type(widget).__name__}")
    kind = widget.input_type
    if kind == "number":  # a spinner loses what people typed: a text box with a numeric keyboard does not
        kind = "text"
        params["inputmode"] = "numeric" if type(field.field) is forms.IntegerField else "decimal"
        width = width or "5"
    params["type"] = kind
    if width:
        params["classes"] = f"govuk-input--width-{width}"
    return _call("govukInput", params)


def _call(name: str, params: dict[str, Any]) -> Markup:
    html = components.macro(name)({key: value for key, value in params.items() if value is not None})
    return html.strip()


def _flat(field: BoundField) -> list[tuple[Any, str]]:
    flat: list[tuple[Any, str]] = []
    for value, label in field.field.choices:  # type: ignore[attr-defined]
        if isinstance(label, list | tuple):
            flat += [(inner, f"{value}: {text}") for inner, text in label]
        else:
            flat.append((value, str(label)))
    return flat


def _option(value: Any, label: str, current: Any) -> dict[str, Any]:
    shown = "Choose an option" if value in ("", None) and label.startswith("---") else label
    text = "" if value is None else str(value)
    return {"value": text, "text": shown, "selected": text == ("" if current is None else str(current))}


def _group(
    field: BoundField,
    widget: forms.Widget,
    params: dict[str, Any],
    text: str,
    conditional: Mapping[str, Markup],
) -> Markup:
    value = field.value()
    if isinstance(widget, DateInputWidget):
        faults = _date_fault(field) if "errorMessage" in params else []
        values = widget.decompress(value)
        params["items"] = [
            {
                "name": f"{field.html_name}_{part}",
                "id": f"{field.auto_id}-{part}",
                "label": part.capitalize(),
                "value": "" if one is None else str(one),
                "classes": f"govuk-input--width-{4 if part == 'year' else 2}"
                + (" govuk-input--error" if part in faults else ""),
                **({"inputmode": "text"} if part == "month" else {}),
            }
            for part, one in zip(("day", "month", "year"), values, strict=False)
        ]
        return _call("govukDateInput", {**params, "fieldset": {**params["fieldset"], "role": "group"}})
    if isinstance(widget, forms.CheckboxInput):
        item = {"value": "on", "text": text, "checked": bool(value)}
        single = {key: one for key, one in params.items() if key != "fieldset"}
        return _call("govukCheckboxes", {**single, "items": [item]})
    chosen = (
        {str(one) for one in value}
        if isinstance(value, list | tuple)
        else {"" if value is None else str(value)}
    )
    hints: Mapping[Any, str] = getattr(field.field, "choice_hints", {})
    items = []
    for choice, label in _flat(field):
        if choice in ("", None) and _is_radios(widget) and field.field.required:
            continue  # "---------" is no answer
        item = {
            "value": "" if choice is None else str(choice),
            "text": label,
            "checked": str(choice) in chosen,
        }
        if choice in hints:
            item["hint"] = {"text": str(hints[choice])}
        if str(choice) in conditional:
            item["conditional"] = {"html": conditional[str(choice)]}
        items.append(item)
    return _call("govukRadios" if _is_radios(widget) else "govukCheckboxes", {**params, "items": items})
