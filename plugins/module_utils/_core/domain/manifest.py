# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""The manifest: what is known about a backup from the moment it is complete. It never changes afterwards.

Reading it is on the path of every listing of a large repository, and it may have been written by anybody: `parse`
checks each key with a table instead of a general validator, which is ten times slower. `json_schema` describes the
same table for other programs; a test holds the two together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from .backups import UNTOUCHED, Backup, Copy, Failure, Pin, State, copy_record, failure_record
from .errors import ConfigurationError, ManifestError
from .model import ENCRYPTIONS, FORMATS, LEVELS
from .quantities import iso, parse_time

MANIFEST_VERSION = 1
STATE_VERSION = 1
MAX_BYTES = 4 * 1024 * 1024  # larger than any manifest: a database with 10,000 roles needs 300 kB

_ISO_LENGTHS = (20, 27)  # 2025-11-05T14:30:00Z, with microseconds
_LEVELS = frozenset(LEVELS)
_NULL = type(None)
_ENCRYPTIONS = (None, *ENCRYPTIONS[1:])
_NUMBER = (int, float)
_MAX_SIZE = 2**63 - 1  # of a file


@dataclass(frozen=True)
class Key:
    """One key of the manifest: the Python types that its JSON may have, and what it means."""

    name: str
    types: tuple[type, ...]
    help: str
    required: bool = True


KEYS = (
    Key("manifest_version", (int,), "Version of this format: 1."),
    Key("id", (str,), "Instance, folder and name of the backup: its path in the repository."),
    Key("instance", (str,), "Name of the instance."),
    Key("kind", (str,), "database or globals."),
    Key("database", (str, _NULL), "True name of the database; null for globals."),
    Key("created", (str,), "The time in the name (UTC). Later than started where the clock had been set back."),
    Key("started", (str,), "When the dump began (UTC)."),
    Key("finished", (str,), "When the backup was found complete (UTC)."),
    Key("duration", _NUMBER, "Seconds from begin to complete."),
    Key("format", (str,), "custom, directory, plain or tar."),
    Key("compression", (str,), "Method and level, for example zstd:1; none; or unknown (adopted)."),
    Key("compressed_by", (str, _NULL), "pg_dump where the archive itself is compressed, else the external program."),
    Key("encryption", (str, _NULL), "age or gpg: the program that decrypts the archive; null: not encrypted."),
    Key("size", (int,), "Bytes of all files."),
    Key("files", (list,), "Each file with path (inside the backup's directory), size and sha256."),
    Key("content_sha256", (str, _NULL), "SHA-256 before external compression and encryption; null without both."),
    Key("archive_version", (str, _NULL), "Version of pg_dump's archive format."),
    Key("partial", (bool,), "Whether something was left out."),
    Key("left_out", (list,), "What was left out, in words."),
    Key("warnings", (list,), "What the preflight warned of."),
    Key("label", (str, _NULL), "The label given when it was taken."),
    Key("options", (str,), "Fingerprint of the options it was taken with."),
    Key("command", (list,), "The command line that wrote it."),
    Key("server_version", (str, _NULL), "Version of the server."),
    Key("system_identifier", (str, _NULL), "The cluster's own identifier, where the role may read it."),
    Key("tool_version", (str, _NULL), "Version of pg_dump or pg_dumpall."),
    Key("database_size", (int, _NULL), "pg_database_size in bytes when the dump began."),
    Key(
        "properties",
        (dict, _NULL),
        "The database itself: owner, encoding, locale, ACL, settings, extensions, roles, tablespaces, relation and"
        " large-object counts, and the settings that decide how values are written as text.",
    ),
    Key("standby", (bool, _NULL), "Whether the server was a standby; not there where it is unknown.", required=False),
    Key("host", (str,), "Host that took it."),
    Key("collection_version", (str,), "Version of pgkeep that took it."),
    Key("adopted", (dict, _NULL), "Where an adopted dump came from; null for backups that pgkeep took."),
)

