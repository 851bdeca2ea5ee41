# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""A target that is mounted storage. Everything is written under a temporary name first, and nothing is replaced."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Callable, TypeVar

from ..domain import naming
from ..domain.errors import LockedCopyError, RepositoryError, SpaceError, ToolError
from ..domain.model import Target
from ..domain.quantities import human_duration
from ..domain.targets import mount_points, unmounted
from . import catalog, files
from .archive import File
from .process import Cancellation
from .remote import Checked

_FSTAB = "/etc/fstab"
_TICK = 0.05  # seconds between two looks at limits and cancellation
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
Result = TypeVar("Result")


class _Abandoned(Exception):
    """Nobody waits for this work any more."""


@dataclass
class _Work:
    """Something that storage may let wait for ever: it runs in a thread of its own, so that we need not."""

    target: Target
    cancellation: Cancellation
    count: int = 0
    abandoned: bool = False
    began: float = field(default_factory=time.monotonic)

    def moved(self, count: int = 1) -> None:
        """Given how much was done, go on, not faster than the bandwidth allows; raise when nobody waits any more."""
        self.count += count
        if self.abandoned:
            raise _Abandoned
        if self.target.bandwidth:
            ahead = self.count / self.target.bandwidth - (time.monotonic() - self.began)
            while ahead > 0 and not self.abandoned:
                time.sleep(min(ahead, _TICK))
                ahead -= _TICK

    def result(self, work: Callable[[_Work], Result]) -> Result:
        """Given the work, return its result; raise what it raises, ToolError at a limit, or Interrupted."""
        results: list[Result] = []
        errors: list[BaseException] = []
        done = threading.Event()

        def run() -> None:
            try:
                results.append(work(self))
            except BaseException as error:  # noqa: BLE001  (raised again below)
                errors.append(error)
            done.set()

        threading.Thread(target=run, name="target", daemon=True).start()
        try:
            self._wait(done)
        except BaseException:
            self.abandoned = True
            done.wait(1)  # what can end, tidies up
            raise
        if errors:
            raise errors[0]
        return results[0]

    def _wait(self, done: threading.Event) -> None:
        begin = moved = time.monotonic()
        before = -1
        while not done.wait(_TICK):
            self.cancellation.check()
            now = time.monotonic()
            if self.count != before:
                before, moved = self.count, now
            if now - begin > self.target.deadline.total_seconds():
                raise ToolError(f"ended: not done after {human_duration(self.target.deadline)} (`deadline`)")
            if now - moved > self.target.timeout.total_seconds():
                raise ToolError(
                    f"{self.target.path} gave no answer for {human_duration(self.target.timeout)} (`timeout`): look"
                    " whether its storage is still there"
                )


