# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Taking over dumps that other tools made: read to the end, copied durably, given a manifest."""

from __future__ import annotations

import os
import secrets
import stat
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import IO, Any, Callable

from ..adapters import archive, catalog, files, process, repository, tools
from ..adapters.archive import Archive, Progress, Stages
from ..adapters.observer import Observer
from ..adapters.process import Cancellation, Processes
from ..domain import commands, dump_header, naming, space
from ..domain.backups import Backup, Pin
from ..domain.dump_header import Header
from ..domain.errors import ConfigurationError, PgkeepError, ToolError
from ..domain.model import AdoptOptions, Connection, Location, RunOptions, build
from ..domain.outcomes import BackupResult, Outcome
from ..domain.quantities import iso, time_zone
from .commit import Place, Subject, in_progress, occupy, publish, stored

Clock = Callable[[], datetime]
_PATIENCE = 30  # seconds for a program that only has to say what an archive is


@dataclass(frozen=True)
class Source:
    """A dump found on disk and what its name says."""

    path: str
    database: str | None
    time: datetime | None  # without a zone where the name has none


@dataclass(frozen=True)
class Dump:
    """A dump that can be adopted."""

    source: Source
    subject: Subject
    created: datetime
    form: str  # custom | directory | tar | plain | globals
    packed: str  # method of the external compression, none
    header: Header


def _sources(paths: Sequence[str], root: str) -> Iterator[Source]:
    """Given files, directories and the repository, yield the dumps: all that are named, and those recognised below a
    directory. The repository's own are left out.
    """
    for path in map(os.path.abspath, paths):
        if not os.path.isdir(path) or _is_archive(path):
            yield _source(path)
            continue
        for directory, folders, names in os.walk(path):
            archives = [name for name in folders if _is_archive(os.path.join(directory, name))]
            folders[:] = sorted(name for name in set(folders) - set(archives) if os.path.join(directory, name) != root)
            for name in sorted([*names, *archives]):
                found = _source(os.path.join(directory, name))
                if found.time:
                    yield found


def _is_archive(path: str) -> bool:
    return os.path.isfile(os.path.join(path, "toc.dat"))


def _source(path: str) -> Source:
    parsed = naming.parse_dump_name(os.path.basename(path))
    return Source(path, parsed.database, parsed.created) if parsed else Source(path, None, None)


