# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""The commit protocol: how a dump becomes a backup, and how one that failed leaves no trace.

    lock -> sweep -> .inprogress-* -> archive -> manifest (both durable and read back) -> rename -> fsync

Whatever happens before the rename, the directory is as it was; after it the backup is complete.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Callable

from ..adapters import catalog, files, lock, repository
from ..adapters.archive import Archive
from ..adapters.process import Cancellation
from ..domain import manifest, naming
from ..domain.backups import GLOBALS, Backup, Pin, State
from ..domain.errors import RepositoryError
from ..domain.quantities import iso
from ..domain.version import VERSION

_KNOWN_BEFORE = (
    "database_size",
    "format",
    "compression",
    "encryption",
    "partial",
    "label",
    "server_version",
    "options",
)


@dataclass(frozen=True)
class Subject:
    """What is backed up: a database of an instance, or its globals."""

    instance: str
    kind: str
    database: str | None

    @property
    def title(self) -> str:
        """Return its name as people read it."""
        return GLOBALS if self.kind == "globals" else str(self.database)

    @property
    def folder(self) -> str:
        """Return its place in a repository."""
        return f"{self.instance}/{naming.directory(self.kind, self.database)}"


@dataclass(frozen=True)
class Place:
    """A locked and swept directory of one database."""

    path: str
    subject: Subject
    lock_fd: int
    backups: tuple[Backup, ...]


@contextmanager
def occupy(
    root: str,
    subject: Subject,
    command: str,
    wait: timedelta,
    clock: Callable[[], datetime],
    cancellation: Cancellation,
) -> Iterator[Place]:
    """Given a repository and a subject, hold its lock, sweep what ended runs left, and yield the place."""
    path = repository.database_directory(root, subject.instance, subject.kind, subject.database, create=True)
    title = f"{subject.instance}/{subject.title}"
    with lock.hold(os.path.join(path, naming.LOCK_NAME), title, command, wait, clock, cancellation.check) as fd:
        cancellation.check()
        try:
            files.sweep(path, (naming.INPROGRESS_PREFIX, naming.TRASH_PREFIX))
        except OSError as error:
            raise files.describe(error, "removing what an earlier run left") from None
        yield Place(path, subject, fd, tuple(stored(root, subject)))


def stored(root: str, subject: Subject) -> list[Backup]:
    """Given a repository and a subject, return its backups."""
    found = catalog.scan_database(os.path.join(root, subject.folder), subject.folder)
    return [item for item in found if isinstance(item, Backup)]


def expect(subject: Subject, created: datetime, about: Mapping[str, Any], size: int | None, pin: Pin | None) -> Backup:
    """Given what is known of a backup before it is taken, return it as it would be listed; it has no path yet."""
    return Backup(
        id=naming.backup_id(subject.instance, subject.kind, subject.database, created),
        instance=subject.instance,
        kind=subject.kind,
        database=subject.database,
        created=created,
        finished=created,
        duration=timedelta(),
        size=size or 0,
        path="",
        state=State(pin=pin),
        problem="",
        **{key: about[key] for key in _KNOWN_BEFORE},
    )


def next_time(place: Place, now: datetime) -> datetime:
    """Given a place and the time, return the time by which the next backup there is called."""
    created = naming.next_created(now, (item.created for item in place.backups))
    subject = place.subject
    while os.path.lexists(os.path.join(place.path, naming.stem(subject.kind, subject.database, created))):
        created += timedelta(seconds=1)  # something that is no backup stands there
    return created


@contextmanager
def in_progress(place: Place, unique: str) -> Iterator[str]:
    """Given a place and a unique word, yield a private directory; it is gone afterwards unless published.

    Errors of the file system become RepositoryError or SpaceError.
    """
    path = os.path.join(place.path, naming.INPROGRESS_PREFIX + unique)
    try:
        os.mkdir(path, 0o700)
        try:
            yield path
        finally:
            if os.path.isdir(path):
                files.remove_tree(path)
    except OSError as error:
        raise files.describe(error, f"writing the backup of {place.subject.title}") from None


def publish(
    place: Place,
    directory: str,
    archive: Archive,
    created: datetime,
    started: datetime,
    finished: datetime,
    duration: timedelta,
    about: Mapping[str, Any],
    pin: Pin | None,
) -> Backup:
    """Given a durable, checked archive in an in-progress directory and what is known of it, make it a backup.

    `about` has every key of the manifest that is not made here. Raise OSError or RepositoryError.
    """
    subject = place.subject
    stem = naming.stem(subject.kind, subject.database, created)
    document = {
        "manifest_version": manifest.MANIFEST_VERSION,
        "id": f"{subject.folder}/{stem}",
        "instance": subject.instance,
        "kind": subject.kind,
        "database": subject.database,
        "created": iso(created),
        "started": iso(started),
        "finished": iso(finished),
        "duration": round(duration.total_seconds(), 3),
        "size": sum(item.size for item in archive.files),
        "files": [{"path": item.path, "size": item.size, "sha256": item.sha256} for item in archive.files],
        "content_sha256": archive.content_sha256,
        "archive_version": archive.version,
        "encryption": None,
        "host": socket.gethostname(),
        "collection_version": VERSION,
        **about,
    }
    known = (key.name for key in manifest.KEYS if key.required or key.name in document)
    data = manifest.serialize({name: document[name] for name in known})
    parsed = manifest.parse(data)  # what we would not believe is not written
    files.write_new(os.path.join(directory, naming.MANIFEST_NAME), data)
    state = State(pin=pin)
    if pin:
        files.write_new(os.path.join(directory, naming.STATE_NAME), manifest.serialize(manifest.state_document(state)))
    target = os.path.join(place.path, stem)
    files.publish(directory, target)
    backup = manifest.backup_of(parsed, target, state)
    listed = catalog.read_backup(target, backup.id)
    if listed != backup:
        raise RepositoryError(f"{target} does not read back as it was written: check the disk")
    return backup
