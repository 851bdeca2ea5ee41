# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""What a restore needs and where it goes, decided before anything is touched."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .database_sql import quote_identifier, quote_literal, roles_of
from .errors import ConfigurationError
from .facts import DatabaseEntry, ServerFacts
from .model import RestoreOptions
from .quantities import human_size
from .schema import did_you_mean

TEMPORARY_PREFIX = "pgkeep_restore_"
_LONGEST_NAME = 63  # bytes; NAMEDATALEN - 1
_FIRST_WITH_TRANSACTION_TIMEOUT = 17  # whose pg_restore sets it, and older servers do not know it
_FIRST_WITH_PROVIDERS = 15  # before, libc was the only one


@dataclass(frozen=True)
class TargetFacts:
    """The server that is restored to, as far as a restore depends on it."""

    can_create: bool
    roles: frozenset[str]
    member_of: frozenset[str]  # roles whose rights this one has
    extensions: frozenset[str]  # that this role can create
    tablespaces: frozenset[str]
    sessions: int = 0  # on the database that is to be replaced
    free: int | None = None  # bytes where the data is; None where it is not on this host
    objects: int = 0  # in the existing database


@dataclass(frozen=True)
class Destination:
    """Where the backup goes."""

    name: str
    action: str  # create | fill | replace | skip | globals
    old: str | None = None  # the name under which a replaced database is kept


