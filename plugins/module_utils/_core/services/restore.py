# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Restoring a database: look at everything first, restore beside what is there, then put it in place in one step.

    CREATE DATABASE pgkeep_restore_... -> pg_restore -> ANALYZE -> [compare] -> owner, privileges, settings -> RENAME

Whatever fails before the last step, the databases of the server are as they were. Only `fill` writes into a database
that exists, in one transaction.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, Callable

from ..adapters import catalog, process, server, server_sql, state, tools
from ..adapters.archive import Progress
from ..adapters.client import as_connected, client_environment
from ..adapters.encryption import Keys
from ..adapters.observer import Observer
from ..adapters.process import Cancellation
from ..adapters.stored import UnreadableError, archive_path
from ..domain import commands
from ..domain.backups import GLOBALS, Backup, record
from ..domain.choice import choose, nearest
from ..domain.database_sql import quote_identifier, quote_literal, reapply
from ..domain.dump_header import client_lacks
from ..domain.errors import (
    DONE,
    ConfigurationError,
    DecryptionError,
    PgkeepError,
    RepositoryError,
    ServerError,
    ToolError,
)
from ..domain.globals_plan import Change
from ..domain.globals_plan import Plan as GlobalsPlan
from ..domain.job import check_connection
from ..domain.model import Choice, Connection, Decryption, RestoreOptions, build
from ..domain.outcomes import Outcome
from ..domain.restoration import (
    TEMPORARY_PREFIX,
    Destination,
    Needs,
    create_database,
    destination,
    missing_parts,
    missing_roles,
    needed_schemas,
    needs,
    without_privileges,
)
from ..domain.text import change_lines
from . import globals as cluster
from .loading import PARALLEL_FORMATS, Loading, check_decryption, listed, load
from .proof import DifferentError, Proof, Reading, compare
from .source import Source, source

Clock = Callable[[], datetime]
_TICK = 0.5  # seconds between two attempts to get the live database for ourselves
_OBJECT_IN_USE = "55006"  # sessions on it, or prepared transactions in it


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
    changes: tuple[Change, ...] = ()  # to roles, tablespaces and what else is not a database's
    proof: Proof | None = None  # that the contents are equal, where that was asked for

    failed = False
    exit_code = DONE

    @property
    def changed(self) -> bool:
        """Return whether something was restored, or would be."""
        if self.backup.kind == "globals":
            return any(change.changes for change in self.changes)
        return self.where.action != "skip"

    @property
    def message(self) -> str:
        """Return what was done, in one line."""
        name, source = self.where.name, self.backup.id
        if self.backup.kind == "globals":
            number = sum(change.changes for change in self.changes)
            if not number:
                return f"{source} has nothing that is not on the server"
            what = f"{number} change{'' if number == 1 else 's'}"
            return f"would restore {source}: {what}" if self.check else f"restored {source}: {what}"
        if self.where.action == "skip":
            return f"{name} exists: nothing was done"
        text = f"{'would restore' if self.check else 'restored'} {source} into {name}"
        if self.where.action == "replace":
            text += f", {'replacing' if self.check else 'which replaced'} the old one"
            if self.old:
                text += f" (kept as {self.old})"
        took = "" if self.check else f" in {sum(self.seconds.values()):.1f} s"
        return text + took + (f", {self.proof.compared['rows']:,} rows compared" if self.proof else "")

    @property
    def diff(self) -> dict[str, str]:
        """Return the database before and after; of globals, what is not yet as in the backup."""
        if self.backup.kind == "globals":
            lines = change_lines([change for change in self.changes if change.changes])
            return {"before": "", "after": "".join(f"{line}\n" for line in lines)}
        name = self.where.name
        before = {"create": "", "skip": f"{name}\n", "fill": f"{name} (empty)\n", "replace": f"{name}\n"}
        after = f"{name} (restored from {self.backup.id})\n"
        if self.old:
            after += f"{self.old} (was {name})\n"
        after += "".join(f"{change.kind} {change.name}\n" for change in self.changes if change.changes)
        return {"before": before[self.where.action], "after": after if self.changed else f"{name}\n"}

    def to_json(self) -> dict[str, Any]:
        """Return what the module and --json give."""
        return {
            "backup": record(self.backup),
            "target": self.where.name,
            "action": self.where.action,
            "old": self.old,
            "command": list(self.command),
            "changes": [change.to_json() for change in self.changes],
            "compared": self.proof.compared if self.proof else None,
            "seconds": {stage: round(taken, 3) for stage, taken in self.seconds.items()},
        }


