# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ConfigurationError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.space import (
    estimate,
    reserve_bytes,
    space_problem,
)
from hypothesis import given
from hypothesis import strategies as st

from .histories import a_backup


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500MB", 500_000_000), ("1GiB", 2**30), ("0", 0), ("10%", 100_000), ("0.5%", 5000), ("100%", 1_000_000)],
)
def test_a_reserve_is_a_size_or_a_part_of_the_file_system(text: str, expected: int) -> None:
    assert reserve_bytes(text, 1_000_000) == expected


def test_a_reserve_that_is_neither_is_an_error() -> None:
    with pytest.raises(ConfigurationError):
        reserve_bytes("lots", 1)


def test_the_largest_ratio_of_earlier_backups_with_the_same_options_counts() -> None:
    earlier = [
        a_backup("2025-11-01", size=100, database_size=1000),
        a_backup("2025-11-02", size=300, database_size=1000),
        a_backup("2025-11-03", size=900, database_size=1000, options="other"),
        a_backup("2025-11-04", size=900, database_size=1000, problem="damaged"),
        a_backup("2025-11-05", size=900, database_size=None),
        a_backup("2025-11-06", size=0, database_size=1000),
    ]
    assert estimate(earlier, "0", 2000) == 660
    assert estimate(reversed(earlier), "0", 2000) == 660


def test_only_the_last_five_count() -> None:
    old = a_backup("2025-10-01", size=10_000, database_size=1000)
    new = [a_backup(f"2025-11-0{day}", size=100, database_size=1000) for day in range(1, 6)]
    assert estimate([*new, old], "0", 1000) == 110


@pytest.mark.parametrize("size", [None, 0])
def test_without_anything_to_go_by_there_is_no_estimate(size: int | None) -> None:
    assert estimate([], "0", 1000) is None
    assert estimate([a_backup(database_size=1000)], "0", size) is None


@given(st.integers(0, 2**62), st.integers(0, 2**62), st.none() | st.integers(0, 2**62))
def test_a_backup_begins_only_where_the_reserve_stays_free(free: int, reserve: int, expected: int | None) -> None:
    fits = free > reserve and free - (expected or 0) >= reserve
    problem = space_problem(free, reserve, expected)
    assert (problem == "") is fits
    assert not problem or "`reserve`" in problem
