# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.backups import Backup, Failure
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import LEVELS, VerifyOptions, build
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.verification import due
from hypothesis import given
from hypothesis import strategies as st

from .histories import NOW, a_backup, histories

DAY = timedelta(days=1)
FRESH = a_backup("2025-11-04", levels={"checksum": NOW - DAY, "archive": NOW - DAY})
STALE = a_backup("2025-11-01", levels={"checksum": NOW - DAY, "archive": NOW - 3 * DAY})
NEVER = a_backup("2025-11-02")
NEWER = a_backup("2025-11-03")
FAILED = a_backup("2025-10-01", failure=Failure(NOW - DAY, "archive", "unreadable", "x"), problem="failed")
PART = a_backup("2025-11-05", partial=True)
GLOBALS = a_backup("2025-10-01", kind="globals")
OTHER = a_backup("2025-10-02", database="other")
SECOND = a_backup("2025-10-03", instance="second")


@pytest.mark.parametrize(
    ("given_backups", "raw", "expected"),
    [
        ((), {}, ()),
        ((FRESH, STALE, NEVER, NEWER), {}, (NEWER, NEVER, STALE, FRESH)),
        ((FRESH, STALE), {"level": "checksum"}, (FRESH, STALE)),  # both a day ago: the newest first
        ((FRESH, STALE), {"level": "restore"}, (FRESH, STALE)),  # neither was restored
        ((FRESH, STALE, NEVER, NEWER), {"sample": 2}, (NEWER, NEVER)),
        ((FRESH, STALE, NEVER), {"sample": 9}, (NEVER, STALE, FRESH)),
        ((FRESH, STALE, NEVER), {"max_age": "1d"}, (NEVER, STALE)),
        ((FRESH, STALE, NEVER), {"max_age": "3d"}, (NEVER,)),
        ((FRESH, STALE, NEVER), {"max_age": "1d", "level": "restore"}, (FRESH, NEVER, STALE)),
        ((FRESH, STALE), {"max_age": "1d", "level": "checksum"}, ()),
        ((FRESH, FAILED), {"max_age": "9d"}, (FAILED,)),  # that it failed yesterday is no reason to leave it out
        ((FRESH, STALE, NEVER, PART), {"latest": True}, (FRESH,)),
        ((FRESH, NEVER, PART, GLOBALS, OTHER, SECOND), {"latest": True}, (SECOND, OTHER, GLOBALS, FRESH)),
        ((FRESH, NEVER, OTHER), {"latest": True, "max_age": "1d"}, (OTHER,)),  # not the one before it instead
        ((PART,), {"latest": True}, ()),
    ],
)
def test_the_longest_unverified_come_first(
    given_backups: tuple[Backup, ...], raw: dict[str, Any], expected: tuple[Backup, ...]
) -> None:
    for backups in (given_backups, given_backups[::-1]):
        assert due(backups, build(VerifyOptions, raw), NOW) == expected


def test_a_globals_backup_and_a_database_of_that_name_are_two() -> None:
    impostor = a_backup("2025-11-05", database="@globals")
    assert due([GLOBALS, impostor], VerifyOptions(latest=True), NOW) == (impostor, GLOBALS)


@given(
    histories(),
    st.sampled_from(LEVELS),
    st.booleans(),
    st.none() | st.integers(1, 9),
    st.none() | st.integers(0, 50).map(lambda days: days * DAY),
)
def test_nothing_is_verified_twice_and_a_sample_is_the_beginning_of_the_whole(
    history: tuple[list[Backup], Any], level: str, latest: bool, sample: int | None, age: timedelta | None
) -> None:
    backups, now = history
    whole = due(backups, VerifyOptions(level=level, latest=latest, max_age=age), now)
    assert len({item.id for item in whole}) == len(whole)
    assert due(backups, VerifyOptions(level=level, latest=latest, max_age=age, sample=sample), now) == whole[:sample]
    if latest:
        assert len({item.group for item in whole}) == len(whole)
    else:
        assert set(whole) == set(backups), "none of them was ever verified"
