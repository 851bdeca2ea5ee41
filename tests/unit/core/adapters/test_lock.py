# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import lock
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import Interrupted, LockedError

from tests.keeper import ROOT, until

NOW = datetime(2025, 11, 5, 14, 30, tzinfo=timezone.utc)

# Holds the lock, says so, and lives until its stdin ends. With "orphan" its child, called zstd, outlives it.
HOLDER = """
import os, subprocess, sys
from datetime import datetime, timedelta, timezone
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import lock
now = datetime(2025, 11, 5, 14, 0, tzinfo=timezone.utc)
with lock.hold(sys.argv[1], "main/shop", "pgkeep backup", timedelta(), lambda: now) as fd:
    if len(sys.argv) > 2:
        child = subprocess.Popen([sys.argv[2], "60"], pass_fds=[fd], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        print(child.pid, flush=True)
        os.kill(os.getpid(), 9)
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start another process that holds the lock."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, path, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / ".cache" / "collections")},
    )


def hold(path: Path, wait: timedelta = timedelta(), **more: Any) -> Any:
    return lock.hold(str(path), "main/shop", "pgkeep prune", wait, lambda: NOW, **more)


def check(path: Path) -> None:
    lock.check(str(path), "main/shop", lambda: NOW)


def said_by(function: Callable[[], Any]) -> str:
    with pytest.raises(LockedError) as caught:
        function()
    return str(caught.value)


def enter(path: Path, **more: Any) -> None:
    with hold(path, **more):
        pass


def alive(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_lock_says_who_holds_it_and_is_free_afterwards(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    check(path)
    assert not path.exists()
    for _unused in range(2):
        with hold(path) as fd:
            assert os.fstat(fd).st_ino == path.stat().st_ino
            owner = json.loads(path.read_text())
            assert owner["pid"] == os.getpid()
            assert (owner["command"], owner["started"]) == ("pgkeep prune", "2025-11-05T14:30:00Z")
            assert (owner["host"], path.stat().st_mode & 0o777) == (socket.gethostname(), 0o600)
            assert "main/shop: locked, held by pgkeep prune" in said_by(lambda: check(path))
        check(path)


def test_a_second_process_is_refused_with_the_owner_and_its_age(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with holder(path) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        expected = rf"main/shop: locked, held by pgkeep backup, process {other.pid} on .*, for 30m"
        assert re.match(expected + ": wait for it to end, or set `wait`", said_by(lambda: enter(path)))
        assert re.match(expected, said_by(lambda: check(path)))
        assert json.loads(path.read_text())["pid"] == other.pid
        other.communicate()
    enter(path)


def test_a_lock_is_waited_for_as_long_as_asked(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with holder(path) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        looks: list[int | None] = []
        said_by(lambda: enter(path, wait=timedelta(seconds=0.3), go_on=lambda: looks.append(None)))
        assert len(looks) > 1
        looks.clear()

        def let_go() -> None:
            looks.append(other.poll())
            if len(looks) == 2:
                other.communicate()

        enter(path, wait=timedelta(minutes=2), go_on=let_go)
        assert len(looks) >= 2


def test_waiting_ends_when_the_run_is_interrupted(tmp_path: Path) -> None:
    path = tmp_path / ".lock"

    def interrupted() -> None:
        raise Interrupted(signal.SIGTERM, "interrupted by SIGTERM")

    with hold(path), pytest.raises(Interrupted):
        enter(path, wait=timedelta(hours=1), go_on=interrupted)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"[]", b"{}", b'{"pid": {}}', b"\xff" * 5000, b"[" * 4000])
def test_a_lock_file_with_any_content_locks_and_is_described(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / ".lock"
    with hold(path):
        path.write_bytes(content)
        assert "held by a run that did not say who it is" in said_by(lambda: check(path))
        assert "held by a run that did not say who it is" in said_by(lambda: enter(path))
    enter(path)


def orphan_of(path: Path, program: Path) -> int:
    """Start a holder whose child outlives it; return the child's process id."""
    program.symlink_to("/bin/sleep")
    with holder(path, str(program)) as other:
        assert other.stdout is not None
        return int(other.stdout.readline())


def test_children_of_a_dead_owner_are_ended_and_the_lock_is_got(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    orphan = orphan_of(path, tmp_path / "zstd")
    said_by(lambda: check(path))
    enter(path)
    until(lambda: not alive(orphan), "the orphan has ended")


def test_a_program_that_is_none_of_ours_is_not_ended(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    stranger = orphan_of(path, tmp_path / "stranger")
    said_by(lambda: enter(path))
    os.kill(stranger, signal.SIGKILL)


@pytest.mark.parametrize("field", ["host", "alive"])
def test_children_of_an_owner_that_may_live_are_not_ended(tmp_path: Path, field: str) -> None:
    path = tmp_path / ".lock"
    orphan = orphan_of(path, tmp_path / "gzip")
    owner = json.loads(path.read_text())
    if field == "host":
        owner["host"] = "another"
    else:
        owner.update(pid=os.getpid(), process_start=lock._process_start(os.getpid()))
    path.write_text(json.dumps(owner))
    said_by(lambda: enter(path))
    os.kill(orphan, 0)
    os.kill(orphan, signal.SIGKILL)
