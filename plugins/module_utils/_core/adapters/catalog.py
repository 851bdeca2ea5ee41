# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Reading a repository: what is a backup, what is not, and why. Nothing here writes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Callable, Union

from ..domain import naming
from ..domain.backups import UNTOUCHED, Backup, Foreign, State
from ..domain.errors import ManifestError, RepositoryError
from ..domain.manifest import MAX_BYTES, backup_of, parse, parse_state
from ..domain.quantities import iso
from .files import hash_file, read_small

Found = Union[Backup, Foreign]
_NONE_OF_OURS = "not a backup"
_OWN_NAMES = (naming.INPROGRESS_PREFIX, naming.TRASH_PREFIX)
_OWN_FILES = (naming.LOCK_NAME, naming.DRILLS_NAME)
_OWN_FILES_OF_INSTANCE = (naming.REPLAY_NAME, naming.REPLAY_LOCK_NAME)


def read_manifest(path: str) -> dict[str, Any]:
    """Given a backup's directory, return its manifest; raise ManifestError with why it cannot be believed."""
    try:
        return parse(read_small(f"{path}/{naming.MANIFEST_NAME}", MAX_BYTES))
    except FileNotFoundError:
        raise ManifestError("it has no manifest") from None
    except (OSError, RepositoryError) as error:
        raise ManifestError(f"its manifest cannot be read: {getattr(error, 'strerror', None) or error}") from None


def read_state(path: str) -> State:
    """Given a backup's directory, return its state; raise ManifestError, RepositoryError or OSError."""
    try:
        return parse_state(read_small(f"{path}/{naming.STATE_NAME}", MAX_BYTES))
    except FileNotFoundError:
        return UNTOUCHED


def failed(state: State) -> str:
    """Given a backup's state, return what its last verification found, or "". What failed counts for nothing."""
    failure = state.failure
    return f"failed its verification at {iso(failure.at)}: {failure.problem}" if failure else ""


def _link_above(path: str, files: list[dict[str, object]]) -> str:
    """Given a backup's directory and its manifest's files, return a folder of theirs that leads elsewhere, or ""."""
    for folder in {str(item["path"]).rpartition("/")[0] for item in files} - {""}:
        parts = folder.split("/")
        for end in range(1, len(parts) + 1):
            if os.path.islink("/".join((path, *parts[:end]))):
                return "/".join(parts[:end])
    return ""


Damage = tuple[str, str]  # missing | truncated | altered | unreadable, and what it is in words; both "" for none
_NO_DAMAGE = ("", "")


def size_damage(path: str, files: list[dict[str, object]]) -> Damage:
    """Given a backup's directory and its manifest's files, return what is missing or of another size."""
    link = _link_above(path, files)
    if link:
        return "altered", f"{link} is a symbolic link"
    for item in files:
        name, size = str(item["path"]), int(str(item["size"]))
        try:
            status = os.lstat(f"{path}/{name}")
        except OSError:
            return "missing", f"{name} is missing"
        if not stat.S_ISREG(status.st_mode):
            return "altered", f"{name} is not a regular file"
        if status.st_size != size:
            kind = "truncated" if status.st_size < size else "altered"
            return kind, f"{name} has {status.st_size} bytes instead of {size}"
    return _NO_DAMAGE


def size_problem(path: str, files: list[dict[str, object]]) -> str:
    """Given a backup's directory and its manifest's files, return what is missing or of another size, or ""."""
    return size_damage(path, files)[1]


def checksum_damage(path: str, files: list[dict[str, object]], go_on: Callable[[], None] = lambda: None) -> Damage:
    """Given a backup's directory and its manifest's files, return what is missing, truncated or altered in them.

    Every byte is read, unless `go_on`, which is asked before each file, raises.
    """
    found = size_damage(path, files)
    for item in () if found[1] else files:
        go_on()
        try:
            if hash_file(os.path.join(path, str(item["path"])))[1] != item["sha256"]:
                return "altered", f"{item['path']} was altered: its SHA-256 is not the manifest's"
        except (OSError, RepositoryError) as error:
            return "unreadable", f"{item['path']} cannot be read: {getattr(error, 'strerror', None) or error}"
    return found


def checksum_problem(path: str, files: list[dict[str, object]]) -> str:
    """Given a backup's directory and its manifest's files, return what is missing, cut or altered; "" when nothing."""
    return checksum_damage(path, files)[1]


@lru_cache(maxsize=4096)
def _folder(kind: str, database: str | None) -> str:
    return naming.directory(kind, database)


