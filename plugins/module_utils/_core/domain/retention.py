# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Which backups stay and which may go, each with the rules that say so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo
from typing import Callable

from .backups import Backup, Pin
from .errors import ConfigurationError
from .model import Policy
from .quantities import human_duration, iso, time_zone


@dataclass(frozen=True)
class Decision:
    """What happens to one backup, with every rule that keeps it, or with the rules that drop it."""

    backup: Backup
    keep: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A decision on every backup: groups in order, the newest first in each."""

    decisions: tuple[Decision, ...]

    @property
    def deletions(self) -> tuple[Backup, ...]:
        """Return what goes, oldest first."""
        return tuple(sorted((item.backup for item in self.decisions if not item.keep), key=_by_age))

    @property
    def kept(self) -> tuple[Backup, ...]:
        """Return what stays, in the plan's order."""
        return tuple(item.backup for item in self.decisions if item.keep)


def _by_age(backup: Backup) -> tuple[datetime, str]:
    return backup.created, backup.id


def check_policy(policy: Policy) -> None:
    """Given a policy, raise ConfigurationError when nothing may be deleted by it."""
    if not policy.has_rules:
        raise ConfigurationError(
            "the retention policy has no rule, so it would keep everything or delete everything: set keep_last,"
            " keep_days or a tier (keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly)"
        )
    if policy.keep_minimum < 1:
        raise ConfigurationError(f"keep_minimum is {policy.keep_minimum}: must be 1 or more")
    time_zone(policy.timezone)


def plan(backups: Iterable[Backup], policy: Policy, now: datetime) -> Plan:
    """Given the backups of any databases, a policy and the time, decide on each; raise as `check_policy`."""
    check_policy(policy)
    groups: dict[tuple[str, str, str, bool], list[Backup]] = defaultdict(list)
    for backup in backups:
        groups[backup.group].append(backup)
    decisions: list[Decision] = []
    for group in sorted(groups):
        history = sorted(groups[group], key=_by_age, reverse=True)
        decisions.extend(_require_copies(item, policy.require_copies) for item in _decide(history, policy, now))
    return Plan(tuple(_limit_deletions(decisions, policy.max_deletions)))


# --- rules: one group at a time, newest first ---


def _decide(history: list[Backup], policy: Policy, now: datetime) -> Iterator[Decision]:
    tiers = _tiers(policy)
    zone = time_zone(policy.timezone)
    rank = 0
    for backup in history:
        keeping = list(_protections(backup, now))
        if not backup.complete or backup.created > now:
            yield Decision(backup, True, tuple(keeping))
            continue
        rank += 1
        if rank <= policy.keep_minimum:
            keeping.append(f"keep_minimum {policy.keep_minimum}")
        within, exceeded = _limits(rank, now - backup.created, policy)
        if policy.limit_mode == "both" or not exceeded:
            keeping += within
        if tiers:
            # Each tier has to see each backup, also one that another rule keeps: it may be the newest of its period.
            local = _local(backup.created, zone)
            text = local.isoformat(" ", "hours")
            keeping += filter(None, [tier.reason(local, text) for tier in tiers])
            exceeded.append("no tier keeps it")
        yield Decision(backup, bool(keeping), tuple(keeping or exceeded))


def _protections(backup: Backup, now: datetime) -> Iterator[str]:
    """Given a backup, yield why no rule may drop it."""
    if not backup.complete:
        yield "damaged: never deleted by retention"
    if backup.created > now:
        yield "dated in the future"
    if backup.state.pin and backup.state.pin.holds(now):
        yield _pinned(backup.state.pin)


def _pinned(pin: Pin) -> str:
    if pin.until is None:
        return f"pinned: {pin.reason}"
    until = iso(pin.until)
    return f"pinned until {until[:10] if until.endswith('T00:00:00Z') else until}: {pin.reason}"


