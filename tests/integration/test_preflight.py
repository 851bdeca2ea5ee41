# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the preflight says against what pg_dump then does."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import server as pg
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.process import SEARCH_PATH
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import commands
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.compression import ResolvedCompression
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.facts import Obstacles
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import Connection, DumpOptions
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.preflight import preflight_problems

from tests.postgres import Server

NewDatabase = Callable[..., str]
NewRole = Callable[..., str]

READABLE = """
CREATE SCHEMA IF NOT EXISTS public;
CREATE TABLE public.open (id serial PRIMARY KEY, what text);
INSERT INTO public.open (what) VALUES ('a');
"""


class Tried:
    """One database as one role: what the preflight says, and whether pg_dump succeeds."""

    def __init__(self, server: Server, database: str, role: str, home: Path) -> None:
        self.server, self.database, self.home = server, database, home
        self.connection = Connection(login_unix_socket=str(server.socket_dir), login_port=server.port, login_user=role)

    def obstacles(self, dump: DumpOptions) -> Obstacles:
        with pg.connect(self.connection, self.database) as session:
            return pg.obstacles(session, pg.resolve_patterns(session, dump))

    def problems(self, dump: DumpOptions) -> tuple[tuple[str, ...], tuple[str, ...]]:
        with pg.connect(self.connection, self.database) as session:
            matches = pg.resolve_patterns(session, dump)
            return preflight_problems(
                pg.server_facts(session), pg.database_facts(session), pg.obstacles(session, matches), matches
            )

    def pg_dump(self, dump: DumpOptions) -> subprocess.CompletedProcess[str]:
        argv = commands.pg_dump(
            str(self.server.bindir / "pg_dump"), self.connection, self.database, dump, ResolvedCompression("none", 0),
            self.server.major,
        )  # fmt: skip
        environment = commands.environment(self.connection, None, str(self.home), SEARCH_PATH)
        return subprocess.run(argv, env=environment, capture_output=True, text=True, errors="replace", check=False)

    def agrees(self, dump: DumpOptions) -> tuple[str, ...]:
        """Check that the preflight has errors exactly where pg_dump fails; return them."""
        errors, _unused = self.problems(dump)
        done = self.pg_dump(dump)
        assert bool(errors) == (done.returncode != 0), (errors, done.stderr[-500:])
        return errors


@pytest.fixture
def tried(server: Server, fresh_role: NewRole, fresh_database: NewDatabase, tmp_path: Path) -> Tried:
    """A database with one table that a new role may read."""
    role, database = fresh_role(server), fresh_database(server)
    server.psql(READABLE + f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};", database)
    server.psql(
        f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}; GRANT USAGE ON SCHEMA public TO {role}", database
    )
    return Tried(server, database, role, tmp_path)


def text(**options: object) -> DumpOptions:
    return replace(DumpOptions(format="plain"), **options)  # type: ignore[arg-type]


def test_a_role_that_may_read_everything_has_no_problems(tried: Tried) -> None:
    assert tried.agrees(text()) == ()
    assert tried.obstacles(text()) == Obstacles(tables=1, tables_with_data=1)


def test_a_table_that_the_role_may_not_read(tried: Tried) -> None:
    tried.server.psql("CREATE TABLE public.closed (id int)", tried.database)
    (error,) = tried.agrees(text())
    assert "may not read public.closed" in error
    assert tried.agrees(text(exclude_tables=("public.closed",))) == ()
    assert tried.agrees(text(tables=("public.open",))) == ()
    # pg_dump locks a table also where it leaves its rows out.
    assert tried.agrees(text(exclude_table_data=("public.closed",)))


def test_a_sequence_that_the_role_may_not_read(tried: Tried) -> None:
    tried.server.psql("CREATE SEQUENCE public.numbers", tried.database)
    (error,) = tried.agrees(text())
    assert "public.numbers" in error
    assert tried.agrees(text(exclude_tables=("public.numbers",))) == ()
    assert tried.agrees(text(exclude_table_data=("public.numbers",))) == ()


def test_a_serial_columns_sequence_comes_with_its_table(tried: Tried) -> None:
    role = tried.connection.login_user
    tried.server.psql(f"REVOKE ALL ON SEQUENCE public.open_id_seq FROM {role}", tried.database)
    for dump in (text(), text(tables=("public.open",)), text(exclude_tables=("public.open_id_seq",))):
        (error,) = tried.agrees(dump)
        assert "public.open_id_seq" in error


def test_an_identitys_sequence_comes_with_its_table_and_with_nothing_else(tried: Tried) -> None:
    tried.server.psql("CREATE TABLE public.numbered (id int GENERATED ALWAYS AS IDENTITY)", tried.database)
    assert tried.agrees(text())
    assert tried.agrees(text(exclude_tables=("public.numbered",))) == ()
    tried.server.psql(f"GRANT SELECT ON public.numbered TO {tried.connection.login_user}", tried.database)
    (error,) = tried.agrees(text())
    assert "public.numbered_id_seq" in error
    tried.server.psql("CREATE TABLE public.counted (id serial)", tried.database)
    (error,) = tried.agrees(text(exclude_tables=("public.numbered", "public.counted")))
    assert "public.counted_id_seq" in error


