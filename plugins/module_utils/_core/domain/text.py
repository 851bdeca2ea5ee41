# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Backups, plans and figures as lines for people. No line contains a character that a terminal would act on."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from .backups import GLOBALS, Backup
from .globals_plan import Change
from .model import RULES, Policy
from .quantities import human_duration, human_size, iso
from .retention import Decision, Plan

_GAP = "  "
_TIERS = tuple(rule for rule in RULES if rule not in ("keep_last", "keep_days"))


def printable(text: str) -> str:
    """Given any text, return it on one line, with everything that does not print as itself escaped as in Python.

    Control characters, newlines, changes of the writing direction and undecodable bytes are such.
    """
    if text.isprintable():
        return text
    return "".join(item if item.isprintable() else item.encode("unicode_escape").decode("ascii") for item in text)


def width(text: str) -> int:
    """Given printable text, return the number of columns that it takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(item) else 1 + (unicodedata.east_asian_width(item) in "WF") for item in text)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Given a header, rows and the columns to align right, return aligned lines. The cells may contain anything."""
    cells = [[printable(cell) for cell in row] for row in (header, *rows)]
    widths = [max(width(row[column]) for row in cells) for column in range(len(header))]
    return [_line(row, widths, right) for row in cells]


def _line(row: Sequence[str], widths: Sequence[int], right: Collection[int]) -> str:
    parts = []
    for column, (cell, wide) in enumerate(zip(row, widths)):
        space = " " * (wide - width(cell))
        parts.append(space + cell if column in right else cell + space)
    return _GAP.join(parts).rstrip()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# --- lists ---


def backup_lines(backups: Sequence[Backup], now: datetime) -> list[str]:
    """Given backups in the order to show and the time, return a table of them and a line that sums up."""
    if not backups:
        return ["no backups"]
    rows = [
        (
            *_name(backup),
            age_text(now - backup.created),
            human_size(backup.size),
            human_duration(backup.duration),
            backup.format,
            f"{backup.compression}, {backup.encryption}" if backup.encryption else backup.compression,
            ", ".join(_remarks(backup, now)),
        )
        for backup in backups
    ]
    header = ("DATABASE", "BACKUP", "AGE", "SIZE", "TOOK", "FORMAT", "COMPRESSION", "REMARKS")
    lines = table(header, rows, right=(2, 3, 4))
    sizes = [backup.size for backup in backups if backup.complete]
    return [*lines, "", _total(len(sizes), sum(sizes), len(backups) - len(sizes))]


def _total(count: int, size: int, damaged: int) -> str:
    total = f"{_count(count, 'backup')}, {human_size(size)}"
    return f"{total}, {damaged} damaged" if damaged else total


def _name(backup: Backup) -> tuple[str, str]:
    """Given a backup, return the database as people read it and the backup's name, which has its time."""
    return f"{backup.instance}/{backup.title}", backup.id.rpartition("/")[2]


def age_text(age: timedelta) -> str:
    """Given an age, return it for people; what is from the future has none."""
    return "in the future" if age < timedelta() else human_duration(age)


def _remarks(backup: Backup, now: datetime) -> Iterator[str]:
    state = backup.state
    if not backup.complete:
        yield f"DAMAGED: {backup.problem}"
    if backup.partial:
        yield "partial"
    if backup.label:
        yield f"label {backup.label}"
    if state.pin and state.pin.holds(now):
        yield f"pinned until {iso(state.pin.until)}" if state.pin.until else "pinned"
    if state.verified:
        yield f"verified ({state.verified_level}) {iso(state.verified.replace(microsecond=0))}"
    if state.copies:
        yield f"copies {' '.join(state.targets)}"


# --- figures ---


def statistics_lines(stats: Mapping[str, Any], policy: str | None) -> list[str]:
    """Given what `statistics` returned and what `policy_text` returned (None: not known), return lines about both."""
    lines = [_total(stats["count"], stats["total_size"], stats["damaged"])]
    if stats["count"]:
        took = human_duration(timedelta(seconds=stats["average_duration"]))
        lines.append(f"average: {human_size(stats['average_size'])} in {took}")
        lines.append(f"newest: {stats['newest']}, oldest: {stats['oldest']}")
    if policy is not None:
        lines.append(f"retention: {policy}")
    if stats["databases"]:
        header = ("DATABASE", "COUNT", "SIZE", "AVERAGE", "NEWEST", "AGE", "NEWEST SIZE", "PER DAY", "REMARKS")
        lines += ["", *table(header, map(_statistics_row, stats["databases"]), right=(1, 2, 3, 5, 6, 7))]
    return [printable(line) for line in lines]


def _statistics_row(item: Mapping[str, Any]) -> tuple[str, ...]:
    per_day, age = item["growth"]["per_day"], item["newest_age"]
    remarks = [f"{item[key]} {key}" for key in ("damaged", "partial", "pinned", "verified", "drilled") if item[key]]
    if item["newest_drilled"]:
        remarks.append(f"newest drilled {item['newest_drilled']}")
    return (
        f"{item['instance']}/{GLOBALS if item['database'] is None else item['database']}",
        str(item["count"]),
        human_size(item["total_size"]),
        _size(item["average_size"]),
        item["newest"] or "-",
        "-" if age is None else age_text(timedelta(seconds=age)),
        _size(item["newest_size"]),
        "-" if per_day is None else ("+" if per_day > 0 else "") + human_size(per_day),
        ", ".join(remarks),
    )


def _size(size: int | None) -> str:
    return "-" if size is None else human_size(size)


# --- retention ---


def policy_text(policy: Policy) -> str:
    """Given a policy, return its rules in one line, in the order of the options."""
    parts = [f"{rule} {getattr(policy, rule)}" for rule in RULES if getattr(policy, rule)]
    if policy.keep_last and policy.keep_days:
        parts[1] += f" ({policy.limit_mode})"
    parts.append(f"keep_minimum {policy.keep_minimum}")
    if policy.timezone != "UTC" and any(getattr(policy, tier) for tier in _TIERS):
        parts.append(f"timezone {policy.timezone}")
    if policy.max_deletions is not None:
        parts.append(f"max_deletions {policy.max_deletions}")
    if policy.require_copies:
        parts.append(f"require_copies {policy.require_copies}")
    return printable(", ".join(parts))


def plan_lines(plan: Plan) -> list[str]:
    """Given a plan, return a table of every backup with its reasons, and a line that sums up."""
    if not plan.decisions:
        return ["no backups"]
    lines = table(("ACTION", "DATABASE", "BACKUP", "SIZE", "REASONS"), map(_plan_row, plan.decisions), right=(3,))
    doomed = plan.deletions
    kept = f"{_count(len(plan.decisions) - len(doomed), 'backup')} kept"
    freed = f"{len(doomed)} to delete, {human_size(sum(backup.size for backup in doomed))} freed"
    return [*lines, "", f"{kept}, {freed}" if doomed else f"{kept}, nothing to delete"]


def _plan_row(decision: Decision) -> tuple[str, ...]:
    backup = decision.backup
    return (
        "keep" if decision.keep else "DELETE",
        *_name(backup),
        human_size(backup.size),
        ", ".join(decision.reasons),
    )


# --- globals ---


def change_lines(changes: Sequence[Change]) -> list[str]:
    """Given what restoring the globals changes, leaves or skips, return a table of it."""
    rows = [(change.action, change.kind, change.name, "; ".join(change.details)) for change in changes]
    return table(("ACTION", "KIND", "NAME", "DETAILS"), rows) if rows else []
