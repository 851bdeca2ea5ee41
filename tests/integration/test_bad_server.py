# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Servers that refuse, go away, hang or hide something: one clear message, the right exit code, nothing lost."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hostile import PASSWORDS
from tests.integration.samples import locked_table
from tests.keeper import (
    Done,
    Keeper,
    assert_no_process,
    assert_untouched,
    bytes_in_progress,
    finish,
    snapshot,
    until,
    write_job,
)
from tests.postgres import Installation, Server

MakeDatabase = Callable[..., str]
MakeRole = Callable[..., str]


@pytest.fixture(scope="module")
def large(lone_zstd_server: Server) -> Iterator[str]:
    """A database whose dump takes long enough to do something to it."""
    lone_zstd_server.psql("CREATE DATABASE large")
    random = "md5(i::text) || md5((i * 7)::text) || md5((i * 13)::text) || md5((i * 29)::text)"
    lone_zstd_server.psql(f"CREATE TABLE big AS SELECT i, {random} FROM generate_series(1, 500000) i", "large")
    yield "large"
    lone_zstd_server.psql("DROP DATABASE large WITH (FORCE)")


@pytest.fixture
def own_server(lone_zstd_server: Server) -> Iterator[Server]:
    """A server that a test may kill."""
    with Server(Installation(lone_zstd_server.major, lone_zstd_server.bindir, lone_zstd_server.source)) as server:
        server.psql("CREATE TABLE t AS SELECT 1 AS a")
        yield server


def backend(server: Server, database: str) -> int:
    """Given a database that pg_dump reads the rows of, return the process id of its backend."""
    query = (
        "SELECT pid FROM pg_stat_activity"
        f" WHERE datname = '{database}' AND application_name = 'pgkeep' AND query LIKE 'COPY %'"
    )
    return int(until(lambda: server.psql(query), "pg_dump reads rows"))


def one_message(done: Done, *parts: str) -> str:
    """Given what a command did, assert that it said one error, and each of the parts in it; return it."""
    (line,) = [line for line in done.err.splitlines() if line.startswith("pgkeep: error: ")]
    for part in parts:
        assert part in line
    return line


# --- passwords ---


@pytest.fixture
def by_password(keeper: Keeper, tmp_path: Path, fresh_role: MakeRole) -> Callable[..., Done]:
    """Return a function: given a password for the job (and perhaps another one for the role), back up over TCP."""
    role = fresh_role(keeper.server, "LOGIN SUPERUSER")

    def run(given: str | None, real: str | None = None, **more: Any) -> Done:
        keeper.server.psql(
            "ALTER ROLE {} PASSWORD '{}'".format(role, (given if real is None else real).replace("'", "''"))
        )
        place = {
            "login_host": "127.0.0.1",
            "login_port": keeper.server.port,
            "login_user": role,
            "login_password": given,
        }
        job = {
            **place,
            "repository": str(keeper.repository),
            "bin_dir": str(keeper.server.bindir),
            "reserve": "0",
            **more,
        }
        config = write_job(tmp_path / "etc", "night", databases=["postgres"], ssl_mode="disable", **job)
        return keeper.run("run", config, "night")

    return run


@pytest.mark.parametrize("password", [word for word in PASSWORDS if not word.isalnum()], ids=ascii)
def test_every_character_of_a_password_reaches_the_server(
    by_password: Callable[..., Done], keeper: Keeper, password: str
) -> None:
    done = by_password(password)
    assert (done.code, done.err) == (0, "")
    assert_untouched(keeper.repository, {}, new=2)


def test_a_wrong_password_is_said_to_be_one_without_saying_it(by_password: Callable[..., Done], keeper: Keeper) -> None:
    assert by_password("first").code == 0
    before = snapshot(keeper.repository)
    done = by_password("guessed-secret", "true-secret")
    assert done.code == 1
    one_message(done, "'postgres'", "password authentication failed for user", "check login_user and login_password")
    assert "secret" not in done.out + done.err
    assert_untouched(keeper.repository, before)


