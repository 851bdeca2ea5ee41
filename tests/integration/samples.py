# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Databases worth a backup, what is in them, restoring them with nothing but PostgreSQL's own programs, and the engine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.backups import Backup
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.outcomes import BackupResult, Outcome
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.backup import backup

from tests.postgres import Server, quote_identifier

# A little of everything that a dump has to carry.
SAMPLE = r"""
CREATE SCHEMA audit;
CREATE SCHEMA "Odd ""schema"" x";
CREATE TYPE state AS ENUM ('new', 'paid', 'sent');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE customers (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, data bytea, born date, tags text[], extra jsonb
);
INSERT INTO customers (name, data, born, tags, extra)
    SELECT 'name ' || i || E'\ttab\nline \\. ' || chr(128024), decode(md5(i::text), 'hex'), date '1970-01-01' + i,
           ARRAY['a', NULL, 'b' || i], jsonb_build_object('n', i, 'null', NULL)
    FROM generate_series(1, 800) i;
INSERT INTO customers (name) VALUES (''), ('NULL'), (E'\\N');
CREATE TABLE orders (
    id bigserial PRIMARY KEY, customer int REFERENCES customers (id), state state DEFAULT 'new', amount numeric(12, 2),
    doubled numeric GENERATED ALWAYS AS (amount * 2) STORED
);
INSERT INTO orders (customer, amount) SELECT 1 + i % 800, i / 7.0 FROM generate_series(1, 2000) i;
SELECT setval('orders_id_seq', 4711, true);
CREATE SEQUENCE audit.numbers START 7 INCREMENT 3;
SELECT nextval('audit.numbers');
CREATE TABLE measured (at timestamptz, value float8) PARTITION BY RANGE (at);
CREATE TABLE measured_2024 PARTITION OF measured FOR VALUES FROM ('2024-01-01Z') TO ('2025-01-01Z');
CREATE TABLE measured_2025 PARTITION OF measured FOR VALUES FROM ('2025-01-01Z') TO ('2026-01-01Z');
INSERT INTO measured SELECT timestamptz '2024-06-01Z' + i * interval '1 day', sin(i) FROM generate_series(1, 400) i;
CREATE TABLE audit.trail (id int, "what happened" text);
INSERT INTO audit.trail SELECT i, 'thing ' || i FROM generate_series(1, 300) i;
CREATE TABLE "Odd ""schema"" x"."Table with 'quotes'" ("a=b" int);
INSERT INTO "Odd ""schema"" x"."Table with 'quotes'" VALUES (1), (NULL);
CREATE TABLE empty ();
CREATE MATERIALIZED VIEW totals AS SELECT customer, sum(amount) FROM orders GROUP BY 1;
CREATE VIEW paid AS SELECT * FROM orders WHERE state = 'paid';
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT $1 * 2';
SELECT lo_from_bytea(0, decode(repeat(md5(i::text), 3000), 'hex')) FROM generate_series(1, 5) i;
SELECT lo_from_bytea(123456, '\x00ff0a0d');
"""

