# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""The command `pgkeep`: the modules' services for cron and for people. The only place that exits."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any, Callable

from . import console
from .adapters.process import Cancellation, scrub_environment
from .domain.errors import DONE, FAILED, ConfigurationError, Interrupted, PgkeepError
from .domain.history import outcome_entries
from .domain.model import (
    CONFIG_DIRECTORY,
    AdoptOptions,
    Choice,
    Connection,
    DrillOptions,
    DumpOptions,
    Filter,
    ListingOptions,
    Location,
    LogOptions,
    Option,
    Policy,
    PruneOptions,
    Repository,
    RestoreOptions,
    RunbookOptions,
    RunOptions,
    Scope,
    Selection,
    StandbyOptions,
    VerifyOptions,
    options_of,
)
from .domain.text import backup_lines, plan_lines, printable, statistics_lines, table
from .domain.version import VERSION

# The rest is imported by the command that needs it: the zip holds no compiled code, so what is not used is not free.
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
_DRILL_VERIFY = {name: item for name, item in options_of(VerifyOptions).items() if name not in ("level", "latest")}
_RUNBOOK = {name: item for name, item in options_of(RunbookOptions).items() if name != "config_dir"}  # every command's
_ADOPT_RUN = {name: item for name, item in options_of(RunOptions).items() if name not in ("max_age", "parallel")}