def test_a_schema_that_the_role_may_not_use(tried: Tried) -> None:
    role = tried.connection.login_user
    tried.server.psql(
        f"CREATE SCHEMA secret; CREATE TABLE secret.t (id int); GRANT SELECT ON secret.t TO {role}", tried.database
    )
    (error,) = tried.agrees(text())
    assert "has no USAGE on schema secret" in error
    assert tried.agrees(text(exclude_schemas=("secret",))) == ()
    assert tried.agrees(text(schemas=("public",))) == ()


def test_rows_under_row_level_security(tried: Tried) -> None:
    tried.server.psql("ALTER TABLE public.open ENABLE ROW LEVEL SECURITY", tried.database)
    (error,) = tried.agrees(text())
    assert "row-level security hides rows of public.open" in error
    assert tried.agrees(text(exclude_table_data=("public.open",))) == ()
    tried.server.psql(f"ALTER ROLE {tried.connection.login_user} BYPASSRLS")
    assert tried.agrees(text()) == ()


def test_an_owner_sees_rows_under_row_level_security_unless_it_is_forced(tried: Tried) -> None:
    role = tried.connection.login_user
    tried.server.psql(
        f"ALTER TABLE public.open OWNER TO {role}; ALTER TABLE public.open ENABLE ROW LEVEL SECURITY", tried.database
    )
    assert tried.agrees(text()) == ()
    tried.server.psql("ALTER TABLE public.open FORCE ROW LEVEL SECURITY", tried.database)
    assert tried.agrees(text())


def test_large_objects_that_the_role_may_not_read(tried: Tried) -> None:
    role = tried.connection.login_user
    tried.server.psql("SELECT lo_from_bytea(1, 'x'), lo_from_bytea(2, 'y')", tried.database)
    tried.server.psql(f"GRANT SELECT ON LARGE OBJECT 1 TO {role}", tried.database)
    (error,) = tried.agrees(text())
    assert "may not read 1 large objects" in error
    assert tried.agrees(text(schemas=("public",))) == ()
    tried.server.psql("GRANT SELECT ON LARGE OBJECT 2 TO PUBLIC", tried.database)
    assert tried.agrees(text()) == ()


def test_pg_read_all_data_reads_tables_but_no_large_objects(tried: Tried) -> None:
    tried.server.psql("CREATE SCHEMA s; CREATE TABLE s.closed (id serial)", tried.database)
    assert tried.agrees(text())
    tried.server.psql(f"GRANT pg_read_all_data TO {tried.connection.login_user}")
    assert tried.agrees(text()) == ()
    tried.server.psql("SELECT lo_create(0)", tried.database)
    assert tried.agrees(text())


def test_subscriptions_are_missed_by_who_is_no_superuser(tried: Tried) -> None:
    tried.server.psql(
        "CREATE SUBSCRIPTION s CONNECTION 'dbname=nowhere' PUBLICATION p"
        " WITH (connect = false, slot_name = NONE, enabled = false)",
        tried.database,
    )
    try:
        errors, warnings = tried.problems(text())
        assert errors == ()
        assert warnings[0].startswith("1 subscriptions are not dumped")
        done = tried.pg_dump(text())
        assert done.returncode == 0
        assert "CREATE SUBSCRIPTION" not in done.stdout
    finally:
        tried.server.psql("DROP SUBSCRIPTION s", tried.database)


def test_what_belongs_to_an_extension_is_not_dumped_and_so_needs_no_rights(tried: Tried) -> None:
    tried.server.psql(
        "CREATE TABLE public.member (id int); ALTER EXTENSION plpgsql ADD TABLE public.member", tried.database
    )
    try:
        assert tried.agrees(text()) == ()
        assert tried.obstacles(text()).tables == 1
    finally:
        tried.server.psql("ALTER EXTENSION plpgsql DROP TABLE public.member", tried.database)


def test_tables_are_counted_as_pg_dump_takes_them(tried: Tried) -> None:
    tried.server.psql(
        "CREATE TABLE public.parent (id int) PARTITION BY RANGE (id);"
        "CREATE TABLE public.part PARTITION OF public.parent FOR VALUES FROM (0) TO (9);"
        "CREATE UNLOGGED TABLE public.quick (id int);"
        "CREATE VIEW public.v AS SELECT 1; CREATE MATERIALIZED VIEW public.m AS SELECT 1",
        tried.database,
    )
    superuser = Tried(tried.server, tried.database, "postgres", tried.home)
    for dump, tables in ((text(), 4), (text(exclude_table_data=("quick",)), 4), (text(tables=("public.p*",)), 2)):
        found = superuser.obstacles(dump)
        dumped = [line for line in superuser.pg_dump(dump).stderr.splitlines() if "dumping contents of table" in line]
        assert found.tables == tables
        assert found.tables_with_data == len(dumped)
