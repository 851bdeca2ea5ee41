# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""The command line: which commands there are, and the options of each, made from the model."""

from __future__ import annotations

import argparse
from typing import Any, Callable

from .domain.model import (
    CONFIG_DIRECTORY,
    AdoptOptions,
    AtTarget,
    Choice,
    Connection,
    Decryption,
    DrillOptions,
    DumpOptions,
    EncryptionOptions,
    Filter,
    ListingOptions,
    Location,
    LogOptions,
    Option,
    Policy,
    PruneOptions,
    ReceiveOptions,
    Repository,
    RestoreOptions,
    RunbookOptions,
    RunOptions,
    Scope,
    Selection,
    StandbyOptions,
    SyncOptions,
    VerifyOptions,
    options_of,
)

Raw = dict[str, Any]
DESCRIPTION = (
    "Backups of PostgreSQL databases that are known to be complete: take, list, count, prune, verify, restore."
)
EPILOG = (
    "Exit status: 0 done, 1 failed, 2 usage or configuration, 3 another run holds the lock, 4 some databases or backups"
    " failed and the others are done."
)
# One name can belong to several classes; it is one option of the command, and the positional arguments have their own.
_POSITIONAL = {"databases", "database"}
_DATABASES: Raw = {"nargs": "*", "metavar": "DATABASE", "default": argparse.SUPPRESS}
_DRY_RUN: Raw = {"action": "store_true", "help": "Look at everything, change nothing, say what would happen."}
_DRILL_VERIFY = {name: item for name, item in options_of(VerifyOptions).items() if name not in ("level", "latest")}
_RUNBOOK = {name: item for name, item in options_of(RunbookOptions).items() if name != "config_dir"}  # every command's
_ADOPT_RUN = {name: item for name, item in options_of(RunOptions).items() if name not in ("max_age", "parallel")}


def _add_option(parser: argparse.ArgumentParser, name: str, option: Option) -> None:
    flag, more = option.flag or "--" + name.replace("_", "-"), ""
    if option.default not in (None, "", (), False):
        more = f" Default: {option.default}."
    text = (option.help + more).replace("%", "%%")
    if option.kind == "bool" and name.startswith("no_"):
        # To argparse, what begins with --no- is the opposite of an option.
        parser.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=text)
    elif option.kind == "bool":
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
    elif option.kind in ("list", "checks"):
        word = "NAME" if option.kind == "list" else "QUERY"
        text += " Repeatable."
        parser.add_argument(flag, action="append", metavar=word, dest=name, default=argparse.SUPPRESS, help=text)
    else:
        metavar = None if option.choices else option.kind.upper()
        kind: Callable[[str], Any] = int if option.kind == "int" else str
        parser.add_argument(
            flag,
            type=kind,
            choices=option.choices or None,
            metavar=metavar,
            dest=name,
            default=argparse.SUPPRESS,
            help=text,
        )


def _add_options(parser: argparse.ArgumentParser, *groups: Any) -> None:
    known: dict[str, Option] = {}
    for group in groups:
        known.update(group if isinstance(group, dict) else options_of(group))
    for name, option in known.items():
        if name not in _POSITIONAL and option.kind != "password":  # a password in a process list is everybody's
            _add_option(parser, name, option)


def _add_command(commands: Any, name: str, text: str, *, job: bool = True) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, epilog=EPILOG, allow_abbrev=False
    )
    if job:
        parser.add_argument(
            "--job", metavar="JOB", help="Take the options from this job; those given here overrule it."
        )
    parser.add_argument("--config-dir", metavar="DIR", default=CONFIG_DIRECTORY, help=f"Default: {CONFIG_DIRECTORY}.")
    parser.add_argument("--json", action="store_true", help="Print the result as JSON, with the keys of the modules.")
    parser.add_argument(
        "--quiet",
        action="store_true",
        help="Print only what was asked for: lists, figures, JSON. Warnings and errors still go to stderr.",
    )
    return parser


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    found = argparse.ArgumentParser("pgkeep", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False)
    found.add_argument("--version", action="store_true", help="Print the version and the checksum of this program.")
    commands = found.add_subparsers(dest="command", metavar="COMMAND")
    _add_taking(commands)
    _add_keeping(commands)
    _add_proving(commands)
    _add_describing(commands)
    return found


