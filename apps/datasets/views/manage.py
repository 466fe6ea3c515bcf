"""The custodian's pages for a catalogue entry."""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from apps.accounts.models import User
from apps.accounts.permissions import me, require_role
from apps.accounts.queries import timeline
from apps.accounts.roles import Role
from apps.core.errors import Denied, NotFound
from apps.core.views import act, page_of
from apps.datasets import actions, permissions, queries
from apps.datasets import dictionary as dictionaries
from apps.datasets.forms.catalogue import DetailsForm, DictionaryForm, ManagerForm, ReasonForm, RegisterForm
from apps.datasets.models import Dataset
from apps.datasets.states import ACCESS, DATASET, STAGE1_RELEASE, VERSION, DatasetState
from apps.datasets.views.catalogue import address

DETAILS = (
    "title",
    "summary",
    "keywords",
    "coverage_place",
    "coverage_from",
    "coverage_to",
    "source_url",
    "licence",
    "personal_data",
    "program_approval",
)


@require_safe
def mine(request: HttpRequest) -> HttpResponse:
    """The datasets for which the person acts."""
    require_role(request.user, Role.CUSTODIAN, to="see the datasets of a custodian")
    return render(
        request,
        "datasets/mine.html",
        {
            "page": page_of(request, queries.mine(me(request))),
            "labels": DATASET.labels,
            "colours": DATASET.colours,
            "can_register": bool(permissions.registers_for(request.user)),
        },
    )


@require_http_methods(["GET", "POST"])
def register(request: HttpRequest) -> HttpResponse:
    """Register a dataset."""
    organisations = permissions.registers_for(request.user)
    if not organisations:
        raise Denied(
            "role_missing",
            "You need the role “Data custodian” in a custodian organisation to register a dataset.",
            "Ask the operator of this portal, named in the footer, if you should hold it.",
        )
    form = RegisterForm(
        request.POST or None, organisations=organisations, initial={"custodian": organisations[0].pk}
    )
    if request.method == "POST" and form.is_valid():
        dataset = act(
            request,
            form,
            actions.register_dataset,
            done="The dataset is registered as a draft. Add its data dictionary next.",
            **form.cleaned_data,
        )
        if dataset:
            return redirect("datasets:manage", dataset.slug)
    return render(request, "datasets/register.html", {"form": form})


@require_safe
def manage(request: HttpRequest, slug: str) -> HttpResponse:
    """Everything a custodian does with one dataset starts here."""
    dataset = managed(request, slug, to="manage this dataset")
    versions = queries.versions_of(dataset)
    current = queries.current_version(dataset)
    return render(
        request,
        "datasets/manage.html",
        {
            "dataset": dataset,
            "state_labels": DATASET.labels,
            "state_colours": DATASET.colours,
            "version_labels": VERSION.labels,
            "version_colours": VERSION.colours,
            "versions": versions,
            "current": current,
            "releases": list(queries.releases_of(dataset)[:20]),
            "release_labels": STAGE1_RELEASE.labels,
            "release_colours": STAGE1_RELEASE.colours,
            "requests": queries.requests_to(dataset),
            "access_labels": ACCESS.labels,
            "access_colours": ACCESS.colours,
            "managers": list(permissions.managers(dataset)),
            "manager_form": ManagerForm(),
            "columns": len(dataset.dictionary.get("fields", [])),
            "gaps": dictionaries.gaps(dataset.dictionary),
            "history": timeline(dataset),
            "tasks": tasks(dataset, any_version=bool(versions), current=current is not None),
            "can": {str(to) for to in DATASET.table[dataset.state]},
            "release_url": address("datasets:release_order", current.pk) if current else None,
        },
    )


