# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.pgkeep.backup.plugins.module_utils._core import command_line
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import schedule
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ConfigurationError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.job import combination_problems

# Not the filters themselves: Ansible takes a process that has imported those for its controller.
from ansible_collections.pgkeep.backup.plugins.plugin_utils._jobs import (
    crontab,
    named_targets,
    resolve_jobs,
    timers,
)

from tests.playbook import HERE, run_playbook

ROOT = Path(__file__).resolve().parents[3]
COMMAND = "/usr/local/bin/pgkeep"
JOBS: dict[str, Any] = {
    "reports": {"databases": ["reports"], "prune_schedule": "weekly", "verify_schedule": "never"},
    "main": None,
}
AT_ONCE = {"schedule_spread": "0"}


# --- resolve_jobs ---


def test_jobs_keep_their_options_and_get_their_times() -> None:
    assert resolve_jobs(JOBS, "db1", AT_ONCE) == [
        {
            "name": "main",
            "backup_schedule": "0 2 * * *",
            "prune_schedule": "after_backup",
            "verify_schedule": "0 3 * * 0",
            "drill_schedule": "0 4 1 * *",
        },
        {
            "name": "reports",
            "databases": ["reports"],
            "backup_schedule": "0 2 * * *",
            "prune_schedule": "0 3 * * 0",
            "verify_schedule": "never",
            "drill_schedule": "0 4 1 * *",
        },
    ]


def test_the_times_are_those_of_the_engine_for_this_host() -> None:
    (job,) = resolve_jobs({"main": {}}, "db1")
    expected = schedule.resolve({}, "main", "db1")
    assert {name.removesuffix("_schedule"): text for name, text in job.items() if name != "name"} == expected
    assert resolve_jobs({"main": {}}, "db2") != [job]


def test_what_a_job_does_not_say_the_defaults_say() -> None:
    defaults = {**AT_ONCE, "backup_schedule": "hourly", "verify_schedule": "never", "repository": "/srv"}
    (job,) = resolve_jobs({"main": {"verify_schedule": "30 5 * * *"}}, "db1", defaults)
    assert (job["backup_schedule"], job["verify_schedule"]) == ("0 * * * *", "30 5 * * *")
    assert "repository" not in job
    # As in a job file, null is "not said", and the defaults do not count either.
    (job,) = resolve_jobs({"main": {"backup_schedule": None}}, "db1", defaults)
    assert job["backup_schedule"] == "0 2 * * *"


def test_what_is_resolved_stays_as_it_is_and_is_good_in_a_job_file() -> None:
    resolved = resolve_jobs(JOBS, "db1")
    again = {job["name"]: {name: value for name, value in job.items() if name != "name"} for job in resolved}
    assert resolve_jobs(again, "db2") == resolved
    assert [combination_problems(job) for job in resolved] == [[], []]


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        ([], "the jobs must be a dictionary of names and options"),
        ({"main": "x"}, "job main must be a dictionary of options"),
        ({"main": {"backup_schedule": 5}}, "job main: backup_schedule is 5: must be a text"),
        ({"main": {"login_pasword": "x"}}, "job main: login_pasword is not an option: did you mean login_password?"),
        ({"main": {"backup_schedule": "dayly"}}, "job main: backup_schedule is 'dayly': not a schedule: did you mean daily?"),
        ({"main": {"backup_schedule": "0 2 31 2 *"}}, "job main: backup_schedule is '0 2 31 2 *': there is no day 31"),
        ({"main": {"schedule_spread": "soon"}}, "job main: schedule_spread: 'soon' is not a duration"),
        ({"a b": {}}, "'a b' is not the name of a job"),
        ({"main\n": {}}, "is not the name of a job"),
        ({"-x": {}}, "'-x' is not the name of a job: letters, digits, _ and - are allowed, and no - at the beginning"),
        ({1: {}}, "1 is not the name of a job"),
    ],
)  # fmt: skip
def test_jobs_that_cannot_be_meant_are_refused(jobs: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        resolve_jobs(jobs, "db1")


def test_defaults_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="defaults must be a dictionary of options"):
        resolve_jobs({}, "db1", ["x"])
    with pytest.raises(ConfigurationError, match=r"defaults: jbos is not an option: did you mean jobs\?$"):
        resolve_jobs({}, "db1", {"jbos": "x"})
    with pytest.raises(ConfigurationError, match="job main: drill_schedule is 'after_backup': only prune_schedule"):
        resolve_jobs({"main": {}}, "db1", {"drill_schedule": "after_backup"})


