# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""An archive into an empty database: by pg_restore or psql, with several jobs where the archive allows it.

file ---------------------> pg_restore --jobs    (custom, directory)
file -> [zstd -d] --------> pg_restore           (tar), or psql (plain): its end is looked at before they go on
file -> [zstd -d] -> copy -> pg_restore --jobs   (custom, compressed by a program)

What is encrypted is decrypted first, and is copied only where several jobs were asked for.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..adapters.archive import Progress
from ..adapters.encryption import Keys
from ..adapters.files import free_space
from ..adapters.process import Cancellation, Limits, Process, Processes, memory_file
from ..adapters.stored import Stored, opened, read_file, unpack
from ..adapters.tools import Tools
from ..domain import commands
from ..domain.errors import DecryptionError, ToolError
from ..domain.model import Connection, RestoreOptions

PARALLEL_FORMATS = ("custom", "directory")
_COMMENT_ON_EXTENSION = re.compile(r"^(\d+; \d+ \d+ COMMENT - EXTENSION )", re.MULTILINE)


class NotRestoredError(ToolError):
    """The archive could be read, and the server refused what is in it."""


@dataclass(frozen=True)
class Loading:
    """An archive, and everything that it takes to get it into a database."""

    archive: str  # its path: a file, or the directory of one
    document: Mapping[str, Any]  # its manifest
    options: RestoreOptions
    connection: Connection
    superuser: bool
    client: Tools
    jobs: int
    alone: bool  # in one transaction, so that a failure leaves nothing
    environment: Mapping[str, str]
    inherit: tuple[int, ...]
    prefix: tuple[str, ...]  # what every program is run with
    cancellation: Cancellation
    keys: Keys

    @property
    def stored(self) -> Stored:
        """Return the archive with what decrypts it."""
        return Stored(self.archive, self.document, self.keys)

    @property
    def limits(self) -> Limits:
        """Return how long one program may take; a restore can be silent for as long."""
        return Limits(self.options.deadline, self.options.deadline)

    def command(self, database: str, path: str | None, use_list: str | None = None) -> tuple[str, ...]:
        """Given the database to restore into and the archive (None: stdin), return the command that restores."""
        if self.document["format"] == "plain":
            return commands.psql_into(self.client.psql, self.connection, database, one_transaction=self.alone)
        jobs, tool = self.jobs if path else 1, self.client.pg_restore
        return commands.pg_restore_into(
            tool, self.connection, database, self.options, jobs, path, use_list, one_transaction=self.alone
        )

    def programs(self, *descriptors: int) -> Processes:
        """Given descriptors that they need besides, return the programs of one piece of work."""
        return Processes(self.environment, self.cancellation, (*self.inherit, *descriptors), self.prefix)


def listed(loading: Loading) -> str:
    """Given an archive, return pg_restore's list of what is in it; raise ToolError, or UnreadableError where it is
    encrypted and damaged. It is not read any further.
    """
    with loading.programs() as processes:
        processes.limit(loading.limits, lambda: 0)
        if not loading.stored.packed:
            lister = processes.start(commands.pg_restore_list(loading.client.pg_restore, loading.archive))
            return _said(lister)
        with opened(processes, loading.stored) as plaintext:
            command = commands.pg_restore_list(loading.client.pg_restore)
            lister = processes.start(command, stdin=plaintext.stream.fileno())
            plaintext.stream.close()  # pg_restore stops after the list
            try:
                return _said(lister)
            except ToolError:
                processes.check()
                plaintext.blame()
                raise


def _said(lister: Process) -> str:
    text = lister.stdout.read().decode(errors="surrogateescape")
    lister.check()
    return text


def check_decryption(loading: Loading) -> None:
    """Given an archive, raise DecryptionError where this host cannot decrypt it, UnreadableError where its beginning is
    damaged; nothing where it is not encrypted.
    """
    if not loading.document["encryption"]:
        return
    with loading.programs() as processes, opened(processes, loading.stored) as plaintext:
        processes.limit(loading.limits, lambda: 0)
        if not plaintext.stream.read(1):
            processes.check()
            plaintext.finish()


def load(loading: Loading, database: str, progress: Progress, notes: list[str]) -> tuple[str, ...]:
    """Given an archive and an empty database, restore the one into the other; return the command.

    Raise UnreadableError where the archive is no good, NotRestoredError where the server refuses it, ToolError,
    Interrupted or OSError. What a person should know is added to the notes.
    """
    document, limits = loading.document, loading.limits
    with _wanted(loading) as use_list, loading.programs(*_some(use_list)) as processes:
        processes.limit(limits, lambda: progress.bytes + progress.tables)
        if not loading.stored.packed and document["format"] in PARALLEL_FORMATS:
            return _from_file(processes, loading.command(database, loading.archive, _path(use_list)), progress)
        with _unpacked(loading, processes, notes) as unpacked:
            command = loading.command(database, _path(unpacked), _path(use_list))
            if unpacked is not None:
                with loading.programs(unpacked, *_some(use_list)) as restoring:
                    restoring.limit(limits, lambda: progress.tables)
                    return _from_file(restoring, command, progress)
            try:
                read_file(processes, loading.stored, command, progress)
            except DecryptionError:
                processes.check()
                raise
            except ToolError as error:
                processes.check()
                raise NotRestoredError(str(error)) from None
            return command


def _some(descriptor: int | None) -> tuple[int, ...]:
    return () if descriptor is None else (descriptor,)


def _path(descriptor: int | None) -> str | None:
    return None if descriptor is None else f"/proc/self/fd/{descriptor}"


def _from_file(processes: Processes, command: tuple[str, ...], progress: Progress) -> tuple[str, ...]:
    """Given the command that restores an archive which several jobs can read, run it; return it."""
    running = progress.dump = processes.start(command, stdout=subprocess.DEVNULL)
    status = running.wait()
    processes.check()
    if status or running.errors:
        raise NotRestoredError(running.failure(status))
    return command


@contextmanager
def _wanted(loading: Loading) -> Iterator[int | None]:
    """Given an archive, yield the descriptor of a list of what of it is restored; None where that is all.

    Without a superuser that is all but comments on extensions: these are the extension owner's to change, who is the
    superuser for one that came with the server.
    """
    if loading.superuser or loading.document["format"] == "plain":
        yield None
        return
    kept = _COMMENT_ON_EXTENSION.sub(r";\1", listed(loading))
    fd = memory_file("list", kept.encode(errors="surrogateescape"))
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _unpacked(loading: Loading, processes: Processes, notes: list[str]) -> Iterator[int | None]:
    """Given an archive that is compressed by a program or encrypted, yield the descriptor of an unpacked, unnamed copy
    for several jobs to read; None where it is restored as it comes.
    """
    document = loading.document
    if document["format"] != "custom" or loading.jobs == 1:
        yield None
        return
    directory, size = loading.options.work_dir, document["database_size"] or 0
    try:
        if free_space(directory)[0] < size:
            raise OSError("not enough space")
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        notes.append(f"restored with one job, as the archive could not be unpacked in {directory} ({error})")
        yield None
        return
    try:
        unpack(processes, loading.stored, fd)
        if document["encryption"]:
            notes.append(f"decrypted into an unnamed file in {directory} for {loading.jobs} jobs, which is gone now")
        yield fd
    finally:
        os.close(fd)
