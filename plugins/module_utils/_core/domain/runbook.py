# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""The recovery document of one host: for somebody who has never seen it, at three in the morning, on paper.

It changes only when the repository does, or when its newest backups become old: there is no "now" and no age in it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from . import recovery_commands as commands
from .backups import Backup
from .markdown import block, literal, literals, table
from .model import Target
from .naming import DRILLS_NAME
from .quantities import human_duration, human_size, iso
from .recovery_commands import Instance, Kept, Place
from .shell import command, quoted
from .version import VERSION

_OLD = timedelta(days=2)  # never earlier: a weekend without a backup is no emergency
_RECENT = 8  # backups that show how often one is taken
_BYTES_PER_SECOND = 20e6  # of a database whose restore was never measured; only to put it in order
_SHOWN = 200  # characters of what somebody else wrote
_PLAIN_LOCALES = ("", "C", "POSIX", "C.UTF-8", "C.utf8")


@dataclass(frozen=True)
class Site:
    """Everything that the document is about."""

    repository: str
    owner: str  # the user that the repository belongs to
    config_dir: str
    instances: tuple[Instance, ...]
    notes: tuple[str, ...] = ()  # what could not be found out, as Markdown
    targets: tuple[tuple[str, Target], ...] = ()  # of its jobs, each with its name

    @property
    def place(self) -> Place:
        """Return what a command says about the repository."""
        return Place(self.repository, len(self.instances) > 1)

    @property
    def all(self) -> tuple[Kept, ...]:
        """Return globals and databases of all instances."""
        return tuple(kept for instance in self.instances for kept in instance.all)


def runbook(site: Site, now: datetime) -> str:
    """Given everything that is known and the time, return the document, as Markdown."""
    parts = [*_head(site), *_attention(site, now), *_unproven(site), *_holdings(site), *_copies(site), *_keys(site)]
    parts += [*_shell(site), *_step_0(site), *_step_1(site)]
    for instance in site.instances:
        for step in (_step_2, _step_3, _step_4, _step_5, _step_6):
            parts += step(site, instance)
    return "\n".join(parts).rstrip("\n") + "\n"


def in_order(databases: Iterable[Kept]) -> tuple[Kept, ...]:
    """Given the databases of an instance, return them in the order of their restore: what is quick comes first, so that
    most of them are back soon.
    """

    def effort(kept: Kept) -> tuple[float, str]:
        size = kept.best.database_size or kept.best.size if kept.best else 0
        return (size / _BYTES_PER_SECOND if kept.seconds is None else kept.seconds, kept.title)

    return tuple(sorted(databases, key=effort))


def old_after(backups: Sequence[Backup]) -> timedelta:
    """Given the backups of one database, the newest first, return how old the newest may become before somebody has to
    look: twice the usual time between two of them.
    """
    times = [item.created for item in backups if item.complete][:_RECENT]
    gaps = [later - earlier for later, earlier in zip(times, times[1:])]
    usual = statistics.median(gap.total_seconds() for gap in gaps) if gaps else 0.0
    return max(_OLD, timedelta(seconds=2 * usual))


# --- what everybody has to know ---


def _head(site: Site) -> list[str]:
    hosts = sorted({str(kept.document["host"]) for kept in site.all if kept.document})
    created = [kept.best.created for kept in site.all if kept.best]
    newest = f"The newest good backup in it is of {iso(max(created))}." if created else "There is no good backup in it."
    return [
        f"# Recovery of {literals(hosts) or 'an unknown host'}",
        "",
        f"pgkeep {VERSION} wrote this from the repository {literal(site.repository)}. {newest}",
        "",
        "- Keep it on paper, or anywhere but on the host that it is about. All times are UTC.",
        "- Go from top to bottom. Every step says when to leave it out.",
        "- The commands are for bash, and complete: type or copy them as they are. One that fails ends the step: read"
        " what it says.",
        _who(site.owner),
        "- There is no password in here, and no command here deletes a backup.",
        "",
    ]


def _who(owner: str) -> str:
    if owner == "root":
        return "- Run them as root, who owns the repository."
    become = literal(f"su -s /bin/bash - {quoted(owner)}")
    return f"- Run them as the user {literal(owner)}, who owns the repository, where nothing else is said: {become}"


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""] if lines else []


