# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every rule by example. What holds for all histories and policies is in test_retention_properties.py."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.backups import Backup, Pin
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ConfigurationError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import JOB_POLICY, RULES, Policy
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.retention import Plan, check_policy, plan

from tests.unit.core.domain.histories import NOW, a_backup, moment


def days_ago(*days: float, **changes: Any) -> list[Backup]:
    return [a_backup(NOW - timedelta(days=day), **changes) for day in days]


def times(backups: tuple[Backup, ...]) -> list[str]:
    return [backup.created.strftime("%Y-%m-%d %H:%M") for backup in backups]


def kept(created: list[str], now: str = "2026-06-01", **rules: Any) -> list[str]:
    """Given times as "2025-11-05 14:30", return those that a policy keeps, newest first."""
    return times(plan([a_backup(text) for text in created], Policy(**rules), moment(now)).kept)


def reasons(planned: Plan) -> list[tuple[bool, tuple[str, ...]]]:
    return [(item.keep, item.reasons) for item in planned.decisions]


def all_rules(number: int) -> Policy:
    rules: dict[str, Any] = dict.fromkeys(RULES, number)
    return Policy(**rules)


# --- limits ---


def test_keep_last_keeps_the_newest() -> None:
    assert reasons(plan(days_ago(1, 2, 3, 4), Policy(keep_last=3), NOW)) == [
        (True, ("keep_minimum 1", "keep_last 3: newest")),
        (True, ("keep_last 3: 2nd newest",)),
        (True, ("keep_last 3: 3rd newest",)),
        (False, ("keep_last 3 exceeded: 4th newest",)),
    ]


def test_ranks_are_spoken_as_people_do() -> None:
    planned = plan(days_ago(*range(1, 124)), Policy(keep_last=1), NOW)
    said = [item.reasons[-1].split(": ")[1] for item in planned.decisions]
    assert [said[rank - 1] for rank in (1, 2, 3, 4, 11, 12, 13, 21, 22, 101, 111, 112, 113, 123)] == [
        "newest", "2nd newest", "3rd newest", "4th newest", "11th newest", "12th newest", "13th newest", "21st newest",
        "22nd newest", "101st newest", "111th newest", "112th newest", "113th newest", "123rd newest",
    ]  # fmt: skip


def test_a_backup_that_is_exactly_keep_days_old_is_kept() -> None:
    second = 1 / 86400
    assert reasons(plan(days_ago(0.25, 1.5, 7, 30, 30 + second, 41.9), Policy(keep_days=30), NOW)) == [
        (True, ("keep_minimum 1", "keep_days 30: 6h old")),
        (True, ("keep_days 30: 1d 12h old",)),
        (True, ("keep_days 30: 7 days old",)),
        (True, ("keep_days 30: 30d old",)),
        (False, ("keep_days 30 exceeded: 30d 1s old",)),
        (False, ("keep_days 30 exceeded: 41 days old",)),
    ]


def test_either_limit_drops_by_default() -> None:
    history = days_ago(1, 2, 40)
    assert reasons(plan(history, Policy(keep_last=2, keep_days=30), NOW))[1:] == [
        (True, ("keep_last 2: 2nd newest", "keep_days 30: 2 days old")),
        (False, ("keep_last 2 exceeded: 3rd newest", "keep_days 30 exceeded: 40 days old")),
    ]
    assert reasons(plan(history, Policy(keep_last=5, keep_days=30), NOW))[2] == (
        False,
        ("keep_days 30 exceeded: 40 days old",),
    )
    assert reasons(plan(history, Policy(keep_last=1, keep_days=30), NOW))[1] == (
        False,
        ("keep_last 1 exceeded: 2nd newest",),
    )


def test_both_limits_must_be_exceeded_in_mode_both() -> None:
    both: dict[str, Any] = {"limit_mode": "both"}
    history = days_ago(1, 2, 40, 50)
    assert reasons(plan(history, Policy(keep_last=1, keep_days=30, **both), NOW))[1:] == [
        (True, ("keep_days 30: 2 days old",)),
        (False, ("keep_last 1 exceeded: 3rd newest", "keep_days 30 exceeded: 40 days old")),
        (False, ("keep_last 1 exceeded: 4th newest", "keep_days 30 exceeded: 50 days old")),
    ]
    assert reasons(plan(history, Policy(keep_last=3, keep_days=30, **both), NOW))[2] == (
        True,
        ("keep_last 3: 3rd newest",),
    )