@dataclass(frozen=True)
class Way:
    """How a server is reached: by us, and by the programs; and what decrypts what gets there."""

    connection: Connection
    client: tools.Tools
    environment: Mapping[str, str]
    inherit: tuple[int, ...]  # descriptors that the programs need
    prefix: tuple[str, ...]  # what the programs are run with
    keys: Keys


@dataclass(frozen=True)
class Plan:
    """Everything that is known before anything is touched."""

    backup: Backup
    where: Destination
    needs: Needs
    server_major: int
    roles: GlobalsPlan | None  # roles that have to be created before
    schemas: tuple[str, ...]  # which the archive's part that is restored needs and does not hold
    loading: Loading
    cancellation: Cancellation

    @property
    def document(self) -> Mapping[str, Any]:
        """Return the backup's manifest."""
        return self.loading.document

    @property
    def options(self) -> RestoreOptions:
        """Return what was asked for."""
        return self.loading.options

    @property
    def connection(self) -> Connection:
        """Return how the server is reached."""
        return self.loading.connection

    @property
    def maintenance(self) -> str:
        """Return the database to be in while others are created and renamed."""
        first = self.connection.login_db
        return first if first != self.where.name else "template1" if first == "postgres" else "postgres"


def contents(raw: Mapping[str, Any], cancellation: Cancellation) -> str:
    """Given options as a user wrote them, return what pg_restore lists of the backup's archive; raise PgkeepError."""
    with Keys(build(Decryption, raw)) as keys, source(raw, cancellation) as found:  # the keys before root is given up
        return _contents(found.here(choose(found.backups, build(Choice, raw))), raw, keys, cancellation)


def _contents(backup: Backup, raw: Mapping[str, Any], keys: Keys, cancellation: Cancellation) -> str:
    options, document = build(RestoreOptions, raw), catalog.read_manifest(backup.path)
    if document["format"] == "plain":
        raise ConfigurationError(f"{backup.id} is plain SQL, which has no list of contents: read {backup.path}")
    environment = commands.environment(Connection(), None, "/", process.SEARCH_PATH)
    with state.in_use(backup.path) as fd:
        way = Way(Connection(), tools.newest(options.bin_dir), environment, (fd,), (), keys)
        with _of(backup):
            return listed(_loading(backup, document, options, way, cancellation, superuser=True, alone=False))


@contextmanager
def _of(backup: Backup) -> Iterator[None]:
    """Let what is said of an archive that cannot be decrypted or read name the backup."""
    try:
        yield
    except (DecryptionError, UnreadableError) as error:
        raise type(error)(f"{backup.id} cannot be read: {error}") from None


def _loading(
    backup: Backup,
    document: Mapping[str, Any],
    options: RestoreOptions,
    way: Way,
    cancellation: Cancellation,
    *,
    superuser: bool,
    alone: bool,
) -> Loading:
    """Given a backup and how to reach a server, return how its archive gets there. What shall be `alone` in one
    transaction takes one job.
    """
    several = document["format"] in PARALLEL_FORMATS and not alone
    # What is encrypted is written to a disk as it is only where somebody asks for more than one job.
    jobs = options.jobs or (1 if document["encryption"] else len(os.sched_getaffinity(0)))
    return Loading(
        archive_path(backup.path, document),
        document,
        options,
        way.connection,
        superuser,
        way.client,
        jobs if several else 1,
        alone,
        way.environment,
        way.inherit,
        way.prefix,
        cancellation,
        way.keys,
    )


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
    check_connection(raw)
    stop = cancellation or Cancellation()
    with Keys(build(Decryption, raw)) as keys, source(raw, stop) as found:  # the keys before root is given up
        return _restore_from(found, raw, keys, check, clock, stop, observer or Observer())


