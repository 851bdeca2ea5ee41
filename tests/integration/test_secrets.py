# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A password is in no channel, in no form that gives it away: not while a run goes on, not in what it says or leaves."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.samples import locked_table
from tests.keeper import Keeper, command_line, finish, processes_in, write_job
from tests.playbook import run_tasks

PASSWORD = "Mark:er\\4711'\"$ é"
FORMS = {
    PASSWORD,
    PASSWORD.replace("\\", "\\\\").replace(":", "\\:"),  # password file
    PASSWORD.replace("\\", "\\\\").replace("'", "\\'"),  # connection string
    json.dumps(PASSWORD)[1:-1],
    json.dumps(PASSWORD, ensure_ascii=False)[1:-1],
    repr(PASSWORD)[1:-1],
    urllib.parse.quote(PASSWORD),
    urllib.parse.quote_plus(PASSWORD),
    base64.b64encode(PASSWORD.encode()).decode(),
    PASSWORD.encode().hex(),
    "er\\4711",
    "4711'",
}


def assert_silent(text: str, where: str) -> None:
    assert {form for form in FORMS if form in text} == set(), where


@pytest.fixture
def role(keeper: Keeper, fresh_role: Callable[..., str]) -> str:
    name = fresh_role(keeper.server, "LOGIN SUPERUSER")
    keeper.server.psql("ALTER ROLE {} PASSWORD '{}'".format(name, PASSWORD.replace("'", "''")))
    return name


def test_nothing_gives_a_password_away_while_a_run_goes_on_or_afterwards(
    keeper: Keeper, tmp_path: Path, role: str, fresh_database: Callable[..., str]
) -> None:
    name = fresh_database(keeper.server)
    keeper.server.psql("CREATE TABLE t AS SELECT 1 AS a", name)
    place = {
        "login_host": "127.0.0.1",
        "login_port": keeper.server.port,
        "login_user": role,
        "login_password": PASSWORD,
    }
    common = {"repository": str(keeper.repository), "bin_dir": str(keeper.server.bindir), "reserve": "0"}
    option = write_job(tmp_path / "etc", "night", databases=[name], **place, **common)
    with locked_table(keeper.server, name, "t") as wait:
        running = keeper.start("run", option, "night")
        wait()
        seen = [running.pid, *processes_in(keeper.repository)]
        assert any("pg_dump" in command_line(pid) for pid in seen)
        for pid in seen:
            for what in ("cmdline", "environ", "comm", "maps"):
                try:
                    assert_silent(Path(f"/proc/{pid}/{what}").read_bytes().decode(errors="replace"), what)
                except FileNotFoundError:
                    pass  # it has ended
        for path in keeper.repository.rglob("*"):
            assert path.is_dir() or not any(form.encode() in path.read_bytes() for form in FORMS)
    good = finish(running)
    assert good.code == 0
    listing = [keeper.run(*words) for words in (["list", "--json"], ["stats"], ["run", option, "night", "--json"])]
    keeper.server.psql(f"ALTER ROLE {role} PASSWORD 'another'")
    bad = [keeper.run("run", option, "night", *more) for more in ([], ["--json"], ["--dry-run"])]
    assert [done.code for done in bad] == [1, 1, 1]
    for done in (good, *listing, *bad):
        assert_silent(done.out + done.err, str(done))
    for path in keeper.repository.rglob("*"):
        assert path.is_dir() or not any(form.encode() in path.read_bytes() for form in FORMS)


def play(directory: Path, tasks: list[dict[str, Any]]) -> str:
    """Given tasks that find the password in the environment, run them with all that Ansible can say; return it."""
    environment = {"ANSIBLE_LOG_PATH": str(directory / "log"), "PGKEEP_TEST_SECRET": PASSWORD}
    done = run_tasks(directory, tasks, "-vvv", "--diff", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr + (directory / "log").read_text()


def test_nothing_that_ansible_says_gives_a_password_away(keeper: Keeper, tmp_path: Path, role: str) -> None:
    found = "{{ lookup('ansible.builtin.env', 'PGKEEP_TEST_SECRET') }}"
    place = {
        "login_host": "127.0.0.1",
        "login_port": keeper.server.port,
        "login_user": role,
        "login_password": found,
        "repository": str(keeper.repository),
        "bin_dir": str(keeper.server.bindir),
        "reserve": "0",
    }
    backup = {"pgkeep.backup.pg_backup": {**place, "databases": ["postgres"]}}
    said = play(
        tmp_path,
        [
            backup,
            {**backup, "check_mode": True},
            {"pgkeep.backup.pg_backup": {**place, "databases": ["nosuch"]}},
            {"pgkeep.backup.pg_backup": {**place, "login_user": "nosuch"}},
            {"pgkeep.backup.pg_backup": {**place, "databases": ["postgres"], "ssl_mode": "verify-full"}},
            {"pgkeep.backup.pg_backup": {**place, "repository": "/proc/nowhere"}},
            {"pgkeep.backup.pg_backup": {**place, "login_password": found + "\n"}},
            {"pgkeep.backup.pg_backup_info": {"repository": str(keeper.repository)}},
            {"pgkeep.backup.pg_backup_prune": {"repository": str(keeper.repository), "keep_last": 1}},
        ],
    )
    assert said.count("password authentication failed") >= 1
    assert "there is no such database" in said
    assert said.count('"changed": true') >= 1
    assert_silent(said, said)
