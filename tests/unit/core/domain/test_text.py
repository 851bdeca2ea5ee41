# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# ruff: noqa: E501  (a table is checked as it is seen)

from __future__ import annotations

import unicodedata
from datetime import timedelta
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import text
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.backups import Backup, Pin
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import JOB_POLICY, Policy
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.retention import Plan, plan
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.statistics import statistics
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.core.domain.histories import NOW, a_backup, histories, policies


def days_ago(days: float, **changes: Any) -> Backup:
    return a_backup(NOW - timedelta(days=days), **changes)


# --- cells ---


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("shop", "shop"),
        ("größe 表 é", "größe 表 é"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("a\u2028b\u00a0c", r"a\u2028b\xa0c"),
        ("\udcff", r"\udcff"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_what_a_terminal_would_act_on_is_escaped(raw: str, shown: str) -> None:
    assert text.printable(raw) == shown


@settings(deadline=None)
@given(st.text(st.characters()))
def test_printable_text_has_no_control_characters_and_stays_what_it_is(raw: str) -> None:
    shown = text.printable(raw)
    assert all(unicodedata.category(item)[0] != "C" and item not in "\u2028\u2029" for item in shown)
    assert text.printable(shown) == shown
    shown.encode("utf-8")


@pytest.mark.parametrize(
    ("shown", "columns"), [("", 0), ("shop", 4), ("größe", 5), ("表", 2), ("é", 1), ("e\u0301", 1), ("\uff21\uff22", 4)]
)
def test_width_is_that_on_a_terminal(shown: str, columns: int) -> None:
    assert text.width(shown) == columns


# --- tables ---


def test_columns_are_aligned_and_numbers_to_the_right() -> None:
    assert text.table(("NAME", "SIZE", "X"), [("shop", "1 B", "y"), ("größe-表", "10.0 MB", "")], right=(1,)) == [
        "NAME         SIZE  X",
        "shop          1 B  y",
        "größe-表  10.0 MB",
    ]


def test_a_table_without_rows_is_its_header() -> None:
    assert text.table(("A", "B"), []) == ["A  B"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(), st.text(), st.text()), max_size=5))
def test_every_row_is_one_line_and_every_column_begins_at_one_place(rows: list[tuple[str, str, str]]) -> None:
    lines = text.table(("A", "B", "|"), [(one, two, f"|{three}") for one, two, three in rows])
    assert len(lines) == 1 + len(rows)
    assert all(line.isprintable() for line in lines)
    column = text.width(lines[0]) - 1
    for line, (one, two, three) in zip(lines[1:], rows):
        end = len(line) - len(f"|{text.printable(three)}".rstrip())
        assert line[end] == "|"
        assert text.width(line[:end]) == column, (one, two)


# --- lists ---


def test_backups_are_listed_with_what_is_remarkable() -> None:
    backups = [
        days_ago(-1),
        days_ago(0.5, size=183_400_000, duration=timedelta(seconds=75), levels={"archive": NOW}, copies=("nas", "s3")),
        days_ago(2, partial=True, label="nightly", pin=Pin("why", NOW + timedelta(days=1))),
        days_ago(3, pin=Pin("ended", NOW)),
        days_ago(4, kind="globals", format="plain", compression="none", pin=Pin("why")),
        days_ago(5, problem="shop_2025-10-31_14-30-00.dump is missing"),
    ]
    assert text.backup_lines(backups, NOW) == [
        "DATABASE       BACKUP                                 AGE      SIZE    TOOK  FORMAT  COMPRESSION  REMARKS",
        "main/shop      shop_2025-11-06_14-30-00     in the future    1.0 kB    4.0s  custom  zstd:1",
        "main/shop      shop_2025-11-05_02-30-00               12h  183.4 MB  1m 15s  custom  zstd:1       "
        "verified (archive) 2025-11-05T14:30:00Z, copies nas s3",
        "main/shop      shop_2025-11-03_14-30-00                2d    1.0 kB    4.0s  custom  zstd:1       "
        "partial, label nightly, pinned until 2025-11-06T14:30:00Z",
        "main/shop      shop_2025-11-02_14-30-00                3d    1.0 kB    4.0s  custom  zstd:1",
        "main/@globals  globals_2025-11-01_14-30-00             4d    1.0 kB    4.0s  plain   none         pinned",
        "main/shop      shop_2025-10-31_14-30-00                5d    1.0 kB    4.0s  custom  zstd:1       DAMAGED: shop_2025-10-31_14-30-00.dump is missing",
        "",
        "5 backups, 183.4 MB, 1 damaged",
    ]


def test_an_empty_list_says_so() -> None:
    assert text.backup_lines([], NOW) == ["no backups"]


# --- figures ---