class _Adoption:
    """One run of adopt: what all dumps of it share."""

    def __init__(self, raw: Mapping[str, Any], clock: Clock, cancellation: Cancellation) -> None:
        self.location, self.options, self.run = build(Location, raw), build(AdoptOptions, raw), build(RunOptions, raw)
        self.root = os.path.normpath(self.location.repository)
        self.clock, self.cancellation = clock, cancellation
        self.zone = time_zone(self.options.timezone)
        self.tools = tools.newest(self.run.bin_dir)
        self.programs = tools.programs()
        self.environment = commands.environment(Connection(), None, "/", process.SEARCH_PATH)
        self._promised: set[tuple[Subject, datetime]] = set()

    def examine(self, source: Source) -> Dump:
        """Given a source, return what it is; raise ConfigurationError or ToolError when it cannot be adopted."""
        form, packed, head = self._look(source.path)
        header = self._header(source.path, form, packed, head)
        if form == "globals":
            self._check_globals(source.path, packed)
        created = self.options.time or source.time
        if created is None:
            raise ConfigurationError("its name does not say when it was taken: give --time")
        if created.tzinfo is None:
            created = created.replace(tzinfo=self.zone)
        if form == "globals":
            subject = Subject(self.location.instance, "globals", None)
        else:
            database = self.options.database or header.database or source.database
            if not database:
                raise ConfigurationError(
                    "neither the archive nor its name says which database it is of: give --database"
                )
            subject = Subject(self.location.instance, "database", database)
        return Dump(source, subject, created.astimezone(timezone.utc).replace(microsecond=0), form, packed, header)

    def _look(self, path: str) -> tuple[str, str, bytes]:
        if _is_archive(path):
            return "directory", "none", b""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigurationError(f"cannot be read: {error.strerror}") from None
        with open(fd, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ConfigurationError("is not a regular file")
            head = file.read(4096)
        packed = dump_header.packing(head)
        if packed != "none":
            with self._unpacked(path, packed) as stream:
                head = stream.read(4096)
        form = dump_header.form(head)
        if not form:
            raise ConfigurationError("is not a dump of pg_dump or pg_dumpall")
        return form, packed, head

    def _decompressor(self, method: str) -> tuple[str, ...]:
        program = self.programs.get(method)
        if not program:
            raise ToolError(f"is compressed with {method}: install the package {method}")
        return commands.decompressor(method, program)

    def _first_bytes(self, argv: Sequence[str], limit: int = 4096, stdin: IO[bytes] | None = None) -> bytes:
        with self._process(argv, stdin or subprocess.DEVNULL) as reading:
            # pg_restore can be busy for ever with a tar that was cut; what it has said by then is all there is.
            patience = threading.Timer(_PATIENCE, reading.kill)
            patience.start()
            head = reading.stdout.read(limit) if reading.stdout else b""
            patience.cancel()
            reading.kill()
            return head

    def _process(self, argv: Sequence[str], stdin: IO[bytes] | int) -> subprocess.Popen[bytes]:
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        return subprocess.Popen(argv, stdin=stdin, stdout=pipe, stderr=nothing, env=self.environment, cwd="/")

    @contextmanager
    def _unpacked(self, path: str, packed: str) -> Iterator[IO[bytes]]:
        """Given a file and the method that it is compressed with, yield its content. It may have any name."""
        with open(path, "rb") as file:
            if packed == "none":
                yield file
                return
            with self._process(self._decompressor(packed), file) as unpacking:
                try:
                    if unpacking.stdout:
                        yield unpacking.stdout
                finally:
                    unpacking.kill()

    def _check_globals(self, path: str, packed: str) -> None:
        with self._unpacked(path, packed) as stream:
            if any(dump_header.begins_database(line) for line in stream):
                raise ConfigurationError(
                    "holds whole databases besides the roles and tablespaces (pg_dumpall without --globals-only), which"
                    " could only be restored all at once: keep it where it is, and dump each database by itself"
                )

    def _header(self, path: str, form: str, packed: str, head: bytes) -> Header:
        if form in ("plain", "globals"):
            return dump_header.written_header(head)
        listing = (self.tools.pg_restore, "--list")
        if packed == "none":
            return dump_header.listed_header(self._first_bytes((*listing, path), 64 * 1024).decode("utf-8", "replace"))
        with self._unpacked(path, packed) as stream:
            text = self._first_bytes(listing, 64 * 1024, stream)
        return dump_header.listed_header(text.decode("utf-8", "replace"))

    def adopt(self, dump: Dump) -> Outcome:
        """Given a dump, make it a backup; return the outcome. Raise PgkeepError or OSError."""
        command = f"pgkeep adopt of {dump.source.path}"
        with occupy(self.root, dump.subject, command, self.run.wait, self.clock, self.cancellation) as place:
            known = self._known(dump, place.backups)
            if known:
                return known
            with in_progress(place, secrets.token_hex(8)) as directory:
                started, begin = self.clock(), time.monotonic()
                written = self._write(dump, place, directory)
                self.cancellation.check()
                duration = timedelta(seconds=time.monotonic() - begin)
                pin = Pin(self.run.pin, self.run.pin_until) if self.run.pin else None
                about = self._about(dump)
                taken = publish(place, directory, written, dump.created, started, self.clock(), duration, about, pin)
        if self.options.move:
            _remove(dump.source.path)
        return Outcome(dump.subject.title, dump.subject.kind, "done", dump.source.path, (), taken)

    def plan(self, dump: Dump) -> Outcome:
        """Given a dump, return what `adopt` would do with it; raise PgkeepError where it would."""
        known = self._known(dump, stored(self.root, dump.subject))
        if known:
            return known
        if (dump.subject, dump.created) in self._promised:
            raise ConfigurationError(f"there is another dump of {iso(dump.created)} before it; give --time")
        self._promised.add((dump.subject, dump.created))
        text = f"would adopt {dump.source.path} as taken {iso(dump.created)}"
        return Outcome(dump.subject.title, dump.subject.kind, "planned", text)

    def _known(self, dump: Dump, backups: Sequence[Backup]) -> Outcome | None:
        """Given a dump and the backups of its database, return the outcome where it is one of them; else None."""
        existing = next((item for item in backups if item.created == dump.created), None)
        if existing is None:
            return None
        adopted = catalog.read_manifest(existing.path)["adopted"]
        if isinstance(adopted, dict) and adopted.get("from") == dump.source.path:
            text = f"{dump.source.path} was adopted before"
            return Outcome(dump.subject.title, dump.subject.kind, "fresh", text, (), existing)
        raise ConfigurationError(f"there is another backup of {iso(dump.created)}: {existing.id}; give --time")

    def _write(self, dump: Dump, place: Place, directory: str) -> Archive:
        free, total = files.free_space(place.path)
        reserve = space.reserve_bytes(self.run.reserve, total)
        size = os.path.getsize(dump.source.path) if dump.form != "directory" else None
        problem = space.space_problem(free, reserve, size)
        if problem:
            raise ToolError(problem)
        format_name = "plain" if dump.form == "globals" else dump.form
        suffix = naming.suffix(format_name, dump.packed)
        target = os.path.join(directory, naming.stem(dump.subject.kind, dump.subject.database, dump.created) + suffix)
        with Processes(self.environment, self.cancellation, (place.lock_fd,)) as processes:
            if dump.form == "directory":
                reader = commands.pg_restore_read(self.tools.pg_restore, target)
                return archive.copy_directory(processes, reader, dump.source.path, target, reserve)
            is_text = dump.form in ("plain", "globals")
            todo = Stages(
                ("cat", "--", dump.source.path),
                decompressor=() if dump.packed == "none" else self._decompressor(dump.packed),
                reader=() if is_text else commands.pg_restore_read(self.tools.pg_restore, None),
                reads_all=dump.form != "tar",
                has_end=partial(dump_header.has_end, dump.form),
            )
            limits = process.Limits(self.run.deadline, self.run.stall_timeout)
            return archive.write_stream(processes, todo, target, limits, reserve, Progress())

    def _about(self, dump: Dump) -> dict[str, Any]:
        inside = dump.header.compression or ("none" if dump.form in ("plain", "globals", "tar") else "unknown")
        return {
            "format": "plain" if dump.form == "globals" else dump.form,
            "compression": inside if dump.packed == "none" else dump.packed,
            "compressed_by": None if dump.packed == "none" else dump.packed,
            "partial": False,
            "left_out": [],
            "warnings": [],
            "label": self.run.label,
            "options": "adopted",
            "command": [],
            "server_version": dump.header.server_version,
            "system_identifier": None,
            "tool_version": dump.header.tool_version,
            "database_size": None,
            "properties": None,
            "adopted": {"from": dump.source.path},
        }


def _remove(path: str) -> None:
    if os.path.isdir(path):
        files.remove_tree(path)
    else:
        os.unlink(path)


def adopt(
    raw: Mapping[str, Any],
    paths: Sequence[str],
    check: bool,
    clock: Clock,
    cancellation: Cancellation | None = None,
    observer: Observer | None = None,
) -> BackupResult:
    """Given options and dumps (or directories of them), adopt each (`check`: say what would be); raise PgkeepError."""
    adoption = _Adoption(raw, clock, cancellation or Cancellation())
    repository.enter(adoption.root, create=not check)
    attend, outcomes = observer or Observer(), []
    found = list(_sources(paths, adoption.root))
    if not found:
        raise ConfigurationError(
            f"no dump was recognised in {', '.join(paths)}: name the files, with --database and --time"
        )
    if len(found) > 1 and (adoption.options.database or adoption.options.time):
        raise ConfigurationError("--database and --time say something of one dump: give them with one file")
    for source in found:
        adoption.cancellation.check()
        outcome = _outcome(adoption, source, check)
        attend.finished(outcome)
        outcomes.append(outcome)
    return BackupResult(tuple(outcomes), (), (), ())


def _outcome(adoption: _Adoption, source: Source, check: bool) -> Outcome:
    title = source.database or os.path.basename(source.path)
    try:
        dump = adoption.examine(source)
        if check:
            return adoption.plan(dump)
        return adoption.adopt(dump)
    except PgkeepError as error:
        return Outcome(title, "database", "failed", f"{source.path}: {error}")
    except OSError as error:
        return Outcome(title, "database", "failed", f"{source.path}: {files.describe(error, 'adopting it')}")