_TYPES = {key.name: key.types for key in KEYS}
_OPTIONAL = frozenset(key.name for key in KEYS if not key.required)
_JSON_NAMES = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "array",
    dict: "object",
    _NULL: "null",
}
_HEX = frozenset("0123456789abcdef")


def serialize(document: Mapping[str, Any]) -> bytes:
    """Given a manifest or a state, return its bytes: stable order, readable with any pager."""
    return (json.dumps(document, indent=1, ensure_ascii=True, sort_keys=False) + "\n").encode()


def _load(data: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise ManifestError(f"{what} is not JSON") from None
    if not isinstance(document, dict):
        raise ManifestError(f"{what} is not a JSON object")
    return document


def _moment(document: Mapping[str, Any], key: str) -> datetime:
    text = document[key]
    try:
        if text.endswith("Z") and len(text) in _ISO_LENGTHS:  # what `iso` writes; the general way is much slower
            return datetime.fromisoformat(text[:-1] + "+00:00")
        return parse_time(text)
    except (ValueError, ConfigurationError):
        raise ManifestError(f"{key} is not a time") from None


def inside(path: str) -> bool:
    """Given a path of a manifest, return whether it stays inside the backup's directory."""
    if "/" not in path:  # nearly always
        return path not in ("", ".", "..") and "\0" not in path
    return "\0" not in path and not {"", ".", ".."}.intersection(path.split("/"))


def _check_files(files: list[Any], size: int) -> None:
    total = 0
    seen = set()
    for item in files:
        if not isinstance(item, dict) or item.keys() != {"path", "size", "sha256"}:
            raise ManifestError("files has an entry without path, size and sha256")
        path, length, digest = item["path"], item["size"], item["sha256"]
        if not isinstance(path, str) or not inside(path) or path in seen:
            raise ManifestError("files names a path that leaves the backup's directory or stands there twice")
        if not _is_count(length) or not isinstance(digest, str):
            raise ManifestError(f"files: {path!r} has no usable size and sha256")
        if len(digest) != 64 or not _HEX.issuperset(digest):
            raise ManifestError(f"files: {path!r} has no usable size and sha256")
        seen.add(path)
        total += length
    if not files or total != size:
        raise ManifestError("size is not the sum of the files")


def _is_count(value: Any) -> bool:
    """Given anything from JSON, return whether it is a whole number from 0 on (true and false are numbers in Python)."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_types(document: Mapping[str, Any]) -> None:
    for name, types in _TYPES.items():
        if name not in document:
            if name in _OPTIONAL:
                continue
            raise ManifestError(f"the manifest has no {name}")
        if type(document[name]) not in types:
            raise ManifestError(f"the manifest's {name} has the wrong type")


def parse(data: bytes) -> dict[str, Any]:
    """Given a manifest's bytes, return it; raise ManifestError with the reason why it cannot be believed."""
    document = _load(data, "the manifest")
    version: Any = document.get("manifest_version")
    if not _is_count(version) or version < 1:
        raise ManifestError("the manifest has no manifest_version")
    if version > MANIFEST_VERSION:
        raise ManifestError(f"the manifest has version {version}, this pgkeep knows {MANIFEST_VERSION}: update pgkeep")
    _check_types(document)
    kind = document["kind"]
    if kind not in ("database", "globals") or (kind == "globals") != (document["database"] is None):
        raise ManifestError("the manifest's kind and database do not fit")
    if document["format"] not in FORMATS:
        raise ManifestError("the manifest's format is unknown")
    if document["encryption"] not in _ENCRYPTIONS:
        raise ManifestError("the manifest's encryption is unknown: update pgkeep")
    for name in ("size", "database_size"):
        if not 0 <= (document[name] or 0) <= _MAX_SIZE:
            raise ManifestError(f"the manifest's {name} is not a size")
    if document["duration"] < 0 or not document["duration"] < 1e9:
        raise ManifestError("the manifest's duration is not a duration")
    _check_files(document["files"], document["size"])
    return document


def parse_state(data: bytes) -> State:
    """Given a state file's bytes, return the state; raise ManifestError with the reason why it cannot be believed."""
    document = _load(data, "the state")
    if document.get("state_version") != STATE_VERSION:
        raise ManifestError("the state has an unknown version: update pgkeep")
    copies = document.get("copies", [])
    if not isinstance(copies, list):
        raise ManifestError("the state is damaged")
    try:
        return State(
            pin=_pin(document.get("pin")),
            levels=_levels(document.get("levels", {})),
            failure=_failure(document.get("failure")),
            copies=tuple(Copy(str(item["target"]), _moment(item, "checked"), str(item["method"])) for item in copies),
        )
    except (KeyError, TypeError, AttributeError):
        raise ManifestError("the state is damaged") from None


def _levels(document: Any) -> dict[str, datetime]:
    if not _LEVELS.issuperset(document):
        raise ManifestError("the state names an unknown level: update pgkeep")
    return {level: _moment(document, level) for level in document}


def _failure(document: Any) -> Failure | None:
    if document is None:
        return None
    if document["level"] not in _LEVELS:
        raise ManifestError("the state names an unknown level: update pgkeep")
    return Failure(_moment(document, "at"), document["level"], str(document["kind"]), str(document["problem"]))


def _pin(document: Any) -> Pin | None:
    """Given the pin of a state, return it; raise like a dictionary where it is none: a pin must not get lost."""
    if document is None:
        return None
    return Pin(str(document["reason"]), None if document["until"] is None else _moment(document, "until"))


def state_document(state: State) -> dict[str, Any]:
    """Given a state, return the document of its file; the inverse of `parse_state`."""
    pin = state.pin
    return {
        "state_version": STATE_VERSION,
        "pin": {"reason": pin.reason, "until": iso(pin.until) if pin.until else None} if pin else None,
        "levels": {level: iso(at) for level, at in state.levels.items()},
        "failure": None if state.failure is None else failure_record(state.failure),
        "copies": [copy_record(copy) for copy in state.copies],
    }


def backup_of(document: Mapping[str, Any], path: str, state: State = UNTOUCHED, problem: str = "") -> Backup:
    """Given a parsed manifest, the directory it was found in and what is known besides, return the backup."""
    return Backup(
        id=document["id"],
        instance=document["instance"],
        kind=document["kind"],
        database=document["database"],
        created=_moment(document, "created"),
        finished=_moment(document, "finished"),
        duration=timedelta(seconds=document["duration"]),
        size=document["size"],
        database_size=document["database_size"],
        format=document["format"],
        compression=document["compression"],
        encryption=document["encryption"],
        partial=document["partial"],
        label=document["label"],
        server_version=document["server_version"],
        options=document["options"],
        path=path,
        state=state,
        problem=problem,
    )


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a manifest, for other programs that read it."""
    properties: dict[str, Any] = {
        key.name: {"type": [_JSON_NAMES[kind] for kind in key.types], "description": key.help} for key in KEYS
    }
    properties["manifest_version"] = {"const": MANIFEST_VERSION, "description": KEYS[0].help}
    properties["kind"]["enum"] = ["database", "globals"]
    properties["format"]["enum"] = list(FORMATS)
    properties["encryption"]["enum"] = list(_ENCRYPTIONS)
    properties["files"].update(
        minItems=1,
        items={
            "type": "object",
            "required": ["path", "size", "sha256"],
            "additionalProperties": False,
            "properties": {
                "path": {"type": "string", "minLength": 1},
                "size": {"type": "integer", "minimum": 0},
                "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            },
        },
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pgkeep manifest",
        "type": "object",
        "required": [key.name for key in KEYS if key.required],
        "properties": properties,
    }
