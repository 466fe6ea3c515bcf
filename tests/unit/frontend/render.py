"""Renders our templates without the portal's apps: what the front-end tests share."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from django import forms
from django.contrib.messages import constants
from django.contrib.messages.storage.base import Message
from django.core.paginator import Paginator
from django.test import RequestFactory
from jinja2 import ChoiceLoader, DictLoader, Environment, FileSystemLoader

from portal.forms_render import DateInputField
from portal.jinja import environment

ROOT = Path(__file__).resolve().parents[3]
FRONTEND = ROOT / "frontend"
HERE = Path(__file__).parent
NOW = dt.datetime(2026, 11, 5, 14, 5, tzinfo=dt.UTC)
HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def build_environment(**extra: str) -> Environment:
    """The portal's own environment, with the test pages and `extra` named sources beside its templates."""
    loader = ChoiceLoader(
        [DictLoader(extra), FileSystemLoader(FRONTEND / "templates"), FileSystemLoader(HERE / "pages")]
    )
    env = environment(loader=loader)
    env.globals["static"] = lambda path: f"/static/{path}"
    env.globals["url"] = lambda name, *args, **kwargs: (
        f"/{name.replace(':', '/')}/" + "".join(f"{a}/" for a in args)
    )
    return env


class ApplicationForm(forms.Form):
    """One field of every kind."""

    name = forms.CharField(
        label="Full name", max_length=20, widget=forms.TextInput(attrs={"autocomplete": "name"})
    )
    email = forms.EmailField(label="Work email", help_text="We write to it when a decision is made")
    password = forms.CharField(label="Password", widget=forms.PasswordInput)
    summary = forms.CharField(label="Lay summary", max_length=300, widget=forms.Textarea)
    notes = forms.CharField(label="Notes", widget=forms.Textarea, required=False)
    words = forms.CharField(label="Purpose", widget=forms.Textarea(attrs={"maxwords": 50}))
    region = forms.ChoiceField(label="Region", choices=[("", "---------"), ("uk", "UK"), ("eu", "Europe")])
    decision = forms.ChoiceField(
        label="Your decision", widget=forms.RadioSelect, choices=[("yes", "Approve"), ("no", "Decline")]
    )
    topics = forms.MultipleChoiceField(
        label="Topics", widget=forms.CheckboxSelectMultiple, choices=[("a", "Diabetes"), ("b", "Use of care")]
    )
    ends = DateInputField(label="End date", help_text="For example, 27 3 2027")
    count = forms.IntegerField(label="People", min_value=1, required=False)
    data = forms.FileField(label="Data dictionary", widget=forms.FileInput(attrs={"accept": ".json"}))
    agree = forms.BooleanField(label="I have read the agreement")
    token = forms.CharField(widget=forms.HiddenInput, initial="t1")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("label_suffix", "")
        super().__init__(*args, **kwargs)
        self.fields["decision"].choice_hints = {"no": "You must give a reason"}  # type: ignore[attr-defined]


class DecisionForm(forms.Form):
    decision = forms.ChoiceField(
        label="What do you decide?", widget=forms.RadioSelect, choices=[("yes", "Approve"), ("no", "Decline")]
    )
    reason = forms.CharField(label="Reason", widget=forms.Textarea, max_length=500)
    password = forms.CharField(label="Your password", widget=forms.PasswordInput)


def frame(**context: Any) -> dict[str, Any]:
    """What the context processor gives every page of a signed-in person."""
    return {
        "insecure": True,
        "nav": [
            {"text": "Home", "href": "/", "active": True},
            {"text": "Projects", "href": "/projects/"},
            {"text": "Datasets", "href": "/datasets/"},
            {"text": "Requests", "href": "/requests/", "waiting": 3},
        ],
        "account": {"name": "Ada Obi", "url": "/account/", "sign_out_url": "/sign-out/"},
        "footer_links": [
            {"text": text, "href": f"/{text.split()[0].lower()}/"}
            for text in (
                "Accessibility statement",
                "Privacy notice",
                "Terms of use",
                "API documentation",
                "Service status",
            )
        ],
        "session_seconds": 28800,
        "session_keep_url": "/keep/",
        "csrf_input": "",
        "csrf_token": "t",
        **context,
    }