def _attention(site: Site, now: datetime) -> list[str]:
    lines = [f"- {note}" for note in site.notes]
    if not site.all:
        lines.append("- **There is no backup in this repository.** Nothing can be restored from it.")
    for instance in site.instances:
        name = f"{literal(instance.name)}: "
        for kept in instance.all:
            lines += [f"- {name}{line}" for line in _warnings(kept, now)]
        if instance.globals is None:
            lines.append(
                f"- {name}there is no backup of the roles and tablespaces. Step 2 cannot be done: create by hand the"
            )
            lines[-1] += f" roles {literals(_roles(instance)) or '(none is recorded)'}."
        elsewhere = [kept.title for kept in instance.all if kept.best and not kept.best.state.copies]
        if elsewhere:
            lines.append(
                f"- {name}no copy outside this repository is recorded of {literals(elsewhere)}. Unless there is one that"
                " pgkeep does not know, the backups are lost when this host is."
            )
    return _section("Attention", lines)


def _warnings(kept: Kept, now: datetime) -> Iterator[str]:
    """Given what there is of a database and the time, yield what is wrong with it, as Markdown."""
    title, best, newest = literal(kept.title), kept.best, kept.backups[0]
    if best is None:
        yield f"**no backup of {title} is good**, {len(kept.backups)} are damaged. The newest: {literal(_cut(newest.problem))}."
        return
    if not newest.complete:
        yield (
            f"the newest backup of {title}, {literal(newest.id)}, is damaged: {literal(_cut(newest.problem))}. What"
            f" follows uses {literal(best.id)}."
        )
    if best.partial:
        yield f"there is only a partial backup of {title}. Left out: {literals(_left_out(kept)) or 'not recorded'}."
    if now - best.created > old_after(kept.backups):
        yield f"the newest good backup of {title} is old: it is of {iso(best.created)}. Find out why none was taken since."
    if kept.document and kept.document["encryption"]:
        yield f"{title} is encrypted with {literal(str(kept.document['encryption']))}: without the key it is lost."
    if kept.drills and kept.drills[-1]["verdict"] != "good":
        last = kept.drills[-1]
        yield (
            f"the last drill of {title}, at {literal(_cut(last['at']))} with {literal(_cut(last['id']))}, did not go well:"
            f" {literal(_cut(last['verdict']))}. More is in {literal(DRILLS_NAME)} beside its backups."
        )


def _left_out(kept: Kept) -> list[str]:
    return [_cut(str(item)) for item in kept.document["left_out"]] if kept.document else []


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _unproven(site: Site) -> list[str]:
    lines = []
    for instance in site.instances:
        name = literal(instance.name)
        good = [kept for kept in instance.all if kept.best]
        unread = [kept.title for kept in good if not any(item.state.verified for item in kept.backups if item.complete)]
        undrilled = [kept.title for kept in instance.databases if kept.best and not kept.proof]
        if unread:
            lines.append(f"- {name}: no backup was ever verified of {literals(unread)}.")
        if undrilled:
            lines.append(f"- {name}: no drill ever restored {literals(undrilled)}. Nobody knows how long it takes.")
    return _section("Not proven", lines)


def _holdings(site: Site) -> list[str]:
    header = (
        "Database",
        "Newest good backup",
        "Archive",
        "Database size",
        "Kept",
        "Time to restore",
        "Proven by a drill",
        "Verified",
    )
    rows = [
        (f"{literal(instance.name)} / {literal(kept.title)}", *_holding(kept))
        for instance in site.instances
        for kept in (*([instance.globals] if instance.globals else []), *in_order(instance.databases))
    ]
    known = [kept.seconds for kept in site.all if kept.seconds is not None]
    total = f"All that was measured takes {_took(sum(known))}, one database after the other." if known else ""
    more = "Kept is the number of good backups; `pgkeep list` shows them all. Time to restore is what the newest good drill took."
    return _section("What is backed up", [*table(header, rows), "", f"{more} {total}".rstrip()] if rows else [])