def _limits(rank: int, age: timedelta, policy: Policy) -> tuple[list[str], list[str]]:
    """Given the rank and age of a backup, return the limits that it is within, and those that it exceeds."""
    within: list[str] = []
    exceeded: list[str] = []
    if policy.keep_last:
        evidence = f"{_ordinal(rank)}newest"
        if rank <= policy.keep_last:
            within.append(f"keep_last {policy.keep_last}: {evidence}")
        else:
            exceeded.append(f"keep_last {policy.keep_last} exceeded: {evidence}")
    if policy.keep_days:
        # Days alone would not show on which side of the limit it is.
        shown = human_duration(age) if age.days in (0, 1, policy.keep_days) else f"{age.days} days"
        if (age.days, age.seconds, age.microseconds) <= (policy.keep_days, 0, 0):
            within.append(f"keep_days {policy.keep_days}: {shown} old")
        else:
            exceeded.append(f"keep_days {policy.keep_days} exceeded: {shown} old")
    return within, exceeded


def _ordinal(rank: int) -> str:
    """Given 1, 2, 3, ... return "", "2nd ", "3rd ", ... to stand before "newest"."""
    if rank == 1:
        return ""
    ending = "th" if rank % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return f"{rank}{ending} "


def _local(moment: datetime, zone: tzinfo) -> datetime:
    try:
        return moment.astimezone(zone)
    except OverflowError:  # the first day of year 1, by a manifest that nobody would write in good faith
        return moment


# --- tiers ---


def _week(local: datetime) -> str:
    year, week = local.isocalendar()[:2]
    return f"{year:04}-W{week:02}"


# What calls a period by its name, given a local time and its text, "2025-11-05 14+01:00". The hour keeps its offset,
# because the hour that the end of summer time repeats is two hours.
_PERIODS: dict[str, Callable[[datetime, str], str]] = {
    "keep_hourly": lambda local, text: f"{text[:13]}:00{text[13:]}",
    "keep_daily": lambda local, text: text[:10],
    "keep_weekly": lambda local, text: _week(local),
    "keep_monthly": lambda local, text: text[:7],
    "keep_yearly": lambda local, text: text[:4],
}


class _Tier:
    """One tier's view of one group: it is shown the backups from the newest on."""

    def __init__(self, rule: str, count: int) -> None:
        self._rule, self._count, self._period = rule, count, _PERIODS[rule]
        # A set, not the last period alone: where a clock went back over midnight a day comes twice.
        self._seen: set[str] = set()

    def reason(self, local: datetime, text: str) -> str:
        """Given the next backup's time in the policy's zone, return why the tier keeps it; "" when it does not."""
        if len(self._seen) == self._count:
            return ""
        period = self._period(local, text)
        if period in self._seen:
            return ""
        self._seen.add(period)
        return f"{self._rule} {self._count}: newest of {period}"


def _tiers(policy: Policy) -> list[_Tier]:
    return [_Tier(rule, getattr(policy, rule)) for rule in _PERIODS if getattr(policy, rule)]


# --- brakes: what the rules drop, and stays nevertheless ---


def _require_copies(decision: Decision, required: int) -> Decision:
    copies = len(set(decision.backup.state.targets))
    if decision.keep or copies >= required:
        return decision
    held = f"require_copies {required}: {copies or 'no'} verified cop{'y' if copies == 1 else 'ies'}"
    return replace(decision, keep=True, reasons=(held, *decision.reasons))


def _limit_deletions(decisions: list[Decision], limit: int | None) -> list[Decision]:
    doomed = sorted((item.backup for item in decisions if not item.keep), key=_by_age)
    if limit is None or len(doomed) <= limit:
        return decisions
    spared = {backup.id for backup in doomed[limit:]}
    held = f"max_deletions {limit}: {len(doomed)} could go, the oldest {limit} do, the next run goes on"
    return [
        replace(item, keep=True, reasons=(held, *item.reasons)) if not item.keep and item.backup.id in spared else item
        for item in decisions
    ]