def _fits(document: dict[str, Any]) -> bool:
    """Given a manifest, return whether its id is what instance, kind, database and time make of it."""
    try:
        folder = _folder(document["kind"], document["database"])
    except RepositoryError:
        return False
    moment = document["created"][:19].replace("T", "_").replace(":", "-")
    stem = "globals" if document["kind"] == "globals" else folder
    return bool(document["id"] == f"{document['instance']}/{folder}/{stem}_{moment}")


def read_backup(
    path: str, backup_id: str, problem_of: Callable[[str, list[dict[str, object]]], str] = size_problem
) -> Found:
    """Given a directory named like a backup and the id that its place gives it, return the backup or why it is none."""
    try:
        document = read_manifest(path)
        if document["id"] != backup_id or not _fits(document):
            raise ManifestError(f"its manifest is that of {document['id'][:500]!r}, or was altered")
        try:
            state, state_problem = read_state(path), ""
        except (ManifestError, RepositoryError, OSError) as error:
            # Without its state a pin cannot be seen, so it must not look deletable: damaged backups never are.
            state, state_problem = (
                UNTOUCHED,
                f"its state cannot be read ({error}): repair or remove {naming.STATE_NAME}",
            )
        problem = problem_of(path, document["files"]) or state_problem or failed(state)
        return backup_of(document, path, state, problem)
    except ManifestError as error:
        return Foreign(path, str(error))


def _entries(path: str) -> list[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def scan_database(
    path: str, prefix: str, problem_of: Callable[[str, list[dict[str, object]]], str] = size_problem
) -> Iterator[Found]:
    """Given a database's directory and the id of it, yield what stands there, by name. A missing one has nothing."""
    try:
        entries = _entries(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RepositoryError(f"{path} cannot be read: {error.strerror}") from None
    for entry in entries:
        if entry.name in _OWN_FILES or entry.name.startswith(_OWN_NAMES):
            continue
        if not entry.is_dir(follow_symlinks=False):
            yield Foreign(entry.path, "a symbolic link" if entry.is_symlink() else _NONE_OF_OURS)
        elif not naming.has_form_of_stem(entry.name):
            yield Foreign(entry.path, _NONE_OF_OURS)
        else:
            yield read_backup(entry.path, f"{prefix}/{entry.name}", problem_of)


def scan(
    repository: str,
    wanted: Callable[[str, str], bool] = lambda instance, folder: True,
    problem_of: Callable[[str, list[dict[str, object]]], str] = size_problem,
) -> Iterator[Found]:
    """Given a repository and which (instance, folder) pairs are wanted, yield what stands there, folder by folder."""
    for instance in _entries(repository):
        if instance.name.startswith(naming.SYNC_LOCK_PREFIX) and instance.is_file(follow_symlinks=False):
            continue
        if not instance.is_dir(follow_symlinks=False):
            yield Foreign(instance.path, _NONE_OF_OURS)
            continue
        try:
            folders = _entries(instance.path)
        except OSError as error:
            yield Foreign(instance.path, f"cannot be read: {error.strerror}")
            continue
        for folder in folders:
            if folder.name in _OWN_FILES_OF_INSTANCE:
                continue
            if not folder.is_dir(follow_symlinks=False):
                yield Foreign(folder.path, _NONE_OF_OURS)
            elif wanted(instance.name, folder.name):
                yield from scan_database(folder.path, f"{instance.name}/{folder.name}", problem_of)


def copies(path: str) -> list[Backup]:
    """Given a repository, or any directory that holds copies of backups' directories or is one, return the backups."""
    found = [item for item in scan(path) if isinstance(item, Backup)]
    if found:
        return found
    inside = (path, *(entry.path for entry in _entries(path) if entry.is_dir(follow_symlinks=False)))
    return [item for item in map(_copy, inside) if item]


def _copy(path: str) -> Backup | None:
    try:
        found = read_backup(path, str(read_manifest(path)["id"]))
    except ManifestError:
        return None
    return found if isinstance(found, Backup) else None


def databases(repository: str, instance: str) -> list[str]:
    """Given a repository and an instance, return the databases that have a folder there, without the globals."""
    names = []
    try:
        entries = _entries(os.path.join(repository, instance))
    except OSError:
        return []
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) and entry.name != naming.GLOBALS_DIRECTORY:
            try:
                names.append(naming.decode(entry.name))
            except RepositoryError:
                continue  # a folder of somebody else's
    return names