def kitchen_context() -> dict[str, Any]:
    request = RequestFactory().get("/datasets/", {"q": "visits", "type": ["survey"], "page": "3"})
    page = Paginator([f"R-{n:04}" for n in range(1, 136)], 10).get_page(3)
    return frame(
        request=request,
        page=page,
        now=NOW,
        hash=HASH,
        form=ApplicationForm(),
        messages=[
            Message(constants.SUCCESS, "The application was submitted"),
            Message(constants.INFO, "A new version of the terms applies from 1 December"),
        ],
        state=SimpleNamespace(value="in_review", label="In review by the board"),
    )


PAGE_NAMES = (
    "kitchen",
    "form-errors",
    "decision",
    "confirmation",
    "list",
    "detail",
    "seal",
    "e403",
    "e404",
    "e500",
    "signed-out",
)


def all_pages(broker_key: dict[str, str], dataset: str) -> dict[str, str]:
    """Each ready page, rendered: name -> HTML. The names are PAGE_NAMES."""
    env = build_environment()
    kitchen = kitchen_context()
    wrong = ApplicationForm(
        {
            "name": "x" * 30,
            "email": "nope",
            "ends_day": "3",
            "ends_month": "",
            "ends_year": "2026",
            "count": "a",
            "summary": "z",
        }
    )
    results = [
        {
            "text": "RAND Health Insurance Experiment",
            "href": "/d/1/",
            "summary": "Doctor visits under insurance plans.",
            "meta": ["Northfield University", "20,190 rows"],
        },
        {"text": "Diabetes study", "href": "/d/2/"},
    ]
    facet = {
        "name": "type",
        "label": "Type",
        "options": [{"value": "survey", "text": "Survey", "total": 3, "checked": True}],
    }
    plans: dict[str, tuple[str, dict[str, Any]]] = {
        "kitchen": ("kitchen.html", kitchen),
        "form-errors": (
            "form_page.html",
            frame(
                title="Apply for data",
                caption="SR-12",
                form=wrong,
                cancel_url="/",
                back_url="/",
                intro="Tell us what you want to find out.",
                warning="You can submit once.",
            ),
        ),
        "decision": (
            "decision_page.html",
            frame(
                title="Decide on the application",
                form=DecisionForm(),
                cancel_url="/",
                summary=[["Project", "Cost sharing"], ["Applicant", "Ada Obi"]],
            ),
        ),
        "confirmation": (
            "confirmation_page.html",
            frame(
                title="Application submitted",
                reference="SR-2026-0012",
                next=["The board checks it.", "You get a message."],
                links=[{"text": "Back to your project", "href": "/"}],
            ),
        ),
        "list": (
            "list_page.html",
            frame(
                title="Datasets",
                request=kitchen["request"],
                page=kitchen["page"],
                results=results,
                facets=[facet],
                search={"name": "q", "label": "Search"},
                result_word="dataset",
                action_url="/new/",
                action_text="Register a dataset",
            ),
        ),
        "detail": (
            "detail.html",
            frame(
                title="RAND Health Insurance Experiment",
                caption="Dataset",
                state="published",
                hash=HASH,
                now=NOW,
                breadcrumbs=[{"text": "Datasets", "href": "/d/"}, {"text": "RAND"}],
            ),
        ),
        "seal": ("seal.html", frame(broker_key=broker_key, dataset=dataset)),
        "e403": (
            "errors/403.html",
            frame(reason="Only the chair may decide.", remedy="Ask Sam Reid to decide."),
        ),
        "e404": ("errors/404.html", frame()),
        "e500": ("errors/500.html", {}),  # the handler of last resort has no context at all
        "signed-out": (
            "signed-out.html",
            {
                "insecure": True,
                "sign_in_url": "/sign-in/",
                "nav": lambda: [{"text": "Datasets", "href": "/datasets/"}],
            },
        ),
    }
    return {name: env.get_template(template).render(context) for name, (template, context) in plans.items()}
