# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""What became of a run: one outcome for each database, and the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .backups import Backup, record
from .errors import DONE, FAILED, LOCKED, SOME_FAILED

# planned: check mode, would be taken · done: taken · fresh: a backup that is young enough makes it unnecessary
GOOD = frozenset(("planned", "done", "fresh"))


@dataclass(frozen=True)
class Outcome:
    """What became of one database (or of the globals)."""

    database: str  # as people read it
    kind: str  # database | globals
    status: str  # planned | done | fresh | failed | locked
    message: str = ""
    warnings: tuple[str, ...] = ()
    backup: Backup | None = None
    command: tuple[str, ...] = ()
    expected: int | None = None  # bytes, where earlier backups allow an estimate
    coming: Backup | None = None  # check mode: the backup that a run would take, for a plan of what is pruned then

    def to_json(self) -> dict[str, Any]:
        """Return what the module and --json give of it."""
        return {
            "database": self.database,
            "kind": self.kind,
            "status": self.status,
            "message": self.message,
            "warnings": list(self.warnings),
            "backup": self.backup.id if self.backup else None,
            "command": list(self.command),
            "estimated_size": self.expected,
        }


@dataclass(frozen=True)
class BackupResult:
    """A whole run."""

    outcomes: tuple[Outcome, ...]
    skipped: tuple[tuple[str, str], ...]  # database, reason
    new: tuple[str, ...]
    vanished: tuple[str, ...]
    notes: tuple[str, ...] = ()  # what concerns the run as a whole
    problems: tuple[str, ...] = ()  # what went wrong with the run as a whole
    for_another_server: str = ""  # why no backup was even tried here, and none had to be

    diff = None

    @property
    def changed(self) -> bool:
        """Return whether a backup was taken, or would be."""
        return any(outcome.status in ("planned", "done") for outcome in self.outcomes)

    @property
    def bad(self) -> tuple[Outcome, ...]:
        """Return the outcomes that are no good."""
        return tuple(outcome for outcome in self.outcomes if outcome.status not in GOOD)

    @property
    def failed(self) -> bool:
        """Return whether any database has no good outcome, or the run as a whole went wrong."""
        return bool(self.bad or self.problems)

    @property
    def exit_code(self) -> int:
        """Return the command's exit code."""
        if not self.failed:
            return DONE
        if len(self.bad) < len(self.outcomes):
            return SOME_FAILED
        locked = not self.problems and all(outcome.status == "locked" for outcome in self.bad)
        return LOCKED if locked else FAILED

    @property
    def message(self) -> str:
        """Return what went wrong, in one line; "" when nothing did."""
        return "; ".join((*(f"{outcome.database}: {outcome.message}" for outcome in self.bad), *self.problems))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what a person should look at."""
        found = [f"{outcome.database}: {text}" for outcome in self.outcomes for text in outcome.warnings]
        return (*self.run_warnings, *found)

    @property
    def run_warnings(self) -> tuple[str, ...]:
        """Return those warnings that belong to no outcome."""
        return (*self.notes, *(f"{name} has backups and is no longer on the server" for name in self.vanished))

    def to_json(self) -> dict[str, Any]:
        """Return what the module and --json give."""
        return {
            "backups": [record(outcome.backup) for outcome in self.outcomes if outcome.backup],
            "databases": [outcome.to_json() for outcome in self.outcomes],
            # not "skipped", which tells Ansible that the task was
            "skipped_databases": [{"database": database, "reason": reason} for database, reason in self.skipped],
            "new_databases": list(self.new),
            "vanished_databases": list(self.vanished),
            "for_another_server": self.for_another_server,
        }
