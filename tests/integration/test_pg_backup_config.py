# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The configuration of a host, written by ansible-playbook and used by the command as the user that runs the jobs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_secrets import PASSWORD, assert_silent
from tests.playbook import run_tasks
from tests.postgres import Server

MODULE = "pgkeep.backup.pg_backup_config"
SYSTEM_PYTHON = "/usr/bin/python3"  # the tests' own may be root's alone
FOUND = "{{ lookup('ansible.builtin.env', 'PGKEEP_TEST_SECRET') }}"


class Host:
    """A directory that everybody can enter, with a configuration that root writes for nobody."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.etc = directory / "etc"
        self.output = ""

    def play(self, *tasks: dict[str, Any], secret: str = PASSWORD) -> list[dict[str, Any]]:
        """Given options of the module (and check_mode), one task after the other, run them with all that Ansible can
        say; return the results. No password is in anything that was said.
        """
        owner = "nobody" if os.geteuid() == 0 else Path(self.directory).owner()
        written = []
        for options in tasks:
            given = {"config_dir": str(self.etc), "owner": owner, **options}
            check = given.pop("check_mode", False)
            written.append({MODULE: given, "check_mode": check})
        controller = Path(tempfile.mkdtemp(prefix="controller-", dir=self.directory))
        environment = {"ANSIBLE_LOG_PATH": str(controller / "log"), "PGKEEP_TEST_SECRET": secret}
        done = run_tasks(controller, written, "-vvv", "--diff", **environment)
        self.output = done.stdout
        said = done.stdout + done.stderr + (controller / "log").read_text()
        assert_silent(said, said)
        assert "DEPRECATION WARNING" not in said
        assert "no_log" not in said.replace("due to no_log", "")  # Ansible warns of options that look like secrets
        decoder = json.JSONDecoder()
        results = [decoder.raw_decode(part)[0] for part in re.split(r"localhost\](?:: FAILED!)? => ", done.stdout)[1:]]
        assert len(results) == len(tasks), said
        return results

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self.etc)) for path in self.etc.rglob("*")) if self.etc.exists() else []


@pytest.fixture
def host() -> Iterator[Host]:
    directory = Path(tempfile.mkdtemp(prefix="pgkeep-", dir="/tmp"))
    directory.chmod(0o755)
    yield Host(directory)
    shutil.rmtree(directory)


def run_as(user: str, *command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Given a user and a command, run it as that user, with nothing of root."""
    return subprocess.run(
        list(map(str, command)), user=user, group=user if user != "nobody" else "nogroup", extra_groups=[],
        env={"PATH": os.environ["PATH"], **environment}, cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_check_mode_then_the_same_then_nothing_then_less_then_nothing_at_all(host: Host) -> None:
    first = {
        "defaults": {"repository": "/srv/backups", "log_dir": "/var/log/pgkeep"},
        "jobs": [
            {"name": "main", "keep_daily": 7, "checks": [{"query": "SELECT true"}], "globals": False, "wait": 0},
            {"name": "old", "login_host": "db1", "login_password": FOUND},
        ],
        "passwords": [{"host": "db1", "port": 5432, "password": FOUND}],
    }
    second = {**first, "jobs": first["jobs"][:1]}
    third = {**second, "passwords": [{"host": "db1", "port": 5432, "password": FOUND + "2"}]}
    results = host.play(
        {**first, "check_mode": True}, first, first, second, third, {"state": "absent", "check_mode": True}
    )
    planned, done, again, less, other, planned_absent = results
    assert [result["changed"] for result in results] == [True, True, False, True, True, True]
    assert (planned["written"], planned["jobs"]) == (done["written"], done["jobs"])
    assert done["jobs"] == ["main", "old"]
    assert (again["written"], again["removed"]) == ([], [])
    assert (less["written"], less["removed"]) == ([], [str(host.etc / "jobs.d/old.json")])
    assert other["written"] == [str(host.etc / "pgpass")]
    assert set(planned_absent["removed"]) == {str(host.etc), *(str(host.etc / name) for name in host.names())}
    assert host.names() == ["defaults.json", "jobs.d", "jobs.d/main.json", "pgpass"]
    assert json.loads((host.etc / "jobs.d/main.json").read_text()) == {
        "comment": "Managed by Ansible: changes here are lost.",
        "globals": False,
        "wait": "0",
        "keep_daily": 7,
        "checks": [{"query": "SELECT true"}],
    }
    for line in (
        '+  "login_password": "(hidden)"',
        "+db1:5432:*:*:(hidden)",
        "-db1:5432:*:*:(hidden)",
        "+db1:5432:*:*:(hidden, and another one than before)",
        '-  "login_password": "(hidden)"',
    ):
        assert line in host.output.splitlines(), host.output
    (absent,) = host.play({"state": "absent"})
    assert absent["removed"] == planned_absent["removed"]
    assert not host.etc.exists()


def test_targets_come_and_go_with_the_jobs_that_name_them(host: Host) -> None:
    first = {
        "defaults": {"repository": "/srv/backups"},
        "jobs": [{"name": "main", "targets": ["shelf", "vault"], "sync_schedule": "daily"}],
        "targets": [
            {"name": "shelf", "type": "directory", "path": "/mnt/shelf", "keep_daily": "7", "bandwidth": "10MB"},
            {"name": "vault", "type": "rsync", "host": "vault", "key_file": "/etc/key", "append_only": False},
        ],
    }
    second = {**first, "jobs": [{"name": "main", "targets": ["vault"]}], "targets": first["targets"][1:]}
    results = host.play({**first, "check_mode": True}, first, first, second)
    assert [result["changed"] for result in results] == [True, True, False, True]
    planned, done, _again, less = results
    assert (planned["written"], planned["targets"]) == (done["written"], done["targets"])
    assert (done["targets"], less["targets"]) == (["shelf", "vault"], ["vault"])
    assert less["removed"] == [str(host.etc / "targets.d/shelf.json")]
    assert json.loads((host.etc / "targets.d/vault.json").read_text()) == {
        "comment": "Managed by Ansible: changes here are lost.",
        "type": "rsync",
        "host": "vault",
        "key_file": "/etc/key",
        "append_only": False,
    }
    assert '+  "path": "/mnt/shelf",' in host.output.splitlines()
    bad: list[tuple[dict[str, Any], str]] = [
        ({"targets": []}, "job main: targets[0] is 'vault', but there is no such target"),
        ({"targets": [{"name": "vault", "type": "ssh"}]}, "value of type must be one of: directory, rsync, rclone"),
        ({"targets": [{"type": "rsync"}]}, "missing required arguments: name found in targets"),
        ({"targets": [{"name": "vault", "type": "rsync", "hst": "vault"}]}, "hst"),
        ({"targets": [{"name": "vault", "type": "rsync"}]}, "target vault: host is not set"),
    ]
    refused = host.play(*({**second, **options} for options, _message in bad))
    for result, (_options, message) in zip(refused, bad):
        assert message in result["msg"]
    (absent,) = host.play({"state": "absent"})
    assert absent["targets"] == []
    assert not host.etc.exists()


def test_what_cannot_be_meant_is_refused_and_changes_nothing(host: Host) -> None:
    good = {
        "defaults": {"repository": "/srv"},
        "jobs": [{"name": "main", "login_password": FOUND, "login_host": "db1"}],
    }
    host.play(good)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in host.etc.rglob("*.json")}
    bad: list[tuple[dict[str, Any], str]] = [
        ({"jobs": [{"name": "main", "keep_lst": 3}]}, "keep_lst"),
        ({"jobs": [{"name": "main", "keep_last": "many"}]}, "keep_last"),
        ({"jobs": [{"repository": "/srv"}]}, "missing required arguments: name found in jobs"),
        ({"jobs": [{"name": "main", "format": "costum"}]}, "value of format must be one of"),
        ({"defaults": {"repositry": "/srv"}}, "repositry"),
        ({"passwords": [{"host": "db1"}]}, "missing required arguments: password found in passwords"),
        ({"jobs": [{"name": "main", "jobs": 4}]}, "job main: jobs is 4 but format is custom"),
        ({"jobs": [{"name": "main", "work_dir": "~/drills"}]}, 'job main: work_dir is "~/drills": must match'),
        ({"passwords": [{"password": FOUND + "\n"}]}, "passwords[0]: password contains a line break"),
        ({"jobs": [{"name": "main", "login_password": FOUND + "\n"}]}, "login_password contains a newline"),
        ({"owner": "nosuchuser"}, "owner is 'nosuchuser', but"),
    ]
    results = host.play(*({**good, **options} for options, _message in bad))
    for result, (_options, message) in zip(results, bad):
        assert message in result["msg"]
    assert host.output.count("fatal: ") == len(bad)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in host.etc.rglob("*.json")} == before


