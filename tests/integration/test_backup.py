# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups of real databases on real servers: what is taken can be restored, and a run does what it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import database_sql
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import (
    LOCKED,
    SOME_FAILED,
    ServerError,
    ToolError,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.listing import listing
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.prune import prune

from tests.integration.samples import (
    Engine,
    bytes_of,
    contents,
    locked_table,
    manifest,
    outcome,
    restore,
    tree,
)
from tests.postgres import Server, quote_identifier

NewDatabase = Callable[..., str]
NewRole = Callable[..., str]
ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2025, 11, 5, 14, 30, tzinfo=timezone.utc)

FORMATS = ("custom", "directory", "plain", "tar")
COMPRESSIONS = ("auto", "none", "gzip:1", "lz4", "zstd:3")
INSIDE = {"debian_server": ("gzip",), "zstd_server": ("zstd", "gzip", "lz4"), "embedded_server": ("gzip",)}
SERVERS = tuple(INSIDE)


@pytest.fixture
def engine(debian_server: Server, samples: dict[str, str], tmp_path: Path) -> Engine:
    """The distribution's server and an empty repository."""
    return Engine(debian_server, tmp_path / "repository")


def compressor(client: str, format_name: str, compression: str) -> tuple[str, str | None]:
    """Given a client and what is asked for, return the compression of the backup and who does it."""
    inside = INSIDE[client] if format_name in ("custom", "directory") else ()
    outside = () if format_name == "directory" else ("zstd", "gzip", "lz4")
    if compression == "none":
        return "none", None
    method, _unused, level = compression.partition(":")
    if method == "auto":
        method = "zstd" if "zstd" in (*inside, *outside) else "gzip"
    level = level or {"gzip": "6", "lz4": "1", "zstd": "1"}[method]
    return f"{method}:{level}", "pg_dump" if method in inside else method if method in outside else ""


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("client", SERVERS)
def test_what_is_taken_in_any_format_and_compression_restores_to_the_same(
    request: pytest.FixtureRequest,
    samples: dict[str, str],
    fresh_database: NewDatabase,
    tmp_path: Path,
    client: str,
    format_name: str,
    compression: str,
) -> None:
    server = request.getfixturevalue(client)
    engine = Engine(server, tmp_path / "repository")
    expected, by = compressor(client, format_name, compression)
    if by == "":
        with pytest.raises(ToolError, match="cannot compress a directory with"):
            engine.run(databases=["sample"], format=format_name, compression=compression)
        return
    taken = engine.take_one("sample", format=format_name, compression=compression)
    document = manifest(taken)
    assert (taken.format, taken.compression, document["compressed_by"]) == (format_name, expected, by)
    assert not taken.partial
    target = fresh_database(server)
    restore(server, taken, target)
    assert contents(server, target) == contents(server, samples[client])


# --- versions that differ ---


@pytest.mark.parametrize(
    ("server_name", "client_name"),
    [("debian_server", "zstd_server"), ("debian_server", "embedded_server"), ("zstd_server", "embedded_server")],
)
@pytest.mark.parametrize("format_name", ["custom", "plain"])
def test_a_newer_client_dumps_an_older_server_and_its_version_can_restore_it(
    request: pytest.FixtureRequest,
    samples: dict[str, str],
    fresh_database: NewDatabase,
    tmp_path: Path,
    server_name: str,
    client_name: str,
    format_name: str,
) -> None:
    server, client = request.getfixturevalue(server_name), request.getfixturevalue(client_name)
    engine = Engine(server, tmp_path / "repository")
    taken = engine.take_one(samples[server_name], format=format_name, bin_dir=str(client.bindir))
    document = manifest(taken)
    assert (document["server_version"].split(".")[0], document["tool_version"].split(".")[0]) == (
        str(server.major),
        str(client.major),
    )
    target = fresh_database(client)
    restore(client, taken, target)
    assert contents(client, target) == contents(server, samples[server_name])


