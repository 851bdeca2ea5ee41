# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the jobs of a host stand, by `pgkeep status` and pg_backup_status; and modules that name a job of the host."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.keeper import Done, Keeper, finish, snapshot, write_job
from tests.playbook import results, run_tasks
from tests.postgres import Server

SECRET = "s3cret-marker"


class Host:
    """A configuration with jobs, the command, and Ansible."""

    def __init__(self, keeper: Keeper, directory: Path) -> None:
        self.keeper, self.directory = keeper, directory
        self.place = directory / "etc"
        self.log_dir = directory / "log"
        self.log_dir.mkdir()

    def job(self, name: str, **options: Any) -> None:
        """Write a job."""
        server = self.keeper.server
        write_job(
            self.place,
            name,
            **{
                "login_unix_socket": str(server.socket_dir),
                "login_port": server.port,
                "bin_dir": str(server.bindir),
                "repository": str(self.keeper.repository),
                "reserve": "0",
                "log_dir": str(self.log_dir),
                **options,
            },
        )

    def do(self, *arguments: str, **more: Any) -> Done:
        """Run the command with this configuration."""
        command, *rest = arguments
        process = subprocess.Popen(
            [self.keeper.program, command, f"--config-dir={self.place}", *rest],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", **more,
        )  # fmt: skip
        return finish(process)

    def status(self) -> Any:
        """Return what `pgkeep status --json` says of each job."""
        return {job["name"]: job for job in self.do("status", "--json").json["jobs"]}

    def play(self, *tasks: tuple[str, dict[str, Any]], check: bool = False) -> list[dict[str, Any]]:
        """Given modules and their options, return the results of the tasks."""
        written = [{f"pgkeep.backup.{module}": {"config_dir": str(self.place), **options}} for module, options in tasks]
        done = run_tasks(self.directory, written, "-v", *(["--check"] if check else []))
        assert "Traceback" not in done.stdout + done.stderr
        assert SECRET not in done.stdout + done.stderr
        return results(done, len(tasks))


@pytest.fixture
def host(keeper: Keeper, fresh_database: Callable[..., str], tmp_path: Path) -> Host:
    """A server with two databases besides postgres, and a configuration without jobs."""
    for name in ("shop", "shop_test"):
        fresh_database(keeper.server, name)
    return Host(keeper, tmp_path)


# --- status ---


def test_a_job_stands_as_its_last_runs_have_left_it(host: Host) -> None:
    host.job("main", include=["shop.*"], verify_schedule="30 5 * * 1-5", drill_schedule="never")
    assert host.do("run", "main").code == 0
    assert host.do("run", "main").code == 0
    assert host.do("verify", "--job=main", "--level=checksum", "shop").code == 0
    job = host.status()["main"]
    now = datetime.now(timezone.utc)
    assert (job["instance"], job["repository"], job["message"]) == ("main", str(host.keeper.repository), "")
    databases = {item["database"]: item for item in job["databases"]}
    assert list(databases) == ["@globals", "shop", "shop_test"]
    newest = {item["database"] or "@globals": item for item in reversed(host.keeper.listed())}
    for name, item in databases.items():
        assert (item["newest"], item["created"], item["size"]) == tuple(
            newest[name][key] for key in ("id", "created", "size")
        )
        assert 0 <= item["age"] < 600
        assert (item["count"], item["damaged"], item["copies"], item["drilled"]) == (2, 0, [], None)
    assert databases["shop_test"]["verified"] is None
    assert (databases["shop"]["verified_level"], databases["shop"]["verified"][:10]) == (
        "checksum",
        now.date().isoformat(),
    )
    schedules = {item["action"]: item for item in job["schedules"]}
    assert {name: item["schedule"] for name, item in schedules.items()} == {
        "backup": "0 2 * * *", "prune": "after_backup", "verify": "30 5 * * 1-5", "drill": "never",
    }  # fmt: skip
    assert (schedules["prune"]["next"], schedules["drill"]["next"]) == (None, None)
    for name, most in (("backup", 1), ("verify", 3)):
        due = datetime.fromisoformat(schedules[name]["next"].replace("Z", "+00:00"))
        assert now < due <= now + timedelta(days=most, hours=1)
    assert [(run["command"], run["exit_code"], run["message"]) for run in job["runs"]] == [
        ("verify", 0, ""),
        ("run", 0, ""),
    ]


