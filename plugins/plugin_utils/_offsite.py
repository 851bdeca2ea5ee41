# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection.
"""Both ends of copies in other places: who may send and read, whom a host trusts, and the jobs of what was received.

What comes from another host, such as its public key, may have been chosen by somebody who took that host over. Nothing of
it gets into a file as it is. `filter/offsite.py` are the filters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.configuration import MARK
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ConfigurationError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import (
    RULES,
    Instance,
    ReceiveOptions,
    Target,
    build,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PATH = re.compile(r"/[A-Za-z0-9_./@:,=+-]*")
_KEY = re.compile(r"((?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2})(?: [^\r\n\0]*)?\n?")
_LINE = re.compile(r'^restrict,command="[^"]*" (\S+ \S+) (sends|reads):(\S+)$', re.MULTILINE)
_REMOTE = re.compile(r"[A-Za-z0-9_.+@-]([A-Za-z0-9_.+@ -]*[A-Za-z0-9_.+@-])?")
_OPTION = re.compile(r"[A-Za-z0-9_]+")
_RECEIVED = {
    "backup_schedule": "never",
    "prune_schedule": "daily",
    "drill_schedule": "never",
    "schedule_spread": "12h",  # all come to one storage
}


@dataclass(frozen=True)
class _Peer:
    """A host that sends copies, or reads them."""

    name: str
    public_key: str = ""
    quota: str = ""
    instances: tuple[str, ...] = ()
    sender: str = ""


def _peers(written: Any, filter_name: str, what: str, allowed: tuple[str, ...]) -> list[_Peer]:
    if isinstance(written, (str, Mapping)) or not hasattr(written, "__iter__"):
        raise ConfigurationError(f"{filter_name}: {what} must be a list")
    found = [_peer(item, f"{filter_name}: {what}", allowed) for item in written]
    lower = [peer.name.lower() for peer in found]
    twice = sorted({peer.name for peer in found if lower.count(peer.name.lower()) > 1})
    if twice:
        raise ConfigurationError(
            f"{filter_name}: {what}: {' and '.join(twice)}: each needs a name of its own, also where capitals and small"
            " letters are the same"
        )
    return found


def _peer(item: Any, where: str, allowed: tuple[str, ...]) -> _Peer:
    said = {"name": item} if isinstance(item, str) else item
    if not isinstance(said, Mapping):
        raise ConfigurationError(f"{where}: {item!r} is neither a name nor a dictionary with one")
    unknown = sorted(str(key) for key in said if key not in ("name", "public_key", *allowed))
    if unknown:
        raise ConfigurationError(
            f"{where}: {', '.join(unknown)} is not known: say name, public_key, {', '.join(allowed)}"
        )
    name = said.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(f"{where}: {name!r} is no name: only letters, digits, dots, _ and - can be in it")
    instances = said.get("instances") or ()
    instances = [instances] if isinstance(instances, str) else list(instances)
    for instance in instances:
        build(Instance, {"instance": instance})
    key, quota, sender = (str(said.get(option) or "") for option in ("public_key", "quota", "sender"))
    _check_quota(quota, f"{where}: {name}")
    return _Peer(name, key, quota, tuple(instances), sender)


def _check_quota(quota: str, where: str) -> None:
    try:
        build(ReceiveOptions, {"quota": quota or None})
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def _check_path(name: str, value: Any, filter_name: str) -> str:
    if not isinstance(value, str) or not _PATH.fullmatch(value):
        raise ConfigurationError(
            f"{filter_name}: {name} is {value!r}: must be an absolute path of letters, digits and _./@:,=+-, as nothing"
            " here is quoted"
        )
    return value.rstrip("/")


def _public_key(text: str, where: str) -> str:
    """Given a public key as a file has it, return its type and its body without the comment; raise ConfigurationError."""
    match = _KEY.fullmatch(text)
    if not match:
        raise ConfigurationError(f"{where}: not an SSH public key on one line, such as: ssh-ed25519 AAAA...")
    return match[1]


def authorized_keys(
    senders: Any, readers: Any, keys: Any, directory: Any, command: Any, quota: Any = "", present: Any = ""
) -> str:
    """Given the hosts that send and that read copies, the public keys that were asked for by name, the directory of the
    copies, the command pgkeep, the quota of who has none of its own, and the file as it is, return the file as it shall be.

    A host that was not asked keeps the key that it has. One whose key is not known has a comment instead of a line.
    """
    place = _check_path("directory", directory, "authorized_keys")
    program = _check_path("command", command, "authorized_keys")
    _check_quota(str(quota), "authorized_keys")
    sending = _peers(senders, "authorized_keys", "senders", ("quota", "instances"))
    reading = _peers(readers, "authorized_keys", "readers", ("sender",))
    known = {(kind, name): key for key, kind, name in _LINE.findall(present or "")}
    entries = []
    for peer in sending:
        limit = (peer.quota or str(quota)).replace(" ", "")
        words = [program, "receive", f"{place}/{peer.name}", *(["--quota", limit] if limit else [])]
        entries.append(("sends", peer, " ".join(words)))
    names = {peer.name for peer in sending}
    for peer in reading:
        if peer.sender and peer.sender not in names:
            raise ConfigurationError(f"authorized_keys: readers: {peer.name}: {peer.sender} is not one of the senders")
        entries.append(("reads", peer, f"rrsync -ro {place}/{peer.sender}".rstrip("/")))
    found = [(kind, peer, forced, _key_of(kind, peer, keys, known)) for kind, peer, forced in entries]
    _refuse_shared([(f"{peer.name} ({kind})", key) for kind, peer, _forced, key in found if key])
    lines = [_line(kind, peer.name, forced, key) for kind, peer, forced, key in found]
    header = "What each key may do: send copies of backups to one directory, or read them. Nothing else."
    return "".join(f"{line}\n" for line in (f"# {MARK}", f"# {header}", *lines))


def _key_of(kind: str, peer: _Peer, keys: Mapping[str, str], known: Mapping[tuple[str, str], str]) -> str:
    text = peer.public_key or keys.get(peer.name) or ""
    return _public_key(text, f"the key of {peer.name}") if text else known.get((kind, peer.name), "")


def _refuse_shared(found: list[tuple[str, str]]) -> None:
    """Raise ConfigurationError where two have the same key: sshd would take the first, and one could speak for the other."""
    owners: dict[str, str] = {}
    for name, key in found:
        if key in owners:
            raise ConfigurationError(
                f"authorized_keys: {owners[key]} and {name} have the same key: give each its own; where nobody meant this,"
                " one of these hosts may have been taken over"
            )
        owners[key] = name


def _line(kind: str, name: str, forced: str, key: str) -> str:
    if not key:
        return f"# {name} has no key yet ({kind})"
    return f'restrict,command="{forced}" {key} {kind}:{name}'


def known_hosts(targets: Any, keys: Any, path: Any) -> str:
    """Given the targets of a host, public host keys by the name of their host, and the path of a known_hosts file, return
    the file: a line for each host that a target reaches and that this file is for, without those whose key is missing.
    """
    lines = set()
    for host, port in _hosts(targets, path):
        if host in keys:
            address = host if port == _PORT else f"[{host}]:{port}"
            lines.add(f"{address} {_public_key(str(keys[host]), f'the host key of {host}')}\n")
    return "".join([f"# {MARK}\n", *sorted(lines)])


_PORT = Target("rsync").port


def _hosts(targets: Any, path: Any) -> Iterator[tuple[str, int]]:
    if not isinstance(targets, Mapping):
        raise ConfigurationError("known_hosts: the targets must be a dictionary of names and options")
    for name, target in targets.items():
        if not isinstance(target, Mapping):
            raise ConfigurationError(f"known_hosts: target {name} must be a dictionary of options")
        if target.get("type") == "rsync" and target.get("known_hosts_file") == path:
            host = target.get("host")
            if not isinstance(host, str) or not re.fullmatch(r"[A-Za-z0-9:][A-Za-z0-9.:_-]*", host):
                raise ConfigurationError(f"known_hosts: target {name}: host is {host!r}: must be the name of a host")
            yield host, int(target.get("port") or _PORT)


def rclone_config(remotes: Any) -> str:
    """Given remotes of rclone by name, each with its options, return the text of a configuration; raise ConfigurationError
    without any value in it.
    """
    if not isinstance(remotes, Mapping):
        raise ConfigurationError("rclone_config: the remotes must be a dictionary of names and options")
    parts = [f"# {MARK}\n"]
    for name in sorted(remotes, key=str):
        if not _REMOTE.fullmatch(str(name)):
            raise ConfigurationError(f"rclone_config: {name!r} is no name of a remote: use letters, digits, _, - and .")
        if not isinstance(remotes[name], Mapping) or not remotes[name].get("type"):
            raise ConfigurationError(f"rclone_config: remote {name} must be a dictionary of options with a type")
        parts.append(f"\n[{name}]\n")
        parts += [f"{option} = {_quoted(value, name, option)}\n" for option, value in remotes[name].items()]
    return "".join(parts)


def _quoted(value: Any, remote: Any, option: Any) -> str:
    """Given the value of an option, return it as rclone reads it back; raise ConfigurationError where it could not."""
    where = f"rclone_config: remote {remote}: {option}"
    if not _OPTION.fullmatch(str(option)):
        raise ConfigurationError(f"{where} is no name of an option")
    if isinstance(value, (Mapping, list, tuple)) or value is None:
        raise ConfigurationError(f"{where} must be a text, a number or a boolean")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if re.search(r"[\r\n\0]|%\(", text):
        raise ConfigurationError(f"{where} contains a line break or %(, which rclone's configuration cannot hold")
    if text == text.strip() and text[:1] not in ('"', "`"):
        return text
    for mark in ("`", '"""'):
        if mark not in text and not text.endswith(mark[0]):
            return f"{mark}{text}{mark}"
    raise ConfigurationError(f"{where} has both kinds of quotes, which rclone's configuration cannot hold")


