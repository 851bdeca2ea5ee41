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
from typing import Any

from ..domain import commands
from ..domain.compression import LEVELS
from ..domain.dump_header import has_end
from ..domain.errors import RepositoryError, ToolError
from .archive import Content, Feed, Progress, Stages, copy
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


def read_file(processes: Processes, stages: Stages, path: str, digest: str | None, progress: Progress) -> None:
    """Given how to read it, an archive's file and the SHA-256 of its content (None: not known), read it to its end.

    Raise UnreadableError where the archive is no good, ToolError where the reader fails, OSError.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as file:
        unpack = processes.start(stages.decompressor, stdin=file.fileno()) if stages.decompressor else None
        reader = None
        if stages.reader:
            reader = progress.dump = processes.start(stages.reader, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        content, feed = Content(), Feed(reader) if reader else None

        def take(data: bytes) -> None:
            progress.bytes += len(data)
            content.see(data)
            if feed:
                feed.give(data)

        copy(unpack.stdout if unpack else file, take)
        processes.check()
        status = unpack.wait() if unpack else 0
        if unpack and (status or unpack.errors):
            raise UnreadableError(f"it cannot be unpacked: {unpack.failure(status)}")
    _check_content(content, digest, stages)
    if feed:
        feed.end()
    if reader:
        status = reader.wait()
        processes.check()
        if status or reader.errors:
            raise ToolError(reader.failure(status))


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
