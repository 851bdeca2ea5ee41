# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Taking backups: look at everything first (the plan), then dump, read back and publish (the deed).

Check mode ends after the plan. It has connected, found the tools, resolved every pattern, looked for what would be
missing, and measured the space: what it says would happen is what a real run then does.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any, Callable

from ..adapters import archive, files, lock, repository, server, tools
from ..adapters.archive import Archive, Progress
from ..adapters.catalog import databases
from ..adapters.client import as_connected, client_environment
from ..adapters.encryption import encryptor
from ..adapters.observer import Observer
from ..adapters.process import Cancellation, Processes
from ..adapters.replay import Pause
from ..domain import naming, space
from ..domain.backups import Backup, Pin
from ..domain.errors import LockedError, PgkeepError, SpaceError
from ..domain.job import check_combinations
from ..domain.model import (
    Connection,
    DumpOptions,
    EncryptionOptions,
    Location,
    RunOptions,
    Selection,
    StandbyOptions,
    build,
)
from ..domain.outcomes import BackupResult, Outcome
from ..domain.quantities import human_duration, human_size
from ..domain.selection import choose, vanished
from .commit import Place, Subject, expect, in_progress, next_time, occupy, publish, stored
from .preparation import (
    Clock,
    Request,
    Surroundings,
    Work,
    fresh,
    plan_database,
    plan_globals,
    resolve_compression,
    stages,
)
from .standby import standing_replay, take_turn


def request_of(raw: Mapping[str, Any]) -> Request:
    """Given options as a user wrote them, return the request; raise ConfigurationError."""
    check_combinations(raw)
    location = build(Location, raw)
    return Request(
        build(Connection, raw),
        replace(location, repository=os.path.normpath(location.repository)),
        build(Selection, raw),
        build(DumpOptions, raw),
        build(EncryptionOptions, raw),
        build(RunOptions, raw),
        build(StandbyOptions, raw),
    )


def backup(
    raw: Mapping[str, Any],
    check: bool,
    clock: Clock,
    cancellation: Cancellation | None = None,
    observer: Observer | None = None,
) -> BackupResult:
    """Given options as a user wrote them, take the backups they ask for (with `check`: plan them); raise PgkeepError.

    What goes wrong with one database is an outcome of the result and stops no other; what goes wrong before is raised.
    """
    request = request_of(raw)
    root, instance = request.location.repository, request.location.instance
    exists = repository.enter(root, create=not check)
    with server.connect(request.connection) as session:
        facts = server.server_facts(session)
        entries = server.databases(session)
        request = replace(request, connection=as_connected(request.connection, session.host))
        turn = take_turn(session, request, facts, check)
    if turn.elsewhere:
        return BackupResult((), (), (), (), turn.notes, for_another_server=turn.elsewhere)
    client = tools.find(facts.version_num, request.run.bin_dir)
    choice = choose(entries, request.selection)
    subjects = [Subject(instance, "database", name) for name in choice.names]
    if request.dump.globals:
        subjects.insert(0, Subject(instance, "globals", None))
    before = {subject: stored(root, subject) for subject in subjects} if exists else {}
    outcomes = [Outcome(name, "database", "failed", reason) for name, reason in choice.missing]
    pause = Pause()
    with encryptor(request.encryption) as encryption, client_environment(request.connection) as (environment, fds):
        around = Surroundings(
            request,
            facts,
            {entry.name: entry for entry in entries},
            client,
            resolve_compression(request.dump, client),
            encryption,
            environment,
            fds,
            clock,
            cancellation or Cancellation(),
        )
        attend = observer or Observer()
        if check:
            outcomes += _planned(around, subjects, before)
        else:
            with standing_replay(around) as pause:
                outcomes += _taken(around, subjects, attend)
    around.cancellation.check()
    gone = vanished(databases(root, instance), entries, request.selection)
    return BackupResult(
        tuple(outcomes),
        choice.skipped,
        tuple(s.title for s in subjects if s.kind == "database" and not any(b.complete for b in before.get(s, ()))),
        # A folder alone may be all that is left of an attempt that failed.
        tuple(name for name in gone if stored(root, Subject(instance, "database", name))),
        (*turn.notes, *pause.notes, *_cluster_note(around, before)),
        tuple(pause.problems),
    )


def _cluster_note(around: Surroundings, before: Mapping[Subject, Sequence[Backup]]) -> tuple[str, ...]:
    now = around.clock()
    future = [item for items in before.values() for item in items if item.created - now > naming.RUN_AHEAD]
    if not future:
        return ()
    latest = max(future, key=lambda item: item.created)
    note = f"{len(future)} backups are dated in the future, the latest {latest.id}: check the clock of this host"
    return (f"{note}; retention leaves them alone",)


def _guarded(subject: Subject, attempt: Callable[[], Outcome]) -> Outcome:
    """Given a database and what to do with it, return the outcome, also where that raised."""
    try:
        return attempt()
    except LockedError as error:
        return Outcome(subject.title, subject.kind, "locked", str(error))
    except PgkeepError as error:
        return Outcome(subject.title, subject.kind, "failed", str(error))
    except OSError as error:
        return Outcome(subject.title, subject.kind, "failed", str(files.describe(error, f"backing up {subject.title}")))


def _plan(around: Surroundings, subject: Subject) -> Work:
    return plan_globals(around) if subject.kind == "globals" else plan_database(around, subject)


