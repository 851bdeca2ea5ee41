# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Durable files: checked writes, fsync of file and directory, one rename that publishes everything.

What is here is the only code that writes into a repository or takes anything out of it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import threading
from typing import Any, Callable

from ..domain.errors import RepositoryError, SpaceError

CHUNK = 1024 * 1024
NEW_PREFIX = ".new-"  # of a file that is about to take another's place
_CREATE = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SYNC_EVERY = 32 * 1024 * 1024  # bytes; small enough that the last fsync has little left to do


def describe(error: OSError, doing: str) -> Exception:
    """Given a failed operation on the repository, return the error to raise: what failed, why, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SpaceError(f"no space left while {doing}: free some space, or give the repository a larger file system")
    if error.errno == errno.EFBIG:
        return SpaceError(f"file size limit reached while {doing}: raise the limit (ulimit -f, LimitFSIZE)")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return RepositoryError(
            f"not permitted while {doing} ({error.strerror}): check owner, mode and mount options of the repository"
        )
    return RepositoryError(f"{error.strerror or error} while {doing}")


def sync_directory(path: str) -> None:
    """Given a directory, make its entries durable; raise OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Given an open file, write every byte of the data; raise OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def read_small(path: str, limit: int) -> bytes:
    """Given a path, return the bytes of the regular file there; raise OSError or RepositoryError.

    Nothing else is opened in a way that could block or have an effect: what stands there may be anybody's.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise RepositoryError("not a regular file")
        if status.st_size > limit:
            raise RepositoryError(f"larger than {limit} bytes")
        return os.read(fd, status.st_size + 1)
    finally:
        os.close(fd)


def write_new(path: str, data: bytes) -> None:
    """Given the path of a file that does not exist, write and read it back durably; raise OSError, RepositoryError."""
    fd = os.open(path, os.O_WRONLY | _CREATE, 0o600)
    try:
        write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    if read_small(path, len(data) + 1) != data:
        raise RepositoryError(f"{os.path.basename(path)} does not read back as it was written: check the disk")


def replace(path: str, data: bytes, unique: str) -> None:
    """Given a path, replace the file there atomically and durably; `unique` names the temporary file beside it."""
    directory = os.path.dirname(path)
    temporary = os.path.join(directory, NEW_PREFIX + unique)
    try:
        write_new(temporary, data)
        os.rename(temporary, path)
    except BaseException:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise
    sync_directory(directory)


def free_space(path: str) -> tuple[int, int]:
    """Given a path, return the free and the total bytes of its file system."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize


def check_reserve(path: str, reserve: int) -> None:
    """Given a path and the bytes that have to stay free on its file system, raise SpaceError when they do not."""
    if free_space(path)[0] < reserve:
        raise SpaceError("the space that `reserve` keeps free would be used up: free some space or lower `reserve`")


def is_full(path: str) -> bool:
    """Given a path, return whether its file system has no block or no inode left."""
    status = os.statvfs(path)
    return not status.f_bavail or (status.f_files > 0 and not status.f_favail)


