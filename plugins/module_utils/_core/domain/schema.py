# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""The JSON Schema of a job, made from the model, and a validator for the part of JSON Schema that pgkeep uses.

Editors and other programs check a job with the same schema. The validator exists because a database host has no
jsonschema package, and because its messages are for people.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from .model import (
    Check,
    Connection,
    Copies,
    Decryption,
    DrillOptions,
    DumpOptions,
    EncryptionOptions,
    Location,
    LogOptions,
    Option,
    Policy,
    RunOptions,
    Schedule,
    Selection,
    StandbyOptions,
    Target,
    options_of,
)
from .quantities import DURATION_PATTERN, SIZE_PATTERN, TIME_PATTERN

JOB_CLASSES = (
    Connection,
    Location,
    Selection,
    DumpOptions,
    EncryptionOptions,
    Decryption,
    RunOptions,
    StandbyOptions,
    Policy,
    DrillOptions,
    Schedule,
    Copies,
    LogOptions,
)

TARGET_CLASSES = (Target, Policy)

# What a person may write into a file besides options.
REMARKS = {
    "comment": {"type": "string", "description": "For people. Ignored."},
    "$schema": {"type": "string", "description": "For editors. Ignored."},
}

_TYPES: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "bool": {"type": "boolean"},
    "list": {"type": "array", "items": {"type": "string"}},
    # Relative to what? Cron, a shell and a playbook run in different directories.
    "path": {"type": "string", "pattern": "^(/.*)?$", "examples": ["/var/lib/pgkeep"]},
    "duration": {"type": "string", "pattern": DURATION_PATTERN, "examples": ["90s", "20h", "1d12h"]},
    "size": {"type": "string", "pattern": SIZE_PATTERN, "examples": ["500MB", "2GiB"]},
    "time": {"type": "string", "pattern": TIME_PATTERN, "examples": ["2025-11-05", "2025-11-05T14:30:00Z"]},
    "password": {"type": "string", "writeOnly": True},
}
_CHECKS = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}
_SHOWN = 80


@dataclass(frozen=True)
class Problem:
    """What is wrong with one key of a document. `file` is "" where the document is not a file."""

    key: str  # "jobs", "include[2]"; "" for the document as a whole
    message: str
    file: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, f"{self.key} {self.message}".strip()) if part)


def property_schema(option: Option) -> dict[str, Any]:
    """Given an option, return its JSON Schema. null means "not said", for options that need not be said."""
    if option.kind == "checks":
        return {
            "type": "array",
            "description": option.help,
            "default": list(option.default),
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": [name for name, item in options_of(Check).items() if item.required],
                "properties": {name: property_schema(item) for name, item in options_of(Check).items()},
            },
        }
    result: dict[str, Any] = {**_TYPES[option.kind], "description": option.help}
    if option.pattern:
        result["pattern"] = option.pattern
    if option.minimum is not None:
        result["minimum"] = option.minimum
    if option.choices:
        result["enum"] = list(option.choices)
    if option.default is not None:
        result["default"] = list(option.default) if option.kind == "list" else option.default
    elif not option.required:
        result["type"] = [result["type"], "null"]
        if option.choices:
            result["enum"].append(None)
    return result


def job_schema() -> dict[str, Any]:
    """Return the JSON Schema of a job file and of defaults.json; what is missing is known only when they are merged."""
    what = "One job of a host (jobs.d/NAME.json), or what all its jobs have in common (defaults.json)."
    return _document_schema("pgkeep job", what, JOB_CLASSES)


def target_schema() -> dict[str, Any]:
    """Return the JSON Schema of a target's file."""
    what = "One target of a host (targets.d/NAME.json): how it is reached, and its own retention."
    return _document_schema("pgkeep target", what, TARGET_CLASSES)


def _document_schema(title: str, description: str, classes: Iterable[type]) -> dict[str, Any]:
    properties: dict[str, Any] = dict(REMARKS)
    for cls in classes:
        properties.update((name, property_schema(option)) for name, option in options_of(cls).items())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": description,
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def problems(document: Any, schema: Mapping[str, Any], key: str = "") -> list[Problem]:
    """Given a document and its schema, return everything that is wrong with it, in the order of the document.

    A message contains the value and what is allowed, but never the value of a writeOnly or of an unknown key: a
    misspelt password is still a password.
    """
    return list(_problems(document, schema, key))


def _problems(value: Any, schema: Mapping[str, Any], key: str) -> Iterator[Problem]:
    wrong = _wrong(value, schema)
    if wrong:
        yield Problem(key, wrong if "writeOnly" in schema else f"{_is(value)}{wrong}")
    elif isinstance(value, dict):
        yield from _object_problems(value, schema, key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _problems(item, schema.get("items", {}), f"{key}[{index}]")


def _object_problems(value: dict[str, Any], schema: Mapping[str, Any], key: str) -> Iterator[Problem]:
    known = schema.get("properties", {})
    more = schema.get("additionalProperties", True)
    prefix = f"{key}." if key else ""
    for name, item in value.items():
        if name in known or isinstance(more, dict):
            yield from _problems(item, known.get(name, more), prefix + name)
        elif more is False:
            yield Problem(prefix + name, f"is not known{did_you_mean(name, known)}")
    for name in schema.get("required", ()):
        if name not in value:
            yield Problem(prefix + name, "is missing")


def _wrong(value: Any, schema: Mapping[str, Any]) -> str:
    """Given a value and its schema, return what the value itself must be; "" when it is that."""
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    if types and not any(_CHECKS[name](value) for name in types):
        return "must be of type " + " or ".join(types)
    if "const" in schema and value != schema["const"]:
        return f"must be {_shown(schema['const'])}"
    if "enum" in schema and value not in schema["enum"]:
        allowed = [str(item) for item in schema["enum"] if item is not None]
        return f"must be one of {', '.join(allowed)}{did_you_mean(value, allowed)}"
    if isinstance(value, str):
        return _wrong_string(value, schema)
    if isinstance(value, list) and len(value) < schema.get("minItems", 0):
        return f"must have {schema['minItems']} or more items"
    if _CHECKS["number"](value) and value < schema.get("minimum", value):
        return f"must be {schema['minimum']} or more"
    return ""


def _wrong_string(value: str, schema: Mapping[str, Any]) -> str:
    # JSON can say both; no file name, program argument or password can contain them.
    if "\0" in value or re.search("[\ud800-\udfff]", value):
        return "must not contain a NUL character or half of a surrogate pair"
    if len(value) < schema.get("minLength", 0):
        return f"must have {schema['minLength']} or more characters"
    # In JSON Schema `$` is the end; Python's would also allow a newline there.
    if "pattern" in schema and not re.search(schema["pattern"].replace("$", r"\Z"), value):
        examples = ", ".join(schema.get("examples", ()))
        return f"must match {schema['pattern']}" + (f", for example {examples}" if examples else "")
    return ""


def _is(value: Any) -> str:
    return f"is {_shown(value)}: "


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)):  # it may have a password inside
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def did_you_mean(word: Any, known: Iterable[str]) -> str:
    """Given a word that is not known and those that are, return the end of a sentence that names the nearest, or ""."""
    near = get_close_matches(str(word), list(known), n=1)
    return f": did you mean {near[0]}?" if near else ""