def test_mode_both_with_one_limit_is_that_limit() -> None:
    assert len(plan(days_ago(1, 2, 3), Policy(keep_last=1, limit_mode="both"), NOW).deletions) == 2
    assert len(plan(days_ago(1, 2, 40), Policy(keep_days=30, limit_mode="both"), NOW).deletions) == 1


def test_zero_and_null_switch_a_limit_off() -> None:
    history = days_ago(*range(50))
    assert len(plan(history, Policy(keep_last=0, keep_days=30), NOW).kept) == 31
    assert len(plan(history, Policy(keep_last=10, keep_days=None), NOW).kept) == 10


# --- the minimum ---


def test_the_newest_stay_however_old_they_are() -> None:
    history = days_ago(400, 500, 600)
    assert reasons(plan(history, Policy(keep_days=30, keep_minimum=2), NOW)) == [
        (True, ("keep_minimum 2",)),
        (True, ("keep_minimum 2",)),
        (False, ("keep_days 30 exceeded: 600 days old",)),
    ]


def test_the_minimum_counts_neither_damaged_nor_future_nor_partial_backups() -> None:
    history = [
        *days_ago(-1),
        *days_ago(1, problem="shop.dump is missing"),
        *days_ago(2, partial=True),
        *days_ago(400, 500),
    ]
    planned = plan(history, Policy(keep_days=30), NOW)
    assert planned.deletions == tuple(days_ago(500))


# --- tiers, in UTC ---


def test_the_newest_backup_of_each_hour_is_kept() -> None:
    created = ["2025-11-05 14:10", "2025-11-05 14:50", "2025-11-05 13:00", "2025-11-05 11:59", "2025-11-05 10:00"]
    assert kept(created, keep_hourly=3) == ["2025-11-05 14:50", "2025-11-05 13:00", "2025-11-05 11:59"]


def test_only_periods_that_have_a_backup_count() -> None:
    created = ["2025-11-05 01:00", "2025-11-05 23:00", "2025-09-01 12:00", "2025-08-31 12:00", "2019-01-01 12:00"]
    assert kept(created, keep_daily=4) == [
        "2025-11-05 23:00",
        "2025-09-01 12:00",
        "2025-08-31 12:00",
        "2019-01-01 12:00",
    ]


def test_a_week_is_an_iso_week_also_over_the_end_of_a_year() -> None:
    # 2020 has 53 weeks: Sunday 2021-01-03 belongs to 2020-W53, Monday 2021-01-04 begins 2021-W01.
    created = ["2021-01-04 00:00", "2021-01-03 23:59", "2020-12-31 12:00", "2020-12-28 00:00", "2020-12-27 23:59"]
    assert kept(created, keep_weekly=3) == ["2021-01-04 00:00", "2021-01-03 23:59", "2020-12-27 23:59"]
    planned = plan([a_backup(text) for text in created], Policy(keep_weekly=3), NOW)
    assert [item.reasons[-1] for item in planned.decisions] == [
        "keep_weekly 3: newest of 2021-W01",
        "keep_weekly 3: newest of 2020-W53",
        "no tier keeps it",
        "no tier keeps it",
        "keep_weekly 3: newest of 2020-W52",
    ]


def test_the_first_days_of_a_year_in_the_old_year_s_week_and_the_last_in_the_new_one_s() -> None:
    # 2024-12-30 is a Monday and begins 2025-W01.
    created = ["2025-01-05 12:00", "2024-12-30 12:00", "2024-12-29 12:00"]
    assert kept(created, keep_weekly=5) == ["2025-01-05 12:00", "2024-12-29 12:00"]


def test_months_and_years_are_the_calendar_s() -> None:
    created = ["2025-03-01 00:00", "2025-02-28 23:59", "2025-01-31 12:00", "2024-12-31 23:59", "2024-01-01 00:00"]
    assert kept(created, keep_monthly=3) == ["2025-03-01 00:00", "2025-02-28 23:59", "2025-01-31 12:00"]
    assert kept(created, keep_yearly=3) == ["2025-03-01 00:00", "2024-12-31 23:59"]


def test_the_leap_day_is_a_day_of_its_own() -> None:
    created = ["2024-03-01 00:00", "2024-02-29 23:59", "2024-02-29 00:00", "2024-02-28 23:59"]
    assert kept(created, keep_daily=3) == ["2024-03-01 00:00", "2024-02-29 23:59", "2024-02-28 23:59"]
    assert kept(created, now="2024-03-30 23:59", keep_days=30) == ["2024-03-01 00:00", "2024-02-29 23:59"]


