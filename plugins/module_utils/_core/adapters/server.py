# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""The server, asked with SQL: read-only, with a time limit, and never by way of our environment."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

try:
    import psycopg2
    import psycopg2.extensions
except ImportError:
    HAS_PSYCOPG2 = False
else:
    HAS_PSYCOPG2 = True

from ..domain import patterns
from ..domain.commands import check_password, conninfo
from ..domain.database_sql import quote_identifier, setting_values
from ..domain.errors import ConfigurationError, ServerError
from ..domain.facts import (
    OUTPUT_SETTINGS,
    DatabaseEntry,
    DatabaseFacts,
    Obstacles,
    ReplicationFacts,
    ServerFacts,
)
from ..domain.globals import Globals, GlobalsFacts, Membership, Privilege, Role, Tablespace
from ..domain.model import Connection, DumpOptions
from ..domain.restoration import TargetFacts
from ..domain.standby import PAUSE_FUNCTIONS
from . import server_sql as sql
from .files import free_space

STATEMENT_TIMEOUT = 60  # seconds; the catalogue of a huge database takes a few

_INVALID_REGULAR_EXPRESSION = "2201B"
_QUERY_CANCELED = "57014"
_NOT_IN_THIS_STATE = "55000"
_INSUFFICIENT_PRIVILEGE = "42501"
_PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}
_environment_lock = threading.Lock()

# What libpq and the server say, and what to do. The server's part is in its own language: the last line is for that.
_ADVICE = (
    (
        r"password authentication failed|no password supplied|password retrieved from file",
        "check login_user and login_password, or the passfile (libpq ignores one that others may read)",
    ),
    (r"[Pp]eer authentication failed", "run as the operating system's user of that name, or map it in pg_ident.conf"),
    (r"no pg_hba.conf entry|pg_hba.conf rejects", "allow this host, role and database in the server's pg_hba.conf"),
    (r"permission denied for database|does not have CONNECT", "GRANT CONNECT ON DATABASE to the role"),
    (r"database .* does not exist", "check the name of the database"),
    (r"role .* does not exist|not permitted to log in", "check login_user"),
    (r"not currently accepting connections|invalid database", "this database cannot be dumped as it is"),
    (r"too many (clients|connections)|connection slots", "raise max_connections, or run when there is less load"),
    (r"starting up|shutting down|in recovery mode|not yet accepting", "wait until the server is up, then run again"),
    (r"could not translate host name", "check login_host"),
    (r"service", "check service and service_file"),
    (r"SSL|certificate|root\.crt", "check ssl_mode, ca_cert, ssl_cert and ssl_key, and the server's TLS settings"),
)  # fmt: skip
_NOT_THERE = "is the server running? check login_host, login_port and login_unix_socket"


