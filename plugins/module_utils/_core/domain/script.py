# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""SQL scripts as pg_dump, pg_dumpall and pg_restore write them, cut into statements and rows as they come.

Only as much of SQL is known as it takes to find where a statement ends: strings, identifiers, comments, dollar quotes.
What is kept is one statement or the beginning of one row, however long the script is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Callable, Optional

Rows = Callable[[Sequence[bytes]], None]  # takes rows as COPY writes them, without their line ends
Statement = Callable[[bytes], Optional[Rows]]  # given a statement, and who takes the rows where it is followed by some

_TOKENS = rb"'|\"|;|\\|\(|\)|--|/\*|\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$"
_TOKEN = re.compile(_TOKENS)
_WORD = re.compile(rb"[A-Za-z0-9_$\x80-\xff]")
_UNFINISHED = bytes(byte for byte in range(256) if _WORD.match(bytes((byte,)))) + b"-/"  # what a token can begin with
# A function's body in SQL has statements of its own: as psql does, we count what ends with END.
_ROUTINE = re.compile(rb"\s*CREATE\s+(?:OR\s+REPLACE\s+)?(?:FUNCTION|PROCEDURE)\s", re.IGNORECASE)
_ROUTINE_TOKEN = re.compile(_TOKENS + rb"|(?i:ATOMIC|CASE|END)(?![A-Za-z0-9_$\x80-\xff])")
_BEGIN = re.compile(rb"(?<![A-Za-z0-9_$\x80-\xff.])BEGIN\s+\Z", re.IGNORECASE)
_LONGEST_BEGIN = 32  # bytes, with the blanks behind it
_QUOTE = ord("'")
_BLANK = b" \t\r\n"
_END_OF_ROWS = b"\\."
_SOON = _PIECE = 32 * 1024  # bytes
_STRING_END = re.compile(rb"['\\]")
_COMMENT_EDGE = re.compile(rb"/\*|\*/")
_OLD_STRINGS = re.compile(rb"SET standard_conforming_strings = (on|off);")


class ScriptError(ValueError):
    """A script that ends in the middle of something."""


