# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""What a person types to get data back: values in, lines for bash out. No line has a secret in it.

The commands of pgkeep say `latest`, so that a document that was printed weeks ago is still right; those of PostgreSQL's
own programs name files.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .backups import GLOBALS, Backup
from .commands import quote_value
from .compression import LEVELS
from .database_sql import quote_identifier, quote_literal, reapply
from .model import Connection, Target, options_of
from .restoration import create_database, major_of
from .shell import chain, command, joined, piped, quoted, written

PREPARED = ("postgres", "template1")  # a new server has them already
RESCUE_SUFFIX = "_rescue"
JOBS = 4
IDENTITY = "~/pgkeep-identity"  # the private keys, where a document tells people to put them

_LONGEST_NAME = 63  # bytes
_LONGEST_TIME = 1e9  # seconds; what is longer was not measured
_DEFAULTS = Connection()
_SSH_PORT = options_of(Target)["port"].default
# What may stand in a command: no password, and no time limit that a recovery could do without.
_SAID = tuple(name for name, item in options_of(Connection).items() if item.kind not in ("password", "duration"))
_VARIABLES = {
    "login_port": "PGPORT",
    "login_user": "PGUSER",
    "ssl_mode": "PGSSLMODE",
    "ca_cert": "PGSSLROOTCERT",
    "ssl_cert": "PGSSLCERT",
    "ssl_key": "PGSSLKEY",
}
_KEYWORDS = {
    "login_port": "port",
    "login_user": "user",
    "ssl_mode": "sslmode",
    "ca_cert": "sslrootcert",
    "ssl_cert": "sslcert",
    "ssl_key": "sslkey",
}
_RECORDED = frozenset((
    "acl", "collate", "comment", "connection_limit", "ctype", "encoding", "extensions", "icu_rules", "is_template",
    "large_objects", "locale", "locale_provider", "owner", "roles", "settings", "tables", "tablespace", "tablespaces",
))  # fmt: skip
_COUNTS = (
    "SELECT (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p')"
    " AND left(n.nspname, 3) <> 'pg_' AND n.nspname <> 'information_schema') AS tables,"
    " (SELECT count(*) FROM pg_largeobject_metadata) AS large_objects"
)
_SESSIONS = (
    "SELECT datname, usename, client_addr, state, backend_start FROM pg_stat_activity WHERE datname IS NOT NULL"
    " AND pid <> pg_backend_pid() ORDER BY datname, backend_start"
)
_DATABASES = (
    "SELECT datname, pg_size_pretty(pg_database_size(oid)) FROM pg_database WHERE datallowconn ORDER BY datname"
)

Drill = Mapping[str, Any]


def to_restore(backups: Sequence[Backup]) -> Backup | None:
    """Given the backups of one database, return the one to restore: the newest that is complete, a partial one only
    where there is no other; None where there is none.
    """
    usable = [item for item in backups if item.complete]
    whole = [item for item in usable if not item.partial] or usable
    return max(whole, key=lambda item: (item.created, item.id), default=None)


@dataclass(frozen=True)
class Kept:
    """What a repository holds of one database, or of the globals of one instance."""

    backups: tuple[Backup, ...]  # the newest first, at least one
    document: Mapping[str, Any] | None = None  # manifest of the one to restore, if there is one
    drills: tuple[Drill, ...] = ()  # the newest last

    @property
    def title(self) -> str:
        """Return the database's name as people read it."""
        return self.backups[0].title

    @property
    def best(self) -> Backup | None:
        """Return the backup to restore."""
        return to_restore(self.backups) if self.document else None

    @property
    def properties(self) -> Mapping[str, Any] | None:
        """Return what was recorded of the database itself; None where nothing was, or not all of it."""
        recorded = self.document["properties"] if self.document else None
        return recorded if recorded and recorded.keys() >= _RECORDED else None

    @property
    def proof(self) -> Drill | None:
        """Return the newest drill that went well."""
        return next((item for item in reversed(self.drills) if item["verdict"] == "good"), None)

    @property
    def seconds(self) -> float | None:
        """Return how long the newest good drill took to restore."""
        return measured(self.proof.get("recovery_seconds")) if self.proof else None


