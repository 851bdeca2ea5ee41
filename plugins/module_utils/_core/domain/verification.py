# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Which backups a verification takes, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from .backups import Backup
from .model import VerifyOptions

_NEVER = datetime.min.replace(tzinfo=timezone.utc)


def due(backups: Sequence[Backup], options: VerifyOptions, now: datetime) -> tuple[Backup, ...]:
    """Given backups, what is asked for and the time, return those to verify: the longest unverified first, of those
    that never were the newest first.
    """
    chosen = list(_latest(backups)) if options.latest else list(backups)
    level, age = options.level, options.max_age
    if age is not None:
        chosen = [item for item in chosen if not _passed_since(item, level, now, age)]
    chosen.sort(key=lambda item: (item.created, item.id), reverse=True)
    chosen.sort(key=lambda item: item.state.passed(level) or _NEVER)  # stable
    return tuple(chosen[: options.sample])


def _passed_since(backup: Backup, level: str, now: datetime, age: timedelta) -> bool:
    passed = backup.state.passed(level)
    return passed is not None and backup.state.failure is None and now - passed <= age


def _latest(backups: Sequence[Backup]) -> list[Backup]:
    newest: dict[tuple[str, str, str, bool], Backup] = {}
    for item in backups:
        known = newest.get(item.group)
        if not item.partial and (known is None or item.created > known.created):
            newest[item.group] = item
    return list(newest.values())
