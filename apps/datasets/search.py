"""The catalogue's search: one statement finds the page, a second counts, in all and by facet.

Values of one facet are alternatives; facets narrow each other. A facet's counts leave its own choice aside, so that
they say what choosing another value would find.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.core.cache import cache
from django.db import connection
from redis.exceptions import RedisError

from apps.datasets.states import DatasetState, ReleaseState, VersionState

Counts = dict[str, list[tuple[str, str, int]]]  # per facet, and "total": (value, label, count)
_WHOLE = "datasets.catalogue.counts"
FACETS = ("custodian", "keyword", "personal", "standin", "place")
MAX_OPTIONS = 12
MAX_CHOSEN = 20


@dataclass(frozen=True)
class Search:
    """What is asked of the catalogue. `chosen` maps a facet's name to the values chosen; `year` is one to be covered."""

    text: str = ""
    chosen: Mapping[str, Sequence[str]] = field(default_factory=dict)
    year: int | None = None
    sort: str = "relevance"  # or "title", "newest"

    @classmethod
    def from_query(cls, query: Any) -> Search:
        """Read a QueryDict leniently: what makes no sense is as if it were not there."""
        chosen = {
            name: [v for v in query.getlist(name) if v and "\x00" not in v][:MAX_CHOSEN] for name in FACETS
        }
        chosen["custodian"] = [v for v in chosen["custodian"] if len(v) <= 60]
        year = str(query.get("year", "")).strip()
        sort = query.get("sort", "")
        return cls(
            text=str(query.get("q", "")).replace("\x00", "").strip()[:200],
            chosen=chosen,
            year=int(year)
            if year.isascii() and year.isdigit() and len(year) == 4 and year != "0000"
            else None,
            sort=sort if sort in ("title", "newest") else "relevance",
        )


@dataclass(frozen=True)
class Found:
    """`ids` of the page in order, the `total`, and per facet (value, label, count), the most frequent first."""

    ids: list[uuid.UUID]
    total: int
    facets: dict[str, list[tuple[str, str, int]]]


_STANDIN = """d.id IN (SELECT v.dataset_id FROM datasets_datasetversion v JOIN datasets_stage1release r ON r.version_id = v.id
    WHERE r.state = %(released)s AND v.state = %(accepted)s)"""
_MATCHES = {
    "custodian": "d.custodian_id IN (SELECT id FROM accounts_organisation WHERE slug = ANY(%(custodian)s))",
    "keyword": "d.keywords ?| %(keyword)s",
    "personal": "(CASE WHEN d.personal_data THEN 'yes' ELSE 'no' END) = ANY(%(personal)s)",
    "standin": f"(CASE WHEN {_STANDIN} THEN 'yes' ELSE 'no' END) = ANY(%(standin)s)",
    "place": "d.coverage_place = ANY(%(place)s)",
}
_ORDERS = {"title": "d.title, d.id", "newest": "d.created_at DESC, d.id"}

_PAGE = "SELECT d.id FROM datasets_dataset d WHERE {where} ORDER BY {order} LIMIT %(size)s OFFSET %(start)s"
_FACETS = """
WITH hits AS MATERIALIZED (
  SELECT d.custodian_id, d.keywords, d.personal_data, d.coverage_place, {standin} AS standin, {matches}
  FROM datasets_dataset d WHERE {where}
)
SELECT f.kind, coalesce(o.slug, f.value), coalesce(o.name, f.value), f.n FROM (
  (SELECT CASE WHEN grouping(custodian_id) = 0 THEN 'custodian' WHEN grouping(personal_data) = 0 THEN 'personal'
               WHEN grouping(standin) = 0 THEN 'standin' WHEN grouping(coverage_place) = 0 THEN 'place' ELSE 'total' END AS kind,
          coalesce(custodian_id::text, CASE WHEN personal_data THEN 'yes' WHEN NOT personal_data THEN 'no' END,
                   CASE WHEN standin THEN 'yes' WHEN NOT standin THEN 'no' END, coverage_place) AS value,
          CASE WHEN grouping(custodian_id) = 0 THEN count(*) FILTER (WHERE {but_custodian})
               WHEN grouping(personal_data) = 0 THEN count(*) FILTER (WHERE {but_personal})
               WHEN grouping(standin) = 0 THEN count(*) FILTER (WHERE {but_standin})
               WHEN grouping(coverage_place) = 0 THEN count(*) FILTER (WHERE {but_place})
               ELSE count(*) FILTER (WHERE {everything}) END AS n
   FROM hits GROUP BY GROUPING SETS ((custodian_id), (personal_data), (standin), (coverage_place), ()))
  UNION ALL
  (SELECT 'keyword', k.word, count(*) FROM hits CROSS JOIN LATERAL jsonb_array_elements_text(keywords) AS k(word)
   WHERE {but_keyword} GROUP BY k.word)
) AS f LEFT JOIN accounts_organisation o ON f.kind = 'custodian' AND o.id::text = f.value
"""


