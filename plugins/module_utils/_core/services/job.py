# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""A job as cron runs it: back up, prune, verify and drill the same databases, and no other job's."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..adapters import catalog, repository
from ..adapters.observer import Observer
from ..adapters.process import Cancellation
from ..domain import naming
from ..domain.backups import GLOBALS, Backup
from ..domain.errors import DONE, RepositoryError
from ..domain.job import policy_of
from ..domain.model import (
    Connection,
    DrillOptions,
    DumpOptions,
    Location,
    Schedule,
    Selection,
    StandbyOptions,
    build,
    options_of,
)
from ..domain.outcomes import GOOD, BackupResult
from ..domain.retention import Plan
from ..domain.schedule import AFTER_BACKUP
from ..domain.selection import covers
from .backup import backup
from .preparation import Clock
from .prune import Pruned, prune

if TYPE_CHECKING:
    from .verify import Verified

# What a job dumps says nothing about a restore.
OF_RESTORE = (*options_of(Connection), "repository", "instance", "bin_dir")
_OF_VERIFY = ("repository", "bin_dir", *options_of(DrillOptions))  # the other options of a job are for its dumps


@dataclass(frozen=True)
class JobResult:
    """What became of a job's backup, and of its prune where that belongs to the run."""

    name: str
    backup: BackupResult
    pruned: Pruned | None

    @property
    def exit_code(self) -> int:
        """Return the command's exit code: the backup's, unless only the prune failed."""
        return self.backup.exit_code or (self.pruned.exit_code if self.pruned else DONE)

    @property
    def message(self) -> str:
        """Return what went wrong, in one line; "" when nothing did."""
        return "; ".join(filter(None, (self.backup.message, self.pruned.message if self.pruned else "")))

    def to_json(self) -> dict[str, Any]:
        """Return what --json gives."""
        return {
            "job": self.name,
            "backup": self.backup.to_json(),
            "prune": self.pruned.to_json() if self.pruned else None,
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


def prune_options(job: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Given a job and databases, return the options for a prune of these by the job's policy, in the job's instance."""
    return {**with_policy(job), "instance": build(Location, job).instance, "databases": list(names)}


def verify_options(job: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Given a job and what was said besides, return the options for a verification in the job's instance."""
    ours = {name: job[name] for name in _OF_VERIFY if name in job}
    return {**ours, "instance": build(Location, job).instance, **said}


def restore_options(job: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Given a job and what was said besides, return the options for a restore from the job's backups to its server."""
    ours = {name: job[name] for name in OF_RESTORE if name in job}
    return {**ours, "instance": build(Location, job).instance, **said}


def for_drill(options: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Given the options of a verification and those of them that were said, return them; for a drill, with a `bin_dir`
    that was not said only where it has a server: what a configuration has is for dumps, which need none.
    """
    found, bin_dir = dict(options), options.get("bin_dir")
    unsaid = options.get("level") == "restore" and bin_dir and not said.get("bin_dir")
    if unsaid and not os.path.exists(os.path.join(str(bin_dir), "initdb")):
        del found["bin_dir"]
    return found


def prune_job(
    job: Mapping[str, Any],
    said: Mapping[str, Any],
    check: bool,
    clock: Clock,
    cancellation: Cancellation | None = None,
    observer: Observer | None = None,
) -> Pruned:
    """Given a job and what was said besides, prune the databases that were said, or else the job's; raise PgkeepError."""
    merged = {**job, **said}
    return _prune(merged, said.get("databases") or covered(merged), check, clock, cancellation, observer)


def _prune(
    job: Mapping[str, Any],
    names: Sequence[str],
    check: bool,
    clock: Clock,
    cancellation: Cancellation | None,
    observer: Observer | None,
    coming: Sequence[Backup] = (),
) -> Pruned:
    if not names:  # means nothing here; to the service it means all
        return Pruned(Plan(()), (), (), check)
    return prune(prune_options(job, names), check, clock, cancellation, coming, observer)


def verify_job(
    job: Mapping[str, Any],
    said: Mapping[str, Any],
    check: bool,
    clock: Clock,
    cancellation: Cancellation | None = None,
    observer: Observer | None = None,
) -> Verified:
    """Given a job and what was said besides, verify the databases that were said, or else the job's; raise PgkeepError.

    A database that the job names and that has no backup is a failure, and so is a job without any backup, unless they
    may all be taken on another server.
    """
    from .verify import Verified, verify  # a run, and a look at figures, do without

    options = verify_options(job, said)
    if options.get("databases"):
        return verify(for_drill(options, said), check, clock, cancellation, observer)
    place = {**job, "repository": options["repository"], "instance": options["instance"]}
    stored = covered(place)
    names = stored + [name for name in build(Selection, job).databases if name not in stored]
    where = f"{options['repository']} has no backup of this job's databases in instance {options['instance']}"
    result = Verified((), 0, missing=(f"{where}: run the job first",))
    if names:
        result = verify(for_drill({**options, "databases": names}, said), check, clock, cancellation, observer)
    run_on = build(StandbyOptions, job).run_on
    if run_on != "any" and len(result.missing) >= len(names):
        why = f"{where}: with run_on {run_on} another server takes them"
        return Verified((), 0, result.notes, for_another_server=why)
    return result


def run_job(
    name: str, job: Mapping[str, Any], check: bool, clock: Clock, cancellation: Cancellation, observer: Observer
) -> JobResult:
    """Given a job, run it (with `check`: plan it); raise PgkeepError. It prunes unless that has a schedule of its own.

    A database whose backup failed is not pruned in this run; those of the others are, so that one failure does not
    fill the disk.
    """
    taken = backup(job, check, clock, cancellation, observer)
    # Where the run is for another server no backup comes to this place, and age alone would empty it.
    if taken.for_another_server or build(Schedule, job).prune_schedule != AFTER_BACKUP:
        return JobResult(name, taken, None)
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

    return JobResult(name, taken, _prune(job, names, check, not_before, cancellation, observer, coming))
