# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading what pg_dumpall writes of roles and tablespaces. The samples are its own, of PostgreSQL 15 and 18."""

from __future__ import annotations

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.database_sql import (
    quote_identifier,
    quote_literal,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.globals import (
    FLAGS,
    Globals,
    Membership,
    Privilege,
    Role,
    Tablespace,
    parse,
    shown,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.script import ScriptError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hostile import HOSTILE_NAMES, PASSWORDS

HEAD = r"""--
-- PostgreSQL database cluster dump
--

\restrict bFEfSSF5clTNA7KtmgG1XlyIP75mfvFztEpbincsEdlcQZnz1Abk0SyI300I3tN

SET default_transaction_read_only = off;

SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;

"""
FOOT = r"""
\unrestrict bFEfSSF5clTNA7KtmgG1XlyIP75mfvFztEpbincsEdlcQZnz1Abk0SyI300I3tN

--
-- PostgreSQL database cluster dump complete
--
"""
PLAIN = "WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB NOLOGIN NOREPLICATION NOBYPASSRLS"
ADMIN = "WITH SUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION NOBYPASSRLS"
APP = "WITH NOSUPERUSER NOINHERIT CREATEROLE CREATEDB LOGIN REPLICATION BYPASSRLS"
ROLES = rf"""
CREATE ROLE admin;
ALTER ROLE admin {ADMIN} PASSWORD 'SCRAM-SHA-256$4096:a+b/c==$d=:e=';
CREATE ROLE app;
ALTER ROLE app {APP} CONNECTION LIMIT 5 VALID UNTIL '2030-01-01 00:00:00+00';
COMMENT ON ROLE app IS E'it''s the app; really \\ back';
SECURITY LABEL FOR selinux ON ROLE app IS 'secret';
CREATE ROLE "it's; ""quoted"" é
line";
ALTER ROLE "it's; ""quoted"" é
line" {PLAIN};

--
-- User Config "app"
--

ALTER ROLE app SET search_path TO '$user', 'public';
ALTER ROLE app SET "myapp.thing" TO E'it''s; \\x';
ALTER ROLE app SET temp_tablespaces TO '';
"""
REST_OF_15 = r"""
GRANT app TO app_inf GRANTED BY boss;
GRANT app TO boss WITH ADMIN OPTION GRANTED BY postgres;
GRANT pg_read_all_data TO app;

GRANT SET ON PARAMETER "myapp.foo" TO PUBLIC;
GRANT ALL ON PARAMETER work_mem TO app WITH GRANT OPTION;
SET SESSION AUTHORIZATION app;
GRANT SET ON PARAMETER work_mem TO boss;
RESET SESSION AUTHORIZATION;
REVOKE ALL ON PARAMETER work_mem FROM postgres;

CREATE TABLESPACE "fast ""x" OWNER app LOCATION '/tmp/ts';
ALTER TABLESPACE "fast ""x" SET (random_page_cost=1.1, seq_page_cost=2);
GRANT ALL ON TABLESPACE "fast ""x" TO boss WITH GRANT OPTION;
SET SESSION AUTHORIZATION boss;
GRANT ALL ON TABLESPACE "fast ""x" TO repl;
RESET SESSION AUTHORIZATION;
COMMENT ON TABLESPACE "fast ""x" IS 'c';
CREATE TABLESPACE inplace OWNER postgres LOCATION 'pg_tblspc/16392';
REVOKE ALL ON TABLESPACE inplace FROM postgres;
GRANT ALL ON TABLESPACE inplace TO app;
"""
REST_OF_18 = r"""
GRANT app TO boss WITH ADMIN OPTION, INHERIT FALSE GRANTED BY postgres;
GRANT app TO repl WITH INHERIT FALSE, SET FALSE GRANTED BY postgres;
GRANT app TO app_inf WITH INHERIT TRUE GRANTED BY boss;
"""


def whole(text: str) -> bytes:
    """Given statements, return the script that holds them."""
    return (HEAD + text + FOOT).encode()


def test_roles_are_read_with_all_that_is_said_of_them() -> None:
    found = parse(whole(ROLES))
    assert found.roles == (
        Role("admin", superuser=True, login=True, password="SCRAM-SHA-256$4096:a+b/c==$d=:e="),
        Role(
            "app",
            inherit=False,
            createrole=True,
            createdb=True,
            login=True,
            replication=True,
            bypassrls=True,
            connection_limit=5,
            valid_until="2030-01-01 00:00:00+00",
            settings=(
                ("search_path", ("$user", "public")),
                ("myapp.thing", ("it's; \\x",)),
                ("temp_tablespaces", ("",)),
            ),
            comment="it's the app; really \\ back",
            labels=(("selinux", "secret"),),
        ),
        Role('it\'s; "quoted" é\nline'),
    )
    assert found.unknown == ()
    assert found.has_passwords
    assert not parse(whole(ROLES.replace("PASSWORD", "VALID UNTIL"))).has_passwords


def test_memberships_of_before_and_after_version_16() -> None:
    assert parse(whole(REST_OF_15)).memberships == (
        Membership("app", "app_inf", "boss"),
        Membership("app", "boss", "postgres", admin=True),
        Membership("pg_read_all_data", "app"),
    )
    assert parse(whole(REST_OF_18)).memberships == (
        Membership("app", "boss", "postgres", admin=True, inherit=False),
        Membership("app", "repl", "postgres", inherit=False, set=False),
        Membership("app", "app_inf", "boss", inherit=True),
    )


def test_tablespaces_and_parameters_with_who_granted_what() -> None:
    found = parse(whole(REST_OF_15))
    fast = 'fast "x'
    assert found.unknown == ()
    assert found.tablespaces == (
        Tablespace(
            fast,
            "app",
            "/tmp/ts",
            (("random_page_cost", "1.1"), ("seq_page_cost", "2")),
            privileges=(Privilege(fast, "CREATE", "boss", True), Privilege(fast, "CREATE", "repl", False, "boss")),
            comment="c",
        ),
        Tablespace(
            "inplace",
            "postgres",
            "pg_tblspc/16392",
            owner_revoked=True,
            privileges=(Privilege("inplace", "CREATE", "app"),),
        ),
    )
    assert found.parameters == (
        Privilege("myapp.foo", "SET", None),
        Privilege("work_mem", "SET", "app", True),
        Privilege("work_mem", "ALTER SYSTEM", "app", True),
        Privilege("work_mem", "SET", "boss", False, "app"),
    )


def test_names_that_are_words_of_the_language() -> None:
    text = "".join(f"CREATE ROLE {name};\nGRANT {name} TO {name};\n" for name in ("set", "alter", "admin", "role"))
    found = parse(whole(text))
    assert [role.name for role in found.roles] == ["set", "alter", "admin", "role"]
    assert [item.role for item in found.memberships] == ["set", "alter", "admin", "role"]
    assert found.unknown == ()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DROP ROLE IF EXISTS app;", "DROP ROLE IF ..."),
        ("CREATE USER MAPPING FOR app SERVER s OPTIONS (password 'geheim');", "CREATE USER MAPPING ..."),
        ("ALTER ROLE app IN DATABASE shop SET work_mem TO '1MB';", "ALTER ROLE ..."),
        ("ALTER ROLE nobody WITH PASSWORD 'geheim';", "ALTER ROLE ..."),
        ("ALTER ROLE app WITH ENCRYPTED PASSWORD 'geheim';", "ALTER ROLE ..."),
        ("ALTER ROLE app SET work_mem TO DEFAULT;", "ALTER ROLE ..."),
        (r"ALTER ROLE app WITH PASSWORD E'\x41';", "ALTER ROLE ..."),
        ("ALTER ROLE app WITH LOGIN -- or not\n;", "ALTER ROLE ..."),
        ("CREATE ROLE app;", "CREATE ROLE ..."),
        ("GRANT CREATE ON DATABASE shop TO app;", "GRANT CREATE ON ..."),
        ("GRANT CREATE ON TABLESPACE nowhere TO app;", "GRANT CREATE ON ..."),
        ("GRANT app, boss TO repl;", "GRANT ..."),
        ("REVOKE app FROM boss;", "REVOKE ..."),
        ("COMMENT ON ROLE nobody IS 'x';", "COMMENT ON ROLE ..."),
        ("SECURITY LABEL FOR p ON DATABASE d IS 'x';", "SECURITY LABEL FOR ..."),
        ("ALTER TABLESPACE nowhere SET (a=1);", "ALTER TABLESPACE ..."),
        ("SELECT pg_read_file('/etc/passwd');", "SELECT ..."),
        ("drop role app;", "(no SQL)"),
        (";", "(no SQL)"),
    ],
)
def test_what_is_not_understood_is_kept_and_said_without_what_may_be_secret(statement: str, words: str) -> None:
    found = parse(whole(f"CREATE ROLE app;\n{statement}\nCREATE ROLE boss;\n"))
    assert found.unknown == (statement,)
    assert found.roles == (Role("app"), Role("boss"))
    assert shown(statement) == words
    assert "geheim" not in repr(found)