def find(search: Search, *, start: int, size: int) -> Found:
    """Published datasets that match. `start` and `size` choose the page. Two statements, whatever is asked; one while
    the counts of the whole catalogue, which everybody asks for, are remembered."""
    parameters: dict[str, Any] = {
        "released": ReleaseState.RELEASED,
        "accepted": VersionState.ACCEPTED,
        "published": DatasetState.PUBLISHED,
        "start": start,
        "size": size,
    }
    where, order = "d.state = %(published)s", _ORDERS.get(search.sort, _ORDERS["title"])
    if search.text:
        parameters["q"] = search.text
        # The short name is indexed unstemmed, so the words are asked for in both ways.
        query = "(websearch_to_tsquery('english', %(q)s) || websearch_to_tsquery('simple', %(q)s))"
        where += f" AND d.search @@ {query}"
        if search.sort == "relevance":
            order = f"ts_rank(d.search, {query}) DESC, d.title, d.id"
    if search.year is not None:
        parameters |= {"first": dt.date(search.year, 1, 1), "last": dt.date(search.year, 12, 31)}
        where += (
            " AND (d.coverage_from IS NOT NULL OR d.coverage_to IS NOT NULL)"
            " AND coalesce(d.coverage_from, d.coverage_to) <= %(last)s"
            " AND (d.coverage_to IS NULL OR d.coverage_to >= %(first)s)"
        )
    chosen = {name: list(search.chosen.get(name, ())) for name in FACETS}
    parameters |= {name: values for name, values in chosen.items() if values}
    narrowed = "".join(f" AND {_MATCHES[name]}" for name in FACETS if chosen[name])
    statement = _FACETS.format(
        standin=_STANDIN,
        where=where,
        matches=", ".join(f"{_MATCHES[name] if chosen[name] else 'TRUE'} AS m_{name}" for name in FACETS),
        everything=_all(FACETS),
        **{f"but_{name}": _all(tuple(other for other in FACETS if other != name)) for name in FACETS},
    )
    with connection.cursor() as cursor:
        cursor.execute(_PAGE.format(where=where + narrowed, order=order), parameters)
        ids = [row[0] for row in cursor.fetchall()]
    whole = not search.text and search.year is None and not narrowed
    counted = _remembered() if whole else None
    if counted is None:
        counted = _count(statement, parameters)
        if whole:
            _remember(counted)
    total = counted["total"][0][2]
    return Found(ids, total, {name: _top(counted[name], set(chosen[name])) for name in FACETS})


def _count(statement: str, parameters: Mapping[str, Any]) -> Counts:
    counted: Counts = {name: [] for name in (*FACETS, "total")}
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        for kind, value, label, n in cursor.fetchall():
            counted[kind].append((value or "", label or "", n))
    return counted


def _remembered() -> Counts | None:
    """The counts of the whole catalogue as they were less than CATALOGUE_COUNTS_SECONDS ago, if they are known."""
    try:
        found: Counts | None = cache.get(_WHOLE) if settings.CATALOGUE_COUNTS_SECONDS else None
    except RedisError:
        return None
    return found


def _remember(counted: Counts) -> None:
    try:
        if settings.CATALOGUE_COUNTS_SECONDS:
            cache.set(_WHOLE, counted, settings.CATALOGUE_COUNTS_SECONDS)
    except RedisError:
        pass  # without the cache everybody counts


def _all(names: tuple[str, ...]) -> str:
    return " AND ".join(f"m_{name}" for name in names)


def _top(rows: list[tuple[str, str, int]], chosen: set[str]) -> list[tuple[str, str, int]]:
    """The most frequent values, and every chosen one."""
    rows = sorted((row for row in rows if row[0] and row[2]), key=lambda row: (-row[2], row[0]))
    return [row for place, row in enumerate(rows) if place < MAX_OPTIONS or row[0] in chosen]
