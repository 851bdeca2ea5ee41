# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The next run against a clock that goes on minute by minute, as cron's does; and the spread of a fleet."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import schedule
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ConfigurationError
from hypothesis import given, settings
from hypothesis import strategies as st

UTC = timezone.utc
MINUTE = timedelta(minutes=1)
NAMES = {name: number for number, name in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])}
WINDOW = 4 * 24 * 60  # minutes
# Changes of the clock: by an hour, by half an hour, at midnight, at a minute past midnight; and none.
CHANGES = (
    ("Europe/Berlin", "2025-03-30"),
    ("Europe/Berlin", "2025-10-26"),
    ("Australia/Lord_Howe", "2025-04-06"),
    ("Australia/Lord_Howe", "2025-10-05"),
    ("America/Sao_Paulo", "2018-11-04"),
    ("America/Havana", "2025-11-02"),
    ("America/St_Johns", "2010-11-07"),
    ("America/St_Johns", "2010-03-14"),
    ("UTC", "2024-02-28"),
    ("Asia/Kolkata", "2025-12-30"),
)


@st.composite
def fields(draw: st.DrawFn, low: int, high: int) -> str:
    """A field: `*` and steps more often than chance would have it."""
    value = st.integers(low, high)
    begin, end = sorted((draw(value), draw(value)))
    step = draw(st.integers(1, high))
    item = st.sampled_from(["*", f"*/{step}", str(begin), f"{begin}-{end}", f"{begin}-{end}/{step}", f"{end},{begin}"])
    return draw(st.sampled_from(["*", draw(item), draw(item)]))


@st.composite
def expressions(draw: st.DrawFn) -> str:
    """Five fields that are due now and then."""
    text = " ".join(draw(fields(low, high)) for low, high in ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7)))
    try:
        schedule.parse(text)
    except ConfigurationError:
        return "0 2 * * *"
    return text


def values(text: str, low: int, high: int) -> set[int]:
    """Given a field, return its values: written once more, in the simplest way."""
    found = set()
    for item in text.split(","):
        span, _unused, step = item.partition("/")
        begin, _unused, end = (f"{low}-{high}" if span == "*" else span).partition("-")
        found |= set(range(int(begin), int(end or begin) + 1, int(step or 1)))
    return found


def meaning(text: str) -> Callable[[datetime], bool]:
    """Given five fields, return a function that says of a local time whether they mean its minute."""
    minute, hour, day, month, weekday = text.split()
    minutes, hours, days = values(minute, 0, 59), values(hour, 0, 23), values(day, 1, 31)
    months, weekdays = values(month, 1, 12), values(weekday, 0, 7)
    both = day.startswith("*") or weekday.startswith("*")

    def means(local: datetime) -> bool:
        if local.minute not in minutes or local.hour not in hours or local.month not in months:
            return False
        on_day, on_weekday = local.day in days, bool({local.isoweekday() % 7, local.isoweekday()} & weekdays)
        return (on_day and on_weekday) if both else (on_day or on_weekday)

    return means


def runs(text: str, zone: ZoneInfo, begin: datetime) -> list[datetime]:
    """Given five fields, return when Debian's cron runs them in the window: the clock is looked at every minute."""
    means, follows_clock = meaning(text), any(field.startswith("*") for field in text.split()[:2])
    found = []
    # What runs at a time of the day has run up to here, on the clock of the place.
    reached = (begin - MINUTE).astimezone(zone).replace(tzinfo=None)
    for number in range(WINDOW):
        moment = begin + number * MINUTE
        local = moment.astimezone(zone).replace(tzinfo=None)
        if follows_clock:
            due = means(local)
        else:
            skipped = int((local - reached) / MINUTE)  # 1 when nothing happens, 0 or less in what comes twice
            due = any(means(reached + (more + 1) * MINUTE) for more in range(skipped))
        reached = max(reached, local)
        if due:
            found.append(moment)
    return found


@settings(max_examples=200, deadline=None)
@given(text=expressions(), change=st.sampled_from(CHANGES), offset=st.integers(0, 2 * 24 * 60))
def test_the_next_run_is_the_first_minute_in_which_cron_runs_it(
    text: str, change: tuple[str, str], offset: int
) -> None:
    place, day = change
    begin = datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(days=1)
    after = begin + offset * MINUTE + timedelta(seconds=30)
    expected = [moment for moment in runs(text, ZoneInfo(place), begin) if moment > after]
    found = schedule.next_run(text, after.astimezone(ZoneInfo(place))).astimezone(UTC)
    if expected:
        assert found == expected[0]
    else:
        assert found >= begin + WINDOW * MINUTE
        assert place != "UTC" or meaning(text)(found)


PERIODS = {"hourly": 60, "every_6_hours": 360, "daily": 1440, "weekly": 7 * 1440}


@settings(deadline=None)
@given(
    word=st.sampled_from(sorted(PERIODS)),
    spread=st.integers(0, 40 * 60),
    host=st.text(max_size=20),
    name=st.text("abcdef_-", min_size=1, max_size=10),
)
def test_a_word_begins_within_the_spread_and_always_at_the_same_time(
    word: str, spread: int, host: str, name: str
) -> None:
    options = {"backup_schedule": word, "schedule_spread": f"{spread}m"}
    text = schedule.resolve(options, name, host)["backup"]
    assert schedule.resolve(options, name, host)["backup"] == text
    base = schedule.expressions({"backup_schedule": word})["backup"]
    assert base
    sunday = datetime(2025, 11, 9, tzinfo=UTC)
    before = sunday - MINUTE
    earliest = schedule.next_run(base, before)
    late = int((schedule.next_run(text, earliest - MINUTE) - earliest) / MINUTE)
    assert 0 <= late < max(1, min(spread, PERIODS[word]))
    if word == "weekly":
        assert schedule.next_run(text, before).date() == sunday.date()


@given(spread=st.integers(0, 100), host=st.text(max_size=20))
def test_a_month_begins_on_its_first_day_however_large_the_spread(spread: int, host: str) -> None:
    text = schedule.resolve({"schedule_spread": f"{spread}d"}, "main", host)["drill"]
    assert schedule.next_run(text, datetime(2025, 10, 31, 12, tzinfo=UTC)).date().isoformat() == "2025-11-01"


@pytest.mark.parametrize(
    ("word", "spread", "least"), [("daily", 30, 27), ("every_6_hours", 360, 200), ("weekly", 99, 80)]
)
def test_a_fleet_is_spread_over_the_whole_time(word: str, spread: int, least: int) -> None:
    options = {"backup_schedule": word, "verify_schedule": word, "schedule_spread": f"{spread}m"}
    resolved = [schedule.resolve(options, "main", f"db{number}") for number in range(500)]
    counts: dict[str, int] = {}
    for item in resolved:
        counts[item["backup"]] = counts.get(item["backup"], 0) + 1
    assert least <= len(counts) <= spread
    assert max(counts.values()) <= 5 + 3 * 500 / spread
    assert sum(item["backup"] != item["verify"] for item in resolved) > 400  # actions of a host are apart as well
