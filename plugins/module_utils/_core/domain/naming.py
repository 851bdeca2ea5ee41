# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Names in the repository: reversible, harmless in a path, and none of them can meet one of our own.

    <instance>/<database>/<database>_2025-11-05_14-30-00/<database>_2025-11-05_14-30-00.dump

Times in names are UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from .errors import RepositoryError

GLOBALS_DIRECTORY = "@globals"  # `encode` never gives an "@"
LOCK_NAME = ".lock"
REPLAY_NAME = ".replay"  # of an instance: that replay is paused for dumps
REPLAY_LOCK_NAME = ".replay-lock"
INPROGRESS_PREFIX = ".inprogress-"
TRASH_PREFIX = ".trash-"
MANIFEST_NAME = "manifest.json"
STATE_NAME = "state.json"
DRILLS_NAME = "drills.jsonl"
SYNC_LOCK_PREFIX = ".sync-"  # of a repository, and the name of a target

# A name of 63 bytes, PostgreSQL's longest, with each byte encoded. A time and suffixes then still fit into the 255
# bytes that file systems allow.
MAX_ENCODED = 189
MAX_SETBACK = timedelta(days=7)  # of a clock; what is dated further ahead was dated wrongly
RUN_AHEAD = timedelta(minutes=1)  # how far names may be ahead of a clock that is right: several runs in one second

_GLOBALS_STEM = "globals"
_SECOND = timedelta(seconds=1)
_LITERAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_TO_ENCODE = re.compile(rb"[^A-Za-z0-9_.-]|^[.-]")
_ENCODED = re.compile(r"(?:[A-Za-z0-9_.-]|%[0-9A-F]{2})+")
_ESCAPE = re.compile(rb"%([0-9A-F]{2})")

_DATE = r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})"
_DASHED = rf"{_DATE}_(?P<hour>[0-9]{{2}})-(?P<minute>[0-9]{{2}})-(?P<second>[0-9]{{2}})"
_RFC3339 = rf"{_DATE}T(?P<hour>[0-9]{{2}}):(?P<minute>[0-9]{{2}}):(?P<second>[0-9]{{2}})"
_OFFSET = r"(?P<offset>Z|[+-][0-9]{2}:?[0-9]{2})?"
_LETTERED = rf"{_DATE}_(?P<hour>[0-9]{{2}})h(?P<minute>[0-9]{{2}})m"
_STEM = re.compile(rf"(?P<encoded>.+)_{_DASHED}", re.DOTALL)

_SUFFIXES = {"custom": ".dump", "plain": ".sql", "tar": ".tar", "directory": ".dir"}
_ENCRYPTION_SUFFIXES = {None: "", "age": ".age", "gpg": ".gpg"}
_METHOD_SUFFIXES = {"": "", "none": "", "gzip": ".gz", "zstd": ".zst", "lz4": ".lz4"}

# What other tools call their dumps: `.d` is pg_back's folder, `.backup` what pgAdmin proposes.
_FORMATS = {
    "dump": "custom", "pgdump": "custom", "backup": "custom", "sql": "plain", "tar": "tar",
    "dir": "directory", "d": "directory",
}  # fmt: skip
_METHODS = {None: "", ".gz": "gzip", ".zst": "zstd", ".lz4": "lz4"}
_DUMP_SUFFIX = rf"\.(?P<format>{'|'.join(_FORMATS)})(?P<method>\.gz|\.zst|\.lz4)?"
_DUMPS = tuple(
    re.compile(rf"(?P<database>.+)_{pattern}{_DUMP_SUFFIX}", re.DOTALL)
    for pattern in (
        _DASHED,  # ours, many scripts', pg_back's with timestamp_format = legacy
        _RFC3339 + _OFFSET,  # pg_back's
        # autopostgresqlbackup's: daily db_TIME.Wednesday, weekly db_week.45.TIME, monthly db_TIME.November.db
        rf"(?:week\.[0-9]{{1,2}}\.)?{_LETTERED}(?:\.[^.]+(?:\.(?P=database))?)?",
    )
)


class DumpName(NamedTuple):
    """What a dump's name says. `created` is naive where the name has no offset, in UTC where it has one."""

    database: str
    created: datetime
    format: str  # custom | directory | plain | tar
    method: str  # gzip | zstd | lz4, or "" when no external program compressed it


def encode(name: str) -> str:
    """Given any database name, return one path component for it; raise RepositoryError when there is none.

    Only A-Z a-z 0-9 _ . - stand for themselves, "." and "-" not as the first character; everything else is encoded,
    byte by byte. The result is never longer than 189 characters, and different names never give the same one.
    """
    if len(name) <= MAX_ENCODED and _LITERAL.fullmatch(name):
        return name  # almost every name, and a listing of 100,000 backups asks for each
    try:
        data = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise RepositoryError(f"database {name!r} has a name that cannot be stored: rename it") from None
    # Escaped bytes that make up valid UTF-8 would meet the name that is written with these characters.
    if not data or data.decode("utf-8", "surrogateescape") != name:
        raise RepositoryError(f"database {name!r} has a name that cannot be stored: rename it")
    text = _TO_ENCODE.sub(lambda match: b"%%%02X" % match.group()[0], data).decode("ascii")
    if len(text) > MAX_ENCODED:
        raise RepositoryError(f"database {name!r} has too long a name for a folder of the repository: rename it")
    return text