def received_jobs(senders: Any, directory: Any, options: Any, hostvars: Any = None) -> dict[str, dict[str, Any]]:
    """Given the hosts that send copies, the directory of the copies, options with rules of retention, and the variables of
    all hosts, return jobs that prune and verify what was received, one for each host and instance.
    """
    place = _check_path("directory", directory, "received_jobs")
    if not isinstance(options, Mapping) or not any(options.get(rule) for rule in RULES):
        raise ConfigurationError(
            "received_jobs: the options need a rule of retention, best by age, as {'keep_days': 90}: whoever takes a host"
            " over can send any number of backups, and with keep_last alone these would push out the good ones"
        )
    jobs: dict[str, dict[str, Any]] = {}
    for peer in _peers(senders, "received_jobs", "senders", ("quota", "instances")):
        for instance, encryption in _instances(peer, hostvars).items():
            name = re.sub(r"[^A-Za-z0-9_-]", "_", f"{peer.name}-{instance}")
            if name in jobs:
                raise ConfigurationError(f"received_jobs: two jobs would be called {name}: rename one of the hosts")
            where = {"repository": f"{place}/{peer.name}", "instance": instance}
            jobs[name] = {**where, **_RECEIVED, **encryption, **options}
    return jobs


def _instances(peer: _Peer, hostvars: Any) -> dict[str, dict[str, Any]]:
    """Given a host, return the instances that it sends, each with how it is encrypted: those that are said for it, else
    those of its own jobs.
    """
    if peer.instances:
        return {instance: {} for instance in peer.instances}
    own = hostvars[peer.name] if hostvars is not None and peer.name in hostvars else {}
    common = own.get("pgkeep_defaults") or {}
    found: dict[str, dict[str, Any]] = {}
    for job in (own.get("pgkeep_jobs") or {"main": {}}).values():
        said = {**common, **(job or {})}
        instance = str(said.get("instance") or Instance().instance)
        found.setdefault(instance, {}).update(
            {name: said[name] for name in ("encryption", "recipients") if said.get(name)}
        )
    return found