def _holding(kept: Kept) -> tuple[str, ...]:
    best, proof = kept.best, kept.proof
    if not best:
        return ("**none**", "-", "-", "0", "-", "-", "-")
    proven = literal(_cut(str(proof.get("finished") or proof["at"]))) if proof else "**never**"
    verified = best.state.verified
    return (
        iso(best.created),
        f"{best.format}, {human_size(best.size)}",
        "-" if best.database_size is None else human_size(best.database_size),
        str(sum(item.complete for item in kept.backups)),
        "-" if kept.seconds is None else _took(kept.seconds),
        "-" if best.kind == "globals" and not proof else proven,
        f"{iso(verified)} ({best.state.verified_level})" if verified else "**never**",
    )


def _took(seconds: float) -> str:
    return human_duration(timedelta(seconds=seconds))


def _copies(site: Site) -> list[str]:
    rows = []
    for kept in site.all:
        named = sorted({name for item in kept.backups for name in item.state.targets})
        for name in named:
            newest = next(item for item in kept.backups if name in item.state.targets)
            rows.append((literal(newest.id.rpartition("/")[0]), literal(name), iso(newest.created)))
    lines = [f"- On the host itself: {literal(site.repository)}, owned by {literal(site.owner)}."]
    if rows:
        lines += ["- Elsewhere, checked there and found good:", "", *table(("Folder", "Target", "Newest copy"), rows)]
    else:
        lines.append("- Elsewhere: none that pgkeep knows of.")
    return _section("Where the copies are", lines)


def _keys(site: Site) -> list[str]:
    lines = [f"- Root on the new host{'' if site.owner == 'root' else f', and its user {literal(site.owner)}'}."]
    for instance in site.instances:
        connection, name = instance.connection, literal(instance.name)
        if instance.password_in:
            lines.append(
                f"- {name}: the password of role {literal(connection.login_user)}. It was in {instance.password_in}."
                f" Put it into {literal('~/.pgpass')} of {literal(site.owner)}, mode 0600, as"
                f" {literal('HOST:PORT:*:ROLE:PASSWORD')}."
            )
        files = {
            "password file": connection.passfile,
            "connection service file": connection.service_file,
            "certificate authorities": connection.ca_cert,
            "client certificate": connection.ssl_cert,
            "key of the client certificate": connection.ssl_key,
        }
        lines += [f"- {name}: the {what} {literal(path)} of the host." for what, path in files.items() if path]
    encrypted = commands.encryptions(site.all)
    lines.append(
        f"- The private keys that decrypt the backups, for {literals(encrypted)}. Put them into the file"
        f" {literal(commands.IDENTITY)}, mode 0600, of whoever restores: `$identity` in the commands. Remove it in the end."
        if encrypted
        else "- No key for the backups: they are not encrypted."
    )
    if "gpg" in encrypted:
        lines.append('- For step 5 gpg has to know its key: `gpg --import "$identity"`.')
    lines.append("- The roles' own passwords come back with step 2, if they were backed up.")
    return _section("Which keys are needed", lines)


def _shell(site: Site) -> list[str]:
    key = " but for `$identity`" if commands.encryptions(site.all) else ""
    lines = [
        f"PostgreSQL's own programs find the server and each other with this. pgkeep does not look at it{key}.",
        "",
    ]
    for instance in site.instances:
        lines += _of(site, instance) + block(commands.prepare(instance))
    return _section("In every shell, first", lines[:-1] if site.instances else [])


def _of(site: Site, instance: Instance) -> list[str]:
    return [f"Instance {literal(instance.name)}:", ""] if site.place.several else []


def _title(site: Site, number: int, text: str, instance: Instance) -> list[str]:
    return [f"## {number}. {text}{f' of instance {literal(instance.name)}' if site.place.several else ''}", ""]


# --- the steps ---


def _step_0(site: Site) -> list[str]:
    lines = [
        "## 0. Is the data really gone?",
        "",
        "- A full disk, a stopped service or a wrong address looks the same. Look before anything is replaced:",
        "",
    ]
    for instance in site.instances:
        lines += _of(site, instance) + block(commands.sessions(instance))
    lines += block(
        ["df -h", "systemctl --failed", "journalctl -u 'postgresql*' --since=-2h --no-pager | tail -n 100"], "text"
    )
    lines += [
        "- If the server's data directory is still there, do not delete it, and copy it away before anybody repairs it.",
        "- If only one database or one table is lost, go to step 4.",
        "- Stop what writes: the applications, their timers and crontabs. Stop pgkeep's own entry in the crontab too, so that"
        " no backup of an empty database is taken.",
        "- What cannot be stopped can be kept out. This ends the sessions of everybody but superusers, and lets none in. A"
        " restore sets the limit back; without one, set it back with `CONNECTION LIMIT -1`.",
        "",
    ]
    for instance in site.instances:
        for kept in in_order(instance.databases):
            if kept.title not in commands.PREPARED:
                lines += block(commands.close(instance, kept))
    return lines


