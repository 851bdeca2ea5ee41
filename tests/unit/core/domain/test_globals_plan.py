# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What restoring globals would change. That the statements do what they say is shown on real servers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.facts import ServerFacts
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.globals import (
    Globals,
    GlobalsFacts,
    Membership,
    Privilege,
    Role,
    Tablespace,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.globals_plan import (
    Change,
    Plan,
    differences,
    plan,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from .test_globals import roles, scripts

BOSS = Role("postgres", superuser=True, createrole=True, createdb=True, login=True, replication=True, bypassrls=True)
APP = Role("app", login=True, password="verifier", settings=(("work_mem", ("7MB",)),), comment="the app")
PLAIN = Role("plain")
ME = Role("me", login=True, createrole=True)


def server(*there: Role, major: int = 17, me: Role = BOSS, **more: Any) -> GlobalsFacts:
    """Given the roles that are there, return a server."""
    facts = ServerFacts("", major * 10000, me.name, me.superuser, False, me.superuser, False, 0)
    known = {role.name: role for role in (BOSS, me, *there, Role("pg_monitor"))}
    admin_of = frozenset(known) if me.superuser else more.pop("admin_of", frozenset())
    made = GlobalsFacts(facts, "postgres", me.superuser, known, admin_of, (), {}, ())
    return replace(made, **more)


def script(*wanted: Role, **more: Any) -> Globals:
    return Globals(wanted, **more)


def shape(found: Plan) -> list[tuple[str, str, str]]:
    return [(change.kind, change.name, change.action) for change in found.changes]


def statements(found: Plan) -> list[str]:
    return [statement for change in found.changes for statement in change.statements]


# --- roles ---


def test_a_missing_role_is_created_with_all_that_belongs_to_it() -> None:
    found = plan(script(replace(APP, labels=(("p", "l"),))), server())
    assert found.changes == (
        Change(
            "role",
            "app",
            "create",
            ("login: yes", "password", "setting work_mem: 7MB", "comment", "security label of p"),
            (
                "CREATE ROLE \"app\" WITH LOGIN PASSWORD 'verifier'",
                'ALTER ROLE "app" SET "work_mem" TO \'7MB\'',
                "COMMENT ON ROLE \"app\" IS 'the app'",
                'SECURITY LABEL FOR "p" ON ROLE "app" IS \'l\'',
            ),
            secrets=("verifier",),
        ),
    )
    assert (found.changed, found.created_roles) == (True, {"app"})
    assert found.changes[0].text.startswith("create role 'app' (login: yes; password; ")
    assert "verifier" not in repr(found)
    assert "verifier" not in repr([change.to_json() for change in found.changes])


def test_an_equal_role_is_no_change() -> None:
    assert plan(script(APP), server(APP)) == Plan((), (), (), True)


def test_a_different_role_is_left_and_what_differs_is_said() -> None:
    old = Role("app", inherit=False, login=True, password="old", settings=(("Work_Mem", ("1MB",)), ("my.key", ("x",))))
    found = plan(script(APP), server(old))
    expected = ("inherit: no -> yes", "password", "setting work_mem: 1MB -> 7MB", "setting my.key", "comment")
    assert found.changes == (Change("role", "app", "leave", expected),)
    assert not found.changed
    (update,) = plan(script(APP), server(old), update=True).changes
    assert (update.action, update.details) == ("update", expected)
    assert update.statements == (
        "ALTER ROLE \"app\" WITH INHERIT PASSWORD 'verifier'",
        'ALTER ROLE "app" SET "work_mem" TO \'7MB\'',
        'ALTER ROLE "app" RESET "my.key"',
        "COMMENT ON ROLE \"app\" IS 'the app'",
    )


def test_what_the_backup_does_not_have_is_taken_away_by_an_update() -> None:
    old = Role(
        "plain", superuser=True, connection_limit=3, valid_until="2030-01-01 00:00:00+00", password="p", comment="c"
    )
    (change,) = plan(script(PLAIN, APP), server(old, APP), update=True).changes
    assert change.statements == (
        "ALTER ROLE \"plain\" WITH NOSUPERUSER CONNECTION LIMIT -1 VALID UNTIL 'infinity' PASSWORD NULL",
        'COMMENT ON ROLE "plain" IS NULL',
    )
    assert "password: set -> none" in change.details
    (change,) = plan(script(PLAIN), server(old), update=True).changes
    assert "PASSWORD" not in change.statements[0], "a backup without any password says nothing about this one"


def test_passwords_that_cannot_be_read_are_left_and_that_is_said() -> None:
    found = plan(script(APP), server(replace(APP, password=None), me=ME), update=True)
    assert found.changes == ()
    assert found.warnings == ("role 'me' may not read passwords: those of roles that exist were not compared and stay",)


def test_a_backup_without_passwords_says_whose_are_missing() -> None:
    found = plan(script(replace(APP, password=None), PLAIN), server())
    assert found.warnings == ("the globals are without passwords: set those of 'app'",)


def test_predefined_roles_and_the_bootstrap_superuser_are_never_created() -> None:
    found = plan(script(Role("pg_monitor"), Role("pg_new"), BOSS), server())
    assert shape(found) == [("role", "pg_monitor", "skip"), ("role", "pg_new", "skip")]
    assert not found.changed
    lesser = replace(BOSS, superuser=False, createdb=False)
    (change,) = plan(script(lesser), server(), update=True).changes
    assert change.statements == ('ALTER ROLE "postgres" WITH NOCREATEDB',), (
        "it stays a superuser, or the server refuses"
    )


@pytest.mark.parametrize(
    ("old", "new", "differs"),
    [
        ("2030-01-01 00:00:00.000000+00", "2030-01-01 01:00:00+01", False),
        ("2029-12-31 18:30:00.000000+00", "2030-01-01 00:00:00+05:30", False),
        ("10000-01-01 04:59:59.000000+00", "9999-12-31 23:59:59-05", False),
        ("2028-02-29 12:00:00.500000+00", "2028-02-29 12:00:00.5+00", False),
        ("2030-01-01 00:00:00.000000+00", "2030-01-01 00:00:00+01", True),
        ("2430-01-01 00:00:00.000000+00", "2030-01-01 00:00:00+00", True),
        ("2030-99-01 00:00:00+00", "2030-01-01 00:00:00+00", True),
        ("infinity", "2030-01-01 00:00:00+00", True),
        (None, "2030-01-01 00:00:00+00", True),
        ("2030-01-01 00:00:00+00", None, True),
        ("infinity", None, False),  # nothing can take it away
        (None, "infinity", True),
    ],
)
def test_times_are_compared_whatever_their_zone(old: str | None, new: str | None, differs: bool) -> None:
    wanted, there = replace(PLAIN, valid_until=new), replace(PLAIN, valid_until=old)
    assert bool(plan(script(wanted), server(there)).changes) == differs


def test_settings_that_the_server_does_not_have_are_left_out_and_named() -> None:
    wanted = replace(PLAIN, settings=(("force_parallel_mode", ("on",)), ("work_mem", ("1MB",))))
    found = plan(
        script(wanted, parameters=(Privilege("gone", "SET", None),)),
        server(unknown_settings=frozenset(("force_parallel_mode", "gone"))),
    )
    assert statements(found) == ['CREATE ROLE "plain"', 'ALTER ROLE "plain" SET "work_mem" TO \'1MB\'']
    assert found.warnings == (
        "PostgreSQL 17 has no setting 'force_parallel_mode': that of role 'plain' was left out",
        "PostgreSQL 17 has no setting 'gone': rights on it were left out",
    )


# --- rights ---


@pytest.mark.parametrize(
    ("role", "major", "me", "problem"),
    [
        (PLAIN, 15, Role("me", login=True), "role 'me' may not create or change roles"),
        (replace(PLAIN, superuser=True), 15, ME, "superusers are for a superuser to make or change: 'plain'"),
        (replace(PLAIN, createdb=True), 15, ME, None),
        (replace(PLAIN, createdb=True), 17, ME, "role 'me' may not make roles CREATEDB: 'plain'"),
        (replace(PLAIN, createdb=True), 17, replace(ME, createdb=True), None),
        (replace(PLAIN, bypassrls=True), 15, replace(ME, bypassrls=True), "may not make roles BYPASSRLS"),
        (replace(PLAIN, replication=True), 17, replace(ME, replication=True), None),
        (replace(PLAIN, settings=(("log_statement", ("all",)),)), 17, ME, "settings that only a superuser may"),
        (replace(PLAIN, settings=(("work_mem", ("1MB",)),)), 17, ME, None),
    ],
)
def test_a_role_that_may_create_roles_is_told_what_it_may_not(
    role: Role, major: int, me: Role, problem: str | None
) -> None:
    found = plan(script(role), server(major=major, me=me, refused_settings=frozenset(("log_statement",))))
    assert len(found.problems) == (problem is not None)
    if problem:
        assert problem in found.problems[0]


def test_roles_of_others_are_not_changed_without_admin_option() -> None:
    wanted, there = replace(PLAIN, login=True), PLAIN
    refused = plan(script(wanted), server(there, me=ME), update=True)
    assert refused.problems == ("role 'me' may not change roles of others: 'plain'",)
    assert plan(script(wanted), server(there, me=ME), update=False).problems == ()
    assert plan(script(wanted), server(there, me=ME, admin_of=frozenset(("plain",))), update=True).problems == ()
    assert plan(script(wanted), server(there, me=ME, major=15), update=True).problems == ()


def test_the_role_at_work_does_not_take_its_own_rights() -> None:
    other = Role("other", superuser=True, login=True)
    found = plan(script(replace(other, superuser=False)), server(me=other), update=True)
    assert found.problems == ("role 'other' is at work here and would lose SUPERUSER: connect as another role",)


def test_nothing_goes_on_a_standby() -> None:
    facts = server()
    standby = replace(facts, server=replace(facts.server, is_standby=True))
    assert "is a standby" in plan(script(PLAIN), standby).problems[0]
    assert plan(script(BOSS), standby).problems == ()


# --- memberships ---


def grant_statements(*grants: Membership, major: int = 17, me: Role = BOSS, **more: Any) -> list[str]:
    names = {name for item in grants for name in (item.role, item.member)} - {"pg_monitor", "postgres"}
    found = plan(script(memberships=grants), server(*map(Role, sorted(names)), major=major, me=me, **more))
    assert not found.problems
    return statements(found)


def test_nobody_grants_what_they_may_not_grant_yet() -> None:
    chain = (
        Membership("a", "d", "c"),
        Membership("a", "c", "b", admin=True),
        Membership("a", "b", "postgres", admin=True, inherit=False),
    )
    assert grant_statements(*chain) == [
        'GRANT "a" TO "b" WITH ADMIN TRUE, INHERIT FALSE GRANTED BY "postgres"',
        'GRANT "a" TO "c" WITH ADMIN TRUE GRANTED BY "b"',
        'GRANT "a" TO "d" GRANTED BY "c"',
    ]
    assert grant_statements(Membership("a", "d", "c", set=False), Membership("a", "c", admin=True)) == [
        'GRANT "a" TO "c" WITH ADMIN TRUE',
        'GRANT "a" TO "d" WITH SET FALSE GRANTED BY "c"',
    ]


def test_a_grantor_that_cannot_be_is_left_out_and_named() -> None:
    grants = (Membership("a", "b", "gone", admin=True), Membership("a", "c", "gone"), Membership("a", "d", "b"))
    found = plan(script(memberships=grants), server(Role("a"), Role("b"), Role("c"), Role("d")))
    assert statements(found) == [
        'GRANT "a" TO "b" WITH ADMIN TRUE',
        'GRANT "a" TO "c"',
        'GRANT "a" TO "d" GRANTED BY "b"',
    ]
    assert found.warnings == ("role 'gone' cannot grant here: 'postgres' grants in its place (2 memberships)",)


def test_grants_that_wait_for_each_other_are_made_all_the_same() -> None:
    circle = (Membership("a", "b", "c", admin=True), Membership("a", "c", "b", admin=True))
    assert grant_statements(*circle) == [
        'GRANT "a" TO "b" WITH ADMIN TRUE',
        'GRANT "a" TO "c" WITH ADMIN TRUE GRANTED BY "b"',
    ]


def test_a_superuser_of_before_version_16_needs_no_admin_option() -> None:
    grants = (Membership("a", "b", "c"),)
    assert grant_statements(*grants, Membership("x", "c"), major=15)[0] == 'GRANT "a" TO "b" GRANTED BY "c"'
    assert grant_statements(*grants, Membership("x", "c"), major=16) == ['GRANT "x" TO "c"', 'GRANT "a" TO "b"']


def test_memberships_whose_roles_are_not_there_are_skipped() -> None:
    found = plan(script(memberships=(Membership("pg_new", "app"), Membership("pg_monitor", "app"))), server(APP))
    assert shape(found) == [("membership", "app in pg_new", "skip"), ("membership", "app in pg_monitor", "create")]
    assert found.changes[0].details == ("there is no role 'pg_new'",)


def test_a_member_never_gets_more_than_it_had() -> None:
    grants = (
        Membership("a", "b", inherit=False),
        Membership("a", "c", set=False, inherit=True),
        Membership("a", "d", inherit=False),
    )
    found = plan(
        script(memberships=grants), server(Role("a"), Role("b"), Role("c"), Role("d", inherit=False), major=15)
    )
    assert [change.action for change in found.changes] == ["skip", "skip", "create"]


def test_memberships_that_are_there() -> None:
    there = Membership("a", "b", "postgres", admin=False, inherit=True, set=True)
    wanted = Membership("a", "b", "postgres", admin=True, inherit=False)
    two = (Role("a"), Role("b"))
    assert plan(script(memberships=(replace(there, inherit=None),)), server(*two, memberships=(there,))).changes == ()
    (left,) = plan(script(memberships=(wanted,)), server(*two, memberships=(there,))).changes
    assert (left.action, left.details) == ("leave", ("admin: no -> yes", "inherit: yes -> no"))
    (updated,) = plan(script(memberships=(wanted,)), server(*two, memberships=(there,)), update=True).changes
    assert updated.statements == ('GRANT "a" TO "b" WITH ADMIN TRUE, INHERIT FALSE, SET TRUE GRANTED BY "postgres"',)
    old = server(*two, memberships=(replace(there, admin=True),), major=15)
    (less,) = plan(script(memberships=(there,)), old, update=True).changes
    assert less.statements == ('REVOKE ADMIN OPTION FOR "a" FROM "b"',)
    by_another = server(*two, memberships=(replace(there, grantor="a", admin=True),))
    assert plan(script(memberships=(replace(wanted, grantor=None),)), by_another).changes == (), "by whomever"


def test_who_may_grant() -> None:
    grants = (Membership("a", "b", "postgres"),)
    two = (Role("a"), Role("b"))
    refused = plan(script(memberships=grants), server(*two, me=ME))
    assert refused.problems == ("role 'me' may not grant 'a': GRANT ... TO ... WITH ADMIN OPTION",)
    assert plan(script(memberships=grants), server(*two, me=ME, admin_of=frozenset("a"))).problems == ()
    assert plan(script(memberships=grants), server(*two, me=ME, major=15)).problems == ()
    assert plan(script(Role("a"), memberships=grants), server(Role("b"), me=ME)).problems == ()
    boss = (Role("a", superuser=True), Role("b"))
    assert "the superuser 'a'" in plan(script(memberships=grants), server(*boss, me=ME, major=15)).problems[0]


# --- only some ---


def test_only_some_roles() -> None:
    wanted = script(
        APP,
        PLAIN,
        Role("other"),
        memberships=(Membership("app", "there"), Membership("app", "plain"), Membership("other", "there")),
        tablespaces=(Tablespace("t", "app", "/t"),),
        parameters=(Privilege("work_mem", "SET", "app"),),
    )
    found = plan(wanted, server(Role("there"), Role("other")), frozenset(("app", "pg_monitor")))
    assert shape(found) == [
        ("role", "app", "create"),
        ("membership", "plain in app", "skip"),
        ("membership", "there in app", "create"),
    ]
    missing = plan(wanted, server(), frozenset(("app", "gone")))
    assert missing.problems == ("the globals have no role 'gone': use a backup of when there was one",)


# --- tablespaces and parameters ---


def test_a_tablespace_is_created_first_and_its_owner_later() -> None:
    grants = (Privilege("t", "CREATE", "app", True), Privilege("t", "CREATE", None, False, "app"))
    wanted = Tablespace("t", "app", "/it", (("seq_page_cost", "2"),), True, grants, "c")
    (_role, change) = plan(script(APP, tablespaces=(wanted,)), server()).changes
    assert change.before == ("CREATE TABLESPACE \"t\" LOCATION '/it'",)
    assert change.undo == ('DROP TABLESPACE "t"',)
    assert change.statements == (
        'ALTER TABLESPACE "t" OWNER TO "app"',
        'ALTER TABLESPACE "t" SET ("seq_page_cost" = \'2\')',
        'REVOKE ALL ON TABLESPACE "t" FROM "app"',
        'GRANT CREATE ON TABLESPACE "t" TO "app" WITH GRANT OPTION',
        'SET LOCAL ROLE "app"',
        'GRANT CREATE ON TABLESPACE "t" TO PUBLIC',
        'SET LOCAL ROLE "postgres"',
        "COMMENT ON TABLESPACE \"t\" IS 'c'",
    )
    assert "" not in change.details
    there = server(APP, tablespaces={"t": replace(wanted, location="/elsewhere", owner_revoked=False)})
    assert plan(script(APP, tablespaces=(wanted,)), there).changes == ()
    assert shape(plan(script(APP, tablespaces=(wanted,)), server(), places=False)) == [("role", "app", "create")]


def test_a_tablespace_that_differs_is_left_or_updated() -> None:
    there = server(APP, tablespaces={"t": Tablespace("t", "postgres", "/t", (("random_page_cost", "1"),))})
    wanted = script(APP, tablespaces=(Tablespace("t", "app", "/t", (("seq_page_cost", "2"),)),))
    (left,) = plan(wanted, there).changes
    assert (left.action, left.statements, left.before) == ("leave", (), ())
    (updated,) = plan(wanted, there, update=True).changes
    assert (updated.action, updated.before) == ("update", ())
    assert updated.statements == (
        'ALTER TABLESPACE "t" OWNER TO "app"',
        'ALTER TABLESPACE "t" SET ("seq_page_cost" = \'2\')',
        'ALTER TABLESPACE "t" RESET ("random_page_cost")',
    )


def test_what_a_tablespace_needs() -> None:
    wanted = script(tablespaces=(Tablespace("t", "postgres", "/t"),))
    assert plan(wanted, server(directories={"/t": True})).problems == ()
    assert "needs the directory /t: create it" in plan(wanted, server(directories={"/t": False})).problems[0]
    taken = server(directories={"/t": True}, tablespaces={"u": Tablespace("u", "postgres", "/t")})
    assert "needs the directory /t, where 'u' is" in plan(wanted, taken).problems[0]
    assert "tablespaces are for a superuser" in plan(wanted, server(me=ME)).problems[0]
    (skipped,) = plan(script(tablespaces=(Tablespace("t", "postgres", ""),)), server()).changes
    assert skipped.action == "skip"


def test_rights_on_parameters_are_given_where_they_are_missing() -> None:
    wanted = (
        Privilege("work_mem", "SET", "app", True),
        Privilege("work_mem", "SET", "gone"),
        Privilege("work_mem", "SET", None, False, "app"),
        Privilege("DateStyle", "ALTER SYSTEM", "app"),
    )
    found = plan(
        script(parameters=wanted), server(APP, parameters=(Privilege("datestyle", "ALTER SYSTEM", "app", True),))
    )
    (change,) = found.changes
    assert change == Change(
        "parameter",
        "work_mem",
        "create",
        ("SET to app with grant option", "SET to everybody"),
        (
            'GRANT SET ON PARAMETER "work_mem" TO "app" WITH GRANT OPTION',
            'SET LOCAL ROLE "app"',
            'GRANT SET ON PARAMETER "work_mem" TO PUBLIC',
            'SET LOCAL ROLE "postgres"',
        ),
    )
    assert found.warnings == ("there is no role 'gone': its rights were left out",)
    old = plan(script(parameters=wanted), server(APP, major=14))
    assert {change.action for change in old.changes} == {"skip"}
    assert "are for a superuser" in plan(script(parameters=wanted), server(APP, me=ME)).problems[0]


def test_who_may_not_become_another_role_says_that_the_owner_grants() -> None:
    wanted = (Privilege("work_mem", "SET", "app", True), Privilege("work_mem", "SET", None, False, "app"))
    found = plan(script(parameters=wanted), server(APP, session_superuser=False))
    assert statements(found)[1] == 'GRANT SET ON PARAMETER "work_mem" TO PUBLIC'
    assert found.warnings == ("role 'app' cannot grant here: what it granted is granted by the owner",)


def test_what_superusers_granted_is_granted_by_the_owner() -> None:
    wanted = (Privilege("work_mem", "SET", None, False, "app"),)
    found = plan(script(parameters=wanted), server(replace(APP, superuser=True)))
    assert statements(found) == ['GRANT SET ON PARAMETER "work_mem" TO PUBLIC']
    there = server(replace(APP, superuser=True), parameters=(replace(wanted[0], grantor=None),))
    assert plan(script(parameters=wanted), there).changes == ()
    before = script(replace(APP, superuser=True), parameters=wanted)
    assert differences(before, replace(before, parameters=there.parameters), "postgres") == []


def test_what_was_not_understood_is_said() -> None:
    found = plan(script(unknown=("DROP ROLE app;", "ALTER ROLE x PASSWORD 'geheim';")), server())
    assert found.warnings == ("statements that are not understood were left out (2): ALTER ROLE ..., DROP ROLE ...",)


# --- properties ---


@settings(deadline=None)
@given(scripts, st.integers(14, 18), st.booleans())
def test_a_server_that_has_everything_is_not_changed(wanted: Globals, major: int, update: bool) -> None:
    given_roles = {
        role.name: replace(role, superuser=role.superuser or role.name == "postgres") for role in wanted.roles
    }
    facts = server(major=major)
    facts = replace(facts, roles={**facts.roles, **given_roles}, parameters=wanted.parameters)
    assert not [change for change in plan(wanted, facts, update=update).changes if change.kind == "role"]


@settings(deadline=None)
@given(st.lists(roles, max_size=4, unique_by=lambda role: role.name), st.booleans())
def test_each_role_is_created_once(wanted: list[Role], update: bool) -> None:
    found = plan(Globals(tuple(wanted)), server(), update=update)
    expected = [role.name for role in wanted if role.name not in ("postgres", "pg_monitor")]
    assert [change.name for change in found.changes if change.action == "create"] == expected


# --- proof ---


def test_differences_are_named_without_secrets() -> None:
    before = Globals(
        (APP, PLAIN, Role("gone"), BOSS),
        (Membership("app", "plain", "dba", True), Membership("app", "x", "plain"), Membership("app", "y")),
        parameters=(Privilege("work_mem", "SET", "app"),),
        unknown=("CREATE ROLE broken PASSWORD 'geheim';",),
    )
    assert differences(before, before, "postgres") == []
    after = Globals(
        (replace(APP, password="geheim"), replace(PLAIN, login=True), Role("new"), replace(BOSS, password="x")),
        (Membership("app", "plain", "postgres", True, True), Membership("app", "x", "postgres", inherit=True)),
        parameters=(Privilege("work_mem", "SET", "app", True),),
    )
    assert differences(before, after, "postgres") == [
        "a statement is not understood: CREATE ROLE ...",
        "role 'app': password",
        "role 'gone' is missing",
        "role 'new' was not in the backup",
        "role 'plain': login: no -> yes",
        "membership of 'x' in 'app' was not in the backup",
        "membership of 'x' in 'app', granted by 'plain', is missing",
        "membership of 'y' in 'app' is missing",
        "parameter 'work_mem': SET to app is missing",
        "parameter 'work_mem': SET to app with grant option was not in the backup",
    ]
    fewer = Globals(memberships=(Membership("a", "b", "postgres", True, True),))
    assert differences(Globals(memberships=(Membership("a", "b", "dba", False, True),)), fewer, "postgres") == [
        "membership of 'b' in 'a': admin: no -> yes"
    ]
