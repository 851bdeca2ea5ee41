# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Restoring a database: look at everything first, restore beside what is there, then put it in place in one step.

    CREATE DATABASE pgkeep_restore_... -> pg_restore -> ANALYZE -> owner, privileges, settings -> ALTER DATABASE RENAME

Whatever fails before the last step, the databases of the server are as they were. Only `fill` writes into a database
that exists, in one transaction.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Callable

from ..adapters import catalog, process, repository, server, server_sql, state, tools
from ..adapters.archive import Progress
from ..adapters.client import as_connected, client_environment
from ..adapters.files import free_space
from ..adapters.observer import Observer
from ..adapters.process import Cancellation, Limits, Processes
from ..adapters.stored import UnreadableError, archive_path, decompressor, read_file, stages_to_read, unpack
from ..domain import commands
from ..domain.backups import Backup, record
from ..domain.choice import choose
from ..domain.database_sql import quote_identifier, quote_literal, reapply
from ..domain.errors import DONE, ConfigurationError, PgkeepError, RepositoryError, ServerError, ToolError
from ..domain.facts import ServerFacts
from ..domain.model import Choice, Connection, RestoreOptions, build
from ..domain.outcomes import Outcome
from ..domain.restoration import (
    TEMPORARY_PREFIX,
    Destination,
    Needs,
    create_database,
    destination,
    needs,
    without_privileges,
)

Clock = Callable[[], datetime]
_TICK = 0.5  # seconds between two attempts to get the live database for ourselves
_OBJECT_IN_USE = "55006"  # sessions on it, or prepared transactions in it
_COMMENT_ON_EXTENSION = re.compile(r"^(\d+; \d+ \d+ COMMENT - EXTENSION )", re.MULTILINE)
_PARALLEL_FORMATS = ("custom", "directory")


@dataclass(frozen=True)
class Restored:
    """What was restored, or would be."""

    backup: Backup
    where: Destination
    check: bool
    warnings: tuple[str, ...]
    command: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    old: str | None = None  # name of the database that was replaced, while it exists

    failed = False
    exit_code = DONE

    @property
    def changed(self) -> bool:
        """Return whether a database was restored, or would be."""
        return self.where.action != "skip"

    @property
    def message(self) -> str:
        """Return what was done, in one line."""
        name, source = self.where.name, self.backup.id
        if self.where.action == "skip":
            return f"{name} exists: nothing was done"
        text = f"{'would restore' if self.check else 'restored'} {source} into {name}"
        if self.where.action == "replace":
            text += f", {'replacing' if self.check else 'which replaced'} the old one"
            if self.where.old and (self.check or self.old):
                text += f" (kept as {self.where.old})"
        took = "" if self.check else f" in {sum(self.seconds.values()):.1f} s"
        return text + took

    @property
    def diff(self) -> dict[str, str]:
        """Return the database before and after."""
        name, old = self.where.name, self.where.old
        before = {"create": "", "skip": f"{name}\n", "fill": f"{name} (empty)\n", "replace": f"{name}\n"}
        after = f"{name} (restored from {self.backup.id})\n"
        if self.where.action == "replace":
            after += f"{old} (was {name})\n"
        return {"before": before[self.where.action], "after": after if self.changed else f"{name}\n"}

    def to_json(self) -> dict[str, Any]:
        """Return what the module and --json give."""
        return {
            "backup": record(self.backup),
            "target": self.where.name,
            "action": self.where.action,
            "old": self.old,
            "command": list(self.command),
            "seconds": {stage: round(taken, 3) for stage, taken in self.seconds.items()},
        }