def _step_1(site: Site) -> list[str]:
    lines = ["## 1. The host is lost", "", "Leave this out where the host and its PostgreSQL work.", ""]
    lines += _install(site)
    lines += [
        "### The repository",
        "",
        "Bring it back from a copy (see above), the whole tree, or at least these folders in it:",
        "",
        *block([quoted(kept.best.id) for kept in site.all if kept.best], "text"),
        "The copy's tree, from its instance folders down, belongs here. As root:",
        "",
        *_bring_back(site),
        "Then, as the owner, every byte of the newest backups against their manifests:",
        "",
        *block([*commands.listing(site.place), *commands.verify(site.place)]),
    ]
    return lines


def _bring_back(site: Site) -> list[str]:
    place = site.repository.rstrip("/")
    lines = block(command("install", "--directory", "--mode=0700", f"--owner={site.owner}", place), "text")
    if not site.targets:
        lines += [
            "Where HOST:PATH is the copy:",
            "",
            *block(command("rsync", "--archive", "HOST:PATH/", f"{place}/"), "text"),
        ]
    for name, target in site.targets:
        lines += [_from(name, target), "", *block(commands.bring_back(target, place), "text")]
    owned = [
        *command("chown", "--recursive", f"{site.owner}:", place),
        *command("chmod", "--recursive", "go-rwx", place),
    ]
    return [*lines, "Whatever it came from:", "", *block(owned, "text")]


def _from(name: str, target: Target) -> str:
    """Given a target and its name, return what a person has to know before the command that reads it."""
    start = f"From the target {literal(name)}"
    if target.type == "rsync":
        key = "whose key of this host cannot read" if target.append_only else "with a key that may read"
        where = f" PATH is the directory of this host there, such as {literal('/srv/pgkeep/HOST')}."
        return f"{start}, {key}; use a login on that host that can.{where if target.append_only else ''}"
    if target.type == "rclone":
        return f"{start}, with rclone and its configuration {literal(target.config_file or 'rclone.conf')} of the lost host:"
    return f"{start}, once its storage is mounted:"


def _install(site: Site) -> list[str]:
    programs = sorted({commands.unpacker(kept.document) for kept in site.all if kept.document} - {""})
    programs += commands.encryptions(site.all)
    lines = [
        "### The programs",
        "",
        "As root, on a new host. Where the distribution does not have that version, add the repository of"
        " <https://www.postgresql.org/download/linux/> first.",
        "",
    ]
    for instance in site.instances:
        major = instance.major or "VERSION"
        more = " ".join(["python3-psycopg2", "rsync", *programs])
        lines += _of(site, instance)
        lines += block(
            [
                "# Debian, Ubuntu",
                f"apt-get install postgresql-{major} postgresql-client-{major} {more}",
                "# RHEL and its like",
                f"dnf install postgresql{major}-server postgresql{major}-contrib {more}",
                f"/usr/pgsql-{major}/bin/postgresql-{major}-setup initdb && systemctl enable --now postgresql-{major}",
            ],
            "text",
        )
        lines += [f"- {line}" for line in _wants(instance)] + [""]
    return [
        *lines,
        "pgkeep is one file, `/usr/local/bin/pgkeep`. Copy it from any host that has it, or install it from the controller:",
        "",
        *block(["ansible -i INVENTORY -b -m pgkeep.backup.pg_backup_command HOST"], "text"),
        f"Its jobs in {literal(site.config_dir)} come back from the inventory. They can wait until everything works: without"
        " pgkeep, use step 5 instead of 2 and 3.",
        "",
    ]


