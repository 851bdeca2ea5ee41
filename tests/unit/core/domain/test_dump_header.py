# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gzip

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.dump_header import (
    Header,
    begins_database,
    form,
    listed_header,
    packing,
    written_header,
)

# What `pg_restore --list` of the same version says.
LISTING = """\
;
; Archive created at 2026-11-23 07:15:23 UTC
;     dbname: {database}
;     TOC Entries: 6
;     Compression: {compression}
;     Dump Version: {dump}
;     Format: CUSTOM
;     Integer: 4 bytes
;     Offset: 8 bytes
;     Dumped from database version: {server}
;     Dumped by pg_dump version: {tool}
;
;
; Selected TOC Entries:
;
214; 1259 16385 TABLE public t postgres
3338; 0 16385 TABLE DATA public t postgres
"""
DEBIAN = "15.18 (Debian 15.18-0+deb12u1)"


@pytest.mark.parametrize(
    ("compression", "dump", "version", "method"),
    [
        ("-1", "1.14-0", DEBIAN, "gzip"),
        ("0", "1.14-0", DEBIAN, "none"),
        ("5", "1.14-0", DEBIAN, "gzip"),
        ("gzip", "1.16-0", "17.10", "gzip"),
        ("none", "1.16-0", "17.10", "none"),
        ("zstd", "1.16-0", "17.10", "zstd"),
        ("lz4", "1.16-0", "18.6", "lz4"),
    ],
)
@pytest.mark.parametrize("database", ["shop", "my shop", "a=b; x"])
def test_the_listing_of_every_version_says_where_an_archive_came_from(
    compression: str, dump: str, version: str, method: str, database: str
) -> None:
    text = LISTING.format(database=database, compression=compression, dump=dump, server=version, tool=version)
    number = version.split(" ", maxsplit=1)[0]
    assert listed_header(text) == Header(database, number, number, method)


@pytest.mark.parametrize("text", ["", "pg_restore: error: could not read from input file\n", ";\n"])
def test_a_listing_that_says_nothing_gives_nothing(text: str) -> None:
    assert listed_header(text) == Header()


PLAIN = b"""\
--
-- PostgreSQL database dump
--

\\restrict uutzLIRM69uTeU8aU515b2hd5rr23goh6DvF2igtpoisljVNehOwxcEnINUIhc5

-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 17.10

SET statement_timeout = 0;
"""
CLUSTER = b"--\n-- PostgreSQL database cluster dump\n--\n\nSET default_transaction_read_only = off;\n"


def test_sql_says_which_versions_it_is_of() -> None:
    assert written_header(PLAIN) == Header(None, "15.18", "17.10", None)
    assert written_header(CLUSTER) == Header()
    assert written_header(b"\xff\xfe") == Header()


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"PGDMP\x01\x0e\x00", "custom"),
        (b"toc.dat" + b"\0" * 250 + b"ustar  ", "tar"),
        (b"other.dat" + b"\0" * 248 + b"ustar  ", ""),
        (b"toc.dat", ""),
        (PLAIN, "plain"),
        (CLUSTER, "globals"),
        (CLUSTER + PLAIN, "globals"),
        (b"SELECT 1;", ""),
        (b"", ""),
        (b"\xff" * 4096, ""),
    ],
)
def test_the_first_bytes_say_what_kind_of_dump_it_is(head: bytes, expected: str) -> None:
    assert form(head) == expected


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (gzip.compress(b"x", mtime=0), "gzip"),
        (b"\x28\xb5\x2f\xfd\x04", "zstd"),
        (b"\x04\x22\x4d\x18\x64", "lz4"),
        (PLAIN, "none"),
        (b"", "none"),
        (b"\x1f", "none"),
    ],
)
def test_the_first_bytes_say_who_compressed_it(head: bytes, expected: str) -> None:
    assert packing(head) == expected


def test_a_whole_database_inside_a_cluster_dump_is_seen() -> None:
    assert [line for line in PLAIN.splitlines(keepends=True) if begins_database(line)] == [
        b"-- PostgreSQL database dump\n"
    ]
    assert not any(begins_database(line) for line in CLUSTER.splitlines(keepends=True))
    assert not begins_database(b"-- PostgreSQL database dump complete\n")
