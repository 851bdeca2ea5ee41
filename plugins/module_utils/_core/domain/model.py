# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""What a user can say: every option of every front, with its type, default and meaning, written once.

Module argument specs, the command line, the configuration's JSON Schema, the documentation fragments and the role
defaults are all made from, or checked against, the dataclasses below.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Callable, TypeVar

from .errors import ConfigurationError
from .quantities import parse_duration, parse_size, parse_time

FORMATS = ("custom", "directory", "plain", "tar")
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
ENCRYPTIONS = ("none", "age", "gpg")
COMPRESSION_METHODS = ("gzip", "lz4", "zstd", "none")
COMPRESSION_PATTERN = r"^(auto|none|(gzip|lz4|zstd)(:[0-9]{1,2})?)$"
RESERVE_PATTERN = r"^([0-9]+(\.[0-9]+)?%|[0-9]+(\.[0-9]+)? ?([kKMGT]i?)?B?)$"
INSTANCE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
LABEL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}$"
CONFIG_DIRECTORY = "/etc/pgkeep"


@dataclass(frozen=True)
class Option:
    """One option: its kind decides the type in each front and how its text becomes a value."""

    kind: str  # str | int | bool | list | path | duration | size | time | password | checks (a list of Check)
    help: str  # whole sentences; `code` in backquotes
    default: Any = None  # as a user would write it
    required: bool = False
    choices: tuple[str, ...] = ()
    pattern: str = ""
    minimum: int | None = None
    flag: str = ""  # on the command line, where it is not the option's name


def _checks(raw: Any) -> tuple[Check, ...]:
    """Given checks as a user wrote them, return them; raise ConfigurationError. A text is JSON, or a query alone."""
    return tuple(build(Check, item if isinstance(item, Mapping) else _written_check(item)) for item in raw)


def _written_check(text: str) -> Mapping[str, Any]:
    if not text.lstrip().startswith("{"):
        return {"query": text}
    try:
        check = json.loads(text)
    except ValueError:
        raise ConfigurationError(f"{text!r} is not JSON") from None
    unknown = sorted(check.keys() - options_of(Check).keys())
    if unknown or not all(isinstance(value, str) for value in check.values()):
        raise ConfigurationError(f"{text!r} must have texts for query, expected and database, and nothing else")
    return dict(check)


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "duration": parse_duration,
    "size": parse_size,
    "time": parse_time,
    "list": tuple,
    "checks": _checks,
}


def _value(option: Option, raw: Any) -> Any:
    parser = _PARSERS.get(option.kind)
    return raw if raw is None or parser is None else parser(raw)


def option(kind: str, help: str, default: Any = None, **more: Any) -> Any:  # noqa: A002  (argparse's own word)
    """Given an option's description, return the dataclass field that carries it and its parsed default."""
    described = Option(kind=kind, help=help, default=default, **more)
    # The classes below call this where they would call `field`.
    # pylint: disable-next=invalid-field-call
    return field(default=_value(described, default), repr=kind != "password", metadata={"option": described})


@dataclass(frozen=True)
class Connection:
    """How to reach one instance; the names are community.postgresql's."""

    login_host: str = option("str", "Host of the server. Empty means the Unix socket.", "")
    login_port: int = option("int", "Port of the server.", 5432, minimum=1)
    login_user: str = option("str", "Role to connect as.", "postgres")
    login_password: str | None = option(
        "password",
        "Password of the role. It never appears in a process list, log, result or diff. Prefer `passfile`, or peer"
        " authentication over the socket. A newline in it is refused, because libpq could not read it back.",
    )
    login_unix_socket: str = option("path", "Directory of the Unix socket, where it is not the client's default.", "")
    login_db: str = option("str", "Database to connect to first, for discovery and globals.", "postgres")
    ssl_mode: str = option(
        "str",
        "TLS mode, honoured by every tool. What it asks for and cannot get is a failure, never a quieter connection.",
        "prefer",
        choices=SSL_MODES,
    )
    ca_cert: str | None = option("path", "File with the certificate authorities to verify the server with.")
    ssl_cert: str | None = option("path", "File with the client certificate.")
    ssl_key: str | None = option("path", "File with the client certificate's key.")
    service: str | None = option(
        "str",
        "Name of a section of the connection service file. Connection options left at their defaults are then taken"
        " from that section.",
    )
    service_file: str | None = option("path", "Connection service file, where it is not the client's default.")
    passfile: str | None = option("path", "Password file (mode 0600), where it is not the client's default.")
    session_role: str | None = option("str", "Role to switch to after connecting, for dumps as well.")
    connect_timeout: timedelta = option("duration", "How long a connection attempt may take.", "10s")


