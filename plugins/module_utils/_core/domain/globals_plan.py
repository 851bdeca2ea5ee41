# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""What restoring the globals would change on a server: everything, before anything is touched.

Nothing is ever taken away but what `update` overwrites in a role or tablespace of the backup: roles, memberships and
rights that only the server has stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from .database_sql import quote_identifier, quote_literal
from .globals import FLAGS, Globals, GlobalsFacts, Membership, Privilege, Role, Tablespace, shown

_FIRST_WITH_GRANT_OPTIONS = 16  # INHERIT and SET of a membership, and grantors that need ADMIN OPTION
_FIRST_WITH_PARAMETERS = 15
_NO_LIMIT = Role("")


@dataclass(frozen=True)
class Change:
    """One thing that is created, updated, left as it is, or skipped because it cannot be here."""

    kind: str  # role | membership | tablespace | parameter
    name: str
    action: str  # create | update | leave | skip
    details: tuple[str, ...] = ()  # for people; no secret is in them
    statements: tuple[str, ...] = field(default=(), repr=False)  # one transaction runs those of all changes
    before: tuple[str, ...] = field(default=(), repr=False)  # what no transaction can do
    undo: tuple[str, ...] = field(default=(), repr=False)  # takes back what `before` did
    secrets: tuple[str, ...] = field(default=(), repr=False)  # that stand in the statements

    @property
    def changes(self) -> bool:
        """Return whether the server is changed."""
        return self.action in ("create", "update")

    @property
    def text(self) -> str:
        """Return the change as one line."""
        details = f" ({'; '.join(self.details)})" if self.details else ""
        return f"{self.action} {self.kind} {self.name!r}{details}"

    def to_json(self) -> dict[str, Any]:
        """Return what the module and --json give of it."""
        return {"kind": self.kind, "name": self.name, "action": self.action, "details": list(self.details)}


@dataclass(frozen=True)
class Plan:
    """Everything that restoring the globals does, in its order."""

    changes: tuple[Change, ...]
    problems: tuple[str, ...] = ()  # with any of them nothing is done
    warnings: tuple[str, ...] = ()
    is_superuser: bool = False

    @property
    def changed(self) -> bool:
        """Return whether the server is changed."""
        return any(change.changes for change in self.changes)

    @property
    def created_roles(self) -> frozenset[str]:
        """Return the roles that are not there yet and will be."""
        return frozenset(item.name for item in self.changes if item.kind == "role" and item.action == "create")


@dataclass(frozen=True)
class _Wanted:
    """What was asked for and what there is."""

    script: Globals
    facts: GlobalsFacts
    only: frozenset[str] | None
    update: bool

    def chosen(self, *names: str) -> bool:
        return self.only is None or not self.only.isdisjoint(names)

    @property
    def differing(self) -> str:
        """Return what becomes of what is there and differs."""
        return "update" if self.update else "leave"

    @property
    def major(self) -> int:
        return self.facts.server.major


def plan(
    script: Globals, facts: GlobalsFacts, only: frozenset[str] | None = None, update: bool = False, places: bool = True
) -> Plan:
    """Given a script, the server, the only roles that are meant (None: everything), whether what exists is updated to
    what the script says, and whether tablespaces are wanted, return what would be done.
    """
    wanted = _Wanted(script, facts, only, update)
    pairs = [(facts.roles.get(role.name), _possible(role, facts)) for role in script.roles if wanted.chosen(role.name)]
    roles = [change for old, new in pairs for change in _role_changes(old, new, wanted)]
    afterwards = {**facts.roles}
    for old, new in pairs:
        if not _is_predefined(new.name) and (old is None or update):
            afterwards[new.name] = new
    granting = _Granting(wanted, afterwards)
    granting.grant_all()
    tablespaces = _tablespace_changes(wanted, afterwards) if places and only is None else []
    parameters = _parameter_changes(wanted, afterwards) if only is None else []
    changes = (*roles, *granting.changes, *tablespaces, *parameters)
    touched = {change.name for change in roles if change.changes}
    problems = [
        *_missing(wanted),
        *_standby_problems(facts, changes),
        *_role_problems([(old, new) for old, new in pairs if new.name in touched], wanted),
        *granting.problems,
        *_tablespace_problems(wanted, tablespaces),
        *_parameter_problems(facts, parameters),
    ]
    warnings = [
        *_unknown_warnings(script),
        *_password_warnings(wanted, roles),
        *_setting_warnings(wanted),
        *granting.warnings,
        *_passed_on_warnings(wanted, afterwards, tablespaces, parameters),
    ]
    return Plan(changes, tuple(dict.fromkeys(problems)), tuple(dict.fromkeys(warnings)), facts.server.is_superuser)