class Sink:
    """A new file that is written, synced, read back from the disk and hashed, all at the same time.

    A second thread syncs what was written so far, drops it from the page cache and hashes what the disk gives back. A
    write that was lost on the way makes the two hashes differ, and `close` fails.
    """

    def __init__(self, path: str, reserve: int) -> None:
        self.path, self._reserve = path, reserve
        self.size = 0
        self._written_hash, self._read_hash = hashlib.sha256(), hashlib.sha256()
        self._fd = os.open(path, os.O_RDWR | _CREATE, 0o600)
        self._lock = threading.Lock()
        self._error: OSError | None = None
        self._last = threading.Event()  # nothing more will be written
        self._more = threading.Event()
        self._reader = threading.Thread(target=self._follow, name="sink", daemon=True)
        self._reader.start()

    def write(self, data: bytes) -> None:
        """Given bytes, append them; raise OSError, or SpaceError when less than the reserve would stay free."""
        if self._error:
            raise self._error
        with self._lock:
            if self._fd < 0:  # abandoned by another thread; the number may be another file's by now
                raise RepositoryError(f"{os.path.basename(self.path)} is closed")
            write_all(self._fd, data)
        self._written_hash.update(data)
        before, self.size = self.size, self.size + len(data)
        if before // _SYNC_EVERY != self.size // _SYNC_EVERY:
            self._more.set()
            check_reserve(self.path, self._reserve)

    def _follow(self) -> None:
        position = 0
        try:
            while True:
                self._more.wait()
                self._more.clear()
                last = self._last.is_set()  # before the size is read, so that the final round sees every byte
                end = self.size
                # Only file data matters until the end: fsync of the metadata once is enough.
                (os.fsync if last else os.fdatasync)(self._fd)
                os.posix_fadvise(self._fd, position, end - position, os.POSIX_FADV_DONTNEED)
                while position < end:
                    data = os.pread(self._fd, min(CHUNK, end - position), position)
                    if not data:
                        return
                    self._read_hash.update(data)
                    position += len(data)
                if last:
                    return
        except OSError as error:
            self._error = error

    def close(self) -> str:
        """Return the SHA-256 of the file, durable and read back; raise OSError or RepositoryError."""
        self.abandon()
        if self._error:
            raise self._error
        digest = self._written_hash.hexdigest()
        if self._read_hash.hexdigest() != digest:
            raise RepositoryError(f"{os.path.basename(self.path)} does not read back as it was written: check the disk")
        return digest

    def abandon(self) -> None:
        """Stop writing and free the file descriptor; the file stays for whoever removes its directory."""
        self._last.set()
        self._more.set()
        self._reader.join()
        with self._lock:
            if self._fd >= 0:
                fd, self._fd = self._fd, -1
                os.close(fd)


def hash_file(path: str, seen: Callable[[int], None] = lambda count: None) -> tuple[int, str]:
    """Given a regular file, return its size and SHA-256 as the disk has them; raise OSError or RepositoryError. `seen`
    is given the number of bytes of each piece that was read.
    """
    digest, size = hashlib.sha256(), 0
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise RepositoryError(f"{os.path.basename(path)} is not a regular file")
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        while True:
            data = os.read(fd, CHUNK)
            if not data:
                return size, digest.hexdigest()
            digest.update(data)
            size += len(data)
            seen(len(data))
    finally:
        os.close(fd)


def sync_tree(path: str) -> list[str]:
    """Given a directory, make all in it durable, return its files, sorted; raise OSError or RepositoryError."""
    found = []
    for directory, _folders, names in os.walk(path, onerror=_raise):
        for name in names:
            file = os.path.join(directory, name)
            fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            found.append(file)
        sync_directory(directory)
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def make_directory(path: str) -> None:
    """Given a path whose parent exists, make the directory (0700) or accept it; raise OSError or RepositoryError."""
    try:
        os.mkdir(path, 0o700)
        sync_directory(os.path.dirname(path))
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise RepositoryError(f"{path} is not a directory: move it out of the repository") from None


def publish(source: str, target: str) -> None:
    """Given a finished directory and its name, make it visible with one rename; raise OSError or RepositoryError."""
    sync_directory(source)
    if os.path.lexists(target):
        raise RepositoryError(f"{target} exists already: nothing was replaced")
    os.rename(source, target)
    sync_directory(os.path.dirname(target))


def remove_tree(path: str) -> None:
    """Given a directory, remove it and all in it without following a symbolic link; raise OSError."""

    def failed(function: Callable[..., Any], name: str, info: Any) -> None:
        error = info[1]
        if not isinstance(error, FileNotFoundError):
            raise error

    shutil.rmtree(path, onerror=failed)


def discard(path: str, trash: str) -> None:
    """Given a backup's directory and a trash name beside it, take it away: first unseen, then gone; raise OSError."""
    os.rename(path, trash)
    sync_directory(os.path.dirname(path))
    remove_tree(trash)


def sweep(directory: str, prefixes: tuple[str, ...]) -> list[str]:
    """Given a directory that we hold the lock of, remove what ended runs left there; return the names. Raise OSError.

    Only real directories: whatever else has such a name was not ours.
    """
    swept = []
    with os.scandir(directory) as entries:
        names = [
            entry.name for entry in entries if entry.name.startswith(prefixes) and entry.is_dir(follow_symlinks=False)
        ]
    for name in names:
        remove_tree(os.path.join(directory, name))
        swept.append(name)
    return swept
