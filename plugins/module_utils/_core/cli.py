# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""The command `pgkeep`: the modules' services for cron and for people. The only place that exits."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any, Callable

from . import command_line, console
from .adapters.process import Cancellation, scrub_environment
from .domain.errors import DONE, FAILED, ConfigurationError, Interrupted, PgkeepError
from .domain.history import outcome_entries
from .domain.model import Policy, options_of
from .domain.text import backup_lines, plan_lines, printable, statistics_lines, table
from .domain.version import VERSION

# The rest is imported by the command that needs it: the zip holds no compiled code, so what is not used is not free.
Raw = dict[str, Any]


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

    if arguments.get("target"):
        return _compare(arguments, cancellation)
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


def _compare(arguments: Raw, cancellation: Cancellation) -> int:
    from .services.comparison import compare

    options = console.repository(arguments, console.options(arguments, ("repository", "instance")))
    found = compare({**options, "config_dir": arguments["config_dir"]}, cancellation)
    if arguments["json"]:
        console.print_json(found.to_json())
    else:
        console.write(sys.stdout, *found.lines())
    for text in found.problems:
        console.error(text)
    return found.exit_code


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
    if arguments.get("target"):
        pruned = _pruned_target(arguments, clock, cancellation)
    elif arguments.get("job"):
        pruned = prune_job(console.defaults(arguments), console.given(arguments), check, clock, cancellation, observer)
    else:
        options = console.options(arguments, (*options_of(Policy), "repository"))
        pruned = prune(options, check, clock, cancellation, observer=observer)
    console.note(pruned.message, deleted=[backup.id for backup in pruned.deleted])
    if arguments["json"]:
        console.print_json(pruned.to_json())
    console.say(*plan_lines(pruned.plan))
    return _report_prune(pruned)


def _pruned_target(arguments: Raw, clock: Callable[[], datetime], cancellation: Cancellation) -> Any:
    from .services.target_prune import prune_target

    options = console.repository(arguments, console.options(arguments, ("repository",)))
    place = {**options, "config_dir": arguments["config_dir"]}
    return prune_target(place, arguments["dry_run"], clock, cancellation, console.observer())


def _sync(arguments: Raw, clock: Callable[[], datetime], cancellation: Cancellation) -> int:
    from .services.job import sync_job
    from .services.sync import sync

    check, observer, said = arguments["dry_run"], console.observer(), console.given(arguments)
    place = {"config_dir": arguments["config_dir"]}
    if arguments.get("job"):
        synced = sync_job(console.defaults(arguments), {**said, **place}, check, clock, cancellation, observer)
    else:
        options = console.repository(arguments, console.options(arguments, ("repository", "targets")))
        synced = sync({**options, **place}, check, clock, cancellation, observer)
    console.note(synced.message)
    if arguments["json"]:
        console.print_json(synced.to_json())
    _report_sync(synced)
    code: int = synced.exit_code
    return code


def _receive(arguments: Raw, _clock: Callable[[], datetime], cancellation: Cancellation) -> int:
    from .services.receive import receive

    code: int = receive(arguments, os.environ, sys.stdin.buffer, sys.stdout.buffer, sys.stderr, cancellation)
    return code


def _report_sync(synced: Any) -> None:
    from .services.sync import summary

    if synced.check:
        console.say(*(printable(f"{side.target}: would copy {name}") for side in synced.sides for name in side.missing))
    console.say(*map(printable, summary(synced)))
    console.warn(synced.warnings)
    for text in synced.problems:
        console.error(text)


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
    result = run_job(arguments["job"], job, arguments["config_dir"], check, clock, cancellation, console.observer())
    pruned = result.pruned
    deleted = [backup.id for backup in pruned.deleted] if pruned else []
    message = result.message or result.backup.for_another_server
    console.note(message, outcome_entries(result.backup.outcomes), deleted)
    if arguments["json"]:
        console.print_json(result.to_json())
    _report_backup(result.backup, check)
    _report_problems(result.backup, check)
    if result.synced:
        _report_sync(result.synced)
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
    "sync": _sync,
    "receive": _receive,
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
    parser = command_line.parser()
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
