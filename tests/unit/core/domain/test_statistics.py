# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.backups import Backup, Pin
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.statistics import statistics
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.core.domain.histories import NOW, a_backup, histories

GB = 10**9


def days_ago(days: float, size: int, **changes: Any) -> Backup:
    return a_backup(NOW - timedelta(days=days), size=size, **changes)


def test_the_figures_of_one_database() -> None:
    backups = [
        days_ago(1, 3000, duration=timedelta(seconds=3), levels={"archive": NOW}, pin=Pin("x")),
        days_ago(3, 1000, duration=timedelta(seconds=2), pin=Pin("x", NOW), levels={"restore": NOW, "archive": NOW}),
        days_ago(2, 2000, duration=timedelta(seconds=2.5)),
        days_ago(0.5, 9999, problem="shop.dump is missing", levels={"archive": NOW}, pin=Pin("x")),
    ]
    figures = {
        "count": 3,
        "damaged": 1,
        "partial": 0,
        "pinned": 1,
        "verified": 2,
        "drilled": 1,
        "total_size": 6000,
        "average_size": 2000,
        "average_duration": 2.5,
        "newest": "2025-11-04T14:30:00Z",
        "newest_age": 86400.0,
        "newest_size": 3000,
        "newest_verified": "2025-11-04T14:30:00Z",
        "newest_drilled": "2025-11-02T14:30:00Z",
        "oldest": "2025-11-02T14:30:00Z",
    }
    growth = {"per_day": 1000, "ratio": 3.0}
    assert statistics(backups, NOW) == {
        **figures,
        "databases": [{"instance": "main", "kind": "database", "database": "shop", **figures, "growth": growth}],
    }


def test_databases_come_in_order_with_the_globals_after_them() -> None:
    subjects = [
        {"kind": "globals"}, {"database": "shop"}, {"instance": "a"}, {"database": "@globals"}, {"database": "blog"},
    ]  # fmt: skip
    listed = statistics([days_ago(1, 1, **subject) for subject in subjects], NOW)["databases"]
    assert [(item["instance"], item["kind"], item["database"]) for item in listed] == [
        ("a", "database", "shop"),
        ("main", "database", "@globals"),
        ("main", "database", "blog"),
        ("main", "database", "shop"),
        ("main", "globals", None),
    ]


def test_nothing_gives_zeros_and_nulls() -> None:
    assert statistics([], NOW) == {
        "count": 0,
        "damaged": 0,
        "partial": 0,
        "pinned": 0,
        "verified": 0,
        "drilled": 0,
        "total_size": 0,
        "average_size": None,
        "average_duration": None,
        "newest": None,
        "newest_age": None,
        "newest_size": None,
        "newest_verified": None,
        "newest_drilled": None,
        "oldest": None,
        "databases": [],
    }


def test_a_database_with_damaged_backups_alone_is_listed_with_none() -> None:
    [item] = statistics([days_ago(1, 5, problem="gone")], NOW)["databases"]
    assert (item["count"], item["damaged"], item["newest"], item["total_size"]) == (0, 1, None, 0)
    assert item["growth"] == {"per_day": None, "ratio": None}


@pytest.mark.parametrize(
    ("backups", "growth"),
    [
        ([], None),
        ([(1, 10)], {"per_day": None, "ratio": None}),
        ([(1, 10), (11, 5)], {"per_day": 0, "ratio": 2.0}),
        ([(1, 900), (11, 1000)], {"per_day": -10, "ratio": 0.9}),
        ([(0, 4 * GB), (1, 3 * GB), (2, 2 * GB), (3, GB)], {"per_day": GB, "ratio": 4.0}),
        ([(0, 30), (1, 10), (2, 20), (3, 0)], {"per_day": 8, "ratio": None}),
        ([(1000, 7), (2000, 7)], {"per_day": 0, "ratio": 1.0}),
    ],
)
def test_growth_is_the_slope_of_sizes_over_time(backups: list[tuple[int, int]], growth: dict[str, Any] | None) -> None:
    listed = statistics([days_ago(days, size) for days, size in backups], NOW)["databases"]
    assert [item["growth"] for item in listed] == ([growth] if growth else [])


def test_partial_and_damaged_backups_say_nothing_about_growth() -> None:
    backups = [
        days_ago(0, 1, partial=True), days_ago(1, 3000), days_ago(2, 1, problem="cut"), days_ago(3, 1000),
        days_ago(4, 9, partial=True),
    ]  # fmt: skip
    [item] = statistics(backups, NOW)["databases"]
    assert item["growth"] == {"per_day": 1000, "ratio": 3.0}
    assert (item["count"], item["partial"], item["damaged"]) == (4, 2, 1)


def test_a_backup_of_the_future_has_a_negative_age() -> None:
    assert statistics([days_ago(-1, 1)], NOW)["newest_age"] == -86400.0


def test_backups_are_looked_at_once() -> None:
    assert statistics((days_ago(day, 1) for day in range(3)), NOW)["count"] == 3


@settings(deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_figures_do_not_depend_on_the_order_and_are_json(history: tuple[list[Backup], datetime], random: Any) -> None:
    backups, now = history
    shuffled = list(backups)
    random.shuffle(shuffled)
    figures = statistics(backups, now)
    assert statistics(shuffled, now) == figures
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


@settings(deadline=None)
@given(histories())
def test_the_total_is_the_sum_of_the_databases(history: tuple[list[Backup], datetime]) -> None:
    backups, now = history
    figures = statistics(backups, now)
    for key in ("count", "damaged", "partial", "pinned", "verified", "drilled", "total_size"):
        assert figures[key] == sum(item[key] for item in figures["databases"])
    assert figures["count"] + figures["damaged"] == len(backups)
    newest = [item["newest_age"] for item in figures["databases"] if item["newest"]]
    assert figures["newest_age"] == (min(newest) if newest else None)


@settings(deadline=None)
@given(
    st.integers(-(10**9), 10**9),
    st.integers(10**12, 10**15),
    st.lists(st.integers(0, 3000), min_size=2, max_size=30, unique=True),
)
def test_growth_along_a_straight_line_is_found_exactly(per_day: int, start: int, days: list[int]) -> None:
    backups = [days_ago(day, start - per_day * day) for day in days]
    assert statistics(backups, NOW)["databases"][0]["growth"]["per_day"] == per_day
