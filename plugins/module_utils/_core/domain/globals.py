# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""What belongs to a whole server (roles, memberships, tablespaces, rights on parameters) as values, and how they are
read from the script that `pg_dumpall --globals-only` writes.

The script is never run as it is: `globals_plan` makes statements of the values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Callable

from .facts import ServerFacts
from .script import ScriptError, statements

# What ALTER ROLE calls them, as pg_dumpall orders them; our name is the same in lower case.
FLAGS = ("SUPERUSER", "INHERIT", "CREATEROLE", "CREATEDB", "LOGIN", "REPLICATION", "BYPASSRLS")

_ENCODING = re.compile(rb"^SET client_encoding = '([^']+)';", re.MULTILINE)
_ALIKE = re.compile(r"LATIN([1-4])|ISO_8859_([5-8])|WIN(125[0-8])")
_CODECS = {
    "UTF8": "utf-8", "SQL_ASCII": "utf-8", "LATIN5": "iso8859-9", "LATIN6": "iso8859-10", "LATIN7": "iso8859-13",
    "LATIN8": "iso8859-14", "LATIN9": "iso8859-15", "LATIN10": "iso8859-16", "WIN866": "cp866", "WIN874": "cp874",
    "KOI8R": "koi8-r", "KOI8U": "koi8-u", "EUC_CN": "gb2312", "EUC_JP": "euc_jp", "EUC_KR": "euc_kr",
    "EUC_JIS_2004": "euc_jis_2004", "SHIFT_JIS_2004": "shift_jis_2004", "SJIS": "cp932", "BIG5": "cp950", "GBK": "gbk",
    "UHC": "cp949", "GB18030": "gb18030", "JOHAB": "johab",
}  # fmt: skip


@dataclass(frozen=True)
class Role:
    """One role. Its password is what the server stores, which is no less a secret."""

    name: str
    superuser: bool = False
    inherit: bool = True
    createrole: bool = False
    createdb: bool = False
    login: bool = False
    replication: bool = False
    bypassrls: bool = False
    connection_limit: int = -1
    valid_until: str | None = None
    password: str | None = field(default=None, repr=False)
    settings: tuple[tuple[str, tuple[str, ...]], ...] = field(default=(), repr=False)
    comment: str | None = None
    labels: tuple[tuple[str, str], ...] = ()  # provider and label


@dataclass(frozen=True)
class Membership:
    """A member of a role, by somebody's grant."""

    role: str
    member: str
    grantor: str | None = None
    admin: bool = False
    inherit: bool | None = None  # None: what the member's INHERIT says, as before PostgreSQL 16
    set: bool = True


@dataclass(frozen=True)
class Privilege:
    """A right on a tablespace or a parameter."""

    target: str  # the tablespace or parameter
    privilege: str  # CREATE, SET or ALTER SYSTEM
    grantee: str | None  # None: everybody
    grantable: bool = False
    grantor: str | None = None  # None: the owner, who of parameters is the bootstrap superuser


@dataclass(frozen=True)
class Tablespace:
    """One tablespace."""

    name: str
    owner: str
    location: str
    options: tuple[tuple[str, str], ...] = ()
    owner_revoked: bool = False  # the owner has taken the owner's own right away
    privileges: tuple[Privilege, ...] = ()
    comment: str | None = None
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Globals:
    """All of a script, in its order."""

    roles: tuple[Role, ...] = ()
    memberships: tuple[Membership, ...] = ()
    tablespaces: tuple[Tablespace, ...] = ()
    parameters: tuple[Privilege, ...] = ()
    unknown: tuple[str, ...] = field(default=(), repr=False)  # statements that are not understood; may hold secrets

    @property
    def has_passwords(self) -> bool:
        """Return whether the script was written with passwords: then a role without one had none."""
        return any(role.password is not None for role in self.roles)


@dataclass(frozen=True)
class GlobalsFacts:
    """What of a script's kind is on a server, and what the role of this session may do about it."""

    server: ServerFacts
    bootstrap: str  # the superuser that initdb made
    session_superuser: bool  # who logged in is one too, and may become any role
    roles: Mapping[str, Role]  # all, with the predefined ones
    admin_of: frozenset[str]  # roles that this one may grant, by ADMIN OPTION
    memberships: tuple[Membership, ...]
    tablespaces: Mapping[str, Tablespace]
    parameters: tuple[Privilege, ...]
    unknown_settings: frozenset[str] = frozenset()  # of the script's, that this server does not have
    refused_settings: frozenset[str] = frozenset()  # of the script's, that this role may not set
    directories: Mapping[str, bool] = field(default_factory=dict)  # of the script's tablespaces; False: not there

    @property
    def me(self) -> Role:
        """Return the role of this session."""
        return self.roles[self.server.role]


