# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""What the command writes down of a run: lines for people in a log, and one record for programs in a history."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from .outcomes import Outcome
from .quantities import human_duration, iso
from .text import printable

HISTORY_VERSION = 1
LOG_NAME, HISTORY_NAME = "pgkeep.log", "history.jsonl"
COMMANDS = ("backup", "prune", "sync", "verify", "drill", "restore", "run", "adopt")  # those that do something


@dataclass(frozen=True)
class Run:
    """One run of the command, as it is known when it begins."""

    command: str
    job: str | None
    host: str
    pid: int
    started: datetime


def log_line(run: Run, at: datetime, text: str) -> bytes:
    """Given a run, the time and any text, return the line of the log. Nothing in it does anything to a terminal."""
    who = f"{iso(at.replace(microsecond=0))} pgkeep[{run.pid}] {run.job or '-'} {run.command}"
    return f"{printable(f'{who}: {text}')}\n".encode("utf-8", "backslashreplace")


def begin_text(run: Run, version: str) -> str:
    """Given a run and the version of the command, return what its log begins with."""
    return f"begin, pgkeep {version} on {run.host}"


def end_text(run: Run, finished: datetime, exit_code: int) -> str:
    """Given a run that is over, return what its log ends with."""
    return f"end, exit code {exit_code} after {human_duration(_duration(run, finished))}"


def _duration(run: Run, finished: datetime) -> timedelta:
    return max(finished - run.started, timedelta())  # the clock may have been set back


def entry(
    database: str,
    status: str,
    message: str = "",
    *,
    backup: str | None = None,
    size: int | None = None,
    duration: float | None = None,
) -> dict[str, Any]:
    """Given what became of a database, return it as a record has it. The duration is in seconds."""
    return {
        "database": database,
        "status": status,
        "message": printable(message),
        "id": backup,
        "size": size,
        "duration": None if duration is None else round(duration, 3),
    }


def outcome_entries(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """Given what became of the databases of a backup run, return it as a record has it. What a young backup made
    unnecessary took no time.
    """
    return [
        entry(
            item.database,
            item.status,
            "" if item.status == "done" else item.message,
            backup=item.backup.id if item.backup else None,
            size=item.backup.size if item.backup else None,
            duration=item.backup.duration.total_seconds() if item.backup and item.status == "done" else None,
        )
        for item in outcomes
    ]


def record(
    run: Run,
    finished: datetime,
    exit_code: int,
    message: str = "",
    databases: Sequence[Mapping[str, Any]] = (),
    deleted: Sequence[str] = (),
) -> dict[str, Any]:
    """Given a run that is over and what became of it, return its record."""
    return {
        "version": HISTORY_VERSION,
        "command": run.command,
        "job": run.job,
        "host": run.host,
        "started": iso(run.started),
        "finished": iso(finished),
        "exit_code": exit_code,
        "message": printable(message),
        "dry_run": False,
        "databases": [dict(item) for item in databases],
        "deleted": list(deleted),
    }


def record_line(document: Mapping[str, Any]) -> bytes:
    """Given a record, return its line of the history."""
    return f"{json.dumps(document, ensure_ascii=True)}\n".encode("ascii")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a line of the history, for other programs that read it."""
    moment = {"type": "string", "format": "date-time"}
    about = {
        "database": {"type": "string", "description": "True name of the database; @globals means the globals."},
        "status": {
            "type": "string",
            "description": "backup, run and adopt: done, fresh, failed or locked. verify and drill: good, error, or how"
            " the backup is damaged. restore: create, fill, replace or skip.",
        },
        "message": {"type": "string", "description": "What went wrong, or why nothing was done, in one line."},
        "id": {"type": ["string", "null"], "description": "The backup that was taken, verified or restored."},
        "size": {"type": ["integer", "null"], "description": "Its size in bytes."},
        "duration": {"type": ["number", "null"], "description": "Seconds that it took."},
    }
    properties: dict[str, Any] = {
        "version": {"const": HISTORY_VERSION, "description": "Version of this format: 1."},
        "command": {"enum": list(COMMANDS), "description": "What was run."},
        "job": {"type": ["string", "null"], "description": "The job, where one was named."},
        "host": {"type": "string", "description": "Host that ran it."},
        "started": {**moment, "description": "When it began (UTC)."},
        "finished": {**moment, "description": "When it was over (UTC)."},
        "exit_code": {"type": "integer", "minimum": 0, "description": "Exit code of the command; 128 + a signal's."},
        "message": {
            "type": "string",
            "description": "What went wrong, why nothing was done or, of a restore, what was done; one line.",
        },
        "dry_run": {"const": False, "description": "A run that only says what would happen is not written down."},
        "databases": {
            "type": "array",
            "description": "What became of each database, as far as it is known.",
            "items": {"type": "object", "required": list(about), "properties": about},
        },
        "deleted": {"type": "array", "items": {"type": "string"}, "description": "The backups that were deleted."},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pgkeep history",
        "description": "One run of the command: a line of history.jsonl.",
        "type": "object",
        "required": list(properties),
        "properties": properties,
    }