def _restore_from(
    found: Source, raw: Mapping[str, Any], keys: Keys, check: bool, clock: Clock, stop: Cancellation, attend: Observer
) -> Restored:
    options, connection = build(RestoreOptions, raw), build(Connection, raw)
    if found.fetches:
        options = replace(options, checksum=False)  # was compared just now
    backup = found.here(choose(found.backups, build(Choice, raw)))
    if backup.kind == "globals":
        return _restore_globals(backup, options, connection, keys, check, stop)
    globals_script = partial(_globals_script, found, backup, keys, stop) if options.create_roles else None
    with state.in_use(backup.path) as fd:
        with server.connect(connection) as session:
            client = tools.find(server.server_facts(session).version_num, options.bin_dir)
            connection = as_connected(connection, session.host)
        with client_environment(connection) as (environment, descriptors):
            way = Way(connection, client, environment, (fd, *descriptors), (), keys)
            return restore_backup(backup, options, way, check, clock, stop, attend, globals_script)


def _restore_globals(
    backup: Backup,
    options: RestoreOptions,
    connection: Connection,
    keys: Keys,
    check: bool,
    cancellation: Cancellation,
) -> Restored:
    """Given a backup of the globals, restore what the server lacks of it, or say what that is; raise PgkeepError."""
    script, begin = cluster.read(backup, keys, cancellation), time.monotonic()
    with server.connect(connection, writable=not check) as session:
        update, tablespaces = options.existing_roles == "update", not options.no_tablespaces
        planned = cluster.plan_globals(session, script, None, update, tablespaces)
        if planned.problems:
            raise ServerError(f"{backup.id} cannot be restored: " + "; ".join(planned.problems))
        if not check:
            cluster.apply(session, planned)
    where, seconds = Destination(GLOBALS, "globals"), {"globals": time.monotonic() - begin}
    return Restored(backup, where, check, planned.warnings, (), seconds, changes=planned.changes)


def _globals_script(found: Source, backup: Backup, keys: Keys, cancellation: Cancellation) -> bytes:
    """Given where backups are, one of a database and what decrypts, return the script of the globals that belong to it."""
    globals_backup = nearest(found.backups, backup)
    if globals_backup is None:
        raise RepositoryError(
            f"create_roles is set, and there is no backup of the globals of {backup.instance}: create the roles yourself"
        )
    return cluster.read(found.here(globals_backup), keys, cancellation)