@pytest.mark.parametrize(
    ("server_name", "client_name"), [("embedded_server", "debian_server"), ("zstd_server", "debian_server")]
)
def test_a_server_that_is_newer_than_every_client_is_an_error_that_says_what_to_install(
    request: pytest.FixtureRequest, tmp_path: Path, server_name: str, client_name: str
) -> None:
    server, client = request.getfixturevalue(server_name), request.getfixturevalue(client_name)
    engine = Engine(server, tmp_path / "repository")
    said = rf"pg_dump is too old: the server has version {server.major}.*15\..*install the package postgresql-client-"
    for check in (True, False):
        with pytest.raises(ToolError, match=said):
            engine.run(check, databases=["postgres"], bin_dir=str(client.bindir))
    assert bytes_of(tmp_path) == {}


def test_the_servers_own_client_is_found_without_being_told(debian_server: Server, engine: Engine) -> None:
    taken = engine.take_one("sample", bin_dir=None)
    assert manifest(taken)["command"][0] == str(debian_server.bindir / "pg_dump")


# --- which databases ---


def test_databases_are_chosen_by_name_and_by_pattern(
    debian_server: Server, engine: Engine, fresh_database: NewDatabase
) -> None:
    for name in ("pick_a", "pick_b", "pick_b_test"):
        fresh_database(debian_server, name)
    assert [item.database for item in engine.run(databases=["pick_b", "pick_a"]).outcomes] == ["pick_a", "pick_b"]
    result = engine.run(include=["pick_.*"], exclude=[".*_test"])
    assert [item.database for item in result.outcomes] == ["pick_a", "pick_b"]
    assert dict(result.skipped)["pick_b_test"] == "excluded"


def test_what_is_named_and_not_there_fails_and_does_not_keep_the_others_from_being_dumped(engine: Engine) -> None:
    result = engine.run(databases=["sample", "sampel"])
    assert result.exit_code == SOME_FAILED
    assert [(item.database, item.status) for item in result.outcomes] == [("sampel", "failed"), ("sample", "done")]
    assert outcome(result, "sampel").message == "there is no such database (there is sample)"
    result = engine.run(include=["sam.*", "shop_.*"])
    assert [(item.database, item.status) for item in result.outcomes] == [("shop_.*", "failed"), ("sample", "done")]


def test_databases_that_cannot_or_need_not_be_dumped_are_skipped_with_the_reason(
    debian_server: Server, engine: Engine, fresh_database: NewDatabase
) -> None:
    changes = {
        "skip_invalid": "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'skip_invalid'",
        "skip_closed": "ALTER DATABASE skip_closed ALLOW_CONNECTIONS false",
        "skip_template": "ALTER DATABASE skip_template IS_TEMPLATE true",
    }
    for name, change in changes.items():
        fresh_database(debian_server, name)
        debian_server.psql(change)
    fresh_database(debian_server, "skip_not")
    try:
        result = engine.run(exclude=["sample"])
        assert result.exit_code == 0
        skipped = dict(result.skipped)
        assert "invalid, left by an interrupted DROP DATABASE" in skipped["skip_invalid"]
        assert "does not allow connections" in skipped["skip_closed"]
        assert skipped["skip_template"] == skipped["template1"] == "it is a template"
        assert "does not allow connections" in skipped["template0"]
        assert skipped["sample"] == "excluded"
        assert {"skip_not", "postgres"} <= {item.database for item in result.outcomes}
        assert not {"skip_invalid", "template1"} & {path.name for path in (engine.repository / "main").iterdir()}

        named = engine.run(databases=["skip_template", "skip_invalid"])
        assert [(item.database, item.status) for item in named.outcomes] == [
            ("skip_invalid", "failed"),
            ("skip_template", "done"),
        ]
    finally:
        debian_server.psql("ALTER DATABASE skip_template IS_TEMPLATE false")


def test_new_and_vanished_databases_are_reported(
    debian_server: Server, engine: Engine, fresh_database: NewDatabase
) -> None:
    fresh_database(debian_server, "come_a")
    fresh_database(debian_server, "come_b")
    first = engine.run(include=["come_.*"])
    assert (first.new, first.vanished) == (("come_a", "come_b"), ())
    debian_server.psql("DROP DATABASE come_b")
    fresh_database(debian_server, "come_c")
    second = engine.run(include=["come_.*"])
    assert (second.new, second.vanished) == (("come_c",), ("come_b",))
    assert second.warnings == ("come_b has backups and is no longer on the server",)
    assert second.exit_code == 0
    assert engine.run(include=["come_a"]).vanished == ()