_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname), c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind IN ('r', 'm', 'S') ORDER BY 1
"""
_OBJECTS = "SELECT oid, md5(lo_get(oid)) FROM pg_largeobject_metadata ORDER BY oid"
_UNPACK = {".gz": "gzip", ".zst": "zstd", ".lz4": "lz4"}


def contents(server: Server, database: str) -> dict[str, tuple[int, str]]:
    """Given a database, return the number of rows and a hash, whatever their order, of each table, sequence and of
    the large objects."""
    relations = [line.rsplit("|", 1) for line in server.psql(_TABLES, database).split("\n") if line]
    asked = {"large objects": _OBJECTS}
    for name, kind in relations:
        asked[name] = f"SELECT last_value, is_called FROM {name}" if kind == "S" else f"SELECT * FROM {name}"
    script = "".join(f"\\qecho '\001'\nCOPY ({query}) TO STDOUT;\n" for query in asked.values())
    rows = [part.splitlines()[1:] for part in server.psql(script, database).split("\001")[1:]]
    assert len(rows) == len(asked)
    return {name: (len(lines), _hash(lines)) for name, lines in zip(asked, rows)}


def _hash(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def restore(server: Server, item: Backup, database: str, bindir: Path | None = None) -> None:
    """Given a backup and an empty database, restore the one into the other with pg_restore or psql; raise where they fail."""
    (name,) = {entry["path"].split("/")[0] for entry in manifest(item)["files"]}
    file = Path(item.path, name)
    if file.suffix in _UNPACK:
        plain = file.with_suffix("")
        with plain.open("wb") as output:
            subprocess.run([_UNPACK[file.suffix], "-dc", file], stdout=output, check=True)
        file = plain
    tools, target = bindir or server.bindir, server.conninfo(database)
    if file.suffix == ".sql":
        command = [str(tools / "psql"), "-Xq", "-v", "ON_ERROR_STOP=1", "-d", target, "-f", str(file)]
    else:
        command = [str(tools / "pg_restore"), "--exit-on-error", "-d", target, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    assert done.returncode == 0, done.stderr
    if file.name != name:
        file.unlink()


def manifest(item: Backup) -> dict[str, Any]:
    """Given a backup, return its manifest."""
    document: dict[str, Any] = json.loads(Path(item.path, "manifest.json").read_bytes())
    return document


def tree(directory: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Given a directory, return mode, time of the last change, inode and bytes of everything in it."""
    found = {}
    for path in (directory, *directory.rglob("*")):
        status = path.lstat()
        data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path)] = (status.st_mode, status.st_mtime_ns, status.st_ino, data)
    return found


def bytes_of(directory: Path) -> dict[str, bytes]:
    """Given a directory, return the bytes of every file in it."""
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


class Engine:
    """A repository and how to reach a server: calls the use case `backup` as the fronts do."""

    def __init__(self, server: Server, repository: Path) -> None:
        self.server, self.repository = server, repository
        self.now: datetime | None = None

    def raw(self, **more: Any) -> dict[str, Any]:
        """Return the options of a run over the socket, changed by what is given; None takes one out."""
        options = {
            "login_unix_socket": str(self.server.socket_dir),
            "login_port": self.server.port,
            "repository": str(self.repository),
            "bin_dir": str(self.server.bindir),
            "reserve": "1MB",
            "globals": False,
            **more,
        }
        return {name: value for name, value in options.items() if value is not None}

    def clock(self) -> datetime:
        """Return the time that this engine believes in."""
        return self.now or datetime.now(timezone.utc)

    def run(self, check: bool = False, **more: Any) -> BackupResult:
        """Given options, run the use case."""
        return backup(self.raw(**more), check, self.clock)

    def take(self, *databases: str, **more: Any) -> list[Backup]:
        """Given databases and options, back them up; return the backups, all good and in the order of the names."""
        result = self.run(databases=list(databases), **more)
        assert result.exit_code == 0, result.message
        return [item.backup for item in result.outcomes if item.backup]

    def take_one(self, database: str, **more: Any) -> Backup:
        """Given a database and options, back it up; return the backup."""
        (taken,) = self.take(database, **more)
        return taken


def outcome(result: BackupResult, database: str) -> Outcome:
    """Given a result, return what became of one database."""
    (found,) = [item for item in result.outcomes if item.database == database]
    return found


@contextmanager
def locked_table(server: Server, database: str, table: str) -> Iterator[Callable[[], None]]:
    """Given a table, keep everybody from reading it; yield a function that waits until a pg_dump waits for it.

    It is how a test meets a run in the middle of a dump, at any speed of the machine.
    """
    link = psycopg2.connect(server.conninfo(database))
    watch = psycopg2.connect(server.conninfo())
    watch.autocommit = True
    try:
        with link.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")

        def wait() -> None:
            for _unused in range(3000):
                with watch.cursor() as cursor:
                    cursor.execute(
                        "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'",
                        (database,),
                    )
                    if cursor.fetchone() != (0,):
                        return
                threading.Event().wait(0.02)
            pytest.fail("no pg_dump came to the locked table")

        yield wait
    finally:
        link.close()
        watch.close()


def make_sample(server: Server, name: str) -> str:
    """Given a server and a name, create the sample database; return the name."""
    server.psql(f"CREATE DATABASE {quote_identifier(name)}")
    server.psql(SAMPLE, name)
    return name
