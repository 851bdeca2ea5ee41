# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""A backup as the repository holds it: small, because a repository may hold a hundred thousand of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from .model import LEVELS
from .quantities import iso

GLOBALS = "@globals"  # how people read it; a database of that name is stored as %40globals


@dataclass(frozen=True)
class Pin:
    """Why retention must keep a backup, and until when (None: until the pin is taken away)."""

    reason: str
    until: datetime | None = None

    def holds(self, now: datetime) -> bool:
        """Given the time, return whether the pin still holds."""
        return self.until is None or now < self.until


@dataclass(frozen=True)
class Failure:
    """A verification that found the backup to be no good."""

    at: datetime
    level: str
    kind: str  # missing | truncated | altered | unreadable | unrestorable | differs | unexpected
    problem: str


@dataclass(frozen=True)
class Copy:
    """A copy of a backup in a target that was looked at there and found good."""

    target: str
    checked: datetime
    method: str  # sha256 | checksum | md5 ...: how it was compared


@dataclass(frozen=True)
class State:
    """What happened to a backup after it was taken; the only part of it that changes."""

    pin: Pin | None = None
    levels: Mapping[str, datetime] = field(default_factory=dict, hash=False)  # the newest success of each level
    failure: Failure | None = None  # the newest verification, where it failed
    copies: tuple[Copy, ...] = ()  # one for each target at most

    @property
    def targets(self) -> tuple[str, ...]:
        """Return the names of the targets that have a good copy."""
        return tuple(copy.target for copy in self.copies)

    def with_copy(self, copy: Copy) -> State:
        """Given a copy that was found good, return the state after that."""
        return replace(self, copies=(*self.without_copy(copy.target).copies, copy))

    def without_copy(self, target: str) -> State:
        """Given a target that has no good copy any more, return the state after that."""
        return replace(self, copies=tuple(copy for copy in self.copies if copy.target != target))

    @property
    def verified_level(self) -> str | None:
        """Return the highest level that the backup passed since it last failed one."""
        return next((level for level in reversed(LEVELS) if level in self.levels), None)

    @property
    def verified(self) -> datetime | None:
        """Return when the backup last passed its highest level."""
        level = self.verified_level
        return self.levels[level] if level else None

    def passed(self, level: str) -> datetime | None:
        """Given a level, return when the backup last passed it or a higher one."""
        times = [self.levels[known] for known in LEVELS[LEVELS.index(level) :] if known in self.levels]
        return max(times, default=None)

    def after(self, level: str, at: datetime, failure: Failure | None) -> State:
        """Given a verification's level, time and failure (None: passed), return the state after it.

        The levels build on each other, so a success is one of the lower levels too; after a failure none counts.
        """
        if failure:
            return replace(self, levels={}, failure=failure)
        passed = dict.fromkeys(LEVELS[: LEVELS.index(level) + 1], at)
        cured = self.failure if self.failure and LEVELS.index(self.failure.level) > LEVELS.index(level) else None
        return replace(self, levels={**self.levels, **passed}, failure=cured)


UNTOUCHED = State()


@dataclass(frozen=True)
class Backup:
    """One backup directory whose manifest can be believed. `problem` is "" when the files are there at their size."""

    __slots__ = (
        "id", "instance", "kind", "database", "created", "finished", "duration", "size", "database_size", "format",
        "compression", "encryption", "partial", "label", "server_version", "options", "path", "state", "problem",
    )  # fmt: skip

    id: str
    instance: str
    kind: str  # database | globals
    database: str | None  # None for globals
    created: datetime  # UTC; the time in the name, which orders backups
    finished: datetime
    duration: timedelta
    size: int  # bytes on disk
    database_size: int | None  # bytes, pg_database_size when it was taken
    format: str
    compression: str
    encryption: str | None
    partial: bool
    label: str | None
    server_version: str | None
    options: str  # fingerprint of the options it was taken with
    path: str  # of the backup's directory
    state: State
    problem: str

    @property
    def complete(self) -> bool:
        """Return whether the files are all there at their recorded size."""
        return not self.problem

    @property
    def group(self) -> tuple[str, str, str, bool]:
        """Return what retention groups by: instance, kind, database (as people read it) and partial or not.

        Partial backups are a group of their own, so that a dump of one table never pushes a full one out. The kind is
        in it because a database may have the name that stands for the globals.
        """
        return (self.instance, self.kind, self.title, self.partial)

    @property
    def title(self) -> str:
        """Return the database's name as people read it."""
        return GLOBALS if self.kind == "globals" else str(self.database)


@dataclass(frozen=True)
class Foreign:
    """Something in the repository that is not a backup, with the reason. Never counted, never deleted."""

    path: str
    reason: str


def record(backup: Backup) -> dict[str, Any]:
    """Given a backup, return what every front shows of it: the keys of the modules' results and of --json."""
    pin, state = backup.state.pin, backup.state
    return {
        "id": backup.id,
        "instance": backup.instance,
        "kind": backup.kind,
        "database": backup.database,
        "status": "complete" if backup.complete else "damaged",
        "problem": backup.problem,
        "created": iso(backup.created),
        "finished": iso(backup.finished),
        "duration": round(backup.duration.total_seconds(), 3),
        "size": backup.size,
        "database_size": backup.database_size,
        "format": backup.format,
        "compression": backup.compression,
        "encryption": backup.encryption,
        "partial": backup.partial,
        "label": backup.label,
        "server_version": backup.server_version,
        "pin": {"reason": pin.reason, "until": iso(pin.until) if pin.until else None} if pin else None,
        "verified": iso(state.verified) if state.verified else None,
        "verified_level": state.verified_level,
        "levels": {level: iso(at) for level, at in state.levels.items()},
        "failure": None if state.failure is None else failure_record(state.failure),
        "copies": [copy_record(copy) for copy in state.copies],
        "path": backup.path,
    }


def copy_record(copy: Copy) -> dict[str, Any]:
    """Given a copy, return it as plain values."""
    return {"target": copy.target, "checked": iso(copy.checked), "method": copy.method}


def failure_record(failure: Failure) -> dict[str, Any]:
    """Given a failure, return it as plain values."""
    return {"at": iso(failure.at), "level": failure.level, "kind": failure.kind, "problem": failure.problem}