def test_folders_of_others_beside_the_databases_are_no_vanished_databases(
    debian_server: Server, engine: Engine, fresh_database: NewDatabase
) -> None:
    engine.take("sample")
    for name in ("lost+found", "-x", "never_backed_up", "%zz"):
        (engine.repository / "main" / name).mkdir()
    result = engine.run(include=["sample"])
    assert (result.exit_code, result.vanished) == (0, ())
    assert engine.run(check=True).vanished == ()


def test_one_database_that_fails_does_not_stop_the_others(
    debian_server: Server, engine: Engine, fresh_role: NewRole, fresh_database: NewDatabase
) -> None:
    role = fresh_role(debian_server)
    for name in ("fail_a", "fail_b", "fail_c"):
        fresh_database(debian_server, name)
        debian_server.psql("CREATE TABLE t AS SELECT 1 AS id; GRANT SELECT ON t TO public", name)
    debian_server.psql("REVOKE SELECT ON t FROM public", "fail_b")
    debian_server.psql("REVOKE CONNECT ON DATABASE fail_c FROM public")
    result = engine.run(include=["fail_.*"], login_user=role, globals=True)
    assert result.exit_code == SOME_FAILED
    assert [(item.database, item.status) for item in result.outcomes] == [
        ("@globals", "done"),
        ("fail_a", "done"),
        ("fail_b", "failed"),
        ("fail_c", "failed"),
    ]
    assert f"role '{role}' may not read public.t" in outcome(result, "fail_b").message
    assert "GRANT CONNECT ON DATABASE" in outcome(result, "fail_c").message
    assert result.message.startswith("fail_b: role")
    assert engine.run(databases=["fail_b", "fail_c"], login_user=role).exit_code == 1


def test_databases_are_dumped_at_the_same_time_where_that_is_asked_for(
    debian_server: Server, engine: Engine, fresh_database: NewDatabase
) -> None:
    names = [fresh_database(debian_server, f"at_once_{number}") for number in range(3)]
    for name in names:
        debian_server.psql("CREATE TABLE t AS SELECT 1 AS id", name)
    with ExitStack() as locks, ThreadPoolExecutor(1) as pool:
        waits = [locks.enter_context(locked_table(debian_server, name, "t")) for name in names[:2]]
        running = pool.submit(engine.take, *names, parallel=2)
        for wait in waits:  # both dumps are under way
            wait()
        locks.close()
        assert [item.database for item in running.result()] == names


# --- parts of a database ---


def table_names(server: Server, database: str) -> set[str]:
    """Given a database, return its tables and sequences with their schemas."""
    return {name for name in contents(server, database) if name != "large objects"}


