# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import server as pg
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.process import SEARCH_PATH
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import commands
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.compression import ResolvedCompression
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ConfigurationError, ServerError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.facts import properties
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import Connection, DumpOptions

from tests.hostile import HOSTILE_NAMES, PASSWORDS, REFUSED_PASSWORDS
from tests.postgres import CELERP, Server, find_installation

NewDatabase = Callable[..., str]
NewRole = Callable[..., str]

SHOP = """
CREATE SCHEMA audit;
CREATE TABLE orders (id serial PRIMARY KEY, what text);
CREATE TABLE "Orders" (id int);
CREATE TABLE "a.b" (id int);
CREATE TABLE "do$llar" (id int);
CREATE TABLE "it's" (id int);
CREATE TABLE log_1 (id int);
CREATE TABLE log_2 (id int);
CREATE TABLE logx (id int);
CREATE TABLE audit.log_1 (id int);
CREATE TABLE audit.trail (id int);
CREATE VIEW summary AS SELECT count(*) FROM orders;
"""


def connection_to(server: Server, **more: object) -> Connection:
    return replace(Connection(login_unix_socket=str(server.socket_dir), login_port=server.port), **more)  # type: ignore[arg-type]


def over_tcp(server: Server, **more: object) -> Connection:
    return replace(Connection(login_host="127.0.0.1", login_port=server.port), **more)  # type: ignore[arg-type]


# --- reaching the right database, as the right role, whatever they are called ---


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_database_of_any_name_is_the_one_that_is_asked_and_dumped(
    debian_server: Server, fresh_database: NewDatabase, name: str, tmp_path: Path
) -> None:
    fresh_database(debian_server, name)
    debian_server.psql("CREATE TABLE only_here AS SELECT 1 AS id", name)
    connection = connection_to(debian_server)
    with pg.connect(connection, name) as session:
        assert session.row("SELECT current_database()::text") == (name,)
        assert name in [entry.name for entry in pg.databases(session) if entry.readable_name]
        assert pg.database_facts(session).name == name
    argv = commands.pg_dump(
        str(debian_server.bindir / "pg_dump"), connection, name, DumpOptions(), ResolvedCompression("none", 0), 15
    )
    environment = commands.environment(connection, None, str(tmp_path), SEARCH_PATH)
    archive = subprocess.run(argv, env=environment, capture_output=True, check=True).stdout
    reader = commands.pg_restore_read(str(debian_server.bindir / "pg_restore"))
    assert subprocess.run(reader, input=archive, env=environment, check=False).returncode == 0
    assert server_list(debian_server, archive) == {"public.only_here"}


@pytest.mark.parametrize("name", ["a=b", "it's", "back\\slash", "postgresql://127.0.0.1/postgres"])
def test_globals_are_dumped_by_way_of_a_database_of_any_name(
    server: Server, fresh_database: NewDatabase, name: str, tmp_path: Path
) -> None:
    fresh_database(server, name)
    connection = connection_to(server, login_db=name)
    argv = commands.pg_dumpall_globals(str(server.bindir / "pg_dumpall"), connection, True)
    environment = commands.environment(connection, None, str(tmp_path), SEARCH_PATH)
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert "CREATE ROLE postgres;" in done.stdout
    assert "PostgreSQL database cluster dump complete" in done.stdout


@pytest.mark.parametrize("password", PASSWORDS)
def test_any_password_that_a_file_can_hold_works_for_us_and_for_pg_dump(
    debian_server: Server, fresh_role: NewRole, tmp_path: Path, password: str
) -> None:
    role = fresh_role(debian_server, "LOGIN PASSWORD '{}'".format(password.replace("'", "''")))
    connection = over_tcp(debian_server, login_user=role, login_password=password)
    with pg.connect(connection) as session:
        assert session.row("SELECT current_user::text") == (role,)
    passfile = tmp_path / "passfile"
    passfile.touch(0o600)
    passfile.write_text(commands.passfile_line(password), encoding="utf-8")
    argv = commands.pg_dump(
        str(debian_server.bindir / "pg_dump"), connection, "postgres", DumpOptions(format="plain"),
        ResolvedCompression("none", 0), 15,
    )  # fmt: skip
    environment = commands.environment(connection, str(passfile), str(tmp_path), SEARCH_PATH)
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "PostgreSQL database dump complete" in done.stdout