class Script:
    """Takes a script piece by piece; calls `statement` with each statement and `comment` with each comment line that
    stands between two statements.
    """

    def __init__(self, statement: Statement, comment: Callable[[bytes], None] = lambda line: None) -> None:
        self._statement, self._comment = statement, comment
        self._text = bytearray()  # from the begin of the statement, or from a row's
        self._at = 0  # before it, all of the text was looked at
        self._inside: Callable[[], bool] | None = None  # looks for the end of what `_at` is in
        self._tag, self._depth = b"", 0
        self._token, self._parentheses, self._blocks = _TOKEN, 0, 0  # within them a semicolon ends nothing
        self._backslashes = False  # standard_conforming_strings is off
        self._expected: Rows | None = None  # rows that begin on the next line
        self._rows: Rows | None = None  # rows that we are among
        self._row: list[bytes] = []  # pieces of an unfinished row
        self._first = False  # none of these rows was seen yet

    def feed(self, data: bytes) -> None:
        """Given the next piece of the script, pass on the statements and rows that end in it."""
        rest: bytes | None = data
        while rest is not None:
            if self._rows:
                rest = self._feed_rows(rest)
            elif len(rest) > _PIECE:  # what is left of it is copied at each statement that rows follow
                for start in range(0, len(rest), _PIECE):
                    self.feed(rest[start : start + _PIECE])
                return
            else:
                rest = self._feed_text(rest)

    def end(self) -> None:
        """The script is over; raise ScriptError where it cannot be."""
        if self._rows or self._expected:
            raise ScriptError("it ends among the rows of a table")
        if self._inside == self._find_line_end:
            self.feed(b"\n")
        if self._inside:
            raise ScriptError("it ends inside a string, an identifier or a comment")
        if self._text.strip(_BLANK):
            raise ScriptError("it ends in the middle of a statement")

    # --- rows ---

    def _feed_rows(self, data: bytes) -> bytes | None:
        """Given bytes among rows, pass the rows on; return what comes after them, None while they go on."""
        if b"\n" not in data:
            self._row.append(data)
            return None
        block = b"".join((*self._row, data)) if self._row else data
        rows, after = _small(block) if self._first else None, None
        self._first, self._row = False, []
        if rows is not None:
            after = block[sum(map(len, rows)) + len(rows) + len(_END_OF_ROWS) + 1 :]
        else:
            rows = block.split(b"\n")
            rest = rows.pop()
            if _END_OF_ROWS in rows:  # to look among the rows costs a tenth of a search through all bytes
                end = rows.index(_END_OF_ROWS)
                after = block[sum(map(len, rows[: end + 1])) + end + 1 :]
                del rows[end:]
            elif rest:
                self._row = [rest]
        if self._rows and rows:
            self._rows(rows)
        if after is not None:
            self._rows = None
        return after

    # --- statements ---

    def _feed_text(self, data: bytes) -> bytes | None:
        """Given text, pass its statements on; return what is left of it where rows begin, else None."""
        self._text += data
        more = True
        while more and not self._expected:
            more = self._inside() if self._inside else self._find_token()
        line_end = self._text.find(b"\n") if self._expected else -1
        if line_end < 0:
            return None
        rest = bytes(self._text[line_end + 1 :])
        self._text.clear()
        self._rows, self._expected, self._first = self._expected, None, True
        return rest

    def _leave(self, at: int) -> bool:
        self._at, self._inside = at, None
        return True

    def _find_token(self) -> bool:
        """Look for what a statement can end with, or begin something else with; return whether it was there."""
        found = self._token.search(self._text, self._at)
        if not found or (found.group().isalpha() and found.end() == len(self._text)):
            self._at += len(self._text[self._at :].rstrip(_UNFINISHED))
            return False
        token, start, self._at = found.group(), found.start(), found.end()
        if token == b";":
            if not self._parentheses and not self._blocks:
                self._end_statement(self._at)
        elif token == b"'":
            self._inside = self._find_escaped_end if self._has_escapes(start) else self._find_string_end
        elif token == b'"':
            self._inside = self._find_identifier_end
        elif token == b"/*":
            self._inside, self._depth = self._find_comment_end, 1
        elif token == b"--" or (token == b"\\" and not self._text[:start].strip(_BLANK)):
            self._inside = self._find_line_end
        elif token.startswith(b"$"):
            if not self._follows_word(start):
                self._inside, self._tag = self._find_dollar_end, token
        else:
            self._count(token, start)
        return True

    def _count(self, token: bytes, start: int) -> None:
        """Given a parenthesis or a word of a function's body, and its place, count what a semicolon is inside of."""
        if token == b"(":
            self._parentheses += 1
            if _ROUTINE.match(self._text):
                self._token = _ROUTINE_TOKEN  # there is no body before the arguments
        elif token == b")":
            self._parentheses = max(0, self._parentheses - 1)
        elif token.isalpha() and not self._parentheses and not self._follows_word(start):
            if token.upper() == b"ATOMIC":
                self._blocks += _BEGIN.search(self._text, max(0, start - _LONGEST_BEGIN), start) is not None
            elif self._blocks:
                self._blocks += 1 if token.upper() == b"CASE" else -1

    def _end_statement(self, at: int) -> None:
        text = bytes(self._text[:at]).lstrip(_BLANK)
        del self._text[:at]
        self._at = 0
        self._token, self._parentheses, self._blocks = _TOKEN, 0, 0
        strings = _OLD_STRINGS.fullmatch(text)
        if strings:
            self._backslashes = strings.group(1) == b"off"
        self._expected = self._statement(text)

    def _follows_word(self, at: int) -> bool:
        return at > 0 and _WORD.match(self._text, at - 1) is not None

    def _has_escapes(self, at: int) -> bool:
        """Given where a string begins, return whether a backslash in it has a meaning."""
        marked = at > 0 and bytes(self._text[at - 1 : at]) in (b"E", b"e") and not self._follows_word(at - 1)
        return marked or self._backslashes

    def _find_string_end(self) -> bool:  # a doubled quote ends one and begins the next, which comes to the same
        return self._find(b"'")

    def _find_identifier_end(self) -> bool:
        return self._find(b'"')

    def _find_dollar_end(self) -> bool:
        return self._find(self._tag)

    def _find(self, closing: bytes) -> bool:
        end = self._text.find(closing, self._at)
        if end >= 0:
            return self._leave(end + len(closing))
        self._at = max(self._at, len(self._text) - len(closing) + 1)
        return False

    def _find_escaped_end(self) -> bool:
        while True:
            found = _STRING_END.search(self._text, self._at)
            if not found or found.end() == len(self._text):  # what follows a quote or a backslash has a say
                self._at = found.start() if found else len(self._text)
                return False
            if found.group() == b"'" and self._text[found.end()] != _QUOTE:
                return self._leave(found.end())
            self._at = found.end() + 1

    def _find_comment_end(self) -> bool:
        while self._depth:
            found = _COMMENT_EDGE.search(self._text, self._at)
            if not found:
                self._at = max(self._at, len(self._text) - 1)
                return False
            self._depth += 1 if found.group() == b"/*" else -1
            self._at = found.end()
        if self._text.lstrip(_BLANK).startswith(b"/*"):  # between two statements
            del self._text[: self._at]
            self._at = 0
        return self._leave(self._at)

    def _find_line_end(self) -> bool:
        """Look for the end of a comment, or of a command to psql; between two statements it is no part of either."""
        end = self._text.find(b"\n", self._at)
        if end < 0:
            self._at = max(self._at, len(self._text) - 1)
            return False
        line = bytes(self._text[:end]).lstrip(_BLANK)
        if line.startswith((b"--", b"\\")):
            del self._text[: end + 1]
            if line.startswith(b"--"):
                self._comment(line)
            return self._leave(0)
        return self._leave(end + 1)


def _small(block: bytes) -> list[bytes] | None:
    """Given what begins with a table's rows, return these where they end soon, else None. A piece of a script may hold
    the rows of a thousand tables, and must not be cut into rows for each of them.
    """
    if block.startswith(_END_OF_ROWS + b"\n"):
        return []
    end = block.find(b"\n" + _END_OF_ROWS + b"\n", 0, _SOON)
    return block[:end].split(b"\n") if end >= 0 else None


def statements(script: bytes) -> list[bytes]:
    """Given a whole script without rows, return its statements in order; raise ScriptError."""
    found: list[bytes] = []
    reader = Script(found.append)
    reader.feed(script)
    reader.end()
    return found
