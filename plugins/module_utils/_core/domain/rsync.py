# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""rsync over SSH: command lines, what is read out of what the programs say, and what to do when they fail."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .errors import ConfigurationError, PgkeepError, SpaceError, ToolError
from .model import Target
from .targets import hidden, shortened

_LISTED = re.compile(r"-[rwxsStT-]{9}\S? +([0-9]+) [0-9/]{10} [0-9:]{8} (.+)")
_CHANGED = re.compile(r"<f(\S{9,}) (.+)")
_LOST = (
    "Connection refused|timed out|No route to host|Could not resolve|unreachable|Connection (reset|closed)|Broken pipe"
    "|unexpectedly closed"
)


def ssh_argv(target: Target) -> tuple[str, ...]:
    """Given a target, return the ssh that reaches it, without the host: nothing is asked, no unknown host is believed.

    The user's own configuration of SSH counts for what is not said here, such as the way through another host.
    """
    seconds = max(1, int(target.timeout.total_seconds()))
    options = [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "UpdateHostKeys=no",
        f"ConnectTimeout={seconds}",
        f"ServerAliveInterval={max(1, seconds // 3)}",
        "ServerAliveCountMax=3",
        "ClearAllForwardings=yes",
        "ForwardAgent=no",
        "ForwardX11=no",
        "PermitLocalCommand=no",
        "RemoteCommand=none",
        "ControlMaster=no",
        "ControlPath=none",
        "LogLevel=ERROR",
    ]
    if target.key_file:
        options += ["IdentitiesOnly=yes", f"IdentityFile={target.key_file}"]
    if target.known_hosts_file:
        options += [f"UserKnownHostsFile={target.known_hosts_file}", "GlobalKnownHostsFile=none"]
    words = ["ssh", "-T", "-p", str(target.port)]
    if target.user:
        words += ["-l", target.user]
    return (*words, *(word for option in options for word in ("-o", option)))


def rsync_argv(target: Target, *options: str, silent: bool = False) -> tuple[str, ...]:
    """Given a target, and whether the far side may be silent for long, return the rsync that speaks to it, with options.

    Nothing in the words of ssh has a space or a quote, so that rsync takes them apart as they were.
    """
    own = [f"--rsh={' '.join(ssh_argv(target))}"]
    if not silent:
        own.append(f"--timeout={max(1, int(target.timeout.total_seconds()))}")
    if target.bandwidth:
        own.append(f"--bwlimit={max(1, target.bandwidth // 1024)}")  # KiB per second
    return ("rsync", *own, *options)


def place(target: Target) -> str:
    """Given a target, return the place of its copies as rsync is told it."""
    host = f"[{target.host}]" if ":" in str(target.host) else target.host
    path = target.path.rstrip("/") if target.path else "."
    return f"{host}:{path}/"


def put_options(append_only: bool) -> tuple[str, ...]:
    """Given whether the account can only add, return the options that copy files named on stdin, with their folders.

    What is there stays. A file has its name only when all of it is there: so nothing here is partial or in place.
    """
    # An append-only account syncs before it tells a checksum. Others have to be asked (rsync 3.2.4 and newer).
    synced = () if append_only else ("--fsync",)
    return (
        "--perms", "--chmod=D0700,F0600", "--times", "--omit-dir-times", "--ignore-existing", "--info=progress2",
        *synced, "--files-from=-",
    )  # fmt: skip


CHECK_OPTIONS = (
    "--checksum", "--checksum-choice=md5", "--dry-run", "--no-implied-dirs", "--out-format=%i %n", "--files-from=-",
)  # fmt: skip
LIST_OPTIONS = ("--list-only", "--recursive", "--no-human-readable")
GET_OPTIONS = ("--recursive", "--perms", "--chmod=D0700,F0600", "--prune-empty-dirs", "--info=progress2")
DELETE_OPTIONS = ("--recursive", "--delete", "--force")
EXCLUDE_REST = "--exclude=*"


def filters(paths: Iterable[str], below: Sequence[str] = ()) -> str:
    """Given files, and folders whose whole content is meant, return rsync's include rules for them, one a line."""
    rules: dict[str, None] = {}
    for path in (*paths, *below):
        parts = path.split("/")
        for end in range(1, len(parts)):
            rules["/" + "/".join(parts[:end]) + "/"] = None
        rules[f"/{path}/***" if path in below else f"/{path}"] = None
    return "".join(f"{rule}\n" for rule in rules)


def parse_listing(text: str) -> dict[str, int]:
    """Given what `rsync --list-only` says, return the size of each regular file by its path."""
    found = (_LISTED.fullmatch(line) for line in text.splitlines())
    return {match[2]: int(match[1]) for match in found if match and not hidden(match[2])}


def parse_changes(text: str) -> str:
    """Given what a trial run says that it would copy, return what is wrong with the first of these files, or ""."""
    for line in text.splitlines():
        match = _CHANGED.fullmatch(line)
        if match:
            return f"{match[2]} is missing" if "+" in match[1] else f"{match[2]} was altered: its checksum differs"
    return ""


