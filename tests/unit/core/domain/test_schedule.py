# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import re
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import job, schedule
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ConfigurationError

BERLIN = ZoneInfo("Europe/Berlin")
UTC = timezone.utc


# --- reading ---


@pytest.mark.parametrize(
    ("text", "days", "months", "weekdays"),
    [
        ("0 2 * * *", range(1, 32), range(1, 13), range(7)),
        ("0 2 1,15 * *", (1, 15), range(1, 13), range(7)),
        ("0 2 */10 1-12/3 *", (1, 11, 21, 31), (1, 4, 7, 10), range(7)),
        ("0 2 * jan,Mar-MAY Mon-Fri", range(1, 32), (1, 3, 4, 5), range(1, 6)),
        ("0 2 * * 7", range(1, 32), range(1, 13), (0,)),
        ("0 2 * * 5-7", range(1, 32), range(1, 13), (0, 5, 6)),
        ("00 02 01 01 */2", (1,), (1,), (0, 2, 4, 6)),
        ("0 2 29 2 *", (29,), (2,), range(7)),
    ],
)
def test_five_fields_are_values_lists_ranges_steps_and_names(
    text: str, days: object, months: object, weekdays: object
) -> None:
    cron = schedule.parse(text)
    assert (set(cron.minutes), set(cron.hours)) == ({0}, {2})
    assert (cron.days, cron.months, cron.weekdays) == (set(days), set(months), set(weekdays))  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 2 * *", "4 fields instead of five: minute, hour, day of the month, month, day of the week"),
        ("0 2 * * * *", "6 fields instead of five"),
        ("0  2 * * *", "there must be one space between the fields, and nothing around them"),
        ("0 2 * * *\n", "there must be one space between the fields"),
        ("60 2 * * *", "'60' is no minute: it must be 0 to 59"),
        ("0 24 * * *", "'24' is no hour: it must be 0 to 23"),
        ("0 2 0 * *", "'0' is no day of the month: it must be 1 to 31"),
        ("0 2 * 13 *", "'13' is no month: it must be 1 to 12, or jan, feb,"),
        ("0 2 * * 8", "'8' is no day of the week: it must be 0 to 7, or sun, mon,"),
        ("0 2 * * sunday", "'sunday' is no day of the week"),
        ("mon 2 * * *", "'mon' is no minute"),
        ("0 2 * * fri-mon", "'fri-mon' ends before it begins: write it as two ranges"),
        ("0 22-3 * * *", "'22-3' ends before it begins"),
        ("5/10 2 * * *", "'5/10' has a step without a range: write 5-59/10"),
        ("*/0 2 * * *", "'*/0' has a step that is no minute: it must be 1 to 59"),
        ("*/90 2 * * *", "'*/90' has a step that is no minute"),
        ("*-5 2 * * *", "'*-5' is no minute: write *, a value, a range such as 1-5, or */5"),
        ("0 2, * * *", "'' is no hour"),
        ("0 -2 * * *", "'-2' is no hour"),
        ("0 2% * * *", "'2%' is no hour"),
        ("0 2 31 2 *", "there is no day 31 in Feb, so it would never run"),
        ("0 2 31 2,4 */2", "there is no day 31 in Feb, Apr, so it would never run"),
    ],
)
def test_what_is_wrong_with_five_fields_is_said(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        schedule.parse(text)
    assert str(caught.value).startswith(said)


def test_a_day_that_never_comes_may_stand_beside_a_day_of_the_week() -> None:
    after = datetime(2025, 1, 31, tzinfo=UTC)
    assert schedule.next_run("0 2 31 2 fri", after) == datetime(2025, 2, 7, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        (
            "drill_schedule",
            "dayly",
            "drill_schedule is 'dayly': not a schedule: did you mean daily? Write hourly, every_6_hours, daily, weekly,"
            " monthly, never, or five fields of a crontab",
        ),
        ("backup_schedule", "often", "backup_schedule is 'often': not a schedule: write hourly, every_6_hours,"),
        ("backup_schedule", "@daily", "backup_schedule is '@daily': not a schedule: did you mean daily?"),
        ("backup_schedule", "", "backup_schedule is '': not a schedule: write"),
        ("prune_schedule", "afterbackup", "prune_schedule is 'afterbackup': not a schedule: did you mean after_backup?"),
        ("verify_schedule", "after_backup", "verify_schedule is 'after_backup': only prune_schedule and"),
        ("sync_schedule", "afterbackup", "sync_schedule is 'afterbackup': not a schedule: did you mean after_backup?"),
        ("verify_schedule", "0 2 * * mo", "verify_schedule is '0 2 * * mo': 'mo' is no day of the week"),
    ],
)  # fmt: skip
def test_a_schedule_that_cannot_be_meant_is_found_with_the_other_problems_of_a_job(
    option: str, text: str, said: str
) -> None:
    (sentence,) = job.combination_problems({option: text})
    assert sentence.startswith(said)
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        schedule.resolve({option: text}, "main", "db1")


