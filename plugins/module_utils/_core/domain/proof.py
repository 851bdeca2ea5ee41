# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""The proof that a restored database holds what its archive does: the script of the one compared with that of the other.

Of every table the number of its rows, their bytes, and the sum of a hash of each row count, so the order does not
matter. The hash is Python's own of bytes: 64 bits of SipHash with a key made anew for each process. It costs a tenth of a
microsecond, so the server stays what a drill waits for; and both sides are always hashed in one process.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .script import Rows, Script

_NAME = rb'(?:"(?:[^"]|"")*"|[^\s".(]+)'
_COPY = re.compile(rb"COPY (%s(?:\.%s)?) (?:\(.*\))? ?FROM stdin;" % (_NAME, _NAME), re.DOTALL)
_SEQUENCE = re.compile(rb"SELECT pg_catalog\.setval\(E?'((?:[^']|'')*)', (-?[0-9]+), (true|false)\);", re.DOTALL)
_OPEN = re.compile(rb"SELECT pg_catalog\.lo_open\('([0-9]+)', [0-9]+\);")
_WRITE = re.compile(rb"SELECT pg_catalog\.lowrite\(0, '\\x([0-9a-f]*)'\);")
_CLOSE = b"SELECT pg_catalog.lo_close(0);"
_TITLE = re.compile(rb"-- Name: (.*); Type: (.*?); Schema: (.*?); Owner: ")
# Each large object is proven by itself, and how many of them share a title depends on pg_dump's version.
_NOT_COUNTED = (b"BLOB", b"STATISTICS DATA")
_SHOWN = 20  # differences; a restore that went wrong can have thousands


@dataclass
class Table:
    """What is known of the rows of one table."""

    __slots__ = ("digest", "rows", "size")

    rows: int
    size: int  # bytes, line ends included
    digest: int

    def take(self, rows: Sequence[bytes]) -> None:
        """Given more of its rows, take them in."""
        self.rows += len(rows)
        self.size += len(rows) + sum(map(len, rows))
        self.digest += sum(map(hash, rows))


@dataclass
class LargeObjects:
    """Numbers and hashes of large objects, sixteen bytes for each."""

    numbers: array[int] = field(default_factory=lambda: array("Q"))
    digests: array[int] = field(default_factory=lambda: array("Q"))
    size: int = 0  # bytes

    def pairs(self) -> dict[int, int]:
        """Return the hash of each by its number."""
        return dict(zip(self.numbers, self.digests))


@dataclass
class Contents:
    """What a database's script holds."""

    tables: dict[bytes, Table] = field(default_factory=dict)
    sequences: dict[bytes, bytes] = field(default_factory=dict)
    large_objects: LargeObjects = field(default_factory=LargeObjects)
    objects: Counter[tuple[bytes, ...]] = field(default_factory=Counter)  # by type, schema and name
    inserts: int = 0  # rows that are statements and are not compared

    @property
    def rows(self) -> int:
        """Return the rows of all tables."""
        return sum(table.rows for table in self.tables.values())

    @property
    def size(self) -> int:
        """Return the bytes of all rows and large objects."""
        return sum(table.size for table in self.tables.values()) + self.large_objects.size

    def figures(self) -> dict[str, int]:
        """Return how much it is."""
        return {
            "tables": len(self.tables),
            "rows": self.rows,
            "bytes": self.size,
            "sequences": len(self.sequences),
            "large_objects": len(self.large_objects.numbers),
            "objects": sum(self.objects.values()),
        }


