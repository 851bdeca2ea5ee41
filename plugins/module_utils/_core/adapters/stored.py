# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Reading an archive that is stored already, to its end.

    file -> [decompressor] -> pg_restore or psql

Whoever reads need not look at the end itself: an archive that is cut is told apart from one that is whole here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import partial
from typing import Any, Callable

from ..domain import commands
from ..domain.compression import LEVELS
from ..domain.dump_header import has_end
from ..domain.errors import RepositoryError, ToolError
from .archive import Content, Feed, Progress, Pump, Stages, copy, widen
from .files import write_all
from .process import SEARCH_PATH, Processes


class UnreadableError(RepositoryError):
    """The archive itself is no good, whatever the tools of this host are."""


def archive_path(path: str, document: Mapping[str, Any]) -> str:
    """Given a backup's directory and its manifest, return the archive: a file, or the directory of one."""
    first = str(document["files"][0]["path"])
    return os.path.join(path, first.split("/", maxsplit=1)[0] if document["format"] == "directory" else first)


def decompressor(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Given a manifest, return the command that unpacks its archive, () where none is needed; raise ToolError."""
    by = document["compressed_by"]
    if by is None or by == "pg_dump":
        return ()
    method = by if by in LEVELS else str(document["compression"]).partition(":")[0]
    program = shutil.which(method, path=SEARCH_PATH) if method in LEVELS else None
    if not program:
        raise ToolError(f"the archive is compressed with {method}, which is not here: install the package {method}")
    return commands.decompressor(method, program)


def stages_to_read(document: Mapping[str, Any], reader: tuple[str, ...]) -> Stages:
    """Given a manifest and the command that the archive is fed to (() for none), return how to read it."""
    kind = "globals" if document["kind"] == "globals" else document["format"]
    return Stages((), (), decompressor(document), reader, document["format"] != "tar", partial(has_end, kind))


def read_file(
    processes: Processes,
    stages: Stages,
    path: str,
    digest: str | None,
    progress: Progress,
    script: Callable[[bytes], None] | None = None,
) -> None:
    """Given how to read it, an archive's file, the SHA-256 of its content (None: not known) and perhaps who takes the
    script that is in it, read it to its end.

    Raise UnreadableError where the archive is no good, ToolError where the reader fails, OSError.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as file:
        unpack = processes.start(stages.decompressor, stdin=file.fileno()) if stages.decompressor else None
        reader = _Reader(processes, stages, progress, script) if stages.reader else None
        content = Content()
        pass_on = reader.take if reader else script or _ignore

        def take(data: bytes) -> None:
            progress.bytes += len(data)
            content.see(data)
            pass_on(data)

        copy(unpack.stdout if unpack else file, take)
        processes.check()
        status = unpack.wait() if unpack else 0
        if unpack and (status or unpack.errors):
            raise UnreadableError(f"it cannot be unpacked: {unpack.failure(status)}")
    _check_content(content, digest, stages)
    if reader:
        reader.finish()
        processes.check()


def _ignore(data: bytes) -> None:
    """Take what nobody wants."""


class _Reader:
    """The program that an archive is fed to, and who takes the script that it makes of it."""

    def __init__(
        self, processes: Processes, stages: Stages, progress: Progress, script: Callable[[bytes], None] | None
    ) -> None:
        sink = subprocess.PIPE if script else subprocess.DEVNULL
        self._process = progress.dump = processes.start(stages.reader, stdin=subprocess.PIPE, stdout=sink)
        self._pump = Pump(self._process.stdout, script, lambda: None) if script else None
        self._feed = Feed(self._process)
        self.take = self._feed.give

    def finish(self) -> None:
        self._feed.end()
        if self._pump:
            self._pump.finish()
        self._process.check()


def read_script(
    processes: Processes,
    document: Mapping[str, Any],
    path: str,
    pg_restore: str,
    script: Callable[[bytes], None],
    progress: Progress,
) -> None:
    """Given a manifest, its archive, a pg_restore that knows it and who takes the script that is in it, read it to its
    end; raise as `read_file`.
    """
    reader = commands.pg_restore_read(pg_restore, output="-")
    if document["format"] == "plain":
        reader = ()
    elif not decompressor(document) and document["format"] in ("custom", "directory"):
        running = progress.dump = processes.start(commands.pg_restore_read(pg_restore, path, output="-"))
        widen(running.stdout)
        copy(running.stdout, script)
        status = running.wait()
        processes.check()
        if status or running.errors:
            raise ToolError(running.failure(status))
        return
    read_file(processes, stages_to_read(document, reader), path, document["content_sha256"], progress, script)


def _check_content(content: Content, digest: str | None, stages: Stages) -> None:
    if not content.size:
        raise UnreadableError("it is empty")
    if digest is not None and content.hash.hexdigest() != digest:
        raise UnreadableError("it does not unpack to what was dumped")
    # Before the reader is asked: one that got a tar without an end can wait for ever.
    if not stages.has_end(content.tail):
        raise UnreadableError("it has no end")


def unpack(processes: Processes, document: Mapping[str, Any], path: str, target: int) -> None:
    """Given a manifest, its compressed archive and an open file, write the unpacked archive there; raise
    UnreadableError, ToolError or OSError.
    """
    digest = hashlib.sha256()
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as file:
        unpacking = processes.start(decompressor(document), stdin=file.fileno())

        def take(data: bytes) -> None:
            digest.update(data)
            write_all(target, data)

        copy(unpacking.stdout, take)
        status = unpacking.wait()
    processes.check()
    if status or unpacking.errors:
        raise UnreadableError(f"it cannot be unpacked: {unpacking.failure(status)}")
    if document["content_sha256"] not in (None, digest.hexdigest()):
        raise UnreadableError("it does not unpack to what was dumped")
