# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""The drill: a backup is restored into a throw-away server, and what is there then is compared with the archive.

    initdb, start -> globals -> what `pgkeep restore --compare` does -> checks

Nothing of an archive is believed: all programs that see it run in the sandbox, the server among them.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Callable

from ..adapters import server, throwaway
from ..adapters.archive import Progress
from ..adapters.encryption import Keys
from ..adapters.observer import Observer
from ..adapters.process import Cancellation, Limits, Processes, read_up_to
from ..adapters.stored import UnreadableError
from ..adapters.tools import find_server
from ..domain import commands
from ..domain.backups import Backup
from ..domain.database_sql import quote_identifier, quote_literal
from ..domain.drill import (
    Answer,
    Evidence,
    checks_for,
    host_problem,
    roles_to_invent,
    wanted_major,
)
from ..domain.errors import PgkeepError, ServerError, ToolError
from ..domain.model import Check, DrillOptions, RestoreOptions
from ..domain.restoration import major_of
from ..domain.version import VERSION
from . import globals as cluster
from .loading import NotRestoredError
from .proof import DifferentError
from .restore import Way, restore_backup

Clock = Callable[[], datetime]
_LONGEST_GLOBALS = 256 * 1024 * 1024  # bytes
_LONGEST_ANSWER = 64 * 1024  # bytes of what a check returns; whatever is longer is not what was expected


@dataclass(frozen=True)
class Drill:
    """One drill: what is drilled, and how."""

    backup: Backup
    document: Mapping[str, Any]
    globals: Backup | None  # the backup of the globals that belongs to it
    keys: Keys  # which no program in the sandbox ever gets
    options: DrillOptions
    bin_dir: str | None
    deadline: timedelta
    clock: Clock
    cancellation: Cancellation
    observer: Observer

    @property
    def limits(self) -> Limits:
        """Return how long one program of it may take."""
        return Limits(self.deadline, self.deadline)


def drill(task: Drill) -> Evidence:
    """Given a backup that is in use by us and whose bytes are those of its manifest, drill it; return the evidence.

    What is wrong with the backup is in the evidence. Raise PgkeepError or OSError where nothing can be said of it: the
    host lacks something, or the drill was interrupted.
    """
    document = task.document
    major, newer = wanted_major(document)
    programs = find_server(major or 1, task.bin_dir, newer=newer)
    evidence = Evidence(
        task.backup.id, task.clock(), socket.gethostname(), VERSION, task.options.sandbox, document["server_version"]
    )
    evidence.server_version = programs.version
    if newer and programs.major != major_of(document["server_version"]):
        evidence.warnings.append(
            f"drilled on PostgreSQL {programs.major}, as the archive was written by pg_dump {document['tool_version']}"
        )
    with throwaway.workspace(task.options.work_dir) as place:
        confinement = throwaway.confine(place, task.cancellation, task.options.sandbox)
        begin = time.monotonic()
        with throwaway.server(programs, place, confinement, task.cancellation, task.options.preload) as running:
            evidence.seconds["server"] = time.monotonic() - begin
            try:
                (_drill_globals if task.backup.kind == "globals" else _drill_database)(task, running, evidence)
            except PgkeepError:
                running.check()  # a server that ended is the better explanation
                raise
    evidence.finished = task.clock()
    return evidence