@pytest.mark.parametrize("password", REFUSED_PASSWORDS)
def test_a_password_that_no_file_can_hold_is_refused_before_connecting(debian_server: Server, password: str) -> None:
    with (
        pytest.raises(ConfigurationError, match="line break or a NUL"),
        pg.connect(over_tcp(debian_server, login_password=password)),
    ):
        pass


def test_a_password_file_is_used_as_it_is(debian_server: Server, tmp_path: Path) -> None:
    passfile = tmp_path / "passfile"
    passfile.touch(0o600)
    passfile.write_text(commands.passfile_line(debian_server.password))
    with pg.connect(over_tcp(debian_server, passfile=str(passfile))) as session:
        assert session.host == "127.0.0.1"


def test_a_service_gives_what_the_options_leave_open(
    debian_server: Server, fresh_database: NewDatabase, tmp_path: Path
) -> None:
    name = fresh_database(debian_server)
    services = tmp_path / "services"
    services.write_text(
        f"[main]\nhost={debian_server.socket_dir}\nport={debian_server.port}\nuser=postgres\ndbname={name}\n"
    )
    connection = Connection(service="main", service_file=str(services))
    with pg.connect(connection) as session:
        assert session.row("SELECT current_database()::text") == (name,)
        assert session.database == name
    with pg.connect(connection, "postgres") as session:
        assert session.row("SELECT current_database()::text") == ("postgres",)
    assert "PGSERVICEFILE" not in os.environ


