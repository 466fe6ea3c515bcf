"""Every route of the portal, read from the URL conf, with the methods that its view has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.urls import get_resolver

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class Route:
    """`methods`: of a class, those it has; of a function, GET and POST, of which it may refuse one by 405."""

    name: str
    path: str
    methods: tuple[str, ...]
    view: Any

    @property
    def is_class(self) -> bool:
        return getattr(self.view, "cls", None) is not None


def routes() -> dict[str, Route]:
    """By full name. Raises ValueError for two routes of one name or one without: nothing may hide from the matrix."""
    found: dict[str, Route] = {}
    for route in _walk(get_resolver().url_patterns, "", ""):
        if route.name in found or route.name.endswith((":", "None")):
            raise ValueError(f"route without a name of its own: {route.name!r} at {route.path!r}")
        found[route.name] = route
    return found


def _walk(patterns: list[Any], path: str, namespace: str) -> Iterator[Route]:
    for pattern in patterns:
        here = path + str(pattern.pattern)
        if hasattr(pattern, "url_patterns"):
            yield from _walk(
                pattern.url_patterns, here, namespace + (f"{pattern.namespace}:" if pattern.namespace else "")
            )
            continue
        view = pattern.callback
        kind = getattr(view, "cls", None)
        methods = tuple(m for m in METHODS if hasattr(kind, m.lower())) if kind else ("GET", "POST", "PUT")
        yield Route(f"{namespace}{pattern.name}", here, methods, view)
