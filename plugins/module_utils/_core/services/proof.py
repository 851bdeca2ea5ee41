# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Proving that a restored database holds what its archive does.

    archive  -> pg_restore -> script --.
                                        >-- equal?
    database -> pg_dump ----> script --'

The archive is read while it is restored; both scripts are looked at as they come, and neither is kept.
"""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass

from ..adapters import server
from ..adapters.archive import Progress, copy, widen
from ..adapters.process import Cancellation, Processes
from ..adapters.stored import UnreadableError, read_script
from ..domain import commands
from ..domain.drill import extension_notes, output_options
from ..domain.errors import DecryptionError, ServerError, ToolError
from ..domain.proof import Contents, collect, differences
from ..domain.restoration import major_of
from ..domain.script import ScriptError
from .loading import Loading


@dataclass(frozen=True)
class Proof:
    """How much was compared, and what is not equal."""

    compared: dict[str, int]
    differences: tuple[str, ...]
    notes: tuple[str, ...]


class DifferentError(ServerError):
    """What was restored is not what the archive holds."""

    def __init__(self, message: str, proof: Proof) -> None:
        super().__init__(message)
        self.proof = proof


class Reading(threading.Thread):
    """Reads an archive for the proof, from entering it on; leaving it ends that."""

    def __init__(self, loading: Loading) -> None:
        super().__init__(name="proof", daemon=True)
        self.contents = Contents()
        self._loading, self._script = loading, collect(self.contents)
        self._enough, self._progress = Cancellation(), Progress()
        self._error: Exception | None = None

    def __enter__(self) -> Reading:
        self.start()
        return self

    def __exit__(self, *_unused: object) -> None:
        self._enough.cancel(signal.SIGTERM)
        self.join()

    def run(self) -> None:
        """Read it all; what goes wrong is kept for `finish`."""
        loading = self._loading
        try:
            # The programs end with this thread, so it stays until they have.
            with Processes(loading.environment, self._enough, loading.inherit, loading.prefix) as programs:
                programs.limit(loading.limits, self._go_on)
                tool = loading.client.pg_restore
                read_script(programs, loading.stored, tool, self._script.feed, self._progress)
                self._script.end()
        except Exception as error:  # noqa: BLE001  (whatever it is, `finish` raises it)
            self._error = error

    def _go_on(self) -> int:
        self._loading.cancellation.check()
        return self._progress.bytes

    def finish(self) -> Contents:
        """Wait for the end and return what the archive holds; raise UnreadableError, or what else went wrong."""
        self.join()
        if isinstance(self._error, (ScriptError, ToolError)) and not isinstance(self._error, DecryptionError):
            self._loading.cancellation.check()
            raise UnreadableError(f"the archive cannot be read: {self._error}") from None
        if self._error:
            raise self._error
        return self.contents


def compare(loading: Loading, database: str, expected: Contents) -> Proof:
    """Given how an archive was restored, the database and what the archive holds, compare them; raise ToolError where
    the database cannot be read, ServerError, Interrupted.
    """
    document = loading.document
    found = _contents(loading, database)
    # Other versions of pg_dump name objects in other ways, and what was left out on purpose is not missing.
    alike = loading.client.major == major_of(document["tool_version"])
    whole = loading.superuser and not loading.options.no_privileges
    different = differences(expected, found, same_version=alike and whole)
    notes = []
    if expected.inserts:
        notes.append(f"{expected.inserts:,} rows of the dump are INSERT statements, which are not compared")
    if document["properties"] and not document["partial"]:
        with server.connect(loading.connection, database) as session:
            extensions = {item["name"]: item["version"] for item in server.database_facts(session).extensions}
        missing, others = extension_notes(document["properties"]["extensions"], extensions)
        different += missing
        notes += others
    return Proof(expected.figures(), tuple(different), tuple(notes))


def _contents(loading: Loading, database: str) -> Contents:
    found = Contents()
    script = collect(found)
    options = output_options(loading.document["properties"])
    environment = {**loading.environment, **({"PGOPTIONS": options} if options else {})}
    with Processes(environment, loading.cancellation, loading.inherit, loading.prefix) as programs:
        dump = programs.start(commands.pg_dump_script(loading.client.pg_dump, loading.connection, database))
        programs.limit(loading.limits, lambda: found.size)
        widen(dump.stdout)
        copy(dump.stdout, script.feed)
        status = dump.wait()
        programs.check()
        if status or dump.errors:
            raise ToolError(f"the restored database cannot be read to be compared: {dump.failure(status)}")
    script.end()
    return found
