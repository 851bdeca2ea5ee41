# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""What the handlers of all commands share: the options in force, and the only code that prints and writes the log."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Callable, TextIO

from .domain import history
from .domain.errors import ConfigurationError, PgkeepError
from .domain.text import printable

if TYPE_CHECKING:
    from .adapters.journal import Journal
    from .adapters.observer import Observer

Raw = dict[str, Any]


class _Output:
    """Where this run's lines for people go, and what is known of it for the history."""

    def __init__(self, silent: bool = False) -> None:
        self.silent = silent  # nothing but data on stdout
        self.journal: Journal | None = None
        self.messages: list[str] = []
        self.databases: Sequence[Mapping[str, Any]] | None = None
        self.deleted: Sequence[str] = ()


_output = _Output()


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
    own = ("command", "config_dir", "json", "quiet", "job", "dry_run", "limit", "paths", "path", "version", "list")
    return {name: value for name, value in arguments.items() if name not in own and value != []}


def options(arguments: Raw, only: Sequence[str] = ()) -> Raw:
    """Given the command line, return the options in force; of the configuration only some, where some are named."""
    configured = defaults(arguments)
    return {**{name: value for name, value in configured.items() if not only or name in only}, **given(arguments)}


# --- the log and the history ---


def begin(arguments: Raw, clock: Callable[[], datetime]) -> None:
    """Given the command line, begin the run's output; with a directory for the log, write down that it begins."""
    global _output  # noqa: PLW0603  (a process has one stdout, one stderr and one log)
    _output = _Output(arguments["json"] or arguments["quiet"])
    does_nothing = arguments.get("dry_run") or arguments.get("list")
    if arguments["command"] not in history.COMMANDS or does_nothing:
        return
    directory = _log_dir(arguments)
    if directory:
        from .adapters.journal import Journal

        _output.journal = Journal(
            directory, arguments["command"], arguments.get("job"), clock, lambda text: _complain(f"warning: {text}")
        )


def _log_dir(arguments: Raw) -> str | None:
    """Given the command line, return the directory for the log; of a configuration that cannot be used, that of the
    defaults, so that the log says what is wrong with a job.
    """
    found = {}
    for without in ({}, {"job": None}):
        try:
            found = defaults({**arguments, **without})
            break
        except ConfigurationError:
            continue  # the command itself says it
    directory: str | None = {**found, **given(arguments)}.get("log_dir")
    return directory


def note(message: str, databases: Sequence[Mapping[str, Any]] | None = None, deleted: Sequence[str] = ()) -> None:
    """Given what became of the run, remember it for the history."""
    _output.messages += [message] if message else []
    _output.databases, _output.deleted = databases, deleted


def failed(text: str) -> None:
    """Given why the run cannot go on, write it on stderr and remember it for the history."""
    for line in text.split("\n"):  # a configuration can have several problems
        error(line)
        _output.messages.append(line)


def end(exit_code: int) -> None:
    """Given the exit code, write down that the run is over."""
    if _output.journal:
        _output.journal.end(exit_code, "; ".join(_output.messages), _output.databases, _output.deleted)


# --- what people and programs read ---


def talks() -> bool:
    """Return whether lines for people are printed."""
    return not _output.silent


def observer() -> Observer:
    """Return who hears how the run goes."""
    import shutil

    from .adapters.observer import LineObserver, Observer, TerminalObserver

    journal = _output.journal
    if not talks():
        return LineObserver(None, journal) if journal else Observer()
    if sys.stdout.isatty():
        return TerminalObserver(sys.stdout, shutil.get_terminal_size().columns, journal)
    return LineObserver(sys.stdout, journal)


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


def say(*lines: str) -> None:
    """Given lines for people, print them, unless the run is quiet or prints JSON, and write them into the log."""
    if talks():
        write(sys.stdout, *lines)
    for line in lines:
        _log(line)


def print_json(document: Any) -> None:
    """Given a document, print it as JSON."""
    write(sys.stdout, json.dumps(document, indent=1, ensure_ascii=True))


def warn(texts: Sequence[str]) -> None:
    """Given warnings, write each on a line of stderr and into the log."""
    for text in texts:
        _complain(f"warning: {text}")
        _log(f"warning: {text}")


def error(text: str) -> None:
    """Given what went wrong, write it on a line of stderr and into the log."""
    _complain(f"error: {text}")
    _log(f"error: {text}")


def _complain(text: str) -> None:
    write(sys.stderr, f"pgkeep: {printable(text)}")


def _log(text: str) -> None:
    journal = _output.journal
    if journal and text:
        journal.line(text)