def _add_option(parser: argparse.ArgumentParser, name: str, option: Option) -> None:
    flag, more = "--" + name.replace("_", "-"), ""
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
        parser.add_argument(flag, action="append", metavar=word, default=argparse.SUPPRESS, help=text + " Repeatable.")
    else:
        metavar = None if option.choices else option.kind.upper()
        kind: Callable[[str], Any] = int if option.kind == "int" else str
        parser.add_argument(
            flag, type=kind, choices=option.choices or None, metavar=metavar, default=argparse.SUPPRESS, help=text
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("pgkeep", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False)
    parser.add_argument("--version", action="store_true", help="Print the version and the checksum of this program.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    databases: Raw = {"nargs": "*", "metavar": "DATABASE", "default": argparse.SUPPRESS}
    dry_run: Raw = {"action": "store_true", "help": "Look at everything, change nothing, say what would happen."}

    take = _add_command(commands, "backup", "Take backups.")
    take.add_argument("databases", help="Names of databases. None: all that the other options select.", **databases)
    take.add_argument("--dry-run", **dry_run)
    _add_options(take, Location, Selection, DumpOptions, RunOptions, StandbyOptions, Connection, LogOptions)

    show = _add_command(commands, "list", "List backups, the newest first.")
    show.add_argument("databases", help="Only backups of these databases; @globals means the globals.", **databases)
    show.add_argument("--limit", type=int, metavar="N", help="Show at most N backups.")
    _add_options(show, Repository, Filter, ListingOptions)

    figures = _add_command(commands, "stats", "Show statistics and the retention policy in force.")
    figures.add_argument("databases", help="Only backups of these databases; @globals means the globals.", **databases)
    _add_options(figures, Repository, Filter, Policy)

    _add_command(commands, "status", "Show how the jobs of this host stand.", job=False)

    prune = _add_command(commands, "prune", "Delete the backups that the retention policy does not keep.")
    prune.add_argument("databases", help="Only backups of these databases; @globals means the globals.", **databases)
    prune.add_argument("--dry-run", **dry_run)
    _add_options(prune, Repository, Scope, Policy, PruneOptions, LogOptions)

    verify = _add_command(commands, "verify", "Verify backups; what is found is kept with each and shown by list.")
    verify.add_argument("databases", help="Only backups of these databases; @globals means the globals.", **databases)
    verify.add_argument("--dry-run", **dry_run)
    _add_options(verify, Repository, Filter, VerifyOptions, DrillOptions, LogOptions)

    drill = _add_command(
        commands, "drill", "Restore backups into a throw-away server and prove that the contents are equal."
    )
    drill.add_argument("databases", help="Only backups of these databases; @globals means the globals.", **databases)
    drill.add_argument("--all", action="store_true", help="Every backup that matches, not only the newest of each.")
    drill.add_argument("--dry-run", **dry_run)
    _add_options(drill, Repository, Filter, _DRILL_VERIFY, DrillOptions, LogOptions)

    restore = _add_command(commands, "restore", "Restore a database from a backup.")
    restore.add_argument("database", nargs="?", metavar="DATABASE", default=argparse.SUPPRESS, help="As backed up.")
    restore.add_argument("--list", action="store_true", help="Only print what is in the backup's archive.")
    restore.add_argument("--dry-run", **dry_run)
    _add_options(restore, Repository, Choice, RestoreOptions, Connection, LogOptions)

    document = _add_command(commands, "runbook", "Write the recovery document of this host, in Markdown.")
    document.add_argument("--dry-run", **dry_run)
    _add_options(document, Repository, _RUNBOOK, Connection)

    run = _add_command(commands, "run", "Run a job: back up, then prune.", job=False)
    run.add_argument("job", metavar="JOB", help="Name of the job.")
    run.add_argument("--dry-run", **dry_run)
    _add_options(run, LogOptions)

    adopt = _add_command(commands, "adopt", "Take over dumps that another tool made.")
    adopt.add_argument("paths", nargs="+", metavar="PATH", help="A dump, or a directory that is searched for dumps.")
    adopt.add_argument("--dry-run", **dry_run)
    _add_option(adopt, "database", options_of(AdoptOptions)["database"])
    _add_options(adopt, Location, AdoptOptions, _ADOPT_RUN, LogOptions)

    check = _add_command(commands, "check-config", "Check configuration files.", job=False)
    check.add_argument(
        "path", nargs="?", metavar="PATH", help="A file, or a configuration directory. Default: --config-dir."
    )
    return parser


# --- what each command does: given its options, return the exit code ---


def _backup(arguments: Raw, clock: Callable[[], datetime], cancellation: Cancellation) -> int:
    from .services.backup import backup

    options = console.options(arguments)
    if arguments.get("databases"):
        options.pop("include", None)  # the job's; names on the command line are more exact
    result = backup(options, arguments["dry_run"], clock, cancellation, console.observer())
    console.note(result.message or result.for_another_server, outcome_entries(result.outcomes))
    if arguments["json"]:
        console.print_json(result.to_json())
    _report_backup(result, arguments["dry_run"])
    _report_problems(result, arguments["dry_run"])
    return result.exit_code


def _report_backup(result: Any, dry_run: bool) -> None:
    if result.for_another_server:
        console.say(f"nothing to do here: {printable(result.for_another_server)}")
    elif dry_run:
        rows = [(item.database, item.status, item.message) for item in result.outcomes]
        console.say(*table(("DATABASE", "STATUS", "WHAT"), rows))
    for database, reason in result.skipped:
        console.say(f"{printable(database)}: skipped, {reason}")
    if result.new and len(result.new) < len(result.outcomes):
        console.say(f"new databases: {', '.join(map(printable, result.new))}")


def _report_problems(result: Any, dry_run: bool) -> None:
    # An observer that prints has written the warnings of each database beside its line.
    told = console.talks() and not dry_run
    console.warn(result.run_warnings if told else result.warnings)
    for outcome in result.bad:
        console.error(f"{outcome.database}: {outcome.message}")
    for problem in result.problems:
        console.error(problem)


def _list(arguments: Raw, clock: Callable[[], datetime], cancellation: Cancellation) -> int:
    from .services.listing import listing

    listed = listing(
        console.repository(arguments, console.options(arguments, ("repository",))), False, clock, cancellation
    )
    shown = listed.backups[: arguments["limit"]]
    if arguments["json"]:
        console.print_json(listed.to_json(shown))
    else:
        console.write(sys.stdout, *backup_lines(shown, listed.now))
        if listed.show_foreign and listed.foreign:
            rows = [(item.path, item.reason) for item in listed.foreign]
            console.write(sys.stdout, "", *table(("NOT A BACKUP", "REASON"), rows))
    console.warn(listed.warnings)
    if listed.failed:
        console.error(listed.message)
    return listed.exit_code


def _stats(arguments: Raw, clock: Callable[[], datetime], cancellation: Cancellation) -> int:
    from .services.job import with_policy
    from .services.listing import listing

    configured = console.defaults(arguments)
    if arguments.get("job"):
        configured = with_policy(configured)
    policy = {name: value for name, value in configured.items() if name in options_of(Policy) or name == "repository"}
    listed = listing(console.repository(arguments, {**policy, **console.given(arguments)}), False, clock, cancellation)
    if arguments["json"]:
        console.print_json(listed.to_json(()))
    else:
        console.write(sys.stdout, *statistics_lines(listed.statistics(), listed.policy))
    console.warn(listed.warnings)
    return DONE


def _status(arguments: Raw, clock: Callable[[], datetime], cancellation: Cancellation) -> int:
    from .domain.status import status_lines
    from .services.status import status

    found = status({"config_dir": arguments["config_dir"]}, False, clock, cancellation)
    if arguments["json"]:
        console.print_json(found.to_json())
    else:
        console.write(sys.stdout, *status_lines(found.jobs, found.now))
    console.warn(found.warnings)
    for text in found.problems:
        console.error(text)
    return found.exit_code


def _prune(arguments: Raw, clock: Callable[[], datetime], cancellation: Cancellation) -> int:
    from .services.job import prune_job
    from .services.prune import prune

    check, observer = arguments["dry_run"], console.observer()
    if arguments.get("job"):
        pruned = prune_job(console.defaults(arguments), console.given(arguments), check, clock, cancellation, observer)
    else:
        options = console.options(arguments, (*options_of(Policy), "repository"))
        pruned = prune(options, check, clock, cancellation, observer=observer)
    console.note(pruned.message, deleted=[backup.id for backup in pruned.deleted])
    if arguments["json"]:
        console.print_json(pruned.to_json())
    console.say(*plan_lines(pruned.plan))
    return _report_prune(pruned)


def _report_prune(pruned: Any) -> int:
    from .services.prune import summary

    if not pruned.check:
        console.say(summary(pruned))
    console.warn(pruned.warnings)
    for database, text in pruned.failures:
        console.error(f"{database}: {text}")
    code: int = pruned.exit_code
    return code


def _run(arguments: Raw, clock: Callable[[], datetime], cancellation: Cancellation) -> int:
    from .adapters import config
    from .services.job import run_job

    job, check = config.load_job(arguments["config_dir"], arguments["job"]), arguments["dry_run"]
    result = run_job(arguments["job"], job, check, clock, cancellation, console.observer())
    pruned = result.pruned
    deleted = [backup.id for backup in pruned.deleted] if pruned else []
    message = result.message or result.backup.for_another_server
    console.note(message, outcome_entries(result.backup.outcomes), deleted)
    if arguments["json"]:
        console.print_json(result.to_json())
    _report_backup(result.backup, check)
    _report_problems(result.backup, check)
    if pruned:
        console.say(*(plan_lines(pruned.plan) if check else (f"deleted {printable(item)}" for item in deleted)))
        _report_prune(pruned)
    return result.exit_code


def _adopt(arguments: Raw, clock: Callable[[], datetime], cancellation: Cancellation) -> int:
    from .services.adopt import adopt

    only = ("repository", "instance", "bin_dir", "reserve")
    options = console.options(arguments, only)
    result = adopt(options, arguments["paths"], arguments["dry_run"], clock, cancellation, console.observer())
    console.note(result.message, outcome_entries(result.outcomes))
    if arguments["json"]:
        console.print_json(result.to_json())
    for outcome in result.bad:
        console.error(f"{outcome.database}: {outcome.message}")
    return result.exit_code


def _verify(arguments: Raw, clock: Callable[[], datetime], cancellation: Cancellation) -> int:
    from .recovery import verify

    return verify(arguments, clock, cancellation)


def _drill(arguments: Raw, clock: Callable[[], datetime], cancellation: Cancellation) -> int:
    from .recovery import verify

    return verify({**arguments, "level": "restore", "latest": not arguments.pop("all")}, clock, cancellation)


def _restore(arguments: Raw, clock: Callable[[], datetime], cancellation: Cancellation) -> int:
    from .recovery import restore

    return restore(arguments, clock, cancellation)


def _runbook(arguments: Raw, clock: Callable[[], datetime], cancellation: Cancellation) -> int:
    from .recovery import runbook

    return runbook(arguments, clock, cancellation)


def _check_config(arguments: Raw, _clock: Callable[[], datetime], _cancellation: Cancellation) -> int:
    from .adapters import config

    path = arguments["path"] or arguments["config_dir"]
    found = config.check_directory(path) if os.path.isdir(path) else config.check_file(path)
    if arguments["json"]:
        console.print_json({"problems": [str(problem) for problem in found]})
    elif not found:
        console.say(f"{path}: no problems")
    for problem in found:
        console.error(str(problem))
    return ConfigurationError.exit_code if found else DONE


_COMMANDS = {
    "backup": _backup,
    "list": _list,
    "stats": _stats,
    "status": _status,
    "prune": _prune,
    "verify": _verify,
    "drill": _drill,
    "restore": _restore,
    "runbook": _runbook,
    "run": _run,
    "adopt": _adopt,
    "check-config": _check_config,
}


def _version() -> str:
    """Return version and checksum of this program: that of the file which was installed."""
    archive = getattr(globals().get("__loader__"), "archive", None)
    if not archive:
        return f"pgkeep {VERSION} (not installed)"
    with open(archive, "rb") as file:
        return f"pgkeep {VERSION} sha256:{hashlib.sha256(file.read()).hexdigest()}"


def _now() -> datetime:
    return datetime.now(timezone.utc)


def main(argv: Sequence[str] | None = None) -> int:
    """Given a command line, carry it out; return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal's encoding must not end a run
    parser = _parser()
    arguments = vars(parser.parse_args(argv))
    if arguments["version"]:
        console.write(sys.stdout, _version())
        return DONE
    if not arguments["command"]:
        parser.print_help()
        return ConfigurationError.exit_code
    scrub_environment(os.environ)
    cancellation = Cancellation()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: cancellation.cancel(received))
    console.begin(arguments, _now)
    code = FAILED
    try:
        code = _carried_out(arguments, cancellation)
    finally:
        console.end(code)
    return code


def _carried_out(arguments: Raw, cancellation: Cancellation) -> int:
    try:
        code = _COMMANDS[arguments["command"]](arguments, _now, cancellation)
        console.write(sys.stdout)  # what an observer could not get rid of
        return code
    except Interrupted as error:
        console.failed(f"{error}: what was not finished is gone, earlier backups are untouched")
        return error.exit_code
    except PgkeepError as error:
        console.failed(str(error))
        return error.exit_code
    except Exception as error:
        console.note(f"unexpected {type(error).__name__}: this is a bug in pgkeep, please report it")
        raise
    finally:
        with contextlib.suppress(PgkeepError):
            console.write(sys.stdout)