class Session:
    """One connection to one database."""

    def __init__(self, connection: Any, database: str) -> None:
        self._connection = connection
        self.database = database

    @property
    def host(self) -> str:
        """Return where the connection went: a host, or a socket's directory. Client programs of another make may look
        for the socket elsewhere; give them this.
        """
        return str(self._connection.info.host or "")

    @property
    def address(self) -> str:
        """Return where the connection went, for people."""
        return f"{self.host}:{self._connection.info.port}"

    def rows(self, query: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """Given a query, return its rows; raise ServerError where the server refuses."""
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(query, parameters)
                return [tuple(map(_decoded, row)) for row in cursor.fetchall()] if cursor.description else []
        except psycopg2.Error as error:
            raise _query_error(error, self.database) from None

    def row(self, query: str, parameters: Any = None) -> tuple[Any, ...]:
        """Given a query of one row, return that row."""
        return self.rows(query, parameters)[0]


class _QueryError(ServerError):
    """A refused query, with the code that says why."""

    code = ""


def _decoded(value: Any) -> Any:
    """Given a value, return text for bytes. In an SQL_ASCII database text is bytes of any kind."""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return [_decoded(item) for item in value] if isinstance(value, list) else value


def _query_error(error: Any, database: str) -> _QueryError:
    if error.pgcode == _QUERY_CANCELED:
        said = f"stopped the query, after {STATEMENT_TIMEOUT} s or because it was told to: run again"
    elif error.pgcode is None:
        said = f"went away: {_one_line(str(error))}: look into the server's log, then run again"
    else:
        said = f"says: {_one_line(error.diag.message_primary or str(error))}"
    translated = _QueryError(f"database {database!r}: the server {said}")
    translated.code = error.pgcode or ""
    return translated


@contextmanager
def connect(connection: Connection, database: str | None = None, *, writable: bool = False) -> Iterator[Session]:
    """Given a connection and a database (None: the one to connect to first), yield a session; raise ServerError where
    there is none. It sees no schema but pg_catalog unless named, and has switched to session_role. Unless it shall be
    writable, it reads only, and no query may take long.
    """
    if not HAS_PSYCOPG2:
        raise ServerError(
            "the Python library psycopg2 is missing: install the package python3-psycopg2, or psycopg2-binary with pip"
        )
    if connection.login_password:
        check_password(connection.login_password)
    shown = connection.login_db if database is None else database
    try:
        link = _open(connection, database)
    except psycopg2.Error as error:
        raise ServerError(f"cannot connect to database {shown!r}: {_connect_advice(str(error))}") from None
    except (UnicodeError, ValueError):
        raise ConfigurationError(f"cannot connect to database {shown!r}: a name or option is not valid text") from None
    try:
        yield _prepared(Session(link, str(link.info.dbname)), link, connection, writable)
    finally:
        link.close()


def _open(connection: Connection, database: str | None) -> Any:
    secrets = {"password": connection.login_password, "passfile": connection.passfile}
    given: dict[str, Any] = {name: value for name, value in secrets.items() if value}
    with _service_file(connection.service_file):
        return psycopg2.connect(conninfo(connection, database), client_encoding="UTF8", **given)


@contextmanager
def _service_file(path: str | None) -> Iterator[None]:
    """Given a service file, show it to libpq, which before version 18 takes it from the environment alone."""
    if not path:
        yield
        return
    with _environment_lock:
        os.environ["PGSERVICEFILE"] = path
        try:
            yield
        finally:
            del os.environ["PGSERVICEFILE"]


def _prepared(session: Session, link: Any, connection: Connection, writable: bool) -> Session:
    # Decoding is ours: psycopg2's own stops at the first name that is not valid in the encoding.
    psycopg2.extensions.register_type(psycopg2.extensions.BYTES, link)
    psycopg2.extensions.register_type(psycopg2.extensions.BYTESARRAY, link)
    link.set_session(readonly=not writable, autocommit=True)
    # By SET and not by libpq's options, which connection poolers refuse.
    if link.info.parameter_status("server_encoding") == "SQL_ASCII":
        # Names may be bytes of any kind there, and the server refuses to send such as UTF-8. psycopg2 need not know.
        session.rows("SET client_encoding = 'SQL_ASCII'")
    session.rows(f"SET search_path = ''; SET statement_timeout = '{0 if writable else STATEMENT_TIMEOUT}s'")
    if connection.session_role:
        try:
            session.rows(f"SET ROLE {quote_identifier(connection.session_role)}")
        except _QueryError as error:
            raise ServerError(f"{error}: check session_role") from None
    return session


def _connect_advice(said: str) -> str:
    advice = next((todo for pattern, todo in _ADVICE if re.search(pattern, said)), _NOT_THERE)
    return f"{_one_line(said)}: {advice}"


def _one_line(said: str) -> str:
    """Given a message, return its lines but for libpq's own hints as one."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("\t")]
    return "; ".join(dict.fromkeys(lines)) or "no reason given"


def server_facts(session: Session) -> ServerFacts:
    """Given a session in any database, return what the server and the role are."""
    *facts, may_read_control = session.row(sql.SERVER)
    # Asked apart: the server checks the right to call a function also where the call would never be made.
    identifier = str(session.row(sql.SYSTEM_IDENTIFIER)[0]) if may_read_control else None
    return replace(ServerFacts(*facts), system_identifier=identifier)


def databases(session: Session) -> tuple[DatabaseEntry, ...]:
    """Given a session in any database, return all databases by name, also those that cannot be dumped."""
    return tuple(
        replace(DatabaseEntry(name, *rest), readable_name=len(name.encode()) == length)
        for name, length, *rest in session.rows(sql.DATABASES)
    )


def database_facts(session: Session) -> DatabaseFacts:
    """Given a session in a database, return what is known of that database besides its contents."""
    number = int(session.row("SELECT current_setting('server_version_num')")[0])
    plain = session.row(sql.database(number))
    names = (
        "name", "owner", "encoding", "locale_provider", "collate", "ctype", "locale", "icu_rules", "collation_version",
        "tablespace", "connection_limit", "is_template", "comment", "has_acl", "size",
    )  # fmt: skip
    facts = dict(zip(names, plain))
    facts["locale_provider"] = _PROVIDERS.get(facts["locale_provider"], facts["locale_provider"])
    acl = _dictionaries(session.rows(sql.ACL), ("grantor", "grantee", "privilege", "grantable"))
    counts = session.row(sql.COUNTS)
    return DatabaseFacts(
        acl=acl if facts.pop("has_acl") else None,
        settings=tuple(_setting(role, text) for role, text in session.rows(sql.SETTINGS)),
        extensions=_dictionaries(session.rows(sql.EXTENSIONS), ("name", "version", "schema")),
        roles=tuple(name for (name,) in session.rows(sql.ROLES)),
        tablespaces=tuple(name for (name,) in session.rows(sql.TABLESPACES)),
        output_settings=dict(zip(OUTPUT_SETTINGS, session.row(sql.OUTPUT))),
        **dict(zip(("tables", "relations", "large_objects", "subscriptions"), counts)),
        **facts,
    )


def _dictionaries(rows: Sequence[tuple[Any, ...]], names: Sequence[str]) -> tuple[dict[str, Any], ...]:
    return tuple(dict(zip(names, row)) for row in rows)


def _setting(role: str | None, text: str) -> dict[str, Any]:
    name, _equals, value = text.partition("=")
    return {"role": role, "name": name, "value": value}


def target_facts(session: Session, database: str) -> TargetFacts:
    """Given a session in any database and the name of the one to restore to, return what the restore depends on."""
    can_create, roles, member_of, extensions, tablespaces, sessions = session.row(sql.TARGET, {"database": database})
    places = [place for (place,) in session.rows(sql.DATA_DIRECTORY)]
    # The server's own directory, if it is on this host: another host's may have the same name, so a socket is asked for.
    local = session.host.startswith("/") and places and os.path.isdir(places[0])
    return TargetFacts(
        can_create,
        frozenset(roles),
        frozenset(member_of),
        frozenset(extensions),
        frozenset(tablespaces),
        sessions,
        free_space(places[0])[0] if local else None,
    )


def resolve_patterns(session: Session, dump: DumpOptions) -> patterns.Matches:
    """Given a session in a database, return what each pattern of the dump matches there; raise ConfigurationError for
    one that matches nothing. pg_dump itself is silent about a wrong exclusion, and about one wrong table of two.
    """
    return patterns.Matches(
        tuple(_match(session, option, text) for option in patterns.OPTIONS for text in getattr(dump, option))
    )


def _match(session: Session, option: str, text: str) -> patterns.Match:
    parsed = patterns.parse(text, option)
    if parsed.database not in (None, session.database):
        another = f"another database than {session.database!r}"
        raise ConfigurationError(f"{option} has the pattern {text!r}, which names {another}: leave that part out")
    kind = sql.SCHEMAS if option in patterns.SCHEMA_OPTIONS else sql.RELATIONS
    try:
        # Like pg_dump: a table without a schema is looked for in the role's own search path.
        session.rows("RESET search_path")
        found = session.rows(kind, {"name": parsed.name, "schema": parsed.schema})
    except _QueryError as error:
        if error.code == _INVALID_REGULAR_EXPRESSION:
            raise ConfigurationError(f"{option} has the pattern {text!r}, which cannot be used: {error}") from None
        raise
    finally:
        session.rows("SET search_path = ''")
    system = [name for _oid, name in found if patterns.is_system(name)]
    if system and option in ("tables", "schemas"):
        raise patterns.system_match(option, text, sorted(system))
    found = [(oid, name) for oid, name in found if not patterns.is_system(name)]
    if not found:
        existing = session.rows(sql.SCHEMA_NAMES if option in patterns.SCHEMA_OPTIONS else sql.RELATION_NAMES)
        raise patterns.no_match(option, text, session.database, [name for (name,) in existing])
    return patterns.Match(option, text, tuple(oid for oid, _name in found), tuple(name for _oid, name in found))


def obstacles(session: Session, matches: patterns.Matches) -> Obstacles:
    """Given a session in a database and what a dump's patterns match there, return what of it the role cannot read."""
    asked = {option: matches.oids(option) for option in patterns.OPTIONS}
    asked_for = {**asked, "everything": matches.everything, "by_table": bool(asked["tables"])}
    tables, with_data, row_security, no_select, no_usage = session.row(sql.OBSTACLES, asked_for)
    unreadable = session.row(sql.UNREADABLE_LARGE_OBJECTS)[0] if matches.everything else 0
    return Obstacles(
        tables, with_data, tuple(row_security or ()), tuple(no_select or ()), tuple(no_usage or ()), unreadable
    )


# --- a primary and its standbys ---


def replication_facts(session: Session, is_standby: bool) -> ReplicationFacts:
    """Given a session in any database and whether the server is in recovery, return its place among the others."""
    (name,) = session.row(sql.CLUSTER_NAME)
    senders = session.rows(sql.WAL_SENDERS)
    hidden = any(state is None for state, _name, _replays in senders)
    streaming = tuple(name for state, name, replays in senders if state == "streaming" and replays)
    return ReplicationFacts(is_standby, name, None if hidden else streaming)


def replay_lag(session: Session) -> timedelta | None:
    """Given a session on a standby, return how far it is behind what it knows of its primary; None if it cannot tell."""
    (seconds,) = session.row(sql.REPLAY_LAG)
    return None if seconds is None else timedelta(seconds=seconds)


def may_pause_replay(session: Session) -> bool:
    """Given a session in the database to connect to first, return whether the role may pause replay and resume it."""
    return bool(session.row(sql.MAY_PAUSE_REPLAY, {"functions": list(PAUSE_FUNCTIONS)})[0])


def pause_replay(session: Session) -> None:
    """Given a session on a standby, ask it to pause replay, which takes effect later; raise ServerError."""
    session.rows(sql.PAUSE_REPLAY)


def resume_replay(session: Session) -> bool:
    """Given a session on what was a standby, have it go on with replay; return whether that was paused. The replay of a
    promoted one has ended for good. Raise ServerError.
    """
    if not session.row("SELECT pg_is_in_recovery()")[0]:
        return False
    try:
        was_paused = bool(session.row("SELECT pg_is_wal_replay_paused()")[0])
        session.rows(sql.RESUME_REPLAY)
        return was_paused
    except _QueryError as error:
        if error.code != _NOT_IN_THIS_STATE:  # promoted at this very moment
            raise
        return False


def forbidden(error: ServerError) -> bool:
    """Given an error, return whether the role lacks the right to do it."""
    return isinstance(error, _QueryError) and error.code == _INSUFFICIENT_PRIVILEGE


def replay_state(session: Session, facts: ServerFacts) -> tuple[str, str]:
    """Given a session on a standby, return the state of the pause, in the server's words, and the position of replay."""
    state, position = session.row(sql.replay_state(facts.version_num))
    return str(state), str(position)


def replay_locks(session: Session) -> tuple[str, ...]:
    """Given a session on a standby, return the databases in which replay holds a lock that no reader gets past."""
    return tuple(name for (name,) in session.rows(sql.REPLAY_LOCKS))


def started(session: Session) -> str:
    """Given a session, return when the server was started. No other server, and no restart, has the same."""
    return str(session.row(sql.SERVER_START)[0])


def stay(session: Session) -> None:
    """Given a session that will be idle for long, keep the server from ending it for that."""
    session.rows(sql.NO_IDLE_TIMEOUT)


# --- what belongs to the whole server ---


def globals_facts(session: Session, script: Globals) -> GlobalsFacts:
    """Given a session in any database and the globals that are to be restored, return what restoring them depends on."""
    facts = server_facts(session)
    rows = session.rows(sql.globals_roles(facts.can_read_authid))
    privileges = [Privilege(*row) for row in session.rows(sql.GLOBALS_TABLESPACE_PRIVILEGES)]
    parameters = session.rows(sql.GLOBALS_PARAMETER_PRIVILEGES) if facts.major >= 15 else []
    unknown, refused = _unfit_settings(session, script, facts)
    return GlobalsFacts(
        facts,
        next(row[0] for row in rows if row[-2]),
        bool(session.row(sql.SESSION_SUPERUSER)[0]),
        {row[0]: _role(*row[:-2]) for row in rows},
        frozenset(row[0] for row in rows if row[-1]),
        tuple(Membership(*row) for row in session.rows(sql.globals_memberships(facts.version_num))),
        {row[0]: _tablespace(privileges, *row) for row in session.rows(sql.GLOBALS_TABLESPACES)},
        tuple(Privilege(*row) for row in parameters),
        unknown,
        refused,
        {place.location: _is_directory(session, place.location) for place in script.tablespaces}
        if facts.is_superuser
        else {},
    )


def _role(name: str, *columns: Any) -> Role:
    *attributes, settings, comment, labels = columns
    split = [setting.partition("=") for setting in settings or ()]
    values = tuple((setting, setting_values(setting, value)) for setting, _equals, value in split)
    role = Role(name, *attributes)
    return replace(role, settings=values, comment=comment, labels=tuple(map(tuple, labels)))


def _tablespace(privileges: Sequence[Privilege], name: str, owner: str, location: str, *columns: Any) -> Tablespace:
    options, comment, labels = columns
    split = [option.partition("=") for option in options or ()]
    return Tablespace(
        name,
        owner,
        location,
        tuple((option, value) for option, _equals, value in split),
        privileges=tuple(item for item in privileges if item.target == name),
        comment=comment,
        labels=tuple(map(tuple, labels)),
    )


def _unfit_settings(session: Session, script: Globals, facts: ServerFacts) -> tuple[frozenset[str], frozenset[str]]:
    """Return which of the script's settings the server does not have, and which this role may not set."""
    named = {name for role in script.roles for name, _values in role.settings}
    names = {"names": sorted(named | {item.target for item in script.parameters})}
    query = sql.UNKNOWN_SETTINGS if facts.is_superuser else sql.refused_settings(facts.version_num)
    found = frozenset(name for (name,) in session.rows(query, names))
    return (found, frozenset()) if facts.is_superuser else (frozenset(), found)


def _is_directory(session: Session, path: str) -> bool:
    try:
        return bool(session.row(sql.DIRECTORY_EXISTS, {"path": path})[0])
    except ServerError:
        return True  # it cannot be looked at: CREATE TABLESPACE, which comes first, will say why


@contextmanager
def transaction(session: Session) -> Iterator[None]:
    """Given a writable session, make one transaction of what happens inside: all of it, or nothing."""
    session.rows("BEGIN")
    try:
        yield
        session.rows("COMMIT")
    except BaseException:
        try:
            session.rows("ROLLBACK")
        except ServerError:
            pass  # the connection is gone, and with it the transaction
        raise
