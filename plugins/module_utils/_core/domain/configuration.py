# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""The configuration of a host as a whole: what a user says of it, the text of its files, and what of them is shown."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from .model import CONFIG_DIRECTORY, Option, option, options_of
from .schema import JOB_CLASSES, REMARKS, TARGET_CLASSES, problems, target_schema

# A name that began with - would be an option to the command.
JOB_NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_-]*$"
MARK = "Managed by Ansible: changes here are lost."
KEPT_SUFFIX = ".before-ansible"
HIDDEN, DIFFERS = "(hidden)", "(hidden, and another one than before)"
_NOT_SHOWN = "(written by hand, and not shown)\n"
# A line break would end the line of a password file; JSON can say the others, and no file can hold them.
_UNWRITABLE = re.compile("[\r\n\0\ud800-\udfff]")


@dataclass(frozen=True)
class JobName:
    """What a job is called."""

    name: str = option(
        "str",
        "Name of the job: letters, digits, `_` and `-`, and no `-` at the beginning. Its file is `jobs.d/NAME.json`.",
        required=True,
        pattern=JOB_NAME_PATTERN,
    )


@dataclass(frozen=True)
class TargetName:
    """What a target is called."""

    name: str = option(
        "str",
        "Name of the target, as jobs say it in `targets`: the same characters as in the name of a job. Its file is"
        " `targets.d/NAME.json`.",
        required=True,
        pattern=JOB_NAME_PATTERN,
    )


@dataclass(frozen=True)
class Password:
    """One line of a password file."""

    host: str = option(
        "str",
        "Host of the server as `login_host` says it, the directory of a Unix socket, or `*` for every host. `localhost`"
        " also stands for the client's default socket.",
        "*",
    )
    port: str = option("str", "Port of the server, or `*`.", "*")
    database: str = option("str", "Name of the database, or `*`.", "*")
    user: str = option("str", "Role to connect as, or `*`.", "*")
    password: str = option("password", "The password, without a line break.", required=True)


# Here are more kinds of options: `job` (the options of a job, as a file has them), `jobs` (a list of such, each with a
# name), `targets` (a list of targets, as a file has them, each with a name) and `passwords` (a list of Password).
@dataclass(frozen=True)
class Configuration:
    """Everything that the configuration of a host consists of."""

    config_dir: str = option(
        "path", "Directory of the configuration. It is created if its parent exists.", CONFIG_DIRECTORY
    )
    state: str = option(
        "str",
        "`present` writes the configuration. `absent` removes what this module wrote, and the directories if they are"
        " empty then; it never removes a backup.",
        "present",
        choices=("present", "absent"),
    )
    defaults: Mapping[str, Any] | None = option(
        "job",
        "What all jobs have in common, for `defaults.json`. Only what is said is written; what has no value here and in"
        " the job has pgkeep's default.",
    )
    jobs: Sequence[Mapping[str, Any]] = option(
        "jobs",
        "The jobs, each with a name and whatever options differ from `defaults`. A job that this module wrote and that"
        " is not among them any more is removed.",
        (),
    )
    targets: Sequence[Mapping[str, Any]] = option(
        "targets",
        "Places outside of the host that keep copies, for the jobs that name them. A target that this module wrote and that"
        " is not among them any more is removed. Secrets are not here, but in the files that are named.",
        (),
    )
    passwords: Sequence[Mapping[str, Any]] = option(
        "passwords",
        "Passwords of servers, in their order, for the password file of the jobs. The first that fits is used.",
        (),
    )
    passfile: str | None = option(
        "path",
        "The password file. Without it, the file `pgpass` in `config_dir`. With `passwords` it is the `passfile` of"
        " every job that names none. In another directory it is written with the rights of `owner`.",
    )
    owner: str = option(
        "str", "User that runs the jobs. An ordinary user can only write a configuration for itself.", "postgres"
    )
    group: str | None = option(
        "str", "Group that may read the configuration. Without it, the primary group of `owner`."
    )


