# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.

"""What the server says about itself and its databases."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

# What decides how values are written as text, and pg_dump does not set itself.
OUTPUT_SETTINGS = ("TimeZone", "bytea_output", "lc_monetary")


@dataclass(frozen=True)
class ServerFacts:
    """One server, as the role of this session sees it."""

    version: str  # "15.18 (Debian 15.18-0+deb12u1)"
    version_num: int  # 150018
    role: str  # after a session_role took effect
    is_superuser: bool
    bypasses_rls: bool
    can_read_authid: bool  # and with it the roles' password verifiers
    is_standby: bool
    lock_slots: int  # how many objects all sessions together can lock
    system_identifier: str | None = None  # None where the role may not read it

    @property
    def major(self) -> int:
        """Return the major version."""
        return self.version_num // 10000


@dataclass(frozen=True)
class ReplicationFacts:
    """A server's place among a primary and its standbys."""

    is_standby: bool
    cluster_name: str  # "" where it has none
    streaming: tuple[str, ...] | None  # names of the standbys that stream from it; None: the role may not see that


@dataclass(frozen=True)
class DatabaseEntry:
    """One database in the server's list."""

    name: str
    owner: str
    allow_connections: bool
    is_template: bool
    invalid: bool  # left behind by an interrupted DROP DATABASE
    can_connect: bool  # the role has the CONNECT privilege
    size: int | None = None  # bytes; None where the role may not ask
    readable_name: bool = True  # False: its bytes are no UTF-8, the name shown is not the real one


@dataclass(frozen=True)
class DatabaseFacts:
    """One database: what its archive does not hold, or what a restore wants to know first."""

    name: str
    owner: str
    encoding: str
    locale_provider: str  # libc | icu | builtin
    collate: str
    ctype: str
    locale: str | None  # of the providers icu and builtin
    icu_rules: str | None
    collation_version: str | None
    tablespace: str
    connection_limit: int
    is_template: bool
    comment: str | None
    acl: tuple[dict[str, Any], ...] | None  # grantor, grantee (None: PUBLIC), privilege, grantable; None: the defaults
    settings: tuple[dict[str, Any], ...]  # role (None: all roles), name, value
    extensions: tuple[dict[str, Any], ...]  # name, version, schema
    roles: tuple[str, ...]  # owners and grantees of the database and its objects
    tablespaces: tuple[str, ...]
    tables: int  # ordinary and partitioned
    relations: int  # with views, sequences and indexes
    large_objects: int
    subscriptions: int
    size: int
    output_settings: dict[str, str]  # OUTPUT_SETTINGS


def properties(facts: DatabaseFacts) -> dict[str, Any]:
    """Given a database's facts, return the manifest's `properties`: plain values, as JSON gives them back."""
    named = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(facts).items()}
    del named["name"]
    return named


@dataclass(frozen=True)
class Obstacles:
    """What the role cannot read of that part of a database which is to be dumped."""

    tables: int  # to be dumped, each takes a lock
    tables_with_data: int  # of these, how many have rows to dump: the total for progress
    row_security: tuple[str, ...] = ()  # tables whose policies would hide rows
    no_select: tuple[str, ...] = ()  # tables and sequences
    no_usage: tuple[str, ...] = ()  # schemas
    large_objects: int = 0  # that the role may not read
