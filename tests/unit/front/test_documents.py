# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What people read about restores and drills is what the engine says and takes."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.pgkeep.backup.plugins.module_utils._ansible.argspec import argument_spec
from ansible_collections.pgkeep.backup.plugins.module_utils._core import command_line
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.drill import Evidence
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.proof import Contents
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.sandbox import protections

from .test_modules import CLASSES

ROOT = Path(__file__).resolve().parents[3]
_PAGES = ("README.md", "docs/restore.md", "docs/drill.md", "docs/encryption.md", "docs/offsite.md")
DOCUMENTS = {name: (ROOT / name).read_text() for name in _PAGES}
TAKES = {**CLASSES, "pg_backup_command": ()}


@pytest.mark.parametrize("sandboxed", [True, False])
def test_what_a_drill_protects_against_is_written_as_the_drill_says_it(sandboxed: bool) -> None:
    text = " ".join(DOCUMENTS["docs/drill.md"].split())
    assert [sentence for sentence in protections(sandboxed) if sentence not in text] == []


def test_every_key_of_the_evidence_is_in_the_table() -> None:
    now = datetime(2025, 11, 5, 14, 30, tzinfo=timezone.utc)
    evidence = Evidence("main/shop/shop_2025-11-05_14-30-00", now, "host", "0.1.0", True, "18.6")
    evidence.compared = Contents().figures()
    document = evidence.to_json()
    (table,) = re.findall(r"^\| key \| \|$.*?\n\n", DOCUMENTS["docs/drill.md"], re.MULTILINE | re.DOTALL)
    written = set(re.findall("`([a-z_]+)`", table))
    assert {*document, *document["compared"]} <= written


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_task_and_every_command_in_it_is_accepted(name: str) -> None:
    text = DOCUMENTS[name]
    seen = 0
    for block in re.findall(r"^```yaml\n(- name: .*?)^```", text, re.MULTILINE | re.DOTALL):
        for item in yaml.safe_load(block):
            for task in item.get("tasks", [item]):
                for module in (key for key in task if key.startswith("pgkeep.backup.")):
                    spec = argument_spec(*TAKES[module.rpartition(".")[2]])
                    assert ArgumentSpecValidator(spec).validate(task[module] or {}).error_messages == []
                    seen += 1
    for line in re.findall(r"^# pgkeep (.*)$", text, re.MULTILINE):
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|[^ "]+', line)]
        assert command_line.parser().parse_args(words).command == words[0]
        seen += 1
    assert seen
