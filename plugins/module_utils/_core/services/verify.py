# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Verifying backups: each level includes the ones below it, and what it found is kept with the backup."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Callable

from ..adapters import catalog, process, repository, state, throwaway, tools
from ..adapters.archive import Progress
from ..adapters.encryption import Keys
from ..adapters.evidence import keep
from ..adapters.observer import Observer
from ..adapters.process import Cancellation, Limits, Processes
from ..adapters.stored import Stored, UnreadableError, archive_path, decompressor, read_file
from ..domain import commands
from ..domain.backups import GLOBALS, Backup, Failure
from ..domain.choice import nearest
from ..domain.drill import Evidence
from ..domain.dump_header import client_lacks
from ..domain.errors import DONE, FAILED, SOME_FAILED, DecryptionError, Interrupted, PgkeepError, ToolError
from ..domain.filtering import folder_wanted, matches
from ..domain.model import Connection, Decryption, DrillOptions, Filter, Repository, Scope, VerifyOptions, build
from ..domain.quantities import human_duration
from ..domain.sandbox import protections
from ..domain.verification import due
from .drill import Drill, drill

Clock = Callable[[], datetime]


@dataclass(frozen=True)
class Verification:
    """What became of one backup."""

    backup: Backup
    level: str
    verdict: str  # good | planned | error, or how it is damaged: missing | truncated | altered | unreadable
    problem: str = ""
    seconds: float = 0.0
    recorded: bool = False
    warnings: tuple[str, ...] = ()
    evidence: Evidence | None = None  # of a drill

    @property
    def ok(self) -> bool:
        """Return whether nothing is wrong."""
        return self.verdict in ("good", "planned")

    @property
    def complaint(self) -> str:
        """Return what is wrong, in one line."""
        verdict = "" if self.verdict == "error" else f"{self.verdict}: "
        return f"{self.backup.id}: {verdict}{self.problem}"

    def to_json(self) -> dict[str, Any]:
        """Return what the module and --json give of it."""
        return {
            "id": self.backup.id,
            "database": self.backup.title,
            "level": self.level,
            "verdict": self.verdict,
            "problem": self.problem,
            "duration": round(self.seconds, 3),
            "recorded": self.recorded,
            "drill": None if self.evidence is None else self.evidence.to_json(),
        }


