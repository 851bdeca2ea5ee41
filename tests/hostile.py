# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names and passwords that break careless code; every one of them is legal in PostgreSQL."""

from __future__ import annotations

HOSTILE_NAMES = (
    # shells
    "a;rm -rf x",
    "a && b",
    "a|b",
    "$(id)",
    "`id`",
    "$HOME",
    "*",
    "~",
    "#comment",
    # quotes, spaces and what ends a line
    "it's",
    'say "hello"',
    "'",
    '"',
    "two  spaces",
    " leading",
    "trailing ",
    "new\nline",
    "tab\there",
    "carriage\rreturn",
    "back\\slash",
    "trailing\\",
    # options and paths
    "-leading",
    "--help",
    ".",
    "..",
    "../../etc/passwd",
    "a/b",
    "a_b",
    "/absolute",
    "@globals",
    # formats and templates
    "%n%s",
    "%2F",
    "{{ 7*7 }}",
    "{% raw %}",
    # what libpq would take for a connection
    "a=b",
    "host=127.0.0.1",
    "dbname=postgres",
    "postgresql://127.0.0.1/postgres",
    # Unicode: 63 bytes, 62 bytes, wide, right to left, and two pairs that are easily taken for one
    "x" * 63,
    "é" * 31,
    "数据库",
    "🐘🐘",
    "abc\u202edcba",
    "A",
    "a",
    "caf\u00e9",
    "cafe\u0301",
    "\x01\x7f",
)

# 16 that a password file can hold, and what it cannot.
PASSWORDS = (
    "plain",
    "co:lon",
    "back\\slash",
    "both\\:of:\\them",
    "trailing\\",
    "single'quote",
    'double"quote',
    " spaces at both ends ",
    "tab\tinside",
    "pässwörd-数据-🐘",
    "x" * 200,
    "y" * 1100,
    "#hash",
    "$(id)`id`",
    "%41%n",
    "*:*:*:*:x",
)
REFUSED_PASSWORDS = ("new\nline", "trailing return\r", "nul\0inside")