@pytest.mark.parametrize(
    ("options", "left_out", "there", "gone"),
    [
        ({"tables": ["audit.*"]}, "tables", {"audit.trail", "audit.numbers"}, {"public.empty"}),
        ({"exclude_tables": ["measured*"]}, "measured", {"public.orders"}, {"public.measured_2024"}),
        ({"schemas": ["audit"]}, "audit", {"audit.trail"}, {"public.orders"}),
        ({"exclude_schemas": ["audit"]}, "audit", {"public.orders"}, {"audit.trail"}),
        ({"exclude_table_data": ["orders"]}, "orders", {"public.orders", "audit.trail"}, set()),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_dump_of_parts_is_partial_and_says_what_it_lost(
    debian_server: Server,
    engine: Engine,
    fresh_database: NewDatabase,
    options: dict[str, list[str]],
    left_out: str,
    there: set[str],
    gone: set[str],
) -> None:
    taken = engine.take_one("sample", format="plain", **options)
    document = manifest(taken)
    assert taken.partial
    assert left_out in " ".join(document["left_out"])
    target = fresh_database(debian_server)
    if "tables" in options:
        debian_server.psql("CREATE SCHEMA audit", target)
    restore(debian_server, taken, target)
    assert there <= table_names(debian_server, target)
    assert not gone & table_names(debian_server, target)
    original, restored = contents(debian_server, "sample"), contents(debian_server, target)
    emptied = {"public.orders"} if "exclude_table_data" in options else set()
    for name in there:
        assert restored[name] == original[name] or (name in emptied and restored[name][0] == 0)


@pytest.mark.parametrize("option", ["tables", "exclude_tables", "schemas", "exclude_schemas", "exclude_table_data"])
def test_a_pattern_that_matches_nothing_fails_before_anything_is_written(engine: Engine, option: str) -> None:
    result = engine.run(databases=["sample"], **{option: ["nothing_like_this"]})
    assert result.exit_code == 1
    assert "nothing_like_this" in result.message
    assert option in result.message
    assert bytes_of(engine.repository) == {}


# --- globals ---


def globals_text(engine: Engine, **options: Any) -> tuple[str, dict[str, Any]]:
    """Given options, take the globals; return their SQL and their manifest."""
    result = engine.run(databases=["postgres"], globals=True, **options)
    assert result.exit_code == 0, result.message
    taken = outcome(result, "@globals").backup
    assert taken is not None
    (sql,) = Path(taken.path).glob("*.sql")
    return sql.read_text(), manifest(taken)


def test_the_globals_of_a_superuser_give_a_role_back_with_its_password(
    debian_server: Server, engine: Engine, fresh_role: NewRole
) -> None:
    role = fresh_role(debian_server, "LOGIN PASSWORD 'secret' CONNECTION LIMIT 3")
    asked = f"SELECT rolpassword, rolconnlimit, rolcanlogin FROM pg_authid WHERE rolname = '{role}'"
    before = debian_server.psql(asked)
    text, document = globals_text(engine)
    assert (document["kind"], document["database"], document["left_out"]) == ("globals", None, [])
    debian_server.psql(f"DROP ROLE {role}")
    debian_server.run("psql", "-Xq", "-d", debian_server.conninfo(), "-f", "-", stdin=text)
    assert debian_server.psql(asked) == before


def test_without_the_right_to_read_passwords_the_globals_are_without_them_and_it_is_said(
    debian_server: Server, engine: Engine, fresh_role: NewRole
) -> None:
    role = fresh_role(debian_server, "LOGIN PASSWORD 'secret'")
    text, document = globals_text(engine, login_user=role)
    assert f"CREATE ROLE {role}" in text
    assert "PASSWORD" not in text
    assert document["left_out"] == ["role passwords"]
    assert document["partial"] is False
    assert "without role passwords" in document["warnings"][0]
    result = engine.run(databases=["postgres"], globals=True, login_user=role, role_passwords="always")
    assert result.exit_code == SOME_FAILED
    assert f"role {role} may not read the roles' passwords" in outcome(result, "@globals").message


@pytest.mark.parametrize(("wanted", "there"), [("auto", True), ("always", True), ("never", False)])
def test_a_superuser_decides_on_role_passwords(
    debian_server: Server, engine: Engine, fresh_role: NewRole, wanted: str, there: bool
) -> None:
    fresh_role(debian_server, "LOGIN PASSWORD 'secret'")
    text, document = globals_text(engine, role_passwords=wanted)
    assert ("PASSWORD 'SCRAM-SHA-256" in text) is there
    assert document["left_out"] == ([] if there else ["role passwords"])
    assert document["warnings"] == []


# --- what an archive does not hold ---

_DATABASE = """
SELECT pg_get_userbyid(datdba), datconnlimit, shobj_description(oid, 'pg_database'),
       (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(datacl) a)
FROM pg_database WHERE datname = '{0}';
SELECT setrole::regrole, setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
WHERE datname = '{0}' ORDER BY 1
"""


def test_owner_acl_and_settings_of_a_database_can_be_applied_again_from_the_manifest(
    debian_server: Server, engine: Engine, fresh_role: NewRole, fresh_database: NewDatabase
) -> None:
    owner, reader = fresh_role(debian_server), fresh_role(debian_server)
    name = fresh_database(debian_server, 'with "acl"')
    quoted = quote_identifier(name)
    debian_server.psql(
        f"""
        COMMENT ON DATABASE {quoted} IS E'it''s\\na \\\\ comment';
        ALTER DATABASE {quoted} OWNER TO {owner};
        ALTER DATABASE {quoted} CONNECTION LIMIT 17;
        REVOKE TEMPORARY ON DATABASE {quoted} FROM public;
        GRANT CREATE ON DATABASE {quoted} TO {reader} WITH GRANT OPTION;
        SET ROLE {reader}; GRANT CREATE ON DATABASE {quoted} TO pg_monitor; RESET ROLE;
        ALTER DATABASE {quoted} SET search_path TO "$user", 'Odd, schema', public;
        ALTER DATABASE {quoted} SET work_mem TO '8MB';
        ALTER ROLE {reader} IN DATABASE {quoted} SET statement_timeout TO '7s';
        """
    )
    before = debian_server.psql(_DATABASE.format(name))
    taken = engine.take_one(name)
    debian_server.psql(f"DROP DATABASE {quoted}")
    debian_server.psql(f"CREATE DATABASE {quoted}")
    assert debian_server.psql(_DATABASE.format(name)) != before
    debian_server.psql(";\n".join(database_sql.reapply(manifest(taken)["properties"], name)))
    assert debian_server.psql(_DATABASE.format(name)) == before


def test_the_manifest_tells_what_a_restore_wants_to_know(debian_server: Server, engine: Engine) -> None:
    document = manifest(engine.take_one("sample"))
    properties = document["properties"]
    assert (properties["owner"], properties["encoding"], properties["large_objects"]) == ("postgres", "UTF8", 6)
    assert properties["extensions"] == [{"name": "plpgsql", "version": "1.0", "schema": "pg_catalog"}]
    identifier = debian_server.psql("SELECT system_identifier FROM pg_control_system()")
    assert document["system_identifier"] == identifier
    assert document["database_size"] > 1_000_000
    assert document["archive_version"] == "1.14"
    assert document["size"] == sum(item["size"] for item in document["files"])


# --- not twice, and marked ---


def test_a_young_backup_with_the_same_options_makes_a_new_one_unnecessary(engine: Engine) -> None:
    engine.now = NOW
    first = engine.run(databases=["sample"], globals=True, max_age="20h")
    assert [item.status for item in first.outcomes] == ["done", "done"]
    engine.now = NOW + timedelta(hours=20)
    before = tree(engine.repository)
    second = engine.run(databases=["sample"], globals=True, max_age="20h")
    assert [item.status for item in second.outcomes] == ["fresh", "fresh"]
    assert not second.changed
    assert [item.backup for item in second.outcomes] == [item.backup for item in first.outcomes]
    files = {name: entry for name, entry in tree(engine.repository).items() if not name.endswith(".lock")}
    assert files == {name: entry for name, entry in before.items() if not name.endswith(".lock")}
    engine.now = NOW + timedelta(hours=20, seconds=1)
    assert [item.status for item in engine.run(databases=["sample"], globals=True, max_age="20h").outcomes] == [
        "done",
        "done",
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"compression": "gzip:1"}, {"compression": "gzip:2"}),
        ({"format": "plain"}, {"format": "custom"}),
        ({"tables": ["orders"]}, {}),
        ({}, {"exclude_table_data": ["orders"]}),
    ],
)
def test_a_backup_with_other_options_does_not_count_as_young(
    engine: Engine, first: dict[str, Any], second: dict[str, Any]
) -> None:
    statuses = []
    for minute, options in enumerate((first, second, second, first)):
        engine.now = NOW + timedelta(minutes=minute)
        statuses.append(engine.run(databases=["sample"], max_age="1h", **options).outcomes[0].status)
    assert statuses == ["done", "done", "fresh", "fresh"]


