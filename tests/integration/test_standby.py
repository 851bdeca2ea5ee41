# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real primary and real standbys: whose turn it is, and replay that stands still while dumps run, and never longer."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import DONE, FAILED, ServerError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.listing import listing

from tests.integration.samples import Engine, manifest, outcome, restore
from tests.integration.test_fronts_agree import Playbook
from tests.keeper import Done, Keeper, command_line, finish, processes_in, until, write_job
from tests.postgres import CELERP, DEBIAN, Installation, Server, Standby, find_installation

NewDatabase = Callable[..., str]
NewRole = Callable[..., str]

# A pg_dump that stops in the middle of its work, with its snapshot, when it has said the first of what it has to say.
_HALTING = """#!/bin/bash
case "$1" in --version) exec {bindir}/pg_dump --version;; esac
set -o pipefail
{bindir}/pg_dump "$@" | {{
    head -c 1000
    : > {place}/reached
    while [ ! -e {place}/go ]; do sleep 0.02; done
    exec cat
}}
"""
_STREAMING = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND replay_lsn IS NOT NULL"
_PAUSED = "SELECT pg_get_wal_replay_pause_state()"
_ROWS = 3000


class Cluster:
    """A primary and a standby named `second`."""

    def __init__(self, primary: Server, standby: Standby) -> None:
        self.primary, self.standby = primary, standby

    @property
    def state(self) -> str:
        """What the standby says of its pause."""
        return self.standby.psql(_PAUSED)

    def received(self) -> None:
        """Wait until the standby has got all that the primary has done so far, replayed or not."""
        goal = self.primary.psql("SELECT pg_current_wal_lsn()")
        self.standby.wait_for(f"SELECT pg_last_wal_receive_lsn() >= '{goal}'")

    def database(self, create: NewDatabase) -> str:
        """Create a database that is too large for the pipes between pg_dump and us; the standby has it."""
        name = create(self.primary)
        # No other snapshot or vacuum than those of a test shall matter.
        self.primary.psql(
            "CREATE TABLE t (i int, pad text) WITH (autovacuum_enabled = off);"
            f"INSERT INTO t SELECT i, repeat(md5(i::text), 60) FROM generate_series(1, {_ROWS}) i",
            name,
        )
        self.standby.catch_up()
        return name

    def change(self, database: str) -> None:
        """Change every row, and vacuum away what a dump that runs on the standby still has to see."""
        self.primary.psql("UPDATE t SET i = -i; VACUUM t; SELECT 1", database)
        self.received()


@contextmanager
def cluster_of(primary: Server) -> Iterator[Cluster]:
    """Given a primary, add a standby."""
    with Standby(primary, "second") as standby:
        standby.catch_up()
        until(lambda: primary.psql(_STREAMING) != "0", "the primary heard from the standby")
        yield Cluster(primary, standby)


