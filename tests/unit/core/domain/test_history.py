# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import jsonschema
import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import history
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.outcomes import Outcome
from hypothesis import given
from hypothesis import strategies as st

from .histories import a_backup

NOW = datetime(2026, 11, 25, 2, 0, 1, 48112, tzinfo=timezone.utc)
RUN = history.Run("run", "nightly", "db1", 4711, NOW)
VALIDATOR = jsonschema.Draft202012Validator(history.json_schema())


def test_a_line_of_the_log() -> None:
    assert history.log_line(RUN, NOW, "shop: done") == b"2026-11-25T02:00:01Z pgkeep[4711] nightly run: shop: done\n"
    without = replace(RUN, job=None, command="prune")
    assert history.log_line(without, NOW, "x") == b"2026-11-25T02:00:01Z pgkeep[4711] - prune: x\n"


@given(text=st.text(st.characters(codec=None)), job=st.text(min_size=1))
def test_whatever_is_said_is_one_printable_line(text: str, job: str) -> None:
    line = history.log_line(replace(RUN, job=job), NOW, text).decode()
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert line.startswith("2026-11-25T02:00:01Z pgkeep[4711] ")


def test_the_first_and_the_last_line() -> None:
    assert history.begin_text(RUN, "1.2.3") == "begin, pgkeep 1.2.3 on db1"
    assert history.end_text(RUN, NOW + timedelta(seconds=75), 4) == "end, exit code 4 after 1m 15s"
    assert history.end_text(RUN, NOW - timedelta(hours=1), 0) == "end, exit code 0 after 0.0s"  # the clock was set back


def test_a_record() -> None:
    backup = a_backup(size=5)
    outcomes = [
        Outcome("shop", "database", "done", "5 B in 4.0s", backup=backup),
        Outcome("crm", "database", "fresh", "young", backup=backup),
        Outcome("a\nb", "database", "failed", "no\nway"),
    ]
    entries = history.outcome_entries(outcomes)
    document = history.record(RUN, NOW + timedelta(seconds=8), 4, "a\nb: no", entries, ["main/shop/x"])
    VALIDATOR.validate(document)
    assert document == {
        "version": 1,
        "command": "run",
        "job": "nightly",
        "host": "db1",
        "started": "2026-11-25T02:00:01.048112Z",
        "finished": "2026-11-25T02:00:09.048112Z",
        "exit_code": 4,
        "message": "a\\nb: no",
        "dry_run": False,
        "databases": [
            {"database": "shop", "status": "done", "message": "", "id": backup.id, "size": 5, "duration": 4.0},
            {"database": "crm", "status": "fresh", "message": "young", "id": backup.id, "size": 5, "duration": None},
            {"database": "a\nb", "status": "failed", "message": "no\\nway", "id": None, "size": None, "duration": None},
        ],
        "deleted": ["main/shop/x"],
    }


@given(name=st.text(st.characters(codec=None)), message=st.text())
def test_a_record_is_one_line_that_reads_back(name: str, message: str) -> None:
    document = history.record(RUN, NOW, 1, message, [history.entry(name, "failed", message)])
    VALIDATOR.validate(document)
    line = history.record_line(document)
    assert line.count(b"\n") == 1
    assert json.loads(line) == document


@pytest.mark.parametrize(
    "change",
    [{"command": "list"}, {"version": 2}, {"exit_code": -1}, {"databases": [{}]}, {"deleted": None}, {"dry_run": True}],
)
def test_what_is_no_record_is_refused_by_the_schema(change: dict[str, object]) -> None:
    assert not VALIDATOR.is_valid({**history.record(RUN, NOW, 0), **change})


def test_the_published_schema_and_example_are_these() -> None:
    docs = Path(__file__).parents[4] / "docs"
    assert json.loads((docs / "history.schema.json").read_text()) == history.json_schema()
    page = (docs / "configuration.md").read_text()
    section = page[page.index("## Log and history") :]
    shown = section.partition("```json\n")[2].partition("```")[0]
    VALIDATOR.validate(json.loads(shown))
    lines = section.partition("```text\n")[2].partition("```")[0].splitlines(keepends=True)
    for line in lines:
        at, text = line[:20], line.partition(": ")[2].rstrip("\n")
        assert history.log_line(RUN, datetime.fromisoformat(at), text).decode() == line
