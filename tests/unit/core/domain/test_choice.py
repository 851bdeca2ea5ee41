# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.backups import Backup, Failure
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.choice import choose
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import (
    ConfigurationError,
    PgkeepError,
    RepositoryError,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import Choice, build
from hypothesis import given
from hypothesis import strategies as st

from .histories import NOW, a_backup, histories, moment

OLD = a_backup("2025-11-01", label="release", levels={"checksum": NOW})
PART = a_backup("2025-11-04", partial=True)
NEW = a_backup("2025-11-03")
CUT = a_backup("2025-11-05", problem="shop.dump is missing")
OTHER = a_backup("2025-11-02", database="other")
SECOND = a_backup("2025-11-02", instance="second", database="crm")
GLOBALS = a_backup("2025-11-06", kind="globals")
EVERYTHING = (OLD, PART, NEW, CUT, OTHER, SECOND, GLOBALS)


def chosen(*backups: Backup, **raw: Any) -> Backup:
    return choose(backups or EVERYTHING, build(Choice, raw))


def refusal(*backups: Backup, **raw: Any) -> str:
    with pytest.raises(PgkeepError) as caught:
        chosen(*backups, **raw)
    return str(caught.value)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"database": "shop"}, NEW),
        ({"database": "shop", "partial": True}, PART),
        ({"database": "shop", "label": "release"}, OLD),
        ({"database": "shop", "verified": True}, OLD),
        ({"database": "shop", "before": "2025-11-03"}, OLD),
        ({"database": "shop", "before": "2025-11-03 00:00:01"}, NEW),
        ({"database": "other"}, OTHER),
        ({"database": "crm"}, SECOND),
        ({"instance": "second"}, SECOND),
        ({"database": "@globals"}, GLOBALS),
        ({"backup": OLD.id}, OLD),
        ({"backup": "shop_2025-11-01_00-00-00"}, OLD),
        ({"backup": PART.id}, PART),
        ({"backup": GLOBALS.id, "database": "@globals"}, GLOBALS),
    ],
)
def test_the_newest_that_fits_is_chosen_or_the_one_that_is_named(raw: dict[str, Any], expected: Backup) -> None:
    assert chosen(**raw) is expected


def test_where_there_is_one_database_it_need_not_be_named() -> None:
    assert chosen(OLD, NEW) is NEW


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({}, "database is not set, and there are @globals, crm, other, shop: set `database`"),
        ({"instance": "main"}, "database is not set, and there are @globals, other, shop: set `database`"),
        ({"database": "shpo"}, "no backup of 'shpo': the repository has those of @globals, crm, other, shop"),
        ({"database": "shop", "instance": "second"}, "no backup of 'shop' of instance 'second': the repository has those of crm"),
        ({"instance": "third"}, "no backups of instance 'third': the repository has those of main, second"),
        ({"backup": "shop_2025-11-01"}, "there is no backup 'shop_2025-11-01': use an id of `pgkeep list`, or `latest`"),
        ({"backup": OLD.id, "database": "other"}, f"there is no backup '{OLD.id}'"),
        ({"backup": OLD.id, "instance": "second"}, f"there is no backup '{OLD.id}'"),
        ({"backup": CUT.id}, f"{CUT.id} is damaged: shop.dump is missing: choose another backup"),
        (
            {"database": "shop", "before": "2025-11-01"},
            "none of the 4 backups of 'shop' fits: 1 damaged, 1 partial (set `partial` to allow them), 4 not before 2025-11-01",
        ),
        (
            {"database": "shop", "label": "release", "before": "2025-11-01", "verified": True, "partial": True},
            "fits: 1 damaged, 3 never verified, 3 without label 'release', 4 not before 2025-11-01",
        ),
    ],
)  # fmt: skip
def test_what_is_not_there_is_told_with_what_there_is_instead(raw: dict[str, Any], said: str) -> None:
    assert said in refusal(**raw)


def test_an_empty_repository_has_nothing_to_choose_from() -> None:
    for raw in ({}, {"database": "shop"}, {"instance": "main"}, {"backup": "x"}):
        with pytest.raises(RepositoryError):
            choose([], build(Choice, raw))


def test_one_name_in_two_instances_asks_for_the_instance() -> None:
    twin = a_backup("2025-11-09", instance="second")
    said = "backups of 'shop', instance is not set, and there are main, second: set `instance`"
    assert said in refusal(NEW, twin, database="shop")
    assert chosen(NEW, twin, database="shop", instance="main") is NEW
    assert "are several backups: give the whole id, such as main/" in refusal(
        NEW, a_backup("2025-11-03", instance="second"), backup="shop_2025-11-03_00-00-00"
    )


def test_a_database_that_has_the_globals_name_is_never_taken_for_them() -> None:
    impostor = a_backup("2025-11-07", database="@globals")
    said = refusal(GLOBALS, impostor, database="@globals")
    assert "'@globals' are the globals and a database of that name: set `backup` to an id" in said
    assert chosen(GLOBALS, impostor, backup=impostor.id) is impostor
    assert chosen(impostor, database="@globals") is impostor


def test_what_failed_its_verification_is_not_chosen() -> None:
    bad = a_backup(NOW, failure=Failure(NOW, "restore", "differs", "x"), problem="failed its verification")
    assert chosen(OLD, bad) is OLD


def test_a_repository_of_many_databases_names_a_few() -> None:
    many = [a_backup("2025-11-01", database=f"db{number}") for number in range(9)]
    assert "there are db0, db1, db2, db3, db4 and 4 more: set `database`" in refusal(*many)


@given(histories(), st.booleans(), st.booleans(), st.sampled_from([None, *(moment(f"2025-{m}-05") for m in (10, 11))]))
def test_what_is_chosen_fits_and_nothing_newer_does(
    history: tuple[list[Backup], Any], partial: bool, verified: bool, before: Any
) -> None:
    backups, _now = history
    for name in {item.title for item in backups}:
        wanted = Choice(database=name, partial=partial, verified=verified, before=before)
        fitting = [
            item
            for item in backups
            if item.title == name
            and item.complete
            and (partial or not item.partial)
            and (item.state.verified or not verified)
            and (before is None or item.created < before)
        ]
        try:
            found = choose(backups, wanted)
        except ConfigurationError:
            assert len({(item.instance, item.kind) for item in backups if item.title == name}) > 1
        except RepositoryError:
            assert fitting == []
        else:
            assert found in fitting
            assert all(item.created <= found.created for item in fitting)
