# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Copies of backups in other places: look at both sides, bring over what is missing, look at what arrived.

    data -> checked there -> manifest -> checked there -> written down in the backup's state

Without its manifest a copy does not exist, so whatever is cut short is no copy. Nothing is ever deleted here: what is
gone from the repository stays in the target until the target's own retention takes it.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Callable

from ..adapters import catalog, config, files, lock, repository, state, targets
from ..adapters.archive import File
from ..adapters.observer import Observer
from ..adapters.process import Cancellation
from ..adapters.remote import Checked, Remote
from ..domain import naming, syncing
from ..domain.backups import Backup, Copy
from ..domain.errors import DONE, FAILED, SOME_FAILED, ConfigurationError, Interrupted, PgkeepError, ToolError
from ..domain.filtering import folder_wanted
from ..domain.model import ConfigDirectory, Policy, Repository, Scope, SyncOptions, Target, build
from ..domain.quantities import human_duration, human_size
from ..domain.syncing import Sides

Clock = Callable[[], datetime]
_GIVE_UP = 2  # backups in a row that a target does not take: then it has a problem, and not they
_FIRST_PAUSE = 1.0  # seconds before the first repetition; each further pause is twice as long
_TICK = 0.1


@dataclass(frozen=True)
class Copied:
    """A backup that was brought to a target, or found there complete."""

    backup: Backup
    method: str  # by which it was found equal
    seconds: float
    brought: bool  # False: it was there, and nobody had written that down

    def to_json(self) -> dict[str, Any]:
        """Return what the module and --json give of it."""
        return {
            "id": self.backup.id,
            "size": self.backup.size,
            "method": self.method,
            "duration": round(self.seconds, 3),
            "brought": self.brought,
        }


@dataclass
class Side:
    """What became of one target."""

    target: str
    present: int = 0  # copies that were there before
    copied: list[Copied] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # ids of backups that have no copy there yet
    lost: list[str] = field(default_factory=list)  # ids of backups whose copy was there once, and is gone
    not_kept: int = 0  # backups that the target's retention would let go at once
    failures: list[tuple[str, str]] = field(default_factory=list)  # a backup's id ("" for the target) and a sentence

    def to_json(self) -> dict[str, Any]:
        """Return what the module and --json give of it."""
        return {
            "target": self.target,
            "present": self.present,
            "copied": [item.to_json() for item in self.copied],
            "missing": list(self.missing),
            "lost": list(self.lost),
            "not_kept": self.not_kept,
            "failures": [{"id": name, "message": text} for name, text in self.failures],
        }


