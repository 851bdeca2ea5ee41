# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""What the account that receives copies can be asked: files, checksums, and a transfer by rsync that only adds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from .errors import ConfigurationError, ToolError

LIST, HASH = "pgkeep list", "pgkeep hash"
TRANSFER = "rsync --server "
REQUEST_LIMIT = 64 * 1024 * 1024  # bytes of the names in one request
RESTRICTION = ("-wo", "-no-del", "-no-overwrite", "-no-lock", "-munge")
ENTRY_SIZE = 4096  # bytes that each file and directory counts at least: names fill a disk as well
MISSING, NO_FILE, FORBIDDEN = "missing", "not a regular file", "not a path below the directory"

# What `sync` has rsync say, of any version since 3.1. Nothing that reads, replaces, appends, leaves a part under the
# final name, or makes links and devices.
_LETTERS = re.compile(r"-[vqtpRrdOWn]*(e[0-9.]*[A-Za-z]*)?")
_LONG = re.compile(
    r"--(ignore-existing|fsync|relative|no-implied-dirs|omit-dir-times|dirs|timeout=[0-9]{1,9}|bwlimit=[0-9]{1,9}"
    r"|info=[A-Za-z0-9,]*|log-format=[A-Za-z0-9%]*|stats|msgs2stderr|no-msgs2stderr|stderr=[a-z]+)"
)
_PATH = re.compile(r"[A-Za-z0-9_./@%+=,-]+")
_TEMPORARY = re.compile(r"\.[A-Za-z0-9_@%][A-Za-z0-9_.%@-]*\.[A-Za-z0-9]{6}")  # as rsync names it: .NAME.XXXXXX


class Expected(Protocol):
    """A file as it has to be: archive.File."""

    @property
    def path(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def sha256(self) -> str: ...


@dataclass(frozen=True)
class Answer:
    """What the far side says of a file."""

    size: int = 0
    sha256: str = ""
    problem: str = ""


def refusal(command: str) -> str:
    """Given the command that a client sent, return why it is not done, in one line, or ""."""
    if command in (LIST, HASH):
        return ""
    if not command.startswith(TRANSFER):
        return "this key can only add copies: it is for `pgkeep sync`, and gives neither a shell nor files"
    words = command.split(" ")[2:]
    if "." not in words:
        return "this is no complete command of rsync"
    options, paths = words[: words.index(".")], words[words.index(".") + 1 :]
    if "--sender" in options:
        return "this key can only add copies: reading from write-only server is not allowed"
    for word in options:
        if not _LETTERS.fullmatch(word) and not _LONG.fullmatch(word):
            return f"rsync's option {word[:40]!a} is not allowed: this key can only add copies"
    if len(paths) != 1 or not _PATH.fullmatch(paths[0]) or ".." in paths[0].split("/"):
        return "one directory below the own one can be named, and nothing else"
    return ""


def acceptable(path: object) -> bool:
    """Given what a client calls a path, return whether it can be one below the directory."""
    if not isinstance(path, str) or not path or len(path) > 4096 or "\0" in path:
        return False
    return all(part and not part.startswith(".") for part in path.split("/"))


def parse_request(data: bytes) -> list[str]:
    """Given what a client sent to `hash`, return its paths; raise ConfigurationError."""
    try:
        paths = json.loads(data)
    except ValueError:
        paths = None
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ConfigurationError("`pgkeep hash` takes a list of paths, as JSON, on stdin")
    return paths


def is_left_over(name: str) -> bool:
    """Given a file's name, return whether it is one that rsync gives to what it has not finished."""
    return _TEMPORARY.fullmatch(name) is not None


# --- the side that asks ---


def joined(path: str, name: str) -> str:
    """Given a target's path and a name below it, return the name below the account's directory."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return "/".join([*parts, name])


def parse_list(text: str, path: str) -> dict[str, int]:
    """Given what `list` answers and the target's path, return the size of each file below that path."""
    prefix = joined(path, "")
    found = _parsed(text)
    if not isinstance(found, dict):
        raise _unknown(text)
    return {
        name[len(prefix) :]: size
        for name, size in found.items()
        if isinstance(size, int) and name.startswith(prefix) and acceptable(name[len(prefix) :])
    }


def parse_hashes(text: str) -> dict[str, Answer]:
    """Given what `hash` answers, one file a line, return the answers by path; raise ToolError."""
    answers = {}
    for line in text.splitlines():
        item = _parsed(line) if line else None  # an empty line only says that work goes on
        if item is None:
            continue
        try:
            answers[str(item["path"])] = Answer(
                int(item.get("size", 0)), str(item.get("sha256", "")), str(item.get("problem", ""))
            )
        except (TypeError, KeyError, ValueError, AttributeError):
            raise _unknown(line) from None
    return answers


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise _unknown(text) from None


def _unknown(text: str) -> ToolError:
    return ToolError(
        f"the far side does not answer as `pgkeep receive` does, but {text[:80]!a}: bind the key to it in authorized_keys,"
        " or set `append_only: false`"
    )


def problem(expected: Mapping[str, Expected], answers: Mapping[str, Answer]) -> str:
    """Given what the files have to be and what the far side says of them, return what is wrong with the first, or ""."""
    for path, file in expected.items():
        answer = answers.get(path)
        if answer is None:
            return f"{file.path}: the far side says nothing of it"
        if answer.problem:
            return f"{file.path} is {answer.problem}"
        if answer.size != file.size:
            return f"{file.path} has {answer.size} bytes instead of {file.size}"
        if answer.sha256 != file.sha256:
            return f"{file.path} was altered: its SHA-256 is not the manifest's"
    return ""