def _planned(
    around: Surroundings, subjects: Sequence[Subject], before: Mapping[Subject, Sequence[Backup]]
) -> list[Outcome]:
    """Given the databases, return what a run would do with each; the space that one needs is gone for the next."""
    root = around.request.location.repository
    free, total = files.free_space(root if os.path.isdir(root) else os.path.dirname(root))
    outcomes = []
    for subject in subjects:

        def look(subject: Subject = subject, free: int = free) -> Outcome:
            folder = os.path.join(root, subject.folder)
            lock.check(os.path.join(folder, naming.LOCK_NAME), f"{subject.instance}/{subject.title}", around.clock)
            work = _plan(around, subject)
            return _prospect(around, work, before.get(subject, ()), free, total)

        outcome = _guarded(subject, look)
        free -= outcome.expected or 0
        outcomes.append(outcome)
    return outcomes


def _prospect(around: Surroundings, work: Work, backups: Sequence[Backup], free: int, total: int) -> Outcome:
    subject, run, now = work.subject, around.request.run, around.clock()
    existing = fresh(work.fingerprint, backups, run, now)
    if existing:
        return _fresh_outcome(work, existing, now - existing.created)
    expected = space.estimate(backups, work.fingerprint, work.database_size)
    problem = space.space_problem(free, space.reserve_bytes(run.reserve, total), expected)
    if problem:
        raise SpaceError(problem)
    created = naming.next_created(now, (item.created for item in backups))
    coming = expect(subject, created, work.about, expected, _pin(run))
    path = os.path.join(around.request.location.repository, coming.id)
    target = os.path.join(path, os.path.basename(path) + work.suffix)
    command, text = stages(around, work, target).dump, f"would write {target}"
    return Outcome(subject.title, subject.kind, "planned", text, work.warnings, None, command, expected, coming)


def _pin(run: RunOptions) -> Pin | None:
    return Pin(run.pin, run.pin_until) if run.pin else None


def _fresh_outcome(work: Work, existing: Backup, age: timedelta) -> Outcome:
    text = f"{existing.id} is {human_duration(age)} old"
    return Outcome(work.subject.title, work.subject.kind, "fresh", text, work.warnings, existing)


def _taken(around: Surroundings, subjects: Sequence[Subject], observer: Observer) -> list[Outcome]:
    """Given the databases, back them up, some at a time, and return the outcomes in their order."""

    def attempt(subject: Subject) -> Outcome:
        if around.cancellation.requested:
            return Outcome(subject.title, subject.kind, "failed", "not begun: the run was interrupted")
        outcome = _guarded(subject, lambda: _take(around, _plan(around, subject), observer))
        observer.finished(outcome)
        return outcome

    with ThreadPoolExecutor(around.request.run.parallel, thread_name_prefix="backup") as pool:
        return list(pool.map(attempt, subjects))


def _take(around: Surroundings, work: Work, observer: Observer) -> Outcome:
    """Given the work, do it under the lock of its database; return the outcome. Raise PgkeepError or OSError."""
    request, subject, clock = around.request, work.subject, around.clock
    command = f"pgkeep backup of {subject.instance}/{subject.title}"
    with occupy(request.location.repository, subject, command, request.run.wait, clock, around.cancellation) as place:
        now = clock()
        existing = fresh(work.fingerprint, place.backups, request.run, now)
        if existing:
            return _fresh_outcome(work, existing, now - existing.created)
        free, total = files.free_space(place.path)
        reserve = space.reserve_bytes(request.run.reserve, total)
        expected = space.estimate(place.backups, work.fingerprint, work.database_size)
        problem = space.space_problem(free, reserve, expected)
        if problem:
            raise SpaceError(problem)
        return _write(around, work, place, reserve, expected, observer)


def _write(
    around: Surroundings, work: Work, place: Place, reserve: int, expected: int | None, observer: Observer
) -> Outcome:
    subject, run, clock = work.subject, around.request.run, around.clock
    started, begin = clock(), time.monotonic()
    created = next_time(place, started)
    progress = Progress()
    with in_progress(place, secrets.token_hex(8)) as directory:
        target = os.path.join(directory, naming.stem(subject.kind, subject.database, created) + work.suffix)
        todo = stages(around, work, target)
        observer.started(subject.title, progress, work.tables, expected)
        inherit = (place.lock_fd, *around.password_fds)
        with Processes(around.environment, around.cancellation, inherit) as processes:
            written = _dump(processes, around, work, target, reserve, progress)
        around.cancellation.check()
        # After another run within the same second the name is a second ahead, and what is dated in the future is not
        # counted. A clock that was set back is not waited for.
        ahead = (created - clock()).total_seconds()
        time.sleep(ahead if 0 < ahead <= 1 else 0)
        taken = publish(
            place,
            directory,
            written,
            created,
            started,
            clock(),
            timedelta(seconds=time.monotonic() - begin),
            {**work.about, "command": list(todo.dump), "warnings": [*work.warnings, *written.warnings]},
            _pin(run),
        )
    warnings = (*work.warnings, *written.warnings)
    text = f"{human_size(taken.size)} in {human_duration(taken.duration)}"
    return Outcome(subject.title, subject.kind, "done", text, warnings, taken, todo.dump, expected)


def _dump(
    processes: Processes, around: Surroundings, work: Work, target: str, reserve: int, progress: Progress
) -> Archive:
    todo, limits = stages(around, work, target), around.request.limits
    if work.suffix == naming.suffix("directory"):
        return archive.write_directory(processes, todo, target, limits, reserve, progress)
    return archive.write_stream(processes, todo, target, limits, reserve, progress)