def test_a_script_in_another_encoding() -> None:
    text = HEAD.replace("UTF8", "LATIN1") + 'CREATE ROLE "Bärbel";' + FOOT
    assert parse(text.encode("latin-1")).roles == (Role("Bärbel"),)
    # In these a letter's second byte can be a backslash, or a quote's neighbour.
    text = HEAD.replace("UTF8", "SJIS") + 'CREATE ROLE "表";\nCOMMENT ON ROLE "表" IS \'ソ\';' + FOOT
    assert parse(text.encode("cp932")).roles == (Role("表", comment="ソ"),)
    assert parse(whole('CREATE ROLE "é";').replace(b"'UTF8'", b"'SQL_ASCII'")).roles == (Role("é"),)


@pytest.mark.parametrize("encoding", ["UTF8", "SQL_ASCII"])
def test_names_that_are_no_text_are_refused(encoding: str) -> None:
    text = HEAD.replace("UTF8", encoding) + 'CREATE ROLE "B\xe4rbel";' + FOOT
    with pytest.raises(ScriptError, match=f"not valid in its encoding {encoding}"):
        parse(text.encode("latin-1"))


@pytest.mark.parametrize("encoding", ["MULE_INTERNAL", "utf-16", "idna"])
def test_an_encoding_that_is_not_known_is_refused(encoding: str) -> None:
    with pytest.raises(ScriptError, match="is not known here"):
        parse((HEAD.replace("UTF8", encoding) + FOOT).encode())


