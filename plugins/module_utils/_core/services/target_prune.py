# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Pruning a target by its own retention, from a host that may delete there.

The copies are judged by the manifests in the target, so the repository at home may be gone. Where it is there, its pins
hold in the target too.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Callable

from ..adapters import catalog, config, repository, state, targets
from ..adapters.observer import Observer
from ..adapters.process import Cancellation
from ..adapters.remote import Remote
from ..domain import naming, syncing
from ..domain.backups import Backup
from ..domain.errors import ConfigurationError, Interrupted, LockedCopyError, ManifestError, PgkeepError
from ..domain.filtering import folder_wanted
from ..domain.model import RULES, AtTarget, ConfigDirectory, Policy, Scope, Target, build
from ..domain.retention import check_policy, plan
from .prune import Pruned

Clock = Callable[[], datetime]
_Folders = Mapping[str, Mapping[str, int]]


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
    scope, name, stop = build(Scope, raw), build(AtTarget, raw).target, cancellation or Cancellation()
    if not name:
        raise ConfigurationError("no target is named: set `target`")
    rules = [rule for rule in RULES if raw.get(rule) is not None]
    if rules:
        raise ConfigurationError(f"{', '.join(rules)}: a target has its own retention: set it in the target's file")
    document = config.load_target(build(ConfigDirectory, raw).config_dir, name)
    policy = build(Policy, document)
    try:
        check_policy(policy)
    except ConfigurationError as error:
        raise ConfigurationError(f"target {name}: {error}") from None
    home = _home(raw.get("repository"), check)
    with targets.connect(name, build(Target, document), stop) as remote:
        there = {
            folder: files
            for folder, files in syncing.by_folder(remote.files()).items()
            if folder_wanted(scope, *folder.split("/")[:2])
        }
        backups = [_with_pin(item, home) for item in read(remote, there)]
        # A copy in the target is not one elsewhere.
        planned = plan(backups, replace(policy, require_copies=0), clock())
        if check:
            return Pruned(planned, (), (), True)
        deleted: list[Backup] = []
        held: list[str] = []
        failures: list[tuple[str, str]] = []
        for item in planned.deletions:
            stop.check()
            try:
                remote.delete(item.id, list(there[item.id]))
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


def read(remote: Remote, there: _Folders) -> list[Backup]:
    """Given a target and its folders, return the copies in it that can be believed, each with what is wrong with the
    sizes of its files; raise PgkeepError or OSError.
    """
    with tempfile.TemporaryDirectory(prefix="pgkeep-manifests-") as place:
        return list(fetch(remote, there, place).values())


def fetch(remote: Remote, there: _Folders, place: str) -> dict[str, Backup]:
    """Given a target, its folders and an empty directory, fetch the manifests into it; return the copies by id, with the
    paths that their files would have there.
    """
    remote.get_manifests(syncing.copies(there), place)

    def problem_of(path: str, files: list[dict[str, object]]) -> str:
        return _size_problem(there[os.path.relpath(path, place)], files)

    return {item.id: item for item in catalog.scan(place, problem_of=problem_of) if isinstance(item, Backup)}


def _size_problem(there: Mapping[str, int], files: list[dict[str, object]]) -> str:
    """Given the sizes of a copy's files in the target and the manifest's files, return what is not as it should be."""
    for item in files:
        size = there.get(str(item["path"]))
        if size is None:
            return f"{item['path']} is missing"
        if size != item["size"]:
            return f"{item['path']} has {size} bytes instead of {item['size']}"
    return ""


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
