# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Where a restore takes its backups from: a directory of this host, or a target, from which just what is needed is fetched."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Callable

from ..adapters import catalog, config, files, repository, targets, throwaway
from ..adapters.process import Cancellation
from ..adapters.remote import Remote
from ..domain.backups import GLOBALS, Backup
from ..domain.errors import ConfigurationError, PgkeepError, SpaceError
from ..domain.model import Choice, ConfigDirectory, Repository, RestoreOptions, Scope, Target, build
from ..domain.quantities import human_size
from .holdings import fetch, folders


@dataclass(frozen=True)
class Source:
    """The backups that there are, and how the files of one come to this host: `here` returns it with their path. Those
    that were fetched were compared with their manifests, byte by byte.
    """

    backups: tuple[Backup, ...]
    fetches: bool = False
    here: Callable[[Backup], Backup] = lambda backup: backup


@contextmanager
def source(raw: Mapping[str, Any], cancellation: Cancellation) -> Iterator[Source]:
    """Given options of a restore as a user wrote them, yield where its backups are; raise PgkeepError."""
    choice = build(Choice, raw)
    if not choice.from_target:
        place = repository.open_for_reading(build(Repository, raw).repository)
        yield Source(tuple(catalog.copies(place)))
        return
    name = choice.from_target
    document = config.load_target(build(ConfigDirectory, raw).config_dir, name)
    if raw.get("repository"):
        repository.become_owner(str(raw["repository"]))  # as a restore from there would
    if choice.verified:
        raise ConfigurationError("verified is set, and a target does not know what was verified: leave it out")
    work_dir = build(RestoreOptions, raw).work_dir
    throwaway.sweep(work_dir)
    with ExitStack() as stack:
        remote = stack.enter_context(targets.connect(name, build(Target, document), cancellation))
        workspace = stack.enter_context(throwaway.workspace(work_dir))
        place = os.path.join(workspace.path, "fetched")
        os.mkdir(place, 0o700)
        # The database can be in these folders, and the globals that belong to it.
        named = (choice.database, GLOBALS) if choice.database else ()
        there = folders(remote, Scope(instance=choice.instance, databases=named))
        backups = fetch(remote, there, place)
        yield Source(tuple(backups.values()), True, lambda backup: _fetched(backup, remote, place))


def _fetched(backup: Backup, remote: Remote, place: str) -> Backup:
    """Given a copy, fetch its files and compare them with its manifest; return it; raise PgkeepError or OSError."""
    free = files.free_space(place)[0]
    if free < backup.size:
        raise SpaceError(
            f"{backup.id} has {human_size(backup.size)}, and only {human_size(free)} are free for it: set `work_dir` to a"
            " larger file system"
        )
    expected = catalog.read_manifest(backup.path)["files"]
    remote.get(backup.id, [str(item["path"]) for item in expected], backup.path)
    problem = catalog.checksum_problem(backup.path, expected)
    if problem:
        raise PgkeepError(f"the copy of {backup.id} is damaged: {problem}: choose another backup or target")
    return replace(backup, problem="")
