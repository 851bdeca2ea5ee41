# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Globals on real servers: what pg_dumpall wrote of one comes back in another, whole or not at all, and no password is
ever said.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import server as adapter
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.backups import Backup
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.choice import nearest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.database_sql import quote_literal
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import PgkeepError, ServerError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.globals_plan import Plan
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import Connection, build
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services import globals as cluster
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.adopt import adopt

from tests.hostile import HOSTILE_NAMES, PASSWORDS
from tests.integration.samples import Engine, manifest
from tests.postgres import CELERP, DEBIAN, EMBEDDED, Server, find_installation, quote_identifier

# A little of everything that globals have to carry.
SAMPLE = r"""
CREATE ROLE boss SUPERUSER LOGIN PASSWORD 'other secret';
CREATE ROLE app LOGIN NOINHERIT CREATEDB CONNECTION LIMIT 7 PASSWORD 'very:secret'';password';
ALTER ROLE app VALID UNTIL '2030-01-01 12:00+05:30';
CREATE ROLE reader; COMMENT ON ROLE reader IS E'it''s; a \\ comment\nof two lines';
CREATE ROLE "it's; ""quoted"" é" LOGIN VALID UNTIL 'infinity' REPLICATION BYPASSRLS;
CREATE ROLE granter CREATEROLE VALID UNTIL '9999-12-31 23:59:59-05';
ALTER ROLE app SET search_path = "$user", public, 'we"ird, ''name';
ALTER ROLE app SET temp_tablespaces = '';
ALTER ROLE app SET my.thing = 'it''s; \x';
ALTER ROLE app SET log_statement = 'all';
ALTER ROLE granter SET "TimeZone" = 'Europe/Berlin';
ALTER ROLE postgres SET work_mem = '9MB';
GRANT reader TO granter WITH ADMIN OPTION;
SET ROLE granter; GRANT reader TO app; RESET ROLE;
GRANT pg_read_all_data TO reader;
GRANT "it's; ""quoted"" é" TO app;
GRANT SET, ALTER SYSTEM ON PARAMETER work_mem TO app WITH GRANT OPTION;
GRANT SET ON PARAMETER my.thing TO PUBLIC;
SET ROLE app; GRANT SET ON PARAMETER work_mem TO reader; RESET ROLE;
"""
FROM_16_ON = "GRANT app TO granter WITH INHERIT FALSE, SET FALSE;\nGRANT app TO boss WITH ADMIN TRUE, INHERIT TRUE;\n"
TABLESPACE = """
CREATE TABLESPACE "fast ""disk" OWNER app LOCATION '{}' WITH (random_page_cost = 1.1, seq_page_cost = 2);
GRANT CREATE ON TABLESPACE "fast ""disk" TO granter WITH GRANT OPTION;
SET ROLE granter; GRANT CREATE ON TABLESPACE "fast ""disk" TO reader; RESET ROLE;
COMMENT ON TABLESPACE "fast ""disk" IS 'it''s fast';
"""

Fresh = Callable[..., Server]


@pytest.fixture
def fresh() -> Iterator[Fresh]:
    """Return a function: given DEBIAN, CELERP or EMBEDDED, start a server of that kind that has nothing yet."""
    started: list[Server] = []

    def start(source: str) -> Server:
        installation = find_installation(source)
        if installation is None:
            pytest.skip(f"no PostgreSQL server from {source} is installed")
        started.append(Server(installation).start())
        return started[-1]

    yield start
    for server in started:
        server.remove()


def make_globals(server: Server) -> bytes:
    """Given a fresh server, create the sample in it; return what pg_dumpall writes of it."""
    server.psql(SAMPLE + (FROM_16_ON if server.major >= 16 else ""))
    place = server.socket_dir / "place"
    place.mkdir()
    server.psql(TABLESPACE.format(place))
    return dumped(server)


def dumped(server: Server, *options: str) -> bytes:
    return server.run("pg_dumpall", "--globals-only", *options, "-d", server.conninfo()).encode()


def moved(script: bytes, server: Server) -> bytes:
    """Given a script, return it with the place of the tablespace in the directory of another server, which is made."""
    place = server.socket_dir / "place"
    place.mkdir(exist_ok=True)
    return re.sub(rb"/[a-z/]+/pgkeep-[\w-]+/place", str(place).encode(), script)


