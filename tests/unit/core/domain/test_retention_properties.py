# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What holds for every history and every policy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.backups import Backup
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import Policy
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.retention import Plan, plan
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.unit.core.domain.histories import histories, policies

History = tuple[list[Backup], datetime]


def good(backups: list[Backup], now: datetime) -> list[Backup]:
    """The backups that count, newest first."""
    return sorted(
        (backup for backup in backups if not backup.problem and backup.created <= now),
        key=lambda backup: backup.created,
        reverse=True,
    )


def in_groups(backups: list[Backup]) -> list[list[Backup]]:
    groups = defaultdict(list)
    for backup in backups:
        groups[backup.instance, backup.kind, backup.database, backup.partial].append(backup)
    return list(groups.values())


def ids(backups: tuple[Backup, ...] | list[Backup]) -> set[str]:
    return {backup.id for backup in backups}


@settings(deadline=None)
@given(histories(), policies(brakes=True))
def test_the_newest_complete_backup_of_each_database_survives(history: History, policy: Policy) -> None:
    backups, now = history
    kept = ids(plan(backups, policy, now).kept)
    for group in in_groups(backups):
        complete = [backup for backup in group if not backup.problem]
        newest = [max(some, key=lambda backup: backup.created).id for some in (complete, good(group, now)) if some]
        assert kept.issuperset(newest)


@settings(deadline=None)
@given(histories(), policies(brakes=True))
def test_at_least_the_minimum_of_good_backups_remains(history: History, policy: Policy) -> None:
    backups, now = history
    kept = ids(plan(backups, policy, now).kept)
    for group in in_groups(backups):
        countable = good(group, now)
        assert kept.issuperset(ids(countable[: policy.keep_minimum]))


@settings(deadline=None)
@given(histories(), policies(brakes=True))
def test_damaged_future_and_pinned_backups_are_never_deleted(history: History, policy: Policy) -> None:
    backups, now = history
    for backup in plan(backups, policy, now).deletions:
        assert backup.complete
        assert backup.created <= now
        assert backup.state.pin is None or not backup.state.pin.holds(now)


@settings(deadline=None)
@given(histories(), policies(brakes=True))
def test_the_brakes_hold(history: History, policy: Policy) -> None:
    backups, now = history
    free = plan(backups, replace(policy, max_deletions=None, require_copies=0), now)
    held = plan(backups, policy, now)
    event("brakes held something" if len(held.deletions) < len(free.deletions) else "brakes held nothing")
    assert ids(held.deletions) <= ids(free.deletions)
    assert policy.max_deletions is None or len(held.deletions) <= policy.max_deletions
    assert all(len(set(backup.state.copies)) >= policy.require_copies for backup in held.deletions)


@settings(deadline=None)
@given(histories(), policies(brakes=True), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(history: History, policy: Policy, random: object) -> None:
    backups, now = history
    shuffled = list(backups)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert plan(shuffled, policy, now) == plan(backups, policy, now)


@settings(deadline=None)
@given(histories(), policies(brakes=True))
def test_a_plan_decides_on_every_backup_once_with_a_reason(history: History, policy: Policy) -> None:
    backups, now = history
    planned = plan(backups, policy, now)
    assert sorted(item.backup.id for item in planned.decisions) == sorted(backup.id for backup in backups)
    assert all(item.reasons and all(item.reasons) for item in planned.decisions)
    assert len(planned.kept) + len(planned.deletions) == len(backups)
    assert list(planned.deletions) == sorted(planned.deletions, key=lambda backup: backup.created)


@settings(deadline=None)
@given(histories(), policies(), st.integers(0, 2))
def test_planning_again_after_the_deletions_deletes_nothing_more(history: History, policy: Policy, copies: int) -> None:
    backups, now = history
    policy = replace(policy, require_copies=copies)
    planned = plan(backups, policy, now)
    event("deleted something" if planned.deletions else "deleted nothing")
    assert plan(planned.kept, policy, now).deletions == ()


@settings(deadline=None)
@given(histories(), policies(), st.integers(1, 4))
def test_runs_that_max_deletions_brakes_end_where_one_without_it_does(
    history: History, policy: Policy, limit: int
) -> None:
    backups, now = history
    remaining: tuple[Backup, ...] = tuple(backups)
    braked = replace(policy, max_deletions=limit)
    for _unused in range(len(backups) // limit + 1):
        remaining = plan(remaining, braked, now).kept
    assert ids(remaining) == ids(plan(backups, policy, now).kept)


@settings(deadline=None)
@given(histories(), policies())
def test_groups_do_not_know_of_each_other(history: History, policy: Policy) -> None:
    backups, now = history
    apart = [decision for group in in_groups(backups) for decision in plan(group, policy, now).decisions]
    together = plan(backups, policy, now).decisions
    assert sorted(apart, key=lambda item: item.backup.id) == sorted(together, key=lambda item: item.backup.id)


@settings(deadline=None)
@given(histories(), policies())
def test_partial_backups_never_affect_full_ones(history: History, policy: Policy) -> None:
    backups, now = history
    full = [backup for backup in backups if not backup.partial]
    decided = [item for item in plan(backups, policy, now).decisions if not item.backup.partial]
    assert Plan(tuple(decided)) == plan(full, policy, now)


@settings(deadline=None)
@given(histories(), policies())
def test_what_retention_cannot_count_changes_no_other_decision(history: History, policy: Policy) -> None:
    backups, now = history
    countable = [backup for backup in backups if backup.complete and backup.created <= now]
    everything = {item.backup.id: item for item in plan(backups, policy, now).decisions}
    for item in plan(countable, policy, now).decisions:
        assert everything[item.backup.id] == item


@settings(deadline=None)
@given(histories(), policies())
def test_a_plan_is_what_the_rules_say_word_by_word(history: History, policy: Policy) -> None:
    """Against the rules written down a second time, without regard to speed."""
    backups, now = history
    expected = {
        backup.id for group in in_groups(backups) for backup in group if _kept(backup, good(group, now), policy, now)
    }
    assert ids(plan(backups, policy, now).kept) == expected


def _kept(backup: Backup, history: list[Backup], policy: Policy, now: datetime) -> bool:
    if backup not in history or (backup.state.pin and backup.state.pin.holds(now)):
        return True
    newer = sum(other.created > backup.created for other in history)
    if newer < policy.keep_minimum:
        return True
    limits = []
    if policy.keep_last:
        limits.append(newer >= policy.keep_last)
    if policy.keep_days:
        limits.append(now - backup.created > timedelta(days=policy.keep_days))
    exceeded = any(limits) if policy.limit_mode == "either" else all(limits)
    return (bool(limits) and not exceeded) or _kept_by_tier(backup, history, policy)


def _kept_by_tier(backup: Backup, history: list[Backup], policy: Policy) -> bool:
    zone = ZoneInfo(policy.timezone)
    periods: dict[str, Callable[[datetime], object]] = {
        "keep_hourly": lambda local: (local.date(), local.hour, local.utcoffset()),
        "keep_daily": lambda local: local.date(),
        "keep_weekly": lambda local: local.date() - timedelta(days=local.weekday()),
        "keep_monthly": lambda local: (local.year, local.month),
        "keep_yearly": lambda local: local.year,
    }
    for rule, period in periods.items():
        newest = {}
        for other in reversed(history):
            newest[period(other.created.astimezone(zone))] = other
        last = sorted(newest.values(), key=lambda other: other.created, reverse=True)[: getattr(policy, rule) or 0]
        if backup in last:
            return True
    return False
