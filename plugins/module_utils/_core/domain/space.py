# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""How much space a backup will need, and whether it is there."""

from __future__ import annotations

from collections.abc import Iterable

from .backups import Backup
from .quantities import human_size, parse_size

_HISTORY = 5  # backups that an estimate looks back on
_MARGIN = 1.1  # data changes between two backups


def reserve_bytes(reserve: str, total: int) -> int:
    """Given the option `reserve` and the size of the file system, return the bytes that stay free."""
    if reserve.endswith("%"):
        return int(total * float(reserve[:-1]) / 100)
    return parse_size(reserve)


def estimate(earlier: Iterable[Backup], options: str, database_size: int | None) -> int | None:
    """Given the earlier backups of a database, the options' fingerprint and its size now, return the expected bytes.

    The largest ratio of the last backups with the same options counts. None: there is nothing to go by.
    """
    alike = [item for item in earlier if item.complete and item.options == options and item.database_size and item.size]
    newest = sorted(alike, key=lambda item: item.created)[-_HISTORY:]
    if not newest or not database_size:
        return None
    return int(max(item.size / (item.database_size or 1) for item in newest) * database_size * _MARGIN)


def space_problem(free: int, reserve: int, expected: int | None) -> str:
    """Given free bytes, the reserve and the expected size, return what is wrong; "" when the backup may begin.

    Without an expectation only the reserve counts: a first backup is not refused on a guess, the reserve is watched
    while it is written.
    """
    if free <= reserve:
        return (
            f"only {human_size(free)} are free and {human_size(reserve)} stay in reserve: free some space on the"
            " repository's file system, or lower `reserve`"
        )
    if expected is not None and expected > free - reserve:
        return (
            f"about {human_size(expected)} are needed (from earlier backups), {human_size(free)} are free and"
            f" {human_size(reserve)} stay in reserve: free some space on the repository's file system, or lower"
            " `reserve`"
        )
    return ""
