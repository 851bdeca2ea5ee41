# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.

"""SQL that gives a database back what its archive does not hold: owner, ACL, settings, comment and limits.

pg_restore applies them only where it creates the database under its old name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Settings whose value is a list of names: each name is a literal of its own (GUC_LIST_QUOTE in PostgreSQL's source).
_LISTS = frozenset((
    "local_preload_libraries", "search_path", "session_preload_libraries", "shared_preload_libraries",
    "temp_tablespaces", "unix_socket_directories",
))  # fmt: skip


def quote_identifier(name: str) -> str:
    """Given any name, return it as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(value: str) -> str:
    """Given any text, return it as an SQL literal that means the same whatever standard_conforming_strings is."""
    quoted = "'" + value.replace("'", "''").replace("\\", "\\\\") + "'"
    return f" E{quoted}" if "\\" in value else quoted


def roles_of(properties: Mapping[str, Any]) -> frozenset[str]:
    """Given a manifest's properties, return the roles that `reapply` would name."""
    grants, settings = properties["acl"] or (), properties["settings"]
    named = [properties["owner"], *(grant[who] for grant in grants for who in ("grantor", "grantee"))]
    return frozenset(role for role in (*named, *(setting["role"] for setting in settings)) if role is not None)


def reapply(
    properties: Mapping[str, Any],
    database: str,
    without: frozenset[str] = frozenset(),
    session_role: str | None = None,
) -> tuple[str, ...]:
    """Given a manifest's properties and a database of any name, fresh from CREATE DATABASE, return the statements that
    give it the owner, limits, comment, ACL and settings. Roles in `without` do not exist there: they are left out.
    They are run as the session's role, or as one that it was set to.
    """
    target = quote_identifier(database)
    statements = []
    if properties["owner"] not in without:
        statements.append(f"ALTER DATABASE {target} OWNER TO {quote_identifier(properties['owner'])}")
    if properties["connection_limit"] != -1:
        statements.append(f"ALTER DATABASE {target} CONNECTION LIMIT {int(properties['connection_limit'])}")
    if properties["is_template"]:
        statements.append(f"ALTER DATABASE {target} IS_TEMPLATE true")
    if properties["comment"] is not None:
        statements.append(f"COMMENT ON DATABASE {target} IS {quote_literal(properties['comment'])}")
    if properties["acl"] is not None:
        statements += _acl(properties["acl"], properties["owner"], target, without, session_role)
    settings = [setting for setting in properties["settings"] if setting["role"] not in without]
    return (*statements, *(_setting(setting, target) for setting in settings))


def _acl(
    grants: Sequence[Mapping[str, Any]], owner: str, target: str, without: frozenset[str], session_role: str | None
) -> list[str]:
    back = f"SET ROLE {quote_identifier(session_role)}" if session_role else "RESET ROLE"
    statements = [f"REVOKE ALL ON DATABASE {target} FROM PUBLIC"]
    if owner not in without:
        statements.append(f"REVOKE ALL ON DATABASE {target} FROM {quote_identifier(owner)}")
    strangers = without - {owner}
    possible = [grant for grant in grants if grant["grantee"] not in without and grant["grantor"] not in strangers]
    for grant in _in_order(possible, owner):
        grantee = "PUBLIC" if grant["grantee"] is None else quote_identifier(grant["grantee"])
        option = " WITH GRANT OPTION" if grant["grantable"] else ""
        given = f"GRANT {grant['privilege']} ON DATABASE {target} TO {grantee}{option}"
        if grant["grantor"] == owner:  # whoever owns the database now: the server takes a superuser's grant as theirs
            statements.append(given)
        else:  # a right that was passed on stays with who passed it on
            statements += [f"SET ROLE {quote_identifier(grant['grantor'])}", given, back]
    return statements


def _in_order(grants: Sequence[Mapping[str, Any]], owner: str) -> list[Mapping[str, Any]]:
    """Given grants, return them so that nobody passes on what they have not got yet; leave out who never gets it."""
    ordered: list[Mapping[str, Any]] = []
    can_pass_on = {(owner, grant["privilege"]) for grant in grants}
    waiting = list(grants)
    while True:
        ready = [grant for grant in waiting if (grant["grantor"], grant["privilege"]) in can_pass_on]
        if not ready:
            return ordered
        ordered += ready
        can_pass_on |= {(grant["grantee"], grant["privilege"]) for grant in ready if grant["grantable"]}
        waiting = [grant for grant in waiting if grant not in ready]


def _setting(setting: Mapping[str, Any], target: str) -> str:
    whose = f"ALTER DATABASE {target}"
    if setting["role"] is not None:
        whose = f"ALTER ROLE {quote_identifier(setting['role'])} IN DATABASE {target}"
    values = setting_values(setting["name"], setting["value"])
    return f"{whose} SET {quote_identifier(setting['name'])} TO {', '.join(map(quote_literal, values))}"


def setting_values(name: str, value: str) -> tuple[str, ...]:
    """Given a setting as the server stores it, return what SET takes: one value, or each of a list of names."""
    return tuple(_list_items(value) or [""]) if name.lower() in _LISTS else (value,)


def _list_items(value: str) -> list[str]:
    """Given `"$user", public` as the server stores it, return the names: "$user" and "public"."""
    items: list[str] = []
    current, quoted, position = "", False, 0
    while position < len(value):
        character = value[position]
        if character == '"':
            if quoted and value[position + 1 : position + 2] == '"':
                current += '"'
                position += 1
            else:
                quoted = not quoted
        elif character == "," and not quoted:
            items.append(current)
            current = ""
        elif quoted or not character.isspace():
            current += character
        position += 1
    return [*items, current] if value.strip() else items
