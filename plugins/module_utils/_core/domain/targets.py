# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Which target documents cannot be meant, before anything is connected to, and what all types of targets share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from .model import Target, options_of

_TOGETHER = {
    "directory": (("path",), ("path", "bandwidth", "timeout", "deadline", "retries")),
    "rsync": (
        ("host",),
        (
            "path", "host", "port", "user", "key_file", "known_hosts_file", "append_only", "bandwidth", "timeout",
            "deadline", "retries",
        ),
    ),
    "rclone": (
        ("remote", "config_file", "path"),
        ("path", "remote", "config_file", "flags", "read_back", "bandwidth", "timeout", "deadline", "retries"),
    ),
}  # fmt: skip
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9_.-]+)?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?")
_SSH_FILE = re.compile(r"/[A-Za-z0-9_./+=,@:-]*")
_RSYNC_PATH = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./+=,@-]*")
_REMOTE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]*")

# What rclone may be told besides: how to speak to the other side and how much at a time, never what to leave out,
# replace or delete. Backends: those with prefixes of their own that people keep backups in.
_FLAG = re.compile(r"--[a-z0-9][a-z0-9-]*(=[^\0\n]*)?")
_BACKENDS = (
    "alias", "azureblob", "azurefiles", "b2", "box", "chunker", "combine", "compress", "crypt", "drive", "dropbox", "ftp",
    "gcs", "hasher", "hdfs", "http", "jottacloud", "koofr", "local", "mailru", "mega", "onedrive", "oos", "opendrive",
    "pcloud", "protondrive", "qingstor", "quatrix", "s3", "seafile", "sftp", "sharefile", "smb", "storj", "sugarsync",
    "swift", "union", "webdav", "yandex", "zoho",
)  # fmt: skip
_GENERAL = (
    "bind", "buffer-size", "bwlimit-file", "ca-cert", "checkers", "client-cert", "client-key", "disable-http-keep-alives",
    "disable-http2", "dscp", "expect-continue-timeout", "fast-list", "header", "header-download", "header-upload",
    "http-proxy", "max-connections", "multi-thread-chunk-size", "multi-thread-cutoff", "multi-thread-streams",
    "multi-thread-write-buffer-size", "tpslimit", "tpslimit-burst", "transfers", "use-cookies", "use-mmap", "user-agent",
)  # fmt: skip
_SECRET = re.compile(
    r"secret|pass(word|wd)?\b|passw|token|credential|access-key|account-key|\bkey\b|-key$|sas-url|-pem$"
)
_NO_SECRET = re.compile(r"--(s3-sse-kms-key-id|client-key|sftp-key-file|sftp-key-use-agent)")
_LEAVES_OUT = re.compile(
    r"disable-checksum|versions|version-deleted|hard-delete|no-head|ignore|check-updated|no-check-certificate|disable-hashcheck"
)

_READ_RATE = 10_000_000  # bytes per second that a disk at the far side has to give us at least
_SHOWN = 400  # characters


def target_problems(raw: Mapping[str, Any]) -> list[str]:
    """Given a target's document whose options have the right types, return what cannot be meant, each in one line."""
    kind = raw.get("type")
    if kind not in _TOGETHER:
        return []  # the schema's matter
    return [*_unfit(str(kind), raw), *_CHECKS[str(kind)](raw)]


def _unfit(kind: str, raw: Mapping[str, Any]) -> Iterator[str]:
    """Given a type and a document, yield what it lacks, and what belongs to another type."""
    needed, known = _TOGETHER[kind]
    for name in needed:
        if not raw.get(name):
            yield f"{name} is not set: a target of type {kind} needs it"
    for name, option in options_of(Target).items():
        said = raw.get(name) not in (None, "", (), []) and raw.get(name) != option.default
        if said and name != "type" and name not in known:
            yield f"{name} is set: a target of type {kind} does not know it: leave it out"


def _directory(raw: Mapping[str, Any]) -> Iterator[str]:
    path = str(raw.get("path") or "")
    if path and (not path.startswith("/") or not path.strip("/")):
        yield f"path is {path!r}: it must be the absolute path of a directory"
    yield from _climbs(path)