def _add_taking(commands: Any) -> None:
    take = _add_command(commands, "backup", "Take backups.")
    take.add_argument("databases", help="Names of databases. None: all that the other options select.", **_DATABASES)
    take.add_argument("--dry-run", **_DRY_RUN)
    kinds = (DumpOptions, EncryptionOptions, RunOptions, StandbyOptions)
    _add_options(take, Location, Selection, *kinds, Connection, LogOptions)

    show = _add_command(commands, "list", "List backups, the newest first.")
    show.add_argument("databases", help="Only backups of these databases; @globals means the globals.", **_DATABASES)
    show.add_argument("--limit", type=int, metavar="N", help="Show at most N backups.")
    _add_options(show, Repository, Filter, ListingOptions, AtTarget)

    figures = _add_command(commands, "stats", "Show statistics and the retention policy in force.")
    figures.add_argument("databases", help="Only backups of these databases; @globals means the globals.", **_DATABASES)
    _add_options(figures, Repository, Filter, Policy)

    _add_command(commands, "status", "Show how the jobs of this host stand.", job=False)


def _add_keeping(commands: Any) -> None:
    prune = _add_command(commands, "prune", "Delete the backups that the retention policy does not keep.")
    prune.add_argument("databases", help="Only backups of these databases; @globals means the globals.", **_DATABASES)
    prune.add_argument("--dry-run", **_DRY_RUN)
    _add_options(prune, Repository, Scope, Policy, PruneOptions, AtTarget, LogOptions)

    bring = _add_command(commands, "sync", "Bring missing copies of backups to targets, and look at what arrived.")
    bring.add_argument("databases", help="Only backups of these databases; @globals means the globals.", **_DATABASES)
    bring.add_argument("--dry-run", **_DRY_RUN)
    _add_options(bring, Repository, Scope, SyncOptions, LogOptions)

    text = "Receive copies that another host sends: the forced command of its SSH key, started by sshd."
    take_in = commands.add_parser("receive", help=text, description=text, epilog=EPILOG, allow_abbrev=False)
    take_in.add_argument("directory", metavar="DIR", help="Where the copies are kept. It has to exist.")
    take_in.set_defaults(json=False, quiet=True)
    _add_options(take_in, ReceiveOptions, {"reserve": options_of(RunOptions)["reserve"]})


def _add_proving(commands: Any) -> None:
    verify = _add_command(commands, "verify", "Verify backups; what is found is kept with each and shown by list.")
    verify.add_argument("databases", help="Only backups of these databases; @globals means the globals.", **_DATABASES)
    verify.add_argument("--dry-run", **_DRY_RUN)
    _add_options(verify, Repository, Filter, VerifyOptions, Decryption, DrillOptions, LogOptions)

    drill = _add_command(
        commands, "drill", "Restore backups into a throw-away server and prove that the contents are equal."
    )
    drill.add_argument("databases", help="Only backups of these databases; @globals means the globals.", **_DATABASES)
    drill.add_argument("--all", action="store_true", help="Every backup that matches, not only the newest of each.")
    drill.add_argument("--dry-run", **_DRY_RUN)
    _add_options(drill, Repository, Filter, _DRILL_VERIFY, Decryption, DrillOptions, LogOptions)

    restore = _add_command(commands, "restore", "Restore a database from a backup.")
    restore.add_argument("database", nargs="?", metavar="DATABASE", default=argparse.SUPPRESS, help="As backed up.")
    restore.add_argument("--list", action="store_true", help="Only print what is in the backup's archive.")
    restore.add_argument("--dry-run", **_DRY_RUN)
    _add_options(restore, Repository, Choice, RestoreOptions, Decryption, Connection, LogOptions)


def _add_describing(commands: Any) -> None:
    document = _add_command(commands, "runbook", "Write the recovery document of this host, in Markdown.")
    document.add_argument("--dry-run", **_DRY_RUN)
    _add_options(document, Repository, _RUNBOOK, Connection)

    run = _add_command(commands, "run", "Run a job: back up, copy to the targets, prune.", job=False)
    run.add_argument("job", metavar="JOB", help="Name of the job.")
    run.add_argument("--dry-run", **_DRY_RUN)
    _add_options(run, LogOptions)

    adopt = _add_command(commands, "adopt", "Take over dumps that another tool made.")
    adopt.add_argument("paths", nargs="+", metavar="PATH", help="A dump, or a directory that is searched for dumps.")
    adopt.add_argument("--dry-run", **_DRY_RUN)
    _add_option(adopt, "database", options_of(AdoptOptions)["database"])
    _add_options(adopt, Location, AdoptOptions, _ADOPT_RUN, LogOptions)

    check = _add_command(commands, "check-config", "Check configuration files.", job=False)
    check.add_argument(
        "path", nargs="?", metavar="PATH", help="A file, or a configuration directory. Default: --config-dir."
    )
