# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from datetime import timedelta

from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.backups import (
    UNTOUCHED,
    Backup,
    Pin,
    State,
    record,
)

from tests.unit.core.domain.histories import NOW, a_backup


def test_a_pin_holds_until_its_end() -> None:
    assert Pin("x").holds(NOW)
    assert Pin("x", NOW + timedelta(seconds=1)).holds(NOW)
    assert not Pin("x", NOW).holds(NOW)


def test_a_backup_with_a_problem_is_not_complete() -> None:
    assert a_backup().complete
    assert not a_backup(problem="shop.dump is missing").complete


def test_people_read_the_name_of_the_database_or_of_the_globals() -> None:
    assert a_backup(database="größe/1").title == "größe/1"
    assert a_backup(kind="globals").title == "@globals"


def test_a_group_is_one_database_of_one_instance_full_or_partial() -> None:
    groups = [
        a_backup(**changes).group
        for changes in (
            {}, {"partial": True}, {"database": "blog"}, {"instance": "other"}, {"kind": "globals"},
            {"database": "@globals"},
        )
    ]  # fmt: skip
    assert len(set(groups)) == len(groups)
    assert a_backup("2025-01-01", size=5, label="x", options="1").group == a_backup().group
    assert sorted(groups)  # all of the same types


def test_a_record_is_plain_json() -> None:
    backup = a_backup(
        database="größe",
        finished=NOW + timedelta(seconds=4.5),
        duration=timedelta(seconds=4, microseconds=123456),
        size=42,
        database_size=420,
        label="before-9.1",
        pin=Pin("before migration", NOW + timedelta(days=1)),
        levels={"checksum": NOW + timedelta(hours=1)},
        copies=("nas", "s3"),
    )
    expected = {
        "id": "main/gr%C3%B6%C3%9Fe/gr%C3%B6%C3%9Fe_2025-11-05_14-30-00",
        "instance": "main",
        "kind": "database",
        "database": "größe",
        "status": "complete",
        "problem": "",
        "created": "2025-11-05T14:30:00Z",
        "finished": "2025-11-05T14:30:04.500000Z",
        "duration": 4.123,
        "size": 42,
        "database_size": 420,
        "format": "custom",
        "compression": "zstd:1",
        "encryption": None,
        "partial": False,
        "label": "before-9.1",
        "server_version": "15.18",
        "pin": {"reason": "before migration", "until": "2025-11-06T14:30:00Z"},
        "verified": "2025-11-05T15:30:00Z",
        "verified_level": "checksum",
        "levels": {"checksum": "2025-11-05T15:30:00Z"},
        "failure": None,
        "copies": [
            {"target": "nas", "checked": "2025-11-05T14:30:00Z", "method": "sha256"},
            {"target": "s3", "checked": "2025-11-05T14:30:00Z", "method": "sha256"},
        ],
        "path": "/repository/main/gr%C3%B6%C3%9Fe/gr%C3%B6%C3%9Fe_2025-11-05_14-30-00",
    }
    assert json.loads(json.dumps(record(backup))) == expected


def test_a_record_says_null_where_there_is_nothing() -> None:
    shown = record(a_backup(kind="globals", problem="globals.sql is missing", pin=Pin("for ever")))
    assert (shown["database"], shown["label"], shown["verified"], shown["database_size"]) == (None, None, None, None)
    assert (shown["status"], shown["problem"]) == ("damaged", "globals.sql is missing")
    assert shown["pin"] == {"reason": "for ever", "until": None}
    assert record(a_backup())["pin"] is None


def test_a_backup_stays_small() -> None:
    assert not hasattr(a_backup(), "__dict__")
    assert "state" in Backup.__slots__
    assert State() == UNTOUCHED