def _wants(instance: Instance) -> Iterator[str]:
    """Given an instance, yield what its server needs beside the packages, as Markdown."""
    connection = instance.connection
    if connection.service:
        yield f"It is reached through the service {literal(connection.service)} of the connection service file."
    else:
        host = connection.login_unix_socket or connection.login_host
        where = f"at {literal(host)}" if host else "through the Unix socket"
        yield f"It is reached {where}, port {connection.login_port}, as role {literal(connection.login_user)}."
    recorded = [kept.properties for kept in instance.databases if kept.properties]
    found = {(str(item["name"]), str(item["version"])) for each in recorded for item in each["extensions"]}
    extensions = [f"{name} {version}" for name, version in sorted(found) if name != "plpgsql"]
    if extensions:
        yield f"Extensions whose packages have to be there: {literals(extensions)}."
    locales = sorted(
        {
            str(each[key])
            for each in recorded
            for key in ("collate", "ctype")
            if each[key] not in (None, *_PLAIN_LOCALES)
        }
    )
    if locales:
        yield f"Locales that `locale -a` has to list: {literals(locales)}."
    spaces = sorted({str(name) for each in recorded for name in each["tablespaces"]} - {"pg_default", "pg_global"})
    if spaces and instance.globals and instance.globals.best:
        source = " ".join(line.strip(" \\") for line in commands.plaintext(instance.globals))
        shown = (
            f"{source} | grep TABLESPACE" if source else f"grep TABLESPACE {quoted(commands.archive(instance.globals))}"
        )
        yield (
            f"Tablespaces: {literals(spaces)}. Their directories have to be there, empty and owned by the server's user;"
            f" {literal(shown)} says where."
        )


def _roles(instance: Instance) -> list[str]:
    recorded = [kept.properties for kept in instance.databases if kept.properties]
    return sorted({str(role) for each in recorded for role in each["roles"] if not str(role).startswith("pg_")})


def _step_2(site: Site, instance: Instance) -> list[str]:
    lines = _title(site, 2, "Roles and tablespaces", instance)
    if not instance.globals or not instance.globals.best:
        roles = literals(_roles(instance)) or "(none is recorded)"
        return [
            *lines,
            f"There is no good backup of them. Create by hand the roles that the databases name: {roles}.",
            "",
        ]
    return [
        *lines,
        "Leave this out where the server kept them. First see what would change:",
        "",
        *block(commands.restore(site.place, instance, instance.globals, "--dry-run")),
        "Then do it. What is there already stays as it is.",
        "",
        *block(commands.restore(site.place, instance, instance.globals)),
    ]


def _step_3(site: Site, instance: Instance) -> list[str]:
    lines = [
        *_title(site, 3, "The databases", instance),
        "For a server that does not have them; step 4 is for one that has. The newest good backup is restored. What is quick"
        " comes first: take another order where you know what is needed most. A restore that fails leaves nothing behind and"
        " can be run again.",
        "",
    ]
    for kept in in_order(instance.databases):
        if kept.best:
            lines += [*_about(kept), *block(commands.restore_new(site.place, instance, kept))]
        else:
            lines += [f"### {literal(kept.title)}", "", "It has no good backup.", ""]
    return lines


def _about(kept: Kept) -> list[str]:
    best, proof = kept.best, kept.proof
    size = f" of {human_size(best.database_size)}" if best and best.database_size is not None else ""
    if proof is None:
        expected = f"It is a database{size}. It was never proven that it can be restored, nor how long it takes."
    else:
        took = "an unknown time" if kept.seconds is None else _took(kept.seconds)
        expected = (
            f"It is a database{size}. Expect {took}: the drill of {literal(_cut(str(proof.get('finished') or proof['at'])))}"
            f" restored {literal(_cut(proof['id']))} and found it equal."
        )
    return [f"### {literal(kept.title)}", "", expected, ""]