def restore_backup(
    backup: Backup,
    options: RestoreOptions,
    way: Way,
    check: bool,
    clock: Clock,
    cancellation: Cancellation,
    observer: Observer,
    globals_script: Callable[[], bytes] | None = None,
) -> Restored:
    """Given a backup of a database that is in use by us, what is asked for, how to reach the server and perhaps what to
    create missing roles from, restore it there; raise PgkeepError. `check` as in `restore`.
    """
    document = catalog.read_manifest(backup.path)
    with server.connect(way.connection) as session:
        facts, entries = server.server_facts(session), server.databases(session)
        where = destination(str(backup.database), options, entries, clock())
        leftovers = [name for (name,) in session.rows(server_sql.LEFTOVERS)]
        if where.action == "skip":
            return Restored(backup, where, check, _left(leftovers))
        target = server.target_facts(session, where.name)
        roles = _missing_roles(session, missing_roles(document["properties"], target), globals_script)
    if where.action == "fill":
        target = replace(target, objects=_objects(way.connection, where.name))
    owner = next((entry.owner for entry in entries if entry.name == where.name), None)
    provided = roles.created_roles if roles else frozenset()
    found = needs(document, options, where, facts, target, way.client.major, owner, provided)
    loading = _loading(
        backup, document, options, way, cancellation, superuser=facts.is_superuser, alone=where.action == "fill"
    )
    with _of(backup):
        problems, schemas = _look_into(backup.path, loading)
    problems = [*found.problems, *(roles.problems if roles else ()), *problems]
    if problems:
        raise ServerError(f"{backup.id} cannot be restored into {where.name!r}: " + "; ".join(problems))
    warnings = (
        *([f"{backup.id} {backup.problem}"] if backup.problem else []),
        *found.warnings,
        *(roles.warnings if roles else ()),
        *_left(leftovers),
    )
    if check:
        command, changes = loading.command(where.name, loading.archive), roles.changes if roles else ()
        old = None if options.drop_old else where.old
        return Restored(backup, where, True, warnings, command, old=old, changes=changes)
    plan = Plan(backup, where, found, facts.major, roles, tuple(schemas), loading, cancellation)
    return _restore(plan, warnings, observer)


def _missing_roles(
    session: server.Session, missing: frozenset[str], script: Callable[[], bytes] | None
) -> GlobalsPlan | None:
    """Given roles that the server lacks and perhaps a script that has them, return how they are created."""
    return cluster.plan_globals(session, script(), missing) if script and missing else None


def _left(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        f"database {name} is what a restore that was killed, or still runs, left: if none runs, DROP DATABASE {name}"
        for name in names
    )


def _objects(connection: Connection, database: str) -> int:
    with server.connect(connection, database) as session:
        return int(session.row(server_sql.OBJECTS)[0])


def _look_into(path: str, loading: Loading) -> tuple[list[str], list[str]]:
    """Given a backup's directory and its archive, return why it cannot be restored as asked, and which schemas the
    restored part lacks. Only its beginning is read.
    """
    document, options = loading.document, loading.options
    if document["format"] == "plain":
        check_decryption(loading)
        there = os.access(loading.client.psql, os.X_OK)
        return [] if there else [f"{loading.client.psql} is missing: install postgresql-client"], []
    try:
        listing = listed(loading)
    except DecryptionError:
        raise
    except (ToolError, UnreadableError) as error:
        if client_lacks(str(error)):
            return [f"{error}: the archive was written by version {document['tool_version']}: use a client of it"], []
        kind, problem = catalog.checksum_damage(path, document["files"])
        if isinstance(error, UnreadableError) and not problem:
            raise
        why = f"it is {kind}: {problem}" if problem else f"the archive cannot be read: {error}"
        return [f"{why}: choose another backup, or restore from a copy"], []
    return missing_parts(listing, options), needed_schemas(listing, options)


def _restore(plan: Plan, warnings: Sequence[str], observer: Observer) -> Restored:
    progress, name = Progress(), plan.where.name
    properties = plan.document["properties"] or {}
    progress.stage = "reading"
    observer.started(name, progress, properties.get("tables", 0), None)
    seconds: dict[str, float] = {}
    notes = list(warnings)
    try:
        with _stage(seconds, "checksum"):
            _check_bytes(plan)
        if plan.roles:
            with _stage(seconds, "roles"), server.connect(plan.connection, writable=True) as session:
                cluster.apply(session, plan.roles)
        if plan.where.action == "fill":
            old = None
            command, proof = _load(plan, name, progress, seconds, notes)
        else:
            old, command, proof = _beside(plan, progress, seconds, notes)
    except PgkeepError as error:
        observer.finished(Outcome(name, "database", "failed", str(error)))
        raise
    changes = plan.roles.changes if plan.roles else ()
    result = Restored(plan.backup, plan.where, False, tuple(notes), command, seconds, old, changes, proof)
    observer.finished(Outcome(name, "database", "done", result.message, result.warnings))
    return result