# --- crontab ---

CRONTAB = """\
# Managed by Ansible: changes here are lost.
# When the jobs of pgkeep begin, in the time zone of this host. What each does is in /etc/pgkeep/jobs.d.
SHELL=/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
MAILTO=root

# main: backup
0 2 * * * postgres /usr/local/bin/pgkeep run main --quiet

# main: verify
0 3 * * 0 postgres /usr/local/bin/pgkeep verify --job main --quiet

# main: drill
0 4 1 * * postgres /usr/local/bin/pgkeep drill --job main --quiet

# reports: backup
0 2 * * * postgres /usr/local/bin/pgkeep run reports --quiet

# reports: prune
0 3 * * 0 postgres /usr/local/bin/pgkeep prune --job reports --quiet

# reports: drill
0 4 1 * * postgres /usr/local/bin/pgkeep drill --job reports --quiet
"""


def test_a_crontab_has_a_line_for_each_job_and_action() -> None:
    assert crontab(resolve_jobs(JOBS, "db1", AT_ONCE), COMMAND, "postgres", mailto="root") == CRONTAB


def test_another_directory_is_said_and_nobody_gets_mail() -> None:
    text = crontab(resolve_jobs({"main": {}}, "db1"), COMMAND, "backup", search_path="/bin", config_dir="/opt/etc")
    lines = text.splitlines()
    assert {'MAILTO=""', "PATH=/bin"} < set(lines)
    assert all(line.endswith(" --quiet --config-dir /opt/etc") for line in lines if " backup " in line)
    assert "/opt/etc/jobs.d" in text


def test_nothing_to_run_is_an_empty_file() -> None:
    never = {f"{action}_schedule": "never" for action in schedule.ACTIONS}
    assert crontab([], COMMAND, "postgres") == ""
    assert crontab(resolve_jobs({"main": never}, "db1"), COMMAND, "postgres") == ""


@pytest.mark.parametrize(
    "changed",
    [
        {"command": "/usr/bin/pgkeep; reboot"},
        {"command": "pgkeep"},
        {"command": None},
        {"user": "post gres"},
        {"user": ""},
        {"user": "postgres\n* * * * * root reboot"},
        {"mailto": "root, me"},
        {"mailto": "`id`"},
        {"search_path": "/bin:$HOME"},
        {"config_dir": "/etc/50%"},
        {"config_dir": "etc"},
    ],
)
def test_what_a_shell_or_cron_would_act_on_is_refused(changed: dict[str, Any]) -> None:
    ((name, value),) = changed.items()
    with pytest.raises(ConfigurationError, match=f"crontab: {name} is "):
        crontab(resolve_jobs(JOBS, "db1"), **{"command": COMMAND, "user": "postgres", **changed})
    if name in ("command", "config_dir"):
        with pytest.raises(ConfigurationError, match=re.escape(f"timers: {name} is {value!r}")):
            timers(resolve_jobs(JOBS, "db1"), **{"command": COMMAND, **changed})


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        (JOBS, "the jobs must be the list that resolve_jobs returns"),
        ("main", "the jobs must be the list that resolve_jobs returns"),
        ([{"name": "main"}], "job main: backup_schedule is None"),
        ([{"name": "main", "backup_schedule": "daily"}], "'daily': 1 field instead of five"),
        ([{"name": "main", "backup_schedule": "* * * * *\n* * * * * root reboot"}], "one space between the fields"),
        ([{"name": "x y"}], "'x y' is not the name of a job"),
        (["main"], "None is not the name of a job"),
    ],
)
def test_only_resolved_jobs_get_a_line(jobs: Any, said: str) -> None:
    for apply in (lambda: crontab(jobs, COMMAND, "postgres"), lambda: timers(jobs, COMMAND)):
        with pytest.raises(ConfigurationError, match=re.escape(said)):
            apply()


def test_every_line_is_a_command_that_pgkeep_takes() -> None:
    text = crontab(resolve_jobs(JOBS, "db1"), COMMAND, "postgres", config_dir="/opt/etc")
    lines = [line for line in text.splitlines() if COMMAND in line]
    assert len(lines) == 6
    for line in lines:
        user, command, *arguments = line.split()[5:]
        parsed = command_line.parser().parse_args(arguments)
        assert (user, command, arguments[0]) == ("postgres", COMMAND, parsed.command)
        assert (parsed.job in JOBS, parsed.quiet, parsed.config_dir) == (True, True, "/opt/etc")


