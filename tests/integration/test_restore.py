# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restores on real servers: what comes back, where to, and that nothing is touched where one fails."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import PgkeepError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services import restore as restoring
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.restore import Restored, restore
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.verify import verify

from tests.integration.samples import Engine, contents, make_sample, manifest
from tests.keeper import Keeper, finish, until
from tests.postgres import DEBIAN, Server, find_installation, quote_identifier

FreshDatabase = Callable[..., str]


@pytest.fixture(scope="module")
def database(debian_server: Server) -> str:
    """The sample, of which nothing here changes anything."""
    return make_sample(debian_server, "restored_from")


@pytest.fixture
def target(debian_server: Server, fresh_role: Callable[..., str]) -> Any:
    """The name of a database that does not exist, and is gone afterwards, before any role, with whatever begins so."""
    name = f"target_{os.urandom(4).hex()}"
    yield name
    for found in databases(debian_server):
        if found.startswith(name):
            debian_server.psql(f"DROP DATABASE {quote_identifier(found)} WITH (FORCE)")


def databases(server: Server) -> list[str]:
    return server.psql("SELECT datname FROM pg_database ORDER BY 1").splitlines()


def restored(
    engine: Engine, target: str | None = None, check: bool = False, server: Server | None = None, **more: Any
) -> Restored:
    place = server or engine.server
    raw = {
        "repository": str(engine.repository),
        "login_unix_socket": str(place.socket_dir),
        "login_port": place.port,
        "bin_dir": str(place.bindir),
        "target": target,
        **more,
    }
    return restore({name: value for name, value in raw.items() if value is not None}, check, engine.clock)


def refused(engine: Engine, target: str | None, *parts: str, **more: Any) -> None:
    """Assert that a restore is refused with each of the parts, in check mode as well, and that no database changes."""
    before = databases(engine.server)
    for check in (True, False):
        with pytest.raises(PgkeepError) as caught:
            restored(engine, target, check, **more)
        for part in parts:
            assert part in str(caught.value)
    assert databases(engine.server) == before


@pytest.mark.parametrize("compression", ["none", "gzip:1", "zstd:1"])
@pytest.mark.parametrize("form", ["custom", "directory", "plain", "tar"])
def test_a_backup_of_every_form_comes_back(
    engine: Engine, database: str, target: str, form: str, compression: str
) -> None:
    if form == "directory" and compression.startswith("zstd"):
        compression = "gzip:3"  # pg_dump 15 has no zstd inside
    engine.take(database, format=form, compression=compression)
    planned = restored(engine, target, check=True, database=database)
    assert (planned.changed, planned.where.action) == (True, "create")
    assert target not in databases(engine.server)
    result = restored(engine, target, database=database, jobs=2)
    assert (result.changed, result.warnings) == (True, ())
    assert {"checksum", "create", "restore", "analyze", "swap"} == result.seconds.keys()
    assert contents(engine.server, target) == contents(engine.server, database)
    assert not [name for name in databases(engine.server) if name.startswith("pgkeep_restore_")]
    jobs = [word for word in result.command if word.startswith("--jobs")]
    assert jobs == (["--jobs=2"] if form in ("custom", "directory") else [])