@dataclass(frozen=True)
class Plan:
    """Everything that is known before anything is touched."""

    backup: Backup
    document: Mapping[str, Any]
    where: Destination
    options: RestoreOptions
    connection: Connection
    facts: ServerFacts
    client: tools.Tools
    needs: Needs
    environment: Mapping[str, str]
    inherit: tuple[int, ...]
    clock: Clock
    cancellation: Cancellation

    @property
    def jobs(self) -> int:
        """Return how many jobs pg_restore gets: a database that is filled is filled in one transaction."""
        if self.document["format"] not in _PARALLEL_FORMATS or self.where.action == "fill":
            return 1
        return self.options.jobs or len(os.sched_getaffinity(0))

    @property
    def maintenance(self) -> str:
        """Return the database to be in while others are created and renamed."""
        first = self.connection.login_db
        return first if first != self.where.name else "template1" if first == "postgres" else "postgres"

    def command(self, database: str, path: str | None, use_list: str | None = None) -> tuple[str, ...]:
        """Given the database to restore into and the archive (None: stdin), return the command that restores."""
        alone = self.where.action == "fill"
        if self.document["format"] == "plain":
            psql = os.path.join(os.path.dirname(self.client.pg_restore), "psql")
            return commands.psql_into(psql, self.connection, database, one_transaction=alone)
        jobs = self.jobs if path else 1
        return commands.pg_restore_into(
            self.client.pg_restore,
            self.connection,
            database,
            self.options,
            jobs,
            path,
            use_list,
            one_transaction=alone,
        )


def find(raw: Mapping[str, Any]) -> Backup:
    """Given options as a user wrote them, return the backup that is meant; raise PgkeepError."""
    choice = build(Choice, raw)
    place = repository.open_for_reading(choice.repository)
    return choose([item for item in catalog.scan(place) if isinstance(item, Backup)], choice)


def contents(raw: Mapping[str, Any], cancellation: Cancellation) -> str:
    """Given options as a user wrote them, return what pg_restore lists of the backup's archive; raise PgkeepError."""
    backup, options = find(raw), build(RestoreOptions, raw)
    document = catalog.read_manifest(backup.path)
    if document["format"] == "plain":
        raise ConfigurationError(f"{backup.id} is plain SQL, which has no list of contents: read {backup.path}")
    environment = commands.environment(Connection(), None, "/", process.SEARCH_PATH)
    with state.in_use(backup.path) as fd, Processes(environment, cancellation, (fd,)) as processes:
        return _listed(processes, document, archive_path(backup.path, document), tools.newest(options.bin_dir))


def _listed(processes: Processes, document: Mapping[str, Any], path: str, client: tools.Tools) -> str:
    """Given an archive, return pg_restore's list of it; raise ToolError."""
    unpacking = decompressor(document)
    if not unpacking:
        lister = processes.start(commands.pg_restore_list(client.pg_restore, path))
    else:
        with open(path, "rb") as file:
            source = processes.start(unpacking, stdin=file.fileno())
        lister = processes.start(commands.pg_restore_list(client.pg_restore), stdin=source.stdout.fileno())
        source.stdout.close()  # pg_restore stops after the list
    text = lister.stdout.read().decode(errors="replace")
    lister.check()
    return text


def restore(
    raw: Mapping[str, Any],
    check: bool,
    clock: Clock,
    cancellation: Cancellation | None = None,
    observer: Observer | None = None,
) -> Restored:
    """Given options as a user wrote them, restore the backup that they name (`check`: find out whether it would go);
    raise PgkeepError with everything that is missing.
    """
    options, connection = build(RestoreOptions, raw), build(Connection, raw)
    stop = cancellation or Cancellation()
    backup = find(raw)
    if backup.kind == "globals":
        raise ConfigurationError(f"{backup.id} holds globals, not a database: name a database")
    with state.in_use(backup.path) as fd:
        document = catalog.read_manifest(backup.path)
        with server.connect(connection) as session:
            facts, entries = server.server_facts(session), server.databases(session)
            connection = as_connected(connection, session.host)
            where = destination(str(backup.database), options, entries, clock())
            target = server.target_facts(session, where.name)
            leftovers = [name for (name,) in session.rows(server_sql.LEFTOVERS)]
        if where.action == "skip":
            return Restored(backup, where, check, _left(leftovers))
        if where.action == "fill":
            target = replace(target, objects=_objects(connection, where.name))
        client = tools.find(facts.version_num, options.bin_dir)
        owner = next((entry.owner for entry in entries if entry.name == where.name), None)
        found = needs(document, options, where, facts, target, client.major, owner)
        with client_environment(connection) as (environment, descriptors):
            plan = Plan(
                backup, document, where, options, connection, facts, client, found, environment, (fd, *descriptors),
                clock, stop,
            )  # fmt: skip
            problems = [*found.problems, *_archive_problems(plan)]
            if problems:
                raise ServerError(f"{backup.id} cannot be restored into {where.name!r}: " + "; ".join(problems))
            warnings = (*found.warnings, *_left(leftovers))
            if check:
                path = archive_path(backup.path, document)
                return Restored(backup, where, True, warnings, plan.command(where.name, path), old=where.old)
            return _restore(plan, warnings, observer or Observer())


