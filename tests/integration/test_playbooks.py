# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Playbooks, run as people run them: what they show, what they refuse, and what is there afterwards."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.listing import listing

from tests.integration.samples import Engine, contents, make_sample
from tests.keeper import ROOT, write_job
from tests.playbook import run_playbook
from tests.postgres import Server, quote_identifier


class Playbook:
    """The playbook, an inventory of hosts that are all this one, their job main, and two backups of a database."""

    database = "played"

    def __init__(self, directory: Path, server: Server) -> None:
        self.directory, self.server = directory, server
        self.engine = Engine(server, directory / "repository")
        self.write_job("main")

    def write_job(self, name: str, **options: Any) -> None:
        """Given the name of a job and what it says besides how to reach the server, write it."""
        write_job(self.directory / "etc", name, **self.engine.raw(databases=[self.database], **options))

    def run(
        self,
        *arguments: str,
        hosts: tuple[str, ...] = ("db1",),
        code: int = 0,
        name: str = "restore",
        inventory: dict[str, Any] | None = None,
        **variables: Any,
    ) -> str:
        """Given more arguments, hosts, variables of the inventory and of a run, run it; return what it printed."""
        known = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "ansible_become": False,
            "pgkeep_config_dir": str(self.directory / "etc"),
            **(inventory or {}),
        }
        written = {"all": {"hosts": dict.fromkeys(hosts), "vars": known}}
        (self.directory / "inventory.json").write_text(json.dumps(written))
        place = ("-i", self.directory / "inventory.json", "-e", json.dumps(variables))
        done = run_playbook(self.directory, ROOT / f"playbooks/{name}.yml", *place, *arguments)
        print(done.stdout)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def engine_backups(self) -> list[str]:
        found = listing({"repository": str(self.engine.repository)}, False, self.engine.clock).backups
        return [item.id for item in found]

    def databases(self) -> set[str]:
        names = self.server.psql(f"SELECT datname FROM pg_database WHERE datname ~ '^{self.database}'")
        return set(names.splitlines())


@pytest.fixture
def playbook(debian_server: Server, tmp_path: Path) -> Iterator[Playbook]:
    made = Playbook(tmp_path, debian_server)
    make_sample(debian_server, made.database)
    made.engine.take(made.database, label="early", globals=True)
    made.engine.take(made.database)
    yield made
    for name in made.databases():
        debian_server.psql(f"DROP DATABASE {quote_identifier(name)} WITH (FORCE)")


def test_the_plan_comes_first_and_the_real_run_does_it(playbook: Playbook) -> None:
    planned = playbook.run("--check", "--diff", database="played", target="played_again")
    assert "would restore main/played/played_" in planned
    assert "+played_again (restored from main/played/played_" in planned
    assert "1 of 1 hosts without failures" in planned
    assert playbook.databases() == {"played"}
    done = playbook.run(database="played", target="played_again")
    assert "restored main/played/played_" in done
    assert "swap: 0." in done
    assert contents(playbook.server, "played_again") == contents(playbook.server, "played")
    refused = playbook.run(database="played", target="played_again", code=2)
    assert "db1: failed, database 'played_again' exists" in refused
    assert "0 of 1 hosts without failures" in refused


def test_in_place_of_a_live_one_from_a_labelled_backup(playbook: Playbook) -> None:
    before = contents(playbook.server, "played")
    playbook.server.psql("DELETE FROM orders", "played")
    done = playbook.run(database="played", replace="played", sessions="terminate", label="early")
    assert contents(playbook.server, "played") == before
    (old,) = playbook.databases() - {"played"}
    assert f"(kept as {old})" in done


def test_a_run_that_does_not_say_which_database_is_refused(playbook: Playbook) -> None:
    for variables in ({}, {"database": ""}):
        refused = playbook.run(code=2, **variables)
        assert "say which database to restore" in refused
        assert "TASK [Restore]" not in refused


@pytest.mark.parametrize("more", [{"replace": "played"}, {"restore_options": {"replace": "played"}}])
def test_a_database_is_replaced_on_many_hosts_only_where_that_is_meant(
    playbook: Playbook, more: dict[str, Any]
) -> None:
    hosts = ("db1", "db2")
    refused = playbook.run(hosts=hosts, database="played", code=2, **more)
    assert "played would be replaced on 2 hosts (db1, db2)" in refused
    assert "TASK [Restore]" not in refused
    limited = playbook.run("--check", "--limit=db2", hosts=hosts, database="played", **more)
    assert "1 of 1 hosts without failures" in limited
    meant = playbook.run("--check", hosts=hosts, database="played", pgkeep_many=True, **more)
    assert "2 of 2 hosts without failures" in meant
    assert playbook.databases() == {"played"}