@dataclass(frozen=True)
class Repository:
    """Where backups are kept."""

    repository: str = option(
        "path", "Directory of the repository. Created with mode 0700 if its parent exists.", required=True
    )


@dataclass(frozen=True)
class Instance:
    """Under which name the backups of a server are kept."""

    instance: str = option(
        "str",
        "Name of the PostgreSQL server, as you call it. It is the first folder level of the repository.",
        "main",
        pattern=INSTANCE_PATTERN,
    )


@dataclass(frozen=True)
class Location(Instance, Repository):
    """Where backups are kept, and under which name for the instance."""


@dataclass(frozen=True)
class Scope:
    """Which part of a repository; nothing said means all of it."""

    instance: str | None = option("str", "Only backups of this instance.", pattern=INSTANCE_PATTERN)
    databases: tuple[str, ...] = option("list", "Only backups of these databases; `@globals` means the globals.", ())


@dataclass(frozen=True)
class Filter(Scope):
    """Which backups of a repository are shown; nothing said means all."""

    label: str | None = option("str", "Only backups with this label.", pattern=LABEL_PATTERN)
    before: datetime | None = option("time", "Only backups taken before this time.")
    after: datetime | None = option("time", "Only backups taken at or after this time.")
    complete: bool | None = option(
        "bool", "Only backups whose files are all there (true), or only damaged ones (false)."
    )
    verified: bool | None = option("bool", "Only backups that were verified (true), or never were (false).")
    pinned: bool | None = option("bool", "Only backups with a pin that holds (true), or without one (false).")


@dataclass(frozen=True)
class Selection:
    """Which databases of the instance; nothing said means all."""

    databases: tuple[str, ...] = option(
        "list", "Names of databases. One that does not exist is an error. With neither this nor `include`: all.", ()
    )
    include: tuple[str, ...] = option(
        "list",
        "Regular expressions (Python's) that a database's whole name must match. One that matches nothing is an error.",
        (),
    )
    exclude: tuple[str, ...] = option(
        "list", "Regular expressions for databases to leave out. One that matches nothing is an error.", ()
    )


@dataclass(frozen=True)
class DumpOptions:
    """What is dumped and how it is stored."""

    format: str = option(
        "str",
        "Format of the archive. `custom` is one file that restores in parallel and in parts; `directory` can also be"
        " dumped in parallel; `plain` is SQL text; `tar` is for old habits.",
        "custom",
        choices=FORMATS,
    )
    compression: str = option(
        "str",
        "`method:level` with the methods gzip, lz4, zstd and none, for example `zstd:3`. Done inside the archive where"
        " the client can, through the external program otherwise. `auto` is the best that this host has: zstd inside"
        " the archive, zstd through the program, else gzip.",
        "auto",
        pattern=COMPRESSION_PATTERN,
    )
    jobs: int = option("int", "Parallel jobs inside one database. More than 1 needs format `directory`.", 1, minimum=1)
    tables: tuple[str, ...] = option(
        "list",
        "Dump only these tables (pg_dump's patterns). Like every option that leaves something out, it makes the backup"
        " partial. A pattern that matches nothing is an error.",
        (),
    )
    exclude_tables: tuple[str, ...] = option("list", "Leave these tables out (pg_dump's patterns).", ())
    schemas: tuple[str, ...] = option("list", "Dump only these schemas (pg_dump's patterns).", ())
    exclude_schemas: tuple[str, ...] = option("list", "Leave these schemas out (pg_dump's patterns).", ())
    exclude_table_data: tuple[str, ...] = option(
        "list", "Leave the rows of these tables out, keep their definition.", ()
    )
    globals: bool = option("bool", "Also dump roles and tablespaces (pg_dumpall), as a backup of its own.", True)
    role_passwords: str = option(
        "str",
        "Whether the globals contain the roles' password verifiers. `auto` takes them where the role may read them and"
        " says so where it may not; `always` fails there; `never` leaves them out.",
        "auto",
        choices=("auto", "always", "never"),
    )
    lock_wait_timeout: timedelta = option(
        "duration", "How long pg_dump waits for a table lock before it gives up.", "5m"
    )


