# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.script import (
    Rows,
    Script,
    ScriptError,
    statements,
)
from hypothesis import given
from hypothesis import strategies as st

Event = tuple[str, bytes]


class Reading:
    """What a script consists of, in order: comments, statements and rows; COPY ... FROM stdin is followed by rows."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.script = Script(self._statement, lambda line: self.events.append(("comment", line)))

    def _statement(self, text: bytes) -> Rows | None:
        self.events.append(("statement", text))
        return self._rows if text.startswith(b"COPY ") and text.endswith(b"FROM stdin;") else None

    def _rows(self, rows: Sequence[bytes]) -> None:
        self.events += [("row", row) for row in rows]


def read(*pieces: bytes) -> list[Event]:
    """Given a script in pieces, return what it consists of; raise ScriptError."""
    reading = Reading()
    for piece in pieces:
        reading.script.feed(piece)
    reading.script.end()
    return reading.events


def cut(text: bytes, places: list[int]) -> list[bytes]:
    """Given a text and where to cut it, return the pieces."""
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in zip(edges, edges[1:])]


def rows(text: bytes) -> list[bytes]:
    """Given what stands between COPY and what follows, return the rows; what follows has to be found again."""
    *copied, after = read(b"COPY t FROM stdin;\n" + text + b"SELECT 'after';\n")[1:]
    assert after == ("statement", b"SELECT 'after';")
    assert {kind for kind, _text in copied} <= {"row"}
    return [row for _kind, row in copied]


# --- where a statement ends ---

WHOLE = [  # each is one statement, whatever looks like an end or a beginning in it
    b"SELECT 1;",
    b"SELECT 'a;b';",
    b"SELECT 'it''s; here';",
    rb"SELECT 'a backslash \';",
    rb"SELECT E'no end \'; yet';",
    rb"SELECT e'two \\', 'then; an end';",
    rb"SELECT E'doubled '' and \'; escaped';",
    rb"SELECT E'it''s \\''';",
    rb"SELECT type'no escape \';",
    b"SELECT E'line\\\nbreak;';",
    b"SELECT 'a\nb;\nc';",
    b"SELECT U&'\\0061;', B'01', X'1f';",
    b'SELECT ";";',
    b'SELECT "a ""b;""", "--;", "\'c;";',
    b'SELECT "line\nbreak;\'";',
    rb'SELECT "\";',
    b"SELECT $$a;b$$;",
    b"SELECT $_$ it's $$ ; $_X$ $_$;",
    b"SELECT $\xc3\xa9$;$\xc3\xa9$;",
    b"SELECT $" + b"_XXXXXXX" * 20 + b"$ ; ' $" + b"_XXXXXXX" * 20 + b"$;",
    b"SELECT a$b$c, 'x;y', d$b$e;",
    b"SELECT \xc3\xa9$$c, 'x;y';",
    b"SELECT a$$$, 'x;y';",
    b"SELECT 1 -- a comment; with 'quotes\n;",
    b"SELECT 1 /* it's; $$ \" */;",
    b"SELECT 1 /* nested /* ; */ ; */;",
    b"SELECT 2 / 1 - -1 * 3;",
    b"SELECT 1 /**/ + /*/ ; */ 2;",
    b"SELECT '--', '/*', \"--\", \"/*\";",
    b"SELECT $$ -- $$, $$ /* $$;",
    b"CREATE RULE r AS ON INSERT TO t DO INSTEAD ( INSERT INTO a VALUES (1);\n INSERT INTO b VALUES (2);\n);",
    b"CREATE FUNCTION f(integer, integer) RETURNS integer LANGUAGE sql\n BEGIN ATOMIC\n SELECT ($1 + $2);\n SELECT $1;\nEND;",
    b"CREATE OR REPLACE PROCEDURE p()\n LANGUAGE sql BEGIN ATOMIC END;",
    b"CREATE FUNCTION f(a int) RETURNS int BEGIN ATOMIC SELECT CASE WHEN a = 1 THEN CASE a WHEN 1 THEN 2 END ELSE 3 END;"
    b" SELECT ';END' || \"END;\" || t.weekend /* END */ -- END\n ; SELECT end$, case_, attend FROM append; END;",
    b"CREATE FUNCTION public.begin() RETURNS int LANGUAGE sql AS $$SELECT 1;$$;",
    b"CREATE FUNCTION public.begin(begin int DEFAULT 1) RETURNS public.begin LANGUAGE sql AS $$SELECT 1;$$;",
    b"CREATE FUNCTION f() RETURNS public.atomic LANGUAGE sql AS $$SELECT 1;$$;",
    b"CREATE VIEW v AS SELECT CASE WHEN (a = 1) THEN 2 ELSE 3 END AS \"begin atomic\" FROM t;",
    b";",
]  # fmt: skip


