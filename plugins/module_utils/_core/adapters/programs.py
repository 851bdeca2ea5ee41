# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Running a program to its end: what it says on stdout and stderr, within limits."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Callable

from ..domain.errors import ConfigurationError, ToolError
from .process import Cancellation, Limits, Process, Processes, memory_file

_PACKAGES = {"ssh": "openssh-client (Debian, Ubuntu) or openssh-clients (RPM)"}
_PIECE = 64 * 1024
_MOST = 256 * 1024 * 1024  # bytes of stdout that are kept; a listing of a million files has fewer


@dataclass(frozen=True)
class Ended:
    """How a program ended, and what it said."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """Return its stdout as text; what is not UTF-8 keeps its bytes."""
        return self.stdout.decode("utf-8", "surrogateescape")


def run(
    argv: Sequence[str],
    environment: Mapping[str, str],
    limits: Limits,
    cancellation: Cancellation,
    stdin: bytes = b"",
    seen: Callable[[bytes], None] | None = None,
    counter: Callable[[Process], int] | None = None,
) -> Ended:
    """Given a command line, its environment and stdin, run it; raise ConfigurationError where it is not installed, ToolError
    at a limit, or Interrupted.

    What comes out of it is progress, and so is what `counter` counts. With `seen`, stdout is handed to it, and not kept.
    """
    if not shutil.which(argv[0], path=environment.get("PATH")):
        package = _PACKAGES.get(argv[0], argv[0])
        raise ConfigurationError(f"{argv[0]} is not on this host: install the package {package}")
    pieces: list[bytes] = []
    count = 0
    source = memory_file("stdin", b"")
    try:
        with os.fdopen(os.dup(source), "wb") as file:
            file.write(stdin)
        os.lseek(source, 0, os.SEEK_SET)
        with Processes(environment, cancellation) as processes:
            process = processes.start(argv, stdin=source, stdout=subprocess.PIPE)
            processes.limit(limits, lambda: count + (counter(process) if counter else 0))
            while True:
                piece = process.stdout.read(_PIECE)
                if not piece:
                    break
                count += len(piece)
                if seen:
                    seen(piece)
                elif count <= _MOST:
                    pieces.append(piece)
                else:
                    raise ToolError(f"{process.name} says more than {_MOST} bytes: look at what the target holds")
            status = process.wait()
            processes.check()
            return Ended(status, b"".join(pieces), "\n".join(process.lines))
    finally:
        os.close(source)