def test_every_tier_that_keeps_a_backup_is_named() -> None:
    planned = plan([a_backup("2025-11-05 14:10")], all_rules(2), NOW)
    assert reasons(planned) == [
        (
            True,
            (
                "keep_minimum 1",
                "keep_last 2: newest",
                "keep_days 2: 20m old",
                "keep_hourly 2: newest of 2025-11-05 14:00+00:00",
                "keep_daily 2: newest of 2025-11-05",
                "keep_weekly 2: newest of 2025-W45",
                "keep_monthly 2: newest of 2025-11",
                "keep_yearly 2: newest of 2025",
            ),
        )
    ]


def test_a_tier_counts_the_newest_of_a_period_also_when_another_rule_keeps_it() -> None:
    created = ["2025-11-05 20:00", "2025-11-05 08:00", "2025-11-04 20:00"]
    assert kept(created, keep_last=1, keep_daily=1) == ["2025-11-05 20:00"]


def test_a_backup_that_a_tier_keeps_may_exceed_the_limits() -> None:
    history = [
        a_backup(text) for text in ("2025-11-05 08:00", "2025-11-04 08:00", "2024-06-01 08:00", "2024-05-01 08:00")
    ]
    assert reasons(plan(history, Policy(keep_last=1, keep_yearly=2), NOW)) == [
        (True, ("keep_minimum 1", "keep_last 1: newest", "keep_yearly 2: newest of 2025")),
        (False, ("keep_last 1 exceeded: 2nd newest", "no tier keeps it")),
        (True, ("keep_yearly 2: newest of 2024",)),
        (False, ("keep_last 1 exceeded: 4th newest", "no tier keeps it")),
    ]


def test_with_tiers_alone_no_limit_keeps_anything() -> None:
    assert kept(["2025-11-05 14:00", "2025-11-05 13:00", "2025-11-05 12:00"], keep_daily=7) == ["2025-11-05 14:00"]


# --- tiers, where summer time begins and ends ---


def test_the_hour_that_the_end_of_summer_time_repeats_is_two_hours() -> None:
    # Berlin, 2024-10-27: 02:30 summer time is 00:30 UTC, 02:30 winter time is 01:30 UTC.
    created = ["2024-10-27 01:50", "2024-10-27 01:30", "2024-10-27 00:50", "2024-10-27 00:30", "2024-10-26 23:59"]
    planned = plan([a_backup(text) for text in created], Policy(keep_hourly=3, timezone="Europe/Berlin"), NOW)
    assert times(planned.kept) == ["2024-10-27 01:50", "2024-10-27 00:50", "2024-10-26 23:59"]
    assert [item.reasons[-1] for item in planned.decisions if item.keep] == [
        "keep_hourly 3: newest of 2024-10-27 02:00+01:00",
        "keep_hourly 3: newest of 2024-10-27 02:00+02:00",
        "keep_hourly 3: newest of 2024-10-27 01:00+02:00",
    ]


def test_the_hour_that_summer_time_skips_is_none() -> None:
    # Berlin, 2025-03-30: 01:59 is followed by 03:00.
    created = ["2025-03-30 01:00", "2025-03-30 00:59", "2025-03-30 00:00"]
    assert kept(created, keep_hourly=3, timezone="Europe/Berlin") == ["2025-03-30 01:00", "2025-03-30 00:59"]


def test_a_day_begins_at_midnight_of_the_policy_s_time_zone() -> None:
    # Berlin's 2024-10-27 has 25 hours: from 22:00 UTC the day before to 23:00 UTC.
    created = ["2024-10-27 23:00", "2024-10-27 22:59", "2024-10-26 22:00", "2024-10-26 21:59"]
    assert kept(created, keep_daily=9, timezone="Europe/Berlin") == [
        "2024-10-27 23:00",
        "2024-10-27 22:59",
        "2024-10-26 21:59",
    ]
    assert kept(created, keep_daily=9) == ["2024-10-27 23:00", "2024-10-26 22:00"]


def test_the_day_with_23_hours_is_one_day() -> None:
    created = ["2025-03-30 22:00", "2025-03-30 21:59", "2025-03-29 23:00", "2025-03-29 22:59"]
    assert kept(created, keep_daily=9, timezone="Europe/Berlin") == [
        "2025-03-30 22:00",
        "2025-03-30 21:59",
        "2025-03-29 22:59",
    ]


def test_a_year_begins_at_midnight_of_the_policy_s_time_zone() -> None:
    created = ["2025-01-01 01:00", "2024-12-31 23:30", "2024-12-31 22:30"]
    assert kept(created, keep_yearly=2, timezone="Europe/Berlin") == ["2025-01-01 01:00", "2024-12-31 22:30"]