@pytest.fixture(scope="module", params=[DEBIAN, CELERP])
def primary(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A primary of its own: no other test has anything in it."""
    installation = find_installation(request.param)
    if installation is None:
        pytest.skip(f"no PostgreSQL server from {request.param} is installed")
    with Server(installation) as server:
        yield server


def lone_primary(server: Server) -> Server:
    """Given a server, return another of the same programs."""
    return Server(Installation(server.major, server.bindir, server.source), settings={"wal_level": "logical"})


@pytest.fixture(scope="module")
def shared(primary: Server) -> Iterator[Cluster]:
    with cluster_of(primary) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    """A primary and a standby, whose replay no test leaves paused."""
    yield shared
    state = shared.state
    shared.standby.psql("SELECT pg_wal_replay_resume()")
    shared.standby.catch_up()
    assert state == "not paused"


@pytest.fixture
def own_cluster(primary: Server) -> Iterator[Cluster]:
    """A standby for a test after which it is none any more."""
    with cluster_of(primary) as cluster:
        yield cluster


def engine_of(server: Server, directory: Path) -> Engine:
    """Given a server and a directory, return the engine with a repository there."""
    return Engine(server, directory / "repository")


def marker(repository: Path) -> bytes:
    """Given a repository, return what it says of a pause."""
    path = repository / "main" / ".replay"
    return path.read_bytes() if path.exists() else b""


def rows(server: Server, database: str) -> str:
    return server.psql("SELECT count(*), sum(i) FROM t", database)


class Halting:
    """A pg_dump that stops in the middle until it is told to go on."""

    def __init__(self, server: Server, directory: Path) -> None:
        directory.mkdir()
        self.bin_dir, self._place = directory, directory
        for program in ("pg_dumpall", "pg_restore"):
            (directory / program).symlink_to(server.bindir / program)
        script = directory / "pg_dump"
        script.write_text(_HALTING.format(bindir=server.bindir, place=directory))
        script.chmod(0o755)

    def wait(self) -> None:
        """Wait until it has begun."""
        until((self._place / "reached").exists, "pg_dump began")

    def go(self) -> None:
        """Let it go on, now and whenever it runs again."""
        (self._place / "go").touch()


@pytest.fixture
def halting(primary: Server, tmp_path: Path) -> Iterator[Callable[[], Halting]]:
    """Return a function that makes a pg_dump of its own for each run."""
    made: list[Halting] = []

    def make() -> Halting:
        made.append(Halting(primary, tmp_path / f"bin{len(made)}"))
        return made[-1]

    yield make
    for each in made:
        each.go()


@pytest.fixture
def keeper(program: Path, cluster: Cluster, tmp_path: Path) -> Keeper:
    """The command and the standby."""
    return Keeper(program, cluster.standby, tmp_path / "repository")


@contextmanager
def halted(keeper: Keeper, database: str, dump: Halting, *more: str) -> Iterator[subprocess.Popen[str]]:
    """Start a backup of a database, and have it in the middle of its dump when the block begins."""
    arguments = ["--no-globals", "--format=plain", "--compression=none", f"--bin-dir={dump.bin_dir}", database, *more]
    running = keeper.start("backup", *arguments)
    try:
        dump.wait()
        yield running
    finally:
        dump.go()
        running.kill()
        running.communicate()


def guardian(running: subprocess.Popen[str]) -> int:
    """Given a run, return the process that is to resume replay."""
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    (found,) = [int(child) for child in children if command_line(int(child)) == command_line(running.pid)]
    return found


# --- whose turn it is ---


@pytest.mark.parametrize(
    ("where", "options", "why"),
    [
        ("primary", {"run_on": "any"}, ""),
        ("standby", {"run_on": "any"}, ""),
        ("primary", {"run_on": "primary"}, ""),
        ("standby", {"run_on": "primary"}, "this server is a standby, and run_on is primary"),
        ("primary", {"run_on": "standby"}, "this server is a primary, and run_on is standby"),
        ("standby", {"run_on": "standby"}, ""),
        ("standby", {"run_on": "standby", "standby_name": "second"}, ""),
        (
            "standby",
            {"run_on": "standby", "standby_name": "third"},
            "this standby has the cluster_name 'second', and standby_name is 'third'",
        ),
        ("primary", {"run_on": "prefer_standby"}, "a standby streams from it (second)"),
        ("primary", {"run_on": "prefer_standby", "standby_name": "second"}, "a standby streams from it (second)"),
        ("primary", {"run_on": "prefer_standby", "standby_name": "third"}, ""),
        ("standby", {"run_on": "prefer_standby"}, ""),
        ("standby", {"run_on": "prefer_standby", "standby_name": "third"}, "standby_name is 'third'"),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_a_run_happens_on_the_server_that_it_is_for(
    cluster: Cluster, tmp_path: Path, where: str, options: dict[str, str], why: str, check: bool
) -> None:
    engine = engine_of(getattr(cluster, where), tmp_path)
    result = engine.run(check, databases=["postgres"], **options)
    assert why in result.for_another_server
    assert (result.for_another_server == "") is (why == "")
    assert (result.exit_code, result.failed) == (DONE, False)
    assert [item.status for item in result.outcomes] == ([] if why else ["planned" if check else "done"])
    assert result.changed is not bool(why)
    assert result.to_json()["for_another_server"] == result.for_another_server


def test_a_primary_that_has_no_standby_is_the_one_to_run_on(primary: Server, tmp_path: Path) -> None:
    with lone_primary(primary) as lone:
        engine = engine_of(lone, tmp_path)
        with cluster_of(lone):
            assert not engine.run(databases=["postgres"], run_on="prefer_standby").changed
        until(lambda: lone.psql("SELECT count(*) FROM pg_stat_replication") == "0", "the standby is gone")
        assert engine.run(databases=["postgres"], run_on="prefer_standby").changed


def test_what_only_receives_wal_is_no_standby(primary: Server, tmp_path: Path) -> None:
    with lone_primary(primary) as lone:
        archive = tmp_path / "archive"
        archive.mkdir()
        command = [str(lone.bindir / "pg_receivewal"), "-D", str(archive), "-d", lone.conninfo()]
        receiving = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            until(
                lambda: lone.psql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "1",
                "pg_receivewal streams",
            )
            assert engine_of(lone, tmp_path).run(databases=["postgres"], run_on="prefer_standby").changed
        finally:
            receiving.kill()
            receiving.wait()


def test_a_role_that_may_not_see_standbys_is_told_what_to_grant(
    cluster: Cluster, fresh_role: NewRole, tmp_path: Path
) -> None:
    role = fresh_role(cluster.primary, "LOGIN IN ROLE pg_read_all_data")
    engine = engine_of(cluster.primary, tmp_path)
    with pytest.raises(ServerError, match="may not see whether a standby streams") as error:
        engine.run(databases=["postgres"], login_user=role, run_on="prefer_standby")
    (grant,) = re.findall(r"GRANT pg_read_all_stats TO \S+?(?=,)", str(error.value))
    cluster.primary.psql(grant)
    result = engine.run(databases=["postgres"], login_user=role, run_on="prefer_standby")
    assert "(second)" in result.for_another_server


def test_a_job_for_another_server_prunes_nothing_and_says_so(keeper: Keeper, cluster: Cluster, tmp_path: Path) -> None:
    for _unused in range(2):
        assert keeper.backup("postgres").code == DONE
    place = {"login_unix_socket": str(cluster.standby.socket_dir), "bin_dir": str(cluster.standby.bindir)}
    common = {"repository": str(keeper.repository), "databases": ["postgres"], "keep_last": 1, "reserve": "0"}
    config = write_job(tmp_path / "etc", "night", run_on="primary", log_dir=str(tmp_path), **place, **common)
    done = keeper.run("run", config, "night")
    why = "this server is a standby, and run_on is primary"
    assert done == Done(DONE, f"nothing to do here: {why}\n", "")
    record = json.loads((tmp_path / "history.jsonl").read_text())
    assert (record["exit_code"], record["message"], record["databases"]) == (DONE, why, [])
    told = keeper.run("run", config, "night", "--json").json
    assert (told["backup"]["for_another_server"] != "", told["prune"]) == (True, None)
    assert len(keeper.listed()) == 2


# --- replay stands still ---


def test_a_dump_of_a_standby_has_the_rows_from_when_replay_was_paused(
    cluster: Cluster,
    keeper: Keeper,
    halting: Callable[[], Halting],
    fresh_database: NewDatabase,
    tmp_path: Path,
) -> None:
    database, dump = cluster.database(fresh_database), halting()
    before = rows(cluster.primary, database)
    with halted(keeper, database, dump) as running:
        assert cluster.state == "paused"
        assert json.loads(marker(keeper.repository))["pid"] == running.pid
        assert (keeper.repository / "main" / ".replay").stat().st_mode & 0o777 == 0o600
        assert guardian(running) not in processes_in(keeper.repository)
        cluster.change(database)
        assert rows(cluster.standby, database) == before != rows(cluster.primary, database)
        dump.go()
        done = finish(running)
    assert (done.code, done.err) == (DONE, "")
    assert (cluster.state, marker(keeper.repository)) == ("not paused", b"")
    raw = {"repository": str(keeper.repository), "foreign": True}
    listed = listing(raw, False, engine_of(cluster.standby, tmp_path).clock)
    assert listed.foreign == ()
    assert manifest(listed.backups[0])["standby"] is True
    target = fresh_database(cluster.primary)
    restore(cluster.primary, listed.backups[0], target)
    assert rows(cluster.primary, target) == before
    cluster.standby.catch_up()


def test_without_the_pause_replay_cancels_the_dump_and_the_message_says_what_helps(
    cluster: Cluster, keeper: Keeper, halting: Callable[[], Halting], fresh_database: NewDatabase
) -> None:
    database, dump = cluster.database(fresh_database), halting()
    # More than any socket between the server and pg_dump holds, or all of it would be on its way already.
    cluster.primary.psql("INSERT INTO t SELECT i, repeat(md5(i::text), 60) FROM generate_series(1, 20000) i", database)
    cluster.standby.catch_up()
    with halted(keeper, database, dump, "--no-pause-replay") as running:
        assert (cluster.state, marker(keeper.repository)) == ("not paused", b"")
        reading = f"SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = '{database}' AND query LIKE 'COPY %'"
        cluster.standby.wait_for(reading)
        cluster.primary.psql("TRUNCATE t", database)
        goal = cluster.primary.psql("SELECT pg_current_wal_lsn()")
        # A server that waits for its client does not hear that it shall cancel; replay then waits until it goes on.
        waits = "EXISTS (SELECT FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock')"
        cluster.standby.wait_for(f"SELECT {waits} OR pg_last_wal_replay_lsn() >= '{goal}'")
        dump.go()
        done = finish(running)
    assert done.code == FAILED
    assert "conflict with recovery" in done.err
    assert "let `pause_replay` be true" in done.err


@pytest.mark.parametrize("ending", ["failure", "SIGTERM", "kill"])
def test_replay_is_resumed_however_a_run_ends(
    cluster: Cluster, keeper: Keeper, halting: Callable[[], Halting], fresh_database: NewDatabase, ending: str
) -> None:
    database, dump = cluster.database(fresh_database), halting()
    with halted(keeper, database, dump) as running:
        resumer = guardian(running)
        assert cluster.state == "paused"
        if ending == "failure":
            cluster.standby.psql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")
            dump.go()
            assert finish(running).code == FAILED
        elif ending == "SIGTERM":
            os.kill(resumer, signal.SIGTERM)  # as systemd does, which stops all of a service
            os.killpg(running.pid, signal.SIGTERM)
            assert finish(running).code == 128 + signal.SIGTERM
        else:
            running.kill()
        until(lambda: cluster.state == "not paused", "replay went on")
        until(lambda: command_line(resumer) == "", "the guardian ended")
        assert marker(keeper.repository) == b""


def test_replay_is_resumed_where_the_guardian_or_its_connection_is_killed(
    cluster: Cluster, keeper: Keeper, halting: Callable[[], Halting], fresh_database: NewDatabase
) -> None:
    database = cluster.database(fresh_database)
    sessions = "FROM pg_stat_activity WHERE application_name = 'pgkeep' AND backend_type = 'client backend'"
    for kill in (True, False):
        dump = halting()
        with halted(keeper, database, dump) as running:
            if kill:
                os.kill(guardian(running), signal.SIGKILL)
            else:
                idle = "AND state = 'idle' AND datname = 'postgres'"
                assert cluster.standby.psql(f"SELECT pg_terminate_backend(pid) {sessions} {idle}") == "t"
            dump.go()
            done = finish(running)
        assert (done.code, done.err) == (DONE, "")
        assert (cluster.state, marker(keeper.repository)) == ("not paused", b"")


def test_after_everything_was_killed_the_next_run_resumes_replay_first(
    cluster: Cluster, keeper: Keeper, halting: Callable[[], Halting], fresh_database: NewDatabase
) -> None:
    database, dump = cluster.database(fresh_database), halting()
    with halted(keeper, database, dump) as running:
        os.kill(guardian(running), signal.SIGKILL)
        running.kill()
        running.wait()
    assert cluster.state == "paused"
    assert marker(keeper.repository)
    cluster.change(database)
    dry = keeper.backup("--dry-run", "postgres")
    assert "the next run then resumes it first" in dry.err
    assert cluster.state == "paused"
    done = keeper.backup("--run-on=primary", "postgres")  # any run that meets the server
    assert done.code == DONE
    assert "replay was still paused by a run that was killed: it was resumed first" in done.err
    assert (cluster.state, marker(keeper.repository)) == ("not paused", b"")
    cluster.standby.catch_up()
    assert (keeper.backup("postgres").err, rows(cluster.standby, database)) == ("", rows(cluster.primary, database))


def test_what_a_dead_run_left_is_not_taken_for_the_pause_of_a_restarted_server(
    own_cluster: Cluster, program: Path, halting: Callable[[], Halting], fresh_database: NewDatabase, tmp_path: Path
) -> None:
    standby = own_cluster.standby
    keeper = Keeper(program, standby, tmp_path / "repository")
    database, dump = own_cluster.database(fresh_database), halting()
    with halted(keeper, database, dump) as running:
        os.kill(guardian(running), signal.SIGKILL)
        running.kill()
        running.wait()
    standby.stop()
    standby.start()
    assert own_cluster.state == "not paused"
    standby.catch_up()
    standby.psql("SELECT pg_wal_replay_pause()")
    standby.wait_for("SELECT pg_get_wal_replay_pause_state() = 'paused'")
    done = keeper.backup("postgres")
    assert done.code == DONE, done
    assert "was restarted, which ended the pause" in done.err
    assert "replay was paused already, and not by pgkeep: it stays paused" in done.err
    assert (own_cluster.state, marker(keeper.repository)) == ("paused", b"")


def test_of_two_runs_at_once_the_last_one_resumes(
    cluster: Cluster, keeper: Keeper, halting: Callable[[], Halting], fresh_database: NewDatabase
) -> None:
    first, second = cluster.database(fresh_database), cluster.database(fresh_database)
    one, other = halting(), halting()
    before = rows(cluster.primary, second)
    with halted(keeper, first, one) as running:
        cluster.change(second)
        with halted(keeper, second, other) as joined:
            one.go()
            assert finish(running).err == ""
            assert cluster.state == "paused"
            assert marker(keeper.repository)
            assert rows(cluster.standby, second) == before
            other.go()
            assert finish(joined).err == ""
    assert (cluster.state, marker(keeper.repository)) == ("not paused", b"")


def test_the_first_of_two_runs_is_killed_and_the_other_goes_on_undisturbed(
    cluster: Cluster, keeper: Keeper, halting: Callable[[], Halting], fresh_database: NewDatabase
) -> None:
    first, second = cluster.database(fresh_database), cluster.database(fresh_database)
    one, other = halting(), halting()
    with halted(keeper, first, one) as running, halted(keeper, second, other) as joined:
        resumer = guardian(running)
        running.kill()
        until(lambda: command_line(resumer) == "", "the guardian ended")
        assert cluster.state == "paused"
        other.go()
        assert finish(joined).code == DONE
    assert (cluster.state, marker(keeper.repository)) == ("not paused", b"")


def test_many_runs_that_begin_and_end_at_any_time_leave_replay_running(
    cluster: Cluster, keeper: Keeper, fresh_database: NewDatabase
) -> None:
    databases = [fresh_database(cluster.primary) for _unused in range(4)]
    cluster.standby.catch_up()
    with ThreadPoolExecutor(len(databases)) as pool:
        done = list(pool.map(lambda name: [keeper.backup(name) for _unused in range(3)], databases))
    assert {(one.code, one.err) for some in done for one in some} == {(DONE, "")}
    assert (cluster.state, marker(keeper.repository)) == ("not paused", b"")


def test_a_file_of_somebody_else_in_the_markers_place_is_refused(cluster: Cluster, keeper: Keeper) -> None:
    (keeper.repository / "main").mkdir(mode=0o700, parents=True)
    keeper.repository.chmod(0o700)
    victim = keeper.repository.parent / "victim"
    victim.write_text("precious")
    (keeper.repository / "main" / ".replay").symlink_to(victim)
    done = keeper.backup("postgres")
    assert done.code == FAILED
    assert "while reading" in done.err
    assert "/main/.replay" in done.err
    assert (victim.read_text(), cluster.state) == ("precious", "not paused")


def test_a_subscriber_is_no_standby(primary: Server, tmp_path: Path) -> None:
    with lone_primary(primary) as publisher, lone_primary(primary) as subscriber:
        publisher.psql("CREATE TABLE t (i int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t; INSERT INTO t VALUES (1)")
        target = publisher.conninfo().replace("'", "''")
        subscriber.psql(
            f"CREATE TABLE t (i int PRIMARY KEY); CREATE SUBSCRIPTION s CONNECTION '{target}' PUBLICATION p"
        )
        until(lambda: publisher.psql(_STREAMING) != "0", "the subscription streams")
        assert engine_of(publisher, tmp_path).run(databases=["postgres"], run_on="prefer_standby").changed


def test_a_pause_of_the_operators_stays_and_is_mentioned(cluster: Cluster, tmp_path: Path) -> None:
    cluster.standby.psql("SELECT pg_wal_replay_pause()")
    engine = engine_of(cluster.standby, tmp_path)
    result = engine.run(databases=["postgres"])
    assert result.exit_code == DONE
    assert result.warnings == ("replay was paused already, and not by pgkeep: it stays paused",)
    assert cluster.state == "paused"
    assert marker(engine.repository) == b""
    cluster.standby.psql("SELECT pg_wal_replay_resume()")


def test_replay_is_not_paused_while_it_holds_a_lock_that_pg_dump_would_wait_for(
    cluster: Cluster, fresh_database: NewDatabase, tmp_path: Path
) -> None:
    database = cluster.database(fresh_database)
    engine = engine_of(cluster.standby, tmp_path)
    link = psycopg2.connect(cluster.primary.conninfo(database))
    try:
        with link.cursor() as cursor:
            cursor.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        cluster.primary.psql("SELECT pg_switch_wal()")
        cluster.standby.wait_for("SELECT count(*) > 0 FROM pg_locks WHERE mode = 'AccessExclusiveLock'")
        with pytest.raises(ServerError, match=rf"within 5.0s \(`pause_timeout`\): .* holding tables in {database}"):
            engine.run(databases=[database], pause_timeout="5s")
        assert cluster.state == "not paused"
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(engine.run, databases=[database])
            # It pauses, finds the lock, and lets replay go on.
            until(lambda: marker(engine.repository), "it asked for a pause")
            link.rollback()
            cluster.primary.psql("SELECT pg_switch_wal()")
            assert run.result().exit_code == DONE
    finally:
        link.close()


def test_a_promotion_during_a_dump_disturbs_nothing(
    own_cluster: Cluster, program: Path, halting: Callable[[], Halting], fresh_database: NewDatabase, tmp_path: Path
) -> None:
    keeper = Keeper(program, own_cluster.standby, tmp_path / "repository")
    database, dump = own_cluster.database(fresh_database), halting()
    with halted(keeper, database, dump) as running:
        assert own_cluster.standby.psql("SELECT pg_promote()") == "t"
        dump.go()
        done = finish(running)
    assert (done.code, done.err) == (DONE, "")
    assert marker(keeper.repository) == b""


def test_a_server_that_restarts_during_a_dump_is_awaited(
    own_cluster: Cluster, program: Path, halting: Callable[[], Halting], fresh_database: NewDatabase, tmp_path: Path
) -> None:
    keeper = Keeper(program, own_cluster.standby, tmp_path / "repository")
    database, dump = own_cluster.database(fresh_database), halting()
    with halted(keeper, database, dump) as running:
        own_cluster.standby.stop("immediate")
        dump.go()
        own_cluster.standby.start()
        done = finish(running)
    assert done.code == FAILED
    assert "was restarted, which ended the pause" in done.err
    assert (own_cluster.state, marker(keeper.repository)) == ("not paused", b"")


# --- what is refused ---


@pytest.mark.parametrize("check", [True, False])
def test_a_standby_that_is_too_far_behind_is_refused(
    cluster: Cluster, fresh_database: NewDatabase, tmp_path: Path, check: bool
) -> None:
    database = cluster.database(fresh_database)
    engine = engine_of(cluster.standby, tmp_path)
    cluster.standby.psql("SELECT pg_wal_replay_pause()")
    cluster.change(database)
    cluster.standby.wait_for("SELECT now() - pg_last_xact_replay_timestamp() > '1s'")
    with pytest.raises(ServerError, match=r"behind its primary, more than 1.0s \(`max_lag`\)"):
        engine.run(check, databases=[database], max_lag="1s")
    assert not list(tmp_path.rglob("*.dump"))
    assert engine.run(check, databases=[database], max_lag="1h").exit_code == DONE
    cluster.standby.psql("SELECT pg_wal_replay_resume()")


@pytest.mark.parametrize("check", [True, False])
def test_a_standby_that_has_replayed_all_is_not_behind_after_a_quiet_time(
    cluster: Cluster, tmp_path: Path, check: bool
) -> None:
    cluster.standby.wait_for("SELECT now() - pg_last_xact_replay_timestamp() > '1s'")
    assert engine_of(cluster.standby, tmp_path).run(check, databases=["postgres"], max_lag="0").exit_code == DONE


@pytest.mark.parametrize("check", [True, False])
def test_a_standby_that_cannot_tell_how_far_it_is_behind_is_refused(
    primary: Server, tmp_path: Path, check: bool
) -> None:
    with Standby(primary, "lost", settings={"primary_conninfo": ""}) as lost:
        with pytest.raises(ServerError, match="it is not known how far this standby is behind"):
            engine_of(lost, tmp_path).run(check, databases=["postgres"])
        assert lost.psql(_PAUSED) == "not paused"


@pytest.mark.parametrize("check", [True, False])
def test_a_role_without_the_rights_is_told_what_to_grant_and_then_it_works(
    cluster: Cluster, fresh_role: NewRole, tmp_path: Path, check: bool
) -> None:
    role = fresh_role(cluster.primary, "LOGIN IN ROLE pg_read_all_data")
    cluster.standby.catch_up()
    engine = engine_of(cluster.standby, tmp_path)
    with pytest.raises(ServerError, match=f"role {role} may not pause replay") as error:
        engine.run(check, databases=["postgres"], login_user=role)
    assert engine.run(check, databases=["postgres"], login_user=role, pause_replay=False).exit_code == DONE
    (grant,) = re.findall(r"GRANT EXECUTE ON FUNCTION [^;]*", str(error.value))
    cluster.primary.psql(grant)
    cluster.standby.catch_up()
    result = engine.run(check, databases=["postgres"], login_user=role)
    assert (result.exit_code, result.warnings) == (DONE, ())


def test_check_mode_pauses_nothing_and_leaves_nothing(cluster: Cluster, tmp_path: Path) -> None:
    engine = engine_of(cluster.standby, tmp_path)
    cluster.standby.psql("SELECT pg_wal_replay_pause()")  # which a check would change if it paused and resumed
    assert outcome(engine.run(True, databases=["postgres"]), "postgres").status == "planned"
    assert cluster.state == "paused"
    cluster.standby.psql("SELECT pg_wal_replay_resume()")
    assert outcome(engine.run(True, databases=["postgres"]), "postgres").status == "planned"
    assert cluster.state == "not paused"
    assert list(tmp_path.iterdir()) == []


# --- through the module ---


@pytest.mark.needs_root
def test_a_module_that_gives_up_root_pauses_replay_too(cluster: Cluster, tmp_path: Path) -> None:
    parent = Path(tempfile.mkdtemp(prefix="pgkeep-", dir="/tmp"))
    try:
        parent.chmod(0o755)
        repository = parent / "repository"
        repository.mkdir(mode=0o700)
        shutil.chown(repository, "nobody")
        defaults: dict[str, Any] = {
            "login_unix_socket": str(cluster.standby.socket_dir), "bin_dir": str(cluster.standby.bindir), "reserve": "0",
        }  # fmt: skip
        playbook = Playbook(tmp_path, repository=str(repository), **defaults)
        given = {"databases": ["postgres"], "run_on": "standby", "standby_name": "second"}
        taken, other = playbook.play(("pg_backup", given), ("pg_backup", {**given, "standby_name": "third"}))
        assert (taken["failed"], taken["changed"], taken["for_another_server"]) == (False, True, ""), playbook.output
        assert (other["failed"], other["changed"], other["backups"]) == (False, False, [])
        assert "standby_name is 'third'" in other["for_another_server"]
        assert (repository / "main" / ".replay").owner() == "nobody"
        assert (cluster.state, marker(repository)) == ("not paused", b"")
    finally:
        shutil.rmtree(parent)
