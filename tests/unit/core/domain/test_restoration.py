# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ConfigurationError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.facts import DatabaseEntry, ServerFacts
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import RestoreOptions
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.restoration import (
    Destination,
    Needs,
    TargetFacts,
    create_database,
    destination,
    major_of,
    missing_parts,
    needed_schemas,
    needs,
    without_privileges,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile import HOSTILE_NAMES

from .histories import NOW

KEPT = "_2025-11-05_14-30-00"


def entries(*names: str) -> list[DatabaseEntry]:
    return [
        DatabaseEntry(name, "app", allow_connections=True, is_template=False, invalid=False, can_connect=True)
        for name in names
    ]


def where(recorded: str = "shop", existing: tuple[str, ...] = ("shop",), **options: Any) -> Destination:
    return destination(recorded, RestoreOptions(**options), entries(*existing), NOW)


# --- where it goes ---


@pytest.mark.parametrize(
    ("existing", "options", "expected"),
    [
        ((), {}, Destination("shop", "create")),
        (("Shop",), {}, Destination("shop", "create")),
        (("shop",), {"target": "new"}, Destination("new", "create")),
        (("shop",), {"if_exists": "skip"}, Destination("shop", "skip")),
        (("shop",), {"if_exists": "fill"}, Destination("shop", "fill")),
        ((), {"if_exists": "skip"}, Destination("shop", "create")),
        (("shop",), {"replace": "shop"}, Destination("shop", "replace", f"shop{KEPT}")),
        (("shop",), {"replace": "shop", "if_exists": "skip"}, Destination("shop", "replace", f"shop{KEPT}")),
        (("shop", f"shop{KEPT}"), {"replace": "shop"}, Destination("shop", "replace", f"shop{KEPT}_1")),
        (("old",), {"target": "old", "replace": "old"}, Destination("old", "replace", f"old{KEPT}")),
        ((), {"replace": "shop"}, Destination("shop", "create")),
    ],
)
def test_a_backup_goes_where_it_is_told_to(
    existing: tuple[str, ...], options: dict[str, Any], expected: Destination
) -> None:
    assert where("shop", existing, **options) == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "database 'shop' exists: give another `target`, set `replace` to 'shop'"),
        ({"target": "new", "replace": "shop"}, "replace is 'shop' and the target is 'new': they have to be the same"),
        ({"replace": "Shop"}, "replace is 'Shop' and the target is 'shop'"),
        ({"target": "x" * 64}, "cannot be the name of a database: use 1 to 63 bytes"),
        ({"target": "é" * 32}, "cannot be the name of a database"),
        ({"target": "a\0b"}, "cannot be the name of a database"),
        ({"target": "caf\udce9"}, "cannot be the name of a database"),  # bytes of the command line that are no UTF-8
    ],
)
def test_nothing_is_replaced_unless_that_is_said_clearly(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        where(**options)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_every_name_that_a_database_can_have_can_be_replaced(name: str) -> None:
    found = where(name, (name,), replace=name)
    assert (found.name, found.action) == (name, "replace")
    assert found.old
    assert len(found.old.encode()) <= 63
    assert found.old.endswith(KEPT)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), st.integers(1, 12))
def test_the_name_of_what_is_kept_is_free_and_short_enough(text: str, times: int) -> None:
    name = text.encode()[:63].decode(errors="ignore")
    there = [name]
    for _unused in range(times if name else 0):
        found = where(name, tuple(there), replace=name)
        assert found.old
        assert found.old not in there
        assert len(found.old.encode()) <= 63
        there.append(found.old)


# --- what is missing ---

SERVER = ServerFacts("17.2", 170002, "postgres", True, True, True, is_standby=False, lock_slots=6400)
ROLES = frozenset(("postgres", "shop", "app"))
TARGET = TargetFacts(
    can_create=True,
    roles=ROLES,
    member_of=ROLES,
    extensions=frozenset(("hstore",)),
    tablespaces=frozenset(("pg_default",)),
)
ORDINARY = replace(SERVER, role="app", is_superuser=False)
PROPERTIES: dict[str, Any] = {
    "owner": "shop", "acl": None, "settings": [], "roles": ["shop", "app"], "extensions": [], "tablespaces": [],
    "encoding": "UTF8", "locale_provider": "libc", "collate": "C", "ctype": "C", "locale": None, "icu_rules": None,
    "tablespace": "pg_default",
}  # fmt: skip
DOCUMENT: dict[str, Any] = {
    "format": "custom", "server_version": "15.18 (Debian)", "database_size": 1000, "properties": PROPERTIES,
}  # fmt: skip
NEW = Destination("shop", "create")
FILL = Destination("shop", "fill")
REPLACE = Destination("shop", "replace", "shop_old")


