# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""A repository beside one of its targets: what is missing there, and what is copied first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from .backups import Backup
from .model import Policy
from .naming import MANIFEST_NAME, STATE_NAME, has_form_of_stem
from .retention import plan

Files = Mapping[str, int]  # of a backup, or of a whole target: path -> bytes
_BEGINNING = datetime.min.replace(tzinfo=timezone.utc)


@dataclass(frozen=True)
class Sides:
    """The backups of a repository and what a target has of them, each in its order."""

    same: tuple[Backup, ...] = ()  # of the sizes that they have to have
    missing: tuple[Backup, ...] = ()  # not there, or without a manifest, which is no copy
    different: tuple[Backup, ...] = ()  # there, and something else
    extra: tuple[str, ...] = ()  # ids of copies whose backup is not in the repository


def by_folder(files: Files) -> dict[str, dict[str, int]]:
    """Given the files of a target, return those of each folder that is named like a backup, by the folder's path: the
    id of a backup. Whatever else lies there is somebody else's, and a state is what was found out over there.
    """
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for path, size in files.items():
        parts = path.split("/", 3)
        if len(parts) == 4 and has_form_of_stem(parts[2]) and parts[3] != STATE_NAME and parts[3][0] != ".":
            found["/".join(parts[:3])][parts[3]] = size
    return dict(found)


def copies(there: Mapping[str, Files]) -> list[str]:
    """Given the folders of a target, return those that are copies, sorted: those with a manifest."""
    return sorted(folder for folder, files in there.items() if MANIFEST_NAME in files)


def compare(backups: Sequence[Backup], manifests: Mapping[str, int], there: Mapping[str, Files]) -> Sides:
    """Given the backups of a repository, the size of each one's manifest by id, and the folders of a target, return the
    two sides. Only names and sizes are looked at.
    """
    same, missing, different = [], [], []
    for backup in backups:
        files = there.get(backup.id, {})
        if MANIFEST_NAME not in files:
            missing.append(backup)
        elif _size(files) == backup.size and files[MANIFEST_NAME] == manifests[backup.id]:
            same.append(backup)
        else:
            different.append(backup)
    known = {backup.id for backup in backups}
    extra = [folder for folder in copies(there) if folder not in known]
    return Sides(tuple(same), tuple(missing), tuple(different), tuple(extra))


def _size(files: Files) -> int:
    return sum(size for name, size in files.items() if name != MANIFEST_NAME)


def wanted(backups: Sequence[Backup], policy: Policy, now: datetime) -> frozenset[str]:
    """Given the backups of a repository, the retention of a target and the time, return the ids of those that the target
    would keep: what it would let go at once is not brought there.
    """
    if not policy.has_rules:
        return frozenset(backup.id for backup in backups)
    return frozenset(backup.id for backup in plan(backups, policy, now).kept)


def by_risk(missing: Iterable[Backup], copied: Iterable[Backup]) -> list[Backup]:
    """Given backups without a copy and those that have one, return the former in the order in which they are copied.

    First the newest of each database, beginning with the database that has been without a copy of anything for the
    longest time. Then the rest, the oldest first: it is the next that retention would take.
    """
    covered: dict[tuple[str, str, str, bool], datetime] = {}
    for backup in copied:
        covered[backup.group] = max(backup.created, covered.get(backup.group, _BEGINNING))
    newest: dict[tuple[str, str, str, bool], Backup] = {}
    rest = sorted(missing, key=lambda item: (item.created, item.id))
    for backup in rest:
        newest[backup.group] = backup
    first = [item for item in newest.values() if item.created > covered.get(item.group, _BEGINNING)]
    first.sort(key=lambda item: (covered.get(item.group, _BEGINNING), item.created, item.id))
    ahead = {item.id for item in first}
    return [*first, *(item for item in rest if item.id not in ahead)]