@dataclass(frozen=True)
class EncryptionOptions:
    """For whom backups are encrypted."""

    encryption: str = option(
        "str",
        "Encrypt archives and globals before they reach the disk, with the program `age` or with `gpg`. What cannot be"
        " encrypted as asked for is a failure, and never written as it is. Not for format `directory`.",
        "none",
        choices=ENCRYPTIONS,
    )
    recipients: tuple[str, ...] = option(
        "list",
        "Public keys to encrypt for; each of their private keys alone decrypts. `age`: public keys of age or SSH, or"
        " absolute paths of files with a key on each line. `gpg`: absolute paths of files with one key each, as `gpg"
        " --export KEY` writes it.",
        (),
    )


@dataclass(frozen=True)
class Decryption:
    """What decrypts backups."""

    identity_file: str | None = option(
        "path",
        "File with the private keys that decrypt encrypted backups; only its owner may be able to read it. `age`: an"
        " identity file, or a private SSH key. `gpg`: keys without passphrase, as `gpg --export-secret-keys` writes them,"
        " or a GnuPG home directory. For hosts alone that may read the backups: taking them needs none.",
    )


@dataclass(frozen=True)
class RunOptions:
    """How a run behaves."""

    max_age: timedelta | None = option(
        "duration",
        "Take no backup where a complete one of the same database with the same options is not older than this. Without"
        " it every run takes one.",
    )
    label: str | None = option("str", "A word to find the backups of this run by.", pattern=LABEL_PATTERN)
    pin: str | None = option("str", "Reason why retention must keep the backups of this run.")
    pin_until: datetime | None = option("time", "When the pin ends. Without it the pin stays until it is taken away.")
    parallel: int = option("int", "How many databases are dumped at a time.", 1, minimum=1)
    wait: timedelta = option("duration", "How long to wait for another run's lock. 0 refuses at once.", "0")
    deadline: timedelta = option("duration", "How long the backup of one database may take altogether.", "24h")
    stall_timeout: timedelta = option("duration", "How long a dump may go on without a single new byte.", "1h")
    bin_dir: str | None = option(
        "path", "Directory of pg_dump, pg_dumpall and pg_restore, instead of looking for them."
    )
    reserve: str = option(
        "str",
        "Space that stays free on the repository's file system, as a size or a percentage.",
        "500MB",
        pattern=RESERVE_PATTERN,
    )


@dataclass(frozen=True)
class StandbyOptions:
    """Which server of a primary and its standbys a run is for, and how a standby is dumped."""

    run_on: str = option(
        "str",
        "Which server the run is for, decided when it begins: `primary` and `standby` only where the server is one;"
        " `prefer_standby` on a standby, and on the primary as long as no standby streams from it. Where it is for"
        " another server it takes no backup, says so, and is no failure.",
        "any",
        choices=("any", "primary", "standby", "prefer_standby"),
    )
    standby_name: str | None = option(
        "str",
        "Of several standbys only the one with this `cluster_name`. With `prefer_standby` the primary looks for that"
        " one alone.",
    )
    pause_replay: bool = option(
        "bool",
        "On a standby, pause replay while dumps run, so that it cannot cancel them, and resume it afterwards whatever"
        " happens.",
        True,
    )
    pause_timeout: timedelta = option("duration", "How long to wait until replay is paused.", "5m")
    max_lag: timedelta = option(
        "duration", "Refuse to dump a standby that is further behind its primary than this.", "1h"
    )