def needed(
    place: Destination = NEW,
    server: ServerFacts = SERVER,
    owner: str | None = None,
    client: int = 17,
    provided: frozenset[str] = frozenset(),
    options: RestoreOptions | None = None,
    document: dict[str, Any] | None = None,
    **target: Any,
) -> Needs:
    described = {**DOCUMENT, **(document or {})}
    facts = replace(TARGET, **target)
    return needs(described, options or RestoreOptions(), place, server, facts, client, owner, provided)


def properties(**changes: Any) -> dict[str, Any]:
    return {"properties": {**PROPERTIES, **changes}}


@pytest.mark.parametrize("place", [NEW, FILL, REPLACE])
def test_where_everything_is_there_nothing_is_needed(place: Destination) -> None:
    assert needed(place, owner="shop") == Needs([], [])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"document": {"server_version": "18.1"}},
            "the backup is of PostgreSQL 18 and the server has version 17, which is older",
        ),
        (
            {"server": replace(SERVER, version_num=160004), "client": 18},
            "pg_restore 18 sets transaction_timeout, which a server of version 16 does not know: install"
            " postgresql-client-16, or set bin_dir",
        ),
        ({"server": replace(SERVER, is_standby=True)}, "the server is a standby"),
        ({"can_create": False, "server": ORDINARY}, "role 'app' may not create databases"),
        ({"can_create": False, "server": ORDINARY, "place": REPLACE}, "role 'app' may not create databases"),
        ({"place": FILL, "objects": 3}, "'shop' is not empty (3 objects)"),
        (
            {"place": REPLACE, "owner": "boss", "member_of": frozenset(("app",)), "server": ORDINARY,
             "document": properties(owner="app")},
            "role 'app' does not own 'shop' and cannot rename it: connect as 'boss'",
        ),
        ({"place": REPLACE, "owner": "shop", "sessions": 2}, "2 sessions use 'shop': end them, or set `sessions`"),
        ({"free": 999}, "the server's disk has 999 B free and the database had 1.0 kB: free some space"),
        (
            {"document": {"format": "plain"}, "options": RestoreOptions(tables=("a",), no_owner=True)},
            "a plain dump is restored as it is: leave out `tables`, `no_owner`",
        ),
        ({"document": properties(roles=["shop", "zoe", "ann"])}, "roles are missing: ann, zoe: create them"),
        ({"document": properties(acl=[{"grantor": "shop", "grantee": "ann"}])}, "roles are missing: ann"),
        ({"document": properties(settings=[{"role": "ann"}])}, "roles are missing: ann"),
        (
            {"server": ORDINARY, "member_of": frozenset(("app",))},
            "role 'app' cannot give objects to shop: set `no_owner`",
        ),
        (
            {"document": properties(extensions=[{"name": name} for name in ("postgis", "hstore", "plpgsql")])},
            "extensions cannot be created: postgis: install their packages",
        ),
        ({"document": properties(tablespaces=["fast", "pg_default"])}, "tablespaces are missing: fast: create them"),
    ],
)  # fmt: skip
def test_what_is_missing_is_told_before_anything_is_touched(arguments: dict[str, Any], said: str) -> None:
    found = needed(**arguments)
    assert len(found.problems) == 1, found.problems
    assert said in found.problems[0]
    assert found.warnings == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"document": {"server_version": None}},
        {"document": {"server_version": "17.9"}},
        {"document": {"format": "plain"}, "server": replace(SERVER, version_num=160004), "client": 18},
        {"place": FILL, "can_create": False},
        {"place": REPLACE, "owner": "shop", "sessions": 2, "options": RestoreOptions(sessions="wait")},
        {"place": REPLACE, "owner": "shop", "sessions": 2, "options": RestoreOptions(sessions="terminate")},
        {"free": 1000},
        {"free": 0, "document": {"database_size": None}},
        {"document": properties(roles=["pg_monitor", "shop"])},
        {"document": properties(roles=["ann"]), "provided": frozenset(("ann",))},
        {"document": properties(roles=["ann"]), "options": RestoreOptions(no_owner=True, no_privileges=True)},
        {"server": ORDINARY, "member_of": frozenset(("app",)), "options": RestoreOptions(no_owner=True)},
        {"document": properties(tablespaces=["fast"]), "options": RestoreOptions(no_tablespaces=True)},
    ],
)
def test_what_does_no_harm_is_no_problem(arguments: dict[str, Any]) -> None:
    found = needed(**arguments)
    assert (found.problems, found.warnings) == ([], [])


def test_everything_that_is_missing_is_told_at_once() -> None:
    document = properties(roles=["ann"], extensions=[{"name": "postgis"}], tablespaces=["fast"])
    found = needed(server=replace(SERVER, is_standby=True), document=document, can_create=False, free=1)
    assert len(found.problems) == 6


def test_of_a_part_of_the_database_it_is_only_a_warning() -> None:
    document = properties(roles=["ann"], extensions=[{"name": "postgis"}], tablespaces=["fast"])
    found = needed(document=document, options=RestoreOptions(tables=("a",)))
    assert (len(found.problems), len(found.warnings)) == (0, 3)


