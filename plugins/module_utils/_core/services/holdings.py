# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""What a target holds, judged by the manifests in it: the repository at home may be gone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Any

from ..adapters import catalog, config
from ..adapters.remote import Remote
from ..domain import syncing
from ..domain.backups import Backup
from ..domain.errors import ConfigurationError
from ..domain.filtering import folder_wanted
from ..domain.model import AtTarget, ConfigDirectory, Scope, build

Folders = Mapping[str, Mapping[str, int]]  # id -> the files of the copy, each with its size


def named(raw: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Given options as a user wrote them, return the target that they name, and its document; raise ConfigurationError."""
    name = build(AtTarget, raw).target
    if not name:
        raise ConfigurationError("no target is named: set `target`")
    return name, config.load_target(build(ConfigDirectory, raw).config_dir, name)


def folders(remote: Remote, scope: Scope) -> Folders:
    """Given a target and a scope, return the folders of the backups in it; raise PgkeepError or OSError."""
    found = syncing.by_folder(remote.files())
    return {folder: files for folder, files in found.items() if folder_wanted(scope, *folder.split("/")[:2])}


def read(remote: Remote, there: Folders) -> list[Backup]:
    """Given a target and its folders, return the copies in it that can be believed, each with what is wrong with the
    sizes of its files; raise PgkeepError or OSError.
    """
    with tempfile.TemporaryDirectory(prefix="pgkeep-manifests-") as place:
        return list(fetch(remote, there, place).values())


def fetch(remote: Remote, there: Folders, place: str) -> dict[str, Backup]:
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
