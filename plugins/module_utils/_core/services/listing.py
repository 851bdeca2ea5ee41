# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Showing what a repository holds: backups, what is not one, statistics and the policy in force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Callable

from ..adapters import catalog, repository
from ..adapters.process import Cancellation
from ..domain.backups import Backup, Foreign, record
from ..domain.errors import DONE, FAILED
from ..domain.filtering import folder_wanted, matches
from ..domain.model import Filter, ListingOptions, Policy, Repository, build
from ..domain.statistics import statistics
from ..domain.text import policy_text


@dataclass(frozen=True)
class Listing:
    """What was found, newest first, as of a time."""

    backups: tuple[Backup, ...]
    foreign: tuple[Foreign, ...]
    show_foreign: bool
    policy: str | None
    now: datetime
    checksums: bool

    changed = False
    diff = None

    @property
    def damaged(self) -> tuple[Backup, ...]:
        """Return the backups whose files are not what the manifest says."""
        return tuple(backup for backup in self.backups if not backup.complete)

    @property
    def failed(self) -> bool:
        """Return whether a check that was asked for found damage."""
        return self.checksums and bool(self.damaged)

    @property
    def exit_code(self) -> int:
        """Return the command's exit code."""
        return FAILED if self.failed else DONE

    @property
    def message(self) -> str:
        """Return what a person has to know about damage, in one line; "" when there is none."""
        return "; ".join(f"{backup.id} is damaged: {backup.problem}" for backup in self.damaged)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what a person should look at."""
        found = [] if self.failed else [f"{backup.id} is damaged: {backup.problem}" for backup in self.damaged]
        if self.foreign and not self.show_foreign:
            found.append(f"{len(self.foreign)} entries of the repository are not backups: list them with `foreign`")
        return tuple(found)

    def statistics(self) -> dict[str, Any]:
        """Return the figures of these backups."""
        return statistics(self.backups, self.now)

    def to_json(self, shown: Sequence[Backup] | None = None) -> dict[str, Any]:
        """Return what the module and --json give; the statistics are of all backups, however few are shown."""
        return {
            "backups": [record(backup) for backup in (self.backups if shown is None else shown)],
            "foreign": [{"path": item.path, "reason": item.reason} for item in self.foreign]
            if self.show_foreign
            else [],
            "statistics": self.statistics(),
            "policy": self.policy,
        }


def listing(
    raw: Mapping[str, Any], check: bool, clock: Callable[[], datetime], cancellation: Cancellation | None = None
) -> Listing:
    """Given options as a user wrote them, return what the repository holds; raise PgkeepError.

    Nothing is ever changed, so `check` makes no difference; the signature is that of every use case.
    """
    wanted, options, policy = build(Filter, raw), build(ListingOptions, raw), build(Policy, raw)
    place = repository.open_for_reading(build(Repository, raw).repository)
    now = clock()
    backups, foreign = [], []
    problem_of = catalog.checksum_problem if options.checksum else catalog.size_problem
    for found in catalog.scan(place, lambda instance, folder: folder_wanted(wanted, instance, folder), problem_of):
        if cancellation:
            cancellation.check()
        if isinstance(found, Foreign):
            foreign.append(found)
        elif matches(found, wanted, now):
            backups.append(found)
    backups.sort(key=lambda backup: (backup.created, backup.id), reverse=True)
    return Listing(
        tuple(backups),
        tuple(foreign),
        options.foreign,
        policy_text(policy) if policy.has_rules else None,
        now,
        options.checksum,
    )
