# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is missing in a target, and what is copied first."""

from __future__ import annotations

from datetime import timedelta

from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import syncing
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.backups import Backup
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import Policy
from hypothesis import given
from hypothesis import strategies as st

from .histories import NOW, a_backup

DAY = timedelta(days=1)


def days_ago(*days: float, database: str = "shop") -> list[Backup]:
    return [a_backup(NOW - number * DAY, database=database) for number in days]


def there(backup: Backup, size: int = 1000, manifest: int = 7) -> dict[str, int]:
    name = backup.id.rpartition("/")[2]
    return {f"{backup.id}/{name}.dump": size, f"{backup.id}/manifest.json": manifest}


def test_files_of_a_target_belong_to_the_folder_of_a_backup_or_to_nobody() -> None:
    files = {
        "main/shop/shop_2025-11-05_14-30-00/shop_2025-11-05_14-30-00.dir/toc.dat": 5,
        "main/shop/shop_2025-11-05_14-30-00/manifest.json": 7,
        "main/shop/shop_2025-11-05_14-30-00/state.json": 9,
        "main/shop/shop_2025-11-05_14-30-00/.new-1": 9,
        "main/shop/.inprogress-1/x": 1,
        "main/shop/drills.jsonl": 1,
        "readme.txt": 1,
    }
    assert syncing.by_folder(files) == {
        "main/shop/shop_2025-11-05_14-30-00": {"shop_2025-11-05_14-30-00.dir/toc.dat": 5, "manifest.json": 7}
    }


def test_both_sides_are_told_apart_by_manifest_and_sizes() -> None:
    same, short, without, absent, other = days_ago(1, 2, 3, 4, 5)
    gone = a_backup(NOW - 9 * DAY)
    files = {**there(same), **there(short, 999), **there(without), **there(other, manifest=8), **there(gone)}
    del files[f"{without.id}/manifest.json"]
    backups = [same, short, without, absent, other]
    sides = syncing.compare(backups, {item.id: 7 for item in backups}, syncing.by_folder(files))
    assert sides == syncing.Sides((same,), (without, absent), (short, other), (gone.id,))


def test_a_copy_without_a_manifest_is_no_extra() -> None:
    sides = syncing.compare([], {}, {"main/shop/shop_2025-11-05_14-30-00": {"shop_2025-11-05_14-30-00.dump": 5}})
    assert sides == syncing.Sides()


def test_the_newest_of_the_database_that_has_been_without_a_copy_for_the_longest_time_comes_first() -> None:
    shop, crm, new = days_ago(1, 2), days_ago(1, 8, database="crm"), days_ago(3, database="new")
    copied = [*days_ago(4), *days_ago(6, database="crm")]
    # crm of 8 days ago is older than its newest copy, so it can wait.
    assert syncing.by_risk([*shop, *crm, *new], copied) == [new[0], crm[0], shop[0], crm[1], shop[1]]


def test_a_database_whose_newest_backup_has_a_copy_comes_after_all_that_have_none() -> None:
    old, fresh = days_ago(5, 3), days_ago(0.1, database="crm")
    assert syncing.by_risk([*old, *fresh], days_ago(1)) == [fresh[0], *old]


@given(st.lists(st.tuples(st.integers(0, 20), st.sampled_from(["a", "b", "c"]), st.booleans()), unique=True))
def test_every_missing_backup_comes_once_whatever_has_a_copy(history: list[tuple[int, str, bool]]) -> None:
    backups = [(a_backup(NOW - days * DAY, database=name), copied) for days, name, copied in history]
    missing = [item for item, copied in backups if not copied]
    order = syncing.by_risk(missing, [item for item, copied in backups if copied])
    assert sorted(item.id for item in order) == sorted(item.id for item in missing)
    newest_of_all = {item.group: max(i.created for i in missing if i.group == item.group) for item in missing}
    ahead = order[: len(newest_of_all)]
    uncovered = {
        item.group
        for item in missing
        if all(
            other.created < newest_of_all[item.group]
            for other, copied in backups
            if copied and other.group == item.group
        )
    }
    assert {item.group for item in ahead[: len(uncovered)]} == uncovered


def test_what_the_target_would_let_go_at_once_is_not_wanted_there() -> None:
    backups = days_ago(1, 2, 3, 40)
    assert syncing.wanted(backups, Policy(), NOW) == {item.id for item in backups}
    assert syncing.wanted(backups, Policy(keep_last=2), NOW) == {item.id for item in backups[:2]}