def measured(value: Any) -> float | None:
    """Given what evidence has for a time, return the seconds; None where it is no time."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value) if 0 <= value < _LONGEST_TIME else None


@dataclass(frozen=True)
class Instance:
    """One PostgreSQL server, how it is reached, and what there is of it."""

    name: str
    connection: Connection
    databases: tuple[Kept, ...]
    globals: Kept | None = None
    bin_dir: str | None = None
    password_in: str = ""  # what has the password, as Markdown; "" where none is configured

    @property
    def major(self) -> int | None:
        """Return the major version of the server to restore to; None where no manifest says one.

        From 17 on pg_restore sets what older servers do not know, so a server has to be as new as the pg_dump was.
        """
        documents = [item.document for item in self.all if item.document]
        majors = [major_of(document[key]) for document in documents for key in ("server_version", "tool_version")]
        return max((number for number in majors if number), default=None)

    @property
    def all(self) -> tuple[Kept, ...]:
        """Return globals and databases."""
        return (*([self.globals] if self.globals else []), *self.databases)


def reachable(connection: Connection, databases: Sequence[str]) -> dict[str, Any]:
    """Given a connection and the databases that will be restored, return what has to be said of it, by option: what is
    not the default, and as database to connect to first none that is not there yet.
    """
    said = {name: getattr(connection, name) for name in _SAID if getattr(connection, name) != getattr(_DEFAULTS, name)}
    if said.get("login_db") in databases:
        del said["login_db"]
    return said


def _said(instance: Instance) -> dict[str, Any]:
    return reachable(instance.connection, [item.title for item in instance.databases])


def maintenance(instance: Instance) -> str:
    """Given an instance, return the database to be in while others are created."""
    return str(_said(instance).get("login_db", _DEFAULTS.login_db))


def target(instance: Instance, database: str) -> str:
    """Given an instance and a database, return what PostgreSQL's programs take for --dbname."""
    if not instance.connection.service:
        # A name that libpq would read as more than a name.
        special = "=" in database or "://" in database
        return f"dbname={quote_value(database)}" if special else database
    # What a service says has to give way to what was said beside it, which variables cannot do.
    said = _said(instance)
    host = said.get("login_unix_socket") or said.get("login_host")
    pairs = {
        "service": instance.connection.service,
        "host": host,
        **{keyword: said.get(name) for name, keyword in _KEYWORDS.items()},
        "dbname": database,
    }
    return " ".join(f"{key}={quote_value(str(value))}" for key, value in pairs.items() if value)


def prepare(instance: Instance) -> list[str]:
    """Given an instance, return the lines that let PostgreSQL's own programs reach it from a shell."""
    said, connection, major = _said(instance), instance.connection, instance.major
    versioned = [f"/usr/lib/postgresql/{major}/bin", f"/usr/pgsql-{major}/bin"] if major else []
    places = [*([instance.bin_dir] if instance.bin_dir else []), *versioned]
    values: dict[str, Any] = {}
    if not connection.service:
        values["PGHOST"] = connection.login_unix_socket or connection.login_host
        values.update({variable: said.get(name) for name, variable in _VARIABLES.items()})
        values.update(PGPORT=connection.login_port, PGUSER=connection.login_user)
    values["PGSERVICEFILE"] = connection.service_file
    values["PGPASSFILE"] = connection.passfile
    if connection.session_role:
        escaped = "".join(f"\\{item}" if item in " \\\t\n" else item for item in connection.session_role)
        values["PGOPTIONS"] = f"-c role={escaped}"
    values["PGCLIENTENCODING"] = "UTF8"  # as this document is
    search = quoted(":".join(dict.fromkeys(places)))
    return [
        "set -o pipefail",
        *([f'export PATH={search}:"$PATH"'] if places else []),
        *(f"export {name}={quoted(str(value))}" for name, value in values.items() if value),
        *([f"identity={IDENTITY}"] if encryptions(instance.all) else []),
    ]


