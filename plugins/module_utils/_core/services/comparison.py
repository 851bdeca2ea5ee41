# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""A repository and one of its targets side by side. Nothing is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..adapters import catalog, repository, targets
from ..adapters.process import Cancellation
from ..adapters.remote import Remote
from ..domain.backups import Backup
from ..domain.errors import DONE, FAILED
from ..domain.filtering import folder_wanted
from ..domain.model import ListingOptions, Repository, Scope, Target, build
from ..domain.naming import decode
from ..domain.text import table
from .holdings import named
from .sync import both_sides, data_files


@dataclass(frozen=True)
class Row:
    """One backup on both sides."""

    id: str
    verdict: str  # same | missing (there) | different | extra (not here)
    problem: str = ""


@dataclass(frozen=True)
class Comparison:
    """Both sides, the newest first."""

    target: str
    rows: tuple[Row, ...]

    @property
    def different(self) -> tuple[Row, ...]:
        """Return what is there and is not the backup."""
        return tuple(row for row in self.rows if row.verdict == "different")

    @property
    def exit_code(self) -> int:
        """Return the command's exit code."""
        return FAILED if self.different else DONE

    @property
    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, each in one line."""
        return tuple(f"{row.id}: the copy in {self.target} is not the backup: {row.problem}" for row in self.different)

    def to_json(self) -> dict[str, Any]:
        """Return what --json gives."""
        return {
            "target": self.target,
            "backups": [{"id": row.id, "verdict": row.verdict, "problem": row.problem} for row in self.rows],
        }

    def lines(self) -> list[str]:
        """Return a table for people, and a line that sums up."""
        words = {"same": "here and there", "missing": "MISSING THERE", "different": "DIFFERENT", "extra": "only there"}
        rows = [(*_name(row.id), words[row.verdict], row.problem) for row in self.rows]
        counts = [f"{sum(row.verdict == key for row in self.rows)} {word.lower()}" for key, word in words.items()]
        total = f"{self.target}: {', '.join(counts)}"
        return [*table(("DATABASE", "BACKUP", "WHERE", "REMARKS"), rows), "", total] if rows else [total]


def _name(backup_id: str) -> tuple[str, str]:
    instance, folder, name = backup_id.split("/")
    return f"{instance}/{folder if folder.startswith('@') else decode(folder)}", name


def compare(raw: Mapping[str, Any], cancellation: Cancellation) -> Comparison:
    """Given options as a user wrote them, return both sides, with `checksum` by their bytes; raise PgkeepError."""
    scope, options = build(Scope, raw), build(ListingOptions, raw)
    name, document = named(raw)
    place = repository.open_for_reading(build(Repository, raw).repository)
    found = catalog.scan(place, lambda instance, folder: folder_wanted(scope, instance, folder))
    backups = [item for item in found if isinstance(item, Backup)]
    with targets.connect(name, build(Target, document), cancellation) as remote:
        sides = both_sides(backups, remote)
        rows = [
            *(_look(item, remote, options.checksum, cancellation) for item in sides.same),
            *(Row(item.id, "missing") for item in sides.missing),
            *(Row(item.id, "different", "sizes differ") for item in sides.different),
            *(Row(item, "extra") for item in sides.extra if folder_wanted(scope, *item.split("/")[:2])),
        ]
    # An id ends with its time.
    return Comparison(name, tuple(sorted(rows, key=lambda row: (row.id[-19:], row.id), reverse=True)))


def _look(item: Backup, remote: Remote, checksum: bool, cancellation: Cancellation) -> Row:
    """Given a backup of the right sizes on both sides, return its row, with `checksum` after a look at the bytes."""
    cancellation.check()
    if not checksum:
        return Row(item.id, "same")
    problem = remote.check(item.path, item.id, data_files(item)).problem
    return Row(item.id, "different" if problem else "same", problem)
