# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters for roles and inventories: both ends of copies in other places."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.pgkeep.backup.plugins.plugin_utils._filters import filters
from ansible_collections.pgkeep.backup.plugins.plugin_utils._offsite import (
    authorized_keys,
    known_hosts,
    rclone_config,
    received_jobs,
)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return filters(authorized_keys, known_hosts, rclone_config, received_jobs)
