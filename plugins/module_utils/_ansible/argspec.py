# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Argument specs of modules, made from the model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .._core.domain.configuration import NESTED
from .._core.domain.model import Check, Option, options_of

# Kinds whose text the core parses; every other kind has the same name as Ansible's type.
TYPES = {
    "duration": "str", "size": "str", "time": "str", "password": "str", "checks": "list",
    "job": "dict", "jobs": "list", "targets": "list", "passwords": "list",
}  # fmt: skip

# Options that Ansible takes for secrets because of their names.
_SOUNDS_SECRET = re.compile("pass|secret|token|key")


def argument(name: str, option: Option) -> dict[str, Any]:
    """Given an option and its name, return its entry of an argument spec."""
    result: dict[str, Any] = {"type": TYPES.get(option.kind, option.kind)}
    if option.kind == "list":
        result["elements"] = "str"
    if option.kind == "checks":
        result.update(elements="dict", options=argument_spec(Check))
    if option.kind in NESTED:
        complete, partial = NESTED[option.kind]
        result["options"] = {**argument_spec(*complete), **partial_spec(*partial)}
        if result["type"] == "list":
            result["elements"] = "dict"
    if option.required:
        result["required"] = True
    if option.default is not None:
        result["default"] = list(option.default) if isinstance(option.default, tuple) else option.default
    if option.choices:
        result["choices"] = list(option.choices)
    if option.kind == "password" or _SOUNDS_SECRET.search(name):
        result["no_log"] = option.kind == "password"
    return result


def argument_spec(*classes: type) -> dict[str, dict[str, Any]]:
    """Given classes of the model, return the argument spec with all their options."""
    return {name: argument(name, option) for cls in classes for name, option in options_of(cls).items()}


def partial_spec(*classes: type) -> dict[str, dict[str, Any]]:
    """Given classes of the model, return the argument spec of what somebody writes into a file: it has no defaults,
    nothing is required, and a path stays as it was written, because `~` would be another user's.
    """
    return {name: _partial(entry) for name, entry in argument_spec(*classes).items()}


def _partial(entry: Mapping[str, Any]) -> dict[str, Any]:
    result = {key: value for key, value in entry.items() if key not in ("default", "required")}
    if result["type"] == "path":
        result["type"] = "str"
    if "options" in result:
        inner = result["options"].items()
        result["options"] = {name: {key: item[key] for key in item if key != "default"} for name, item in inner}
    return result


def values(params: Mapping[str, Any]) -> dict[str, Any]:
    """Given a module's parameters, return those that were said or have a default."""
    return {name: value for name, value in params.items() if value is not None}