def tasks(dataset: Dataset, *, any_version: bool, current: bool) -> list[dict[str, Any]]:
    """The road from registration to a usable dataset as a task list."""
    has_dictionary = bool(dataset.dictionary.get("fields"))
    published = dataset.state != DatasetState.DRAFT
    upload: dict[str, Any] = {
        "text": "Upload the data, sealed",
        "hint": "It is encrypted before it leaves your computer, then checked against the dictionary",
    }
    if not has_dictionary:
        upload["state"] = "cannot_start"
    else:
        upload |= {
            "state": "completed" if current else "in_progress" if any_version else "not_started",
            "href": "#versions",
        }
    publish: dict[str, Any] = {
        "text": "Publish in the catalogue",
        "hint": "Anybody can then find it and ask for access",
    }
    if published:
        publish["state"] = "completed"
    elif has_dictionary:
        publish |= {
            "state": "not_started",
            "href": reverse("datasets:change_state", args=[dataset.slug, "publish"]),
        }
    else:
        publish["state"] = "cannot_start"
    return [
        {
            "text": "Describe the dataset",
            "state": "completed",
            "href": reverse("datasets:edit", args=[dataset.slug]),
        },
        {
            "text": "Add the data dictionary",
            "state": "completed" if has_dictionary else "not_started",
            "href": reverse("datasets:dictionary", args=[dataset.slug]),
        },
        upload,
        publish,
    ]


@require_http_methods(["GET", "POST"])
def edit(request: HttpRequest, slug: str) -> HttpResponse:
    """Change the description."""
    dataset = managed(request, slug, to="change this dataset")
    form = DetailsForm(request.POST or None, initial=DetailsForm.initial_of(dataset))
    if request.method == "POST" and form.is_valid():
        changes = {name: form.cleaned_data[name] for name in DETAILS}
        if act(
            request,
            form,
            actions.update_dataset,
            done="The description is saved.",
            dataset=dataset,
            **changes,
        ):
            return redirect("datasets:manage", dataset.slug)
    back = reverse("datasets:manage", args=[dataset.slug])
    return render(
        request,
        "form_page.html",
        {
            "title": "Change the description",
            "caption": dataset.title,
            "form": form,
            "button_text": "Save",
            "cancel_url": back,
            "breadcrumbs": trail(dataset, "Description"),
        },
    )


@require_http_methods(["GET", "POST"])
def dictionary(request: HttpRequest, slug: str) -> HttpResponse:
    """Upload or paste the data dictionary; see what it says, what is wrong with it, and what changes."""
    dataset = managed(request, slug, to="change the data dictionary")
    form = DictionaryForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        new = form.cleaned_data["dictionary"]
        if act(
            request,
            form,
            actions.update_dataset,
            done="The data dictionary is saved. It holds from the next version on.",
            dataset=dataset,
            dictionary=new,
        ):
            return redirect("datasets:dictionary", dataset.slug)
    current = queries.current_version(dataset)
    return render(
        request,
        "datasets/dictionary.html",
        {
            "dataset": dataset,
            "form": form,
            "problems": getattr(form, "problems", []),
            "columns": dictionaries.table_rows(dataset.dictionary),
            "gaps": dictionaries.gaps(dataset.dictionary),
            "missing_values": dataset.dictionary.get("missingValues", []),
            "changes": dictionaries.compare(current.dictionary, dataset.dictionary) if current else [],
            "current": current,
            "as_json": json.dumps(dataset.dictionary, indent=2, ensure_ascii=False)
            if dataset.dictionary
            else "",
            "csv_columns": ",".join(dictionaries.CSV_COLUMNS),
        },
    )


@require_POST
def add_manager(request: HttpRequest, slug: str) -> HttpResponse:
    """Add a custodian by e-mail address."""
    dataset = managed(request, slug, to="add a manager")
    form = ManagerForm(request.POST)
    if form.is_valid():
        user = User.objects.filter(email__iexact=form.cleaned_data["email"], is_active=True).first()
        if user is None:
            form.add_error("email", "Nobody with this e-mail address can sign in here. Check the spelling")
        elif act(
            request,
            form,
            actions.add_manager,
            done=f"{user.name} can now act for this dataset.",
            dataset=dataset,
            user=user,
        ):
            return redirect("datasets:manage", dataset.slug)
    return render(
        request,
        "form_page.html",
        {
            "title": "Add a manager",
            "caption": dataset.title,
            "form": form,
            "button_text": "Add",
            "cancel_url": reverse("datasets:manage", args=[dataset.slug]),
            "breadcrumbs": trail(dataset, "Add a manager"),
        },
    )


