# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two runs at once: one works, the other says who has the lock; different databases are in nobody's way."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.integration.samples import locked_table
from tests.keeper import Done, Keeper, assert_untouched, finish, snapshot

MakeDatabase = Callable[..., str]


@pytest.fixture
def database(keeper: Keeper, fresh_database: MakeDatabase) -> str:
    name = fresh_database(keeper.server)
    keeper.server.psql("CREATE TABLE t AS SELECT 1 AS a", name)
    return name


@contextmanager
def running_backup(keeper: Keeper, database: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a backup of a database and hold it in the middle of its dump as long as the block runs."""
    with locked_table(keeper.server, database, "t") as wait:
        running = keeper.start("backup", "--no-globals", database, *arguments)
        try:
            wait()
            yield running
        except BaseException:
            running.kill()
            running.communicate()
            raise


def held(done: Done, running: subprocess.Popen[str], database: str) -> None:
    """Assert that a command ended with 3 and one message: which database, who holds the lock, since when, what to do."""
    assert done.code == 3, done
    (line,) = done.err.splitlines()
    who = re.escape(f"held by pgkeep backup of main/{database}, process {running.pid} on {socket.gethostname()}")
    assert re.search(rf"main/{database}: locked, {who}, for [0-9.]+s: wait for it to end, or set `wait`", line)


def test_a_second_run_of_the_same_database_is_refused_with_the_owner_and_its_age(keeper: Keeper, database: str) -> None:
    assert keeper.backup(database).code == 0
    before = snapshot(keeper.repository)
    with running_backup(keeper, database) as running:
        held(keeper.backup(database), running, database)
        dry = keeper.backup("--dry-run", database)
        assert (dry.code, "locked, held by" in dry.err) == (3, True)
        assert [item["status"] for item in keeper.listed()] == ["complete"]
    assert finish(running).code == 0
    assert_untouched(keeper.repository, before, new=1, server=keeper.server)


def test_a_run_that_is_told_to_wait_goes_on_afterwards(keeper: Keeper, database: str) -> None:
    with running_backup(keeper, database) as running:
        held(keeper.backup("--wait=300ms", database), running, database)
        second = keeper.start("backup", "--no-globals", "--wait=10m", database)
    assert [finish(running).code, finish(second).code] == [0, 0]
    assert_untouched(keeper.repository, {}, new=2, server=keeper.server)


def test_a_run_that_waits_can_be_interrupted(keeper: Keeper, database: str) -> None:
    assert [keeper.backup(database).code for _unused in range(2)] == [0, 0]
    with running_backup(keeper, database) as running:
        for command in (["backup", "--no-globals", database], ["prune", "--keep-last=1", "--", database]):
            second = keeper.start(command[0], "--wait=10m", *command[1:])
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(1)  # it waits
            second.send_signal(signal.SIGTERM)
            done = finish(second)
            assert done.code == 128 + signal.SIGTERM
            assert "interrupted by SIGTERM" in done.err
    assert finish(running).code == 0


def test_different_databases_are_in_nobodys_way(keeper: Keeper, database: str) -> None:
    with running_backup(keeper, database) as running:
        other = keeper.backup("postgres")
        assert (other.code, other.err) == (0, "")
        both = keeper.backup("postgres", database)
        assert both.code == 4
        assert f"pgkeep: error: {database}: " in both.err
    assert finish(running).code == 0
    assert_untouched(keeper.repository, {}, new=3)


def test_a_prune_during_a_backup_leaves_that_database_alone_and_does_the_others(keeper: Keeper, database: str) -> None:
    assert [keeper.backup("postgres", database).code for _unused in range(3)] == [0, 0, 0]
    with running_backup(keeper, database) as running:
        before = snapshot(keeper.repository / "main" / database)
        held(keeper.run("prune", "--keep-last=1", "--", database), running, database)
        done = keeper.run("prune", "--keep-last=1")
        assert done.code == 4
        assert f"main/{database}: locked, held by" in done.err
        assert before.items() <= snapshot(keeper.repository / "main" / database).items()
        assert len(keeper.listed("--", "postgres")) == 1
    assert finish(running).code == 0
    assert keeper.run("prune", "--keep-last=1").code == 0
    assert_untouched(keeper.repository, snapshot(keeper.repository))
    assert len(keeper.listed()) == 2


def test_a_lock_whose_file_was_garbled_still_locks(keeper: Keeper, database: str) -> None:
    with running_backup(keeper, database) as running:
        for content in (b"", b"\xff\x00", b"[]", b'{"pid": "x", "host": 5}', json.dumps({"pid": 10**30}).encode()):
            lock = keeper.repository / "main" / database / ".lock"
            with lock.open("r+b") as file:
                file.truncate(0)
                file.write(content)
            done = keeper.backup(database)
            assert done.code == 3
            assert "held by a run that did not say who it is" in done.err
    assert finish(running).code == 0


def test_a_stale_lock_file_locks_nobody_out(keeper: Keeper) -> None:
    assert keeper.backup("postgres").code == 0
    lock = keeper.repository / "main/postgres/.lock"
    lock.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": "2020-01-01T00:00:00Z"}))
    assert keeper.backup("postgres").code == 0