# kind -> classes of which everything is said, and classes of which only a part is.
NESTED: dict[str, tuple[tuple[type, ...], tuple[type, ...]]] = {
    "job": ((), JOB_CLASSES),
    "jobs": ((JobName,), JOB_CLASSES),
    "targets": ((TargetName,), TARGET_CLASSES),
    "passwords": ((Password,), ()),
}


def _options(classes: Iterable[type]) -> dict[str, Option]:
    return {name: item for cls in classes for name, item in options_of(cls).items()}


# --- names of files ---


def defaults_file(directory: str) -> str:
    """Given the directory of a configuration, return the file of what all jobs have in common."""
    return os.path.join(directory, "defaults.json")


def jobs_directory(directory: str) -> str:
    """Given the directory of a configuration, return the directory of the jobs."""
    return os.path.join(directory, "jobs.d")


def job_file(directory: str, name: str) -> str:
    """Given the directory of a configuration and the name of a job, return the job's file."""
    return os.path.join(jobs_directory(directory), f"{name}.json")


def targets_directory(directory: str) -> str:
    """Given the directory of a configuration, return the directory of the targets."""
    return os.path.join(directory, "targets.d")


def target_file(directory: str, name: str) -> str:
    """Given the directory of a configuration and the name of a target, return the target's file."""
    return os.path.join(targets_directory(directory), f"{name}.json")


def default_passfile(directory: str) -> str:
    """Given the directory of a configuration, return the password file that belongs to it."""
    return os.path.join(directory, "pgpass")


# --- what was said ---


def said(value: Any) -> Any:
    """Given what Ansible makes of a job or of a part of it, return it without what nobody said."""
    if isinstance(value, Mapping):
        return {name: said(item) for name, item in value.items() if item is not None}
    return [said(item) for item in value] if isinstance(value, (list, tuple)) else value


def job_name_problem(name: Any, what: str = "job") -> str:
    """Given what shall be the name of a job (`what`: or of something else), return why it cannot be, or ""."""
    if isinstance(name, str) and re.fullmatch(JOB_NAME_PATTERN, name):
        return ""
    return f"{name!r} is not the name of a {what}: letters, digits, _ and - are allowed, and no - at the beginning"


def target_name_problem(name: Any) -> str:
    """Given what shall be the name of a target, return why it cannot be, or ""."""
    return job_name_problem(name, "target")


def looks_like_target(document: Mapping[str, Any]) -> bool:
    """Given a document that stands alone, return whether it was meant as a target and not as a job."""
    job, target = _options(JOB_CLASSES).keys(), _options(TARGET_CLASSES).keys()
    return len(document.keys() & (target - job)) > len(document.keys() & (job - target))


def request_problems(
    jobs: Sequence[Mapping[str, Any]],
    passwords: Sequence[Mapping[str, Any]],
    targets: Sequence[Mapping[str, Any]] = (),
) -> list[str]:
    """Given jobs, passwords and targets as a user wrote them, return what is wrong with names and passwords, without any
    secret.
    """
    found = _name_problems("jobs", jobs, job_name_problem) + _name_problems("targets", targets, target_name_problem)
    for index, entry in enumerate(passwords):
        found += [f"passwords[{index}]: {problem}" for problem in _password_problems(entry)]
    twice = _twice([_address(entry) for entry in passwords])
    return found + [f"passwords: there are two for {address}: libpq would only use the first" for address in twice]


def _name_problems(what: str, items: Sequence[Mapping[str, Any]], problem_of: Callable[[Any], str]) -> list[str]:
    names = [item["name"] for item in items]
    found = [f"{what}: {problem}" for problem in map(problem_of, names) if problem]
    return found + [f"{what}: {name!r} stands there twice: remove one" for name in _twice(names)]


def _twice(items: Sequence[str]) -> list[str]:
    return sorted({item for item in items if items.count(item) > 1})


def _password_problems(entry: Mapping[str, Any]) -> list[str]:
    found = []
    for name in options_of(Password):
        if not entry[name]:
            cure = "say the password of the role" if name == "password" else "say * for any"
            found.append(f"{name} is empty: {cure}")
        elif _UNWRITABLE.search(entry[name]):
            found.append(
                f"{name} contains a line break, or another character that a password file cannot hold: change it"
            )
    if not re.fullmatch(r"\*|[0-9]+|", entry["port"]):
        found.append("port must be a number or *")
    if entry["host"].startswith("#"):
        found.append("host begins with #, which would make the line a comment: change it")
    return found


