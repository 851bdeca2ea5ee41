# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.

"""pg_dump's patterns for tables and schemas: the same names that pg_dump will find, known before it runs."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import ConfigurationError

OPTIONS = ("tables", "exclude_tables", "schemas", "exclude_schemas", "exclude_table_data")
SCHEMA_OPTIONS = ("schemas", "exclude_schemas")

_SPECIAL = frozenset("|*+?()[]{}.^$\\")
_NAMED = 20  # names that a statement lists before it counts


@dataclass(frozen=True)
class Pattern:
    """A pattern as regular expressions of PostgreSQL; no schema means "in the search path"."""

    name: str
    schema: str | None = None
    database: str | None = None  # literally


@dataclass(frozen=True)
class Match:
    """What one pattern of one option matches in a database."""

    option: str
    pattern: str
    oids: tuple[int, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Matches:
    """What all patterns of a dump match in a database."""

    items: tuple[Match, ...] = ()

    def oids(self, option: str) -> list[int]:
        """Given an option, return what its patterns match."""
        return sorted({oid for item in self.items if item.option == option for oid in item.oids})

    def names(self, option: str) -> list[str]:
        """Given an option, return the names of what its patterns match."""
        return sorted({name for item in self.items if item.option == option for name in item.names})

    @property
    def everything(self) -> bool:
        """Return whether the dump begins with the whole database, before anything is taken out of it."""
        return not any(item.option in ("tables", "schemas") for item in self.items)


def parse(pattern: str, option: str) -> Pattern:
    """Given a pattern as pg_dump and psql read it ([schema.]name with * and ?, and "quoted parts"), return its parts;
    raise ConfigurationError where there are too many.
    """
    parts = _parts(pattern)
    limit = 2 if option in SCHEMA_OPTIONS else 3  # a leading part may name the database
    if len(parts) > limit:
        raise ConfigurationError(
            f'{option} has the pattern {pattern!r} with too many dots: put a name with a dot in it in "double quotes"'
        )
    regexes = [f"^({regex})$" for regex, _pattern in parts]
    if option in SCHEMA_OPTIONS:
        return Pattern(regexes[-1], None, parts[0][1] if len(parts) == 2 else None)
    return Pattern(regexes[-1], regexes[-2] if len(parts) > 1 else None, parts[0][1] if len(parts) == 3 else None)


def _parts(pattern: str) -> list[tuple[str, str]]:
    """Given a pattern, return each dot-separated part as a regular expression and literally.

    This is patternToSQLRegex of PostgreSQL's src/fe_utils/string_utils.c: what is not quoted may be a regular
    expression, but for the dollar sign and the empty brackets of array types.
    """
    parts = [("", "")]
    quoted = False
    position = 0
    while position < len(pattern):
        character, following = pattern[position], pattern[position + 1 : position + 2]
        position += 1
        if character == '"':
            if not quoted or following != '"':
                quoted = not quoted
                continue
            position += 1
        elif character == "." and not quoted:
            parts.append(("", ""))
            continue
        if character.isascii() and not quoted:
            character = character.lower()
        regex, literal = parts[-1]
        parts[-1] = (regex + _regex(character, following, quoted), literal + character)
    return parts


def _regex(character: str, following: str, quoted: bool) -> str:
    if not quoted and character in "*?":
        return ".*" if character == "*" else "."
    if character == "$" or (quoted and character in _SPECIAL) or (character == "[" and following == "]"):
        return "\\" + character
    return character


def is_system(name: str) -> bool:
    """Given a schema's name, or schema.table, return whether it is the server's own; pg_ is reserved for such."""
    return name.startswith(("pg_", "information_schema.")) or name == "information_schema"


def system_match(option: str, pattern: str, names: Sequence[str]) -> ConfigurationError:
    """Given a pattern that would put the server's own tables or schemas into a dump, return the error."""
    what = "schemas" if option in SCHEMA_OPTIONS else "tables"
    hint = (
        "name the schemas one by one"
        if option in SCHEMA_OPTIONS
        else f"put the schema before it, as in public.{pattern}"
    )
    return ConfigurationError(
        f"{option} has the pattern {pattern!r}, which also matches {_list(what, names[:3])} and so would dump {what} of"
        f" the server's own, which cannot be restored: {hint}"
    )


def no_match(option: str, pattern: str, database: str, existing: Sequence[str]) -> ConfigurationError:
    """Given a pattern that matches nothing and the names that exist (schema.table, or schemas), return the error."""
    what = "schema" if option in SCHEMA_OPTIONS else "table"
    near = _near(pattern, existing)
    hint = f"did you mean {' or '.join(near)}?" if near else f"check the name of the {what}"
    return ConfigurationError(
        f"{option} has the pattern {pattern!r}, which matches no {what} of database {database!r}: {hint}"
    )


def _near(pattern: str, existing: Sequence[str]) -> list[str]:
    wanted = pattern.replace('"', "").lower()
    by_form: dict[str, list[str]] = {}
    for name in existing:  # a table of a schema outside the search path is near by its last part alone
        for form in (name.lower(), name.lower().rpartition(".")[2]):
            by_form.setdefault(form, []).append(name)
    forms = difflib.get_close_matches(wanted, list(by_form), n=3, cutoff=0.6)
    return list(dict.fromkeys(name for form in forms for name in by_form[form]))[:3]


def left_out(matches: Matches) -> tuple[str, ...]:
    """Given what a dump's patterns match, return in words what is not in the dump; () means that it is whole."""
    said = []
    if matches.names("tables"):
        said.append(
            f"everything but {_list('tables', matches.names('tables'))}: no other tables, functions, types, extensions"
            " or large objects, nor anything that these tables depend on"
        )
    elif matches.names("schemas"):
        said.append(
            f"everything outside {_list('schemas', matches.names('schemas'))}: extensions, large objects, and whatever"
            " these schemas depend on elsewhere"
        )
    if matches.names("exclude_schemas"):
        said.append(_list("schemas", matches.names("exclude_schemas")))
    if matches.names("exclude_tables"):
        said.append(_list("tables", matches.names("exclude_tables")))
    if matches.names("exclude_table_data"):
        said.append(_list("rows of tables", matches.names("exclude_table_data")))
    return tuple(said)


def _list(what: str, names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return f"{what} {', '.join(names[:_NAMED])}" + (f" and {more} more" if more > 0 else "")