@contextmanager
def _stage(seconds: dict[str, float], name: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    seconds[name] = time.monotonic() - begin


def _check_bytes(plan: Plan) -> None:
    files = plan.document["files"]
    # Whether what comes out of the decryption is whole is known at its end, when one transaction may be over.
    believed_early = plan.document["encryption"] and plan.where.action == "fill"
    damage = catalog.checksum_damage if plan.options.checksum or believed_early else catalog.size_damage
    kind, problem = damage(plan.backup.path, files)
    if problem:
        raise RepositoryError(f"{plan.backup.id} is {kind}: {problem}: choose another backup, or restore from a copy")


def _beside(
    plan: Plan, progress: Progress, seconds: dict[str, float], notes: list[str]
) -> tuple[str | None, tuple[str, ...], Proof | None]:
    """Given a plan, restore into a database of a temporary name and rename that; return the name under which a
    replaced one is kept, the command and the proof.
    """
    temporary = TEMPORARY_PREFIX + secrets.token_hex(8)
    with server.connect(plan.connection, plan.maintenance, writable=True) as session:
        properties = plan.document["properties"]
        with _stage(seconds, "create"):
            tablespaces = not plan.options.no_tablespaces
            session.rows(create_database(temporary, properties, plan.server_major, tablespaces))
        try:
            marker = f"pgkeep: restore of {plan.backup.id}, process {os.getpid()} on {socket.gethostname()}"
            quoted = quote_identifier(temporary)
            session.rows(f"COMMENT ON DATABASE {quoted} IS {quote_literal(marker)}")
            command, proof = _load(plan, temporary, progress, seconds, notes)
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
    return old, command, proof


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
    for statement in reapply(applied, temporary, plan.needs.without_roles, plan.connection.session_role):
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
) -> tuple[tuple[str, ...], Proof | None]:
    """Given a plan and an empty database, restore the archive into it and look at the result; return the command and
    the proof.
    """
    with Reading(plan.loading) if plan.options.compare else nullcontext() as reading:
        progress.stage = "restoring"
        try:
            with _stage(seconds, "restore"), _schemas(plan, database):
                command = load(plan.loading, database, progress, notes)
            if plan.options.analyze:
                progress.stage = "analyzing"
                with _stage(seconds, "analyze"), server.connect(plan.connection, database, writable=True) as session:
                    session.rows("ANALYZE")
            proof = None
            if reading:
                progress.stage = "comparing"
                with _stage(seconds, "compare"):
                    proof = compare(plan.loading, database, reading.finish())
        except (ToolError, UnreadableError) as error:
            text = f"{plan.backup.id} could not be restored, {_untouched(plan)}: {error}"
            raise type(error)(text) from None
    if proof and proof.differences:
        text = f"{plan.backup.id} was restored, and is not what the archive holds, {_untouched(plan)}"
        raise DifferentError(f"{text}: {'; '.join(proof.differences)}", proof)
    notes += (*(proof.notes if proof else ()), *_missing(plan, database))
    return command, proof


def _untouched(plan: Plan) -> str:
    if plan.where.action == "fill" and plan.options.compare:
        return f"and {plan.where.name} may be full"  # what is compared is there already
    return "and nothing is left of it" if plan.where.action == "create" else f"and {plan.where.name} is as it was"


@contextmanager
def _schemas(plan: Plan, database: str) -> Iterator[None]:
    """Have the schemas of single tables there while these are restored; take them away again where that fails."""
    made: list[str] = []
    try:
        if plan.schemas:
            with server.connect(plan.connection, database, writable=True) as session:
                for name in map(quote_identifier, plan.schemas):
                    session.rows(f"CREATE SCHEMA {name}")
                    made.append(name)
        yield
    except BaseException:
        if made:
            with server.connect(plan.connection, database, writable=True) as session:
                session.rows("".join(f"DROP SCHEMA {name}; " for name in made))
        raise


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