# --- texts ---


def render(options: Mapping[str, Any], classes: Iterable[type] = JOB_CLASSES) -> str:
    """Given options as a user wrote them (those of a job, or of the classes), return the file: the mark, and then the
    options in the model's order.
    """
    ordered = {name: options[name] for name in _options(classes) if name in options}
    return json.dumps({"comment": MARK, **ordered}, indent=2, ensure_ascii=False) + "\n"


def passfile_mark(directory: str) -> str:
    """Given the directory of a configuration, return the first line of its password file."""
    return f"# Managed by Ansible for {directory}: changes here are lost."


def render_passfile(directory: str, passwords: Sequence[Mapping[str, Any]]) -> str:
    """Given the directory of a configuration and passwords without problems, return the file as libpq reads it."""
    lines = (f"{_address(entry)}:{_escaped(entry['password'])}" for entry in passwords)
    return "\n".join((passfile_mark(directory), *lines, ""))


def _address(entry: Mapping[str, Any]) -> str:
    return ":".join(_escaped(entry[name]) for name in ("host", "port", "database", "user"))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:")


def read_options(text: str) -> dict[str, Any]:
    """Given the text of any file, return the JSON object in it, {} where there is none."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def is_managed(text: str, directory: str) -> bool:
    """Given the text of a file and the directory of the configuration, return whether it was written by Ansible."""
    return read_options(text).get("comment") == MARK or text.startswith(passfile_mark(directory) + "\n")


def bridged(before: Mapping[str, Any], defaults: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    """Given the defaults of before, those of afterwards and a job of afterwards, return the job so that it is the same
    with either.
    """
    known = _options(JOB_CLASSES)
    unsaid = {name: known[name].default for name in before if name in known}
    return {**unsaid, **defaults, **job}


# --- what is shown ---


def shown(text: str, directory: str, before: str = "") -> str:
    """Given the text of a file, the directory of the configuration and perhaps the file's text of before, return what
    may be seen of it: passwords are replaced, with another word where they were different before.

    A key that is not known may be a misspelt password. What was written by hand may have one anywhere in it.
    """
    if text.startswith(passfile_mark(directory) + "\n"):
        return _shown_passfile(text, before if is_managed(before, directory) else "")
    document = read_options(text)
    if not document:
        return _NOT_SHOWN if text else ""
    earlier = read_options(before)
    open_keys = _open_keys(document)
    result = {
        name: value if name in open_keys or value is None else _veil(value, earlier.get(name, value))
        for name, value in document.items()
    }
    return json.dumps(result, indent=2, ensure_ascii=False) + "\n"


def _open_keys(document: Mapping[str, Any]) -> set[str]:
    """Given a job or a target, return the keys whose values may be seen. In a target that is refused, a secret may stand in
    the wrong place.
    """
    if not looks_like_target(document):
        return {*REMARKS, *(name for name, item in _options(JOB_CLASSES).items() if item.kind != "password")}
    from .targets import target_problems  # a run of a job without targets does without

    is_good = not problems(document, target_schema()) and not target_problems(document)
    return {*REMARKS, *(_options(TARGET_CLASSES) if is_good else ())}


def _veil(value: Any, before: Any) -> str:
    return HIDDEN if value == before else DIFFERS


def _shown_passfile(text: str, before: str) -> str:
    earlier = dict(map(_split, before.split("\n")))
    mark, *lines = text.rstrip("\n").split("\n")
    shown_lines = [
        f"{address}:{_veil(password, earlier.get(address, password))}" for address, password in map(_split, lines)
    ]
    return "\n".join((mark, *shown_lines, ""))


def _split(line: str) -> tuple[str, str]:
    """Given a line of a password file, return what it is for and the password; what is not such a line is a secret."""
    match = re.fullmatch(r"((?:(?:\\.|[^\\:])*:){3}(?:\\.|[^\\:])*):(.*)", line)
    return (match[1], match[2]) if match else ("", line)