def test_a_day_that_comes_twice_because_the_clock_went_back_over_midnight_counts_once() -> None:
    # St. John's, 2009-11-01: at 00:01 the clock went back to 23:01 of the day before. Its people took these at 00:30,
    # 23:15 the day before, 00:00, and 23:30 the day before.
    created = ["2009-11-01 04:00", "2009-11-01 02:45", "2009-11-01 02:30", "2009-11-01 02:00"]
    assert kept(created, keep_daily=9, timezone="America/St_Johns") == ["2009-11-01 04:00", "2009-11-01 02:45"]


def test_keep_days_are_24_hours_each_whatever_the_clocks_show() -> None:
    assert kept(
        ["2025-03-29 11:00", "2025-03-29 10:59"], now="2025-03-30 11:00", keep_days=1, timezone="Europe/Berlin"
    ) == ["2025-03-29 11:00"]


def test_a_manifest_from_the_first_day_of_the_calendar_does_not_stop_retention() -> None:
    first = a_backup(datetime(1, 1, 1, tzinfo=timezone.utc))
    planned = plan([first, *days_ago(1)], Policy(keep_yearly=1, timezone="America/St_Johns"), NOW)
    assert planned.deletions == (first,)


# --- what is never deleted ---


def test_a_pin_keeps_a_backup_while_it_holds() -> None:
    history = [
        *days_ago(1),
        *days_ago(50, pin=Pin("before migration")),
        *days_ago(51, pin=Pin("before migration", moment("2026-01-01"))),
        *days_ago(52, pin=Pin("before migration", NOW + timedelta(seconds=1))),
        *days_ago(53, pin=Pin("before migration", NOW)),
    ]
    assert reasons(plan(history, Policy(keep_days=30), NOW))[1:] == [
        (True, ("pinned: before migration",)),
        (True, ("pinned until 2026-01-01: before migration",)),
        (True, ("pinned until 2025-11-05T14:30:01Z: before migration",)),
        (False, ("keep_days 30 exceeded: 53 days old",)),
    ]


def test_a_pinned_backup_takes_its_place_among_the_newest() -> None:
    history = [*days_ago(1), *days_ago(2, pin=Pin("x")), *days_ago(3)]
    assert reasons(plan(history, Policy(keep_last=2), NOW))[1:] == [
        (True, ("pinned: x", "keep_last 2: 2nd newest")),
        (False, ("keep_last 2 exceeded: 3rd newest",)),
    ]


def test_damaged_backups_stay_and_count_for_nothing() -> None:
    history = [*days_ago(1, 2, problem="shop.dump is missing"), *days_ago(3, 4)]
    assert reasons(plan(history, Policy(keep_last=1), NOW)) == [
        (True, ("damaged: never deleted by retention",)),
        (True, ("damaged: never deleted by retention",)),
        (True, ("keep_minimum 1", "keep_last 1: newest")),
        (False, ("keep_last 1 exceeded: 2nd newest",)),
    ]


def test_backups_of_the_future_stay_and_count_for_nothing() -> None:
    history = days_ago(-10, -1 / 86400, 0, 3)
    assert reasons(plan(history, Policy(keep_last=1), NOW)) == [
        (True, ("dated in the future",)),
        (True, ("dated in the future",)),
        (True, ("keep_minimum 1", "keep_last 1: newest")),
        (False, ("keep_last 1 exceeded: 2nd newest",)),
    ]


def test_all_that_protects_a_backup_is_named() -> None:
    [backup] = days_ago(-1, problem="shop.dump is missing", pin=Pin("x"))
    assert reasons(plan([backup], Policy(keep_last=1), NOW)) == [
        (True, ("damaged: never deleted by retention", "dated in the future", "pinned: x")),
    ]


# --- groups ---


def test_each_database_of_each_instance_has_its_own_backups_to_count() -> None:
    history = [
        backup
        for changes in ({}, {"database": "shop2"}, {"instance": "other"}, {"kind": "globals"}, {"partial": True})
        for backup in days_ago(1, 2, 3, **changes)
    ]
    planned = plan(history, Policy(keep_last=2), NOW)
    assert len(planned.kept) == 10
    assert planned.deletions == tuple(sorted(planned.deletions, key=lambda backup: backup.id))
    assert {backup.created for backup in planned.deletions} == {NOW - timedelta(days=3)}


def test_a_database_with_the_name_of_the_globals_is_not_the_globals() -> None:
    history = [*days_ago(1, 2, database="@globals"), *days_ago(30, kind="globals")]
    assert plan(history, Policy(keep_last=1), NOW).deletions == tuple(days_ago(2, database="@globals"))


