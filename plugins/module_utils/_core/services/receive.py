# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""The other end of `pgkeep sync`: the forced command of a key that can add copies, and do nothing else.

sshd starts it for every connection and says in SSH_ORIGINAL_COMMAND what the client wants. Nothing here deletes a copy,
replaces one, or tells what is in one.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import IO, Any

from ..adapters import files, received, tools
from ..adapters.process import SEARCH_PATH, Cancellation, Limits, Processes
from ..domain import manifest, naming, receiving, space
from ..domain.backups import UNTOUCHED
from ..domain.errors import DONE, FAILED, ConfigurationError, RepositoryError, SpaceError, ToolError
from ..domain.model import ReceiveOptions, RunOptions, build
from ..domain.quantities import human_size

_FOREVER = timedelta(days=30)
_LOOK = 1.0  # seconds between two looks at the directory's size, or ten times as long as one takes


def receive(
    raw: Mapping[str, Any],
    environment: Mapping[str, str],
    stdin: IO[bytes],
    stdout: IO[bytes],
    stderr: IO[str],
    cancellation: Cancellation,
) -> int:
    """Given options, our environment and the client's streams, do what the client asks; return the exit code. Raise
    PgkeepError with why it is not done.
    """
    os.umask(0o077)
    directory = os.path.realpath(str(raw["directory"]))
    if not os.path.isdir(directory):
        raise RepositoryError(f"{directory} is not there: create it, for the account that receives")
    command = environment.get("SSH_ORIGINAL_COMMAND", "")
    problem = receiving.refusal(command)
    if problem:
        raise ConfigurationError(problem)
    try:
        if command == receiving.LIST:
            stdout.write(json.dumps(received.sizes(directory)).encode())
            stdout.flush()
            return DONE
        if command == receiving.HASH:
            _hash(directory, stdin, stdout)
            return DONE
        return _transfer(directory, raw, environment, stderr, cancellation)
    except OSError as error:
        raise files.describe(error, "receiving") from None


def _hash(directory: str, stdin: IO[bytes], stdout: IO[bytes]) -> None:
    data = stdin.read(receiving.REQUEST_LIMIT + 1)
    if len(data) > receiving.REQUEST_LIMIT:
        raise ConfigurationError(f"more than {receiving.REQUEST_LIMIT} bytes of paths")

    def say(text: str) -> None:
        stdout.write(f"{text}\n".encode())
        stdout.flush()

    for path in receiving.parse_request(data):
        answer = received.hash_durable(directory, path, lambda: say(""))
        if answer.sha256 and path.rpartition("/")[2] == naming.MANIFEST_NAME:
            received.keep_state(directory, path, manifest.serialize(manifest.state_document(UNTOUCHED)))
        say(json.dumps({"path": path, **{key: value for key, value in asdict(answer).items() if value != ""}}))


class _Bounds:
    """How much may come, looked at while it comes."""

    def __init__(self, directory: str, quota: int | None, reserve: str) -> None:
        self._directory, self._quota = directory, quota
        self._reserve = space.reserve_bytes(reserve, files.free_space(directory)[1])
        self._next = 0.0

    def left(self) -> int | None:
        """Return the bytes that may still come, None for any number; raise SpaceError when there are none left."""
        free = files.free_space(self._directory)[0]
        if free <= self._reserve:
            raise SpaceError(f"only {human_size(free)} are free and {human_size(self._reserve)} stay in reserve")
        if self._quota is None:
            return None
        left = self._quota - received.used(self._directory)
        if left <= 0:
            raise SpaceError(f"the quota of {human_size(self._quota)} is used up")
        return left

    def look(self) -> int:
        """Raise SpaceError when nothing more may come. It is called often and looks seldom enough to cost little."""
        begin = time.monotonic()
        if begin >= self._next:
            self.left()
            self._next = time.monotonic() + max(_LOOK, 10 * (time.monotonic() - begin))
        return 0


def _transfer(
    directory: str,
    raw: Mapping[str, Any],
    environment: Mapping[str, str],
    stderr: IO[str],
    cancellation: Cancellation,
) -> int:
    received.sweep(directory, time.time())
    bounds = _Bounds(directory, build(ReceiveOptions, raw).quota, build(RunOptions, raw).reserve)
    left = bounds.left()
    if left is not None:
        # One file can grow faster than the directory is looked at.
        resource.setrlimit(resource.RLIMIT_FSIZE, (left, left))
    kept = {name: environment[name] for name in ("SSH_ORIGINAL_COMMAND", "SSH_CONNECTION") if name in environment}
    with Processes({"PATH": SEARCH_PATH, "LC_ALL": "C", **kept}, cancellation) as processes:
        process = processes.start((_rrsync(), *receiving.RESTRICTION, directory), stdin=0, stdout=1)
        processes.limit(Limits(_FOREVER, _FOREVER), bounds.look)
        status = process.wait()
        for line in process.lines:
            stderr.write(f"{line}\n")
        processes.check()
        bounds.left()
    if status and left is not None:  # perhaps a file that did not fit: it is gone again, and rsync cannot say why
        stderr.write(f"pgkeep: error: a transfer failed, for which {human_size(left)} of the quota were left\n")
    return DONE if status == 0 else status if status > 0 else FAILED


def _rrsync() -> str:
    """Return the path of an rrsync that can refuse to overwrite; raise ToolError where there is none."""
    program = shutil.which("rrsync", path=SEARCH_PATH)
    if not program:
        raise ToolError("rrsync is not on the receiving host: install rsync 3.4 or newer there")
    if "-no-overwrite" not in tools.usage(program, "-help"):
        raise ToolError(
            "rrsync on the receiving host is too old to refuse overwriting: install rsync 3.4 or newer there"
        )
    return program