def encryptions(kept: Sequence[Kept]) -> list[str]:
    """Given what is kept, return the programs that decrypt what is to be restored of it."""
    found = [item.document["encryption"] for item in kept if item.document]
    return sorted({str(method) for method in found if method})


# --- with pgkeep ---


@dataclass(frozen=True)
class Place:
    """A repository, and whether an instance has to be named in it."""

    repository: str
    several: bool


def verify(place: Place) -> list[str]:
    """Given a repository, return the command that reads every byte of the newest backups."""
    return command("pgkeep", "verify", f"--repository={place.repository}", "--level=checksum", "--latest")


def bring_back(target: Target, place: str) -> list[str]:
    """Given a target and a repository's directory, return the command that brings all copies back."""
    if target.type == "rclone":
        configuration = ("--config", target.config_file) if target.config_file else ()
        return command("rclone", *configuration, "copy", "--immutable", f"{target.remote}:{target.path}", f"{place}/")
    source = target.path.rstrip("/")
    shell: tuple[str, ...] = ()
    if target.type == "rsync":
        source = f"{target.host}:{'PATH' if target.append_only else source}"
        shell = ("--rsh", f"ssh -p {target.port}") if target.port != _SSH_PORT else ()
    return command("rsync", "--archive", "--exclude=state.json", *shell, f"{source}/", f"{place}/")


def listing(place: Place) -> list[str]:
    """Given a repository, return the command that lists all backups."""
    return command("pgkeep", "list", f"--repository={place.repository}")


def restore(place: Place, instance: Instance, kept: Kept, *more: str) -> list[str]:
    """Given what to restore and more options, return the command that restores the newest good backup of it."""
    title, best = kept.title, kept.best
    words = [f"--repository={place.repository}", *([f"--instance={instance.name}"] if place.several else [])]
    words += [f"--{name.replace('_', '-')}={value}" for name, value in _said(instance).items()]
    words += [f"--bin-dir={instance.bin_dir}"] if instance.bin_dir else []
    words += more
    if best and best.partial:
        words.append("--partial")
    if best and title == GLOBALS and any(item.title == GLOBALS for item in instance.databases):
        last = [f"--backup={best.id}"]  # the name could mean either
    else:
        last = [*(["--"] if title.startswith("-") else []), title]
    key = ['--identity-file="$identity"'] if encryptions([kept]) else []
    return joined([*map(written, ("pgkeep", "restore", *words)), *key, *map(written, last)])


def restore_new(place: Place, instance: Instance, kept: Kept) -> list[str]:
    """Given a database, return the command that restores it on a new server."""
    return restore(place, instance, kept, *(["--if-exists=fill"] if kept.title in PREPARED else []))


def restore_over(place: Place, instance: Instance, kept: Kept, *more: str) -> list[str]:
    """Given a database and more options, return the command that puts it in the place of the live one."""
    return restore(place, instance, kept, f"--replace={kept.title}", "--sessions=terminate", *more)


def rescue_name(database: str) -> str:
    """Given a database, return the name for a copy beside it."""
    room = _LONGEST_NAME - len(RESCUE_SUFFIX)
    return database.encode("utf-8", "surrogateescape")[:room].decode("utf-8", "ignore") + RESCUE_SUFFIX


def restore_beside(place: Place, instance: Instance, kept: Kept) -> list[str]:
    """Given a database, return the command that restores it beside the live one."""
    return restore(place, instance, kept, f"--target={rescue_name(kept.title)}")


# --- one table, from the copy beside the live database ---


