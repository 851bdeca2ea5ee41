# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.journal import Journal, append
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.outcomes import Outcome

NOW = datetime(2026, 11, 25, 2, 0, 1, tzinfo=timezone.utc)
BEGIN = f"2026-11-25T02:00:01Z pgkeep[{os.getpid()}] - verify: "


def a_journal(directory: Path, warnings: list[str]) -> Journal:
    """Return the journal of a run of verify that begins now."""
    return Journal(str(directory), "verify", None, lambda: NOW, warnings.append)


def test_a_run_has_its_lines_and_its_record(tmp_path: Path) -> None:
    warnings: list[str] = []
    journal = a_journal(tmp_path, warnings)
    journal.line("one\ntwo")
    journal.outcomes.append(Outcome("shop", "database", "failed", "no"))
    journal.deleted.append("main/shop/x")
    journal.end(1, "shop: no", None, [])
    lines = (tmp_path / "pgkeep.log").read_text().splitlines()
    assert lines[0].startswith(f"{BEGIN}begin, pgkeep ")
    assert lines[1:] == [f"{BEGIN}one\\ntwo", f"{BEGIN}deleted main/shop/x", f"{BEGIN}end, exit code 1 after 0.0s"]
    (line,) = (tmp_path / "history.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert (record["started"], record["exit_code"], record["message"]) == ("2026-11-25T02:00:01Z", 1, "shop: no")
    # As it was heard.
    assert [item["database"] for item in record["databases"]] == ["shop"]
    assert record["deleted"] == ["main/shop/x"]
    assert warnings == []


def test_what_is_known_at_the_end_counts_more_than_what_was_heard(tmp_path: Path) -> None:
    journal = a_journal(tmp_path, [])
    journal.outcomes.append(Outcome("shop", "database", "done"))
    journal.deleted.append("main/shop/x")
    journal.end(0, "", [], ["main/shop/y"])
    record = json.loads((tmp_path / "history.jsonl").read_text())
    assert (record["databases"], record["deleted"]) == ([], ["main/shop/y"])
    assert "deleted" not in (tmp_path / "pgkeep.log").read_text()  # who has a result says it


def test_a_log_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    warnings: list[str] = []
    journal = a_journal(tmp_path / "missing", warnings)
    journal.line("x")
    journal.end(0, "", None, [])
    assert len(warnings) == 1
    assert f"install -d -m 0750 -o OWNER {tmp_path}/missing" in warnings[0]
    assert not (tmp_path / "missing").exists()


def test_a_line_that_was_cut_off_does_not_take_the_next_along(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"half")
    for _unused in range(2):
        append(str(tmp_path), "log", b"whole\n")
    assert (tmp_path / "log").read_bytes() == b"half\nwhole\nwhole\n"


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_files_can_be_read_by_the_group_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    os.umask(umask)  # the fixture of all tests sets it back
    append(str(tmp_path), "log", b"x\n")
    assert (tmp_path / "log").stat().st_mode & 0o7777 == 0o640
    (tmp_path / "log").chmod(0o600)  # as the administrator wants it
    append(str(tmp_path), "log", b"x\n")
    assert (tmp_path / "log").stat().st_mode & 0o7777 == 0o600


def test_a_directory_may_be_a_symbolic_link_but_no_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    append(str(tmp_path / "link"), "log", b"x\n")
    (tmp_path / "real" / "other").symlink_to("log")
    with pytest.raises(OSError, match="symbolic links"):
        append(str(tmp_path / "link"), "other", b"x\n")
    assert (tmp_path / "real" / "log").read_bytes() == b"x\n"


def test_many_writers_mix_no_lines(tmp_path: Path) -> None:
    script = """
import sys
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.journal import append
for number in range(200):
    append(sys.argv[1], "log", (f"{sys.argv[2]} {number} " + "x" * 9000 + "\\n").encode())
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    running = [subprocess.Popen([*command, name], env=environment) for name in "abc"]
    assert [process.wait(timeout=60) for process in running] == [0, 0, 0]
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert {len(line[2]) for line in lines} == {9000}
    for name in "abc":
        assert [int(number) for who, number, _unused in lines if who == name] == list(range(200))


def test_a_file_that_somebody_locks_is_written_all_the_same(tmp_path: Path) -> None:
    append(str(tmp_path), "log", b"x\n")
    with (tmp_path / "log").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        append(str(tmp_path), "log", b"y\n")
    assert (tmp_path / "log").read_bytes() == b"x\ny\n"
