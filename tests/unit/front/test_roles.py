# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Roles: every variable is documented once, has the default that is documented, and means the same in all roles."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import model
from jinja2.nativetypes import NativeEnvironment

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())


def load(role: str, name: str) -> Any:
    return yaml.safe_load((ROOT / "roles" / role / name).read_text())


def spec(role: str) -> dict[str, Any]:
    """Given a role, return its documented variables."""
    options: dict[str, Any] = load(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    return options


def defaults(role: str) -> dict[str, Any]:
    """Given a role, return the values of its variables where nobody sets any."""
    written = load(role, "defaults/main.yml")
    values: dict[str, Any] = {}
    for name, value in written.items():  # one may be made of those above it
        is_template = isinstance(value, str) and "{{" in value
        values[name] = NativeEnvironment().from_string(value).render(values) if is_template else value
    return values


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_documented_and_has_the_default_that_is_documented(role: str) -> None:
    assert {name: option["default"] for name, option in spec(role).items()} == defaults(role)
    assert all(name.startswith(f"{role}_") for name in defaults(role))


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_used(role: str) -> None:
    texts = [
        path.read_text()
        for folder in ("tasks", "templates", "vars")
        for path in (ROOT / "roles" / role).glob(f"{folder}/*")
    ]
    assert [name for name in defaults(role) if not any(re.search(rf"\b{name}\b", text) for text in texts)] == []


def test_a_variable_that_roles_share_means_the_same_in_each() -> None:
    values: dict[str, dict[str, Any]] = defaultdict(dict)
    for role in ROLES:
        for name, written in load(role, "defaults/main.yml").items():
            shared = re.match(r"\{\{ (pgkeep_\w+) \| default\(", str(written))
            if shared:
                values[shared[1]][role] = defaults(role)[name]
                assert shared[1] == f"pgkeep_{name.removeprefix(role + '_')}"
                assert name.endswith("_state") or f"C({shared[1]})" in str(spec(role)[name]["description"])
    assert {"pgkeep_state", "pgkeep_jobs", "pgkeep_defaults", "pgkeep_user", "pgkeep_log_dir"} <= set(values)
    assert [name for name, found in values.items() if len({str(value) for value in found.values()}) > 1] == []


def test_the_defaults_are_those_of_the_engine() -> None:
    command = defaults("pgkeep_command")
    assert command["pgkeep_command_config_dir"] == model.CONFIG_DIRECTORY
    action = ast.parse((ROOT / "plugins/action/pg_backup_command.py").read_text())
    (written,) = [item.value for item in action.body if isinstance(item, ast.AnnAssign) and item.value is not None]
    arguments = ast.literal_eval(written)
    assert command["pgkeep_command_path"] == arguments["path"]["default"]
    assert command["pgkeep_command_interpreter"] == arguments["interpreter"]["default"]


@pytest.mark.parametrize("role", ROLES)
def test_the_first_page_reads_like_a_contents_page(role: str) -> None:
    assert len((ROOT / "roles" / role / "tasks/main.yml").read_text().splitlines()) <= 60
    assert [task for task in load(role, "tasks/main.yml") if "name" not in task] == []


def test_the_scenario_full_changes_every_variable() -> None:
    written = yaml.safe_load((ROOT / "molecule/resources/inventory/host_vars/full.yml").read_text())
    offsite = yaml.safe_load((ROOT / "molecule/resources/inventory/group_vars/vaults.yml").read_text())
    # An off-site host has another user than a database host; the scenario offsite has one.
    written.update((name, value) for name, value in offsite.items() if name.startswith("pgkeep_offsite_"))
    for role in ROLES:
        for name, default in defaults(role).items():
            shared = f"pgkeep_{name.removeprefix(role + '_')}"
            if not name.endswith("_state"):  # what is taken away shows what that does
                assert written.get(name, written.get(shared, default)) != default, name
