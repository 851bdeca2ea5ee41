# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""The configuration of a host: DIRECTORY/jobs.d/NAME.json, one job each, over DIRECTORY/defaults.json, and
DIRECTORY/targets.d/NAME.json, one target each.
"""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Callable, NoReturn, TypeVar

from ..domain import encryption, schedule
from ..domain.configuration import (
    defaults_file,
    job_file,
    job_name_problem,
    jobs_directory,
    looks_like_target,
    target_file,
    target_name_problem,
    targets_directory,
)
from ..domain.errors import ConfigurationError
from ..domain.job import combination_problems, missing_problems, policy_of, value_problems
from ..domain.model import Policy, build, options_of
from ..domain.retention import check_policy
from ..domain.schema import (
    JOB_CLASSES,
    REMARKS,
    TARGET_CLASSES,
    Problem,
    did_you_mean,
    job_schema,
    problems,
    target_schema,
)

MAX_BYTES = 1024 * 1024

_Loaded = tuple[dict[str, Any], list[Problem]]
_Names = tuple[list[str], list[Problem]]  # what can be a name, and what is wrong with the others
_Read = Callable[[str], tuple[str, int]]  # a file's text and mode; raises ConfigurationError
_Check = Callable[[Any], list[Problem]]  # what is wrong with a document, whatever other files say
_Result = TypeVar("_Result")


def load_job(directory: str, name: str) -> dict[str, Any]:
    """Given the directory and a job's name, return the job over the defaults; raise ConfigurationError, also where a
    target that it names cannot be used.
    """
    if job_name_problem(name):
        raise ConfigurationError(job_name_problem(name))
    names = job_names(directory)
    if name not in names:
        known = f"there are {', '.join(names)}" if names else f"{jobs_directory(directory)} has no jobs"
        raise ConfigurationError(f"there is no job {name}: {known}{did_you_mean(name, names)}")
    return _settled(lambda: _load_whole(directory, name))


def load_target(directory: str, name: str) -> dict[str, Any]:
    """Given the directory and a target's name, return the target; raise ConfigurationError."""
    if target_name_problem(name):
        raise ConfigurationError(target_name_problem(name))
    names = target_names(directory)
    if name not in names:
        raise ConfigurationError(f"there is no target {name}: {_known_targets(directory, name, names)}")
    target, found = _load_file(target_file(directory, name), _read, _target_problems)
    _raise_if(found)
    return target


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

    def load_all_once() -> tuple[dict[str, dict[str, Any]], list[Problem]]:
        defaults, loaded = _with_defaults(directory, load)
        found = _all_problems(directory, defaults, loaded, _scan_targets(directory), _read)
        return {name: job for name, (job, _found) in loaded.items()}, found

    return _settled(load_all_once)


def job_names(directory: str) -> list[str]:
    """Given the directory, return its jobs' names, sorted; raise ConfigurationError for one that cannot be."""
    names, found = _scan(directory)
    _raise_if(found)
    return names


def target_names(directory: str) -> list[str]:
    """Given the directory, return its targets' names, sorted; raise ConfigurationError for one that cannot be."""
    names, found = _scan_targets(directory)
    _raise_if(found)
    return names


def check_directory(directory: str) -> list[Problem]:
    """Given the directory, return everything that is wrong with its files, each and together with the defaults."""
    try:
        jobs, targets = _scan(directory), _scan_targets(directory)
    except ConfigurationError as error:
        return [Problem("", str(error))]
    return _check(directory, jobs, targets, _load_defaults(directory), _read)


def check_files(directory: str, contents: Mapping[str, tuple[str, int]]) -> list[Problem]:
    """Given the directory and the files that it shall have (text and mode of each path), return everything that
    `check_directory` would say of them.
    """
    jobs = _names_in(contents, jobs_directory(directory), job_name_problem)
    targets = _names_in(contents, targets_directory(directory), target_name_problem)
    read, path = contents.__getitem__, defaults_file(directory)
    defaults = _load_file(path, read, _job_problems) if path in contents else ({}, [])
    return _check(directory, jobs, targets, defaults, read)


