# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""The time zone of this host, in which cron and systemd count."""

from __future__ import annotations

from datetime import timezone, tzinfo
from zoneinfo import ZoneInfo


def host_zone(path: str = "/etc/localtime") -> tzinfo:
    """Given where the host keeps its time zone, return it; UTC where there is none, as the C library does."""
    try:
        with open(path, "rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError):
        return timezone.utc
