# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restore under another name loses, and gets back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import server as pg
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.process import SEARCH_PATH
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import commands
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.compression import ResolvedCompression
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.database_sql import reapply, roles_of
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.facts import properties
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import Connection, DumpOptions

from tests.postgres import Server, quote_identifier

NewDatabase = Callable[..., str]
NewRole = Callable[..., str]


def connection_to(server: Server) -> Connection:
    return Connection(login_unix_socket=str(server.socket_dir), login_port=server.port)


def recorded(server: Server, database: str) -> dict[str, Any]:
    """Return a database's properties as a manifest gives them back."""
    with pg.connect(connection_to(server), database) as session:
        restored: dict[str, Any] = json.loads(json.dumps(properties(pg.database_facts(session))))
        return restored


def prepared(server: Server, fresh_role: NewRole, database: str) -> tuple[str, ...]:
    owner, giver, taker = fresh_role(server), fresh_role(server), fresh_role(server)
    name = quote_identifier(database)
    server.psql(f"""
        ALTER DATABASE {name} OWNER TO {owner};
        REVOKE ALL ON DATABASE {name} FROM PUBLIC;
        GRANT TEMPORARY ON DATABASE {name} TO PUBLIC;
        GRANT CONNECT, CREATE ON DATABASE {name} TO {giver} WITH GRANT OPTION;
        SET ROLE {giver}; GRANT CONNECT ON DATABASE {name} TO {taker}; RESET ROLE;
        ALTER DATABASE {name} SET search_path = "$user", "it's, me", 'back\\slash', "quo""te";
        ALTER DATABASE {name} SET "my.setting" = 'it''s \\ value';
        ALTER DATABASE {name} SET datestyle = 'ISO, DMY';
        ALTER ROLE {giver} IN DATABASE {name} SET work_mem = '7MB';
        ALTER ROLE {giver} IN DATABASE {name} SET search_path = '';
        ALTER DATABASE {name} CONNECTION LIMIT 9;
        COMMENT ON DATABASE {name} IS 'it''s a \\ comment';
    """)
    return owner, giver, taker


def compare(server: Server, first: str, second: str) -> None:
    """Check that the catalogue says the same of both databases, to the letter."""
    this = "(SELECT oid FROM pg_database WHERE datname = current_database())"
    row = "SELECT datdba, datacl, datconnlimit, datistemplate, shobj_description(oid, 'pg_database') FROM pg_database"
    settings = "SELECT setrole, setconfig FROM pg_db_role_setting"
    for query in (f"{row} WHERE oid = {this}", f"{settings} WHERE setdatabase = {this} ORDER BY setrole"):
        before, after = server.psql(query, first), server.psql(query, second)
        assert before == after
        assert before


def test_a_restore_under_another_name_gets_back_what_the_archive_does_not_hold(
    server: Server, fresh_role: NewRole, fresh_database: NewDatabase, tmp_path: Path
) -> None:
    original, restored = fresh_database(server), fresh_database(server, 'it\'s a "new" \\ name=x')
    server.psql("CREATE TABLE public.t AS SELECT 1 AS id", original)
    roles = prepared(server, fresh_role, original)
    connection = connection_to(server)
    argv = commands.pg_dump(
        str(server.bindir / "pg_dump"),
        connection,
        original,
        DumpOptions(),
        ResolvedCompression("none", 0),
        server.major,
    )
    environment = commands.environment(connection, None, str(tmp_path), SEARCH_PATH)
    archive = subprocess.run(argv, env=environment, capture_output=True, check=True).stdout
    facts = recorded(server, original)

    target = f"--dbname={commands.conninfo(connection, restored)}"
    subprocess.run([str(server.bindir / "pg_restore"), target], input=archive, env=environment, check=True)
    assert recorded(server, restored)["settings"] == []

    server.psql(";\n".join(reapply(facts, restored)))
    compare(server, original, restored)
    again = recorded(server, restored)
    for what in ("owner", "acl", "settings", "connection_limit", "comment", "encoding", "collate", "tables"):
        assert again[what] == facts[what]
    assert roles_of(facts) == set(roles)


def test_roles_that_are_gone_are_left_out(server: Server, fresh_role: NewRole, fresh_database: NewDatabase) -> None:
    original, restored = fresh_database(server), fresh_database(server)
    owner, giver, taker = prepared(server, fresh_role, original)
    facts = json.loads(json.dumps(recorded(server, original)).replace(giver, "no such role").replace(owner, "nor this"))
    server.psql(";\n".join(reapply(facts, restored, frozenset({"no such role", "nor this"}))))
    again = recorded(server, restored)
    assert again["owner"] == "postgres"
    assert {grant["grantee"] for grant in again["acl"]} == {None, "postgres"}
    assert [setting["name"] for setting in again["settings"]] == ["search_path", "my.setting", "DateStyle"]
    assert taker not in roles_of(again)


def test_a_database_with_defaults_needs_no_more_than_its_owner(server: Server, fresh_database: NewDatabase) -> None:
    original, restored = fresh_database(server), fresh_database(server)
    statements = reapply(recorded(server, original), restored)
    assert len(statements) == 1
    server.psql(statements[0])
    assert recorded(server, restored)["acl"] is None
