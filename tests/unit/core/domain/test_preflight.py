# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import preflight
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.facts import (
    DatabaseEntry,
    DatabaseFacts,
    Obstacles,
    ServerFacts,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.patterns import Match, Matches

ENTRY = DatabaseEntry("shop", "postgres", True, False, False, True)
SERVER = ServerFacts("15.18", 150018, "backup", False, False, True, False, 6400)
ROOT = replace(SERVER, role="postgres", is_superuser=True, bypasses_rls=True)
DATABASE = DatabaseFacts(
    name="shop", owner="postgres", encoding="UTF8", locale_provider="libc", collate="C", ctype="C", locale=None,
    icu_rules=None, collation_version=None, tablespace="pg_default", connection_limit=-1, is_template=False,
    comment=None, acl=None, settings=(), extensions=(), roles=(), tablespaces=(), tables=1, relations=1,
    large_objects=0, subscriptions=0, size=1, output_settings={},
)  # fmt: skip
NOTHING = Obstacles(tables=3, tables_with_data=3)
PARTIAL = Matches((Match("schemas", "a", (1,), ("a",)),))


def test_a_database_without_obstacles_has_neither_errors_nor_warnings() -> None:
    assert preflight.preflight_problems(SERVER, DATABASE, NOTHING, Matches()) == ((), ())


def test_hidden_rows_are_an_error_that_names_five_tables_and_the_remedy() -> None:
    tables = tuple(f"public.t{number}" for number in range(7))
    (error,), warnings = preflight.preflight_problems(
        SERVER, DATABASE, replace(NOTHING, row_security=tables), Matches()
    )
    assert "public.t0, public.t1, public.t2, public.t3, public.t4 and 2 more from role 'backup'" in error
    assert "BYPASSRLS" in error
    assert warnings == ()


def test_missing_privileges_are_errors() -> None:
    obstacles = replace(NOTHING, no_select=("public.a",), no_usage=("secret",))
    errors, _unused = preflight.preflight_problems(SERVER, DATABASE, obstacles, Matches())
    assert [error.split(":")[0] for error in errors] == [
        "role 'backup' has no USAGE on schema secret", "role 'backup' may not read public.a",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("version", "remedy"), [(180000, "GRANT SELECT ON LARGE OBJECT"), (190000, "GRANT pg_read_all_data")]
)
def test_unreadable_large_objects_are_an_error_with_the_remedy_of_the_version(version: int, remedy: str) -> None:
    server = replace(SERVER, version_num=version)
    obstacles = replace(NOTHING, large_objects=2)
    (error,), _unused = preflight.preflight_problems(server, DATABASE, obstacles, Matches())
    assert "may not read 2 large objects" in error
    assert remedy in error
    assert preflight.preflight_problems(server, DATABASE, obstacles, PARTIAL) == ((), ())


def test_subscriptions_are_a_warning_for_who_cannot_dump_them() -> None:
    database = replace(DATABASE, subscriptions=1)
    _unused, warnings = preflight.preflight_problems(SERVER, database, NOTHING, Matches())
    assert warnings == ("1 subscriptions are not dumped, because role 'backup' is not a superuser",)
    assert preflight.preflight_problems(ROOT, database, NOTHING, Matches()) == ((), ())


def test_more_tables_than_locks_are_a_warning() -> None:
    _unused, (warning,) = preflight.preflight_problems(ROOT, DATABASE, replace(NOTHING, tables=6000), Matches())
    assert "6000 tables" in warning
    assert "max_locks_per_transaction" in warning


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (ENTRY, ""),
        (replace(ENTRY, is_template=True), "template"),
        (replace(ENTRY, allow_connections=False, is_template=True), "does not allow connections"),
        (replace(ENTRY, invalid=True), "invalid, left by an interrupted DROP DATABASE"),
    ],
)
def test_what_cannot_be_dumped_is_skipped_with_the_reason(entry: DatabaseEntry, reason: str) -> None:
    said = preflight.skip_reason(entry)
    assert reason in said
    assert bool(reason) == bool(said)


def test_a_database_that_the_role_may_not_connect_to_is_a_problem() -> None:
    assert preflight.connect_problem(ENTRY, "backup") == ""
    assert "GRANT CONNECT" in preflight.connect_problem(replace(ENTRY, can_connect=False), "backup")
    assert "rename it" in preflight.connect_problem(replace(ENTRY, readable_name=False), "backup")
