# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""rclone: command lines, what is read out of what it says, and what to do when it fails."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable

from .errors import ConfigurationError, LockedCopyError, PgkeepError, SpaceError, ToolError
from .model import Target
from .targets import hidden, shortened

HASHES = ("sha256", "sha1", "md5")  # that a target can tell, the strongest first
WHOLE = 1024 * 1024  # bytes up to which a file is read back as a whole
PIECE = 256 * 1024  # bytes of each piece of a larger one
PLACES = 3  # pieces of it at places that nobody knows beforehand, besides the first and the last
STAGING = ".inprogress"  # the folder for what has no name yet, where the target writes straight under a name
_SECRET_KEY = re.compile(r"secret|pass|token|key|credential|sas", re.IGNORECASE)
_SECTION = re.compile(r"^\[([^\]]+)\]\s*$")
_BYTES = re.compile(r'"stats":\{"bytes":([0-9]+),"checks":([0-9]+)')
_QUERY = re.compile(r"\?[^\s\"']+")
_SHORTEST_SECRET = 6


def rclone_argv(target: Target, *words: str) -> tuple[str, ...]:
    """Given a target and what rclone is asked to do, return its command line. A failure is tried again by us, once for
    all kinds of targets; only a single request is repeated by rclone.
    """
    seconds = max(1, int(target.timeout.total_seconds()))
    own = [
        f"--config={target.config_file}",
        "--ask-password=false",
        "--retries=1",
        "--low-level-retries=3",
        f"--contimeout={min(60, seconds)}s",
        f"--timeout={seconds}s",
        "--use-json-log",
        "--log-level=NOTICE",
        "--stats=5s",
        "--stats-log-level=NOTICE",
    ]
    if target.bandwidth:
        own.append(f"--bwlimit={max(1, target.bandwidth // 1024)}k")
    return ("rclone", *words, *own, *target.flags)


def place(target: Target, folder: str = "") -> str:
    """Given a target and a folder, return the folder as rclone is told it."""
    path = target.path.rstrip("/") if target.path.strip("/") else target.path
    return f"{target.remote}:{path}{'/' if folder and not path.endswith('/') else ''}{folder}"


def bucket(target: Target) -> str:
    """Given a target in a store of buckets, return the name of the bucket."""
    return target.path.strip("/").split("/")[0]


# Nothing that is there is replaced, nor given another time: in a bucket that would be a copy onto itself.
FETCH_OPTIONS = ("--files-from-raw=-", "--immutable", "--no-update-modtime")
# One look at each file is cheaper than a list of all. It finds nothing as it was at a time (--s3-version-at).
COPY_OPTIONS = (*FETCH_OPTIONS, "--no-traverse")
LIST_OPTIONS = ("--recursive", "--files-only", "--no-modtime", "--no-mimetype")


def config_problem(text: str, target: Target) -> str:
    """Given the text of rclone's configuration, return why the target cannot be used with it, or ""."""
    if "RCLONE_ENCRYPT_V" in text:
        return (
            f"{target.config_file} is encrypted, and nobody is there to type its password: let it be a file of mode 0600"
            " without one (`rclone config`, s, u)"
        )
    sections = [match[1] for match in map(_SECTION.match, text.splitlines()) if match]
    if target.remote not in sections:
        there = ", ".join(sections) or "none"
        return f"{target.config_file} has no section [{target.remote}], only these: {there}"
    return ""


def secrets(text: str) -> tuple[str, ...]:
    """Given the text of rclone's configuration, return the values in it that nobody may read elsewhere."""
    pairs = [line.partition("=") for line in text.splitlines() if "=" in line]
    found = {value.strip() for key, _sign, value in pairs if _SECRET_KEY.search(key)}
    return tuple(sorted((value for value in found if len(value) >= _SHORTEST_SECRET), key=len, reverse=True))


def redacted(text: str, hidden: Iterable[str]) -> str:
    """Given what rclone said and secrets, return it without these, and without what follows the address in a URL: there
    may be a signature.
    """
    for secret in hidden:
        text = text.replace(secret, "***")
    return _QUERY.sub("?...", text)


def moved(line: str) -> int:
    """Given a line of statistics, return a number that grows with the work; 0 for any other line."""
    match = _BYTES.search(line)
    return int(match[1]) + int(match[2]) if match else 0


def parse_features(text: str) -> tuple[bool, bool, tuple[str, ...]]:
    """Given what `backend features` says, return whether the target has buckets, whether it can move a file within
    itself, and the checksums that it tells; raise ToolError.
    """
    try:
        found = json.loads(text)
        features = found["Features"]
        return bool(features.get("BucketBased")), bool(features.get("Move")), tuple(found.get("Hashes") or ())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ToolError("rclone does not say what the target can do: version 1.53 or newer is needed") from None


def parse_listing(text: str) -> dict[str, dict[str, Any]]:
    """Given what `lsjson` says, return what it says of each file, by its path; raise ToolError."""
    try:
        found = json.loads(text or "[]")
        return {item["Path"]: item for item in found if not item["IsDir"] and not hidden(item["Path"])}
    except (ValueError, KeyError, TypeError):
        raise ToolError("rclone does not list the target as it should: version 1.53 or newer is needed") from None


def parse_sums(text: str) -> dict[str, str]:
    """Given what `hashsum` says, return the checksum of each file by its path."""
    pairs = [line.split("  ", 1) for line in text.splitlines() if "  " in line]
    return {pair[1]: pair[0].lower() for pair in pairs}


