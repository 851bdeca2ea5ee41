# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.history import last_runs
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.journal import append
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters.zone import host_zone
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import history

NOW = datetime(2025, 11, 5, 14, 30, tzinfo=timezone.utc)


def line(command: str, job: str | None, minutes: int, code: int = 0, message: str = "") -> bytes:
    """A record as the command writes it."""
    run = history.Run(command, job, "db1", 1, NOW + timedelta(minutes=minutes))
    return history.record_line(history.record(run, NOW + timedelta(minutes=minutes + 1), code, message))


def write(directory: Path, *lines: bytes) -> str:
    for data in lines:
        append(str(directory), history.HISTORY_NAME, data)
    return str(directory / history.HISTORY_NAME)


def codes(path: str) -> dict[Any, int]:
    return {key: record["exit_code"] for key, record in last_runs(path).items()}


def test_the_newest_run_of_each_job_and_command_counts(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        line("run", "main", 0, 1, "no space"),
        line("verify", "main", 5),
        line("run", "main", 10),
        line("run", "other", 20, 3),
        line("backup", None, 30, 1),
    )
    assert codes(path) == {("main", "run"): 0, ("main", "verify"): 0, ("other", "run"): 3}
    record = last_runs(path)["main", "run"]
    assert (record["started"], record["finished"]) == ("2025-11-05T14:40:00Z", "2025-11-05T14:41:00Z")


def test_what_is_no_record_is_passed_over(tmp_path: Path) -> None:
    good = line("run", "main", 0)
    bad = [
        b"\n", b"not JSON\n", b"[]\n", b"[" * 100_000 + b"\n", b"\xff\xfe\n", b"{}\n",
        good.replace(b'"exit_code": 0', b'"exit_code": "0"'), good.replace(b'"exit_code": 0', b'"exit_code": true'),
        good.replace(b'"message": ""', b'"message": null'), good.replace(b'"job": "main"', b'"job": 5'),
    ]  # fmt: skip
    assert len({*bad, good}) == len(bad) + 1
    (tmp_path / "history").write_bytes(b"".join([good, *bad, good[: len(good) // 2]]))
    assert codes(str(tmp_path / "history")) == {("main", "run"): 0}


def test_of_a_long_history_the_end_is_read(tmp_path: Path) -> None:
    other, newest = line("run", "other", 0), line("run", "main", 10, 4)
    path = tmp_path / "history"
    path.write_bytes(line("run", "main", 0) + other * (1024 * 1024 // len(other)) + newest)
    assert path.stat().st_size > 1024 * 1024
    assert codes(str(path)) == {("other", "run"): 0, ("main", "run"): 4}


def test_a_history_that_was_rotated_a_moment_ago_still_counts(tmp_path: Path) -> None:
    path = write(tmp_path, line("run", "main", 0, 1), line("drill", "main", 1))
    Path(path).rename(path + ".1")
    assert codes(path) == {("main", "run"): 1, ("main", "drill"): 0}
    write(tmp_path, line("run", "main", 9))
    assert codes(path) == {("main", "run"): 0, ("main", "drill"): 0}


def test_without_a_history_there_are_no_runs(tmp_path: Path) -> None:
    assert last_runs(str(tmp_path / "history")) == {}
    assert last_runs(str(tmp_path / "nowhere" / "history")) == {}


def test_what_is_no_file_of_its_own_does_not_hold_anybody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "history")
    assert last_runs(str(tmp_path / "history")) == {}
    (tmp_path / "link").symlink_to(tmp_path / "history")
    with pytest.raises(OSError, match="symbolic"):
        last_runs(str(tmp_path / "link"))


# --- the host's time zone ---


def test_the_zone_is_that_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "localtime").symlink_to("/usr/share/zoneinfo/Europe/Berlin")
    zone = host_zone(str(tmp_path / "localtime"))
    for moment in (NOW, NOW - timedelta(days=180)):
        assert moment.astimezone(zone).utcoffset() == moment.astimezone(ZoneInfo("Europe/Berlin")).utcoffset()


def test_a_host_without_a_zone_counts_in_utc(tmp_path: Path) -> None:
    assert host_zone(str(tmp_path / "localtime")) is timezone.utc
    (tmp_path / "localtime").write_bytes(b"nothing")
    assert host_zone(str(tmp_path / "localtime")) is timezone.utc