def _psql(instance: Instance, database: str) -> tuple[str, ...]:
    return ("psql", "--no-psqlrc", "--set=ON_ERROR_STOP=1", f"--dbname={target(instance, database)}")


def psql(instance: Instance, database: str, *statements: str) -> list[str]:
    """Given a database and statements, return the command that runs them, each by itself, until one fails."""
    return command(*_psql(instance, database), *(f"--command={item}" for item in statements))


def table_dropped(instance: Instance, kept: Kept) -> list[str]:
    """Given a database, return the lines that bring a dropped table, $table, back from the copy beside it."""
    dump = ("pg_dump", f"--dbname={target(instance, rescue_name(kept.title))}")
    take = joined([*map(written, dump), '--table="$table"', '--file="$rescued"'])
    put = joined([*map(written, (*_psql(instance, kept.title), "--single-transaction")), '--file="$rescued"'])
    return ["rescued=$(mktemp)", *chain(take, put)]


def table_changed(instance: Instance, kept: Kept) -> list[str]:
    """Given a database, return the lines that put the rows of $table as they were beside those of today."""
    source, live = _psql(instance, rescue_name(kept.title)), (*_psql(instance, kept.title), "--single-transaction")
    take = joined([*map(written, source), '--command="COPY (SELECT * FROM $table) TO STDOUT"', '> "$rescued"'])
    put = joined([
        *map(written, live),
        '--command="CREATE TABLE ${table}_rescued (LIKE $table)"',
        '--command="COPY ${table}_rescued FROM STDIN"',
        '< "$rescued"',
    ])  # fmt: skip
    return ["rescued=$(mktemp)", *chain(take, put)]


def drop_rescue(instance: Instance, kept: Kept) -> list[str]:
    """Given a database, return the command that drops the copy beside it."""
    drop = f"DROP DATABASE {quote_identifier(rescue_name(kept.title))}"
    return psql(instance, maintenance(instance), drop)


# --- without pgkeep ---


def archive(kept: Kept) -> str:
    """Given what is to be restored, return the path of its archive."""
    best, document = kept.best, kept.document
    if not best or not document:
        raise AssertionError(f"{kept.title} has no backup to restore")
    first = str(document["files"][0]["path"])
    name = first.split("/", maxsplit=1)[0] if document["format"] == "directory" else first
    return posixpath.join(best.path, name)


def unpacker(document: Mapping[str, Any]) -> str:
    """Given a manifest, return the program that unpacks its archive; "" where none is needed."""
    by = document["compressed_by"]
    if by in (None, "pg_dump"):
        return ""
    method = str(by) if by in LEVELS else str(document["compression"]).partition(":")[0]
    return method if method in LEVELS else ""


def decrypt(kept: Kept) -> list[str]:
    """Given what is to be restored, return the command that decrypts it to stdout; nothing where it is not encrypted.

    gpg does not read a private key from a file: it has to be imported before.
    """
    method, path = (kept.document or {}).get("encryption"), archive(kept)
    if method == "age":
        return joined(["age", "--decrypt", '--identity="$identity"', written(path)])
    return command(str(method), "--decrypt", path) if method else []


def plaintext(kept: Kept) -> list[str]:
    """Given what is to be restored, return the lines that write what was dumped to stdout; nothing where the archive's
    file is just that.
    """
    program, decrypting = unpacker(kept.document or {}), decrypt(kept)
    if not program or not decrypting:
        return decrypting or (command(program, "-dc", archive(kept)) if program else [])
    return piped(decrypting, command(program, "-dc"))


