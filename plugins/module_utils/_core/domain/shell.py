# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Commands for people to run in bash. pgkeep itself never asks a shell for anything."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterable, Sequence

_WIDE = 100  # characters of a line that still fits on a page
_SHORT = 12  # characters of a program's name that is not left alone on a line
_NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "'": "\\'", "\\": "\\\\"}
_ACTIVE = frozenset('"$`\\!')  # between double quotes; "!" where somebody types
_OPTION = re.compile(r"(--[a-z-]+=)(.+)", re.DOTALL)


def quoted(word: str) -> str:
    """Given any word, return it as bash reads it.

    What does not print as itself, or looks like another word, is written byte by byte: paper has to be enough.
    """
    if not word.isprintable() or unicodedata.normalize("NFC", word) != word:
        return _bytewise(word)
    if "'" not in word:
        return shlex.quote(word)
    return _bytewise(word) if _ACTIVE.intersection(word) else f'"{word}"'


def _bytewise(word: str) -> str:
    return "$'" + "".join(map(_escaped, word)) + "'"


def _escaped(item: str) -> str:
    if item in _NAMED:
        return _NAMED[item]
    if item.isprintable() and not unicodedata.combining(item) and item != "!":
        return item
    return "".join(f"\\x{byte:02x}" for byte in item.encode("utf-8", "surrogateescape"))


def command(*words: str) -> list[str]:
    """Given the words of a command, return the lines that run it."""
    return joined(map(written, words))


def written(word: str) -> str:
    """Given a word, return it as bash reads it, of an option only its value between quotes: so people write it."""
    option = _OPTION.fullmatch(word)
    return f"{option[1]}{quoted(option[2])}" if option else quoted(word)


def joined(words: Iterable[str]) -> list[str]:
    """Given words as bash reads them, return the lines with them, broken between words where they would be too long."""
    lines: list[str] = []
    for word in words:
        if not lines:
            lines.append(word)
        elif len(lines[-1]) + len(word) < _WIDE or (len(lines) == 1 and len(lines[0]) < _SHORT):
            lines[-1] += f" {word}"
        else:
            lines[-1] += " \\"
            lines.append(f"    {word}")
    return lines


def piped(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Given two commands' lines, return the lines that feed the second with what the first one writes."""
    return [*first[:-1], f"{first[-1]} |", *(f"    {line}" for line in second)]


def chain(*commands: Sequence[str]) -> list[str]:
    """Given commands' lines (none: left out), return the lines that run one after the other until one fails."""
    wanted = [lines for lines in commands if lines]
    before = [line for lines in wanted[:-1] for line in (*lines[:-1], f"{lines[-1]} &&")]
    return [*before, *(wanted[-1] if wanted else ())]
