# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""The directory of an account that receives copies: its files, their checksums, its size. No link is ever followed."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Callable

from ..domain import naming, receiving
from .files import CHUNK, write_all

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = _FILE | os.O_DIRECTORY
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_STALE = 24 * 3600  # seconds after which nobody works on a file any more
_BEAT = 64 * 1024 * 1024  # bytes between two signs of life


def _walk(directory: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Given a directory, yield everything below it: its path there, and its entry. What goes away meanwhile is left out."""
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        try:
            with os.scandir(os.path.join(directory, prefix)) as entries:
                found = list(entries)
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in found:
            yield prefix + entry.name, entry
            if entry.is_dir(follow_symlinks=False):
                waiting.append(f"{prefix}{entry.name}/")


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None


def sizes(directory: str) -> dict[str, int]:
    """Given a directory, return the size of each regular file that is finished, by its path; raise OSError."""
    found = {}
    for path, entry in _walk(directory):
        status = _status(entry) if receiving.acceptable(path) and entry.is_file(follow_symlinks=False) else None
        if status:
            found[path] = status.st_size
    return found


def used(directory: str) -> int:
    """Given a directory, return the bytes that all in it takes; raise OSError."""
    total = 0
    for _path, entry in _walk(directory):
        status = _status(entry)
        if status:
            total += max(receiving.ENTRY_SIZE, status.st_size, status.st_blocks * 512)
    return total


def sweep(directory: str, now: float) -> list[str]:
    """Given a directory and the time, remove what killed transfers left; return the paths. Raise OSError.

    The time at which the inode changed counts: no client can set that one.
    """
    swept = []
    for path, entry in list(_walk(directory)):
        if receiving.is_left_over(entry.name) and entry.is_file(follow_symlinks=False):
            status = _status(entry)
            if status and now - status.st_ctime > _STALE:
                os.unlink(entry.path)
                swept.append(path)
    return swept


def hash_durable(directory: str, path: str, beat: Callable[[], None]) -> receiving.Answer:
    """Given a directory and a path below it, make the file there durable and return its size and SHA-256 as the disk has
    them; `beat` is called while that takes long. Raise OSError.
    """
    if not receiving.acceptable(path):
        return receiving.Answer(problem=receiving.FORBIDDEN)
    try:
        with _opened(directory, path, _FILE) as descriptors:
            if not stat.S_ISREG(os.fstat(descriptors[-1]).st_mode):
                return receiving.Answer(problem=receiving.NO_FILE)
            _sync(descriptors)
            return _hash(descriptors[-1], beat)
    except FileNotFoundError:
        return receiving.Answer(problem=receiving.MISSING)
    except (NotADirectoryError, PermissionError):
        return receiving.Answer(problem=receiving.NO_FILE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return receiving.Answer(problem=receiving.NO_FILE)
        raise


@contextmanager
def _opened(directory: str, path: str, flags: int) -> Iterator[list[int]]:
    """Given a directory and a path below it, yield descriptors of all on the way, and of the file, opened with the flags;
    raise OSError.
    """
    *folders, name = path.split("/")
    descriptors = [os.open(directory, _DIRECTORY & ~os.O_NOFOLLOW)]
    try:
        for folder in folders:
            descriptors.append(os.open(folder, _DIRECTORY, dir_fd=descriptors[-1]))
        descriptors.append(os.open(name, flags, 0o600, dir_fd=descriptors[-1]))
        yield descriptors
    finally:
        for fd in descriptors:
            os.close(fd)


def _sync(descriptors: Sequence[int]) -> None:
    for fd in reversed(descriptors):
        os.fsync(fd)


def keep_state(directory: str, path: str, content: bytes) -> None:
    """Given a directory, the path of a manifest below it that was hashed, and the state of a backup with which nothing was
    done, give the backup that state unless it has one; raise OSError.

    What is there cannot be replaced by whoever sends: no sender can say that a copy failed its verification, or passed.
    """
    folder, sign, _name = path.rpartition("/")
    try:
        with _opened(directory, folder + sign + naming.STATE_NAME, _NEW) as descriptors:
            write_all(descriptors[-1], content)
            _sync(descriptors[-2:])
    except FileExistsError:
        return


def _hash(fd: int, beat: Callable[[], None]) -> receiving.Answer:
    digest, size = hashlib.sha256(), 0
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    while True:
        data = os.read(fd, CHUNK)
        if not data:
            return receiving.Answer(size, digest.hexdigest())
        digest.update(data)
        before, size = size, size + len(data)
        if before // _BEAT != size // _BEAT:
            beat()
