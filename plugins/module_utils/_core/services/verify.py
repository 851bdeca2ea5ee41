# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Verifying backups: each level includes the ones below it, and what it found is kept with the backup."""

from __future__ import annotations

import secrets
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Callable

from ..adapters import catalog, process, repository, state, tools
from ..adapters.archive import Progress
from ..adapters.observer import Observer
from ..adapters.process import Cancellation, Limits, Processes
from ..adapters.stored import UnreadableError, archive_path, read_file, stages_to_read
from ..domain import commands
from ..domain.backups import Backup, Failure
from ..domain.errors import DONE, FAILED, SOME_FAILED, Interrupted, PgkeepError, ToolError
from ..domain.filtering import folder_wanted, matches
from ..domain.model import Connection, Filter, Repository, VerifyOptions, build
from ..domain.verification import due

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
    warning: str = ""

    @property
    def ok(self) -> bool:
        """Return whether nothing is wrong."""
        return self.verdict in ("good", "planned")

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
        }


@dataclass(frozen=True)
class Verified:
    """All that were verified."""

    verifications: tuple[Verification, ...]
    left: int  # matching backups that were not due, or not in the sample

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
        """Return whether any is no good."""
        return bool(self.bad)

    @property
    def exit_code(self) -> int:
        """Return the command's exit code."""
        if not self.bad:
            return DONE
        return FAILED if len(self.bad) == len(self.verifications) else SOME_FAILED

    @property
    def message(self) -> str:
        """Return what is no good, in one line; "" when nothing is."""
        return "; ".join(f"{item.backup.id}: {item.verdict}: {item.problem}" for item in self.bad)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what a person should look at."""
        return tuple(item.warning for item in self.verifications if item.warning)

    def to_json(self) -> dict[str, Any]:
        """Return what the module and --json give."""
        return {"verifications": [item.to_json() for item in self.verifications], "not_due": self.left}


def verify(
    raw: Mapping[str, Any],
    check: bool,
    clock: Clock,
    cancellation: Cancellation | None = None,
    observer: Observer | None = None,
) -> Verified:
    """Given options as a user wrote them, verify the backups that they ask for (`check`: say which); raise PgkeepError.

    What is wrong with one backup is a result and stops no other.
    """
    wanted, options = build(Filter, raw), build(VerifyOptions, raw)
    place = repository.open_for_reading(build(Repository, raw).repository)
    stop = cancellation or Cancellation()
    now = clock()
    found = [
        item
        for item in catalog.scan(place, lambda instance, folder: folder_wanted(wanted, instance, folder))
        if isinstance(item, Backup) and matches(item, wanted, now)
    ]
    todo = due(found, options, now)
    if check:
        return Verified(tuple(Verification(item, options.level, "planned") for item in todo), len(found) - len(todo))
    # One result after the other is kept, so that what was done before an interruption counts.
    done = tuple(_verify(item, options, clock, stop) for item in todo)
    return Verified(done, len(found) - len(todo))


def _verify(backup: Backup, options: VerifyOptions, clock: Clock, cancellation: Cancellation) -> Verification:
    begin, at = time.monotonic(), clock()
    cancellation.check()
    try:
        with state.in_use(backup.path) as fd:
            kind, problem = _examine(backup, options, fd, cancellation)
    except Interrupted:
        raise
    except (PgkeepError, OSError) as error:
        # Nothing is known about the backup then: a missing tool must not spoil it.
        text = error.strerror if isinstance(error, OSError) else str(error)
        return Verification(backup, options.level, "error", str(text), time.monotonic() - begin)
    failure = Failure(at, options.level, kind, problem) if problem else None
    recorded, warning = True, ""
    try:
        state.change(backup.path, lambda known: known.after(options.level, at, failure), secrets.token_hex(8))
    except (PgkeepError, OSError) as error:
        recorded, warning = False, f"{backup.id}: the result could not be kept with the backup: {error}"
    seconds = time.monotonic() - begin
    return Verification(backup, options.level, kind or "good", problem, seconds, recorded, warning)


def _examine(backup: Backup, options: VerifyOptions, fd: int, cancellation: Cancellation) -> tuple[str, str]:
    """Given a backup, return the kind of its damage and the damage in words, or two empty texts.

    Raise PgkeepError or OSError where it cannot be known.
    """
    document = catalog.read_manifest(backup.path)
    damage = catalog.checksum_damage(backup.path, document["files"], cancellation.check)
    if damage[1] or options.level == "checksum":
        return damage
    try:
        _read(backup.path, document, options, fd, cancellation)
    except UnreadableError as error:
        return "unreadable", f"the archive cannot be read: {error}"
    return "", ""


def _read(path: str, document: Mapping[str, Any], options: VerifyOptions, fd: int, cancellation: Cancellation) -> None:
    """Given a backup whose bytes are those of its manifest, read its archive to the end; raise UnreadableError where it
    has none, ToolError where this host cannot tell.
    """
    target, progress = archive_path(path, document), Progress()
    environment = commands.environment(Connection(), None, "/", process.SEARCH_PATH)
    limits = Limits(options.deadline, options.deadline)
    needs_client = document["kind"] == "database" and document["format"] != "plain"
    client = tools.newest(options.bin_dir).pg_restore if needs_client else ""
    with Processes(environment, cancellation, (fd,)) as processes:
        processes.limit(limits, lambda: progress.bytes)
        if document["format"] == "directory":
            reader = processes.start(commands.pg_restore_read(client, target), stdout=subprocess.DEVNULL)
            status = reader.wait()
            processes.check()
            if status or reader.errors:
                raise _unreadable(reader.failure(status))
            return
        todo = stages_to_read(document, commands.pg_restore_read(client) if needs_client else ())
        try:
            read_file(processes, todo, target, document["content_sha256"], progress)
        except ToolError as error:
            processes.check()
            raise _unreadable(str(error)) from None


def _unreadable(said: str) -> PgkeepError:
    """Given what pg_restore says, return the error: a tool that is too old says nothing about the backup."""
    if "unsupported version" in said or "not built with" in said or "compression is not supported" in said:
        return ToolError(f"{said}: install a newer postgresql-client, or set bin_dir to where one is")
    return UnreadableError(said)


def line(item: Verification) -> str:
    """Given a verification, return one line for people."""
    took = f" in {item.seconds:.1f} s" if item.verdict != "planned" else ""
    return f"{item.backup.id}: {item.verdict} ({item.level}){took}"


def summary(result: Verified) -> str:
    """Given all verifications, return one line for a log."""
    number, bad = len(result.verifications), len(result.bad)
    text = (
        f"verified {number} backup{'' if number == 1 else 's'}, {bad} no good"
        if bad
        else f"verified {number}, all good"
    )
    return f"{text}, {result.left} not due" if result.left else text