def _is_predefined(name: str) -> bool:
    return name.startswith("pg_")


def _names(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in sorted(set(names)))


# --- what is missing or cannot be ---


def _missing(wanted: _Wanted) -> list[str]:
    absent = (wanted.only or frozenset()) - {role.name for role in wanted.script.roles} - wanted.facts.roles.keys()
    absent = frozenset(name for name in absent if not _is_predefined(name))
    return [f"the globals have no role {_names(absent)}: use a backup of when there was one"] if absent else []


def _standby_problems(facts: GlobalsFacts, changes: Sequence[Change]) -> list[str]:
    if not facts.server.is_standby or not any(change.changes for change in changes):
        return []
    return ["the server is a standby, which cannot be changed: connect to the primary"]


def _unknown_warnings(script: Globals) -> list[str]:
    if not script.unknown:
        return []
    kinds = sorted({shown(statement) for statement in script.unknown})
    return [f"statements that are not understood were left out ({len(script.unknown)}): {', '.join(kinds)}"]


def _password_warnings(wanted: _Wanted, roles: Sequence[Change]) -> list[str]:
    script, facts, warnings = wanted.script, wanted.facts, []
    created = {change.name for change in roles if change.action == "create"}
    logins = [role.name for role in script.roles if role.name in created and role.login]
    if logins and not script.has_passwords:
        warnings.append(f"the globals are without passwords: set those of {_names(logins)}")
    there = [role for role in script.roles if wanted.chosen(role.name) and role.name in facts.roles]
    if there and script.has_passwords and not facts.server.can_read_authid:
        warnings.append(
            f"role {facts.server.role!r} may not read passwords: those of roles that exist were not compared and stay"
        )
    return warnings


def _setting_warnings(wanted: _Wanted) -> list[str]:
    unknown = wanted.facts.unknown_settings
    found = [
        f"PostgreSQL {wanted.major} has no setting {name!r}: that of role {role.name!r} was left out"
        for role in wanted.script.roles
        if wanted.chosen(role.name)
        for name, _values in role.settings
        if name in unknown
    ]
    named = {privilege.target for privilege in wanted.script.parameters} & unknown if wanted.only is None else set()
    return [
        *found,
        *(f"PostgreSQL {wanted.major} has no setting {name!r}: rights on it were left out" for name in sorted(named)),
    ]


# --- roles ---


@dataclass(frozen=True)
class _Part:
    """One difference between two states of a role: in words, and as part of ALTER ROLE or as a statement."""

    text: str
    clause: str = ""
    statement: str = ""


def _possible(role: Role, facts: GlobalsFacts) -> Role:
    """Given a role, return it without the settings that the server does not have."""
    kept = tuple(setting for setting in role.settings if setting[0] not in facts.unknown_settings)
    # The server does not allow the bootstrap superuser to be anything else.
    superuser = role.superuser or role.name == facts.bootstrap
    return replace(role, settings=kept, superuser=superuser)


def _role_changes(old: Role | None, new: Role, wanted: _Wanted) -> list[Change]:
    """Given a role as it is (None: it is not there) and as it is in the script, return the change, if there is one."""
    name = quote_identifier(new.name)
    if _is_predefined(new.name):
        return [Change("role", new.name, "skip", ("PostgreSQL's own",))]
    parts = _parts(old, new, passwords=old is None or _comparable(wanted))
    if old is not None and not parts:
        return []
    action = "create" if old is None else wanted.differing
    details = tuple(part.text for part in parts)
    if action == "leave":
        return [Change("role", new.name, action, details)]
    clauses = "".join(f" {part.clause}" for part in parts if part.clause)
    statements = [part.statement for part in parts if part.statement]
    if old is None:
        statements.insert(0, f"CREATE ROLE {name}" + (f" WITH{clauses}" if clauses else ""))
    elif clauses:
        statements.insert(0, f"ALTER ROLE {name} WITH{clauses}")
    secrets = (new.password,) if new.password else ()
    return [Change("role", new.name, action, details, tuple(statements), secrets=secrets)]


