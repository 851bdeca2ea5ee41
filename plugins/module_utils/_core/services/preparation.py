# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Finding out everything about a backup before anything of it is written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Callable

from ..adapters import server, tools
from ..adapters.archive import Stages
from ..adapters.encryption import Encryptor
from ..adapters.process import Cancellation, Limits
from ..domain import commands, compression, naming
from ..domain.backups import Backup
from ..domain.compression import ResolvedCompression
from ..domain.dump_header import has_end
from ..domain.errors import ServerError
from ..domain.facts import DatabaseEntry, ServerFacts, properties
from ..domain.model import Connection, DumpOptions, EncryptionOptions, Location, RunOptions, Selection, StandbyOptions
from ..domain.patterns import left_out
from ..domain.preflight import connect_problem, preflight_problems
from .commit import Subject

Clock = Callable[[], datetime]
_UNCOMPRESSED = ResolvedCompression("none", 0)
_FILTERS = ("tables", "exclude_tables", "schemas", "exclude_schemas", "exclude_table_data")


@dataclass(frozen=True)
class Request:
    """What a user asked for."""

    connection: Connection
    location: Location
    selection: Selection
    dump: DumpOptions
    encryption: EncryptionOptions
    run: RunOptions
    standby: StandbyOptions

    @property
    def limits(self) -> Limits:
        """Return how long one dump may take."""
        return Limits(self.run.deadline, self.run.stall_timeout)


@dataclass(frozen=True)
class Surroundings:
    """What all databases of a run share."""

    request: Request
    server: ServerFacts
    entries: Mapping[str, DatabaseEntry]
    tools: tools.Tools
    compression: ResolvedCompression
    encryptor: Encryptor
    environment: Mapping[str, str]
    password_fds: tuple[int, ...]
    clock: Clock
    cancellation: Cancellation


@dataclass(frozen=True)
class Work:
    """One backup to take."""

    subject: Subject
    fingerprint: str
    suffix: str
    about: Mapping[str, Any]  # the manifest's keys that are known beforehand
    tables: int
    database_size: int | None
    warnings: tuple[str, ...]
    role_passwords: bool = False


def fingerprint(
    kind: str, dump: DumpOptions, packed: ResolvedCompression, role_passwords: bool, encrypted: str = ""
) -> str:
    """Given what decides a backup's content and form, return it as one line: equal lines mean equal options."""
    more = f" {encrypted}" if encrypted else ""
    if kind == "globals":
        return f"globals {'with' if role_passwords else 'without'} role passwords{more}"
    filters = {name: list(getattr(dump, name)) for name in _FILTERS if getattr(dump, name)}
    text = f"{dump.format} {packed}{more}"
    return f"{text} {json.dumps(filters, sort_keys=True)}" if filters else text


def resolve_compression(dump: DumpOptions, client: tools.Tools) -> ResolvedCompression:
    """Given the options and the client, return how archives are compressed on this host; raise ToolError.

    Only the methods in question are probed: each costs the start of a program.
    """
    asked = ("zstd",) if dump.compression == "auto" else (dump.compression.partition(":")[0],)
    inside = tools.inside_methods(client, tuple(method for method in asked if method != "none"))
    if dump.compression == "auto" and not inside:
        inside = tools.inside_methods(client, ("gzip",))
    return compression.resolve(dump.compression, dump.format, inside, tools.programs())


def plan_globals(around: Surroundings) -> Work:
    """Given the surroundings, return the work of dumping the globals; raise ServerError."""
    facts, wanted = around.server, around.request.dump.role_passwords
    role = facts.role
    if wanted == "always" and not facts.can_read_authid:
        raise ServerError(
            f"role {role} may not read the roles' passwords: connect as a superuser, grant it pg_read_all_data, or set"
            " `role_passwords` to auto or never"
        )
    included = wanted != "never" and facts.can_read_authid
    warnings: tuple[str, ...] = ()
    if wanted == "auto" and not included:
        text = f"the globals are without role passwords, which role {role} may not read"
        warnings = (f"{text}: after a restore they must be set again",)
    about = {
        **_about(around, "plain", _UNCOMPRESSED, warnings),
        "partial": False,
        "left_out": [] if included else ["role passwords"],
        "database_size": None,
        "properties": None,
    }
    line = fingerprint("globals", around.request.dump, _UNCOMPRESSED, included, around.encryptor.fingerprint)
    subject = Subject(around.request.location.instance, "globals", None)
    suffix = naming.suffix("plain", encryption=around.encryptor.method)
    return Work(subject, line, suffix, {**about, "options": line}, 0, None, warnings, included)