def test_figures_are_shown_with_the_policy() -> None:
    backups = [
        days_ago(1, size=3_000_000, levels={"archive": NOW}),
        days_ago(3, size=1_000_000),
        days_ago(2, database="\x1b[31mred", size=0, problem="cut"),
        days_ago(-1, kind="globals", size=2000, pin=Pin("x")),
    ]
    assert text.statistics_lines(statistics(backups, NOW), text.policy_text(JOB_POLICY)) == [
        "3 backups, 4.0 MB, 1 damaged",
        "average: 1.3 MB in 4.0s",
        "newest: 2025-11-06T14:30:00Z, oldest: 2025-11-02T14:30:00Z",
        "retention: keep_last 10, keep_days 30 (either), keep_minimum 1",
        "",
        "DATABASE          COUNT    SIZE  AVERAGE  NEWEST                          AGE  NEWEST SIZE  PER DAY  REMARKS",
        r"main/\x1b[31mred      0     0 B        -  -                                 -            -        -  1 damaged",
        "main/shop             2  4.0 MB   2.0 MB  2025-11-04T14:30:00Z             1d       3.0 MB  +1.0 MB  1 verified",
        "main/@globals         1  2.0 kB   2.0 kB  2025-11-06T14:30:00Z  in the future       2.0 kB        -  1 pinned",
    ]


def test_figures_of_nothing_are_one_line() -> None:
    assert text.statistics_lines(statistics([], NOW), None) == ["0 backups, 0 B"]


def test_shrinking_is_shown_with_its_sign() -> None:
    backups = [days_ago(1, size=1_000_000), days_ago(2, size=2_000_000)]
    assert "-1.0 MB" in text.statistics_lines(statistics(backups, NOW), None)[-1]


# --- retention ---


@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        (Policy(), "keep_minimum 1"),
        (JOB_POLICY, "keep_last 10, keep_days 30 (either), keep_minimum 1"),
        (Policy(keep_last=5, keep_days=7, limit_mode="both"), "keep_last 5, keep_days 7 (both), keep_minimum 1"),
        (Policy(keep_days=7, limit_mode="both", keep_last=0), "keep_days 7, keep_minimum 1"),
        (Policy(keep_last=5, timezone="Europe/Berlin"), "keep_last 5, keep_minimum 1"),
        (
            Policy(
                keep_daily=7, keep_weekly=4, keep_minimum=2, timezone="Europe/Berlin", max_deletions=9, require_copies=1
            ),
            "keep_daily 7, keep_weekly 4, keep_minimum 2, timezone Europe/Berlin, max_deletions 9, require_copies 1",
        ),
    ],
)
def test_a_policy_is_one_line(policy: Policy, shown: str) -> None:
    assert text.policy_text(policy) == shown


def test_a_plan_is_a_table_of_every_backup_and_a_sum() -> None:
    history = [days_ago(1), days_ago(40, size=3_400_000), days_ago(41, size=180_000_000), days_ago(50, pin=Pin("a\nb"))]
    assert text.plan_lines(plan(history, JOB_POLICY, NOW)) == [
        "ACTION  DATABASE   BACKUP                        SIZE  REASONS",
        "keep    main/shop  shop_2025-11-04_14-30-00    1.0 kB  keep_minimum 1, keep_last 10: newest, keep_days 30: 1d old",
        "DELETE  main/shop  shop_2025-09-26_14-30-00    3.4 MB  keep_days 30 exceeded: 40 days old",
        "DELETE  main/shop  shop_2025-09-25_14-30-00  180.0 MB  keep_days 30 exceeded: 41 days old",
        r"keep    main/shop  shop_2025-09-16_14-30-00    1.0 kB  pinned: a\nb",
        "",
        "2 backups kept, 2 to delete, 183.4 MB freed",
    ]


def test_a_plan_without_deletions_says_so() -> None:
    assert text.plan_lines(plan([days_ago(1)], JOB_POLICY, NOW))[-1] == "1 backup kept, nothing to delete"
    assert text.plan_lines(Plan(())) == ["no backups"]


@settings(deadline=None)
@given(histories(), policies(brakes=True), st.text(st.characters(), min_size=1))
def test_no_line_can_harm_a_terminal(history: Any, policy: Policy, hostile: str) -> None:
    backups, now = history
    hostile_ones = [
        days_ago(1, id=hostile, database=hostile, label=hostile, problem=hostile, pin=Pin(hostile), copies=(hostile,)),
        days_ago(2, id=hostile + "2", database=hostile, pin=Pin(hostile)),
    ]
    backups = [*backups, *hostile_ones]
    lines = [
        *text.backup_lines(backups, now),
        *text.plan_lines(plan(backups, policy, now)),
        *text.statistics_lines(statistics(backups, now), text.policy_text(policy)),
    ]
    assert all(line.isprintable() for line in lines)
