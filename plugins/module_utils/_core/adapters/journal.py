# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""The log and the history of runs, in a directory that may be another user's.

A file is opened anew for each write, so that it can be renamed at any time. The run may begin as root and go on as the
repository's owner; whoever writes, the files are those of the directory's owner. Root changes nobody's user for that:
other threads are at work. It looks at what it has opened instead.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Callable

from ..domain import history
from ..domain.outcomes import Outcome
from ..domain.version import VERSION

_OPEN = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MODE = 0o640
_PATIENCE, _TICK = 1.0, 0.005  # seconds that others may take for their writes, and between two looks


class Journal:
    """Writes down one run. What cannot be written is told once, and changes neither the work nor its exit code."""

    def __init__(
        self,
        directory: str,
        command: str,
        job: str | None,
        clock: Callable[[], datetime],
        warn: Callable[[str], None],
    ) -> None:
        self._directory, self._clock, self._warn = directory, clock, warn
        self._run = history.Run(command, job, socket.gethostname(), os.getpid(), clock())
        self._told = False
        # Heard while the run goes: what is known where it has no result.
        self.outcomes: list[Outcome] = []
        self.deleted: list[str] = []
        self.line(history.begin_text(self._run, VERSION))

    def line(self, text: str) -> None:
        """Given what a person would read, append it to the log with the time and who said it."""
        self._append(history.LOG_NAME, history.log_line(self._run, self._clock(), text))

    def end(
        self, exit_code: int, message: str, databases: Sequence[Mapping[str, Any]] | None, deleted: Sequence[str]
    ) -> None:
        """Given what became of the run (no databases: it has no result, and what was heard counts), append its end to
        log and history.
        """
        finished = self._clock()
        if databases is None:
            databases, deleted = history.outcome_entries(self.outcomes), self.deleted
            for backup in deleted:
                self.line(f"deleted {backup}")
        self._append(
            history.HISTORY_NAME,
            history.record_line(history.record(self._run, finished, exit_code, message, databases, deleted)),
        )
        self.line(history.end_text(self._run, finished, exit_code))

    def _append(self, name: str, data: bytes) -> None:
        try:
            append(self._directory, name, data)
        except OSError as error:
            if not self._told:
                self._told = True
                self._warn(_advice(self._directory, name, error))


def append(directory: str, name: str, data: bytes) -> None:
    """Given a directory, a file's name and bytes, append them with one write; raise OSError.

    The file is made where it is missing. A symbolic link, what is no regular file, and what has another name besides
    are refused, so that no owner of the directory leads a write elsewhere.
    """
    folder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = _open(folder, name)
    finally:
        os.close(folder)
    try:
        whole = b"\n" * _is_torn(fd) + data
        if os.write(fd, whole) < len(whole):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(fd)


def _is_torn(fd: int) -> bool:
    """Given an open file, return whether its last line was cut off, by a full disk or a kill: it must not take the next
    along. While somebody else is in the middle of a write that cannot be known.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            if time.monotonic() > end:  # whoever may read the file can lock it, and shall not stop a backup
                return False
            time.sleep(_TICK)
    size = os.fstat(fd).st_size
    return size > 0 and os.pread(fd, 1, size - 1) != b"\n"


def _open(folder: int, name: str) -> int:
    """Given an open directory and a file's name, return the file, open and its owner's; raise OSError."""
    try:
        fd, made = os.open(name, _OPEN, dir_fd=folder), False
    except FileNotFoundError:
        fd, made = os.open(name, _OPEN | os.O_CREAT, _MODE, dir_fd=folder), True
    try:
        if made:
            os.fchmod(fd, _MODE)  # the umask of a run lets only the owner read
        _check(fd, os.fstat(folder))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check(fd: int, place: os.stat_result) -> None:
    """Given an open file and the status of its directory, give the file to the directory's owner; raise OSError where
    it can be somebody else's trap.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise OSError(errno.ELOOP, "it is not a file of its own")
    if os.geteuid() != 0 or status.st_uid == place.st_uid:
        return
    if status.st_uid == 0 and status.st_size == 0:  # just made, by us or by a run beside us
        os.fchown(fd, place.st_uid, place.st_gid)
    elif place.st_uid != 0:
        raise PermissionError(errno.EPERM, "it does not belong to the owner of its directory")


def _advice(directory: str, name: str, error: OSError) -> str:
    """Given a write that failed, return what happened and what to do."""
    path = os.path.join(directory, name)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return (
            f"nothing is logged, {directory} is not a directory: make it for the owner of the repository"
            f" (install -d -m 0750 -o OWNER {directory}), or correct `log_dir`"
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        todo = "free some space there"
    elif error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
        todo = "move away what stands there, it must be a regular file"
    else:
        todo = f"{directory} and the files in it must belong to the owner of the repository"
    return f"{path} cannot be written: {error.strerror}: {todo}; the run goes on"