def _comparable(wanted: _Wanted) -> bool:
    return wanted.facts.server.can_read_authid and wanted.script.has_passwords


def _parts(old: Role | None, new: Role, passwords: bool) -> list[_Part]:
    """Given two states of a role (None: it is not there yet) and whether their passwords can be compared, return what
    differs.
    """
    name, was = quote_identifier(new.name), old or Role(new.name)
    parts = [
        _Part(_becomes(flag.lower(), old, _yes(not value), _yes(value)), flag if value else f"NO{flag}")
        for flag in FLAGS
        for value in [getattr(new, flag.lower())]
        if value != getattr(was, flag.lower())
    ]
    if was.connection_limit != new.connection_limit:
        text = _becomes("connection limit", old, _limit(was.connection_limit), _limit(new.connection_limit))
        parts.append(_Part(text, f"CONNECTION LIMIT {new.connection_limit}"))
    if _ends_elsewhen(was.valid_until, new.valid_until):
        until = new.valid_until or "infinity"  # nothing can take it away again
        text = _becomes("valid until", old, was.valid_until or "not said", until)
        parts.append(_Part(text, f"VALID UNTIL {quote_literal(until)}"))
    if passwords and was.password != new.password:
        text = "password" if new.password else "password: set -> none"
        parts.append(_Part(text, f"PASSWORD {quote_literal(new.password) if new.password else 'NULL'}"))
    parts += _setting_parts(name, old, new)
    if was.comment != new.comment:
        parts.append(_Part("comment", statement=f"COMMENT ON ROLE {name} IS {_text(new.comment)}"))
    return [*parts, *(_Part(text, statement=said) for text, said in _labels("ROLE", name, was.labels, new.labels))]


def _becomes(what: str, old: object | None, before: str, after: str) -> str:
    """Given what something is called, whether it was there, and two values, return the change in words."""
    return f"{what}: {after}" if old is None else f"{what}: {before} -> {after}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _limit(number: int) -> str:
    return "none" if number < 0 else str(number)


def _text(value: str | None) -> str:
    return "NULL" if value is None else quote_literal(value)


def _setting_parts(name: str, old: Role | None, new: Role) -> list[_Part]:
    before = {setting.lower(): values for setting, values in (old.settings if old else ())}
    after = {setting.lower() for setting, _values in new.settings}
    parts = []
    for setting, values in new.settings:
        was = before.get(setting.lower())
        if was != values:
            literals = ", ".join(map(quote_literal, values))
            statement = f"ALTER ROLE {name} SET {quote_identifier(setting)} TO {literals}"
            parts.append(_Part(_setting_text(setting, old, was, values), statement=statement))
    for setting, values in old.settings if old else ():
        if setting.lower() not in after:
            text = _setting_text(setting, old, values, None)
            parts.append(_Part(text, statement=f"ALTER ROLE {name} RESET {quote_identifier(setting)}"))
    return parts


def _setting_text(name: str, role: Role | None, old: tuple[str, ...] | None, new: tuple[str, ...] | None) -> str:
    if "." in name:  # an application's own: what it keeps there may be a secret
        return f"setting {name}"
    before, after = (", ".join(value or "''" for value in values) if values else "none" for values in (old, new))
    return _becomes(f"setting {name}", role, before, after)