def test_a_damaged_backup_does_not_count_as_young(engine: Engine) -> None:
    engine.now = NOW
    taken = engine.take_one("sample", max_age="1h")
    engine.now += timedelta(minutes=1)
    (dump,) = Path(taken.path).glob("*.dump*")
    dump.write_bytes(dump.read_bytes()[:-1])
    assert engine.run(databases=["sample"], max_age="1h").outcomes[0].status == "done"


def test_label_and_pin_are_kept_with_the_backup(engine: Engine) -> None:
    engine.now = NOW
    first = engine.take_one("sample", label="before-upgrade", pin="Before the upgrade", pin_until="2026-01-01")
    second = engine.take_one("sample", pin="For ever")
    assert manifest(first)["label"] == "before-upgrade"
    assert json.loads(Path(first.path, "state.json").read_bytes())["pin"] == {
        "reason": "Before the upgrade",
        "until": "2026-01-01T00:00:00Z",
    }
    engine.take("sample")
    options = {"repository": str(engine.repository), "keep_last": 1}
    engine.now = datetime(2025, 12, 31, 23, 59, 59, tzinfo=timezone.utc)
    assert prune(options, False, engine.clock).deleted == ()
    engine.now += timedelta(seconds=1)
    assert [item.id for item in prune(options, False, engine.clock).deleted] == [first.id]
    assert Path(second.path).exists()
    assert not Path(first.path).exists()


