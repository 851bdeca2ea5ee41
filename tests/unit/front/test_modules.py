# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.pgkeep.backup.plugins.module_utils._ansible.argspec import argument_spec, values
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import model
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.backups import (
    UNTOUCHED,
    Backup,
    Failure,
    Pin,
    record,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.configuration import Configuration
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.drill import Answer, Evidence
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.globals_plan import Change
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.job import check_combinations
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.outcomes import BackupResult, Outcome
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.proof import Contents
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.restoration import Destination
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.retention import plan
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.statistics import statistics
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.status import Due, JobStatus, database_status
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.configure import Configured
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.proof import Proof
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.prune import Pruned
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.restore import Restored
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.runbook import Runbook
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.status import Status
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.sync import Copied, Side, Synced
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.verify import Verification, Verified

ROOT = Path(__file__).resolve().parents[3]
CLASSES: dict[str, tuple[type, ...]] = {
    "pg_backup": (
        model.Connection,
        model.Instance,
        model.Selection,
        model.DumpOptions,
        model.EncryptionOptions,
        model.RunOptions,
        model.StandbyOptions,
        model.FromJob,
    ),
    "pg_backup_config": (Configuration,),
    "pg_backup_info": (model.Repository, model.Filter, model.Policy, model.ListingOptions),
    "pg_backup_prune": (model.Scope, model.Policy, model.PruneOptions, model.AtTarget, model.FromJob),
    "pg_backup_restore": (model.Connection, model.Choice, model.RestoreOptions, model.Decryption, model.FromJob),
    "pg_backup_runbook": (model.Connection, model.Repository, model.RunbookOptions),
    "pg_backup_status": (model.StatusOptions,),
    "pg_backup_sync": (model.Scope, model.SyncOptions, model.FromJob),
    "pg_backup_verify": (
        model.Filter,
        model.VerifyOptions,
        model.Decryption,
        model.DrillOptions,
        model.FromJob,
    ),
}
NOW = datetime(2025, 11, 5, 14, 30, tzinfo=timezone.utc)
BACKUP = Backup(
    id="main/shop/shop_2025-11-05_14-30-00",
    instance="main",
    kind="database",
    database="shop",
    created=NOW,
    finished=NOW,
    duration=timedelta(seconds=4),
    size=1,
    database_size=2,
    format="custom",
    compression="zstd:1",
    encryption=None,
    partial=False,
    label=None,
    server_version="18.6",
    options="",
    path="/srv",
    state=UNTOUCHED.__class__(pin=Pin("why"), failure=Failure(NOW, "checksum", "altered", "was altered")),
    problem="",
)
JOB_STATUS = JobStatus(
    "main",
    databases=(database_status("shop", [BACKUP], [], False, ["vault"]),),
    schedules=(Due("backup", "0 2 * * *", NOW),),
    runs=({"command": "run", "started": "", "finished": "", "exit_code": 0, "message": ""},),
)
SIDE = Side("vault", copied=[Copied(BACKUP, "sha256", 1.0, True)], failures=[("", "no")])
PLAN = plan([BACKUP], model.JOB_POLICY, NOW)
EVIDENCE = Evidence(BACKUP.id, NOW, "host", "0.1.0", True, "18.6", answers=[Answer("SELECT 1", "1", "1", True)])
EVIDENCE.compared = Contents().figures()


def text(module: str, name: str) -> Any:
    """Given a module and DOCUMENTATION, EXAMPLES or RETURN, return what is in it."""
    for node in ast.parse((ROOT / "plugins" / "modules" / f"{module}.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return yaml.safe_load(ast.literal_eval(node.value))
    raise AssertionError(f"{module} has no {name}")


@pytest.fixture(scope="module")
def rendered() -> dict[str, Any]:
    """What ansible-doc makes of the modules and their fragments."""
    names = [f"pgkeep.backup.{name}" for name in (*CLASSES, "pg_backup_command")]
    command = [str(Path(sys.executable).with_name("ansible-doc")), "--json", *names]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache" / "collections")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    documents = json.loads(done.stdout)
    return {name.rpartition(".")[2]: document["doc"] for name, document in documents.items()}


@pytest.mark.parametrize("module", CLASSES)
def test_a_module_documents_exactly_its_options(rendered: dict[str, Any], module: str) -> None:
    assert_documented(rendered[module]["options"], argument_spec(*CLASSES[module]))


def assert_documented(options: dict[str, Any], spec: dict[str, Any]) -> None:
    assert options.keys() == spec.keys()
    for name, argument in spec.items():
        for key in ("type", "elements", "required", "default", "choices"):
            assert options[name].get(key) == argument.get(key), (name, key)
        assert_documented(options[name].get("suboptions", {}), argument.get("options", {}))


@pytest.mark.parametrize("module", [*CLASSES, "pg_backup_command"])
def test_a_module_says_where_it_runs_and_what_it_does_in_check_and_diff_mode(
    rendered: dict[str, Any], module: str
) -> None:
    attributes = rendered[module]["attributes"]
    assert {"check_mode", "diff_mode", "idempotent", "platform"} <= attributes.keys()
    assert attributes["check_mode"]["support"] == "full"
    assert all("support" in attribute for attribute in attributes.values())


@pytest.mark.parametrize("module", CLASSES)
def test_every_example_is_accepted(module: str) -> None:
    name = f"pgkeep.backup.{module}"
    tasks = [task[name] or {} for task in text(module, "EXAMPLES") if name in task]
    assert len(tasks) >= 5
    for task in tasks:
        result = ArgumentSpecValidator(argument_spec(*CLASSES[module])).validate(task)
        assert result.error_messages == []
        options = values(result.validated_parameters)
        if module not in ("pg_backup_restore", "pg_backup_config"):  # whose jobs and tables are not those of a dump
            check_combinations(options)
        for cls in CLASSES[module]:
            model.build(cls, options)


def keys(described: dict[str, Any]) -> Any:
    """Given a part of RETURN, return its keys, and theirs."""
    return {name: keys(item["contains"]) if "contains" in item else None for name, item in described.items()}


def shape(value: Any, described: Any) -> Any:
    """Given a result and the documented keys, return the result's keys to the same depth."""
    if not isinstance(described, dict):
        return None
    inside = value[0] if isinstance(value, list) else value
    return {name: shape(item, described.get(name)) for name, item in inside.items()}


@pytest.mark.parametrize(
    ("module", "result"),
    [
        (
            "pg_backup",
            BackupResult((Outcome("shop", "database", "done", backup=BACKUP),), (("a", "b"),), (), ()).to_json(),
        ),
        (
            "pg_backup_info",
            {
                "backups": [record(BACKUP)],
                "foreign": [{"path": "", "reason": ""}],
                "statistics": statistics([BACKUP], NOW),
                "policy": None,
            },
        ),
        (
            "pg_backup_restore",
            Restored(
                BACKUP,
                Destination("shop", "create"),
                False,
                (),
                changes=(Change("role", "shop", "create"),),
                proof=Proof(Contents().figures(), (), ()),
            ).to_json(),
        ),
        ("pg_backup_verify", Verified((Verification(BACKUP, "restore", "good", evidence=EVIDENCE),), 0).to_json()),
        ("pg_backup_runbook", Runbook("", None, None).to_json()),
        ("pg_backup_status", Status((JOB_STATUS,), NOW, "").to_json()),
        ("pg_backup_sync", Synced((SIDE,), False).to_json()),
        ("pg_backup_config", Configured("", (), (), (), (), {}).to_json()),
        ("pg_backup_prune", Pruned(PLAN, (), (("shop", "no"),), False).to_json()),
    ],
)
def test_a_module_documents_exactly_what_it_returns(module: str, result: dict[str, Any]) -> None:
    described = keys(text(module, "RETURN"))
    assert described.pop("msg", None) is None
    assert shape(result, described) == described
