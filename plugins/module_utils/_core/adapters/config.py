# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""The configuration of a host: DIRECTORY/jobs.d/NAME.json, one job each, over DIRECTORY/defaults.json."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Callable, NoReturn, TypeVar

from ..domain import schedule
from ..domain.configuration import defaults_file, job_file, job_name_problem, jobs_directory
from ..domain.errors import ConfigurationError
from ..domain.job import combination_problems, missing_problems, policy_of, value_problems
from ..domain.retention import check_policy
from ..domain.schema import JOB_CLASSES, REMARKS, Problem, did_you_mean, job_schema, problems

MAX_BYTES = 1024 * 1024

_Loaded = tuple[dict[str, Any], list[Problem]]
_Read = Callable[[str], tuple[str, int]]  # a file's text and mode; raises ConfigurationError
_Result = TypeVar("_Result")


def load_job(directory: str, name: str) -> dict[str, Any]:
    """Given the directory and a job's name, return the job over the defaults; raise ConfigurationError."""
    if job_name_problem(name):
        raise ConfigurationError(job_name_problem(name))
    names = job_names(directory)
    if name not in names:
        known = f"there are {', '.join(names)}" if names else f"{jobs_directory(directory)} has no jobs"
        raise ConfigurationError(f"there is no job {name}: {known}{did_you_mean(name, names)}")
    (_defaults, found), (job, more) = _with_defaults(directory, lambda defaults: _load_job(directory, name, defaults))
    _raise_if(found + more)
    return job


def load_defaults(directory: str) -> dict[str, Any]:
    """Given the directory, return what all jobs have in common, {} where nothing is said; raise ConfigurationError."""
    defaults, found = _load_defaults(directory)
    _raise_if(found)
    return defaults


def load_all(directory: str) -> dict[str, dict[str, Any]]:
    """Given the directory, return every job by name; raise ConfigurationError with all problems of all files."""
    names = job_names(directory)

    def load(defaults: dict[str, Any]) -> dict[str, _Loaded]:
        return {name: _load_job(directory, name, defaults) for name in names}

    (_defaults, found), loaded = _with_defaults(directory, load)
    _raise_if([*found, *(problem for _job, more in loaded.values() for problem in more)])
    return {name: job for name, (job, _found) in loaded.items()}


def job_names(directory: str) -> list[str]:
    """Given the directory, return its jobs' names, sorted; raise ConfigurationError for one that cannot be."""
    names, found = _scan(directory)
    _raise_if(found)
    return names


def check_directory(directory: str) -> list[Problem]:
    """Given the directory, return everything that is wrong with its files, each and together with the defaults."""
    try:
        names, found = _scan(directory)
    except ConfigurationError as error:
        return [Problem("", str(error))]
    return _check(directory, names, found, _load_defaults(directory), _read)


def check_files(directory: str, contents: Mapping[str, tuple[str, int]]) -> list[Problem]:
    """Given the directory and the files that it shall have (text and mode of each path), return everything that
    `check_directory` would say of them.
    """
    paths = [path for path in contents if os.path.dirname(path) == jobs_directory(directory)]
    names, found = _job_names(directory, map(os.path.basename, paths))
    read = contents.__getitem__
    path = defaults_file(directory)
    return _check(directory, names, found, _load_file(path, read) if path in contents else ({}, []), read)


def check_file(path: str) -> list[Problem]:
    """Given a job or defaults file, return everything that is wrong with it alone; what it lacks may be elsewhere."""
    return _load_file(path, _read)[1]


