"""The template environment: strictness, escaping, filters, addresses."""

from __future__ import annotations

import datetime as dt
import re
from types import SimpleNamespace

import pytest
from django.test import RequestFactory
from jinja2 import UndefinedError
from markupsafe import Markup

from portal import jinja
from tests.unit.frontend import render

UTC = dt.UTC


def rendered(source: str, **context: object) -> str:
    return render.build_environment(**{"t.html": source}).get_template("t.html").render(context)


def test_a_misspelt_name_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        rendered("{{ titel }}", title="x")
    with pytest.raises(UndefinedError, match=r"no attribute 'status_tga'"):
        rendered("{{ ui.status_tga('x') }}")


def test_every_template_compiles_and_names_only_macros_that_exist() -> None:
    env = render.build_environment()
    folder = render.FRONTEND / "templates"
    for path in sorted(folder.rglob("*.html")):
        name = path.relative_to(folder).as_posix()
        env.get_template(name)  # raises TemplateSyntaxError with the line
        for macro in set(re.findall(r"\bui\.(\w+)\(", path.read_text())):
            assert hasattr(env.globals["ui"], macro), f"{name}: there is no ui.{macro}"


def test_everything_is_escaped_through_macros_and_components() -> None:
    evil = "<script>alert(1)</script>"
    html = rendered(
        "{{ e }}{{ ui.status_tag(e) }}{{ ui.table('T', ['A'], [[e]]) }}"
        "{{ ui.hash(e) }}{{ ui.code(e) }}{{ e|paragraphs }}"
        "{{ ui.summary_list([[e, e]]) }}{{ ui.bar_chart(e, [[e, 1]]) }}{{ govukButton({'text': e}) }}"
        "{{ ui.file_list([{'name': e, 'size': 1}]) }}{{ ui.timeline([{'text': e, 'at': now, 'reason': e}]) }}",
        e=evil,
        now=render.NOW,
    )
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 12


def test_pages_hold_no_inline_script_style_or_handler() -> None:
    key = {"suite": "x25519", "public": "AA==", "id": "0" * 16}
    for name, html in render.all_pages(key, "d").items():
        assert " style=" not in html, name
        assert "<style" not in html, name
        assert " onclick" not in html, name
        assert "<script>" not in html, name
        assert "javascript:" not in html, name


def test_protection_banner_is_on_every_page_and_only_when_insecure() -> None:
    words = "this installation gives no hardware protection. Do not use it for real personal data."
    key = {"suite": "x25519", "public": "AA==", "id": "0" * 16}
    for name, html in render.all_pages(key, "d").items():
        assert (words in html) == (name != "e500"), name  # that one is rendered without any context


@pytest.mark.parametrize(
    ("state", "labels", "expected"),
    [
        ("in_review", {}, 'govuk-tag--purple">In review<'),
        (SimpleNamespace(value="approved", label="Yes"), {}, 'govuk-tag--green">Yes<'),
        ("approved", {"approved": "Agreed"}, 'govuk-tag--green">Agreed<'),
        ("never_heard_of", {}, 'govuk-tag--grey">Never heard of<'),
    ],
)
def test_status_tag(state: object, labels: dict[str, str], expected: str) -> None:
    assert expected in rendered("{{ ui.status_tag(state, labels) }}", state=state, labels=labels)


def test_suppressed_cells_are_not_drawn() -> None:
    html = rendered(
        "{{ ui.bar_chart('T', [['A', 40], ['B', none]]) }}{{ ui.histogram('H', [[0, 1, none], [1, 2, 30]]) }}"
    )
    assert html.count("<rect") == 2
    assert html.count("fewer than 10") == 3  # beside the bar, and in both tables


def test_progress_says_where_it_stands() -> None:
    phases = [["a", "Fetching"], ["b", "Running"]]
    source = "{{ ui.progress(phases, c, done=d, total=10, state=s, waiting_for=w, elapsed=62) }}"
    html = rendered(source, phases=phases, c="b", d=5, s="running", w="the program")
    assert 'value="1.500"' in html
    assert "Waiting for the program" in html
    assert 'aria-current="step"' in html
    assert "Elapsed: 1 minute 2 seconds" in html
    assert "Stopped at: Fetching" in rendered(source, phases=phases, c="a", d=None, s="failed", w=None)
    assert "Not started" in rendered(source, phases=phases, c="", d=None, s="waiting", w="a machine")


def test_live_panel_stops_asking_when_off() -> None:
    source = "{% call ui.live('/p/', on=on, id='x') %}hello{% endcall %}"
    assert 'hx-trigger="every 2s"' in rendered(source, on=True)
    assert "hx-" not in rendered(source, on=False)


def test_uk_dates_and_times() -> None:
    summer = dt.datetime(2026, 7, 5, 13, 5, tzinfo=UTC)
    assert jinja.uk_datetime(summer) == "5 July 2026 at 2:05pm"  # British summer time
    assert jinja.uk_date(dt.date(2026, 11, 5)) == "5 November 2026"
    winter = dt.datetime(2026, 1, 1, tzinfo=UTC)
    assert [jinja.uk_time(winter + dt.timedelta(minutes=minutes)) for minutes in (0, 12 * 60, 9 * 60, 5)] == [
        "midnight",
        "midday",
        "9am",
        "12:05am",
    ]
    assert jinja.when(summer) == Markup(
        '<time datetime="2026-07-05T13:05:00+00:00">5 July 2026 at 2:05pm</time>'
    )
    assert jinja.uk_date(None) == jinja.when(None) == jinja.uk_datetime(None) == "—"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "less than a second"),
        (1, "1 second"),
        (65, "1 minute 5 seconds"),
        (3600, "1 hour"),
        (90061, "1 day 1 hour"),
        (86403, "1 day"),
        (dt.timedelta(minutes=2), "2 minutes"),
    ],
)
def test_duration(value: object, words: str) -> None:
    assert jinja.duration(value) == words  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (1_234_567, "1.2 MB"),
        (999_700, "1.0 MB"),
        (45_000_000_000, "45 GB"),
        (3 * 10**16, "30,000 TB"),
    ],
)
def test_filesize(value: int, words: str) -> None:
    assert jinja.filesize(value) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "just now"),
        (-180, "3 minutes ago"),
        (-90000, "1 day ago"),
        (7200, "in 2 hours"),
        (10, "in a moment"),
    ],
)
def test_relative(seconds: int, words: str) -> None:
    now = dt.datetime(2026, 11, 5, 12, 0, tzinfo=UTC)
    assert jinja.relative(now + dt.timedelta(seconds=seconds), now) == words


def test_query_keeps_the_other_filters() -> None:
    request = RequestFactory().get("/d", {"q": "a b&c", "type": ["x", "y"], "page": "3"})
    assert jinja.query(request, page=4) == "?q=a+b%26c&type=x&type=y&page=4"
    assert jinja.query(request, page=None, type=["z"]) == "?q=a+b%26c&type=z"