def test_people_see_a_table_and_how_each_job_goes_on(host: Host) -> None:
    host.job("main", databases=["shop", "gone"], globals=False)
    host.job("other", instance="other", databases=["shop"], globals=False, log_dir=None)
    assert host.do("run", "main").code == 4
    before = snapshot(host.directory)
    done = host.do("status")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["JOB", "DATABASE", "LAST", "AGE", "SIZE", "VERIFIED", "DRILLED", "COPIES"]
    assert [line.split()[:2] for line in lines[1:4]] == [["main", "shop"], ["main", "gone"], ["other", "shop"]]
    assert lines[4] == ""
    assert lines[5].startswith("main: next backup 20")
    assert lines[6].startswith("main: last run 20")
    assert lines[6].endswith("exit code 4: gone: there is no such database")
    assert lines[7].startswith("other: next backup 20")
    assert done.err.splitlines() == [
        "pgkeep: warning: main: no complete backup of gone",
        "pgkeep: warning: main: the last run ended with exit code 4: gone: there is no such database",
        "pgkeep: warning: other: no complete backup of shop",
    ]
    assert snapshot(host.directory) == before
    quiet = host.do("status", "--quiet").out
    assert re.sub("[0-9.]+s ", "AGE ", quiet) == re.sub("[0-9.]+s ", "AGE ", done.out)


def test_a_job_that_cannot_be_looked_at_fails_and_the_others_are_shown(host: Host) -> None:
    host.job("main", databases=["shop"], globals=False)
    assert host.do("run", "main").code == 0
    host.job("lost", repository=f"{host.directory}/nowhere", login_password=SECRET)
    (host.place / "jobs.d/wrong.json").write_text('{"repository": "/srv", "drill_schedule": "dayly"}')
    done = host.do("status", "--json")
    assert done.code == 4
    jobs = {job["name"]: job for job in done.json["jobs"]}
    assert [item["database"] for item in jobs["main"]["databases"]] == ["shop"]
    message = f"the repository {host.directory}/nowhere is not a directory: check `repository`"
    assert (jobs["lost"]["message"], jobs["lost"]["databases"]) == (message, [])
    assert [item["action"] for item in jobs["lost"]["schedules"]] == ["backup", "prune", "verify", "drill"]
    assert "wrong.json: drill_schedule is 'dayly': not a schedule: did you mean daily?" in jobs["wrong"]["message"]
    assert (jobs["wrong"]["repository"], jobs["wrong"]["schedules"]) == (None, [])
    errors = done.err.splitlines()
    assert errors[0] == f"pgkeep: error: lost: {message}"
    assert errors[1].startswith("pgkeep: error: wrong: ")
    people = host.do("status")
    assert (people.code, people.out.count("main  shop")) == (4, 1)
    assert f"lost: {message}" in people.out
    (module,) = host.play(("pg_backup_status", {}))
    assert module["failed"]
    assert module["msg"] == f"lost: {message}; wrong: {jobs['wrong']['message']}"
    assert [job["name"] for job in module["jobs"]] == ["lost", "main", "wrong"]
    for name in ("main", "wrong"):
        (host.place / f"jobs.d/{name}.json").unlink()
    assert host.do("status").code == 1


def test_a_host_without_jobs_is_told_so(host: Host) -> None:
    done = host.do("status")
    assert done.code == 2
    assert done.err.startswith(f"pgkeep: error: {host.place} is not a directory: make it, with a file jobs.d/NAME.json")
    host.place.mkdir()
    done = host.do("status")
    assert (done.code, done.out) == (0, "no jobs\n")
    assert done.err == f"pgkeep: warning: {host.place} has no jobs, so nothing is backed up\n"


def test_the_module_says_what_the_command_says_in_check_mode_as_well(host: Host) -> None:
    host.job("main", databases=["shop"])
    assert host.do("run", "main").code == 0
    command = host.do("status", "--json").json
    for check in (False, True):
        (module,) = host.play(("pg_backup_status", {}), check=check)
        assert (module["failed"], module["changed"]) == (False, False)
        for job in (*module["jobs"], *command["jobs"]):
            for item in job["databases"]:
                item["age"] = None
        assert module["jobs"] == command["jobs"]


def test_check_config_finds_what_is_wrong_with_a_schedule(host: Host) -> None:
    host.job("main", drill_schedule="0 4 31 2 *", verify_schedule="after_backup")
    done = host.do("check-config")
    assert done.code == 2
    assert "main.json: verify_schedule is 'after_backup': only prune_schedule and sync_schedule can be" in done.err
    assert "main.json: drill_schedule is '0 4 31 2 *': there is no day 31 in Feb" in done.err


@pytest.fixture
def place_of_others() -> Iterator[Path]:
    """A directory that every user can come to."""
    parent = Path(tempfile.mkdtemp(prefix="pgkeep-", dir="/tmp"))
    parent.chmod(0o755)
    yield parent
    shutil.rmtree(parent)


