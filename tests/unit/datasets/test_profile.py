"""Suppression of the public profile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.datasets.profile import columns_of, publishable
from strongroom.errors import FormatError

from .conftest import PROFILE


def test_small_counts_go_and_rows_are_rounded() -> None:
    public = publishable(PROFILE, threshold=10)
    assert public["rows"] == 500
    mdvis, health, _ = public["columns"]
    assert health["missing"] is None
    # 6 is small; alone it could be worked out from the total, so 190 goes with it.
    assert mdvis["histogram"]["counts"] == [300, None, None]
    assert [c["count"] for c in health["categories"]] == [300, 150, None, None]


def test_few_rows_show_names_and_types_only() -> None:
    public = publishable({**PROFILE, "rows": 9}, threshold=10)
    assert public["rows"] == 0
    assert all(
        c["summary"] is None and c["categories"] is None and c["histogram"] is None for c in public["columns"]
    )


@pytest.mark.parametrize(
    "broken",
    [
        None,
        {},
        {**PROFILE, "rows": -1},
        {**PROFILE, "extra": 1},
        {**PROFILE, "columns": [{"name": "a"}]},
        {
            **PROFILE,
            "columns": [
                {**PROFILE["columns"][0], "summary": {"mean": float("nan"), "sd": None, "quantiles": None}}
            ],
        },
        {**PROFILE, "columns": [{**PROFILE["columns"][0], "histogram": {"edges": [1], "counts": [1]}}]},
        {**PROFILE, "columns": [{**PROFILE["columns"][0], "verbatim": ["Ada"]}]},
    ],
)
def test_another_shape_is_refused(broken: object) -> None:
    with pytest.raises(FormatError):
        publishable(broken, threshold=10)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=8), st.integers(10, 3000))
def test_no_small_count_survives(counts: list[int], rows: int) -> None:
    profile = {
        "v": 1,
        "rows": rows,
        "columns": [
            {
                "name": "a",
                "type": "string",
                "missing": counts[0],
                "categories": [{"value": str(n), "count": c} for n, c in enumerate(counts)],
            }
        ],
    }
    column = publishable(profile, threshold=10)["columns"][0]
    kept = [c["count"] for c in column["categories"]]
    assert all(c is None or c == 0 or c >= 10 for c in [*kept, column["missing"]])
    assert kept.count(None) != 1 or not any(kept)


def test_view_says_fewer_than() -> None:
    views = columns_of(publishable(PROFILE, threshold=10), threshold=10)
    assert [v.missing for v in views] == ["0%", "fewer than 10", "10.0%"]
    assert columns_of(None, threshold=10) == []
