"""The custodian's pages: the release policy of a dataset line by line, changing it with a preview, and its key broker."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from apps.attestation import actions, policies, queries
from apps.attestation.forms import ConfirmForm, KeyBrokerForm, PasteForm, PolicyForm
from apps.attestation.members import beside_its_field, differences, lines_of
from apps.core.errors import Conflict, Invalid, NotFound
from apps.core.views import act
from apps.datasets import brokers
from apps.datasets.actions import set_key_broker
from apps.datasets.models import Dataset
from strongroom.evidence import Policy


@require_safe
def policy(request: HttpRequest, slug: str) -> HttpResponse:
    """The policy in force, each line explained, and all that were set before."""
    dataset, found, history = queries.policy_page(request.user, slug)
    context = {
        "dataset": dataset, "lines": lines_of(found.to_json()), "sha256": found.sha256, "history": history,
        "by_default": not history, "number": None, "breadcrumbs": _trail(dataset),
        "broker_admitted": brokers.is_admitted(dataset),
        "document": json.dumps(found.to_json(), indent=2, sort_keys=True),
    }  # fmt: skip
    return render(request, "attestation/policy.html", context)


@require_safe
def version(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """A policy that was set once."""
    dataset, _, history = queries.policy_page(request.user, slug)
    row = next((item for item in history if item.number == number), None)
    if row is None:
        raise NotFound("release policy")
    context = {
        "dataset": dataset, "lines": lines_of(row.document), "sha256": row.sha256, "history": history,
        "by_default": False, "number": number, "breadcrumbs": _trail(dataset, f"Policy {number}"),
        "document": json.dumps(row.document, indent=2, sort_keys=True),
    }  # fmt: skip
    return render(request, "attestation/policy.html", context)


@require_http_methods(["GET", "POST"])
def change(request: HttpRequest, slug: str) -> HttpResponse:
    """Each member as a field; then the page that shows what the change would mean."""
    dataset, found, _ = queries.policy_page(request.user, slug)
    document = found.to_json()
    back = ConfirmForm(request.POST) if "back" in request.POST else None
    if back is not None:  # from the check page: the same answers again, to be changed
        document = back.cleaned_data["document"] if back.is_valid() else document
    sent = request.method == "POST" and back is None
    form = PolicyForm(
        request.POST if sent else None,
        document=_readable(document, found),
        personal_data=dataset.personal_data,
    )
    if sent and form.is_valid() and (checked := _checked(dataset, form, form.document())) is not None:
        return _check_page(request, dataset, found, checked)
    context = {
        "form": form, "dataset": dataset, "breadcrumbs": _trail(dataset, "Change it"),
        "paste_url": reverse("attestation:policy_paste", args=[dataset.slug]),
    }  # fmt: skip
    return render(request, "attestation/policy_change.html", context)


@require_http_methods(["GET", "POST"])
def paste(request: HttpRequest, slug: str) -> HttpResponse:
    """The whole document as JSON."""
    dataset, found, _ = queries.policy_page(request.user, slug)
    initial = {"document": json.dumps(found.to_json(), indent=2, sort_keys=True)}
    form = PasteForm(request.POST if request.method == "POST" else None, initial=initial)
    if request.method == "POST" and form.is_valid():
        if (checked := _checked(dataset, form, form.cleaned_data["document"])) is not None:
            return _check_page(request, dataset, found, checked)
    context = {
        "title": "Paste a release policy", "caption": dataset.title, "form": form, "button_text": "Continue",
        "cancel_url": reverse("attestation:policy", args=[dataset.slug]), "breadcrumbs": _trail(dataset, "Paste it"),
    }  # fmt: skip
    return render(request, "form_page.html", context)


@require_POST
def confirm(request: HttpRequest, slug: str) -> HttpResponse:
    """Put the policy that was checked in force."""
    dataset, _, _ = queries.policy_page(request.user, slug)
    form = ConfirmForm(request.POST)
    if form.is_valid():
        done = "The release policy is in force. Runs whose evidence it does not accept are being stopped."
        try:
            if act(request, form, actions.set_policy, done=done, dataset=dataset, **form.cleaned_data):
                return redirect("attestation:policy", slug=dataset.slug)
        except Conflict as conflict:  # somebody was first: the same answers, beside what is in force now
            new = actions.check_policy(dataset, form.cleaned_data["document"])
            return _check_page(request, dataset, policies.in_force(dataset), new, conflict)
    context = {
        "title": "The policy was not put in force", "caption": dataset.title, "form": form, "button_text": "Start again",
        "action": reverse("attestation:policy_change", args=[dataset.slug]), "hidden": {"back": "1"},
        "breadcrumbs": _trail(dataset, "Change it"),
    }  # fmt: skip
    return render(request, "form_page.html", context, status=422)


@require_http_methods(["GET", "POST"])
def key_broker(request: HttpRequest, slug: str) -> HttpResponse:
    """Who holds the keys of the dataset: this portal, or a broker that its custodian runs."""
    dataset, _, _ = queries.policy_page(request.user, slug)
    offered = brokers.offered(dataset)
    context = {
        "title": "Who holds the keys", "caption": dataset.title, "dataset": dataset, "sealed": brokers.sealed(dataset),
        "admitted": brokers.is_admitted(dataset), "breadcrumbs": _trail(dataset, "Who holds the keys"),
    }  # fmt: skip
    nothing_to_choose = not offered or [dataset.key_broker] == offered == [""]
    if nothing_to_choose and request.method == "GET":
        return render(request, "attestation/key_broker.html", context)
    initial = {
        "broker": dataset.key_broker or KeyBrokerForm.PORTAL,
        "keys": json.dumps({"id": dataset.key_broker, "keys": dataset.key_broker_keys}, indent=2)
        if dataset.key_broker
        else "",
    }
    form = KeyBrokerForm(request.POST if request.method == "POST" else None, offered=offered, initial=initial)
    if request.method == "POST" and form.is_valid():
        if act(request, form, set_key_broker, done="Saved.", dataset=dataset, **form.cleaned_data):
            return redirect("attestation:policy", slug=dataset.slug)
    context |= {
        "form": form, "button_text": "Save", "cancel_url": reverse("attestation:policy", args=[dataset.slug]),
    }  # fmt: skip
    return render(request, "attestation/key_broker_choose.html", context)


def _checked(dataset: Dataset, form: forms.Form, document: dict[str, Any]) -> Policy | None:
    """The policy, or None with its fault on the form."""
    try:
        return actions.check_policy(dataset, document)
    except Invalid as error:
        if "document" in form.fields:
            form.add_error("document", error.detail)
        else:
            form.add_error(*beside_its_field(error.detail))
        return None


def _check_page(
    request: HttpRequest, dataset: Dataset, found: Policy, new: Policy, conflict: Conflict | None = None
) -> HttpResponse:
    """What would change, and how the new policy judges the last runs."""
    document = new.to_json()
    context = {
        "dataset": dataset, "lines": lines_of(document), "differences": differences(found.to_json(), document),
        "preview": queries.preview(dataset, new), "sha256": new.sha256, "same": new.sha256 == found.sha256,
        "hidden": {"document": json.dumps(document, sort_keys=True), "instead_of": found.sha256},
        "breadcrumbs": _trail(dataset, "Check it"), "conflict": conflict.detail if conflict else "",
    }  # fmt: skip
    return render(
        request, "attestation/policy_check.html", context, status=conflict.status if conflict else 200
    )


def _readable(document: dict[str, Any], found: Policy) -> dict[str, Any]:
    """What came back from the check page, if it is a policy; else the one in force."""
    try:
        return Policy.parse(document).to_json()
    except ValueError:
        return found.to_json()


def _trail(dataset: Dataset, here: str | None = None) -> list[dict[str, str]]:
    out = [
        {"text": "My datasets", "href": reverse("datasets:mine")},
        {"text": dataset.title, "href": reverse("datasets:manage", args=[dataset.slug])},
    ]
    if here is None:
        return [*out, {"text": "Release policy"}]
    return [
        *out,
        {"text": "Release policy", "href": reverse("attestation:policy", args=[dataset.slug])},
        {"text": here},
    ]