@dataclass(frozen=True)
class Verified:
    """All that were verified."""

    verifications: tuple[Verification, ...]
    left: int  # matching backups that were not due, or not in the sample
    notes: tuple[str, ...] = ()  # what concerns the run as a whole
    protections: tuple[str, ...] = ()  # what a drill keeps from the host, and what not
    missing: tuple[str, ...] = ()  # sentences about backups that were asked for and are not there
    for_another_server: str = ""  # why there is no backup here, and none has to be

    diff = None

    @property
    def changed(self) -> bool:
        """Return whether a result was kept with a backup, or would be."""
        return any(item.recorded or item.verdict == "planned" for item in self.verifications)

    @property
    def bad(self) -> tuple[Verification, ...]:
        """Return those that are no good."""
        return tuple(item for item in self.verifications if not item.ok)

    @property
    def failed(self) -> bool:
        """Return whether any is no good, or not there."""
        return bool(self.problems)

    @property
    def exit_code(self) -> int:
        """Return the command's exit code."""
        if not self.problems:
            return DONE
        return FAILED if len(self.bad) == len(self.verifications) else SOME_FAILED

    @property
    def message(self) -> str:
        """Return what is no good, in one line; "" when nothing is."""
        return "; ".join(self.problems)

    @property
    def problems(self) -> tuple[str, ...]:
        """Return what is no good, each in one line."""
        return (*self.missing, *(item.complaint for item in self.bad))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what a person should look at."""
        return (*self.notes, *(f"{item.backup.id}: {text}" for item in self.verifications for text in item.warnings))

    def to_json(self) -> dict[str, Any]:
        """Return what the module and --json give."""
        return {
            "verifications": [item.to_json() for item in self.verifications],
            "not_due": self.left,
            "protections": list(self.protections),
            "for_another_server": self.for_another_server,
        }


@dataclass(frozen=True)
class _Work:
    """How every backup of a run is verified."""

    options: VerifyOptions
    drills: DrillOptions
    globals: tuple[Backup, ...]  # what a drill can take roles from
    keys: Keys
    clock: Clock
    cancellation: Cancellation
    observer: Observer


def verify(
    raw: Mapping[str, Any],
    check: bool,
    clock: Clock,
    cancellation: Cancellation | None = None,
    observer: Observer | None = None,
    keys: Keys | None = None,
) -> Verified:
    """Given options as a user wrote them, verify the backups that they ask for (`check`: say which); raise PgkeepError.
    `keys` are those of `identity_file`, for a caller who has given up root already.

    What is wrong with one backup is a result and stops no other.
    """
    stop, attend = cancellation or Cancellation(), observer or Observer()
    with nullcontext(keys) if keys else Keys(build(Decryption, raw)) as found:
        return _verify_all(raw, check, clock, stop, attend, found)


def _verify_all(
    raw: Mapping[str, Any], check: bool, clock: Clock, cancellation: Cancellation, observer: Observer, keys: Keys
) -> Verified:
    wanted, options, drills = build(Filter, raw), build(VerifyOptions, raw), build(DrillOptions, raw)
    place = repository.open_for_reading(build(Repository, raw).repository)
    now = clock()
    everything = _scan(place, wanted)
    found = [item for item in everything if matches(item, wanted, now)]
    missing = _missing(wanted, everything)
    todo = due(found, options, now)
    left, kept_out = len(found) - len(todo), protections(drills.sandbox) if options.level == "restore" else ()
    if check:
        return Verified(
            tuple(Verification(item, options.level, "planned") for item in todo), left, (), kept_out, missing
        )
    swept: list[str] = []
    clusters: list[Backup] = []
    if options.level == "restore":
        swept = throwaway.sweep(drills.work_dir)
        clusters = _scan(place, Scope(instance=wanted.instance, databases=(GLOBALS,)))
    work = _Work(options, drills, tuple(clusters), keys, clock, cancellation, observer)
    # One result after the other is kept, so that what was done before an interruption counts.
    return Verified(tuple(_verify(item, work) for item in todo), left, tuple(swept), kept_out, missing)


def _missing(wanted: Filter, found: Sequence[Backup]) -> tuple[str, ...]:
    """Given what was asked for and all backups there, return what is wrong where there are none to verify: to have
    verified nothing is no success.
    """
    there = {item.title for item in found}
    if not there and not wanted.databases:
        return ("there are no backups: check `repository` and `instance`",)
    return tuple(f"there is no backup of {name!r}" for name in wanted.databases if name not in there)


def _scan(place: str, scope: Scope) -> list[Backup]:
    found = catalog.scan(place, lambda instance, folder: folder_wanted(scope, instance, folder))
    return [item for item in found if isinstance(item, Backup)]


def _verify(backup: Backup, work: _Work) -> Verification:
    work.cancellation.check()
    begin, at, level = time.monotonic(), work.clock(), work.options.level
    try:
        with state.in_use(backup.path) as fd:
            kind, problem, evidence = _examine(backup, work, fd)
    except Interrupted:
        raise
    except (PgkeepError, OSError) as error:
        # Nothing is known about the backup then: a missing tool must not spoil it.
        text = f"{error.filename or backup.path}: {error.strerror}" if isinstance(error, OSError) else str(error)
        done = Verification(backup, level, "error", text, time.monotonic() - begin)
    else:
        failure = Failure(at, level, kind, problem) if problem else None
        lost = _keep(backup, level, at, failure, evidence)
        warnings = (*(evidence.warnings if evidence else ()), *([lost] if lost else []))
        seconds = time.monotonic() - begin
        done = Verification(backup, level, kind or "good", problem, seconds, not lost, warnings, evidence)
    work.observer.verified(backup.id, line(done))
    return done


def _keep(backup: Backup, level: str, at: datetime, failure: Failure | None, evidence: Evidence | None) -> str:
    """Given what a verification found, keep it with the backup; return why it could not be kept, or ""."""
    try:
        if evidence:
            keep(os.path.dirname(backup.path), evidence.to_json())
        state.change(backup.path, lambda known: known.after(level, at, failure), secrets.token_hex(8))
    except (PgkeepError, OSError) as error:
        return f"the result could not be kept with the backup: {error}"
    return ""


def _examine(backup: Backup, work: _Work, fd: int) -> tuple[str, str, Evidence | None]:
    """Given a backup, return the kind of its damage and the damage in words, or two empty texts, and the evidence of a
    drill. Raise PgkeepError or OSError where it cannot be known.
    """
    document, options = catalog.read_manifest(backup.path), work.options
    kind, problem = catalog.checksum_damage(backup.path, document["files"], work.cancellation.check)
    if problem or options.level == "checksum":
        return kind, problem, None
    if options.level == "restore":  # which reads the archive to its end as well
        evidence = _drill(backup, document, work)
        return "" if evidence.verdict == "good" else evidence.verdict, evidence.problem, evidence
    try:
        _read(Stored(archive_path(backup.path, document), document, work.keys), options, fd, work.cancellation)
    except UnreadableError as error:
        return "unreadable", f"the archive cannot be read: {error}", None
    return "", "", None


def _drill(backup: Backup, document: Mapping[str, Any], work: _Work) -> Evidence:
    return drill(
        Drill(
            backup,
            document,
            nearest(work.globals, backup) if backup.kind == "database" else None,
            work.keys,
            work.drills,
            work.options.bin_dir,
            work.options.deadline,
            work.clock,
            work.cancellation,
            work.observer,
        )
    )


def _read(archive: Stored, options: VerifyOptions, fd: int, cancellation: Cancellation) -> None:
    """Given an archive whose bytes are those of its manifest, read it to the end; raise UnreadableError where it has
    none, ToolError where this host cannot tell.
    """
    document, progress = archive.document, Progress()
    environment = commands.environment(Connection(), None, "/", process.SEARCH_PATH)
    limits = Limits(options.deadline, options.deadline)
    needs_client = document["kind"] == "database" and document["format"] != "plain"
    client = tools.newest(options.bin_dir).pg_restore if needs_client else ""
    with Processes(environment, cancellation, (fd,)) as processes:
        processes.limit(limits, lambda: progress.bytes)
        if document["format"] == "directory":
            reader = processes.start(commands.pg_restore_read(client, archive.path), stdout=subprocess.DEVNULL)
            status = reader.wait()
            processes.check()
            if status or reader.errors:
                raise _unreadable(reader.failure(status))
            return
        decompressor(document)  # a program that is missing says nothing about the backup
        try:
            read_file(processes, archive, commands.pg_restore_read(client) if needs_client else (), progress)
        except DecryptionError:
            processes.check()
            raise
        except ToolError as error:
            processes.check()
            raise _unreadable(str(error)) from None


def _unreadable(said: str) -> PgkeepError:
    """Given what pg_restore says, return the error: a tool that is too old says nothing about the backup."""
    if client_lacks(said):
        return ToolError(f"{said}: install a newer postgresql-client, or set bin_dir to where one is")
    return UnreadableError(said)


def line(item: Verification) -> str:
    """Given a verification, return one line for people."""
    took = f" in {human_duration(timedelta(seconds=item.seconds))}" if item.verdict != "planned" else ""
    text = f"{item.backup.id}: {item.verdict} ({item.level}){took}"
    if item.evidence and item.evidence.compared:
        compared, recovery = item.evidence.compared, human_duration(timedelta(seconds=item.evidence.recovery))
        tables = f"{compared['tables']:,} table{'' if compared['tables'] == 1 else 's'}"
        text += f", restored in {recovery}, {compared['rows']:,} rows of {tables} compared"
    return text


def summary(result: Verified) -> str:
    """Given all verifications, return one line for a log."""
    if result.for_another_server:
        return f"nothing to do here: {result.for_another_server}"
    number, bad = len(result.verifications), len(result.bad)
    planned = any(item.verdict == "planned" for item in result.verifications)
    text = f"{'would verify' if planned else 'verified'} {number} backup{'' if number == 1 else 's'}"
    if number and not planned:
        text += f", {bad} no good" if bad else ", all good"
    return f"{text}, {result.left} left out" if result.left else text