def check_file(path: str) -> list[Problem]:
    """Given the file of a job, of the defaults or of a target, return everything that is wrong with it alone; what a job
    lacks may be elsewhere, and so may be the targets that it names.
    """
    place = os.path.dirname(os.path.abspath(path))
    directory = os.path.dirname(place)
    if place == targets_directory(directory):
        check = _target_problems
    elif place == jobs_directory(directory) or path == defaults_file(os.path.dirname(path)):
        check = _job_problems
    else:
        check = _problems_of_either
    return _load_file(path, _read, check)[1]


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


def _settled(load: Callable[[], tuple[_Result, list[Problem]]]) -> _Result:
    """Given what reads jobs and says what is wrong, return what it read; raise ConfigurationError.

    What is wrong is read again: a target is removed after the jobs that named it, and one of before may have been read.
    """
    result, found = load()
    if found:
        result, found = load()
    _raise_if(found)
    return result


def _with_defaults(directory: str, load: Callable[[dict[str, Any]], _Result]) -> tuple[_Loaded, _Result]:
    """Given the directory and what loads jobs over its defaults, return the very defaults that it took and what it returned.

    Defaults that are replaced meanwhile are read again: nobody meant those of before together with a job of afterwards.
    """
    loaded = _load_defaults(directory)
    while True:
        result = load(loaded[0])
        before, loaded = loaded, _load_defaults(directory)
        if before == loaded:
            return before, result


def _load_whole(directory: str, name: str) -> _Loaded:
    """Given a job's name, return the job over the defaults, and what is wrong with it, with these and with the targets
    that it names.
    """
    (defaults, found), (job, more) = _with_defaults(directory, lambda defaults: _load_job(directory, name, defaults))
    found = [*found, *more]
    if not found and job.get("targets"):
        known, found = _scan_targets(directory)
        is_common = job["targets"] is defaults.get("targets")
        path = defaults_file(directory) if is_common else job_file(directory, name)
        found = [*found, *_wrong_names(directory, path, job["targets"], known)]
        for target in sorted(set(job["targets"]) & set(known)):
            found += _load_file(target_file(directory, target), _read, _target_problems)[1]
    return job, found


def _check(directory: str, jobs: _Names, targets: _Names, defaults: _Loaded, read_file: _Read) -> list[Problem]:
    loaded = {name: _load_job(directory, name, defaults[0], read_file) for name in jobs[0]}
    return [*jobs[1], *_all_problems(directory, defaults, loaded, targets, read_file)]


def _all_problems(
    directory: str, defaults: _Loaded, jobs: Mapping[str, _Loaded], targets: _Names, read_file: _Read
) -> list[Problem]:
    """Given defaults, jobs and the names of the targets, return everything that is wrong with all of them."""
    common, known = defaults[0].get("targets"), targets[0]
    found = [*defaults[1], *_wrong_names(directory, defaults_file(directory), common, known)]
    for name, (job, more) in jobs.items():
        found += more
        if job.get("targets") is not common:
            found += _wrong_names(directory, job_file(directory, name), job.get("targets"), known)
    found += targets[1]
    for name in known:
        found += _load_file(target_file(directory, name), read_file, _target_problems)[1]
    return found


def _wrong_names(directory: str, path: str, wanted: Any, known: list[str]) -> Iterator[Problem]:
    """Given the file of a job or of the defaults, the targets in it and those that there are, yield what is wrong with
    their names. What is no list of texts is the schema's matter.
    """
    said = wanted if isinstance(wanted, list) else []
    for index, name in enumerate(said):
        if name in said[:index]:
            yield Problem(f"targets[{index}]", f"is {name!r}, which stands there already: remove one", path)
        elif isinstance(name, str) and name not in known:
            answer = _known_targets(directory, name, known)
            yield Problem(f"targets[{index}]", f"is {name!r}, but there is no such target: {answer}", path)


def _known_targets(directory: str, name: str, names: list[str]) -> str:
    known = f"there are {', '.join(names)}" if names else f"{targets_directory(directory)} has no targets"
    return f"{known}{did_you_mean(name, names)}"