def test_every_problem_is_found_at_once_and_what_is_good_is_none() -> None:
    raw = dict.fromkeys([f"{action}_schedule" for action in schedule.ACTIONS], "x")
    assert len(job.combination_problems(raw)) == len(schedule.ACTIONS)
    good = {"backup_schedule": "every_6_hours", "prune_schedule": "after_backup", "drill_schedule": "never"}
    good["sync_schedule"] = "after_backup"
    assert job.combination_problems({**good, "verify_schedule": "0 2 * * *"}) == []
    assert job.combination_problems({"backup_schedule": None}) == []


# --- from words to fields ---


def test_only_a_job_with_targets_has_copies_to_make() -> None:
    assert "sync" not in schedule.resolve({"sync_schedule": "daily"}, "main", "db1")
    assert "sync" not in schedule.expressions({"sync_schedule": "daily", "targets": []})
    assert schedule.resolve({"targets": ["vault"]}, "main", "db1")["sync"] == "after_backup"
    assert schedule.expressions({"targets": ["vault"]})["sync"] is None
    daily = {"targets": ["vault"], "sync_schedule": "daily"}
    assert schedule.expressions(daily)["sync"] == "0 2 * * *"
    resolved = schedule.resolve({**daily, "backup_schedule": "daily"}, "main", "db1")
    assert resolved["sync"] != resolved["backup"]  # they are spread apart
    with pytest.raises(ConfigurationError, match="sync_schedule is 'dayly': not a schedule"):
        schedule.resolve({"sync_schedule": "dayly"}, "main", "db1")


def test_words_stand_for_their_times_where_there_is_no_spread() -> None:
    job_options = {"schedule_spread": "0"}
    fields = {
        word: schedule.resolve({**job_options, "backup_schedule": word}, "main", "db1")["backup"]
        for word in (*schedule.PRESETS, "never")
    }
    assert fields == {
        "hourly": "0 * * * *",
        "every_6_hours": "0 */6 * * *",
        "daily": "0 2 * * *",
        "weekly": "0 3 * * 0",
        "monthly": "0 4 1 * *",
        "never": "never",
    }


def test_a_job_that_says_nothing_is_daily_verifies_weekly_and_drills_monthly() -> None:
    assert schedule.resolve({"schedule_spread": "0"}, "main", "db1") == {
        "backup": "0 2 * * *", "prune": "after_backup", "verify": "0 3 * * 0", "drill": "0 4 1 * *",
    }  # fmt: skip
    assert schedule.expressions({}) == {
        "backup": "0 2 * * *", "prune": None, "verify": "0 3 * * 0", "drill": "0 4 1 * *",
    }  # fmt: skip


def test_five_fields_are_taken_as_they_are() -> None:
    options = {"backup_schedule": "00 02 * * MON-FRI", "drill_schedule": "never", "schedule_spread": "5h"}
    resolved = schedule.resolve(options, "main", "db1")
    assert (resolved["backup"], resolved["drill"]) == ("00 02 * * MON-FRI", "never")


def test_the_same_host_job_and_action_begin_at_the_same_time_for_ever() -> None:
    # Written down: a host must not move when pgkeep is upgraded.
    assert schedule.resolve({}, "main", "db1") == {
        "backup": "12 2 * * *", "prune": "after_backup", "verify": "10 3 * * 0", "drill": "21 4 1 * *",
    }  # fmt: skip


# --- when ---


@pytest.mark.parametrize(
    ("expression", "after", "due"),
    [
        ("0 2 * * *", "2025-11-05 01:59", "2025-11-05 02:00"),
        ("0 2 * * *", "2025-11-05 02:00", "2025-11-06 02:00"),
        ("*/20 * * * *", "2025-11-05 23:41", "2025-11-06 00:00"),
        ("0 3 * * 0", "2025-11-05 00:00", "2025-11-09 03:00"),
        ("0 4 1 * *", "2025-12-31 12:00", "2026-01-01 04:00"),
        ("0 4 29 feb *", "2025-01-01 00:00", "2028-02-29 04:00"),
        ("0 4 29 2 */6", "2025-01-01 00:00", "2032-02-29 04:00"),  # a Sunday or a Saturday
        ("0 4 31 * *", "2025-04-01 00:00", "2025-05-31 04:00"),
        ("0 4 13 * fri", "2025-11-05 00:00", "2025-11-07 04:00"),  # either
        ("0 4 13 * fri", "2025-11-07 05:00", "2025-11-13 04:00"),
        ("0 4 */2 * fri", "2025-11-05 00:00", "2025-11-07 04:00"),  # both, as one begins with *
        ("0 4 */2 * fri", "2025-11-07 05:00", "2025-11-21 04:00"),
        ("0 4 13 * */5", "2025-11-05 00:00", "2026-02-13 04:00"),  # a Friday or a Sunday
    ],
)
def test_the_next_run_is_cron_s(expression: str, after: str, due: str) -> None:
    found = schedule.next_run(expression, datetime.fromisoformat(after).replace(tzinfo=UTC))
    assert found == datetime.fromisoformat(due).replace(tzinfo=UTC)


