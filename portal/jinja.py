"""The Jinja2 environment of every page.

A name that a template misspells is an error, never an empty string (``StrictUndefined``). The GOV.UK components are
written for a forgiving environment, so they live in one of their own and are reached as global functions
(``govukButton({...})``); our macros are reached as ``ui.<macro>(...)`` without an import.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.contrib.messages import get_messages
from django.http import HttpRequest
from django.template.defaultfilters import linebreaks_filter
from django.templatetags.static import static
from django.urls import reverse
from django.utils import timezone
from jinja2 import ChainableUndefined, Environment, PackageLoader, PrefixLoader, StrictUndefined
from markupsafe import Markup, escape

MACRO_FILES = ("status", "page", "table", "form", "run", "chart", "record")
COMPONENTS = {
    "govukAccordion": "accordion",
    "govukBackLink": "back-link",
    "govukBreadcrumbs": "breadcrumbs",
    "govukButton": "button",
    "govukCharacterCount": "character-count",
    "govukCheckboxes": "checkboxes",
    "govukDateInput": "date-input",
    "govukDetails": "details",
    "govukErrorMessage": "error-message",
    "govukErrorSummary": "error-summary",
    "govukFieldset": "fieldset",
    "govukFileUpload": "file-upload",
    "govukHint": "hint",
    "govukInput": "input",
    "govukInsetText": "inset-text",
    "govukLabel": "label",
    "govukNotificationBanner": "notification-banner",
    "govukPagination": "pagination",
    "govukPanel": "panel",
    "govukPasswordInput": "password-input",
    "govukRadios": "radios",
    "govukSelect": "select",
    "govukServiceNavigation": "service-navigation",
    "govukSkipLink": "skip-link",
    "govukSummaryList": "summary-list",
    "govukTable": "table",
    "govukTabs": "tabs",
    "govukTag": "tag",
    "govukTaskList": "task-list",
    "govukTextarea": "textarea",
    "govukWarningText": "warning-text",
}


def _components_environment() -> Environment:
    loader = PrefixLoader({"govuk_frontend_jinja": PackageLoader("govuk_frontend_jinja")})
    return Environment(loader=loader, autoescape=True, undefined=ChainableUndefined, auto_reload=False)


class Components:
    """GOV.UK Frontend's macros by name, compiled when first used."""

    def __init__(self) -> None:
        self._environment = _components_environment()
        self._macros: dict[str, Callable[..., Markup]] = {}

    def macro(self, name: str) -> Callable[..., Markup]:
        """The macro called `name`, for example ``govukButton``. Raises KeyError for one that is not in use here."""
        if name not in self._macros:
            path = f"govuk_frontend_jinja/components/{COMPONENTS[name]}/macro.html"
            self._macros[name] = getattr(self._environment.get_template(path).module, name)
        return self._macros[name]

    def function(self, name: str) -> Callable[..., Markup]:
        """A function that finds and calls the macro `name`; usable before anything is compiled."""

        def component(params: dict[str, Any] | None = None, **kwargs: Any) -> Markup:
            return self.macro(name)(params or {}, **kwargs)

        component.__name__ = name
        return component


components = Components()


class MacroLibrary:
    """All macros of frontend/templates/macros as attributes: ``ui.status_tag(...)``."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._where: dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if not self._where:
            for file in MACRO_FILES:
                module = self._environment.get_template(f"macros/{file}.html").module
                self._where.update({macro: file for macro in vars(module) if not macro.startswith("_")})
        if name not in self._where:
            raise AttributeError(f"there is no macro ui.{name}")
        return getattr(self._environment.get_template(f"macros/{self._where[name]}.html").module, name)


def url(name: str, *args: Any, **kwargs: Any) -> str:
    """The path of a named route. Raises NoReverseMatch for an unknown one: a dead link is a bug, not a blank."""
    return reverse(name, args=args, kwargs=kwargs)


def query(request: HttpRequest, **changes: Any) -> str:
    """The current page's query string with `changes` applied, beginning with "?"; None removes a name."""
    parameters = request.GET.copy()
    for name, value in changes.items():
        if value is None:
            parameters.pop(name, None)
        elif isinstance(value, list | tuple):
            parameters.setlist(name, [str(one) for one in value])
        else:
            parameters[name] = str(value)
    encoded = urlencode([(name, value) for name, values in parameters.lists() for value in values])
    return f"?{encoded}"


def _local(value: dt.datetime) -> dt.datetime:
    return timezone.localtime(value) if timezone.is_aware(value) else value


def uk_date(value: dt.date | dt.datetime | None) -> str:
    """Like "5 November 2026"; an em dash for None."""
    if value is None:
        return "—"
    if isinstance(value, dt.datetime):
        value = _local(value)
    return f"{value.day} {value:%B} {value.year}"


