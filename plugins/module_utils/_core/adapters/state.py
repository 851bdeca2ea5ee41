# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""What holds a backup still while it is read, and how its state is changed.

Both are locks of the kernel on what the backup consists of, so they need no file and end with whoever holds them:
on its directory, shared by everybody who reads the archive; on its manifest, while the state is rewritten.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable

from ..domain import naming
from ..domain.backups import State
from ..domain.errors import RepositoryError
from ..domain.manifest import serialize, state_document
from . import files
from .catalog import read_state

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def in_use(path: str) -> Iterator[int]:
    """Given a backup's directory, keep it from being deleted meanwhile; yield the descriptor for children to inherit.

    Raise RepositoryError where it is gone.
    """
    try:
        fd = os.open(path, _OPEN | os.O_DIRECTORY)
    except OSError as error:
        raise RepositoryError(f"{path} cannot be opened: {error.strerror}: choose another backup") from None
    try:
        _lock(fd, fcntl.LOCK_SH)
        if not _is_still(path, fd):
            raise RepositoryError(f"{path} was deleted just now: choose another backup")
        yield fd
    finally:
        os.close(fd)


def _is_still(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except OSError:
        return False


@contextmanager
def unused(path: str) -> Iterator[bool]:
    """Given a backup's directory, yield whether nobody reads the backup; then nobody begins to before the block ends.

    Whoever deletes it does so inside the block: a reader who comes meanwhile waits, and is told.
    """
    fd = os.open(path, _OPEN | os.O_DIRECTORY)
    try:
        yield _lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(fd)


def _lock(fd: int, operation: int) -> bool:
    """Given a descriptor, lock it; return whether that went, or cannot go on this file system at all."""
    try:
        fcntl.flock(fd, operation)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a network file system without locks on what is only read
    return True


def change(path: str, changed: Callable[[State], State], unique: str) -> State:
    """Given a backup's directory and what its state becomes, write that; return it. `unique` names a file for it.

    Raise OSError, ManifestError or RepositoryError; the state is then what it was.
    """
    fd = os.open(os.path.join(path, naming.MANIFEST_NAME), _OPEN)
    try:
        _lock(fd, fcntl.LOCK_EX)
        state = changed(read_state(path))
        for name in os.listdir(path):
            if name.startswith(files.NEW_PREFIX):  # we have the lock: whoever wrote it was killed
                os.unlink(os.path.join(path, name))
        files.replace(os.path.join(path, naming.STATE_NAME), serialize(state_document(state)), unique)
        return state
    finally:
        os.close(fd)
