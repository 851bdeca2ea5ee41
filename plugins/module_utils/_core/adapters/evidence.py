# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""What drills found out, a line of JSON each, beside the backups of a database: it outlives the backup it is about."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from typing import Any

from ..domain.errors import RepositoryError
from ..domain.naming import DRILLS_NAME
from .files import sync_directory, write_all

_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TAIL = 4 * 1024 * 1024  # bytes that are read; years of drills


def keep(folder: str, evidence: Mapping[str, Any]) -> None:
    """Given a database's directory in the repository, append evidence to its file, durably; raise OSError or
    RepositoryError.
    """
    path = os.path.join(folder, DRILLS_NAME)
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _OPEN, 0o600)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise RepositoryError(f"{path} is not a file of pgkeep: move it out of the repository")
        size = status.st_size
        torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"  # a writer was killed: its line must not take ours along
        write_all(fd, b"\n" * torn + json.dumps(evidence, ensure_ascii=True).encode() + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)
    if not size:
        sync_directory(folder)


def read(folder: str) -> list[dict[str, Any]]:
    """Given a database's directory in a repository, return the evidence of its drills, the newest last.

    What is not evidence is passed over: it may have been written by anybody, and no front depends on it.
    """
    try:
        fd = os.open(os.path.join(folder, DRILLS_NAME), os.O_RDONLY | _OPEN)
    except OSError:
        return []
    try:
        status = os.fstat(fd)
        data = os.pread(fd, _TAIL, max(0, status.st_size - _TAIL)) if stat.S_ISREG(status.st_mode) else b""
    finally:
        os.close(fd)
    return [found for found in map(_evidence, data.splitlines()) if found]


def _evidence(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    usable = isinstance(found, dict) and all(isinstance(found.get(key), str) for key in ("id", "at", "verdict"))
    return found if usable else None
