# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""When the actions of a job begin: words such as `daily`, the five fields of a crontab, and what systemd makes of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from hashlib import sha256
from typing import Any

from .errors import ConfigurationError
from .model import Schedule, build
from .schema import did_you_mean

ACTIONS = ("backup", "prune", "verify", "drill", "sync")
NEVER, AFTER_BACKUP = "never", "after_backup"
_IN_A_RUN = ("prune", "sync")  # what a run of the job does at its end, unless it has a schedule of its own


@dataclass(frozen=True)
class Preset:
    """A word for a schedule: when it begins, and the minutes over which its beginnings may be spread."""

    expression: str  # with {minute} and {hour}
    begin: int  # minutes since midnight
    window: int  # minutes; a preset stays in its hour, its six hours or its day


PRESETS = {
    "hourly": Preset("{minute} * * * *", 0, 60),
    "every_6_hours": Preset("{minute} {hour}-23/6 * * *", 0, 6 * 60),
    "daily": Preset("{minute} {hour} * * *", 2 * 60, 24 * 60),
    "weekly": Preset("{minute} {hour} * * 0", 3 * 60, 21 * 60),
    "monthly": Preset("{minute} {hour} 1 * *", 4 * 60, 20 * 60),
}

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # days of each month
_MINUTE = timedelta(minutes=1)
_SEARCH = 366 * 41  # days: from a 29 February to the next on the same weekday, over a century without one


@dataclass(frozen=True)
class _Field:
    name: str
    low: int
    high: int
    names: Mapping[str, int]


