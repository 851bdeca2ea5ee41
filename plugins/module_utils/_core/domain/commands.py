# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.

"""Command lines and connection strings: what is run, word by word."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

from .compression import Compression, ResolvedCompression
from .database_sql import quote_identifier
from .errors import ConfigurationError
from .model import Connection, DumpOptions, RestoreOptions

APPLICATION_NAME = "pgkeep"
FIRST_CLIENT_WITH_METHODS = 16  # before, pg_dump knew gzip alone, by its level

# Without them a vanished server is waited for as long as the kernel likes: two hours and more.
_KEEPALIVES = {"keepalives": 1, "keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 6}
_DEFAULTS = Connection()
_SHORTEST_CONNECT_TIMEOUT = 2  # seconds; libpq takes less for 2
_PATTERN_FLAGS = (
    ("tables", "--table"),
    ("exclude_tables", "--exclude-table"),
    ("schemas", "--schema"),
    ("exclude_schemas", "--exclude-schema"),
    ("exclude_table_data", "--exclude-table-data"),
)


def quote_value(value: str) -> str:
    """Given any value, return it as libpq reads it in a connection string."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def conninfo(connection: Connection, database: str | None = None) -> str:
    """Given a connection and a database (None: the one to connect to first), return libpq's connection string.

    It has no password. With a service, options at their defaults are left out, so that the service file's count.
    """
    given = {
        "dbname": _said(connection, "login_db") if database is None else database,
        "host": connection.login_unix_socket or connection.login_host,
        "port": _said(connection, "login_port"),
        "user": _said(connection, "login_user"),
        "sslmode": _said(connection, "ssl_mode"),
        "sslrootcert": connection.ca_cert,
        "sslcert": connection.ssl_cert,
        "sslkey": connection.ssl_key,
        "service": connection.service,
        "connect_timeout": _seconds(_said(connection, "connect_timeout")),
        **_KEEPALIVES,
        "application_name": APPLICATION_NAME,
    }
    return " ".join(f"{key}={quote_value(str(value))}" for key, value in given.items() if value not in (None, ""))


def _said(connection: Connection, name: str) -> Any:
    value = getattr(connection, name)
    return None if connection.service and value == getattr(_DEFAULTS, name) else value


def _seconds(timeout: timedelta | None) -> int | None:
    return None if timeout is None else max(_SHORTEST_CONNECT_TIMEOUT, math.ceil(timeout.total_seconds()))


def environment(connection: Connection, passfile: str | None, home: str, path: str) -> dict[str, str]:
    """Given a connection, a password file that overrules the connection's, a home directory and a search path, return
    the whole environment of client programs. Nothing is inherited: PGOPTIONS or PGCLIENTENCODING would change a dump.
    """
    files = {"PGPASSFILE": passfile or connection.passfile, "PGSERVICEFILE": connection.service_file}
    built = {"PATH": path, "HOME": home, "LC_ALL": "C", "LANGUAGE": "C", "TZ": "UTC"}
    return {**built, **{name: value for name, value in files.items() if value}}


def check_password(password: str) -> None:
    """Given a password, raise ConfigurationError where libpq could not read it back from a password file."""
    if any(character in password for character in "\n\r\0"):
        raise ConfigurationError(
            "login_password contains a line break or a NUL character, which a password file cannot hold: change the"
            " role's password"
        )


def passfile_line(password: str) -> str:
    """Given a password, return the line of a password file that gives it to every server; check it first."""
    check_password(password)
    return "*:*:*:*:" + password.replace("\\", "\\\\").replace(":", "\\:") + "\n"


def pg_dump(
    tool: str,
    connection: Connection,
    database: str,
    dump: DumpOptions,
    compression: ResolvedCompression,
    version: int,
    target: str | None = None,
) -> tuple[str, ...]:
    """Given pg_dump's path and major version and what to dump, return its command line.

    The archive goes to stdout, except a directory's, which goes to the target. Row security stays off, as is
    pg_dump's own default: a table that cannot be dumped whole is an error, never a part of its rows.
    """
    if (dump.format == "directory") != (target is not None):
        raise AssertionError("a target is for the directory format, and only for it")
    check_jobs(dump)
    patterns = [f"{flag}={pattern}" for name, flag in _PATTERN_FLAGS for pattern in getattr(dump, name)]
    return (
        tool,
        f"--format={dump.format}",
        f"--dbname={conninfo(connection, database)}",
        "--no-password",
        "--verbose",  # names each table on stderr: the progress, and the last thing done before a failure
        f"--lock-wait-timeout={max(1, round(dump.lock_wait_timeout.total_seconds() * 1000))}",  # 0 would wait for ever
        *([f"--role={connection.session_role}"] if connection.session_role else []),
        *([f"--jobs={dump.jobs}"] if dump.jobs > 1 else []),
        *_compression_flags(dump.format, compression.inside, version),
        *(["--strict-names"] if patterns else []),
        *patterns,
        # What was written is fsynced by us; a sync by pg_dump would be done twice and believed once.
        *(["--no-sync", f"--file={target}"] if target is not None else []),
    )