def _left(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        f"database {name} is what a restore that was killed, or still runs, left: if none runs, DROP DATABASE {name}"
        for name in names
    )


def _objects(connection: Connection, database: str) -> int:
    with server.connect(connection, database) as session:
        return int(session.row(server_sql.OBJECTS)[0])


def _archive_problems(plan: Plan) -> list[str]:
    """Given a plan, return why this host's pg_restore cannot read the archive; it looks at the beginning alone."""
    if plan.document["format"] == "plain":
        psql = os.path.join(os.path.dirname(plan.client.pg_restore), "psql")
        return [] if os.access(psql, os.X_OK) else [f"{psql} is missing: install postgresql-client"]
    try:
        with Processes(plan.environment, plan.cancellation, plan.inherit) as processes:
            processes.limit(Limits(plan.options.deadline, plan.options.deadline), lambda: 0)
            _listed(processes, plan.document, archive_path(plan.backup.path, plan.document), plan.client)
    except ToolError as error:
        advice = f"the archive was written by version {plan.document['tool_version']}: use a client of that version"
        return [f"{error}: {advice}"]
    return []


def _restore(plan: Plan, warnings: Sequence[str], observer: Observer) -> Restored:
    progress, name = Progress(), plan.where.name
    properties = plan.document["properties"] or {}
    observer.started(name, progress, properties.get("tables", 0), None)
    seconds: dict[str, float] = {}
    notes = list(warnings)
    try:
        with _stage(seconds, "checksum"):
            _check_bytes(plan)
        if plan.where.action == "fill":
            old = None
            command = _load(plan, name, progress, seconds, notes)
        else:
            old, command = _beside(plan, progress, seconds, notes)
    except PgkeepError as error:
        observer.finished(Outcome(name, "database", "failed", str(error)))
        raise
    result = Restored(plan.backup, plan.where, False, tuple(notes), command, seconds, old)
    observer.finished(Outcome(name, "database", "done", result.message, result.warnings))
    return result