def check_bytes(kept: Kept) -> list[str]:
    """Given what is to be restored, return the lines that compare every byte of it with its manifest."""
    best, document = kept.best, kept.document
    if not best or not document:
        raise AssertionError(f"{kept.title} has no backup to restore")
    files = document["files"]
    if len(files) == 1:
        line = f"{files[0]['sha256']}  {posixpath.join(best.path, files[0]['path'])}"
        return piped(command("echo", line), command("sha256sum", "--check"))
    program = 'import json; [print(f["sha256"], "", f["path"]) for f in json.load(open("manifest.json"))["files"]]'
    return [
        f"(cd {quoted(best.path)} &&",
        *(f"    {line}" for line in piped(command("python3", "-c", program), ["sha256sum --check --quiet)"])),
    ]


def load_globals(instance: Instance, kept: Kept) -> list[str]:
    """Given globals, return the lines that create roles and tablespaces. What is there already is said and left."""
    source = plaintext(kept)
    words = ("psql", "--no-psqlrc", f"--dbname={target(instance, maintenance(instance))}")
    return piped(source, command(*words)) if source else command(*words, f"--file={archive(kept)}")


def create(instance: Instance, kept: Kept) -> list[str]:
    """Given a database, return the command that creates it empty, as it was; nothing where a new server has it."""
    if kept.title in PREPARED:
        return []
    statement = create_database(kept.title, kept.properties, instance.major or 0, True)
    return psql(instance, maintenance(instance), statement)


def load(instance: Instance, kept: Kept) -> list[str]:
    """Given a database that is there and empty, return the lines that restore its archive into it."""
    path, source = archive(kept), plaintext(kept)
    form = (kept.document or {})["format"]
    if form == "plain":
        reader = [
            "psql",
            "--no-psqlrc",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            "--single-transaction",
            "--output=/dev/null",
        ]
    else:
        parallel = not source and form in ("custom", "directory")
        reader = ["pg_restore", "--exit-on-error", *([f"--jobs={JOBS}"] if parallel else [])]
    reader.append(f"--dbname={target(instance, kept.title)}")
    if source:
        return piped(source, command(*reader))
    return command(*reader, f"--file={path}" if form == "plain" else path)


def unsafe_settings(kept: Kept) -> list[str]:
    """Given a database, return the settings of it whose values are not for a document: an application's own, which some
    use for keys.
    """
    settings = kept.properties["settings"] if kept.properties else ()
    return [item["name"] for item in settings if "." in item["name"]]


def finish(instance: Instance, kept: Kept) -> list[str]:
    """Given a database that was restored, return the command that gives it what its archive does not hold."""
    if not kept.properties:
        return []
    safe = [item for item in kept.properties["settings"] if "." not in item["name"]]
    statements = reapply({**kept.properties, "settings": safe}, kept.title)
    return psql(instance, maintenance(instance), *statements)


def rebuild(instance: Instance, kept: Kept) -> list[str]:
    """Given what is to be restored, return the lines that check it and restore it; what fails ends it."""
    if kept.backups[0].kind == "globals":
        return chain(check_bytes(kept), load_globals(instance, kept))
    return chain(check_bytes(kept), create(instance, kept), load(instance, kept), finish(instance, kept))


# --- looking ---


def sessions(instance: Instance) -> list[str]:
    """Given an instance, return the commands that show whether it is there, its databases, and who is connected."""
    first = maintenance(instance)
    return [
        *command("pg_isready", f"--dbname={target(instance, first)}"),
        *psql(instance, first, _DATABASES),
        *psql(instance, first, _SESSIONS),
    ]


def close(instance: Instance, kept: Kept) -> list[str]:
    """Given a database, return the commands that let no writer into it any more, and end those that are in it."""
    name = kept.title
    others = f"datname = {quote_literal(name)} AND pid <> pg_backend_pid()"
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"
    limit = f"ALTER DATABASE {quote_identifier(name)} CONNECTION LIMIT 0"
    return psql(instance, maintenance(instance), limit, end)


def count(instance: Instance, kept: Kept) -> list[str]:
    """Given a database that was restored, return the command that counts what came back and lets the planner know."""
    return psql(instance, kept.title, _COUNTS, "ANALYZE")
