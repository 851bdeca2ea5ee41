# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""Writing the configuration of a host: look at all files, check what they would become, then replace one by one."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Callable

from ..adapters import config, config_files
from ..adapters.config_files import Access, Account, File
from ..adapters.files import NEW_PREFIX
from ..adapters.process import Cancellation
from ..domain import by_hand
from ..domain.configuration import (
    KEPT_SUFFIX,
    Configuration,
    bridged,
    default_passfile,
    defaults_file,
    is_managed,
    job_file,
    jobs_directory,
    passfile_mark,
    read_options,
    render,
    render_passfile,
    request_problems,
    said,
    shown,
    target_file,
    targets_directory,
)
from ..domain.errors import DONE, ConfigurationError
from ..domain.model import build
from ..domain.schema import TARGET_CLASSES, Problem

Files = Mapping[str, File]


@dataclass(frozen=True)
class Present:
    """What is there of a configuration."""

    access: Mapping[str, Access | None]  # of the directory and of those of the jobs and of the targets
    entries: Mapping[str, Collection[str]]  # all that is in them
    files: Files


@dataclass(frozen=True)
class Plan:
    """What has to be done, in its order."""

    directories: tuple[tuple[str, Access], ...] = ()
    copies: tuple[tuple[str, str], ...] = ()  # files that are kept, and the names that they get
    steps: tuple[tuple[str, File | None], ...] = ()  # None: removed

    def __bool__(self) -> bool:
        return bool(self.directories or self.steps)


@dataclass(frozen=True)
class Configured:
    """What was written and removed, or would be."""

    config_dir: str
    jobs: tuple[str, ...]
    targets: tuple[str, ...]
    written: tuple[str, ...]
    removed: tuple[str, ...]
    diff: Mapping[str, str] = field(repr=False)
    warnings: tuple[str, ...] = ()

    failed = False
    message = ""
    exit_code = DONE

    @property
    def changed(self) -> bool:
        """Return whether anything was written or removed, or would be."""
        return bool(self.written or self.removed)

    def to_json(self) -> dict[str, Any]:
        """Return what the module gives."""
        return {
            "config_dir": self.config_dir,
            "jobs": list(self.jobs),
            "targets": list(self.targets),
            "written": list(self.written),
            "removed": list(self.removed),
        }


def configure(
    raw: Mapping[str, Any], check: bool, _clock: Callable[[], datetime], cancellation: Cancellation | None = None
) -> Configured:
    """Given options as a user wrote them, make the configuration of the host what they say (`check`: only plan it);
    raise ConfigurationError, before anything is replaced unless a file cannot be written.
    """
    options = build(Configuration, raw)
    directory, passfile = _places(options)
    present_wanted = options.state == "present"
    group = options.group if present_wanted else None
    user, warnings = config_files.account(options.owner, group, may_come=check or not present_wanted)
    present = _look(directory, passfile, user, strict=present_wanted)
    jobs, targets = [_names(items) if present_wanted else () for items in (options.jobs, options.targets)]
    if present_wanted:
        wanted = _wanted(options, directory, passfile, user, present)
        plan = _plan(directory, wanted, user, present)
        _refuse(_problems(directory, plan, present), directory, jobs, targets)
        _respect(_written_by_hand(directory, wanted, present), directory, wanted, present)
    else:
        plan = _removal(directory, present)
        warnings = [str(problem) for problem in _problems(directory, plan, present)]  # of what was written by hand
    if not check:
        (cancellation or Cancellation()).check()
        _apply(plan, directory, user)
    return _result(plan, directory, jobs, targets, present, warnings)