@pytest.mark.parametrize("password", ["new\nline", "return\r", "nul\0"], ids=ascii)
def test_a_password_that_libpq_could_not_read_is_refused_before_anything_happens(
    by_password: Callable[..., Done], keeper: Keeper, password: str
) -> None:
    done = by_password(password, "something else")
    assert done.code == 2
    one_message(done, "login_password")
    assert password not in done.err
    assert not keeper.repository.exists()


def test_a_password_file_that_others_may_read_is_named_as_the_reason(
    by_password: Callable[..., Done], keeper: Keeper, tmp_path: Path
) -> None:
    passfile = tmp_path / "pgpass"
    passfile.write_text("*:*:*:*:from the file\n")
    passfile.chmod(0o644)
    done = by_password(None, "from the file", passfile=str(passfile))
    assert done.code == 1
    one_message(done, "no password supplied", "passfile", "others may read")
    passfile.chmod(0o600)
    assert by_password(None, "from the file", passfile=str(passfile)).code == 0


# --- no server, no client ---


def test_a_server_that_is_down_is_said_to_be_so(keeper: Keeper, own_server: Server) -> None:
    keeper = Keeper(keeper.program, own_server, keeper.repository)
    assert keeper.backup().code == 0
    before = snapshot(keeper.repository)
    own_server.stop()
    done = keeper.backup()
    assert done.code == 1
    one_message(done, "cannot connect to database 'postgres'", "is the server running?", "login_unix_socket")
    assert_untouched(keeper.repository, before)
    assert [keeper.run(command).code for command in ("list", "stats")] == [0, 0]


def test_a_server_that_crashes_during_a_dump_costs_only_that_dump(keeper: Keeper, own_server: Server) -> None:
    keeper = Keeper(keeper.program, own_server, keeper.repository)
    assert keeper.backup().code == 0
    before = snapshot(keeper.repository)
    with locked_table(own_server, "postgres", "t") as wait:
        running = keeper.start("backup", "--no-globals")
        wait()
        own_server.stop("immediate")
    done = finish(running)
    assert done.code == 1
    one_message(done, "postgres: ", "pg_dump failed", "server closed the connection unexpectedly")
    assert_untouched(keeper.repository, before)


def test_a_terminated_backend_costs_only_that_dump(keeper: Keeper, large: str) -> None:
    running = keeper.start("backup", "--no-globals", "postgres", large)
    pid = backend(keeper.server, large)
    until(lambda: bytes_in_progress(keeper.repository) > 1000, "rows are written")
    keeper.server.psql(f"SELECT pg_terminate_backend({pid})")
    done = finish(running)
    assert done.code == 4
    said = one_message(done, "large: ", "run again")
    # A backend that is in the middle of a write when it is terminated cannot say so any more.
    assert re.search(
        "terminating connection due to administrator command|server closed the connection unexpectedly", said
    )
    assert_untouched(keeper.repository, {}, new=1)


def test_a_server_newer_than_every_client_names_both_versions_and_the_package(
    keeper: Keeper, lone_debian_server: Server
) -> None:
    done = keeper.backup(f"--bin-dir={lone_debian_server.bindir}")
    assert done.code == 1
    major = keeper.server.major
    one_message(
        done,
        f"the server has version {major}",
        f"is {lone_debian_server.major}.",
        f"postgresql-client-{major}",
        "bin_dir",
    )
    assert_untouched(keeper.repository, {})


def test_a_missing_driver_names_the_package(keeper: Keeper) -> None:
    done = keeper.backup(prefix=(sys.executable, "-I", "-S"))
    assert done.code == 1
    one_message(done, "psycopg2 is missing", "python3-psycopg2")
    assert [keeper.run(command, prefix=(sys.executable, "-I", "-S")).code for command in ("list", "stats")] == [0, 0]


# --- rights ---