def test_strings_as_servers_with_the_old_setting_write_them() -> None:
    text = HEAD.replace("strings = on", "strings = off") + "CREATE ROLE a;\nCOMMENT ON ROLE a IS 'b\\\\c''d\\'';" + FOOT
    assert parse(text.encode()).roles == (Role("a", comment="b\\c'd'"),)


def test_a_script_that_is_cut_is_refused() -> None:
    with pytest.raises(ScriptError):
        parse((HEAD + "CREATE ROLE app").encode())


def test_no_password_is_in_what_is_printed() -> None:
    script = parse(whole("CREATE ROLE a WITH PASSWORD 'geheim';\nALTER ROLE a SET \"my.key\" TO 'geheim';"))
    assert script.roles[0].password == "geheim"
    assert "geheim" not in repr(script)


# --- whatever the names are ---

names = st.one_of(
    st.sampled_from(HOSTILE_NAMES),
    st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=30),
)
texts = st.one_of(
    st.sampled_from(PASSWORDS), st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)))
)
roles = st.builds(
    Role,
    names,
    **{flag.lower(): st.booleans() for flag in FLAGS},
    connection_limit=st.integers(-1, 10**6),
    valid_until=st.none() | st.just("2030-01-01 00:00:00+00"),
    password=st.none() | texts,
    settings=st.lists(
        st.tuples(names, st.lists(texts, min_size=1, max_size=3).map(tuple)), unique_by=lambda s: s[0].lower()
    ).map(tuple),
    comment=st.none() | texts,
    labels=st.lists(st.tuples(names, texts), max_size=1).map(tuple),
)
memberships = st.builds(
    Membership, names, names, st.none() | names, st.booleans(), st.none() | st.booleans(), st.booleans()
)
parameters = st.builds(
    Privilege, names, st.sampled_from(("SET", "ALTER SYSTEM")), st.none() | names, st.booleans(), st.none() | names
)


