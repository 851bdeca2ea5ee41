# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Sequence

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.proof import Contents, collect, differences
from hypothesis import given
from hypothesis import strategies as st

ROWS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\\"), max_size=8), max_size=12)


def contents(script: str, pieces: int = 1000) -> Contents:
    found = Contents()
    reader, data = collect(found), script.encode()
    for start in range(0, len(data), pieces):
        reader.feed(data[start : start + pieces])
    reader.end()
    return found


def table(name: str, rows: Sequence[str], columns: str = "(a, b)") -> str:
    return f"COPY {name} {columns} FROM stdin;\n" + "".join(f"{row}\n" for row in rows) + "\\.\n\n"


def large_object(number: int, *pieces: str) -> str:
    writes = "".join(f"SELECT pg_catalog.lowrite(0, '\\x{piece}');\n" for piece in pieces)
    return f"SELECT pg_catalog.lo_open('{number}', 131072);\n{writes}SELECT pg_catalog.lo_close(0);\n\n"


@given(ROWS, st.randoms(use_true_random=False), st.integers(1, 50))
def test_the_order_of_rows_and_how_they_come_change_nothing(rows: list[str], random: object, pieces: int) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = contents(table("t", rows)), contents(table("t", shuffled), pieces)
    assert differences(one, other) == []
    assert one.rows == len(rows)
    assert one.size == sum(len(row.encode()) + 1 for row in rows)


@given(ROWS, ROWS)
def test_other_rows_are_a_difference(rows: list[str], others: list[str]) -> None:
    found = differences(contents(table("t", rows)), contents(table("t", others)))
    assert bool(found) == (sorted(rows) != sorted(others))


def test_what_is_missing_and_what_is_too_much_is_told_apart() -> None:
    expected = contents(table("a", ["1", "2"]) + table('"b\n""x"', ["", ""], "") + table("empty", []))
    found = contents(table("a", ["1"]) + table("c", ["x"]) + table("nothing", []))
    assert differences(expected, found) == [
        "table a has 1 row instead of 2: 1 row missing",
        'table "b\n""x" is missing, with 2 rows',
        "table empty is missing, with 0 rows",
        "table c has 1 row that the backup does not have",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("SELECT pg_catalog.setval('s.a', 8, true);", "sequence s.a is at 8 instead of 7"),
        ("SELECT pg_catalog.setval('s.a', 7, false);", "sequence s.a is at 7 (not yet used) instead of 7"),
        ("", "sequence s.a is missing instead of 7"),
    ],
)
def test_sequences(change: str, said: str) -> None:
    assert differences(contents("SELECT pg_catalog.setval('s.a', 7, true);"), contents(change)) == [said]


def test_large_objects_whatever_the_pieces_they_are_written_in() -> None:
    one = contents(large_object(5, "0001", "02ff") + large_object(7))
    assert one.size == 4
    assert differences(one, contents(large_object(7) + large_object(5, "000102ff"))) == []
    other = contents(large_object(5, "000102fe") + large_object(8))
    assert differences(one, other) == [
        "large object 5 has another content",
        "large object 7 is missing",
        "large object 8 is not in the backup",
    ]


def title(name: str, kind: str, schema: str = "public", more: str = "") -> str:
    return f"--\n-- Name: {name}; Type: {kind}; Schema: {schema}; Owner: me{more}\n--\n\n"


def test_objects_are_counted_by_type_schema_and_name() -> None:
    one = contents(title("t", "TABLE", more="; Tablespace: fast") + title("1", "BLOB", "-") + title("v", "VIEW"))
    other = contents(title("t", "TABLE") + title("v", "VIEW", "other"))
    assert differences(one, other) == [
        "VIEW v (schema public) is missing",
        "VIEW v (schema other) is not in the backup",
    ]
    assert differences(one, other, same_version=False) == []
    data = "--\n-- Data for Name: t; Type: TABLE DATA; Schema: public; Owner: me\n--\n\n"
    assert contents(data).objects == {}


def test_rows_that_are_statements_are_counted_and_not_compared() -> None:
    dumped = contents("INSERT INTO t VALUES (1, ';');\nINSERT INTO t VALUES (2);\n")
    assert dumped.inserts == 2
    assert differences(dumped, contents(table("t", ["1", "2"]))) == []


def test_a_thousand_differences_are_summed_up() -> None:
    one = contents("".join(table(f"t{n}", ["x"]) for n in range(1000)))
    found = differences(one, Contents())
    assert (len(found), found[-1]) == (21, "and 980 more differences")
