# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import database_sql
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.database_sql import (
    quote_identifier,
    quote_literal,
)

PLAIN: dict[str, Any] = {
    "owner": "shop", "connection_limit": -1, "is_template": False, "comment": None, "acl": None, "settings": [],
}  # fmt: skip


def grant(grantee: str | None, privilege: str, grantor: str = "shop", grantable: bool = False) -> dict[str, Any]:
    return {"grantor": grantor, "grantee": grantee, "privilege": privilege, "grantable": grantable}


def setting(name: str, value: str, role: str | None = None) -> dict[str, Any]:
    return {"role": role, "name": name, "value": value}


def test_identifiers_and_literals_are_quoted() -> None:
    assert quote_identifier('a"b') == '"a""b"'
    assert quote_literal("it's") == "'it''s'"
    assert quote_literal("back\\slash") == " E'back\\\\slash'"


def test_a_plain_database_gets_its_owner_back() -> None:
    assert database_sql.reapply(PLAIN, 'new "name"') == ('ALTER DATABASE "new ""name""" OWNER TO "shop"',)


def test_limits_template_and_comment_are_given_back() -> None:
    properties = {**PLAIN, "connection_limit": 5, "is_template": True, "comment": "it's ours"}
    assert database_sql.reapply(properties, "d")[1:] == (
        'ALTER DATABASE "d" CONNECTION LIMIT 5',
        'ALTER DATABASE "d" IS_TEMPLATE true',
        "COMMENT ON DATABASE \"d\" IS 'it''s ours'",
    )


def test_an_acl_begins_with_taking_the_defaults_away() -> None:
    properties = {
        **PLAIN,
        "acl": [grant("shop", "CREATE"), grant(None, "CONNECT"), grant("app", "CONNECT", grantable=True)],
    }
    assert database_sql.reapply(properties, "d")[1:] == (
        'REVOKE ALL ON DATABASE "d" FROM PUBLIC',
        'REVOKE ALL ON DATABASE "d" FROM "shop"',
        'GRANT CREATE ON DATABASE "d" TO "shop"',
        'GRANT CONNECT ON DATABASE "d" TO PUBLIC',
        'GRANT CONNECT ON DATABASE "d" TO "app" WITH GRANT OPTION',
    )


def test_a_right_is_passed_on_after_it_was_given() -> None:
    acl = [grant("c", "CONNECT", "b"), grant("b", "CONNECT", "a", True), grant("a", "CONNECT", grantable=True)]
    said = database_sql.reapply({**PLAIN, "acl": acl}, "d")[3:]
    assert said == (
        'GRANT CONNECT ON DATABASE "d" TO "a" WITH GRANT OPTION',
        'SET ROLE "a"',
        'GRANT CONNECT ON DATABASE "d" TO "b" WITH GRANT OPTION',
        "RESET ROLE",
        'SET ROLE "b"',
        'GRANT CONNECT ON DATABASE "d" TO "c"',
        "RESET ROLE",
    )


def test_roles_that_do_not_exist_are_left_out_with_what_they_passed_on() -> None:
    acl = [grant(None, "CONNECT"), grant("a", "CONNECT", grantable=True), grant("b", "CONNECT", "a")]
    properties = {**PLAIN, "acl": acl, "settings": [setting("work_mem", "1MB", "a"), setting("work_mem", "2MB")]}
    assert database_sql.roles_of(properties) == {"shop", "a", "b"}
    assert database_sql.reapply(properties, "d", frozenset({"a", "shop"})) == (
        'REVOKE ALL ON DATABASE "d" FROM PUBLIC',
        'GRANT CONNECT ON DATABASE "d" TO PUBLIC',
        'ALTER DATABASE "d" SET "work_mem" TO \'2MB\'',
    )


def test_lists_of_names_are_set_name_by_name() -> None:
    said = database_sql.reapply(
        {
            **PLAIN,
            "settings": [setting("search_path", '"$user", public, "a, ""b"""'), setting("DateStyle", "ISO, DMY")],
        },
        "d",
    )
    assert said[1:] == (
        "ALTER DATABASE \"d\" SET \"search_path\" TO '$user', 'public', 'a, \"b\"'",
        'ALTER DATABASE "d" SET "DateStyle" TO \'ISO, DMY\'',
    )


def test_an_empty_search_path_stays_empty() -> None:
    for stored in ('""', ""):
        said = database_sql.reapply({**PLAIN, "settings": [setting("search_path", stored, "app")]}, "d")
        assert said[1:] == ('ALTER ROLE "app" IN DATABASE "d" SET "search_path" TO \'\'',)
