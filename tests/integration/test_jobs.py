# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several jobs on one host that share a repository: each prunes, verifies and drills its own backups and no other's."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.keeper import Done, Keeper, finish, write_job
from tests.postgres import Server


@pytest.fixture
def work_dir() -> Iterator[Path]:
    """A directory for drills, with a path that is short enough for a socket below it."""
    directory = Path(tempfile.mkdtemp(prefix="pgkeep-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


class Host:
    """A configuration with jobs, and one repository."""

    def __init__(self, keeper: Keeper, place: Path, work_dir: Path) -> None:
        self.keeper, self.place, self.work_dir = keeper, place, work_dir

    def job(self, name: str, **options: Any) -> None:
        """Write a job."""
        server = self.keeper.server
        connection = {
            "login_unix_socket": str(server.socket_dir),
            "login_port": server.port,
            "bin_dir": str(server.bindir),
        }
        common = {"repository": str(self.keeper.repository), "reserve": "0", "work_dir": str(self.work_dir)}
        write_job(self.place, name, **{**connection, **common, **options})

    def do(self, command: str, job: str, *arguments: str) -> Done:
        """Run a command for a job, with nothing else said than these arguments."""
        named = [job] if command == "run" else [f"--job={job}"]
        keeper = Keeper(self.keeper.program, self.keeper.server, self.keeper.repository)
        keeper.connection = ()
        process = keeper.start("run" if command == "run" else command, f"--config-dir={self.place}", *named, *arguments)
        return finish(process)

    def verified(self, command: str, job: str, *arguments: str) -> list[str]:
        """Return the databases, with their instances, that a verification of a job is about."""
        done = self.do(command, job, "--json", "--dry-run", *arguments)
        assert (done.code, done.err) == (0, "")
        return sorted(item["id"].rpartition("/")[0] for item in done.json["verifications"])


@pytest.fixture
def host(keeper: Keeper, fresh_database: Callable[..., str], tmp_path: Path, work_dir: Path) -> Host:
    """Three jobs of two instances in one repository, each with a backup of its databases."""
    for name in ("shop", "shop_test"):
        fresh_database(keeper.server, name)
    host = Host(keeper, tmp_path / "etc", work_dir)
    host.job("shop", databases=["shop"], globals=False, keep_last=1)
    host.job("rest", exclude=["shop"], keep_last=5, prune_schedule="weekly")
    host.job("other", instance="other", databases=["shop"], keep_last=5)
    for name in ("shop", "rest", "other"):
        assert host.do("run", name).code == 0
    return host


@pytest.mark.parametrize("command", ["verify", "drill"])
def test_a_verification_of_a_job_is_about_its_databases_in_its_instance(host: Host, command: str) -> None:
    assert host.verified(command, "shop") == ["main/shop"]
    assert host.verified(command, "other") == ["other/@globals", "other/shop"]
    assert host.verified(command, "rest") == ["main/@globals", "main/postgres", "main/shop_test"]
    assert host.verified(command, "shop", "shop_test") == ["main/shop_test"]  # what is named is meant
    assert host.verified(command, "shop", "--instance=other") == ["other/shop"]


def test_a_verification_of_a_job_leaves_the_backups_of_others_alone(host: Host) -> None:
    done = host.do("verify", "shop")
    assert (done.code, done.err) == (0, "")
    assert {item["id"].rpartition("/")[0] for item in host.keeper.listed() if item["verified"]} == {"main/shop"}


@pytest.mark.parametrize("command", ["verify", "drill"])
def test_a_job_without_any_backup_is_a_failure_that_says_so(host: Host, command: str) -> None:
    host.job("new", include=["crm.*"], globals=False)
    done = host.do(command, "new")
    assert done.code == 1
    said = "has no backup of this job's databases in instance main: run the job first\n"
    assert done.err == f"pgkeep: error: {host.keeper.repository} {said}"
    assert host.do(command, "new", "--json").json["verifications"] == []


@pytest.mark.parametrize("command", ["verify", "drill"])
def test_a_job_whose_backups_another_server_takes_is_no_failure_as_long_as_there_is_none_here(
    host: Host, tmp_path: Path, command: str
) -> None:
    log_dir = tmp_path / "log"
    log_dir.mkdir()
    host.job("pair", instance="pair", run_on="standby", log_dir=str(log_dir))
    repository = host.keeper.repository
    said = f"{repository} has no backup of this job's databases in instance pair: with run_on standby another server takes them"
    assert host.do(command, "pair") == Done(0, f"nothing to do here: {said}\n", "")
    assert host.do(command, "pair", "--quiet") == Done(0, "", "")
    assert host.do(command, "pair", "--json").json["for_another_server"] == said
    records = [json.loads(line) for line in (log_dir / "history.jsonl").read_text().splitlines()]
    assert [(record["exit_code"], record["message"]) for record in records] == [(0, said)] * 3
    host.job("pair", instance="pair", run_on="primary", databases=["shop", "crm"])
    assert host.do("run", "pair").code == 4  # crm is not there
    done = host.do("verify", "pair")
    assert (done.code, done.err) == (4, "pgkeep: error: there is no backup of 'crm'\n")


def test_a_database_that_a_job_names_and_that_has_no_backup_is_a_failure(host: Host) -> None:
    host.job("new", databases=["crm", "shop"], globals=False)
    done = host.do("verify", "new")
    assert (done.code, done.err) == (4, "pgkeep: error: there is no backup of 'crm'\n")
    assert "main/shop/" in done.out


def test_a_prune_of_a_job_stays_in_its_instance(host: Host) -> None:
    for job in ("shop", "other", "other"):
        assert host.do("run", job).code == 0
    assert len(host.keeper.listed("shop", "--instance=other")) == 3
    assert len(host.keeper.listed("shop", "--instance=main")) == 1  # pruned by the run itself
    assert host.do("backup", "shop").code == 0
    done = host.do("prune", "shop")
    assert (done.code, done.err) == (0, "")
    assert len(host.keeper.listed("shop", "--instance=other")) == 3
    assert len(host.keeper.listed("shop", "--instance=main")) == 1


def test_a_run_prunes_only_where_the_job_says_so(host: Host) -> None:
    host.job("rest", exclude=["shop"], keep_last=1, prune_schedule="weekly")
    dry = host.do("run", "rest", "--dry-run")
    assert (dry.code, "DELETE" in dry.out, "delete" in dry.out) == (0, False, False)
    done = host.do("run", "rest")
    assert (done.code, "delete" in done.out) == (0, False)
    assert len(host.keeper.listed("shop_test")) == 2
    assert host.do("run", "rest", "--dry-run", "--json").json["prune"] is None
    assert host.do("prune", "rest").code == 0
    assert len(host.keeper.listed("shop_test")) == 1


@pytest.mark.needs_programs("bwrap")
def test_a_drill_of_a_job_restores_what_is_its_own(debian_keeper: Keeper, host: Host) -> None:
    done = host.do("drill", "shop")
    assert (done.code, done.err) == (0, "")
    assert done.out.count(": good (restore)") == 1


def test_jobs_of_two_servers_share_a_repository(host: Host, lone_debian_server: Server) -> None:
    server = lone_debian_server
    host.job("second", instance="second", databases=["postgres"], globals=False, keep_last=1,
             login_unix_socket=str(server.socket_dir), login_port=server.port, bin_dir=str(server.bindir))  # fmt: skip
    for _unused in range(2):
        assert host.do("run", "second").code == 0
    assert host.verified("verify", "second") == ["second/postgres"]
    assert len(host.keeper.listed("postgres", "--instance=main")) == 1