def nothing_there(status: int, said: str) -> bool:
    """Given how a listing ended, return whether there is only no directory yet."""
    by_rsync = status == 23 and re.search(r"(change_dir|link_stat) .* failed: No such file or directory", said)
    return bool(by_rsync or re.search(r"rrsync error: .* No such file or directory", said))


def only_adds(target: Target, doing: str) -> ConfigurationError:
    """Given a target whose account can only add, and what was asked of it, return the error."""
    return ConfigurationError(
        f"{doing} is not possible: this account can only add copies (`append_only`). Do it on {target.host} itself, or name a"
        " target with `append_only: false` and a key that may"
    )


def _known_hosts(target: Target) -> str:
    return target.known_hosts_file or "~/.ssh/known_hosts"


def _name(target: Target) -> str:
    return str(target.host) if target.port == 22 else f"[{target.host}]:{target.port}"


def failure(program: str, status: int, said: str, target: Target) -> PgkeepError:
    """Given how ssh or rsync ended and what it said, return the error: what happened, and what to do."""
    text = "; ".join(line.strip() for line in said.splitlines() if line.strip() and not line.startswith("@"))
    for kind, pattern, message in _failures(target):
        if re.search(pattern, said):
            return kind(message if kind is ConfigurationError else f"{message} ({shortened(text)})")
    told = re.search(r"^pgkeep: error: (.+)", said, re.MULTILINE)
    if told:
        return ConfigurationError(f"{target.host} says: {told[1]}")
    if status < 0:
        killed = " (out of memory?)" if status == -9 else ""
        return ToolError(f"{program} was ended by signal {-status}{killed}: {shortened(text)}")
    if re.search(_LOST, said):
        return ToolError(f"{target.host} cannot be reached, or the connection was lost ({shortened(text)})")
    if status in (30, 35):
        return ToolError(f"{target.host} was silent for too long (`timeout`): {shortened(text)}")
    if status == 127:
        return ConfigurationError(f"a program is missing on {target.host}: {shortened(text)}")
    return ToolError(f"{program} failed (status {status}): {shortened(text) or 'it said nothing'}")


def _failures(target: Target) -> tuple[tuple[type[PgkeepError], str, str], ...]:
    host, known = target.host, _known_hosts(target)
    scan = f"ssh-keyscan -p {target.port} {host}"
    compare = "with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` there"
    key = f"the key {target.key_file}" if target.key_file else "the keys of this user"
    account = f"{target.user}@{host}" if target.user else str(host)
    return (
        (
            ConfigurationError,
            "REMOTE HOST IDENTIFICATION HAS CHANGED",
            f"the host key of {host} is not the one in {known}: somebody may stand in between. Compare it {compare}; if it"
            f" was changed on purpose: `ssh-keygen -R '{_name(target)}' -f {known}` and `{scan} >> {known}`",
        ),
        (
            ConfigurationError,
            "Host key verification failed|No .* host key is known",
            f"the host key of {host} is not known: `{scan} >> {known}`, after you compared it {compare}",
        ),
        (
            ConfigurationError,
            r"UNPROTECTED PRIVATE KEY|bad permissions|Load key |Identity file .* not accessible",
            f"{key} cannot be used: it must be a private key without passphrase, with mode 0600, of the user that runs this",
        ),
        (
            ConfigurationError,
            r"Permission denied \([a-z]|Too many authentication failures",
            f"{account} refuses {key}: its public half belongs into authorized_keys of the account, and it must have no"
            " passphrase",
        ),
        (
            ConfigurationError,
            r"pgkeep: (command )?not found|No such file or directory: '?pgkeep",
            f"the key does not run `pgkeep receive` on {host}: bind it to that in authorized_keys, or set `append_only:"
            " false` where any rsync is allowed",
        ),
        (
            ConfigurationError,
            "reading from write-only server is not allowed|this key can only add copies",
            f"{account} can only add copies: set `append_only: true`, or name a key that may read",
        ),
        (
            ConfigurationError,
            "sending to read-only server is not allowed",
            f"{account} may only read: name a key that may write",
        ),
        (
            ConfigurationError,
            r"option \S+ has been disabled on this server",
            f"the key may not do that on {host}: its forced command refuses it",
        ),
        (
            ConfigurationError,
            r"Permission denied \(13\)|Read-only file system",
            f"the account may not do that in {place(target)}: check owner, mode and mount options there",
        ),
        (
            ConfigurationError,
            r"unknown option|rsync: -+\S+: unknown",
            f"rsync on this host or on {host} is too old: 3.2.4 or newer is needed",
        ),
        (
            SpaceError,
            r"No space left on device|[Qq]uota exceeded|\((27|28|122)\)|the quota of |stays? in reserve",
            f"{host} takes no more: free some space there, raise the quota, or prune the copies there",
        ),
    )
