# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Telling a person how a run goes: a moving line on a terminal, one line for each database elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import IO, TYPE_CHECKING

from ..domain.outcomes import GOOD, Outcome
from ..domain.quantities import human_duration, human_size
from ..domain.text import printable
from .archive import Progress

if TYPE_CHECKING:
    from .journal import Journal

_TICK = 0.2  # seconds
_ERASE = "\r\x1b[K"


class Observer:
    """Hears how a run goes. This one says nothing."""

    def started(self, database: str, progress: Progress, tables: int, expected: int | None) -> None:
        """Given a database whose dump begins, its progress (which goes on changing), and what to expect of it."""

    def finished(self, outcome: Outcome) -> None:
        """Given what became of a database."""

    def verified(self, title: str, line: str) -> None:
        """Given a backup whose verification is over, and what to say of it."""

    def copied(self, target: str, line: str) -> None:
        """Given a target that got a copy, and what to say of it."""

    def deleted(self, backup: str) -> None:
        """Given a backup that retention let go and that is gone now."""


def outcome_line(outcome: Outcome) -> str:
    """Given what became of a database, return it as one line for people."""
    name = f"{printable(outcome.database)}: {outcome.status}"
    if outcome.status == "done" and outcome.backup:
        backup = outcome.backup
        detail = f", {human_size(backup.size)} in {human_duration(backup.duration)}, {printable(backup.path)}"
        return name + detail + (" (partial)" if backup.partial else "")
    # What went wrong is told at the end, where nothing scrolls it away.
    return f"{name}, {printable(outcome.message)}" if outcome.message and outcome.status in GOOD else name


class LineObserver(Observer):
    """Writes one line for each database when it is finished, to a stream, to a journal, to both or to none."""

    def __init__(self, stream: IO[str] | None, journal: Journal | None = None) -> None:
        self._stream, self._journal, self._lock = stream, journal, threading.Lock()

    def finished(self, outcome: Outcome) -> None:
        """Given what became of a database, write its line and, to a stream, its warnings: who has none tells them
        later, on stderr.
        """
        name = printable(outcome.database)
        warnings = [f"{name}: warning: {printable(warning)}" for warning in outcome.warnings] if self._stream else []
        if self._journal:
            self._journal.outcomes.append(outcome)
        self._tell([outcome_line(outcome), *warnings])

    def verified(self, title: str, line: str) -> None:
        """Given a backup whose verification is over, write what to say of it."""
        self._tell([printable(line)])

    def copied(self, target: str, line: str) -> None:
        """Given a target that got a copy, write what to say of it."""
        self._tell([printable(line)])

    def deleted(self, backup: str) -> None:
        """Given a backup that is gone now, remember it: it is told at the end, with all others."""
        if self._journal:
            self._journal.deleted.append(backup)

    def _tell(self, lines: Sequence[str]) -> None:
        with self._lock:
            self._put("".join(f"{line}\n" for line in lines))
            if self._journal:
                for line in lines:
                    self._journal.line(line)

    def _put(self, text: str) -> None:
        if not self._stream:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            pass  # nobody reads it any more, or the log's disk is full: no reason to end the backups


@dataclass
class _Running:
    progress: Progress
    tables: int
    expected: int | None
    begin: float


def progress_line(
    database: str, done: int, tables: int, size: int, expected: int | None, seconds: float, stage: str = ""
) -> str:
    """Given how far a dump is after so many seconds, return it as one line: tables, bytes, rate, time left. A restore
    by several jobs does not know the bytes, but has a stage.
    """
    parts = [printable(database), *([stage] if stage else [])]
    if tables:
        parts.append(f"{min(done, tables)}/{tables} tables")
    if size or not stage:
        parts.append(human_size(size))
    if seconds >= 1 and size:
        rate = size / seconds
        parts.append(f"{human_size(rate)}/s")
        if expected and expected > size:
            parts.append(f"about {human_duration(timedelta(seconds=(expected - size) / rate))} left")
    return "  ".join(parts)


class TerminalObserver(LineObserver):
    """Shows on a terminal how far the running dumps are, in one line that moves."""

    def __init__(self, stream: IO[str], columns: int, journal: Journal | None = None) -> None:
        super().__init__(stream, journal)
        self._columns = columns
        self._running: dict[str, _Running] = {}
        threading.Thread(target=self._paint, name="progress", daemon=True).start()

    def started(self, database: str, progress: Progress, tables: int, expected: int | None) -> None:
        """Given a database whose dump begins, show it from now on."""
        with self._lock:
            self._running[database] = _Running(progress, tables, expected, time.monotonic())

    def finished(self, outcome: Outcome) -> None:
        """Given what became of a database, replace the moving line by its last one."""
        with self._lock:
            self._running.pop(outcome.database, None)
            self._put(_ERASE)
        super().finished(outcome)

    def verified(self, title: str, line: str) -> None:
        """Given a backup whose verification is over, replace the moving line by what to say of it."""
        with self._lock:
            self._running.pop(title, None)
            self._put(_ERASE)
        super().verified(title, line)

    def _paint(self) -> None:
        while True:
            time.sleep(_TICK)
            with self._lock:
                if self._running:
                    self._put(_ERASE + self._line()[: self._columns - 1])

    def _line(self) -> str:
        (database, first), *others = self._running.items()
        size, seconds = first.progress.bytes, time.monotonic() - first.begin
        progress = first.progress
        line = progress_line(database, progress.tables, first.tables, size, first.expected, seconds, progress.stage)
        return line + (f"  (+{len(others)} more)" if others else "")
