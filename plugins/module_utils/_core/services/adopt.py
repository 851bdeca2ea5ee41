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
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import IO, Any, Callable
from zoneinfo import ZoneInfo

from ..adapters import archive, catalog, files, process, repository, tools
from ..adapters.archive import Archive, Progress, Stages
from ..adapters.observer import Observer
from ..adapters.process import Cancellation, Processes
from ..domain import commands, dump_header, naming, space
from ..domain.backups import Pin
from ..domain.dump_header import Header
from ..domain.errors import ConfigurationError, PgkeepError, ToolError
from ..domain.model import AdoptOptions, Connection, Location, RunOptions, build
from ..domain.outcomes import BackupResult, Outcome
from ..domain.quantities import iso
from .commit import Place, Subject, in_progress, occupy, publish
from .preparation import END_OF_DATABASE, END_OF_GLOBALS

Clock = Callable[[], datetime]


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


def _sources(paths: Sequence[str]) -> Iterator[Source]:
    """Given files and directories, yield the dumps: all that are named, and those recognised below a directory."""
    for path in map(os.path.abspath, paths):
        if not os.path.isdir(path) or _is_archive(path):
            yield _source(path)
            continue
        for directory, folders, names in os.walk(path):
            archives = [name for name in folders if _is_archive(os.path.join(directory, name))]
            folders[:] = sorted(set(folders) - set(archives))
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
        try:
            self.zone = ZoneInfo(self.options.timezone)
        except (KeyError, ValueError, OSError):
            raise ConfigurationError(
                f"timezone is {self.options.timezone!r}: there is no such time zone here"
            ) from None
        self.tools = tools.newest(self.run.bin_dir)
        self.programs = tools.programs()
        self.environment = commands.environment(Connection(), None, "/", process.SEARCH_PATH)

    def examine(self, source: Source) -> Dump:
        """Given a source, return what it is; raise ConfigurationError or ToolError when it cannot be adopted."""
        form, packed, head = self._look(source.path)
        header = self._header(source.path, form, packed, head)
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
            head = self._first_bytes((*self._decompressor(packed), path))
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
        with subprocess.Popen(
            argv,
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self.environment,
        ) as reading:
            assert reading.stdout is not None
            head = reading.stdout.read(limit)
            reading.kill()
            return head

    def _header(self, path: str, form: str, packed: str, head: bytes) -> Header:
        if form in ("plain", "globals"):
            return dump_header.written_header(head)
        listing = (self.tools.pg_restore, "--list")
        if packed == "none":
            return dump_header.listed_header(self._first_bytes((*listing, path), 64 * 1024).decode("utf-8", "replace"))
        unpack = (*self._decompressor(packed), path)
        with subprocess.Popen(
            unpack, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self.environment
        ) as unpacking:
            text = self._first_bytes(listing, 64 * 1024, unpacking.stdout)
            unpacking.kill()
        return dump_header.listed_header(text.decode("utf-8", "replace"))

    def adopt(self, dump: Dump) -> Outcome:
        """Given a dump, make it a backup; return the outcome. Raise PgkeepError or OSError."""
        command = f"pgkeep adopt of {dump.source.path}"
        with occupy(self.root, dump.subject, command, self.run.wait, self.clock, self.cancellation) as place:
            for existing in place.backups:
                if existing.created == dump.created:
                    return self._existing(dump, existing.path, place)
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

    def _existing(self, dump: Dump, path: str, place: Place) -> Outcome:
        known = catalog.read_manifest(path)
        adopted = known["adopted"]
        if isinstance(adopted, dict) and adopted.get("from") == dump.source.path:
            text = f"{dump.source.path} was adopted before"
            backup = next(item for item in place.backups if item.path == path)
            return Outcome(dump.subject.title, dump.subject.kind, "fresh", text, (), backup)
        raise ConfigurationError(f"there is another backup of {iso(dump.created)}: {known['id']}; give --time")

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
                end_marker=b"" if not is_text else END_OF_GLOBALS if dump.form == "globals" else END_OF_DATABASE,
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
    found = list(_sources(paths))
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
            text = f"would adopt {source.path} as taken {iso(dump.created)}"
            return Outcome(dump.subject.title, dump.subject.kind, "planned", text)
        return adoption.adopt(dump)
    except PgkeepError as error:
        return Outcome(title, "database", "failed", f"{source.path}: {error}")
    except OSError as error:
        return Outcome(title, "database", "failed", f"{source.path}: {files.describe(error, 'adopting it')}")