def check_jobs(dump: DumpOptions) -> None:
    """Given dump options, raise ConfigurationError where jobs and format do not fit."""
    if dump.jobs > 1 and dump.format != "directory":
        raise ConfigurationError(
            f"jobs is {dump.jobs} and format is {dump.format}: only format directory is dumped in parallel"
        )


def _compression_flags(archive_format: str, inside: Compression, version: int) -> list[str]:
    if archive_format in ("plain", "tar"):
        return []  # not compressed unless asked to
    if version >= FIRST_CLIENT_WITH_METHODS:
        return [f"--compress={inside}"]
    if inside.method not in ("gzip", "none"):
        raise AssertionError(f"pg_dump {version} cannot compress with {inside.method}")
    return [f"--compress={inside.level}"]


def pg_dumpall_globals(tool: str, connection: Connection, role_passwords: bool) -> tuple[str, ...]:
    """Given pg_dumpall's path and whether to take the roles' password verifiers, return its command line.

    pg_dumpall ignores a database in --dbname and reads --database as a connection string, so the name goes there.
    """
    first = _said(connection, "login_db")
    return (
        tool,
        "--globals-only",
        f"--dbname={conninfo(connection)}",
        *([f"--database=dbname={quote_value(first)}"] if first else []),
        "--no-password",
        *([f"--role={connection.session_role}"] if connection.session_role else []),
        *([] if role_passwords else ["--no-role-passwords"]),
    )


def pg_restore_read(tool: str, path: str | None = None, output: str = "/dev/null") -> tuple[str, ...]:
    """Given pg_restore's path, an archive (None: it comes through stdin) and where the script goes (-: stdout), return
    the command that reads the archive whole.
    """
    return (tool, f"--file={output}", *([path] if path is not None else []))


def pg_dump_script(tool: str, connection: Connection, database: str) -> tuple[str, ...]:
    """Given pg_dump's path and a database, return the command that writes it to stdout as pg_restore would its archive."""
    role = [f"--role={connection.session_role}"] if connection.session_role else []
    return (tool, "--format=plain", f"--dbname={conninfo(connection, database)}", "--no-password", *role)


def psql_query(tool: str, connection: Connection, database: str, query: str) -> tuple[str, ...]:
    """Given psql's path, a database and a query, return the command that prints its rows unaligned, and nothing else."""
    flags = ("--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--no-password", "--set=ON_ERROR_STOP=1")
    return (tool, *flags, f"--dbname={conninfo(connection, database)}", f"--command={query}")


def pg_restore_into(
    tool: str,
    connection: Connection,
    database: str,
    options: RestoreOptions,
    jobs: int,
    path: str | None = None,
    use_list: str | None = None,
    *,
    one_transaction: bool = False,
) -> tuple[str, ...]:
    """Given pg_restore's path, a database, what to restore, an archive (None: stdin) and perhaps a list of what of it,
    return the command that restores and stops at the first error.
    """
    switches = {
        "--no-owner": options.no_owner,
        "--no-privileges": options.no_privileges,
        "--no-tablespaces": options.no_tablespaces,
        "--single-transaction": one_transaction,
        "--strict-names": bool(options.tables or options.schemas),
    }
    return (
        tool,
        f"--dbname={conninfo(connection, database)}",
        "--no-password",
        "--exit-on-error",
        "--verbose",  # names each table on stderr: the progress
        *([f"--role={connection.session_role}"] if connection.session_role else []),
        *([f"--jobs={jobs}"] if jobs > 1 else []),
        *(flag for flag, given in switches.items() if given),
        *(f"--table={name}" for name in options.tables),
        *(f"--schema={name}" for name in options.schemas),
        *([f"--use-list={use_list}"] if use_list else []),
        *([path] if path is not None else []),
    )


def psql_into(tool: str, connection: Connection, database: str, *, one_transaction: bool = False) -> tuple[str, ...]:
    """Given psql's path and a database, return the command that runs a plain dump from stdin and stops at an error."""
    return (
        tool,
        "--no-psqlrc",
        "--quiet",
        "--no-password",
        "--set=ON_ERROR_STOP=1",
        f"--dbname={conninfo(connection, database)}",
        *(["--single-transaction"] if one_transaction else []),
        "--output=/dev/null",
        *([f"--command=SET ROLE {quote_identifier(connection.session_role)}"] if connection.session_role else []),
        "--file=-",
    )


def pg_restore_list(tool: str, path: str | None = None) -> tuple[str, ...]:
    """Given pg_restore's path and an archive (None: stdin), return the command that lists what is in it."""
    return (tool, "--list", *([path] if path is not None else []))


def compressor(compression: ResolvedCompression) -> tuple[str, ...]:
    """Given a compression by a program, return the program's command line, from stdin to stdout."""
    program, level = _program(compression), f"-{compression.level}"
    # -n: no time of day inside, so the same dump gives the same bytes.
    quiet = {"gzip": "-n", "lz4": "-q", "zstd": "-q"}[compression.method]
    return (program, quiet, level, "-c")


def decompressor(method: str, program: str) -> tuple[str, ...]:
    """Given a method and its program, return the command line that decompresses from stdin to stdout."""
    return (program, *([] if method == "gzip" else ["-q"]), "-d", "-c")


def _program(compression: ResolvedCompression) -> str:
    if compression.program is None:
        raise AssertionError(f"{compression} is not done by a program")
    return compression.program