def read(path: str) -> tuple[str, os.stat_result]:
    """Given a file, return its text and status; raise ConfigurationError when it is not one that can be configuration."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigurationError(f"{path} is not a regular file")
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise ConfigurationError(f"{path} is larger than 1 MiB, which no configuration is")
    try:
        return data.decode("utf-8"), status
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path}:{line}: not UTF-8") from None


def _with_defaults(directory: str, load: Callable[[dict[str, Any]], _Result]) -> tuple[_Loaded, _Result]:
    """Given the directory and what loads jobs over its defaults, return the defaults and what it returned.

    Defaults that are replaced meanwhile are read again: nobody meant those of before together with a job of afterwards.
    """
    loaded = _load_defaults(directory)
    while True:
        result = load(loaded[0])
        before, loaded = loaded, _load_defaults(directory)
        if before == loaded:
            return loaded, result


def _check(
    directory: str, names: list[str], found: list[Problem], defaults: _Loaded, read_file: _Read
) -> list[Problem]:
    found = [*defaults[1], *found]
    for name in names:
        found += _load_job(directory, name, defaults[0], read_file)[1]
    return found


def _scan(directory: str) -> tuple[list[str], list[Problem]]:
    if not os.path.isdir(directory):
        raise ConfigurationError(f"{directory} is not a directory: make it, with a file jobs.d/NAME.json for each job")
    try:
        entries = sorted(os.listdir(jobs_directory(directory)))
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise ConfigurationError(f"{jobs_directory(directory)} cannot be read: {error.strerror}") from None
    return _job_names(directory, entries)


def _job_names(directory: str, entries: Iterable[str]) -> tuple[list[str], list[Problem]]:
    # Hidden files are what editors and Ansible write before they rename.
    stems = [entry[: -len(".json")] for entry in entries if entry.endswith(".json") and not entry.startswith(".")]
    found = {stem: job_name_problem(stem) for stem in stems}
    return (
        [stem for stem, problem in found.items() if not problem],
        [
            Problem("", f"{problem}; rename the file", jobs_directory(directory))
            for problem in found.values()
            if problem
        ],
    )


def _load_defaults(directory: str) -> _Loaded:
    path = defaults_file(directory)
    return _load_file(path, _read) if os.path.lexists(path) else ({}, [])


def _read(path: str) -> tuple[str, int]:
    text, status = read(path)
    return text, stat.S_IMODE(status.st_mode)


def _load_job(directory: str, name: str, defaults: dict[str, Any], read_file: _Read = _read) -> _Loaded:
    """Given a job's name and the defaults, return both merged and what is wrong with the file and the result."""
    path = job_file(directory, name)
    own, found = _load_file(path, read_file)
    merged = {**defaults, **own}
    if not found and not _problems_alone(defaults):
        found = [Problem("", text, path) for text in _merged_problems(merged)]
    return merged, found


def _merged_problems(job: dict[str, Any]) -> list[str]:
    found = missing_problems(job, JOB_CLASSES) or value_problems(job, JOB_CLASSES)
    found += combination_problems(job)
    if not found:
        try:
            check_policy(policy_of(job))
        except ConfigurationError as error:
            found.append(str(error))
    return found


def _problems_alone(document: Any) -> list[Problem]:
    """Given a document or options, return what is wrong with them whatever other files say."""
    return problems(document, job_schema()) or [Problem("", text) for text in schedule.problems(document)]


def _load_file(path: str, read_file: _Read) -> _Loaded:
    """Given a file, return its options (none when it cannot be used at all) and what is wrong with it."""
    try:
        text, mode = read_file(path)
        document = _parse(text, path)
    except ConfigurationError as error:
        return {}, [Problem("", str(error))]
    found = _problems_alone(document)
    if not isinstance(document, dict):
        document = {}
    elif document.get("login_password") and mode & 0o077:
        found.append(Problem("login_password", f"can be read by other users of this host: run chmod 0600 {path}"))
    options = {key: value for key, value in document.items() if key not in REMARKS}
    return options, [Problem(problem.key, problem.message, path) for problem in found]


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO would wait for a writer for ever


def _parse(text: str, path: str) -> Any:
    """Given the text of a file, return its document; raise ConfigurationError with the place where it is not JSON."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise ConfigurationError(f"{path}: {reason}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        twice = sorted(key for key, count in Counter(key for key, _value in pairs).items() if count > 1)
        raise ValueError(f"{', '.join(twice)} stands there twice: remove one")
    return result


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _raise_if(found: list[Problem]) -> None:
    if found:
        raise ConfigurationError("\n".join(str(problem) for problem in found))