def parse(script: bytes) -> Globals:
    """Given a whole script, return what it says; raise ScriptError where it is none, or not in its own encoding."""
    reader = _Reader()
    for statement in statements(_decoded(script).encode()):
        reader.read(statement.decode())
    return reader.result()


def shown(statement: str) -> str:
    """Given a statement that is not understood, return the words it begins with: what follows may be a secret."""
    words = re.match(r"[A-Z]+(?: [A-Z]+){0,2}\b", statement)
    return f"{words.group()} ..." if words else "(no SQL)"


def _decoded(script: bytes) -> str:
    """Given a script, return its text. It is cut only then: in some encodings a letter holds the byte of a quote."""
    found = _ENCODING.search(script)
    encoding = found.group(1).decode("ascii", "replace") if found else "UTF8"
    try:
        return script.decode(_codec(encoding.upper()))
    except LookupError:
        raise ScriptError(f"its encoding {encoding} is not known here: restore it with psql") from None
    except UnicodeDecodeError:
        raise ScriptError(
            f"it holds names that are not valid in its encoding {encoding}: restore it with psql"
        ) from None


def _codec(encoding: str) -> str:
    alike = _ALIKE.fullmatch(encoding)
    if not alike:
        return _CODECS.get(encoding, "unknown")
    latin, iso, windows = alike.groups()
    return f"cp{windows}" if windows else f"iso8859-{latin or iso}"


# --- words of a statement ---

_TOKEN = re.compile(
    r"""(?P<blank>\s+)
      | (?P<escaped>[Ee]'(?:[^'\\]|''|\\.)*')
      | (?P<string>'(?:[^']|'')*')
      | (?P<name>"(?:[^"]|"")+")
      | (?P<word>[A-Za-z_\x80-\U0010ffff][\w$]*)
      | (?P<number>-?[0-9.]+(?:[Ee][-+]?[0-9]+)?)
      | (?P<sign>[(),=;])""",
    re.VERBOSE | re.DOTALL,
)
_OLD_STRING = re.compile(r"'(?:[^'\\]|''|\\.)*'", re.DOTALL)
_ESCAPE = re.compile(r"''|\\(.)", re.DOTALL)
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_NOT_SIMPLE = "01234567xuU"  # \101, \x41 and the like, which nothing of PostgreSQL's writes


class _UnknownError(ValueError):
    """A statement of another form."""


def _tokens(statement: str, backslashes: bool) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(statement):
        old = _OLD_STRING.match(statement, at) if backslashes else None
        found = old or _TOKEN.match(statement, at)
        if not found:
            raise _UnknownError
        kind, text = "escaped" if old else str(found.lastgroup), found.group()
        at = found.end()
        if kind == "name":
            yield "name", text[1:-1].replace('""', '"')
        elif kind == "string":
            yield "string", text[1:-1].replace("''", "'")
        elif kind == "escaped":
            yield "string", _unescaped(text[text.index("'") + 1 : -1])
        elif kind != "blank":
            yield kind, text


def _unescaped(text: str) -> str:
    def plain(found: re.Match[str]) -> str:
        letter = found.group(1)
        if letter is None:
            return "'"
        if letter in _NOT_SIMPLE:
            raise _UnknownError
        return _ESCAPED.get(letter, letter)

    return _ESCAPE.sub(plain, text)


class _Words:
    """A statement, word by word."""

    def __init__(self, statement: str, backslashes: bool) -> None:
        self._tokens = list(_tokens(statement, backslashes))
        self._at = 0

    def take(self, *expected: str) -> bool:
        """Given words or signs, go past them; return whether they come next."""
        coming = self._tokens[self._at : self._at + len(expected)]
        if tuple(text.upper() for kind, text in coming if kind in ("word", "sign")) != expected:
            return False
        self._at += len(expected)
        return True

    def expect(self, *expected: str) -> None:
        """Given words or signs, go past them; raise _UnknownError where others come next."""
        if not self.take(*expected):
            raise _UnknownError

    def _next(self, *kinds: str) -> tuple[str, str]:
        if self._at >= len(self._tokens) or self._tokens[self._at][0] not in kinds:
            raise _UnknownError
        self._at += 1
        return self._tokens[self._at - 1]

    def name(self) -> str:
        """Return the next word as a name."""
        kind, text = self._next("name", "word")
        return text.lower() if kind == "word" else text

    def string(self) -> str:
        """Return the next string."""
        return self._next("string")[1]

    def number(self) -> int:
        """Return the next whole number."""
        text = self._next("number")[1]
        if not re.fullmatch("-?[0-9]+", text):
            raise _UnknownError
        return int(text)

    def value(self) -> str:
        """Return the next value as it is written, but for its quotes."""
        return self._next("string", "number", "word", "name")[1]

    def option(self) -> bool:
        """Return whether an option of a grant is given."""
        if self.take("OPTION") or self.take("TRUE"):
            return True
        self.expect("FALSE")
        return False


