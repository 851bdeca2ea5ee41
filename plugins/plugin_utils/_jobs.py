# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection.
"""When the jobs of a host run, as its job files, its crontab and its timers agree on it. `filter/jobs.py` are the filters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import schedule
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.configuration import job_name_problem
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ConfigurationError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.model import (
    CONFIG_DIRECTORY,
    Schedule,
    options_of,
)
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.schema import JOB_CLASSES, did_you_mean

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Neither a shell, nor cron (%), nor systemd (%, $, quotes) takes any of these for something else.
_PLAIN = re.compile(r"[A-Za-z0-9_./@:,=+-]*")
_KNOWN = {name: option for options in JOB_CLASSES for name, option in options_of(options).items()}
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
    return options


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
    return {"name": name, **options, **{f"{action}_schedule": text for action, text in resolved.items()}}


def _check_name(name: Any, filter_name: str) -> None:
    if job_name_problem(name):
        raise ConfigurationError(f"{filter_name}: {job_name_problem(name)}")


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


def timers(jobs: Any, command: Any, config_dir: Any = CONFIG_DIRECTORY) -> list[dict[str, Any]]:
    """Given the jobs as resolve_jobs returns them, return what the systemd units of each job and action are made of."""
    _check("command", command, "timers")
    _check("config_dir", config_dir, "timers")
    return [
        {
            "name": f"pgkeep-{job}-{action}",
            "job": job,
            "action": action,
            "command": _command(command, job, action, config_dir),
            "on_calendar": schedule.on_calendar(fields),
        }
        for job, action, fields in _due(jobs, "timers")
    ]


def _check(name: str, value: Any, filter_name: str) -> None:
    if not isinstance(value, str) or not _PLAIN.fullmatch(value):
        raise ConfigurationError(
            f"{filter_name}: {name} is {value!r}: only letters, digits and _./@:,=+- can be in it, as nothing here is quoted"
        )
    if name in ("command", "config_dir") and not value.startswith("/"):
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
            if text in (schedule.NEVER, schedule.AFTER_BACKUP):
                continue
            try:
                schedule.parse(str(text))
            except ConfigurationError as error:
                raise ConfigurationError(
                    f"{filter_name}: job {name}: {action}_schedule is {text!r}: {error}: give the jobs to resolve_jobs first"
                ) from None
            yield str(name), action, str(text)