# --- timers ---


def test_timers_are_what_units_are_made_of() -> None:
    jobs = resolve_jobs({"main": {"drill_schedule": "0 4 13 * fri", "verify_schedule": "never"}}, "db1", AT_ONCE)
    assert timers(jobs, COMMAND) == [
        {
            "name": "pgkeep-main-backup",
            "job": "main",
            "action": "backup",
            "command": [COMMAND, "run", "main", "--quiet"],
            "on_calendar": ["*-*-* 02:00:00"],
            "places": [],
        },
        {
            "name": "pgkeep-main-drill",
            "job": "main",
            "action": "drill",
            "command": [COMMAND, "drill", "--job", "main", "--quiet"],
            "on_calendar": ["*-*-13 04:00:00", "Fri *-*-* 04:00:00"],
            "places": [],
        },
    ]
    assert timers(jobs, COMMAND, "/opt/etc")[0]["command"][-2:] == ["--config-dir", "/opt/etc"]


def test_the_crontab_and_the_timers_run_the_same() -> None:
    jobs = resolve_jobs(JOBS, "db1")
    lines = [line.split(maxsplit=6)[6] for line in crontab(jobs, COMMAND, "postgres").splitlines() if COMMAND in line]
    assert [" ".join(item["command"]) for item in timers(jobs, COMMAND)] == lines


# --- copies ---

TARGETS: dict[str, Any] = {
    "shelf": {"type": "directory", "path": "/mnt/nas/db1/", "keep_last": 3},
    "disk": {"type": "directory", "path": "/disk"},
    "vault": {"type": "rsync", "host": "vault"},
}
NIGHTLY = {"drill_schedule": "never", "verify_schedule": "never", **AT_ONCE}


def test_a_job_with_targets_has_a_line_for_its_copies_where_it_has_a_schedule_for_them() -> None:
    own = {"targets": ["vault"], "sync_schedule": "hourly"}
    common = {**NIGHTLY, "targets": ["vault"], "sync_schedule": "0 6 * * *"}
    ways: list[tuple[Any, Any, list[str]]] = [
        (own, NIGHTLY, ["0 * * * *"]),
        ({}, common, ["0 6 * * *"]),
        ({"targets": ["vault"]}, NIGHTLY, []),  # at the end of its run
        ({"sync_schedule": "hourly"}, NIGHTLY, []),
        ({"targets": []}, common, []),
        ({"targets": None}, common, []),
    ]
    for job, defaults, expected in ways:
        (resolved,) = jobs = resolve_jobs({"main": job}, "db1", defaults)
        lines = crontab(jobs, COMMAND, "postgres").splitlines()
        command = "postgres /usr/local/bin/pgkeep sync --job main --quiet"
        assert [line.removesuffix(f" {command}") for line in lines if " sync " in line] == expected, job
        assert [" ".join(item["command"]) for item in timers(jobs, COMMAND) if item["action"] == "sync"] == [
            command.split(maxsplit=1)[1] for _line in expected
        ]
        assert ("sync_schedule" in resolved) == bool({**defaults, **job}.get("targets"))
        assert combination_problems(resolved) == []
        assert resolved.get("targets", []) is not None  # null would be lost on the way to the file


def test_a_service_may_write_to_the_storage_that_it_copies_to_and_no_other_service_may() -> None:
    shelf = ["/mnt/nas/db1", "/mnt/nas"]
    ways: list[tuple[dict[str, Any], dict[str, list[str]]]] = [
        ({"targets": ["shelf", "vault"]}, {"backup": shelf, "prune": []}),
        ({"targets": ["vault"]}, {"backup": [], "prune": []}),
        ({"targets": ["disk", "by-hand"], "sync_schedule": "hourly"}, {"backup": [], "prune": [], "sync": ["/disk"]}),
        ({}, {"backup": [], "prune": []}),
    ]
    for job, expected in ways:
        for own, common in ((job, {}), ({}, job)):
            defaults = {**NIGHTLY, "prune_schedule": "weekly", **common}
            jobs = resolve_jobs({"main": own}, "db1", defaults)
            found = timers(jobs, COMMAND, defaults=defaults, targets=TARGETS)
            assert {item["action"]: item["places"] for item in found} == expected


