# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""What the handlers of all commands share: the options in force, and the only code that prints."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from .domain.errors import ConfigurationError, PgkeepError
from .domain.text import printable

if TYPE_CHECKING:
    from .adapters.observer import Observer

Raw = dict[str, Any]


def defaults(arguments: Raw) -> Raw:
    """Given the command line, return the job it names, or the defaults of the configuration where there is one."""
    directory = arguments["config_dir"]
    if not arguments.get("job") and not os.path.isdir(directory):
        return {}
    from .adapters import config

    if arguments.get("job"):
        return config.load_job(directory, arguments["job"])
    return config.load_defaults(directory)


def repository(arguments: Raw, options: Raw) -> Raw:
    """Given the options of a reading command, return them with the repository of the jobs where none was named."""
    directory = arguments["config_dir"]
    if options.get("repository") or arguments.get("job") or not os.path.isdir(directory):
        return options
    from .adapters import config

    places = sorted({job["repository"] for job in config.load_all(directory).values()})
    if len(places) > 1:
        raise ConfigurationError(
            f"the jobs have several repositories ({', '.join(places)}): give --repository or --job"
        )
    return {**options, **({"repository": places[0]} if places else {})}


def given(arguments: Raw) -> Raw:
    """Given the command line, return the options on it."""
    own = ("command", "config_dir", "json", "job", "dry_run", "limit", "paths", "path", "version", "list")
    return {name: value for name, value in arguments.items() if name not in own and value != []}


def options(arguments: Raw, only: Sequence[str] = ()) -> Raw:
    """Given the command line, return the options in force; of the configuration only some, where some are named."""
    configured = defaults(arguments)
    return {**{name: value for name, value in configured.items() if not only or name in only}, **given(arguments)}


def observer(arguments: Raw) -> Observer:
    """Given the command line, return who hears how the run goes."""
    import shutil

    from .adapters.observer import LineObserver, Observer, TerminalObserver

    if arguments["json"]:
        return Observer()
    if sys.stdout.isatty():
        return TerminalObserver(sys.stdout, shutil.get_terminal_size().columns)
    return LineObserver(sys.stdout)


def write(stream: TextIO, *lines: str) -> None:
    """Given a stream and lines, write them; raise PgkeepError where what was asked for cannot be told."""
    try:
        stream.write("".join(f"{line}\n" for line in lines))
        stream.flush()
    except OSError as problem:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        # `pgkeep list | head`: what was done stays done, and its exit code counts. A full disk is another matter.
        if stream is sys.stdout and not isinstance(problem, BrokenPipeError):
            raise PgkeepError(f"the output cannot be written: {problem.strerror}; what was done is done") from None


def print_json(document: Any) -> None:
    """Given a document, print it as JSON."""
    write(sys.stdout, json.dumps(document, indent=1, ensure_ascii=True))


def warn(texts: Sequence[str]) -> None:
    """Given warnings, write each on a line of stderr."""
    for text in texts:
        write(sys.stderr, f"pgkeep: warning: {printable(text)}")


def error(text: str) -> None:
    """Given what went wrong, write it on a line of stderr."""
    write(sys.stderr, f"pgkeep: error: {printable(text)}")