@pytest.mark.needs_root
def test_the_user_of_the_jobs_can_use_the_configuration_and_not_change_it(
    host: Host, program: Path, debian_server: Server, fresh_role: Callable[..., str], fresh_database: Callable[..., str]
) -> None:
    """A backup through the password file that was written, as libpq reads it, of a role with a hostile password."""
    role = fresh_role(debian_server, "LOGIN SUPERUSER")
    debian_server.psql("ALTER ROLE {} PASSWORD '{}'".format(role, PASSWORD.replace("'", "''")))
    name = fresh_database(debian_server)
    repository = host.directory / "repository"
    repository.mkdir(mode=0o700)
    shutil.chown(repository, "nobody", "nogroup")
    place = {"login_host": "127.0.0.1", "login_port": debian_server.port, "login_user": role}
    options = {
        "defaults": {"repository": str(repository), "bin_dir": str(debian_server.bindir), "reserve": "0", **place},
        "jobs": [
            {"name": "file", "databases": [name], "globals": False},
            {"name": "option", "databases": [name], "globals": False, "login_password": FOUND},
        ],
        "passwords": [{"host": "127.0.0.1", "port": debian_server.port, "user": role, "password": FOUND}],
    }
    host.play(options)
    owners = {name: f"{(host.etc / name).owner()}:{(host.etc / name).group()}" for name in ("", *host.names())}
    secret = {"pgpass", "jobs.d/option.json"}
    assert {name: owner for name, owner in owners.items() if owner != "root:nogroup"} == dict.fromkeys(
        secret, "nobody:nogroup"
    )
    modes = {name: oct((host.etc / name).stat().st_mode & 0o7777) for name in owners}
    assert modes == {
        name: "0o600" if name in secret else "0o640" if name.endswith(".json") else "0o750" for name in owners
    }
    config_dir = f"--config-dir={host.etc}"
    checked = run_as("nobody", SYSTEM_PYTHON, program, "check-config", config_dir)
    assert (checked.returncode, checked.stderr) == (0, "")
    conninfo = f"host=127.0.0.1 port={debian_server.port} user={role} dbname={name}"
    asked = run_as(
        "nobody", debian_server.bindir / "psql", "-XAtwc", "SELECT 1", conninfo, PGPASSFILE=str(host.etc / "pgpass")
    )
    assert (asked.stdout, asked.stderr) == ("1\n", "")
    for job in ("file", "option"):  # root reads the configuration, and then becomes the owner of the repository
        done = subprocess.run([program, "run", config_dir, job], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert_silent(done.stdout + done.stderr, "run")
    assert [path.owner() for path in repository.glob("*/*/*/manifest.json")] == ["nobody"] * 2
    tries = [("nobody", "touch", host.etc / "x"), ("nobody", "rm", "-f", host.etc / "jobs.d/file.json")]
    tries += [("daemon", "cat", host.etc / name) for name in ("pgpass", "defaults.json", "jobs.d/option.json")]
    assert [run_as(*words).returncode for words in tries] == [1] * 5
    again, grown = host.play(options, {**options, "owner": "daemon", "check_mode": True})
    assert (again["changed"], grown["changed"]) == (False, True)