def _step_4(site: Site, instance: Instance) -> list[str]:
    good = [kept for kept in in_order(instance.databases) if kept.best]
    if not good:
        return []
    lines = [
        *_title(site, 4, "One database or one table, in place of a live one", instance),
        "The backup is restored beside the live database, whose sessions are then ended, and takes its name in one step. The"
        " old one stays under a dated name until you drop it. `--dry-run` says what would happen; without it, it does. An"
        " older backup: add `--before=2025-11-05T14:30:00Z` or `--backup=ID`, with an id of `pgkeep list`.",
        "",
    ]
    for kept in good:
        lines += [
            f"### {literal(kept.title)}",
            "",
            "The whole database:",
            "",
            *block(commands.restore_over(site.place, instance, kept, "--dry-run")),
            *block(commands.restore_over(site.place, instance, kept)),
            f"One table: restore everything beside it, as {literal(commands.rescue_name(kept.title))}, and take what is needed.",
            "",
            *block(commands.restore_beside(site.place, instance, kept)),
            "The table was dropped. Write its name instead of `public.orders`:",
            "",
            *block(["table=public.orders", *commands.table_dropped(instance, kept)]),
            "The table is there, and rows are wrong or missing. This puts the old rows beside it, as a table of its name with"
            " `_rescued`, from which you take them:",
            "",
            *block(["table=public.orders", *commands.table_changed(instance, kept)]),
            "In the end:",
            "",
            *block(commands.drop_rescue(instance, kept)),
        ]
    return lines


def _step_5(site: Site, instance: Instance) -> list[str]:
    good = [kept for kept in in_order(instance.databases) if kept.best]
    lines = [
        *_title(site, 5, "Without pgkeep", instance),
        "PostgreSQL's own programs are enough. They have to be as new as those that wrote the archives. The files named here"
        " are the newest good ones when this was written: look for newer ones beside them. In each block the first command"
        " compares the archive with its recorded SHA-256.",
        "",
    ]
    if instance.globals and instance.globals.best:
        lines += [
            "### Roles and tablespaces, without pgkeep",
            "",
            "That roles exist already, such as the one that you are, is said and does not matter.",
            "",
            *block(commands.rebuild(instance, instance.globals)),
        ]
    for kept in good:
        lines += [
            f"### {literal(kept.title)}, without pgkeep",
            "",
            f"Written by pg_dump {literal(_cut(_writer(kept)))}. Where a database of that name exists, rename it first.",
            "",
            *block(commands.rebuild(instance, kept)),
        ]
        unsafe = commands.unsafe_settings(kept)
        if unsafe:
            manifest = f"{kept.best.path if kept.best else ''}/manifest.json"
            lines += [f"Set by hand what may be secret, {literals(unsafe)}: the values are in {literal(manifest)}.", ""]
    return lines


def _writer(kept: Kept) -> str:
    return str((kept.document or {}).get("tool_version") or "of an unknown version")


def _step_6(site: Site, instance: Instance) -> list[str]:
    lines = [
        *_title(site, 6, "Check what came back", instance),
        "The numbers that were recorded are beside each command. It also renews the planner's statistics.",
        "",
    ]
    for kept in in_order(instance.databases):
        if kept.best:
            lines += [
                f"### {literal(kept.title)}, counted",
                "",
                *_expected(kept),
                *block(commands.count(instance, kept)),
            ]
    return [
        *lines,
        "### In the end",
        "",
        "- Let somebody who knows the applications look at the newest orders, users, or whatever they have.",
        "- What happened after the time of the backup is lost: say so to those who have to know.",
        "- Let the writers in again, take a backup (`pgkeep backup` or the job), and see that cron and the copies run.",
        "- Prove the next backup: `pgkeep drill` with the database's name.",
        "- Drop what step 4 kept under dated names once nobody needs it.",
        "",
    ]


def _expected(kept: Kept) -> list[str]:
    lines = []
    if kept.properties and not (kept.best and kept.best.partial):
        tables, objects = kept.properties["tables"], kept.properties["large_objects"]
        lines.append(f"- When the backup began: {tables} tables, {objects} large objects.")
    compared = _numbers(kept.proof.get("compared")) if kept.proof else ""
    if kept.proof and compared:
        lines.append(f"- In the drill with {literal(_cut(kept.proof['id']))}: {compared}.")
    return [*lines, ""] if lines else []


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _numbers(compared: Any) -> str:
    """Given what a drill compared, return the numbers in words; "" where there are none that can be believed."""
    if not isinstance(compared, dict):
        return ""
    words = ("tables", "rows", "sequences", "large_objects", "objects")
    known = [(word, compared[word]) for word in words if _is_count(compared.get(word))]
    return ", ".join(f"{number} {word.replace('_', ' ')}" for word, number in known)