def test_a_29_february_comes_after_a_century_without_one() -> None:
    found = schedule.next_run("0 4 29 2 *", datetime(2096, 3, 1, tzinfo=UTC))
    assert found == datetime(2104, 2, 29, 4, tzinfo=UTC)
    found = schedule.next_run("0 4 29 2 */6", datetime(2088, 3, 1, tzinfo=UTC))
    assert found.isoweekday() in (6, 7)


@pytest.mark.parametrize(
    ("expression", "after", "due"),
    [
        # 2025-03-30 has no 02:00 to 02:59: what would have run then runs when the clock shows 03:00.
        ("30 2 * * *", "2025-03-29T03:00+01:00", "2025-03-30T03:00+02:00"),
        ("30 2 * * *", "2025-03-30T03:00+02:00", "2025-03-31T02:30+02:00"),
        ("0,30 2,3 * * *", "2025-03-30T01:00+01:00", "2025-03-30T03:00+02:00"),
        ("0,30 2,3 * * *", "2025-03-30T03:00+02:00", "2025-03-30T03:30+02:00"),
        # What follows the clock has no hour to catch up on.
        ("30 * * * *", "2025-03-30T01:30+01:00", "2025-03-30T03:30+02:00"),
        ("* 2 * * *", "2025-03-30T01:30+01:00", "2025-03-31T02:00+02:00"),
        # 2025-10-26 has 02:00 to 02:59 twice: what runs at a time of the day runs once.
        ("30 2 * * *", "2025-10-26T02:00+02:00", "2025-10-26T02:30+02:00"),
        ("30 2 * * *", "2025-10-26T02:30+02:00", "2025-10-27T02:30+01:00"),
        ("30 2 * * *", "2025-10-26T02:10+01:00", "2025-10-27T02:30+01:00"),
        # What follows the clock runs in both.
        ("30 * * * *", "2025-10-26T02:30+02:00", "2025-10-26T02:30+01:00"),
        ("30 * * * *", "2025-10-26T02:30+01:00", "2025-10-26T03:30+01:00"),
    ],
)
def test_a_change_of_the_clock_skips_nothing_and_repeats_nothing(expression: str, after: str, due: str) -> None:
    found = schedule.next_run(expression, datetime.fromisoformat(after).astimezone(BERLIN))
    assert found.isoformat(timespec="minutes") == due
    assert found.tzinfo is BERLIN


# --- systemd ---

CALENDARS = {
    "0 * * * *": ["*-*-* *:00:00"],
    "0 */6 * * *": ["*-*-* 00..18/6:00:00"],
    "17 1-23/6 * * *": ["*-*-* 01..19/6:17:00"],
    "0 2 * * *": ["*-*-* 02:00:00"],
    "30 3 * * 0": ["Sun *-*-* 03:30:00"],
    "30 3 * * 7,sat": ["Sun,Sat *-*-* 03:30:00"],
    "0 4 1 * *": ["*-*-01 04:00:00"],
    "5,20 8-17 * jan-mar,12 mon-fri": ["Mon,Tue,Wed,Thu,Fri *-01,02,03,12-* 08..17:05,20:00"],
    "*/15 22,23 * * *": ["*-*-* 22,23:00..45/15:00"],
    "0 4 13 * fri": ["*-*-13 04:00:00", "Fri *-*-* 04:00:00"],
    "0 4 */2 * fri": ["Fri *-*-01..31/2 04:00:00"],
    "0 4 29 2 *": ["*-02-29 04:00:00"],
    "0 4 1-7 * */7": ["Sun *-*-01..07 04:00:00"],
}  # fmt: skip


@pytest.mark.parametrize(("expression", "written"), CALENDARS.items())
def test_systemd_gets_a_calendar_for_each_schedule(expression: str, written: list[str]) -> None:
    assert schedule.on_calendar(expression) == written


@pytest.mark.needs_programs("systemd-analyze")
@pytest.mark.parametrize("expression", CALENDARS)
def test_systemd_begins_when_cron_does(expression: str) -> None:
    after = datetime(2025, 11, 5, 14, 30, tzinfo=UTC)
    expected = []
    while len(expected) < 6:
        expected.append(schedule.next_run(expression, expected[-1] if expected else after))
    command = ["systemd-analyze", "calendar", "--iterations=6", "--base-time=2025-11-05 14:30:00 UTC"]
    done = subprocess.run(
        [*command, *schedule.on_calendar(expression)],
        env={**os.environ, "TZ": "UTC", "LC_ALL": "C"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = re.findall(r"(?:Next elapse|Iter\. #\d+|Iteration #\d+): \w+ ([0-9-]+ [0-9:]+) UTC", done.stdout)
    told = sorted({datetime.fromisoformat(item).replace(tzinfo=UTC) for item in found})
    assert told[:6] == expected
    assert told[0] - after < timedelta(days=366 * 8)


def test_the_documentation_has_the_words_with_their_fields() -> None:
    text = (Path(__file__).resolve().parents[4] / "docs" / "configuration.md").read_text()
    (section,) = re.findall(r"^## Schedules\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (?:`(.*?)` )?\|$", section, re.MULTILINE)
    expected = {word: schedule.expressions({"backup_schedule": word})["backup"] for word in schedule.PRESETS}
    assert dict(rows) == {**expected, "never": "", "after_backup": ""}