@contextmanager
def session(server: Server, user: str = "postgres", **more: Any) -> Iterator[adapter.Session]:
    raw = {"login_unix_socket": str(server.socket_dir), "login_port": server.port, "login_user": user, **more}
    with adapter.connect(build(Connection, raw), writable=True) as found:
        yield found


def planned(server: Server, script: bytes, user: str = "postgres", **more: Any) -> Plan:
    with session(server, user) as here:
        return cluster.plan_globals(here, script, **more)


def restored(server: Server, script: bytes, user: str = "postgres", **more: Any) -> Plan:
    """Given a server and a script, restore it there; return the plan that was carried out."""
    with session(server, user) as here:
        plan = cluster.plan_globals(here, script, **more)
        said = repr(plan) + repr([change.to_json() for change in plan.changes])
        assert "SCRAM" not in said
        cluster.apply(here, plan)
        return plan


def lines(script: bytes) -> list[bytes]:
    """Given a script, return its lines in any order, without what is another each time."""
    return sorted(line for line in script.splitlines() if b"restrict" not in line and line)


def changed(plan: Plan) -> list[tuple[str, str, str]]:
    return [(item.kind, item.name, item.action) for item in plan.changes if item.changes]


# --- all of it ---


@pytest.mark.parametrize("source", [DEBIAN, CELERP, EMBEDDED])
def test_all_globals_come_back_and_a_second_run_changes_nothing(fresh: Fresh, source: str) -> None:
    origin, target = fresh(source), fresh(source)
    script = moved(make_globals(origin), target)
    before = dumped(target)
    assert planned(target, script).changed
    assert lines(dumped(target)) == lines(before), "a plan changes nothing"
    plan = restored(target, script, update=True)
    assert plan.warnings == ()
    assert lines(dumped(target)) == lines(script)
    assert cluster.differences(script, dumped(target)) == []
    for update in (False, True):
        again = restored(target, script, update=update)
        assert (again.changes, again.problems, again.warnings) == ((), (), ())
    assert lines(dumped(target)) == lines(script)


def test_globals_of_an_older_server_come_back_in_a_newer_one(fresh: Fresh) -> None:
    origin, target = fresh(DEBIAN), fresh(EMBEDDED)
    script = moved(make_globals(origin), target)
    plan = restored(target, script)
    assert plan.warnings == ()
    assert cluster.differences(script, dumped(target)) == []
    assert changed(planned(target, script)) == []
    assert target.psql("SELECT count(*) FROM pg_auth_members WHERE grantor = 'granter'::regrole") == "1"


def test_globals_of_a_newer_server_give_nobody_more_rights_in_an_older_one(fresh: Fresh) -> None:
    origin, target = fresh(EMBEDDED), fresh(DEBIAN)
    script = moved(make_globals(origin), target)
    plan = restored(target, script)
    assert ("membership", "granter in app", "skip") in [(item.kind, item.name, item.action) for item in plan.changes]
    assert cluster.differences(script, dumped(target)) == ["membership of 'granter' in 'app' is missing"]
    assert changed(planned(target, script, update=True)) == [("role", "postgres", "update")]


def test_a_bootstrap_superuser_of_another_name(fresh: Fresh) -> None:
    origin, target = fresh(EMBEDDED), fresh(EMBEDDED)
    script = moved(make_globals(origin), target).replace(b"postgres", b"dba")
    plan = restored(target, script)
    assert plan.warnings == ("role 'dba' cannot grant here: 'postgres' grants in its place (5 memberships)",)
    assert cluster.differences(script, dumped(target)) == []
    again = planned(target, script, update=True)
    assert (again.changes, again.warnings) == ((), ())


@pytest.mark.parametrize("source", [DEBIAN, EMBEDDED])
def test_any_name_password_and_comment_comes_back(fresh: Fresh, source: str) -> None:
    origin, target = fresh(source), fresh(source)
    statements = []
    for number, name in enumerate(HOSTILE_NAMES):
        role, other, text = quote_identifier(name), quote_identifier(HOSTILE_NAMES[number - 1]), quote_literal(name)
        statements += [
            f"CREATE ROLE {role} PASSWORD {quote_literal(PASSWORDS[number % len(PASSWORDS)])};",
            f"COMMENT ON ROLE {role} IS {text};",
            f"ALTER ROLE {role} SET my.name = {text};",
            f"ALTER ROLE {role} SET search_path = {text}, x;",
            f"GRANT {other} TO {role};" if number else "",
        ]
    origin.psql("\n".join(statements))
    script = dumped(origin)
    restored(target, script, update=True)
    assert lines(dumped(target)) == lines(script)
    assert changed(planned(target, script, update=True)) == []


