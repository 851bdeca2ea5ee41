# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""How a host's jobs stand: what they last achieved for each database, and when they go on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .backups import Backup
from .errors import ConfigurationError
from .quantities import human_size, iso, parse_time
from .schedule import ACTIONS
from .text import age_text, printable, table

_SHOWN = ("command", "started", "finished", "exit_code", "message")  # of a record of the history


@dataclass(frozen=True)
class DatabaseStatus:
    """How it stands with the backups of one database; the newest is the newest that is complete."""

    database: str  # as people read it
    newest: Backup | None
    count: int  # complete backups
    damaged: int
    verified: datetime | None  # when any of them last passed a verification, and of which level
    verified_level: str | None
    drilled: datetime | None  # when any of them, also one that is gone, was last restored in a drill and found equal
    copied: Mapping[str, Backup | None] = field(default_factory=dict)  # target of the job -> newest backup with a copy

    def to_json(self, now: datetime) -> dict[str, Any]:
        """Given the time, return it as plain values."""
        newest = self.newest
        return {
            "database": self.database,
            "newest": newest.id if newest else None,
            "created": iso(newest.created) if newest else None,
            "age": round((now - newest.created).total_seconds(), 3) if newest else None,
            "size": newest.size if newest else None,
            "verified": iso(self.verified) if self.verified else None,
            "verified_level": self.verified_level,
            "drilled": iso(self.drilled) if self.drilled else None,
            "copies": [_copied_record(target, backup, now) for target, backup in self.copied.items()],
            "count": self.count,
            "damaged": self.damaged,
        }


def _copied_record(target: str, backup: Backup | None, now: datetime) -> dict[str, Any]:
    age = round((now - backup.created).total_seconds(), 3) if backup else None
    return {"target": target, "newest": backup.id if backup else None, "age": age}


@dataclass(frozen=True)
class Due:
    """When an action of a job is next due."""

    action: str
    schedule: str  # five fields, or `never` or `after_backup`
    next: datetime | None


@dataclass(frozen=True)
class JobStatus:
    """How a job stands. With a message its backups could not be looked at, and there is nothing of what comes from it."""

    name: str
    instance: str | None = None
    repository: str | None = None
    databases: tuple[DatabaseStatus, ...] = ()
    schedules: tuple[Due, ...] = ()
    runs: tuple[Mapping[str, Any], ...] = ()  # the newest record of each command, the last to end first
    message: str = ""
    notes: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what a person should look at."""
        without = [item.database for item in self.databases if item.newest is None]
        damaged = sum(item.damaged for item in self.databases)
        behind = [
            f"no copy of the newest backup of {item.database} in {target}"
            for item in self.databases
            for target, backup in item.copied.items()
            if item.newest and backup != item.newest
        ]
        return (
            *self.notes,
            *([f"no complete backup of {', '.join(without)}"] if without else []),
            *([f"damaged backups: {damaged}"] if damaged else []),
            *behind,
            *(f"the last {run['command']} ended with {_outcome(run)}" for run in _bad(self.runs)),
        )

    def to_json(self, now: datetime) -> dict[str, Any]:
        """Given the time, return it as plain values."""
        return {
            "name": self.name,
            "instance": self.instance,
            "repository": self.repository,
            "message": self.message,
            "databases": [item.to_json(now) for item in self.databases],
            "schedules": [
                {"action": item.action, "schedule": item.schedule, "next": iso(item.next) if item.next else None}
                for item in self.schedules
            ],
            "runs": [{key: run[key] for key in _SHOWN} for run in self.runs],
        }


def _bad(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Given the newest run of each command, the last to end first, return those that failed and that no run of the whole
    job came after. What only a person starts does not count.
    """
    found: list[Mapping[str, Any]] = []
    whole = False
    for run in runs:
        made_good = whole and run["command"] in ("backup", "prune")
        if run["exit_code"] != 0 and run["command"] in ("run", *ACTIONS) and not made_good:
            found.append(run)
        whole = whole or run["command"] == "run"
    return found


def _outcome(run: Mapping[str, Any]) -> str:
    return ": ".join(filter(None, (f"exit code {run['exit_code']}", run["message"])))


def database_status(
    database: str,
    backups: Sequence[Backup],
    drills: Sequence[Mapping[str, Any]],
    partial: bool,
    targets: Sequence[str] = (),
) -> DatabaseStatus:
    """Given a database, its backups, the evidence of its drills, whether its job leaves something out, and the job's
    targets, return how it stands.

    A backup that leaves something out is none to a job that takes all, and only that counts for a job that does.
    """
    ours = [item for item in backups if item.partial == partial]
    complete = [item for item in ours if item.complete]
    passed = [(item.state.verified, item.state.verified_level) for item in complete if item.state.verified]
    verified, level = max(passed, key=lambda item: item[0], default=(None, None))
    return DatabaseStatus(
        database,
        _newest(complete),
        len(complete),
        len(ours) - len(complete),
        verified,
        level,
        max([*_restored(complete), *_proven(drills)], default=None),
        {target: _newest(item for item in complete if target in item.state.targets) for target in targets},
    )


def _newest(backups: Iterable[Backup]) -> Backup | None:
    return max(backups, key=lambda item: (item.created, item.id), default=None)


def _restored(backups: Sequence[Backup]) -> Iterator[datetime]:
    return (item.state.levels["restore"] for item in backups if "restore" in item.state.levels)


def _proven(drills: Sequence[Mapping[str, Any]]) -> Iterator[datetime]:
    for drill in drills:
        if drill["verdict"] == "good":
            try:
                yield parse_time(drill["at"])
            except ConfigurationError:  # anybody may have written it
                continue


# --- for people ---


def status_lines(jobs: Sequence[JobStatus], now: datetime) -> list[str]:
    """Given jobs and the time, return a table of their databases, and lines with what each does next and did last."""
    if not jobs:
        return ["no jobs"]
    header = ("JOB", "DATABASE", "LAST", "AGE", "SIZE", "VERIFIED", "DRILLED", "COPIES")
    rows = [_row(job.name, item, now) for job in jobs for item in job.databases]
    lines = [*table(header, rows, right=(3, 4)), ""] if rows else []
    for job in jobs:
        lines += [printable(f"{job.name}: {text}") for text in _about(job)]
    return lines


def _row(job: str, item: DatabaseStatus, now: datetime) -> tuple[str, ...]:
    newest = item.newest
    verified = f"{_minute(item.verified)} ({item.verified_level})" if item.verified else "never"
    return (
        job,
        item.database,
        _minute(newest.created) if newest else "none",
        age_text(now - newest.created) if newest else "-",
        human_size(newest.size) if newest else "-",
        verified,
        _minute(item.drilled) if item.drilled else "never",
        ", ".join(f"{target} {_age(backup, now)}" for target, backup in item.copied.items()) or "none",
    )


def _age(backup: Backup | None, now: datetime) -> str:
    return age_text(now - backup.created) if backup else "never"


def _minute(moment: datetime) -> str:
    return iso(moment.replace(second=0, microsecond=0)).replace(":00Z", "Z")


def _about(job: JobStatus) -> Iterator[str]:
    if job.message:
        yield job.message
    due = [f"{item.action} {_minute(item.next) if item.next else item.schedule}" for item in job.schedules]
    if due:
        yield f"next {', '.join(due).replace('_', ' ')}"
    if job.runs:
        run = job.runs[0]
        yield f"last {run['command']} {run['finished']}, {_outcome(run) if run['exit_code'] else 'done'}"
