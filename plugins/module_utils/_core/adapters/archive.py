# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Writing an archive and reading it to its end at the same time.

    pg_dump -> [compressor] -> [encryptor] -> file, synced and hashed back from the disk
                           `-> [decompressor] -> pg_restore, which must reach the end

The private key is not here, so what is read back has not been encrypted.

Nothing goes through a shell and every arrow is looked at: a status that is not 0, an error on stderr, an empty stream,
a missing end marker or a hash that differs ends the work with an error.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import threading
from dataclasses import dataclass
from typing import IO, Callable

from ..domain.errors import RepositoryError, SpaceError, ToolError
from .files import CHUNK, Sink, check_reserve, hash_file, is_full, sync_tree
from .process import Limits, Process, Processes

_F_SETPIPE_SZ = 1031  # fcntl.F_SETPIPE_SZ from Python 3.10 on
_HEAD, _TAIL = 1024, 4096
_NO_SPACE = "no space left: free some space, or give the repository a larger file system: "


@dataclass(frozen=True)
class Stages:
    """The command lines of one archive. An empty one is a stage that is not needed."""

    dump: tuple[str, ...]
    compressor: tuple[str, ...] = ()
    decompressor: tuple[str, ...] = ()
    reader: tuple[str, ...] = ()  # reads the archive to its end and throws it away
    reads_all: bool = True  # pg_restore leaves the padding at the end of a tar unread
    has_end: Callable[[bytes], bool] = lambda tail: True  # given the last bytes of the dump
    encryptor: tuple[str, ...] = ()


@dataclass(frozen=True)
class File:
    """A durable file: path relative to the backup's directory, bytes, SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Archive:
    """What was written."""

    files: tuple[File, ...]
    content_sha256: str | None
    version: str | None  # of the archive format
    warnings: tuple[str, ...]


class Progress:
    """How far one dump is, for whoever watches; written by one thread, read by others."""

    def __init__(self) -> None:
        self.bytes = 0
        self.stage = ""  # what is being done now, where that is not obvious
        self.dump: Process | None = None

    @property
    def tables(self) -> int:
        """Return how many tables' rows pg_dump has begun to write."""
        return self.dump.tables if self.dump else 0


def archive_version(head: bytes) -> str | None:
    """Given the first bytes of an archive (custom, tar, or a directory's toc.dat), return its format version."""
    at = head.find(b"PGDMP")
    return f"{head[at + 5]}.{head[at + 6]}" if at in (0, 512) and len(head) >= at + 7 else None


class Content:
    """The uncompressed stream as it passes: hash, first and last bytes, length."""

    def __init__(self) -> None:
        self.hash, self.head, self.tail, self.size = hashlib.sha256(), b"", b"", 0

    def see(self, data: bytes) -> None:
        self.hash.update(data)
        if len(self.head) < _HEAD:
            self.head += data[: _HEAD - len(self.head)]
        self.tail = (self.tail + data[-_TAIL:])[-_TAIL:]
        self.size += len(data)


class Pump(threading.Thread):
    """Reads a pipe to its end and hands on what it reads; keeps what went wrong for `finish`."""

    def __init__(self, source: IO[bytes], take: Callable[[bytes], None], end: Callable[[], None]) -> None:
        super().__init__(name="pump", daemon=True)
        self._source, self._take, self._end = source, take, end
        self._error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            copy(self._source, self._take)
        except Exception as error:  # noqa: BLE001  (whatever it is, the other thread must hear of it)
            self._error = error
            self._source.close()  # the program before us ends with SIGPIPE instead of waiting for ever
        finally:
            self._end()

    def finish(self) -> None:
        self.join()
        if self._error:
            raise self._error


def copy(source: IO[bytes], take: Callable[[bytes], None]) -> None:
    while True:
        data = source.read(CHUNK)
        if not data:
            return
        take(data)


def widen(pipe: IO[bytes]) -> None:
    try:
        fcntl.fcntl(pipe.fileno(), _F_SETPIPE_SZ, CHUNK)
    except OSError:
        pass  # only slower


class Feed:
    """A pipe into a program that may stop reading early, and then has read all that it needs: its status tells."""

    def __init__(self, process: Process) -> None:
        self._pipe: IO[bytes] | None = process.stdin
        widen(process.stdin)

    def give(self, data: bytes) -> None:
        if self._pipe:
            try:
                _write(self._pipe, data)
            except BrokenPipeError:
                self._pipe = None

    def end(self) -> None:
        if self._pipe:
            _close(self._pipe)


class _Filter:
    """A program that the bytes go through, and who takes what comes out of it."""

    def __init__(
        self, processes: Processes, command: tuple[str, ...], take: Callable[[bytes], None], end: Callable[[], None]
    ) -> None:
        self._processes = processes
        self._process = processes.start(command, stdin=subprocess.PIPE)
        widen(self._process.stdin)
        widen(self._process.stdout)
        self._pump = Pump(self._process.stdout, take, end)

    def give(self, data: bytes) -> None:
        try:
            _write(self._process.stdin, data)
        except BrokenPipeError:
            self._processes.check()
            self.finish()
            raise

    def finish(self) -> None:
        _close(self._process.stdin)
        self._pump.finish()  # the disk is the reason more often than the program
        self._process.check()


class _Check:
    """Reads an archive while it is being written: fed with the file's bytes, must reach the end."""

    def __init__(self, processes: Processes, stages: Stages, content: Content) -> None:
        self._content, self._seen = content, Content()
        self._has_end, self._compressed_here = stages.has_end, bool(stages.compressor)
        self._processes: list[Process] = []
        self._pump: Pump | None = None
        self._feed: Feed | None = None
        if stages.decompressor:
            self._decompress(processes, stages)
        elif stages.reader:
            self._read(processes, stages, subprocess.PIPE)
        if self._processes:
            self._feed = Feed(self._processes[0])

    def _read(self, processes: Processes, stages: Stages, source: int) -> Process:
        reader = processes.start(stages.reader, stdin=source, stdout=subprocess.DEVNULL)
        self._processes.append(reader)
        return reader

    def _decompress(self, processes: Processes, stages: Stages) -> None:
        unpack = processes.start(stages.decompressor, stdin=subprocess.PIPE)
        self._processes.append(unpack)
        if stages.reader and stages.reads_all:  # the bytes need not come through us
            self._read(processes, stages, unpack.stdout.fileno())
            unpack.stdout.close()  # theirs alone: an end on one side must reach the other
        elif stages.reader:
            feed = Feed(self._read(processes, stages, subprocess.PIPE))

            def both(data: bytes) -> None:
                self._seen.see(data)
                feed.give(data)

            self._pump = Pump(unpack.stdout, both, feed.end)
        else:
            self._pump = Pump(unpack.stdout, self._seen.see, lambda: None)

    def feed(self, data: bytes) -> None:
        if self._feed:
            self._feed.give(data)

    def end(self) -> None:
        if self._feed:
            self._feed.end()

    def finish(self) -> None:
        if self._pump:
            self._pump.finish()
        # First the end: pg_restore is content with a tar that is cut in its last table, and one that is cut in its
        # table of contents keeps it busy for ever.
        if not self._has_end((self._seen if self._pump else self._content).tail):
            raise ToolError("the dump has no end: it is not complete")
        for process in reversed(self._processes):
            status = process.wait()
            if status or process.errors:
                raise ToolError(f"the archive cannot be read back: {process.failure(status)}")
        if self._pump and self._compressed_here and self._seen.hash.digest() != self._content.hash.digest():
            raise RepositoryError("the archive does not decompress to what was dumped: check memory and disk")


def _write(pipe: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[pipe.write(view) or 0 :]


def _close(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except BrokenPipeError:
        pass  # its status tells


class _Stream:
    """The way of the bytes from pg_dump to the file and its check."""

    def __init__(self, processes: Processes, stages: Stages, sink: Sink, progress: Progress) -> None:
        self._progress = progress
        self.content = Content()
        self._check = _Check(processes, stages, self.content)
        self._filters: list[_Filter] = []  # from the dump on
        self._store: Callable[[bytes], None] = sink.write
        if stages.encryptor:
            self._store = self._through(processes, stages.encryptor, sink.write, lambda: None)
        self._next: Callable[[bytes], None] = self._keep
        if stages.compressor:
            self._next = self._through(processes, stages.compressor, self._keep, self._check.end)

    def _through(
        self, processes: Processes, command: tuple[str, ...], take: Callable[[bytes], None], end: Callable[[], None]
    ) -> Callable[[bytes], None]:
        self._filters.insert(0, _Filter(processes, command, take, end))
        return self._filters[0].give

    def _keep(self, data: bytes) -> None:
        self._store(data)
        self._check.feed(data)

    def take(self, data: bytes) -> None:
        """Given the next bytes of the dump, pass them on; raise as `finish`."""
        self._progress.bytes += len(data)
        self.content.see(data)
        self._next(data)

    def finish(self) -> None:
        """The dump has ended well: wait for all that was written to be read back; raise where that goes wrong."""
        for stage in self._filters:
            stage.finish()
        self._check.end()
        self._check.finish()


def write_stream(
    processes: Processes, stages: Stages, target: str, limits: Limits, reserve: int, progress: Progress
) -> Archive:
    """Given the stages and the path of a file to create, write the archive; return it durable, read back and checked.

    Raise ToolError, RepositoryError, SpaceError, Interrupted or OSError; the file may then be there in part.
    """
    sink = Sink(target, reserve)
    try:
        stream = _Stream(processes, stages, sink, progress)
        dump = progress.dump = processes.start(stages.dump)
        widen(dump.stdout)
        processes.limit(limits, lambda: progress.bytes)
        copy(dump.stdout, stream.take)
        status = dump.wait()
        processes.check()
        if status or dump.errors:
            raise ToolError(dump.failure(status))
        if not stream.content.size:
            raise ToolError(f"{dump.name} ended with status 0 and wrote nothing: is the server's disk full?")
        stream.finish()
        processes.check()
        digest = sink.close()
    finally:
        sink.abandon()
    return Archive(
        (File(os.path.basename(target), sink.size, digest),),
        stream.content.hash.hexdigest() if stages.compressor or stages.encryptor else None,
        archive_version(stream.content.head),
        tuple(dump.warnings),
    )


def write_directory(
    processes: Processes, stages: Stages, target: str, limits: Limits, reserve: int, progress: Progress
) -> Archive:
    """Given the stages and the directory for pg_dump to write, write it; return and raise as `write_stream`."""
    base = os.path.dirname(target)
    dump = progress.dump = processes.start(stages.dump, stdout=subprocess.DEVNULL)
    looks = [0]

    def grown() -> int:
        looks[0] += 1
        if dump.popen.returncode is not None:
            return -looks[0]  # reading back has no stall limit of its own, only the deadline
        check_reserve(base, reserve)
        if looks[0] % 10 == 1:  # a look at every file, so not at every tick
            progress.bytes = _tree_size(target)
        return progress.bytes

    processes.limit(limits, grown)
    status = dump.wait()
    processes.check()
    if status or dump.errors:
        # What pg_dump says of a full disk can be "could not close data file: Success".
        raise SpaceError(_NO_SPACE + dump.failure(status)) if is_full(base) else ToolError(dump.failure(status))
    check_reserve(base, reserve)
    reader = processes.start(stages.reader, stdout=subprocess.DEVNULL)
    files = tuple(File(os.path.relpath(path, base), *hash_file(path)) for path in sync_tree(target))
    status = reader.wait()
    processes.check()
    if status or reader.errors:
        raise ToolError(f"the archive cannot be read back: {reader.failure(status)}")
    progress.bytes = sum(file.size for file in files)
    with open(os.path.join(target, "toc.dat"), "rb") as toc:
        return Archive(files, None, archive_version(toc.read(_HEAD)), tuple(dump.warnings))


def copy_directory(processes: Processes, reader: tuple[str, ...], source: str, target: str, reserve: int) -> Archive:
    """Given a directory archive made by others, copy it and read the copy to its end; return and raise so as well."""
    os.mkdir(target, 0o700)
    files = [_copy_file(os.path.join(source, name), target, name, reserve) for name in sorted(os.listdir(source))]
    sync_tree(target)
    check = processes.start(reader, stdout=subprocess.DEVNULL)
    status = check.wait()
    processes.check()
    if status or check.errors:
        raise ToolError(f"the archive cannot be read back: {check.failure(status)}")
    with open(os.path.join(target, "toc.dat"), "rb") as toc:
        return Archive(tuple(files), None, archive_version(toc.read(_HEAD)), ())


def _copy_file(source: str, directory: str, name: str, reserve: int) -> File:
    sink = Sink(os.path.join(directory, name), reserve)
    try:
        fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb", buffering=0) as file:
            copy(file, sink.write)
        return File(f"{os.path.basename(directory)}/{name}", sink.size, sink.close())
    finally:
        sink.abandon()


def _tree_size(path: str) -> int:
    try:
        with os.scandir(path) as entries:
            return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
    except OSError:
        return 0  # not there yet