def test_every_other_option_and_a_host_that_fails(playbook: Playbook) -> None:
    options = {"tables": ["trail"], "schemas": ["audit"], "no_owner": True}
    done = playbook.run(hosts=("db1", "db2"), database="played", target="played_part", restore_options=options, code=2)
    assert "1 of 2 hosts without failures" in done, "both restore into the same server"
    assert set(contents(playbook.server, "played_part")) == {"audit.trail", "large objects"}


def test_roles_and_tablespaces(playbook: Playbook) -> None:
    planned = playbook.run("--check", "--diff", database="@globals")
    assert "1 of 1 hosts without failures" in planned
    assert "globals_" in planned


# --- backup, prune, verify, status: what the jobs of the host do, now ---


def test_the_jobs_options_count_where_a_run_says_nothing_else(playbook: Playbook) -> None:
    """`omit` once took away what a run does not say."""
    playbook.write_job("main", label="job")
    done = playbook.run(name="backup")
    assert "main: played: done, " in done
    playbook.run(name="backup", label="run", databases=["postgres"], backup_options={"globals": True})
    found = listing({"repository": str(playbook.engine.repository)}, False, playbook.engine.clock).backups
    taken = [(item.title, item.label) for item in found[:3]]
    assert sorted(taken) == [("@globals", "run"), ("played", "job"), ("postgres", "run")]
    assert len(found) == 6


def test_one_job_that_fails_stops_neither_another_job_nor_another_host(playbook: Playbook) -> None:
    playbook.write_job("broken", login_port=1)
    jobs = {"pgkeep_jobs": {"broken": {}, "main": {}}}
    done = playbook.run(name="backup", hosts=("db1",), inventory=jobs, code=2)
    assert "main: played: done, " in done
    assert "db1: failed, cannot connect to database 'postgres'" in done
    assert "0 of 1 hosts without failures" in done
    assert "1 of 1 hosts without failures" in playbook.run(name="backup", inventory=jobs, job="main")


def test_a_host_that_is_not_there_is_named(playbook: Playbook) -> None:
    inventory = {"ansible_connection": "{{ 'ssh' if inventory_hostname == 'gone' else 'local' }}", "ansible_port": 1}
    done = playbook.run(
        name="status", hosts=("gone", "db1"), inventory={**inventory, "ansible_host": "127.0.0.1"}, code=4
    )
    assert "gone: failed, Task failed: Failed to connect to the host via ssh" in done
    assert "1 of 2 hosts without failures" in done
    assert re.search(r"db1 +main +played +20\d\d-", done)


def test_prune_shows_its_plan_and_does_it(playbook: Playbook) -> None:
    playbook.write_job("main", keep_last=1)
    planned = playbook.run("--check", "--diff", name="prune")
    assert "-DELETE  main/played" in planned
    assert len(playbook.engine_backups()) == 3
    done = playbook.run(name="prune")
    (gone,) = set(re.findall(r"main/played/played_[0-9_-]+", done))
    assert gone not in playbook.engine_backups()
    assert len(playbook.engine_backups()) == 2, "the globals are not the job's"


def test_verify_and_what_it_found_in_the_status(playbook: Playbook) -> None:
    assert re.search(r"db1 +main +played +20\S+ +0[.]0 h never", playbook.run(name="status"))
    done = playbook.run(name="verify", level="checksum")
    assert done.count(": checksum good") == 2
    assert re.search(r"db1 +main +played +20\S+ +0[.]0 h 20\d\d-", playbook.run(name="status"))
    newest = playbook.engine_backups()[0]
    archive = next(playbook.engine.repository.joinpath(newest).glob("*.dump*"))
    archive.write_bytes(archive.read_bytes()[:-1])
    broken = playbook.run(name="verify", code=2)
    assert f"{newest}: archive truncated" in broken
    assert re.search(rf"db1: failed, .*{newest}: truncated", broken)


def test_a_host_with_several_jobs_has_to_be_told_which_one_to_restore_from(playbook: Playbook) -> None:
    jobs = {"pgkeep_jobs": {"main": {}, "other": {}}}
    refused = playbook.run(database="played", target="played_again", inventory=jobs, code=2)
    assert "db1 has the jobs main, other: say which one" in refused
    playbook.run(database="played", target="played_again", inventory=jobs, job="main")
    assert "played_again" in playbook.databases()


def test_a_restore_on_a_host_without_jobs(playbook: Playbook) -> None:
    server = playbook.server
    connection = {"login_unix_socket": str(server.socket_dir), "login_port": server.port, "bin_dir": str(server.bindir)}
    repository = str(playbook.engine.repository)
    none = {"pgkeep_config_dir": str(playbook.directory / "none")}
    playbook.run(database="played", target="played_again", inventory=none, repository=repository, connection=connection)
    assert contents(server, "played_again") == contents(server, "played")
