# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Which backups a user asked to see."""

from __future__ import annotations

from datetime import datetime

from .backups import GLOBALS, Backup
from .model import Filter, Scope
from .naming import directory


def folder_wanted(scope: Scope, instance: str, folder: str) -> bool:
    """Given a scope and a folder of the repository, return whether the backups in it are meant."""
    if scope.instance and instance != scope.instance:
        return False
    return not scope.databases or folder in {_folder(name) for name in scope.databases}


def _folder(name: str) -> str:
    return directory("globals", None) if name == GLOBALS else directory("database", name)


def matches(backup: Backup, wanted: Filter, now: datetime) -> bool:
    """Given a backup, a filter and the time, return whether the filter lets it through."""
    pin = backup.state.pin
    return (
        (not wanted.instance or backup.instance == wanted.instance)
        and (not wanted.databases or backup.title in wanted.databases)
        and (wanted.label is None or backup.label == wanted.label)
        and (wanted.before is None or backup.created < wanted.before)
        and (wanted.after is None or backup.created >= wanted.after)
        and wanted.complete in (None, backup.complete)
        and wanted.verified in (None, backup.state.verified is not None)
        and wanted.pinned in (None, bool(pin and pin.holds(now)))
    )