def test_partial_backups_never_push_full_ones_out() -> None:
    history = [*days_ago(1, 2, 3, partial=True), *days_ago(10, 11)]
    planned = plan(history, Policy(keep_last=2), NOW)
    assert planned.deletions == tuple(days_ago(3, partial=True))


def test_a_plan_lists_groups_in_order_and_the_newest_first() -> None:
    history = [
        *days_ago(3, 1, 2),
        *days_ago(5, kind="globals"),
        *days_ago(4, database="alpha"),
        *days_ago(6, instance="a"),
    ]
    decided = [item.backup.id for item in plan(reversed(history), Policy(keep_last=9), NOW).decisions]
    assert decided == [
        "a/shop/shop_2025-10-30_14-30-00",
        "main/alpha/alpha_2025-11-01_14-30-00",
        "main/shop/shop_2025-11-04_14-30-00",
        "main/shop/shop_2025-11-03_14-30-00",
        "main/shop/shop_2025-11-02_14-30-00",
        "main/@globals/globals_2025-10-31_14-30-00",
    ]


def test_nothing_is_planned_for_nothing() -> None:
    assert plan([], JOB_POLICY, NOW) == Plan(())


# --- brakes ---


def test_a_backup_without_its_verified_copies_is_held() -> None:
    history = [
        *days_ago(1),
        *days_ago(41, copies=("nas", "s3")),
        *days_ago(42, copies=("nas",)),
        *days_ago(43, copies=("nas", "nas")),
        *days_ago(44),
    ]
    assert reasons(plan(history, Policy(keep_days=30, require_copies=2), NOW))[1:] == [
        (False, ("keep_days 30 exceeded: 41 days old",)),
        (True, ("require_copies 2: 1 verified copy", "keep_days 30 exceeded: 42 days old")),
        (True, ("require_copies 2: 1 verified copy", "keep_days 30 exceeded: 43 days old")),
        (True, ("require_copies 2: no verified copies", "keep_days 30 exceeded: 44 days old")),
    ]


def test_max_deletions_lets_the_oldest_of_all_databases_go_first() -> None:
    history = [*days_ago(1, 3, 5, 7), *days_ago(2, 4, 6, 8, database="blog")]
    planned = plan(history, Policy(keep_last=1, max_deletions=3), NOW)
    assert planned.deletions == (*days_ago(8, database="blog"), *days_ago(7), *days_ago(6, database="blog"))
    held = "max_deletions 3: 6 could go, the oldest 3 do, the next run goes on"
    assert [item.reasons for item in planned.decisions if item.reasons[0] == held] == [
        (held, "keep_last 1 exceeded: 2nd newest"),
        (held, "keep_last 1 exceeded: 2nd newest"),
        (held, "keep_last 1 exceeded: 3rd newest"),
    ]


def test_what_waits_for_copies_does_not_use_up_the_deletions_of_a_run() -> None:
    history = [*days_ago(1, 40, copies=("nas",)), *days_ago(50)]
    planned = plan(history, Policy(keep_days=30, require_copies=1, max_deletions=1), NOW)
    assert planned.deletions == tuple(days_ago(40, copies=("nas",)))


def test_a_brake_that_is_not_reached_changes_nothing() -> None:
    history = days_ago(1, 2, 3)
    assert plan(history, Policy(keep_last=1, max_deletions=2), NOW) == plan(history, Policy(keep_last=1), NOW)


# --- policies that cannot be ---


@pytest.mark.parametrize(
    "rules", [{}, dict.fromkeys(RULES, 0), {"keep_minimum": 5, "max_deletions": 1, "require_copies": 1}]
)
def test_a_policy_without_a_rule_is_an_error_and_never_deletes_everything(rules: dict[str, Any]) -> None:
    for refuse in (check_policy, lambda policy: plan(days_ago(1), policy, NOW)):
        with pytest.raises(
            ConfigurationError, match=r"no rule, so it would keep everything .*: set keep_last, keep_days or"
        ):
            refuse(Policy(**rules))


@pytest.mark.parametrize("rule", RULES)
def test_one_rule_is_enough(rule: str) -> None:
    rules: dict[str, Any] = {rule: 1}
    check_policy(Policy(**rules))


def test_an_unknown_time_zone_is_an_error_also_when_no_tier_needs_it() -> None:
    with pytest.raises(ConfigurationError, match="timezone is 'Mars/Phobos', which this host does not know"):
        check_policy(Policy(keep_last=1, timezone="Mars/Phobos"))


def test_a_minimum_of_nothing_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="keep_minimum is 0: must be 1 or more"):
        check_policy(Policy(keep_last=1, keep_minimum=0))