class _Collector:
    """Takes the statements of a script and fills in contents."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._number = 0  # of the large object that is being written
        self._object = hashlib.blake2b(digest_size=8)

    def statement(self, text: bytes) -> Rows | None:
        if text.startswith(b"COPY "):
            copy = _COPY.fullmatch(text)
            return self._contents.tables.setdefault(copy.group(1), Table(0, 0, 0)).take if copy else None
        if text.startswith(b"SELECT pg_catalog."):
            self._called(text)
        elif text.startswith(b"INSERT INTO "):
            self._contents.inserts += 1
        return None

    def _called(self, text: bytes) -> None:
        written = _WRITE.fullmatch(text)
        if written:
            self._object.update(written.group(1))
            self._contents.large_objects.size += len(written.group(1)) // 2
            return
        opened, sequence = _OPEN.fullmatch(text), _SEQUENCE.fullmatch(text)
        if opened:
            self._number, self._object = int(opened.group(1)), hashlib.blake2b(digest_size=8)
        elif text == _CLOSE:
            self._contents.large_objects.numbers.append(self._number)
            self._contents.large_objects.digests.append(int.from_bytes(self._object.digest(), "big"))
        elif sequence:
            value = sequence.group(2) + (b"" if sequence.group(3) == b"true" else b" (not yet used)")
            self._contents.sequences[sequence.group(1)] = value

    def comment(self, line: bytes) -> None:
        title = _TITLE.match(line)
        if title and not title.group(2).startswith(_NOT_COUNTED):
            self._contents.objects[title.group(2, 3, 1)] += 1


def collect(contents: Contents) -> Script:
    """Given contents, return a reader that adds to them what is in the script it is fed."""
    collector = _Collector(contents)
    return Script(collector.statement, collector.comment)


def differences(expected: Contents, found: Contents, *, same_version: bool = True) -> list[str]:
    """Given the contents of an archive and of the database that was restored from it, return how they differ, in words.

    Other versions of pg_dump name other objects, so these are compared only where both scripts are of the same one.
    """
    every = [
        *(_tables(expected, found) if not expected.inserts else ()),
        *_sequences(expected, found),
        *_large_objects(expected.large_objects, found.large_objects),
        *(_objects(expected, found) if same_version else ()),
    ]
    more = len(every) - _SHOWN
    return every[:_SHOWN] + ([f"and {more} more differences"] if more > 0 else [])


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _tables(expected: Contents, found: Contents) -> Iterator[str]:
    for name in {**expected.tables, **found.tables}:
        table, other = expected.tables.get(name), found.tables.get(name)
        if table is None and other is not None and other.rows:
            yield f"table {_text(name)} has {_number(other.rows, 'row')} that the backup does not have"
        elif table is not None and other is None:
            yield f"table {_text(name)} is missing, with {_number(table.rows, 'row')}"
        elif table is not None and other is not None and table.rows != other.rows:
            yield _row_counts(_text(name), table.rows, other.rows)
        elif table is not None and other is not None and (table.digest, table.size) != (other.digest, other.size):
            yield f"table {_text(name)} has {_number(table.rows, 'row')} as in the backup, but not the same"


def _row_counts(name: str, expected: int, found: int) -> str:
    missing = expected - found
    how = f"{_number(missing, 'row')} missing" if missing > 0 else f"{_number(-missing, 'row')} too many"
    return f"table {name} has {_number(found, 'row')} instead of {expected:,}: {how}"


def _sequences(expected: Contents, found: Contents) -> Iterator[str]:
    for name in {**expected.sequences, **found.sequences}:
        value, other = expected.sequences.get(name), found.sequences.get(name)
        if value != other:
            says = "is missing" if other is None else f"is at {_text(other)}"
            yield f"sequence {_text(name)} {says}" + (f" instead of {_text(value)}" if value else "")


def _large_objects(expected: LargeObjects, found: LargeObjects) -> Iterator[str]:
    if expected == found:
        return
    digests, others = expected.pairs(), found.pairs()
    for number in sorted({*digests, *others}):
        if number not in others:
            yield f"large object {number} is missing"
        elif number not in digests:
            yield f"large object {number} is not in the backup"
        elif digests[number] != others[number]:
            yield f"large object {number} has another content"


def _objects(expected: Contents, found: Contents) -> Iterator[str]:
    for kind, schema, name in expected.objects - found.objects:
        yield f"{_text(kind)} {_text(name)} (schema {_text(schema)}) is missing"
    for kind, schema, name in found.objects - expected.objects:
        yield f"{_text(kind)} {_text(name)} (schema {_text(schema)}) is not in the backup"