def plan_database(around: Surroundings, subject: Subject) -> Work:
    """Given the surroundings and a database, look at it and return the work; raise ServerError or ConfigurationError.

    What would make the dump fail, or silently lose something, is raised here, with everything at once.
    """
    dump, packed = around.request.dump, around.compression
    database = str(subject.database)
    problem = connect_problem(around.entries[database], around.server.role)
    if problem:
        raise ServerError(problem)
    with server.connect(around.request.connection, database) as session:
        facts = server.database_facts(session)
        matches = server.resolve_patterns(session, dump)
        obstacles = server.obstacles(session, matches)
    errors, warnings = preflight_problems(around.server, facts, obstacles, matches)
    if errors:
        raise ServerError("; ".join(errors))
    line = fingerprint("database", dump, packed, False, around.encryptor.fingerprint)
    about = {
        **_about(around, dump.format, packed, warnings),
        "partial": bool(left_out(matches)),
        "left_out": list(left_out(matches)),
        "database_size": facts.size,
        "properties": properties(facts),
        "options": line,
    }
    suffix = naming.suffix(dump.format, packed.method if packed.program else "", around.encryptor.method)
    return Work(subject, line, suffix, about, obstacles.tables_with_data, facts.size, warnings)


def _about(
    around: Surroundings, format_name: str, packed: ResolvedCompression, warnings: Sequence[str]
) -> dict[str, Any]:
    return {
        "format": format_name,
        "compression": str(packed),
        "compressed_by": _compressed_by(packed),
        "encryption": around.encryptor.method,
        "warnings": list(warnings),
        "label": around.request.run.label,
        "server_version": around.server.version,
        "system_identifier": around.server.system_identifier,
        "standby": around.server.is_standby,
        "tool_version": around.tools.version,
        "adopted": None,
    }


def _compressed_by(packed: ResolvedCompression) -> str | None:
    if packed.method == "none":
        return None
    return os.path.basename(packed.program) if packed.program else "pg_dump"


def stages(around: Surroundings, work: Work, target: str) -> Stages:
    """Given the surroundings, the work and the path to write to, return the command lines."""
    connection, dump, client = around.request.connection, around.request.dump, around.tools
    if work.subject.kind == "globals":
        command = commands.pg_dumpall_globals(client.pg_dumpall, connection, work.role_passwords)
        return Stages(command, has_end=partial(has_end, "globals"), encryptor=around.encryptor.command)
    packed = around.compression
    directory = target if dump.format == "directory" else None
    archive = dump.format != "plain"
    return Stages(
        commands.pg_dump(client.pg_dump, connection, str(work.subject.database), dump, packed, client.major, directory),
        commands.compressor(packed) if packed.program else (),
        commands.decompressor(packed.method, packed.program) if packed.program else (),
        commands.pg_restore_read(client.pg_restore, directory) if archive else (),
        dump.format != "tar",
        partial(has_end, dump.format),
        around.encryptor.command,
    )


def fresh(work_fingerprint: str, backups: Sequence[Backup], run: RunOptions, now: datetime) -> Backup | None:
    """Given the options' fingerprint, what is stored and the time, return the one that makes a new one unnecessary."""
    if run.max_age is None:
        return None
    young = [
        item
        for item in backups
        if item.complete
        and item.options == work_fingerprint
        and item.created <= now
        and now - item.created <= run.max_age
    ]
    return max(young, key=lambda item: item.created, default=None)
