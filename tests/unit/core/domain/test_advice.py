# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.advice import advice


@pytest.mark.parametrize(
    ("said", "todo"),
    [
        ("canceling statement due to statement timeout; detail: Query was: LOCK TABLE public.t", "lock_wait_timeout"),
        ("could not write to file: No space left on device", "free some space"),
        ("ERROR:  out of shared memory", "max_locks_per_transaction"),
        ("server closed the connection unexpectedly", "server's log"),
        ("ERROR:  canceling statement due to conflict with recovery", "primary"),
        ('ERROR:  relation "public.gone" does not exist', "run again"),
        ("ERROR:  permission denied for sequence s", "pg_read_all_data"),
    ],
)
def test_a_known_failure_comes_with_what_to_do(said: str, todo: str) -> None:
    assert todo in advice(said)


def test_an_unknown_failure_comes_without_a_guess() -> None:
    assert advice("pg_dump: error: something new") == ""