@dataclass(frozen=True)
class Schedule:
    """When the actions of a job begin, in the time zone of the host. `domain/schedule.py` says what is wrong with one."""

    backup_schedule: str = option(
        "str",
        "When backups are taken: `hourly`, `every_6_hours`, `daily` (at 02:00), `weekly` (on Sunday at 03:00),"
        " `monthly` (on the first at 04:00), `never`, or five fields as in a crontab.",
        "daily",
    )
    prune_schedule: str = option(
        "str",
        "When backups are pruned: at the end of each backup run (`after_backup`), or as for `backup_schedule`.",
        "after_backup",
    )
    verify_schedule: str = option("str", "When all backups are verified, as for `backup_schedule`.", "weekly")
    sync_schedule: str = option(
        "str",
        "When missing copies are brought to the targets: at the end of each backup run (`after_backup`), or as for"
        " `backup_schedule`.",
        "after_backup",
    )
    drill_schedule: str = option(
        "str",
        "When the newest backup of each database is restored in a drill, as for `backup_schedule`.",
        "monthly",
    )
    schedule_spread: timedelta = option(
        "duration",
        "Words such as `daily` begin up to this much later, by an amount that depends on host, job and action, so that"
        " the hosts of a fleet do not all begin at once. Five fields are taken as they are.",
        "30m",
    )


TARGET_TYPES = ("directory", "rsync", "rclone")


@dataclass(frozen=True)
class Copies:
    """Where copies of a job's backups go."""

    targets: tuple[str, ...] = option(
        "list",
        "Names of the targets that get a copy of every backup. Each is a file `targets.d/NAME.json` of the"
        " configuration.",
        (),
    )


@dataclass(frozen=True)
class Target:
    """A place outside the host that keeps copies of backups. It is laid out as a repository is."""

    type: str = option(
        "str",
        "`directory` is mounted storage; `rsync` is an account on another host, reached with SSH; `rclone` is whatever"
        " that program speaks, such as S3.",
        required=True,
        choices=TARGET_TYPES,
    )
    path: str = option(
        "str",
        "Where the copies are. `directory`: an absolute path, made if its parent exists. `rsync`: a directory as the"
        " account sees it; not needed where the account has one only. `rclone`: bucket and prefix. Hosts never share"
        " one.",
        "",
    )
    host: str | None = option("str", "`rsync`: the host.")
    port: int = option("int", "`rsync`: port of its SSH server.", 22, minimum=1)
    user: str | None = option("str", "`rsync`: the account. Without it, the user that runs the job.")
    key_file: str | None = option("path", "`rsync`: the private SSH key. Without it, what the SSH client finds.")
    known_hosts_file: str | None = option(
        "path", "`rsync`: file with the host's public key, which has to be known. Without it, the SSH client's own."
    )
    append_only: bool = option(
        "bool",
        "`rsync`: the account can only add copies and tell their checksums, because its key runs `pgkeep receive`."
        " Without it the key has to give rsync what is asked of it.",
        True,
    )
    remote: str | None = option("str", "`rclone`: name of the remote in its configuration.")
    config_file: str | None = option("path", "`rclone`: its configuration (mode 0600), with the credentials.")
    flags: tuple[str, ...] = option(
        "list",
        "`rclone`: more of its flags, each with its value, such as `--s3-storage-class=STANDARD_IA`. Those that would"
        " delete, overwrite, or leave out a check are refused.",
        (),
    )
    read_back: str = option(
        "str",
        "How a copy is checked whose SHA-256 the target cannot tell: `sample` reads pieces of every file back, `full`"
        " reads all of it.",
        "sample",
        choices=("sample", "full"),
    )
    bandwidth: int | None = option("size", "Bytes per second to use at most, such as `10MB`.")
    retries: int = option("int", "How often a copy is tried again, in the same run, after a failure.", 2, minimum=0)
    timeout: timedelta = option("duration", "How long the target may be silent before that is a failure.", "2m")
    deadline: timedelta = option("duration", "How long the copy of one backup may take.", "24h")


