# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Reading an archive that is stored already, to its end.

    file -> [decryptor] -> [decompressor] -> pg_restore or psql

What decrypts is never run as the others are: a sandbox that keeps these from the host's files keeps them from the key.
Whoever reads need not look at the end itself: an archive that is cut is told apart from one that is whole here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Callable

from ..domain import commands
from ..domain.compression import LEVELS
from ..domain.dump_header import has_end
from ..domain.errors import DecryptionError, RepositoryError, ToolError
from .archive import Content, Feed, Progress, Pump, copy, widen
from .encryption import Keys, explain
from .files import write_all
from .process import SEARCH_PATH, Process, Processes


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


@dataclass(frozen=True)
class Stored:
    """An archive in a repository, and what decrypts it."""

    path: str  # a file, or the directory of one
    document: Mapping[str, Any]  # the backup's manifest
    keys: Keys

    @property
    def packed(self) -> bool:
        """Return whether pg_restore cannot read the file itself; raise as `decompressor`."""
        return bool(self.document["encryption"] or decompressor(self.document))

    @property
    def digest(self) -> str | None:
        """Return the SHA-256 of what pg_dump wrote, where it is known."""
        digest: str | None = self.document["content_sha256"] if self.packed else self.document["files"][0]["sha256"]
        return digest

    def ends(self, tail: bytes) -> bool:
        """Given the last bytes of what pg_dump wrote, return whether these are an end."""
        kind = "globals" if self.document["kind"] == "globals" else self.document["format"]
        return has_end(kind, tail)


class Plaintext:
    """What pg_dump wrote, as it comes out of an archive. Nothing of it counts before `finish` has returned."""

    def __init__(
        self, stream: IO[bytes], method: str | None, decrypting: Process | None, unpacking: Process | None
    ) -> None:
        self.stream = stream
        self._method, self._decrypting, self._unpacking = method, decrypting, unpacking

    def finish(self) -> None:
        """Given that all was read, raise UnreadableError where the archive is no good, DecryptionError where this host
        cannot decrypt it.
        """
        status = self._unpacking.wait() if self._unpacking else 0
        self.blame()
        if self._unpacking and (status or self._unpacking.errors):
            raise UnreadableError(f"it cannot be unpacked: {self._unpacking.failure(status)}")

    def blame(self) -> None:
        """Given that whoever read it failed, raise as `finish` where that is the decryption's fault."""
        if self._decrypting and self._method:
            self.stream.close()  # or one that has more to say would wait for ever
            found = explain(self._method, self._decrypting)
            if found:
                text = f"it cannot be decrypted: {found.text}"
                raise UnreadableError(text) if found.damaged else DecryptionError(text)


@contextmanager
def opened(processes: Processes, archive: Stored) -> Iterator[Plaintext]:
    """Given an archive's file, yield what pg_dump wrote; raise DecryptionError, ToolError or OSError. The only place that
    decrypts and unpacks.
    """
    unpack, method = decompressor(archive.document), archive.document["encryption"]
    decrypting = unpacking = None
    with open(os.open(archive.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as file:
        stream: IO[bytes] = file
        if method:
            decrypting = archive.keys.start(processes, method, file.fileno())
            stream = decrypting.stdout
            widen(stream)
        if unpack:
            unpacking = processes.start(unpack, stdin=stream.fileno())
            if decrypting:
                stream.close()  # theirs alone: an end on one side must reach the other
            stream = unpacking.stdout
            widen(stream)
        yield Plaintext(stream, method, decrypting, unpacking)


def read_file(
    processes: Processes,
    archive: Stored,
    reader: tuple[str, ...],
    progress: Progress,
    script: Callable[[bytes], None] | None = None,
) -> None:
    """Given an archive's file, the command that it is fed to (() for none) and perhaps who takes the script that is in
    it, read it to its end.

    Raise UnreadableError where the archive is no good, DecryptionError where this host cannot decrypt it, ToolError where
    the reader fails, OSError.
    """
    content = Content()
    with opened(processes, archive) as plaintext:
        feeding = _Reader(processes, reader, progress, script) if reader else None
        pass_on = feeding.take if feeding else script or _ignore

        def take(data: bytes) -> None:
            progress.bytes += len(data)
            content.see(data)
            pass_on(data)

        copy(plaintext.stream, take)
        processes.check()
        plaintext.finish()
    _check_content(content, archive)
    if feeding:
        feeding.finish()
        processes.check()


def _ignore(data: bytes) -> None:
    """Take what nobody wants."""


class _Reader:
    """The program that an archive is fed to, and who takes the script that it makes of it."""

    def __init__(
        self,
        processes: Processes,
        command: tuple[str, ...],
        progress: Progress,
        script: Callable[[bytes], None] | None,
    ) -> None:
        sink = subprocess.PIPE if script else subprocess.DEVNULL
        self._process = progress.dump = processes.start(command, stdin=subprocess.PIPE, stdout=sink)
        self._pump = Pump(self._process.stdout, script, lambda: None) if script else None
        self._feed = Feed(self._process)
        self.take = self._feed.give

    def finish(self) -> None:
        self._feed.end()
        if self._pump:
            self._pump.finish()
        self._process.check()


def read_script(
    processes: Processes, archive: Stored, pg_restore: str, script: Callable[[bytes], None], progress: Progress
) -> None:
    """Given an archive, a pg_restore that knows it and who takes the script that is in it, read it to its end; raise as
    `read_file`.
    """
    form = archive.document["format"]
    if archive.packed or form not in ("custom", "directory"):
        reader = () if form == "plain" else commands.pg_restore_read(pg_restore, output="-")
        read_file(processes, archive, reader, progress, script)
        return
    running = progress.dump = processes.start(commands.pg_restore_read(pg_restore, archive.path, output="-"))
    widen(running.stdout)
    copy(running.stdout, script)
    status = running.wait()
    processes.check()
    if status or running.errors:
        raise ToolError(running.failure(status))


def _check_content(content: Content, archive: Stored) -> None:
    if not content.size:
        raise UnreadableError("it is empty")
    if archive.packed and archive.digest not in (None, content.hash.hexdigest()):
        raise UnreadableError("it does not unpack to what was dumped")
    # Before the reader is asked: one that got a tar without an end can wait for ever.
    if not archive.ends(content.tail):
        raise UnreadableError("it has no end")


def unpack(processes: Processes, archive: Stored, target: int) -> None:
    """Given an archive that is encrypted or compressed and an open file, write the archive as it was dumped there; raise
    UnreadableError, DecryptionError, ToolError or OSError.
    """
    digest = hashlib.sha256()
    with opened(processes, archive) as plaintext:

        def take(data: bytes) -> None:
            digest.update(data)
            write_all(target, data)

        copy(plaintext.stream, take)
        processes.check()
        plaintext.finish()
    if archive.digest not in (None, digest.hexdigest()):
        raise UnreadableError("it does not unpack to what was dumped")