def decode(text: str) -> str:
    """Given what `encode` returned, return the name; raise RepositoryError for everything that it would not return."""
    short = len(text) <= MAX_ENCODED
    if short and _LITERAL.fullmatch(text):
        return text
    if short and _ENCODED.fullmatch(text):
        data = _ESCAPE.sub(lambda match: bytes((int(match.group(1), 16),)), text.encode("ascii"))
        name = data.decode("utf-8", "surrogateescape")
        if encode(name) == text:
            return name
    raise RepositoryError(f"{text!r} is not the name of a folder that pgkeep makes")


def directory(kind: str, database: str | None) -> str:
    """Given a kind and a database (None for globals), return the folder of its backups; raise as `encode`."""
    return GLOBALS_DIRECTORY if kind == "globals" else encode(database or "")


def stem(kind: str, database: str | None, created: datetime) -> str:
    """Given what is backed up and its time, return the name of the backup, to the second in UTC."""
    prefix = _GLOBALS_STEM if kind == "globals" else encode(database or "")
    moment = created.astimezone(timezone.utc).isoformat(timespec="seconds")[:19]
    return f"{prefix}_{moment.replace('T', '_').replace(':', '-')}"


def parse_stem(text: str) -> tuple[str, datetime] | None:
    """Given a name, return its encoded part and its time in UTC; None when `stem` would not return it."""
    match = _STEM.fullmatch(text)
    moment = match and _moment(match)
    if not match or not moment:
        return None
    try:
        decode(match["encoded"])
    except RepositoryError:
        return None
    return match["encoded"], moment.replace(tzinfo=timezone.utc)


def has_form_of_stem(text: str) -> bool:
    """Given a name, return whether it looks like a backup's; `parse_stem` is certain and ten times slower."""
    return _STEM.fullmatch(text) is not None


def _moment(match: re.Match[str]) -> datetime | None:
    found = match.groupdict()
    year, month, day, hour, minute = (int(found[part]) for part in ("year", "month", "day", "hour", "minute"))
    try:
        # autopostgresqlbackup's names have no seconds; the caller knows what zone is meant
        return datetime(year, month, day, hour, minute, int(found.get("second", "0")))  # noqa: DTZ001
    except ValueError:
        return None


def backup_id(instance: str, kind: str, database: str | None, created: datetime) -> str:
    """Given what is backed up and its time, return the backup's id, which is also its path inside the repository."""
    return f"{instance}/{directory(kind, database)}/{stem(kind, database, created)}"


def suffix(format: str, method: str = "", encryption: str | None = None) -> str:  # noqa: A002  (the option's name)
    """Given a format, an external compressor's method ("" or none: without) and perhaps the encryption, return what ends
    the file's name.
    """
    return _SUFFIXES[format] + _METHOD_SUFFIXES[method] + _ENCRYPTION_SUFFIXES[encryption]


def parse_dump_name(filename: str) -> DumpName | None:
    """Given the name of a file or folder, return what it says when it is one that a known tool gives a dump, else None.

    The database's part is taken literally, except where it is what `encode` makes of some name. Names without an offset
    give a naive time: the caller knows in which time zone that tool ran.
    """
    for pattern in _DUMPS:
        match = pattern.fullmatch(filename)
        if match and "/" not in filename:
            return _dump_name(match)
    return None


def _dump_name(match: re.Match[str]) -> DumpName | None:
    found, created = match.groupdict(), _moment(match)
    if created and found.get("offset"):
        created = _to_utc(created, found["offset"])
    kind, method = _FORMATS[found["format"]], _METHODS[found["method"]]
    if not created or (kind == "directory" and method):
        return None
    try:
        database = decode(found["database"])
    except RepositoryError:
        database = found["database"]
    return DumpName(database, created, kind, method)


def _to_utc(moment: datetime, offset: str) -> datetime | None:
    if offset != "Z":
        distance = timedelta(hours=int(offset[1:3]), minutes=int(offset[-2:]))
        try:
            moment = moment + distance if offset[0] == "-" else moment - distance
        except OverflowError:
            return None
    return moment.replace(tzinfo=timezone.utc)


def next_created(now: datetime, taken: Iterable[datetime]) -> datetime:
    """Given the time and those of the same database's backups, return the time for the next: whole seconds, UTC.

    It is later than the newest one's, so that names keep their order although the clock was set back or two runs fell
    into one second. Times further ahead than MAX_SETBACK come from a clock that was wrong once: following them would
    date every later backup in the future for good.
    """
    whole = now.astimezone(timezone.utc).replace(microsecond=0)
    believable = [moment for moment in taken if moment - whole <= MAX_SETBACK]
    newest = max(believable, default=whole - _SECOND)
    return max(whole, newest.astimezone(timezone.utc).replace(microsecond=0) + _SECOND)