@pytest.mark.needs_root
def test_root_reads_each_repository_as_its_owner(host: Host, place_of_others: Path) -> None:
    for user in ("nobody", "daemon"):
        repository = place_of_others / user
        host.keeper.repository = repository
        assert host.keeper.backup("shop").code == 0
        for path in (repository, *repository.rglob("*")):
            shutil.chown(path, user)
        host.job(user, repository=str(repository), databases=["shop"], globals=False)
    host.keeper.repository = place_of_others / "root"
    assert host.keeper.backup("shop").code == 0
    host.job("root", databases=["shop"], globals=False)
    # What only root may read is nothing for the owner of a repository.
    secret = host.directory / "secret"
    shutil.copytree(place_of_others / "root", secret)
    (backup,) = (place_of_others / "nobody/main/shop").glob("shop_*")
    (backup / "manifest.json").unlink()
    (backup / "manifest.json").symlink_to(next((secret / "main/shop").glob("shop_*")) / "manifest.json")
    done = host.do("status", "--json")
    assert done.code == 0, done
    counts = {job["name"]: [item["count"] for item in job["databases"]] for job in done.json["jobs"]}
    assert counts == {"nobody": [0], "daemon": [1], "root": [1]}


# --- modules that name a job of the host ---


def test_a_module_with_a_job_does_what_the_job_does(host: Host) -> None:
    host.job("main", include=["shop.*"], exclude=["shop_test"], globals=False, keep_last=1, compression="none")
    host.job("other", instance="other", include=["shop.*"], keep_last=1)
    for _unused in range(2):
        assert host.do("backup", "--job=other").code == 0
    taken, again, verified, pruned = host.play(
        ("pg_backup", {"job": "main"}),
        ("pg_backup", {"job": "main", "label": "x", "compression": "auto", "databases": ["shop_test"], "exclude": []}),
        ("pg_backup_verify", {"job": "main", "level": "checksum"}),
        ("pg_backup_prune", {"job": "main"}),
    )
    assert [result["failed"] for result in (taken, again, verified, pruned)] == [False] * 4
    assert [(item["id"].rpartition("/")[0], item["compression"]) for item in taken["backups"]] == [
        ("main/shop", "none")
    ]
    # What the task says counts, also where it is the default.
    (second,) = again["backups"]
    assert (second["database"], second["label"], second["compression"] != "none") == ("shop_test", "x", True)
    assert [item["database"] for item in verified["verifications"]] == ["shop"]
    assert {item["id"].rpartition("/")[0] for item in pruned["plan"]} == {"main/shop"}
    (taken, pruned) = host.play(("pg_backup", {"job": "main"}), ("pg_backup_prune", {"job": "main", "keep_last": 5}))
    assert (taken["failed"], pruned["deleted"]) == (False, [])
    (pruned,) = host.play(("pg_backup_prune", {"job": "main"}))
    assert len(pruned["deleted"]) == 1
    assert len(host.keeper.listed("--instance=other")) == 6


def test_a_job_without_a_rule_is_pruned_by_the_rules_of_a_job(host: Host) -> None:
    host.job("main", databases=["shop"], globals=False)
    assert host.do("backup", "--job=main").code == 0
    (module,) = host.play(("pg_backup_prune", {"job": "main"}), check=True)
    (reasons,) = [item["reasons"] for item in module["plan"]]
    assert [reason.partition(":")[0] for reason in reasons] == ["keep_minimum 1", "keep_last 10", "keep_days 30"]


def test_a_module_needs_a_job_or_a_repository(host: Host) -> None:
    host.job("main", databases=["shop"])
    modules = ("pg_backup", "pg_backup_prune", "pg_backup_verify")
    results = host.play(*((module, {}) for module in modules))
    assert [result["msg"].partition(": ")[2] for result in results] == [
        "repository, job", "repository, job, target", "repository, job",
    ]  # fmt: skip
    results = host.play(*((module, {"job": "mian"}) for module in modules))
    assert {result["msg"] for result in results} == {"there is no job mian: there are main: did you mean main?"}
    assert not host.keeper.repository.exists()


@pytest.mark.needs_root
def test_a_module_reads_a_job_of_root_s_and_works_as_the_owner(
    host: Host, debian_server: Server, place_of_others: Path
) -> None:
    host.keeper.repository = place_of_others / "repository"
    host.keeper.repository.mkdir(mode=0o700)
    shutil.chown(host.keeper.repository, "nobody")
    host.job("main", databases=["postgres"], globals=False, keep_last=1, login_unix_socket="", bin_dir=None,
             login_host="127.0.0.1", login_port=debian_server.port, login_password=debian_server.password)  # fmt: skip
    results = host.play(
        ("pg_backup", {"job": "main"}),
        ("pg_backup", {"job": "main"}),
        ("pg_backup_verify", {"job": "main", "level": "checksum"}),
        ("pg_backup_prune", {"job": "main"}),
        ("pg_backup_status", {}),
    )
    assert [result["failed"] for result in results] == [False] * 5, results
    assert len(results[3]["deleted"]) == 1
    assert {path.owner() for path in host.keeper.repository.rglob("*")} == {"nobody"}
    assert debian_server.password not in json.dumps(results)
