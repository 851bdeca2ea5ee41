# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import drill
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import Check

NOW = datetime(2025, 11, 5, 14, 30, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("server", "tool", "wanted"),
    [
        ("15.18 (Debian 15.18-0)", "15.18", (15, False)),
        ("18.6", "18.6", (18, False)),
        ("15.18", "17.10", (17, True)),  # its pg_restore sets what 15 does not know
        ("16.2", "15.18", (16, False)),
        (None, "15.18", (15, True)),
        (None, None, (None, True)),
    ],
)
def test_the_server_is_of_the_backups_version_unless_the_archive_is_newer(
    server: str | None, tool: str | None, wanted: tuple[int | None, bool]
) -> None:
    assert drill.wanted_major({"server_version": server, "tool_version": tool}) == wanted


def test_settings_of_the_output_are_handed_on_and_no_others() -> None:
    settings = {"TimeZone": "posix/Weird Zone\\", "bytea_output": "escape", "lc_monetary": "C", "role": "postgres"}
    assert (
        drill.output_options({"output_settings": settings})
        == "-c TimeZone=posix/Weird\\ Zone\\\\ -c bytea_output=escape -c lc_monetary=C"
    )
    for nothing in (None, {}, {"output_settings": None}, {"output_settings": {"TimeZone": 5}}):
        assert drill.output_options(nothing) == ""


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ('ERROR:  could not extend file "base/1/2": No space left on device', "free some space"),
        ("ERROR:  pg_cron can only be loaded via shared_preload_libraries", "`preload`"),
        ('ERROR:  could not open extension control file "/usr/x.control"', "install that extension's package"),
        ("pg_restore was killed (out of memory?): ", "give this host more memory"),
        ('ERROR:  invalid LC_COLLATE locale name: "de_DE.utf8"', "install or generate that locale"),
        ('ERROR:  relation "allowed" does not exist', ""),
        ('ERROR:  new row for relation "t" violates check constraint "c"', ""),
    ],
)
def test_what_is_the_hosts_fault_is_told_apart(said: str, advice: str) -> None:
    found = drill.host_problem(said)
    assert (advice in found) if advice else not found


def test_checks_are_for_every_database_or_for_one() -> None:
    checks = [Check("SELECT 1"), Check("SELECT 2", database="shop"), Check("SELECT 3", database="blog")]
    assert [check.query for check in drill.checks_for(checks, "shop")] == ["SELECT 1", "SELECT 2"]


def test_extensions_that_are_missing_and_those_of_another_version() -> None:
    recorded = [{"name": "a", "version": "1"}, {"name": "b", "version": "1"}, {"name": "c", "version": "2"}]
    assert drill.extension_notes(recorded, {"b": "1", "c": "3"}) == (
        ["extension a is missing"],
        ["extension c has version 3 here and had 2"],
    )


def test_evidence_is_json_and_keeps_what_was_wrong_first() -> None:
    evidence = drill.Evidence("main/shop/x", NOW, "db1", "1.0", True, "15.1")
    evidence.seconds = {"server": 1.0, "globals": 0.5, "create": 0.25, "restore": 10.0, "compare": 2.0, "swap": 0.25}
    evidence.answers.append(drill.Answer("SELECT 1", "t", "f", False))
    evidence.found("differs", "one thing")
    evidence.found("unexpected", "another")
    evidence.finished = NOW + timedelta(seconds=14)
    document = evidence.to_json()
    assert json.loads(json.dumps(document)) == document
    assert (document["verdict"], document["problem"]) == ("differs", "one thing")
    assert document["recovery_seconds"] == 11.0
    assert document["finished"] == "2025-11-05T14:30:14Z"