# --- names, seconds and clocks ---


# All of them go through the command in test_bad_names.py; here is what restores to the same.
NAMES = ("..", "a=b", "new\nline", "-leading", "%n%s", "dbname=postgres", "x" * 63, "@globals")


def test_databases_of_hostile_names_restore_to_what_they_were(
    debian_server: Server, engine: Engine, fresh_database: NewDatabase
) -> None:
    for name in NAMES:
        fresh_database(debian_server, name)
        debian_server.psql(f"CREATE TABLE only_here AS SELECT {len(name)} AS id", name)
    result = engine.run(databases=list(NAMES), globals=True, parallel=2)
    assert result.exit_code == 0, result.message
    kinds = [(item.kind, item.database) for item in result.outcomes]
    assert kinds == [("globals", "@globals"), *(("database", name) for name in sorted(NAMES))]
    for item in result.outcomes[1:]:
        assert item.backup is not None
        target = fresh_database(debian_server)
        restore(debian_server, item.backup, target)
        assert contents(debian_server, target) == contents(debian_server, item.database)


def test_two_runs_in_one_second_and_with_a_clock_set_back_keep_their_order(engine: Engine) -> None:
    engine.now = NOW
    first, second = engine.take_one("sample"), engine.take_one("sample")
    assert (first.created, second.created) == (NOW, NOW + timedelta(seconds=1))
    engine.now = NOW - timedelta(days=3)
    result = engine.run(databases=["sample"])
    third = result.outcomes[0].backup
    assert third is not None
    assert third.created == NOW + timedelta(seconds=2)
    assert manifest(third)["started"] == "2025-11-02T14:30:00Z"
    assert "2 backups are dated in the future" in result.warnings[0]
    listed = listing({"repository": str(engine.repository)}, False, engine.clock).backups
    assert [item.id for item in listed] == [third.id, second.id, first.id]


# --- one at a time ---

HOLDER = """
import sys
from datetime import datetime, timedelta, timezone
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import lock
with lock.hold(sys.argv[1], "main/sample", "a long run", timedelta(), lambda: datetime.now(timezone.utc)):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other_run(engine: Engine) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the sample's lock until its stdin ends."""
    folder = engine.repository / "main" / "sample"
    engine.repository.mkdir(mode=0o700)
    (engine.repository / "main").mkdir(mode=0o700)
    folder.mkdir(mode=0o700)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder / ".lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / ".cache" / "collections")},
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
        holder.communicate()


def test_another_run_on_the_same_database_is_refused_with_its_owner(
    engine: Engine, other_run: subprocess.Popen[str]
) -> None:
    for check in (True, False):
        result = engine.run(check, databases=["sample"])
        assert result.exit_code == LOCKED
        assert [item.status for item in result.outcomes] == ["locked"]
        owner = rf"main/sample: locked, held by a long run, process {other_run.pid} on .*, for [0-9.]+"
        assert re.match(owner, result.outcomes[0].message)
    assert engine.run(databases=["sample", "postgres"]).exit_code == SOME_FAILED


def test_another_run_is_waited_for_where_that_is_asked_for(engine: Engine, other_run: subprocess.Popen[str]) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(engine.take, "sample", wait="2m")
        other_run.communicate()
        assert len(running.result()) == 1


# --- check mode ---


