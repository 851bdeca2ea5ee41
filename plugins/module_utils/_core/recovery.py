# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""The commands that read backups back, verify and restore, and the one that says how: runbook."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, Callable

from . import console
from .adapters.process import Cancellation
from .domain.errors import DONE
from .domain.history import entry
from .domain.model import Connection, options_of
from .domain.text import change_lines, printable

if TYPE_CHECKING:
    from .services.verify import Verification, Verified

Raw = dict[str, Any]


def verify(arguments: Raw, clock: Callable[[], datetime], cancellation: Cancellation) -> int:
    """Given the command line of `pgkeep verify`, carry it out; return the exit code."""
    from .services import verify as service

    result = _verified(arguments, clock, cancellation)
    console.note(result.message or result.for_another_server, [_entry(item) for item in result.verifications])
    if arguments["json"]:
        console.print_json(result.to_json())
    if arguments["dry_run"]:
        console.say(*(printable(service.line(item)) for item in result.verifications))
        console.say(*result.protections)
    console.say(printable(service.summary(result)))
    console.warn(result.warnings)
    for text in result.problems:
        console.error(text)
    code: int = result.exit_code
    return code


def _verified(arguments: Raw, clock: Callable[[], datetime], cancellation: Cancellation) -> Verified:
    from .services.job import OF_VERIFY, for_drill, verify_job
    from .services.verify import verify as verify_all

    check, said, observer = arguments["dry_run"], console.given(arguments), console.observer()
    if arguments.get("job"):
        return verify_job(console.defaults(arguments), said, check, clock, cancellation, observer)
    options = console.options(arguments, OF_VERIFY)
    options = for_drill(console.repository(arguments, options), said)
    return verify_all(options, check, clock, cancellation, observer)


def _entry(item: Verification) -> Raw:
    size, backup = item.backup.size, item.backup.id
    return entry(item.backup.title, item.verdict, item.problem, backup=backup, size=size, duration=item.seconds)


def restore(arguments: Raw, clock: Callable[[], datetime], cancellation: Cancellation) -> int:
    """Given the command line of `pgkeep restore`, carry it out; return the exit code."""
    from .services import restore as service
    from .services.job import OF_RESTORE, restore_options

    if arguments.get("job"):
        options = restore_options(console.defaults(arguments), console.given(arguments))
    elif arguments.get("from_target"):  # on a host that may have no repository at all
        options = console.options(arguments, OF_RESTORE)
    else:
        options = console.repository(arguments, console.options(arguments, OF_RESTORE))
    options["config_dir"] = arguments["config_dir"]
    if arguments["list"]:
        console.write(sys.stdout, *map(printable, service.contents(options, cancellation).splitlines()))
        return DONE
    result = service.restore(options, arguments["dry_run"], clock, cancellation, console.observer())
    took = sum(result.seconds.values())
    backup, size, target = result.backup.id, result.backup.size, result.where.name
    console.note(result.message, [entry(target, result.where.action, backup=backup, size=size, duration=took)])
    # An observer that writes lines has told how the restore of a database ended.
    told = result.changed and not result.check and result.backup.kind == "database"
    if arguments["json"]:
        console.print_json(result.to_json())
    console.say(*change_lines(result.changes))
    if not told:
        console.say(printable(result.message))
    if not (told and console.talks()):
        console.warn(result.warnings)
    code: int = result.exit_code
    return code


def runbook(arguments: Raw, clock: Callable[[], datetime], cancellation: Cancellation) -> int:
    """Given the command line of `pgkeep runbook`, carry it out; return the exit code."""
    from .services import runbook as service

    # Without --job the service itself looks for the jobs of each instance, and the defaults are in those.
    only = (*(options_of(Connection) if arguments.get("job") else ()), "repository")
    options = console.repository(arguments, console.options(arguments, only))
    place = {"config_dir": arguments["config_dir"], "path": arguments.get("path")}
    result = service.runbook({**options, **place}, arguments["dry_run"], clock, cancellation)
    if arguments["json"]:
        console.print_json(result.to_json())
    elif result.path is None:
        console.write(sys.stdout, *result.document.splitlines())
    else:
        console.say(printable(service.line(result, arguments["dry_run"])))
    console.warn(result.warnings)
    code: int = result.exit_code
    return code
