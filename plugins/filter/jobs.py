# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters for roles: when the jobs of a host run, as its job files, its crontab and its timers agree on it, and where their
copies go.
"""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.pgkeep.backup.plugins.plugin_utils._filters import filters
from ansible_collections.pgkeep.backup.plugins.plugin_utils._jobs import (
    crontab,
    named_targets,
    resolve_jobs,
    timers,
)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return filters(resolve_jobs, named_targets, crontab, timers)
