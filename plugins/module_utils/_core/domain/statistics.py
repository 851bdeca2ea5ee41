# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Figures about backups, as modules return them and --json prints them.

Sizes are bytes, durations and ages seconds, times ISO 8601 in UTC; null stands where there is nothing to tell.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

from .backups import Backup
from .model import LEVELS
from .quantities import iso

_DAY = 86400
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class _Growth:
    """A straight line through size over time, from sums of whole numbers: exact, whatever the order of the backups."""

    def __init__(self) -> None:
        self.count = self.x = self.y = self.xx = self.xy = 0
        self.oldest: Backup | None = None
        self.newest: Backup | None = None

    def add(self, backup: Backup) -> None:
        """Given a complete full backup, take it in."""
        x, y = (backup.created - _EPOCH) // timedelta(seconds=1), backup.size
        self.count += 1
        self.x += x
        self.y += y
        self.xx += x * x
        self.xy += x * y
        self.oldest, self.newest = _older(self.oldest, backup), _newer(self.newest, backup)

    def figures(self) -> dict[str, Any]:
        """Return bytes per day, and the newest size as a multiple of the oldest."""
        span = self.count * self.xx - self.x * self.x  # 0: none, one, or all at the same time
        slope = (self.count * self.xy - self.x * self.y) / span if span else None
        first, last = self.oldest, self.newest
        return {
            "per_day": None if slope is None else round(slope * _DAY),
            "ratio": round(last.size / first.size, 3) if span and first and last and first.size else None,
        }


class _Totals:
    """Running figures of any set of backups; only complete ones count, the damaged are numbered alone."""

    def __init__(self) -> None:
        self.count = self.damaged = self.partial = self.pinned = self.verified = self.drilled = self.size = 0
        self.duration = timedelta()
        self.oldest: Backup | None = None
        self.newest: Backup | None = None
        self.newest_verified: Backup | None = None
        self.newest_drilled: Backup | None = None

    def add(self, backup: Backup, now: datetime) -> None:
        """Given a backup and the time, count it."""
        if not backup.complete:
            self.damaged += 1
            return
        state = backup.state
        self.count += 1
        self.size += backup.size
        self.duration += backup.duration
        self.partial += backup.partial
        self.pinned += state.pin is not None and state.pin.holds(now)
        if state.verified is not None:
            self.verified += 1
            self.newest_verified = _newer(self.newest_verified, backup)
        if state.verified_level == LEVELS[-1]:
            self.drilled += 1
            self.newest_drilled = _newer(self.newest_drilled, backup)
        self.oldest, self.newest = _older(self.oldest, backup), _newer(self.newest, backup)

    def figures(self, now: datetime) -> dict[str, Any]:
        """Given the time, return the figures."""
        return {
            "count": self.count,
            "damaged": self.damaged,
            "partial": self.partial,
            "pinned": self.pinned,
            "verified": self.verified,
            "drilled": self.drilled,
            "total_size": self.size,
            "average_size": round(self.size / self.count) if self.count else None,
            "average_duration": round(self.duration.total_seconds() / self.count, 3) if self.count else None,
            "newest": iso(self.newest.created) if self.newest else None,
            "newest_age": round((now - self.newest.created).total_seconds(), 3) if self.newest else None,
            "newest_size": self.newest.size if self.newest else None,
            "newest_verified": iso(self.newest_verified.created) if self.newest_verified else None,
            "newest_drilled": iso(self.newest_drilled.created) if self.newest_drilled else None,
            "oldest": iso(self.oldest.created) if self.oldest else None,
        }


def _older(known: Backup | None, backup: Backup) -> Backup:
    return backup if known is None or (backup.created, backup.id) < (known.created, known.id) else known


def _newer(known: Backup | None, backup: Backup) -> Backup:
    return backup if known is None or (backup.created, backup.id) > (known.created, known.id) else known


def statistics(backups: Iterable[Backup], now: datetime) -> dict[str, Any]:
    """Given backups in any order and the time, return their figures, altogether and per database.

    One pass; memory grows with the number of databases alone. A backup dated in the future gives a negative age.
    """
    total = _Totals()
    parts: dict[tuple[str, str, str], tuple[_Totals, _Growth]] = defaultdict(lambda: (_Totals(), _Growth()))
    for backup in backups:
        totals, growth = parts[backup.group[:3]]
        total.add(backup, now)
        totals.add(backup, now)
        if backup.complete and not backup.partial:
            growth.add(backup)
    return {
        **total.figures(now),
        "databases": [
            {
                "instance": instance,
                "kind": kind,
                "database": None if kind == "globals" else title,
                **totals.figures(now),
                "growth": growth.figures(),
            }
            for (instance, kind, title), (totals, growth) in sorted(parts.items(), key=lambda item: item[0])
        ],
    }