@require_http_methods(["GET", "POST"])
def remove_manager(request: HttpRequest, slug: str, pk: str) -> HttpResponse:
    """Ask, then take the grant back."""
    dataset = managed(request, slug, to="remove a manager")
    user = permissions.managers(dataset).filter(pk=pk).first()
    if user is None:
        raise NotFound("manager of this dataset")
    back = reverse("datasets:manage", args=[dataset.slug])
    if request.method == "POST":
        actions.remove_manager(by=me(request), dataset=dataset, user=user)
        return redirect("datasets:mine" if user == request.user else back)
    from apps.datasets.forms.catalogue import Form

    return render(
        request,
        "form_page.html",
        {
            "title": f"Remove {user.name}?",
            "caption": dataset.title,
            "form": Form(),
            "warning": f"{user.name} will no longer be able to act for this dataset.",
            "button_text": "Remove",
            "button_kind": "warning",
            "cancel_url": back,
            "breadcrumbs": trail(dataset, "Remove a manager"),
        },
    )


STATE_PAGES: dict[str, dict[str, Any]] = {
    "publish": {
        "action": actions.publish_dataset,
        "title": "Publish this dataset?",
        "button": "Publish",
        "intro": "Its description, data dictionary and aggregate profile become public. The data itself never does.",
        "done": "The dataset is in the catalogue.",
    },
    "suspend": {
        "action": actions.suspend_dataset,
        "title": "Suspend this dataset?",
        "button": "Suspend",
        "kind": "warning",
        "warning": "Every run on it is cancelled at once, and nobody can use it until you resume it.",
        "done": "The dataset is suspended. Runs on it are being cancelled.",
    },
    "resume": {
        "action": actions.resume_dataset,
        "title": "Resume this dataset?",
        "button": "Resume",
        "intro": "Projects with access can use it again. Runs that were cancelled do not start again by themselves.",
        "done": "The dataset can be used again.",
    },
    "withdraw": {
        "action": actions.withdraw_dataset,
        "title": "Withdraw this dataset?",
        "button": "Withdraw for good",
        "kind": "warning",
        "warning": "You cannot undo this. Every run on it is cancelled at once, and it leaves the catalogue.",
        "done": "The dataset is withdrawn.",
    },
}


@require_http_methods(["GET", "POST"])
def change_state(request: HttpRequest, slug: str, verb: str) -> HttpResponse:
    """The page before a dataset is published, suspended, resumed or withdrawn."""
    dataset = managed(request, slug, to=f"{verb} this dataset")
    if verb not in STATE_PAGES:
        raise NotFound()
    page = STATE_PAGES[verb]
    from apps.datasets.forms.catalogue import Form

    form = (Form if verb == "publish" else ReasonForm)(request.POST if request.method == "POST" else None)
    back = reverse("datasets:manage", args=[dataset.slug])
    if request.method == "POST" and form.is_valid():
        if act(request, form, page["action"], done=page["done"], dataset=dataset, **form.cleaned_data):
            return redirect(back)
    return render(
        request,
        "form_page.html",
        {
            "title": page["title"],
            "caption": dataset.title,
            "form": form,
            "intro": page.get("intro"),
            "warning": page.get("warning"),
            "button_text": page["button"],
            "button_kind": page.get("kind", ""),
            "cancel_url": back,
            "breadcrumbs": trail(dataset, page["button"]),
        },
    )


def managed(request: HttpRequest, slug: str, *, to: str) -> Dataset:
    """The dataset, for somebody who acts for its custodian. Raises NotFound, Denied."""
    dataset = queries.dataset_for(request.user, slug)
    permissions.require_acts_for(request.user, dataset, to=to)
    return dataset


def trail(dataset: Dataset, here: str | None = None) -> list[dict[str, str]]:
    """Breadcrumbs of a custodian's page."""
    out = [
        {"text": "My datasets", "href": reverse("datasets:mine")},
        {"text": dataset.title, "href": reverse("datasets:manage", args=[dataset.slug])},
    ]
    return [*out, {"text": here}] if here else out