def _labels(
    kind: str, name: str, old: Iterable[tuple[str, str]], new: Iterable[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Given the kind and quoted name of what has labels, and these, return differences in words and as statements."""
    before, after = dict(old), dict(new)
    return [
        (
            f"security label of {provider}",
            f"SECURITY LABEL FOR {quote_identifier(provider)} ON {kind} {name} IS {_text(after.get(provider))}",
        )
        for provider in sorted({*before, *after})
        if before.get(provider) != after.get(provider)
    ]


_TIME = re.compile(
    r"(?P<year>\d{4,6})-(?P<rest>\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(?P<fraction>\d{1,6}))?"
    r"(?P<sign>[-+])(?P<hours>\d\d)(?::(?P<minutes>\d\d))?(?::(?P<seconds>\d\d))?"
)
_CYCLE = 400  # years, after which the calendar repeats; datetime ends with the year 9999


def _ends_elsewhen(old: str | None, new: str | None) -> bool:
    """Given until when a role is valid (None: nothing was ever said), return whether that is to be changed."""
    if old is None or new is None:
        return new is not None or old not in (None, "infinity")
    return _moment(old) != _moment(new)


def _moment(text: str) -> object:
    """Given a time as the server prints it in any time zone, return it so that equal times are equal."""
    found = _TIME.fullmatch(text)
    if not found:
        return text
    cycles, year = divmod(int(found["year"]), _CYCLE)
    try:
        local = datetime.strptime(  # noqa: DTZ007  (its offset is taken off by hand: it may have seconds)
            f"{2000 + year}-{found['rest'].replace('T', ' ')}.{found['fraction'] or '0'}", "%Y-%m-%d %H:%M:%S.%f"
        )
    except ValueError:
        return text
    offset = timedelta(
        hours=int(found["hours"]), minutes=int(found["minutes"] or 0), seconds=int(found["seconds"] or 0)
    )
    moment = local - offset if found["sign"] == "+" else local + offset
    return cycles * _CYCLE + moment.year, moment.replace(year=2000)


def _role_problems(pairs: Sequence[tuple[Role | None, Role]], wanted: _Wanted) -> list[str]:
    """Given roles that would be created or updated, as they are and as they would be, return why they cannot be."""
    facts = wanted.facts
    if not pairs:
        return []
    if facts.server.is_superuser:
        return _self_problems(pairs, facts)
    me = facts.server.role
    if not facts.me.createrole:
        return [f"role {me!r} may not create or change roles: connect as a superuser, or ALTER ROLE ... CREATEROLE"]
    superusers = [new.name for old, new in pairs if new.superuser or (old and old.superuser)]
    found = [f"superusers are for a superuser to make or change: {_names(superusers)}"] if superusers else []
    for flag in ("createdb", "replication", "bypassrls"):
        over = [new.name for old, new in pairs if _may_not_give(flag, old, new, wanted)]
        if over:
            found.append(f"role {me!r} may not make roles {flag.upper()}: {_names(over)}")
    foreign = [new.name for old, new in pairs if old and not _may_change(old, wanted)]
    if foreign:
        found.append(f"role {me!r} may not change roles of others: {_names(foreign)}")
    refused = [new.name for old, new in pairs if _changed_settings(old, new) & facts.refused_settings]
    if refused:
        found.append(f"role {me!r} may not make settings that only a superuser may: those of {_names(refused)}")
    return [*found, *_self_problems(pairs, facts)]


def _self_problems(pairs: Sequence[tuple[Role | None, Role]], facts: GlobalsFacts) -> list[str]:
    """The role at work cannot go on with what it would have taken from itself."""
    return [
        f"role {new.name!r} is at work here and would lose {flag.upper()}: connect as another role"
        for old, new in pairs
        if old and new.name == facts.server.role
        for flag in ("superuser", "createrole")
        if getattr(old, flag) and not getattr(new, flag)
    ]


def _may_not_give(flag: str, old: Role | None, new: Role, wanted: _Wanted) -> bool:
    changes = getattr(new, flag) != getattr(old or _NO_LIMIT, flag)
    if wanted.major >= _FIRST_WITH_GRANT_OPTIONS:
        return changes and not getattr(wanted.facts.me, flag)
    touched = flag == "replication" and old is not None and old.replication  # whatever else is changed of it
    return (changes or touched) and flag != "createdb"


def _may_change(role: Role, wanted: _Wanted) -> bool:
    facts = wanted.facts
    return wanted.major < _FIRST_WITH_GRANT_OPTIONS or role.name in facts.admin_of


def _changed_settings(old: Role | None, new: Role) -> frozenset[str]:
    before = set(old.settings if old else ())
    return frozenset(name for name, _values in before ^ set(new.settings))


# --- memberships ---


_OPTIONS = ("admin", "inherit", "set")


class _Granting:
    """The memberships, one grant after the other, so that nobody grants what they may not grant yet."""

    def __init__(self, wanted: _Wanted, afterwards: Mapping[str, Role]) -> None:
        self._wanted, self._facts, self._afterwards = wanted, wanted.facts, afterwards
        self._by_grantor = wanted.major >= _FIRST_WITH_GRANT_OPTIONS  # else a membership is there once
        self.changes: list[Change] = []
        self.warnings: list[str] = []
        self.problems: list[str] = []
        self._there: dict[tuple[str, str], dict[str | None, Membership]] = {}
        self._admins: set[tuple[str, str]] = set()  # role and who may grant it
        self._unnamed: set[Membership] = set()  # whose grantor cannot be
        self._stand_ins: dict[str, int] = {}  # such grantors, and how many grants another one makes
        for membership in self._facts.memberships:
            self._note(membership)

    def grant_all(self) -> None:
        """Plan all grants, in an order in which they can be made."""
        chosen = [item for item in self._wanted.script.memberships if self._wanted.chosen(item.role, item.member)]
        waiting = [item for item in chosen if self._can_be(item)]
        while waiting:
            ready = [item for item in waiting if self._is_ready(item)]
            for item in ready:
                self._give(item)
            done = set(ready)
            waiting = [item for item in waiting if item not in done]
            if not done:
                self._give_up(waiting)
        by = self._effective(None)
        self.warnings += [
            f"role {grantor!r} cannot grant here: {by!r} grants in its place ({number} memberships)"
            for grantor, number in sorted(self._stand_ins.items())
        ]

    def _note(self, membership: Membership) -> None:
        self._there.setdefault((membership.role, membership.member), {})[membership.grantor] = membership
        if membership.admin:
            self._admins.add((membership.role, membership.member))

    def _effective(self, grantor: str | None) -> str:
        """Given a grantor (None: nobody is named), return who the server will say it was."""
        if grantor is not None:
            return grantor
        bootstrap = self._facts.server.is_superuser and self._by_grantor
        return self._facts.bootstrap if bootstrap else self._facts.server.role

    def _can_be(self, item: Membership) -> bool:
        missing = [name for name in (item.role, item.member) if name not in self._afterwards]
        if missing:
            self._skip(item, f"there is no role {_names(missing)}")
            return False
        inherits = self._afterwards[item.member].inherit
        # Never more rights than were there: before version 16 a member can always become the role.
        if not self._by_grantor and (not item.set or (item.inherit is False and inherits)):
            self._skip(item, f"PostgreSQL {self._wanted.major} has no memberships without INHERIT or SET")
            return False
        return True

    def _skip(self, item: Membership, why: str) -> None:
        self.changes.append(Change("membership", _title(item), "skip", (why,)))

    def _is_ready(self, item: Membership) -> bool:
        """Return whether the grant can be made as it is written, or nobody is named."""
        if item.grantor is None or item in self._unnamed:
            return True
        if not self._facts.server.is_superuser or item.grantor not in self._afterwards:
            return False
        if not self._by_grantor or item.grantor == self._facts.bootstrap:
            return True
        return (item.role, item.grantor) in self._admins

    def _give_up(self, waiting: list[Membership]) -> None:
        """Given grants of which none can be made as it is written, name no grantor where there is no hope for it, at
        least in one.
        """
        coming = {(item.role, item.member) for item in waiting if item.admin}
        alone = not self._facts.server.is_superuser
        hopeless = [
            item
            for item in waiting
            if alone or item.grantor not in self._afterwards or (item.role, item.grantor) not in coming
        ]
        self._unnamed.update(hopeless or waiting[:1])

    def _give(self, item: Membership) -> None:
        named = None if item in self._unnamed else item.grantor
        there = self._there.get((item.role, item.member), {})
        exact = self._by_grantor and named is not None
        if not exact and any(_covers(given, item, self._by_grantor) for given in there.values()):
            return
        grantor = self._effective(named)
        given = there.get(grantor) if self._by_grantor else next(iter(there.values()), None)
        wanted = _both(given, item) if given and self._by_grantor and not exact else item
        details = _membership_details(given, wanted, self._by_grantor)
        if given and not details:
            return
        action = self._wanted.differing if given else "create"
        statements = (self._statement(given, wanted, named),) if action != "leave" else ()
        self.changes.append(Change("membership", _title(item), action, details, statements))
        if statements:
            self._check_right(item)
            if item.grantor not in (None, grantor):
                self._stand_ins[str(item.grantor)] = self._stand_ins.get(str(item.grantor), 0) + 1
            inherit = self._afterwards[item.member].inherit if wanted.inherit is None else wanted.inherit
            self._note(replace(wanted, grantor=grantor, inherit=inherit))

    def _statement(self, given: Membership | None, item: Membership, grantor: str | None) -> str:
        role, member = quote_identifier(item.role), quote_identifier(item.member)
        if not self._by_grantor and given and not item.admin:
            return f"REVOKE ADMIN OPTION FOR {role} FROM {member}"
        by = f" GRANTED BY {quote_identifier(grantor)}" if grantor is not None else ""
        return f"GRANT {role} TO {member}{self._options(given, item)}{by}"

    def _options(self, given: Membership | None, item: Membership) -> str:
        if not self._by_grantor:
            return " WITH ADMIN OPTION" if item.admin else ""
        usual = Membership("", "") if given is None else None  # of one that is there everything is said
        options = [
            f"{name.upper()} {str(value).upper()}"
            for name in _OPTIONS
            for value in [getattr(item, name)]
            if value is not None and (usual is None or value != getattr(usual, name))
        ]
        return f" WITH {', '.join(options)}" if options else ""

    def _check_right(self, item: Membership) -> None:
        facts, me = self._facts, self._facts.server.role
        if facts.server.is_superuser:
            return
        created = item.role not in facts.roles
        if self._afterwards[item.role].superuser:
            self.problems.append(f"only a superuser may grant the superuser {item.role!r}")
        elif item.role not in facts.admin_of and not (created or (facts.me.createrole and not self._by_grantor)):
            self.problems.append(f"role {me!r} may not grant {item.role!r}: GRANT ... TO ... WITH ADMIN OPTION")


def _title(item: Membership) -> str:
    return f"{item.member} in {item.role}"


def _covers(given: Membership, item: Membership, with_options: bool) -> bool:
    """Given a membership and one that was asked for, return whether the former has all rights of the latter."""
    if not with_options:
        return given.admin == item.admin
    return given.admin >= item.admin and given.set >= item.set and (given.inherit or not item.inherit)


def _both(given: Membership, item: Membership) -> Membership:
    """Given two grants that come to the same grantor, return one with the rights of both."""
    inherit = given.inherit or item.inherit
    return replace(item, admin=given.admin or item.admin, set=given.set or item.set, inherit=inherit)


def _membership_details(given: Membership | None, item: Membership, with_options: bool) -> tuple[str, ...]:
    names = _OPTIONS if with_options else ("admin",)
    usual = given or Membership("", "")
    return tuple(
        _becomes(name, given, _yes(getattr(usual, name)), _yes(value))
        for name in names
        for value in [getattr(item, name)]
        if value is not None and value != getattr(usual, name)
    )


# --- rights on tablespaces and parameters ---


def _given(
    privileges: Iterable[Privilege], there: Iterable[Privilege], wanted: _Wanted, afterwards: Mapping[str, Role]
) -> list[Privilege]:
    """Given rights of the script and those that are there, return those to be given, by whom it is possible."""
    existing = {replace(item, target=item.target.lower()) for item in there}
    found = []
    for item in privileges:
        if item.grantee is not None and item.grantee not in afterwards:
            continue
        able = item if _can_pass_on(item, wanted, afterwards) else replace(item, grantor=None)
        folded = replace(able, target=able.target.lower())
        if existing.isdisjoint({folded, replace(folded, grantable=True)}):
            found.append(able)
            existing.add(folded)
    return found


def _can_pass_on(item: Privilege, wanted: _Wanted, afterwards: Mapping[str, Role]) -> bool:
    if item.grantor is None:
        return True
    if item.grantor not in afterwards or not wanted.facts.session_superuser:
        return False
    return not afterwards[item.grantor].superuser  # whose grants the server takes as the owner's


def _passed_on_warnings(
    wanted: _Wanted, afterwards: Mapping[str, Role], tablespaces: Sequence[Change], parameters: Sequence[Change]
) -> list[str]:
    touched = {change.name for change in (*tablespaces, *parameters) if change.changes}
    privileges = [item for place in wanted.script.tablespaces for item in place.privileges]
    privileges = [item for item in (*privileges, *wanted.script.parameters) if item.target in touched]
    lost = {str(item.grantor) for item in privileges if not _can_pass_on(item, wanted, afterwards)}
    absent = {str(item.grantee) for item in privileges if item.grantee is not None and item.grantee not in afterwards}
    return [
        *(f"role {name!r} cannot grant here: what it granted is granted by the owner" for name in sorted(lost)),
        *(f"there is no role {name!r}: its rights were left out" for name in sorted(absent)),
    ]


def _grant(kind: str, item: Privilege, me: str) -> list[str]:
    """Given a right, return the statements that give it; one that was passed on stays with who passed it on."""
    to = "PUBLIC" if item.grantee is None else quote_identifier(item.grantee)
    option = " WITH GRANT OPTION" if item.grantable else ""
    given = f"GRANT {item.privilege} ON {kind} {quote_identifier(item.target)} TO {to}{option}"
    if item.grantor is None:
        return [given]
    return [f"SET LOCAL ROLE {quote_identifier(item.grantor)}", given, f"SET LOCAL ROLE {quote_identifier(me)}"]


def _grant_text(item: Privilege) -> str:
    who = "everybody" if item.grantee is None else item.grantee
    return f"{item.privilege} to {who}{' with grant option' if item.grantable else ''}"


# --- tablespaces ---


def _tablespace_changes(wanted: _Wanted, afterwards: Mapping[str, Role]) -> list[Change]:
    found = []
    for place in wanted.script.tablespaces:
        old = wanted.facts.tablespaces.get(place.name)
        if old is None and not place.location.startswith("/"):
            found.append(Change("tablespace", place.name, "skip", ("made for tests, with allow_in_place_tablespaces",)))
            continue
        parts = _tablespace_parts(old, place, wanted, afterwards)
        if old is not None and not parts:
            continue
        details, statements = tuple(text for text, _said in parts if text), tuple(said for _text, said in parts)
        if old is not None:
            action = wanted.differing
            found.append(Change("tablespace", place.name, action, details, statements if action == "update" else ()))
            continue
        name = quote_identifier(place.name)
        before = f"CREATE TABLESPACE {name} LOCATION {quote_literal(place.location)}"
        details = (f"in {place.location}", *details)
        undo = (f"DROP TABLESPACE {name}",)
        found.append(Change("tablespace", place.name, "create", details, statements, (before,), undo))
    return found


def _tablespace_parts(
    old: Tablespace | None, new: Tablespace, wanted: _Wanted, afterwards: Mapping[str, Role]
) -> list[tuple[str, str]]:
    """Given a tablespace as it is (None: just created) and as it should be, return differences in words and SQL.

    Where it is does not count: another host has other disks.
    """
    name, me = quote_identifier(new.name), wanted.facts.server.role
    was = old or Tablespace(new.name, me, new.location)
    parts = []
    owner = new.owner if new.owner in afterwards else was.owner
    if was.owner != owner:
        parts.append(
            (_becomes("owner", old, was.owner, owner), f"ALTER TABLESPACE {name} OWNER TO {quote_identifier(owner)}")
        )
    changed = [option for option in new.options if option not in was.options]
    if changed:
        options = ", ".join(f"{quote_identifier(key)} = {quote_literal(value)}" for key, value in changed)
        text = ", ".join(f"{key} = {value}" for key, value in changed)
        parts.append((f"options: {text}", f"ALTER TABLESPACE {name} SET ({options})"))
    gone = [key for key, _value in was.options if key not in dict(new.options)]
    if gone:
        keys = ", ".join(map(quote_identifier, gone))
        parts.append((f"options: no {', '.join(gone)}", f"ALTER TABLESPACE {name} RESET ({keys})"))
    if old is None and new.owner_revoked:
        parts.append(("owner without rights", f"REVOKE ALL ON TABLESPACE {name} FROM {quote_identifier(owner)}"))
    for item in _given(new.privileges, was.privileges, wanted, afterwards):
        first, *more = _grant("TABLESPACE", item, me)
        parts.append((_grant_text(item), first))
        parts += [("", said) for said in more]
    if was.comment != new.comment:
        parts.append(("comment", f"COMMENT ON TABLESPACE {name} IS {_text(new.comment)}"))
    return [*parts, *_labels("TABLESPACE", name, was.labels, new.labels)]


def _tablespace_problems(wanted: _Wanted, changes: Sequence[Change]) -> list[str]:
    facts, touched = wanted.facts, [change.name for change in changes if change.changes]
    if not touched:
        return []
    if not facts.server.is_superuser:
        more = "connect as one, or set `no_tablespaces`"
        return [f"tablespaces are for a superuser to make or change: {_names(touched)}: {more}"]
    found = []
    taken = {place.location: place.name for place in facts.tablespaces.values()}
    created = {change.name for change in changes if change.action == "create"}
    for place in wanted.script.tablespaces:
        if place.name not in created:
            continue
        if facts.directories.get(place.location) is False:
            more = "create it, empty and the server's own, or set `no_tablespaces`"
            found.append(f"tablespace {place.name!r} needs the directory {place.location}: {more}")
        elif place.location in taken:
            found.append(
                f"tablespace {place.name!r} needs the directory {place.location}, where {taken[place.location]!r} is"
            )
    return found


# --- parameters ---


def _parameter_changes(wanted: _Wanted, afterwards: Mapping[str, Role]) -> list[Change]:
    facts = wanted.facts
    possible = [item for item in wanted.script.parameters if item.target not in facts.unknown_settings]
    targets = list(dict.fromkeys(item.target for item in possible))
    if wanted.major < _FIRST_WITH_PARAMETERS:
        why = f"PostgreSQL {wanted.major} has no rights on parameters"
        return [Change("parameter", target, "skip", (why,)) for target in targets]
    # What the bootstrap superuser granted in the place of the backup, it grants here under its own name.
    missing = _given(possible, facts.parameters, wanted, afterwards)
    return [
        Change(
            "parameter",
            target,
            "create",
            tuple(_grant_text(item) for item in missing if item.target == target),
            tuple(
                said
                for item in missing
                if item.target == target
                for said in _grant("PARAMETER", item, facts.server.role)
            ),
        )
        for target in targets
        if any(item.target == target for item in missing)
    ]


def _parameter_problems(facts: GlobalsFacts, changes: Sequence[Change]) -> list[str]:
    touched = [change.name for change in changes if change.changes]
    if not touched or facts.server.is_superuser:
        return []
    return [f"rights on parameters are for a superuser to give: {_names(touched)}"]


# --- proof ---


def differences(old: Globals, new: Globals, superuser: str) -> list[str]:
    """Given the globals of a backup, those of a server to which they were restored, and the superuser that this server
    had before, return what is not the same. Tablespaces are not compared, and nothing secret is said.
    """
    lost = sorted({shown(statement) for statement in set(old.unknown) - set(new.unknown)})
    return [
        *(f"a statement is not understood: {text}" for text in lost),
        *_role_differences(old, new, superuser),
        *_membership_differences(old, new, superuser),
        *_parameter_differences(old, new),
    ]


def _role_differences(old: Globals, new: Globals, superuser: str) -> list[str]:
    before = {role.name: role for role in old.roles if role.name != superuser}
    after = {role.name: role for role in new.roles if role.name != superuser}
    found = []
    for name in sorted({*before, *after}):
        if name not in after:
            found.append(f"role {name!r} is missing")
        elif name not in before:
            found.append(f"role {name!r} was not in the backup")
        else:
            parts = _parts(before[name], after[name], passwords=old.has_passwords)
            found += [f"role {name!r}: {part.text}" for part in parts]
    return found


def _membership_differences(old: Globals, new: Globals, superuser: str) -> list[str]:
    before, after = _by_able_grantor(old, superuser), _by_able_grantor(new, superuser)
    found = []
    for key in sorted({*before, *after}):
        role, member, grantor = key
        what = f"membership of {member!r} in {role!r}" + (f", granted by {grantor!r}," if grantor else "")
        if key not in after:
            found.append(f"{what} is missing")
        elif key not in before:
            found.append(f"{what} was not in the backup")
        else:
            was, now = before[key], after[key]
            said = now if was.inherit is not None else replace(now, inherit=None)  # before version 16 nothing is said
            found += [f"{what}: {text}" for text in _membership_details(was, said, True)]
    return found


def _by_able_grantor(script: Globals, superuser: str) -> dict[tuple[str, str, str], Membership]:
    """Given a script, return its memberships by role, member and grantor; "" where this is a superuser, who is another
    one in the throw-away server.
    """
    able = {(item.role, item.member) for item in script.memberships if item.admin}
    found: dict[tuple[str, str, str], Membership] = {}
    for item in script.memberships:
        by = item.grantor if item.grantor != superuser and (item.role, item.grantor) in able else ""
        key = (item.role, item.member, by or "")
        found[key] = _both(found[key], item) if key in found else item
    return found


def _parameter_differences(old: Globals, new: Globals) -> list[str]:
    before, after = _by_owner(old), _by_owner(new)
    return sorted(
        [
            *(f"parameter {item.target!r}: {_grant_text(item)} is missing" for item in before - after),
            *(f"parameter {item.target!r}: {_grant_text(item)} was not in the backup" for item in after - before),
        ]
    )


def _by_owner(script: Globals) -> set[Privilege]:
    """Given a script, return its rights on parameters; what superusers granted counts as the owner's."""
    superusers = {role.name for role in script.roles if role.superuser}
    return {replace(item, grantor=None) if item.grantor in superusers else item for item in script.parameters}
