# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the command with a fault at its Nth operation on the repository: python faulty.py FAULT N DIRECTORY LOG pgkeep ...

FAULT is none, kill, once:EIO (any errno), on:ENOSPC (from the Nth operation on) or lie:SUFFIX (the first write to a path
that ends so is never done). LOG gets a line for each operation that reached the repository, and so tells how many there
are; how many pieces a file is written in changes from run to run, so all of them count as one. The program is the
real one, in one process as always; only the calls that it makes into the operating system pass through here. Unlike
strace's injection this counts the runner's own calls, across its threads, and nothing of its children's.
"""

# ruff: noqa: PTH115, PTH118
from __future__ import annotations

import errno
import os
import runpy

# Before os is changed: it looks there what this platform can do.
import shutil  # noqa: F401  # pylint: disable=unused-import
import signal
import sys
import threading
from typing import Any, Callable

OPERATIONS = (
    "open",
    "close",
    "read",
    "pread",
    "write",
    "fsync",
    "fdatasync",
    "ftruncate",
    "mkdir",
    "rename",
    "unlink",
    "rmdir",
)


class Injector:
    """Counts operations on a directory, and lets one of them, or all from one on, fail."""

    def __init__(self, fault: str, number: int, directory: str, log: str) -> None:
        self._fault, _unused, detail = fault.partition(":")
        self._errno = getattr(errno, detail) if self._fault in ("once", "on") else 0
        self._lost = detail if self._fault == "lie" else None
        self._number, self._directory = number, directory
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
        self._count, self._lock, self._written = 0, threading.Lock(), set[str]()

    def wrap(self, name: str) -> None:
        original: Callable[..., Any] = getattr(os, name)

        def call(*arguments: Any, **more: Any) -> Any:
            place = self._place(arguments[0], more.get("dir_fd"))
            if place != self._directory and not place.startswith(self._directory + "/"):
                return original(*arguments, **more)
            return self._perform(name, place, original, arguments, more)

        setattr(os, name, call)

    @staticmethod
    def _place(target: Any, dir_fd: int | None) -> str:
        try:
            if isinstance(target, int):
                return os.readlink(f"/proc/self/fd/{target}")
            base = os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd is not None else ""
            return os.path.normpath(os.path.join(base, os.fsdecode(target)))
        except OSError:
            return ""

    def _perform(self, name: str, place: str, original: Callable[..., Any], arguments: Any, more: Any) -> Any:
        with self._lock:
            more_of_the_same = name == "write" and place in self._written
            if name == "write":
                self._written.add(place)
            if not more_of_the_same:
                self._count += 1
                _write(self._log, f"{self._count} {name} {place}\n".encode())
            hit = self._count >= self._number if self._fault == "on" else self._count == self._number
            hit = hit and not (more_of_the_same and self._fault != "on")
        if hit and self._fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._lost is not None and name == "write" and place.endswith(self._lost) and not more_of_the_same:
            return len(arguments[1])
        if hit and self._errno:
            if name == "close":  # as the kernel does it: the descriptor is gone whatever close says
                original(*arguments, **more)
            raise OSError(self._errno, os.strerror(self._errno), place)
        return original(*arguments, **more)


_write = os.write


def main() -> None:
    fault, number, directory, log, program, *arguments = sys.argv[1:]
    injector = Injector(fault, int(number), directory, log)
    for name in OPERATIONS:
        injector.wrap(name)
    sys.argv = [program, *arguments]
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
