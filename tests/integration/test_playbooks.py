# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Playbooks, run as people run them: what they show, what they refuse, and what is there afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.listing import listing

from tests.integration.samples import Engine, contents, make_sample
from tests.keeper import ROOT
from tests.postgres import Server, quote_identifier


class Playbook:
    """The playbook, an inventory of hosts that are all this one, and a repository with two backups of a database."""

    database = "played"

    def __init__(self, directory: Path, server: Server) -> None:
        self.directory, self.server = directory, server
        self.engine = Engine(server, directory / "repository")

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
        connection = {
            "login_unix_socket": str(self.server.socket_dir),
            "login_port": self.server.port,
            "bin_dir": str(self.server.bindir),
        }
        known = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "ansible_become": False,
            "pgkeep_repository": str(self.engine.repository),
            "pgkeep_connection": connection,
            **(inventory or {}),
        }
        written = {"all": {"hosts": dict.fromkeys(hosts), "vars": known}}
        (self.directory / "inventory.json").write_text(json.dumps(written))
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache" / "collections"),
            "ANSIBLE_HOME": str(self.directory / "ansible"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
        }
        program = Path(sys.executable).with_name("ansible-playbook")
        command = [program, "-i", self.directory / "inventory.json", ROOT / f"playbooks/{name}.yml", *arguments]
        command += ["-e", json.dumps(variables)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

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


def test_options_of_the_inventory_count_where_a_run_says_nothing_else(playbook: Playbook) -> None:
    """The playbook `backup`, whose `omit` once took the inventory's options away."""
    options = {"pgkeep_options": {"databases": [playbook.database], "label": "inventory", "globals": False}}
    playbook.run(name="backup", inventory=options)
    playbook.run(name="backup", inventory=options, label="run", databases="postgres")
    found = listing({"repository": str(playbook.engine.repository)}, False, playbook.engine.clock).backups
    assert [(item.title, item.label) for item in found[:2]] == [("postgres", "run"), (playbook.database, "inventory")]
    assert len(found) == 5
