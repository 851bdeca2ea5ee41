# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""How the jobs of a host stand: their backups, their last runs, and when they go on. Nothing is changed."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Callable

from ..adapters import catalog, config, evidence, history, repository
from ..adapters.process import Cancellation
from ..adapters.zone import host_zone
from ..domain import naming, schedule
from ..domain.backups import GLOBALS, Backup
from ..domain.errors import DONE, FAILED, SOME_FAILED, ConfigurationError, RepositoryError
from ..domain.history import HISTORY_NAME
from ..domain.model import (
    Copies,
    DumpOptions,
    Location,
    LogOptions,
    Schedule,
    Selection,
    StatusOptions,
    build,
)
from ..domain.status import DatabaseStatus, Due, JobStatus, database_status
from .job import covered

Job = Mapping[str, Any]


@dataclass(frozen=True)
class Status:
    """How the jobs of a host stand at a time."""

    jobs: tuple[JobStatus, ...]
    now: datetime
    config_dir: str

    changed = False
    diff = None

    @property
    def failed(self) -> bool:
        """Return whether a job could not be looked at."""
        return any(job.message for job in self.jobs)

    @property
    def exit_code(self) -> int:
        """Return the command's exit code."""
        if not self.failed:
            return DONE
        return FAILED if all(job.message for job in self.jobs) else SOME_FAILED

    @property
    def problems(self) -> tuple[str, ...]:
        """Return why jobs could not be looked at, each in one line."""
        return tuple(f"{job.name}: {job.message}" for job in self.jobs if job.message)

    @property
    def message(self) -> str:
        """Return why jobs could not be looked at, in one line; "" where all could."""
        return "; ".join(self.problems)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what a person should look at."""
        none = () if self.jobs else (f"{self.config_dir} has no jobs, so nothing is backed up",)
        return (*none, *(f"{job.name}: {text}" for job in self.jobs for text in job.warnings))

    def to_json(self) -> dict[str, Any]:
        """Return what the module and --json give."""
        return {"jobs": [job.to_json(self.now) for job in self.jobs]}


def status(
    raw: Mapping[str, Any], check: bool, clock: Callable[[], datetime], cancellation: Cancellation | None = None
) -> Status:
    """Given options as a user wrote them, return how the jobs of this host stand; raise ConfigurationError where it
    cannot be known which jobs there are.

    Nothing is ever changed, so `check` makes no difference; the signature is that of every use case.
    """
    directory = build(StatusOptions, raw).config_dir
    now, stop = clock(), cancellation or Cancellation()
    return Status(tuple(_job(directory, name, now, stop) for name in config.job_names(directory)), now, directory)


def _job(directory: str, name: str, now: datetime, cancellation: Cancellation) -> JobStatus:
    """Given the directory of the configuration and a job's name, return how the job stands."""
    try:
        job = config.load_job(directory, name)
    except ConfigurationError as error:
        return JobStatus(name, message="; ".join(str(error).split("\n")))
    location = build(Location, job)
    runs, notes = _runs(name, build(LogOptions, job).log_dir)
    known = JobStatus(
        name, location.instance, location.repository, schedules=_schedules(job, now), runs=runs, notes=notes
    )
    try:
        with repository.as_owner(location.repository):
            return replace(known, databases=_databases(job, cancellation))
    except (RepositoryError, OSError) as error:
        return replace(known, message=str(error))


def _schedules(job: Job, now: datetime) -> tuple[Due, ...]:
    local, said = now.astimezone(host_zone()), build(Schedule, job)
    return tuple(
        Due(action, fields or getattr(said, f"{action}_schedule"), schedule.next_run(fields, local) if fields else None)
        for action, fields in schedule.expressions(job).items()
    )


def _runs(name: str, log_dir: str | None) -> tuple[tuple[history.Record, ...], tuple[str, ...]]:
    """Given a job's name and the directory of its log, return the newest run of each command, the last to end first,
    and why they cannot be known.
    """
    if not log_dir:
        return (), ()
    path = os.path.join(log_dir, HISTORY_NAME)
    try:
        found = [record for (job, _command), record in history.last_runs(path).items() if job == name]
    except OSError as error:
        return (), (f"{path} cannot be read: {error.strerror}: run this as the user that runs the job, or as root",)
    return tuple(sorted(found, key=lambda record: str(record["finished"]), reverse=True)), ()


def _databases(job: Job, cancellation: Cancellation) -> tuple[DatabaseStatus, ...]:
    """Given a job, return how each of its databases stands: those that have backups and those that it names; raise
    RepositoryError or OSError.
    """
    location, dump = build(Location, job), build(DumpOptions, job)
    stored = covered(job)
    named = [name for name in build(Selection, job).databases if name not in stored]
    partial = bool(
        dump.tables or dump.exclude_tables or dump.schemas or dump.exclude_schemas or dump.exclude_table_data
    )
    folders = {_folder(name): name for name in [*stored, *named]}
    backups = _backups(location, folders, cancellation)
    place = os.path.join(location.repository, location.instance)
    return tuple(
        database_status(
            name,
            backups.get(name, ()),
            evidence.read(os.path.join(place, folder)),
            partial and name != GLOBALS,
            build(Copies, job).targets,
        )
        for folder, name in folders.items()
    )


def _folder(name: str) -> str:
    return naming.directory("globals", None) if name == GLOBALS else naming.directory("database", name)


def _backups(location: Location, folders: Collection[str], cancellation: Cancellation) -> dict[str, list[Backup]]:
    """Given a repository with an instance and folders of it, return the backups that are there by database."""
    found: dict[str, list[Backup]] = {}
    place = os.path.normpath(location.repository)
    for item in catalog.scan(place, lambda instance, folder: instance == location.instance and folder in folders):
        cancellation.check()
        if isinstance(item, Backup):
            found.setdefault(item.title, []).append(item)
    return found
