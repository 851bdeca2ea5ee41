# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Markdown that also reads well on paper, and in which no name of a database means anything."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .text import printable

# What neither ends a code span, nor a cell of a table, nor begins HTML where a renderer is careless.
_HARMLESS = re.compile(r"[^`|<>&\s](?:[^`|<>&]*[^`|<>&\s])?")
_MARKUP = re.compile(r"[`|<>&*_\[\]\\~#$:@!{}]|^\s|\s$|(?<=\s)\s")
_LONG_RUN = re.compile(r"`{3,}")


def literal(text: str) -> str:
    """Given any text, return Markdown that shows it on one line, in prose, in a heading and in a cell of a table."""
    shown = printable(text)
    if _HARMLESS.fullmatch(shown):
        return f"`{shown}`"
    return _MARKUP.sub(lambda match: f"&#{ord(match.group())};", shown) or "(empty)"


def literals(texts: Iterable[str]) -> str:
    """Given texts, return Markdown that lists them."""
    return ", ".join(map(literal, texts))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Given a header and rows of Markdown, return the lines of a table."""
    return [_row(row) for row in (header, ["---"] * len(header), *rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def block(lines: Iterable[str], language: str = "bash") -> list[str]:
    """Given lines, return them as a block of code with an empty line after it, whatever is in them."""
    inside = list(lines)
    longest = max((len(run) for line in inside for run in _LONG_RUN.findall(line)), default=2)
    fence = "`" * (longest + 1)
    return [f"{fence}{language}", *inside, fence, ""]
