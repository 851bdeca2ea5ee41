# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Deleting what retention no longer keeps: the plan, then exactly that plan."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Callable

from ..adapters import catalog, files, lock, repository, state
from ..adapters.observer import Observer
from ..adapters.process import Cancellation
from ..domain import naming
from ..domain.backups import Backup
from ..domain.errors import DONE, FAILED, LOCKED, SOME_FAILED, Interrupted, LockedError, PgkeepError
from ..domain.filtering import folder_wanted
from ..domain.model import Policy, PruneOptions, Repository, Scope, build
from ..domain.quantities import human_size, iso
from ..domain.retention import Decision, Plan, check_policy, plan
from ..domain.text import plan_lines


@dataclass(frozen=True)
class Pruned:
    """The plan and what became of it."""

    plan: Plan
    deleted: tuple[Backup, ...]
    failures: tuple[tuple[str, str], ...]  # database, message
    check: bool
    locked: bool = False  # every failure is another run's lock
    in_use: tuple[str, ...] = ()  # backups that somebody restores or verifies; they stay until the next time
    held: tuple[str, ...] = ()  # copies that a target does not let go yet

    @property
    def changed(self) -> bool:
        """Return whether something was deleted, or would be."""
        return bool(self.plan.deletions if self.check else self.deleted)

    @property
    def failed(self) -> bool:
        """Return whether a database could not be pruned."""
        return bool(self.failures)

    @property
    def exit_code(self) -> int:
        """Return the command's exit code."""
        if not self.failures:
            return DONE
        if self.deleted:
            return SOME_FAILED
        return LOCKED if self.locked else FAILED

    @property
    def message(self) -> str:
        """Return what went wrong, in one line; "" when nothing did."""
        return "; ".join(f"{database}: {text}" for database, text in self.failures)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return which backups stay although the plan lets them go: a pin was set meanwhile, or something is damaged."""
        failed = {database for database, _unused in self.failures}
        return tuple(
            f"{backup.id} stays: {self._why(backup)}"
            for backup in (() if self.check else self.plan.deletions)
            if backup not in self.deleted and f"{backup.instance}/{backup.title}" not in failed
        )

    def _why(self, backup: Backup) -> str:
        if backup.id in self.held:
            return "the target does not let it go yet (object lock or retention)"
        changed = "it, or a newer backup, changed after the plan was made"
        return "it is being restored or verified" if backup.id in self.in_use else changed

    @property
    def diff(self) -> dict[str, str]:
        """Return every backup before, with its reasons, and what is left after."""
        kept = replace(self.plan, decisions=tuple(item for item in self.plan.decisions if item.keep))
        return {"before": "\n".join(plan_lines(self.plan)) + "\n", "after": "\n".join(plan_lines(kept)) + "\n"}

    def to_json(self) -> dict[str, Any]:
        """Return what the module and --json give."""
        gone = self.plan.deletions if self.check else self.deleted
        return {
            "plan": [_row(decision) for decision in self.plan.decisions],
            "deleted": [backup.id for backup in gone],
            "freed": sum(backup.size for backup in gone),
            "failures": [{"database": database, "message": text} for database, text in self.failures],
        }


def _row(decision: Decision) -> dict[str, Any]:
    backup = decision.backup
    return {
        "id": backup.id,
        "instance": backup.instance,
        "database": backup.title,
        "created": iso(backup.created),
        "size": backup.size,
        "action": "keep" if decision.keep else "delete",
        "reasons": list(decision.reasons),
    }


def prune(
    raw: Mapping[str, Any],
    check: bool,
    clock: Callable[[], datetime],
    cancellation: Cancellation | None = None,
    coming: Sequence[Backup] = (),
    observer: Observer | None = None,
) -> Pruned:
    """Given options as a user wrote them, prune as the policy says (`check`: plan it); raise PgkeepError.

    `coming` are backups that a run would take before: with `check`, the plan is that of afterwards.
    """
    scope, policy, options = build(Scope, raw), build(Policy, raw), build(PruneOptions, raw)
    check_policy(policy)
    place = os.path.normpath(build(Repository, raw).repository)
    if check:
        place = repository.open_for_reading(place)
    else:
        repository.enter(place, create=False)
        place = repository.open_for_reading(place)
    now = clock()
    backups = [
        found
        for found in catalog.scan(place, lambda instance, folder: folder_wanted(scope, instance, folder))
        if isinstance(found, Backup)
    ]
    planned = plan([*backups, *coming], policy, now)
    planned = replace(planned, decisions=tuple(item for item in planned.decisions if item.backup not in coming))
    if check:
        return Pruned(planned, (), (), True)
    return _apply(place, planned, policy, options, clock, cancellation or Cancellation(), observer or Observer())


def _apply(
    place: str,
    planned: Plan,
    policy: Policy,
    options: PruneOptions,
    clock: Callable[[], datetime],
    cancellation: Cancellation,
    observer: Observer,
) -> Pruned:
    groups: dict[str, list[Backup]] = defaultdict(list)
    for backup in planned.deletions:
        groups[os.path.dirname(backup.id)].append(backup)
    deleted: list[Backup] = []
    failures: list[tuple[str, str]] = []
    in_use: list[str] = []
    locked = True
    for folder, doomed in groups.items():
        title = f"{doomed[0].instance}/{doomed[0].title}"
        directory = os.path.join(place, folder)
        try:
            cancellation.check()
            with lock.hold(
                os.path.join(directory, naming.LOCK_NAME),
                title,
                "prune",
                options.wait,
                clock,
                cancellation.check,
            ):
                files.sweep(directory, (naming.INPROGRESS_PREFIX, naming.TRASH_PREFIX))
                for backup in _still_doomed(directory, folder, doomed, policy, clock()):
                    cancellation.check()
                    with state.unused(backup.path) as free:
                        if not free:
                            in_use.append(backup.id)
                            continue
                        _delete(backup, directory)
                        deleted.append(backup)
                        observer.deleted(backup.id)
        except Interrupted:
            raise
        except LockedError as error:
            failures.append((title, str(error)))
        except PgkeepError as error:
            failures.append((title, str(error)))
            locked = False
        except OSError as error:
            failures.append((title, str(files.describe(error, "deleting backups"))))
            locked = False
    return Pruned(planned, tuple(deleted), tuple(failures), False, locked, tuple(in_use))


def _still_doomed(directory: str, folder: str, doomed: list[Backup], policy: Policy, now: datetime) -> list[Backup]:
    """Given what the plan deletes of a folder that is locked now, return those that a fresh look still lets go.

    A pin may have been set, or a newer backup been damaged, since the plan was made. Nothing that was not planned goes.
    """
    fresh = [found for found in catalog.scan_database(directory, folder) if isinstance(found, Backup)]
    gone = {backup.id for backup in plan(fresh, replace(policy, max_deletions=None), now).deletions}
    return [backup for backup in doomed if backup.id in gone]


def _delete(backup: Backup, directory: str) -> None:
    files.discard(backup.path, os.path.join(directory, naming.TRASH_PREFIX + os.path.basename(backup.path)))


def summary(pruned: Pruned) -> str:
    """Given a prune, return one line for a log."""
    number, size = len(pruned.deleted), human_size(sum(backup.size for backup in pruned.deleted))
    return f"deleted {number} backup{'' if number == 1 else 's'}, {size}"