@dataclass(frozen=True)
class Needs:
    """What is missing (nothing is done then) and what a person should know."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    without_roles: frozenset[str] = frozenset()  # recorded roles that the database's own properties go without


def destination(recorded: str, options: RestoreOptions, entries: Sequence[DatabaseEntry], now: datetime) -> Destination:
    """Given the recorded name, what was asked for, the databases of the server and the time, return where it goes;
    raise ConfigurationError where that is not said clearly enough.
    """
    name = options.target or recorded
    if not _can_be_a_name(name):
        raise ConfigurationError(f"target {name!r} cannot be the name of a database: use 1 to {_LONGEST_NAME} bytes")
    if options.replace is not None and options.replace != name:
        raise ConfigurationError(
            f"replace is {options.replace!r} and the target is {name!r}: they have to be the same, so that nothing is"
            " replaced by mistake"
        )
    existing = {entry.name for entry in entries}
    if name not in existing:
        return Destination(name, "create")
    if options.replace == name:
        return Destination(name, "replace", _old_name(name, existing, now))
    if options.if_exists != "fail":
        return Destination(name, options.if_exists)
    raise ConfigurationError(
        f"database {name!r} exists: give another `target`, set `replace` to {name!r} to put the restored one in its"
        " place (the old one is kept), or set `if_exists`"
    )


def _can_be_a_name(name: str) -> bool:
    try:
        return 0 < len(name.encode()) <= _LONGEST_NAME and "\0" not in name
    except UnicodeEncodeError:  # bytes that are no UTF-8
        return False


def _old_name(name: str, existing: set[str], now: datetime) -> str:
    stamp = now.strftime("_%Y-%m-%d_%H-%M-%S")
    for number in range(len(existing) + 1):
        suffix = stamp + (f"_{number}" if number else "")
        kept = name.encode()[: _LONGEST_NAME - len(suffix)].decode(errors="ignore") + suffix
        if kept not in existing:
            return kept
    raise ConfigurationError(f"no name is free to keep {name!r} under")


def needs(
    document: Mapping[str, Any],
    options: RestoreOptions,
    where: Destination,
    server: ServerFacts,
    target: TargetFacts,
    client_major: int,
    owner: str | None,
    provided_roles: frozenset[str] = frozenset(),
) -> Needs:
    """Given the manifest, what was asked for, the destination and its owner (None: it does not exist), what is known of
    the server, the client's major version and the roles that will be created, return everything that is missing.
    """
    found = Needs(
        [
            *_version_problems(document, server, client_major),
            *_place_problems(options, where, server, target, owner),
        ]
    )
    if document["format"] == "plain" and _parts(options):
        parts = ", ".join(f"`{name}`" for name in _parts(options))
        found.problems.append(f"a plain dump is restored as it is: leave out {parts}")
    if options.compare and (options.tables or options.schemas):
        found.problems.append("only what is restored as a whole can be compared: leave out `compare`")
    size = document["database_size"]
    if target.free is not None and size and target.free < size:
        free = f"the server's disk has {human_size(target.free)} free and the database had {human_size(size)}"
        found.problems.append(f"{free}: free some space")
    if document["properties"] is None:
        found.warnings.append("of an adopted dump owner, locale, privileges and settings of the database are not known")
        return found
    return _named(document["properties"], options, server, target, found, provided_roles)


def _version_problems(document: Mapping[str, Any], server: ServerFacts, client_major: int) -> list[str]:
    problems = []
    backed_up = major_of(document["server_version"])
    if backed_up and backed_up > server.major:
        problems.append(
            f"the backup is of PostgreSQL {backed_up} and the server has version {server.major}, which is older:"
            f" restore to a server of version {backed_up} or newer"
        )
    if client_major >= _FIRST_WITH_TRANSACTION_TIMEOUT > server.major and document["format"] != "plain":
        problems.append(
            f"pg_restore {client_major} sets transaction_timeout, which a server of version {server.major} does not"
            f" know: install postgresql-client-{server.major}, or set bin_dir to where it is"
        )
    return problems


def _place_problems(
    options: RestoreOptions, where: Destination, server: ServerFacts, target: TargetFacts, owner: str | None
) -> list[str]:
    problems = []
    if server.is_standby:
        problems.append("the server is a standby, which cannot be restored to: connect to the primary")
    if where.action == "fill":
        if target.objects:
            more = "give another `target`, or use `replace`"
            problems.append(f"{where.name!r} is not empty ({target.objects} objects): {more}")
    elif not target.can_create:
        problems.append(f"role {server.role!r} may not create databases: ALTER ROLE ... CREATEDB, or fill an empty one")
    if where.action == "replace" and owner and owner not in target.member_of:
        problems.append(f"role {server.role!r} does not own {where.name!r} and cannot rename it: connect as {owner!r}")
    if where.action == "replace" and target.sessions and options.sessions == "fail":
        more = "end them, or set `sessions` to wait or terminate"
        number = "1 session uses" if target.sessions == 1 else f"{target.sessions} sessions use"
        problems.append(f"{number} {where.name!r}: {more}")
    return problems


def _parts(options: RestoreOptions) -> list[str]:
    names = ("tables", "schemas", "no_owner", "no_privileges", "no_tablespaces")
    return [name for name in names if getattr(options, name)]


def _named(
    properties: Mapping[str, Any],
    options: RestoreOptions,
    server: ServerFacts,
    target: TargetFacts,
    found: Needs,
    provided_roles: frozenset[str],
) -> Needs:
    """Given the recorded properties, return the needs with what they name and the server does not have."""
    some_only = bool(options.tables or options.schemas)
    # Of a part of the database it is not known beforehand what it names.
    say = found.warnings.append if some_only else found.problems.append
    ignored = options.no_owner and options.no_privileges
    missing = missing_roles(properties, target) - provided_roles
    if missing and not ignored:
        say(
            f"roles are missing: {', '.join(sorted(missing))}: create them, set `create_roles`, or set `no_owner` and"
            " `no_privileges`"
        )
    foreign = {properties["owner"]} - target.member_of - provided_roles - missing
    if foreign and not options.no_owner and not server.is_superuser:
        say(f"role {server.role!r} cannot give objects to {', '.join(sorted(foreign))}: set `no_owner`")
    extensions = {item["name"] for item in properties["extensions"]} - target.extensions - {"plpgsql"}
    if extensions:
        say(f"extensions cannot be created: {', '.join(sorted(extensions))}: install their packages on the server")
    tablespaces = set(properties["tablespaces"]) - target.tablespaces
    if tablespaces and not options.no_tablespaces:
        say(f"tablespaces are missing: {', '.join(sorted(tablespaces))}: create them, or set `no_tablespaces`")
    without = frozenset(missing)
    if options.no_owner:
        without |= {properties["owner"]}
    return Needs(found.problems, found.warnings, without)


def missing_roles(properties: Mapping[str, Any] | None, target: TargetFacts) -> frozenset[str]:
    """Given the recorded properties (None: not known) and the server, return the roles that they name and it lacks."""
    recorded = {*properties["roles"], *roles_of(properties)} if properties else set()
    return frozenset(name for name in recorded - target.roles if not name.startswith("pg_"))


def major_of(version: str | None) -> int | None:
    """Given a version as a program prints it, return the major one; None where there is none."""
    digits = (version or "").split(".")[0]
    return int(digits) if digits.isdigit() else None


def create_database(name: str, properties: Mapping[str, Any] | None, server_major: int, tablespaces: bool) -> str:
    """Given a name, the recorded properties (None: not known) and the server's version, return the statement that
    creates an empty database like the recorded one.
    """
    said = [f"CREATE DATABASE {quote_identifier(name)} TEMPLATE template0"]
    if properties is None:
        return said[0]
    provider = properties["locale_provider"]
    said.append(f"ENCODING {quote_literal(properties['encoding'])}")
    if properties["collate"]:
        said.append(f"LC_COLLATE {quote_literal(properties['collate'])}")
    if properties["ctype"]:
        said.append(f"LC_CTYPE {quote_literal(properties['ctype'])}")
    if provider != "libc":
        said.append(f"LOCALE_PROVIDER {provider}")
        option = "ICU_LOCALE" if provider == "icu" else "BUILTIN_LOCALE"
        said.append(f"{option} {quote_literal(properties['locale'] or '')}")
        if properties["icu_rules"]:
            said.append(f"ICU_RULES {quote_literal(properties['icu_rules'])}")
    elif server_major >= _FIRST_WITH_PROVIDERS:
        said.append("LOCALE_PROVIDER libc")
    if tablespaces and properties["tablespace"] != "pg_default":
        said.append(f"TABLESPACE {quote_identifier(properties['tablespace'])}")
    return " ".join(said)


def without_privileges(properties: Mapping[str, Any], ignored: bool) -> Mapping[str, Any]:
    """Given recorded properties and whether privileges are ignored, return what of them is applied."""
    return {**properties, "acl": None} if ignored else properties


# --- parts of an archive ---

_SCHEMA_ENTRY = re.compile(r"^\d+; 2615 \d+ SCHEMA - (.+)$", re.MULTILINE)
_TABLE_ENTRY = re.compile(r"^\d+; 1259 \d+ (?:TABLE|VIEW|MATERIALIZED VIEW|FOREIGN TABLE|SEQUENCE) (.+)$", re.MULTILINE)
_ALWAYS_THERE = "public"


def _readings(text: str) -> list[str]:
    """Given the end of a line of pg_restore's list, return what the name can be that it begins with.

    Names and the owner after them have only a space between them, and may have some inside.
    """
    words = text.split(" ")
    return [" ".join(words[:number]) for number in range(1, len(words))]


def _schemas(listing: str) -> set[str]:
    return {name for text in _SCHEMA_ENTRY.findall(listing) for name in _readings(text)}


def _tables(listing: str) -> set[tuple[str, str]]:
    """Given pg_restore's list, return its tables as (schema, name), in every reading whose schema can be there."""
    schemas = {*_schemas(listing), _ALWAYS_THERE}
    return {
        (schema, name)
        for text in _TABLE_ENTRY.findall(listing)
        for schema in _readings(text)
        if schema in schemas
        for name in _readings(text[len(schema) + 1 :])
    }