def test_check_mode_writes_nothing_and_the_real_run_does_what_it_said(
    debian_server: Server, engine: Engine, fresh_database: NewDatabase, tmp_path: Path
) -> None:
    fresh_database(debian_server, "check_new")
    engine.now = NOW
    empty = tree(tmp_path)
    assert engine.run(check=True, databases=["sample"], globals=True).exit_code == 0
    assert tree(tmp_path) == empty
    engine.take("sample", max_age="1h")

    engine.now = NOW + timedelta(minutes=5)
    options = {"databases": ["sample", "check_new", "postgres", "missing"], "globals": True, "max_age": "1h"}
    before = tree(tmp_path)
    planned = engine.run(check=True, **options)
    assert tree(tmp_path) == before
    real = engine.run(**options)
    assert planned.changed
    assert planned.exit_code == real.exit_code == SOME_FAILED
    assert [item.database for item in planned.outcomes] == [item.database for item in real.outcomes]
    assert (planned.new, planned.vanished, planned.skipped) == (real.new, real.vanished, real.skipped)
    for said, did in zip(planned.outcomes, real.outcomes):
        assert said.status == {"done": "planned"}.get(did.status, did.status)
        if did.status == "done":
            assert did.backup is not None
            (file,) = (entry["path"] for entry in manifest(did.backup)["files"])
            assert said.message == f"would write {did.backup.path}/{file}"
            assert (said.command, said.warnings, said.expected) == (did.command, did.warnings, did.expected)
        else:
            assert (said.message, said.backup) == (did.message, did.backup)
    assert {item.status for item in planned.outcomes} == {"planned", "fresh", "failed"}


def test_check_mode_knows_how_large_a_backup_will_be_from_earlier_ones(engine: Engine) -> None:
    taken = engine.take_one("sample")
    expected = engine.run(check=True, databases=["sample"]).outcomes[0].expected
    assert expected is not None
    assert taken.size <= expected <= taken.size * 1.5
    assert engine.run(check=True, databases=["sample"], format="plain").outcomes[0].expected is None


# --- ways to connect ---


def over_tcp(engine: Engine, **more: Any) -> dict[str, Any]:
    """Return options that reach the server over TCP."""
    return {"login_unix_socket": None, "login_host": "127.0.0.1", **more}


@pytest.mark.parametrize("client", SERVERS)
def test_the_password_is_seen_by_nobody(
    request: pytest.FixtureRequest, samples: dict[str, str], tmp_path: Path, client: str, fresh_role: NewRole
) -> None:
    server = request.getfixturevalue(client)
    engine = Engine(server, tmp_path / "repository")
    secret = "dont:show\\me"
    role = fresh_role(server, f"LOGIN SUPERUSER PASSWORD '{secret}'")
    options = over_tcp(engine, login_user=role, login_password=secret, globals=True)
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        wait = stack.enter_context(locked_table(server, "sample", "orders"))
        running = pool.submit(engine.take, "sample", **options)
        wait()
        seen = processes()
        stack.close()
        taken = running.result()
    ours = [text for text in seen.values() if b"pg_dump" in text]
    assert any(b"PGPASSFILE=/proc/self/fd/" in text for text in ours)
    assert [text for text in seen.values() if secret.encode() in text or b"dont\\:show" in text] == []
    everything = b"".join(bytes_of(engine.repository).values())
    assert secret.encode() not in everything
    assert len(taken) == 2


