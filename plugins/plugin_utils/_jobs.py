# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection.
"""When the jobs of a host run, as its job files, its crontab and its timers agree on it, and where their copies go.
`filter/jobs.py` are the filters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import schedule
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.configuration import (
    job_name_problem,
    target_name_problem,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ConfigurationError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import (
    CONFIG_DIRECTORY,
    Schedule,
    options_of,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.schema import (
    JOB_CLASSES,
    TARGET_CLASSES,
    did_you_mean,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.targets import flag_problem

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Neither a shell, nor cron (%), nor systemd (%, $, quotes) takes any of these for something else.
_PLAIN = re.compile(r"[A-Za-z0-9_./@:,=+-]*")
_KNOWN = {name: option for options in JOB_CLASSES for name, option in options_of(options).items()}
_OF_TARGETS = [name for options in TARGET_CLASSES for name in options_of(options)]
_SYNC = "sync_schedule"
_HEADER = """\
# Managed by Ansible: changes here are lost.
# When the jobs of pgkeep begin, in the time zone of this host. What each does is in {config_dir}/jobs.d.
SHELL=/bin/sh
PATH={search_path}
MAILTO={mailto}
"""


def resolve_jobs(jobs: Any, host: Any, defaults: Any = None) -> list[dict[str, Any]]:
    """Given the jobs by name, the host and what all jobs have in common, return the jobs with their schedules resolved."""
    common = _options(defaults, "defaults")
    if not isinstance(jobs, Mapping):
        raise ConfigurationError("resolve_jobs: the jobs must be a dictionary of names and options")
    return [_resolved(name, _options(jobs[name], f"job {name}"), str(host), common) for name in sorted(jobs, key=str)]


def _options(written: Any, what: str) -> dict[str, Any]:
    if written is None:
        return {}
    if not isinstance(written, Mapping):
        raise ConfigurationError(f"resolve_jobs: {what} must be a dictionary of options")
    options = {str(name): written[name] for name in written}
    # Said here, before a module is given a password that Ansible does not recognise and would show with -vvv.
    for name, value in options.items():
        if name not in _KNOWN:
            raise ConfigurationError(f"resolve_jobs: {what}: {name} is not an option{did_you_mean(name, _KNOWN)}")
        if _KNOWN[name].kind == "password" and isinstance(value, (list, dict)):
            raise ConfigurationError(f"resolve_jobs: {what}: {name} must be a text")
    if "targets" in options:  # null would be lost on the way to the job's file, and the defaults would count
        options["targets"] = _targets(options, f"resolve_jobs: {what}")
    return options


def _targets(options: Mapping[str, Any], what: str) -> list[str]:
    """Given options, return the targets in them; raise ConfigurationError."""
    targets = options.get("targets") or []
    if not isinstance(targets, list) or not all(isinstance(name, str) for name in targets):
        raise ConfigurationError(f"{what}: targets is {targets!r}: must be a list of names")
    return targets


def _resolved(name: Any, options: dict[str, Any], host: str, common: Mapping[str, Any]) -> dict[str, Any]:
    said = {**common, **options}
    _check_name(name, "resolve_jobs")
    for option in options_of(Schedule):
        if not isinstance(said.get(option), (str, type(None))):
            raise ConfigurationError(f"resolve_jobs: job {name}: {option} is {said[option]!r}: must be a text")
    try:
        resolved = schedule.resolve(said, name, host)
    except ConfigurationError as error:
        raise ConfigurationError(f"resolve_jobs: job {name}: {error}") from None
    own = {option: value for option, value in options.items() if option != _SYNC or "sync" in resolved}
    return {"name": name, **own, **{f"{action}_schedule": text for action, text in resolved.items()}}


def _check_name(name: Any, filter_name: str) -> None:
    if job_name_problem(name):
        raise ConfigurationError(f"{filter_name}: {job_name_problem(name)}")


def named_targets(targets: Any) -> list[dict[str, Any]]:
    """Given the targets by name, return them with their names, sorted; raise ConfigurationError without any value that may
    be a secret in the wrong place.
    """
    if not isinstance(targets, Mapping):
        raise ConfigurationError("named_targets: the targets must be a dictionary of names and options")
    return [_named(name, targets[name]) for name in sorted(targets, key=str)]


def _named(name: Any, target: Any) -> dict[str, Any]:
    if target_name_problem(name):
        raise ConfigurationError(f"named_targets: {target_name_problem(name)}")
    if not isinstance(target, Mapping):
        raise ConfigurationError(f"named_targets: target {name} must be a dictionary of options")
    for option in target:
        if option not in _OF_TARGETS:
            raise ConfigurationError(
                f"named_targets: target {name}: {option} is not an option{did_you_mean(option, _OF_TARGETS)}"
            )
    flags = target.get("flags") or []
    for problem in [flag_problem(str(flag)) for flag in (flags if isinstance(flags, list) else [flags])]:
        if problem:
            raise ConfigurationError(f"named_targets: target {name}: {problem}")
    return {"name": name, **target}


def crontab(
    jobs: Any,
    command: Any,
    user: Any,
    mailto: Any = "",
    search_path: Any = SEARCH_PATH,
    config_dir: Any = CONFIG_DIRECTORY,
) -> str:
    """Given the jobs as resolve_jobs returns them, return the text of their file for cron.d, "" where nothing is due."""
    said = {"command": command, "user": user, "mailto": mailto, "search_path": search_path, "config_dir": config_dir}
    for name, value in said.items():
        _check(name, value, "crontab")
    if not user:
        raise ConfigurationError("crontab: user is empty: name the user that runs the jobs")
    entries = [
        f"\n# {job}: {action}\n{fields} {user} {' '.join(_command(command, job, action, config_dir))}\n"
        for job, action, fields in _due(jobs, "crontab")
    ]
    header = _HEADER.format(config_dir=config_dir.rstrip("/"), search_path=search_path, mailto=mailto or '""')
    return "".join([header, *entries]) if entries else ""


def timers(
    jobs: Any, command: Any, config_dir: Any = CONFIG_DIRECTORY, defaults: Any = None, targets: Any = None
) -> list[dict[str, Any]]:
    """Given the jobs as resolve_jobs returns them, what all have in common and the targets by name, return what the systemd
    units of each job and action are made of.
    """
    known = {target["name"]: target for target in named_targets(targets or {})}
    _check("command", command, "timers")
    _check("config_dir", config_dir, "timers")
    return [
        {
            "name": f"pgkeep-{job}-{action}",
            "job": job,
            "action": action,
            "command": _command(command, job, action, config_dir),
            "on_calendar": schedule.on_calendar(fields),
            "places": _places(next(item for item in jobs if item["name"] == job), action, defaults, known),
        }
        for job, action, fields in _due(jobs, "timers")
    ]


def _places(job: Mapping[str, Any], action: str, defaults: Any, known: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Given a job as resolve_jobs returns it, an action, what all jobs have in common and the targets, return the
    directories of this host that the action copies to, each with the one in which it may have to be made.
    """
    if action != "sync" and (action != "backup" or job.get(_SYNC) != schedule.AFTER_BACKUP):
        return []
    places: list[str] = []
    for name in _targets({**(defaults or {}), **job}, f"timers: job {job['name']}"):
        target = known.get(name, {})
        if target.get("type") == "directory":
            path = str(target.get("path") or "").rstrip("/")
            _check(f"path of target {name}", path, "timers", is_path=True)
            places += [place for place in (path, path.rpartition("/")[0]) if place and place not in places]
    return places


