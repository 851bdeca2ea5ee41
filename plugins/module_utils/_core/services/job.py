# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""A job as cron runs it: back up, then prune what the job's policy no longer keeps of the same databases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..adapters import catalog, repository
from ..adapters.observer import Observer
from ..adapters.process import Cancellation
from ..domain import naming
from ..domain.backups import GLOBALS, Backup
from ..domain.errors import DONE, RepositoryError
from ..domain.job import policy_of
from ..domain.model import DumpOptions, Location, Selection, build
from ..domain.outcomes import GOOD, BackupResult
from ..domain.retention import Plan
from ..domain.selection import covers
from .backup import backup
from .preparation import Clock
from .prune import Pruned, prune


@dataclass(frozen=True)
class JobResult:
    """What became of a job's backup and prune."""

    name: str
    backup: BackupResult
    pruned: Pruned

    @property
    def exit_code(self) -> int:
        """Return the command's exit code: the backup's, unless only the prune failed."""
        return self.backup.exit_code if self.backup.exit_code != DONE else self.pruned.exit_code

    @property
    def message(self) -> str:
        """Return what went wrong, in one line; "" when nothing did."""
        return "; ".join(filter(None, (self.backup.message, self.pruned.message)))

    def to_json(self) -> dict[str, Any]:
        """Return what --json gives."""
        return {
            "job": self.name,
            "backup": self.backup.to_json(),
            "prune": self.pruned.to_json(),
        }


def with_policy(job: Mapping[str, Any]) -> dict[str, Any]:
    """Given a job, return it with the rules of retention that are in force written into it."""
    policy = policy_of(job)
    return {**job, "keep_last": policy.keep_last, "keep_days": policy.keep_days}


def covered(job: Mapping[str, Any]) -> list[str]:
    """Given a job, return those databases in the repository (as people read them) that are the job's to prune."""
    location, selection, dump = build(Location, job), build(Selection, job), build(DumpOptions, job)
    place = repository.open_for_reading(location.repository)
    # A database of that name is left out: it would be taken for the globals, which may be another job's.
    stored = [name for name in catalog.databases(place, location.instance) if name != GLOBALS]
    names = [name for name in stored if covers(selection, name)]
    return [GLOBALS, *names] if dump.globals else names


def prune_job(
    job: Mapping[str, Any],
    names: list[str],
    check: bool,
    clock: Clock,
    cancellation: Cancellation,
    coming: Sequence[Backup] = (),
) -> Pruned:
    """Given a job and databases, prune them by the job's policy. No database means nothing, never all."""
    if not names:
        return Pruned(Plan(()), (), (), check)
    return prune({**with_policy(job), "databases": names}, check, clock, cancellation, coming)


def run_job(
    name: str, job: Mapping[str, Any], check: bool, clock: Clock, cancellation: Cancellation, observer: Observer
) -> JobResult:
    """Given a job, run it (with `check`: plan it); raise PgkeepError.

    A database whose backup failed is not pruned in this run; those of the others are, so that one failure does not
    fill the disk.
    """
    taken = backup(job, check, clock, cancellation, observer)
    failed = {outcome.database for outcome in taken.outcomes if outcome.status not in GOOD}
    try:
        names = [title for title in covered(job) if title not in failed]
    except RepositoryError:
        if not check:
            raise
        names = []  # the repository is not there yet
    coming = [outcome.coming for outcome in taken.outcomes if outcome.coming]
    ours = [*coming, *(outcome.backup for outcome in taken.outcomes if outcome.backup)]
    now = clock()
    latest = max((item.created for item in ours if item.created - now <= naming.RUN_AHEAD), default=now)

    def not_before() -> datetime:  # to retention, what was just taken shall not be in the future
        return max(clock(), latest)

    return JobResult(name, taken, prune_job(job, names, check, not_before, cancellation, coming))
