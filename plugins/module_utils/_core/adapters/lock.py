# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""One kernel lock for each instance and database.

The lock file's content is information for people; the lock itself is the kernel's and ends with the last process that
has the file open. Child processes inherit it, so that nobody starts over while an orphaned pg_dump still writes.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Callable

from ..domain.errors import LockedError, RepositoryError
from ..domain.quantities import human_duration, iso, parse_time
from .files import read_small, write_all

_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_POLL = 0.1  # seconds
_ORPHAN_GRACE = 5  # seconds
# Programs that inherit the lock; nothing else is ever ended.
_CHILDREN = frozenset(
    ("pg_dump", "pg_dumpall", "pg_restore", "zstd", "gzip", "lz4", "setpriv", "age", "gpg", "rsync", "rclone")
)


def _process_start(pid: int) -> str:
    """Given a process id, return when it started, in the kernel's ticks; "" when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as status:
            return status.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def open_own(path: str, flags: int) -> int:
    """Given the path of a file for locks, return its descriptor; raise OSError, or RepositoryError for anything else.

    We write into it: a link, also a hard one, would lead that to somebody's file.
    """
    try:
        fd = os.open(path, flags | _OPEN, 0o600)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
    else:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
            return fd
        os.close(fd)
    raise RepositoryError(f"{path} is not a file of pgkeep: move it out of the repository")


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def _owner(path: str) -> dict[str, Any]:
    try:
        owner = json.loads(read_small(path, 4096))
        return owner if isinstance(owner, dict) else {}
    except (OSError, ValueError, RecursionError, RepositoryError):
        return {}


def _held_by(path: str, now: datetime) -> str:
    """Given a lock file and the time, return who holds it, for people."""
    owner = _owner(path)
    try:
        age = human_duration(now - parse_time(owner["started"]))
        return f"held by {owner['command']}, process {int(owner['pid'])} on {owner['host']}, for {age}"
    except Exception:  # noqa: BLE001  (whatever the file says, the message must come)
        return "held by a run that did not say who it is"


def _orphans(path: str) -> list[int]:
    """Given a lock file whose recorded owner is dead, return the processes that still have it open because it ended.

    Only children that pgkeep starts itself, and only where the owner was a process of this host.
    """
    owner = _owner(path)
    pid = owner.get("pid")
    if (
        owner.get("host") != socket.gethostname()
        or not isinstance(pid, int)
        or _process_start(pid) == owner.get("process_start")
    ):
        return []
    return [number for number in holders(path) if _name(number) in _CHILDREN]


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
            return comm.read().strip()
    except OSError:
        return ""  # gone in the meantime


def holders(path: str) -> list[int]:
    """Given a file, return the processes besides us that have it open; nobody's where there is no such file."""
    try:
        file = os.lstat(path)
    except OSError:
        return []
    return [
        int(name)
        for name in filter(str.isdigit, os.listdir("/proc"))
        if int(name) != os.getpid() and _has_open(name, file)
    ]


def _has_open(process: str, file: os.stat_result) -> bool:
    try:
        descriptors = os.listdir(f"/proc/{process}/fd")
        return any(os.path.samestat(os.stat(f"/proc/{process}/fd/{number}"), file) for number in descriptors)
    except OSError:
        return False  # gone, or somebody else's


def kill(processes: Sequence[int]) -> None:
    """Given processes, end them at once."""
    for pid in processes:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass  # gone in the meantime


def _end_orphans(path: str) -> bool:
    """Given a lock file, end the processes that a dead run left with it; return whether there were any."""
    orphans = _orphans(path)
    kill(orphans)
    return bool(orphans)


@contextmanager
def hold(
    path: str,
    what: str,
    command: str,
    wait: timedelta,
    clock: Callable[[], datetime],
    go_on: Callable[[], None] = lambda: None,
) -> Iterator[int]:
    """Given the path of a lock file, hold its lock and yield the descriptor for children to inherit.

    `what` and `command` are for people. Wait as long as asked, unless `go_on` raises. Raise LockedError with the owner
    and its age; RepositoryError or OSError.
    """
    fd = open_own(path, os.O_RDWR | os.O_CREAT)
    try:
        until = time.monotonic() + wait.total_seconds()
        if not _try(fd) and _end_orphans(path):
            # They need a moment to let go, even where nobody asked us to wait.
            until = max(until, time.monotonic() + _ORPHAN_GRACE)
        while not _try(fd):
            go_on()
            if time.monotonic() >= until:
                raise LockedError(
                    f"{what}: locked, {_held_by(path, clock())}: wait for it to end, or set `wait` to wait here"
                )
            time.sleep(_POLL)
        owner = {
            "pid": os.getpid(),
            "process_start": _process_start(os.getpid()),
            "host": socket.gethostname(),
            "started": iso(clock()),
            "command": command,
        }
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        write_all(fd, json.dumps(owner).encode())
        yield fd
    finally:
        os.close(fd)


def check(path: str, what: str, clock: Callable[[], datetime]) -> None:
    """Given the path of a lock file, raise LockedError if somebody holds it now. Nothing is created or changed."""
    try:
        fd = open_own(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockedError(f"{what}: locked, {_held_by(path, clock())}") from None
    finally:
        os.close(fd)