def test_a_script_in_another_encoding(fresh: Fresh) -> None:
    origin, target = fresh(DEBIAN), fresh(EMBEDDED)
    origin.psql('CREATE ROLE "Bärbel"; COMMENT ON ROLE "Bärbel" IS \'Müller\'')
    script = subprocess.run(
        [origin.bindir / "pg_dumpall", "--globals-only", "--encoding=LATIN1", "-d", origin.conninfo()],
        capture_output=True,
        check=True,
    ).stdout
    assert b"B\xe4rbel" in script
    restored(target, script)
    assert cluster.differences(script, dumped(target)) == []


# --- what is there ---


def test_roles_that_exist_are_left_unless_asked(fresh: Fresh) -> None:
    origin, target = fresh(DEBIAN), fresh(DEBIAN)
    script = moved(make_globals(origin), target)
    target.psql("CREATE ROLE app CREATEROLE PASSWORD 'mine'; COMMENT ON ROLE app IS 'mine'; CREATE ROLE unknown LOGIN")
    target.psql("ALTER ROLE app SET work_mem = '1MB'")
    mine = [line for line in lines(dumped(target)) if b"ROLE app" in line]
    plan = restored(target, script)
    (left,) = [item for item in plan.changes if (item.kind, item.name) == ("role", "app")]
    assert left.action == "leave"
    assert {"createrole: yes -> no", "password", "comment", "setting work_mem: 1MB -> none"} <= set(left.details)
    assert [line for line in lines(dumped(target)) if b"ROLE app" in line] == mine
    assert ("role", "app", "update") in changed(restored(target, script, update=True))
    assert cluster.differences(script, dumped(target)) == ["role 'unknown' was not in the backup"]
    assert changed(planned(target, script, update=True)) == []
    target.psql('ALTER TABLESPACE "fast ""disk" OWNER TO postgres; COMMENT ON TABLESPACE "fast ""disk" IS NULL')
    target.psql('ALTER TABLESPACE "fast ""disk" SET (effective_io_concurrency = 3)')
    assert changed(restored(target, script)) == []
    assert changed(restored(target, script, update=True)) == [("tablespace", 'fast "disk', "update")]
    assert [line for line in lines(dumped(target)) if b"TABLESPACE" in line] == [
        line for line in lines(script) if b"TABLESPACE" in line
    ]


@pytest.mark.parametrize("source", [DEBIAN, EMBEDDED])
def test_memberships_are_added_and_their_options_updated(fresh: Fresh, source: str) -> None:
    origin, target = fresh(source), fresh(source)
    for server in (origin, target):
        server.psql("CREATE ROLE a; CREATE ROLE b; CREATE ROLE c; CREATE ROLE d")
    origin.psql("GRANT a TO b WITH ADMIN OPTION; GRANT c TO b; GRANT a TO d")
    target.psql("GRANT a TO b; GRANT c TO b WITH ADMIN OPTION")
    script = dumped(origin)
    assert changed(restored(target, script)) == [("membership", "d in a", "create")]
    updates = changed(restored(target, script, update=True))
    assert [item for item in updates if item[0] == "membership"] == [
        ("membership", "b in a", "update"),
        ("membership", "b in c", "update"),
    ]
    assert lines(dumped(target)) == lines(script)


def test_only_some_roles_are_created(fresh: Fresh) -> None:
    origin, target = fresh(EMBEDDED), fresh(EMBEDDED)
    script = make_globals(origin)
    plan = restored(target, script, only=frozenset(("reader", "granter")))
    assert sorted(changed(plan)) == [
        ("membership", "granter in reader", "create"),
        ("membership", "reader in pg_read_all_data", "create"),
        ("role", "granter", "create"),
        ("role", "reader", "create"),
    ]
    assert target.psql("SELECT string_agg(rolname, ' ' ORDER BY 1) FROM pg_roles WHERE oid > 16383") == "granter reader"
    assert changed(planned(target, script, only=frozenset(("reader", "granter")))) == []
    with pytest.raises(ServerError, match="the globals have no role 'nobody'"):
        restored(target, script, only=frozenset(("nobody",)))


# --- failures ---