# --- statements ---

_SESSION_ONLY = re.compile(
    r"SET (default_transaction_read_only|client_encoding|escape_string_warning) = \S+;"
    r"|SELECT pg_catalog\.set_config\('search_path', '', false\);"
)
_STRINGS = re.compile(r"SET standard_conforming_strings = (on|off);")
_PRIVILEGES = {"TABLESPACE": ("CREATE",), "PARAMETER": ("SET", "ALTER SYSTEM")}


class _Reader:
    """Takes statements and keeps what they say."""

    def __init__(self) -> None:
        self._roles: dict[str, Role] = {}
        self._tablespaces: dict[str, Tablespace] = {}
        self._memberships: list[Membership] = []
        self._parameters: list[Privilege] = []
        self._unknown: list[str] = []
        self._grantor: str | None = None  # of rights on tablespaces and parameters
        self._backslashes = False
        self._forms: tuple[tuple[tuple[str, ...], Callable[[_Words], None]], ...] = (
            (("CREATE", "ROLE"), self._create_role),
            (("ALTER", "ROLE"), self._alter_role),
            (("COMMENT", "ON", "ROLE"), self._comment_on_role),
            (("COMMENT", "ON", "TABLESPACE"), self._comment_on_tablespace),
            (("SECURITY", "LABEL", "FOR"), self._label),
            (("GRANT",), self._grant),
            (("REVOKE",), self._revoke),
            (("CREATE", "TABLESPACE"), self._create_tablespace),
            (("ALTER", "TABLESPACE"), self._alter_tablespace),
            (("SET", "SESSION", "AUTHORIZATION"), self._become),
            (("RESET", "SESSION", "AUTHORIZATION"), self._unbecome),
        )

    def result(self) -> Globals:
        """Return all that was said."""
        return Globals(
            tuple(self._roles.values()),
            tuple(self._memberships),
            tuple(self._tablespaces.values()),
            tuple(self._parameters),
            tuple(self._unknown),
        )

    def read(self, statement: str) -> None:
        """Given the next statement, keep what it says."""
        strings = _STRINGS.fullmatch(statement)
        if strings:
            self._backslashes = strings.group(1) == "off"
        elif not _SESSION_ONLY.fullmatch(statement):
            try:
                self._read(statement)
            except _UnknownError:
                self._unknown.append(statement)

    def _read(self, statement: str) -> None:
        words = _Words(statement, self._backslashes)
        for beginning, form in self._forms:
            if words.take(*beginning):
                form(words)
                return
        raise _UnknownError

    def _role(self, words: _Words) -> Role:
        name = words.name()
        if name not in self._roles:
            raise _UnknownError
        return self._roles[name]

    def _tablespace(self, name: str) -> Tablespace:
        if name not in self._tablespaces:
            raise _UnknownError
        return self._tablespaces[name]

    def _create_role(self, words: _Words) -> None:
        name = words.name()
        if name in self._roles:
            raise _UnknownError
        self._roles[name] = _with_attributes(Role(name), words)

    def _alter_role(self, words: _Words) -> None:
        role = self._role(words)
        self._roles[role.name] = _with_setting(role, words) if words.take("SET") else _with_attributes(role, words)

    def _comment_on_role(self, words: _Words) -> None:
        role = self._role(words)
        self._roles[role.name] = replace(role, comment=_last_string(words))

    def _comment_on_tablespace(self, words: _Words) -> None:
        tablespace = self._tablespace(words.name())
        self._tablespaces[tablespace.name] = replace(tablespace, comment=_last_string(words))

    def _label(self, words: _Words) -> None:
        provider = words.value()
        words.expect("ON")
        if words.take("ROLE"):
            role = self._role(words)
            labels = (*role.labels, (provider, _last_string(words)))
            self._roles[role.name] = replace(role, labels=labels)
            return
        words.expect("TABLESPACE")
        tablespace = self._tablespace(words.name())
        labels = (*tablespace.labels, (provider, _last_string(words)))
        self._tablespaces[tablespace.name] = replace(tablespace, labels=labels)

    def _create_tablespace(self, words: _Words) -> None:
        name = words.name()
        words.expect("OWNER")
        owner = words.name()
        words.expect("LOCATION")
        location = words.string()
        words.expect(";")
        if name in self._tablespaces:
            raise _UnknownError
        self._tablespaces[name] = Tablespace(name, owner, location)

    def _alter_tablespace(self, words: _Words) -> None:
        tablespace = self._tablespace(words.name())
        words.expect("SET", "(")
        options = [*tablespace.options]
        while True:
            name = words.name()
            words.expect("=")
            options.append((name, words.value()))
            if not words.take(","):
                break
        words.expect(")", ";")
        self._tablespaces[tablespace.name] = replace(tablespace, options=tuple(options))

    def _become(self, words: _Words) -> None:
        grantor = words.name()
        words.expect(";")
        self._grantor = grantor

    def _unbecome(self, words: _Words) -> None:
        words.expect(";")
        self._grantor = None

    def _grant(self, words: _Words) -> None:
        kind, privileges = _privileges(words)
        if not kind:
            self._memberships.append(_membership(words))
            return
        target = words.name()
        words.expect("TO")
        grantee = None if words.take("PUBLIC") else words.name()
        grantable = words.take("WITH", "GRANT", "OPTION")
        words.expect(";")
        given = [Privilege(target, privilege, grantee, grantable, self._grantor) for privilege in privileges]
        if kind == "PARAMETER":
            self._parameters += given
            return
        tablespace = self._tablespace(target)
        self._tablespaces[target] = replace(tablespace, privileges=(*tablespace.privileges, *given))

    def _revoke(self, words: _Words) -> None:
        """What is taken away is the owner's own right, the only one that is there without having been given."""
        kind, _all = _privileges(words)
        target = words.name()
        words.expect("FROM")
        owner = words.name()
        words.expect(";")
        if kind == "TABLESPACE" and owner == self._tablespace(target).owner:
            self._tablespaces[target] = replace(self._tablespace(target), owner_revoked=True)
        elif kind != "PARAMETER":  # whose owner is a superuser, who can do without
            raise _UnknownError