def _rsync(raw: Mapping[str, Any]) -> Iterator[str]:
    path = str(raw.get("path") or "")
    if path and not _RSYNC_PATH.fullmatch(path):
        yield f"path is {path!r}: it may have only A-Z a-z 0-9 _ . / + = , @ - and must not begin with -"
    if raw.get("append_only") is not False and path.startswith("/"):
        yield f"path is {path!r}: with append_only it is below the directory of `pgkeep receive`: leave out the first /"
    yield from _climbs(path)
    yield from _fits(raw, "host", _HOST, "the name or the address of a host")
    yield from _fits(raw, "user", _USER, "the name of an account")
    for name in ("key_file", "known_hosts_file"):
        yield from _fits(raw, name, _SSH_FILE, "an absolute path, with A-Z a-z 0-9 _ . / + = , @ : - alone")
    if int(raw.get("port") or 1) > 65535:
        yield f"port is {raw['port']}: it must be 65535 or less"


def _rclone(raw: Mapping[str, Any]) -> Iterator[str]:
    path = str(raw.get("path") or "")
    if ":" in path or path.startswith("-") or re.search(r"[\0-\x1f\x7f]", path):
        # It may be a connection string with a secret in it.
        yield "path must be bucket and prefix alone, without the remote and without a colon, and must not begin with -"
    yield from _climbs(path)
    if raw.get("remote") and not _REMOTE.fullmatch(str(raw["remote"])):
        yield "remote must be the name of a section of config_file, without a colon"  # not shown, for the same reason
    for flag in raw.get("flags") or ():
        problem = flag_problem(str(flag))
        if problem:
            yield problem


_CHECKS = {"directory": _directory, "rsync": _rsync, "rclone": _rclone}


def _climbs(path: str) -> Iterator[str]:
    if ".." in path.split("/"):
        yield f"path is {path!r}: it must not have a .. in it"


def _fits(raw: Mapping[str, Any], name: str, pattern: re.Pattern[str], what: str) -> Iterator[str]:
    value = raw.get(name)
    if value and not pattern.fullmatch(str(value)):
        yield f"{name} is {value!r}: it must be {what}"


def flag_problem(flag: str) -> str:
    """Given a flag for rclone, return why it is refused, or "". Its value is never shown: it may be a secret."""
    name = flag.split("=", 1)[0]
    if not _FLAG.fullmatch(flag):
        word = name if re.fullmatch(r"-{0,2}[A-Za-z0-9-]{1,60}", name) else "one of them"
        return f"flags: {word}: it must be written --NAME=VALUE, or --NAME alone, in one piece"
    if _SECRET.search(name) and not _NO_SECRET.fullmatch(name):
        return f"flags: {name}: secrets belong into config_file, since everybody sees the flags of a running program"
    if name[2:] in _GENERAL:
        return ""
    backend = next((item for item in _BACKENDS if name.startswith(f"--{item}-")), "")
    if not backend:
        return (
            f"flags: {name} is refused: flags of a backend are known, such as --s3-storage-class, and"
            f" {', '.join(f'--{item}' for item in _GENERAL[:6])} ...; what would delete, overwrite, leave out a check or"
            " write elsewhere is not"
        )
    if _LEAVES_OUT.search(name):
        return f"flags: {name} is refused: it would leave out a check or change what counts as a copy"
    return ""


def hidden(path: str) -> bool:
    """Given a path in a target, return whether it is a temporary or a lock file: nothing of ours begins with a dot."""
    return any(part.startswith(".") for part in path.split("/"))


def silence(size: int, timeout: timedelta) -> timedelta:
    """Given bytes that the far side reads before it says anything, return how long that may take."""
    return timeout + timedelta(seconds=size / _READ_RATE)


def shortened(text: str) -> str:
    """Given what a program said, return as much of it as fits into a message."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def unmounted(path: str, fstab: str, mounted: Mapping[str, bool]) -> str:
    """Given a path, the text of fstab and which of its mount points are mounted, return the mount point that the path is
    in and that is not mounted, or "".
    """
    for point in mount_points(fstab):
        if f"{path}/".startswith(f"{point.rstrip('/')}/") and not mounted.get(point, True):
            return point
    return ""


def mount_points(fstab: str) -> list[str]:
    """Given the text of fstab, return its mount points."""
    fields = [line.split() for line in fstab.splitlines() if not line.lstrip().startswith("#")]
    found = [item[1] for item in fields if len(item) > 1 and item[1].startswith("/")]
    return [re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), item) for item in found]