def test_what_the_role_may_not_read_is_named_before_the_dump(
    keeper: Keeper, fresh_role: MakeRole, fresh_database: MakeDatabase
) -> None:
    role = fresh_role(keeper.server)
    plain, hidden, rows, objects = (fresh_database(keeper.server) for _unused in range(4))
    keeper.server.psql(f"CREATE TABLE open (a int); GRANT SELECT ON open TO {role}; CREATE TABLE shut (a int)", hidden)
    policy = "ALTER TABLE part ENABLE ROW LEVEL SECURITY"
    keeper.server.psql(f"CREATE TABLE part (a int); GRANT SELECT ON part TO {role}; {policy}", rows)
    keeper.server.psql("SELECT lo_from_bytea(0, 'x')", objects)
    done = keeper.backup(f"--login-user={role}", plain, hidden, rows, objects)
    assert done.code == 4
    said = dict(line.removeprefix("pgkeep: error: ").split(": ", 1) for line in done.err.splitlines())
    assert said.keys() == {hidden, rows, objects}
    assert "public.shut" in said[hidden]
    assert "open" not in said[hidden]
    assert "GRANT pg_read_all_data" in said[hidden]
    assert "row-level security hides rows of public.part" in said[rows]
    assert "BYPASSRLS" in said[rows]
    assert "may not read 1 large objects" in said[objects]
    assert "LARGE OBJECT" in said[objects]
    assert_untouched(keeper.repository, {}, new=1, server=keeper.server)


def test_a_database_that_the_role_may_not_connect_to_does_not_stop_the_others(
    keeper: Keeper, fresh_role: MakeRole, fresh_database: MakeDatabase
) -> None:
    role = fresh_role(keeper.server)
    first, closed, last = sorted(fresh_database(keeper.server) for _unused in range(3))
    keeper.server.psql(f"REVOKE CONNECT ON DATABASE {closed} FROM PUBLIC")
    done = keeper.backup(f"--login-user={role}", first, closed, last)
    assert done.code == 4
    one_message(done, f"error: {closed}: role '{role}' may not connect: GRANT CONNECT ON DATABASE")
    assert_untouched(keeper.repository, {}, new=2, server=keeper.server)


# --- what hangs ---


def test_a_locked_table_is_given_up_after_the_lock_wait_timeout(keeper: Keeper, fresh_database: MakeDatabase) -> None:
    name = fresh_database(keeper.server)
    keeper.server.psql("CREATE TABLE t AS SELECT 1 AS a", name)
    assert keeper.backup(name).code == 0
    before = snapshot(keeper.repository)
    with locked_table(keeper.server, name, "t"):
        done = keeper.backup("--lock-wait-timeout=300ms", name)
    assert done.code == 1
    one_message(done, f"{name}: ", "pg_dump failed", "timeout", "public.t", "raise `lock_wait_timeout`")
    assert_untouched(keeper.repository, before)


@pytest.mark.parametrize("form", ["custom", "directory"])
@pytest.mark.parametrize("limit", ["deadline", "stall_timeout"])
def test_a_dump_that_hangs_is_ended_by_its_limits(keeper: Keeper, large: str, limit: str, form: str) -> None:
    more = ["--format=directory", "--jobs=2"] if form == "directory" else []
    running = keeper.start("backup", "--no-globals", f"--{limit.replace('_', '-')}=2s", large, *more)
    pid = backend(keeper.server, large)
    os.kill(pid, signal.SIGSTOP)
    try:
        done = finish(running)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert done.code == 1
    one_message(done, "large: ended: ", f"(`{limit}`)", "dumping contents of table")
    assert_untouched(keeper.repository, {})


def test_a_server_that_does_not_answer_is_given_up_after_the_connect_timeout(
    keeper: Keeper, own_server: Server
) -> None:
    keeper = Keeper(keeper.program, own_server, keeper.repository)
    pid = own_server.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        done = keeper.backup("--connect-timeout=2s")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert done.code == 1
    one_message(done, "cannot connect to database 'postgres'", "timeout expired")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_run_and_leaves_nothing(keeper: Keeper, large: str, number: signal.Signals) -> None:
    running = keeper.start("backup", "--no-globals", "--format=directory", "--jobs=2", large)
    backend(keeper.server, large)
    running.send_signal(number)
    done = finish(running)
    assert done.code == 128 + number
    one_message(done, f"interrupted by {number.name}", "earlier backups are untouched")
    assert_untouched(keeper.repository, {})
    assert_no_process(keeper.repository)
