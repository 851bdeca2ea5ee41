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
from ..domain.encryption import method_of
from ..domain.errors import DONE, SOME_FAILED, RepositoryError
from ..domain.job import policy_of
from ..domain.model import (
    LEVELS,
    Connection,
    Copies,
    Decryption,
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
    from .sync import Synced
    from .verify import Verified

# What a job dumps says nothing about a restore.
OF_RESTORE = (*options_of(Connection), *options_of(Decryption), "repository", "instance", "bin_dir")
# the other options of a job are for its dumps
OF_VERIFY = ("repository", "bin_dir", *options_of(Decryption), *options_of(DrillOptions))


@dataclass(frozen=True)
class JobResult:
    """What became of a job's backup, and of its prune where that belongs to the run."""

    name: str
    backup: BackupResult
    pruned: Pruned | None
    synced: Synced | None = None

    @property
    def exit_code(self) -> int:
        """Return the command's exit code: the backup's, unless only the prune failed, or only copies."""
        missed = SOME_FAILED if self.synced and self.synced.failed else DONE  # the backups themselves are done
        return self.backup.exit_code or (self.pruned.exit_code if self.pruned else DONE) or missed

    @property
    def message(self) -> str:
        """Return what went wrong, in one line; "" when nothing did."""
        parts = (self.backup, self.synced, self.pruned)
        return "; ".join(part.message for part in parts if part and part.message)

    def to_json(self) -> dict[str, Any]:
        """Return what --json gives."""
        return {
            "job": self.name,
            "backup": self.backup.to_json(),
            "prune": self.pruned.to_json() if self.pruned else None,
            "sync": self.synced.to_json() if self.synced else None,
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
    """Given a job and what was said besides, return the options for a verification in the job's instance: of its
    encrypted backups only the checksum, where it has nothing that decrypts them.
    """
    ours = {name: job[name] for name in OF_VERIFY if name in job}
    if method_of(job) and not build(Decryption, {**job, **said}).identity_file:
        ours["level"] = LEVELS[0]
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
    from ..adapters.encryption import Keys  # a run, and a look at figures, do without these
    from .verify import Verified, verify

    options = verify_options(job, said)
    if options.get("databases"):
        return verify(for_drill(options, said), check, clock, cancellation, observer)
    keys = Keys(build(Decryption, options))  # before root is given up
    place = {**job, "repository": options["repository"], "instance": options["instance"]}
    stored = covered(place)
    names = stored + [name for name in build(Selection, job).databases if name not in stored]
    where = f"{options['repository']} has no backup of this job's databases in instance {options['instance']}"
    result = Verified((), 0, missing=(f"{where}: run the job first",))
    if names:
        todo = for_drill({**options, "databases": names}, said)
        with keys:
            result = verify(todo, check, clock, cancellation, observer, keys)
    run_on = build(StandbyOptions, job).run_on
    if run_on != "any" and len(result.missing) >= len(names):
        why = f"{where}: with run_on {run_on} another server takes them"
        return Verified((), 0, result.notes, for_another_server=why)
    return result


def sync_options(job: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Given a job and what was said besides, return the options for copies of the job's backups."""
    location = build(Location, job)
    ours = {"repository": location.repository, "instance": location.instance, "targets": build(Copies, job).targets}
    return {**ours, **said}


def sync_job(
    job: Mapping[str, Any],
    said: Mapping[str, Any],
    check: bool,
    clock: Clock,
    cancellation: Cancellation | None = None,
    observer: Observer | None = None,
) -> Synced:
    """Given a job and what was said besides, bring copies of the databases that were said, or else of the job's, to its
    targets; raise PgkeepError.
    """
    from .sync import Synced, sync  # most jobs have no targets

    options = sync_options(job, said)
    names = said.get("databases") or covered({**job, **options})
    if not names:
        return Synced((), check)
    return sync({**options, "databases": names}, check, clock, cancellation, observer)


def run_job(
    name: str,
    job: Mapping[str, Any],
    config_dir: str,
    check: bool,
    clock: Clock,
    cancellation: Cancellation,
    observer: Observer,
) -> JobResult:
    """Given a job, run it (with `check`: plan it); raise PgkeepError. It brings copies to its targets, and prunes, unless
    these have schedules of their own.

    Copies come before the prune, which may have to wait for them. A database whose backup failed is not pruned in this
    run; those of the others are, so that one failure does not fill the disk.
    """
    taken = backup(job, check, clock, cancellation, observer)
    schedule = build(Schedule, job)
    synced = None
    if build(Copies, job).targets and schedule.sync_schedule == AFTER_BACKUP:
        synced = _synced(job, config_dir, check, clock, cancellation, observer)
    # Where the run is for another server no backup comes to this place, and age alone would empty it.
    if taken.for_another_server or schedule.prune_schedule != AFTER_BACKUP:
        return JobResult(name, taken, None, synced)
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

    pruned = _prune(job, names, check, not_before, cancellation, observer, coming)
    return JobResult(name, taken, pruned, synced)


def _synced(
    job: Mapping[str, Any],
    config_dir: str,
    check: bool,
    clock: Clock,
    cancellation: Cancellation,
    observer: Observer,
) -> Synced | None:
    """Given a job after its backup, bring copies to its targets; return what became of it. With `check`, None where
    there is no repository yet.
    """
    try:
        return sync_job(job, {"config_dir": config_dir}, check, clock, cancellation, observer)
    except RepositoryError:
        if not check:
            raise
        return None
