# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The example of docs/retention.md is what the rules do."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import Policy
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.retention import plan

from tests.unit.core.domain.histories import a_backup


def test_the_example_of_the_documentation() -> None:
    newest = datetime(2025, 11, 5, 2, tzinfo=timezone.utc)
    daily = [a_backup((newest - timedelta(days=age)).isoformat()) for age in range(60)]
    planned = plan(daily, Policy(keep_last=3, keep_weekly=3, keep_monthly=2), newest + timedelta(hours=1))
    assert [f"{backup.created:%m-%d}" for backup in planned.kept] == [
        "11-05", "11-04", "11-03", "11-02", "10-31", "10-26",
    ]  # fmt: skip