@contextmanager
def _stage(evidence: Evidence, name: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    evidence.seconds[name] = time.monotonic() - begin


# --- a database ---


def _drill_database(task: Drill, running: throwaway.Running, evidence: Evidence) -> None:
    with _stage(evidence, "globals"):
        _prepare(task, running, evidence)
    if not _restore(task, running, evidence):
        return
    with _stage(evidence, "checks"):
        for check in checks_for(task.options.checks, task.backup.title):
            answer = _ask(task, running, check)
            evidence.answers.append(answer)
            if not answer.passed:
                said = f"the check {answer.query!r} returned {answer.returned!r} instead of {answer.expected!r}"
                evidence.found("unexpected", said)


def _prepare(task: Drill, running: throwaway.Running, evidence: Evidence) -> None:
    """Create the roles of the globals, those that the backup names and the globals do not, and its tablespaces."""
    if task.globals is None:
        evidence.warnings.append("there is no backup of the globals: roles without rights stand in for the real ones")
    else:
        try:
            _restore_globals(cluster.read(task.globals, task.keys), running, evidence)
        except PgkeepError as error:
            evidence.warnings.append(f"{task.globals.id} could not be restored: {error}")
    with server.connect(running.connection, writable=True) as session:
        there = {name for (name,) in session.rows("SELECT rolname::text FROM pg_roles")}
        for name in roles_to_invent(task.document):
            if name not in there:
                session.rows(f"CREATE ROLE {quote_identifier(name)}")
        for number, name in enumerate((task.document["properties"] or {}).get("tablespaces", ())):
            place = quote_literal(running.directory(f"tablespace-{number}"))
            session.rows(f"CREATE TABLESPACE {quote_identifier(name)} LOCATION {place}")


def _restore(task: Drill, running: throwaway.Running, evidence: Evidence) -> bool:
    """Restore as `pgkeep restore --compare` would; return whether that went well. Raise where it is not the backup's fault."""
    database = str(task.backup.database)
    options = replace(
        RestoreOptions(),
        replace=database,  # in case it is one that every server has
        sessions="terminate",
        checksum=False,
        compare=True,
        deadline=task.deadline,
        work_dir=task.options.work_dir,
    )
    way = Way(
        running.connection,
        running.tools,
        throwaway.ENVIRONMENT,
        (running.workspace.inherit,),  # never a directory's descriptor: it leads out of the sandbox
        running.prefix((task.backup.path,)),
        task.keys,
    )
    try:
        restored = restore_backup(task.backup, options, way, False, task.clock, task.cancellation, _Attendant(task))
    except DifferentError as error:
        evidence.compared = error.proof.compared
        evidence.warnings += error.proof.notes
        evidence.found("differs", "; ".join(error.proof.differences))
        return False
    except (NotRestoredError, UnreadableError) as error:
        _blame_host(error, running)
        verdict = "unreadable" if isinstance(error, UnreadableError) else "unrestorable"
        evidence.found(verdict, str(error).partition(": ")[2])  # without what became of the database
        return False
    except PgkeepError as error:
        _blame_host(error, running)
        raise
    evidence.seconds.update(restored.seconds)
    evidence.compared = restored.proof.compared if restored.proof else {}
    evidence.warnings += restored.warnings
    return True


def _blame_host(error: PgkeepError, running: throwaway.Running) -> None:
    """Given why a restore failed, raise ToolError where that is this host's fault and not the backup's."""
    advice = host_problem(str(error))
    if advice:
        running.check()
        raise ToolError(f"{error}: {advice}") from None


class _Attendant(Observer):
    """Shows a drill's restore under the name of its backup; the drill is not over when the restore is."""

    def __init__(self, task: Drill) -> None:
        self._task = task

    def started(self, database: str, progress: Progress, tables: int, expected: int | None) -> None:
        """Given a restore that begins, show it."""
        self._task.observer.started(self._task.backup.id, progress, tables, expected)


def _ask(task: Drill, running: throwaway.Running, check: Check) -> Answer:
    """Given a check, ask the restored database; return what it says."""
    command = commands.psql_query(running.tools.psql, running.connection, str(task.backup.database), check.query)
    inherit = (running.workspace.inherit,)
    with Processes(throwaway.ENVIRONMENT, task.cancellation, inherit, running.prefix()) as programs:
        asking = programs.start(command)
        programs.limit(task.limits, lambda: 0)
        said = read_up_to(asking.stdout, _LONGEST_ANSWER).decode(errors="backslashreplace").rstrip("\n")
        asking.stdout.close()
        status = asking.wait()
        programs.check()
    if status:
        return Answer(check.query, check.expected, asking.failure(status), False)
    return Answer(check.query, check.expected, said, said == check.expected)


# --- the globals ---


def _drill_globals(task: Drill, running: throwaway.Running, evidence: Evidence) -> None:
    try:
        before = cluster.read(task.backup, task.keys)
    except UnreadableError as error:
        evidence.found("unreadable", str(error))
        return
    with _stage(evidence, "globals"):
        try:
            _restore_globals(before, running, evidence)
        except ServerError as error:
            running.check()
            evidence.found("unrestorable", str(error))
            return
    with _stage(evidence, "compare"):
        different = cluster.differences(before, _globals_of(task, running))
    if different:
        evidence.found("differs", "; ".join(different))


def _restore_globals(script: bytes, running: throwaway.Running, evidence: Evidence) -> None:
    with server.connect(running.connection, writable=True) as session:
        planned = cluster.plan_globals(session, script, tablespaces=False)
        evidence.warnings += planned.warnings
        cluster.apply(session, planned)


def _globals_of(task: Drill, running: throwaway.Running) -> bytes:
    """Return the globals of the throw-away server, as they would be backed up."""
    command = commands.pg_dumpall_globals(running.tools.pg_dumpall, running.connection, True)
    inherit = (running.workspace.inherit,)
    with Processes(throwaway.ENVIRONMENT, task.cancellation, inherit, running.prefix()) as programs:
        dumping = programs.start(command)
        programs.limit(task.limits, lambda: 0)
        script = read_up_to(dumping.stdout, _LONGEST_GLOBALS)
        dumping.stdout.close()  # or one that has more to say would wait for ever
        dumping.check()
        programs.check()
    return script
