# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""A backup as the repository holds it: small, because a repository may hold a hundred thousand of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

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
class State:
    """What happened to a backup after it was taken; the only part of it that changes."""

    pin: Pin | None = None
    verified: datetime | None = None  # the newest successful verification
    verified_level: str | None = None  # checksum | archive | restore
    copies: tuple[str, ...] = ()  # targets whose copy was checked and found good


UNTOUCHED = State()


@dataclass(frozen=True)
class Backup:
    """One backup directory whose manifest can be believed. `problem` is "" when the files are there at their size."""

    __slots__ = (
        "id", "instance", "kind", "database", "created", "finished", "duration", "size", "database_size", "format",
        "compression", "partial", "label", "server_version", "options", "path", "state", "problem",
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
        "partial": backup.partial,
        "label": backup.label,
        "server_version": backup.server_version,
        "pin": {"reason": pin.reason, "until": iso(pin.until) if pin.until else None} if pin else None,
        "verified": iso(state.verified) if state.verified else None,
        "verified_level": state.verified_level,
        "copies": list(state.copies),
        "path": backup.path,
    }