_FIELDS = (
    _Field("minute", 0, 59, {}),
    _Field("hour", 0, 23, {}),
    _Field("day of the month", 1, 31, {}),
    _Field("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    _Field("day of the week", 0, 7, {name: number for number, name in enumerate(_DAYS)}),
)


@dataclass(frozen=True)
class Cron:
    """Five fields, read: the values of each, and which of them begin with `*`, as that changes what cron does."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0 is Sunday
    any_day: bool
    any_weekday: bool
    follows_clock: bool

    @property
    def either_day(self) -> bool:
        """Return whether one of the day fields is enough: cron's rule where both say something."""
        return not self.any_day and not self.any_weekday

    def on(self, day: date) -> bool:
        """Given a day, return whether it is one of those."""
        if day.month not in self.months:
            return False
        found = (day.day in self.days, day.isoweekday() % 7 in self.weekdays)
        return any(found) if self.either_day else all(found)


# --- reading ---


@lru_cache(maxsize=256)
def parse(expression: str) -> Cron:
    """Given five fields as in a crontab, return them; raise ConfigurationError with what is wrong."""
    texts = expression.split()
    if expression != " ".join(texts):
        raise ConfigurationError("there must be one space between the fields, and nothing around them")
    if len(texts) != len(_FIELDS):
        number = f"{len(texts)} field{'' if len(texts) == 1 else 's'}"
        raise ConfigurationError(f"{number} instead of five: minute, hour, day of the month, month, day of the week")
    minutes, hours, days, months, weekdays = (_values(text, field) for text, field in zip(texts, _FIELDS))
    cron = Cron(
        minutes,
        hours,
        days,
        months,
        frozenset(day % 7 for day in weekdays),
        texts[2].startswith("*"),
        texts[4].startswith("*"),
        texts[0].startswith("*") or texts[1].startswith("*"),
    )
    if not cron.either_day and not any(min(days) <= _LONGEST[month - 1] for month in months):
        raise ConfigurationError(f"there is no day {min(days)} in {_listed(months)}, so it would never run")
    return cron


def _listed(months: frozenset[int]) -> str:
    return ", ".join(_MONTHS[month - 1].capitalize() for month in sorted(months))


def _values(text: str, field: _Field) -> frozenset[int]:
    return frozenset(value for item in text.split(",") for value in _item(item, field))


def _item(text: str, field: _Field) -> range:
    """Given `*`, a value or a range, with or without a step, return its values; raise ConfigurationError."""
    match = re.fullmatch(r"(\*|[A-Za-z0-9]+)(?:-([A-Za-z0-9]+))?(?:/([0-9]{1,3}))?", text)
    if not match or (match[1] == "*" and match[2]):
        raise ConfigurationError(f"{text!r} is no {field.name}: write *, a value, a range such as 1-5, or */5")
    begin, end, step = match.groups()
    if begin == "*":
        low, high = field.low, field.high
    else:
        low = _value(begin, field)
        high = _value(end, field) if end else low
        if step and not end:
            raise ConfigurationError(f"{text!r} has a step without a range: write {begin}-{field.high}/{step}")
    if high < low:
        raise ConfigurationError(f"{text!r} ends before it begins: write it as two ranges with a comma between")
    if step and not 1 <= int(step) <= field.high:
        raise ConfigurationError(f"{text!r} has a step that is no {field.name}: it must be 1 to {field.high}")
    return range(low, high + 1, int(step or 1))


def _value(text: str, field: _Field) -> int:
    number = field.names.get(text.lower(), int(text) if re.fullmatch("[0-9]{1,2}", text) else -1)
    if not field.low <= number <= field.high:
        names = f", or {', '.join(field.names)}" if field.names else ""
        raise ConfigurationError(f"{text!r} is no {field.name}: it must be {field.low} to {field.high}{names}")
    return number


def problems(raw: Mapping[str, Any]) -> list[str]:
    """Given what a user wrote, of the right types, return a sentence for each schedule that cannot be meant."""
    found = []
    for action in ACTIONS:
        option = f"{action}_schedule"
        text = raw.get(option)
        wrong = "" if text is None else _wrong(text, action)
        if wrong:
            found.append(f"{option} is {text!r}: {wrong}")
    return found


def _wrong(text: str, action: str) -> str:
    """Given a schedule and its action, return what is wrong with it, or ""."""
    if text == AFTER_BACKUP:
        only = " and ".join(f"{other}_schedule" for other in _IN_A_RUN)
        return "" if action in _IN_A_RUN else f"only {only} can be that: write for example daily, or {NEVER}"
    if text in PRESETS or text == NEVER:
        return ""
    if re.fullmatch("[A-Za-z0-9_@-]*", text):  # a single word
        words = (*PRESETS, NEVER, *((AFTER_BACKUP,) if action in _IN_A_RUN else ()))
        near = did_you_mean(text, words)
        return f"not a schedule{near}{' Write' if near else ': write'} {', '.join(words)}, or five fields of a crontab"
    try:
        parse(text)
    except ConfigurationError as error:
        return str(error)
    return ""


def check(raw: Mapping[str, Any]) -> None:
    """Given what a user wrote, of the right types, raise ConfigurationError with all that is wrong with its schedules."""
    found = problems(raw)
    if found:
        raise ConfigurationError("; ".join(found))


# --- from words to fields ---


def resolve(job: Mapping[str, Any], name: str, host: str) -> dict[str, str]:
    """Given a job, its name and its host, return the schedule of each action that it has: five fields, `never` or
    `after_backup`. Without targets it has no `sync`.

    Words begin later by an amount that is always the same for this host, job and action. Raise ConfigurationError.
    """
    check(job)
    spread = int(build(Schedule, job).schedule_spread / _MINUTE)
    return {
        action: _fields(text, _offset(text, spread, f"{host}\0{name}\0{action}")) for action, text in _said(job).items()
    }


def expressions(job: Mapping[str, Any]) -> dict[str, str | None]:
    """Given a job, return the five fields of each action that it has, None for one without a schedule of its own; raise
    ConfigurationError. Words begin at their earliest.
    """
    check(job)
    return {action: None if text in (NEVER, AFTER_BACKUP) else _fields(text, 0) for action, text in _said(job).items()}


def _said(job: Mapping[str, Any]) -> dict[str, str]:
    schedule = build(Schedule, job)
    actions = (action for action in ACTIONS if action != "sync" or job.get("targets"))
    return {action: getattr(schedule, f"{action}_schedule") for action in actions}


def _offset(text: str, spread: int, key: str) -> int:
    """Given a schedule, a spread in minutes and what the offset depends on, return it: fewer minutes than the spread."""
    window = min(spread, PRESETS[text].window) if text in PRESETS else 0
    return int.from_bytes(sha256(key.encode()).digest()[:8], "big") % window if window else 0


def _fields(text: str, offset: int) -> str:
    if text not in PRESETS:
        return text
    preset = PRESETS[text]
    hour, minute = divmod((preset.begin + offset) % (24 * 60), 60)
    return preset.expression.format(minute=minute, hour=hour).replace(" 0-23/6 ", " */6 ")


# --- when ---


def next_run(expression: str, after: datetime) -> datetime:
    """Given five fields and an aware time in the host's zone, return when they are next due after it, in that zone;
    raise ConfigurationError.

    As Debian's cron does it: what a change of the clock skips runs right after it, and what would come twice runs once.
    What has a minute or an hour that begins with `*` follows the clock instead.
    """
    cron, zone = parse(expression), after.tzinfo
    if zone is None:
        raise ValueError("a time without a zone")  # a bug of the caller's
    first = after.date() - timedelta(days=1)
    for number in range(_SEARCH):
        # Two days: where the clock is set back over midnight, they overlap.
        pair = (first + timedelta(days=number + more) for more in (0, 1))
        due = [moment for day in pair if cron.on(day) for moment in _moments(cron, day, zone) if moment > _utc(after)]
        if due:
            return min(due).astimezone(zone)
    raise ConfigurationError(f"{expression!r} is never due")  # no calendar that we know comes here


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(timezone.utc)


def _moments(cron: Cron, day: date, zone: tzinfo) -> list[datetime]:
    """Given five fields and a day on which they are due, return when, in UTC."""
    found = []
    for hour in cron.hours:
        for minute in cron.minutes:
            local = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
            if cron.follows_clock:
                found += [_utc(item) for item in (local, local.replace(fold=1)) if _exists(item)]
            else:
                while not _exists(local):
                    local += _MINUTE
                found.append(_utc(local))
    return found


def _exists(local: datetime) -> bool:
    """Given a local time, return whether the clock shows it."""
    back = _utc(local).astimezone(local.tzinfo)
    return back.replace(tzinfo=None) == local.replace(tzinfo=None)


# --- systemd ---


def on_calendar(expression: str) -> list[str]:
    """Given five fields, return what systemd's OnCalendar says for them, several where one of two days is enough;
    raise ConfigurationError.
    """
    cron = parse(expression)
    months = _systemd(cron.months, 1, 12)
    days, weekdays = _systemd(cron.days, 1, 31), _weekdays(cron.weekdays)
    clock = f"{_systemd(cron.hours, 0, 23)}:{_systemd(cron.minutes, 0, 59)}:00"
    both = [("", days), (weekdays, "*")] if cron.either_day else [(weekdays, days)]
    return [f"{weekday}*-{months}-{day} {clock}" for weekday, day in both]


def _systemd(values: frozenset[int], low: int, high: int) -> str:
    ordered = sorted(values)
    if len(ordered) == high - low + 1:
        return "*"
    steps = {after - before for before, after in zip(ordered, ordered[1:])}
    if len(ordered) > 2 and len(steps) == 1:
        (step,) = steps
        return f"{ordered[0]:02}..{ordered[-1]:02}" + (f"/{step}" if step > 1 else "")
    return ",".join(f"{value:02}" for value in ordered)


def _weekdays(values: frozenset[int]) -> str:
    """Given days of the week, return them as OnCalendar begins with them, "" for all."""
    return "" if len(values) == len(_DAYS) else ",".join(_DAYS[day].capitalize() for day in sorted(values)) + " "