@pytest.mark.parametrize("text", WHOLE)
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_a_statement_ends_where_psql_would_end_it(text: bytes, size: int) -> None:
    script = b"SELECT 'before';" + text + b"\n\nSELECT 'after';\n"
    pieces = [script[start : start + size] for start in range(0, len(script), size)]
    assert read(*pieces) == [
        ("statement", b"SELECT 'before';"),
        ("statement", text),
        ("statement", b"SELECT 'after';"),
    ]


@given(st.lists(st.sampled_from(WHOLE)), st.lists(st.integers(0, 10**6), max_size=9))
def test_statements_come_back_one_by_one(texts: list[bytes], places: list[int]) -> None:
    assert read(*cut(b"\n".join(texts), places)) == [("statement", text) for text in texts]


PARTS = [
    b"'", b'"', b"\\", b"\n", b"$", b"$$", b"$a$", b"$a", b"a", b"1", b"E", b"e", b" ", b"\xc3\xa9", b";", b"-", b"--",
    b"/", b"*", b"/*", b"*/", b"(", b")", b"\\.\n", b"COPY t FROM stdin;", b"COPY t FROM stdin;\n", b"\t", b"\r", b".",
    b"\nSET standard_conforming_strings = off;", b"CREATE FUNCTION f(", b"BEGIN ATOMIC", b"CASE", b"END", b"end ",
]  # fmt: skip


@given(st.lists(st.sampled_from(PARTS), max_size=40).map(b"".join), st.lists(st.integers(0, 10**6), max_size=20))
def test_where_the_pieces_are_cut_changes_nothing(text: bytes, places: list[int]) -> None:
    assert attempt([text]) == attempt(cut(text, places)) == attempt([text[at : at + 1] for at in range(len(text))])


def attempt(pieces: list[bytes]) -> tuple[list[Event], str]:
    """Given pieces of anything, return what it consists of and what is wrong with its end."""
    reading = Reading()
    try:
        for piece in pieces:
            reading.script.feed(piece)
        reading.script.end()
    except ScriptError as error:
        return reading.events, str(error)
    return reading.events, ""


def test_backslashes_escape_in_every_string_once_the_script_says_so() -> None:
    script = rb"""SET standard_conforming_strings = off;
SELECT 'it\'s; one', B'1';
SET standard_conforming_strings = on;
SELECT 'a \';
SELECT 1;
"""
    assert [text for _kind, text in read(script)][1::2] == [rb"SELECT 'it\'s; one', B'1';", rb"SELECT 'a \';"]


# --- between the statements ---


def test_comments_and_commands_between_statements_are_no_part_of_them() -> None:
    script = rb"""--
-- PostgreSQL database dump; it's complete
--

\restrict a;b'c"d$$e
  \connect -reuse-previous=on "dbname='it\\'s; here'"
/* of /* several */ lines;
*/ SELECT 1;

-- Name: x; Type: TABLE
SELECT 2 -- inside
;
\unrestrict abc
-- the end"""
    assert read(script) == [
        ("comment", b"--"),
        ("comment", b"-- PostgreSQL database dump; it's complete"),
        ("comment", b"--"),
        ("statement", b"SELECT 1;"),
        ("comment", b"-- Name: x; Type: TABLE"),
        ("statement", b"SELECT 2 -- inside\n;"),
        ("comment", b"-- the end"),
    ]


