# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.outcomes import BackupResult, Outcome

from .histories import a_backup


def result(*statuses: str) -> BackupResult:
    """Return a run whose databases ended like this."""
    outcomes = tuple(Outcome(f"db{number}", "database", status, "why") for number, status in enumerate(statuses))
    return BackupResult(outcomes, (), (), ())


@pytest.mark.parametrize(
    ("statuses", "code", "changed"),
    [
        ((), 0, False),
        (("done",), 0, True),
        (("planned", "planned"), 0, True),
        (("fresh", "fresh"), 0, False),
        (("fresh", "done"), 0, True),
        (("failed",), 1, False),
        (("failed", "failed"), 1, False),
        (("failed", "locked"), 1, False),
        (("locked",), 3, False),
        (("locked", "locked"), 3, False),
        (("done", "failed"), 4, True),
        (("done", "locked"), 4, True),
        (("fresh", "failed"), 4, False),
        (("planned", "failed"), 4, True),
    ],
)
def test_the_exit_code_says_whether_all_some_or_none_are_good(
    statuses: tuple[str, ...], code: int, changed: bool
) -> None:
    run = result(*statuses)
    assert (run.exit_code, run.changed, run.failed) == (code, changed, code != 0)


def test_the_message_names_every_database_that_is_no_good() -> None:
    assert result("done", "failed", "locked", "fresh").message == "db1: why; db2: why"
    assert result("done").message == ""


def test_warnings_are_those_of_the_run_and_of_each_database() -> None:
    outcome = Outcome("shop", "database", "done", warnings=("no passwords",))
    run = BackupResult((outcome,), (), (), ("old",), ("check the clock",))
    assert run.run_warnings == ("check the clock", "old has backups and is no longer on the server")
    assert run.warnings == (*run.run_warnings, "shop: no passwords")


def test_the_report_lists_every_database_and_the_backups_that_are_there() -> None:
    backup = a_backup()
    done = Outcome("shop", "database", "done", "", ("w",), backup, ("pg_dump", "-Fc"), 5)
    run = BackupResult(
        (done, Outcome("x", "database", "failed", "no")), (("template1", "it is a template"),), ("x",), ()
    )
    report = run.to_json()
    assert [item["id"] for item in report["backups"]] == [backup.id]
    assert report["databases"][0] == {
        "database": "shop", "kind": "database", "status": "done", "message": "", "warnings": ["w"], "backup": backup.id,
        "command": ["pg_dump", "-Fc"], "estimated_size": 5,
    }  # fmt: skip
    assert report["databases"][1]["backup"] is None
    assert report["skipped_databases"] == [{"database": "template1", "reason": "it is a template"}]
    assert (report["new_databases"], report["vanished_databases"]) == (["x"], [])