def test_the_databases_own_properties_go_without_roles_that_are_not_there() -> None:
    ignoring = RestoreOptions(no_owner=True, no_privileges=True)
    found = needed(document=properties(roles=["ann", "shop"]), options=ignoring)
    assert found.without_roles == {"ann", "shop"}, "its owner is ignored too"
    assert needed().without_roles == frozenset()


def test_of_an_adopted_dump_little_is_known_and_that_is_said() -> None:
    found = needed(document={"properties": None})
    assert found.problems == []
    assert found.warnings == ["of an adopted dump owner, locale, privileges and settings of the database are not known"]


# --- the new database ---


@pytest.mark.parametrize(
    ("changes", "server", "expected"),
    [
        ({}, 17, " ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER libc"),
        ({}, 14, " ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"),
        (
            {"locale_provider": "icu", "locale": "de-u-co-phonebk", "icu_rules": "&a < it's"},
            17,
            " ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'de-u-co-phonebk'"
            " ICU_RULES '&a < it''s'",
        ),
        (
            {"locale_provider": "builtin", "locale": "C.UTF-8", "collate": "", "ctype": ""},
            17,
            " ENCODING 'UTF8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'",
        ),
        (
            {"encoding": "LATIN1", "tablespace": 'f"s'},
            14,
            " ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TABLESPACE \"f\"\"s\"",
        ),
    ],
)
def test_a_new_database_is_like_the_recorded_one(changes: dict[str, Any], server: int, expected: str) -> None:
    made = create_database('new "x"', {**PROPERTIES, **changes}, server, tablespaces=True)
    assert made == 'CREATE DATABASE "new ""x""" TEMPLATE template0' + expected


def test_a_new_database_can_do_without_its_tablespace_and_without_anything_known() -> None:
    assert "TABLESPACE" not in create_database("x", {**PROPERTIES, "tablespace": "fast"}, 17, tablespaces=False)
    assert create_database("x", None, 17, tablespaces=True) == 'CREATE DATABASE "x" TEMPLATE template0'


def test_ignored_privileges_are_taken_out_and_nothing_else() -> None:
    recorded = {"acl": [{"grantee": "app"}], "owner": "shop"}
    assert without_privileges(recorded, ignored=False) == recorded
    assert without_privileges(recorded, ignored=True) == {"acl": None, "owner": "shop"}


@pytest.mark.parametrize(
    ("said", "major"), [("15.18 (Debian 15.18-0+deb12u1)", 15), ("18beta1", None), ("9", 9), ("", None), (None, None)]
)
def test_a_major_version_is_the_first_number(said: str | None, major: int | None) -> None:
    assert major_of(said) == major


# --- parts of an archive ---

LISTING = """;
; Archive created at 2025-11-05 14:30:00 UTC
;     dbname: shop
;
6; 2615 16386 SCHEMA - a b postgres
7; 2615 16387 SCHEMA - audit my own role
215; 1259 16388 TABLE public customers postgres
216; 1259 16389 TABLE a b c d my own role
217; 1259 16390 TABLE audit trail postgres
218; 1259 16391 TABLE public new line postgres
219; 1259 16392 VIEW audit paid my own role
220; 1259 16393 SEQUENCE public numbers postgres
3347; 0 16388 TABLE DATA public customers postgres
3348; 1255 16394 FUNCTION public twice(integer) postgres
"""


@pytest.mark.parametrize(
    ("options", "schemas"),
    [
        ({}, []),
        ({"tables": ("customers",)}, []),
        ({"tables": ("customers", "numbers", "new\nline")}, []),
        ({"tables": ("trail",)}, ["audit"]),
        ({"tables": ("paid", "c d")}, ["a b", "audit"]),
        ({"tables": ("trail",), "schemas": ("audit",)}, ["audit"]),
        ({"schemas": ("public", "audit", "a b")}, ["a b", "audit"]),
    ],
)
def test_parts_that_are_in_the_archive_are_found_with_the_schemas_they_need(
    options: dict[str, Any], schemas: list[str]
) -> None:
    chosen = RestoreOptions(**options)
    assert missing_parts(LISTING, chosen) == []
    assert needed_schemas(LISTING, chosen) == schemas


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tables": ("custmers",)}, "table 'custmers' is not in the archive: did you mean customers?"),
        ({"tables": ("twice",)}, "table 'twice' is not in the archive"),
        ({"tables": ("postgres",)}, "table 'postgres' is not in the archive"),
        ({"tables": ("customers",), "schemas": ("audit",)}, "table 'customers' is not there"),
        ({"schemas": ("adit",)}, "schema 'adit' is not in the archive: did you mean audit?"),
    ],
)
def test_parts_that_are_not_in_the_archive_are_told(options: dict[str, Any], said: str) -> None:
    (problem,) = missing_parts(LISTING, RestoreOptions(**options))
    assert problem.startswith(said)