def test_a_failure_in_the_middle_leaves_nothing_and_says_no_password(fresh: Fresh) -> None:
    origin, target = fresh(DEBIAN), fresh(DEBIAN)
    script = moved(make_globals(origin), target)
    before = dumped(target)
    verifiers = re.findall(rb"SCRAM[^']+", script)
    assert len(verifiers) == 3
    target.psql("ALTER SYSTEM SET log_statement = 'all'; SELECT pg_reload_conf()")
    for wrong, name in (
        (script.replace(b"'10000-01-01", b"'nonsense"), "granter"),
        (script.replace(b"'2030-01-01", b"'nonsense"), "app"),  # in the statement that holds a password
        (script.replace(b"log_statement TO 'all'", b"log_statement TO 'nonsense'"), "app"),
        (script.replace(b'SET ON PARAMETER "my.thing"', b'SET ON PARAMETER "my.th ing"'), "my.th ing"),
    ):
        assert wrong != script
        with pytest.raises(ServerError) as caught:
            restored(target, wrong)
        said = str(caught.value)
        assert f"{name!r} was not created, and nothing was changed: database 'postgres': the server says: " in said
        assert "SCRAM" not in said
        assert lines(dumped(target)) == lines(before), "nor is the tablespace there, which no transaction made"
    assert not list((target.socket_dir / "place").iterdir())
    restored(target, script)
    log = target.log_file.read_bytes()
    assert b"CREATE ROLE" in log, "what has no password in it is logged as ever"
    assert not [verifier for verifier in verifiers if verifier in log]


def test_a_tablespace_that_cannot_be_made_leaves_nothing(fresh: Fresh) -> None:
    origin, target = fresh(DEBIAN), fresh(DEBIAN)
    script = make_globals(origin)
    gone = script.replace(str(origin.socket_dir).encode(), b"/nowhere")
    with pytest.raises(ServerError, match="needs the directory /nowhere/place: create it"):
        restored(target, gone)
    before = dumped(target)
    full = moved(script, target)
    for folder in origin.socket_dir.glob("place/*"):
        (target.socket_dir / "place" / folder.name).mkdir()
    with pytest.raises(ServerError, match="tablespace 'fast \"disk' was not created, and nothing was changed"):
        restored(target, full)
    assert lines(dumped(target)) == lines(before)
    assert ("role", "app", "create") in changed(restored(target, full, tablespaces=False))


def test_what_is_not_understood_is_left_out_and_said(fresh: Fresh) -> None:
    target = fresh(DEBIAN)
    script = b"CREATE ROLE a;\nDROP ROLE postgres;\nSELECT pg_reload_conf();\nCREATE ROLE b;\n"
    plan = restored(target, script)
    assert plan.warnings == ("statements that are not understood were left out (2): DROP ROLE ..., SELECT ...",)
    assert changed(plan) == [("role", "a", "create"), ("role", "b", "create")]


# --- who may ---


@pytest.mark.parametrize("source", [DEBIAN, EMBEDDED])
def test_a_role_that_may_create_roles_restores_ordinary_ones(fresh: Fresh, source: str) -> None:
    origin, target = fresh(source), fresh(source)
    origin.psql(
        "CREATE ROLE a LOGIN PASSWORD 'geheim'; CREATE ROLE b; CREATE ROLE c; GRANT b TO a; GRANT c TO b WITH ADMIN OPTION;"
        "COMMENT ON ROLE a IS 'x'; ALTER ROLE a SET work_mem = '7MB'"
    )
    script = dumped(origin)
    target.psql("CREATE ROLE maker LOGIN CREATEROLE")
    plan = restored(target, script, "maker")
    assert [kind for kind, _name, _action in changed(plan)] == ["role"] * 3 + ["membership"] * 2
    assert any("cannot grant here" in warning for warning in plan.warnings)
    differs = cluster.differences(script, dumped(target))
    assert [text for text in differs if not text.startswith("membership")] == ["role 'maker' was not in the backup"]
    pairs = "SELECT roleid::regrole, member::regrole, admin_option FROM pg_auth_members WHERE member <> {} AND roleid > 16383"
    assert target.psql(pairs.format("'maker'::regrole")) == origin.psql(pairs.format(0))
    again = planned(target, script, "maker", update=True)
    assert changed(again) == []
    assert any("were not compared" in warning for warning in again.warnings)
    target.psql("ALTER ROLE a PASSWORD 'other'; ALTER ROLE a NOLOGIN")
    (change,) = [item for item in restored(target, script, "maker", update=True).changes if item.changes]
    assert change.details == ("login: no -> yes",)