def _last_string(words: _Words) -> str:
    words.expect("IS")
    text = words.string()
    words.expect(";")
    return text


def _with_attributes(role: Role, words: _Words) -> Role:
    """Given a role and what follows its name, return the role with these attributes."""
    words.take("WITH")
    said: dict[str, Any] = {}
    while not words.take(";"):
        if words.take("CONNECTION", "LIMIT"):
            said["connection_limit"] = words.number()
        elif words.take("VALID", "UNTIL"):
            said["valid_until"] = words.string()
        elif words.take("PASSWORD"):
            said["password"] = None if words.take("NULL") else words.string()
        else:
            said.update(_flag(words))
    return replace(role, **said)


def _flag(words: _Words) -> dict[str, bool]:
    for flag in FLAGS:
        for prefix in ("", "NO"):
            if words.take(prefix + flag):
                return {flag.lower(): not prefix}
    raise _UnknownError


def _with_setting(role: Role, words: _Words) -> Role:
    """Given a role and what follows SET, return the role with that setting."""
    name = words.name()
    if not words.take("TO"):
        words.expect("=")
    values: list[str] = []
    while not words.take(";"):
        if values:
            words.expect(",")
        if words.take("DEFAULT"):
            raise _UnknownError
        values.append("" if words.take("NULL") else words.value())
    others = [setting for setting in role.settings if setting[0] != name]
    return replace(role, settings=(*others, (name, tuple(values or [""]))))


def _privileges(words: _Words) -> tuple[str | None, tuple[str, ...]]:
    """Given what follows GRANT, go past rights and the kind of what they are on; return both, or None for a role."""
    for kind, existing in _PRIVILEGES.items():
        for privileges in (("ALL",), *((each,) for each in existing), existing):
            expected = " , ".join(privileges).split(" ")
            if words.take(*expected, "ON", kind):
                return kind, existing if privileges == ("ALL",) else privileges
    return None, ()


def _membership(words: _Words) -> Membership:
    role = words.name()
    words.expect("TO")
    said: dict[str, Any] = {"role": role, "member": words.name()}
    if words.take("WITH"):
        said.update(_options(words))
    if words.take("GRANTED", "BY"):
        said["grantor"] = words.name()
    words.expect(";")
    return Membership(**said)


def _options(words: _Words) -> Iterator[tuple[str, bool]]:
    while True:
        for name in ("ADMIN", "INHERIT", "SET"):
            if words.take(name):
                yield name.lower(), words.option()
                break
        else:
            raise _UnknownError
        if not words.take(","):
            return