def best_hash(known: Sequence[str]) -> str:
    """Given the checksums that a target tells, return the one to ask for, or ""."""
    return next((name for name in HASHES if name in known), "")


def places(size: int, draw: Callable[[int], int], count: int = PLACES) -> list[tuple[int, int]]:
    """Given the size of a file and what draws a number below another one, return offset and length of the pieces to read
    back: the first, the last, and some that the target cannot know beforehand.
    """
    last = max(0, size - PIECE)
    starts = [0, last, *(draw(last + 1) for _unused in range(count))]
    return [(start, min(PIECE, size - start)) for start in dict.fromkeys(starts)]


def messages(said: str) -> list[str]:
    """Given what rclone said on stderr, return what went wrong, each thing once."""
    found: dict[str, None] = {}
    for line in said.splitlines():
        text = _message(line)
        if text:
            found[text] = None
    return list(found)


def _message(line: str) -> str:
    if not line.startswith("{"):
        return re.sub(r"^[0-9/]{10} [0-9:]{8} ", "", line).strip()
    try:
        item = json.loads(line)
    except ValueError:
        return line
    if not isinstance(item, Mapping) or item.get("level") not in ("error", "critical", "fatal", "emergency", "alert"):
        return ""
    name = item.get("object")
    text = " ".join(str(item.get("msg", "")).split())
    return f"{name}: {text}" if name and item.get("objectType") != "string" else text


def only_stays(said: str) -> bool:
    """Given what rclone said when it failed, return whether all that is wrong is a file that is there and stays so."""
    wrong = [text for text in messages(said) if "attempt" not in text.lower()]
    return bool(wrong) and all("immutable file modified" in text for text in wrong)


def failure(status: int, said: str, target: Target, hidden: Iterable[str]) -> PgkeepError:
    """Given how rclone ended and what it said, return the error: what happened, and what to do."""
    text = redacted("; ".join(messages(said)), hidden)
    shown = shortened(text)
    for kind, pattern, message in _FAILURES:
        if re.search(pattern, said, re.IGNORECASE):
            told = message.format(
                remote=target.remote, config=target.config_file, bucket=bucket(target), path=target.path
            )
            return kind(f"{told} ({shown})")
    if status < 0:
        return ToolError(f"rclone was ended by signal {-status}{' (out of memory?)' if status == -9 else ''}: {shown}")
    return ToolError(f"rclone failed (status {status}): {shown or 'it said nothing'}")


_FAILURES: tuple[tuple[type[PgkeepError], str, str], ...] = (
    (ConfigurationError, r"RequestTimeTooSkewed|clock.{0,20}skew|too far in the (past|future)",
     "the clock of this host differs from the one of {remote}: set the clock (`timedatectl`), then run again"),
    (ConfigurationError, r"ExpiredToken|token (has|is) expired|invalid_grant|RequestExpired",
     "the credentials of {remote} have expired: renew them in {config}"),
    (ConfigurationError, r"InvalidAccessKeyId|SignatureDoesNotMatch|AuthenticationFailed|InvalidClientTokenId|"
     r"unable to authenticate|couldn't fetch token|\b401\b|NoCredentialProviders",
     "{remote} refuses the credentials: correct them in {config}"),
    (ConfigurationError, r"certificate has expired or is not yet valid|certificate has expired",
     "the certificate of {remote} has expired or is not valid yet: renew it there, or set the clock of this host"),
    (ConfigurationError, r"certificate signed by unknown authority|unable to get local issuer|certificate is not trusted",
     "the certificate of {remote} is signed by nobody that this host knows: have flags say --ca-cert=FILE, with the"
     " authority's certificate"),
    (ConfigurationError, r"x509:|certificate is valid for|tls: ",
     "{remote} cannot be reached over TLS: look at its address in {config}, and at its certificate"),
    (ConfigurationError, r"server gave HTTP response to HTTPS client",
     "{remote} speaks no TLS at that address: correct the endpoint in {config}"),
    (ConfigurationError, r"NoSuchBucket|bucket (does not|doesn't) exist|ContainerNotFound",
     "the bucket {bucket} is not there: create it; it is never made here"),
    (ConfigurationError, r"didn't find section in config file|didn't find backend called",
     "{config} does not describe {remote} so that this rclone understands it"),
    (ConfigurationError, r"unknown flag",
     "this rclone does not know one of the flags: correct flags, or install a newer one"),
    (ConfigurationError, r"knownhosts: key (is unknown|mismatch)",
     "the host key of {remote} is not the one in its known_hosts_file: compare it with the one on that host"),
    (SpaceError, r"QuotaExceeded|EntityTooLarge|insufficient (storage|space)|no space left|disk space|disk full|"
     r"storageQuotaExceeded|storage_cap_exceeded|disk quota",
     "{remote} takes no more: free some space there, raise its quota, or prune the copies there"),
    (LockedCopyError, r"object.?lock|retention|\bworm\b|legal.?hold|immutableduetopolicy|temporary hold|file.?lock|"
     r"object is (protected|locked)",
     "{remote} holds on to it"),
    (ConfigurationError, r"AccessDenied|Forbidden|permission denied|\b403\b",
     "the credentials of {remote} do not permit it: grant it, or use others that may"),
    (ToolError, r"connection refused|no such host|i/o timeout|connection reset|no route to host|network is unreachable|"
     r"TLS handshake timeout|unexpected EOF|context deadline exceeded|broken pipe",
     "{remote} cannot be reached, or the connection was lost"),
)  # fmt: skip
