# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import io
import os
from datetime import timedelta
from pathlib import Path
from typing import IO

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.journal import Journal
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.observer import (
    LineObserver,
    Observer,
    outcome_line,
    progress_line,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.outcomes import Outcome

from ..domain.histories import NOW, a_backup

BACKUP = a_backup(size=183_400_000, duration=timedelta(seconds=75))


@pytest.mark.parametrize(
    ("done", "tables", "size", "expected", "seconds", "line"),
    [
        (0, 0, 0, None, 0.1, "shop  0 B"),
        (3, 12, 5_000_000, None, 0.5, "shop  3/12 tables  5.0 MB"),
        (3, 12, 5_000_000, None, 2, "shop  3/12 tables  5.0 MB  2.5 MB/s"),
        (3, 12, 5_000_000, 10_000_000, 2, "shop  3/12 tables  5.0 MB  2.5 MB/s  about 2.0s left"),
        (3, 12, 5_000_000, 4_000_000, 2, "shop  3/12 tables  5.0 MB  2.5 MB/s"),
        (15, 12, 5, None, 0, "shop  12/12 tables  5 B"),
        (0, 12, 0, 10_000_000, 100, "shop  0/12 tables  0 B"),
    ],
)
def test_a_line_of_progress(done: int, tables: int, size: int, expected: int | None, seconds: float, line: str) -> None:
    assert progress_line("shop", done, tables, size, expected, seconds) == line


def test_nothing_in_a_line_of_progress_moves_the_terminal() -> None:
    assert progress_line("a\x1b[2J\nb", 0, 0, 1, None, 0) == "a\\x1b[2J\\nb  1 B"


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        (
            Outcome("shop", "database", "done", backup=BACKUP),
            f"shop: done, 183.4 MB in 1m 15s, {BACKUP.path}",
        ),
        (
            Outcome("shop", "database", "done", backup=a_backup(partial=True)),
            f"shop: done, 1.0 kB in 4.0s, {BACKUP.path} (partial)",
        ),
        (Outcome("shop", "database", "fresh", "x is 2h old", backup=BACKUP), "shop: fresh, x is 2h old"),
        (Outcome("shop", "database", "failed", "told at the end"), "shop: failed"),
        (Outcome("shop", "database", "locked", "told at the end"), "shop: locked"),
        (Outcome("a\nb", "database", "planned", "would\x07"), "a\\nb: planned, would\\x07"),
    ],
)
def test_a_line_for_what_became_of_a_database(outcome: Outcome, line: str) -> None:
    assert outcome_line(outcome) == line


def test_off_a_terminal_there_is_one_line_for_each_database_and_one_for_each_warning() -> None:
    stream = io.StringIO()
    observer = LineObserver(stream)
    observer.finished(Outcome("a", "database", "fresh", "young"))
    observer.finished(Outcome("b", "database", "failed", "no", ("w1", "w2\n")))
    assert stream.getvalue() == "a: fresh, young\nb: failed\nb: warning: w1\nb: warning: w2\\n\n"


def test_who_has_no_stream_leaves_the_warnings_to_who_has_one(tmp_path: Path) -> None:
    outcomes = [Outcome("a", "database", "fresh", "young", ("w",)), Outcome("b\n", "database", "failed", "no")]
    texts = {}
    for name, stream in (("loud", io.StringIO()), ("silent", None)):
        (tmp_path / name).mkdir()
        journal = Journal(str(tmp_path / name), "run", None, lambda: NOW, pytest.fail)
        observer = LineObserver(stream, journal)
        for outcome in outcomes:
            observer.finished(outcome)
        observer.verified("x", "x: good")
        lines = (tmp_path / name / "pgkeep.log").read_text().splitlines()[1:]
        texts[name] = [line.partition(": ")[2] for line in lines]
        assert journal.outcomes == outcomes
        assert stream is None or stream.getvalue().splitlines() == texts[name]
    assert texts == {
        "loud": ["a: fresh, young", "a: warning: w", "b\\n: failed", "x: good"],
        "silent": ["a: fresh, young", "b\\n: failed", "x: good"],
    }


def closed_pipe() -> IO[str]:
    """Return a stream whose reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


def test_a_reader_that_has_gone_does_not_end_the_run() -> None:
    stream = closed_pipe()
    observer = LineObserver(stream)
    for _unused in range(2):
        observer.finished(Outcome("a", "database", "fresh"))
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_a_silent_observer_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Observer().finished(Outcome("a", "database", "failed", "no"))
    assert capsys.readouterr() == ("", "")
