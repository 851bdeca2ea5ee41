# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.

"""What would make a dump fail or miss something, said before it begins."""

from __future__ import annotations

from collections.abc import Sequence

from .facts import DatabaseEntry, DatabaseFacts, Obstacles, ServerFacts
from .patterns import Matches

_NAMED = 5
_FIRST_SERVER_WITH_READABLE_LARGE_OBJECTS = 19  # from there on pg_read_all_data covers them
_LOCKS_IN_USE = 0.8  # of all slots; other sessions need some too


def skip_reason(entry: DatabaseEntry) -> str:
    """Given a database of the server's list, return why it cannot or need not be dumped; "" when it can."""
    if entry.invalid:
        return "it is invalid, left by an interrupted DROP DATABASE: drop it again"
    if not entry.allow_connections:
        return "it does not allow connections (datallowconn is off)"
    if entry.is_template:
        return "it is a template"
    return ""


def connect_problem(entry: DatabaseEntry, role: str) -> str:
    """Given a database of the server's list and the role, return why the role cannot connect; "" when it can."""
    if not entry.readable_name:
        return "its name is not valid UTF-8, so no client can be told to connect to it: rename it"
    if not entry.can_connect:
        return f"role {role!r} may not connect: GRANT CONNECT ON DATABASE to it"
    return ""


def preflight_problems(
    server: ServerFacts, database: DatabaseFacts, obstacles: Obstacles, matches: Matches
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Given what is known of a database and of what the role cannot read, return errors (the dump would fail) and
    warnings (it would miss something). None of them names the database; the caller does.
    """
    errors = [
        *_row_security(obstacles.row_security, server.role),
        *_privileges(obstacles, server.role),
        *_large_objects(obstacles.large_objects, server, matches),
    ]
    warnings = [*_subscriptions(database, server, matches), *_locks(obstacles.tables, server)]
    return tuple(errors), tuple(warnings)


def _row_security(tables: Sequence[str], role: str) -> list[str]:
    if not tables:
        return []
    remedy = "dump as a superuser or as a role with BYPASSRLS, or leave the rows out with exclude_table_data"
    return [f"row-level security hides rows of {_some(tables)} from role {role!r}: {remedy}"]


def _privileges(obstacles: Obstacles, role: str) -> list[str]:
    remedy = "GRANT pg_read_all_data to it (PostgreSQL 14 and newer), dump as a superuser, or leave them out"
    said = []
    if obstacles.no_usage:
        said.append(f"role {role!r} has no USAGE on {_some(obstacles.no_usage, 'schema')}: {remedy}")
    if obstacles.no_select:
        said.append(f"role {role!r} may not read {_some(obstacles.no_select)}: {remedy}")
    return said


def _large_objects(unreadable: int, server: ServerFacts, matches: Matches) -> list[str]:
    if not unreadable or not matches.everything:
        return []
    remedy = "dump as a superuser, or GRANT SELECT ON LARGE OBJECT to it"
    if server.major >= _FIRST_SERVER_WITH_READABLE_LARGE_OBJECTS:
        remedy = "GRANT pg_read_all_data to it"
    return [f"role {server.role!r} may not read {unreadable} large objects: {remedy}"]


def _subscriptions(database: DatabaseFacts, server: ServerFacts, matches: Matches) -> list[str]:
    if not database.subscriptions or server.is_superuser or not matches.everything:
        return []
    return [f"{database.subscriptions} subscriptions are not dumped, because role {server.role!r} is not a superuser"]


def _locks(tables: int, server: ServerFacts) -> list[str]:
    if tables <= server.lock_slots * _LOCKS_IN_USE:
        return []
    remedy = 'if it fails with "out of shared memory", raise max_locks_per_transaction'
    return [f"the dump locks {tables} tables at once and the server has {server.lock_slots} lock slots: {remedy}"]


def _some(names: Sequence[str], what: str = "") -> str:
    more = len(names) - _NAMED
    return f"{what} {', '.join(names[:_NAMED])}".strip() + (f" and {more} more" if more > 0 else "")