@pytest.mark.parametrize("source", [DEBIAN, EMBEDDED])
def test_a_role_without_rights_is_told_everything_at_once(fresh: Fresh, source: str) -> None:
    origin, target = fresh(source), fresh(source)
    script = moved(make_globals(origin), target)
    before = dumped(target)
    target.psql("CREATE ROLE maker LOGIN CREATEROLE; CREATE ROLE nobody LOGIN")
    problems = planned(target, script, "maker").problems
    said = "; ".join(problems)
    assert "superusers are for a superuser to make or change: 'boss'" in said
    assert "may not make roles BYPASSRLS" in said
    assert "settings that only a superuser may: those of 'app'" in said
    assert "tablespaces are for a superuser" in said
    assert "rights on parameters are for a superuser" in said
    assert ("may not grant 'pg_read_all_data'" in said) == (target.major >= 16)
    with pytest.raises(ServerError, match="superusers are for a superuser"):
        restored(target, script, "maker")
    assert "may not create or change roles" in planned(target, script, "nobody").problems[0]
    target.psql("DROP ROLE maker; DROP ROLE nobody")
    assert lines(dumped(target)) == lines(before)


def test_with_the_rights_of_another_role(fresh: Fresh) -> None:
    origin, target = fresh(EMBEDDED), fresh(EMBEDDED)
    script = moved(make_globals(origin), target)
    target.psql("CREATE ROLE keeper LOGIN; GRANT postgres TO keeper")
    with session(target, "keeper", session_role="postgres") as here:
        plan = cluster.plan_globals(here, script)
        cluster.apply(here, plan)
    assert set(plan.warnings) == {
        "role 'app' cannot grant here: what it granted is granted by the owner",
        "role 'granter' cannot grant here: what it granted is granted by the owner",
    }
    with session(target, "keeper", session_role="postgres") as here:
        assert not cluster.plan_globals(here, script).changed


# --- which script ---


def test_the_nearest_globals_of_the_instance(engine: Engine) -> None:
    start = datetime.now(timezone.utc) - timedelta(days=1)
    taken: list[Backup] = []
    for hours in (0, 4, 10):
        engine.now = start + timedelta(hours=hours)
        taken += engine.take("postgres", globals=True)
    globals_, databases = taken[::2], taken[1::2]
    assert [item.kind for item in globals_] == ["globals"] * 3
    assert nearest(taken, databases[0]) == globals_[0]
    assert nearest([globals_[0], *globals_[2:]], databases[1]) == globals_[0]
    assert nearest(globals_[2:], databases[0]) == globals_[2]
    assert nearest(databases, databases[0]) is None
    elsewhere = Engine(engine.server, engine.repository).take("postgres", globals=True, instance="other")
    assert nearest(taken, elsewhere[1]) is None


def test_a_script_is_read_only_if_it_is_what_was_dumped(engine: Engine) -> None:
    taken, _database = engine.take("postgres", globals=True)
    script = cluster.read(taken)
    assert b"CREATE ROLE postgres" in script
    file = Path(taken.path, manifest(taken)["files"][0]["path"])
    assert file.read_bytes() == script
    file.write_bytes(script.replace(b"CREATE ROLE postgres", b"CREATE ROLE intrudes"))
    with pytest.raises(PgkeepError, match=r"is damaged: .+ was altered"):
        cluster.read(taken)
    file.write_bytes(script[:-100])
    with pytest.raises(PgkeepError, match="bytes instead of"):
        cluster.read(taken)


@pytest.mark.parametrize("packer", ["gzip", "zstd"])
def test_a_script_that_is_compressed(engine: Engine, tmp_path: Path, packer: str) -> None:
    script = dumped(engine.server)
    packed = subprocess.run([packer, "-c"], input=script, capture_output=True, check=True).stdout
    suffix = {"gzip": "gz", "zstd": "zst"}[packer]
    dump = tmp_path / f"globals_2025-01-01_00-00-00.sql.{suffix}"
    dump.write_bytes(packed)
    raw = {"repository": str(engine.repository), "reserve": "0"}
    (outcome,) = adopt(raw, [str(dump)], False, engine.clock).outcomes
    assert outcome.backup is not None
    assert cluster.read(outcome.backup) == script


def test_a_script_that_cannot_be_read_is_refused(debian_server: Server) -> None:
    for script in (b"CREATE ROLE a", b"SET client_encoding = 'EUC_TW';\n", b'CREATE ROLE "\xff";'):
        with pytest.raises(PgkeepError, match="the globals cannot be read"):
            planned(debian_server, script)