@dataclass(frozen=True)
class Synced:
    """What became of all targets."""

    sides: tuple[Side, ...]
    check: bool

    diff = None

    @property
    def changed(self) -> bool:
        """Return whether anything was copied or written down, or would be."""
        return any(side.copied or (self.check and side.missing) for side in self.sides)

    @property
    def problems(self) -> tuple[str, ...]:
        """Return what went wrong, each in one line."""
        return tuple(
            f"{side.target}: {f'{name}: ' if name else ''}{text}" for side in self.sides for name, text in side.failures
        )

    @property
    def failed(self) -> bool:
        """Return whether anything went wrong."""
        return bool(self.problems)

    @property
    def message(self) -> str:
        """Return what went wrong, in one line; "" when nothing did."""
        return "; ".join(self.problems)

    @property
    def exit_code(self) -> int:
        """Return the command's exit code: failed where no target got what it lacks."""
        bad = [side for side in self.sides if side.failures]
        if not bad:
            return DONE
        return FAILED if len(bad) == len(self.sides) and not any(side.copied for side in bad) else SOME_FAILED

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what a person should look at."""
        return tuple(
            f"{side.target}: the copy of {name} is gone: who deleted it?" for side in self.sides for name in side.lost
        )

    def to_json(self) -> dict[str, Any]:
        """Return what the module and --json give."""
        return {"targets": [side.to_json() for side in self.sides]}


@dataclass(frozen=True)
class _Work:
    """What all targets of a run share."""

    place: str
    backups: tuple[Backup, ...]
    wait: timedelta
    clock: Clock
    cancellation: Cancellation
    observer: Observer


def sync(
    raw: Mapping[str, Any],
    check: bool,
    clock: Clock,
    cancellation: Cancellation | None = None,
    observer: Observer | None = None,
) -> Synced:
    """Given options as a user wrote them, bring to the targets what they lack (`check`: find out what that is); raise
    PgkeepError. What is wrong with one target or one backup is a result, and stops no other.
    """
    scope, options = build(Scope, raw), build(SyncOptions, raw)
    directory = build(ConfigDirectory, raw).config_dir
    if not options.targets:
        raise ConfigurationError("no target is named: set `targets`, or those of the job")
    wanted = {name: config.load_target(directory, name) for name in options.targets}
    place = os.path.normpath(build(Repository, raw).repository)
    if not check:
        repository.enter(place, create=False)
    place = repository.open_for_reading(place)
    work = _Work(
        place,
        tuple(_complete(place, scope)),
        options.wait,
        clock,
        cancellation or Cancellation(),
        observer or Observer(),
    )
    return Synced(tuple(_guarded(name, document, work, check) for name, document in wanted.items()), check)


def _complete(place: str, scope: Scope) -> list[Backup]:
    found = catalog.scan(place, lambda instance, folder: folder_wanted(scope, instance, folder))
    return [item for item in found if isinstance(item, Backup) and item.complete]


def _guarded(name: str, document: Mapping[str, Any], work: _Work, check: bool) -> Side:
    """Given a target, bring it what it lacks; return what became of that, also where it cannot be used."""
    side = Side(name)
    try:
        work.cancellation.check()
        with targets.connect(name, build(Target, document), work.cancellation) as remote:
            if check:
                _look(side, remote, document, work)
            else:
                path = os.path.join(work.place, naming.SYNC_LOCK_PREFIX + name)
                with lock.hold(path, f"target {name}", "sync", work.wait, work.clock, work.cancellation.check):
                    _bring(side, remote, document, work)
    except Interrupted:
        raise
    except PgkeepError as error:
        side.failures.append(("", str(error)))
    except OSError as error:
        side.failures.append(("", str(files.describe(error, f"copying to {name}"))))
    return side


def _look(side: Side, remote: Remote, document: Mapping[str, Any], work: _Work) -> Sides:
    """Given a target, look at what it has and what it lacks; return both sides. Raise PgkeepError or OSError."""
    sides = both_sides(work.backups, remote)
    kept = syncing.wanted(work.backups, build(Policy, document), work.clock())
    side.present = len(sides.same)
    side.not_kept = sum(item.id not in kept for item in sides.missing)
    side.missing = [item.id for item in syncing.by_risk(sides.missing, sides.same) if item.id in kept]
    side.lost = [item.id for item in sides.missing if side.target in item.state.targets and item.id in kept]
    text = "what the target has under this name is not this backup: nothing was replaced; look at who wrote it"
    side.failures += [(item.id, text) for item in sides.different]
    return sides


def both_sides(backups: Sequence[Backup], remote: Remote) -> Sides:
    """Given the backups of a repository and a target, return both sides; raise PgkeepError or OSError."""
    sizes = {item.id: os.lstat(os.path.join(item.path, naming.MANIFEST_NAME)).st_size for item in backups}
    return syncing.compare(backups, sizes, syncing.by_folder(remote.files()))


def _bring(side: Side, remote: Remote, document: Mapping[str, Any], work: _Work) -> None:
    sides = _look(side, remote, document, work)
    for item in (*sides.missing, *sides.different):  # a copy that is not there counts no more
        if side.target in item.state.targets:
            state.change(item.path, lambda known: known.without_copy(side.target), secrets.token_hex(8))
    known = {item.id: item for item in work.backups}
    unknown = [item for item in sides.same if side.target not in item.state.targets]
    todo = [(item, False) for item in unknown] + [(known[name], True) for name in side.missing]
    retries, in_a_row = build(Target, document).retries, 0
    for number, (item, absent) in enumerate(todo):
        text = _attempts(item, absent, side, remote, retries, work)
        if not text:
            in_a_row = 0
            continue
        side.failures.append((item.id, text))
        in_a_row += 1
        left = len(todo) - number - 1
        if in_a_row == _GIVE_UP and left:
            side.failures.append(("", f"{left} more were not tried: the target has a problem"))
            return


def _attempts(item: Backup, absent: bool, side: Side, remote: Remote, retries: int, work: _Work) -> str:
    """Given a backup, copy it, in several attempts if need be; return why it could not be, or ""."""
    pause = _FIRST_PAUSE
    for attempt in range(retries + 1):
        try:
            _copy(item, absent, side, remote, work)
            return ""
        except Interrupted:
            raise
        except ToolError as error:  # what a repetition can help
            text = str(error)
        except PgkeepError as error:
            return str(error)
        except OSError as error:
            return str(files.describe(error, f"copying {item.id}"))
        if attempt < retries:
            _sleep(pause, work.cancellation)
            pause *= 2
    return text


def _sleep(seconds: float, cancellation: Cancellation) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        cancellation.check()
        time.sleep(_TICK)


def _copy(item: Backup, absent: bool, side: Side, remote: Remote, work: _Work) -> None:
    """Given a backup, copy it (unless it is there: then only look at it) and write that down; raise PgkeepError."""
    begin = time.monotonic()
    with state.in_use(item.path):
        data, path = data_files(item), os.path.join(item.path, naming.MANIFEST_NAME)
        manifest = File(naming.MANIFEST_NAME, *files.hash_file(path))
        if absent:
            remote.put(item.path, item.id, [file.path for file in data])
        checked = _checked(remote, item, data)
        if absent:
            remote.put(item.path, item.id, [manifest.path])
        _checked(remote, item, [manifest])
        copy = Copy(side.target, work.clock(), checked.method)
        state.change(item.path, lambda known: known.with_copy(copy), secrets.token_hex(8))
    done = Copied(item, checked.method, time.monotonic() - begin, absent)
    side.copied.append(done)
    if item.id in side.missing:
        side.missing.remove(item.id)
    work.observer.copied(side.target, line(side.target, done))


def data_files(item: Backup) -> list[File]:
    """Given a backup, return its files without the manifest, as that has them; raise ManifestError."""
    return [File(str(file["path"]), file["size"], file["sha256"]) for file in catalog.read_manifest(item.path)["files"]]


def _checked(remote: Remote, item: Backup, expected: Sequence[File]) -> Checked:
    """Given a backup and its files, return how they were found equal in the target; raise CopyError."""
    checked = remote.check(item.path, item.id, expected)
    if checked.problem:
        raise CopyError(f"the copy is not the backup: {checked.problem}")
    return checked


class CopyError(PgkeepError):
    """A copy that is not what it should be; trying again does not help, as nothing is replaced."""


def line(target: str, item: Copied) -> str:
    """Given a copy, return one line for people."""
    took = human_duration(timedelta(seconds=item.seconds))
    if not item.brought:
        return f"{target}: {item.backup.id} was there, found good ({item.method}) in {took}"
    return f"{target}: {item.backup.id}, {human_size(item.backup.size)} in {took}, found good ({item.method})"


def summary(result: Synced) -> list[str]:
    """Given what became of the targets, return a line for each."""
    return [_summary(side, result.check) for side in result.sides]


def _summary(side: Side, check: bool) -> str:
    brought = sum(item.brought for item in side.copied)
    done = f"{len(side.missing)} would be copied" if check else f"{brought} copied, {len(side.missing)} missing"
    text = f"{side.target}: {side.present} there before, {done}"
    return text + (f", {side.not_kept} not kept there" if side.not_kept else "")
