# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import patterns
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ConfigurationError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.patterns import Match, Matches, Pattern


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("orders", Pattern("^(orders)$")),
        ("Orders", Pattern("^(orders)$")),
        ('"Orders"', Pattern("^(Orders)$")),
        ('"Or""ders"', Pattern('^(Or"ders)$')),
        ("Ärger", Pattern("^(Ärger)$")),
        ("log_*", Pattern("^(log_.*)$")),
        ("log_?", Pattern("^(log_.)$")),
        ('"log_*?.|"', Pattern(r"^(log_\*\?\.\|)$")),
        ("a$b", Pattern(r"^(a\$b)$")),
        ("log_[0-9]", Pattern("^(log_[0-9])$")),
        ("int[]", Pattern(r"^(int\[])$")),
        ("audit.log", Pattern("^(log)$", "^(audit)$")),
        ("*.log", Pattern("^(log)$", "^(.*)$")),
        ('"a.b".c', Pattern("^(c)$", r"^(a\.b)$")),
        ("Shop.audit.log", Pattern("^(log)$", "^(audit)$", "shop")),
        ('"Shop"."A"."b"', Pattern("^(b)$", "^(A)$", "Shop")),
        ('"unbalanced', Pattern("^(unbalanced)$")),
    ],
)
def test_a_table_pattern_is_read_as_pg_dump_reads_it(pattern: str, expected: Pattern) -> None:
    assert patterns.parse(pattern, "tables") == expected


def test_a_schema_pattern_has_no_schema_of_its_own() -> None:
    assert patterns.parse("audit", "schemas") == Pattern("^(audit)$")
    assert patterns.parse("shop.audit", "exclude_schemas") == Pattern("^(audit)$", None, "shop")


@pytest.mark.parametrize(("option", "pattern"), [("tables", "a.b.c.d"), ("schemas", "a.b.c")])
def test_too_many_dots_are_refused_with_the_way_to_quote_them(option: str, pattern: str) -> None:
    with pytest.raises(
        ConfigurationError, match=f"{option} has the pattern '{pattern}' with too many dots.*double quotes"
    ):
        patterns.parse(pattern, option)


def test_the_error_of_a_pattern_names_what_is_near() -> None:
    error = patterns.no_match("exclude_tables", "ordrs", "shop", ["public.orders", "public.customers"])
    assert str(error) == (
        "exclude_tables has the pattern 'ordrs', which matches no table of database 'shop': did you mean public.orders?"
    )


def test_the_servers_own_tables_and_schemas_are_known_by_their_names() -> None:
    ours = ["public.pg_mine", "information.tables", "pgx"]
    theirs = ["pg_catalog.pg_class", "information_schema.tables", "pg_toast", "information_schema"]
    assert [name for name in ours + theirs if patterns.is_system(name)] == theirs


def test_a_table_outside_the_search_path_is_near() -> None:
    error = patterns.no_match("tables", "log", "shop", ["audit.log", "public.orders"])
    assert "did you mean audit.log?" in str(error)


def test_the_error_of_a_pattern_with_nothing_near_says_what_to_check() -> None:
    error = patterns.no_match("schemas", "zzz", "shop", ["public"])
    assert str(error).endswith("matches no schema of database 'shop': check the name of the schema")


def test_without_patterns_nothing_is_left_out() -> None:
    assert patterns.left_out(Matches()) == ()
    assert Matches().everything


def test_what_is_left_out_is_said_in_words() -> None:
    matches = Matches((
        Match("exclude_tables", "a*", (1, 2), ("public.a1", "public.a2")),
        Match("exclude_tables", "a1", (1,), ("public.a1",)),
        Match("exclude_schemas", "old", (3,), ("old",)),
        Match("exclude_table_data", "log", (4,), ("public.log",)),
    ))  # fmt: skip
    assert patterns.left_out(matches) == (
        "schemas old", "tables public.a1, public.a2", "rows of tables public.log",
    )  # fmt: skip
    assert matches.oids("exclude_tables") == [1, 2]
    assert matches.everything


@pytest.mark.parametrize("option", ["tables", "schemas"])
def test_a_dump_of_parts_says_that_extensions_and_large_objects_are_missing(option: str) -> None:
    matches = Matches((Match(option, "a", (1,), ("a",)),))
    (said,) = patterns.left_out(matches)
    assert "extensions" in said
    assert "large objects" in said
    assert not matches.everything


def test_a_long_list_is_counted_at_its_end() -> None:
    names = tuple(f"t{number:02}" for number in range(23))
    (said,) = patterns.left_out(Matches((Match("exclude_tables", "t*", tuple(range(23)), names),)))
    assert said.endswith("t19 and 3 more")
