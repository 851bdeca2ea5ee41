# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Which databases of an instance a run is about, and what is said about the others."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from .facts import DatabaseEntry
from .model import Selection
from .preflight import skip_reason


@dataclass(frozen=True)
class Choice:
    """The databases to dump, those that were passed over with the reason, and what was asked for and is not there.

    What is not there makes the run fail in the end, but does not keep the others from being dumped: a typo in one
    pattern must not cost a night's backups.
    """

    names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    missing: tuple[tuple[str, str], ...]


def _near(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=3)
    return f" (there is {', '.join(near)})" if near else ""


def choose(entries: Sequence[DatabaseEntry], selection: Selection) -> Choice:
    """Given what the server lists and what the user selected, return the choice, in order of name."""
    known = {entry.name: entry for entry in entries}
    missing: list[tuple[str, str]] = []
    chosen: set[str] = set()
    skipped: dict[str, str] = {}
    for name in selection.databases:
        problem = f"there is no such database{_near(name, known)}"
        if name in known:  # a template that is named is meant
            problem = skip_reason(replace(known[name], is_template=False))
        if problem:
            missing.append((name, problem))
        else:
            chosen.add(name)
    pool = set(known) if selection.include or not selection.databases else set()
    if selection.include:
        pool = _matching("include", selection.include, pool, missing)
    excluded = _matching("exclude", selection.exclude, set(known), missing)
    for name in pool - chosen:
        reason = skip_reason(known[name])
        if name in excluded:
            skipped[name] = "excluded"
        elif reason:
            skipped[name] = reason
        else:
            chosen.add(name)
    return Choice(tuple(sorted(chosen)), tuple(sorted(skipped.items())), tuple(missing))


def _matching(option: str, patterns: Sequence[str], names: set[str], missing: list[tuple[str, str]]) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        matched = {name for name in names if re.fullmatch(pattern, name, re.DOTALL)}
        if not matched:
            missing.append((pattern, f"the pattern in `{option}` matches no database: correct it or take it out"))
        found |= matched
    return found


def covers(selection: Selection, name: str) -> bool:
    """Given a selection and a database's name, return whether the selection means it, there or not."""

    def any_matches(patterns: Sequence[str]) -> bool:
        return any(re.fullmatch(pattern, name, re.DOTALL) for pattern in patterns)

    if selection.databases or selection.include:
        return name in selection.databases or (any_matches(selection.include) and not any_matches(selection.exclude))
    return not any_matches(selection.exclude)


def vanished(stored: Iterable[str], entries: Sequence[DatabaseEntry], selection: Selection) -> tuple[str, ...]:
    """Given the databases that have backups, return those that the selection means and the server no longer has."""
    gone = set(stored) - {entry.name for entry in entries}
    return tuple(sorted(name for name in gone if covers(selection, name)))