@contextmanager
def _described(doing: str, path: str) -> Iterator[None]:
    """Given what is done and where, do it; raise PgkeepError for what the system says."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SpaceError(f"no space left in {path} while {doing}: free some space, or prune the target") from None
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise RepositoryError(
                f"not permitted in {path} while {doing} ({why}): check owner, mode and mount options of the target"
            ) from None
        if error.errno in (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.ENODEV):
            raise ToolError(f"{why} in {path} while {doing}: look whether its storage is still there") from None
        raise RepositoryError(f"{why} in {path} while {doing}") from None


class Directory:
    """A directory of mounted storage, as a Remote."""

    def __init__(self, target: Target, cancellation: Cancellation) -> None:
        self._target, self._cancellation = target, cancellation
        self._path = os.path.normpath(target.path)
        self._written: dict[str, str] = {}  # SHA-256 of what was read back from the disk when it was written just now

    def _do(self, doing: str, work: Callable[[_Work], Result]) -> Result:
        with _described(doing, self._path):
            return _Work(self._target, self._cancellation).result(work)

    # --- Remote ---

    def connect(self) -> None:
        """Raise RepositoryError when the storage is not mounted, or is no place for copies."""
        self._do("looking for it", lambda work: self._check_place())

    def files(self, below: str = "") -> dict[str, int]:
        return self._do("listing it", lambda work: dict(self._found(below, work)))

    def put(self, source: str, folder: str, names: Sequence[str]) -> None:
        self._do(f"writing {folder}", lambda work: self._put(source, folder, names, work))

    def check(self, source: str, folder: str, files: Sequence[File]) -> Checked:
        return self._do(f"reading {folder}", lambda work: Checked("sha256", self._problem(folder, files, work)))

    def get(self, folder: str, names: Sequence[str], into: str) -> None:
        self._do(f"reading {folder}", lambda work: self._get(folder, names, into, work))

    def get_manifests(self, folders: Sequence[str], into: str) -> None:
        def work_all(work: _Work) -> None:
            for folder in folders:
                os.makedirs(os.path.join(into, folder), 0o700, exist_ok=True)
                self._get(folder, (naming.MANIFEST_NAME,), os.path.join(into, folder), work)

        self._do("reading manifests", work_all)

    def delete(self, folder: str, names: Sequence[str]) -> None:
        self._do(f"deleting {folder}", lambda work: self._delete(folder, names, work))

    # --- how ---

    def _check_place(self) -> None:
        fstab = _text(_FSTAB)
        point = unmounted(self._path, fstab, {item: os.path.ismount(item) for item in mount_points(fstab)})
        if point:
            raise RepositoryError(
                f"{point} is in {_FSTAB} and not mounted: mount it: nothing was written to the disk below"
            )
        parent = os.path.dirname(self._path)
        if not os.path.isdir(parent):
            raise RepositoryError(f"{parent} is not there: mount the storage, or create the directory")
        if os.path.lexists(self._path) and not os.path.isdir(self._path):
            raise RepositoryError(f"{self._path} is not a directory: name another path")

    def _place(self, folder: str) -> str:
        """Given a folder, return its path; raise RepositoryError where a symbolic link in it leads elsewhere."""
        path = self._path
        for part in folder.split("/"):
            path = os.path.join(path, part)
            if os.path.islink(path):
                raise RepositoryError(f"{path} is a symbolic link: nothing is read or written through it: remove it")
        return path

    def _found(self, below: str, work: _Work) -> Iterator[tuple[str, int]]:
        waiting = [below]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(os.path.join(self._path, folder)) as entries:
                    for entry in entries:
                        work.moved()
                        if entry.name.startswith("."):  # nothing of ours that is finished does
                            continue
                        path = f"{folder}/{entry.name}" if folder else entry.name
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(path)
                        elif entry.is_file(follow_symlinks=False):
                            yield path, entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue  # not there yet
            except NotADirectoryError:
                continue

    def _put(self, source: str, folder: str, names: Sequence[str], work: _Work) -> None:
        self._check_place()
        directories = dict.fromkeys(("", *(os.path.dirname(name) for name in names)))
        for directory in directories:
            self._make(f"{folder}/{directory}".rstrip("/"))
        for name in names:
            path = os.path.join(self._place(folder), name)
            digest = None if os.path.lexists(path) else _copy(os.path.join(source, name), path, work)
            if digest:
                self._written[path] = digest

    def _make(self, folder: str) -> None:
        """Given a folder, make what is missing of it, and take away what a killed copy left in it."""
        path = self._path
        files.make_directory(path)
        for part in folder.split("/"):
            path = os.path.join(path, part)
            files.make_directory(path)
        _sweep(path)

    def _problem(self, folder: str, expected: Sequence[File], work: _Work) -> str:
        place = self._place(folder)
        damage = catalog.size_damage(place, [vars(file) for file in expected])[1]
        for file in () if damage else expected:
            path = os.path.join(place, file.path)
            if (self._written.pop(path, "") or files.hash_file(path, work.moved)[1]) != file.sha256:
                return f"{file.path} was altered: its SHA-256 is not the manifest's"
        return damage

    def _get(self, folder: str, names: Sequence[str], into: str, work: _Work) -> None:
        place = self._place(folder)
        for name in names:
            directory = os.path.dirname(name)
            self._place(f"{folder}/{directory}".rstrip("/"))
            os.makedirs(os.path.join(into, directory), 0o700, exist_ok=True)
            _copy(os.path.join(place, name), os.path.join(into, name), work)

    def _delete(self, folder: str, names: Sequence[str], work: _Work) -> None:
        place = self._place(folder)
        directories = {os.path.dirname(name) for name in names}
        for name in sorted(names, key=lambda item: item != naming.MANIFEST_NAME):
            work.moved()
            self._place(f"{folder}/{os.path.dirname(name)}".rstrip("/"))
            try:
                os.unlink(os.path.join(place, name))
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno == errno.EPERM:  # an attribute of the file, or of its directory
                    raise LockedCopyError(f"{name} is held by the storage ({error.strerror})") from None
                raise
            if name == naming.MANIFEST_NAME:
                files.sync_directory(place)
        for directory in sorted(directories, key=len, reverse=True):
            if directory:
                _sweep(os.path.join(place, directory))
                _remove_empty(os.path.join(place, directory))
        _sweep(place)
        _remove_empty(place)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _sweep(path: str) -> None:
    """Given a directory, remove the files that killed copies left in it; raise OSError."""
    try:
        with os.scandir(path) as entries:
            left = [entry.path for entry in entries if entry.name.startswith(naming.INPROGRESS_PREFIX)]
    except FileNotFoundError:
        return
    for item in left:
        if not os.path.isdir(item):
            os.unlink(item)


def _remove_empty(path: str) -> None:
    try:
        os.rmdir(path)
        files.sync_directory(os.path.dirname(path))
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise


def _copy(source: str, path: str, work: _Work) -> str | None:
    """Given a regular file and a path, copy it there, read back from the disk, under its name only when all of it is;
    return its SHA-256, None where something has that name meanwhile.
    """
    directory = os.path.dirname(path)
    temporary = os.path.join(directory, naming.INPROGRESS_PREFIX + secrets.token_hex(8))
    try:
        fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise RepositoryError(f"{source} is not a regular file")
            digest = _write(file.read, temporary, work)
        work.moved()
        is_ours = _publish(temporary, path)
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)
    files.sync_directory(directory)
    return digest if is_ours else None


def _write(read: Callable[[int], bytes | None], temporary: str, work: _Work) -> str:
    sink = files.Sink(temporary, 0)
    try:
        while True:
            data = read(files.CHUNK)
            if not data:
                break
            sink.write(data)
            work.moved(len(data))
        return sink.close()
    finally:
        sink.abandon()


def _publish(temporary: str, path: str) -> bool:
    """Given a finished file and its name, give it the name unless something has it: then that stays. Return whether it
    got it; raise OSError.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Storage without hard links. Nobody else writes here: a target belongs to one host, and its lock is held.
        if os.path.lexists(path):
            return False
        os.rename(temporary, path)
    return True