def _as_listed(name: str) -> str:
    return name.replace("\n", " ").replace("\r", " ")


def missing_parts(listing: str, options: RestoreOptions) -> list[str]:
    """Given pg_restore's list of an archive and what is asked for, return what of that is not in it."""
    if not options.tables and not options.schemas:
        return []
    tables = _tables(listing)
    schemas = {*_schemas(listing), *(schema for schema, _name in tables)}
    wanted = {_as_listed(name) for name in options.schemas}
    names = {name for schema, name in tables if not wanted or schema in wanted}
    problems = [
        f"schema {name!r} is not in the archive{did_you_mean(name, sorted(schemas))}"
        for name in options.schemas
        if _as_listed(name) not in schemas
    ]
    inside = " there" if options.schemas else " in the archive"
    return problems + [
        f"table {name!r} is not{inside}{did_you_mean(name, sorted(names))}"
        for name in options.tables
        if _as_listed(name) not in names
    ]


def needed_schemas(listing: str, options: RestoreOptions) -> list[str]:
    """Given pg_restore's list of an archive and which tables and schemas of it are restored, return the schemas that
    have to be there before: pg_restore leaves them out then.
    """
    if not options.tables:
        return sorted({*options.schemas} - {_ALWAYS_THERE})
    chosen = {schema for schema, name in _tables(listing) if name in options.tables}
    return sorted(chosen & {*(options.schemas or chosen)} - {_ALWAYS_THERE})
