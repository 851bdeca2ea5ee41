# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""What a drill needs to know beforehand, and the evidence that it leaves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .facts import OUTPUT_SETTINGS
from .model import Check
from .quantities import iso
from .restoration import major_of

# Stages that a real recovery has as well; their seconds are the time to expect.
_RECOVERY = ("globals", "create", "restore", "analyze", "swap")
_ALWAYS_THERE = frozenset(("postgres",))

# A refusal that is the host's fault and says nothing about the backup, and what to do.
_HOST = (
    (r"No space left on device|could not extend file|disk full", "free some space, or set `work_dir` to a larger file system"),
    (
        r"shared_preload_libraries",
        "name the library in `preload`: the extension only works when the server loads it at its start",
    ),
    (r"could not load library|could not access file|extension control file", "install that extension's package"),
    (r"out of shared memory|max_locks_per_transaction", "report this: the throw-away server has too few locks"),
    (r"could not create locale|invalid (LC_[A-Z]+ )?locale|ICU is not supported", "install or generate that locale on this host"),
    (r"out of memory|was killed|terminated abnormally|server closed the connection", "give this host more memory"),
)  # fmt: skip


def host_problem(said: str) -> str:
    """Given why a restore failed, return what to do where it is this host's fault; "" where it is the backup's."""
    return next((todo for pattern, todo in _HOST if re.search(pattern, said)), "")


def wanted_major(document: Mapping[str, Any]) -> tuple[int | None, bool]:
    """Given a manifest, return the major version of the server to drill on (None: any), and whether a newer one will do.

    It is the one that was backed up. pg_restore has to be as new as the pg_dump was, though, and from version 17 on it
    sets what older servers do not know; then the server has to be as new as well.
    """
    served, dumped = major_of(document["server_version"]), major_of(document["tool_version"])
    if served is None or (dumped is not None and dumped > served):
        return dumped, True
    return served, False


def output_options(properties: Mapping[str, Any] | None) -> str:
    """Given the recorded properties, return libpq's options that let a server write values as the backup's did."""
    settings = (properties or {}).get("output_settings") or {}
    # The manifest may be anybody's: only these count.
    chosen = {name: settings[name] for name in OUTPUT_SETTINGS if isinstance(settings.get(name), str)}
    return " ".join(f"-c {name}={_escaped(value)}" for name, value in chosen.items())


def _escaped(value: str) -> str:
    return re.sub(r"([\\\s])", r"\\\1", value)


def roles_to_invent(document: Mapping[str, Any]) -> list[str]:
    """Given a manifest, return the roles that a restore names, for where there is no backup of the globals."""
    properties = document["properties"]
    if properties is None:
        return []
    return sorted(name for name in properties["roles"] if not name.startswith("pg_") and name not in _ALWAYS_THERE)


def extension_notes(recorded: Sequence[Mapping[str, str]], found: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Given the recorded extensions and those of the restored database (version by name), return what is missing, and
    which have another version: the host's decides that.
    """
    missing = [f"extension {item['name']} is missing" for item in recorded if item["name"] not in found]
    others = [
        f"extension {item['name']} has version {found[item['name']]} here and had {item['version']}"
        for item in recorded
        if item["name"] in found and found[item["name"]] != item["version"]
    ]
    return missing, others


def checks_for(checks: Sequence[Check], database: str) -> list[Check]:
    """Given checks and a database, return those that are for it."""
    return [check for check in checks if check.database in (None, database)]


@dataclass(frozen=True)
class Answer:
    """What became of one check."""

    query: str
    expected: str
    returned: str  # or what the server said
    passed: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"query": self.query, "expected": self.expected, "returned": self.returned, "passed": self.passed}


@dataclass
class Evidence:
    """What a drill found out; it is filled in as the drill goes on."""

    backup: str  # its id
    at: datetime
    host: str
    version: str  # of pgkeep
    sandbox: bool
    backup_server_version: str | None
    server_version: str | None = None  # of the throw-away server
    seconds: dict[str, float] = field(default_factory=dict)
    compared: dict[str, int] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    verdict: str = "good"  # good | unreadable | unrestorable | differs | unexpected
    problem: str = ""
    finished: datetime | None = None

    @property
    def recovery(self) -> float:
        """Return the seconds that a real recovery would have taken here."""
        return sum(self.seconds.get(stage, 0) for stage in _RECOVERY)

    def found(self, verdict: str, problem: str) -> None:
        """Given what is wrong with the backup, keep it; the first is what counts."""
        if self.verdict == "good":
            self.verdict, self.problem = verdict, problem

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values: a line of the file of evidence, a part of the module's result."""
        return {
            "id": self.backup,
            "at": iso(self.at),
            "finished": iso(self.finished) if self.finished else None,
            "host": self.host,
            "verdict": self.verdict,
            "problem": self.problem,
            "backup_server_version": self.backup_server_version,
            "server_version": self.server_version,
            "collection_version": self.version,
            "sandbox": self.sandbox,
            "seconds": {stage: round(taken, 3) for stage, taken in self.seconds.items()},
            "recovery_seconds": round(self.recovery, 3),
            "compared": dict(self.compared),
            "checks": [answer.to_json() for answer in self.answers],
            "warnings": list(self.warnings),
        }
