# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Restoring the globals: roles, memberships, tablespaces and rights on parameters.

Tablespaces are created first, as no transaction can do that; everything else is one transaction. Where that fails, the
tablespaces, which nobody used yet, are dropped again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..adapters import catalog, server, state
from ..adapters.encryption import Keys
from ..adapters.process import SEARCH_PATH, Cancellation, Processes, read_up_to
from ..adapters.stored import Stored, UnreadableError, archive_path, opened
from ..domain import commands
from ..domain.backups import Backup
from ..domain.database_sql import quote_literal
from ..domain.errors import DecryptionError, PgkeepError, RepositoryError, ServerError
from ..domain.globals import Globals, parse
from ..domain.globals_plan import Change, Plan, plan
from ..domain.globals_plan import differences as _differences
from ..domain.model import Connection, Decryption
from ..domain.script import ScriptError

MAX_BYTES = 64 * 1024 * 1024  # a hundred thousand roles
_TAIL = 4096

# The server would write the statement, and with it the password's verifier, into its log. Only a superuser may.
_QUIET = (
    "log_statement = 'none'", "log_min_error_statement = 'panic'", "log_min_duration_statement = -1",
    "log_min_duration_sample = -1",
)  # fmt: skip


def plan_globals(
    session: server.Session,
    script: bytes,
    only: frozenset[str] | None = None,
    update: bool = False,
    tablespaces: bool = True,
) -> Plan:
    """Given a session, a script of pg_dumpall, the only roles that are meant (None: everything), whether what exists
    and differs is updated, and whether tablespaces are wanted, return what would be done; raise UnreadableError or
    ServerError.
    """
    wanted = parsed(script)
    return plan(wanted, server.globals_facts(session, wanted), only, update, tablespaces)


def parsed(script: bytes) -> Globals:
    """Given a script of pg_dumpall, return what it says; raise UnreadableError."""
    try:
        return parse(script)
    except ScriptError as error:
        raise UnreadableError(f"the globals cannot be read: {error}") from None


def apply(session: server.Session, planned: Plan) -> None:
    """Given a writable session and a plan, do it; raise ServerError, and everything is as it was."""
    if planned.problems:
        raise ServerError("the globals cannot be restored: " + "; ".join(planned.problems))
    made: list[Change] = []
    try:
        for change in planned.changes:
            for statement in change.before:
                _run(session, change, statement)
                made.append(change)
        with server.transaction(session):
            for change in planned.changes:
                for statement in change.statements:
                    with _quietly(session, change, statement, planned.is_superuser):
                        _run(session, change, statement)
    except BaseException as error:
        left = _undo(session, made)
        if left and isinstance(error, PgkeepError):
            raise ServerError(f"{error}; {left}") from None
        raise


@contextmanager
def _quietly(session: server.Session, change: Change, statement: str, is_superuser: bool) -> Iterator[None]:
    """Keep a statement that holds a secret out of the server's log."""
    quiet = is_superuser and any(quote_literal(secret) in statement for secret in change.secrets)
    for setting in _QUIET if quiet else ():
        session.rows(f"SET LOCAL {setting}")
    yield
    for setting in _QUIET if quiet else ():
        session.rows(f"SET LOCAL {setting.partition(' ')[0]} TO DEFAULT")


def _run(session: server.Session, change: Change, statement: str) -> None:
    try:
        session.rows(statement)
    except ServerError as error:
        said = str(error)
        for secret in change.secrets:
            said = said.replace(quote_literal(secret), "(password)").replace(secret, "(password)")
        what = f"{change.kind} {change.name!r} was not {change.action}d"
        raise ServerError(f"{what}, and nothing was changed: {said}") from None


def _undo(session: server.Session, made: Sequence[Change]) -> str:
    """Given changes, take back what no transaction does; return what is left of them, "" for nothing."""
    left = []
    for change in reversed(made):
        try:
            for statement in change.undo:
                session.rows(statement)
        except ServerError:
            left.append(f"but {change.kind} {change.name!r} is there now: drop it")
    return ", ".join(left)


def differences(before: bytes, after: bytes, superuser: str = "postgres") -> list[str]:
    """Given the script of a backup, what pg_dumpall writes of a server to which it was restored, and the superuser that
    this server had before, return what is not the same, without anything secret; raise UnreadableError. Tablespaces,
    that superuser and the order do not count.
    """
    return _differences(parsed(before), parsed(after), superuser)


def read(backup: Backup, keys: Keys | None = None, cancellation: Cancellation | None = None) -> bytes:
    """Given a backup of globals and perhaps what decrypts it, return its script, every byte of which is what was dumped;
    raise UnreadableError where it is damaged, and other PgkeepErrors.
    """
    with state.in_use(backup.path) as fd:
        document = catalog.read_manifest(backup.path)
        problem = catalog.checksum_problem(backup.path, document["files"])
        if problem:
            raise UnreadableError(f"{backup.id} is damaged: {problem}: choose another backup")
        archive = Stored(archive_path(backup.path, document), document, keys or Keys(Decryption()))
        try:
            script = _plaintext(archive, fd, cancellation or Cancellation())
        except (OSError, RepositoryError) as error:
            raise UnreadableError(f"{backup.id} cannot be read: {error}: choose another backup") from None
        except DecryptionError as error:
            raise DecryptionError(f"{backup.id} cannot be read: {error}") from None
    # The bytes that are given, and not those that were read a moment ago.
    if archive.digest not in (None, hashlib.sha256(script).hexdigest()):
        raise UnreadableError(f"{backup.id} is not what was dumped: choose another backup")
    if not archive.ends(script[-_TAIL:]):
        raise UnreadableError(f"{backup.id} has no end: choose another backup")
    return script


def _plaintext(archive: Stored, fd: int, cancellation: Cancellation) -> bytes:
    """Given an archive and the descriptor that keeps it, return what is in it; raise OSError or PgkeepError."""
    environment = commands.environment(Connection(), None, "/", SEARCH_PATH)
    with Processes(environment, cancellation, (fd,)) as processes, opened(processes, archive) as plaintext:
        script = read_up_to(plaintext.stream, MAX_BYTES + 1)
        processes.check()
        if len(script) > MAX_BYTES:
            raise RepositoryError(f"it has more than {MAX_BYTES} bytes")
        plaintext.finish()
    return script