def written_role(role: Role) -> list[str]:
    """Given a role, return what pg_dumpall writes of it."""
    name = quote_identifier(role.name)
    flags = " ".join(("" if getattr(role, flag.lower()) else "NO") + flag for flag in FLAGS)
    limit = f" CONNECTION LIMIT {role.connection_limit}" if role.connection_limit != -1 else ""
    password = f" PASSWORD {quote_literal(role.password)}" if role.password is not None else ""
    until = f" VALID UNTIL '{role.valid_until}'" if role.valid_until else ""
    labels = [
        f"SECURITY LABEL FOR {quote_identifier(provider)} ON ROLE {name} IS {quote_literal(label)};"
        for provider, label in role.labels
    ]
    return [
        f"CREATE ROLE {name};",
        f"ALTER ROLE {name} WITH {flags}{limit}{password}{until};",
        *([f"COMMENT ON ROLE {name} IS {quote_literal(role.comment)};"] if role.comment is not None else []),
        *labels,
        *(
            f"ALTER ROLE {name} SET {quote_identifier(setting)} TO {', '.join(map(quote_literal, values))};"
            for setting, values in role.settings
        ),
    ]


def written_membership(item: Membership) -> list[str]:
    options = [
        *(["ADMIN OPTION"] if item.admin else []),
        *([f"INHERIT {str(item.inherit).upper()}"] if item.inherit is not None else []),
        *([] if item.set else ["SET FALSE"]),
    ]
    said = f" WITH {', '.join(options)}" if options else ""
    by = f" GRANTED BY {quote_identifier(item.grantor)}" if item.grantor is not None else ""
    return [f"GRANT {quote_identifier(item.role)} TO {quote_identifier(item.member)}{said}{by};"]


def written_parameter(item: Privilege) -> list[str]:
    to = "PUBLIC" if item.grantee is None else quote_identifier(item.grantee)
    option = " WITH GRANT OPTION" if item.grantable else ""
    given = f"GRANT {item.privilege} ON PARAMETER {quote_identifier(item.target)} TO {to}{option};"
    if item.grantor is None:
        return [given]
    return [f"SET SESSION AUTHORIZATION {quote_identifier(item.grantor)};", given, "RESET SESSION AUTHORIZATION;"]


def written(script: Globals) -> bytes:
    """Given globals without tablespaces, return a script that says them."""
    statements = [
        *(statement for role in script.roles for statement in written_role(role)),
        *(statement for item in script.memberships for statement in written_membership(item)),
        *(statement for item in script.parameters for statement in written_parameter(item)),
    ]
    return whole("\n".join(statements))


scripts = st.builds(
    Globals,
    st.lists(roles, max_size=4, unique_by=lambda role: role.name).map(tuple),
    st.lists(memberships, max_size=4).map(tuple),
    parameters=st.lists(parameters, max_size=4).map(tuple),
)


@settings(deadline=None)
@given(scripts)
def test_each_statement_is_found_once_whatever_the_names_are(script: Globals) -> None:
    assert parse(written(script)) == script


@settings(deadline=None)
@given(st.text(alphabet="abAR;'\"\\$\n E-,=()", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse(whole(text))
    except ScriptError:
        return
    assert found.memberships == found.parameters == found.tablespaces == found.roles == ()