def _scan(directory: str) -> _Names:
    if not os.path.isdir(directory):
        raise ConfigurationError(f"{directory} is not a directory: make it, with a file jobs.d/NAME.json for each job")
    return _scan_place(jobs_directory(directory), job_name_problem)


def _scan_targets(directory: str) -> _Names:
    return _scan_place(targets_directory(directory), target_name_problem)


def _scan_place(place: str, name_problem: Callable[[str], str]) -> _Names:
    try:
        entries = sorted(os.listdir(place))
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise ConfigurationError(f"{place} cannot be read: {error.strerror}") from None
    return _names(place, entries, name_problem)


def _names_in(paths: Iterable[str], place: str, name_problem: Callable[[str], str]) -> _Names:
    return _names(place, [os.path.basename(path) for path in paths if os.path.dirname(path) == place], name_problem)


def _names(place: str, entries: Iterable[str], name_problem: Callable[[str], str]) -> _Names:
    # Hidden files are what editors and Ansible write before they rename.
    stems = [entry[: -len(".json")] for entry in entries if entry.endswith(".json") and not entry.startswith(".")]
    found = {stem: name_problem(stem) for stem in stems}
    return (
        [stem for stem, problem in found.items() if not problem],
        [Problem("", f"{problem}; rename the file", place) for problem in found.values() if problem],
    )


def _load_defaults(directory: str) -> _Loaded:
    path = defaults_file(directory)
    return _load_file(path, _read, _job_problems) if os.path.lexists(path) else ({}, [])


def _read(path: str) -> tuple[str, int]:
    text, status = read(path)
    return text, stat.S_IMODE(status.st_mode)


def _load_job(directory: str, name: str, defaults: dict[str, Any], read_file: _Read = _read) -> _Loaded:
    """Given a job's name and the defaults, return both merged and what is wrong with the file and the result."""
    path = job_file(directory, name)
    own, found = _load_file(path, read_file, _job_problems)
    merged = {**defaults, **own}
    if not found and not _job_problems(defaults):
        found = [Problem("", text, path) for text in _merged_problems(merged)]
    return merged, found


def _merged_problems(job: dict[str, Any]) -> list[str]:
    found = missing_problems(job, JOB_CLASSES) or value_problems(job, JOB_CLASSES)
    found += [*combination_problems(job), *encryption.job_problems(job)]
    if not found:
        try:
            check_policy(policy_of(job))
        except ConfigurationError as error:
            found.append(str(error))
    return found


def _job_problems(document: Any) -> list[Problem]:
    """Given a job, or what all have in common, return what is wrong with it whatever other files say."""
    return problems(document, job_schema()) or [Problem("", text) for text in schedule.problems(document)]


def _target_problems(document: Any) -> list[Problem]:
    """Given a target, return what is wrong with it."""
    from ..domain.targets import target_problems  # most hosts have no targets

    found = problems(document, target_schema())
    if found:
        return found
    sentences = missing_problems(document, TARGET_CLASSES) or value_problems(document, TARGET_CLASSES)
    sentences += target_problems(document)
    if document.get("require_copies"):
        sentences.append("require_copies is set, and a prune of the target looks at no other copies: leave it out")
    # Without anything about retention, pgkeep never deletes there.
    if not sentences and any(document.get(name) is not None for name in options_of(Policy)):
        try:
            check_policy(build(Policy, document))
        except ConfigurationError as error:
            sentences.append(str(error))
    return [Problem("", text) for text in sentences]


def _problems_of_either(document: Any) -> list[Problem]:
    """Given a document of which nothing says whether it is a job or a target, return what is wrong with it."""
    is_target = isinstance(document, dict) and looks_like_target(document)
    return _target_problems(document) if is_target else _job_problems(document)


def _load_file(path: str, read_file: _Read, check: _Check) -> _Loaded:
    """Given a file, return its options (none when it cannot be used at all) and what is wrong with it."""
    try:
        text, mode = read_file(path)
        document = _parse(text, path)
    except ConfigurationError as error:
        return {}, [Problem("", str(error))]
    found = check(document)
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