@dataclass(frozen=True)
class ReceiveOptions:
    """What an account that receives copies may hold."""

    quota: int | None = option(
        "size",
        "What the directory may hold altogether; every file and directory counts 4 KiB at least. Without it, what fits.",
    )


@dataclass(frozen=True)
class SyncOptions:
    """How copies are brought to targets."""

    targets: tuple[str, ...] = option("list", "Only these targets. Nothing said means those of the job.", ())
    wait: timedelta = option(
        "duration", "How long to wait for another run that copies to the same target. 0 refuses at once.", "0"
    )


@dataclass(frozen=True)
class AtTarget:
    """One target, instead of the repository alone."""

    target: str | None = option("str", "Name of a target of the configuration, whose copies are meant.")


@dataclass(frozen=True)
class LogOptions:
    """Where the command writes down what it did."""

    log_dir: str | None = option(
        "path",
        "Directory in which the command keeps its log, `pgkeep.log`, and the history of its runs, `history.jsonl`."
        " Without it neither is kept.",
    )


RULES = ("keep_last", "keep_days", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")


@dataclass(frozen=True)
class Policy:
    """Which backups retention keeps. A rule that is not set, or 0, is off."""

    keep_last: int | None = option("int", "Limit: the newest N backups.", minimum=0)
    keep_days: int | None = option("int", "Limit: backups not older than this many days.", minimum=0)
    limit_mode: str = option(
        "str",
        "`either` drops a backup as soon as one limit is exceeded, `both` only when every limit that is set is.",
        "either",
        choices=("either", "both"),
    )
    keep_hourly: int | None = option(
        "int", "Tier: the newest backup of each of the last N hours that have one.", minimum=0
    )
    keep_daily: int | None = option(
        "int", "Tier: the newest backup of each of the last N days that have one.", minimum=0
    )
    keep_weekly: int | None = option(
        "int", "Tier: the newest backup of each of the last N ISO weeks that have one.", minimum=0
    )
    keep_monthly: int | None = option(
        "int", "Tier: the newest backup of each of the last N months that have one.", minimum=0
    )
    keep_yearly: int | None = option(
        "int", "Tier: the newest backup of each of the last N years that have one.", minimum=0
    )
    keep_minimum: int = option("int", "The newest N complete backups always stay, however old.", 1, minimum=1)
    timezone: str = option("str", "Time zone in which hours, days, weeks, months and years begin.", "UTC")
    max_deletions: int | None = option(
        "int", "Brake: delete at most this many backups in one run, oldest first.", minimum=1
    )
    require_copies: int = option(
        "int", "Brake: delete only backups with at least this many verified copies elsewhere.", 0, minimum=0
    )

    @property
    def has_rules(self) -> bool:
        """Return whether any rule is set."""
        return any(getattr(self, rule) for rule in RULES)


@dataclass(frozen=True)
class ListingOptions:
    """What a listing looks at besides the manifests."""

    checksum: bool = option("bool", "Read every byte of every listed backup and compare it with the manifest.", False)
    foreign: bool = option("bool", "Also list what lies in the repository and is not a backup, with the reason.", False)


@dataclass(frozen=True)
class PruneOptions:
    """How a prune behaves."""

    wait: timedelta = option("duration", "How long to wait for another run's lock. 0 refuses at once.", "0")


LEVELS = ("checksum", "archive", "restore")


@dataclass(frozen=True)
class VerifyOptions:
    """How thoroughly backups are verified, and which of them."""

    level: str = option(
        "str",
        "`checksum` reads every byte and compares it with the manifest; `archive` also lets the tool that restores read"
        " the archive to its end; `restore` is the drill: it also restores the backup into a throw-away server and"
        " proves that the contents are equal.",
        "archive",
        choices=LEVELS,
    )
    latest: bool = option("bool", "Of each database only the newest backup that is not partial.", False)
    sample: int | None = option(
        "int", "Verify at most this many backups, those first that were not verified for the longest time.", minimum=1
    )
    max_age: timedelta | None = option(
        "duration", "Leave out backups that passed this level, or a higher one, not longer ago than this."
    )
    deadline: timedelta = option("duration", "How long the verification of one backup may take.", "24h")
    bin_dir: str | None = option("path", "Directory of the client programs, instead of looking for them.")


@dataclass(frozen=True)
class Check:
    """A question to a restored database, and the answer that it has to give."""

    query: str = option("str", "SQL of one statement, run as the superuser of the throw-away server.", required=True)
    expected: str = option(
        "str",
        "What the query has to return, as psql prints it unaligned: a line for each row, columns separated by `|`.",
        "t",
    )
    database: str | None = option("str", "Ask only in backups of this database.")


@dataclass(frozen=True)
class DrillOptions:
    """How backups are restored into a throw-away server, for level `restore` alone."""

    checks: tuple[Check, ...] = option(
        "checks",
        "Queries to run in the restored database, and what each has to return. On the command line each is a query that"
        " has to return `t`, or JSON with the keys of a check.",
        (),
    )
    preload: tuple[str, ...] = option(
        "list", "Libraries for `shared_preload_libraries` of the throw-away server, where extensions need them.", ()
    )
    sandbox: bool = option(
        "bool",
        "Keep what is restored from the host with bubblewrap: a dump may carry anybody's code. Without it that code has"
        " the rights of the user that runs the drill.",
        True,
    )
    work_dir: str = option(
        "path",
        "Directory for the throw-away server and its data, as large as the database, and for archives that have to be"
        " unpacked to be restored in parallel.",
        "/var/tmp",  # noqa: S108
    )


@dataclass(frozen=True)
class Choice:
    """Which backup of a repository, or of any directory that holds a copy of one."""

    database: str | None = option("str", "Name of the database as it was backed up.")
    instance: str | None = option("str", "Only backups of this instance.", pattern=INSTANCE_PATTERN)
    backup: str = option("str", "`latest`, or the id of a backup as listings show it.", "latest")
    label: str | None = option("str", "Only backups with this label.", pattern=LABEL_PATTERN)
    before: datetime | None = option("time", "Only backups taken before this time.")
    verified: bool = option("bool", "Only backups that passed a verification.", False)
    from_target: str | None = option(
        "str",
        "Name of a target of the configuration to fetch the backup from, instead of `repository`. It is fetched into"
        " `work_dir`, checked, restored and removed there.",
        flag="--from",
    )
    partial: bool = option("bool", "Also backups that something was left out of.", False)


@dataclass(frozen=True)
class RestoreOptions:
    """Where a backup is restored to, and how."""

    target: str | None = option("str", "Name of the database to restore into. Without it the name that was backed up.")
    if_exists: str = option(
        "str",
        "What to do where the target exists and is not to be replaced: `fail`, `skip` (nothing is done), or `fill`,"
        " which restores into it if it is empty.",
        "fail",
        choices=("fail", "skip", "fill"),
    )
    replace: str | None = option(
        "str",
        "Name of the existing database that the restored one takes the place of; it has to be the target's. The old one"
        " stays under a dated name.",
    )
    drop_old: bool = option("bool", "Drop the replaced database once the restored one is in its place.", False)
    sessions: str = option(
        "str",
        "What to do about sessions on the database that is replaced: `fail`, `wait` until they have ended, or"
        " `terminate` them.",
        "fail",
        choices=("fail", "wait", "terminate"),
    )
    sessions_timeout: timedelta = option("duration", "How long to wait for these sessions to end.", "5m")
    jobs: int | None = option("int", "Parallel jobs. Without it, as many as this host has processors.", minimum=1)
    tables: tuple[str, ...] = option(
        "list", "Restore only these tables (names, no patterns). What they depend on is not restored with them.", ()
    )
    schemas: tuple[str, ...] = option("list", "Restore only what is in these schemas (names, no patterns).", ())
    no_owner: bool = option("bool", "Everything belongs to the restoring role; recorded owners are ignored.", False)
    no_privileges: bool = option("bool", "Recorded privileges (GRANT, REVOKE) are ignored.", False)
    no_tablespaces: bool = option("bool", "Everything goes to the default tablespace.", False)
    create_roles: bool = option("bool", "Create missing roles as the nearest backup of the globals has them.", False)
    existing_roles: str = option(
        "str",
        "When globals are restored: what to do with roles that exist and differ. `leave` them as they are, or `update`"
        " them to what the backup says.",
        "leave",
        choices=("leave", "update"),
    )
    checksum: bool = option("bool", "First compare every byte of the backup with its manifest.", True)
    compare: bool = option(
        "bool",
        "Compare every row, sequence and large object of the restored database with the archive before it takes its"
        " place, as a drill does. A difference is a failure.",
        False,
    )
    analyze: bool = option("bool", "Collect the planner's statistics after restoring.", True)
    deadline: timedelta = option("duration", "How long restoring the archive may take.", "24h")
    bin_dir: str | None = option("path", "Directory of the client programs, instead of looking for them.")
    work_dir: str = option(
        "path",
        "Directory for an archive that has to be unpacked to be restored in parallel.",
        "/var/tmp",  # noqa: S108
    )


@dataclass(frozen=True)
class ConfigDirectory:
    """Where the configuration of the host is: its jobs and their targets."""

    config_dir: str = option("path", "Directory of the jobs' configuration.", CONFIG_DIRECTORY)


@dataclass(frozen=True)
class FromJob(ConfigDirectory):
    """A job of the host that says what the task does not say."""

    repository: str | None = option(
        "path",
        "Directory of the repository. Required without `job`, and else the job's. A backup creates it with mode 0700 if"
        " its parent exists.",
    )
    job: str | None = option(
        "str",
        "Name of a job of the host. What is not said here, its file on the host says, as for the command with"
        " `--job`, and what the file does not say either has the default. What is said here counts, also where it is"
        " the default.",
    )


@dataclass(frozen=True)
class StatusOptions(ConfigDirectory):
    """Of which jobs the status is."""


@dataclass(frozen=True)
class RunbookOptions(ConfigDirectory):
    """What a recovery document is written about."""

    path: str | None = option("path", "File to write the document to. Without it the document is only returned.")


@dataclass(frozen=True)
class AdoptOptions:
    """What is known of dumps that another tool made."""

    database: str | None = option("str", "Name of the database, where neither the archive nor the file's name has it.")
    time: datetime | None = option("time", "When the dump was taken, where the file's name does not say it.")
    timezone: str = option("str", "Time zone of the times in the files' names.", "UTC")
    move: bool = option(
        "bool", "Remove the original once the adopted backup is complete. Without it the dump is copied.", False
    )


# What a job does that says nothing about retention.
JOB_POLICY = Policy(keep_last=10, keep_days=30)

Options = TypeVar("Options")


def options_of(cls: type) -> dict[str, Option]:
    """Given one of the classes above, return its options by name, in the order in which they are written."""
    return {item.name: item.metadata["option"] for item in fields(cls)}


def _problem(option: Option, raw: Any) -> str:
    """Given an option and what a user wrote for it, return what is wrong with it; "" when nothing is."""
    if option.choices and raw not in option.choices:
        return "must be one of " + ", ".join(option.choices)
    if option.pattern and not re.fullmatch(option.pattern, raw):
        return f"must match {option.pattern}"
    if option.minimum is not None and raw < option.minimum:
        return f"must be {option.minimum} or more"
    return ""


def build(cls: type[Options], raw: Mapping[str, Any]) -> Options:
    """Given what a user wrote, by option name, return the values; raise ConfigurationError.

    The message names option, value and what is allowed.

    Keys that belong to other classes are ignored: every front checks for unknown keys itself. None means "not said".
    """
    values: dict[str, Any] = {}
    for name, described in options_of(cls).items():
        given = raw.get(name)
        if given is None or (described.required and given == ""):
            if described.required:
                raise ConfigurationError(f"{name} is not set: {described.help}")
            continue
        problem = _problem(described, given)
        if problem:
            raise ConfigurationError(f"{name} is {given!r}: {problem}")
        try:
            values[name] = _value(described, given)
        except ConfigurationError as error:
            raise ConfigurationError(f"{name}: {error}") from None
    return cls(**values)
