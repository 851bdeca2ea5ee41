# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.backups import Backup, Copy, Failure, State
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.status import (
    Due,
    JobStatus,
    database_status,
    status_lines,
)

NOW = datetime(2025, 11, 5, 14, 30, tzinfo=timezone.utc)
DAY = timedelta(days=1)


def backup(days: float, state: State = State(), **more: Any) -> Backup:  # noqa: B008  (it cannot be changed)
    """A backup that was taken that many days ago."""
    created = NOW - days * DAY
    values: dict[str, Any] = {
        "id": f"main/shop/shop_{days}", "instance": "main", "kind": "database", "database": "shop", "created": created,
        "finished": created, "duration": timedelta(seconds=4), "size": 2_000_000, "database_size": None,
        "format": "custom", "compression": "none", "encryption": None, "partial": False, "label": None, "server_version": "18.6",
        "options": "", "path": "/srv", "state": state, "problem": "", **more,
    }  # fmt: skip
    return Backup(**values)


def test_the_newest_complete_backup_counts_and_the_newest_verification_of_any() -> None:
    drilled = State().after("restore", NOW - 2 * DAY, None)
    archive = State().after("archive", NOW - DAY, None)
    broken = State().after("checksum", NOW, Failure(NOW, "checksum", "altered", "was altered"))
    found = database_status(
        "shop",
        [backup(3, drilled), backup(1), backup(2, archive), backup(0.5, broken, problem="was altered")],
        [],
        False,
    )
    assert found.to_json(NOW) == {
        "database": "shop",
        "newest": "main/shop/shop_1",
        "created": "2025-11-04T14:30:00Z",
        "age": 86400.0,
        "size": 2_000_000,
        "verified": "2025-11-04T14:30:00Z",
        "verified_level": "archive",
        "drilled": "2025-11-03T14:30:00Z",
        "copies": [],
        "count": 3,
        "damaged": 1,
    }


def test_a_drill_of_a_backup_that_is_gone_counts_where_it_was_good() -> None:
    drills = [
        {"id": "x", "at": "2025-10-01T04:00:00Z", "verdict": "good"},
        {"id": "x", "at": "2025-10-02T04:00:00.5Z", "verdict": "good"},
        {"id": "x", "at": "2025-11-02T04:00:00Z", "verdict": "differs"},
        {"id": "x", "at": "soon", "verdict": "good"},
    ]
    found = database_status("shop", [backup(1)], drills, False)
    assert found.drilled == datetime(2025, 10, 2, 4, 0, 0, 500_000, tzinfo=timezone.utc)


def test_a_backup_that_leaves_something_out_is_none_to_a_job_that_takes_all() -> None:
    both = [backup(2), backup(1, partial=True)]
    assert [database_status("shop", both, [], partial).newest for partial in (False, True)] == both


def test_a_database_without_a_backup_has_nothing() -> None:
    empty = database_status("shop", [], [], False).to_json(NOW)
    assert {name for name, value in empty.items() if value is not None} == {"database", "copies", "count", "damaged"}
    assert (empty["copies"], empty["count"], empty["damaged"]) == ([], 0, 0)


def run(command: str, minutes: int, code: int = 0, message: str = "") -> dict[str, Any]:
    finished = f"2025-11-05T02:{minutes:02}:00Z"
    return {"command": command, "started": finished, "finished": finished, "exit_code": code, "message": message}


def warnings(*runs: dict[str, Any]) -> tuple[str, ...]:
    return JobStatus("main", runs=runs).warnings


def test_a_last_run_that_failed_is_a_warning() -> None:
    assert warnings(run("drill", 50, 1, "shop: differs"), run("run", 40, 3)) == (
        "the last drill ended with exit code 1: shop: differs",
        "the last run ended with exit code 3",
    )
    assert warnings(run("run", 50), run("verify", 40)) == ()


def test_a_run_of_the_whole_job_makes_good_what_it_is_a_part_of() -> None:
    assert warnings(run("run", 50), run("backup", 40, 1), run("prune", 30, 1)) == ()
    assert len(warnings(run("run", 50), run("verify", 40, 1))) == 1
    assert len(warnings(run("backup", 50, 1), run("run", 40))) == 1


def test_what_a_person_has_tried_is_no_warning() -> None:
    assert warnings(run("restore", 50, 1, "there is no backup"), run("adopt", 40, 1)) == ()


def test_what_is_missing_and_what_is_damaged_are_warnings() -> None:
    databases = (
        database_status("shop", [backup(1), backup(2, problem="x"), backup(3, problem="x")], [], False),
        database_status("crm", [], [], False),
        database_status("hr", [], [], False),
    )
    assert JobStatus("main", databases=databases, notes=("a note",)).warnings == (
        "a note",
        "no complete backup of crm, hr",
        "damaged backups: 2",
    )


def test_people_get_a_table_and_lines_for_each_job() -> None:
    verified = State(copies=(Copy("vault", NOW, "sha256"),)).after("archive", NOW - DAY, None)
    jobs = (
        JobStatus(
            "main",
            databases=(
                database_status("@globals", [], [], False),
                database_status("shop\n", [backup(0.1, verified)], [], False, ["vault", "s3"]),
                database_status("later", [backup(-1)], [], False),
            ),
            schedules=(
                Due("backup", "12 2 * * *", NOW + DAY),
                Due("prune", "after_backup", None),
                Due("drill", "never", None),
            ),
            runs=(run("run", 5, 1, "shop: no space"), run("verify", 1)),
        ),
        JobStatus("other", message="the repository /srv is not a directory"),
        JobStatus("third", runs=(run("run", 5),)),
    )
    assert status_lines(jobs, NOW) == [
        "JOB   DATABASE  LAST                         AGE    SIZE  VERIFIED                     DRILLED  COPIES",
        "main  @globals  none                           -       -  never                        never    none",
        "main  shop\\n    2025-11-05T12:06Z         2h 24m  2.0 MB  2025-11-04T14:30Z (archive)  never    vault 2h 24m, s3 never",
        "main  later     2025-11-06T14:30Z  in the future  2.0 MB  never                        never    none",
        "",
        "main: next backup 2025-11-06T14:30Z, prune after backup, drill never",
        "main: last run 2025-11-05T02:05:00Z, exit code 1: shop: no space",
        "other: the repository /srv is not a directory",
        "third: last run 2025-11-05T02:05:00Z, done",
    ]
    assert status_lines((), NOW) == ["no jobs"]


def test_each_target_of_a_job_is_shown_with_its_newest_copy_and_warned_of_where_that_is_not_the_newest_backup() -> None:
    copied = State(copies=(Copy("vault", NOW, "sha256"),))
    newest, older = backup(1, copied), backup(2, State(copies=(Copy("cloud", NOW, "md5"), Copy("old", NOW, "md5"))))
    found = database_status("shop", [newest, older], [], False, ["vault", "cloud", "nas"])
    assert found.to_json(NOW)["copies"] == [
        {"target": "vault", "newest": newest.id, "age": 86400.0},
        {"target": "cloud", "newest": older.id, "age": 172800.0},
        {"target": "nas", "newest": None, "age": None},
    ]
    assert JobStatus("main", databases=(found,)).warnings == (
        "no copy of the newest backup of shop in cloud",
        "no copy of the newest backup of shop in nas",
    )