def test_the_database_itself_comes_back(engine: Engine, target: str, fresh_role: Callable[..., str]) -> None:
    server, owner = engine.server, fresh_role(engine.server)
    name = f"{target}_source"
    server.psql(
        f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' OWNER {owner}"
        " CONNECTION LIMIT 7"
    )
    server.psql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    server.psql(f"ALTER ROLE {owner} IN DATABASE {name} SET work_mem = '7MB'")
    server.psql(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC; COMMENT ON DATABASE {name} IS 'it''s'")
    query = """SELECT pg_get_userbyid(datdba), encoding, datcollate, datconnlimit, datacl,
                      shobj_description(d.oid, 'pg_database'), array_agg(setconfig ORDER BY setrole)
               FROM pg_database d LEFT JOIN pg_db_role_setting ON setdatabase = d.oid WHERE datname = '{}'
               GROUP BY d.oid, 1, 2, 3, 4, 5, 6"""
    engine.take(name)
    restored(engine, target, database=name)
    assert server.psql(query.format(target)) == server.psql(query.format(name))


def test_in_place_keeps_the_old_one_under_a_dated_name(engine: Engine, debian_server: Server, target: str) -> None:
    make_sample(debian_server, target)
    taken = engine.take_one(target)
    before = contents(debian_server, target)
    debian_server.psql("DELETE FROM orders", target)
    result = restored(engine, database=target, replace=target)
    assert (result.where.action, result.backup.id) == ("replace", taken.id)
    assert contents(debian_server, target) == before
    assert result.old
    assert result.old.startswith(f"{target}_20")
    assert debian_server.psql("SELECT count(*) FROM orders", result.old) == "0"
    again = restored(engine, database=target, replace=target, drop_old=True)
    assert (again.old, [name for name in databases(debian_server) if name.startswith(target)]) == (
        None,
        [target, result.old],
    )


def test_sessions_on_the_live_one_are_handled_as_asked(engine: Engine, debian_server: Server, target: str) -> None:
    debian_server.psql(f"CREATE DATABASE {target}")
    engine.take(target)
    link = psycopg2.connect(debian_server.conninfo(target))
    refused(engine, None, "1 session uses", "set `sessions`", database=target, replace=target)
    before = databases(debian_server)
    with pytest.raises(PgkeepError, match="was not replaced and is as it was"):
        restored(engine, database=target, replace=target, sessions="wait", sessions_timeout="1s")
    assert databases(debian_server) == before
    assert restored(engine, database=target, replace=target, sessions="terminate").changed
    with pytest.raises(psycopg2.OperationalError), link.cursor() as cursor:
        cursor.execute("SELECT 1")
    link.close()


def test_an_existing_database_is_never_replaced_by_mistake(engine: Engine, database: str, target: str) -> None:
    engine.take(database)
    refused(engine, None, "exists", f"set `replace` to {database!r}", database=database)
    refused(engine, target, "have to be the same", database=database, replace=database)
    skipped = restored(engine, database=database, if_exists="skip")
    assert (skipped.changed, skipped.where.action) == (False, "skip")


def test_an_empty_database_is_filled_and_another_is_not(engine: Engine, database: str, target: str) -> None:
    engine.take(database)
    engine.server.psql(f"CREATE DATABASE {target} TEMPLATE template0 ENCODING 'UTF8'")
    assert restored(engine, target, database=database, if_exists="fill").where.action == "fill"
    assert contents(engine.server, target) == contents(engine.server, database)
    refused(engine, target, "is not empty", database=database, if_exists="fill")


def test_a_damaged_archive_leaves_everything_as_it_was(engine: Engine, debian_server: Server, target: str) -> None:
    make_sample(debian_server, target)
    taken = engine.take_one(target)
    before = (contents(debian_server, target), databases(debian_server))
    file = Path(taken.path, manifest(taken)["files"][0]["path"])
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(PgkeepError, match="altered"):
        restored(engine, database=target, replace=target)
    with pytest.raises(PgkeepError, match=r"is as it was|altered"):  # as far as it gets
        restored(engine, database=target, replace=target, checksum=False)
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(PgkeepError, match="damaged"):
        restored(engine, database=target, replace=target)
    assert (contents(debian_server, target), databases(debian_server)) == before


def test_a_preflight_lists_everything_that_is_missing_at_once(
    engine: Engine, embedded_server: Server, debian_server: Server, target: str, fresh_role: Callable[..., str]
) -> None:
    role = fresh_role(debian_server)
    debian_server.psql(f"CREATE DATABASE {target}_source OWNER {role}")
    engine.take(f"{target}_source")
    with pytest.raises(PgkeepError) as caught:
        restored(engine, target, server=embedded_server, database=f"{target}_source")
    assert f"roles are missing: {role}" in str(caught.value)
    assert "`create_roles`" in str(caught.value)
    result = restored(
        engine, target, server=embedded_server, database=f"{target}_source", no_owner=True, no_privileges=True
    )
    try:
        assert result.changed, "a backup of 15 restores on 18"
    finally:
        embedded_server.psql(f"DROP DATABASE {target}")


def test_a_newer_backup_is_refused_in_plain_words(
    embedded_server: Server, debian_server: Server, target: str, tmp_path: Path
) -> None:
    newer = Engine(embedded_server, tmp_path / "repository")
    embedded_server.psql(f"CREATE DATABASE {target}")
    try:
        newer.take(target)
        with pytest.raises(PgkeepError) as caught:
            restored(newer, target, server=debian_server, database=target)
        assert "the backup is of PostgreSQL 18 and the server has version 15, which is older" in str(caught.value)
        with pytest.raises(PgkeepError, match="sets transaction_timeout"):
            restored(newer, target, server=debian_server, database=target, bin_dir=str(embedded_server.bindir))
    finally:
        embedded_server.psql(f"DROP DATABASE {target}")


def test_a_role_without_rights_restores_its_own_database(
    engine: Engine, debian_server: Server, target: str, fresh_role: Callable[..., str]
) -> None:
    role = fresh_role(debian_server, "LOGIN CREATEDB")
    source = f"{target}_source"
    debian_server.psql(f"CREATE DATABASE {source} OWNER {role}")
    debian_server.psql(
        "CREATE EXTENSION IF NOT EXISTS plpgsql; COMMENT ON EXTENSION plpgsql IS 'changed';"
        f"CREATE SCHEMA mine AUTHORIZATION {role}; CREATE TABLE mine.t AS SELECT generate_series(1, 10) i;"
        f"ALTER TABLE mine.t OWNER TO {role}",
        source,
    )
    engine.take(source)
    assert restored(engine, target, database=source, login_user=role).changed
    assert contents(debian_server, target) == contents(debian_server, source)
    debian_server.psql(f"DROP DATABASE {target}; ALTER ROLE {role} NOCREATEDB".replace("; ", ";\n"))
    refused(engine, target, "may not create databases", database=source, login_user=role)


def test_single_tables_and_schemas(engine: Engine, database: str, target: str) -> None:
    engine.take(database)
    restored(engine, target, database=database, tables=["trail"], schemas=["audit"], if_exists="fail", no_owner=True)
    assert set(contents(engine.server, target)) == {"audit.trail", "large objects"}


def test_which_backup(engine: Engine, database: str, target: str) -> None:
    first = engine.take_one(database, label="one")
    second = engine.take_one(database)
    assert restored(engine, target, True, database=database).backup.id == second.id
    assert restored(engine, target, True, database=database, label="one").backup.id == first.id
    assert restored(engine, target, True, backup=first.id).backup.id == first.id
    assert restored(engine, target, True, database=database, before=second.created.isoformat()).backup.id == first.id
    refused(engine, target, "never verified", database=database, verified=True)
    refused(engine, target, "there is no backup of 'nowhere'", database="nowhere")


def test_the_command_restores_lists_and_says_what_it_did(
    engine: Engine, database: str, target: str, program: Path
) -> None:
    taken = engine.take_one(database)
    keeper = Keeper(program, engine.server, engine.repository)
    listed = keeper.run("restore", database, "--list", f"--bin-dir={engine.server.bindir}")
    assert "TABLE DATA public orders" in listed.out, listed
    arguments = (database, f"--target={target}", *keeper.connection)
    planned = keeper.run("restore", "--dry-run", *arguments)
    assert planned.out.startswith(f"would restore {taken.id} into {target}"), planned
    done = keeper.run("restore", *arguments)
    assert (done.code, done.err) == (0, ""), done
    assert f"{target}: done, restored {taken.id} into {target}" in done.out
    again = keeper.run("restore", *arguments)
    assert again.code == 2
    assert "exists" in again.err
    skipped = keeper.run("restore", "--json", "--if-exists=skip", *arguments)
    assert (skipped.code, skipped.json["action"]) == (0, "skip")


def test_a_copy_lies_anywhere(engine: Engine, database: str, target: str, tmp_path: Path) -> None:
    taken = engine.take_one(database)
    alone, some = tmp_path / "alone", tmp_path / "some"
    shutil.copytree(taken.path, alone)
    shutil.copytree(taken.path, some / Path(taken.path).name)
    (some / "notes").mkdir()
    for place in (alone, some, engine.repository):
        assert restored(engine, target, True, repository=str(place)).backup.id == taken.id
    assert restored(engine, target, repository=str(alone)).changed
    assert contents(engine.server, target) == contents(engine.server, database)
    refused(
        engine, target, "there are no backups: check the repository's path", repository=str(tmp_path / "some/notes")
    )


def test_a_connection_that_is_not_as_asked_is_refused(engine: Engine, database: str, target: str) -> None:
    engine.take(database)
    refused(engine, target, "there is no TLS over a Unix socket", database=database, ssl_mode="verify-full")


def test_the_plan_says_whether_the_old_one_is_kept(engine: Engine, debian_server: Server, target: str) -> None:
    debian_server.psql(f"CREATE DATABASE {target}")
    engine.take(target)
    kept = restored(engine, None, True, database=target, replace=target)
    assert kept.old is not None
    assert f"kept as {kept.old}" in kept.message
    assert kept.diff["after"].splitlines()[1:] == [f"{kept.old} (was {target})"]
    dropped = restored(engine, None, True, database=target, replace=target, drop_old=True)
    assert (dropped.old, "kept" in dropped.message) == (None, False)
    assert len(dropped.diff["after"].splitlines()) == 1


@pytest.mark.needs_programs("bwrap")
def test_who_names_a_backup_gets_it_although_a_check_found_something(
    engine: Engine, database: str, target: str
) -> None:
    older, newer = engine.take_one(database), engine.take_one(database)
    raw = {"repository": str(engine.repository), "level": "restore", "latest": True, "checks": ["SELECT false"]}
    (found,) = verify({**raw, "bin_dir": str(engine.server.bindir)}, False, engine.clock).verifications
    assert (found.backup.id, found.verdict) == (newer.id, "unexpected")
    assert restored(engine, target, True, database=database).backup.id == older.id
    named = restored(engine, target, True, backup=newer.id)
    assert named.backup.id == newer.id
    assert any("failed its verification" in warning for warning in named.warnings)


def test_autovacuum_is_no_session(tmp_path: Path) -> None:
    """It makes way for a rename by itself."""
    installation = find_installation(DEBIAN)
    assert installation
    slowly = {"autovacuum_naptime": "1s", "autovacuum_vacuum_cost_delay": "100ms", "autovacuum_vacuum_cost_limit": "1"}
    with Server(installation, settings=slowly) as own:
        engine = Engine(own, tmp_path / "repository")
        own.psql("CREATE DATABASE shop")
        own.psql("CREATE TABLE t AS SELECT i FROM generate_series(1, 200000) i; UPDATE t SET i = i + 1", "shop")
        engine.take("shop")
        working = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop' AND backend_type = 'autovacuum worker'"
        until(lambda: own.psql(working) != "0", "autovacuum is at work")
        assert restored(engine, database="shop", replace="shop", check=True).where.action == "replace"
        assert restored(engine, database="shop", replace="shop").changed


# --- compared before it takes its place ---


@pytest.mark.parametrize("form", ["custom", "plain", "tar", "directory"])
def test_a_restore_can_prove_itself(engine: Engine, database: str, target: str, form: str) -> None:
    engine.take(database, format=form, compression="gzip:1")
    done = restored(engine, target, database=database, compare=True)
    assert "compare" in done.seconds
    assert done.to_json()["compared"]["rows"] == 3505
    assert "rows compared" in done.message
    assert contents(engine.server, target) == contents(engine.server, database)
    refused(engine, target, "exists", database=database, compare=True)
    other = f"{target}_part"
    refused(engine, other, "leave out `compare`", database=database, compare=True, tables=["orders"], drop_old=False)


def test_what_differs_does_not_take_the_place_of_the_live_one(
    engine: Engine, debian_server: Server, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_sample(debian_server, target)
    engine.take(target)
    before = (contents(debian_server, target), databases(debian_server))
    compare = restoring.compare

    def tampered(loading: Any, name: str, expected: Any) -> Any:
        debian_server.psql("DELETE FROM orders WHERE id = 5", name)
        return compare(loading, name, expected)

    monkeypatch.setattr(restoring, "compare", tampered)
    with pytest.raises(PgkeepError) as caught:
        restored(engine, database=target, replace=target, compare=True)
    assert "table public.orders has 1,999 rows instead of 2,000: 1 row missing" in str(caught.value)
    assert f"and {target} is as it was" in str(caught.value)
    assert (contents(debian_server, target), databases(debian_server)) == before


def test_a_role_without_rights_compares_what_it_restored(
    engine: Engine, debian_server: Server, target: str, fresh_role: Callable[..., str]
) -> None:
    role, source = fresh_role(debian_server, "LOGIN CREATEDB"), f"{target}_source"
    debian_server.psql(f"CREATE DATABASE {source} OWNER {role}")
    debian_server.psql(f"SET ROLE {role}; CREATE TABLE t AS SELECT generate_series(1, 10) i", source)
    engine.take(source)
    done = restored(engine, target, database=source, login_user=role, compare=True)
    assert done.to_json()["compared"]["rows"] == 10


# --- being killed ---


@pytest.fixture
def large(engine: Engine, target: str) -> str:
    """A live database that takes a while to restore, and a backup of it."""
    engine.server.psql(f"CREATE DATABASE {target}")
    engine.server.psql(
        "CREATE TABLE t AS SELECT i, md5(i::text) AS v FROM generate_series(1, 700000) i; CREATE INDEX ON t (v)", target
    )
    engine.take(target)
    engine.server.psql("INSERT INTO t VALUES (0, 'since then')", target)
    return target


def unfinished(server: Server) -> list[str]:
    return [name for name in databases(server) if name.startswith("pgkeep_restore_")]


def start_replacing(keeper: Keeper, name: str) -> subprocess.Popen[str]:
    """Start a restore in place of a live database; return when it has begun to load rows beside it."""
    running = keeper.start("restore", name, f"--replace={name}", "--sessions=terminate", *keeper.connection)

    def loading() -> bool:
        copying = "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'pgkeep_restore_%' AND query LIKE 'COPY%'"
        return keeper.server.psql(copying) != "0"

    until(loading, "rows are loaded")
    return running


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_restore_that_is_ended_leaves_the_live_database_as_it_is(
    engine: Engine, program: Path, large: str, number: signal.Signals
) -> None:
    server, keeper = engine.server, Keeper(program, engine.server, engine.repository)
    running = start_replacing(keeper, large)
    os.kill(running.pid, number)
    done = finish(running)
    assert done.code == (-number if number == signal.SIGKILL else 128 + number)
    assert server.psql("SELECT count(*), min(v) FROM t", large) == "700001|00003e3b9e5336685200ae85d21b4f5e"
    gone = "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'pgkeep_restore_%'"
    until(lambda: server.psql(gone) == "0", "pg_restore has ended as well")
    left = unfinished(server)
    assert len(left) == (1 if number == signal.SIGKILL else 0)
    again = restored(engine, database=large, replace=large, check=True)
    assert [name for name in left if any(f"DROP DATABASE {name}" in warning for warning in again.warnings)] == left
    for name in left:
        server.psql(f"DROP DATABASE {name}")


# --- roles ---


@pytest.fixture(scope="module")
def elsewhere() -> Any:
    """Another server of the same version, with none of the roles of the first."""
    installation = find_installation(DEBIAN)
    assert installation
    with Server(installation) as found:
        yield found


def test_globals_are_restored_with_a_list_of_what_changes(
    engine: Engine, elsewhere: Server, fresh_role: Callable[..., str]
) -> None:
    role, member = fresh_role(engine.server, "LOGIN PASSWORD 'secret-word' CREATEDB"), fresh_role(engine.server)
    engine.server.psql(f"GRANT {role} TO {member}; ALTER ROLE {role} SET work_mem = '7MB'")
    (taken,) = [item for item in engine.take("postgres", globals=True) if item.kind == "globals"]
    planned = restored(engine, check=True, server=elsewhere, database="@globals")
    assert planned.changed
    assert ("role", role, "create") in {(change.kind, change.name, change.action) for change in planned.changes}
    assert f"create  role        {role}" in planned.diff["after"]
    assert role not in elsewhere.psql("SELECT rolname FROM pg_roles")
    done = restored(engine, server=elsewhere, backup=taken.id)
    assert done.changes == planned.changes
    assert (
        elsewhere.psql(
            f"SELECT rolcreatedb, pg_has_role('{member}', '{role}', 'USAGE') FROM pg_roles WHERE rolname = '{role}'"
        )
        == "t|t"
    )
    again = restored(engine, server=elsewhere, database="@globals")
    assert (again.changed, again.message) == (False, f"{taken.id} has nothing that is not on the server")
    elsewhere.psql(f"ALTER ROLE {role} NOCREATEDB")
    left = restored(engine, server=elsewhere, database="@globals")
    assert (left.changed, [change.action for change in left.changes if change.name == role]) == (False, ["leave"])
    assert restored(engine, server=elsewhere, database="@globals", existing_roles="update").changed
    assert elsewhere.psql(f"SELECT rolcreatedb FROM pg_roles WHERE rolname = '{role}'") == "t"
    assert "secret-word" not in str(done.to_json()) + str(done.diff)
    assert "SCRAM" not in str(done.to_json()) + str(done.diff) + str(left.to_json())


def test_missing_roles_are_created_from_the_globals(
    engine: Engine, elsewhere: Server, target: str, fresh_role: Callable[..., str]
) -> None:
    owner, other = fresh_role(engine.server, "LOGIN CONNECTION LIMIT 3"), fresh_role(engine.server)
    source = f"{target}_source"
    engine.server.psql(f"CREATE DATABASE {source} OWNER {owner}")
    engine.server.psql(f"CREATE TABLE t AS SELECT 1 AS a; ALTER TABLE t OWNER TO {owner}", source)
    engine.take(source)
    with pytest.raises(PgkeepError, match="there is no backup of the globals of main"):
        restored(engine, target, server=elsewhere, database=source, create_roles=True)
    engine.take(source, globals=True)
    planned = restored(engine, target, True, elsewhere, database=source, create_roles=True)
    assert [(change.name, change.action) for change in planned.changes] == [(owner, "create")]
    done = restored(engine, target, server=elsewhere, database=source, create_roles=True)
    assert "roles" in done.seconds
    found = elsewhere.psql(f"SELECT rolname, rolconnlimit FROM pg_roles WHERE rolname IN ('{owner}', '{other}')")
    assert found == f"{owner}|3"
    assert elsewhere.psql("SELECT tableowner FROM pg_tables WHERE tablename = 't'", target) == owner


def test_the_command_shows_what_globals_change(
    engine: Engine, elsewhere: Server, program: Path, fresh_role: Callable[..., str]
) -> None:
    role = fresh_role(engine.server)
    engine.take("postgres", globals=True)
    keeper = Keeper(program, elsewhere, engine.repository)
    planned = keeper.run("restore", "@globals", "--dry-run", *keeper.connection)
    assert planned.code == 0, planned
    assert f"create  role        {role}" in planned.out or f"create  role  {role}" in planned.out
    assert "would restore main/@globals/" in planned.out
    assert keeper.run("restore", "@globals", *keeper.connection).code == 0
    assert "has nothing that is not on the server" in keeper.run("restore", "@globals", *keeper.connection).out
