# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scripts as pg_dump really writes them, held against what the server says."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Sequence

import psycopg2
import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.script import Rows, Script, statements

from tests.integration.samples import SAMPLE, contents
from tests.postgres import Server

# What pg_dump has to write with semicolons, quotes and comments in unusual places.
TRICKY = r"""
CREATE TABLE "semi;colon -- no comment /* none" ("a""b;" text DEFAULT E'it''s \\ ;', c text DEFAULT '$$;');
INSERT INTO "semi;colon -- no comment /* none" VALUES ('SELECT 1;', E'\\.'), (E'\n\\.\n', ''), (E'\t\\', NULL);
COMMENT ON TABLE "semi;colon -- no comment /* none" IS E'a '' \\ ; " $$ \n-- b\n/* c';
CREATE RULE two AS ON UPDATE TO customers DO ALSO (INSERT INTO audit.trail VALUES (1, ';'); DELETE FROM audit.trail);
CREATE FUNCTION body(a int, end_ int) RETURNS int LANGUAGE sql BEGIN ATOMIC
    SELECT CASE WHEN $1 = 1 THEN ';END' ELSE ')' END; SELECT (CASE a WHEN 1 THEN 2 END) AS "END"; SELECT $2;
END;
CREATE PROCEDURE public.begin() LANGUAGE sql BEGIN ATOMIC DELETE FROM audit.trail; END;
CREATE FUNCTION quoted() RETURNS text LANGUAGE plpgsql AS $f$BEGIN RETURN '$_$ $__XXXXXXX_XXXXXXX_XXXXXXX; '' " -- /*'; END$f$;
CREATE FUNCTION dollars$in$name() RETURNS text LANGUAGE sql AS 'SELECT ''$$;''';
CREATE VIEW texts AS SELECT 'a;b\' AS "x;y", E'\'' AS q, '/*' || '--' AS c FROM customers WHERE name ~ E'\\d;';
CREATE TABLE many_nothings ();
INSERT INTO many_nothings DEFAULT VALUES;
INSERT INTO many_nothings DEFAULT VALUES;
"""
TABLES = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind = 'r'
"""
OBJECTS = """
SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind IN ('r', 'p')
"""
COPY = re.compile(rb'COPY ((?:"(?:[^"]|"")*"|[^" (])+) .*FROM stdin;', re.DOTALL)


@pytest.fixture
def database(server: Server, fresh_database: Callable[..., str]) -> str:
    """A sample with everything that makes the end of a statement hard to find."""
    name = fresh_database(server)
    server.psql(SAMPLE + TRICKY, name)
    return name


def read(script: bytes, size: int) -> tuple[list[bytes], Counter[bytes]]:
    """Given a script and the size of the pieces to read it in, return its statements and the rows of each table."""
    found: list[bytes] = []
    counts: Counter[bytes] = Counter()

    def statement(text: bytes) -> Rows | None:
        found.append(text)
        copy = COPY.fullmatch(text)
        if not copy:
            return None
        table = copy.group(1)
        counts[table] += 0

        def rows(some: Sequence[bytes]) -> None:
            counts[table] += len(some)

        return rows

    reader = Script(statement)
    for start in range(0, len(script), size):
        reader.feed(script[start : start + size])
    reader.end()
    return found, counts


@pytest.mark.parametrize("strings", ["on", "off"])
def test_tables_rows_and_statements_are_those_of_the_server(server: Server, database: str, strings: str) -> None:
    server.psql(f'ALTER DATABASE "{database}" SET standard_conforming_strings = {strings}')
    script = server.run("pg_dump", "--format=plain", "-d", server.conninfo(database)).encode()
    found, counts = read(script, 65536)
    assert f"SET standard_conforming_strings = {strings};".encode() in found

    tables = server.psql(TABLES, database).splitlines()
    asked = " UNION ALL ".join(f"SELECT (SELECT count(*) FROM {table})" for table in tables)
    numbers = [int(line) for line in server.psql(asked, database).splitlines()]
    assert counts == Counter({table.encode(): number for table, number in zip(tables, numbers)})
    assert set(numbers) >= {0, 2, 3, 2000}

    created = Counter(b" ".join(text.split()[:2]) for text in found)
    assert created[b"CREATE TABLE"] == int(server.psql(OBJECTS, database))
    assert (created[b"CREATE RULE"], created[b"CREATE FUNCTION"], created[b"CREATE PROCEDURE"]) == (1, 4, 1)
    assert created[b"CREATE VIEW"] == 2
    assert read(script, 1) == read(script, 4093) == (found, counts)


def test_what_is_read_restores_the_database_statement_by_statement(
    server: Server, database: str, fresh_database: Callable[..., str]
) -> None:
    script = server.run("pg_dump", "--format=plain", "-d", server.conninfo(database)).encode()
    restored = fresh_database(server)
    link = psycopg2.connect(server.conninfo(restored))
    link.autocommit = True
    with link.cursor() as cursor:

        def statement(text: bytes) -> Rows | None:
            if COPY.fullmatch(text):
                return lambda rows: cursor.copy_expert(text.decode(), io.BytesIO(b"\n".join((*rows, b""))))
            cursor.execute(text)
            return None

        reader = Script(statement)
        reader.feed(script)
        reader.end()
    link.close()
    assert contents(server, restored) == contents(server, database)


def test_the_globals_are_statements_alone(server: Server, fresh_role: Callable[..., str]) -> None:
    role = fresh_role(server, r"LOGIN PASSWORD 'it''s; a \'")
    server.psql(f"COMMENT ON ROLE {role} IS E'it''s;\\n-- \\\\'")
    script = server.run("pg_dumpall", "--globals-only", "-d", server.conninfo()).encode()
    found = [text for text in statements(script) if role.encode() in text]
    assert [b" ".join(text.split()[:2]) for text in found] == [b"CREATE ROLE", b"ALTER ROLE", b"COMMENT ON"]
