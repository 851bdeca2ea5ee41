# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""What the history of runs says last. `journal.py` writes it."""

from __future__ import annotations

import json
import os
import stat
from typing import Any

_TAIL = 1024 * 1024  # bytes that are read; thousands of runs
_TEXTS = ("job", "command", "started", "finished")
_ROTATED = ".1"

Record = dict[str, Any]


def last_runs(path: str) -> dict[tuple[str, str], Record]:
    """Given the path of a history, return the newest record of each job and command; raise OSError.

    A history that was rotated a moment ago still counts. What is not a record is passed over, and so are runs without
    a job.
    """
    lines = [*_lines(path + _ROTATED), *_lines(path)]
    return {(record["job"], record["command"]): record for record in map(_record, lines) if record}


def _lines(path: str) -> list[bytes]:
    """Given a file, return its last lines, none where there is no such file; raise OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        status = os.fstat(fd)
        begin = max(0, status.st_size - _TAIL)
        data = os.pread(fd, _TAIL, begin) if stat.S_ISREG(status.st_mode) else b""
    finally:
        os.close(fd)
    lines = data.splitlines()
    return lines[1:] if begin else lines  # the first one is only the end of a line


def _record(line: bytes) -> Record | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    usable = (
        isinstance(found, dict)
        and all(isinstance(found.get(key), str) for key in _TEXTS)
        and isinstance(found.get("exit_code"), int)
        and not isinstance(found["exit_code"], bool)
        and isinstance(found.get("message"), str)
    )
    return found if usable else None