def test_our_own_environment_has_no_say(debian_server: Server) -> None:
    hostile = {
        "PGSERVICE": "nosuch", "PGHOSTADDR": "192.0.2.1", "PGOPTIONS": "-c nosuch=1", "PGDATABASE": "nosuch",
        "PGTARGETSESSIONATTRS": "read-only", "PGSSLMODE": "verify-full", "PGKEEP_TEST": "stays",
    }  # fmt: skip
    script = (
        "import os; from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import process, server;"
        " from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import Connection;"
        " process.scrub_environment(os.environ);"
        f" link = server.connect(Connection(login_unix_socket='{debian_server.socket_dir}',"
        f" login_port={debian_server.port}));"
        " print(link.__enter__().database, os.environ['PGKEEP_TEST'])"
    )
    environment = {**os.environ, **hostile, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["postgres", "stays"], done.stderr


# --- a session can do no harm ---


def test_a_session_reads_only_and_sees_no_schema_unless_named(server: Server) -> None:
    with pg.connect(connection_to(server)) as session:
        assert session.row("SELECT current_setting('search_path'), current_setting('statement_timeout')") == (
            '""',
            "1min",
        )
        with pytest.raises(ServerError, match="read-only transaction"):
            session.rows("CREATE TABLE public.t ()")


def test_a_session_switches_to_the_role_asked_for(debian_server: Server, fresh_role: NewRole) -> None:
    group, role = fresh_role(debian_server, "NOLOGIN"), fresh_role(debian_server)
    debian_server.psql(f"GRANT {group} TO {role}")
    with pg.connect(connection_to(debian_server, login_user=role, session_role=group)) as session:
        assert pg.server_facts(session).role == group
    with (
        pytest.raises(ServerError, match="check session_role"),
        pg.connect(connection_to(debian_server, login_user=role, session_role="postgres")),
    ):
        pass


def test_a_statement_that_takes_too_long_is_an_error(debian_server: Server) -> None:
    with pg.connect(connection_to(debian_server)) as session:
        session.rows("SET statement_timeout = '10ms'")
        with pytest.raises(ServerError, match="database 'postgres': the server stopped the query"):
            session.rows("SELECT pg_sleep(5)")


def test_a_connection_that_goes_away_is_an_error(debian_server: Server) -> None:
    with pg.connect(connection_to(debian_server)) as session:
        pid = session.row("SELECT pg_backend_pid()")[0]
        debian_server.psql(f"SELECT pg_terminate_backend({pid})")
        with pytest.raises(ServerError, match=r"database 'postgres': the server (says: terminating|went away)"):
            session.rows("SELECT 1")


# --- what went wrong, where, and what to do ---


def refused(connection: Connection, database: str | None = None) -> str:
    with pytest.raises(ServerError) as caught, pg.connect(connection, database):
        pass
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_no_server_says_what_to_check(tmp_path: Path) -> None:
    said = refused(Connection(login_unix_socket=str(tmp_path)))
    assert said.startswith("cannot connect to database 'postgres': connection to server on socket")
    assert said.endswith("is the server running? check login_host, login_port and login_unix_socket")


def test_a_closed_port_says_what_to_check() -> None:
    assert refused(Connection(login_host="127.0.0.1", login_port=1)).endswith("login_port and login_unix_socket")


def test_a_wrong_password_says_so_and_never_what_it_was(server: Server) -> None:
    said = refused(over_tcp(server, login_password="wrong s3cret"))
    assert "password authentication failed" in said
    assert said.endswith(
        "check login_user and login_password, or the passfile (libpq ignores one that others may read)"
    )
    assert "s3cret" not in said


def test_no_password_at_all_says_so(server: Server, tmp_path: Path) -> None:
    said = refused(over_tcp(server, passfile=str(tmp_path / "nosuch")))
    assert "check login_user and login_password" in said


@pytest.mark.parametrize(
    ("options", "database", "advice"),
    [
        ({}, "no such 'database'", "check the name of the database"),
        ({"login_user": "nobody at all"}, None, "check login_user"),
        ({"service": "nosuch", "service_file": "/dev/null"}, None, "check service and service_file"),
        ({"ssl_mode": "require", "tcp": True}, None, "check ssl_mode"),
        ({"tcp": True, "login_host": "nosuch.invalid"}, None, "check login_host"),
    ],
)
def test_each_refusal_has_its_advice(
    debian_server: Server, options: dict[str, object], database: str | None, advice: str
) -> None:
    given = dict(options)
    connect_by = over_tcp if given.pop("tcp", False) else connection_to
    assert advice in refused(connect_by(debian_server, connect_timeout=timedelta(seconds=5), **given), database)


def test_a_database_without_connect_says_which_privilege_is_missing(
    server: Server, fresh_role: NewRole, fresh_database: NewDatabase
) -> None:
    role, name = fresh_role(server), fresh_database(server)
    server.psql(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")
    assert "GRANT CONNECT" in refused(connection_to(server, login_user=role), name)
    with pg.connect(connection_to(server, login_user=role)) as session:
        (entry,) = [entry for entry in pg.databases(session) if entry.name == name]
    assert not entry.can_connect
    assert entry.size is None


# --- TLS: what is asked for, or nothing ---


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server with TLS and the certificate that it can be verified with."""
    installation = find_installation(CELERP)
    if installation is None:
        pytest.skip("no PostgreSQL server with TLS is installed")
    with Server(installation, tcp=True) as server:
        # Made next to the data, so that they belong to whom the server runs as; it insists on that.
        certificate, key = server.data_dir / "server.crt", server.data_dir / "server.key"
        subject = ("-subj", "/CN=db.example.com", "-addext", "subjectAltName=IP:127.0.0.1")
        subprocess.run(
            ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject,
             "-out", certificate, "-keyout", key),
            capture_output=True, check=True,
        )  # fmt: skip
        for path in (certificate, key):
            shutil.chown(path, server.data_dir.stat().st_uid, server.data_dir.stat().st_gid)
        key.chmod(0o600)
        public = tmp_path_factory.mktemp("tls") / "ca.crt"
        shutil.copyfile(certificate, public)
        server.psql("ALTER SYSTEM SET ssl = on")
        server.psql("SELECT pg_reload_conf()")
        yield server, public


@pytest.mark.needs_programs("openssl")
def test_tls_is_verified_by_us_and_by_pg_dump(tls_server: tuple[Server, Path], tmp_path: Path) -> None:
    server, certificate = tls_server
    verified = over_tcp(server, login_password=server.password, ssl_mode="verify-full", ca_cert=str(certificate))
    with pg.connect(verified) as session:
        assert session.row("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == (True,)
    assert dumped(server, verified, tmp_path).returncode == 0


@pytest.mark.needs_programs("openssl")
@pytest.mark.parametrize(
    "options", [{"ca_cert": "/etc/hostname"}, {"ca_cert": "/nonexistent"}, {"login_host": "localhost"}]
)
def test_tls_that_cannot_be_verified_is_a_failure_of_both(
    tls_server: tuple[Server, Path], tmp_path: Path, options: dict[str, str]
) -> None:
    server, certificate = tls_server
    given = {"login_password": server.password, "ssl_mode": "verify-full", "ca_cert": str(certificate), **options}
    unverified = over_tcp(server, **given)
    assert "check ssl_mode, ca_cert" in refused(unverified)
    assert dumped(server, unverified, tmp_path).returncode == 1


def dumped(server: Server, connection: Connection, home: Path) -> subprocess.CompletedProcess[bytes]:
    """Dump the database postgres with a password file made for it, and return how that went."""
    passfile = home / "passfile"
    passfile.touch(0o600)
    passfile.write_text(commands.passfile_line(server.password))
    none = ResolvedCompression("none", 0)
    argv = commands.pg_dump(str(server.bindir / "pg_dump"), connection, "postgres", DumpOptions(), none, server.major)
    environment = commands.environment(connection, str(passfile), str(home), SEARCH_PATH)
    return subprocess.run(argv, env=environment, capture_output=True, check=False)


# --- facts ---


def test_the_server_says_what_it_and_the_role_are(server: Server, fresh_role: NewRole) -> None:
    with pg.connect(connection_to(server)) as session:
        facts = pg.server_facts(session)
    assert facts.major == server.major
    assert facts.version.startswith(f"{server.major}.")
    assert facts.role == "postgres"
    assert facts.is_superuser
    assert facts.can_read_authid
    assert not facts.is_standby
    assert facts.lock_slots == 64 * 100
    assert facts.system_identifier == server.psql("SELECT system_identifier FROM pg_control_system()")
    with pg.connect(connection_to(server, login_user=fresh_role(server))) as session:
        facts = pg.server_facts(session)
    assert not facts.is_superuser
    assert not facts.bypasses_rls
    assert not facts.can_read_authid


def test_a_hidden_system_identifier_is_none_and_no_failure(
    server: Server, fresh_role: NewRole, fresh_database: NewDatabase
) -> None:
    role, name = fresh_role(server), fresh_database(server)
    server.psql("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC", name)
    with pg.connect(connection_to(server, login_user=role), name) as session:
        assert pg.server_facts(session).system_identifier is None


def test_every_database_is_listed_also_those_that_cannot_be_dumped(server: Server, fresh_database: NewDatabase) -> None:
    closed, invalid = fresh_database(server), fresh_database(server)
    server.psql(f"ALTER DATABASE {closed} ALLOW_CONNECTIONS false")
    server.psql(f"UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{invalid}'")
    with pg.connect(connection_to(server)) as session:
        entries = {entry.name: entry for entry in pg.databases(session)}
    assert list(entries) == sorted(entries)
    assert entries["template1"].is_template
    assert not entries["template0"].allow_connections
    assert not entries[closed].allow_connections
    assert entries[invalid].invalid
    assert entries["postgres"].size is not None
    assert entries["postgres"].size > 1_000_000
    assert entries["postgres"].owner == "postgres"


def test_a_name_that_is_no_utf_8_is_listed_as_unreadable(server: Server, fresh_database: NewDatabase) -> None:
    # As a LATIN1 database next to it would create it; no statement from here can write such bytes.
    name = fresh_database(server)
    latin = fresh_database(server)
    server.psql(f"DROP DATABASE {latin}; CREATE DATABASE {latin} ENCODING LATIN1 TEMPLATE template0")
    server.psql(f'ALTER DATABASE {name} RENAME TO "{name}\u00e9"', latin)
    try:
        with pg.connect(connection_to(server)) as session:
            (entry,) = [entry for entry in pg.databases(session) if entry.name.startswith(name)]
        assert not entry.readable_name
        assert entry.name == name + "\\xe9"
    finally:
        server.psql(f'ALTER DATABASE "{name}\u00e9" RENAME TO {name}', latin)


def test_a_database_says_what_its_archive_does_not_hold(
    server: Server, fresh_role: NewRole, fresh_database: NewDatabase
) -> None:
    owner, reader, name = fresh_role(server), fresh_role(server), fresh_database(server)
    server.psql(f"""
        ALTER DATABASE {name} OWNER TO {owner};
        GRANT CONNECT ON DATABASE {name} TO {reader} WITH GRANT OPTION;
        ALTER DATABASE {name} SET work_mem = '7MB';
        ALTER DATABASE {name} SET search_path = "$user", audit;
        ALTER ROLE {reader} IN DATABASE {name} SET application_name = 'a=b';
        ALTER DATABASE {name} CONNECTION LIMIT 9;
        COMMENT ON DATABASE {name} IS 'it''s ours';
    """)
    server.psql(
        f"CREATE TABLE public.t (id serial); CREATE VIEW public.v AS SELECT 1; SELECT lo_create(0);"
        f" GRANT SELECT ON public.t TO {reader}",
        name,
    )
    with pg.connect(connection_to(server), name) as session:
        facts = pg.database_facts(session)
    assert (facts.name, facts.owner, facts.encoding, facts.collate, facts.ctype) == (name, owner, "UTF8", "C", "C")
    assert (facts.locale_provider, facts.locale, facts.icu_rules, facts.tablespace) == (
        "libc",
        None,
        None,
        "pg_default",
    )
    assert (facts.connection_limit, facts.is_template, facts.comment) == (9, False, "it's ours")
    assert facts.acl is not None
    assert {"grantor": owner, "grantee": reader, "privilege": "CONNECT", "grantable": True} in facts.acl
    assert {"grantor": owner, "grantee": None, "privilege": "TEMPORARY", "grantable": False} in facts.acl
    assert facts.settings == (
        {"role": None, "name": "work_mem", "value": "7MB"},
        {"role": None, "name": "search_path", "value": '"$user", audit'},
        {"role": reader, "name": "application_name", "value": "a=b"},
    )
    assert [extension["name"] for extension in facts.extensions] == ["plpgsql"]
    assert facts.extensions[0]["schema"] == "pg_catalog"
    assert set(facts.roles) == {owner, reader, "postgres"}
    assert facts.tablespaces == ()
    assert (facts.tables, facts.large_objects, facts.subscriptions) == (1, 1, 0)
    assert facts.relations == 3  # table, sequence, view
    assert facts.size > 1_000_000
    assert properties(facts)["acl"] == list(facts.acl)
    assert "name" not in properties(facts)


def test_a_database_with_default_rights_has_no_acl(server: Server, fresh_database: NewDatabase) -> None:
    with pg.connect(connection_to(server), fresh_database(server)) as session:
        assert pg.database_facts(session).acl is None


def test_other_providers_and_encodings_are_told(server: Server, fresh_database: NewDatabase) -> None:
    name = fresh_database(server)
    expected = ("builtin", "C.UTF-8") if server.major >= 17 else ("icu", "de-AT")
    kind = "BUILTIN" if server.major >= 17 else "ICU"
    server.psql(
        f"DROP DATABASE {name}; CREATE DATABASE {name} TEMPLATE template0"
        f" LOCALE_PROVIDER {kind} {kind}_LOCALE '{expected[1]}' ENCODING UTF8"
    )
    with pg.connect(connection_to(server), name) as session:
        facts = pg.database_facts(session)
    assert (facts.locale_provider, facts.locale) == expected
    assert bool(facts.collation_version) or server.major >= 17


def test_names_in_an_ascii_database_may_be_any_bytes(server: Server, fresh_database: NewDatabase) -> None:
    name = fresh_database(server)
    server.psql(f"DROP DATABASE {name}; CREATE DATABASE {name} ENCODING SQL_ASCII TEMPLATE template0")
    server.psql(
        "DO $$ BEGIN EXECUTE format('CREATE TABLE public.%I (id int)',"
        " 'caf' || convert_from('\\xe9', 'SQL_ASCII')); END $$",
        name,
    )
    with pg.connect(connection_to(server), name) as session:
        (match,) = pg.resolve_patterns(session, DumpOptions(tables=("caf*",))).items
        assert match.names == ("public.caf\\xe9",)
        assert pg.database_facts(session).tables == 1


# --- patterns: ours against pg_dump's own ---


PATTERNS = (
    "orders", "ORDERS", '"Orders"', "orders*", "log_?", "log_[12]", "log*", "*.log_1", "audit.*", "aud*.log_*", '"a.b"',
    'public."a.b"', '"do$llar"', "do$llar", "summary", "it's", "(orders|logx)", "orders_id_seq",
)  # fmt: skip


@pytest.mark.parametrize("path", [None, "audit, public", "public, pg_catalog"])
def test_a_pattern_matches_what_pg_dump_matches(
    server: Server, fresh_database: NewDatabase, tmp_path: Path, path: str | None
) -> None:
    name = fresh_database(server)
    server.psql(SHOP, name)
    if path:
        server.psql(f"ALTER DATABASE {name} SET search_path = {path}")
    connection = connection_to(server)
    environment = commands.environment(connection, None, str(tmp_path), SEARCH_PATH)
    for pattern in PATTERNS:
        options = DumpOptions(tables=(pattern,))
        with pg.connect(connection, name) as session:
            ours = set(pg.resolve_patterns(session, options).names("tables"))
            assert session.row("SELECT current_setting('search_path')") == ('""',)
        argv = commands.pg_dump(
            str(server.bindir / "pg_dump"), connection, name, options, ResolvedCompression("none", 0), server.major
        )
        archive = subprocess.run(argv, env=environment, capture_output=True, check=True).stdout
        listing = server_list(server, archive)
        # A serial column's sequence comes with its table, matched or not.
        assert listing - {"public.orders_id_seq"} == ours - {"public.orders_id_seq"}, pattern
        assert ("public.orders_id_seq" in listing) >= ("public.orders_id_seq" in ours), pattern


def server_list(server: Server, archive: bytes) -> set[str]:
    """Given an archive, return its tables, views and sequences as schema.name."""
    argv = [str(server.bindir / "pg_restore"), "--list"]
    listing = subprocess.run(argv, input=archive, capture_output=True, check=True).stdout.decode()
    found = re.findall(
        r"^\d+; \d+ \d+ (?:TABLE|VIEW|SEQUENCE) (?!DATA|SET|OWNED)(\S+) (\S+) \S+$", listing, re.MULTILINE
    )
    return {f"{schema}.{name}" for schema, name in found}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (DumpOptions(tables=("ordrs",)), ["tables has the pattern 'ordrs'", "did you mean", "public.orders"]),
        (DumpOptions(exclude_tables=("trail",)), ["exclude_tables", "did you mean audit.trail?"]),
        (DumpOptions(exclude_table_data=("orders", "nosuch.orders")), ["exclude_table_data", "'nosuch.orders'"]),
        (DumpOptions(schemas=("audot",)), ["schemas", "matches no schema", "did you mean audit?"]),
        (DumpOptions(exclude_schemas=("Audit_",)), ["exclude_schemas", "did you mean audit?"]),
        (
            DumpOptions(tables=("p*",)),
            ["tables has the pattern 'p*', which also matches tables pg_catalog.p", "public.p*"],
        ),
        (
            DumpOptions(schemas=("*",)),
            ["schemas has the pattern '*'", "information_schema", "name the schemas one by one"],
        ),
        (
            DumpOptions(exclude_tables=("pg_class",)),
            ["exclude_tables has the pattern 'pg_class', which matches no table"],
        ),
        (DumpOptions(tables=("other.public.orders",)), ["names another database than"]),
        (DumpOptions(tables=("(orders",)), ["tables has the pattern '(orders', which cannot be used", "parentheses"]),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error_with_a_hint(
    server: Server, fresh_database: NewDatabase, options: DumpOptions, words: list[str]
) -> None:
    name = fresh_database(server)
    server.psql(SHOP, name)
    with pg.connect(connection_to(server), name) as session:
        with pytest.raises(ConfigurationError) as caught:
            pg.resolve_patterns(session, options)
        assert session.row("SELECT current_setting('search_path')") == ('""',)
    for word in words:
        assert word in str(caught.value)


def test_a_pattern_may_name_its_own_database(server: Server, fresh_database: NewDatabase) -> None:
    name = fresh_database(server)
    server.psql(SHOP, name)
    with pg.connect(connection_to(server), name) as session:
        matches = pg.resolve_patterns(session, DumpOptions(tables=(f"{name}.audit.trail",), schemas=(f"{name}.audit",)))
    assert matches.names("tables") == ["audit.trail"]
    assert matches.names("schemas") == ["audit"]
