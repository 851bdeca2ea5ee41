# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The servers that all other integration tests stand on."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest

from tests.postgres import EMBEDDED, Server, ServerFailure, find_installation

HOSTILE_NAMES = [
    "it's",
    'a "b"',
    "-rf",
    "..",
    "a/b",
    "two\nlines",
    "back\\slash",
    "ü" * 31,
    "%n $x `y`",
    "dbname=a",
    ":x",
]


@pytest.fixture(params=["debian_server", "embedded_server", "zstd_server"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each of the shared servers in turn."""
    found: Server = request.getfixturevalue(request.param)
    return found


def test_server_is_the_version_that_its_programs_are(server: Server) -> None:
    assert int(server.psql("SHOW server_version_num")) // 10000 == server.major
    assert f"(PostgreSQL) {server.major}." in server.run("pg_dump", "--version")


def test_wheels_have_the_expected_versions(embedded_server: Server, zstd_server: Server) -> None:
    assert (embedded_server.major, zstd_server.major) == (18, 17)


def test_database_can_be_dumped(server: Server, fresh_database: Callable[..., str]) -> None:
    database = fresh_database(server)
    server.psql("CREATE TABLE item AS SELECT generate_series(1, 3) AS number", database)
    assert "COPY public.item" in server.run("pg_dump", "-d", server.conninfo(database))


def test_password_is_needed_over_tcp_and_only_there(server: Server) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(server.conninfo(tcp=True), password="wrong")
    for tcp in (False, True):
        connection = psycopg2.connect(server.conninfo(tcp=tcp))
        connection.close()


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_fresh_database_takes_any_name(debian_server: Server, fresh_database: Callable[..., str], name: str) -> None:
    database = fresh_database(debian_server, name)
    assert debian_server.psql("SELECT current_database()", database) == name


def test_zstd_server_compresses_with_zstd_and_lz4(zstd_server: Server, tmp_path: Path) -> None:
    for method in ("zstd", "lz4"):
        target = str(tmp_path / method)
        zstd_server.run("pg_dump", "-Fc", "-Z", method, "-f", target, "-d", zstd_server.conninfo())
        assert f"Compression: {method}" in zstd_server.run("pg_restore", "-l", target)


def test_refused_sql_says_why(embedded_server: Server) -> None:
    with pytest.raises(ServerFailure, match='relation "nothing" does not exist'):
        embedded_server.psql("SELECT * FROM nothing")


@pytest.fixture
def own_server() -> Server:
    """A server not yet started that belongs to this test alone."""
    installation = find_installation(EMBEDDED)
    assert installation
    return Server(installation, settings={"work_mem": "5MB"})


@pytest.mark.parametrize("mode", ["smart", "fast", "immediate"])
def test_stopped_server_keeps_its_data_until_removed(own_server: Server, mode: str) -> None:
    with own_server:
        own_server.psql("CREATE TABLE kept (n int)")
        own_server.stop(mode)
        assert not own_server.running
        own_server.start()
        assert own_server.psql("SELECT count(*) FROM kept; SHOW work_mem; SHOW listen_addresses") == "0\n5MB\n"
    assert not own_server.socket_dir.exists()


def test_server_that_cannot_start_shows_its_log_and_leaves_nothing(own_server: Server) -> None:
    with own_server:
        own_server.stop()
        (own_server.data_dir / "postgresql.conf").write_text("nonsense = 1")
        with pytest.raises(ServerFailure, match='unrecognized configuration parameter "nonsense"'):
            own_server.start()
    assert not own_server.socket_dir.exists()


@pytest.mark.needs_programs("setpriv")
def test_server_dies_with_a_killed_test_run() -> None:
    code = (
        "import os, signal; from tests.postgres import *; "
        "server = Server(find_installation(EMBEDDED)).start(); "
        "print(server.pid, server.socket_dir, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    pid, directory = killed.stdout.split()
    try:
        _wait_for_end(int(pid))
    finally:
        shutil.rmtree(directory)


def _wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + 60
    status = Path(f"/proc/{pid}/status")
    while status.exists() and "(zombie)" not in status.read_text():
        assert time.monotonic() < deadline, f"process {pid} lives on"
        time.sleep(0.05)