def test_a_place_that_systemd_would_take_for_something_else_is_refused() -> None:
    for path in ("/mnt/my shelf", "/mnt/50%", "shelf"):
        jobs = resolve_jobs({"main": {"targets": ["x"]}}, "db1")
        with pytest.raises(ConfigurationError, match=f"timers: path of target x is '{path}'"):
            timers(jobs, COMMAND, targets={"x": {"type": "directory", "path": path}})


def test_targets_get_their_names_and_nothing_else() -> None:
    assert named_targets(TARGETS) == [{"name": name, **TARGETS[name]} for name in ("disk", "shelf", "vault")]
    assert named_targets({}) == []


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ([], "the targets must be a dictionary of names and options"),
        ({"a b": {}}, "'a b' is not the name of a target: letters, digits"),
        ({"x": "y"}, "target x must be a dictionary of options"),
        ({"x": None}, "target x must be a dictionary of options"),
        ({"x": {"secret_access_key": "s3cret"}}, "target x: secret_access_key is not an option"),
        ({"x": {"pth": "s3cret"}}, "target x: pth is not an option: did you mean path?"),
        (
            {"x": {"flags": ["--s3-secret-access-key=s3cret"]}},
            "target x: flags: --s3-secret-access-key: secrets belong",
        ),
        ({"x": {"flags": "--s3-secret-access-key=s3cret"}}, "target x: flags: --s3-secret-access-key: secrets belong"),
    ],
)
def test_targets_that_cannot_be_meant_are_refused_without_what_may_be_a_secret(targets: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        named_targets(targets)
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("targets", ["vault", [5], {"vault": {}}])
def test_the_targets_of_a_job_are_a_list_of_names(targets: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"resolve_jobs: job main: targets is .*: must be a list of names"):
        resolve_jobs({"main": {"targets": targets}}, "db1")
    with pytest.raises(ConfigurationError, match=r"resolve_jobs: defaults: targets is"):
        resolve_jobs({"main": {}}, "db1", {"targets": targets})


# --- documentation, and in a playbook ---


@pytest.mark.parametrize("function", [resolve_jobs, named_targets, crontab, timers])
def test_a_filter_documents_exactly_its_arguments(function: Callable[..., Any]) -> None:
    name = function.__name__
    command = [str(Path(sys.executable).with_name("ansible-doc")), "--json", "-t", "filter", f"pgkeep.backup.{name}"]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache" / "collections")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)[f"pgkeep.backup.{name}"]
    arguments = inspect.signature(function).parameters
    options = document["doc"]["options"]
    assert {"_input", *list(arguments)[1:]} == options.keys()
    positional = document["doc"]["positional"].split(", ")
    assert positional == ["_input", *list(arguments)[1 : len(positional)]]
    for argument in list(arguments.values())[1:]:
        described = options[argument.name]
        required = argument.default is inspect.Parameter.empty
        assert bool(described.get("required")) is required
        assert described.get("default") == (None if required else argument.default)
    assert yaml.safe_load(document["examples"])
    assert document["return"]["_value"]["description"]


def test_the_filters_work_in_a_play(tmp_path: Path) -> None:
    tasks = [
        {
            "ansible.builtin.copy": {
                "dest": str(tmp_path / "crontab"),
                "mode": "0644",
                "content": "{{ jobs | pgkeep.backup.resolve_jobs(inventory_hostname, defaults)"
                " | pgkeep.backup.crontab(path, 'postgres', mailto='root') }}",
            }
        },
        {
            "ansible.builtin.copy": {
                "dest": str(tmp_path / "timers"),
                "mode": "0644",
                "content": "{{ jobs | pgkeep.backup.resolve_jobs('db1', defaults) | pgkeep.backup.timers(path) | to_json }}",
            }
        },
        {
            "ansible.builtin.set_fact": {"x": "{{ {'main': {'drill_schedule': 'x'}} | pgkeep.backup.resolve_jobs('db1') }}"},
            "ignore_errors": True,
        },
    ]  # fmt: skip
    variables = {"jobs": JOBS, "defaults": {"schedule_spread": "{{ '0' }}"}, "path": COMMAND}
    play = {"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": tasks}
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    done = run_playbook(tmp_path, tmp_path / "play.yml", *HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "crontab").read_text() == CRONTAB
    expected = timers(resolve_jobs(JOBS, "db1", AT_ONCE), COMMAND)
    assert json.loads((tmp_path / "timers").read_text()) == expected
    assert "job main: drill_schedule is 'x': not a schedule" in done.stdout + done.stderr
