# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""The commands that read backups back, verify and restore, and the one that says how: runbook."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from typing import Any, Callable

from . import console
from .adapters.process import Cancellation
from .domain.errors import DONE
from .domain.model import Connection, DrillOptions, options_of
from .domain.text import change_lines, printable

Raw = dict[str, Any]


def verify(arguments: Raw, clock: Callable[[], datetime], cancellation: Cancellation) -> int:
    """Given the command line of `pgkeep verify`, carry it out; return the exit code."""
    from .services import verify as service

    from_job = ("repository", "bin_dir", *options_of(DrillOptions))
    options = console.repository(arguments, console.options(arguments, from_job))
    only_clients = not os.path.exists(os.path.join(options.get("bin_dir", ""), "initdb"))
    if arguments.get("level") == "restore" and "bin_dir" not in arguments and only_clients:
        options.pop("bin_dir", None)  # the job's: it is for dumps, which need no server
    result = service.verify(options, arguments["dry_run"], clock, cancellation, console.observer(arguments))
    if arguments["json"]:
        console.print_json(result.to_json())
    else:
        if arguments["dry_run"]:
            console.write(sys.stdout, *(printable(service.line(item)) for item in result.verifications))
            console.write(sys.stdout, *result.protections)
        console.write(sys.stdout, service.summary(result))
    console.warn(result.warnings)
    for text in result.problems:
        console.error(text)
    code: int = result.exit_code
    return code


def restore(arguments: Raw, clock: Callable[[], datetime], cancellation: Cancellation) -> int:
    """Given the command line of `pgkeep restore`, carry it out; return the exit code."""
    from .services import restore as service

    # Of a job only how to reach the server and the repository: what it dumps says nothing about a restore.
    options = console.options(arguments, (*options_of(Connection), "repository", "instance", "bin_dir"))
    options = console.repository(arguments, options)
    if arguments["list"]:
        console.write(sys.stdout, *map(printable, service.contents(options, cancellation).splitlines()))
        return DONE
    result = service.restore(options, arguments["dry_run"], clock, cancellation, console.observer(arguments))
    # An observer that writes lines has told how the restore of a database ended.
    told = result.changed and not result.check and result.backup.kind == "database"
    if arguments["json"]:
        console.print_json(result.to_json())
    else:
        console.write(sys.stdout, *change_lines(result.changes))
        if not told:
            console.write(sys.stdout, printable(result.message))
    if arguments["json"] or not told:
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
        console.write(sys.stdout, printable(service.line(result, arguments["dry_run"])))
    console.warn(result.warnings)
    code: int = result.exit_code
    return code
