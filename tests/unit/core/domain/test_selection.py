# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.facts import DatabaseEntry
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import Selection
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.selection import choose, covers, vanished


def entry(name: str, **more: bool) -> DatabaseEntry:
    base = DatabaseEntry(
        name, "postgres", allow_connections=True, is_template=False, invalid=False, can_connect=True, size=1
    )
    return replace(base, **more)


SERVER = (
    entry("shop"),
    entry("shop_test"),
    entry("new\nline"),
    entry("postgres"),
    entry("template0", is_template=True, allow_connections=False),
    entry("template1", is_template=True),
    entry("closed", allow_connections=False),
    entry("broken", invalid=True),
)
ALL = ("new\nline", "postgres", "shop", "shop_test")


def test_nothing_said_means_all_that_can_be_dumped() -> None:
    choice = choose(SERVER, Selection())
    assert choice.names == ALL
    assert dict(choice.skipped) == {
        "broken": "it is invalid, left by an interrupted DROP DATABASE: drop it again",
        "closed": "it does not allow connections (datallowconn is off)",
        "template0": "it does not allow connections (datallowconn is off)",
        "template1": "it is a template",
    }
    assert choice.missing == ()


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        (Selection(databases=("shop", "postgres")), ("postgres", "shop")),
        (Selection(databases=("shop", "shop")), ("shop",)),
        (Selection(databases=("template1",)), ("template1",)),
        (Selection(include=("shop.*",)), ("shop", "shop_test")),
        (Selection(include=("shop",)), ("shop",)),
        (Selection(include=("shop.*",), exclude=(".*_test",)), ("shop",)),
        (Selection(include=("shop", "post.*")), ("postgres", "shop")),
        (Selection(include=("new.line",)), ("new\nline",)),
        (Selection(exclude=("shop.*", "new\nline")), ("postgres",)),
        (Selection(databases=("shop",), exclude=("shop",)), ("shop",)),
        (Selection(include=("template1|shop",)), ("shop",)),
    ],
)
def test_databases_are_chosen_by_name_and_by_pattern(selection: Selection, names: tuple[str, ...]) -> None:
    choice = choose(SERVER, selection)
    assert (choice.names, choice.missing) == (names, ())


@pytest.mark.parametrize(
    ("selection", "name", "said"),
    [
        (Selection(databases=("shpo",)), "shpo", "there is no such database (there is shop)"),
        (Selection(databases=("xyz",)), "xyz", "there is no such database"),
        (Selection(databases=("closed",)), "closed", "it does not allow connections (datallowconn is off)"),
        (Selection(databases=("template0",)), "template0", "it does not allow connections (datallowconn is off)"),
        (Selection(databases=("broken",)), "broken", "it is invalid, left by"),
        (Selection(include=("x.*",)), "x.*", "the pattern in `include` matches no database"),
        (Selection(exclude=("x.*",)), "x.*", "the pattern in `exclude` matches no database"),
    ],
)
def test_what_is_not_there_is_told_and_the_rest_is_still_chosen(selection: Selection, name: str, said: str) -> None:
    ((missing, problem),) = choose(SERVER, selection).missing
    assert missing == name
    assert said in problem
    more = replace(selection, databases=(*selection.databases, "shop")) if selection.databases else selection
    assert ("shop" in choose(SERVER, more).names) is not bool(selection.include)


def test_what_is_excluded_is_said_to_be_so() -> None:
    assert ("shop_test", "excluded") in choose(SERVER, Selection(exclude=("shop_.*",))).skipped


@pytest.mark.parametrize(
    ("selection", "covered"),
    [
        (Selection(), True),
        (Selection(databases=("old",)), True),
        (Selection(databases=("shop",)), False),
        (Selection(include=("o.*",)), True),
        (Selection(include=("o.*",), exclude=("old",)), False),
        (Selection(include=("s.*",)), False),
        (Selection(exclude=("old",)), False),
        (Selection(exclude=("shop",)), True),
    ],
)
def test_a_selection_means_databases_that_are_gone_as_well(selection: Selection, covered: bool) -> None:
    assert covers(selection, "old") is covered
    assert vanished(["old", "shop"], SERVER, selection) == (("old",) if covered else ())