def processes() -> dict[str, bytes]:
    """Return command line and environment of every process of this machine but our own."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        if folder.name != str(os.getpid()):
            try:
                found[folder.name] = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            except OSError:
                continue
    return found


def test_a_service_file_and_a_password_file_are_used_by_every_tool(
    debian_server: Server, engine: Engine, tmp_path: Path, fresh_role: NewRole
) -> None:
    role = fresh_role(debian_server, "LOGIN SUPERUSER PASSWORD 'in a file'")
    services, passwords = tmp_path / "services", tmp_path / "passwords"
    services.write_text(f"[here]\nhost=127.0.0.1\nport={debian_server.port}\nuser={role}\ndbname=postgres\n")
    passwords.write_text(f"127.0.0.1:{debian_server.port}:*:{role}:in a file\n")
    passwords.chmod(0o600)
    nothing = {"login_unix_socket": None, "login_port": None}
    by_service = {"service": "here", "service_file": str(services), "passfile": str(passwords)}
    assert len(engine.take("sample", globals=True, **nothing, **by_service)) == 2
    by_passfile = over_tcp(engine, login_user=role, passfile=str(passwords))
    assert len(engine.take("sample", globals=True, format="directory", jobs=2, **by_passfile)) == 2
    with pytest.raises(ServerError, match="check service and service_file"):
        engine.run(**nothing, **{**by_service, "service": "there"})
    passwords.write_text(f"127.0.0.1:{debian_server.port}:*:{role}:another\n")
    with pytest.raises(ServerError, match="login_password, or the passfile"):
        engine.run(**by_passfile)


def test_a_session_role_is_what_dumps(
    debian_server: Server, engine: Engine, fresh_role: NewRole, fresh_database: NewDatabase
) -> None:
    reader = fresh_role(debian_server, "NOLOGIN")
    login = fresh_role(debian_server, f"LOGIN NOINHERIT IN ROLE {reader}")
    name = fresh_database(debian_server)
    debian_server.psql(f"CREATE TABLE t AS SELECT 1 AS id; GRANT SELECT ON t TO {reader}", name)
    refused = engine.run(databases=[name], login_user=login)
    assert f"role '{login}' may not read public.t" in refused.message
    taken = engine.take(name, login_user=login, session_role=reader, globals=True)
    assert all(f"--role={reader}" in manifest(item)["command"] for item in taken)


@pytest.fixture(scope="module")
def tls_server(zstd_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server with TLS, and the certificate that it can be verified with."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "server.crt", folder / "server.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=pgkeep test",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    owner = zstd_server.data_dir.stat()
    for file in (certificate, key):
        copy = zstd_server.data_dir / file.name
        shutil.copyfile(file, copy)
        copy.chmod(0o600)
        os.chown(copy, owner.st_uid, owner.st_gid)
    zstd_server.psql("ALTER SYSTEM SET ssl = on; SELECT pg_reload_conf()")
    yield zstd_server, certificate
    zstd_server.psql("ALTER SYSTEM RESET ssl; SELECT pg_reload_conf()")


@pytest.mark.needs_programs("openssl")
@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_every_tool_speaks_tls_where_that_is_asked_for(
    samples: dict[str, str], tls_server: tuple[Server, Path], tmp_path: Path, mode: str
) -> None:
    server, certificate = tls_server
    engine = Engine(server, tmp_path / "repository")
    options = over_tcp(engine, login_password=server.password, ssl_mode=mode, globals=True)
    if mode != "require":
        options["ca_cert"] = str(certificate)
    server.psql("CREATE TABLE IF NOT EXISTS watched AS SELECT 1 AS id", "sample")
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        wait = stack.enter_context(locked_table(server, "sample", "watched"))
        running = pool.submit(engine.take, "sample", format="directory", jobs=2, **options)
        wait()
        encrypted = server.psql(
            "SELECT DISTINCT s.ssl FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE a.client_addr IS NOT NULL"
        )
        stack.close()
        assert len(running.result()) == 2
    server.psql("DROP TABLE watched", "sample")
    assert encrypted == "t"


@pytest.mark.needs_programs("openssl")
def test_tls_that_cannot_be_had_as_asked_is_a_failure(
    tls_server: tuple[Server, Path], debian_server: Server, tmp_path: Path
) -> None:
    server, certificate = tls_server
    engine = Engine(server, tmp_path / "repository")
    password = {"login_password": server.password}
    by_name = over_tcp(engine, login_host="localhost", ssl_mode="verify-full", ca_cert=str(certificate), **password)
    with pytest.raises(ServerError, match="check ssl_mode, ca_cert"):
        engine.run(**by_name)
    other = tmp_path / "other.crt"
    other.write_text("no certificate")
    with pytest.raises(ServerError, match="check ssl_mode, ca_cert"):
        engine.run(**over_tcp(engine, ssl_mode="verify-ca", ca_cert=str(other), **password))
    without = Engine(debian_server, tmp_path / "repository")
    with pytest.raises(ServerError, match=r"does not support SSL.*check ssl_mode"):
        without.run(**over_tcp(without, ssl_mode="require", login_password=debian_server.password))
    assert bytes_of(tmp_path / "repository") == {}


def test_parallel_jobs_inside_one_database(debian_server: Server, engine: Engine, fresh_database: NewDatabase) -> None:
    taken = engine.take_one("sample", format="directory", jobs=2, compression="gzip:1")
    assert "--jobs=2" in manifest(taken)["command"]
    target = fresh_database(debian_server)
    restore(debian_server, taken, target)
    assert contents(debian_server, target) == contents(debian_server, "sample")


def test_a_run_leaves_nothing_but_backups_and_locks(engine: Engine) -> None:
    taken = engine.take("sample", globals=True, format="directory")
    names = {path.relative_to(engine.repository).parts[-1] for path in engine.repository.rglob(".*")}
    assert names == {".lock"}
    for path in engine.repository.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    assert [item.complete for item in taken] == [True, True]