def uk_time(value: dt.datetime | None) -> str:
    """Like "2:05pm", "midday", "midnight"; an em dash for None."""
    if value is None:
        return "—"
    value = _local(value)
    if value.minute == 0 and value.hour in (0, 12):
        return "midday" if value.hour else "midnight"
    hour = value.hour % 12 or 12
    minute = f":{value.minute:02d}" if value.minute else ""
    return f"{hour}{minute}{'pm' if value.hour >= 12 else 'am'}"


def uk_datetime(value: dt.datetime | None) -> str:
    """Like "5 November 2026 at 2:05pm"; an em dash for None."""
    return "—" if value is None else f"{uk_date(value)} at {uk_time(value)}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """Like "1 file", "1,204 files"."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def number(value: float | int | None, decimals: int | None = None) -> str:
    """A number with thousands separators: "20,190". An em dash for None."""
    if value is None:
        return "—"
    return f"{value:,.{decimals}f}" if decimals is not None else f"{value:,}"


def filesize(value: int | None) -> str:
    """Bytes in decimal units, as disks and browsers count: "812 bytes", "1.2 MB". An em dash for None."""
    if value is None:
        return "—"
    if value < 1000:
        return plural(value, "byte")
    size = float(value)
    for unit in ("kB", "MB", "GB", "TB"):
        size /= 1000
        if size < 999.5 or unit == "TB":
            break
    return f"{size:.1f} {unit}" if size < 10 else f"{size:,.0f} {unit}"


def duration(value: dt.timedelta | float | int | None) -> str:
    """A span of time in at most two units: "1 minute 5 seconds". Takes seconds or a timedelta; an em dash for None."""
    if value is None:
        return "—"
    seconds = int(value.total_seconds() if isinstance(value, dt.timedelta) else value)
    if seconds < 1:
        return "less than a second"
    parts = []
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        amount, seconds = divmod(seconds, size)
        if amount:
            parts.append((unit, amount))
        elif parts:
            break  # "1 day 3 seconds" reads as false precision
    return " ".join(plural(amount, unit) for unit, amount in parts[:2])


def relative(value: dt.datetime | None, now: dt.datetime | None = None) -> str:
    """Like "just now", "3 minutes ago", "in 2 days"; an em dash for None."""
    if value is None:
        return "—"
    if now is None:
        now = timezone.now() if timezone.is_aware(value) else dt.datetime.now()  # noqa: DTZ005
    seconds = int((now - value).total_seconds())
    if abs(seconds) < 45:
        return "just now" if seconds >= 0 else "in a moment"
    span = duration(abs(seconds)).split(" ")
    words = " ".join(span[:2])
    return f"{words} ago" if seconds > 0 else f"in {words}"


def when(value: dt.datetime | dt.date | None, style: str = "datetime") -> Markup:
    """A <time> element; `style` is "datetime", "date" or "relative" (the full time is then in its title)."""
    if value is None:
        return Markup("—")
    if not isinstance(value, dt.datetime):
        return Markup('<time datetime="{}">{}</time>').format(value.isoformat(), uk_date(value))
    iso = value.isoformat(timespec="seconds")
    if style == "relative":
        return Markup('<time datetime="{}" title="{}">{}</time>').format(
            iso, uk_datetime(value), relative(value)
        )
    return Markup('<time datetime="{}">{}</time>').format(
        iso, uk_date(value) if style == "date" else uk_datetime(value)
    )


def paragraphs(text: str) -> Markup:
    """Plain text typed by a person as paragraphs; everything in it is escaped."""
    html = str(linebreaks_filter(escape(text or ""), autoescape=False))
    return Markup(html.replace("<p>", '<p class="govuk-body">'))  # noqa: S704 - `text` is escaped above


FILTERS: dict[str, Callable[..., Any]] = {
    "uk_date": uk_date,
    "uk_time": uk_time,
    "uk_datetime": uk_datetime,
    "when": when,
    "relative": relative,
    "duration": duration,
    "filesize": filesize,
    "number": number,
    "paragraphs": paragraphs,
}


def environment(**options: Any) -> Environment:
    """Build the environment that Django's Jinja2 backend asks for."""
    from portal import forms_render  # it calls the components above

    options |= {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    options.pop("autoescape", None)
    env = Environment(autoescape=True, **options)
    env.globals.update({name: components.function(name) for name in COMPONENTS})
    env.globals.update(
        url=url,
        static=static,
        query=query,
        plural=plural,
        get_messages=get_messages,
        form_field=forms_render.form_field,
        form_fields=forms_render.form_fields,
        form_errors=forms_render.form_errors,
        ui=MacroLibrary(env),
    )
    env.filters.update(FILTERS)
    return env