@contextmanager
def _stage(seconds: dict[str, float], name: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    seconds[name] = time.monotonic() - begin


def _check_bytes(plan: Plan) -> None:
    files = plan.document["files"]
    damage = catalog.checksum_damage if plan.options.checksum else catalog.size_damage
    kind, problem = damage(plan.backup.path, files)
    if problem:
        raise RepositoryError(f"{plan.backup.id} is {kind}: {problem}: choose another backup, or restore from a copy")


def _beside(
    plan: Plan, progress: Progress, seconds: dict[str, float], notes: list[str]
) -> tuple[str | None, tuple[str, ...]]:
    """Given a plan, restore into a database of a temporary name and rename that; return the name under which a
    replaced one is kept, and the command.
    """
    temporary = TEMPORARY_PREFIX + secrets.token_hex(8)
    with server.connect(plan.connection, plan.maintenance, writable=True) as session:
        properties = plan.document["properties"]
        with _stage(seconds, "create"):
            tablespaces = not plan.options.no_tablespaces
            session.rows(create_database(temporary, properties, plan.facts.major, tablespaces))
        try:
            marker = f"pgkeep: restore of {plan.backup.id}, process {os.getpid()} on {socket.gethostname()}"
            quoted = quote_identifier(temporary)
            session.rows(f"COMMENT ON DATABASE {quoted} IS {quote_literal(marker)}")
            command = _load(plan, temporary, progress, seconds, notes)
            with _stage(seconds, "swap"):
                _finish(session, plan, temporary)
                plan.cancellation.check()
                _put_in_place(session, plan, temporary)
        except BaseException:
            _drop(session, temporary)
            raise
        old = plan.where.old
        if old and plan.options.drop_old:
            try:
                session.rows(f"DROP DATABASE {quote_identifier(old)}")
                old = None
            except ServerError as error:
                notes.append(f"the replaced database stays as {old}: {error}")
    return old, command


def _drop(session: server.Session, temporary: str) -> None:
    try:
        session.rows(f"DROP DATABASE IF EXISTS {quote_identifier(temporary)} WITH (FORCE)")
    except ServerError:
        pass  # the next restore names it; why this one failed is more important


def _finish(session: server.Session, plan: Plan, temporary: str) -> None:
    """Give the restored database what its archive does not hold. Last, as a setting could stop the rest."""
    quoted = quote_identifier(temporary)
    session.rows(f"COMMENT ON DATABASE {quoted} IS NULL")
    properties = plan.document["properties"]
    if properties is None:
        return
    applied = without_privileges(properties, plan.options.no_privileges)
    for statement in reapply(applied, temporary, plan.needs.without_roles):
        session.rows(statement)


def _put_in_place(session: server.Session, plan: Plan, temporary: str) -> None:
    """Rename the restored database, and before it the live one, in one transaction; raise ServerError."""
    name, old = quote_identifier(plan.where.name), plan.where.old
    rename = f"ALTER DATABASE {quote_identifier(temporary)} RENAME TO {name}"
    if plan.where.action == "create":
        session.rows(rename)
        return
    # Sent as one, so one transaction. The first statement waits five seconds for sessions and lets no new one in.
    swap = f"ALTER DATABASE {name} RENAME TO {quote_identifier(str(old))}; {rename}"
    until = time.monotonic() + plan.options.sessions_timeout.total_seconds()
    while True:
        plan.cancellation.check()
        if plan.options.sessions == "terminate":
            session.rows(server_sql.TERMINATE, {"database": plan.where.name})
        try:
            session.rows(swap)
            return
        except ServerError as error:
            busy = getattr(error, "code", "") == _OBJECT_IN_USE
            if not busy or plan.options.sessions == "fail" or time.monotonic() > until:
                advice = ": end the sessions on it, or set `sessions`" if busy else ""
                raise ServerError(f"{plan.where.name} was not replaced and is as it was: {error}{advice}") from None
        time.sleep(_TICK)


# --- the archive into a database ---


def _load(
    plan: Plan, database: str, progress: Progress, seconds: dict[str, float], notes: list[str]
) -> tuple[str, ...]:
    """Given a plan and an empty database, restore the archive into it and look at the result; return the command."""
    with _stage(seconds, "restore"):
        command = _run(plan, database, progress, notes)
    if plan.options.analyze:
        with _stage(seconds, "analyze"), server.connect(plan.connection, database, writable=True) as session:
            session.rows("ANALYZE")
    notes += _missing(plan, database)
    return command


def _run(plan: Plan, database: str, progress: Progress, notes: list[str]) -> tuple[str, ...]:
    path, document = archive_path(plan.backup.path, plan.document), plan.document
    with Processes(plan.environment, plan.cancellation, plan.inherit) as processes:
        limits = Limits(plan.options.deadline, plan.options.deadline)
        processes.limit(limits, lambda: progress.bytes + progress.tables)
        try:
            if not decompressor(document) and document["format"] in _PARALLEL_FORMATS:
                return _from_file(plan, database, processes, path, progress)
            with _unpacked(plan, processes, path, notes) as unpacked:
                if unpacked is not None:
                    return _from_file(plan, database, processes, f"/proc/self/fd/{unpacked}", progress, unpacked)
                command = plan.command(database, None)
                read_file(processes, stages_to_read(document, command), path, document["content_sha256"], progress)
                return command
        except (ToolError, UnreadableError) as error:
            processes.check()
            raise ToolError(f"{plan.backup.id} could not be restored, {_untouched(plan)}: {error}") from None


def _untouched(plan: Plan) -> str:
    return "and nothing is left of it" if plan.where.action == "create" else f"and {plan.where.name} is as it was"


def _from_file(
    plan: Plan, database: str, processes: Processes, path: str, progress: Progress, inherited: int | None = None
) -> tuple[str, ...]:
    """Given an archive that several jobs can read, restore it; return the command. Raise ToolError."""
    wanted = None if plan.facts.is_superuser else _without_comments(processes, path, plan)
    use_list = None if wanted is None else f"/proc/self/fd/{wanted}"
    extra = tuple(fd for fd in (wanted, inherited) if fd is not None)
    try:
        with Processes(plan.environment, plan.cancellation, (*plan.inherit, *extra)) as restoring:
            limits = Limits(plan.options.deadline, plan.options.deadline)
            command = plan.command(database, path, use_list)
            running = progress.dump = restoring.start(command, stdout=subprocess.DEVNULL)
            restoring.limit(limits, lambda: progress.tables)
            status = running.wait()
            restoring.check()
            if status or running.errors:
                raise ToolError(running.failure(status))
            return command
    finally:
        if wanted is not None:
            os.close(wanted)


def _without_comments(processes: Processes, path: str, plan: Plan) -> int:
    """Return the descriptor of a list of all that is in the archive but comments on extensions: these are the
    extension owner's to change, who is the superuser for one that came with the server.
    """
    with Processes(plan.environment, plan.cancellation, _descriptor(path)) as listing:
        lister = listing.start(commands.pg_restore_list(plan.client.pg_restore, path))
        text = lister.stdout.read().decode(errors="surrogateescape")
        lister.check()
    processes.check()
    kept = _COMMENT_ON_EXTENSION.sub(r";\1", text)
    return process.memory_file("list", kept.encode(errors="surrogateescape"))


def _descriptor(path: str) -> tuple[int, ...]:
    number = path.rpartition("/")[2]
    return (int(number),) if path.startswith("/proc/self/fd/") else ()


@contextmanager
def _unpacked(plan: Plan, processes: Processes, path: str, notes: list[str]) -> Iterator[int | None]:
    """Given a compressed archive, yield the descriptor of an unpacked, unnamed copy for several jobs to read; None where
    it is restored as it comes.
    """
    if not decompressor(plan.document) or plan.document["format"] != "custom":
        yield None
        return
    if plan.jobs == 1 and plan.facts.is_superuser:
        yield None
        return
    directory, size = plan.options.work_dir, plan.document["database_size"] or 0
    try:
        if free_space(directory)[0] < size:
            raise OSError("not enough space")
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        notes.append(f"restored with one job, as the archive could not be unpacked in {directory} ({error})")
        yield None
        return
    try:
        unpack(processes, plan.document, path, fd)
        yield fd
    finally:
        os.close(fd)


def _missing(plan: Plan, database: str) -> list[str]:
    """Given the restored database, return how it differs from what was recorded when the backup began."""
    properties, options = plan.document["properties"], plan.options
    if properties is None or plan.document["partial"] or options.tables or options.schemas:
        return []
    with server.connect(plan.connection, database) as session:
        facts = server.database_facts(session)
    return [
        f"{getattr(facts, key)} {what} were restored, {properties[key]} were there when the backup began"
        for key, what in (("tables", "tables"), ("large_objects", "large objects"))
        if getattr(facts, key) != properties[key]
    ]