def _names(items: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(str(item["name"]) for item in items)


def _places(options: Configuration) -> tuple[str, str]:
    """Given the options, return the directory and the password file; raise ConfigurationError for what is none."""
    for name, path in (("config_dir", options.config_dir), ("passfile", options.passfile)):
        if path is not None and not re.fullmatch("/[^\r\n\0\ud800-\udfff]+", path):
            raise ConfigurationError(f"{name} is {path!r}: must be an absolute path, on one line")
    directory = os.path.normpath(options.config_dir)
    passfile = os.path.normpath(options.passfile or default_passfile(directory))
    if os.path.dirname(passfile) in _folders(directory) or passfile == defaults_file(directory):
        raise ConfigurationError(f"passfile is {passfile!r}, where the configuration has other files: leave it out")
    return directory, passfile


def _folders(directory: str) -> tuple[str, str]:
    """Given the directory, return those of the jobs and of the targets."""
    return jobs_directory(directory), targets_directory(directory)


# --- looking ---


def _look(directory: str, passfile: str, user: Account, strict: bool) -> Present:
    """Given the places, return what is there; with `strict` raise ConfigurationError for a file that cannot be read."""
    folders = _folders(directory)
    places = (directory, *folders)
    access = {place: config_files.directory_access(place) for place in places}
    entries = {place: config_files.entries(place) for place in places}
    paths = [os.path.join(folder, name) for folder in folders for name in entries[folder] if _is_json(name)]
    found = _read((defaults_file(directory), *paths), strict)
    used = [read_options(file.text).get("passfile") for file in found.values() if _is_ours(file, directory)]
    with _rights(user, directory, passfile):
        found.update(_read((passfile,), strict))
        entries.setdefault(os.path.dirname(passfile), config_files.entries(os.path.dirname(passfile)))
    for path in {default_passfile(directory), *(path for path in used if isinstance(path, str) and path)} - {passfile}:
        with _rights(user, directory, path):  # where a run of before may have written one
            others = _read((path,), strict=False)
        found.update((path, file) for path, file in others.items() if file.text.startswith(passfile_mark(directory)))
    return Present(access, entries, found)


def _read(paths: Iterable[str], strict: bool) -> dict[str, File]:
    found = {}
    for path in paths:
        try:
            file = config_files.read_file(path)
        except ConfigurationError:
            if strict:
                raise
            continue
        if file:
            found[path] = file
    return found


def _is_json(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".")


def _rights(user: Account, directory: str, path: str) -> AbstractContextManager[None]:
    """Given the user, the configuration's directory and a path, return the rights to reach it with: the directory is
    root's alone, any other may be the user's.
    """
    ours = path == directory or os.path.dirname(path) in (directory, *_folders(directory))
    return nullcontext() if ours else config_files.rights_of(user)


def _is_in_jobs(path: str, directory: str) -> bool:
    return os.path.dirname(path) == jobs_directory(directory)


def _is_in_targets(path: str, directory: str) -> bool:
    return os.path.dirname(path) == targets_directory(directory)


# --- the plan ---


def _wanted(options: Configuration, directory: str, passfile: str, user: Account, present: Present) -> dict[str, File]:
    """Given the options and what is there, return the files that shall be there."""
    jobs, passwords, targets = said(options.jobs), said(options.passwords), said(options.targets)
    found = request_problems(jobs, passwords, targets)
    if found:
        raise ConfigurationError("; ".join(found))
    defaults = said(options.defaults or {})
    named = {job.pop("name"): job for job in jobs}
    wanted = {}
    if passwords:
        wanted[passfile] = File(render_passfile(directory, passwords), _secret(user))
        by_hand = _defaults_by_hand(directory, present)
        if defaults or by_hand is None:
            defaults = {"passfile": passfile, **defaults}
        elif "passfile" not in by_hand:  # which stay, so that each job has to say it
            named = {name: {"passfile": passfile, **job} for name, job in named.items()}
    if defaults:
        wanted[defaults_file(directory)] = _json_file(defaults, user)
    for name, job in named.items():
        wanted[job_file(directory, name)] = _json_file(job, user)
    for target in targets:
        file = File(render(target, TARGET_CLASSES), _readable(user))
        wanted[target_file(directory, target["name"])] = file
    return wanted


def _defaults_by_hand(directory: str, present: Present) -> dict[str, Any] | None:
    file = present.files.get(defaults_file(directory))
    return None if file is None or _is_ours(file, directory) else read_options(file.text)


def _is_ours(file: File, directory: str) -> bool:
    return not file.is_link and is_managed(file.text, directory)


# Directory and files belong to root, and the owner's group may read them: people run pgkeep with this configuration as
# root, who must not do what the owner could have changed. Only secrets belong to the owner and have mode 0600, because
# pgkeep (login_password) and libpq (the password file) refuse them otherwise. Without root everything is the caller's.


def _secret(user: Account) -> Access:
    return Access(0o600, user.uid, user.gid)


def _readable(user: Account) -> Access:
    return Access(0o640, user.top, user.gid)


def _json_file(job: Mapping[str, Any], user: Account) -> File:
    access = _secret(user) if job.get("login_password") else _readable(user)
    return File(render(job), access)


def _plan(directory: str, wanted: Files, user: Account, present: Present) -> Plan:
    _check_directory(directory, present)
    access = Access(0o750, user.top, user.gid)
    new = {path: file for path, file in wanted.items() if present.files.get(path) != file}
    gone = [path for path, file in present.files.items() if path not in wanted and _is_ours(file, directory)]
    unused = () if any(_is_in_targets(path, directory) for path in wanted) else (targets_directory(directory),)
    return Plan(
        directories=tuple(
            (place, access)
            for place, found in present.access.items()
            if found != access and not (found is None and place in unused)
        ),
        copies=tuple(
            (path, _free_name(path, present.entries[os.path.dirname(path)]))
            for path in new
            if path in present.files and not _is_ours(present.files[path], directory)
        ),
        steps=(*_steps(directory, new, gone, user, present), *_left_over(directory, present)),
    )


def _check_directory(directory: str, present: Present) -> None:
    """Raise ConfigurationError for a directory of something else, whose owner and mode must stay as they are."""
    known = (defaults_file(directory), *_folders(directory), default_passfile(directory))
    entries = present.entries[directory]
    if entries and not {os.path.basename(path) for path in known} & set(entries):
        raise ConfigurationError(
            f"config_dir is {directory!r}, which holds other things and no configuration: name a directory for pgkeep"
            f" alone, or make {jobs_directory(directory)} if this is meant"
        )


def _free_name(path: str, taken: Collection[str]) -> str:
    """Given a file and the names in its directory, return a path beside it that is free: no copy replaces another."""
    number, name = 1, path + KEPT_SUFFIX
    while os.path.basename(name) in taken:
        number += 1
        name = f"{path}{KEPT_SUFFIX}-{number}"
    return name


def _left_over(directory: str, present: Present) -> Iterator[tuple[str, None]]:
    """Yield steps that remove what a killed run left: it may have a password in it."""
    for place in (directory, *_folders(directory)):
        for name in present.entries[place]:
            if name.startswith(NEW_PREFIX):
                yield os.path.join(place, name), None


def _steps(
    directory: str, new: Files, gone: list[str], user: Account, present: Present
) -> Iterator[tuple[str, File | None]]:
    """Given files that are new or different and files to remove, yield the steps in an order in which whoever reads the
    configuration meanwhile never has defaults of before with a job of afterwards, or the other way round.

    A job reads defaults and its file together. So a job that changes together with the defaults first becomes one that
    does not depend on them. What jobs name, targets and the password file, comes before them and goes after them.
    """
    common = defaults_file(directory)
    jobs = {path: file for path, file in new.items() if _is_in_jobs(path, directory)}
    yield from ((path, file) for path, file in new.items() if path not in jobs and path != common)
    yield from ((path, None) for path in gone if _is_in_jobs(path, directory))
    if common in new or common in gone:
        before, after = (read_options(files[common].text) if common in files else {} for files in (present.files, new))
        for path in (path for path in jobs if path in present.files):
            yield path, _json_file(bridged(before, after, read_options(jobs[path].text)), user)
        yield common, new.get(common)
    yield from jobs.items()
    yield from ((path, None) for path in gone if not _is_in_jobs(path, directory) and path != common)


def _removal(directory: str, present: Present) -> Plan:
    """Given what is there, return how all that is ours goes, and the directories where nothing else is in them."""
    steps = [(path, None) for path, file in present.files.items() if _is_ours(file, directory)]
    steps += _left_over(directory, present)
    for place in (*_folders(directory), directory):
        left = {os.path.join(place, name) for name in present.entries[place]} - {path for path, _file in steps}
        if present.access[place] and not left:
            steps.append((place, None))
    return Plan(steps=tuple(steps))


# --- the check ---


def _problems(directory: str, plan: Plan, present: Present) -> list[Problem]:
    """Given the plan and what is there, return what `pgkeep check-config` would say afterwards."""
    after: dict[str, File | None] = {**present.files, **dict(plan.steps)}
    contents = {path: (file.text, file.access.mode) for path, file in after.items() if file}
    return config.check_files(directory, contents)


def _refuse(found: Sequence[Problem], directory: str, jobs: Sequence[str], targets: Sequence[str]) -> None:
    """Given what is wrong, the directory and the names of its jobs and targets, raise ConfigurationError where anything
    is.
    """
    names = {job_file(directory, name): f"job {name}" for name in jobs}
    names.update((target_file(directory, name), f"target {name}") for name in targets)
    names[defaults_file(directory)] = "defaults"
    sentences = [str(replace(problem, file=names.get(problem.file, problem.file))) for problem in found]
    if sentences:
        raise ConfigurationError("; ".join(sentences) + ": correct this; nothing was changed")


def _written_by_hand(directory: str, wanted: Files, present: Present) -> dict[str, dict[str, Any]]:
    """Given what shall be there and what is, return the jobs that people wrote and that stay, by name."""
    return {
        _job_name(path): read_options(file.text)
        for path, file in present.files.items()
        if _is_in_jobs(path, directory) and path not in wanted and not _is_ours(file, directory)
    }


def _job_name(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _respect(people: Mapping[str, Mapping[str, Any]], directory: str, wanted: Files, present: Present) -> None:
    """Given the jobs that people wrote, raise ConfigurationError where they would become others, or lose backups."""
    before = _defaults_by_hand(directory, present) or {}
    after = read_options(wanted[defaults_file(directory)].text) if defaults_file(directory) in wanted else before
    ours = {_job_name(path): read_options(file.text) for path, file in wanted.items() if _is_in_jobs(path, directory)}
    sentences = [
        *by_hand.defaults_problems(before, after, people),
        *by_hand.retention_problems(
            {name: {**after, **job} for name, job in people.items()},
            {name: {**after, **job} for name, job in ours.items()},
        ),
    ]
    if sentences:
        raise ConfigurationError("; ".join(sentences) + ": nothing was changed")


# --- the deed ---


def _apply(plan: Plan, directory: str, user: Account) -> None:
    for place, access in plan.directories:
        config_files.make_directory(place, access)
    for path, copy in plan.copies:
        with _rights(user, directory, path):
            config_files.keep(path, copy)
    for path, file in plan.steps:
        with _rights(user, directory, path):
            if file:
                config_files.write(path, file, secrets.token_hex(8))
            else:
                config_files.remove(path)


# --- what is said about it ---


def _result(
    plan: Plan,
    directory: str,
    jobs: tuple[str, ...],
    targets: tuple[str, ...],
    present: Present,
    warnings: Sequence[str],
) -> Configured:
    files = dict(plan.steps)
    places = [place for place, _access in plan.directories]
    kept = [
        f"{path} was written by hand, and gives way to Ansible's: it is kept as {copy}" for path, copy in plan.copies
    ]
    return Configured(
        config_dir=directory,
        jobs=jobs,
        targets=targets,
        written=(*places, *(path for path, file in files.items() if file)),
        removed=tuple(path for path, file in files.items() if not file),
        diff=_diff(plan, directory, present),
        warnings=(*warnings, *kept),
    )


def _diff(plan: Plan, directory: str, present: Present) -> dict[str, str]:
    """Return all that changes, before and after, each file under a line with its name, owner, group and mode."""
    before = [_title(place, present.access[place]) for place, _access in plan.directories if present.access[place]]
    after = [_title(place, access) for place, access in plan.directories]
    for path, file in dict(plan.steps).items():
        old = present.files.get(path)
        if old:
            before.append(_title(path, old.access) + shown(old.text, directory))
        elif not file:
            before.append(_title(path, present.access.get(path)))
        if file:
            after.append(_title(path, file.access) + shown(file.text, directory, old.text if old else ""))
    names = {"before_header": directory, "after_header": directory}
    return {"before": "".join(before), "after": "".join(after), **names}


def _title(path: str, access: Access | None) -> str:
    return f"{path} ({access})\n" if access else f"{path}\n"