@pytest.mark.parametrize("script", [b"", b"\n \t\r\n", b"--", b"-- x\n", b"\\restrict x", b"/* x */"])
def test_a_script_may_have_no_statement(script: bytes) -> None:
    assert [event for event in read(script) if event[0] != "comment"] == []
    assert statements(script) == []


# --- rows ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"\\.\n", []),
        (b"\n\\.\n", [b""]),  # of a table without columns, or with one empty text
        (b"\n\n\n\\.\n", [b""] * 3),
        (b"1\ta\n2\t\\N\n\\.\n", [b"1\ta", b"2\t\\N"]),
        (b"\\\\.\nx\\.\n\\.x\n \\.\n\\.\n", [b"\\\\.", b"x\\.", b"\\.x", b" \\."]),
        (b"SELECT 1;\n--\n'\n\"\n$$\n/*\n\\restrict\n\\.\n", [
            b"SELECT 1;", b"--", b"'", b'"', b"$$", b"/*", b"\\restrict",
        ]),
        (b"COPY t FROM stdin;\n\\.\n", [b"COPY t FROM stdin;"]),
    ],
)  # fmt: skip
def test_rows_end_at_a_backslash_and_a_dot_alone(text: bytes, expected: list[bytes]) -> None:
    assert rows(text) == expected


@given(
    st.lists(st.lists(st.sampled_from([b"\\.", b"\\", b".", b"a", b"\t", b";", b"'"]), max_size=4).map(b"".join)),
    st.lists(st.integers(0, 10**6), max_size=9),
)
def test_rows_come_back_one_by_one(texts: list[bytes], places: list[int]) -> None:
    texts = [text for text in texts if text != b"\\."]
    script = b"COPY t FROM stdin;\n" + b"".join(text + b"\n" for text in texts) + b"\\.\n\nCOPY u FROM stdin;\n\\.\n"
    assert read(*cut(script, places)) == [
        ("statement", b"COPY t FROM stdin;"),
        *(("row", text) for text in texts),
        ("statement", b"COPY u FROM stdin;"),
    ]


PIECE, MANY = b"x" * 1000, 20_000  # looked at from the beginning each time, they would take minutes


def test_a_huge_row_takes_time_in_proportion() -> None:
    begin = time.monotonic()
    found = read(b"COPY t FROM stdin;\n", *[PIECE] * MANY, b"\n\\.\n")
    assert [(kind, len(text)) for kind, text in found[1:]] == [("row", len(PIECE) * MANY)]
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("quote", [b"'", b'"', b"$$", b"$x$"])
def test_a_huge_string_takes_time_in_proportion(quote: bytes) -> None:
    begin = time.monotonic()
    ((_kind, text),) = read(b"SELECT " + quote, *[PIECE] * MANY, quote + b";")
    assert len(text) == len(PIECE) * MANY + 8 + 2 * len(quote)
    assert time.monotonic() - begin < 10


# --- ends that are none ---


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (b"COPY t FROM stdin;", "among the rows"),
        (b"COPY t FROM stdin;\n", "among the rows"),
        (b"COPY t FROM stdin;\n1\n\\.", "among the rows"),
        (b"COPY t FROM stdin;\n1\n\\\\.\n", "among the rows"),
        (b"SELECT 'a", "inside a string"),
        (b"SELECT 'a;\n'';\n", "inside a string"),
        (rb"SELECT E'a\';", "inside a string"),
        (b'SELECT "a', "inside a string"),
        (b"SELECT $a$ ; $b$ ;", "inside a string"),
        (b"/* a", "inside a string"),
        (b"SELECT 1 /* /* */ ;", "inside a string"),
        (b"SELECT 1", "in the middle of a statement"),
        (b"SELECT 1 -- a", "in the middle of a statement"),
        (b"SELECT 1 -- a\n", "in the middle of a statement"),
        (b"SELECT (1;", "in the middle of a statement"),
        (b"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1;", "in the middle of a statement"),
    ],
)
def test_a_script_that_ends_in_the_middle_of_something_is_an_error(script: bytes, said: str) -> None:
    with pytest.raises(ScriptError, match=said):
        read(script)
    with pytest.raises(ScriptError, match=said):
        read(*[script[at : at + 1] for at in range(len(script))])
