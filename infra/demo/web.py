"""A person at the pages, without a browser: reads each form from the page, fills it in, sends it, reads the errors.

Nothing is assumed about a form: a field that the page does not show cannot be filled, so the demo breaks when a page
does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import httpx


class PageError(Exception):
    """A page did not do what the story expects."""


@dataclass
class Form:
    """One form of a page: where it goes and what is in it. `choices` are the values that a field offers."""

    action: str
    method: str = "get"
    fields: dict[str, list[str]] = field(default_factory=dict)
    choices: dict[str, list[str]] = field(default_factory=dict)
    labels: dict[str, dict[str, str]] = field(default_factory=dict)


class _Reader(HTMLParser):
    """Collects forms, links, the heading, and the sentences of an error summary."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: list[tuple[str, str]] = []
        self.heading = ""
        self.errors: list[str] = []
        self._form: Form | None = None
        self._select = self._textarea = ""
        self._text: list[str] | None = None
        self._link, self._summary, self._option = "", 0, False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        a = {name: value or "" for name, value in attributes}
        match tag:
            case "form":
                self._form = Form(a.get("action", ""), a.get("method", "get").lower())
                self.forms.append(self._form)
            case "input" if self._form is not None and a.get("name"):
                self._input(a)
            case "select" if self._form is not None:
                self._select = a.get("name", "")
            case "option" if self._form is not None and self._select:
                self._form.choices.setdefault(self._select, []).append(a.get("value", ""))
                if "selected" in a or self._select not in self._form.fields:
                    self._form.fields[self._select] = [a.get("value", "")]
                self._text, self._option = [], True
            case "textarea" if self._form is not None:
                self._textarea, self._text = a.get("name", ""), []
            case "a":
                self._link, self._text = a.get("href", ""), []
            case "h1":
                self._text = []
        if "govuk-error-summary" in a.get("class", "").split():
            self._summary = 1
        elif self._summary and tag == "div":
            self._summary += 1

    def _input(self, a: dict[str, str]) -> None:
        assert self._form is not None
        name, kind, value = a["name"], a.get("type", "text"), a.get("value", "")
        if kind in ("radio", "checkbox"):
            value = a.get("value", "on")
            self._form.choices.setdefault(name, []).append(value)
            self._form.fields.setdefault(name, [])
            if "checked" in a:
                self._form.fields[name].append(value)
        elif kind not in ("submit", "button", "reset"):
            self._form.fields.setdefault(name, []).append(value)

    def handle_endtag(self, tag: str) -> None:
        text = " ".join("".join(self._text or []).split())
        match tag:
            case "form":
                self._form = None
            case "select":
                self._select = ""
            case "option" if self._option and self._form is not None:
                value = self._form.choices[self._select][-1]
                self._form.labels.setdefault(self._select, {})[text] = value
                self._text, self._option = None, False
            case "textarea" if self._form is not None:
                self._form.fields[self._textarea] = ["".join(self._text or []).lstrip("\n")]
                self._text = None
            case "a":
                self.links.append((text, self._link))
                if self._summary:
                    self.errors.append(text)
                self._text = None
            case "h1":
                self.heading, self._text = text, None
            case "div" if self._summary:
                self._summary -= 1

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)


class Person:
    """Somebody with a browser: cookies, the page they are on."""

    def __init__(self, portal: str, email: str, password: str) -> None:
        self.portal, self.email, self.password = portal, email, password
        self._http = httpx.Client(base_url=portal, timeout=60, follow_redirects=True, trust_env=False)
        self.address, self.text = "", ""
        self.page = _Reader()

    def sign_in(self) -> Person:
        self.open("/login")
        self.send(email=self.email, password=self.password)
        return self

    def choose_password(self, own: str) -> Person:
        """What everybody does first: signing in with the operator's password leads to the page of one's own."""
        self.sign_in()
        if not self.address.endswith("/account/password"):
            raise PageError(f"{self.email}: the portal did not ask for a password of their own")
        self.send(current=self.password, new=own, again=own)
        self.password = own
        return self

    def open(self, address: str) -> _Reader:
        """Go to a page. Raises PageError unless it is there."""
        return self._arrived(self._http.get(address))

    def follow(self, text: str) -> _Reader:
        """Click the link whose text begins with `text`."""
        for label, href in self.page.links:
            if label.startswith(text):
                return self.open(urljoin(self.address, href))
        raise PageError(f"{self.email}: there is no link “{text}” on {self.address}")

    def send(self, *, files: dict[str, Any] | None = None, action: str = "", **answers: Any) -> _Reader:
        """Fill in and send the page's form (that with all the named fields, or with `action` in its address)."""
        form = self._form(set(answers) | set(files or {}), action)
        data = {name: list(values) for name, values in form.fields.items() if name not in (files or {})}
        for name, answer in answers.items():
            values = [str(v) for v in (answer if isinstance(answer, list) else [answer])]
            offered = form.choices.get(name)
            if offered is not None and not set(values) <= set(offered):
                values = [form.labels.get(name, {}).get(v, v) for v in values]
                if not set(values) <= set(offered):
                    raise PageError(
                        f"{self.email}: “{name}” on {self.address} offers {offered}, not {values}"
                    )
            data[name] = values
        headers = {"Referer": self.address}
        return self._arrived(
            self._http.post(
                urljoin(self.address, form.action) or self.address, data=data, files=files, headers=headers
            )
        )

    def _form(self, names: set[str], action: str) -> Form:
        for form in self.page.forms:
            known = set(form.fields)
            if (
                form.method == "post"
                and names <= known
                and action in urljoin(self.address, form.action)
                and not form.action.endswith("/logout")
            ):
                return form
        there = [sorted(form.fields) for form in self.page.forms if form.method == "post"]
        raise PageError(
            f"{self.email}: no form on {self.address} has the fields {sorted(names)}; the forms there have {there}"
        )

    def _arrived(self, response: httpx.Response) -> _Reader:
        self.address, self.text = str(response.url), response.text
        self.page = _Reader()
        self.page.feed(response.text)
        if response.status_code != 200:
            raise PageError(
                f"{self.email}: {response.request.method} {self.address} gave {response.status_code} “{self.page.heading}”"
            )
        if self.page.errors:
            raise PageError(f"{self.email}: {self.address} says: {'; '.join(self.page.errors)}")
        return self.page

    @property
    def id(self) -> str:
        """The last id in the page's address."""
        import re

        found = re.findall(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", self.address)
        if not found:
            raise PageError(f"{self.email}: {self.address} names no object")
        return str(found[-1])
