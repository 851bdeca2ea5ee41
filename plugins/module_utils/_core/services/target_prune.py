# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Pruning a target by its own retention, from a host that may delete there.

Where the repository at home is there, its pins hold in the target too.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Callable

from ..adapters import catalog, repository, state, targets
from ..adapters.observer import Observer
from ..adapters.process import Cancellation
from ..domain import naming
from ..domain.backups import Backup
from ..domain.errors import ConfigurationError, Interrupted, LockedCopyError, ManifestError, PgkeepError
from ..domain.model import RULES, Policy, Scope, Target, build
from ..domain.retention import check_policy, plan
from .holdings import folders, named, read
from .prune import Pruned

Clock = Callable[[], datetime]


def prune_target(
    raw: Mapping[str, Any],
    check: bool,
    clock: Clock,
    cancellation: Cancellation | None = None,
    observer: Observer | None = None,
) -> Pruned:
    """Given options as a user wrote them, prune the target that they name as its own policy says (`check`: plan it);
    raise PgkeepError.
    """
    scope, stop = build(Scope, raw), cancellation or Cancellation()
    name, document = named(raw)
    rules = [rule for rule in RULES if raw.get(rule) is not None]
    if rules:
        raise ConfigurationError(f"{', '.join(rules)}: a target has its own retention: set it in the target's file")
    policy = build(Policy, document)
    try:
        check_policy(policy)
    except ConfigurationError as error:
        raise ConfigurationError(f"target {name}: {error}") from None
    home = _home(raw.get("repository"), check)
    with targets.connect(name, build(Target, document), stop) as remote:
        there = folders(remote, scope)
        backups = [_with_pin(item, home) for item in read(remote, there)]
        planned = plan(backups, policy, clock())
        if check:
            return Pruned(planned, (), (), True)
        deleted: list[Backup] = []
        held: list[str] = []
        failures: list[tuple[str, str]] = []
        for item in planned.deletions:
            stop.check()
            try:
                remote.delete(item.id, [*there[item.id], naming.STATE_NAME])  # perhaps the far side has one
            except Interrupted:
                raise
            except LockedCopyError:
                held.append(item.id)
                continue
            except PgkeepError as error:
                failures.append((f"{item.instance}/{item.title}", f"{item.id}: {error}"))
                continue
            deleted.append(item)
            _forget(item, home, name)
            if observer:
                observer.deleted(item.id)
    return Pruned(planned, tuple(deleted), tuple(failures), False, held=tuple(held))


def _home(path: Any, check: bool) -> str | None:
    """Given the repository that was named, if any, return it where it is there; raise RepositoryError."""
    if not path or not os.path.isdir(path):
        return None
    if not check:
        repository.enter(os.path.normpath(path), create=False)
    return repository.open_for_reading(path)


def _with_pin(item: Backup, home: str | None) -> Backup:
    """Given a copy and the repository, return it with the pin of its backup there; raise RepositoryError where that
    cannot be read: a pin must not be overlooked.
    """
    if home is None or not os.path.isdir(os.path.join(home, item.id)):
        return item
    try:
        return replace(item, state=replace(item.state, pin=catalog.read_state(os.path.join(home, item.id)).pin))
    except (ManifestError, PgkeepError, OSError) as error:
        return replace(item, problem=f"the state of its backup cannot be read ({error})")


def _forget(item: Backup, home: str | None, target: str) -> None:
    """Given a copy that is gone, take it out of its backup's state."""
    path = os.path.join(home, item.id) if home else ""
    if path and os.path.isfile(os.path.join(path, naming.MANIFEST_NAME)):
        state.change(path, lambda known: known.without_copy(target), secrets.token_hex(8))