def _check(name: str, value: Any, filter_name: str, is_path: bool = False) -> None:
    if not isinstance(value, str) or not _PLAIN.fullmatch(value):
        raise ConfigurationError(
            f"{filter_name}: {name} is {value!r}: only letters, digits and _./@:,=+- can be in it, as nothing here is quoted"
        )
    if (is_path or name in ("command", "config_dir")) and not value.startswith("/"):
        raise ConfigurationError(f"{filter_name}: {name} is {value!r}: must be an absolute path")


def _command(command: str, job: str, action: str, config_dir: str) -> list[str]:
    words = ["run", job] if action == "backup" else [action, "--job", job]
    place = [] if config_dir == CONFIG_DIRECTORY else ["--config-dir", config_dir]
    return [command, *words, "--quiet", *place]


def _due(jobs: Any, filter_name: str) -> Iterator[tuple[str, str, str]]:
    """Given the jobs as resolve_jobs returns them, yield job, action and the five fields of each action that has some."""
    if isinstance(jobs, (str, Mapping)) or not isinstance(jobs, Sequence):
        raise ConfigurationError(f"{filter_name}: the jobs must be the list that resolve_jobs returns")
    for job in jobs:
        name = job.get("name") if isinstance(job, Mapping) else None
        _check_name(name, filter_name)
        for action in schedule.ACTIONS:
            text = job.get(f"{action}_schedule")
            without_targets = action == "sync" and text is None
            if text in (schedule.NEVER, schedule.AFTER_BACKUP) or without_targets:
                continue
            try:
                schedule.parse(str(text))
            except ConfigurationError as error:
                raise ConfigurationError(
                    f"{filter_name}: job {name}: {action}_schedule is {text!r}: {error}: give the jobs to resolve_jobs first"
                ) from None
            yield str(name), action, str(text)
