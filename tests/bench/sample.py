# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The database that is dumped: text, numbers, JSON and bytes that compress like real ones, in about the size asked for."""

from __future__ import annotations

from tests.postgres import Server

# Each takes about a fifth of a megabyte of plain dump for a unit of its share.
_TABLES = (
    "CREATE TABLE accounts AS SELECT n AS aid, n % 100 AS bid, (random() * 1e6)::int AS balance,"
    " rpad('', 84) AS filler FROM generate_series(1, {rows} * 20) AS n",
    "CREATE TABLE events AS SELECT n AS id, now() - n * interval '7 seconds' AS at, (ARRAY['view', 'cart', 'order',"
    " 'login', 'search'])[1 + (random() * 4)::int] AS kind, (random() * 1e5)::int AS customer, md5(n::text) AS session,"
    " '/shop/' || (random() * 5000)::int || '/item' AS path FROM generate_series(1, {rows} * 22) AS n",
    "CREATE TABLE documents AS SELECT n AS id, jsonb_build_object('name', 'Customer ' || n, 'city', (ARRAY['Berlin',"
    " 'Paris', 'Roma', 'Praha', 'Wien'])[1 + n % 5], 'tags', jsonb_build_array(n % 7, n % 11, n % 13), 'orders',"
    " (SELECT jsonb_agg(jsonb_build_object('id', n * 10 + k, 'total', round((random() * 900)::numeric, 2), 'note',"
    " 'delivered on time, no complaints')) FROM generate_series(1, 4) AS k)) AS body"
    " FROM generate_series(1, {rows} * 5) AS n",
    "CREATE TABLE blobs AS SELECT n AS id, decode((SELECT string_agg(md5(n::text || k), '') FROM"
    " generate_series(1, 16) AS k), 'hex') AS data FROM generate_series(1, {rows} * 3) AS n",
    "CREATE TABLE texts AS SELECT n AS id, repeat('The quick brown fox jumps over the lazy dog ' || n || '. ', 12) AS"
    " body FROM generate_series(1, {rows} * 3) AS n",
)
_PER_UNIT = 7.5e-3  # megabytes of plain dump for one unit of rows


def fill(server: Server, database: str, megabytes: int) -> None:
    """Given a server, make a database of about so many megabytes of plain dump, the same at every call."""
    server.psql(f"CREATE DATABASE {database}")
    rows = int(megabytes / _PER_UNIT)
    server.psql("SELECT setseed(0.5)", database)
    for statement in _TABLES:
        server.psql(statement.format(rows=rows), database)
    server.psql("CREATE UNIQUE INDEX ON accounts (aid); CREATE UNIQUE INDEX ON events (id)", database)
    small = "".join(f"CREATE TABLE small_{n} (id int PRIMARY KEY, name text);" for n in range(200))
    server.psql(small, database)
    server.psql("VACUUM ANALYZE", database)
